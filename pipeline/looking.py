"""The database of a place for who only looks: nothing is made there, nothing changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.database import Database, NoDatabase, open_database
from pipeline.migration import SCHEMA, bring_up_to_date, check_readable


@contextmanager
def only_looked_at(where: str | Path, now: float) -> Iterator[Database]:
    """The database that is there, to be read. Where none is, one as the first run would make it, gone at the end.

    Raises DatabaseRefused where it cannot be used, OlderDatabase where it has to be migrated first.
    """
    found = _there(where)
    if found is not None:
        with closing(found):
            yield found
        return
    with TemporaryDirectory() as folder, closing(open_database(Path(folder) / "tier0.db")) as made:
        bring_up_to_date(made, now)
        yield made


def _there(where: str | Path) -> Database | None:
    try:
        found = open_database(where, read_only=True)
    except NoDatabase:
        return None
    with ExitStack() as unless_read:
        unless_read.enter_context(closing(found))
        with found.read() as connection:
            if SCHEMA.version_of(connection) is None:
                return None
            check_readable(found, connection)
        unless_read.pop_all()
    return found
