"""One against the other: a series of points seen and predicted, judged by its chi2, and the panel that shows some."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from scipy.stats import chi2

from benchmarks._ref10_seen import Floats, Ints

LEAST = 30
"""entries of a point"""
CHANCE = 1e-4


@dataclass(frozen=True, eq=False)
class Series:
    """What is predicted and what is seen at some places.

    `good_to` is how exact the prediction is, relative; with infinity it is shown and not judged.
    """

    label: str
    x: Floats
    seen: Floats
    error: Floats
    predicted: Floats
    good_to: float = 0.0
    style: int | None = None
    """number of its colour and marker, where others shall have the same; else its place in the panel"""

    @classmethod
    def of_means(cls, label: str, place: Ints, parts: tuple[Floats, Floats, Floats], good_to: float = 0.0) -> Series:
        """Of entries at places 0 to n: x, seen and predicted are the means of `parts`."""
        number, (x, seen, predicted) = _grouped(place, *parts)
        square = _grouped(place, parts[1] ** 2)[1][0]
        # As for a share of which there is one entry more of either kind: none of 50 is not without error.
        error = np.sqrt(np.maximum(square - seen**2, 1 / number) / number)
        return cls(label, x, seen, error, predicted, good_to)._where(number >= LEAST)

    @classmethod
    def of_widths(cls, label: str, place: Ints, parts: tuple[Floats, Floats, Floats], good_to: float = 0.0) -> Series:
        """The same with root mean squares of what is seen, and of the widths that are predicted."""
        x, seen, width = parts
        number, (x, square, fourth, predicted) = _grouped(place, x, seen**2, seen**4, width**2)
        wide = np.sqrt(square)
        error = np.sqrt(np.maximum(fourth - square**2, 0) / number) / (2 * wide)
        return cls(label, x, wide, error, np.sqrt(predicted), good_to)._where(number >= LEAST)

    @classmethod
    def of_histogram(
        cls, label: str, values: Floats, edges: Floats, cdf: Callable[[Floats], Floats], good_to: float = 0.0
    ) -> Series:
        """Shares of the values by bin, over the width of the bins."""
        expected, wide = np.diff(cdf(edges)), np.diff(edges) * max(len(values), 1)
        seen = np.histogram(values, edges)[0]
        error = np.sqrt(np.maximum(expected * len(values), 1)) / wide
        middle = (edges[1:] + edges[:-1]) / 2
        return cls(label, middle, seen / wide, error, expected / np.diff(edges), good_to)

    def _where(self, chosen: NDArray[np.bool_]) -> Series:
        columns = (values[chosen] for values in (self.x, self.seen, self.error, self.predicted))
        return Series(self.label, *columns, self.good_to)

    @property
    def chi2(self) -> float:
        """Over all points."""
        return float(np.sum(((self.seen - self.predicted) / np.hypot(self.error, self.good_to * self.predicted)) ** 2))

    @property
    def agrees(self) -> bool:
        """Whether so large a chi2 can be chance; nothing to compare is no agreement."""
        return np.isinf(self.good_to) or (len(self.x) > 0 and bool(chi2.sf(self.chi2, len(self.x)) > CHANCE))

    @property
    def told(self) -> str:
        """What came of the comparison."""
        found = "shown only" if np.isinf(self.good_to) else f"{self.chi2:.1f} / {len(self.x)}"
        found += f", good to {100 * self.good_to:g} %" if 0 < self.good_to < np.inf else ""
        return found + ("" if self.agrees else "  DISAGREES")


def _grouped(place: Ints, *values: Floats) -> tuple[Floats, list[Floats]]:
    """Entries of each place that has some, and the means of values there."""
    number = np.bincount(place).astype(np.float64)
    some = number > 0
    return number[some], [np.bincount(place, one)[some] / number[some] for one in values]


@dataclass(frozen=True, eq=False)
class Panel:
    """A part of the page."""

    title: str
    x: str
    y: str
    series: Sequence[Series]
    steps: bool = False
    log: bool = False
    cloud: tuple[Floats, Floats] | None = None
    """single entries, in grey behind the points"""
    marks: tuple[Floats, Floats, str] | None = None
    """what else is known: x, y and what it is"""

    def draw(self, axis: Any) -> None:
        """Lines for what is predicted, points for what is seen."""
        if self.cloud is not None:
            axis.hexbin(*self.cloud, gridsize=60, cmap="Greys", bins="log", linewidths=0)
        for place, one in enumerate(self.series):
            number = place if one.style is None else one.style
            style = {"color": f"C{number}", "linewidth": 1.3, "drawstyle": "steps-mid" if self.steps else "default"}
            axis.plot(one.x, one.predicted, **style)
            # Those drawn later are smaller, so that of points that agree both are seen.
            points = {"fmt": "osD^v"[number % 5], "markersize": 4.6 - 0.5 * place, "markerfacecolor": "white"}
            points |= {"color": f"C{number}", "elinewidth": 1}
            axis.errorbar(one.x, one.seen, one.error, label=f"{one.label}: {one.told}", **points)
        if self.marks is not None:
            axis.plot(*self.marks[:2], "k*", markersize=8, label=self.marks[2])
        axis.set(title=self.title, xlabel=self.x, ylabel=self.y)
        if self.steps:
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        if self.log:
            axis.set_yscale("log")
        axis.grid(alpha=0.25)
        # Below, where no point can be.
        axis.legend(fontsize="small", loc="upper left", bbox_to_anchor=(0, -0.16), borderaxespad=0, frameon=False)
