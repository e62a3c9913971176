"""The same events under two sets of conditions: how much of the output moves, and how far. Nothing is written of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from calib.calibration import packed_units
from calib.state import State, pack_states, unpack_states
from jobs.reduction import FileRecord, Node, Receipt
from pipeline.columns import IDENTITY, in_order, join, length, signature, take
from pipeline.model import Chunk, Columns
from pipeline.processing import ChunkWork, fill
from pipeline.whole import write_whole

OLD, NEW = "old", "new"


class Moved(NamedTuple):
    """What became of the values of a column in events that both ways kept: how many there are, how many differ, and
    the largest difference (0 for what is no number)."""

    values: int = 0
    moved: int = 0
    largest: float = 0.0

    def __add__(self, other: Moved) -> Moved:  # type: ignore[override]
        return Moved(self.values + other.values, self.moved + other.moved, max(self.largest, other.largest))


@dataclass(frozen=True)
class Differences:
    """How the output of the same events differs. Events are counted where anything of them does."""

    events: int = 0
    """kept under either"""
    changed: int = 0
    """of these, with another value or another number of entries somewhere, or kept under one only"""
    lost: int = 0
    """kept under the old conditions only"""
    gained: int = 0
    """kept under the new ones only"""
    columns: Mapping[str, Moved] = field(default_factory=dict)
    """by `TIER/column`, of entries that both have"""

    def __add__(self, other: Differences) -> Differences:
        names = sorted({*self.columns, *other.columns})
        columns = {name: self.columns.get(name, Moved()) + other.columns.get(name, Moved()) for name in names}
        return Differences(
            self.events + other.events,
            self.changed + other.changed,
            self.lost + other.lost,
            self.gained + other.gained,
            columns,
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "events": self.events,
            "changed": self.changed,
            "lost": self.lost,
            "gained": self.gained,
            "columns": {name: list(moved) for name, moved in self.columns.items()},
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Differences:
        """Read what `to_json` gave."""
        columns = {name: Moved(*moved) for name, moved in found["columns"].items()}
        return cls(found["events"], found["changed"], found["lost"], found["gained"], columns)


@dataclass(frozen=True)
class BothWays:
    """What was found: the differences, and the quality histograms under either."""

    differences: Differences
    old: State
    new: State

    def __add__(self, other: BothWays) -> BothWays:
        return BothWays(self.differences + other.differences, self.old.merge(other.old), self.new.merge(other.new))


@dataclass(frozen=True)
class TwoWays:
    """A step over some events under two sets of conditions (`jobs.reduction.Work`); only what was found is kept."""

    old: ChunkWork
    new: ChunkWork

    def leaf(self, chunk: Chunk, attempt: str) -> tuple[Receipt, BothWays]:
        """Do one chunk both ways."""
        ways = [_made(work, chunk) for work in (self.old, self.new)]
        differences = differ(ways[0].tiers, ways[1].tiers)
        return Receipt((), {"events": differences.events}), BothWays(differences, ways[0].quality, ways[1].quality)

    def absent(self, chunk: Chunk, reason: str) -> tuple[Receipt, BothWays]:
        """A chunk that cannot be read says nothing."""
        empty = _quality(self.old, ())
        return Receipt((), {"setbacks": [reason]}), BothWays(Differences(), empty, empty)

    def merge(self, values: Sequence[BothWays]) -> BothWays:
        """What several chunks have shown."""
        joined = values[0]
        for value in values[1:]:
            joined = joined + value
        return joined

    def store(self, value: BothWays, node: Node, attempt: str) -> Receipt:
        """Write the histograms whole; the differences are in the receipt."""
        path = Path(self.new.folder) / "canary" / f"{node.level}-{node.index}.{attempt}.npz"
        size, checksum = write_whole(path, pack_states({OLD: value.old, NEW: value.new}), self.new.probe)
        return Receipt((FileRecord(str(path), size, checksum),), {"differences": value.differences.to_json()})

    def load(self, receipt: Receipt) -> BothWays:
        """Read back what `store` wrote."""
        empty = {way: _quality(self.old, ()) for way in (OLD, NEW)}
        found = empty | unpack_states(receipt.files[0].path)
        return BothWays(Differences.from_json(receipt.note["differences"]), found[OLD], found[NEW])


class _Made(NamedTuple):
    tiers: dict[str, list[Columns]]
    quality: State


def _made(work: ChunkWork, chunk: Chunk) -> _Made:
    tiers: dict[str, list[Columns]] = {}
    measured = []
    for processed in work.processed(chunk):
        measured.append(processed.measured)
        for tier, columns in processed.tiers.items():
            tiers.setdefault(tier, []).append(columns)
    return _Made(tiers, _quality(work, measured))


def _quality(work: ChunkWork, measured: Iterable[Columns]) -> State:
    histograms = work.experiment.histograms(work.step)
    quality = fill(histograms, None)
    for columns in measured:
        quality = quality.merge(fill(histograms, columns))
    return quality


def differ(old: Mapping[str, Sequence[Columns]], new: Mapping[str, Sequence[Columns]]) -> Differences:
    """How two outputs of the same events differ, tier by tier; each tier is given in parts with the same columns."""
    changed: dict[tuple[int, int], bool] = {}
    lost: set[tuple[int, int]] = set()
    gained: set[tuple[int, int]] = set()
    columns: dict[str, Moved] = {}
    for tier in sorted({*old, *new}):
        for before, after in _paired(old.get(tier, ()), new.get(tier, ())):
            found = _compare(before, after)
            lost |= set(found.lost)
            gained |= set(found.gained)
            for event, moved in zip(found.both, found.changed.tolist(), strict=True):
                changed[event] = changed.get(event, False) or moved
            for name, moved_values in found.columns.items():
                columns[f"{tier}/{name}"] = columns.get(f"{tier}/{name}", Moved()) + moved_values
    events = {*changed, *lost, *gained}
    count = sum(event in lost or event in gained or changed.get(event, False) for event in events)
    return Differences(len(events), count, len(lost), len(gained), columns)


def _paired(old: Sequence[Columns], new: Sequence[Columns]) -> Iterator[tuple[Columns | None, Columns | None]]:
    """What has the same columns under both, side by side."""
    kinds: dict[tuple[Any, ...], tuple[list[Columns], list[Columns]]] = {}
    for side, parts in enumerate((old, new)):
        for part in parts:
            if length(part):
                kinds.setdefault(signature(part), ([], []))[side].append(part)
    for before, after in kinds.values():
        yield (in_order(join(before)) if before else None, in_order(join(after)) if after else None)


class _Pair(NamedTuple):
    both: list[tuple[int, int]]
    changed: NDArray[np.bool_]
    lost: list[tuple[int, int]]
    gained: list[tuple[int, int]]
    columns: dict[str, Moved]


def _compare(old: Columns | None, new: Columns | None) -> _Pair:
    if old is None or new is None:
        return _Pair([], np.zeros(0, np.bool_), _events(old), _events(new), {})
    before, after = _events(old), _events(new)
    shared = set(before) & set(after)
    kept = [np.array([event in shared for event in events], np.bool_) for events in (before, after)]
    one, other = take(old, kept[0]), take(new, kept[1])
    changed = np.zeros(len(shared), np.bool_)
    columns = {}
    for name in sorted(set(one) - set(IDENTITY)):
        moved, columns[name] = _column(one[name], other[name])
        changed |= moved
    lost = [event for event in before if event not in shared]
    gained = [event for event in after if event not in shared]
    return _Pair([event for event in before if event in shared], changed, lost, gained, columns)


def _events(columns: Columns | None) -> list[tuple[int, int]]:
    if columns is None:
        return []
    return list(zip(packed_units(columns).tolist(), np.asarray(columns["event"]).tolist(), strict=True))


def _column(old: Any, new: Any) -> tuple[NDArray[np.bool_], Moved]:
    """Which events differ in a column, and how much the entries that both have."""
    if isinstance(old, np.ndarray):
        differs, sizes = _moved(_in_rows(old), _in_rows(new))
        events: NDArray[np.bool_] = np.any(differs, axis=1)
        return events, Moved(differs.size, int(differs.sum()), sizes)
    counts, others = (ak.to_numpy(ak.num(values)) for values in (old, new))
    same = counts == others
    one, other = (ak.to_numpy(ak.flatten(values[same])) for values in (old, new))
    differs, sizes = _moved(_in_rows(one), _in_rows(other))
    entries = differs.any(axis=1)
    event = np.repeat(np.arange(int(same.sum())), counts[same])
    inside = np.zeros(int(same.sum()), np.bool_)
    inside[event[entries]] = True
    changed: NDArray[np.bool_] = ~same
    changed[same] = inside
    return changed, Moved(differs.size, int(differs.sum()), sizes)


def _in_rows(values: NDArray[Any]) -> NDArray[Any]:
    return values.reshape(len(values), math.prod(values.shape[1:]))


def _moved(old: NDArray[Any], new: NDArray[Any]) -> tuple[NDArray[np.bool_], float]:
    """Which values differ (two that are no number do not), and by how much at most."""
    if not np.issubdtype(old.dtype, np.number):
        return old != new, 0.0
    one, other = old.astype(np.float64), new.astype(np.float64)
    differs = ~((one == other) | (np.isnan(one) & np.isnan(other)))
    with np.errstate(invalid="ignore"):
        sizes = np.abs(other - one)[differs]
    return differs, float(np.nanmax(sizes)) if len(sizes) and not np.isnan(sizes).all() else 0.0
