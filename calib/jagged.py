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
    plain = _plain(jagged)
    if plain is None:
        return np.asarray(ak.flatten(jagged))
    begins, ends, values = plain
    if not len(begins) or np.array_equal(begins[1:], ends[:-1]):
        return values[begins[0] : ends[-1]] if len(begins) else values[:0]
    counts = ends - begins
    picked: NDArray[Any] = values[np.arange(counts.sum()) + np.repeat(begins - (np.cumsum(counts) - counts), counts)]
    return picked


def counts_of(jagged: Any) -> NDArray[np.int64]:
    """How many entries each event has.

    >>> counts_of(ak.Array([[1, 2], [], [3]])).tolist()
    [2, 0, 1]
    """
    plain = _plain(jagged)
    return np.asarray(ak.num(jagged), np.int64) if plain is None else (plain[1] - plain[0]).astype(np.int64)


def jagged_of(values: NDArray[Any], counts: NDArray[np.int64]) -> ak.Array:
    """Entries in line as a jagged column, `counts` of them an event.

    >>> jagged_of(np.array([1, 2, 3]), np.array([2, 0, 1])).tolist()
    [[1, 2], [], [3]]
    """
    return with_offsets(values, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))


def with_offsets(values: NDArray[Any], offsets: NDArray[np.int64]) -> ak.Array:
    """The same, of where each event begins, and the last one ends."""
    return ak.Array(ak.contents.ListOffsetArray(ak.index.Index64(offsets), ak.contents.NumpyArray(values)))


def _plain(jagged: Any) -> tuple[NDArray[np.integer], NDArray[np.integer], NDArray[Any]] | None:
    """Where events begin and end among plain values; None where the column is made otherwise."""
    layout = jagged.layout if isinstance(jagged, ak.Array) else None
    # A ListArray is what is left of a column when some of its events are picked.
    if not isinstance(layout, ak.contents.ListOffsetArray | ak.contents.ListArray):
        return None
    values = layout.content.data if isinstance(layout.content, ak.contents.NumpyArray) else None
    if not isinstance(values, np.ndarray) or values.ndim != 1:
        return None
    return np.asarray(layout.starts.data), np.asarray(layout.stops.data), values
