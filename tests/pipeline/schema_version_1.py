"""The tables as they were when their version was first counted. Never to be changed: databases have them."""

import sqlalchemy as sa
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData()


def where(condition):
    """Of an index over some rows only."""
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


Table(
    "catalog_counts",
    metadata,
    Column("job", String, primary_key=True),
    Column("unit", BigInteger, primary_key=True),
    Column("leaf", BigInteger, primary_key=True),
    Column("run", BigInteger, nullable=False),
    Column("step", String, nullable=False),
    Column("read", BigInteger, nullable=False),
    Column("out", BigInteger, nullable=False),
    Column("bad", BigInteger, nullable=False),
    Index("catalog_counts_by_run", "run", "step"),
)

Table(
    "catalog_documents",
    metadata,
    Column("run", BigInteger, primary_key=True),
    Column("key", String, primary_key=True),
    Column("content", Text, nullable=False),
    Column("at", Float, nullable=False),
)

Table(
    "catalog_files",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("path", String, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("modified_ns", BigInteger, nullable=False),
    Column("checksum", String, nullable=False),
    Column("entries", BigInteger, nullable=False),
    Column("state", String, nullable=False),
    Column("reason", Text, nullable=False),
    Column("registered", Float, nullable=False),
    Index("catalog_files_by_checksum", "checksum"),
    Index(
        "catalog_files_current",
        "path",
        unique=True,
        **where("state <> 'superseded'"),
    ),
)

Table(
    "catalog_filtered",
    metadata,
    Column("job", String, primary_key=True),
    Column("unit", BigInteger, primary_key=True),
    Column("leaf", BigInteger, primary_key=True),
    Column("reason", String, primary_key=True),
    Column("events", BigInteger, nullable=False),
)

Table(
    "catalog_layouts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run", BigInteger, nullable=False),
    Column("name", String, nullable=False),
    Column("chunks", BigInteger, nullable=False),
    Column("events", BigInteger, nullable=False),
    sa.UniqueConstraint("run", "name", name="catalog_layouts_once"),
)

Table(
    "catalog_outputs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("job", String, nullable=False),
    Column("run", BigInteger, nullable=False),
    Column("step", String, nullable=False),
    Column("tier", String, nullable=False),
    Column("leaf", BigInteger, nullable=False),
    Column("path", String, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("checksum", String, nullable=False),
    Column("events", BigInteger, nullable=False),
    sa.UniqueConstraint("path"),
    Index("catalog_outputs_by_job", "job", "tier", "leaf"),
    Index("catalog_outputs_by_run", "run", "step"),
)

Table(
    "catalog_products",
    metadata,
    Column("name", String, primary_key=True),
    Column("job", String, nullable=False),
)

Table(
    "catalog_setbacks",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run", BigInteger),
    Column("kind", String, nullable=False),
    Column("place", String, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Float, nullable=False),
    Column("resolved", Float),
    Index("catalog_setbacks_by_run", "run"),
)

Table(
    "catalog_chunk_pieces",
    metadata,
    Column("layout_id", Integer, ForeignKey("catalog_layouts.id"), primary_key=True),
    Column("chunk", BigInteger, primary_key=True),
    Column("place", BigInteger, primary_key=True),
    Column("file_id", Integer, ForeignKey("catalog_files.id"), nullable=False),
    Column("start", BigInteger, nullable=False),
    Column("stop", BigInteger, nullable=False),
    Column("unit", BigInteger, nullable=False),
)

Table(
    "catalog_duplicates",
    metadata,
    Column("file_id", Integer, ForeignKey("catalog_files.id"), primary_key=True),
    Column("entry", BigInteger, primary_key=True),
    Column("run", BigInteger, nullable=False),
    Column("unit", BigInteger, nullable=False),
    Column("event", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("first_in", String, nullable=False),
    Index("ix_catalog_duplicates_first_in", "first_in"),
    Index("ix_catalog_duplicates_run", "run"),
)

Table(
    "catalog_pieces",
    metadata,
    Column("file_id", Integer, ForeignKey("catalog_files.id"), primary_key=True),
    Column("start", BigInteger, primary_key=True),
    Column("stop", BigInteger, nullable=False),
    Column("run", BigInteger, nullable=False),
    Column("unit", BigInteger, nullable=False),
    Column("stream", String, nullable=False),
    Index("catalog_pieces_by_unit", "run", "stream", "unit"),
)

Table(
    "conditions_global_tags",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String, nullable=False),
    sa.UniqueConstraint("name"),
)

Table(
    "conditions_sequence",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("last", BigInteger, nullable=False),
)

Table(
    "conditions_tags",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("clock", String, nullable=False),
    Column("sync", String, nullable=False),
    sa.UniqueConstraint("name"),
)

Table(
    "conditions_entries",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("tag_id", Integer, ForeignKey("conditions_tags.id"), nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("asked", BigInteger, nullable=False),
    Column("payload_id", String(64)),
    Column("origin", BigInteger, ForeignKey("conditions_entries.sequence"), nullable=False),
    Column("withdraws", BigInteger, ForeignKey("conditions_entries.sequence")),
    Column("recalls", BigInteger, ForeignKey("conditions_entries.sequence")),
    Column("author", String, nullable=False),
    Column("recorded_us", BigInteger, nullable=False),
    Column("reason", String, nullable=False),
    Column("info", JSON, nullable=False),
    Index("conditions_entries_by_origin", "origin"),
    Index("conditions_entries_by_since", "tag_id", "since", "sequence"),
    Index("conditions_entries_by_time", "recorded_us"),
    Index(
        "conditions_recalls_once",
        "recalls",
        unique=True,
        **where("recalls IS NOT NULL"),
    ),
    Index(
        "conditions_withdraws_once",
        "withdraws",
        unique=True,
        **where("withdraws IS NOT NULL"),
    ),
)

Table(
    "conditions_fates",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("tag_id", Integer, ForeignKey("conditions_tags.id"), nullable=False),
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
    Index("ix_conditions_fates_tag_id", "tag_id"),
)

Table(
    "conditions_members",
    metadata,
    Column("global_tag_id", Integer, ForeignKey("conditions_global_tags.id"), primary_key=True),
    Column("kind", String, primary_key=True),
    Column("tag_id", Integer, ForeignKey("conditions_tags.id"), nullable=False),
)

Table(
    "conditions_settled",
    metadata,
    Column("tag_id", Integer, ForeignKey("conditions_tags.id"), primary_key=True),
    Column("run", BigInteger, primary_key=True),
    Column("since", BigInteger, nullable=False),
    Column("until", BigInteger, nullable=False),
    Column("global_tag", String, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("recorded_us", BigInteger, nullable=False),
    Index("conditions_settled_by_until", "tag_id", "until"),
)

Table(
    "ledger_jobs",
    metadata,
    Column("name", String, primary_key=True),
    Column("task_group", String, nullable=False),
    Column("lane", Integer, nullable=False),
    Column("leaves", BigInteger, nullable=False),
    Column("fan_in", Integer, nullable=False),
    Column("spec", Text, nullable=False),
    Column("limit_s", Float),
    Column("state", String, nullable=False),
    Column("reason", Text, nullable=False),
    Column("added_at", Float, nullable=False),
    Column("ended_at", Float),
)

Table(
    "ledger_lease",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("epoch", BigInteger, nullable=False),
    Column("host", String),
    Column("pid", BigInteger),
    Column("born", Float),
    Column("renewed_at", Float, nullable=False),
)

Table(
    "ledger_failures",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("job", String, ForeignKey("ledger_jobs.name"), nullable=False),
    Column("level", Integer, nullable=False),
    Column("place", BigInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("leaf", BigInteger),
    Column("cause", String, nullable=False),
    Column("message", Text, nullable=False),
    Column("traceback", Text, nullable=False),
    Column("alone", Boolean, nullable=False),
    Column("seen", Boolean, nullable=False),
    Column("failed_at", Float, nullable=False),
    Index("ledger_failures_node", "job", "level", "place"),
)

Table(
    "ledger_nodes",
    metadata,
    Column("job", String, ForeignKey("ledger_jobs.name"), primary_key=True),
    Column("level", Integer, primary_key=True),
    Column("place", BigInteger, primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("receipt", Text, nullable=False),
    Column("committed_at", Float, nullable=False),
)

Table(
    "ledger_partials",
    metadata,
    Column("job", String, ForeignKey("ledger_jobs.name"), primary_key=True),
    Column("level", Integer, primary_key=True),
    Column("place", BigInteger, primary_key=True),
    Column("content", Text, nullable=False),
)

Table(
    "ledger_set_aside",
    metadata,
    Column("job", String, ForeignKey("ledger_jobs.name"), primary_key=True),
    Column("leaf", BigInteger, primary_key=True),
    Column("cause", String, nullable=False),
    Column("reason", Text, nullable=False),
    Column("traceback", Text, nullable=False),
    Column("set_aside_at", Float, nullable=False),
)

Table(
    "ledger_starts",
    metadata,
    Column("job", String, ForeignKey("ledger_jobs.name"), primary_key=True),
    Column("level", Integer, primary_key=True),
    Column("place", BigInteger, primary_key=True),
    Column("epoch", BigInteger, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("leaves", Integer, nullable=False),
    Column("alone", Boolean, nullable=False),
    Column("started_at", Float, nullable=False),
)
