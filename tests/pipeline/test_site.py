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


class Stated(Exception):
    """As psycopg raises it, with the state that the server gives."""

    def __init__(self, words, sqlstate):
        super().__init__(words)
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    "problem",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError(errno.EROFS, "Read-only file system"),
        OperationalError("INSERT", {}, Stated("could not extend file", "53100")),
        OperationalError("SELECT", {}, Stated("Read-only is\n all there is", "57P01")),
        OperationalError("SELECT", {}, Stated("No space between us and the server", None)),
    ],
)
def test_trouble_of_the_site_stops_with_its_word_and_what_to_do(problem):
    with pytest.raises(SiteStopped, match=r"No space|quota|Read-only|could not extend") as stop:
        refuse(problem)
    assert "then start again: nothing is lost" in str(stop.value)
    assert stop.value.__cause__ is problem


@pytest.mark.parametrize(
    "problem",
    [
        FileNotFoundError(errno.ENOENT, "gone"),
        ValueError("wrong"),
        DBAPIError("SELECT", {}, sqlite3.Error("locked")),
        sqlite3.OperationalError("no such table"),
        OperationalError("SELECT", {}, Stated("deadlock", "40P01")),
    ],
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
