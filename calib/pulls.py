"""How far two payloads are apart, element by element, in units of their errors. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, pdtrc

from calib.payload import Payload
from calib.verdict import Floats, element, quantity

FEWEST_TOGETHER = 10
"""of fewer elements a mean says nothing that the largest does not say"""
MOST_SIGMA = 10.0
"""times the usual error; what is known worse would drown the others in a mean"""


@dataclass(frozen=True, eq=False)
class Apart:
    """One array of two payloads: `move` is how much more the first has, `sigma` the error of that, in `unit`.

    Float64 of the shape of the array; NaN where one of the two is no number, or none of them has an error.
    """

    move: Floats
    sigma: Floats
    unit: str = ""

    def pulls(self, least: float = 0.0) -> Floats:
        """Moves in units of their errors; `least` is taken off each, for that much is no move."""
        beyond = np.sign(self.move) * np.maximum(np.abs(self.move) - least, 0.0)
        found: Floats = beyond / self.sigma
        return found


def apart(one: Payload, other: Payload) -> dict[str, Apart]:
    """The arrays that both payloads have, with errors `NAME_error` in one of them at least.

    Errors are added in quadrature; where there is none, or it is 0, the value is taken as exact. A value whose error is
    no number was not measured (a design value, say), and has no distance. Of samples that have events in common the
    difference has a smaller error than that, never a larger one: a pull is then too small rather than too large.
    Raises ValueError where an array has another shape or unit in the two.
    """
    names = [name for name in sorted(one.arrays) if name in other.arrays and one[name].dtype.kind in "iuf"]
    return {
        name: _apart(name, one, other)
        for name in names
        if any(f"{name}_error" in payload.arrays for payload in (one, other))
    }


def _apart(name: str, one: Payload, other: Payload) -> Apart:
    same_shape(one, other, name)
    sigma = np.hypot(error_of(name, one), error_of(name, other))
    with np.errstate(invalid="ignore"):  # infinity less infinity is no number, and is called none
        move = one[name].astype(np.float64) - other[name].astype(np.float64)
    known = np.isfinite(move) & np.isfinite(sigma) & (sigma > 0)
    return Apart(np.where(known, move, np.nan), np.where(known, sigma, np.nan), one.units.get(name, ""))


def error_of(name: str, payload: Payload) -> Floats:
    """The errors of an array, of its shape; 0 where there are none."""
    given = payload.arrays.get(f"{name}_error")
    if given is None or given.shape not in ((), payload[name].shape):
        return np.zeros(payload[name].shape)
    return np.broadcast_to(given.astype(np.float64), payload[name].shape)


def of_measured(one: Payload, other: Payload, kept: int, off: int) -> dict[str, Apart]:
    """As `apart`, of payloads with a `status` of bits: elements that have one of `kept` in either have no distance, for
    they keep what they had. Those that are `off` in the first alone are counted instead, as `status`."""
    flags, before = (_flags(payload, kept | off) for payload in (one, other))
    measured = (before & kept) == 0
    found = {}
    for name, each in apart(one, other).items():
        if name != "status" and each.move.shape[:1] == measured.shape:
            mask = (measured & ((flags & kept) == 0)).reshape(-1, *[1] * (each.move.ndim - 1))
            each = Apart(np.where(mask, each.move, np.nan), each.sigma, each.unit)
        found[name] = each
    number = np.count_nonzero(measured & ((flags & off) != 0))
    return found | {"status": Apart(np.array(float(number)), np.array(np.sqrt(1.0 + np.count_nonzero(before & off))))}


def _flags(payload: Payload, bits: int) -> NDArray[np.int64]:
    return payload["status"].astype(np.int64) & bits if "status" in payload.arrays else np.zeros(1, np.int64)


def of_count(number: int, by_chance: float) -> Apart:
    """How many there are of what should hardly be: no more than so many are expected.

    Its error is such that the pull has the probability that Poisson's law gives to as many or more; one that is as
    rare as 1e-300 is taken for that, and one as many as expected, or fewer, has none.
    """
    chance = max(float(pdtrc(number - 1, by_chance)), 1e-300) if number else 1.0
    sigmas = -float(ndtri(chance)) if chance < 0.5 else 0.0
    return Apart(np.array(float(number)), np.array(number / sigmas if sigmas > 0 else np.inf))


def same_shape(one: Payload, other: Payload, name: str) -> None:
    """Raise ValueError where an array has another shape or unit in two payloads."""
    said = [f"of shape {p[name].shape} in {p.units.get(name, '') or 'no unit'}" for p in (one, other)]
    if said[0] != said[1]:
        raise ValueError(f"{name} is {said[0]} and {said[1]}")


@dataclass(frozen=True, slots=True)
class Furthest:
    """What of several arrays is furthest from no move: an element, or all elements of an array together.

    `sigmas` may be so many, `limit`: one as unlikely among as many as there are as `asked` sigmas are for one alone.
    """

    what: str
    move: float
    unit: str
    sigmas: float
    limit: float
    compared: int
    """elements in all"""
    asked: float

    @property
    def beyond(self) -> bool:
        """Whether it is more than chance has."""
        return self.sigmas > self.limit

    def __str__(self) -> str:
        return (
            f"{self.what} by {quantity(self.move, self.unit)}, {self.sigmas:.3g} sigma; "
            f"{self.limit:.3g} are {self.asked:.3g} among {self.compared}"
        )


def furthest(
    found: Mapping[str, Apart],
    sigmas: float,
    least: Mapping[str, float],
    alone: tuple[str, ...] = (),
    strays: float = 0.0,
) -> Furthest | None:
    """What is furthest, measured by its own limit; None where nothing can be compared.

    Two things are looked at: the largest pull of each array, and the mean move of one with ten elements or more that
    moved, which shows what all of them share (0.2 sigma in 10^4 channels are 20 sigma). Of an array in `alone`, whose
    elements have errors in common, the mean says nothing. A share `strays` of each array, the furthest of it, is not
    looked at one by one.
    """
    largest, together = [], []
    compared = 0
    for name, one in found.items():
        pulls = one.pulls(least.get(name, 0.0)).reshape(-1)
        known = np.isfinite(pulls)
        if not known.any():
            continue
        number = int(np.count_nonzero(known))
        compared += number
        worst = _furthest_but(np.where(known, np.abs(pulls), -1.0), int(strays * number))
        move = float(one.move.flat[worst])
        largest.append((abs(float(pulls[worst])), element(name, one.move, worst), move, one.unit))
        if name not in alone and (shared := _shared(name, one, known, least.get(name, 0.0))) is not None:
            together.append(shared)
    if not compared:
        return None
    limit = limit_among(compared + len(together), sigmas)
    size, what, move, unit = max(largest + together, key=lambda row: row[0])
    return Furthest(what, move, unit, float(size), limit, compared, sigmas)


def _furthest_but(sizes: Floats, some: int) -> int:
    """The place of the largest but for so many."""
    return int(np.argpartition(sizes, -1 - some)[-1 - some])


def _shared(name: str, one: Apart, known: NDArray[np.bool_], least: float) -> tuple[float, str, float, str] | None:
    """How many sigmas the mean move is off nothing; of the moves themselves, for an error that goes with its value, as
    that of a width does, skews pulls.

    Elements that did not move at all were carried and do not count; nor do those with ten times the usual error.
    """
    move, sigma = one.move.reshape(-1), one.sigma.reshape(-1)
    counts = known & (move != 0)
    if counts.any():
        counts &= sigma <= MOST_SIGMA * np.median(sigma[counts])
    number = int(np.count_nonzero(counts))
    if number < FEWEST_TOGETHER:
        return None
    mean, error = float(move[counts].mean()), float(np.sqrt(np.square(sigma[counts]).sum()) / number)
    return max(abs(mean) - least, 0.0) / error, f"all {number} of {name}", mean, one.unit


def limit_among(number: int, sigmas: float) -> float:
    """The largest pull of `number` is above this as rarely as a single one is above `sigmas`, on either side.

    >>> [round(limit_among(n, 3.0), 2) for n in (1, 10, 10_000)]
    [3.0, 3.64, 5.14]
    """
    chance = 2 * ndtr(-sigmas)
    return float(-ndtri(-np.expm1(np.log1p(-chance) / number) / 2))
