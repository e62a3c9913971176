"""Answers of the conditions database: snapshots, resolving, history. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, func, select

from calib import lookup
from calib.answers import AnswerCache, LookUp
from calib.iov import Clock, RunLumi
from calib.late import Fate, FateKind, SettledRun
from calib.payload import Conditions, PayloadStore
from calib.schema import entries, global_tags, last_sequence, settled, tags
from calib.segments import RunUnits, Steps, constant_parts
from calib.tags import (
    ENDLESS,
    Entry,
    Moment,
    Segment,
    Snapshot,
    Sync,
    Tag,
    UnknownTag,
    Validity,
    microseconds,
    moment_of,
)

WRITES = "conditions are written in"
"""The transaction that writes conditions, in the `info` of its connection."""


class ConditionsReader:
    """Reads the conditions over an open connection; holds nothing itself, so it costs nothing to make.

    Opening, closing and committing are the caller's.
    """

    def __init__(self, connection: Connection, store: PayloadStore) -> None:
        self._connection = connection
        self.store = store

    def tags(self) -> list[Tag]:
        """All tags, by name."""
        return [_tag(row) for row in self._connection.execute(select(tags).order_by(tags.c.name))]

    def tag(self, name: str) -> Tag:
        """The tag of that name. Raises UnknownTag."""
        row = self._connection.execute(select(tags).where(tags.c.name == name)).one_or_none()
        if row is None:
            raise UnknownTag.named(name, (tag.name for tag in self.tags()))
        return _tag(row)

    def global_tags(self) -> list[str]:
        """The names of all global tags."""
        return list(self._connection.scalars(select(global_tags.c.name).order_by(global_tags.c.name)))

    def global_tag(self, name: str) -> dict[str, Tag]:
        """The tag a global tag uses for each kind. Raises UnknownTag."""
        found = self._connection.execute(lookup.MEMBERS, {"global_tag": name})
        of_kind = {row.member_kind: _tag(row) for row in found}
        if not of_kind:
            known = self.global_tags()
            if name not in known:
                raise UnknownTag.named(name, known, "global tag")
        return of_kind

    def snapshot(self, global_tag: str, as_of: int | datetime | None = None) -> Snapshot:
        """Pin a global tag as it is now, as it was after entry number `as_of`, or as it was at a time.

        Raises UnknownTag, and ValueError for an entry that is still to come.
        """
        self.global_tag(global_tag)
        newest = self._newest()
        if isinstance(as_of, datetime):
            as_of = self._sequence_at(as_of)
        return _made(Snapshot(global_tag, newest if as_of is None else as_of), newest)

    def resolve(
        self, snapshot: Snapshot, at: RunLumi, kinds: Iterable[str] | None = None, time: int | None = None
    ) -> Conditions:
        """What holds at a unit, of these kinds or all; a kind without payload is not there.

        `time` (ns since 1970) is where tags by time are looked up; ValueError when one needs it and it is missing.
        """
        held = self._held(snapshot, kinds, at.packed, time)
        ids = {row.kind: row.payload_id for row in held if row.payload_id is not None}
        return Conditions(at, dict(sorted(ids.items())), str(self.store.root))

    def resolve_run(
        self,
        snapshot: Snapshot,
        units: Sequence[int] | NDArray[np.int64],
        kinds: Iterable[str] | None = None,
        times: Sequence[int] | NDArray[np.int64] | None = None,
    ) -> list[Segment]:
        """What holds over packed sorted units of one run, as segments of constant conditions; a few queries in all.

        The segments cover the run from the first unit to the last without a gap. `times` gives the begin of each
        unit (ns since 1970) for tags by time.
        """
        asked = RunUnits.of(units, times)
        if not len(asked.packed):
            return []
        first = self._held(snapshot, kinds, int(asked.packed[0]), asked.first_time)
        changes: dict[int, dict[int, str | None]] = {}
        for by_time, bounds in asked.bounds.items():
            numbers = [row.number for row in first if (row.clock == Clock.TIME) is by_time]
            changes |= self._changes(snapshot, numbers, bounds)
        steps = [Steps(row.kind, Clock(row.clock), row.payload_id, changes[row.number]) for row in first]
        root = str(self.store.root)
        return [
            Segment(since, until, Conditions(since, ids, root)) for since, until, ids in constant_parts(asked, steps)
        ]

    def first_safe(self, tag: str) -> Moment:
        """The first moment behind every settled run of a tag: what begins there is never late."""
        known = self.tag(tag)
        return known.moment(self._first_safe(known))

    def settled_runs(self, tag: str) -> list[int]:
        """The runs whose answer this tag can no longer change."""
        number = self.tag(tag).number
        return list(
            self._connection.scalars(select(settled.c.run).where(settled.c.tag_id == number).order_by(settled.c.run))
        )

    def fates(self, tag: str) -> list[Fate]:
        """What became of every payload and withdrawal of a tag that touched a settled run, in order."""
        known = self.tag(tag)
        rows = self._connection.execute(lookup.FATES, {"tag": known.number})
        return [fate_of(known, row._asdict()) for row in rows]

    def history(self, tag: str, as_of: int | None = None) -> list[Entry]:
        """Every entry of a tag in the order made, withdrawals too, up to entry number `as_of`."""
        known = self.tag(tag)
        chosen = select(entries).where(entries.c.tag_id == known.number).order_by(entries.c.sequence)
        if as_of is not None:
            chosen = chosen.where(entries.c.sequence <= as_of)
        return [_entry(known, row) for row in self._connection.execute(chosen)]

    def intervals(self, tag: str, as_of: int | None = None) -> list[Validity]:
        """Where each payload of a tag holds, in order; where nothing holds there is no interval."""
        known = self.tag(tag)
        asked = {"tag": known.number, "as_of": self._newest() if as_of is None else as_of}
        begins = {row.since: row for row in self._connection.execute(lookup.LIVE, asked)}
        ends = [*list(begins)[1:], None][: len(begins)]
        return [
            Validity(
                known.moment(since),
                None if until is None else known.moment(until),
                row.payload_id,
                _entry(known, row),
            )
            for (since, row), until in zip(begins.items(), ends, strict=True)
            if row.payload_id is not None
        ]

    def _newest(self) -> int:
        return int(self._connection.execute(select(last_sequence.c.last)).scalar_one())

    def _sequence_at(self, moment: datetime) -> int:
        later = select(func.min(entries.c.sequence)).where(entries.c.recorded_us > microseconds(moment))
        first_later = self._connection.execute(later).scalar_one()
        return self._newest() if first_later is None else int(first_later) - 1

    def _held(
        self, snapshot: Snapshot, kinds: Iterable[str] | None, unit: int, time: int | None
    ) -> Sequence[Row[*tuple[Any, ...]]]:
        asked = {
            "global_tag": snapshot.global_tag,
            "kinds": sorted(self.global_tag(snapshot.global_tag) if kinds is None else set(kinds)),
            "unit": unit,
            "time": time,
            "as_of": snapshot.sequence,
        }
        rows = self._connection.execute(lookup.ANSWERS, asked).all()
        if not rows:
            self.global_tag(snapshot.global_tag)
        for row in rows:
            _made(snapshot, row.newest)
            if time is None and row.clock == Clock.TIME:
                raise ValueError(f"tag {row.name} of kind {row.kind!r} goes by time; give the time, ns since 1970")
        return rows

    def _changes(
        self, snapshot: Snapshot, tags_asked: Sequence[int], bounds: tuple[int, int]
    ) -> dict[int, dict[int, str | None]]:
        changes: dict[int, dict[int, str | None]] = {number: {} for number in tags_asked}
        if tags_asked:
            asked = {"tags": tags_asked, "first": bounds[0], "last": bounds[1], "as_of": snapshot.sequence}
            for number, since, payload_id in self._connection.execute(lookup.CHANGES, asked).all():
                changes[number][since] = payload_id
        return changes

    def _first_safe(self, tag: Tag) -> int:
        until = select(func.max(settled.c.until)).where(settled.c.tag_id == tag.number)
        return int(self._connection.execute(until).scalar_one() or 0)

    def _settled_in(self, tag: Tag, since: int, until: int | None) -> list[SettledRun]:
        asked = {"tag": tag.number, "since": since, "until": ENDLESS if until is None else until}
        return [SettledRun(*row) for row in self._connection.execute(lookup.SETTLED, asked)]

    def _unused(self, tag: Tag) -> Tag | None:
        asked = {"kind": tag.kind, "clock": tag.clock.value}
        row = self._connection.execute(lookup.UNUSED, asked).one_or_none()
        return None if row is None else _tag(row)

    def _steps(self, tag: Tag, since: int, until: int, as_of: int) -> list[tuple[int, str | None]]:
        """Payload ids over `[since, until)` with where each begins; equal neighbours joined."""
        asked = {"tag": tag.number, "at": since, "until": until, "as_of": as_of}
        base = self._connection.execute(lookup.IN_FORCE, asked).one_or_none()
        begins = {since: None if base is None else base.payload_id}
        begins |= {row.since: row.payload_id for row in self._connection.execute(lookup.STEPS, asked)}
        steps: list[tuple[int, str | None]] = []
        for begin, payload_id in begins.items():
            if not steps or steps[-1][1] != payload_id:
                steps.append((begin, payload_id))
        return steps


def look_up(conditions: ConditionsReader, snapshot: Snapshot, cache: AnswerCache | None = None) -> LookUp:
    """Open a snapshot to be asked for one kind at a time, many times in this transaction.

    With a cache what was asked before, in any transaction, is not asked again. What a transaction that writes
    conditions sees is never kept: it may be rolled back. Raises UnknownTag, and ValueError for a snapshot to come.
    """
    of_kind = conditions.global_tag(snapshot.global_tag)
    conditions.snapshot(*snapshot)
    connection = conditions._connection
    writes = connection.info.get(WRITES)
    written_here = writes is not None and writes() is connection.get_transaction()
    return LookUp(connection, of_kind, snapshot.sequence, None if written_here else cache)


def _made(snapshot: Snapshot, newest: int) -> Snapshot:
    if not 0 <= snapshot.sequence <= newest:
        raise ValueError(f"there is no entry {snapshot.sequence} for the snapshot {snapshot}; the newest is {newest}")
    return snapshot


def _tag(row: Row[Any]) -> Tag:
    return Tag(row.name, row.kind, Clock(row.clock), Sync(row.sync), row.id)


def _entry(tag: Tag, row: Row[Any]) -> Entry:
    return Entry(
        sequence=row.sequence,
        tag=tag.name,
        since=tag.moment(row.since),
        asked=tag.moment(row.asked),
        payload_id=row.payload_id,
        author=row.author,
        recorded=moment_of(row.recorded_us),
        reason=row.reason,
        info=row.info,
        origin=row.origin,
        withdraws=row.withdraws,
        recalls=row.recalls,
    )


def fate_of(tag: Tag, row: Mapping[str, Any]) -> Fate:
    """The fate a row of `fates` tells."""

    def moment(position: int | None) -> Moment | None:
        return None if position is None else tag.moment(position)

    return Fate(
        kind=FateKind(row["kind"]),
        tag=tag.name,
        payload_id=row["payload_id"],
        asked=tag.moment(row["asked"]),
        given=moment(row["given"]),
        until=moment(row["until"]),
        sequence=row["sequence"],
        runs=tuple(row["runs"]),
        explanation=row["explanation"],
        into=row["into"],
    )
