"""One area, one database, one experiment: others are refused, and a database restored takes the area over."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pipeline import journal
from pipeline.areas import EXPERIMENT, MARK, OtherExperiment, claim
from pipeline.backup import back_up, restore
from pipeline.books import NO_RUN
from pipeline.cli import main
from pipeline.database import Database, DatabaseRefused, open_database
from pipeline.settings import settings_from
from pipeline.tier0 import _lease
from pipeline.toml_text import toml_text
from pipeline.world import World, open_world, set_up
from tests.pipeline.tiny import Tiny, settings, write_file


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


class Another(Tiny):
    """An experiment with the same kinds."""

    name = "another"


ANOTHER = {"name": "tests.pipeline.test_areas:Another"}


def seen(area: Path, where: str, **sections: Any) -> World:
    """The Tier-0 of an area with its database elsewhere."""
    plain = settings(area, storage={"area": str(area), "database": where}, **sections)
    return open_world(settings_from(plain))


def test_an_area_is_of_one_experiment_and_of_the_first_of_which_something_is_made(tmp_path, where):
    worlds = [seen(tmp_path / "area", where), seen(tmp_path / "area", where, experiment=ANOTHER)]
    set_up(worlds[0])  # to look took it for neither
    word = "/area is the area of the experiment tiny, and these settings are of another: set another `area` and another"
    with pytest.raises(OtherExperiment, match=word):
        seen(tmp_path / "area", where, experiment=ANOTHER)
    with pytest.raises(OtherExperiment, match=word):  # opened before, and too late
        set_up(worlds[1])
    set_up(seen(tmp_path / "area", where)).database.close()
    for world in worlds:
        world.database.close()


def test_a_refusal_for_the_experiment_makes_nothing(tmp_path, where):
    set_up(seen(tmp_path / "area", where)).database.close()
    with pytest.raises(OtherExperiment):
        seen(tmp_path / "new", where, experiment=ANOTHER)
    assert not (tmp_path / "new").exists()


def test_what_was_restored_is_of_the_same_experiment(tmp_path):
    world = set_up(seen(tmp_path / "area", str(tmp_path / "t.db")))
    back_up(world.database, tmp_path / "backup", 1.0)
    world.database.close()
    restore(tmp_path / "backup", tmp_path / "restored.db", 2.0)
    with pytest.raises(OtherExperiment):
        seen(tmp_path / "area", str(tmp_path / "restored.db"), experiment=ANOTHER)


def test_an_area_from_before_experiments_were_written_down_goes_to_the_first_that_comes(tmp_path):
    world = set_up(seen(tmp_path / "area", str(tmp_path / "t.db")))
    with world.database.begin() as connection:
        journal.set_document(connection, NO_RUN, EXPERIMENT, None, 1.0)
    set_up(world)
    world.database.close()
    with pytest.raises(OtherExperiment):
        seen(tmp_path / "area", str(tmp_path / "t.db"), experiment=ANOTHER)


def test_the_commands_refuse_settings_of_another_experiment(tmp_path):
    own, other = tmp_path / "own.toml", tmp_path / "other.toml"
    for toml, sections in ((own, {}), (other, {"experiment": ANOTHER})):
        toml.write_text(toml_text(settings(tmp_path / "area", **sections)))
    events = write_file(tmp_path / "7.root", 7)

    def tier0(*words: object) -> tuple[int, str]:
        done = CliRunner().invoke(main, [str(word) for word in words])
        return done.exit_code, done.output

    for toml in (own, other):  # only looked at, it is nobody's
        assert tier0("why", 7, "-s", toml)[1].startswith("tier0: run 7 was never seen")
        assert tier0("settings", "check", toml)[0] == 0
    set_up(open_world(settings_from(settings(tmp_path / "area")))).database.close()
    before = (tmp_path / "area" / "tier0.db").read_bytes()
    for words in (
        ("run", other, events, "--quiet"),
        ("run", other, events, "--dry-run"),
        ("settings", "check", other),
        ("why", 7, "-s", other),
    ):
        code, said = tier0(*words)
        assert code == 1 and said.count("\n") == 1
        assert "area is the area of the experiment tiny, and these settings are of another: set another `area`" in said
    assert (tmp_path / "area" / "tier0.db").read_bytes() == before
    assert tier0("settings", "check", own)[0] == 0


def test_who_drives_takes_the_area_for_the_experiment(tmp_path):
    """Also with what makes no tag, such as a simulation."""
    world = open_world(settings_from(settings(tmp_path / "area")))
    with _lease(world):
        pass
    world.database.close()
    with pytest.raises(OtherExperiment):
        open_world(settings_from(settings(tmp_path / "area", experiment=ANOTHER)))
