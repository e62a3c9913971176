"""Tables as a database has them, in lines that can be compared; and rows for tables of any kind."""

from __future__ import annotations

import hashlib
from typing import Any

import sqlalchemy as sa
from sqlalchemy import BigInteger, Boolean, Column, Connection, Float, MetaData, Table

from pipeline.migration import versions


def shape(connection: Connection) -> set[str]:
    """A line for every column, key and index of the tables that are there, but for that of the versions."""
    inspector = sa.inspect(connection)
    lines = set()
    for name in set(inspector.get_table_names()) - {versions.name}:
        for column in inspector.get_columns(name):
            lines.add(f"{name}.{column['name']} {column['type']}{'' if column['nullable'] else ' NOT NULL'}")
        lines.add(f"{name} PRIMARY KEY {inspector.get_pk_constraint(name)['constrained_columns']}")
        for key in inspector.get_foreign_keys(name):
            lines.add(
                f"{name} {key['constrained_columns']} REFERENCES {key['referred_table']} {key['referred_columns']}"
            )
        lines |= {f"{name} UNIQUE {one['column_names']}" for one in inspector.get_unique_constraints(name)}
        for index in inspector.get_indexes(name):
            where = [str(text) for key, text in index.get("dialect_options", {}).items() if key.endswith("_where")]
            lines.add(f"{name} INDEX {index['name']} {index['column_names']} unique={bool(index['unique'])} {where}")
    return lines


def fingerprint(lines: set[str]) -> str:
    """A short name for a shape."""
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]


def fill(connection: Connection, metadata: MetaData, rows: int = 3) -> None:
    """Rows for every table, each different; the last with NULL wherever it may be."""
    for table in metadata.sorted_tables:
        connection.execute(sa.delete(table))
        made = [{column.name: _value(column, number) for column in table.columns} for number in range(rows)]
        made[-1] |= {column.name: None for column in table.columns if column.nullable}
        connection.execute(sa.insert(table), made)


def contents(connection: Connection, table: Table) -> list[Any]:
    """The rows of a table, by key."""
    return [tuple(row) for row in connection.execute(sa.select(table).order_by(*table.primary_key))]


def _value(column: Column[Any], number: int) -> Any:
    for key in column.foreign_keys:
        return _value(key.column, number)
    if isinstance(column.type, Boolean):
        return bool(number % 2)
    if isinstance(column.type, Float):
        return number + 0.1
    if isinstance(column.type, BigInteger):
        return (1 << 40) + number
    if isinstance(column.type, sa.Integer):
        return number + 1
    if isinstance(column.type, sa.JSON):
        return {"number": number, "words": ["ä", None]}
    return f"{column.name} {number} ü"
