"""One area, one database: others are refused, and one that was restored takes the area over."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import pytest

from pipeline.areas import MARK, claim
from pipeline.backup import back_up, restore
from pipeline.database import Database, DatabaseRefused, open_database
from pipeline.settings import settings_from
from pipeline.world import open_world
from tests.pipeline.tiny import settings


def opened(area: Path, where: str | Path) -> Database:
    """The database of a Tier-0 that was opened in an area."""
    plain = settings(area, storage={"area": str(area), "database": str(where)})
    database = open_world(settings_from(plain)).database
    database.close()
    return database


def marked(area: Path) -> str:
    return str(json.loads((area / MARK).read_text())["database"])


def test_a_second_database_over_an_area_is_refused_and_the_first_goes_on(tmp_path, where):
    opened(tmp_path / "area", where)
    with pytest.raises(DatabaseRefused, match=r"is the area of the database .*other\.db is another: name that one"):
        opened(tmp_path / "area", tmp_path / "other.db")
    opened(tmp_path / "area", where)
    opened(tmp_path / "elsewhere", tmp_path / "other.db")


def test_what_was_restored_takes_the_area_over_and_what_was_before_is_refused(tmp_path, where):
    area, first = tmp_path / "area", tmp_path / "t.db"
    back_up(opened(area, first), tmp_path / "backup", 1.0)
    into = where if "://" in where else tmp_path / "restored.db"
    restore(tmp_path / "backup", into, 2.0)
    restore(tmp_path / "backup", tmp_path / "twin.db", 2.0)
    opened(area, into)
    for refused in (first, tmp_path / "twin.db"):
        with pytest.raises(DatabaseRefused, match=f"{refused} is another"):
            opened(area, refused)
    opened(area, into)


def test_a_copied_file_is_refused_and_a_moved_one_is_not(tmp_path):
    area, first, second = tmp_path / "area", tmp_path / "t.db", tmp_path / "u.db"
    opened(area, first)
    shutil.copy(first, second)
    with pytest.raises(DatabaseRefused, match=r"u\.db is a copy of it"):
        opened(area, second)
    first.unlink()
    opened(area, second)
    assert marked(area) == str(second)
    (tmp_path / "link.db").symlink_to(second)
    opened(area, tmp_path / "link.db")


def test_a_database_made_anew_in_the_place_of_one_that_is_gone_has_the_area(tmp_path):
    area, first = tmp_path / "area", tmp_path / "t.db"
    opened(area, first)
    before = (area / MARK).read_text()
    first.unlink()
    opened(area, first)
    assert (area / MARK).read_text() != before


def test_a_mark_deleted_by_hand_gives_the_area_away(tmp_path):
    area = tmp_path / "area"
    opened(area, tmp_path / "t.db")
    (area / MARK).unlink()
    opened(area, tmp_path / "other.db")
    assert marked(area) == str(tmp_path / "other.db")
    (area / MARK).write_text("")
    with pytest.raises(DatabaseRefused, match="is not as it was written"):
        opened(area, tmp_path / "other.db")


def test_of_many_at_once_one_has_the_area(tmp_path):
    databases = [open_database(opened(tmp_path / name, tmp_path / f"{name}.db").name) for name in "abcd"]
    area, refused, gate = tmp_path / "both", [], threading.Barrier(len(databases))
    area.mkdir()

    def claim_it(database: Database) -> None:
        gate.wait()
        try:
            claim(area, database, 1.0)
        except DatabaseRefused:
            refused.append(database.name)

    threads = [threading.Thread(target=claim_it, args=(database,)) for database in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert {marked(area), *refused} == {database.name for database in databases} and len(refused) == 3
    assert [path.name for path in area.iterdir()] == [MARK]
    for database in databases:
        database.close()
