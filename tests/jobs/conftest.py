"""A cluster of two processes, and databases: SQLite always, PostgreSQL where it is installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client
from sqlalchemy import Engine, create_engine

from jobs.cluster import open_cluster
from jobs.cluster_settings import ClusterSettings
from jobs.ledger import ledger_metadata
from tests import postgres
from tests.jobs.ledgers import open_engine


@pytest.fixture(scope="session")
def two_workers() -> Iterator[Client]:
    """A client of two worker processes; tests may kill them, and Dask's nannies bring them back."""
    with open_cluster(ClusterSettings(workers=2, memory="1 GB", tls=False, dashboard_port=0)) as client:
        yield client


@pytest.fixture
def client(two_workers: Client) -> Client:
    """Two workers, both there."""
    two_workers.wait_for_workers(2, timeout=60)
    return two_workers


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Engine]:
    engine = open_engine(tmp_path / "ledger.sqlite")
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def ledger_postgres() -> Iterator[Engine]:
    if postgres.installed() is None:
        pytest.skip("PostgreSQL is not installed")
    pytest.importorskip("psycopg")
    with postgres.running() as url:
        engine = create_engine(url)
        yield engine
        engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """An empty ledger."""
    if request.param == "sqlite":
        yield request.getfixturevalue("sqlite")
        return
    found: Engine = request.getfixturevalue("ledger_postgres")
    ledger_metadata.create_all(found)
    yield found
    ledger_metadata.drop_all(found)
