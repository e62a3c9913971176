"""Better or worse: figures of merit over quality histograms, and the same figure under two sets of conditions. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calib.accumulators import UnitHistogram
from calib.state import State
from pipeline.experiments.interface import Measure, Merit, QualityHistogram

N_SIGMA = 3.0
"""a difference within so many errors of the figure is none"""

CENTRAL = (0.15865525393145707, 0.8413447460685429)
"""the quantiles of a Gaussian at minus and plus one sigma"""


@dataclass(frozen=True)
class Figure:
    """A figure of merit of some events: the smaller, the better; `error` is its statistical one, in the same unit."""

    cost: float
    error: float
    entries: int


@dataclass(frozen=True)
class Compared:
    """One merit of the same events under the old and the new conditions."""

    merit: Merit
    unit: str
    old: Figure
    new: Figure

    @property
    def judged(self) -> bool:
        """Whether there were enough entries to say anything."""
        return max(self.old.entries, self.new.entries) >= self.merit.entries

    @property
    def margin(self) -> float:
        """How much worse may pass for the same: the tolerance, or `N_SIGMA` errors where that is more."""
        return max(self.merit.tolerance, N_SIGMA * self.old.error)

    @property
    def worse(self) -> bool:
        """Whether the new conditions are worse by more than passes for the same."""
        if not self.judged:
            return False
        # What is no number is worse than any.
        return not self.new.cost - self.old.cost <= self.margin and not math.isnan(self.old.cost)

    def __str__(self) -> str:
        if not self.judged:
            seen = max(self.old.entries, self.new.entries)
            return f"{self.merit.name}: not judged, {seen} entries of the {self.merit.entries} needed"
        word = "worse" if self.worse else "no worse"
        values = f"{_number(self.old.cost, self.unit)} before, {_number(self.new.cost, self.unit)} now"
        return f"{self.merit.name} is {word}: {values}, up to {_number(self.margin, self.unit)} more is allowed"


def compare(
    merits: Sequence[Merit], histograms: Sequence[QualityHistogram], old: State, new: State
) -> tuple[Compared, ...]:
    """Every merit of the same events under two sets of conditions. Raises KeyError where a histogram is not there."""
    units = {histogram.name: histogram.unit for histogram in histograms}
    return tuple(
        Compared(
            merit,
            "" if merit.measure is Measure.LOSS else units[merit.histogram],
            figure(merit, old[merit.histogram], old[merit.histogram]),
            figure(merit, new[merit.histogram], old[merit.histogram]),
        )
        for merit in merits
    )


def figure(merit: Merit, histogram: UnitHistogram, reference: UnitHistogram) -> Figure:
    """The figure of one merit over all units of a histogram; a loss is counted against the `reference`.

    A mean has the error rms / sqrt(n). A width is half the distance of the 16 % and 84 % quantiles, interpolated in
    their bins; for a Gaussian its error is 0.97 width / sqrt(n) (the two quantiles have correlation 0.19).
    """
    counts = _body(histogram)
    entries = int(counts.sum())
    if merit.measure is Measure.LOSS:
        before = int(_body(reference).sum())
        lost = (before - entries) / before if before else 0.0
        return Figure(lost, 1 / math.sqrt(before) if before else math.inf, before)
    if not entries:
        return Figure(math.nan, math.inf, 0)
    centres = (histogram.edges[1:] + histogram.edges[:-1]) / 2
    mean = float((counts * centres).sum() / entries)
    if merit.measure is Measure.OFFSET:
        rms = math.sqrt(float((counts * (centres - mean) ** 2).sum()) / entries)
        return Figure(abs(mean - merit.target), rms / math.sqrt(entries), entries)
    low, high = (_quantile(histogram.edges, counts, share) for share in CENTRAL)
    width = (high - low) / 2
    return Figure(width, 0.97 * width / math.sqrt(entries), entries)


def _body(histogram: UnitHistogram) -> NDArray[np.int64]:
    """Entries by bin over all units, those under and over the edges left out."""
    total: NDArray[np.int64] = histogram.sums.values.sum(axis=0)[1:-1]
    return total


def _quantile(edges: NDArray[np.float64], counts: NDArray[np.int64], share: float) -> float:
    cumulated = np.concatenate([[0], np.cumsum(counts)]) / counts.sum()
    at = int(np.searchsorted(cumulated, share, side="right")) - 1
    inside = (share - cumulated[at]) / (cumulated[at + 1] - cumulated[at])
    return float(edges[at] + inside * (edges[at + 1] - edges[at]))


def _number(value: float, unit: str) -> str:
    return f"{value:.4g} {unit}".strip()
