"""What the tests of the pipeline share: a catalogue in every database, and one cluster for all whole chains."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from distributed import Client

from jobs.cluster import open_cluster
from jobs.cluster_settings import ClusterSettings
from pipeline.database import Database, open_database
from pipeline.schema import catalog_metadata
from tests import postgres
from tests.pipeline.tiny import settings

STORES = ["sqlite", "postgresql"]


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a PostgreSQL server of these tests."""
    if postgres.installed() is None:
        pytest.skip("PostgreSQL is not installed")
    with postgres.running() as url:
        yield url


@pytest.fixture
def make_postgres(postgres_url: str) -> Callable[[], str]:
    """Makes empty PostgreSQL databases; gives the URL."""

    def make() -> str:
        name = f"test_{uuid.uuid4().hex}"
        server = sa.create_engine(postgres_url, isolation_level="AUTOCOMMIT")
        with server.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        server.dispose()
        return sa.make_url(postgres_url).set(database=name).render_as_string(hide_password=False)

    return make


@pytest.fixture
def new_postgres(make_postgres: Callable[[], str]) -> str:
    """The URL of an empty PostgreSQL database of this test's own."""
    return make_postgres()


@pytest.fixture(params=STORES)
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The path or URL of an empty database."""
    return str(tmp_path / "t.db") if request.param == "sqlite" else str(request.getfixturevalue("new_postgres"))


@pytest.fixture(params=STORES)
def catalogue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty catalogue."""
    if request.param == "sqlite":
        store = open_database(tmp_path / "t.db")
    else:
        store = open_database(request.getfixturevalue("postgres_url"))
        with store.begin() as connection:
            connection.execute(sa.text("DROP SCHEMA public CASCADE"))
            connection.execute(sa.text("CREATE SCHEMA public"))
    store.create(catalog_metadata)
    yield store
    store.close()


@pytest.fixture(scope="session")
def one_crew() -> Iterator[Client]:
    """A cluster of two workers, started once."""
    with open_cluster(ClusterSettings(workers=2, memory="1 GB", tls=False, dashboard_port=0)) as client:
        yield client


@pytest.fixture
def crew(one_crew: Client) -> Client:
    """That cluster, whole: tests may kill its workers, and their nannies bring them back, which this waits for."""
    one_crew.wait_for_workers(2, timeout=60)
    return one_crew


@pytest.fixture(scope="session")
def joined(one_crew: Client) -> dict[str, Any]:
    """The settings that join this cluster, section `cluster`."""
    return {"kind": "address", "address": one_crew.scheduler.address, "workers": None, "tls": False}  # type: ignore[union-attr]


@pytest.fixture
def house(crew: Client, joined: dict[str, Any], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Makes settings of a small Tier-0 on that cluster; sections are merged in."""

    def make(area: str = "area", **sections: Any) -> dict[str, Any]:
        return settings(tmp_path / area, **({"cluster": joined} | sections))

    return make
