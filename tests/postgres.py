"""A PostgreSQL of its own for tests: no TCP port, no fsync, gone afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

START_SECONDS = 30.0


def installed() -> dict[str, Path] | None:
    """The programs `initdb` and `postgres`, or None."""
    places = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep)]
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = {}
    for name in ("initdb", "postgres"):
        here = shutil.which(name, path=os.pathsep.join(map(str, places)))
        if here is None:
            return None
        # initdb looks for postgres beside itself, so the link in a search path must be followed.
        found[name] = Path(here).resolve()
    return found


@contextmanager
def running() -> Iterator[str]:
    """Start a server and give its SQLAlchemy URL. As root it runs as the user `postgres`, which it insists on."""
    programs = installed()
    if programs is None:
        raise RuntimeError("PostgreSQL is not installed; on Debian: apt install postgresql")
    user = "postgres" if os.getuid() == 0 else None
    # The path of a Unix socket may have 107 characters; pytest's folders are longer.
    folder = Path(tempfile.mkdtemp(prefix="tier0-pg-", dir="/tmp"))
    try:
        if user is not None:
            shutil.chown(folder, user)
        make = [programs["initdb"], "-D", folder / "data", "-U", "tier0", "-A", "trust", "--no-sync", "-E", "UTF8"]
        subprocess.run(make, user=user, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        serve = [
            programs["postgres"],
            "-D",
            folder / "data",
            "-k",
            folder,
            "-c",
            "listen_addresses=",
            "-c",
            "fsync=off",
        ]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(serve, user=user, cwd=folder, stdout=log, stderr=log)
        try:
            url = f"postgresql+psycopg://tier0@/postgres?host={folder}"
            _wait_for(url, server, folder / "log")
            yield url
        finally:
            # At once, whoever is still connected.
            server.send_signal(signal.SIGINT)
            server.wait(START_SECONDS)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    engine = create_engine(url, poolclass=NullPool)
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            engine.connect().close()
            return
        except OperationalError:
            if server.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"PostgreSQL does not start: {log.read_text(errors='replace')}") from None
            time.sleep(0.05)
