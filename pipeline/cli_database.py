"""`tier0 database` and `tier0 serve-conditions`: the database by itself, whatever experiment it is of."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli_settings import nearby, settings_option

if TYPE_CHECKING:
    from pipeline.world import Places


@click.group()
def database() -> None:
    """Look after the database: its version, migration, backup and restore.

    \b
    tier0 database check
    tier0 database backup /backups/tier0-2026-11-26.db       with runs in flight
    tier0 database restore /backups/tier0-2026-11-26.db --into postgresql://tier0@host/tier0
    """


_where_option = click.option("--database", "where", help="Path or URL of a database, in place of that of the settings.")


def _command(name: str, *parameters: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def decorate(function: Any) -> Any:
        for parameter in reversed((*parameters, _where_option, settings_option)):
            function = parameter(function)
        return database.command(name)(function)

    return decorate


def _places(settings: Path | None) -> Places:
    from pipeline.settings import load_settings
    from pipeline.world import places_of

    return places_of(load_settings(settings or nearby()))


def _where(where: str | None, settings: Path | None) -> str | Path:
    return where or _places(settings).database


@_command("check")
def database_check(where: str | None, settings: Path | None) -> None:
    """Say which version the tables have, what a migration would do, what is wrong, and who works on it.

    Every payload that a tag names is read and held against its id, where settings say where they are: with --database
    give -s too. Changes nothing. Exit code 3 where it is not of this program's version, or something is wrong.

    \b
    tier0 database check -s cms.toml
    tier0 database check --database postgresql://tier0@host/tier0
    """
    from calib.payload import PayloadStore
    from pipeline.database import open_database
    from pipeline.migration import check
    from pipeline.site import stopped_by_site

    # A store of its own: what another of this process has in memory says nothing of the disk.
    store = PayloadStore(_places(settings).payloads, keep_bytes=0) if settings or not where else None
    with stopped_by_site():
        found = check(open_database(_where(where, settings), read_only=True), time.time(), store=store)
    click.echo(found.text())
    sys.exit(0 if found.well else 3)


@_command("migrate")
def database_migrate(where: str | None, settings: Path | None) -> None:
    """Take an older database to the tables of this program, whole or not at all; a driver must not be at work on it.

    Any command that opens an older database does the same. A SQLite file is copied beside itself first; before a
    PostgreSQL is migrated, take a backup with the program that made it, or by pg_dump.

    \b
    tier0 database migrate -s cms.toml
    """
    from pipeline.database import open_database
    from pipeline.migration import bring_up_to_date, check
    from pipeline.site import stopped_by_site

    with stopped_by_site():
        chosen = _where(where, settings)
        if check(open_database(chosen, read_only=True), time.time()).version is None:
            raise click.UsageError(f"{chosen} is empty: there is nothing to migrate")
        opened = open_database(chosen)
        done = bring_up_to_date(opened, time.time())
    if done.before == done.after:
        click.echo(f"{opened.name} has version {done.after} already: nothing to do")
    else:
        click.echo(f"{opened.name} is migrated from version {done.before} to {done.after}")
    if done.copy:
        click.echo(f"as it was before it is kept in {done.copy}")


@_command("backup", click.argument("file", type=click.Path(path_type=Path)))
def database_backup(file: Path, where: str | None, settings: Path | None) -> None:
    """Write all that is in the database to FILE, as of one moment, while runs go on; whole or not at all.

    FILE is a SQLite file with a checksum for every table, whatever the database is. Payloads and outputs are not in
    it: they lie in the area, and never change once they are there. Keep copies of the area by other means.

    \b
    tier0 database backup /backups/tier0-$(date +%F).db -s cms.toml
    """
    from pipeline.backup import back_up
    from pipeline.database import open_database
    from pipeline.site import stopped_by_site

    with stopped_by_site():
        opened = open_database(_where(where, settings), read_only=True)
        click.echo(back_up(opened, file, time.time()).text())


@database.command("restore")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--into", required=True, help="Path or URL of an empty database: SQLite or PostgreSQL.")
def database_restore(file: Path, into: str) -> None:
    """Fill an empty database from a backup, checked and whole or not at all; the next `tier0 run` goes on from there.

    What was committed then is not done again; what was done later is done again, and the files it left are swept.
    From SQLite to PostgreSQL, or back, is a backup and a restore. Afterwards name the new database in the settings, and
    never drive the old one again: over one area there can be only one. Snapshots taken after the backup are gone, and
    their numbers will be given again: whoever has kept answers to them must forget them.

    \b
    tier0 database restore tier0-2026-11-26.db --into area/restored.db
    tier0 database restore tier0-2026-11-26.db --into postgresql://tier0:PASSWORD@host/tier0
    """
    from pipeline.backup import restore
    from pipeline.site import stopped_by_site

    with stopped_by_site():
        click.echo(restore(file, into, time.time()).text())


@click.command("serve-conditions")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option(
    "--port", default=8780, show_default=True, type=click.IntRange(0, 65535), help="0 takes one that is free."
)
@click.option("--threads", default=8, show_default=True, type=click.IntRange(1, 15), help="Readers of the database.")
@click.option("--keep", default=256, show_default=True, type=click.IntRange(0), help="MiB of payloads kept in memory.")
@settings_option
def serve_conditions(host: str, port: int, threads: int, keep: int, settings: Path | None) -> None:
    """Let other programs read the conditions over HTTP. Nothing can be changed there, and there are no passwords:
    whoever reaches the port can read.

    A driver may work on the database meanwhile. Answers are JSON, payloads npz. What names a snapshot (or entry) and
    every payload never changes, and is marked so for caches between; other answers say at which snapshot they were
    taken. `/` lists what can be asked.

    \b
    tier0 serve-conditions -s cms.toml --port 8780
    curl localhost:8780/tags
    curl localhost:8780/tags/beamspot_prompt_v1/intervals
    curl "localhost:8780/resolve?global_tag=prompt_v1&run=190456&lumi=12"
    curl "localhost:8780/resolve?snapshot=prompt_v1@41&run=190456&lumi=12&kinds=beamspot"
    curl -o beamspot.npz localhost:8780/payloads/6c1f...

    In Python: numpy.load("beamspot.npz") gives its arrays by name.
    """
    import asyncio

    from pipeline.serving import Limits, ServingRefused, desk, serve_until_signalled
    from pipeline.site import stopped_by_site

    places = _places(settings)
    limits = Limits(threads=threads, kept_bytes=keep << 20)
    with stopped_by_site(), desk(places.database, places.payloads, limits) as opened:

        def ready(address: str) -> None:
            click.echo(f"conditions of {opened.shelf.database.name} at {address} (Ctrl-C ends)")

        try:
            asyncio.run(serve_until_signalled(opened, host, port, ready))
        except ServingRefused as refusal:
            raise click.ClickException(str(refusal)) from None


commands = (database, serve_conditions)
