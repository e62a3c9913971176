"""The tables of the catalogue: files and what they hold, layouts, outputs, counts, setbacks, documents."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

catalog_metadata = MetaData()
"""All tables of the catalogue, to be created by whoever owns the database."""

files = Table(
    "catalog_files",
    catalog_metadata,
    Column("id", Integer, primary_key=True),
    Column("path", String, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("modified_ns", BigInteger, nullable=False),
    Column("checksum", String, nullable=False),
    Column("entries", BigInteger, nullable=False),
    Column("state", String, nullable=False),
    Column("reason", Text, nullable=False),
    Column("registered", Float, nullable=False),
    # Of all versions a path ever had, one speaks for it.
    Index(
        "catalog_files_current",
        "path",
        unique=True,
        sqlite_where=text("state <> 'superseded'"),
        postgresql_where=text("state <> 'superseded'"),
    ),
    Index("catalog_files_by_checksum", "checksum"),
)

pieces = Table(
    "catalog_pieces",
    catalog_metadata,
    Column("file_id", ForeignKey(files.c.id), primary_key=True),
    Column("start", BigInteger, primary_key=True),
    Column("stop", BigInteger, nullable=False),
    Column("run", BigInteger, nullable=False),
    Column("unit", BigInteger, nullable=False),
    Column("stream", String, nullable=False),
    Index("catalog_pieces_by_unit", "run", "stream", "unit"),
)

duplicates = Table(
    "catalog_duplicates",
    catalog_metadata,
    Column("file_id", ForeignKey(files.c.id), primary_key=True),
    Column("entry", BigInteger, primary_key=True),
    Column("run", BigInteger, nullable=False, index=True),
    Column("unit", BigInteger, nullable=False),
    Column("event", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    # By path, not by id: it may be the very version that replaces the first copy which must be asked about.
    Column("first_in", String, nullable=False, index=True),
)
"""Entries that take no part, because their event was there already."""

layouts = Table(
    "catalog_layouts",
    catalog_metadata,
    Column("id", Integer, primary_key=True),
    Column("run", BigInteger, nullable=False),
    Column("name", String, nullable=False),
    Column("chunks", BigInteger, nullable=False),
    Column("events", BigInteger, nullable=False),
    UniqueConstraint("run", "name", name="catalog_layouts_once"),
)
"""One way of cutting a run into chunks; its name says what it depends on."""

chunk_pieces = Table(
    "catalog_chunk_pieces",
    catalog_metadata,
    Column("layout_id", ForeignKey(layouts.c.id), primary_key=True),
    Column("chunk", BigInteger, primary_key=True),
    Column("place", BigInteger, primary_key=True),
    Column("file_id", ForeignKey(files.c.id), nullable=False),
    Column("start", BigInteger, nullable=False),
    Column("stop", BigInteger, nullable=False),
    Column("unit", BigInteger, nullable=False),
)

outputs = Table(
    "catalog_outputs",
    catalog_metadata,
    Column("id", Integer, primary_key=True),
    Column("job", String, nullable=False),
    Column("run", BigInteger, nullable=False),
    Column("step", String, nullable=False),
    Column("tier", String, nullable=False),
    Column("leaf", BigInteger, nullable=False),
    Column("path", String, nullable=False, unique=True),
    Column("size", BigInteger, nullable=False),
    Column("checksum", String, nullable=False),
    Column("events", BigInteger, nullable=False),
    # A chunk of files that differ in their columns has several of a tier.
    Index("catalog_outputs_by_job", "job", "tier", "leaf"),
    Index("catalog_outputs_by_run", "run", "step"),
)

counts = Table(
    "catalog_counts",
    catalog_metadata,
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
"""What became of the events of a unit (those of one chunk, where it is cut). A unit counted twice breaks the key."""

filtered = Table(
    "catalog_filtered",
    catalog_metadata,
    Column("job", String, primary_key=True),
    Column("unit", BigInteger, primary_key=True),
    Column("leaf", BigInteger, primary_key=True),
    Column("reason", String, primary_key=True),
    Column("events", BigInteger, nullable=False),
)

products = Table(
    "catalog_products",
    catalog_metadata,
    Column("name", String, primary_key=True),
    Column("job", String, nullable=False),
)
"""Which job made the product of a lineage."""

setbacks = Table(
    "catalog_setbacks",
    catalog_metadata,
    Column("id", Integer, primary_key=True),
    Column("run", BigInteger),
    Column("kind", String, nullable=False),
    Column("place", String, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Float, nullable=False),
    Column("resolved", Float),
    Index("catalog_setbacks_by_run", "run"),
)
"""What was set aside, and why; `resolved` once it no longer holds."""

documents = Table(
    "catalog_documents",
    catalog_metadata,
    Column("run", BigInteger, primary_key=True),
    Column("key", String, primary_key=True),
    Column("content", Text, nullable=False),
    Column("at", Float, nullable=False),
)
"""What is kept of a run as JSON: frozen settings, manifest, certification, status."""

orders = Table(
    "catalog_orders",
    catalog_metadata,
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
"""What people have ordered, in order; never changed. `run` null: all runs. `terms`: JSON, by what is ordered."""
