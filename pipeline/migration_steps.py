"""The steps from one version of the database's tables to the next, and what they are made of.

A step that has left the house is never changed: databases that took it would differ from those that take it now.
It may not use the tables of the program either, which go on changing; it says itself what it makes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sqlalchemy import Column, Connection
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


STEPS: Mapping[int, Step] = {}
"""by the version they lead to, in order"""
