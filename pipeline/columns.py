"""Columns of events: pick, order, join. NumPy where flat, awkward where jagged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from calib.calibration import packed_units
from pipeline.model import Columns

IDENTITY = ("run", "lumi", "event")


def length(columns: Columns) -> int:
    """How many events the columns hold."""
    return len(columns["event"])


def take(columns: Columns, which: NDArray[Any] | slice) -> dict[str, Any]:
    """The events that a mask, an index or a slice picks."""
    return {name: values[which] for name, values in columns.items()}


def signature(columns: Columns) -> tuple[tuple[str, str], ...]:
    """Names and types of the columns, in the order of the names: what can be joined without a change has the same."""
    return tuple((name, type_of(columns[name])) for name in sorted(columns))


def type_of(values: Any) -> str:
    """What one event has of a column, in words.

    >>> type_of(np.zeros((3, 2), np.float32)), type_of(ak.Array([[1.5], []]))
    ('2 * float32', 'var * float64')
    """
    if isinstance(values, np.ndarray):
        return " * ".join([*map(str, values.shape[1:]), str(values.dtype)])
    return str(values.type.content)


def join(parts: Sequence[Columns]) -> dict[str, Any]:
    """One after the other. Raises ValueError unless all parts have the same columns."""
    first = parts[0]
    for part in parts[1:]:
        if part.keys() != first.keys():
            odd = ", ".join(sorted(part.keys() ^ first.keys()))
            raise ValueError(f"only some parts have {odd}; what has other columns must be kept apart")
    return {name: _join([part[name] for part in parts]) if len(parts) > 1 else first[name] for name in first}


def _join(arrays: Sequence[Any]) -> Any:
    if all(isinstance(array, np.ndarray) for array in arrays):
        return np.concatenate(arrays)
    return ak.to_packed(ak.concatenate(arrays))


def in_order(columns: Columns) -> dict[str, Any]:
    """The events sorted by run, lumisection and event number, so that files and cuts do not show."""
    order = np.lexsort((columns["event"], columns["lumi"], columns["run"]))
    if np.array_equal(order, np.arange(len(order))):
        return dict(columns)
    return {
        name: values[order] if isinstance(values, np.ndarray) else ak.to_packed(values[order])
        for name, values in columns.items()
    }


def rows_by_unit(units: NDArray[np.int64], numbers: NDArray[Any]) -> dict[int, tuple[int, int]]:
    """How many entries each packed unit has, and how many of them have an event number that another has already.

    >>> rows_by_unit(np.array([1, 2, 1, 1]), np.array([7, 7, 8, 7]))
    {1: (3, 1), 2: (1, 0)}
    """
    order = np.lexsort((numbers, units))
    ordered, numbers = units[order], numbers[order]
    again = np.append(False, (np.diff(ordered) == 0) & (numbers[1:] == numbers[:-1]))
    found, starts, rows = np.unique(ordered, return_index=True, return_counts=True)
    twice = np.add.reduceat(again, starts, dtype=np.int64) if len(starts) else starts
    return dict(zip(found.tolist(), zip(rows.tolist(), twice.tolist(), strict=True), strict=True))


def flat_by_unit(columns: Columns, name: str) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Unit and value of every entry of a column, jagged ones flattened."""
    units, values = packed_units(columns), columns[name]
    if isinstance(values, np.ndarray) and values.ndim == 1:
        return units, values
    counts = ak.to_numpy(ak.num(values))
    return np.repeat(units, counts), ak.to_numpy(ak.flatten(values))
