"""The beam spot after alignment: of displaced pixels, one pass has the beam where they are, the second where it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from calib.accumulators import UnitSums
from calib.algorithms.beamspot import BeamSpot
from calib.algorithms.pedestal import Pedestal
from calib.calibration import Calibration, Columns, packed_units
from calib.iov import RunLumi
from calib.payload import Payload
from calib.state import State
from pipeline.experiments.ref10 import daq
from pipeline.experiments.ref10.experiment import Ref10
from pipeline.experiments.ref10.geometry import GEOMETRIES, geometry_of
from pipeline.experiments.ref10.simulate.events import simulate
from pipeline.experiments.ref10.simulate.faults import Misalignment
from pipeline.experiments.ref10.simulate.scenario import Beam, Physics, Region, Scenario, truth
from pipeline.model import Stream
from pipeline.processing import nothing
from pipeline.tier0 import Tier0

UM = 1e-4
RUN, SEED, LUMIS, EVENTS = 7, 41, 4, 150
REGION = Region(0.08, -0.04, 0.5, 15 * UM, 15 * UM, 4.0, 0.0, 0.0)
# Of the pixels the halves are off by (50, -30, 40) and (-20, 60, -80) um: by (15, 15, -20) in the mean.
SCENARIO = Scenario(
    beam=Beam(start=REGION, drift_um=0.0, step_um=0.0),
    physics=Physics(pile_up=1.0, tracks=20.0, z=0.0, jpsi=0.0, nzs=0.0),
    misalignment=Misalignment(ladder_um=(0, 0), ladder_urad=(0, 0), module_um=(0, 0), module_urad=(0, 0)),
)
FULL = {"experiment": {"name": "ref10", "settings": {"geometry": "full"}}, "splitting": {"events": 50}}


@dataclass(frozen=True, kw_only=True)
class Told(Calibration):
    """An alignment that finds where everything is, whatever it sees."""

    kind: ClassVar[str] = "alignment"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("track_d0",)

    def accumulate(self, columns: Columns, conditions: Any) -> State:
        return State({"events": UnitSums.of_rows(packed_units(columns), np.ones((len(columns["event"]), 1), np.int64))})

    def empty(self) -> State:
        return State({"events": UnitSums.empty((1,))})

    def finalize(self, state: State, previous: Payload | None) -> Payload:
        return truth(SCENARIO, geometry_of(GEOMETRIES["full"]()), SEED, RUN, 1)["alignment"]


class Before(BeamSpot):
    """Goes after nothing: of the one pass that express makes."""

    after: ClassVar[tuple[str, ...]] = ()


class TwoPasses(Ref10):
    """With an alignment before the beam spot."""

    beam: ClassVar[type[BeamSpot]] = BeamSpot

    def calibrations(self) -> tuple[Calibration, ...]:
        [pedestals] = [c for c in super().calibrations() if isinstance(c, Pedestal)]
        return (pedestals, Told(), self.beam())


class OnePass(TwoPasses):
    """With an alignment beside it."""

    beam: ClassVar[type[BeamSpot]] = Before


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, paths = tmp_path_factory.mktemp("raw"), []
    for lumi in range(1, LUMIS + 1):
        made = simulate(SCENARIO, geometry_of(GEOMETRIES["full"]()), SEED, RUN, lumi, np.arange(EVENTS)).raw
        paths += [daq.raw_path(folder, stream, RunLumi(RUN, lumi)) for stream in Stream]
        for path in paths[-len(Stream) :]:
            daq.write_raw(path, made, daq.Format.TTREE, nothing)
    return paths


def beam_of(house: Any, files: list[Path], experiment: Ref10, area: str) -> tuple[Payload, str]:
    """What a run was released under, and what is said of it."""
    with Tier0(house(area, **FULL), experiment) as tier0:
        assert tier0.run(*files, progress=False)[RUN].certified
        [stretch] = tier0._world.books.manifest(RUN).kinds["beamspot"]
        return tier0._world.store.get(stretch.payload), tier0.why(RUN)


@pytest.mark.verify
@pytest.mark.timeout(1200)
def test_the_second_pass_mends_the_beam_of_displaced_pixels(house: Any, files: list[Path]) -> None:
    settings = FULL["experiment"]["settings"]
    blind, said = beam_of(house, files, OnePass(settings), "one")
    assert "pass for" not in said
    aligned, said = beam_of(house, files, TwoPasses(settings), "two")
    assert f"run {RUN}: pass for beamspot reads RECO of the earlier pass, not RAW (" in said
    for axis in "xy":
        true, error = getattr(REGION, axis), float(aligned[f"{axis}_error"])
        assert error < 3 * UM
        assert float(blind[axis]) - true == pytest.approx(-15 * UM, abs=4 * UM + 4 * error)
        assert abs(float(aligned[axis]) - true) < 4 * error
