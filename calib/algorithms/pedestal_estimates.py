"""Mean and noise of channels from their sums, freed of what the window and the median do to them.

For a channel with Gaussian noise of width s, digitised to whole counts, let t^2 = s^2 + 1/12: digitisation adds the
variance of a uniform distribution one count wide (W. F. Sheppard, Proc. London Math. Soc. 29 (1898) 353), good to
2e-4 of s from s = 0.7 counts on. From the sums of a channel come, in turn:

1. *The window.* Samples are cut at +-w about the common mode. A Gaussian of mean m and width v cut at a and b has
   mean m + v (f(A) - f(B)) / Z and variance v^2 [1 + (A f(A) - B f(B)) / Z - ((f(A) - f(B)) / Z)^2] with
   A = (a - m) / v, B = (b - m) / v, f the normal density and Z = F(B) - F(A) (N. L. Johnson, S. Kotz, Continuous
   Univariate Distributions 1, section 10.1). This is solved for m and v where an edge is nearer than 4.5 widths;
   further off the cut moves the mean by less than 2e-5 v and the width by less than 4e-5 v. A pedestal that moved with
   its whole group, or a common mode, is no reason for a correction: the window goes with the median.
2. *The median.* The median c of M channels is not the common mode: it has a variance of its own and shares the noise
   of every one of them. To first order in 1/M, c = sum sign(x_j) / (2 sum f_j(0)) with f_j(0) = 1 / (t_j sqrt(2 pi)),
   so var(c) = (pi/2) h^2 / M and cov(x_i, c) = t_i h / M, h the harmonic mean of the t_j. What is measured is
   V = var(x_i - c) = t_i^2 - 2 t_i h / M + (pi/2) h^2 / M, which is solved for t_i. Without it the noise would be
   0.17 % too small at M = 128. (M + 1 in place of M in var(c) is what a finite median has: exact to 5 % from M = 4 on.)
   For h the median width of the group is taken, which dead and hot channels do not spoil.
   A channel that had no say in the median has no covariance with it; it is treated as if it had (0.8 % at M = 128).
3. *Digitisation.* s^2 = t^2 - 1/12. References are kept to 1/16 count; their rounding is a constant of the channel and
   does not enter. The median is one of the deviations, so it moves in steps: of 1/16 where the fractions of the
   references of a group differ, as measured ones do (variance 1 / (12 * 256), nothing), but of whole counts where all
   are the same, as those of a nominal payload of whole numbers. Then c is rounded too, V grows by up to 1/12, and the
   noise comes out up to 1 / (24 s^2) too large, 0.26 % at s = 4, until the next payload.
4. The root of an unbiased variance is too small by 1 / (4 (n - 1)) of itself; put right.

The mean is that of the samples themselves, the common mode not taken off, plus the shift of step 1.
Errors: of the mean r / sqrt(n), r the width of the samples with their common mode (which a group shares: errors of
its channels are correlated by the square of common mode / r); of the noise t^2 / (s sqrt(2 (n - 1))).
Hits that end inside of the window stay: a share h of samples that lie q too high shifts the mean by h q.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from calib.algorithms.pedestal_samples import RESOLUTION

Floats = NDArray[np.float64]
Array = NDArray[Any]

CLEAR = 4.5
"""widths; an edge further off cuts off nothing to speak of"""
ROUNDS = 60
PRECISION = 1e-6
"""of a width, where the search for the uncut Gaussian ends"""


FAR, FAR_NOISE = 3.0, 5.0
"""errors; means and noise further from what they were have moved. Of good channels 0.3 % then go by their samples
alone, which does little harm to means; of noise, those that fluctuate low would send noise for the rest of the run"""


@dataclass(frozen=True, eq=False)
class Estimates:
    """What the sums of channels say, float64[channels], ADC; meaningless where there are fewer than two entries."""

    mean: Floats
    raw: Floats
    """the width of the samples with their common mode, digitisation and all"""
    wide: Floats
    """t: the width without the common mode, before digitisation is taken off"""
    noise: Floats
    variance: Floats
    """t^2, unbiased: the square of `wide` before step 4"""

    def errors(self, entries: Array) -> tuple[Floats, Floats]:
        """Of mean and noise, ADC."""
        times = np.maximum(entries, 2)
        of_mean = self.raw / np.sqrt(times)
        squared = np.divide(self.wide**2, self.noise, out=np.zeros_like(self.wide), where=self.noise > 0)
        return of_mean, squared / np.sqrt(2.0 * (times - 1))


@dataclass(frozen=True, eq=False)
class Moments:
    """Means and unbiased variances, float64[channels], ADC: of the samples, and of what is left of them without c."""

    mean: Floats
    variance: Floats
    rest_mean: Floats
    rest_variance: Floats

    @classmethod
    def of(cls, entries: Array, sums: dict[str, Array]) -> Moments:
        """From the sums `adc`, `adc_squared`, `rest`, `rest_squared` of `calib.algorithms.pedestal_samples`."""
        times = np.maximum(entries, 2).astype(np.float64)
        # About a whole number near the mean everything is exact, however large the mean.
        middle = np.rint(sums["adc"] / times).astype(np.int64)
        first = sums["adc"] - entries.astype(np.int64) * middle
        second = sums["adc_squared"] - middle * (sums["adc"].astype(np.int64) + first)
        variance = np.maximum(second - first**2 / times, 0.0) / (times - 1)
        rest = sums["rest"] / times
        rest_variance = np.maximum(sums["rest_squared"] - sums["rest"] * rest, 0.0) / (times - 1)
        return cls(middle + first / times, variance, rest / RESOLUTION, rest_variance / RESOLUTION**2)


def estimate(
    moments: Moments, entries: Array, among: Floats | None, usable: NDArray[np.bool_], window: float
) -> Estimates:
    """Mean and noise from moments, in the steps above.

    `among` float64[groups] is the mean number of channels in the median, None without a common mode. Only `usable`
    channels have a say in the typical noise of their group, and only they are freed of the window.
    """
    found, spread = moments.rest_mean.copy(), moments.rest_variance.copy()
    cut = usable & (window - np.abs(found) < CLEAR * np.sqrt(spread))
    found[cut], spread[cut] = uncut(found[cut], spread[cut], window)
    gained = spread - moments.rest_variance
    variance = spread if among is None else free_of_median(spread, among, usable)
    wide = np.sqrt(variance) * (1 + 0.25 / (np.maximum(entries, 2) - 1))
    noise = np.sqrt(np.maximum(wide**2 - 1 / 12, 0.0))
    mean = moments.mean + (found - moments.rest_mean)
    return Estimates(mean, np.sqrt(moments.variance + gained), wide, noise, variance)


def uncut(mean: Floats, variance: Floats, window: float) -> tuple[Floats, Floats]:
    """Mean and variance of the Gaussians of which `mean` and `variance` are left within +-window.

    A width beyond the window cannot be told and is given as the window.

    >>> m, v = cut_gaussian(np.array([3.0]), np.array([8.0**2]), 20.0)
    >>> [round(float(found[0]), 3) for found in uncut(m, v, 20.0)]
    [3.0, 64.0]
    """
    centre, spread = mean.copy(), np.minimum(variance, window**2)
    left = np.arange(len(mean))
    for _ in range(ROUNDS):
        if not len(left):
            break
        at, of = centre[left], spread[left]
        seen_mean, seen_variance = cut_gaussian(at, of, window)
        centre[left] = np.clip(at + mean[left] - seen_mean, -window, window)
        share = np.maximum(seen_variance / np.maximum(of, 1e-12), 1e-3)
        spread[left] = np.minimum(variance[left] / share, window**2)
        # Each channel goes its own way: what comes out must not depend on the others.
        step = np.abs(centre[left] - at) + np.abs(np.sqrt(spread[left]) - np.sqrt(of))
        left = left[step > PRECISION * np.sqrt(of)]
    return centre, spread


def cut_gaussian(mean: Floats, variance: Floats, window: float) -> tuple[Floats, Floats]:
    """Mean and variance of what is left of Gaussians within +-window."""
    width = np.sqrt(np.maximum(variance, 1e-12))
    low, high = (-window - mean) / width, (window - mean) / width
    inside = np.maximum(ndtr(high) - ndtr(low), 1e-12)
    at_low, at_high = (np.exp(-0.5 * edge**2) / np.sqrt(2 * np.pi) for edge in (low, high))
    shift = (at_low - at_high) / inside
    return mean + width * shift, width**2 * (1 + (low * at_low - high * at_high) / inside - shift**2)


def free_of_median(variance: Floats, among: Floats, usable: NDArray[np.bool_]) -> Floats:
    """The variance t^2 [channels] of channels of which V is left when the median of `among` [groups] is taken off."""
    grouped = variance.reshape(len(among), -1)
    typical = np.sqrt(median_among(grouped, usable.reshape(grouped.shape)))
    number = np.maximum(among, 1.0)
    shared = (typical / number)[:, None]
    own = (np.pi / 2 * typical**2 / (number + 1))[:, None]
    # Less is left of a channel that is quieter than the median itself; it cannot be told then.
    wide = shared + np.sqrt(np.maximum(grouped - own + shared**2, 0.0))
    return np.where(among[:, None] >= 2, wide**2, grouped).reshape(-1)


def median_among(values: Floats, among: NDArray[np.bool_]) -> Floats:
    """The (lower) median of every row of [rows, n] among the entries of a mask; 0 where there is none."""
    ordered = np.sort(np.where(among, values, np.inf), axis=1)
    count = np.count_nonzero(among, axis=1)
    found: Floats = ordered[np.arange(len(ordered)), np.maximum(count - 1, 0) // 2]
    return np.where(count > 0, found, 0.0)


def with_before(
    new: tuple[Array, Array],
    before: tuple[Array, Array],
    drift: Array | float,
    far: float,
    unmoved: Array | float = 1.0,
) -> tuple[Array, Array]:
    """Values and errors of channels, together with what they had `before`, since when they drift by so much (rms).

    Weighted by errors, that of what was before with the drift in it (a Kalman filter in one dimension). A channel that
    is further off than `far` errors has moved: what it had does not count. `unmoved`: times the error of what is new if
    it did not move.

    >>> value, error = with_before((np.array([1.0, 8.0]), np.ones(2)), (np.zeros(2), np.zeros(2)), 1.0, 3.0)
    >>> value.round(3).tolist(), error.round(3).tolist()
    ([0.5, 8.0], [0.707, 1.0])
    """
    (value, error), (old, old_error) = new, before
    known, own = np.hypot(old_error, drift), error * unmoved
    both = np.hypot(own, known)
    counts = (np.abs(value - old) <= far * both) & (both > 0)
    weight = np.divide(own**2, both**2, out=np.zeros_like(both), where=counts)
    together = np.divide(own * known, both, out=np.zeros_like(both), where=counts)
    return value + weight * (old - value), np.where(counts, together, error)
