"""Closure of REF10's calibrations, as prompt has it: sound ones close, and a fault in one shows in the first run.

A kind that is new here is a line in `KINDS`: settings for few events, what it starts from where that is not the design,
of which events; and how its faults are made, in `tests.calib.faulty`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache, reduce
from typing import Any

import numpy as np
import pytest

from calib.calibration import Calibration
from calib.closure import Closes, Closure, Demand, close
from calib.payload import Payload
from pipeline.experiments.ref10.experiment import Ref10
from pipeline.experiments.ref10.geometry import GEOMETRIES, geometry_of
from pipeline.experiments.ref10.layers import CHIP
from pipeline.experiments.ref10.simulate.events import simulate
from pipeline.experiments.ref10.simulate.scenario import Scenario, truth
from pipeline.experiments.testing import measured
from pipeline.model import Step
from tests.calib.faulty import Doubled, Flipped, FlippedCodes, OneDeadGroup

RUN, SEED, CHUNK = 7, 5, 100
QUIET = {"nzs": 1.0, "z": 0.0, "jpsi": 0.0, "pile_up": 0.05}
"""strips in turn, read out in full, and hardly a particle"""
BUSY = {"nzs": 0.0, "z": 0.0, "jpsi": 0.0, "pile_up": 2.0, "tracks": 40.0}
MUONS = {"nzs": 0.0, "z": 1.0, "jpsi": 0.0, "pile_up": 0.5, "tracks": 20.0}
FAULTS: Mapping[str, type[Any]] = {"flipped": Flipped, "doubled": Doubled}


@dataclass(frozen=True)
class Kind:
    """How a kind is calibrated here: of which events of which geometry, the first half of them in express; settings
    that differ from the experiment's; what it starts from, from the truth; what its faults are."""

    physics: Mapping[str, float]
    events: int
    geometry: str = "mini"
    settings: Mapping[str, Any] = field(default_factory=dict)
    start: Callable[[Payload], Payload] | None = None
    faults: Mapping[str, type[Any]] = field(default_factory=lambda: FAULTS)
    broken: Mapping[str, Any] = field(default_factory=dict)
    """of the detector, otherwise than usual"""

    @property
    def scenario(self) -> Scenario:
        told = {"first_run": RUN, "physics": dict(self.physics), "faults": dict(self.broken)}
        return Scenario.from_json(json.dumps(told))


def moved_pedestals(true: Payload) -> Payload:
    """The truth, but for every tenth chip: by more than what counts as drift."""
    chips = np.arange(len(true["mean"])) // CHIP
    mean = (true["mean"] + np.where(chips % 10 == 0, 6.0, 0.0)).astype(np.float32)
    return Payload(true.kind, {**true.arrays, "mean": mean}, true.units)


STATUS_FAULTS = {"flipped": FlippedCodes, "doubled": Doubled, "one dead chip": OneDeadGroup}
DEAD_ROCS = {"dead_rocs": 100, "dead_roc": {}}
"""from the beginning on; four in ten are where there are hits enough to tell"""
KINDS: Mapping[str, Kind] = {
    "pedestal": Kind(QUIET, 1600, settings={"min_entries": 20}, start=moved_pedestals),
    "strip_status": Kind(BUSY, 800, faults=STATUS_FAULTS),
    "pixel_status": Kind(BUSY, 800, faults=STATUS_FAULTS, broken=DEAD_ROCS),
    # Most of the chips are hit too rarely in so few events, and keep what they had: closure looks at the others.
    "gain": Kind(BUSY, 800, settings={"min_entries": 10, "most_few": 1.0}),
    "lorentz_angle": Kind(BUSY, 600, "full"),
    "alignment": Kind(
        MUONS,
        800,
        "full",
        {"free": ("half_barrel 0-1: x y z",), "survey": (), "min_records": 100, "min_entries": 10},
    ),
    "beamspot": Kind(BUSY, 200, settings={"min_vertices": 50}),
}
LONG = {"pixel_status", "lorentz_angle", "alignment"}


def faulty(sound: Calibration, fault: type[Any]) -> Calibration:
    """The same with a fault in it."""
    made: Any = type(f"{fault.__name__}{type(sound).__name__}", (fault, type(sound)), {})
    found: Calibration = made(**{each.name: getattr(sound, each.name) for each in fields(sound)})
    return found


def experiment(kind: str) -> Ref10:
    return Ref10({"geometry": KINDS[kind].geometry})


def calibration(kind: str, fault: str) -> Calibration:
    [own] = [one for one in experiment(kind).calibrations() if one.kind == kind]
    given: dict[str, Any] = {each.name: getattr(own, each.name) for each in fields(own)} | dict(KINDS[kind].settings)
    sound = type(own)(**given)
    return faulty(sound, KINDS[kind].faults[fault]) if fault else sound


def raw(kind: str) -> tuple[dict[str, Any], ...]:
    played = KINDS[kind]
    return events_of(played.scenario, played.events, played.geometry)


@cache
def events_of(scenario: Scenario, events: int, geometry: str) -> tuple[dict[str, Any], ...]:
    parts, detector = [], geometry_of(GEOMETRIES[geometry]())
    for first in range(1, events + 1, CHUNK):
        part = simulate(scenario, detector, SEED, RUN, 1, np.arange(first, first + CHUNK)).raw
        parts.append(part | {name: np.asarray(part[name]).astype(np.int64) for name in ("run", "lumi", "event")})
    return tuple(parts)


def conditions_before(kind: str) -> dict[str, Payload]:
    """The truth, but for what the kind starts from."""
    played = KINDS[kind]
    true = truth(played.scenario, geometry_of(GEOMETRIES[played.geometry]()), SEED, RUN, 1)
    start = played.start(true[kind]) if played.start else experiment(kind).initial_conditions()[kind]
    return true | {kind: start}


def columns(kind: str, step: Step, conditions: Mapping[str, Payload]) -> list[dict[str, Any]]:
    some = raw(kind)[: len(raw(kind)) // 2] if step is Step.EXPRESS else raw(kind)
    return [dict(measured(experiment(kind).process(step, part, conditions), part)) for part in some]


@cache
def of_express(kind: str) -> list[dict[str, Any]]:
    return columns(kind, Step.EXPRESS, conditions_before(kind))


def closure(kind: str, fault: str = "") -> Closure:
    """What closure says after the first run."""
    one, before = calibration(kind, fault), conditions_before(kind)
    made = one.finalize(reduce(one.merge, [one.accumulate(part, before) for part in of_express(kind)]), before[kind])
    under = before | {kind: made}
    corrected = [one.corrected(part, under) for part in columns(kind, Step.PROMPT, under)]
    return close(one, reduce(one.merge, [one.accumulate(part, under) for part in corrected]), made, Demand())


def cases(*more: Any) -> list[Any]:
    every = [
        (kind, *each) for kind in KINDS for each in (((fault,) for fault in KINDS[kind].faults) if more else ((),))
    ]
    return [pytest.param(*case, marks=pytest.mark.verify if case[0] in LONG else ()) for case in every]


@pytest.mark.parametrize("kind", cases())
def test_a_sound_one_closes(kind: str) -> None:
    found = closure(kind)
    assert found.answer is Closes.YES, found.why


@pytest.mark.parametrize(("kind", "fault"), cases("fault"))
def test_a_fault_shows(kind: str, fault: str) -> None:
    found = closure(kind, fault)
    assert found.answer is Closes.NO, found.why
