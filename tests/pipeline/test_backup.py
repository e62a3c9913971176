"""A backup is whole, checked, and can be gone on from: nothing lost, nothing twice."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from jobs.lease import Holder, take_lease
from jobs.ledger import nodes
from jobs.tables import failures, leases
from pipeline.areas import IDENTITY
from pipeline.backup import BackupDamaged, BackupRefused, back_up, read_backup, restore
from pipeline.database import Database, DatabaseRefused, open_database
from pipeline.migration import SCHEMA, bring_up_to_date, versions
from pipeline.schema import documents, outputs, setbacks
from tests.pipeline import schema_version_1
from tests.pipeline.conftest import STORES
from tests.pipeline.drivers import Driver
from tests.pipeline.table_shapes import contents, fill
from tests.pipeline.tiny import write_file
from tests.pipeline.traces import done_again, results, starts_and_commits

NOW = 1.8e9


@pytest.fixture
def full(where: str) -> Iterator[Database]:
    """A database with rows in every table."""
    found = open_database(where)
    bring_up_to_date(found, NOW)
    with found.reshaping() as connection:
        for metadata in SCHEMA.tables:
            fill(connection, metadata)
    yield found
    found.close()


@pytest.fixture(params=STORES)
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where to restore to."""
    return str(tmp_path / "to.db") if request.param == "sqlite" else str(request.getfixturevalue("make_postgres")())


def rows(database: Database) -> dict[str, list[Any]]:
    """All that is in a database, but for who drives it, and which of those restored from one backup it is."""
    with database.read() as connection:
        tables = [table for metadata in SCHEMA.tables for table in metadata.sorted_tables if table is not leases]
        found = {table.name: contents(connection, table) for table in [*tables, versions]}
    found["catalog_documents"] = [row for row in found["catalog_documents"] if IDENTITY not in row]
    return found


def tables_of(where: str | Path) -> list[str]:
    database = open_database(where)
    with database.read() as connection:
        found = sa.inspect(connection).get_table_names()
    database.close()
    return list(found)


def test_what_is_restored_is_what_was_there_whatever_it_lies_in(full: Database, empty: str, tmp_path: Path) -> None:
    backup = back_up(full, tmp_path / "b" / "tier0.backup", NOW)
    assert (backup.version, backup.taken, backup.source) == (SCHEMA.latest, NOW, full.name)
    assert backup == read_backup(tmp_path / "b" / "tier0.backup")
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["tier0.backup"]
    done = restore(backup.path, empty, NOW + 1)
    assert "restored into" in done.text() and str(sum(backup.rows.values())) in done.text()
    again = open_database(empty)
    assert rows(again) == rows(full)
    # And what is backed up of it is the same, but for who drives, and which database it is.
    second = back_up(again, tmp_path / "second", NOW)
    differing = {name for name in backup.rows if second.digests[name] != backup.digests[name]}
    assert differing == {"ledger_lease", "catalog_documents"}
    again.close()


def test_it_goes_on_with_new_numbers_and_no_driver(full: Database, empty: str, tmp_path: Path) -> None:
    restore(back_up(full, tmp_path / "backup", NOW).path, empty, NOW)
    again = open_database(empty)
    assert bring_up_to_date(again, NOW).before == SCHEMA.latest
    with again.begin() as connection:
        old = connection.scalar(sa.select(sa.func.max(setbacks.c.id)))
        row = {"kind": "k", "place": "p", "reason": "r", "at": 0.0}
        assert connection.execute(sa.insert(setbacks), row).inserted_primary_key == (old + 1,)
        assert set(connection.execute(sa.select(leases.c.host))) == {(None,)}
        epoch = connection.scalar(sa.select(leases.c.epoch).where(leases.c.id == 1))
        assert take_lease(connection, now=NOW) == epoch + 1
    again.close()


def test_a_driver_that_still_lives_is_named(tmp_path: Path) -> None:
    database = open_database(tmp_path / "t.db")
    bring_up_to_date(database, NOW)
    with database.begin() as connection:
        take_lease(connection, Holder.here())
    done = restore(back_up(database, tmp_path / "backup", NOW).path, tmp_path / "to.db", NOW)
    assert done.driver is not None and done.driver.pid == os.getpid()
    assert f"pid {os.getpid()}, the driver of then, is still alive" in done.text()
    database.close()


def test_it_is_of_one_moment_while_others_write(where: str, tmp_path: Path) -> None:
    database = open_database(where)
    bring_up_to_date(database, NOW)
    ended = threading.Event()
    started = threading.Event()

    def write() -> None:
        writer = open_database(where)
        number = 0
        while not ended.is_set():
            number += 1
            row = {"kind": "k", "place": "p", "reason": "r" * 2000, "at": 0.0}
            with writer.begin() as connection:
                connection.execute(sa.insert(setbacks), row)
                connection.execute(sa.insert(documents), {"run": number, "key": "k", "content": "c" * 2000, "at": 0.0})
            if number > 20:
                started.set()
        writer.close()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        assert started.wait(60)
        taken = [back_up(database, tmp_path / "first", NOW)]
        while len(taken) < 3 or taken[-1].rows["catalog_setbacks"] == taken[0].rows["catalog_setbacks"]:
            taken.append(back_up(database, tmp_path / f"backup-{len(taken)}", NOW))
    finally:
        ended.set()
        thread.join()
    counts = [(one.rows["catalog_setbacks"], one.rows["catalog_documents"]) for one in taken]
    assert all(first == second > 20 for first, second in counts)
    assert counts == sorted(counts)
    database.close()


def test_nothing_is_written_over(full: Database, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(BackupRefused, match="exists already"):
        back_up(full, tmp_path / "mine", NOW)
    assert (tmp_path / "mine").read_text() == "mine"


def test_an_empty_database_is_not_backed_up(where: str, tmp_path: Path) -> None:
    database = open_database(where)
    with pytest.raises(BackupRefused, match="there is nothing to back up"):
        back_up(database, tmp_path / "backup", NOW)
    database.close()
    assert not (tmp_path / "backup").exists()


def test_into_a_database_that_is_in_use_nothing_is_restored(full: Database, where: str, tmp_path: Path) -> None:
    backup = back_up(full, tmp_path / "backup", NOW)
    before = rows(full)
    with pytest.raises(BackupRefused, match="has tables of a Tier-0 already"):
        restore(backup.path, where, NOW)
    assert rows(full) == before


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of a SQLite file."""
    folder = tmp_path_factory.mktemp("backup")
    database = open_database(folder / "from.db")
    bring_up_to_date(database, NOW)
    with database.reshaping() as connection:
        for metadata in SCHEMA.tables:
            fill(connection, metadata, rows=30)
    file = back_up(database, folder / "backup", NOW).path
    database.close()
    return file


@pytest.fixture
def backup(made: Path, tmp_path: Path) -> Path:
    """A copy of it for one test."""
    return Path(shutil.copy(made, tmp_path))


def run_sql(file: Path, sql: str) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(sql)


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip_bits(file: Path) -> None:
    content = bytearray(file.read_bytes())
    # Not of the first page, which says what file this is; and a few in each, for most of a page may be empty.
    for place in range(4096, len(content), 101):
        content[place] ^= 1
    file.write_bytes(content)


DAMAGE = {
    "a value": lambda file: run_sql(file, "UPDATE catalog_files SET size = size + 1 WHERE id = 7"),
    "a row more": lambda file: run_sql(file, "INSERT INTO catalog_products VALUES ('new', 'job')"),
    "a row less": lambda file: run_sql(file, "DELETE FROM conditions_fates WHERE id = 3"),
    "a table less": lambda file: run_sql(file, "DROP TABLE catalog_filtered"),
    "a table more": lambda file: run_sql(file, "CREATE TABLE mine (id INTEGER)"),
    "its list": lambda file: run_sql(
        file, "UPDATE tier0_backup_contents SET rows = rows + 1 WHERE name = 'ledger_jobs'"
    ),
    "its version": lambda file: run_sql(file, "UPDATE tier0_backup SET version = version - 1"),
    "itself not listed": lambda file: run_sql(file, "DELETE FROM tier0_backup"),
    "cut short": cut_short,
    "bits": flip_bits,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_backup_that_has_changed_is_refused(backup: Path, tmp_path: Path, damage: Any) -> None:
    damage(backup)
    with pytest.raises(BackupDamaged):
        restore(backup, tmp_path / "to.db", NOW)
    assert not (tmp_path / "to.db").exists()


def test_it_is_restored_where_nothing_was_done_to_it(backup: Path, tmp_path: Path) -> None:
    restore(backup, tmp_path / "to.db", NOW)
    assert tables_of(tmp_path / "to.db")


@pytest.mark.parametrize("content", [b"", b"nothing of the kind" * 300])
def test_any_other_file_is_no_backup(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "other").write_bytes(content)
    with pytest.raises(DatabaseRefused, match="backup"):
        restore(tmp_path / "other", tmp_path / "to.db", NOW)
    with pytest.raises(BackupRefused, match="there is no file"):
        restore(tmp_path / "gone", tmp_path / "to.db", NOW)


def test_what_a_database_cannot_hold_is_named_and_leaves_it_empty(backup: Path, new_postgres: str) -> None:
    restore(backup, backup.with_name("from.db"), NOW)
    database = open_database(backup.with_name("from.db"))
    with database.begin() as connection:
        connection.execute(sa.update(failures).where(failures.c.id == 15).values(message="a\0b"))
    odd = back_up(database, backup.with_name("odd"), NOW).path
    database.close()
    with pytest.raises(DatabaseRefused, match="rows of ledger_failures do not go into this database"):
        restore(odd, new_postgres, NOW)
    assert tables_of(new_postgres) == []
    restore(backup, new_postgres, NOW)


def test_what_fails_at_the_very_end_leaves_it_empty(backup: Path, tmp_path: Path) -> None:
    restore(backup, tmp_path / "from.db", NOW)
    with closing(sqlite3.connect(tmp_path / "from.db")) as connection, connection:
        connection.execute("DELETE FROM ledger_jobs WHERE name = 'name 9 ü'")
    odd = back_up(Database.of_file(tmp_path / "from.db"), tmp_path / "odd", NOW).path
    with pytest.raises(DatabaseRefused, match=r"rows of ledger_failures.* point to rows that are not there"):
        restore(odd, tmp_path / "to.db", NOW)
    assert tables_of(tmp_path / "to.db") == []
    restore(backup, tmp_path / "to.db", NOW)


def test_an_older_one_is_migrated_on_the_way(tmp_path: Path, empty: str) -> None:
    old = open_database(tmp_path / "old.db")
    with old.reshaping() as connection:
        schema_version_1.metadata.create_all(connection)
        fill(connection, schema_version_1.metadata)
    made = back_up(old, tmp_path / "backup", NOW)
    assert made.version == 1
    restore(made.path, empty, NOW)
    again = open_database(empty)
    with again.read() as connection, old.read() as before:
        assert SCHEMA.version_of(connection) == SCHEMA.latest
        old_files = schema_version_1.metadata.tables["catalog_files"]
        assert contents(connection, old_files) == contents(before, old_files)
    again.close()
    old.close()


def test_one_of_a_later_program_is_refused(tmp_path: Path) -> None:
    database = open_database(tmp_path / "t.db")
    bring_up_to_date(database, NOW)
    with database.begin() as connection:
        connection.execute(sa.insert(versions), {"version": SCHEMA.latest + 1, "since": 0.0, "program": "9"})
    made = back_up(database, tmp_path / "backup", NOW)
    database.close()
    with pytest.raises(BackupRefused, match="use the later program"):
        restore(made.path, tmp_path / "to.db", NOW)


# with runs in flight -------------------------------------------------------------------------------------------------


def output_paths(database: Database) -> set[str]:
    with database.read() as connection:
        return set(connection.scalars(sa.select(outputs.c.path)))


def committed(database: Database) -> int:
    with database.read() as connection:
        return int(connection.scalar(sa.select(sa.func.count()).select_from(nodes)) or 0)


@pytest.mark.parametrize("into", [pytest.param("sqlite", marks=pytest.mark.verify), "postgresql"])
def test_a_backup_in_the_middle_is_gone_on_from(
    house: Any, joined: dict[str, Any], request: pytest.FixtureRequest, tmp_path: Path, into: str
) -> None:
    """The original goes on after it: what it does then is nobody's in the restored one, is swept, and is done again."""
    data = [write_file(tmp_path / "a.root", 7, lumis=5), write_file(tmp_path / "b.root", 8, lumis=3, mean=1.6)]
    cluster = joined | {"longest_task": "10 seconds"}
    plain = house(experiment={"settings": {"pause_s": 0.1}}, cluster=cluster)
    driver = Driver(plain, data)
    original = Database.of_file(tmp_path / "area" / "tier0.db")
    while not (tmp_path / "area" / "tier0.db").exists() or not tables_of(original.name) or committed(original) < 3:
        time.sleep(0.02)
    backup = back_up(original, tmp_path / "backup", NOW)
    assert driver.lives()
    assert driver.end() == 0
    wanted = results(plain)
    done_then = backup.rows["ledger_nodes"]
    assert 3 <= done_then < committed(original)

    where = str(tmp_path / "to.db") if into == "sqlite" else request.getfixturevalue("new_postgres")
    restore(backup.path, where, NOW)
    restored = open_database(where)
    assert committed(restored) == done_then
    orphans = output_paths(original) - output_paths(restored)
    assert orphans
    # A task of ten seconds is ended after twenty, and a minute later what it left is swept.
    for path in (tmp_path / "area" / "runs").rglob("*"):
        os.utime(path, (time.time() - 100,) * 2)

    again = plain | {"storage": plain["storage"] | {"database": where}}
    assert Driver(again, data).end() == 0
    assert results(again) == wanted
    assert done_again(again) == 0
    begun, at_last = starts_and_commits(again)
    assert at_last == committed(original) and begun >= at_last
    assert not any(Path(path).exists() for path in orphans)
    assert all(Path(path).exists() for path in output_paths(restored))
    restored.close()
    original.close()
