"""The one database of a Tier-0: SQLite on a local disk, or PostgreSQL by URL."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.exc import ArgumentError

from pipeline.whole import write_first

BUSY_S = 60.0
"""how long a writer waits for another one"""

_NETWORK_TYPES = """
    9p afs beegfs ceph cifs gfs2 glusterfs gpfs lustre ncpfs nfs nfs4 ocfs2 orangefs panfs pvfs2 smb3 smbfs virtiofs
    vboxsf wekafs
"""
# Of the file systems in user space these keep their bytes on the same machine; any other may lead anywhere.
_LOCAL_FUSE = frozenset({"fuse.fuse-overlayfs", "fuse.lxcfs", "fuse.portal"})

_POSTGRES_LINE = 'database = "postgresql://USER:PASSWORD@HOST/tier0"'

_TURN = 0x7469657230
"""the number that is locked on PostgreSQL by those who take turns; it only has to be the same for all"""


class DatabaseRefused(Exception):
    """The database cannot be used as it is; the message says what to set instead."""


class NoDatabase(DatabaseRefused):
    """There is none to be read yet."""


@dataclass(frozen=True)
class Database:
    """One database; every change goes through a transaction of `begin`."""

    engine: Engine

    def __post_init__(self) -> None:
        # Nobody has to close it: its connections end with it, or with the process, and in good order.
        weakref.finalize(self, self.engine.dispose)

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """One writing transaction: committed at the end of the block, rolled back if it raises. Ctrl-C comes after."""
        with _not_cut_off(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def trial(self) -> Iterator[Connection]:
        """One writing transaction that is rolled back at the end of the block: to see what would come of it."""
        with _not_cut_off(), self.engine.connect() as connection, connection.begin() as transaction:
            yield connection
            transaction.rollback()

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

    @contextmanager
    def reshaping(self) -> Iterator[Connection]:
        """One transaction that may make and change tables; of several at once each waits for the one before.

        Foreign keys are looked at when it ends, not before. Raises DatabaseRefused, and changes nothing, where one
        then points nowhere.
        """
        with _not_cut_off(), self.engine.connect() as connection:
            if self.is_sqlite:
                with _keys_checked_last(connection):
                    yield connection
            else:
                with connection.begin():
                    self.take_turn(connection)
                    yield connection

    def take_turn(self, connection: Connection) -> None:
        """Have those who do this wait for each other's commits, as on SQLite all do that write."""
        if not self.is_sqlite:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_TURN)))

    @classmethod
    def of_file(cls, path: Path, *, read_only: bool = False) -> Database:
        """A SQLite file, wherever it lies: for copies that only this process knows."""
        if read_only:
            return cls(_sqlite(path, _read_only, lambda: _connect_to_read(path)))
        return cls(_sqlite(path, _prepare))

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a file of this host."""
        return self.engine.dialect.name == "sqlite"

    @property
    def name(self) -> str:
        """Its path, or its URL without the password."""
        url = self.engine.url
        return str(url.database) if self.is_sqlite else url.render_as_string(hide_password=True)

    def create(self, *schemas: sa.MetaData) -> None:
        """Create the tables that are missing. Raises DatabaseRefused where one is there with other columns."""
        with self.begin() as connection:
            for metadata in schemas:
                metadata.create_all(connection)
            self.compare(connection, schemas)

    def compare(self, connection: Connection, schemas: Iterable[sa.MetaData]) -> None:
        """Raise DatabaseRefused unless all tables are there, with just the columns they should have."""
        faults = differing(connection, schemas)
        if faults:
            message = f"{self.name} was made by another version of this program: {'; '.join(faults)}"
            raise DatabaseRefused(f"{message}; go on with that version, or set a new `database`")

    def copy_to(self, path: Path) -> None:
        """A copy of a SQLite file as it is after the last commit, taken while others go on writing; one plain file."""
        with closing(_connect_to_read(Path(self.name))) as there, closing(sqlite3.connect(path)) as here:
            # In one step: page by page it would begin anew with every commit in between.
            there.backup(here)
            here.execute("PRAGMA journal_mode = DELETE")

    def close(self) -> None:
        """Give up all connections."""
        self.engine.dispose()


def differing(connection: Connection, schemas: Iterable[sa.MetaData]) -> list[str]:
    """Tables that are missing and columns that differ from those of the schemas, in words."""
    there = sa.inspect(connection).get_multi_columns()
    found = {name: {str(column["name"]) for column in columns} for (_, name), columns in there.items()}
    faults = []
    for table in (table for metadata in schemas for table in metadata.sorted_tables):
        columns = found.get(table.name)
        if columns is None:
            faults.append(f"table {table.name} is missing")
        elif other := sorted(columns ^ {column.name for column in table.columns}):
            faults.append(f"table {table.name} differs in {', '.join(other)}")
    return faults


def open_database(where: str | Path, mounts: str | None = None, *, read_only: bool = False) -> Database:
    """Open the database of a path or URL; a SQLite file and its folder are made if they are not there.

    `mounts` is the mount table of the host in the form of /proc/mounts (read from there by default). Raises
    DatabaseRefused for a SQLite file on a network file system, where its locks cannot be trusted, and for one of 0
    bytes; and NoDatabase, if it is only to be read, for one that is not there.
    """
    url = _url(where)
    if url.get_backend_name() != "sqlite":
        return Database(_remote(url, read_only))
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
    if read_only and not path.exists():
        raise NoDatabase(f"there is no database {path}; see `area` and `database` in the settings")
    if not read_only:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            write_first(path, _of_no_tables())
    if not path.stat().st_size:
        raise DatabaseRefused(
            f"{path} has lost its content: it has 0 bytes, and a new database has more. Delete it, and put the last "
            f"backup in its place with `tier0 database restore FILE --into {path}`; without one all begins anew"
        )
    return Database.of_file(path, read_only=read_only)


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


def _remote(url: URL, read_only: bool) -> Engine:
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    options = {"postgresql_readonly": True} if read_only else {}
    try:
        return sa.create_engine(url, pool_pre_ping=True, execution_options=options)
    except ModuleNotFoundError as missing:
        raise DatabaseRefused(f"PostgreSQL needs the package {missing.name}: pip install 'psycopg[binary]'") from None


def _sqlite(
    path: Path, prepare: Callable[[Any, Any], None], connect: Callable[[], sqlite3.Connection] | None = None
) -> Engine:
    own = {} if connect is None else {"creator": connect}
    url = URL.create("sqlite", database=str(path))
    engine = sa.create_engine(url, connect_args={"timeout": BUSY_S}, **own)
    sa.event.listen(engine, "connect", prepare)
    sa.event.listen(engine, "begin", _begin)
    sa.event.listen(engine, "handle_error", lambda context: _refuse_damaged(path, context.original_exception))
    return engine


def _of_no_tables() -> bytes:
    """A SQLite file without a table. SQLite itself begins with one of 0 bytes, which is also what damage can leave."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("PRAGMA user_version = 0")
        return connection.serialize()


def _refuse_damaged(path: Path, problem: BaseException) -> None:
    # Beside the code itself SQLite has finer ones, whose lowest byte it is.
    if getattr(problem, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        remedy = "move it away and put the last backup in its place with `tier0 database restore`"
        raise DatabaseRefused(f"{path} is damaged, or no database ({problem}): {remedy}") from problem


def _connect_to_read(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=BUSY_S, check_same_thread=False)


def _read_only(connection: Any, record: Any) -> None:
    connection.isolation_level = None


def _prepare(connection: Any, record: Any) -> None:
    # The driver would begin a transaction only at the first write, and then as a reader that upgrades, which two
    # writers cannot both do; so it is told to begin nothing by itself.
    connection.isolation_level = None
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


@contextmanager
def _not_cut_off() -> Iterator[None]:
    """Ctrl-C within the block comes at its end. Amid a BEGIN or a COMMIT it would leave a transaction behind that
    nobody ends, and that the next one of this process waits for, such as that which gives the lease back."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    pressed: list[tuple[Any, ...]] = []
    signal.signal(signal.SIGINT, lambda *given: pressed.append(given))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if pressed:
            before(*pressed[0])


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


@contextmanager
def _keys_checked_last(connection: Connection) -> Iterator[None]:
    # Inside a transaction SQLite no longer listens to this; and a table that is made anew must be dropped before.
    raw: Any = connection.connection.dbapi_connection
    raw.execute("PRAGMA foreign_keys = OFF")
    try:
        with connection.begin():
            yield
            broken = sorted({str(row[0]) for row in connection.exec_driver_sql("PRAGMA foreign_key_check")})
            if broken:
                raise DatabaseRefused(f"rows of {', '.join(broken)} point to rows that are not there")
    finally:
        raw.execute("PRAGMA foreign_keys = ON")
