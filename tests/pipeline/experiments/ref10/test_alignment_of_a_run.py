"""Half barrels of pixels out of place, through the chain: found pass by pass, and the beam where it is behind them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calib.algorithms.beamspot import BeamSpot
from calib.algorithms.pedestal import Pedestal
from calib.calibration import Calibration
from calib.iov import RunLumi
from pipeline.experiments.ref10 import daq
from pipeline.experiments.ref10.experiment import Ref10
from pipeline.experiments.ref10.geometry import GEOMETRIES, geometry_of
from pipeline.experiments.ref10.measured_alignment import alignment_calibration
from pipeline.experiments.ref10.simulate.events import simulate
from pipeline.experiments.ref10.simulate.faults import Misalignment
from pipeline.experiments.ref10.simulate.scenario import Beam, Physics, Region, Scenario, truth
from pipeline.model import Stream
from pipeline.processing import nothing
from pipeline.tier0 import Tier0

UM = 1e-4
RUN, SEED, LUMIS, EVENTS = 7, 43, 4, 200
GEOMETRY = geometry_of(GEOMETRIES["full"]())
REGION = Region(0.08, -0.04, 0.5, 15 * UM, 15 * UM, 4.0, 0.0, 0.0)
SCENARIO = Scenario(
    beam=Beam(start=REGION, drift_um=0.0, step_um=0.0),
    physics=Physics(pile_up=0.0, z=0.4, jpsi=0.4, nzs=0.0),
    misalignment=Misalignment(ladder_um=(0, 0), ladder_urad=(0, 0), module_um=(0, 0), module_urad=(0, 0)),
)
FULL = {"experiment": {"name": "ref10", "settings": {"geometry": "full"}}, "splitting": {"events": 100}}


class Aligned(Ref10):
    """Pedestals, the half barrels of the pixels, and the beam spot."""

    def calibrations(self) -> tuple[Calibration, ...]:
        [pedestals] = [c for c in super().calibrations() if isinstance(c, Pedestal)]
        halves = replace(alignment_calibration(GEOMETRY), free=("half_barrel 0-1: x y z",), min_records=500)
        return (pedestals, halves, BeamSpot())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, paths = tmp_path_factory.mktemp("raw"), []
    for lumi in range(1, LUMIS + 1):
        made = simulate(SCENARIO, GEOMETRY, SEED, RUN, lumi, np.arange(EVENTS)).raw
        paths += [daq.raw_path(folder, stream, RunLumi(RUN, lumi)) for stream in Stream]
        for path in paths[-len(Stream) :]:
            daq.write_raw(path, made, daq.Format.TTREE, nothing)
    return paths


@pytest.mark.verify
@pytest.mark.timeout(1800)
def test_half_barrels_are_aligned_in_passes_and_the_beam_behind_them(house: Any, files: list[Path]) -> None:
    with Tier0(house("area", **FULL), Aligned(FULL["experiment"]["settings"])) as tier0:
        assert tier0.run(*files, progress=False)[RUN].certified
        kinds = tier0._world.books.manifest(RUN).kinds
        found = {kind: tier0._world.store.get(kinds[kind][0].payload) for kind in ("alignment", "beamspot")}
        said = tier0.why(RUN)
    assert "pass for alignment reads RECO of the earlier pass" in said and "fresh" in said and "converged in" in said
    aligned, beam = found["alignment"], found["beamspot"]
    off = (aligned["half_barrel"] - truth(SCENARIO, GEOMETRY, SEED, RUN, 1)["alignment"]["half_barrel"])[:2, :3]
    errors = aligned["half_barrel_error"][:2, :3]
    assert (errors[:, :2] < 4 * UM).all()
    assert np.abs(off / errors).max() < 4
    for axis in "xy":
        assert abs(float(beam[axis]) - getattr(REGION, axis)) < 4 * float(beam[f"{axis}_error"]) + 3 * UM
