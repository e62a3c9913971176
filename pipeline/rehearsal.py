"""The same Tier-0 over a copy of its database: what is tried there leaves no trace."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from calib.payload import PayloadStore
from pipeline.backup import copy_rows
from pipeline.database import Database, open_database
from pipeline.migration import SCHEMA
from pipeline.world import World, set_up


@contextmanager
def rehearsal(world: World) -> Iterator[World]:
    """A world like this one, with its processing version set up; what is written in it is gone at the end."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "tier0.db"
        if world.database.is_sqlite:
            world.database.copy_to(target)
        database = open_database(target)
        try:
            if not world.database.is_sqlite:
                _copy(world.database, database)
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


def _copy(source: Database, target: Database) -> None:
    with source.read() as there, target.reshaping() as here:
        SCHEMA.make(here, 0.0)
        copy_rows(there, here, SCHEMA.tables)
