"""Older databases are taken to the tables of today, whole and under no driver; newer ones are refused."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from jobs.lease import Holder, SecondDriver, take_lease
from jobs.tables import ledger_metadata
from pipeline.areas import IDENTITY
from pipeline.database import Database, DatabaseRefused, open_database
from pipeline.migration import (
    SCHEMA,
    NewerDatabase,
    OlderDatabase,
    Schema,
    bring_up_to_date,
    check,
    check_readable,
    versions,
    versions_metadata,
)
from pipeline.migration_steps import Step, add_column
from pipeline.orders import Order, What, list_orders
from pipeline.settings import settings_from
from pipeline.world import open_world
from tests.pipeline import schema_version_1
from tests.pipeline.table_shapes import contents, fill, fingerprint, shape
from tests.pipeline.tiny import settings

NOW = 1.8e9
OLD = schema_version_1.metadata

# What the tables are, by version, as SQLite has them.
RECORDED = {1: "406b347246f69b77", 2: "8e9559d82547b1e6"}

HINT = """
A table was changed without a step that brings older databases along. Add one to pipeline/migration_steps.py, under the
next number, and its fingerprint to RECORDED here. A step that has left the house is never changed."""


@pytest.fixture
def database(where: str) -> Database:
    found = open_database(where)
    yield found
    found.close()


def make_old(database: Database) -> None:
    """A database of version 1 with rows in all tables."""
    with database.reshaping() as connection:
        OLD.create_all(connection)
        fill(connection, OLD)


def step_by_step(database: Database, upto: int) -> None:
    with database.reshaping() as connection:
        for number in sorted(SCHEMA.steps):
            if number <= upto:
                SCHEMA.steps[number].change(connection)


# the steps there are -------------------------------------------------------------------------------------------------


def test_the_steps_lead_to_the_tables_of_the_program(where: str, tmp_path: Path) -> None:
    migrated = open_database(where)
    with migrated.reshaping() as connection:
        OLD.create_all(connection)
    step_by_step(migrated, SCHEMA.latest)
    with migrated.read() as connection:
        found = shape(connection)
    with migrated.reshaping() as connection:
        for table in sa.inspect(connection).get_table_names():
            connection.exec_driver_sql(f"DROP TABLE {table}" + ("" if migrated.is_sqlite else " CASCADE"))
        SCHEMA.make(connection, NOW)
        wanted = shape(connection)
    migrated.close()
    lacking, too_much = sorted(wanted - found), sorted(found - wanted)
    assert not lacking and not too_much, f"steps do not make: {lacking}; and make: {too_much}\n{HINT}"


@pytest.mark.parametrize("version", range(1, SCHEMA.latest + 1))
def test_no_step_that_was_taken_is_changed(version: int, tmp_path: Path) -> None:
    database = open_database(tmp_path / "t.db")
    with database.reshaping() as connection:
        OLD.create_all(connection)
    step_by_step(database, version)
    with database.read() as connection:
        found = fingerprint(shape(connection))
    database.close()
    assert RECORDED.get(version) == found, f"version {version} is {found}\n{HINT}"


@pytest.mark.parametrize("version", range(2, SCHEMA.latest + 1))
def test_a_step_keeps_every_row(database: Database, version: int) -> None:
    with database.reshaping() as connection:
        OLD.create_all(connection)
    step_by_step(database, version - 1)
    with database.reshaping() as connection:
        before = sa.MetaData()
        before.reflect(connection)
        fill(connection, before)
        kept = {table: contents(connection, table) for table in before.sorted_tables}
        SCHEMA.steps[version].change(connection)
        # Read by the columns of before.
        assert {table: contents(connection, table) for table in before.sorted_tables} == kept


def test_holds_of_before_there_was_a_list_of_orders_still_hold(database: Database) -> None:
    with database.reshaping() as connection:
        OLD.create_all(connection)
    step_by_step(database, 1)
    with database.begin() as connection:
        for run, content in ((7, '{"reason": "eve: magnet: off"}'), (8, "{}")):  # that of run 8 was lifted
            row = {"run": run, "key": "hold", "content": content, "at": NOW}
            connection.execute(sa.insert(OLD.tables["catalog_documents"]), row)
        SCHEMA.steps[2].change(connection)
        assert list_orders(connection) == [Order(What.HOLD, 7, "magnet: off", "eve", NOW)]


def test_a_database_of_before_is_brought_up_to_date_when_it_is_opened(tmp_path: Path) -> None:
    plain = settings(tmp_path / "area")
    old = open_database(tmp_path / "area" / "tier0.db")
    make_old(old)
    rows = {}
    with old.read() as connection:
        rows = {table: contents(connection, table) for table in OLD.sorted_tables if table.name != "ledger_lease"}
    old.close()
    world = open_world(settings_from(plain))
    with world.database.read() as connection:
        assert SCHEMA.version_of(connection) == SCHEMA.latest
        found = {table: contents(connection, table) for table in rows}
    kept = found[OLD.tables["catalog_documents"]]
    own = [row for row in kept if IDENTITY in row]  # by which its area knows it
    assert len(own) == 1
    kept.remove(own[0])
    assert found == rows
    world.database.close()


# the machinery, on tables of its own ---------------------------------------------------------------------------------

metadata = sa.MetaData()
parents = sa.Table("parents", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("size", sa.Integer))
children = sa.Table(
    "children",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("parent", sa.ForeignKey(parents.c.id), nullable=False),
)
BEFORE = Schema((metadata, ledger_metadata), {})

grown = sa.MetaData()
parents.to_metadata(grown).append_column(sa.Column("name", sa.String, nullable=False))
children.to_metadata(grown)


def give_names(connection: sa.Connection) -> None:
    add_column(connection, "parents", sa.Column("name", sa.String, server_default="none", nullable=False))
    connection.exec_driver_sql("UPDATE parents SET name = 'large' WHERE size > 10")


AFTER = Schema((grown, ledger_metadata), {2: Step("parents have names", give_names)})


@pytest.fixture
def older(database: Database) -> Database:
    """A database from before versions were written, with rows."""
    with database.begin() as connection:
        for tables in BEFORE.tables:
            tables.create_all(connection)
        connection.execute(sa.insert(parents), [{"id": 1, "size": 5}, {"id": 2, "size": 50}])
        connection.execute(sa.insert(children), [{"id": 1, "parent": 2}])
    return database


def names(database: Database) -> list[str]:
    with database.read() as connection:
        return list(connection.exec_driver_sql("SELECT name FROM parents ORDER BY id").scalars())


def written(database: Database) -> list[int]:
    with database.read() as connection:
        if not sa.inspect(connection).has_table(versions.name):
            return []
        return list(connection.scalars(sa.select(versions.c.version).order_by(versions.c.version)))


def columns(database: Database) -> set[str]:
    with database.read() as connection:
        return {column["name"] for column in sa.inspect(connection).get_columns("parents")}


def copies(database: Database) -> list[Path]:
    return sorted(Path(database.name).parent.glob("*.version-*")) if database.is_sqlite else []


def test_an_empty_database_is_made_in_the_latest_version(database: Database) -> None:
    assert bring_up_to_date(database, NOW, AFTER).before is None
    assert written(database) == [2] and names(database) == []
    again = bring_up_to_date(database, NOW, AFTER)
    assert (again.before, again.after, again.copy) == (2, 2, None)
    assert copies(database) == []


def test_an_older_one_takes_the_steps_and_is_copied_first(older: Database, tmp_path: Path) -> None:
    assert written(older) == []
    done = bring_up_to_date(older, NOW, AFTER)
    assert (done.before, done.after) == (1, 2)
    assert names(older) == ["none", "large"] and written(older) == [1, 2]
    assert check(older, NOW, AFTER).well and check(older, NOW, AFTER).driver == ""
    assert copies(older) == ([done.copy] if older.is_sqlite else [])
    if done.copy:
        copy = open_database(done.copy)
        assert columns(copy) == {"id", "size"} and written(copy) == []
        assert bring_up_to_date(copy, NOW + 1, AFTER).before == 1
        copy.close()


def test_the_version_is_written_where_no_step_is_due(older: Database) -> None:
    assert bring_up_to_date(older, NOW, BEFORE).after == 1
    assert written(older) == [1] and copies(older) == []


def test_a_step_that_fails_leaves_all_as_it_was(older: Database) -> None:
    def fail(connection: sa.Connection) -> None:
        give_names(connection)
        connection.exec_driver_sql("DROP TABLE children")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        bring_up_to_date(older, NOW, Schema(AFTER.tables, {2: Step("", fail)}))
    assert columns(older) == {"id", "size"} and written(older) == []
    assert bring_up_to_date(older, NOW, AFTER).after == 2


def test_a_step_that_leaves_a_reference_to_nothing_is_refused(older: Database) -> None:
    def cut(connection: sa.Connection) -> None:
        give_names(connection)
        connection.exec_driver_sql("DELETE FROM parents WHERE id = 2")

    # PostgreSQL says so at once, SQLite when it ends.
    with pytest.raises((DatabaseRefused, DBAPIError), match="children"):
        bring_up_to_date(older, NOW, Schema(AFTER.tables, {2: Step("", cut)}))
    assert columns(older) == {"id", "size"}
    with pytest.raises(DBAPIError), older.begin() as connection:
        connection.execute(sa.insert(children), {"id": 2, "parent": 99})


def test_steps_that_do_not_make_the_tables_of_the_program_are_refused(older: Database) -> None:
    with pytest.raises(DatabaseRefused, match="table parents differs in name"):
        bring_up_to_date(older, NOW, Schema(AFTER.tables, {2: Step("", lambda connection: None)}))
    assert written(older) == []


def test_a_newer_one_is_refused_and_left_alone(older: Database) -> None:
    bring_up_to_date(older, NOW, AFTER)
    for look in (lambda: bring_up_to_date(older, NOW, BEFORE), lambda: readable(older, BEFORE)):
        with pytest.raises(NewerDatabase, match=r"version 2 .* up to 1: use the later program"):
            look()
    assert written(older) == [1, 2]


def readable(database: Database, schema: Schema) -> None:
    with database.read() as connection:
        check_readable(database, connection, schema)


def test_those_who_only_read_are_told_to_migrate(older: Database) -> None:
    readable(older, BEFORE)
    with pytest.raises(OlderDatabase, match="tier0 database migrate"):
        readable(older, AFTER)
    bring_up_to_date(older, NOW, AFTER)
    readable(older, AFTER)


def test_those_who_only_read_find_no_empty_database(database: Database) -> None:
    with pytest.raises(DatabaseRefused, match="no Tier-0 has run on it"):
        readable(database, AFTER)


def test_never_under_a_driver(older: Database) -> None:
    parent = psutil.Process(os.getppid())
    holder = Holder(socket.gethostname(), parent.pid, parent.create_time())
    with older.begin() as connection:
        take_lease(connection, holder, now=NOW)
    with pytest.raises(SecondDriver, match=rf"must be migrated, but not under a driver: .*pid {parent.pid}"):
        bring_up_to_date(older, NOW, AFTER)
    assert columns(older) == {"id", "size"} and copies(older) == []
    assert f"pid {parent.pid}" in check(older, NOW, AFTER).text()
    with older.begin() as connection:
        take_lease(connection, holder, now=NOW, alive=lambda holder: False)


def test_its_own_epoch_is_over_for_a_driver_that_was_given_up(older: Database) -> None:
    with older.begin() as connection:
        gone = take_lease(connection, Holder("elsewhere", 1, 0.0), now=NOW - 100)
    bring_up_to_date(older, NOW, AFTER)
    with older.begin() as connection:
        assert take_lease(connection, Holder("elsewhere", 2, 0.0), now=NOW) == gone + 2


@pytest.mark.parametrize("start", ["empty", "older"])
def test_of_many_at_once_one_does_it(where: str, start: str) -> None:
    if start == "older":
        first = open_database(where)
        with first.begin() as connection:
            for tables in BEFORE.tables:
                tables.create_all(connection)
        first.close()
    found, faults = [], []

    def work() -> None:
        database = open_database(where)
        try:
            found.append(bring_up_to_date(database, NOW, AFTER))
        except Exception as fault:  # noqa: BLE001 - it is looked at below
            faults.append(fault)
        finally:
            database.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    before = None if start == "empty" else 1
    assert sorted(one.before or 0 for one in found) == [before or 0, 2, 2, 2]


# checking ------------------------------------------------------------------------------------------------------------


def test_a_check_says_what_is_to_be_done_and_what_is_wrong(older: Database) -> None:
    found = check(older, NOW, AFTER)
    assert (found.version, found.latest, found.pending, found.well) == (1, 2, ("2: parents have names",), False)
    assert "version 1 of the tables; this program makes version 2" in found.text()
    bring_up_to_date(older, NOW, AFTER)
    assert check(older, NOW, AFTER).text().endswith("all is well")
    with older.reshaping() as connection:
        connection.exec_driver_sql("ALTER TABLE parents DROP COLUMN name")
    assert check(older, NOW, AFTER).faults == ("table parents differs in name",)


def test_a_check_finds_an_empty_database(database: Database) -> None:
    found = check(database, NOW, AFTER)
    assert found.version is None and not found.well and "empty" in found.text()


def test_a_check_finds_what_points_nowhere(tmp_path: Path) -> None:
    database = open_database(tmp_path / "t.db")
    bring_up_to_date(database, NOW, BEFORE)
    with database.engine.connect() as connection:
        connection.connection.dbapi_connection.execute("PRAGMA foreign_keys = OFF")
        with connection.begin():
            connection.execute(sa.insert(children), {"id": 1, "parent": 9})
    assert check(database, NOW, BEFORE).faults == ("rows of children point to rows that are not there",)
    database.close()


def test_the_table_of_versions_itself_stays_as_it_is() -> None:
    """It cannot be migrated: it is what says from where to migrate."""
    assert [column.name for column in versions_metadata.tables["schema_versions"].columns] == [
        "version",
        "since",
        "program",
    ]
