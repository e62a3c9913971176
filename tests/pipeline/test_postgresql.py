"""The whole chain on PostgreSQL: the same content as on SQLite, through kills, and every way to look at it."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.settings import settings_from
from pipeline.site import SiteStopped
from pipeline.tier0 import Tier0
from pipeline.toml_text import toml_text
from pipeline.world import open_world, set_up
from tests.pipeline import colliding
from tests.pipeline.drivers import KILLED, Driver
from tests.pipeline.probes import KillAt, Once
from tests.pipeline.test_kills import check
from tests.pipeline.tiny import write_file
from tests.pipeline.traces import done_again, results

House = Callable[..., dict[str, Any]]

# In a transaction that publishes and settles, behind its commit, and in one that commits a branch.
POINTS = ("settle", "released", "ledger-commit")


def on(where: str, plain: dict[str, Any]) -> dict[str, Any]:
    """The same settings, with another database."""
    return plain | {"storage": plain["storage"] | {"database": where}}


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return [write_file(tmp_path / "a.root", 7, lumis=3), write_file(tmp_path / "b.root", 8, lumis=2, mean=1.6)]


def test_killed_and_started_again_it_ends_with_what_sqlite_ends_with(
    house: House, new_postgres: str, files: list[Path], tmp_path: Path
) -> None:
    reference = house("reference")
    assert Driver(reference, files).end() == 0
    plain, probe = on(new_postgres, house("area")), KillAt(tmp_path / "kills", POINTS)
    lives = 1
    while (end := Driver(plain, files, probe).end()) == KILLED:
        lives += 1
    assert end == 0 and lives == 1 + len(POINTS)
    check(plain, results(reference))
    assert not (tmp_path / "area" / "tier0.db").exists()
    _look_at_everything(plain, tmp_path)


def _look_at_everything(plain: dict[str, Any], folder: Path) -> None:
    """Every command that looks, and one that writes."""
    settings = folder / "tiny.toml"
    settings.write_text(toml_text(plain))

    def tier0(*words: object) -> str:
        done = CliRunner().invoke(main, [str(word) for word in words])
        assert done.exit_code == 0, done.output
        return done.output

    at = ("-s", settings)
    assert "offset: 2 fresh" in tier0("status", *at)
    assert "run 7, processing version 1: certified" in tier0("why", 7, *at)
    assert "nothing to do" in tier0("run", settings, folder / "a.root", "--dry-run")
    assert "[experiment]" in tier0("settings", "check", settings)
    assert "offset_prompt_v1" in tier0("conditions", "list", *at)
    assert "made by the loop" in tier0("conditions", "history", "offset", *at)
    tier0("conditions", "export", "offset", "-o", folder / "export", *at)
    file = next((folder / "export").glob("offset-*.npz"))
    assert "accepted" in tier0("conditions", "upload", "offset", file, "--since", 9, "--reason", "again", *at)
    assert re.search(r'"7": \[\[1, 3\]\]', tier0("certify", *at))


def cut_off(url: str) -> None:
    """End every connection to a database, as a server does that is shut down."""
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with engine.connect() as connection:
        connection.exec_driver_sql(f"SELECT pg_terminate_backend(pid) {others}")
    engine.dispose()


def test_a_server_that_goes_in_the_middle_stops_the_driver_and_the_next_start_goes_on(
    house: House, new_postgres: str, files: list[Path], tmp_path: Path
) -> None:
    plain = on(new_postgres, house("area"))
    probe = Once(tmp_path / "once", "ledger-commit", partial(cut_off, new_postgres))
    with Tier0(plain, probe=probe) as tier0:
        with pytest.raises(SiteStopped, match=r"connection.*then start again: nothing is lost"):
            tier0.run(*files, progress=False)
        assert tier0.run(*files, progress=False).exit_code == 0
    assert done_again(plain) == 0


@pytest.mark.verify
def test_fits_and_a_span_over_two_runs_come_out_the_same(house: House, new_postgres: str, tmp_path: Path) -> None:
    files = colliding.collider_files(tmp_path / "data")
    found = []
    for plain in (house("lite", **colliding.SECTIONS), on(new_postgres, house("post", **colliding.SECTIONS))):
        with Tier0(plain) as tier0:
            assert tier0.run(*files, progress=False).exit_code == 0
            colliding.made(tier0)
        found.append(results(plain))
    assert found[0] == found[1]


def test_a_server_that_is_not_there_is_the_sites_fault(house: House, tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(SiteStopped, match="nothing is lost"):
        Tier0(on(f"postgresql://tier0@/postgres?host={tmp_path}", house()))


def test_two_that_open_a_new_processing_version_at_once_get_numbers_of_their_own(
    house: House, new_postgres: str
) -> None:
    world = open_world(settings_from(on(new_postgres, house("first"))))
    others = [
        open_world(settings_from(on(new_postgres, house("first", express={"fraction": fraction}))))
        for fraction in ("1/2", "1/3", "1/4")
    ]
    with ThreadPoolExecutor() as threads:
        found = list(threads.map(lambda world: set_up(world).books.version, [world, *others]))
    assert sorted(found) == [1, 2, 3, 4]
    with world.database.read() as connection:
        tags = {tag.name for tag in world.conditions(connection).tags()}
    assert tags == {f"offset_{serves}_v{version}" for serves in ("prompt", "express") for version in found}
