"""The tables of the conditions database. Entries are only ever inserted."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Connection,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    event,
)

conditions_metadata = MetaData()
"""All tables of the conditions, to be created by whoever owns the database."""

last_sequence = Table(
    "conditions_sequence",
    conditions_metadata,
    Column("id", Integer, primary_key=True),
    Column("last", BigInteger, nullable=False),
)
"""One row, the number of the newest entry. Every writer locks it first and holds it to its commit: so numbers become
visible in order and a snapshot never gains an entry afterwards. An autoincrement does not give that on PostgreSQL."""


@event.listens_for(last_sequence, "after_create")
def _first_sequence(_table: Table, connection: Connection, **_how: Any) -> None:
    connection.execute(last_sequence.insert().values(id=1, last=0))


tags = Table(
    "conditions_tags",
    conditions_metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    Column("kind", String, nullable=False),
    Column("clock", String, nullable=False),
    Column("sync", String, nullable=False),
)

global_tags = Table(
    "conditions_global_tags",
    conditions_metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String, nullable=False, unique=True),
)

members = Table(
    "conditions_members",
    conditions_metadata,
    Column("global_tag_id", ForeignKey(global_tags.c.id), primary_key=True),
    Column("kind", String, primary_key=True),
    Column("tag_id", ForeignKey(tags.c.id), nullable=False),
)
"""Which tag a global tag uses for a kind."""

entries = Table(
    "conditions_entries",
    conditions_metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("tag_id", ForeignKey(tags.c.id), nullable=False),
    Column("since", BigInteger, nullable=False),
    # Where its author wanted the payload to begin; a copy keeps that of its origin.
    Column("asked", BigInteger, nullable=False),
    # NULL: nothing holds from here on. Rows that withdraw or recall hold nothing themselves either.
    Column("payload_id", String(64)),
    # The entry whose payload this one repeats, or itself.
    Column("origin", ForeignKey("conditions_entries.sequence"), nullable=False),
    # An entry that counts no more.
    Column("withdraws", ForeignKey("conditions_entries.sequence")),
    # A withdrawn payload, by origin: where a settled run keeps its entries, they end with that run.
    Column("recalls", ForeignKey("conditions_entries.sequence")),
    Column("author", String, nullable=False),
    Column("recorded_us", BigInteger, nullable=False),
    Column("reason", String, nullable=False),
    Column("info", JSON, nullable=False),
    Index("conditions_entries_by_since", "tag_id", "since", "sequence"),
    Index("conditions_entries_by_origin", "origin"),
    Index("conditions_entries_by_time", "recorded_us"),
)

for _column in (entries.c.withdraws, entries.c.recalls):
    # Few rows are withdrawals: an index over all would be large, and SQLite would take it to look for NULL.
    _is_set = _column.is_not(None)
    Index(f"conditions_{_column.name}_once", _column, unique=True, sqlite_where=_is_set, postgresql_where=_is_set)

settled = Table(
    "conditions_settled",
    conditions_metadata,
    Column("tag_id", ForeignKey(tags.c.id), primary_key=True),
    Column("run", BigInteger, primary_key=True),
    Column("since", BigInteger, nullable=False),
    Column("until", BigInteger, nullable=False),
    Column("global_tag", String, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("recorded_us", BigInteger, nullable=False),
    Index("conditions_settled_by_until", "tag_id", "until"),
)
"""The runs whose answer is fixed, as a range on the clock of each tag."""

fates = Table(
    "conditions_fates",
    conditions_metadata,
    Column("id", Integer, primary_key=True),
    Column("tag_id", ForeignKey(tags.c.id), nullable=False, index=True),
    Column("kind", String, nullable=False),
    Column("payload_id", String(64), nullable=False),
    Column("asked", BigInteger, nullable=False),
    Column("given", BigInteger),
    Column("until", BigInteger),
    Column("sequence", BigInteger),
    Column("runs", JSON, nullable=False),
    Column("explanation", String, nullable=False),
    Column("author", String, nullable=False),
    Column("recorded_us", BigInteger, nullable=False),
    Column("reason", String, nullable=False),
    Column("info", JSON, nullable=False),
)
"""What became of every payload and withdrawal that touched a settled run."""
