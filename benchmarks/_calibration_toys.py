"""What toys find of a calibration, and how it is judged: against Cramer and Rao's bound, against what is expected, and
against the errors that a payload claims. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import binom

from benchmarks._ref10_claims import Limits

Floats = NDArray[np.float64]

LEAST, MOST = 0.85, 1.15
"""of the RMS: times the bound, and times what is expected"""
PULLS = (0.9, 1.1)
"""their widths"""
FAMILY = 1e-3
"""chance of the largest mean pull among all, or of the share furthest from its prediction, below which it is missed"""
ONE_SIGMA = 0.6827


@dataclass(frozen=True, eq=False)
class Toys:
    """What toys of one size have found of one quantity. All is in its unit; what kept its old value is left out."""

    size: int
    off: Floats
    """found less true"""
    error: Floats
    """as claimed"""
    bound: float
    """Cramer and Rao's, of the error"""
    expected: float
    """error"""
    before: Floats | None = None
    """found less true, before a bias that is known was taken off"""
    correction_error: float = 0.0
    """of that bias"""
    kept: int = 0
    """so many kept their old value"""
    of_mean: float | None = None
    """variance of the mean pull, where values have something in common; else 1 over their number"""
    alone: float | None = None
    """so many independent values tell their mean square as well, where these have something in common (`independent`);
    else their number"""
    along_axes: Floats | None = None
    """pulls along the axes of their covariance, which are independent; else off over error"""

    @property
    def number(self) -> int:
        return len(self.off)

    @property
    def worth(self) -> float:
        """In independent values."""
        return self.number if self.alone is None else self.alone

    @property
    def rms(self) -> tuple[float, float]:
        """About the truth, and its statistical error."""
        value = float(np.sqrt(np.mean(self.off**2)))
        fourth = float(np.mean(self.off**4))
        return value, math.sqrt(max(fourth - value**4, 0.0) / self.worth) / (2 * value)

    @property
    def pulls(self) -> Floats:
        found: Floats = self.off / self.error if self.along_axes is None else self.along_axes
        return found

    @property
    def worth_of_pulls(self) -> float:
        """In independent ones."""
        return self.worth if self.along_axes is None else len(self.along_axes)

    @property
    def width(self) -> tuple[float, float]:
        """Of the pulls about their mean, and its statistical error."""
        return width_of(self.pulls, self.worth_of_pulls)

    @property
    def sigmas(self) -> float:
        """How many of its errors the mean pull is off nothing."""
        typical = float(np.sqrt(np.mean(self.error**2)))
        variance = 1 / len(self.pulls) if self.of_mean is None or self.along_axes is not None else self.of_mean
        return float(self.pulls.mean()) / math.hypot(math.sqrt(variance), self.correction_error / typical)

    @property
    def coverage(self) -> tuple[float, float]:
        """Share within one claimed error of the truth, and the error of that share."""
        share = float(np.mean(np.abs(self.pulls) < 1))
        return share, math.sqrt(ONE_SIGMA * (1 - ONE_SIGMA) / self.worth_of_pulls)

    def bias(self, off: Floats) -> tuple[float, float]:
        """Mean, and its error, that of a correction with it."""
        variance = 1 / self.number if self.of_mean is None else self.of_mean
        return float(off.mean()), math.hypot(float(off.std()) * math.sqrt(variance), self.correction_error)


def width_of(pulls: Floats, worth: float) -> tuple[float, float]:
    """Standard deviation and its error, of pulls that are worth so many independent ones."""
    width = float(pulls.std())
    if not width:
        return 0.0, 0.0
    fourth = float(np.mean((pulls - pulls.mean()) ** 4))
    return width, math.sqrt(max(fourth - width**4, 0.0) / worth) / (2 * width)


def width_of_all(every: Sequence[Toys]) -> tuple[float, float]:
    """That of the pulls of all toys together, and its error."""
    pulls = np.concatenate([toys.pulls for toys in every])
    return width_of(pulls, len(pulls) ** 2 / sum(len(toys.pulls) ** 2 / toys.worth_of_pulls for toys in every))


def independent(covariance: Floats) -> float:
    """How many independent values tell their mean square as well as those of a covariance do, of which it varies by
    2 tr(C^2) over tr(C)^2 of itself (L. Isserlis, Biometrika 12 (1918) 134).

    >>> independent(np.eye(5)), independent(np.ones((5, 5)))
    (5.0, 1.0)
    """
    return float(np.trace(covariance) ** 2 / (covariance**2).sum())


def alike(error: Floats) -> Floats:
    """The root mean square of errors for each: of a width, whose error goes with it, low values look surer than they
    are."""
    return np.full(len(error), np.sqrt(np.mean(error**2)))


@dataclass(frozen=True)
class Share:
    """How many of a sort were flagged, and how many should be."""

    sort: str
    size: float
    found: int
    of: int
    predicted: float

    @property
    def chance(self) -> float:
        """Of so many or more, or of so few or fewer, whichever is less; twice that."""
        low, high = (float(of) for of in (self.below, self.above))
        return min(1.0, 2 * min(low, high))

    @property
    def below(self) -> float:
        return float(binom.cdf(self.found, self.of, self.predicted))

    @property
    def above(self) -> float:
        return float(binom.sf(self.found - 1, self.of, self.predicted))


@dataclass(frozen=True, eq=False)
class Found:
    """Of one size: toys by quantity, and shares."""

    toys: Mapping[str, Toys] = field(default_factory=dict)
    shares: Sequence[Share] = ()


@dataclass(frozen=True)
class Quantity:
    """A number that is calibrated, or several of one kind together."""

    name: str
    unit: str
    counted: str
    """what a size is a number of"""
    bound: str
    """where Cramer and Rao's bound is from"""
    expected: str
    """where the expectation is from"""
    judged_from: int = 0
    """size"""


Maker = Callable[[np.random.Generator, int, bool], Found]


@dataclass(frozen=True)
class Subject:
    """A calibration, the toys it is given, and how the page tells of both."""

    name: str
    says: str
    """in two sentences"""
    settings: Mapping[str, str]
    quantities: tuple[Quantity, ...]
    sizes: tuple[int, ...]
    small: tuple[int, ...]
    """sizes when nothing is judged"""
    toys: Maker
    """of a size, and whether few will do"""
    counted: str = ""
    """what the sizes of shares are"""


@dataclass(frozen=True, eq=False)
class Result:
    """Of a subject at all sizes."""

    subject: Subject
    found: tuple[Found, ...]

    def of(self, quantity: Quantity) -> list[Toys]:
        """By rising size."""
        return [one.toys[quantity.name] for one in self.found if quantity.name in one.toys]

    @property
    def shares(self) -> list[Share]:
        return [share for one in self.found for share in one.shares]

    def judged(self) -> list[tuple[Quantity, Toys]]:
        """Those of which means, widths and RMS are judged."""
        return [
            (quantity, toys)
            for quantity in self.subject.quantities
            for toys in self.of(quantity)
            if toys.size >= quantity.judged_from
        ]

    def claims(self) -> list[Limits]:
        """RMS at each size, and the width of all pulls of a quantity together."""
        found = []
        for quantity, toys in self.judged():
            name = f"{self.subject.name}: {quantity.name}, {toys.size} {quantity.counted}, RMS"
            low, high = LEAST * toys.bound, MOST * toys.expected
            found.append(Limits(name, *toys.rms, low, high, quantity.unit, digits_of(toys.bound)))
        for quantity in self.subject.quantities:
            judged = [toys for one, toys in self.judged() if one is quantity]
            if judged:
                name = f"{self.subject.name}: {quantity.name}, width of pulls"
                found.append(Limits(name, *width_of_all(judged), *PULLS))
        return found


def digits_of(value: float) -> int:
    """So that three figures of a value are shown."""
    return max(2 - math.floor(math.log10(abs(value))), 0) if value else 3


def in_family(chances: Sequence[float]) -> float:
    """Chance that the least of so many is as small (Z. Sidak, J. Am. Stat. Assoc. 62 (1967) 626).

    >>> round(in_family([0.01, 0.3, 0.8]), 4)
    0.0297
    """
    return float(-np.expm1(len(chances) * np.log1p(-min(min(chances), 1 - 1e-15))))


def of_means(results: Iterable[Result]) -> Limits:
    """The one test of all mean pulls."""
    every = [(toys.sigmas, result, quantity, toys) for result in results for quantity, toys in result.judged()]
    sigmas, result, quantity, toys = max(every, key=lambda row: abs(row[0]))
    chance = in_family([float(2 * ndtr(-abs(row[0]))) for row in every])
    where = f"{result.subject.name}, {quantity.name}, {toys.size} {quantity.counted}"
    name = f"mean pulls: the largest of {len(every)}, {sigmas:.1f} sigma ({where}), by chance"
    return Limits(name, chance, 0.0, FAMILY, 1.0, digits=4)


def of_shares(results: Iterable[Result]) -> Limits:
    """The one test of all shares of flags."""
    every = [(share.chance, result, share) for result in results for share in result.shares]
    _, result, share = min(every, key=lambda row: row[0])
    seen = f"{share.found} of {share.of}, {100 * share.predicted:.3g} % predicted"
    name = f"flags: the furthest of {len(every)}, {seen} ({result.subject.name}, {share.sort}), by chance"
    return Limits(name, in_family([row[0] for row in every]), 0.0, FAMILY, 1.0, digits=4)
