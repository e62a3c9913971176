"""Constants over their intervals of validity, as a picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calib.iov import IOV, RunLumi
from calib.payload import Array, Payload
from calib.tags import Moment
from pipeline.conditions_words import spoken

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABELS = 16
"""how many beginnings are labelled at most"""

CODES = 6
"""integers with at most so many different values are drawn as shares of these"""

QUANTILES = (0.0228, 0.1587, 0.5, 0.8413, 0.9772)
"""those of a normal distribution at two and one sigma, and the median"""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """One payload and where it holds, half open; `until` None is open."""

    since: Moment
    until: Moment | None
    payload: Payload

    @property
    def iov(self) -> IOV:
        """The interval of a tag by run or lumisection. Raises ValueError for one by time."""
        if isinstance(self.since, RunLumi) and not isinstance(self.until, int):
            return IOV(self.since, self.until)
        raise ValueError(f"the interval from {spoken(self.since)} goes by time; use since and until")


class NothingToPlot(ValueError):
    """The payloads have no such number."""


@dataclass(frozen=True)
class Seen:
    """What is drawn of one array of one payload: a number with its error, or the quantiles of many.

    `shares`: of each value of an array of few different integers, how many elements have it.
    """

    unit: str
    size: int
    quantiles: Floats
    """at `QUANTILES`; of a number itself, and itself with its error; NaN where there is none"""
    shares: Mapping[int, float] | None = None


@dataclass(frozen=True)
class Row:
    """One interval, without its payload."""

    since: Moment
    until: Moment | None
    seen: tuple[Seen, ...]


@dataclass(frozen=True)
class Curve:
    """A step function: `middle` from edge `begins` to edge `ends`, inside each of `bands`, the widest first."""

    label: str
    begins: NDArray[np.int64]
    ends: NDArray[np.int64]
    middle: Floats
    bands: tuple[tuple[Floats, Floats], ...] = ()


def drawable(payload: Payload) -> tuple[str, ...]:
    """What to draw when nothing is named: single numbers with an error, else all that has a unit, else all arrays."""
    names = [name for name in payload.arrays if not name.endswith("_error")]
    single = [name for name in names if payload[name].size == 1 and f"{name}_error" in payload.arrays]
    with_unit = [name for name in names if payload.units.get(name)]
    return tuple(single or with_unit or names)


def plot(histories: Mapping[str, Iterable[Interval]], names: Sequence[str], title: str = "") -> Figure:
    """Named arrays over the intervals of one or more tags of a kind, one below the other.

    A single number is a step with the band of its error, where the payload has `NAME_error`. Of a larger array the
    median over its elements is drawn, with the bands that hold 68 % and 95 % of them; of one of few different integers
    (a status) the share of each. Intervals are gone through once, and no payload is kept. Raises NothingToPlot,
    naming the arrays there are.
    """
    from pipeline.drawing import Drawing

    rows = {label: [_row(interval, names) for interval in found] for label, found in histories.items()}
    rows = {label: measured(found) for label, found in rows.items() if found}
    if not rows:
        raise NothingToPlot("there is no payload yet; run the calibration first, or look with `tier0 conditions list`")
    if not names:
        raise NothingToPlot("name at least one number to draw")
    edges = _edges(rows)
    figure = Drawing(figsize=(9, 2.6 * len(names) + 1.2), layout="constrained")
    axes = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
    for place, (axis, name) in enumerate(zip(axes, names, strict=True)):
        seen = [row.seen[place] for found in rows.values() for row in found]
        axis.set_ylabel(_axis_label(name, seen))
        named = {label if len(rows) > 1 else "": found for label, found in rows.items()}
        _draw(axis, [curve for label, found in named.items() for curve in curves(label, found, place, edges)])
    _label_edges(axes[-1], edges)
    _mark_runs(axes, edges)
    open_end = any(row.until is None for found in rows.values() for row in found)
    axes[-1].set_xlim(0, len(edges) - (not open_end))
    figure.suptitle(title)
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write a figure in the format its name ends with. Raises NothingToPlot for a format there is not."""
    formats = figure.canvas.get_supported_filetypes()
    if path.suffix.removeprefix(".").lower() not in formats:
        raise NothingToPlot(f"{path} has no ending that says how to draw; there are {', '.join(formats)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path


def measured(rows: Sequence[Row]) -> list[Row]:
    """Without the intervals that have no error on any number, if others have: design values would set the scale."""
    found = [row for row in rows if any(np.isfinite(seen.quantiles[0]) for seen in row.seen)]
    return found or list(rows)


def _row(interval: Interval, names: Sequence[str]) -> Row:
    return Row(interval.since, interval.until, tuple(_seen(interval.payload, name) for name in names))


def _seen(payload: Payload, name: str) -> Seen:
    array, unit = payload.arrays.get(name), payload.units.get(name, "")
    if array is None:
        raise NothingToPlot(f"payload {payload.kind} has no array {name!r}; it has {', '.join(payload.arrays)}")
    if array.size == 1:
        value, error = _number(array), _number(payload.arrays.get(f"{name}_error"))
        quantiles = np.array([value - error, value - error, value, value + error, value + error])
        return Seen(unit, 1, quantiles)
    finite = array[np.isfinite(array)]
    quantiles = np.quantile(finite, QUANTILES) if finite.size else np.full(len(QUANTILES), np.nan)
    return Seen(unit, array.size, quantiles, _shares(array))


def _number(array: Array | None) -> float:
    return float(array.reshape(())) if array is not None and array.size == 1 else np.nan


def _shares(array: Array) -> Mapping[int, float] | None:
    """The share of each value of a status; None for what is none."""
    if array.dtype.kind not in "biu" or not array.size:
        return None
    values, counts = np.unique(array, return_counts=True)
    return dict(zip(values.tolist(), (counts / array.size).tolist(), strict=True)) if len(values) <= CODES else None


def curves(label: str, rows: Sequence[Row], place: int, edges: Sequence[Moment]) -> list[Curve]:
    """One array, by its place in the rows of a tag, as steps over the edges; several where it has few values."""
    at = {edge: n for n, edge in enumerate(edges)}
    begins = np.array([at[row.since] for row in rows], np.int64)
    ends = np.array([len(edges) if row.until is None else at[row.until] for row in rows], np.int64)
    seen = [row.seen[place] for row in rows]
    shares = [one.shares for one in seen if one.shares is not None]
    codes = sorted({code for found in shares for code in found})
    if len(shares) == len(seen) and len(codes) <= CODES:
        by_code = {code: np.array([found.get(code, 0.0) for found in shares]) for code in codes}
        named = {code: f"{label}: {code}" if label else str(code) for code in codes}
        return [Curve(named[code], begins, ends, values) for code, values in by_code.items()]
    low, lower, middle, upper, high = np.stack([one.quantiles for one in seen], axis=1)
    bands = ((low, high), (lower, upper)) if max(one.size for one in seen) > 1 else ((low, high),)
    return [Curve(label, begins, ends, middle, bands if np.isfinite(low).any() else ())]


def _edges(rows: Mapping[str, Sequence[Row]]) -> list[Moment]:
    """Every moment at which any of the tags changes, in order. They are drawn at equal distances."""
    moments: set[Any] = {row.since for found in rows.values() for row in found}
    moments |= {row.until for found in rows.values() for row in found if row.until is not None}
    if len({isinstance(moment, RunLumi) for moment in moments}) > 1:
        raise NothingToPlot("one tag goes by run, another by time: they have no axis in common")
    return sorted(moments)


def _axis_label(name: str, seen: Sequence[Seen]) -> str:
    units, size = sorted({one.unit for one in seen}), max(one.size for one in seen)
    if len(units) > 1:
        raise NothingToPlot(f"{name} is in {' and in '.join(unit or 'no unit' for unit in units)}: draw them apart")
    if all(one.shares is not None for one in seen):
        return f"{name}\nshare of {size:,} by value"
    label = f"{name} [{units[0]}]" if units[0] else name
    return f"{label}\nmedian of {size:,}, 68 %, 95 %" if size > 1 else label


def _draw(axis: Any, found: Sequence[Curve]) -> None:
    for number, curve in enumerate(found):
        colour = f"C{number % 10}"
        for low, high in curve.bands:
            x, below = _steps(curve, low)
            axis.fill_between(x, below, _steps(curve, high)[1], alpha=0.25, linewidth=0, color=colour)
        # Tags that agree lie on one another: the later are drawn thinner, so that all are seen.
        width = max(1.0, 3.0 - number) if len(found) > 1 else 2.0
        axis.plot(*_steps(curve, curve.middle), linewidth=width, color=colour, label=curve.label)
    if len(found) > 1:
        axis.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    axis.grid(alpha=0.3, axis="y")


def _steps(curve: Curve, values: Floats) -> tuple[Floats, Floats]:
    """A step function as a line, with a break where steps do not meet."""
    x = np.stack([curve.begins, curve.ends], axis=1).astype(np.float64).ravel()
    y = np.repeat(values, 2)
    breaks = 2 * (np.flatnonzero(curve.begins[1:] > curve.ends[:-1]) + 1)
    return np.insert(x, breaks, np.nan), np.insert(y, breaks, np.nan)


def _mark_runs(axes: Any, edges: Sequence[Moment]) -> None:
    """A line wherever another run begins, and above the first axis its number."""
    moments = [(place, moment.run) for place, moment in enumerate(edges) if isinstance(moment, RunLumi)]
    begins = [(place, run) for (place, run), (_, before) in zip(moments[1:], moments, strict=False) if run != before]
    for axis in axes:
        for place, _ in begins:
            axis.axvline(place, color="0.7", linewidth=0.8, linestyle=":", zorder=0)
    labelled = [*moments[:1], *begins][:: -(-(len(begins) + 1) // LABELS)]
    if labelled:
        places, runs = zip(*labelled, strict=True)
        top = axes[0].secondary_xaxis("top")
        top.set_xticks(places, [f"{run}" for run in runs], rotation=45, ha="left", fontsize="small")
        top.set_xlabel("run")


def _label_edges(axis: Any, edges: Sequence[Moment]) -> None:
    step = -(-len(edges) // LABELS)
    places = list(range(0, len(edges), step))
    axis.set_xticks(places, [spoken(edges[place]) for place in places], rotation=45, ha="right")
    what = "run:lumisection" if isinstance(edges[0], RunLumi) else "time (UTC)"
    axis.set_xlabel(f"begin of validity, {what} (one step an interval, whatever its length)")
