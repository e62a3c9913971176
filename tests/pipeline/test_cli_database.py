"""`tier0 database`: looked at, migrated, backed up and restored by command."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result

from jobs.lease import Holder, take_lease
from pipeline.cli import main
from pipeline.database import open_database
from pipeline.migration import SCHEMA, versions
from pipeline.settings import load_settings
from pipeline.toml_text import toml_text
from pipeline.world import open_world, places_of, set_up
from tests.pipeline import schema_version_1
from tests.pipeline.table_shapes import fill
from tests.pipeline.tiny import settings


def tier0(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    """A settings file; nothing is there yet."""
    path = tmp_path / "tiny.toml"
    path.write_text(toml_text(settings(tmp_path / "area")))
    return path


@pytest.fixture
def used(toml: Path) -> Path:
    """A settings file whose database is there."""
    open_world(load_settings(toml)).database.close()
    return toml


@pytest.fixture
def old(toml: Path) -> Path:
    """A settings file whose database is of version 1."""
    database = open_database(places_of(load_settings(toml)).database)
    with database.reshaping() as connection:
        schema_version_1.metadata.create_all(connection)
        fill(connection, schema_version_1.metadata)
    database.close()
    return toml


def test_a_database_is_backed_up_restored_and_found_well(used: Path, tmp_path: Path) -> None:
    done = tier0("database", "backup", tmp_path / "backup", "-s", used)
    assert done.exit_code == 0 and f"{tmp_path}/backup: {tmp_path}/area/tier0.db as of " in done.output
    done = tier0("database", "restore", tmp_path / "backup", "--into", tmp_path / "to.db")
    assert done.exit_code == 0 and "refused to the database of before" in done.output
    for where in (("-s", used), ("--database", tmp_path / "to.db")):
        done = tier0("database", "check", *where)
        assert done.exit_code == 0 and "all is well" in done.output


def test_a_backup_is_refused_where_it_would_overwrite(used: Path) -> None:
    done = tier0("database", "backup", used, "-s", used)
    assert done.exit_code == 1 and "exists already" in done.output
    assert "[experiment]" in used.read_text()


def test_no_command_makes_a_database_that_is_not_there(toml: Path, tmp_path: Path) -> None:
    for words in (("check",), ("migrate",), ("backup", tmp_path / "backup")):
        done = tier0("database", *words, "-s", toml)
        assert done.exit_code == 1 and "there is no database" in done.output
    assert not (tmp_path / "area").exists() and not (tmp_path / "backup").exists()


def _gone(there: Path) -> None:
    shutil.rmtree(there)


def _changed(there: Path) -> None:
    number = there / "mean" / "zarr.json"
    number.write_text(number.read_text().replace('"float64"', '"int64"'))


@pytest.mark.parametrize(
    ("damage", "said"), [(_gone, "is gone: put {}"), (_changed, "is not what was written: move {} away, and put it")]
)
def test_a_payload_that_cannot_be_had_is_told_with_its_tags(
    toml: Path, tmp_path: Path, damage: Callable[[Path], None], said: str
) -> None:
    world = set_up(open_world(load_settings(toml)))
    (payload_id,) = world.store.ids()
    assert "payloads: 1 that tags name, all read\nall is well" in tier0("database", "check", "-s", toml).output
    damage(world.store.path(payload_id))
    done = tier0("database", "check", "-s", toml)
    assert done.exit_code == 3 and "all is well" not in done.output
    words = f"wrong: payload {payload_id[:12]} of offset_express_v1, offset_prompt_v1 "
    assert words + said.format(world.store.path(payload_id)) in done.output
    assert "back from a copy of the area" in done.output
    done = tier0("database", "check", "--database", tmp_path / "area" / "tier0.db")
    assert done.exit_code == 0 and "payloads: not looked at" in done.output
    assert tier0("database", "check", "--database", world.database.name, "-s", toml).exit_code == 3


def test_a_database_of_0_bytes_is_no_new_one_to_any_command(used: Path, tmp_path: Path) -> None:
    assert tier0("database", "backup", tmp_path / "backup", "-s", used).exit_code == 0
    lost = tmp_path / "area" / "tier0.db"
    os.truncate(lost, 0)
    looks = (("status",), ("why", 1), ("conditions", "list"), ("database", "check"), ("serve-conditions",))
    for words in (*looks, ("conditions", "upload", "offset", "x.npz", "--since", "0", "--reason", "test")):
        done = tier0(*words, "-s", used)
        assert done.exit_code == 1 and "has lost its content: it has 0 bytes" in done.output, words
    lost.unlink()
    assert tier0("database", "restore", tmp_path / "backup", "--into", lost).exit_code == 0
    assert tier0("status", "-s", used).exit_code == 0


def test_who_is_killed_as_a_database_begins_leaves_one_to_begin_with(toml: Path) -> None:
    open_database(places_of(load_settings(toml)).database)  # the file is there, and nothing was committed to it
    done = tier0("status", "-s", toml)
    assert done.exit_code == 0 and "no run to show" in done.output


def test_an_older_database_is_migrated_once(old: Path, tmp_path: Path) -> None:
    done = tier0("database", "check", "-s", old)
    assert done.exit_code == 3 and "version 1 of the tables" in done.output and "to be migrated: 2" in done.output
    done = tier0("database", "migrate", "-s", old)
    assert done.exit_code == 0 and f"is migrated from version 1 to {SCHEMA.latest}" in done.output
    (copy,) = (tmp_path / "area").glob("tier0.db.version-1.*")
    assert f"as it was before it is kept in {copy}" in done.output
    # Without settings: the payloads that its rows name were never written.
    assert tier0("database", "check", "--database", tmp_path / "area" / "tier0.db").exit_code == 0
    done = tier0("database", "migrate", "-s", old)
    assert done.exit_code == 0 and "nothing to do" in done.output


def test_under_a_driver_nothing_is_migrated(old: Path) -> None:
    database = open_database(places_of(load_settings(old)).database)
    with database.begin() as connection:
        take_lease(connection, Holder("another", 1, 0.0), now=4e9)
    done = tier0("database", "migrate", "-s", old)
    assert done.exit_code == 5 and "not under a driver: another driver works on this database: pid 1" in done.output
    with database.read() as connection:
        assert SCHEMA.version_of(connection) == 1
    database.close()


def test_a_newer_database_is_refused_by_every_command(used: Path) -> None:
    database = open_database(places_of(load_settings(used)).database)
    with database.begin() as connection:
        connection.execute(sa.insert(versions), {"version": 999, "since": 0.0, "program": "9.0"})
    database.close()
    for words in (("database", "migrate"), ("status",), ("conditions", "list"), ("serve-conditions",)):
        done = tier0(*words, "-s", used)
        assert done.exit_code == 1 and "use the later program" in done.output, words
    assert tier0("database", "check", "-s", used).exit_code == 3


def test_a_port_that_is_taken_is_said(used: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = tier0("serve-conditions", "-s", used, "--port", taken.getsockname()[1])
    assert done.exit_code == 1 and "give another --host or --port" in done.output


def test_a_port_that_cannot_be_is_wrong_use(used: Path) -> None:
    done = tier0("serve-conditions", "-s", used, "--port", 80000)
    assert done.exit_code == 2 and "'--port': 80000 is not in the range 0<=x<=65535" in done.output


@pytest.mark.parametrize("words", [[], ["check"], ["migrate"], ["backup"], ["restore"]])
def test_help_is_there(words: list[str]) -> None:
    done = tier0("database", *words, "--help")
    assert done.exit_code == 0 and "tier0 database" in done.output
    assert "curl" in tier0("serve-conditions", "--help").output
