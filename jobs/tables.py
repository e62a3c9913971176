"""The tables of the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)
from sqlalchemy.dialects import postgresql, sqlite

ledger_metadata = MetaData()

leases = Table(
    "ledger_lease",
    ledger_metadata,
    Column("id", Integer, primary_key=True, autoincrement=False, comment="always 1: there is one lease"),
    Column("epoch", BigInteger, nullable=False),
    Column("host", String),
    Column("pid", BigInteger),
    Column("born", Float, comment="when the process started: pids are used again"),
    Column("renewed_at", Float, nullable=False),
)

jobs = Table(
    "ledger_jobs",
    ledger_metadata,
    Column("name", String, primary_key=True),
    Column("task_group", String, nullable=False),
    Column("lane", Integer, nullable=False),
    Column("leaves", BigInteger, nullable=False),
    Column("fan_in", Integer, nullable=False),
    Column("spec", Text, nullable=False),
    Column("limit_s", Float),
    Column("state", String, nullable=False, comment="open, done, failed, held"),
    Column("reason", Text, nullable=False),
    Column("added_at", Float, nullable=False),
    Column("ended_at", Float, comment="when it was done, or last failed"),
)


def _node_key(*, primary_key: bool) -> list[Column[Any]]:
    return [
        Column("job", String, ForeignKey("ledger_jobs.name"), primary_key=primary_key, nullable=False),
        Column("level", Integer, primary_key=primary_key, autoincrement=False, nullable=False),
        Column("place", BigInteger, primary_key=primary_key, autoincrement=False, nullable=False),
    ]


nodes = Table(
    "ledger_nodes",
    ledger_metadata,
    *_node_key(primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("receipt", Text, nullable=False),
    Column("committed_at", Float, nullable=False),
    comment="committed nodes: what has no row here does not exist",
)

partials = Table(
    "ledger_partials",
    ledger_metadata,
    *_node_key(primary_key=True),
    Column("content", Text, nullable=False),
    comment="what is done of branches that are not committed because something of them failed",
)

starts = Table(
    "ledger_starts",
    ledger_metadata,
    *_node_key(primary_key=True),
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("leaves", Integer, nullable=False, comment="how many leaves this attempt runs"),
    Column("alone", Boolean, nullable=False),
    Column("started_at", Float, nullable=False),
)

failures = Table(
    "ledger_failures",
    ledger_metadata,
    Column("id", Integer, primary_key=True),
    *_node_key(primary_key=False),
    Column("epoch", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("leaf", BigInteger, comment="null: the merge"),
    Column("cause", String, nullable=False),
    Column("message", Text, nullable=False),
    Column("traceback", Text, nullable=False),
    Column("alone", Boolean, nullable=False),
    Column("seen", Boolean, nullable=False),
    Column("failed_at", Float, nullable=False),
    Index("ledger_failures_node", "job", "level", "place"),
)

set_aside = Table(
    "ledger_set_aside",
    ledger_metadata,
    Column("job", String, ForeignKey("ledger_jobs.name"), primary_key=True),
    Column("leaf", BigInteger, primary_key=True, autoincrement=False),
    Column("cause", String, nullable=False),
    Column("reason", Text, nullable=False),
    Column("traceback", Text, nullable=False),
    Column("set_aside_at", Float, nullable=False),
)


def insert_new(connection: Connection, table: Table, row: Mapping[str, Any]) -> bool:
    """Insert a row unless its key is there already; say whether it was inserted."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = insert(table).values(row).on_conflict_do_nothing().returning(*table.primary_key)
    return connection.execute(statement).first() is not None
