"""One pass over the events of a run: what a worker does with a chunk, and how chunks are joined."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.accumulators import UnitHistogram
from calib.calibration import Calibration, packed_units
from calib.iov import RunLumi
from calib.payload import Conditions
from calib.state import State, pack_states, unpack_states
from jobs.reduction import FileRecord, Node, Receipt
from jobs.retry import BadData, Cause
from pipeline.columns import IDENTITY, flat_by_unit, in_order, join, length, take
from pipeline.events import write_tier
from pipeline.experiments.interface import Experiment, Processed, QualityHistogram
from pipeline.model import Chunk, Columns, Counts, Piece, Step
from pipeline.reading import open_patiently, read_pieces
from pipeline.whole import write_whole

QUALITY = "quality"
NOT_EXPRESS = "not express"

States = dict[str, State]


class Unaccounted(Exception):
    """A step lost an event or made one twice."""


class OutOfReach(Exception):
    """Something a chunk needs beside its input is not there: a payload, a folder. Its events are not bad for that."""

    cause = Cause.PASSING


def nothing(point: str) -> None:
    """The probe of production: passes every kill point."""


@dataclass(frozen=True)
class Segment:
    """Payload ids that hold from a packed unit on, until the next segment."""

    since: int
    ids: Mapping[str, str]


@dataclass(frozen=True)
class ChunkWork:
    """The work of one step over one run (`jobs.reduction.Work`). Holds no arrays; conditions travel as ids."""

    experiment: Experiment
    step: Step
    calibrations: tuple[Calibration, ...]
    segments: tuple[Segment, ...]
    conditions_root: str
    folder: str
    header: Mapping[str, Any]
    tiers: tuple[str, ...] | None = None
    """tiers to write; None for all"""
    fraction: Fraction | None = None
    """the share of the events that express takes"""
    probe: Callable[[str], None] = field(default=nothing)

    def leaf(self, chunk: Chunk, attempt: str) -> tuple[Receipt, States]:
        """Read, process, write and accumulate one chunk. Nothing it writes counts until its receipt is committed."""
        events, absent, bad = self._read(chunk)
        try:
            results = self._process(events) if events is not None and length(events) else []
            counts = _tally(chunk, [result.counts for result in results], bad)
            records, tiers = self._write(chunk, results, absent, attempt)
            states = self._accumulate(results)
        except FileNotFoundError as gone:
            raise OutOfReach(str(gone)) from gone
        note = {
            "counts": counts,
            "tiers": tiers,
            "absent": dict(absent),
            "setbacks": sorted({reason for _, reason in bad}),
            "unread": {piece.path: Path(piece.path).exists() for piece, _ in bad},
        }
        return Receipt(tuple(records), note), states

    def absent(self, chunk: Chunk, reason: str) -> tuple[Receipt, States]:
        """What stands for a chunk that was set aside: all its events bad, its states empty."""
        bad = [(piece, reason) for piece in chunk.pieces]
        note = {"counts": _tally(chunk, [], bad), "tiers": {}, "absent": {}, "setbacks": [reason]}
        return Receipt((), note), self._accumulate([])

    def merge(self, values: Sequence[States]) -> States:
        """Join the states of several chunks."""
        joined = dict(values[0])
        for value in values[1:]:
            joined = {name: state.merge(value[name]) for name, state in joined.items()}
        return joined

    def store(self, value: States, node: Node, attempt: str) -> Receipt:
        """Write joined states whole, under a name of this attempt alone."""
        path = Path(self.folder) / "states" / f"{node.level}-{node.index}.{attempt}.npz"
        size, checksum = write_whole(path, pack_states(value), self.probe)
        return Receipt((FileRecord(str(path), size, checksum),), {})

    def load(self, receipt: Receipt) -> States:
        """Read joined states back; parts that no chunk filled come back as empty ones."""
        return self._empty() | unpack_states(receipt.files[0].path)

    def _read(self, chunk: Chunk) -> tuple[Columns | None, Mapping[str, str], list[tuple[Piece, str]]]:
        """The chunk's events in order, columns that are absent, and pieces that could not be read, with the reason."""
        parts: list[Columns] = []
        absent: dict[str, str] = {}
        bad: list[tuple[Piece, str]] = []
        for path in sorted({piece.path for piece in chunk.pieces}):
            pieces = [piece for piece in chunk.pieces if piece.path == path]
            try:
                source = open_patiently(path)
                wanted = self.experiment.wanted(self.step, source.branches(self.experiment.tree))
                parts.append(read_pieces(source, self.experiment, wanted.columns, pieces))
                absent.update(wanted.absent)
            except (BadData, FileNotFoundError) as problem:
                bad.extend((piece, str(problem)) for piece in pieces)
        return (in_order(join(parts)) if parts else None), absent, bad

    def _process(self, events: Columns) -> list[_Result]:
        """Each stretch of events that shares its conditions goes through the experiment on its own."""
        units = packed_units(events)
        starts = np.array([segment.since for segment in self.segments], np.int64)
        segment = np.searchsorted(starts, units, side="right") - 1
        edges = np.concatenate([[0], np.flatnonzero(np.diff(segment)) + 1, [len(units)]])
        results = []
        for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            at = int(segment[begin])
            ids = self.segments[at].ids if at >= 0 else {}
            conditions = Conditions(RunLumi.unpack(int(units[begin])), ids, self.conditions_root)
            results.append(self._process_alike(take(events, slice(begin, end)), conditions))
        return results

    def _process_alike(self, events: Columns, conditions: Conditions) -> _Result:
        outside = self._not_express(events)
        inside = take(events, ~outside) if outside.any() else events
        processed = self.experiment.process(self.step, inside, conditions)
        reason = _first_reason(length(inside), processed.filtered)
        kept = take({name: inside[name] for name in IDENTITY}, reason < 0)
        processed = _with_identity(processed, kept)
        filtered = {name: reason == i for i, name in enumerate(processed.filtered)}
        return _Result(processed, conditions, _counts(events, outside, inside, filtered))

    def _not_express(self, events: Columns) -> NDArray[np.bool_]:
        numbers = np.asarray(events["event"])
        if self.fraction is None:
            return np.zeros(len(numbers), np.bool_)
        return ~is_express(numbers, self.fraction)

    def _write(
        self, chunk: Chunk, results: Sequence[_Result], absent: Mapping[str, str], attempt: str
    ) -> tuple[list[FileRecord], dict[str, Any]]:
        records: list[FileRecord] = []
        written: dict[str, Any] = {}
        names = results[0].processed.tiers if results else {}
        for tier in names:
            if self.tiers is not None and tier not in self.tiers:
                continue
            columns = join([result.processed.tiers[tier] for result in results])
            if not length(columns):
                continue
            path = Path(self.folder) / tier / f"{self.header['name']}-{chunk.index}.{attempt}.root"
            header = {**self.header, "tier": tier, "absent": dict(absent), "chunk": chunk.index}
            size, checksum, events = write_tier(path, columns, header, self.probe)
            written[tier] = {"file": len(records), "events": events}
            records.append(FileRecord(str(path), size, checksum))
        return records, written

    def _accumulate(self, results: Sequence[_Result]) -> States:
        states = self._empty()
        for result in results:
            columns = result.processed.measured
            for calibration in self.calibrations:
                state = calibration.accumulate(columns, result.conditions)
                states[calibration.kind] = calibration.merge(states[calibration.kind], state)
            quality = fill(self.experiment.histograms(self.step), columns)
            states[QUALITY] = states[QUALITY].merge(quality)
        return states

    def _empty(self) -> States:
        states = {calibration.kind: calibration.empty() for calibration in self.calibrations}
        return states | {QUALITY: fill(self.experiment.histograms(self.step), None)}


@dataclass(frozen=True)
class _Result:
    processed: Processed
    conditions: Conditions
    counts: dict[int, Counts]


def is_express(numbers: NDArray[Any], fraction: Fraction) -> NDArray[np.bool_]:
    """Which event numbers belong to express: e is taken if `e * p mod q < p` for the share p/q. Exact, and the same
    however the run is cut.

    >>> is_express(np.arange(6), Fraction(1, 2)).tolist()
    [True, False, True, False, True, False]
    """
    p, q = fraction.numerator, fraction.denominator
    # Reduced first, so that the product cannot leave 64 bits for any event number.
    return (numbers.astype(np.uint64) % np.uint64(q)) * np.uint64(p) % np.uint64(q) < np.uint64(p)


def fill(histograms: Sequence[QualityHistogram], columns: Columns | None) -> State:
    """The quality histograms of these events, by unit; of no event for None."""
    none = np.zeros(0, np.int64)
    parts = {}
    for histogram in histograms:
        present = columns is not None and histogram.column in columns
        units, values = flat_by_unit(columns, histogram.column) if columns and present else (none, none)
        parts[histogram.name] = UnitHistogram.fill(np.array(histogram.edges), units, values)
    return State(parts)


def _first_reason(events: int, filtered: Mapping[str, NDArray[np.bool_]]) -> NDArray[np.int64]:
    """The first reason that filters each event, by its place; -1 for events that are kept."""
    reason = np.full(events, -1, np.int64)
    for place, mask in reversed(list(enumerate(filtered.values()))):
        reason[np.asarray(mask)] = place
    return reason


def _with_identity(processed: Processed, kept: Columns) -> Processed:
    tiers = {tier: {**kept, **columns} for tier, columns in processed.tiers.items()}
    return Processed(tiers, {**kept, **processed.measured}, processed.filtered)


def _counts(
    events: Columns, outside: NDArray[np.bool_], inside: Columns, filtered: Mapping[str, NDArray[np.bool_]]
) -> dict[int, Counts]:
    """What became of the events, by packed unit."""
    all_units, inner = packed_units(events), packed_units(inside)
    lost = {name: _by_unit(inner[mask]) for name, mask in filtered.items()} | {
        NOT_EXPRESS: _by_unit(all_units[outside])
    }
    counts = {}
    for unit, read in _by_unit(all_units).items():
        reasons = {name: found[unit] for name, found in lost.items() if unit in found}
        counts[unit] = Counts(read, read - sum(reasons.values()), reasons, 0)
    return counts


def _by_unit(units: NDArray[np.int64]) -> dict[int, int]:
    found, numbers = np.unique(units, return_counts=True)
    return dict(zip(found.tolist(), numbers.tolist(), strict=True))


def _tally(chunk: Chunk, found: Sequence[Mapping[int, Counts]], bad: Sequence[tuple[Piece, str]]) -> list[Any]:
    """Counts by unit as JSON rows: unit, read, out, filtered by reason, bad."""
    total = {unit: Counts() for unit in chunk.units}
    for counts in found:
        for unit, count in counts.items():
            total[unit] = total[unit] + count
    for piece, _ in bad:
        total[piece.unit] = total[piece.unit] + Counts(read=piece.events, bad=piece.events)
    promised = {unit: sum(piece.events for piece in chunk.pieces if piece.unit == unit) for unit in total}
    for unit, count in total.items():
        if not count.balanced or count.read != promised[unit]:
            raise Unaccounted(f"{RunLumi.unpack(unit)}: {promised[unit]} events in the chunk, but {count}")
    return [[unit, c.read, c.out, dict(c.filtered), c.bad] for unit, c in total.items()]
