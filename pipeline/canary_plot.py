"""What a canary has seen, as a picture: every figure of merit under the conditions in force and the new ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from calib.accumulators import UnitHistogram
from pipeline.experiments.interface import QualityHistogram
from pipeline.merits import Compared
from pipeline.plots import save
from pipeline.two_ways import BothWays

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(
    path: Path, title: str, compared: Sequence[Compared], histograms: Sequence[QualityHistogram], both: BothWays
) -> Path:
    """One panel a figure of merit, to a file in the format its name ends with."""
    from pipeline.drawing import Drawing

    known = {histogram.name: histogram for histogram in histograms}
    figure = Drawing(figsize=(7, 2.9 * len(compared) + 0.6), layout="constrained")
    axes = figure.subplots(len(compared), 1, squeeze=False)[:, 0]
    for axis, one in zip(axes, compared, strict=True):
        name = one.merit.histogram
        _steps(axis, both.old[name], f"in force: {one.old.cost:.4g} {one.unit}".strip(), "tab:blue")
        _steps(axis, both.new[name], f"new: {one.new.cost:.4g} {one.unit}".strip(), "tab:red")
        described = known[name]
        unit = f" [{described.unit}]" if described.unit else ""
        axis.set_xlabel(f"{described.title or name}{unit}")
        axis.set_ylabel("entries")
        axis.set_title(f"{one.merit.name}: {'WORSE' if one.worse else 'no worse' if one.judged else 'not judged'}")
        axis.legend(title=f"{one.merit.measure}", fontsize="small")
        axis.grid(alpha=0.3)
    figure.suptitle(title)
    return save(figure, path)


def _steps(axis: Axes, histogram: UnitHistogram, label: str, colour: str) -> None:
    counts = histogram.sums.values.sum(axis=0)[1:-1]
    axis.stairs(counts, histogram.edges, label=label, color=colour, linewidth=1.4)
