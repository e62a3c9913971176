"""New event files: what each holds, which of its events were there already, and what cannot be used."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.engine import Connection

from calib.iov import RunLumi
from pipeline import catalog
from pipeline.catalog import FileState, Registered
from pipeline.events import stamp_of
from pipeline.experiments.interface import Experiment
from pipeline.indexing import SECOND_COPY, Compared, Looked, Share, Spans, look_into, second_copies, without
from pipeline.journal import Setback, add_setbacks, resolve_setbacks
from pipeline.model import BadEvent, FileIndex, Piece, Stream
from pipeline.reading import can_be_opened
from pipeline.spread import Lost, Spread, in_turn

COMPARED = 1_000_000
"""events that are compared at a time, or one unit if it has more"""

REGISTERED = -1
"""before all places of new files: events that are registered stay with the file they are in"""

FILE = "file"
DUPLICATES = "duplicates"

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


def ingest(
    begin: Begin, experiment: Experiment, paths: Iterable[str | Path], now: float, spread: Spread = in_turn
) -> Ingested:
    """Register event files. A file that cannot be used is set aside with its reason, and the rest goes on.

    A file that is registered already, with the size and time stamp it has, is not opened again. Files are read through
    `spread`: their keys twice at most, however many share their units. Every file is a transaction of its own, so that
    no other writer waits while one is read.
    """
    intake = _Intake(begin, experiment, now, spread)
    leaning = intake.take_in(list(dict.fromkeys(map(path_name, paths))))
    looked_again: set[str] = set()
    # Second copies of these lean on a first one that is not there any more. Once is enough: they lean on nothing that
    # is still to change.
    while again := [path for path in dict.fromkeys(leaning) if path not in looked_again]:
        looked_again.update(again)
        leaning = intake.take_in(again, again=True)
    return intake.done


def path_name(path: str | Path) -> str:
    """The one name a path has in the catalogue: from the root on, without `.` and `..`; links stay as they are.

    >>> path_name("/data/new/../7.root")
    '/data/7.root'
    """
    return os.path.abspath(path)


def is_sound_again(connection: Connection, path: str, after: float | None = None) -> bool:
    """Whether a file may be read and is the one that was registered; where a time is given, registered after it."""
    known = catalog.find_file(connection, path)
    try:
        stamp = stamp_of(path)
    except OSError:
        return False
    if known is None or not can_be_opened(path) or not _is_same(known, stamp.size, stamp.modified_ns):
        return False
    return after is None or known.registered > after


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


class _Intake:
    """One call of `ingest`."""

    def __init__(self, begin: Begin, experiment: Experiment, now: float, spread: Spread) -> None:
        self._begin, self._experiment, self._now, self._spread = begin, experiment, now, spread
        self.done = Ingested()

    def take_in(self, paths: Sequence[str], again: bool = False) -> list[str]:
        """Register some files; gives those that must be looked at again because of it."""
        leaning: list[str] = []
        wanted = [path for path in paths if again or not self._is_known(path)]
        found: dict[str, Looked] = {}
        contents: dict[tuple[int, str], str] = {}
        looked = self._spread("index", partial(look_into, self._experiment), wanted)
        for path, result in zip(wanted, looked, strict=True):
            reason = self._copy_of(result.index, contents) if isinstance(result, Looked) else result.reason
            if reason:
                leaning += self._set_aside(path, reason)
            elif isinstance(result, Looked):
                found[path] = result
                contents[result.index.size, result.index.checksum] = path
        copies, unusable = self._compare(found)
        for path, reason in unusable.items():
            found.pop(path, None)
            leaning += self._set_aside(path, reason)
        for path, one in found.items():
            leaning += self._register(without(one.index, copies.get(path, ())))
        return leaning

    def _is_known(self, path: str) -> bool:
        try:
            stamp = stamp_of(path)
        except OSError:
            return False
        with self._begin() as connection:
            known = catalog.find_file(connection, path)
        if known is None or not _is_same(known, stamp.size, stamp.modified_ns):
            return False
        self.done.became.setdefault(path, Registered.SAME)
        return True

    def _copy_of(self, index: FileIndex, contents: Mapping[tuple[int, str], str]) -> str:
        """Which other file has the same content, in words; one just taken in, or registered and still there."""
        if not index.pieces:
            return ""
        with self._begin() as connection:
            registered = catalog.find_copy(connection, index.size, index.checksum, index.path)
        copy = contents.get((index.size, index.checksum))
        if copy is None and registered not in contents.values():
            copy = registered
        if copy is None or not os.path.exists(copy):
            return ""
        return f"{index.path} has the same content as {copy}, which is registered; leave one of them out"

    def _compare(self, found: Mapping[str, Looked]) -> tuple[dict[str, list[BadEvent]], dict[str, str]]:
        """Second copies in the files found, by path; and files that could not be asked, which give no events either."""
        shares = list(self._shares(found))
        unusable: dict[str, str] = {}
        while True:
            copies: dict[str, list[BadEvent]] = {}
            failed: dict[str, str] = {}
            batches = [[share for share in batch if share.path not in unusable] for batch in shares]
            compared = self._spread("compare", partial(second_copies, self._experiment), batches)
            for batch, result in zip(batches, compared, strict=True):
                if isinstance(result, Lost):
                    result = Compared(unusable={share.path: result.reason for share in batch if share.is_new})
                failed |= result.unusable
                for bad in result.copies:
                    copies.setdefault(bad.path, []).append(bad)
            if not failed:
                return copies, unusable
            # What leaned on these leans on another copy now, if there is one.
            unusable |= failed

    def _shares(self, found: Mapping[str, Looked]) -> Iterator[list[Share]]:
        """What must be compared: units of the files found that others may have events of, some at a time."""
        for stream in Stream:
            mine = [one for one in found.values() if one.index.stream is stream]
            pieces: dict[int, list[tuple[int, Piece]]] = {}
            for piece in self._registered(mine, found, stream):
                pieces.setdefault(piece.unit, []).append((REGISTERED, piece))
            shared = pieces.keys() | overlapping(one.spans for one in mine)
            for place, one in enumerate(mine):
                for piece in one.index.pieces:
                    if piece.unit in shared:
                        pieces.setdefault(piece.unit, []).append((place, piece))
            yield from batches_of(pieces)

    def _registered(self, mine: Sequence[Looked], found: Mapping[str, Looked], stream: Stream) -> Iterator[Piece]:
        """What other registered files have of the units of these."""
        units = sorted({piece.unit for one in mine for piece in one.index.pieces})
        for run, some in groupby(units, key=lambda unit: RunLumi.unpack(unit).run):
            with self._begin() as connection:
                theirs = list(catalog.pieces_of(connection, run, list(some), stream))
            yield from (piece for piece in theirs if piece.path not in found)

    def _register(self, index: FileIndex) -> list[str]:
        path = index.path
        with self._begin() as connection:
            leaning = catalog.leaning_on(connection, path)
            became = catalog.register_file(connection, index, self._now)
            for kind in (FILE, DUPLICATES):
                resolve_setbacks(connection, kind, path, self._now)
            add_setbacks(connection, _remarks(self._experiment, index), self._now)
        self.done.became[path] = became
        self.done.invalid.pop(path, None)
        if index.duplicates:
            self.done.duplicates[path] = len(index.duplicates)
        if not index.entries:
            self.done.empty.add(path)
        return leaning if became is Registered.CHANGED else []

    def _set_aside(self, path: str, reason: str) -> list[str]:
        try:
            stamp = stamp_of(path)
            size, modified_ns = stamp.size, stamp.modified_ns
        except OSError:
            size = modified_ns = 0
        self.done.invalid[path] = reason
        self.done.became.pop(path, None)
        with self._begin() as connection:
            leaning = catalog.leaning_on(connection, path)
            catalog.file_invalid(connection, path, reason, self._now, size, modified_ns)
            resolve_setbacks(connection, FILE, path, self._now)
            add_setbacks(connection, [Setback(FILE, path, reason)], self._now)
        return leaning


def overlapping(spans: Iterable[Spans]) -> set[int]:
    """Units of which several files may have the same events: their ranges of event numbers have some in common.

    >>> overlapping([{1: (0, 9), 2: (0, 9)}, {1: (10, 19), 2: (9, 12)}])
    {2}
    """
    by_unit: dict[int, list[tuple[int, int]]] = {}
    for one in spans:
        for unit, span in one.items():
            by_unit.setdefault(unit, []).append(span)
    return {
        unit
        for unit, found in by_unit.items()
        if any(following[0] <= before[1] for before, following in pairwise(sorted(found)))
    }


def batches_of(pieces: Mapping[int, Sequence[tuple[int, Piece]]], events: int = COMPARED) -> Iterator[list[Share]]:
    """Pieces by unit as shares of files: whole units, up to so many events at a time.

    Each piece comes with the place of its file among the new ones, or REGISTERED; shares are in that order.
    """
    held: dict[tuple[int, str], list[Piece]] = {}
    size = 0
    for unit in sorted(pieces):
        own = sum(piece.events for _, piece in pieces[unit])
        if held and size + own > events:
            yield _as_shares(held)
            held, size = {}, 0
        for place, piece in pieces[unit]:
            held.setdefault((place, piece.path), []).append(piece)
        size += own
    if held:
        yield _as_shares(held)


def _as_shares(held: Mapping[tuple[int, str], Sequence[Piece]]) -> list[Share]:
    return [Share(path, tuple(held[place, path]), place != REGISTERED) for place, path in sorted(held)]


def _is_same(known: catalog.FileVersion, size: int, modified_ns: int) -> bool:
    return known.state is FileState.VALID and (known.size, known.modified_ns) == (size, modified_ns)


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
