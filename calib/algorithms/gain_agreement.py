"""How well histograms of charge over path follow the shape at the peak that was found.

Bin by bin, from below: of the n clusters that lie in a bin or above, d are in it, where the shape has n h. Saturated
ones, of which it is only known that they lie above, count up to where they were seen, half of them in that bin. The
deviance, -2 ln of the ratio of likelihoods,

    sum 2 [d ln(d / n h) + (n - d) ln((n - d) / n (1 - h))]

is that of the multinomial law where nothing is saturated (S. Baker, R. D. Cousins, Nucl. Instrum. Meth. 221 (1984)
437), and holds for what is cut off likewise, as n is known before d. It is a chi2 only where all n h are large, and
they are not: 25 clusters over 82 bins. So its mean and variance are worked out, not assumed: with few n h, d is as by
Poisson's law, for which both are sums; with h near 1, n - d is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, xlogy
from scipy.stats import poisson

Floats = NDArray[np.float64]
Array = NDArray[Any]

LARGE = 100.0
"""expected, from which on a deviance has the mean and variance of chi2 to a hundredth"""
SMALL = 1e-9
POINTS = 1500
"""of the table between the two: nearest ones differ by a hundredth"""


@dataclass(frozen=True, eq=False)
class Agreement:
    """Of n histograms: the deviance, its mean, and its variance if the shape is right, one parameter being fitted."""

    chi2: Floats
    ndf: Floats
    variance: Floats

    def chance(self, excess: Floats) -> Floats:
        """Of a deviance that is as large or larger, but for so much of it as is known not to be chance.

        By the chi2 distribution that has this mean and variance when scaled (F. E. Satterthwaite, Biometrics Bull. 2
        (1946) 110).
        """
        scale = self.variance / (2 * self.ndf)
        found: Floats = chdtrc(self.ndf / scale, np.maximum(self.chi2 - excess, 0.0) / scale)
        return found


def agreement(clear: Floats, saturated: Floats, chance: Floats) -> tuple[Floats, Floats, Floats]:
    """Deviance, its mean and its variance, [n] each.

    Counts `clear` [n, bins + 1], the last bin all above; `saturated` [n, bins]; `chance` as `clear`, the shape's.
    """
    share = chance / _from_above(chance)
    left = _from_above(clear)
    left[:, :-1] += _from_above(saturated) - saturated / 2
    # In the last bin is all that is left: it tells nothing.
    share, left, seen = share[:, :-1], left[:, :-1], clear[:, :-1]
    expected = left * share
    others, of_others = left - seen, left - expected
    terms = xlogy(seen, _ratio(seen, expected)) + xlogy(others, _ratio(others, of_others))
    mean, variance = (
        np.sum((1 - share) * _of_poisson(expected)[i] + share * _of_poisson(of_others)[i], axis=1) for i in range(2)
    )
    return 2 * terms.sum(axis=1), np.maximum(mean - 1, SMALL), np.maximum(variance - 2, SMALL)


def _from_above(counts: Array) -> Floats:
    """What lies in each bin or above."""
    found: Floats = np.cumsum(counts[:, ::-1], axis=1, dtype=np.float64)[:, ::-1]
    return found


def _ratio(upper: Array, lower: Floats) -> Floats:
    return np.divide(upper, lower, out=np.ones(lower.shape), where=lower > 0)


def _of_poisson(expected: Floats) -> tuple[Floats, Floats]:
    """Mean and variance of the deviance of a count of which so much is expected."""
    mean, variance = _moments()
    place = (np.log(np.clip(expected, SMALL, LARGE)) - np.log(SMALL)) * ((len(mean) - 1) / np.log(LARGE / SMALL))
    nearest = (place + 0.5).astype(np.intp)
    return mean[nearest], variance[nearest]


@lru_cache(maxsize=1)
def _moments() -> tuple[Floats, Floats]:
    """Both from SMALL to LARGE, in even steps of the logarithm."""
    logarithms = np.linspace(np.log(SMALL), np.log(LARGE), POINTS)
    expected = np.exp(logarithms)[:, None]
    count = np.arange(int(LARGE + 10 * np.sqrt(LARGE)))
    chance = poisson.pmf(count, expected)
    deviance = 2 * (xlogy(count, count / expected) - count + expected)
    mean = np.sum(chance * deviance, axis=1)
    return mean, np.sum(chance * (deviance - mean[:, None]) ** 2, axis=1)
