"""What only the site can mend is told from everything else."""

import errno
import sqlite3

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError, OperationalError

from pipeline.site import SiteStopped, stopped_by_site


def refuse(problem):
    with stopped_by_site():
        raise problem


class Full(Exception):
    """As psycopg raises it."""

    sqlstate = "53100"


@pytest.mark.parametrize(
    "problem",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError(errno.EROFS, "Read-only file system"),
        OperationalError("INSERT", {}, Full("could not extend file")),
    ],
)
def test_trouble_of_the_site_stops_with_its_word_and_what_to_do(problem):
    with pytest.raises(SiteStopped, match=r"No space|quota|Read-only|could not extend") as stop:
        refuse(problem)
    assert "then start again: nothing is lost" in str(stop.value)
    assert stop.value.__cause__ is problem


@pytest.mark.parametrize(
    "problem",
    [FileNotFoundError(errno.ENOENT, "gone"), ValueError("wrong"), DBAPIError("SELECT", {}, sqlite3.Error("locked"))],
)
def test_anything_else_goes_through(problem):
    with pytest.raises(type(problem)) as found:
        refuse(problem)
    assert found.value is problem


def test_database_that_may_not_be_written(tmp_path):
    path = tmp_path / "t.db"
    sqlite3.connect(path).close()
    engine = create_engine(f"sqlite:///file:{path}?mode=ro&uri=true")
    with engine.connect() as connection, pytest.raises(SiteStopped, match="readonly"), stopped_by_site():
        connection.execute(text("CREATE TABLE t (x INTEGER)"))
    engine.dispose()
