"""Databases for the conditions: SQLite always, PostgreSQL where it is installed."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, event, make_url

from calib.conditions import ConditionsDB
from calib.payload import PayloadStore
from calib.schema import conditions_metadata
from tests import postgres


def open_sqlite(path: Path, wait_s: float = 60) -> Engine:
    """A SQLite file whose transactions take the write lock at once, as the pipeline's do."""
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": wait_s})

    @event.listens_for(engine, "connect")
    def _by_hand(raw: Any, _record: object) -> None:
        raw.isolation_level = None
        raw.execute("PRAGMA journal_mode=WAL")
        raw.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _immediate(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    if postgres.installed() is None:
        pytest.skip("PostgreSQL is not installed")
    pytest.importorskip("psycopg")
    with postgres.running() as url:
        yield url


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A database with empty conditions tables; tests roll back what they do or name their own tags."""
    if request.param == "sqlite":
        made = open_sqlite(tmp_path_factory.mktemp("conditions") / "conditions.sqlite")
    else:
        made = create_engine(request.getfixturevalue("postgres_url"))
    conditions_metadata.create_all(made)
    yield made
    made.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """A database of its own, for tests that commit from several connections."""
    if request.param == "sqlite":
        made = open_sqlite(tmp_path / "conditions.sqlite")
    else:
        url = make_url(request.getfixturevalue("postgres_url"))
        name = f"writers_{uuid.uuid4().hex}"
        server = create_engine(url, isolation_level="AUTOCOMMIT")
        with server.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        server.dispose()
        made = create_engine(url.set(database=name))
    conditions_metadata.create_all(made)
    yield made
    made.dispose()


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> PayloadStore:
    return PayloadStore(tmp_path_factory.mktemp("payloads"))


@pytest.fixture
def db(engine: Engine, store: PayloadStore) -> Iterator[ConditionsDB]:
    """Conditions in a transaction that is rolled back."""
    with engine.connect() as connection, connection.begin() as transaction:
        yield ConditionsDB(connection, store)
        transaction.rollback()
