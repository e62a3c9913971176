"""New event files: what each holds, which of its events were there already, and what cannot be used."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.engine import Connection

from calib.iov import LUMI_BITS, RunLumi
from jobs.retry import BadData
from pipeline import catalog
from pipeline.catalog import FileState, Registered
from pipeline.events import BadFile, SourceFile, stamp_of
from pipeline.experiments.interface import Experiment
from pipeline.journal import Setback, add_setbacks, resolve_setbacks
from pipeline.model import BadEvent, FileIndex, Piece
from pipeline.reading import can_be_opened
from pipeline.whole import checksum_of

STEP = 100_000
"""entries identified at a time"""

FILE = "file"
DUPLICATES = "duplicates"
SECOND_COPY = "second copy of the event"

_RUN_LIMIT = 1 << (63 - LUMI_BITS)

Begin = Callable[[], AbstractContextManager[Connection]]
Int = NDArray[np.int64]


@dataclass
class Ingested:
    """What became of the files of one call, by path."""

    became: dict[str, Registered] = field(default_factory=dict)
    """files that can be used"""
    invalid: dict[str, str] = field(default_factory=dict)
    """files that cannot be used, and why"""
    empty: set[str] = field(default_factory=set)
    """files that can be used, but hold no event"""
    duplicates: dict[str, int] = field(default_factory=dict)
    """how many entries were left out as second copies"""


def ingest(begin: Begin, experiment: Experiment, paths: Iterable[str | Path], now: float) -> Ingested:
    """Register event files. A file that cannot be used is set aside with its reason, and the rest goes on.

    A file that is registered already, with the size and time stamp it has, is not opened again. Every file is a
    transaction of its own, so that no other writer waits while one is read.
    """
    done = Ingested()
    queue = deque((os.path.abspath(path), False) for path in paths)
    looked_again: set[str] = set()
    while queue:
        path, again = queue.popleft()
        for other in _take_in(begin, experiment, path, now, done, again):
            # Its second copies lean on a first one that is not there any more. Once is enough: it leans on nothing
            # that is still to change.
            if other not in looked_again:
                looked_again.add(other)
                queue.append((other, True))
    return done


def index_file(experiment: Experiment, path: str | Path) -> FileIndex:
    """What a file holds. Raises BadFile, VanishedFile or MissingBranch, each saying what is wrong."""
    before = stamp_of(path)
    source = SourceFile.open(path)
    entries = source.entries(experiment.tree)
    units, events = identify(experiment, source, [(0, entries)])
    first = _first_copies(units, events)
    checksum = checksum_of(Path(path))
    if stamp_of(path) != before:
        raise BadFile(f"{path} changed while it was read; register it again when it is complete")
    left_out = [
        BadEvent(str(path), entry, int(units[entry]), int(events[entry]), SECOND_COPY, str(path))
        for entry in np.flatnonzero(~first).tolist()
    ]
    held = tuple(_pieces(str(path), units, first))
    stream = experiment.stream(Path(path))
    return FileIndex(str(path), before.size, checksum, held, tuple(left_out), entries, before.modified_ns, stream)


def is_sound_again(connection: Connection, path: str, after: float | None = None) -> bool:
    """Whether a file may be read and is the one that was registered; where a time is given, registered after it."""
    known = catalog.find_file(connection, path)
    try:
        stamp = stamp_of(path)
    except OSError:
        return False
    if known is None or not can_be_opened(path) or not _is_known(known, stamp.size, stamp.modified_ns):
        return False
    return after is None or known.registered > after


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


def holes(units: Sequence[int] | Int) -> dict[int, list[tuple[int, int]]]:
    """Lumisections missing between the first and the last of each run, as closed ranges; `units` are packed.

    >>> holes([RunLumi(7, 1).packed, RunLumi(7, 2).packed, RunLumi(7, 6).packed])
    {7: [(3, 5)]}
    """
    found: dict[int, list[tuple[int, int]]] = {}
    ordered = np.unique(np.asarray(units, np.int64))
    for at in np.flatnonzero(np.diff(ordered) > 1).tolist():
        last, following = RunLumi.unpack(ordered[at]), RunLumi.unpack(ordered[at + 1])
        if last.run == following.run:
            found.setdefault(last.run, []).append((last.lumi + 1, following.lumi - 1))
    return found


def _take_in(begin: Begin, experiment: Experiment, path: str, now: float, done: Ingested, again: bool) -> list[str]:
    """Register one file; gives the files that must be looked at again because of it."""
    try:
        stamp = stamp_of(path)
        with begin() as connection:
            known = catalog.find_file(connection, path)
        if not again and known is not None and _is_known(known, stamp.size, stamp.modified_ns):
            done.became.setdefault(path, Registered.SAME)
            return []
        index = index_file(experiment, path)
        with begin() as connection:
            copy = catalog.find_copy(connection, index.size, index.checksum, path)
        if copy is not None and os.path.exists(copy) and index.pieces:
            raise BadFile(f"{path} has the same content as {copy}, which is registered; leave one of them out")
        index, unreadable = _without_second_copies(begin, experiment, index)
    except (BadData, OSError) as problem:
        return _set_aside(begin, path, str(problem), now, done)
    leaning = [path for other, reason in unreadable.items() for path in _set_aside(begin, other, reason, now, done)]
    return leaning + _register(begin, experiment, index, now, done)


def _is_known(known: catalog.FileVersion, size: int, modified_ns: int) -> bool:
    return known.state is FileState.VALID and (known.size, known.modified_ns) == (size, modified_ns)


def _register(begin: Begin, experiment: Experiment, index: FileIndex, now: float, done: Ingested) -> list[str]:
    path = index.path
    with begin() as connection:
        leaning = catalog.leaning_on(connection, path)
        became = catalog.register_file(connection, index, now)
        for kind in (FILE, DUPLICATES):
            resolve_setbacks(connection, kind, path, now)
        add_setbacks(connection, _remarks(experiment, index), now)
    done.became[path] = became
    done.invalid.pop(path, None)
    if index.duplicates:
        done.duplicates[path] = len(index.duplicates)
    if not index.entries:
        done.empty.add(path)
    return leaning if became is Registered.CHANGED else []


def _remarks(experiment: Experiment, index: FileIndex) -> Iterator[Setback]:
    if not index.entries:
        message = f"holds no event (tree {experiment.tree!r} has 0 entries): nothing is made of it"
        yield Setback(FILE, index.path, message)
    by_run: dict[int, list[BadEvent]] = {}
    for bad in index.duplicates:
        by_run.setdefault(RunLumi.unpack(bad.unit).run, []).append(bad)
    for run, found in by_run.items():
        first = found[0]
        where = f"{experiment.unit_name} {RunLumi.unpack(first.unit).lumi}, event {first.event}"
        message = f"left out {len(found)} x {SECOND_COPY}, first {where}, also in {first.first_in}"
        yield Setback(DUPLICATES, index.path, message, run)


def _set_aside(begin: Begin, path: str, reason: str, now: float, done: Ingested) -> list[str]:
    try:
        stamp = stamp_of(path)
        size, modified_ns = stamp.size, stamp.modified_ns
    except OSError:
        size = modified_ns = 0
    done.invalid[path] = reason
    done.became.pop(path, None)
    with begin() as connection:
        leaning = catalog.leaning_on(connection, path)
        catalog.file_invalid(connection, path, reason, now, size, modified_ns)
        resolve_setbacks(connection, FILE, path, now)
        add_setbacks(connection, [Setback(FILE, path, reason)], now)
    return leaning


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


def _without_second_copies(begin: Begin, experiment: Experiment, index: FileIndex) -> tuple[FileIndex, dict[str, str]]:
    """The index without events that other files of the catalogue have; and other files that could not be asked, which
    can give no events either, with the reason."""
    unreadable: dict[str, str] = {}
    others = _pieces_elsewhere(begin, index)
    if not others:
        return index, unreadable
    units, events = identify(experiment, SourceFile.open(index.path), [(p.start, p.stop) for p in index.pieces])
    entries = np.concatenate([np.arange(piece.start, piece.stop) for piece in index.pieces])
    taking_part = np.ones(len(units), np.bool_)
    left_out: list[BadEvent] = []
    for path, held in others.items():
        try:
            theirs = identify(experiment, SourceFile.open(path), [(p.start, p.stop) for p in held])
        except (BadData, OSError) as problem:
            unreadable[path] = str(problem)
            continue
        for at in np.flatnonzero(taking_part & _among(units, events, *theirs)).tolist():
            taking_part[at] = False
            bad = (int(entries[at]), int(units[at]), int(events[at]))
            left_out.append(BadEvent(index.path, *bad, SECOND_COPY, path))
    all_units = np.full(index.entries, -1, np.int64)
    all_units[entries] = units
    remaining = np.zeros(index.entries, np.bool_)
    remaining[entries[taking_part]] = True
    kept = tuple(_pieces(index.path, all_units, remaining))
    return replace(index, pieces=kept, duplicates=(*index.duplicates, *left_out)), unreadable


def _pieces_elsewhere(begin: Begin, index: FileIndex) -> dict[str, list[Piece]]:
    """What other files have of the units of this one, by path."""
    found: dict[str, list[Piece]] = {}
    by_run: dict[int, set[int]] = {}
    for piece in index.pieces:
        by_run.setdefault(RunLumi.unpack(piece.unit).run, set()).add(piece.unit)
    with begin() as connection:
        for run, units in by_run.items():
            for piece in catalog.pieces_of(connection, run, sorted(units), index.stream):
                if piece.path != index.path:
                    found.setdefault(piece.path, []).append(piece)
    return found


def _among(units: Int, events: Int, other_units: Int, other_events: Int) -> NDArray[np.bool_]:
    """Which of these events are among the others, by unit and number."""
    all_units, all_events = np.append(units, other_units), np.append(events, other_events)
    order = np.lexsort((all_events, all_units))
    differs = (np.diff(all_units[order]) != 0) | (np.diff(all_events[order]) != 0)
    names = np.empty(len(order), np.int64)
    names[order] = np.append(0, np.cumsum(differs))
    return np.isin(names[: len(units)], names[len(units) :])
