"""Holds and waivers from the command line: words and exit codes."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.in_charge import system_user
from pipeline.toml_text import toml_text
from tests.pipeline.test_operations import opened
from tests.pipeline.tiny import settings


@pytest.fixture
def tier0(tmp_path):
    """Calls `tier0` on a Tier-0 that has seen runs 7 and 8; gives exit code and words."""
    return caller(tmp_path)


@pytest.fixture
def parted(tmp_path):
    """The same where a run has a dataset."""
    experiment = {"name": "tests.pipeline.triggered:Triggered"}
    return caller(tmp_path, experiment=experiment, datasets={"Jets": {"triggers": ["muon"]}})


def caller(tmp_path, **sections):
    for _ in opened(tmp_path, str(tmp_path / "t.db"), **sections):
        pass

    def call(*words, **authority):
        storage = {"area": str(tmp_path / "area"), "database": str(tmp_path / "t.db")}
        plain = settings(tmp_path, storage=storage, authority=authority, **sections)
        (tmp_path / "tiny.toml").write_text(toml_text(plain))
        place = () if words[0] == "settings" else ("-s", tmp_path / "tiny.toml")
        done = CliRunner().invoke(main, [str(word) for word in (*words, *place)])
        return done.exit_code, done.output

    call.file = tmp_path / "tiny.toml"
    return call


def test_a_hold_is_put_listed_told_and_lifted(parted):
    code, said = parted("hold", 7, "--reason", "magnet", "--dataset", "Jets")
    assert code == 0 and f"run 7, dataset Jets: held by {system_user()}" in said and "no service is running" in said
    parted("hold", "--all", "--reason", "beam spot")
    assert all(word in parted("holds")[1] for word in ("dataset Jets", "all runs", "magnet", "tier0 lift --all"))
    for words in (("status",), ("why", 7)):
        said = parted(*words)[1]
        assert "run 7, dataset Jets: held by" in said and "all runs: held by" in said
    assert "hold, run 7, dataset Jets: magnet" in parted("why", 7)[1]
    code, said = parted("lift", 7, "--dataset", "Jets", "--reason", "it was on")
    assert code == 0 and "still held: all runs" in said
    assert parted("lift", "--all")[0] == 0
    assert parted("holds")[1].strip() == "nothing is held"
    assert "it was on" in parted("holds", "--history")[1] and "lift, run 7, dataset Jets" in parted("why", 7)[1]


def test_a_mistyped_dataset_is_held_nowhere(parted):
    code, said = parted("hold", 7, "--reason", "magnet", "--dataset", "Jetts")
    assert code == 1 and "there is no dataset Jetts; did you mean `Jets`?" in said
    assert parted("holds", "--history")[1].strip() == "nothing was ever held"


def test_a_run_that_is_seen_and_not_certified_is_not_made_again(tier0):
    code, said = tier0("certify", "refit", 7)
    assert code == 1 and "run 7 is not certified yet: see `tier0 why 7`" in said


def test_a_waiver_is_given_shown_and_taken_back(tier0):
    assert "offset may be published under a waiver" in tier0("waive", 7, "offset", "--publish", "--reason", "real")[1]
    assert "offset may be published under a waiver" in tier0("why", 7)[1]
    assert "no longer waived" in tier0("waive", 7, "offset", "--withdraw", "--reason", "not so")[1]
    assert "published" not in tier0("status")[1]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("hold", "--reason", "x"), 2, "say which RUN, or --all for all of them\n"),
        (("hold", 7, "--all", "--reason", "x"), 2, "a RUN and --all exclude each other"),
        (("hold", 7, "--stop-submitting", "--reason", "x"), 2, "is for all runs"),
        (("hold", 7), 2, "--reason"),
        (("hold", 1 << 64, "--reason", "x"), 2, "is not in the range"),
        (("why", 1 << 64), 2, "is not in the range"),
        (("hold", 7, "--reason", " "), 1, "needs a reason"),
        (("lift", 7), 1, "no hold was put on run 7; what is held: nothing is"),
        (("waive", 7, "offset", "--publish", "--withdraw", "--reason", "x"), 2, "exclude each other"),
        (("waive", 7, "ofset", "--reason", "x"), 1, "it needs offset"),
        (("waive", 9, "offset", "--reason", "x"), 1, "run 9 was never seen; the runs are 7, 8"),
        (("waive", 8, "offset", "--publish", "--reason", "x"), 1, "no payload of kind offset that waits"),
    ],
)
def test_what_cannot_be_is_said(tier0, words, code, said):
    found, text = tier0(*words)
    assert found == code and said in text


def test_a_run_that_was_never_seen_tells_who_waits_for_it(tier0):
    assert "run 9 was never seen: the hold waits for it" in tier0("hold", 9, "--reason", "test run")[1]
    code, said = tier0("why", 9)
    assert code == 1 and "run 9: held by" in said


def test_who_may_not_is_refused_and_the_check_says_who_may(tier0):
    code, said = tier0("hold", 7, "--reason", "x", service=["ops"], hold=["eve"])
    assert code == 1 and f"{system_user()} may not hold; who may: ops, eve" in said
    said = tier0("settings", "check", tier0.file, service=["ops"], hold=["eve"])[1]
    assert f"you act as {system_user()}" in said and "may hold: ops, eve" in said
    assert "everybody who can open the database may do everything" in tier0("settings", "check", tier0.file)[1]


def test_the_help_of_waive_names_the_canary():
    assert "tier0 waive 190456 canary --publish" in CliRunner().invoke(main, ["waive", "--help"]).output


@pytest.mark.parametrize("words", [["hold"], ["lift"], ["holds"], ["waive"]])
def test_help_has_an_example(words):
    done = CliRunner().invoke(main, [*words, "--help"])
    assert done.exit_code == 0 and f"tier0 {words[0]}" in done.output
