"""Backup and restore of the database, runs in flight or not; between SQLite and PostgreSQL, either way.

A backup is one SQLite file with all tables as they were after one commit, and a list of what is in them. It holds what
is known and decided, not the payloads and outputs in the area: those never change once they are there.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import Connection, MetaData, Table
from sqlalchemy.exc import DataError, IntegrityError

from jobs.lease import Holder, lives
from jobs.tables import leases
from pipeline.areas import renew_identity
from pipeline.database import Database, DatabaseRefused, open_database
from pipeline.migration import SCHEMA, bring_up_to_date, versions, versions_metadata
from pipeline.processing import nothing
from pipeline.whole import whole

_PAGE = 1000

_TABLES = (*SCHEMA.tables, versions_metadata)
_ABOUT = "tier0_backup"
_CONTENTS = "tier0_backup_contents"


class BackupRefused(DatabaseRefused):
    """A backup cannot be made or used as asked."""


class BackupDamaged(DatabaseRefused):
    """A backup is not what was written."""


@dataclass(frozen=True)
class Backup:
    """What a backup says of itself. `taken` in seconds since 1970; `rows` and `digests` (SHA-256) by table."""

    path: Path
    version: int
    taken: float
    source: str
    rows: Mapping[str, int]
    digests: Mapping[str, str]

    def text(self) -> str:
        """It in words."""
        moment = datetime.fromtimestamp(self.taken, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        tables = f"{len(self.rows)} tables, {sum(self.rows.values())} rows"
        return f"{self.path}: {self.source} as of {moment}, version {self.version} of the tables, {tables}"


@dataclass(frozen=True)
class Restored:
    """What was restored, where to, and the driver of then if it still lives on this host."""

    backup: Backup
    into: str
    driver: Holder | None = None

    def text(self) -> str:
        """It in words, with what to do next."""
        lines = [
            f"{self.backup.text()}",
            f"restored into {self.into}: name it as `database` under [storage], and start `tier0 run` as ever",
            "its area follows it, and is then refused to the database of before: over one area there can be only one",
        ]
        if self.driver is not None:
            lines.append(f"pid {self.driver.pid}, the driver of then, is still alive: stop it first")
        return "\n".join(lines)


def back_up(database: Database, file: Path, now: float) -> Backup:
    """Write a backup while others go on writing; the file is there whole or not at all.

    Raises BackupRefused where the file exists already, or the database is empty or, on PostgreSQL, of another version.
    """
    if file.exists():
        raise BackupRefused(f"{file} exists already; give the backup another name")
    with database.read() as connection:
        version = SCHEMA.version_of(connection)
        if version is None:
            raise BackupRefused(f"{database.name} is empty: there is nothing to back up")
        if not database.is_sqlite and version != SCHEMA.latest:
            raise BackupRefused(
                f"{database.name} has version {version} of the tables: use pg_dump, or migrate it first"
            )
    with whole(file, nothing) as partial:
        if database.is_sqlite:
            database.copy_to(partial)
        else:
            _copy_out(database, partial)
        _seal(partial, _version(partial), database.name, now)
        return read_backup(partial, called=file)


def read_backup(file: Path, called: Path | None = None) -> Backup:
    """What a backup says of itself. Raises BackupRefused where it is none, BackupDamaged."""
    with _opened(file) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        if not {_ABOUT, _CONTENTS} <= tables:
            raise BackupRefused(f"{file} is no backup of a Tier-0")
        about = connection.execute(f"SELECT version, taken, source, contents FROM {_ABOUT}").fetchall()
        contents = connection.execute(f"SELECT name, rows, digest FROM {_CONTENTS} ORDER BY name").fetchall()
    version, taken, source, sealed = about[0] if len(about) == 1 else (0, 0.0, "", "")
    if _digest_of(version, taken, source, contents) != sealed:
        raise BackupDamaged(f"{file} has changed since it was written: its list of contents is not the one it had")
    rows, digests = ({name: row[place] for name, *row in contents} for place in (0, 1))
    return Backup(called or file, version, taken, source, rows, digests)


def verify(backup: Backup) -> None:
    """Read every row of a backup. Raises BackupDamaged where a table is not what was written."""
    with _opened(backup.path) as connection:
        found = _contents(connection)
    expected = [(name, backup.rows[name], backup.digests[name]) for name in sorted(backup.rows)]
    if differing := sorted({name for name, *_ in set(found) ^ set(expected)}):
        raise BackupDamaged(f"{backup.path} has changed since it was written, in {', '.join(differing)}: use another")


def restore(file: Path, into: str | Path, now: float) -> Restored:
    """Fill an empty database from a backup, whole or not at all; the next driver goes on from there.

    A backup of older tables is migrated on the way. Raises BackupRefused where the file is no backup, of a later
    program, or the database has tables of a Tier-0 already; BackupDamaged.
    """
    if not file.exists():
        raise BackupRefused(f"there is no file {file}")
    backup = read_backup(file)
    if backup.version > SCHEMA.latest:
        later = f"version {backup.version} of the tables, and this program knows them up to {SCHEMA.latest}"
        raise BackupRefused(f"{file} has {later}: use the later program")
    verify(backup)
    target = open_database(into)
    try:
        with _at_latest(backup, now) as source, target.reshaping() as connection:
            driver = _fill(source, target, connection, now)
    finally:
        target.close()
    return Restored(backup, target.name, driver)


def copy_rows(there: Connection, here: Connection, schemas: tuple[MetaData, ...]) -> None:
    """Copy all rows of some tables, in place of what is in them. Every row is there afterwards, else DatabaseRefused.

    Of a table that points to itself rows must point to earlier ones only.
    """
    for table in (table for metadata in schemas for table in metadata.sorted_tables):
        here.execute(sa.delete(table))
        query = sa.select(table).order_by(*table.primary_key)
        copied = 0
        for page in there.execute(query, execution_options={"yield_per": _PAGE}).mappings().partitions():
            _insert(here, table, [dict(row) for row in page])
            copied += len(page)
        found = here.scalar(sa.select(sa.func.count()).select_from(table))
        if found != copied:
            raise DatabaseRefused(f"{copied} rows of {table.name} were copied, and {found} are there")
        _follow(here, table)


def _insert(connection: Connection, table: Table, rows: list[dict[str, object]]) -> None:
    try:
        connection.execute(sa.insert(table), rows)
    except (DataError, IntegrityError) as problem:
        raise DatabaseRefused(f"rows of {table.name} do not go into this database: {problem.orig}") from problem


def _follow(connection: Connection, table: Table) -> None:
    """Have PostgreSQL number new rows behind those that were copied; SQLite does so by itself."""
    column = table.autoincrement_column
    if column is None or connection.dialect.name != "postgresql":
        return
    sequence = sa.func.pg_get_serial_sequence(table.name, column.name)
    last = connection.scalar(sa.select(sa.func.max(column)))
    if last is not None:
        connection.execute(sa.select(sa.func.setval(sequence, last)))


def _fill(source: Database, target: Database, connection: Connection, now: float) -> Holder | None:
    if SCHEMA.version_of(connection) is not None:
        raise BackupRefused(f"{target.name} has tables of a Tier-0 already; restore into an empty database")
    SCHEMA.make(connection, now)
    with source.read() as there:
        copy_rows(there, connection, _TABLES)
    row = connection.execute(sa.select(leases).where(leases.c.id == 1, leases.c.host.is_not(None))).one_or_none()
    # The driver of then goes on elsewhere or is gone: here nobody drives yet.
    connection.execute(sa.update(leases).values(host=None, pid=None, born=None))
    renew_identity(connection, now)
    driver = None if row is None else Holder(row.host, row.pid, row.born)
    return driver if driver is not None and driver.host == Holder.here().host and lives(driver) else None


@contextmanager
def _at_latest(backup: Backup, now: float) -> Iterator[Database]:
    """The backup as a database of the latest version."""
    with tempfile.TemporaryDirectory() as folder:
        path = backup.path
        if backup.version < SCHEMA.latest or versions.name not in backup.rows:
            path = Path(folder) / "migrated.db"
            older = Database.of_file(path)
            with _opened(backup.path) as there, closing(sqlite3.connect(path)) as here:
                there.backup(here)
            with older.begin() as connection:
                connection.execute(sa.update(leases).values(host=None, pid=None, born=None))
            bring_up_to_date(older, now)
            older.close()
        database = Database.of_file(path, read_only=True)
        try:
            yield database
        finally:
            database.close()


def _copy_out(database: Database, path: Path) -> None:
    copy = Database.of_file(path)
    try:
        with database.read() as there, copy.reshaping() as here:
            for metadata in _TABLES:
                metadata.create_all(here)
            copy_rows(there, here, _TABLES)
    finally:
        copy.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")


def _version(path: Path) -> int:
    """That of a copy: the database itself may have been migrated since it was first looked at."""
    copy = Database.of_file(path, read_only=True)
    try:
        with copy.read() as connection:
            return SCHEMA.version_of(connection) or 0
    finally:
        copy.close()


def _seal(path: Path, version: int, source: str, now: float) -> None:
    """Write into a copy what is in it."""
    with closing(sqlite3.connect(path)) as connection, connection:
        contents = _contents(connection)
        connection.execute(f"CREATE TABLE {_CONTENTS} (name TEXT PRIMARY KEY, rows INTEGER, digest TEXT)")
        connection.executemany(f"INSERT INTO {_CONTENTS} VALUES (?, ?, ?)", contents)
        connection.execute(f"CREATE TABLE {_ABOUT} (version INTEGER, taken REAL, source TEXT, contents TEXT)")
        about = (version, float(now), source)
        connection.execute(f"INSERT INTO {_ABOUT} VALUES (?, ?, ?, ?)", (*about, _digest_of(*about, contents)))


def _contents(connection: sqlite3.Connection) -> list[tuple[str, int, str]]:
    """Name, number of rows and digest of all tables but those of the backup itself."""
    query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite|_%' ESCAPE '|' ORDER BY name"
    names = [name for (name,) in connection.execute(query) if name not in (_ABOUT, _CONTENTS)]
    return [(name, *_digest_of_table(connection, name)) for name in names]


def _digest_of_table(connection: sqlite3.Connection, name: str) -> tuple[int, str]:
    keys = [row[1] for row in connection.execute(f'PRAGMA table_info("{name}")') if row[5]]
    order = ", ".join(f'"{key}"' for key in keys) or "rowid"
    digest, rows = hashlib.sha256(), 0
    for row in connection.execute(f'SELECT * FROM "{name}" ORDER BY {order}'):
        digest.update(json.dumps(row).encode() + b"\n")
        rows += 1
    return rows, digest.hexdigest()


def _digest_of(version: int, taken: float, source: str, contents: list[tuple[str, int, str]]) -> str:
    return hashlib.sha256(json.dumps([version, taken, source, contents]).encode()).hexdigest()


@contextmanager
def _opened(file: Path) -> Iterator[sqlite3.Connection]:
    """A backup to be read. What SQLite says against the file is raised as BackupDamaged."""
    try:
        uri = f"file:{quote(str(file.absolute()))}?mode=ro&immutable=1"
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            yield connection
    except sqlite3.DatabaseError as problem:
        raise BackupDamaged(f"{file} cannot be read as a backup: {problem}") from None
