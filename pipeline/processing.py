"""One pass over the events of a run: what a worker does with a chunk, and how chunks are joined."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
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
from pipeline.again import accumulate_again, counted_here
from pipeline.columns import IDENTITY, flat_by_unit, in_order, join, length, rows_by_unit, signature, take
from pipeline.datasets import WHOLE, Dataset
from pipeline.events import write_tier, written_keys
from pipeline.experiments.interface import Experiment, MissingBranch, Processed, QualityHistogram, Wanted
from pipeline.model import Chunk, Columns, Counts, Piece, Step
from pipeline.reading import can_be_opened, is_closed, open_patiently, read_sound
from pipeline.stored import read_stored
from pipeline.tally import ELSEWHERE, NOT_EXPRESS, by_unit, counts_of, first_reason, is_express, tally
from pipeline.whole import write_whole

_NONE = np.zeros(0, np.int64)

LARGEST_STATE = 1_000_000_000
QUALITY = "quality"

States = dict[str, State]


class OutOfReach(Exception):
    """Something a chunk needs beside its input is not there: a payload, a folder. Its events are not bad for that."""

    cause = Cause.PASSING


class StateTooLarge(Exception):
    """The joined state of a calibration is larger than the settings allow."""

    cause = Cause.REFUSED


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
    dataset: Dataset = WHOLE
    """which events it is about"""
    closes: tuple[Calibration, ...] = ()
    """what is accumulated again, for closure (`pipeline.again`)"""
    quality: bool = True
    """whether quality histograms are filled"""
    largest_state: int = LARGEST_STATE
    """bytes that the joined state of one calibration may have"""
    probe: Callable[[str], None] = field(default=nothing)

    def leaf(self, chunk: Chunk, attempt: str) -> tuple[Receipt, States]:
        """Read, process, write and accumulate one chunk. Nothing it writes counts until its receipt is committed."""
        try:
            made = self._make(chunk)
            counts = tally(chunk, made.counts, made.bad)
            records, tiers = self._write(chunk, made, attempt)
            rows = self._rows(made.results, records, tiers)
            states = self._accumulate(made.results)
        except FileNotFoundError as gone:
            raise OutOfReach(str(gone)) from gone
        # One reason for each file: there may be many parts of it, and as many words.
        reasons = {piece.path: reason for piece, reason in reversed(made.bad)}
        note = {
            "counts": counts,
            "tiers": tiers,
            "rows": rows,
            "setbacks": sorted({*reasons.values(), *(result.setback for result in made.results if result.setback)}),
            "unread": {path: _standing(path) for path in reasons},
        }
        return Receipt(tuple(records), note | ({"start": made.start} if made.start else {})), states

    def absent(self, chunk: Chunk, reason: str) -> tuple[Receipt, States]:
        """What stands for a chunk that was set aside: all its events bad, its states empty."""
        bad = [(piece, reason) for piece in chunk.pieces]
        note = {"counts": tally(chunk, [], bad), "tiers": [], "rows": {}, "setbacks": [reason]}
        return Receipt((), note), self._accumulate([])

    def merge(self, values: Sequence[States]) -> States:
        """Join the states of several chunks."""
        if len(values) == 1:
            return dict(values[0])
        # By halves: what is joined to all before it is copied each time.
        one, other = (self.merge(half) for half in (values[: len(values) // 2], values[len(values) // 2 :]))
        return one | other | {name: state.merge(other[name]) for name, state in one.items() if name in other}

    def store(self, value: States, node: Node, attempt: str) -> Receipt:
        """Write joined states whole, under a name of this attempt alone; the receipt has bytes and units of each.

        Raises StateTooLarge.
        """
        sizes = {name: (state.nbytes, len(state.units())) for name, state in value.items()}
        for name, (size, units) in sizes.items():
            if size > self.largest_state:
                raise StateTooLarge(_too_large(name, size, units, self.largest_state))
        path = Path(self.folder) / "states" / f"{node.level}-{node.index}.{attempt}.npz"
        size, checksum = write_whole(path, pack_states(value), self.probe)
        return Receipt((FileRecord(str(path), size, checksum),), {"states": sizes})

    def load(self, receipt: Receipt) -> States:
        """Read joined states back; parts that no chunk filled come back as empty ones."""
        return self._empty() | unpack_states(receipt.files[0].path)

    def processed(self, chunk: Chunk) -> Iterator[Processed]:
        """What the experiment makes of the sound events of a chunk, to look at: nothing of it is written."""
        for result in self._make(chunk).results:
            if result.processed is not None:
                yield result.processed

    def _make(self, chunk: Chunk) -> _Made:
        """What becomes of the events: from what an earlier pass has left of them where that is sound, else from RAW."""
        start: dict[str, str] = {}
        if chunk.stored is not None:
            start = {"tier": chunk.stored.tier, "job": chunk.stored.job, "instead": ""}
            try:
                again = self._again(chunk.stored.tier)
                lots = [_Lot(in_order(part), absent, again) for part, absent in read_stored(chunk.stored)]
                results = [result for lot in lots for result in self._process(lot)]
                return _Made(results, start=start, before=chunk.stored.left_out)
            except BadData as unfit:
                start["instead"] = str(unfit)
        lots, bad = self._read(chunk)
        return _Made([result for lot in lots for result in self._process(lot)], bad, start)

    def _again(self, tier: str) -> Callable[[Columns, Conditions], Processed]:
        return {restart.tier: restart.again for restart in self.experiment.restarts(self.step)}[tier]

    def _read(self, chunk: Chunk) -> tuple[list[_Lot], list[tuple[Piece, str]]]:
        """The chunk's events, lots with different columns apart; and pieces that could not be read, with the reason."""
        found: dict[tuple[Any, ...], list[Columns]] = {}
        bad: list[tuple[Piece, str]] = []
        for path in sorted({piece.path for piece in chunk.pieces}):
            pieces = [piece for piece in chunk.pieces if piece.path == path]
            try:
                source = open_patiently(path)
                wanted = self._wanted(source.branches(self.experiment.tree))
                parts, unsound = read_sound(source, self.experiment, wanted.columns, pieces)
            except (BadData, OSError) as problem:
                if not isinstance(problem, BadData | FileNotFoundError) and not is_closed(problem):
                    raise
                bad.extend((piece, str(problem)) for piece in pieces)
                continue
            bad.extend(unsound)
            absent = tuple(sorted(wanted.absent.items()))
            for part in parts:
                if length(part):
                    found.setdefault((absent, signature(part)), []).append(part)
        return [_Lot(in_order(join(parts)), dict(absent)) for (absent, _), parts in found.items()], bad

    def _wanted(self, branches: frozenset[str]) -> Wanted:
        """What the step reads, and what tells whose events they are. Raises MissingBranch."""
        wanted = self.experiment.wanted(self.step, branches)
        more = [name for name in self.experiment.triggers.columns if self.dataset.name and name not in wanted.columns]
        if missing := sorted(set(more) - branches):
            raise MissingBranch(f"no {', '.join(missing)}, by which datasets are told apart")
        return replace(wanted, columns=(*wanted.columns, *more))

    def _process(self, lot: _Lot) -> Iterator[_Result]:
        """Each stretch of events that shares its conditions goes through the experiment on its own."""
        units = packed_units(lot.events)
        starts = np.array([segment.since for segment in self.segments], np.int64)
        segment = np.searchsorted(starts, units, side="right") - 1
        edges = np.concatenate([[0], np.flatnonzero(np.diff(segment)) + 1, [len(units)]])
        for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            at = int(segment[begin])
            ids = self.segments[at].ids if at >= 0 else {}
            conditions = Conditions(RunLumi.unpack(int(units[begin])), ids, self.conditions_root)
            yield from self._process_sound(lot.part(slice(begin, end)), conditions)

    def _process_sound(self, lot: _Lot, conditions: Conditions) -> Iterator[_Result]:
        """Events that the experiment calls bad are told apart from the others, so that no cut shows in what is bad."""
        events = length(lot.events)
        try:
            yield self._process_alike(lot, conditions)
        except BadData as problem:
            if lot.again:
                raise
            if events > 1:
                for part in (slice(0, events // 2), slice(events // 2, events)):
                    yield from self._process_sound(lot.part(part), conditions)
                return
            counts = {unit: Counts(read, bad=read) for unit, read in by_unit(packed_units(lot.events)).items()}
            yield _Result(None, conditions, counts, setback=str(problem))

    def _process_alike(self, lot: _Lot, conditions: Conditions) -> _Result:
        why, outside = self._outside(lot)
        inside = take(lot.events, ~outside) if outside.any() else lot.events
        do = lot.again or partial(self.experiment.process, self.step)
        processed = do(inside, conditions)
        reason = first_reason(length(inside), processed.filtered)
        kept = take({name: inside[name] for name in IDENTITY}, reason < 0)
        processed = _with_identity(processed, kept)
        filtered = {name: reason == i for i, name in enumerate(processed.filtered)}
        counts = counts_of(lot.events, {why: outside}, inside, filtered)
        own = counted_here(self.experiment.triggers, self.dataset, inside)
        return _Result(processed, conditions, counts, lot.absent, own=own[reason < 0])

    def _outside(self, lot: _Lot) -> tuple[str, NDArray[np.bool_]]:
        """The events that this pass is not about, and why. A tier of an earlier one has none."""
        numbers = np.asarray(lot.events["event"])
        if self.fraction is not None:
            return NOT_EXPRESS, ~is_express(numbers, self.fraction)
        if lot.again or not self.dataset.name:
            return ELSEWHERE, np.zeros(len(numbers), np.bool_)
        return ELSEWHERE, ~self.dataset.takes(self.experiment.triggers.fired(lot.events), len(numbers))

    def _write(self, chunk: Chunk, made: _Made, attempt: str) -> tuple[list[FileRecord], list[dict[str, Any]]]:
        """Write the output, what has different columns or lacks different ones in files of its own."""
        found: dict[tuple[Any, ...], list[Columns]] = {}
        for result in made.results:
            for tier, columns in result.tiers(self.tiers):
                if length(columns):
                    absent = tuple(sorted(result.absent.items()))
                    found.setdefault((tier, absent, signature(columns)), []).append(columns)
        records: list[FileRecord] = []
        written: list[dict[str, Any]] = []
        about = {**self.header, "chunk": chunk.index, "flags": _flags(made.results), "start": made.start}
        for (tier, absent, _), parts in found.items():
            path = Path(self.folder) / tier / f"{self.header['name']}-{chunk.index}.{len(records)}.{attempt}.root"
            header = {**about, "tier": tier, "absent": dict(absent)}
            size, checksum, events = write_tier(path, in_order(join(parts)), header, self.probe)
            written.append({"tier": tier, "file": len(records), "events": events})
            records.append(FileRecord(str(path), size, checksum))
        return records, written

    def _rows(
        self, results: Sequence[_Result], records: Sequence[FileRecord], written: Sequence[Mapping[str, Any]]
    ) -> dict[str, list[Any]]:
        """What the files hold now that they are written, as JSON rows by tier: unit and `pipeline.model.Rows`."""
        with_tier = [(result, {tier for tier, _ in result.tiers(self.tiers)}) for result in results]
        rows: dict[str, list[Any]] = {}
        for tier in sorted({tier for _, tiers in with_tier for tier in tiers}):
            keys = [written_keys(records[file["file"]].path) for file in written if file["tier"] == tier]
            units, numbers = (np.concatenate(found) for found in zip(*keys, strict=True)) if keys else (_NONE, _NONE)
            apart: Counter[int] = Counter()
            for result, tiers in with_tier:
                if tier not in tiers:
                    apart.update({unit: count.out for unit, count in result.counts.items() if count.out})
            there = rows_by_unit(units, numbers)
            found_units = sorted({*there, *apart})
            rows[tier] = [[unit, *there.get(unit, (0, 0)), apart[unit]] for unit in found_units]
        return rows

    def _accumulate(self, results: Sequence[_Result]) -> States:
        states = self._empty()
        for result in results:
            if result.processed is None:
                continue
            columns = result.processed.measured
            for calibration in self.calibrations:
                state = calibration.accumulate(columns, result.conditions)
                states[calibration.kind] = calibration.merge(states[calibration.kind], state)
            if self.quality:
                states[QUALITY] = states[QUALITY].merge(fill(self.experiment.histograms(self.step), columns))
            own = take(columns, result.own) if self.closes and not result.own.all() else columns
            again = [accumulate_again(one, self.dataset, own, result.conditions) for one in self.closes]
            states = self.merge([states, *again])
        return states

    def _empty(self) -> States:
        states = {calibration.kind: calibration.empty() for calibration in self.calibrations}
        return states | ({QUALITY: fill(self.experiment.histograms(self.step), None)} if self.quality else {})


@dataclass(frozen=True)
class _Lot:
    """Events with the same columns, in order, and the columns their files lack (name to reason)."""

    events: Columns
    absent: Mapping[str, str]
    again: Callable[[Columns, Conditions], Processed] | None = None
    """what is left to do of events of a tier; None for those of RAW"""

    def part(self, which: slice) -> _Lot:
        """Some of the events."""
        return replace(self, events=take(self.events, which))


@dataclass(frozen=True)
class _Result:
    """What became of some events; `processed` is None for one that the experiment called bad."""

    processed: Processed | None
    conditions: Conditions
    counts: dict[int, Counts]
    absent: Mapping[str, str] = field(default_factory=dict)
    setback: str = ""
    own: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    """which of the events kept count here, and in no other dataset"""

    def tiers(self, wanted: tuple[str, ...] | None) -> Iterator[tuple[str, Columns]]:
        """The output columns of each tier, or of those wanted."""
        for tier, columns in self.processed.tiers.items() if self.processed else ():
            if wanted is None or tier in wanted:
                yield tier, columns


@dataclass(frozen=True)
class _Made:
    """What became of the events of a chunk."""

    results: Sequence[_Result]
    bad: Sequence[tuple[Piece, str]] = ()
    """what could not be read, and why"""
    start: Mapping[str, str] = field(default_factory=dict)
    """the tier to start from and the job that has left it, and why RAW was read `instead`; empty if there is none"""
    before: Mapping[int, Counts] = field(default_factory=dict)
    """what an earlier pass has filtered already"""

    @property
    def counts(self) -> list[Mapping[int, Counts]]:
        """What became of the events that could be read, by packed unit, part by part."""
        return [self.before, *(result.counts for result in self.results)]


def _flags(results: Sequence[_Result]) -> dict[str, dict[str, bool]]:
    """What the payloads that were used say of themselves, such as that slopes were not measured: by payload id."""
    used = [result.conditions for result in results if result.processed is not None]
    found = {conditions.ids[kind]: conditions[kind].flags for conditions in used for kind in conditions.ids}
    return {name: flags for name, flags in found.items() if flags}


def _too_large(name: str, size: int, units: int, limit: int) -> str:
    rate = f"{units} units x {size / max(units, 1):.0f} bytes"
    advice = f"give it fewer channels or bins, or set `largest_state` of [express] to {size} or more"
    return f"the state of {name!r} has {size} bytes ({rate}), at most {limit} are allowed: {advice}"


def _standing(path: str) -> str:
    """What is the matter with a file that could not be used: it is `unreadable`, `closed` or `gone`."""
    return "unreadable" if can_be_opened(path) else "closed" if os.path.lexists(path) else "gone"


def fill(histograms: Sequence[QualityHistogram], columns: Columns | None) -> State:
    """The quality histograms of these events, by unit; of no event for None."""
    parts = {}
    for histogram in histograms:
        present = columns is not None and histogram.column in columns
        units, values = flat_by_unit(columns, histogram.column) if columns and present else (_NONE, _NONE)
        parts[histogram.name] = UnitHistogram.fill(np.array(histogram.edges), units, values)
    return State(parts)


def _with_identity(processed: Processed, kept: Columns) -> Processed:
    tiers = {tier: {**kept, **columns} for tier, columns in processed.tiers.items()}
    return Processed(tiers, {**kept, **processed.measured}, processed.filtered)
