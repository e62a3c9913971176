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
    offsets, values = plain
    return values[offsets[0] : offsets[-1]]


def counts_of(jagged: Any) -> NDArray[np.int64]:
    """How many entries each event has.

    >>> counts_of(ak.Array([[1, 2], [], [3]])).tolist()
    [2, 0, 1]
    """
    plain = _plain(jagged)
    return np.asarray(ak.num(jagged), np.int64) if plain is None else np.diff(plain[0]).astype(np.int64)


def jagged_of(values: NDArray[Any], counts: NDArray[np.int64]) -> ak.Array:
    """Entries in line as a jagged column, `counts` of them an event.

    >>> jagged_of(np.array([1, 2, 3]), np.array([2, 0, 1])).tolist()
    [[1, 2], [], [3]]
    """
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return ak.Array(ak.contents.ListOffsetArray(ak.index.Index64(offsets), ak.contents.NumpyArray(values)))


def _plain(jagged: Any) -> tuple[NDArray[np.integer], NDArray[Any]] | None:
    """Where events begin and end among values in line; None where the column is made otherwise."""
    layout = jagged.layout if isinstance(jagged, ak.Array) else None
    if not isinstance(layout, ak.contents.ListOffsetArray) or not isinstance(layout.content, ak.contents.NumpyArray):
        return None
    values = layout.content.data
    return (np.asarray(layout.offsets.data), values) if isinstance(values, np.ndarray) and values.ndim == 1 else None
