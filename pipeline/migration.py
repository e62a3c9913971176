"""The version of the database's tables: written in it, raised by numbered steps, never passed over in silence."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import Column, Connection, Float, Integer, MetaData, String, Table

from calib.inventory import payloads_named
from calib.payload import PayloadDamaged, PayloadMissing, PayloadStore
from calib.schema import conditions_metadata
from jobs.lease import SecondDriver, driver, drop_lease, take_lease
from jobs.tables import leases, ledger_metadata
from pipeline.database import Database, DatabaseRefused, differing
from pipeline.migration_steps import STEPS, Step
from pipeline.processing import nothing
from pipeline.schema import catalog_metadata
from pipeline.whole import whole

FIRST = 1
"""the version of databases from before it was written down"""

versions_metadata = MetaData()

versions = Table(
    "schema_versions",
    versions_metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("since", Float, nullable=False),
    Column("program", String, nullable=False),
)
"""Every version the tables have had; the highest is the one they have. `since` in seconds since 1970."""


class NewerDatabase(DatabaseRefused):
    """A later version of this program has changed the tables."""


class OlderDatabase(DatabaseRefused):
    """The tables must be migrated first."""


@dataclass(frozen=True)
class Schema:
    """All tables as this program wants them, and the steps that lead there from version 1, by the version they make."""

    tables: tuple[MetaData, ...]
    steps: Mapping[int, Step]

    @property
    def latest(self) -> int:
        """The version of these tables."""
        return max(self.steps, default=FIRST)

    def version_of(self, connection: Connection) -> int | None:
        """The version of the tables that are there; None where there are none of ours."""
        written = _written(connection)
        if written is not None:
            return written
        ours = {name for metadata in self.tables for name in metadata.tables}
        return FIRST if ours & set(sa.inspect(connection).get_table_names()) else None

    def make(self, connection: Connection, now: float) -> None:
        """These tables in an empty database."""
        for metadata in (*self.tables, versions_metadata):
            metadata.create_all(connection)
        _write(connection, self.latest, now)

    def refuse_newer(self, name: str, version: int | None) -> None:
        """Raise NewerDatabase where the database called so is of a later program."""
        if version is not None and version > self.latest:
            raise NewerDatabase(
                f"{name} has version {version} of the tables, and this program knows them up to {self.latest}: "
                "use the later program, or restore a backup of before"
            )


SCHEMA = Schema((catalog_metadata, conditions_metadata, ledger_metadata), STEPS)
"""The one of this program."""


@dataclass(frozen=True)
class Migration:
    """What was done to a database: its version before (None: it was empty) and after, and the copy made before."""

    before: int | None
    after: int
    copy: Path | None = None


def bring_up_to_date(database: Database, now: float, schema: Schema = SCHEMA) -> Migration:
    """Make the tables of an empty database, or take an older one to the latest version; all of it or nothing.

    A SQLite file is copied first. Raises SecondDriver while a driver works on a database that must be migrated,
    NewerDatabase, and DatabaseRefused where the tables are not those of their version.
    """
    with database.read() as connection:
        found = schema.version_of(connection)
        schema.refuse_newer(database.name, found)
        if _written(connection) == schema.latest:
            database.compare(connection, schema.tables)
            return Migration(found, schema.latest)
    with database.reshaping() as connection:
        # Another process may have been faster.
        found = schema.version_of(connection)
        schema.refuse_newer(database.name, found)
        if found is None:
            schema.make(connection, now)
            return Migration(None, schema.latest)
        copy = _migrate(database, connection, found, now, schema.steps)
        database.compare(connection, schema.tables)
        return Migration(found, schema.latest, copy)


def check_readable(database: Database, connection: Connection, schema: Schema = SCHEMA) -> None:
    """Raise DatabaseRefused unless the tables are there in the latest version; for those who only read."""
    found = schema.version_of(connection)
    schema.refuse_newer(database.name, found)
    if found is None:
        raise DatabaseRefused(f"{database.name} is empty: no Tier-0 has run on it")
    if found < schema.latest:
        words = f"{database.name} has version {found} of the tables, not {schema.latest}"
        raise OlderDatabase(f"{words}; when nothing runs on it: tier0 database migrate")
    database.compare(connection, schema.tables)


def _migrate(
    database: Database, connection: Connection, found: int, now: float, steps: Mapping[int, Step]
) -> Path | None:
    versions_metadata.create_all(connection)
    if _written(connection) is None:
        _write(connection, found, now)
    pending = [number for number in sorted(steps) if number > found]
    if not pending:
        return None
    epoch = _lease(connection, database, now)
    copy = _copy(database, found, now) if database.is_sqlite else None
    for number in pending:
        steps[number].change(connection)
        _write(connection, number, now)
    drop_lease(connection, epoch)
    return copy


def _lease(connection: Connection, database: Database, now: float) -> int:
    try:
        return take_lease(connection, now=now)
    except SecondDriver as other:
        raise SecondDriver(f"{database.name} must be migrated, but not under a driver: {other}") from None


def _copy(database: Database, found: int, now: float) -> Path:
    path = Path(database.name)
    moment = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%S%f")
    target = path.with_name(f"{path.name}.version-{found}.{moment}")
    with whole(target, nothing) as partial:
        # Nobody else can write now, and nothing is changed yet.
        database.copy_to(partial)
    return target


def _written(connection: Connection) -> int | None:
    if not sa.inspect(connection).has_table(versions.name):
        return None
    newest: int | None = connection.scalar(sa.select(sa.func.max(versions.c.version)))
    return newest


def _write(connection: Connection, version: int, now: float) -> None:
    row = {"version": version, "since": now, "program": importlib.metadata.version("dask-tier0")}
    connection.execute(sa.insert(versions), row)


@dataclass(frozen=True)
class Checkup:
    """How a database is: its version and the latest, what a migration would do, what is wrong, who drives it.

    `payloads` is how many its tags name, all of them read; None where they were not looked at.
    """

    name: str
    version: int | None
    latest: int
    pending: tuple[str, ...]
    faults: tuple[str, ...]
    driver: str
    payloads: int | None = None

    @property
    def well(self) -> bool:
        """Whether it can be worked with as it is."""
        return self.version == self.latest and not self.faults

    def text(self) -> str:
        """All of it in lines."""
        stands = "empty" if self.version is None else f"version {self.version} of the tables"
        lines = [f"{self.name}: {stands}; this program makes version {self.latest}", f"driver: {self.driver or 'none'}"]
        read = "not looked at" if self.payloads is None else f"{self.payloads} that tags name, all read"
        lines.append(f"payloads: {read}")
        lines += [f"to be migrated: {step}" for step in self.pending]
        lines += [f"wrong: {fault}" for fault in self.faults]
        return "\n".join(lines + (["all is well"] if self.well else []))


def check(database: Database, now: float, schema: Schema = SCHEMA, store: PayloadStore | None = None) -> Checkup:
    """Look at a database, and read the payloads that its tags name where their store is given. Changes nothing."""
    with database.read() as connection:
        found = schema.version_of(connection)
        pending = [f"{number}: {step.why}" for number, step in schema.steps.items() if found and number > found]
        faults = _unsound(connection) if database.is_sqlite else []
        if found == schema.latest:
            faults += differing(connection, schema.tables)
        holder = driver(connection, now) if sa.inspect(connection).has_table(leases.name) else ""
        known = found == schema.latest and not faults
        named = payloads_named(connection) if known and store is not None else None
    # Behind the transaction: to read them all may take long.
    if store is not None and named is not None:
        faults += _lost(named, store)
    read = None if named is None else len(named)
    return Checkup(database.name, found, schema.latest, tuple(pending), tuple(faults), holder, read)


def _lost(named: Mapping[str, Sequence[str]], store: PayloadStore) -> Iterator[str]:
    """The payloads that cannot be had, with what to do."""
    for payload_id, tags in named.items():
        words = f"payload {payload_id[:12]} of {', '.join(tags)}"
        try:
            store.get(payload_id)
        except PayloadMissing:
            yield f"{words} is gone: put {store.path(payload_id)} back from a copy of the area"
        except PayloadDamaged:
            there = store.path(payload_id)
            yield f"{words} is not what was written: move {there} away, and put it back from a copy of the area"


def _unsound(connection: Connection) -> list[str]:
    found = [str(word) for word in connection.exec_driver_sql("PRAGMA integrity_check").scalars() if word != "ok"]
    nowhere = sorted({str(row[0]) for row in connection.exec_driver_sql("PRAGMA foreign_key_check")})
    return found + [f"rows of {table} point to rows that are not there" for table in nowhere]
