"""What there is in the conditions database: numbers of entries, snapshots that were used, what holds in one tag."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, select

from calib import lookup
from calib.schema import entries, last_sequence, settled, tags
from calib.tags import Moment, Snapshot, Tag, microseconds, moment_of


def newest_entry(connection: Connection) -> int:
    """The number of the newest entry of all tags; 0 where there is none."""
    return int(connection.execute(select(last_sequence.c.last)).scalar_one())


def entry_as_of(connection: Connection, moment: datetime | int) -> int:
    """The number of the newest entry at a time, or that number itself. Raises ValueError for one still to come."""
    newest = newest_entry(connection)
    if isinstance(moment, datetime):
        later = select(func.min(entries.c.sequence)).where(entries.c.recorded_us > microseconds(moment))
        first_later = connection.execute(later).scalar_one()
        return newest if first_later is None else int(first_later) - 1
    if not 0 <= moment <= newest:
        raise ValueError(f"there is no entry {moment}; the newest is {newest}")
    return moment


def counts_of_entries(connection: Connection) -> dict[int, int]:
    """How many entries each tag has, by its number; a tag without entries is not there."""
    query = select(entries.c.tag_id, func.count()).group_by(entries.c.tag_id)
    return {int(tag): int(count) for tag, count in connection.execute(query)}


def payloads_named(connection: Connection) -> dict[str, list[str]]:
    """Every payload that was ever entered, by its id, and the names of the tags that it was entered in."""
    columns = (entries.c.payload_id, tags.c.name)
    query = select(*columns).join(tags, tags.c.id == entries.c.tag_id).where(entries.c.payload_id.is_not(None))
    named: dict[str, list[str]] = {}
    for payload_id, tag in connection.execute(query.distinct().order_by(*columns)):
        named.setdefault(payload_id, []).append(tag)
    return named


def held_at(connection: Connection, tag: Tag, at: Moment) -> str | None:
    """The payload id that holds in a tag at a moment; None where nothing does."""
    asked = {"tag": tag.number, "at": tag.position(at), "as_of": newest_entry(connection)}
    row: Row[Any] | None = connection.execute(lookup.IN_FORCE, asked).one_or_none()
    return None if row is None else row.payload_id


@dataclass(frozen=True, slots=True)
class Use:
    """A snapshot under which runs were settled, and when the first and the last of them."""

    snapshot: Snapshot
    runs: tuple[int, ...]
    first: datetime
    last: datetime


def snapshots_used(connection: Connection) -> list[Use]:
    """Every snapshot that settled a run, by global tag and number."""
    columns = (settled.c.global_tag, settled.c.sequence, settled.c.run, func.min(settled.c.recorded_us))
    query = select(*columns).group_by(*columns[:3]).order_by(*columns[:3])
    found: dict[Snapshot, list[tuple[int, int]]] = {}
    for global_tag, sequence, run, recorded in connection.execute(query):
        found.setdefault(Snapshot(global_tag, sequence), []).append((run, recorded))
    return [_use(snapshot, rows) for snapshot, rows in found.items()]


def _use(snapshot: Snapshot, rows: Sequence[tuple[int, int]]) -> Use:
    moments = [recorded for _, recorded in rows]
    return Use(snapshot, tuple(run for run, _ in rows), moment_of(min(moments)), moment_of(max(moments)))
