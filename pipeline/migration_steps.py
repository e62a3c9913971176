"""The steps from one version of the database's tables to the next, and what they are made of.

A step that has left the house is never changed: databases that took it would differ from those that take it now.
It may not use the tables of the program either, which go on changing; it says itself what it makes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sqlalchemy import BigInteger, Column, Connection, Float, Integer, MetaData, String, Table, Text, insert
from sqlalchemy.schema import CreateColumn


@dataclass(frozen=True)
class Step:
    """A change of the tables, and why."""

    why: str
    change: Callable[[Connection], None]


def add_column(connection: Connection, table: str, column: Column[object]) -> None:
    """Add a column to a table that has rows; one that may not be NULL needs a server default for them."""
    words = CreateColumn(column).compile(dialect=connection.dialect)
    name = connection.dialect.identifier_preparer.quote(table)
    connection.exec_driver_sql(f"ALTER TABLE {name} ADD COLUMN {words}")


def _make_orders(connection: Connection) -> None:
    """The list of what people order; the holds that were kept as documents so far are its beginning."""
    metadata = MetaData()
    made = Table(
        "catalog_orders",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("at", Float, nullable=False),
        Column("who", String, nullable=False),
        Column("what", String, nullable=False),
        Column("run", BigInteger),
        Column("dataset", String, nullable=False),
        Column("kind", String, nullable=False),
        Column("reason", Text, nullable=False),
        Column("terms", Text, nullable=False),
    )
    metadata.create_all(connection)
    holds = "SELECT run, content, at FROM catalog_documents WHERE key = 'hold' ORDER BY at, run"
    for run, content, at in connection.exec_driver_sql(holds).all():
        said = json.loads(content).get("reason", "")  # one that was lifted says nothing
        who, _, reason = said.partition(": ")
        row = {"at": at, "who": who, "what": "hold", "run": run, "dataset": "", "kind": "", "reason": reason}
        if said:
            connection.execute(insert(made), row | {"terms": "{}"})


STEPS: Mapping[int, Step] = {2: Step("a list of what people order: holds and waivers", _make_orders)}
"""by the version they lead to, in order"""
