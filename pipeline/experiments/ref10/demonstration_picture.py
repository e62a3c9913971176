"""The picture of the demonstration: beam by lumisection, d0 against phi, pedestals strip by strip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.experiments.ref10.demonstrated import Pedestals, Seen
from pipeline.experiments.ref10.upright import UM

PUT_IN, FOUND, OTHER = "black", "tab:blue", "tab:orange"
BINS = 16
"""of a profile in phi"""
LEAST = 20
"""tracks of a bin that is drawn"""


def picture(both: Seen, aligned: int, path: Path) -> None:
    """What was put in is black, what was found in colour, on the same axes; `aligned` is the run from which on the
    conditions know where modules are."""
    from pipeline.drawing import Drawing

    figure = Drawing(figsize=(12, 9.5), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=[1, 1.25])
    _beam(figure.add_subplot(grid[0, :]), both, aligned)
    _alignment(figure.add_subplot(grid[1, 0]), both, aligned)
    _pedestals(figure.add_subplot(grid[1, 1]), list(both.pedestals.values())[-1], list(both.pedestals)[-1])
    figure.savefig(path, dpi=120)


def _beam(axis: Any, both: Seen, aligned: int) -> None:
    """x of the beam along the lumisections of all runs, one after the other."""
    lumis = both.truth.lumis
    begin = {run: place * lumis for place, run in enumerate(both.tracks)}
    true = np.concatenate([both.truth.beam(run)["x"] for run in begin]) / UM
    axis.stairs(true, np.arange(len(true) + 1), baseline=None, color=PUT_IN, linewidth=2, label="put in")
    for place, one in enumerate(both.beam):
        _, found, error = one.x
        ends = begin[one.run] + one.first - 1, begin[one.run] + one.last
        axis.fill_between(ends, found - error, found + error, color=FOUND, alpha=0.35, linewidth=0)
        axis.plot(ends, (found, found), color=FOUND, label=None if place else "found, with its error")
    blind = [one for one in both.beam if one.run < aligned]
    for place, one in enumerate(blind):
        ends, moved = (begin[one.run] + one.first - 1, begin[one.run] + one.last), both.tracks[one.run].beam_moved[0]
        label = None if place else "put in, and what the misalignment adds by formula"
        axis.plot(ends, [one.x[0] + moved / UM] * 2, color=PUT_IN, linestyle=":", label=label)
    for run, first in begin.items():
        axis.axvline(first, color="0.7", linewidth=0.8)
        known = "alignment uploaded" if run >= aligned else "designed geometry believed"
        axis.text(
            first + lumis / 2,
            1.01,
            f"run {run}: {known}",
            ha="center",
            va="bottom",
            transform=axis.get_xaxis_transform(),
        )
    axis.set(xlim=(0, len(true)), xlabel="lumisection", ylabel="x of the beam [um]")
    axis.set_xticks(np.arange(len(true)) + 0.5, [str(place % lumis + 1) for place in range(len(true))])
    axis.grid(alpha=0.3, axis="y")
    _legend(axis, 1.08)


def _alignment(axis: Any, both: Seen, aligned: int) -> None:
    """d0 about the true beam: means by azimuth."""
    blind = [tracks for run, tracks in both.tracks.items() if run < aligned]
    knowing = [tracks for run, tracks in both.tracks.items() if run >= aligned]
    for parts, colour, word in ((blind, OTHER, "designed geometry"), (knowing, FOUND, "alignment uploaded")):
        phi, off, error, moved = (
            np.concatenate([getattr(one, name) for one in parts]) for name in ("phi", "off", "error", "moved")
        )
        at, mean, error_of_mean = profile(phi, off, error)
        if parts is blind:
            axis.plot(np.degrees(at), profile(phi, moved, error)[1] / UM, color=PUT_IN, label="by formula")
        style = {"fmt": "o", "markersize": 4, "color": colour, "capsize": 2}
        axis.errorbar(np.degrees(at), mean / UM, error_of_mean / UM, label=f"found, {word}", **style)
    axis.axhline(0, color=PUT_IN, linewidth=0.8)
    axis.set(xlabel="azimuth phi of tracks [degrees]", ylabel="mean d0 about the true beam [um]")
    axis.grid(alpha=0.3)
    _legend(axis, 1.0)


def profile(phi: NDArray[np.float64], values: NDArray[np.float64], error: NDArray[np.float64]) -> tuple[Any, Any, Any]:
    """Weighted means of values in bins of phi with enough tracks: the mean phi, the mean and its error."""
    edges = np.linspace(phi.min(), phi.max(), BINS + 1)
    place = np.clip(np.digitize(phi, edges) - 1, 0, BINS - 1)
    there = np.bincount(place, minlength=BINS) >= LEAST
    weight = np.bincount(place, error**-2.0, BINS)[there]
    at, mean = (np.bincount(place, error**-2.0 * of, BINS)[there] / weight for of in (phi, values))
    return at, mean, weight**-0.5


def _pedestals(axis: Any, of: Pedestals, run: int) -> None:
    """Found against put in, strip by strip, with the same scale."""
    for which, colour, word in ((~of.jumped, FOUND, "other chips"), (of.jumped, OTHER, "chips that jump")):
        axis.plot(of.put_in[which], of.found[which], ".", markersize=1.5, color=colour, label=word, rasterized=True)
    low, high = (float(end(of.put_in)) for end in (np.min, np.max))
    ends = low - 1.5, high + 1.5
    axis.plot(ends, ends, color=PUT_IN, linewidth=1, label="the same")
    axis.set(xlim=ends, ylim=ends, aspect="equal")
    axis.set(xlabel=f"pedestal put in, less the DAQ's [ADC], run {run}", ylabel="pedestal found, less the DAQ's [ADC]")
    axis.grid(alpha=0.3)
    _legend(axis, 1.0, markerscale=6)


def _legend(axis: Any, above: float, **more: Any) -> None:
    """Above the axes, where no data are."""
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, above), ncols=3, frameon=False, **more)
