"""Trouble that only somebody at the site can mend: a full disk, a quota, a read-only disk, no database server."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, OperationalError

from jobs.retry import Cause, classify

REMEDY = "look at the disks of the area and the database, then start again: nothing is lost"

_SQLITE = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}
_POSTGRES = {"25006", "53100", "53300", "57P01", "57P02", "57P03"}
"""read-only transaction; disk full, too many connections; a server that is shut down, has crashed, or starts"""


class SiteStopped(Exception):
    """Nothing that runs here can succeed until somebody mends the site; nothing is lost, the next start goes on."""


@contextmanager
def stopped_by_site() -> Iterator[None]:
    """Within the block, what only the site can mend is raised as SiteStopped."""
    try:
        yield
    except (OSError, DBAPIError, sqlite3.Error) as problem:
        if not is_site(problem):
            raise
        word = str(problem.orig) if isinstance(problem, DBAPIError) else str(problem)
        raise SiteStopped(f"{' '.join(word.split())}; {REMEDY}") from problem


def is_site(problem: BaseException) -> bool:
    """Whether an error of the system or of the database is the site's fault.

    >>> is_site(OSError(28, "No space left on device")), is_site(FileNotFoundError(2, "No such file"))
    (True, False)
    """
    if not isinstance(problem, DBAPIError | sqlite3.Error):
        return classify(problem) is Cause.SITE
    own = problem.orig if isinstance(problem, DBAPIError) else problem
    # Beside the code itself SQLite has finer ones, whose lowest byte it is.
    if getattr(own, "sqlite_errorcode", 0) & 0xFF in _SQLITE:
        return True
    # PostgreSQL gives no state where there is nobody to give it: the server was not reached, or is gone.
    unreached = isinstance(problem, OperationalError) and getattr(own, "sqlstate", "") is None
    return unreached or getattr(own, "sqlstate", None) in _POSTGRES
