"""Where the database names a payload: whatever names one keeps it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, Table

from calib import schema as conditions
from calib.late import FateKind
from jobs import tables as ledger
from pipeline import schema as catalogue
from pipeline.orders import What

_TABLES = [
    *conditions.conditions_metadata.sorted_tables,
    *ledger.ledger_metadata.sorted_tables,
    *catalogue.catalog_metadata.sorted_tables,
]
_ID = re.compile("[0-9a-f]{64}")
_FIRST = 3
"""places of one table that are told one by one"""


def mentions(connection: Connection, payload_id: str) -> list[str]:
    """What names a payload, in words: entries, manifests, verdicts, results of jobs, shadows, waivers, late fates.

    Every text of the database is searched, so that nothing that comes to name payloads can be forgotten here. That a
    payload was refused, or is to be deleted, does not keep it. Time: that of reading all tables.
    """
    found = []
    for table in _TABLES:
        place = _place_of(table)
        named = sa.or_(sa.false(), *(text.contains(payload_id) for text in place.texts))
        query = place.query().where(named).limit(_FIRST + 1)
        rows = [place.words(row) for row in connection.execute(query)]
        found += [*rows[:_FIRST], *([f"more of {table.name}"] if len(rows) > _FIRST else [])]
    return found


def unmentioned(connection: Connection, payload_ids: Collection[str]) -> set[str]:
    """Those of some payloads that nothing names, as `mentions` has it; all tables are read once."""
    left = set(payload_ids)
    for table in _TABLES:
        place = _place_of(table)
        if place.texts and left:
            for row in connection.execute(place.query(place.texts), execution_options={"yield_per": 10_000}):
                left.difference_update(name for text in row if text for name in _ID.findall(text))
    return left


@dataclass(frozen=True)
class _Place:
    """A table in which payloads may be named: in which texts, in which rows, and what a row is in words."""

    table: Table
    columns: tuple[ColumnElement[Any], ...]
    words: Callable[[Sequence[Any]], str]
    where: tuple[ColumnElement[bool], ...] = ()

    @property
    def texts(self) -> tuple[ColumnElement[str], ...]:
        """All texts of a row."""
        kinds = (sa.String, sa.JSON)
        return tuple(sa.cast(column, sa.Text) for column in self.table.columns if isinstance(column.type, kinds))

    def query(self, columns: tuple[ColumnElement[Any], ...] = ()) -> sa.Select[Any]:
        """The rows that count."""
        return sa.select(*(columns or self.columns)).select_from(self.table).where(*self.where)


def _place_of(table: Table) -> _Place:
    known = _PLACES.get(table.name)
    return _Place(table, (sa.literal(table.name),), lambda row: f"a row of {row[0]}") if known is None else known


def _tag(column: sa.Column[Any]) -> ColumnElement[str]:
    return sa.select(conditions.tags.c.name).where(conditions.tags.c.id == column).scalar_subquery()


def _known() -> Iterator[_Place]:
    entries, fates = conditions.entries, conditions.fates
    yield _Place(entries, (_tag(entries.c.tag_id), entries.c.sequence), lambda row: f"entry {row[1]} of tag {row[0]}")
    late = fates.c.kind != FateKind.REFUSED.value
    yield _Place(fates, (_tag(fates.c.tag_id),), lambda row: f"what came late for tag {row[0]}", (late,))
    of_run = (catalogue.documents.c.key, catalogue.documents.c.run)
    yield _Place(catalogue.documents, of_run, lambda row: f"the {row[0]} of run {row[1]}")
    orders = catalogue.orders
    kept = orders.c.what != What.DELETE.value
    ordered = (orders.c.what, orders.c.run, orders.c.who)
    yield _Place(orders, ordered, lambda row: f"a {row[0]} for run {row[1]} by {row[2]}", (kept,))
    group = sa.select(ledger.jobs.c.task_group).where(ledger.jobs.c.name == ledger.nodes.c.job).scalar_subquery()
    yield _Place(ledger.nodes, (group,), lambda row: f"a result of {row[0]}")


_PLACES: Mapping[str, _Place] = {place.table.name: place for place in _known()}
