"""How two histories, and two payloads, differ. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.payload import Array, Payload
from calib.tags import Moment, Validity
from calib.verdict import element, quantity


@dataclass(frozen=True, slots=True)
class Difference:
    """An interval, half open, over which two histories hold different payloads; None: nothing."""

    since: Moment
    until: Moment | None
    one: str | None
    other: str | None


def differences(one: Sequence[Validity], other: Sequence[Validity]) -> list[Difference]:
    """Where two histories by the same clock differ, in order; neighbours with the same pair of payloads are joined.

    Each is in order and without overlaps, as `ConditionsReader.intervals` gives it.
    """
    edges = sorted({edge for v in (*one, *other) for edge in (v.since, v.until) if edge is not None}, key=_place)
    found: list[Difference] = []
    for since, until in zip(edges, (*edges[1:], None), strict=False):
        pair = _held(one, since), _held(other, since)
        if pair[0] == pair[1]:
            continue
        if found and found[-1].until == since and (found[-1].one, found[-1].other) == pair:
            since = found.pop().since
        found.append(Difference(since, until, *pair))
    return found


def _place(moment: Moment) -> Any:
    return moment


def _held(history: Sequence[Validity], at: Moment) -> str | None:
    place = bisect_right(history, at, key=lambda validity: validity.since) - 1
    if place < 0:
        return None
    until: Any = history[place].until
    return history[place].payload_id if until is None or at < until else None


class Lacking(StrEnum):
    """Which of two payloads has no array of a name."""

    ONE = "one"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Distance:
    """How far one array of a payload is from the same of another.

    `largest` is the largest distance, at the element `where`, in `unit`; `sigma` the largest in errors of both in
    quadrature, None where neither has an error; `changed` of `size` elements differ, `numberless` of them because only
    one of the two is a number: these have no distance. Of `truth` values there is none that means anything. Where the
    arrays cannot be compared `why` says so, and there are no numbers.
    """

    array: str
    unit: str = ""
    largest: float = 0.0
    where: str = ""
    sigma: float | None = None
    changed: int = 0
    size: int = 0
    numberless: int = 0
    truth: bool = False
    why: str = ""
    lacking: Lacking | None = None

    @property
    def far(self) -> str:
        """How far, as people read it.

        >>> Distance("x", "cm", 0.5, "x[1]", changed=3, size=8, numberless=1).far
        '0.5 cm at x[1]; no number in one of the two: 1'
        """
        if self.truth:
            return "changed"
        at = "" if self.where == self.array else f" at {self.where}"
        measured = [f"{quantity(self.largest, self.unit)}{at}"] if self.changed > self.numberless else []
        numberless = [f"no number in one of the two: {self.numberless}"] if self.numberless else []
        return "; ".join([*measured, *numberless])


def distances(one: Payload, other: Payload) -> list[Distance]:
    """How far two payloads of a kind are apart, by array; what is equal is left out.

    Two values that are both no number are equal; one that is a number and one that is not differ by no distance.
    The errors are those of arrays `NAME_error`; one that is no number counts as none.
    """
    names = sorted({*one.arrays, *other.arrays})
    found = [_distance(name, one, other) for name in names]
    return [distance for distance in found if distance is not None]


def _distance(name: str, one: Payload, other: Payload) -> Distance | None:
    for lacking, has, which in ((one, other, Lacking.ONE), (other, one, Lacking.OTHER)):
        if name not in lacking.arrays:
            return Distance(name, has.units.get(name, ""), why=f"the {which} has none", lacking=which)
    units = one.units.get(name, ""), other.units.get(name, "")
    if units[0] != units[1]:
        return Distance(name, why=f"in {units[0] or 'no unit'} and in {units[1] or 'no unit'}")
    left, right = one[name], other[name]
    if left.shape != right.shape:
        return Distance(name, units[0], why=f"of shape {left.shape} and of shape {right.shape}")
    apart = _apart(left, right)
    numberless = np.isnan(apart)
    changed, missing = int(np.count_nonzero(apart)), int(np.count_nonzero(numberless))
    if not changed:
        return None if left.dtype == right.dtype else Distance(name, units[0], why=f"{left.dtype} and {right.dtype}")
    truth = left.dtype.kind == right.dtype.kind == "b"
    apart = np.where(numberless, 0.0, apart)
    most = int(np.argmax(apart if missing < changed else numberless))
    where, largest = element(name, apart, most), float(apart.flat[most])
    known = apart[~numberless], *(errors[~numberless] for errors in (_errors(one, name), _errors(other, name)))
    sigma = None if truth else _most_sigma(*known)
    return Distance(name, units[0], largest, where, sigma, changed, apart.size, missing, truth)


def _apart(left: Array, right: Array) -> NDArray[np.float64]:
    """The distance of each two values, as a double; 0 only where they are equal, NaN where one is no number."""
    if left.dtype.kind in "iu" and left.dtype == right.dtype:
        # Of integers so large that a double would round the difference away.
        low, high = np.minimum(left, right).astype(np.uint64), np.maximum(left, right).astype(np.uint64)
        with np.errstate(over="ignore"):  # signed ones become unsigned by going round; their difference is right
            return np.subtract(high, low).astype(np.float64)
    old, new = left.astype(np.float64), right.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.where(old == new, 0.0, np.abs(new - old))
    both = np.isnan(old) & np.isnan(new)
    return np.where(both, 0.0, apart)


def _errors(payload: Payload, name: str) -> NDArray[np.float64]:
    error = payload.arrays.get(f"{name}_error")
    if error is None or error.shape not in ((), payload[name].shape):
        return np.zeros(payload[name].shape)
    found = error.astype(np.float64)
    return np.broadcast_to(np.where(np.isfinite(found) & (found > 0), found, 0.0), payload[name].shape)


def _most_sigma(apart: NDArray[np.float64], one: NDArray[np.float64], other: NDArray[np.float64]) -> float | None:
    error = np.hypot(one, other)
    has = error > 0
    return float((apart[has] / error[has]).max()) if has.any() else None
