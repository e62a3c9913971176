from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import awkward as ak
import numpy as np
import pytest

from calib.algorithms.beamspot_payload import nominal
from calib.iov import RunLumi
from calib.payload import Payload
from pipeline.columns import join
from pipeline.events import SourceFile
from pipeline.experiments.interface import Experiment, MissingBranch
from pipeline.experiments.testing import ExperimentLaws, MemorySource, read
from pipeline.experiments.toy_collider import ToyCollider
from pipeline.experiments.toy_generator import Beam, Scenario, generate, simulate
from pipeline.model import Step


def of(beam: Beam) -> Mapping[str, Payload]:
    return {"beamspot": nominal(x=beam.x, y=beam.y, z=beam.z, dxdz=beam.dxdz, dydz=beam.dydz)}


class TestToyCollider(ExperimentLaws):
    @pytest.fixture
    def experiment(self) -> Experiment:
        return ToyCollider()

    @pytest.fixture
    def source(self) -> MemorySource:
        scenario = Scenario(empty=0.2)
        units = [simulate(scenario, scenario.start, RunLumi(1, lumi), 8, seed=1) for lumi in (1, 2, 4)]
        return MemorySource(Path("run_1.root"), {"Events": join(units)})

    @pytest.fixture
    def conditions(self) -> Mapping[str, Payload]:
        return of(Scenario().start)


def test_a_generated_file_goes_through(tmp_path: Path) -> None:
    truth = generate(tmp_path, runs=[1], lumis=2, events=300)
    experiment = ToyCollider()
    source = SourceFile.open(truth.files[0])
    events = read(experiment, source, Step.PROMPT)
    assert np.unique(events["lumi"]).tolist() == [1, 2]
    at = RunLumi(1, 1)
    first = {name: values[events["lumi"] == 1] for name, values in events.items()}
    processed = experiment.process(Step.PROMPT, first, of(truth.beams[at]))
    empty = processed.filtered["nothing in it"]
    assert 0 < empty.sum() < 30
    assert len(processed.tiers["NANO"]["Track_dxy"]) == 300 - empty.sum()
    for axis in "xy":
        offset = ak.to_numpy(ak.flatten(processed.measured[f"beam_d{axis}"]))
        offset = offset[np.abs(offset) < 1000]
        assert offset.mean() == pytest.approx(0, abs=5 * offset.std() / np.sqrt(len(offset)))


def test_a_beam_beside_its_conditions_shows() -> None:
    scenario = Scenario()
    columns = simulate(scenario, scenario.start, RunLumi(1, 1), 300, seed=1)
    source = MemorySource(Path("run_1.root"), {"Events": columns})
    experiment = ToyCollider()
    events = read(experiment, source, Step.PROMPT)
    beside = dataclasses.replace(scenario.start, x=scenario.start.x - 40e-4)
    offset = ak.to_numpy(ak.flatten(experiment.process(Step.PROMPT, events, of(beside)).measured["beam_dx"]))
    assert offset[np.abs(offset) < 1000].mean() == pytest.approx(40, abs=8)


def test_a_missing_branch_is_named() -> None:
    scenario = Scenario()
    columns = simulate(scenario, scenario.start, RunLumi(1, 1), 3, seed=1)
    source = MemorySource(Path("run_1.root"), {"Events": columns})
    with pytest.raises(MissingBranch, match="Track_d0Error"):
        ToyCollider().wanted(Step.EXPRESS, source.without("Events", "Track_d0Error").branches("Events"))
    with pytest.raises(MissingBranch, match="luminosityBlock"):
        ToyCollider().identify(source.without("Events", "luminosityBlock"), 0, 3)
