"""The database: what it guarantees, and where it refuses to lie."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from pipeline.database import Database, DatabaseRefused, network_file_system, open_database

LOCAL = "/dev/sda1 / ext4 rw 0 0\n"

metadata = sa.MetaData()
parents = sa.Table("parents", metadata, sa.Column("id", sa.Integer, primary_key=True))
children = sa.Table(
    "children",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("parent", sa.ForeignKey(parents.c.id), nullable=False),
)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    found = open_database(tmp_path / "area" / "t.db", LOCAL)
    found.create(metadata)
    return found


def count(database: Database) -> int:
    with database.read() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(parents)).scalar_one())


def test_begin_commits_whole_or_not_at_all(database: Database) -> None:
    with database.begin() as connection:
        connection.execute(sa.insert(parents), {"id": 1})
    with pytest.raises(ZeroDivisionError), database.begin() as connection:
        connection.execute(sa.insert(parents), {"id": 2})
        raise ZeroDivisionError
    assert count(database) == 1


@pytest.mark.parametrize("writing", ["begin", "trial", "reshaping"])
def test_ctrl_c_within_a_transaction_comes_when_it_has_ended(database: Database, writing: str) -> None:
    with pytest.raises(KeyboardInterrupt), getattr(database, writing)() as connection:
        os.kill(os.getpid(), signal.SIGINT)
        connection.execute(sa.insert(parents), {"id": 1})
    assert count(database) == (writing != "trial")
    with database.begin() as connection:
        connection.execute(sa.insert(parents), {"id": 2})
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_transaction_in_another_thread_leaves_ctrl_c_alone(database: Database) -> None:
    handlers = []

    def write() -> None:
        with database.begin():
            handlers.append(signal.getsignal(signal.SIGINT))

    writer = threading.Thread(target=write)
    writer.start()
    writer.join()
    assert handlers == [signal.default_int_handler]


def test_of_a_trial_nothing_is_kept(database: Database) -> None:
    with database.trial() as connection:
        connection.execute(sa.insert(parents), {"id": 1})
        assert connection.execute(sa.select(parents.c.id)).scalar_one() == 1
    with pytest.raises(ZeroDivisionError), database.trial() as connection:
        connection.execute(sa.insert(parents), {"id": 2})
        raise ZeroDivisionError
    assert count(database) == 0


def test_every_connection_is_durable_and_checks_foreign_keys(database: Database) -> None:
    with database.begin() as connection:
        names = ("journal_mode", "synchronous", "foreign_keys")
        found = [connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in names]
    assert found == ["wal", 2, 1]
    with pytest.raises(sa.exc.IntegrityError), database.begin() as connection:
        connection.execute(sa.insert(children), {"id": 1, "parent": 99})


@pytest.mark.parametrize(
    "damage", [lambda path: path.write_bytes(b"no database" * 99), lambda path: os.truncate(path, 5000)]
)
def test_a_damaged_file_is_refused_with_what_to_do(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    path = tmp_path / "tier0.db"
    database = open_database(path)
    database.create(metadata)
    database.close()
    damage(path)
    with pytest.raises(DatabaseRefused, match=r"tier0\.db is damaged.*`tier0 database restore`"):
        open_database(path).create(metadata)


def test_a_file_of_0_bytes_is_never_a_new_database(tmp_path: Path) -> None:
    """Neither of our own making, whoever is killed when it is there and has no table yet."""
    path = tmp_path / "tier0.db"
    open_database(path)
    assert path.stat().st_size > 0
    open_database(path).create(metadata)
    os.truncate(path, 0)
    for read_only in (True, False):
        with pytest.raises(DatabaseRefused, match=r"tier0\.db has lost its content.*`tier0 database restore"):
            open_database(path, read_only=read_only)
    assert path.stat().st_size == 0


def test_read_blocks_no_writer_and_keeps_its_view(database: Database) -> None:
    with database.read() as reader:
        query = sa.select(sa.func.count()).select_from(parents)
        assert reader.execute(query).scalar_one() == 0
        with database.begin() as writer:
            writer.execute(sa.insert(parents), {"id": 1})
        assert reader.execute(query).scalar_one() == 0
    assert count(database) == 1


def test_read_cannot_write(database: Database) -> None:
    with pytest.raises(OperationalError, match="readonly"), database.read() as connection:
        connection.execute(sa.insert(parents), {"id": 1})
    # The connection goes back to the pool, and the next one to take it may write.
    with database.begin() as connection:
        connection.execute(sa.insert(parents), {"id": 1})


def test_writers_take_turns_and_none_is_lost(database: Database) -> None:
    def write() -> None:
        for _ in range(25):
            with database.begin() as connection:
                last = connection.execute(sa.select(sa.func.max(parents.c.id))).scalar() or 0
                connection.execute(sa.insert(parents), {"id": last + 1})

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count(database) == 75


def test_create_again_changes_nothing_and_refuses_other_columns(database: Database) -> None:
    with database.begin() as connection:
        connection.execute(sa.insert(parents), {"id": 1})
    database.create(metadata)
    assert count(database) == 1
    other = sa.MetaData()
    sa.Table("parents", other, sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.String))
    with pytest.raises(DatabaseRefused, match="table parents differs in name"):
        database.create(other)


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "lustre", "gpfs", "fuse.sshfs", "fuse.eosxd", "beegfs"])
def test_network_file_system_is_refused_with_what_to_use(tmp_path: Path, kind: str) -> None:
    mounts = f"{LOCAL}server:/export {tmp_path} {kind} rw,relatime 0 0\n"
    with pytest.raises(DatabaseRefused, match="postgresql://") as refusal:
        open_database(tmp_path / "area" / "t.db", mounts)
    assert f"({kind})" in str(refusal.value)
    assert not (tmp_path / "area").exists()


@pytest.mark.parametrize(
    ("mounts", "kind"),
    [
        (LOCAL, None),
        ("h:/ /data nfs rw 0 0\n/dev/sdb /data/local xfs rw 0 0\n", None),
        ("/dev/sdb /data xfs rw 0 0\nh:/ /data/local nfs rw 0 0\n", "nfs"),
        ("h:/ /data/loc nfs rw 0 0\n", None),
        ("/dev/sdb /data/local xfs rw 0 0\nh:/ /data/local nfs rw 0 0\n", "nfs"),
        ("h:/ /data/lo\\143al nfs rw 0 0\n", "nfs"),
        ("overlay /data/local fuse.fuse-overlayfs rw 0 0\n", None),
        ("not a mount table\n", None),
        ("", None),
    ],
)
def test_mount_table_is_read_as_the_kernel_means_it(mounts: str, kind: str | None) -> None:
    assert network_file_system(Path("/data/local/t.db"), mounts) == kind


def test_a_link_to_a_network_file_system_is_followed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "here").symlink_to(tmp_path / "there")
    with pytest.raises(DatabaseRefused):
        open_database(tmp_path / "here" / "t.db", f"{LOCAL}h:/ {tmp_path}/there nfs4 rw 0 0\n")


def test_the_mount_table_of_this_host_is_read(tmp_path: Path) -> None:
    with open_database(tmp_path / "t.db").read() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1


def test_url_of_a_file_is_the_file(tmp_path: Path) -> None:
    open_database(f"sqlite:///{tmp_path}/t.db", LOCAL).create(metadata)
    with sqlite3.connect(tmp_path / "t.db") as raw:
        assert ("parents",) in raw.execute("SELECT name FROM sqlite_master").fetchall()
    raw.close()


def test_postgresql_is_reached_through_psycopg() -> None:
    pytest.importorskip("psycopg")
    found = open_database("postgresql://me@nowhere.invalid/tier0")
    assert found.engine.url.drivername == "postgresql+psycopg"
    assert not found.is_sqlite


def test_a_driver_that_is_not_installed_is_named() -> None:
    with pytest.raises(DatabaseRefused, match="pip install"):
        open_database("postgresql+pg8000://me@nowhere.invalid/tier0")


@pytest.mark.parametrize("where", ["mysql://me@host/tier0", "://", "sqlite://", "sqlite:///:memory:"])
def test_what_is_no_database_for_this_is_refused(where: str) -> None:
    with pytest.raises(DatabaseRefused):
        open_database(where, LOCAL)
