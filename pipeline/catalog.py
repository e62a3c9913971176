"""The catalogue: which files hold which events of which runs, and how a run is cut into chunks.

Functions over a connection; the caller owns the transaction. A path is known by its current version. The rule:

- the same size and checksum again: nothing new, whatever its time stamp says;
- other content under the same path: a new version, and the older one is superseded: its events count no more;
- a file that cannot be used is invalid, with its reason: its events count no more either.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby, islice
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.engine import Connection

from calib.iov import RunLumi
from pipeline.model import BadEvent, Chunk, FileIndex, Piece, Stream
from pipeline.schema import chunk_pieces, duplicates, files, layouts, pieces

PAGE = 1000
"""rows written or read at a time"""


class UnknownLayout(LookupError):
    """No chunks were saved for the run under that name."""


class FileState(StrEnum):
    """What a version of a file is worth."""

    VALID = "valid"
    INVALID = "invalid"
    SUPERSEDED = "superseded"


class Registered(StrEnum):
    """What registering a file changed."""

    NEW = "new"
    SAME = "same"
    """the same content with the same events was there"""
    CHANGED = "changed"
    """other content than before, or other events of it take part"""


@dataclass(frozen=True, slots=True)
class FileVersion:
    """A file as it was registered. `modified_ns` is its time stamp, `registered` the time it was taken in."""

    path: str
    size: int
    modified_ns: int
    checksum: str
    entries: int
    state: FileState
    reason: str
    registered: float


@dataclass(frozen=True, slots=True)
class Layout:
    """One way of cutting a run: how many chunks and events it has."""

    run: int
    name: str
    chunks: int
    events: int


_CURRENT = files.c.state != FileState.SUPERSEDED
_COUNTS = pieces.join(files, sa.and_(files.c.id == pieces.c.file_id, files.c.state == FileState.VALID))


def _of(run: int, stream: Stream) -> sa.ColumnElement[bool]:
    return sa.and_(pieces.c.run == run, pieces.c.stream == stream.value)


_EVENTS = sa.cast(sa.func.sum(pieces.c.stop - pieces.c.start), sa.BigInteger)


def register_file(connection: Connection, index: FileIndex, now: float) -> Registered:
    """Take in what a file holds. Doing it again changes nothing."""
    current = _current(connection, index.path)
    if current is None:
        _insert(connection, index, now)
        return Registered.NEW
    if (current.size, current.checksum) != (index.size, index.checksum):
        _set(connection, current.id, state=FileState.SUPERSEDED, reason="the path has other content now")
        _insert(connection, index, now)
        return Registered.CHANGED
    same = current.state == FileState.VALID and _held(connection, current.id) == _rows(index, current.id)
    _set(connection, current.id, state=FileState.VALID, reason="", modified_ns=index.modified_ns, entries=index.entries)
    if not same:
        connection.execute(sa.delete(pieces).where(pieces.c.file_id == current.id))
        connection.execute(sa.delete(duplicates).where(duplicates.c.file_id == current.id))
        _insert_content(connection, index, current.id)
    return Registered.SAME if same else Registered.CHANGED


def file_invalid(
    connection: Connection, path: str, reason: str, now: float, size: int = 0, modified_ns: int = 0
) -> None:
    """Say that a file cannot be used. Size and time stamp, where it has any, are those of the file as it is now."""
    current = _current(connection, path)
    if current is not None and size in (0, current.size) and modified_ns in (0, current.modified_ns):
        _set(connection, current.id, state=FileState.INVALID, reason=reason)
        return
    if current is not None:
        _set(connection, current.id, state=FileState.SUPERSEDED, reason="the path has other content now")
    row = {"path": path, "size": size, "modified_ns": modified_ns, "checksum": "", "entries": 0}
    row |= {"state": FileState.INVALID, "reason": reason, "registered": now}
    connection.execute(sa.insert(files), row)


def find_file(connection: Connection, path: str) -> FileVersion | None:
    """The current version of a path."""
    row = _current(connection, path)
    return None if row is None else _version(row)


def ever_held_events(connection: Connection, path: str) -> bool:
    """Whether any version of a path was taken in with events."""
    query = sa.select(files.c.id).where(files.c.path == path, files.c.entries > 0)
    return connection.execute(query.limit(1)).first() is not None


def find_copy(connection: Connection, size: int, checksum: str, other_than: str) -> str | None:
    """The path of a valid file with this content, other than the one given."""
    same = sa.and_(files.c.checksum == checksum, files.c.size == size, files.c.state == FileState.VALID)
    query = sa.select(files.c.path).where(same, files.c.path != other_than).order_by(files.c.id)
    found: str | None = connection.execute(query).scalars().first()
    return found


def list_files(connection: Connection, state: FileState | None = None) -> list[FileVersion]:
    """Files in the order of their paths: the current versions, or all versions in one state."""
    wanted = _CURRENT if state is None else files.c.state == state
    return [_version(row) for row in connection.execute(sa.select(files).where(wanted).order_by(files.c.path))]


def leaning_on(connection: Connection, path: str) -> list[str]:
    """Valid files of which entries were left out because `path` has the first copy of their event."""
    joined = duplicates.join(files, files.c.id == duplicates.c.file_id)
    query = sa.select(files.c.path).select_from(joined).distinct().order_by(files.c.path)
    where = sa.and_(duplicates.c.first_in == path, files.c.path != path, files.c.state == FileState.VALID)
    return list(connection.execute(query.where(where)).scalars())


def runs(connection: Connection) -> list[int]:
    """The runs that have events in valid files, in order."""
    query = sa.select(pieces.c.run).select_from(_COUNTS).distinct().order_by(pieces.c.run)
    return list(connection.execute(query).scalars())


def listed(numbers: Sequence[int]) -> str:
    """Runs in words, and of many the first."""
    return (", ".join(map(str, numbers[:20])) + (", ..." if len(numbers) > 20 else "")) or "none yet"


def never_seen(run: int, known: Sequence[int]) -> str:
    """What to say of a run that is not among those known."""
    return f"run {run} was never seen; the runs are {listed(known)}"


def runs_in(connection: Connection, paths: Sequence[str]) -> list[int]:
    """The runs that have events in these files, as far as they are valid, in order."""
    found: set[int] = set()
    for at in range(0, len(paths), PAGE):
        query = sa.select(pieces.c.run).select_from(_COUNTS).distinct()
        found.update(connection.execute(query.where(files.c.path.in_(paths[at : at + PAGE]))).scalars())
    return sorted(found)


def event_bytes(connection: Connection, run: int) -> dict[str, float]:
    """The size of an event in each file of a run, in bytes on disk, by path."""
    query = sa.select(files.c.path, files.c.size, files.c.entries).select_from(_COUNTS).where(pieces.c.run == run)
    return {path: size / entries for path, size, entries in connection.execute(query.distinct())}


def units(
    connection: Connection, run: int, stream: Stream = Stream.PHYSICS
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The packed units that a stream of a run has, sorted, and how many distinct events each has."""
    query = sa.select(pieces.c.unit, _EVENTS).select_from(_COUNTS).where(_of(run, stream))
    rows = connection.execute(query.group_by(pieces.c.unit).order_by(pieces.c.unit)).all()
    table = np.array([tuple(row) for row in rows], np.int64).reshape(-1, 2)
    return table[:, 0].copy(), table[:, 1].copy()


def pieces_of(
    connection: Connection, run: int, only: Sequence[int] | None = None, stream: Stream = Stream.PHYSICS
) -> Iterator[Piece]:
    """The pieces of a stream of a run in the order of their units, read page by page; `only` some packed units."""
    query = sa.select(files.c.path, pieces.c.start, pieces.c.stop, pieces.c.unit).select_from(_COUNTS)
    query = query.where(_of(run, stream)).order_by(pieces.c.unit, files.c.path, pieces.c.start)
    pages = [None] if only is None else [list(only[at : at + PAGE]) for at in range(0, len(only), PAGE)]
    for page in pages:
        wanted = query if page is None else query.where(pieces.c.unit.in_(page))
        for path, start, stop, unit in connection.execute(wanted, execution_options={"yield_per": PAGE}):
            yield Piece(path, start, stop, unit)


def duplicates_of(connection: Connection, run: int) -> Iterator[BadEvent]:
    """The entries of a run that take no part because their event was there already."""
    joined = duplicates.join(files, sa.and_(files.c.id == duplicates.c.file_id, files.c.state == FileState.VALID))
    query = sa.select(files.c.path, *(duplicates.c[name] for name in ("entry", "unit", "event", "reason", "first_in")))
    query = query.select_from(joined).where(duplicates.c.run == run).order_by(files.c.path, duplicates.c.entry)
    for row in connection.execute(query, execution_options={"yield_per": PAGE}):
        yield BadEvent(*row)


def inputs(connection: Connection, run: int, stream: Stream = Stream.PHYSICS) -> str:
    """The name of what a stream of a run consists of: SHA-256 over its pieces, by the content of their files, not by
    path."""
    query = sa.select(pieces.c.unit, files.c.checksum, pieces.c.start, pieces.c.stop).select_from(_COUNTS)
    query = query.where(_of(run, stream)).order_by(pieces.c.unit, files.c.checksum, pieces.c.start)
    digest = hashlib.sha256()
    for unit, checksum, start, stop in connection.execute(query, execution_options={"yield_per": PAGE}):
        digest.update(f"{unit} {checksum} {start} {stop}\n".encode())
    return digest.hexdigest()


def save_layout(connection: Connection, run: int, name: str, chunks_of_run: Iterable[Chunk]) -> Layout:
    """Keep how a run is cut; a layout of that name that is there already is left as it is."""
    found = find_layout(connection, run, name)
    if found is not None:
        return found
    row = {"run": run, "name": name, "chunks": 0, "events": 0}
    number = connection.execute(sa.insert(layouts).returning(layouts.c.id), row).scalar_one()
    ids = _valid_ids(connection)
    chunks = events = 0
    numbered = iter(chunks_of_run)
    while page := list(islice(numbered, PAGE)):
        connection.execute(sa.insert(chunk_pieces), [row for chunk in page for row in _chunk_rows(chunk, number, ids)])
        chunks += len(page)
        events += sum(chunk.events for chunk in page)
    connection.execute(sa.update(layouts).where(layouts.c.id == number).values(chunks=chunks, events=events))
    return Layout(run, name, chunks, events)


def find_layout(connection: Connection, run: int, name: str) -> Layout | None:
    """The layout of a run by that name."""
    query = sa.select(layouts).where(layouts.c.run == run, layouts.c.name == name)
    row = connection.execute(query).one_or_none()
    return None if row is None else Layout(row.run, row.name, row.chunks, row.events)


def chunks(connection: Connection, run: int, name: str, wanted: range) -> list[Chunk]:
    """Some chunks of a layout, in order. Raises UnknownLayout."""
    columns = (chunk_pieces.c.chunk, files.c.path, chunk_pieces.c.start, chunk_pieces.c.stop, chunk_pieces.c.unit)
    joined = _LAID_OUT.join(files, files.c.id == chunk_pieces.c.file_id)
    query = sa.select(*columns).select_from(joined).where(_among(run, name, wanted))
    rows = connection.execute(query.order_by(chunk_pieces.c.chunk, chunk_pieces.c.place)).all()
    if not rows:
        _must_exist(connection, run, name)
    return [
        Chunk(run, index, tuple(Piece(path, start, stop, unit) for _, path, start, stop, unit in found))
        for index, found in groupby(rows, key=lambda row: int(row.chunk))
    ]


def promised(connection: Connection, run: int, name: str, wanted: range) -> dict[tuple[int, int], int]:
    """How many events chunks of a layout have by unit: (chunk, packed unit) to events. Raises UnknownLayout."""
    total = sa.cast(sa.func.sum(chunk_pieces.c.stop - chunk_pieces.c.start), sa.BigInteger)
    query = sa.select(chunk_pieces.c.chunk, chunk_pieces.c.unit, total).select_from(_LAID_OUT)
    query = query.where(_among(run, name, wanted)).group_by(chunk_pieces.c.chunk, chunk_pieces.c.unit)
    found = {(chunk, unit): events for chunk, unit, events in connection.execute(query)}
    if not found:
        _must_exist(connection, run, name)
    return found


_LAID_OUT = chunk_pieces.join(layouts, layouts.c.id == chunk_pieces.c.layout_id)


def _among(run: int, name: str, wanted: range) -> sa.ColumnElement[bool]:
    inside = chunk_pieces.c.chunk.between(wanted.start, wanted.stop - 1)
    return sa.and_(layouts.c.run == run, layouts.c.name == name, inside)


def _must_exist(connection: Connection, run: int, name: str) -> None:
    if find_layout(connection, run, name) is None:
        raise UnknownLayout(f"run {run} was never cut as {name}")


def _current(connection: Connection, path: str) -> sa.Row[Any] | None:
    return connection.execute(sa.select(files).where(files.c.path == path, _CURRENT)).one_or_none()


def _version(row: sa.Row[Any]) -> FileVersion:
    times = (row.size, row.modified_ns)
    return FileVersion(row.path, *times, row.checksum, row.entries, FileState(row.state), row.reason, row.registered)


def _set(connection: Connection, number: int, **values: Any) -> None:
    connection.execute(sa.update(files).where(files.c.id == number).values(**values))


def _insert(connection: Connection, index: FileIndex, now: float) -> None:
    row = {"path": index.path, "size": index.size, "modified_ns": index.modified_ns, "checksum": index.checksum}
    row |= {"entries": index.entries, "state": FileState.VALID, "reason": "", "registered": now}
    number = connection.execute(sa.insert(files).returning(files.c.id), row).scalar_one()
    _insert_content(connection, index, number)


def _insert_content(connection: Connection, index: FileIndex, number: int) -> None:
    for table, rows in zip((pieces, duplicates), _rows(index, number), strict=True):
        names = table.columns.keys()
        for at in range(0, len(rows), PAGE):
            page = [dict(zip(names, row, strict=True)) for row in rows[at : at + PAGE]]
            connection.execute(sa.insert(table), page)


def _rows(index: FileIndex, number: int) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """The rows of a file's pieces and duplicates, in the order of their keys."""
    held = [(number, p.start, p.stop, RunLumi.unpack(p.unit).run, p.unit, index.stream.value) for p in index.pieces]
    left_out = [
        (number, bad.entry, RunLumi.unpack(bad.unit).run, bad.unit, bad.event, bad.reason, bad.first_in)
        for bad in index.duplicates
    ]
    return sorted(held), sorted(left_out)


def _held(connection: Connection, number: int) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    held = connection.execute(sa.select(pieces).where(pieces.c.file_id == number))
    left_out = connection.execute(sa.select(duplicates).where(duplicates.c.file_id == number))
    return sorted(tuple(row) for row in held), sorted(tuple(row) for row in left_out)


def _valid_ids(connection: Connection) -> dict[str, int]:
    found = connection.execute(sa.select(files.c.path, files.c.id).where(files.c.state == FileState.VALID))
    return {row.path: row.id for row in found}


def _chunk_rows(chunk: Chunk, layout: int, ids: dict[str, int]) -> Iterator[dict[str, int]]:
    for place, piece in enumerate(chunk.pieces):
        row = {"layout_id": layout, "chunk": chunk.index, "place": place, "file_id": ids[piece.path]}
        yield row | {"start": piece.start, "stop": piece.stop, "unit": piece.unit}
