"""What is made again beside what was published, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from calib.iov import RunLumi
from calib.payload import PayloadStore
from calib.pulls import Apart, apart
from pipeline.plots import LABELS, QUANTILES, NothingToPlot
from pipeline.refit import Refit
from pipeline.shadow import Beside

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_ARRAYS = 8
"""of each kind, those that differ most are drawn"""


def draw(refits: Sequence[Refit], store: PayloadStore) -> Figure:
    """A panel an array: over the intervals, how far what was made again is from what was published, in sigma.

    Of an array of many elements the bands that hold 68 % and 95 % of them. Raises NothingToPlot where nothing differs.
    """
    from pipeline.drawing import Drawing

    panels = [(one, name, found) for one in refits for name, found in _differing(one, store).items()]
    if not panels:
        raise NothingToPlot("nothing that has an error differs from what was published")
    figure = Drawing(figsize=(9, 2.2 * len(panels) + 0.8), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    for axis, (one, name, found) in zip(axes, panels, strict=True):
        _panel(axis, [row for row in one.rows if _both(row)], found)
        axis.set_ylabel(f"{one.kind} {name}\n[sigma]")
    figure.suptitle("made again less published, in errors of both in quadrature")
    return figure


def _both(row: Beside) -> bool:
    return row.production is not None and row.shadow is not None


def _differing(one: Refit, store: PayloadStore) -> dict[str, list[Apart]]:
    """By array, how far the payloads of each interval are apart; those that differ, the furthest first."""
    rows = [row for row in one.rows if _both(row)]
    found = [apart(store.get(str(row.shadow)), store.get(str(row.production))) for row in rows]
    names = sorted(set.intersection(*(set(each) for each in found))) if found else []
    largest = {name: max(_largest(each[name]) for each in found) for name in names}
    kept = sorted((name for name in names if largest[name] > 0), key=lambda name: -largest[name])[:MOST_ARRAYS]
    return {name: [each[name] for each in found] for name in kept}


def _largest(one: Apart) -> float:
    return float(np.nanmax(np.abs(one.pulls()), initial=0.0)) if np.isfinite(one.pulls()).any() else 0.0


def _panel(axis: Axes, rows: Sequence[Beside], found: Sequence[Apart]) -> None:
    at = np.arange(len(rows))
    low, lower, middle, upper, high = np.stack([_quantiles(one) for one in found], axis=1)
    if max(one.move.size for one in found) > 1:
        axis.vlines(at, low, high, color="tab:blue", alpha=0.35, linewidth=4, label="95 % of the elements")
        axis.vlines(at, lower, upper, color="tab:blue", linewidth=4, label="68 %")
        axis.legend(fontsize="small")
    axis.plot(at, middle, "o", color="black", markersize=4)
    axis.axhline(0.0, color="0.5", linewidth=0.8)
    step = -(-len(rows) // LABELS)
    axis.set_xticks(at[::step], [str(RunLumi.unpack(row.first)) for row in rows[::step]], fontsize="small")
    axis.grid(alpha=0.3)


def _quantiles(one: Apart) -> NDArray[np.float64]:
    pulls = one.pulls()
    known = pulls[np.isfinite(pulls)]
    found: NDArray[np.float64] = np.quantile(known, QUANTILES) if known.size else np.full(len(QUANTILES), np.nan)
    return found
