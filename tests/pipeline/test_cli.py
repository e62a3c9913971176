"""The command line, from settings to the good-run list."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from pipeline.cli import EXIT_CODES, main
from pipeline.tier0 import Tier0
from pipeline.toml_text import toml_text
from tests.pipeline.tiny import settings, write_file


def tier0(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with settings and two files, after `tier0 run`."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "tiny.toml").write_text(toml_text(settings(folder / "area")))
    files = [write_file(folder / f"{run}.root", run) for run in (7, 8)]
    done = tier0("run", folder / "tiny.toml", *files, "--quiet")
    assert done.exit_code == 0, done.output
    assert "Dask dashboard: http" in done.output and "certified" in done.output and "7" in done.output
    return folder


@pytest.fixture
def look(place: Path) -> Any:
    def call(*words: object) -> str:
        done = tier0(*words, "-s", place / "tiny.toml")
        assert done.exit_code == 0, done.output
        return done.output

    return call


def test_status_and_why(look: Any) -> None:
    assert "offset: 2 fresh" in look("status")
    why = look("why", 8)
    assert why.startswith("run 8, processing version 1: certified") and "offset 8:1 to 8:4: fresh" in why


def test_an_unknown_run_is_refused_with_those_there_are(place: Path) -> None:
    done = tier0("why", 9, "-s", place / "tiny.toml")
    assert done.exit_code == 1 and "run 9 was never seen; the runs are 7, 8" in done.output


def test_conditions_are_listed_shown_and_their_history_told(look: Any) -> None:
    assert "offset_prompt_v1" in look("conditions", "list")
    assert "mean [cm]" in look("conditions", "show", "offset")
    history = look("conditions", "history", "offset")
    assert "design values" in history and "made by the loop" in history
    first = look("conditions", "history", "offset", "--as-of", 1)
    assert "design values" in first and "made by the loop" not in first


def test_an_export_is_read_back_by_an_upload(look: Any, place: Path) -> None:
    written = look("conditions", "export", "offset", "-o", place / "export")
    index = json.loads((place / "export" / "offset_prompt_v1.json").read_text())
    assert str(place / "export") in written and len(index["intervals"]) == 3
    file = place / "export" / index["intervals"][1]["file"]
    fate = look("conditions", "upload", "offset", file, "--since", 9, "--reason", "the same again")
    assert "accepted" in fate
    assert index["intervals"][1]["payload"][:12] in look("conditions", "show", "offset").splitlines()[-2]


def test_a_wrong_upload_is_refused(place: Path, tmp_path: Path) -> None:
    (tmp_path / "no.npz").write_bytes(b"nothing")
    words = ("--since", 9, "--reason", "test", "-s", place / "tiny.toml")
    done = tier0("conditions", "upload", "offset", tmp_path / "no.npz", *words)
    assert done.exit_code == 1 and "cannot be read as a payload" in done.output
    np.savez(tmp_path / "good.npz", mean=1.0)
    done = tier0("conditions", "upload", "ofset", tmp_path / "good.npz", *words)
    assert done.exit_code == 1 and "this experiment has offset" in done.output


def test_the_good_run_list_and_a_mask(look: Any, place: Path) -> None:
    assert json.loads(look("certify")) == {"7": [[1, 4]], "8": [[1, 4]]}
    (place / "mask.json").write_text('{"8": [[2, 3]]}')
    said = look("certify", "--mask", place / "mask.json", "-o", place / "good.json")
    assert said == f"written to {place / 'good.json'}: 1 runs in the good-run list\n"
    assert json.loads((place / "good.json").read_text()) == {"8": [[2, 3]]}


@pytest.mark.parametrize(
    "words",
    [("certify", "-o"), ("conditions", "plot", "offset", "-o"), ("conditions", "export", "--file")],
    ids=lambda words: words[0],
)
def test_a_file_that_cannot_be_written_is_said_in_a_line(place: Path, words: tuple[str, ...]) -> None:
    done = tier0(*words, place / "7.root" / "below", "-s", place / "tiny.toml")
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit)
    (line,) = done.output.splitlines()
    assert line.startswith("tier0: ") and str(place / "7.root") in line


def test_before_the_first_run_it_is_said_what_brings_conditions(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(toml_text(settings(tmp_path / "area")))
    for words in (("show",), ("history",), ("plot",), ("export",)):
        done = tier0("conditions", *words, "offset", "-s", tmp_path / "tiny.toml")
        assert done.exit_code == 1 and "nothing of kind offset yet: `tier0 run` makes it" in done.output


def test_a_dry_run_says_there_is_nothing_to_do(place: Path) -> None:
    done = tier0("run", place / "tiny.toml", place / "7.root", "--dry-run")
    assert done.exit_code == 0 and "nothing to do" in done.output


def test_settings_are_checked(place: Path, tmp_path: Path) -> None:
    assert "[experiment]" in tier0("settings", "check", place / "tiny.toml").output
    (tmp_path / "wrong.toml").write_text('[experiment]\nname = "toy_collider"\n[express]\nfracton = 0.5\n')
    done = tier0("settings", "check", tmp_path / "wrong.toml")
    assert done.exit_code == 1 and "did you mean `fraction`" in done.output


def test_to_check_settings_is_only_to_look(place: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(toml_text(settings(tmp_path / "area")))
    assert "no payload to start from" not in tier0("settings", "check", tmp_path / "tiny.toml").output
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.toml"]
    # Nor is a database changed that is there.
    (database,) = place.glob("*/tier0.db")
    before = database.read_bytes()
    assert tier0("settings", "check", place / "tiny.toml").exit_code == 0
    assert database.read_bytes() == before


def test_settings_of_a_database_that_has_to_be_migrated_are_not_checked_by_migrating_it(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(toml_text(settings(tmp_path / "area")))
    Tier0(tmp_path / "tiny.toml")
    path = tmp_path / "area" / "tier0.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE schema_versions SET version = version - 1")
    before = path.read_bytes()
    done = tier0("settings", "check", tmp_path / "tiny.toml")
    assert done.exit_code == 1 and "tier0 database migrate" in done.output
    assert path.read_bytes() == before


def test_without_a_settings_file_it_says_what_to_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = tier0("status")
    assert done.exit_code == 2 and "say which with -s FILE" in done.output


@pytest.mark.parametrize("words", [[], ["run"], ["conditions"], ["conditions", "upload"], ["why"]])
def test_help_is_there(words: list[str]) -> None:
    done = tier0(*words, "--help")
    assert done.exit_code == 0 and "Usage:" in done.output


def commands(of: click.Group, before: str = "") -> Iterator[tuple[str, click.Command]]:
    """All commands below a group, by what is typed."""
    for name, found in of.commands.items():
        yield f"{before}{name}", found
        if isinstance(found, click.Group):
            yield from commands(found, f"{before}{name} ")


def unlike(told: str, of: click.Group) -> set[str]:
    """Commands that tell of an exit code 2 of their own and are not named in the table of all, or the other way."""
    own = {name for name, found in commands(of) if re.search(r"Exit code.*\b2:", found.help or "", re.DOTALL)}
    named = re.search(r"2 wrong use[^(]*\(([^)]*)\)", told)
    return own ^ set(re.findall(r"`([^`]*)`", named[1] if named else ""))


def test_the_table_of_exit_codes_names_the_commands_that_have_a_2_of_their_own() -> None:
    assert unlike(EXIT_CODES, main) == set()
    assert unlike(EXIT_CODES.replace("`calibrate again`", "`calibrate anew`"), main) == {
        "calibrate again",
        "calibrate anew",
    }


def test_a_run_never_seen_is_not_one_that_is_not_certified_yet(place: Path) -> None:
    done = tier0("certify", "refit", 9, "-s", place / "tiny.toml")
    assert done.exit_code == 1 and "run 9 was never seen; the runs are 7, 8" in done.output
