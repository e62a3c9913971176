"""How charge over path is distributed about its peak, as tables of likelihood over the logarithm of the peak.

Charge over path in a thin layer follows L. Landau's distribution (J. Phys. USSR 8 (1944) 201), here of peak 1 and width
xi, smeared by a Gaussian. A gain multiplies all of it, so in the logarithm it is a shift. With d the logarithm of the
peak, F the distribution of the logarithm at d = 0, and bins of edges e_0 ... e_B, a clear cluster in bin b has the
likelihood

    p_b(d) = [F(e_b+1 - d) - F(e_b - d)] / [1 - F(e_0 - d)]

since what is below e_0 is not looked at; above e_B the bin goes on for ever. Of a saturated cluster all that is known
is that its charge is no less than was seen: it has [1 - F(m_b - d)] / [1 - F(e_0 - d)], m_b the middle of its bin. So
nothing is lost or bent by channels that cannot count so far (right-censored data; J. P. Klein, M. L. Moeschberger,
Survival Analysis, section 3.5). A small share of the clusters may lie anywhere, which keeps one far off the shape from
having the last word.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline, make_interp_spline
from scipy.stats import landau

Floats = NDArray[np.float64]

MODE = -0.22278
"""of Landau's lambda"""
NODES = 48
"""of the Gaussian's quadrature: exact to 1e-6 up to a smearing of three widths"""
FINE = 0.004
"""step of the logarithm between points of the spline"""
ORDERS = 4
"""tables of a logarithm and of its first three derivatives"""


@dataclass(frozen=True)
class Shape:
    """Of charge over path, relative to its peak: `width` is Landau's xi, `smear` the rms of the Gaussian.

    The peak is that of Landau's distribution before it is smeared.
    """

    width: float
    smear: float

    def __post_init__(self) -> None:
        if not (0 < self.width < 1 and 0 <= self.smear <= 3 * self.width):
            raise ValueError(f"width must lie within 0 to 1, and smear within 0 to three widths: not as {self}")

    def cumulative(self, values: Floats) -> Floats:
        """The share below values of charge over path, the peak at 1."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
        total = np.zeros(np.shape(values))
        for node, weight in zip(nodes, weights / weights.sum(), strict=True):
            # scipy has the same distribution as the stable one of alpha = 1 in its unit scale.
            lambda_ = (values - 1.0 - self.smear * node) / self.width + MODE
            total += weight * landau.cdf((lambda_ - np.log(np.pi / 2)) / (np.pi / 2))
        return total


@dataclass(frozen=True, eq=False)
class Tables:
    """Logarithms of likelihoods and their first three derivatives by d, over K values of d.

    `clear` [4, K, B + 1]: in each bin and above all; `saturated` [4, K, B]: not less than the middle of each bin.
    """

    peaks: Floats
    """d, rising evenly [K]"""
    clear: Floats
    saturated: Floats

    @property
    def step(self) -> float:
        """From one d to the next."""
        return float(self.peaks[1] - self.peaks[0])

    @property
    def middle(self) -> int:
        """The place among the peaks of the one that is expected."""
        return len(self.peaks) // 2

    def shares(self, place: NDArray[np.intp], step: Floats) -> Floats:
        """Of clear clusters, in each bin and above all [n, B + 1]; peaks at places of the table, and a step from there
        [n]: no longer than one of the table's, as it goes by the derivatives."""
        likelihood, first, second, third = (table[place] for table in self.clear)
        s = step[:, None]
        found: Floats = np.exp(likelihood + s * (first + s * (second / 2 + s * third / 6)))
        return found

    def information(self) -> float:
        """Fisher's information about d of a cluster, if none is saturated and the peak is where it is expected: the
        least variance of d is one over it (Cramer and Rao)."""
        likelihood, slope = (self.clear[order, self.middle] for order in (0, 1))
        return float(np.sum(np.exp(likelihood) * slope**2))

    def skew(self) -> float:
        """By what the estimate of d is off, on average, times the number of clusters.

        To first order sum p l' l'' / (2 I^2), l the logarithm of the likelihood, for data whose likelihood is shifted
        as a whole (D. R. Cox, E. J. Snell, J. R. Stat. Soc. B 30 (1968) 248).
        """
        likelihood, first, second, third = self.clear[:, self.middle]
        chance = np.exp(likelihood)
        mean = np.sum(chance * (2 * first * second + third))
        return float(mean / (2 * self.information() ** 2))


@lru_cache(maxsize=16)
def tables(shape: Shape, expected: float, edges: tuple[float, ...], reach: tuple[float, float], stray: float) -> Tables:
    """Tables over peaks from expected / (1 + far) to expected x (1 + far), `reach` = (far, step of d).

    `edges` of the bins are of the logarithm of charge over path; a share `stray` of the clusters may lie anywhere.
    """
    far, step = reach
    half = int(np.ceil(np.log1p(far) / step))
    peaks = np.log(expected) + step * np.arange(-half, half + 1)
    every = np.asarray(edges)
    below = _spline(shape, every[0] - peaks[-1], every[-1] - peaks[0])
    at_edges = _derivatives(below, every, peaks)
    middles = _derivatives(below, 0.5 * (every[1:] + every[:-1]), peaks)
    bins = len(edges) - 1
    # What is left above a value: 1 - F, and for the derivatives by d only the second part.
    above, beyond = (np.stack([1.0 - part[0], *-part[1:]]) for part in (at_edges, middles))
    inside = above[:, :, :1]
    inner = np.concatenate([above[:, :, :-1] - above[:, :, 1:], above[:, :, -1:]], axis=2)
    even = np.full(bins + 1, 1.0 / (bins + 1))
    at_least = np.cumsum(even[::-1])[::-1][:-1] - 0.5 * even[:-1]
    least = np.log(np.finfo(np.float64).tiny)
    return Tables(
        peaks,
        _logarithms(_mixed(_ratio(inner, inside), even, stray), least),
        _logarithms(_mixed(_ratio(beyond, inside), at_least, stray), least),
    )


def _spline(shape: Shape, low: float, high: float) -> BSpline:
    """F over the logarithm, the peak at 0; smooth to its fourth derivative."""
    points = np.arange(low - 10 * FINE, high + 11 * FINE, FINE)
    return make_interp_spline(points, shape.cumulative(np.exp(points)), k=7)


def _derivatives(below: BSpline, places: Floats, peaks: Floats) -> Floats:
    """F(place - d) and its first three derivatives by d, [4, peaks, places]."""
    at = places[None, :] - peaks[:, None]
    return np.stack([(-1.0) ** order * below(at, nu=order) for order in range(ORDERS)])


def _ratio(upper: Floats, lower: Floats) -> Floats:
    """upper / lower with derivatives, [4, ...] each."""
    one = upper[0] / lower[0]
    two = (upper[1] - one * lower[1]) / lower[0]
    three = (upper[2] - one * lower[2] - 2 * two * lower[1]) / lower[0]
    four = (upper[3] - one * lower[3] - 3 * two * lower[2] - 3 * three * lower[1]) / lower[0]
    return np.stack([one, two, three, four])


def _mixed(likelihood: Floats, anywhere: Floats, stray: float) -> Floats:
    """With a share of clusters that may lie anywhere."""
    mixed = (1.0 - stray) * likelihood
    mixed[0] += stray * anywhere
    return mixed


def _logarithms(values: Floats, least: float) -> Floats:
    """The logarithm of a function and its derivatives from those of the function, [4, ...]."""
    size = np.maximum(values[0], np.exp(least))
    one, two, three = (part / size for part in values[1:])
    return np.stack([np.log(size), one, two - one**2, three - 3 * one * two + 2 * one**3])
