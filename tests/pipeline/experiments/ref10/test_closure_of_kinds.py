"""Closure of REF10's calibrations, as prompt has it: sound ones close, and a fault in one shows in the first run.

A kind that is new here is a line in `KINDS`: its calibration under settings for few events, what it starts from where
that is not the truth, and how its faults are made (`tests.calib.faulty`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, reduce
from typing import Any

import numpy as np
import pytest

from calib.algorithms.beamspot import BeamSpot
from calib.algorithms.pedestal import Pedestal
from calib.calibration import Calibration
from calib.closure import Closes, Closure, Demand, close
from calib.payload import Payload
from pipeline.experiments.ref10.experiment import Ref10
from pipeline.experiments.ref10.geometry import GEOMETRIES, Geometry, geometry_of
from pipeline.experiments.ref10.layers import CHIP, STRIPS
from pipeline.experiments.ref10.simulate.events import simulate
from pipeline.experiments.ref10.simulate.scenario import Scenario, truth
from pipeline.experiments.testing import measured
from pipeline.model import Step
from tests.calib.faulty import DoubledBeamSpot, DoubledPedestal, FlippedBeamSpot, FlippedPedestal

RUN, SEED, CHUNK = 7, 5, 200
QUIET = {"nzs": 1.0, "z": 0.0, "jpsi": 0.0, "pile_up": 0.05}
"""strips in turn, read out in full, and hardly a particle"""
BUSY = {"nzs": 0.0, "z": 0.0, "jpsi": 0.0, "pile_up": 2.0, "tracks": 40.0}


@dataclass(frozen=True)
class Played:
    """Events of a run; the first half is in express."""

    physics: Mapping[str, float]
    events: int

    @property
    def scenario(self) -> Scenario:
        return Scenario.from_json(json.dumps({"first_run": RUN, "physics": dict(self.physics)}))


def geometry() -> Geometry:
    return geometry_of(GEOMETRIES["mini"]())


def moved_pedestals(true: Payload) -> Payload:
    """The truth, but for every tenth chip."""
    chips = np.arange(len(true["mean"])) // CHIP
    mean = (true["mean"] + np.where(chips % 10 == 0, 3.0, 0.0)).astype(np.float32)
    return Payload(true.kind, {**true.arrays, "mean": mean}, true.units)


def design(true: Payload) -> Payload:
    """What REF10 starts from."""
    return Ref10({"geometry": "mini"}).initial_conditions()[true.kind]


@dataclass(frozen=True)
class Kind:
    """How a kind is calibrated here: its class, one for each fault, its settings, what it starts from, of what."""

    sound: type[Calibration]
    faults: Mapping[str, type[Any]]
    settings: Callable[[], Mapping[str, Any]]
    start: Callable[[Payload], Payload]
    played: Played

    def made(self, fault: str) -> Calibration:
        kind = self.faults[fault] if fault else self.sound
        return kind(**self.settings())


def of_strips() -> Mapping[str, Any]:
    channels = len(geometry().strip_rows) * STRIPS
    return {"channels": channels, "block": STRIPS, "group": CHIP, "min_entries": 20}


KINDS: Mapping[str, Kind] = {
    "pedestal": Kind(
        Pedestal,
        {"flipped": FlippedPedestal, "doubled": DoubledPedestal},
        of_strips,
        moved_pedestals,
        Played(QUIET, 1600),
    ),
    "beamspot": Kind(
        BeamSpot,
        {"flipped": FlippedBeamSpot, "doubled": DoubledBeamSpot},
        lambda: {"min_vertices": 50},
        design,
        Played(BUSY, 200),
    ),
}


@cache
def raw(kind: str) -> tuple[dict[str, Any], ...]:
    played, parts = KINDS[kind].played, []
    for first in range(1, played.events + 1, CHUNK):
        part = simulate(played.scenario, geometry(), SEED, RUN, 1, np.arange(first, first + CHUNK)).raw
        parts.append(part | {name: np.asarray(part[name]).astype(np.int64) for name in ("run", "lumi", "event")})
    return tuple(parts)


def conditions_before(kind: str) -> dict[str, Payload]:
    """The truth, but for what the kind starts from."""
    true = truth(KINDS[kind].played.scenario, geometry(), SEED, RUN, 1)
    return true | {kind: KINDS[kind].start(true[kind])}


def columns(kind: str, step: Step, conditions: Mapping[str, Payload]) -> list[dict[str, Any]]:
    experiment = Ref10({"geometry": "mini"})
    parts = [dict(measured(experiment.process(step, part, conditions), part)) for part in raw(kind)]
    if step is Step.PROMPT:
        return parts
    half = KINDS[kind].played.events // 2
    return [{name: values[part["event"] <= half] for name, values in part.items()} for part in parts]


@cache
def of_express(kind: str) -> list[dict[str, Any]]:
    return columns(kind, Step.EXPRESS, conditions_before(kind))


def closure(kind: str, fault: str = "") -> Closure:
    """What closure says after the first run."""
    calibration, before = KINDS[kind].made(fault), conditions_before(kind)
    states = [calibration.accumulate(part, before) for part in of_express(kind)]
    made = calibration.finalize(reduce(calibration.merge, states), before[kind])
    under = before | {kind: made}
    corrected = [calibration.corrected(part, under) for part in columns(kind, Step.PROMPT, under)]
    again = reduce(calibration.merge, [calibration.accumulate(part, under) for part in corrected])
    return close(calibration, again, made, Demand())


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_one_closes(kind: str) -> None:
    found = closure(kind)
    assert found.answer is Closes.YES, found.why


@pytest.mark.parametrize(("kind", "fault"), [(kind, fault) for kind, one in KINDS.items() for fault in one.faults])
def test_a_fault_shows(kind: str, fault: str) -> None:
    found = closure(kind, fault)
    assert found.answer is Closes.NO, found.why
