"""Databases to test with: SQLite always, PostgreSQL where it is installed."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from pipeline.database import Database, open_database
from pipeline.schema import catalog_metadata
from tests import postgres


def every_store(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """An empty catalogue in the database that the parameter of the fixture names."""
    if request.param == "sqlite":
        store = open_database(tmp_path / "t.db")
    else:
        if postgres.installed() is None:
            pytest.skip("PostgreSQL is not installed")
        store = open_database(_server(request))
        with store.begin() as connection:
            connection.execute(sa.text("DROP SCHEMA public CASCADE"))
            connection.execute(sa.text("CREATE SCHEMA public"))
    store.create(catalog_metadata)
    request.addfinalizer(store.close)
    return store


_URLS: list[str] = []


def _server(request: pytest.FixtureRequest) -> str:
    if not _URLS:
        server = postgres.running()
        _URLS.append(server.__enter__())
        request.session.addfinalizer(lambda: (_URLS.clear(), server.__exit__(None, None, None)))
    return _URLS[0]
