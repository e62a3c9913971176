"""Closure: a calibration made again of what was processed under its payload must find no change. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from calib.calibration import Calibration, NotConverged, NotEnoughData
from calib.channel_sums import PartOfAPool
from calib.payload import Payload
from calib.pulls import furthest
from calib.state import State


class Closes(StrEnum):
    """What closure says of a payload."""

    YES = "closes"
    NO = "does not close"
    NOT_JUDGED = "not judged"


@dataclass(frozen=True)
class Demand:
    """How much of a change is none."""

    sigmas: float = 3.0
    """of a single number; of many, what is as rare for the largest of them"""
    least: Mapping[str, float] = field(default_factory=dict)
    """array to what never counts, in its unit; where it says nothing, what the calibration has as `tolerated`"""


@dataclass(frozen=True, slots=True)
class Closure:
    """The answer, why, and the largest pull there was with the one that is allowed; None where none was to be had."""

    answer: Closes
    why: str
    sigmas: float | None = None
    limit: float | None = None


def close(calibration: Calibration, state: State, in_force: Payload, demand: Demand) -> Closure:
    """Whether a payload stands before what was accumulated under it, of columns as `corrected` gives them.

    The calibration is made again as it was, with what a right payload leaves to find (`left_by`) as the one before.
    """
    expected = calibration.left_by(in_force)
    try:
        found = calibration.finalize(state, expected if calibration.looks_at_previous else None)
    except NotEnoughData as lack:
        return Closure(Closes.NOT_JUDGED, f"too little data: {lack}")
    except NotConverged as failure:
        return Closure(Closes.NO, f"made again it has no answer: {failure}")
    if found.id == expected.id:
        return Closure(Closes.YES, "made again it is the same", 0.0)
    try:
        moves, rules = calibration.apart(found, expected), (calibration.errors_shared, calibration.may_stray)
        most = furthest(moves, demand.sigmas, {**calibration.tolerated, **demand.least}, *rules)
    except ValueError as problem:
        return Closure(Closes.NO, f"made again it is another: {problem}")
    if most is None:
        return Closure(Closes.NOT_JUDGED, "no number of it has an error that a change could be held to")
    answer = Closes.NO if most.beyond else Closes.YES
    return Closure(answer, f"made again it differs in {most}", most.sigmas, most.limit)


def part_of(state: State, units: tuple[int, ...]) -> State | None:
    """What these packed units alone left in a state; None where sums are pooled over more than them."""
    try:
        return state.select(np.array(units, np.int64))
    except PartOfAPool:
        return None
