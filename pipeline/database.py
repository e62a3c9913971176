"""The one database of a Tier-0: SQLite on a local disk, or PostgreSQL by URL."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.exc import ArgumentError

BUSY_S = 60.0
"""how long a writer waits for another one"""

_NETWORK_TYPES = """
    9p afs beegfs ceph cifs gfs2 glusterfs gpfs lustre ncpfs nfs nfs4 ocfs2 orangefs panfs pvfs2 smb3 smbfs virtiofs
    vboxsf wekafs
"""
# Of the file systems in user space these keep their bytes on the same machine; any other may lead anywhere.
_LOCAL_FUSE = frozenset({"fuse.fuse-overlayfs", "fuse.lxcfs", "fuse.portal"})

_POSTGRES_LINE = 'database = "postgresql://USER:PASSWORD@HOST/tier0"'


class DatabaseRefused(Exception):
    """The database cannot be used as it is; the message says what to set instead."""


@dataclass(frozen=True)
class Database:
    """One database; every change goes through a transaction of `begin`."""

    engine: Engine

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """One writing transaction: committed at the end of the block, rolled back if it raises."""
        with self.engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent view that blocks no writer. Writing through it raises sqlalchemy's OperationalError."""
        with self.engine.connect() as connection:
            if self.is_sqlite:
                with _only_reading(connection):
                    yield connection
            else:
                with connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True):
                    yield connection

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a file of this host."""
        return self.engine.dialect.name == "sqlite"

    def create(self, *schemas: sa.MetaData) -> None:
        """Create the tables that are missing. Raises DatabaseRefused where one is there with other columns."""
        with self.begin() as connection:
            for metadata in schemas:
                metadata.create_all(connection)
            inspector = sa.inspect(connection)
            for metadata in schemas:
                for table in metadata.sorted_tables:
                    self._compare(table, {str(column["name"]) for column in inspector.get_columns(table.name)})

    def _compare(self, table: sa.Table, found: set[str]) -> None:
        differing = sorted(found ^ {column.name for column in table.columns})
        if differing:
            message = f"{self.engine.url!r} was made by another version of this program: table {table.name} differs in "
            raise DatabaseRefused(f"{message}{', '.join(differing)}; go on with that version, or set a new `database`")

    def close(self) -> None:
        """Give up all connections."""
        self.engine.dispose()


def open_database(where: str | Path, mounts: str | None = None) -> Database:
    """Open the database of a path or URL; a SQLite file and its folder are made if they are not there.

    `mounts` is the mount table of the host in the form of /proc/mounts (read from there by default). Raises
    DatabaseRefused for a SQLite file on a network file system, where its locks cannot be trusted.
    """
    url = _url(where)
    if url.get_backend_name() != "sqlite":
        return Database(_remote(url))
    if not url.database or url.database == ":memory:":
        raise DatabaseRefused("a database in memory is gone with its process; give the path of a file")
    path = Path(url.database).absolute()
    table = _mount_table() if mounts is None else mounts
    kind = network_file_system(path, table)
    if kind:
        raise DatabaseRefused(
            f"{path} lies on a network file system ({kind}), where SQLite cannot lock safely; "
            f"put it on a local disk, or use PostgreSQL: {_POSTGRES_LINE}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    return Database(_sqlite(path))


def network_file_system(path: Path, mounts: str) -> str | None:
    """The type of the network file system that holds a path, by a table as /proc/mounts; None if it is local.

    >>> network_file_system(Path("/home/eve/t.db"), "host:/home /home nfs4 rw 0 0")
    'nfs4'
    """
    real = Path(os.path.realpath(path))
    best, kind = -1, ""
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        point = Path(fields[1].encode().decode("unicode_escape"))
        # Of two mounts on one point the later hides the earlier.
        if (real == point or point in real.parents) and len(point.parts) >= best:
            best, kind = len(point.parts), fields[2]
    remote = kind in _NETWORK_TYPES.split() or (kind.startswith("fuse.") and kind not in _LOCAL_FUSE)
    return kind if remote else None


def _url(where: str | Path) -> URL:
    text = str(where)
    if "://" not in text:
        return URL.create("sqlite", database=text)
    try:
        url = sa.make_url(text)
    except ArgumentError:
        raise DatabaseRefused(f"{text!r} is no database; give a path, or {_POSTGRES_LINE}") from None
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        name = url.get_backend_name()
        raise DatabaseRefused(f"{name} is not supported; give the path of a file, or {_POSTGRES_LINE}")
    return url


def _mount_table() -> str:
    table = Path("/proc/mounts")
    return table.read_text(encoding="utf-8", errors="replace") if table.exists() else ""


def _remote(url: URL) -> Engine:
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    try:
        return sa.create_engine(url, pool_pre_ping=True)
    except ModuleNotFoundError as missing:
        raise DatabaseRefused(f"PostgreSQL needs the package {missing.name}: pip install 'psycopg[binary]'") from None


def _sqlite(path: Path) -> Engine:
    engine = sa.create_engine(URL.create("sqlite", database=str(path)), connect_args={"timeout": BUSY_S})
    sa.event.listen(engine, "connect", _prepare)
    sa.event.listen(engine, "begin", _begin)
    return engine


def _prepare(connection: Any, record: Any) -> None:
    # The driver would begin a transaction only at the first write, and then as a reader that upgrades, which two
    # writers cannot both do; so it is told to begin nothing by itself.
    connection.isolation_level = None
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    reading = connection.get_execution_options().get("only_reading", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


@contextmanager
def _only_reading(connection: Connection) -> Iterator[None]:
    raw: Any = connection.connection.dbapi_connection
    raw.execute("PRAGMA query_only = ON")
    try:
        with connection.execution_options(only_reading=True).begin():
            yield
    finally:
        raw.execute("PRAGMA query_only = OFF")
