"""Jagged columns as flat arrays and back: `ak.flatten`, `ak.num` and `ak.unflatten` cost more than small chunks do."""

from __future__ import annotations

from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import NDArray


def flat_of(jagged: Any) -> NDArray[Any]:
    """The entries of all events in line. Not to be written to: it may be the column itself.

    >>> flat_of(ak.Array([[1, 2], [], [3]])).tolist()
    [1, 2, 3]
    """
    layout = _plain(jagged)
    if layout is None:
        return np.asarray(ak.flatten(jagged))
    values = layout.content.data
    if isinstance(layout, ak.contents.ListOffsetArray):
        offsets = layout.offsets.data
        found: NDArray[Any] = values[offsets[0] : offsets[-1]]
        return found
    begins = layout.starts.data
    counts = layout.stops.data[: len(begins)] - begins
    found = values[np.arange(counts.sum()) + np.repeat(begins - (np.cumsum(counts) - counts), counts)]
    return found


def counts_of(jagged: Any) -> NDArray[np.int64]:
    """How many entries each event has.

    >>> counts_of(ak.Array([[1, 2], [], [3]])).tolist()
    [2, 0, 1]
    """
    layout = _plain(jagged)
    if layout is None:
        return np.asarray(ak.num(jagged), np.int64)
    if isinstance(layout, ak.contents.ListOffsetArray):
        counts: NDArray[np.int64] = np.diff(layout.offsets.data).astype(np.int64, copy=False)
        return counts
    begins = layout.starts.data
    counts = (layout.stops.data[: len(begins)] - begins).astype(np.int64)
    return counts


def jagged_of(values: NDArray[Any], counts: NDArray[np.int64]) -> ak.Array:
    """Entries in line as a jagged column, `counts` of them an event.

    >>> jagged_of(np.array([1, 2, 3]), np.array([2, 0, 1])).tolist()
    [[1, 2], [], [3]]
    """
    return with_offsets(values, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))


def with_offsets(values: NDArray[Any], offsets: NDArray[np.int64]) -> ak.Array:
    """The same, of where each event begins, and the last one ends."""
    return ak.Array(ak.contents.ListOffsetArray(ak.index.Index64(offsets), ak.contents.NumpyArray(values)))


def _plain(jagged: Any) -> Any:
    """The layout of a list of plain values; None where the column is made otherwise.

    What awkward makes anew at each question, as where events begin, costs more than what is asked.
    """
    layout = jagged.layout if isinstance(jagged, ak.Array) else None
    # A ListArray is what is left of a column when some of its events are picked.
    if not isinstance(layout, ak.contents.ListOffsetArray | ak.contents.ListArray):
        return None
    values = layout.content.data if isinstance(layout.content, ak.contents.NumpyArray) else None
    return layout if isinstance(values, np.ndarray) and values.ndim == 1 else None


def ramps(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, ... for each of the counts, in line.

    >>> ramps(np.array([2, 0, 3])).tolist()
    [0, 1, 0, 1, 2]
    """
    ends = np.cumsum(counts)
    found: NDArray[np.int64] = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)
    return found
