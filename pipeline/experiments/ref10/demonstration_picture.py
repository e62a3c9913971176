"""The picture of the demonstration: beam by lumisection, d0 against phi, pedestals strip by strip."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.experiments.ref10.demonstrated import Pedestals, Seen, Tracks
from pipeline.experiments.ref10.upright import UM

Floats = NDArray[np.float64]

PUT_IN, FOUND, BLIND, PALE = "black", "tab:blue", "tab:orange", "0.85"
"""what was put in; what was found, and where something is not known; lines behind"""
BINS = 16
"""of a profile in phi"""
LEAST = 20
"""tracks of a bin that is drawn"""
CELL = 0.15
"""ADC: size of a cell of the picture of pedestals"""


def picture(both: Seen, aligned: int, within: float, path: Path) -> None:
    """What was put in is black, what was found in colour, on the same axes.

    `aligned` is the run from which on the conditions know where modules are, `within` the share to which a formula
    tells what it does that they do not.
    """
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    from pipeline.drawing import Drawing

    figure = Drawing(figsize=(12, 10), layout=ConstrainedLayoutEngine(h_pad=0.12, w_pad=0.12))
    grid = figure.add_gridspec(2, 2, height_ratios=[1, 1.25], width_ratios=[1.15, 1])
    _beam(figure.add_subplot(grid[0, :]), both, aligned)
    _alignment(figure.add_subplot(grid[1, 0]), both, aligned, within)
    last = list(both.pedestals)[-1]
    _pedestals(figure.add_subplot(grid[1, 1]), both.pedestals[last], last)
    figure.savefig(path, dpi=120)


def _beam(axis: Any, both: Seen, aligned: int) -> None:
    """x of the beam along the lumisections of all runs, one after the other."""
    lumis = both.truth.lumis
    begin = {run: place * lumis for place, run in enumerate(both.tracks)}
    for run, first in begin.items():
        true = both.truth.beam(run)["x"] / UM
        axis.stairs(true, first + np.arange(lumis + 1), baseline=None, color=PUT_IN, linewidth=1.8)
        known = "alignment uploaded" if run >= aligned else "designed geometry believed"
        words = {"ha": "center", "va": "top", "transform": axis.get_xaxis_transform(), "backgroundcolor": "white"}
        axis.text(first + lumis / 2, 0.97, f"run {run}: {known}", **words)
        axis.axvline(first, color="0.6", linewidth=0.8)
    for one in both.beam:
        blind, (_, found, error) = one.run < aligned, one.x
        ends, colour = (begin[one.run] + one.first - 1, begin[one.run] + one.last), BLIND if blind else FOUND
        axis.fill_between(ends, found - error, found + error, color=colour, alpha=0.35, linewidth=0)
        axis.plot(ends, (found, found), color=colour, linewidth=1.8, solid_capstyle="butt")
        if blind:
            moved = one.x[0] + both.tracks[one.run].beam_moved[0] / UM
            axis.plot(ends, (moved, moved), color=PUT_IN, linestyle=":", linewidth=1.8)
    last = len(begin) * lumis
    axis.set(xlim=(0, last), xlabel="lumisection", ylabel="x of the beam [µm]")
    axis.set_xticks(np.arange(last) + 0.5, [str(place % lumis + 1) for place in range(last)])
    axis.tick_params(axis="x", length=0)
    low, high = axis.get_ylim()
    axis.set_ylim(low, high + 0.12 * (high - low))
    axis.grid(color=PALE, linewidth=0.7, axis="y")
    axis.set_axisbelow(True)
    line: dict[str, Any] = {"linewidth": 1.8}
    _named(
        axis,
        "Beam spot",
        [
            ("put in", {"color": PUT_IN, **line}),
            ("and what the misalignment adds, by formula", {"color": PUT_IN, "linestyle": ":", **line}),
            ("found by express, with its error", {"color": FOUND, **line}),
            ("where the alignment is not known", {"color": BLIND, **line}),
        ],
    )


def _alignment(axis: Any, both: Seen, aligned: int, within: float) -> None:
    """d0 about the true beam: means by azimuth."""
    blind = joined([tracks for run, tracks in both.tracks.items() if run < aligned])
    knowing = joined([tracks for run, tracks in both.tracks.items() if run >= aligned])
    edges = np.linspace(blind.phi.min(), blind.phi.max(), BINS + 1)
    by_formula = profile(edges, blind.phi, blind.moved, blind.error)[1] / UM
    degrees = np.degrees(edges)
    wide = within * np.abs(by_formula)
    axis.stairs(by_formula + wide, degrees, baseline=by_formula - wide, fill=True, color=PUT_IN, alpha=0.12)
    axis.stairs(by_formula, degrees, baseline=None, color=PUT_IN, linewidth=1.8)
    axis.axhline(0, color="0.6", linewidth=0.8)
    for tracks, colour, marker in ((blind, BLIND, "o"), (knowing, FOUND, "s")):
        at, mean, error = profile(edges, tracks.phi, tracks.off, tracks.error)
        style = {"fmt": marker, "markersize": 4.5, "color": colour, "elinewidth": 1.3}
        axis.errorbar(np.degrees(at), mean / UM, error / UM, **style)
    axis.set(xlabel="azimuth φ of tracks [degrees]", ylabel="mean $d_0$ about the true beam [µm]")
    axis.grid(color=PALE, linewidth=0.7)
    axis.set_axisbelow(True)
    point: dict[str, Any] = {"linestyle": ""}
    _named(
        axis,
        "Alignment",
        [
            (f"by formula (± {within:.0%})", {"color": PUT_IN, "linewidth": 1.8}),
            ("found, designed geometry", {"color": BLIND, "marker": "o", **point}),
            ("found, alignment uploaded", {"color": FOUND, "marker": "s", **point}),
        ],
    )


def joined(parts: Sequence[Tracks]) -> Tracks:
    """Tracks of several runs as if of one."""
    return Tracks(*(np.concatenate([getattr(one, name) for one in parts]) for name in ("phi", "off", "error", "moved")))


def profile(edges: Floats, phi: Floats, values: Floats, error: Floats) -> tuple[Floats, Floats, Floats]:
    """Weighted means of values in bins of phi: the mean phi, the mean and its error; NaN where a bin has few tracks."""
    bins = len(edges) - 1
    place = np.digitize(phi, edges[1:-1])
    inside = (phi >= edges[0]) & (phi <= edges[-1])
    place, phi, values, error = place[inside], phi[inside], values[inside], error[inside]
    few = np.bincount(place, minlength=bins) < LEAST
    weight = np.where(few, np.nan, np.bincount(place, error**-2.0, bins))
    at, mean = (np.bincount(place, error**-2.0 * of, bins) / weight for of in (phi, values))
    return at, mean, weight**-0.5


def _pedestals(axis: Any, of: Pedestals, run: int) -> None:
    """How many strips have which pedestal, put in and found, with the same scale."""
    from matplotlib.colors import LogNorm

    low, high = (float(end(np.append(of.put_in, of.found))) for end in (np.min, np.max))
    ends = low - 0.5, high + 0.5
    edges = np.arange(ends[0], ends[1] + CELL, CELL)
    for which, colours in ((~of.jumped, "Blues"), (of.jumped, "Oranges")):
        count, _, _ = np.histogram2d(of.put_in[which], of.found[which], [edges, edges])
        cells = np.ma.masked_equal(count.T, 0)
        # From a fifth of the count of one on: the palest colours of a map are lost on white.
        axis.pcolormesh(edges, edges, cells, cmap=colours, norm=LogNorm(0.2, max(count.max(), 1)), rasterized=True)
    axis.plot(ends, ends, color=PUT_IN, linewidth=1.2)
    axis.set(xlim=ends, ylim=ends, aspect="equal", anchor="NE")
    axis.set(xlabel=f"put in, run {run}, less the DAQ's [ADC]", ylabel="found, less the DAQ's [ADC]")
    axis.grid(color=PALE, linewidth=0.7)
    axis.set_axisbelow(True)
    square: dict[str, Any] = {"linestyle": "", "marker": "s", "markersize": 8}
    _named(
        axis,
        "Pedestals",
        [
            ("the same", {"color": PUT_IN, "linewidth": 1.2}),
            ("strips that drift", {"color": FOUND, **square}),
            ("and jump", {"color": BLIND, **square}),
        ],
    )


def _named(axis: Any, title: str, lines: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """A title, and a legend above the axes, where no data are."""
    from matplotlib.lines import Line2D

    axis.set_title(title, loc="left", fontweight="bold", pad=28)
    entries = [Line2D([], [], label=label, **style) for label, style in lines]
    place = {"loc": "lower left", "bbox_to_anchor": (-0.005, 1.0), "borderaxespad": 0.3, "borderpad": 0.2}
    legend = axis.legend(
        handles=entries, ncols=len(entries), frameon=False, columnspacing=1.2, handletextpad=0.5, **place
    )
    legend.set_in_layout(False)  # or a long one makes the axes narrow
