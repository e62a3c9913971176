"""Constants over their intervals of validity, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from calib.iov import IOV
from calib.payload import Payload

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Interval:
    """One payload and where it holds."""

    iov: IOV
    payload: Payload


class NothingToPlot(ValueError):
    """The payloads have no such number."""


def measured(intervals: Sequence[Interval], names: Sequence[str]) -> list[Interval]:
    """Without the intervals that have no error on any of these numbers: design values would set the scale."""
    errors = [f"{name}_error" for name in names]
    found = [i for i in intervals if any(_scalar(i.payload, error, missing=np.nan) >= 0 for error in errors)]
    return found or list(intervals)


def plot(intervals: Sequence[Interval], names: Sequence[str], title: str = "") -> Figure:
    """Each named scalar of the payloads over the intervals, with its error where the payload has `NAME_error`.

    Raises NothingToPlot, naming the scalars there are.
    """
    from pipeline.drawing import Drawing

    if not intervals:
        raise NothingToPlot("there is no payload yet; run the calibration first, or look with `tier0 conditions list`")
    figure = Drawing(figsize=(9, 2.4 * len(names) + 0.8), layout="constrained")
    axes = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
    for axis, name in zip(axes, names, strict=True):
        values = [_scalar(interval.payload, name) for interval in intervals]
        errors = [_scalar(interval.payload, f"{name}_error", missing=0.0) for interval in intervals]
        begins = np.arange(len(values))
        axis.hlines(values, begins, begins + 1, linewidth=2)
        axis.errorbar(begins + 0.5, values, yerr=errors, fmt="none", capsize=3)
        unit = intervals[0].payload.units.get(name, "")
        axis.set_ylabel(f"{name} [{unit}]" if unit else name)
        axis.grid(alpha=0.3)
    _label_runs(axes[-1], [interval.iov for interval in intervals])
    axes[-1].set_xlim(0, len(intervals))
    figure.suptitle(title or intervals[0].payload.kind)
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write a figure in the format its name ends with."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path


def _scalar(payload: Payload, name: str, missing: float | None = None) -> float:
    array = payload.arrays.get(name)
    if array is None or array.size != 1:
        if missing is not None:
            return missing
        scalars = [key for key, values in payload.arrays.items() if values.size == 1]
        raise NothingToPlot(f"payload {payload.kind} has no single number {name!r}; it has {', '.join(scalars)}")
    return float(np.asarray(array).reshape(()))


def _label_runs(axis: object, iovs: Sequence[IOV]) -> None:
    step = max(1, len(iovs) // 16)
    places = list(range(0, len(iovs), step))
    axis.set_xticks(places, [str(iovs[place].since) for place in places], rotation=45, ha="right")  # type: ignore[attr-defined]
    axis.set_xlabel("begin of validity, run:lumisection")  # type: ignore[attr-defined]
