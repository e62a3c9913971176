"""What an event file holds, and which events several files have. Knows no catalogue: it runs on workers too."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calib.iov import LUMI_BITS
from jobs.retry import BadData
from pipeline.events import BadFile, SourceFile, stamp_of
from pipeline.experiments.interface import Experiment, MissingBranch
from pipeline.model import BadEvent, FileIndex, Piece, Step, Stream
from pipeline.whole import checksum_of

STEP = 100_000
"""entries identified at a time"""

SECOND_COPY = "second copy of the event"

_RUN_LIMIT = 1 << (63 - LUMI_BITS)

Int = NDArray[np.int64]
Spans = dict[int, tuple[int, int]]
"""packed unit to the lowest and the highest event number it has in a file"""


@dataclass(frozen=True)
class Looked:
    """What was found in a file."""

    index: FileIndex
    spans: Spans


@dataclass(frozen=True, slots=True)
class Unusable:
    """A file cannot be used, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Share:
    """What one file has of some units."""

    path: str
    pieces: tuple[Piece, ...]
    is_new: bool
    """whether it is not registered yet, so that its second copies can still be left out"""


@dataclass(frozen=True)
class Compared:
    """Second copies among some files, and files that could not be asked, with the reason."""

    copies: tuple[BadEvent, ...] = ()
    unusable: dict[str, str] = field(default_factory=dict)


def look_into(experiment: Experiment, path: str) -> Looked | Unusable:
    """Index a file; what cannot be used is a result too."""
    try:
        return _looked(experiment, path)
    except (BadData, OSError) as problem:
        return Unusable(str(problem))


def index_file(experiment: Experiment, path: str | Path) -> FileIndex:
    """What a file holds. Raises BadFile, VanishedFile or MissingBranch, each saying what is wrong."""
    return _looked(experiment, str(path)).index


def _looked(experiment: Experiment, path: str) -> Looked:
    before = stamp_of(path)
    if os.path.isdir(path):
        raise BadFile(f"{path} is a folder; give the files in it: {path}/*.root")
    source = SourceFile.open(path)
    entries = source.entries(experiment.tree)
    stream = experiment.stream(Path(path))
    units, events = identify(experiment, source, [(0, entries)])
    if entries:
        _be_of_use(experiment, source, stream)
    first = _first_copies(units, events)
    checksum = checksum_of(Path(path))
    if stamp_of(path) != before:
        raise BadFile(f"{path} changed while it was read; register it again when it is complete")
    left_out = [
        BadEvent(path, entry, int(units[entry]), int(events[entry]), SECOND_COPY, path)
        for entry in np.flatnonzero(~first).tolist()
    ]
    held = tuple(_pieces(path, units, first))
    index = FileIndex(path, before.size, checksum, held, tuple(left_out), entries, before.modified_ns, stream)
    return Looked(index, _spans(units, events))


def _be_of_use(experiment: Experiment, source: SourceFile, stream: Stream) -> None:
    """Raises MissingBranch for a file that no step can use: registered, it would stand in the way of a good copy."""
    lacking: dict[str, None] = {}
    for step in (Step.EXPRESS,) if stream is Stream.EXPRESS else Step:
        try:
            experiment.wanted(step, source.branches(experiment.tree))
        except MissingBranch as problem:
            lacking[str(problem)] = None
        else:
            return
    raise MissingBranch(f"{source.path}: {'; '.join(lacking)}; give a copy that has it, or leave the file out")


def identify(experiment: Experiment, source: SourceFile, ranges: Iterable[tuple[int, int]]) -> tuple[Int, Int]:
    """Packed unit and event number of these entries, one range after the other. Raises BadFile for impossible ones."""
    units, events = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for start, stop in ranges:
        for at in range(start, stop, STEP):
            keys = experiment.identify(source, at, min(at + STEP, stop))
            run, lumi = np.asarray(keys.run, np.int64), np.asarray(keys.lumi, np.int64)
            wrong = np.flatnonzero((run < 0) | (run >= _RUN_LIMIT) | (lumi < 0) | (lumi >= 1 << LUMI_BITS))
            if len(wrong):
                entry = int(wrong[0])
                message = f"entry {at + entry} is of run {run[entry]}, {experiment.unit_name} {lumi[entry]}"
                raise BadFile(f"{source.path}: {message}, which cannot be; is the file damaged?")
            units.append(run << LUMI_BITS | lumi)
            events.append(np.asarray(keys.event, np.int64))
    return np.concatenate(units), np.concatenate(events)


def second_copies(experiment: Experiment, shares: Sequence[Share]) -> Compared:
    """Which events of new files others have too. Of several copies the one in the first file is the one that stays."""
    asked: list[Share] = []
    keys: list[tuple[Int, Int, Int]] = []
    unusable: dict[str, str] = {}
    for share in shares:
        ranges = [(piece.start, piece.stop) for piece in share.pieces]
        try:
            found = identify(experiment, SourceFile.open(share.path), ranges)
        except (BadData, OSError) as problem:
            unusable[share.path] = str(problem)
            continue
        asked.append(share)
        keys.append((*found, np.concatenate([np.arange(*one) for one in ranges])))
    return Compared(tuple(_copies(asked, keys)) if asked else (), unusable)


def _copies(shares: Sequence[Share], keys: Sequence[tuple[Int, Int, Int]]) -> Iterator[BadEvent]:
    units, events, entries = (np.concatenate(column) for column in zip(*keys, strict=True))
    place = np.repeat(np.arange(len(shares)), [len(found) for found, *_ in keys])
    # lexsort is stable, so copies of an event come in the order of the files.
    order = np.lexsort((events, units))
    again = (np.diff(units[order]) == 0) & (np.diff(events[order]) == 0)
    begins = np.maximum.accumulate(np.where(np.append(True, ~again), np.arange(len(order)), 0))
    for at in (np.flatnonzero(again) + 1).tolist():
        this, first = order[at], order[begins[at]]
        if shares[place[this]].is_new:
            where = (int(entries[this]), int(units[this]), int(events[this]))
            yield BadEvent(shares[place[this]].path, *where, SECOND_COPY, shares[place[first]].path)


def without(index: FileIndex, left_out: Sequence[BadEvent]) -> FileIndex:
    """The index with these entries left out."""
    if not left_out:
        return index
    units = np.full(index.entries, -1, np.int64)
    for piece in index.pieces:
        units[piece.start : piece.stop] = piece.unit
    taking_part = units >= 0
    taking_part[[bad.entry for bad in left_out]] = False
    kept = tuple(_pieces(index.path, units, taking_part))
    ordered = sorted(left_out, key=lambda bad: bad.entry)
    return replace(index, pieces=kept, duplicates=(*index.duplicates, *ordered))


def _first_copies(units: Int, events: Int) -> NDArray[np.bool_]:
    """Which entries are the first of their event."""
    order = np.lexsort((events, units))
    again = (np.diff(units[order]) == 0) & (np.diff(events[order]) == 0)
    first = np.ones(len(units), np.bool_)
    # lexsort is stable, so of equal entries the one that comes first in the file stays.
    first[order[1:][again]] = False
    return first


def _pieces(path: str, units: Int, taking_part: NDArray[np.bool_]) -> Iterator[Piece]:
    entries = np.flatnonzero(taking_part)
    if not len(entries):
        return
    cuts = np.flatnonzero((np.diff(entries) != 1) | (np.diff(units[entries]) != 0)) + 1
    for part in np.split(entries, cuts):
        start = int(part[0])
        yield Piece(path, start, int(part[-1]) + 1, int(units[start]))


def _spans(units: Int, events: Int) -> Spans:
    if not len(units):
        return {}
    order = np.argsort(units, kind="stable")
    found, starts = np.unique(units[order], return_index=True)
    lowest = np.minimum.reduceat(events[order], starts)
    highest = np.maximum.reduceat(events[order], starts)
    return dict(zip(found.tolist(), zip(lowest.tolist(), highest.tolist(), strict=True), strict=True))
