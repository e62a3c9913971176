"""Trouble that only somebody at the site can mend: a full disk, a quota, a file system that became read-only."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError

from jobs.retry import Cause, classify

REMEDY = "look at the disks of the area and the database, then start again: nothing is lost"

_SQLITE = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}
_POSTGRES = {"53100", "25006"}
"""disk full; read-only transaction"""


class SiteStopped(Exception):
    """Nothing that runs here can succeed until somebody mends the site; nothing is lost, the next start goes on."""


@contextmanager
def stopped_by_site() -> Iterator[None]:
    """Within the block, what only the site can mend is raised as SiteStopped."""
    try:
        yield
    except (OSError, DBAPIError) as problem:
        if not is_site(problem):
            raise
        word = str(problem.orig) if isinstance(problem, DBAPIError) else str(problem)
        raise SiteStopped(f"{word}; {REMEDY}") from problem


def is_site(problem: BaseException) -> bool:
    """Whether an error of the system or of the database is the site's fault.

    >>> is_site(OSError(28, "No space left on device")), is_site(FileNotFoundError(2, "No such file"))
    (True, False)
    """
    if not isinstance(problem, DBAPIError):
        return classify(problem) is Cause.SITE
    # Beside the code itself SQLite has finer ones, whose lowest byte it is.
    code = getattr(problem.orig, "sqlite_errorcode", 0) & 0xFF
    return code in _SQLITE or getattr(problem.orig, "sqlstate", None) in _POSTGRES
