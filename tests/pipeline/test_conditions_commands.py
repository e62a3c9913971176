"""`tier0 conditions`, command by command, as people type them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from calib.iov import Clock, RunLumi
from calib.tags import Sync
from pipeline.cli import main
from pipeline.cli_conditions import SERVES, conditions
from pipeline.toml_text import toml_text
from tests.pipeline.conditions_shelf import ANN, editor, enter, offset, settle, written
from tests.pipeline.tiny import settings

Call = Callable[..., tuple[int, str]]
COMMANDS = sorted(conditions.commands)


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs `tier0 conditions ...` in a folder with settings; the tag has payloads from runs 0, 7 and 9 on."""
    monkeypatch.chdir(tmp_path)
    Path("tier0.toml").write_text(toml_text(settings(tmp_path / "area")))
    found = editor(tmp_path / "area")
    enter(found, RunLumi(7), offset(1.5))
    enter(found, RunLumi(9), offset(2.5))
    settle(found, 7)
    found.world.database.close()

    def run(*words: object) -> tuple[int, str]:
        done = CliRunner().invoke(main, ["conditions", *map(str, words)])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.output

    return run


def test_every_word_for_whom_a_tag_serves_is_one() -> None:
    assert set(SERVES) == set(Sync)
    clock = next(p for p in conditions.commands["tag"].commands["create"].params if p.name == "clock")  # type: ignore[attr-defined]
    assert set(clock.type.choices) == set(Clock)


@pytest.mark.parametrize("words", [[], *([name] for name in COMMANDS), ["tag", "create"], ["global-tag", "create"]])
def test_help_says_what_it_does(words: list[str]) -> None:
    done = CliRunner().invoke(main, ["conditions", *words, "--help"])
    assert done.exit_code == 0
    if words not in (["list"], ["global-tags"], ["history"], ["tag"], ["global-tag"]):
        assert " ".join(["  tier0 conditions", *words]) in done.output


def test_what_there_is_is_listed(call: Call) -> None:
    assert "offset_prompt_v1" in call("list")[1]
    assert "prompt_v1" in call("global-tags")[1]
    code, said = call("snapshots")
    assert code == 0 and "prompt_v1@" in said


def test_tags_are_made_copied_and_compared(call: Call) -> None:
    assert call("tag", "create", "mine", "--kind", "offset", "--kind-of-tag", "validation") == (
        0,
        "tag mine (offset, by lumi, for validation): empty\n",
    )
    code, said = call("copy", "prompt", "other", "--from", 7, "--to", 9, "--kind-of-tag", "offline")
    assert code == 0 and "tag other (offset, by lumi, for offline): 1 intervals, 1 payloads, [7:0, 9:0)" in said
    code, said = call("diff", "other", "prompt", "--values")
    assert code == 3 and "nothing" in said and "[0:0, 7:0)" in said
    assert call("diff", "prompt", "prompt_v1") == (0, "prompt and prompt_v1 answer the same\n")
    code, said = call("diff", "prompt", "promt_v1")
    assert code == 1 and "did you mean 'prompt_v1'" in said


def test_a_withdrawal_tells_the_runs_it_touches(call: Call) -> None:
    code, said = call("withdraw", "offset", "--since", 7, "--reason", "wrong sign")
    assert code == 0 and "shifted from 8:0 on" in said and "runs it touches: 7" in said
    code, said = call("withdraw", "offset", "--since", 12, "--reason", "wrong sign")
    assert code == 1 and "no payload of offset_prompt_v1 begins at 12:0" in said
    assert call("withdraw", "offset", "--since", 9)[0] == 2


def test_what_is_exported_is_imported_and_uploaded(call: Call, tmp_path: Path) -> None:
    code, said = call("export", "--file", "a.zip")
    assert (code, said) == (0, "written to a.zip\n")
    code, said = call("import", "a.zip", "--as", "again", "--kind-of-tag", "validation")
    assert code == 0 and "imported from a.zip" in said
    code, said = call("import", "a.zip", "--as", "again")
    assert code == 1 and "give a new name with --as" in said
    assert (
        call("export", "offset", "--tag", "again", "--format", "zarr", "-o", "folder")[1]
        == "written to folder/again.json\n"
    )
    code, said = call("upload", "offset", "folder", "--reason", "from there", "--tag", "express")
    assert code == 0 and said.count("offset_express_v1: accepted") == 2 and "it holds there already" in said
    code, said = call("upload", "offset", written(tmp_path / "one.npz", offset(9.0)), "--since", 11, "--reason", "one")
    assert code == 0 and said.count("accepted from 11:0 on") == 2
    code, said = call("upload", "offset", "one.npz", "--reason", "one")
    assert code == 1 and "with --since" in said
    code, said = call("upload", "offset", "one.npz", "--since", "soon", "--reason", "one")
    assert code == 1 and "'soon' is not run or run:lumisection" in said


def test_tags_are_drawn_over_one_another(call: Call) -> None:
    assert call("plot", "offset", "mean", "--tag", "prompt", "--tag", "express") == (0, "drawn to offset.png\n")
    assert Path("offset.png").stat().st_size > 1000
    assert call("plot", "offset", "-o", "deep/offset.svg")[0] == 0
    code, said = call("plot", "offset", "width")
    assert code == 1 and "has no array 'width'; it has hits, mean" in said
    code, said = call("plot", "offset", "-o", "offset")
    assert code == 1 and "has no ending" in said
    code, said = call("show", "offset", "--plot", "one.png")
    assert code == 0 and said.endswith("drawn to one.png\n")


def test_a_state_of_the_past_is_shown(call: Call) -> None:
    assert "9:0, open" in call("show", "offset")[1]
    code, said = call("history", "offset", "--as-of", 1)
    assert code == 0 and "design values" in said and "test" not in said
    assert "[0:0, open)" in call("show", "offset", "--tag", "offset_prompt_v1@1")[1]
    code, said = call("history", "offset", "--as-of", 4711)
    assert code == 1 and "there is no entry 4711; the newest is" in said


def test_a_file_that_is_there_is_not_written_over_unless_told_so(call: Call) -> None:
    Path("a.zip").write_text("precious")
    code, said = call("export", "--file", "a.zip")
    assert code == 1 and "a.zip exists already: give another name, or --force" in said
    assert Path("a.zip").read_text() == "precious"
    assert call("export", "--file", "a.zip", "--force") == (0, "written to a.zip\n")
    assert Path("a.zip").read_bytes().startswith(b"PK")
    assert call("export", "--force")[0] == 2


def test_a_tag_may_be_named_where_a_kind_is(call: Call) -> None:
    by_kind = call("history", "offset")
    assert by_kind[0] == 0 and call("history", "offset_prompt_v1") == by_kind
    assert call("show", "offset_prompt_v1@1") == call("show", "offset", "--tag", "offset_prompt_v1@1")
    call("tag", "create", "mine", "--kind", "offset")
    assert call("show", "mine") == (0, "no payload of tag mine yet\n")
    code, said = call("history", "offset_promt_v1")
    assert code == 1 and "there is no kind or tag 'offset_promt_v1'; did you mean 'offset_prompt_v1'?" in said
    assert "this experiment has the kinds offset" in said


@pytest.mark.parametrize("width", [60, 150])
def test_tables_are_as_wide_as_columns_says_in_a_pipe_too(call: Call, width: int) -> None:
    reason = "a reason that is by far longer than a narrow terminal is wide, so that it must be broken somewhere in it"
    call("withdraw", "offset", "--since", 9, "--reason", reason)
    usual = CliRunner().invoke(main, ["conditions", "history", "offset"], env={"COLUMNS": None}).output
    said = CliRunner().invoke(main, ["conditions", "history", "offset"], env={"COLUMNS": str(width)}).output
    assert max(map(len, said.splitlines())) <= width < max(map(len, usual.splitlines())) <= 200
    for odd in ("", "0", "wide"):
        assert CliRunner().invoke(main, ["conditions", "history", "offset"], env={"COLUMNS": odd}).output == usual


def test_a_global_tag_of_ones_own(call: Call) -> None:
    call("copy", "prompt", "mine", "--kind-of-tag", "offline")
    assert call("global-tag", "create", "rereco", "mine") == (0, "global tag rereco: offset: mine\n")
    assert "rereco" in call("global-tags")[1] and call("diff", "prompt", "rereco")[0] == 0
    assert call("global-tag", "create", "rereco", "mine")[0] == 0
    code, said = call("global-tag", "create", "rereco", "offset_prompt_v1")
    assert code == 1 and "exists and never changes" in said
    code, said = call("global-tag", "create", "both", "mine", "offset_prompt_v1")
    assert code == 1 and "one tag of a kind" in said
    code, said = call("global-tag", "create", "other", "mien")
    assert code == 1 and "did you mean 'mine'" in said


def test_what_came_late_can_be_asked_again_and_what_is_queued(call: Call, tmp_path: Path) -> None:
    assert call("late") == (0, "nothing came late\n")
    call("copy", "prompt", "mine", "--kind-of-tag", "offline")
    call("global-tag", "create", "rereco", "mine")
    shelf = editor(tmp_path / "area")
    with shelf.world.database.begin() as connection:
        db = shelf.world.conditions(connection)
        db.settle(8, db.snapshot("rereco"), ANN.now)
    shelf.world.database.close()
    file = written(tmp_path / "one.npz", offset(9.0))
    told = call("upload", "offset", file, "--since", "8:1", "--reason", "one", "--tag", "mine")[1]
    assert "queued for re-reconstruction of run 8" in told
    for words in (("late",), ("late", "mine")):
        code, said = call(*words)
        assert code == 0 and told.strip() in said and said.endswith("queued for re-reconstruction: runs 8\n")
    assert call("late", "prompt_v1")[0] == 1
