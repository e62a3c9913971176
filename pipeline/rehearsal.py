"""The same Tier-0 over a copy of its database: what is tried there leaves no trace."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import sqlalchemy as sa

from calib.payload import PayloadStore
from calib.schema import conditions_metadata
from jobs.tables import ledger_metadata
from pipeline.database import Database, open_database
from pipeline.schema import catalog_metadata
from pipeline.world import World, set_up

_PAGE = 1000


@contextmanager
def rehearsal(world: World) -> Iterator[World]:
    """A world like this one, with its processing version set up; what is written in it is gone at the end."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "tier0.db"
        if world.database.is_sqlite:
            _back_up(str(world.database.engine.url.database), target)
        database = open_database(target)
        try:
            if not world.database.is_sqlite:
                _copy_rows(world.database, database)
            store = _Overlay(world.store, Path(folder) / "conditions")
            books = replace(world.books, database=database)
            yield set_up(replace(world, database=database, books=books, store=store, rehearses=True))
        finally:
            database.close()


class _Overlay(PayloadStore):
    """Reads from another store, and writes what is not there to a folder of its own."""

    def __init__(self, below: PayloadStore, root: Path) -> None:
        super().__init__(root)
        self._below = below

    def path(self, payload_id: str) -> Path:
        there = self._below.path(payload_id)
        return there if there.is_dir() else super().path(payload_id)


def _back_up(source: str, target: Path) -> None:
    with closing(sqlite3.connect(source)) as there, closing(sqlite3.connect(target)) as here:
        there.backup(here)


def _copy_rows(source: Database, target: Database) -> None:
    for metadata in (catalog_metadata, conditions_metadata, ledger_metadata):
        target.create(metadata)
        with source.read() as there, target.begin() as here:
            for table in metadata.sorted_tables:
                here.execute(sa.delete(table))
                found = there.execute(sa.select(table), execution_options={"yield_per": _PAGE})
                for page in found.mappings().partitions():
                    here.execute(sa.insert(table), [dict(row) for row in page])
