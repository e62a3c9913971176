"""Events and outputs of an experiment for its laws: held in memory, cut, and compared to the last bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from pipeline.columns import IDENTITY, join, length, take
from pipeline.experiments.interface import Experiment, Processed
from pipeline.model import Columns, EventSource, Step

Index = NDArray[np.int64]

MOST_SINGLES = 40
"""a law that takes events one by one stops after so many"""


@dataclass(frozen=True)
class MemorySource:
    """An event file that is none: trees of columns held in memory (`pipeline.model.EventSource`)."""

    path: Path
    trees: Mapping[str, Columns]

    def branches(self, tree: str) -> frozenset[str]:
        """The columns a tree has."""
        return frozenset(self.trees[tree])

    def entries(self, tree: str) -> int:
        """How many entries a tree has."""
        return len(next(iter(self.trees[tree].values())))

    def arrays(self, tree: str, columns: tuple[str, ...], start: int, stop: int) -> Columns:
        """These columns of entries `start` to `stop`."""
        return {name: self.trees[tree][name][start:stop] for name in columns}

    def without(self, tree: str, column: str) -> MemorySource:
        """The same file, had it not this column."""
        kept = {name: values for name, values in self.trees[tree].items() if name != column}
        return MemorySource(self.path, {**self.trees, tree: kept})


def read(experiment: Experiment, source: EventSource, step: Step) -> Columns:
    """All events of a source as the pipeline hands them to `process`: what the step wants, and their keys."""
    stop = source.entries(experiment.tree)
    wanted = experiment.wanted(step, source.branches(experiment.tree))
    keys = experiment.identify(source, 0, stop)
    columns = source.arrays(experiment.tree, wanted.columns, 0, stop)
    return {**columns, "run": keys.run, "lumi": keys.lumi, "event": keys.event}


def kept(processed: Processed, events: int) -> NDArray[np.bool_]:
    """Which of the events given are in the output: bool[events]."""
    mask = np.ones(events, np.bool_)
    for reason in processed.filtered.values():
        mask &= ~np.asarray(reason)
    return mask


def measured(processed: Processed, events: Columns) -> Columns:
    """What calibrations read: the measured columns and the keys of the events kept."""
    mask = kept(processed, length(events))
    return {**take({name: events[name] for name in IDENTITY}, mask), **processed.measured}


def differences(left: Columns, right: Columns) -> list[str]:
    """The columns that are not the same to the last bit, type and shape included."""
    if set(left) != set(right):
        return sorted(set(left) ^ set(right))
    return [name for name in sorted(left) if not _same(left[name], right[name])]


def _same(left: Any, right: Any) -> bool:
    ours, theirs = list(layers(left)), list(layers(right))
    return len(ours) == len(theirs) and all(
        a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        for a, b in zip(ours, theirs, strict=True)
    )


def layers(values: Any) -> Iterator[NDArray[Any]]:
    """Counts of every level of a jagged column, then its numbers."""
    while isinstance(values, ak.Array) and values.ndim > 1:
        yield np.asarray(ak.num(values), np.int64)
        values = ak.flatten(values)
    yield np.ascontiguousarray(values)


def hold(truth: bool, otherwise: str) -> None:
    """Raise AssertionError with these words unless it is true."""
    # No assert statement: pytest does not rewrite it in an installed package, so it would say nothing.
    if not truth:
        raise AssertionError(otherwise)


def cuts(n: int) -> Iterator[list[Index]]:
    """Ways to hand over some of n events, part by part: none, one by one, in pieces, every second, backwards."""
    every = np.arange(n)
    yield [every[:0]]
    yield [every[i : i + 1] for i in range(min(n, MOST_SINGLES))]
    yield [every[: n // 3], every[n // 3 : n // 2], every[n // 2 :]]
    yield [every[::2]]
    yield [every[::-1]]


def picked(whole: Processed, columns: Columns, chosen: Index, events: int) -> dict[str, Any]:
    """The output rows of the chosen events, of an output of all."""
    mask = kept(whole, events)
    for name, values in columns.items():
        hold(len(values) == mask.sum(), f"{name} has {len(values)} entries for {mask.sum()} events kept")
    row = np.cumsum(mask) - 1
    return take(columns, row[chosen[mask[chosen]]])


def compare(what: str, parts: list[Columns], expected: Columns) -> None:
    """Hold that parts one after the other are what is expected, to the last bit and in every part of the same types."""
    for part in parts:
        hold(set(part) == set(expected), f"{what}: there is {sorted(set(part) ^ set(expected))} for some events only")
        for name, values in part.items():
            found, wanted = _kind(values), _kind(expected[name])
            hold(found == wanted, f"{what}: {name} is {found} for some events, {wanted} for others")
    wrong = differences(join(parts), expected)
    hold(not wrong, f"{what} differs in {wrong}")


def _kind(values: Any) -> str:
    return str(values.type.content if isinstance(values, ak.Array) else values.dtype)
