"""A database such as the pipeline opens, and a look into its ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event

from jobs.ledger import ledger_metadata
from tests.jobs.record import Record


def open_engine(path: Path) -> Engine:
    """A SQLite database of one host: WAL, a full fsync at commit, transactions that write from their start."""
    engine = create_engine(f"sqlite:///{path}")

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _: Any) -> None:
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    ledger_metadata.create_all(engine)
    return engine


Begin = Callable[[], AbstractContextManager[Connection]]


@contextmanager
def recorded(begin: Begin) -> Iterator[Record]:
    """What the ledger holds, in a transaction of its own."""
    with begin() as connection:
        yield Record(connection)
