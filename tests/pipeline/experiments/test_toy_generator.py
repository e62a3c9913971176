from __future__ import annotations

from pathlib import Path

import awkward as ak
import numpy as np
import pytest

from calib.iov import RunLumi
from pipeline.events import SourceFile
from pipeline.experiments.testing import differences
from pipeline.experiments.toy_generator import BLOCK, Scenario, Truth, generate, simulate


def test_files_hold_what_was_simulated(tmp_path: Path) -> None:
    truth = generate(tmp_path, runs=[7, 9], lumis=3, events=BLOCK + 5, seed=4)
    assert truth.events == 2 * 3 * (BLOCK + 5)
    assert truth == Truth.read(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run_7.root", "run_9.root", "truth.json"]
    source = SourceFile.open(truth.files[1])
    entries = 3 * (BLOCK + 5)
    assert source.arrays("Events", ("event",), 0, entries)["event"].tolist() == list(range(1, entries + 1))
    names = tuple(source.branches("Events") - {"nTrack", "nPV"})
    written = source.arrays("Events", names, entries - BLOCK - 5, entries)
    at = RunLumi(9, 3)
    expected = simulate(Scenario(step_at=truth.step_at), truth.beams[at], at, BLOCK + 5, seed=4)
    assert differences(written, expected) == []


def test_an_event_depends_on_no_other() -> None:
    scenario, at = Scenario(), RunLumi(5, 2)
    few = simulate(scenario, scenario.start, at, 10, seed=1)
    many = simulate(scenario, scenario.start, at, 3 * BLOCK, seed=1)
    of_many = {name: values[:10] for name, values in many.items() if name != "event"}
    assert differences({name: few[name] for name in of_many}, of_many) == []


@pytest.mark.parametrize(("at", "seed"), [(RunLumi(5, 2), 2), (RunLumi(5, 3), 1), (RunLumi(6, 2), 1)])
def test_other_units_and_seeds_are_other_events(at: RunLumi, seed: int) -> None:
    scenario = Scenario()
    one = simulate(scenario, scenario.start, RunLumi(5, 2), BLOCK, seed=1)
    other = simulate(scenario, scenario.start, at, BLOCK, seed)
    assert not np.array_equal(ak.to_numpy(ak.flatten(one["PV_x"]))[:20], ak.to_numpy(ak.flatten(other["PV_x"]))[:20])


def test_the_beam_drifts_and_jumps(tmp_path: Path) -> None:
    truth = generate(tmp_path, runs=[1, 2], lumis=4, events=1)
    assert truth.step_at == RunLumi(2, 3)
    x = np.array([truth.beams[RunLumi(run, lumi)].x for run in (1, 2) for lumi in (1, 2, 3, 4)]) * 1e4
    np.testing.assert_allclose(np.diff(x), [0.5, 0.5, 0.5, 0.5, 0.5, 40.5, 0.5])


def test_vertices_and_tracks_come_from_the_beam() -> None:
    scenario = Scenario(displaced=0.0)
    beam = scenario.start
    columns = simulate(scenario, beam, RunLumi(1, 1), 5000, seed=1)
    x, z, error = (ak.to_numpy(ak.flatten(columns[name])).astype(float) for name in ("PV_x", "PV_z", "PV_xErr"))
    n = len(x)
    assert np.mean(ak.num(columns["Track_pt"]) == 0) == pytest.approx(scenario.empty, abs=0.01)
    # Five standard errors each.
    assert z.mean() == pytest.approx(beam.z, abs=5 * beam.sigma_z / np.sqrt(n))
    assert z.std() == pytest.approx(beam.sigma_z, abs=5 * beam.sigma_z / np.sqrt(2 * n))
    pull = (x - beam.x - beam.dxdz * (z - beam.z)) / np.hypot(beam.width_x, error)
    assert pull.mean() == pytest.approx(0, abs=5 / np.sqrt(n))
    assert pull.std() == pytest.approx(1, abs=5 / np.sqrt(2 * n))
    d0, phi, d0_error = (
        ak.to_numpy(ak.flatten(columns[f"Track_{name}"])).astype(float) for name in ("d0", "phi", "d0Error")
    )
    pull = (d0 - beam.x * np.sin(phi) + beam.y * np.cos(phi)) / np.hypot(d0_error, beam.width_x)
    assert pull.std() == pytest.approx(1, abs=0.05)
