"""New tags, copies, withdrawals, what was settled under what, and where two answers differ; on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from calib.iov import Clock, RunLumi
from calib.tags import Beginning, TagExists, UnknownTag
from pipeline.archive import Span
from pipeline.conditions_editor import ConditionsEditor
from pipeline.conditions_words import Refused, moment_from, spoken
from pipeline.retagging import beginnings, cut
from tests.pipeline.conditions_shelf import editor, enter, offset, settle
from tests.pipeline.conftest import STORES


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[ConditionsEditor]:
    """Design values, and payloads from runs 7 and 9 on."""
    yield from _shelf(tmp_path, {})


@pytest.fixture(params=STORES)
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ConditionsEditor]:
    """The same on each database, for what speaks SQL of its own."""
    if request.param == "sqlite":
        yield from _shelf(tmp_path, {})
        return
    url = request.getfixturevalue("postgres_url")
    server = sa.create_engine(url)
    with server.begin() as connection:
        connection.execute(sa.text("DROP SCHEMA public CASCADE"))
        connection.execute(sa.text("CREATE SCHEMA public"))
    server.dispose()
    yield from _shelf(tmp_path, {"database": url})


def _shelf(folder: Path, storage: dict[str, str]) -> Iterator[ConditionsEditor]:
    found = editor(folder / "area", storage=storage)
    enter(found, RunLumi(7), offset(1.5), loop=True)
    enter(found, RunLumi(9), offset(2.5), loop=True)
    yield found
    found.world.database.close()


def held(found: ConditionsEditor, tag: str | None = None) -> list[tuple[str, float]]:
    """Where each payload of a tag begins and ends, and its mean."""
    intervals = found.intervals("offset", tag)
    return [(f"{spoken(i.since)} {spoken(i.until)}", float(i.payload["mean"])) for i in intervals]


# --- words


@given(st.integers(0, (1 << 63) - 2))
def test_a_time_is_read_back_as_it_is_told(moment: int) -> None:
    assert moment_from(Clock.TIME, spoken(moment)) == moment


@pytest.mark.parametrize(
    ("clock", "words"),
    [(Clock.LUMI, "abc"), (Clock.RUN, "7:x"), (Clock.RUN, "-1"), (Clock.TIME, "yesterday"), (Clock.LUMI, "2026-05-01")],
)
def test_a_moment_that_is_none_is_refused(clock: Clock, words: str) -> None:
    with pytest.raises(Refused, match=r"is not (run or run:lumisection|a time such as)"):
        moment_from(clock, words)


def test_time_zones_count() -> None:
    assert moment_from(Clock.TIME, "2026-05-01T14:00+02:00") == moment_from(Clock.TIME, "2026-05-01T12:00:00")


# --- tags and copies


def test_a_tag_is_made_once(shelf: ConditionsEditor) -> None:
    said = shelf.create_tag("survey", "offset", "run", "validation")
    assert said == "tag survey (offset, by run, for validation): empty"
    assert shelf.create_tag("survey", "offset", "run", "validation") == said
    with pytest.raises(TagExists, match="take another name"):
        shelf.create_tag("survey", "offset", "lumi", "validation")
    with pytest.raises(Refused, match="there is no kind 'ofset'; this experiment has offset"):
        shelf.create_tag("other", "ofset")
    enter(shelf, RunLumi(1), offset(3.0), "survey")
    with pytest.raises(TagExists, match="has entries"):
        shelf.create_tag("survey", "offset", "run", "validation")


def test_a_copy_answers_as_its_source(shelf: ConditionsEditor) -> None:
    said = shelf.copy("prompt", "mine", serves="offline")
    source = "offset_prompt_v1"
    assert (
        said == f"tag mine (offset, by lumi, for offline): 3 intervals, 3 payloads, [0:0, open), copied from {source}"
    )
    assert held(shelf, "mine") == held(shelf)
    assert "copied from offset_prompt_v1" in shelf.history("offset", "mine")
    with pytest.raises(TagExists, match="only an empty one can be filled: take another name"):
        shelf.copy("prompt", "mine", serves="offline")
    # It goes its own way from then on.
    enter(shelf, RunLumi(8), offset(9.0), "mine")
    assert len(held(shelf, "mine")) == 4 and len(held(shelf)) == 3


def test_a_part_of_it_as_it_was(anywhere: ConditionsEditor) -> None:
    with anywhere.world.database.read() as connection:
        before = anywhere.world.conditions(connection).history("offset_prompt_v1")[-2].sequence
    anywhere.copy(f"offset_prompt_v1@{before}", "part", first="3", last="8:4")
    assert held(anywhere, "part") == [("3:0 7:0", 0.0), ("7:0 8:4", 1.5)]
    anywhere.copy("part", "again")
    assert held(anywhere, "again") == held(anywhere, "part")
    with pytest.raises(Refused, match="from 5:0 up to 3:0 is nothing"):
        anywhere.copy("part", "none", first="5", last="3")
    assert "none" not in anywhere.tags()


def test_what_cannot_be_copied_is_refused(shelf: ConditionsEditor) -> None:
    with pytest.raises(UnknownTag, match="did you mean 'offset_prompt_v1'"):
        shelf.copy("offset_promt_v1", "mine")
    with pytest.raises(Refused, match="no entry number and no time"):
        shelf.copy("offset_prompt_v1@4711", "mine")


steps = st.lists(st.sampled_from([None, "a", "b"]), min_size=1, max_size=6)


@given(steps, st.integers(0, 7), st.integers(0, 7))
def test_a_cut_and_its_entries_answer_as_the_whole_inside_and_nothing_outside(
    found: list[Any], first: int, last: int
) -> None:
    spans = [Span(n, n + 1, name) for n, name in enumerate(found) if name]
    if first >= last:
        with pytest.raises(Refused):
            cut(spans, first, last)
        return
    entries = beginnings(cut(spans, first, last), {})
    for at in range(9):
        inside = first <= at < last and at < len(found)
        assert _answer(entries, at) == (found[at] if inside else None)


def _answer(entries: list[Beginning], at: int) -> str | None:
    return next((entry.payload_id for entry in reversed(entries) if entry.since <= at), None)  # type: ignore[operator]


# --- withdrawals


def test_what_is_withdrawn_holds_no_more(shelf: ConditionsEditor) -> None:
    said = str(shelf.withdraw("offset", "9", "wrong sign"))
    assert said == f"offset_prompt_v1: accepted from 9:0 on, payload {offset(2.5).id[:12]}: withdrawn"
    assert held(shelf) == [("0:0 7:0", 0.0), ("7:0 open", 1.5)]
    assert "wrong sign" in shelf.history("offset")


def test_settled_runs_keep_it_and_the_author_is_told(anywhere: ConditionsEditor) -> None:
    settle(anywhere, 7)
    said = str(anywhere.withdraw("offset", "7", "wrong sign"))
    assert "offset_prompt_v1: shifted from 8:0 on" in said and said.endswith("runs it touches: 7")
    assert held(anywhere) == [("0:0 7:0", 0.0), ("7:0 8:0", 1.5), ("8:0 9:0", 0.0), ("9:0 open", 2.5)]


def test_both_tags_of_a_kind_are_meant(shelf: ConditionsEditor) -> None:
    enter(shelf, RunLumi(9), offset(2.5), "offset_express_v1")
    said = str(shelf.withdraw("offset", "9", "wrong sign")).splitlines()
    assert [line.partition(":")[0] for line in said] == ["offset_prompt_v1", "offset_express_v1"]
    enter(shelf, RunLumi(11), offset(2.5), "offset_express_v1")
    assert str(shelf.withdraw("offset", "11", "it too", "express")).startswith("offset_express_v1")


def test_a_withdrawal_of_nothing_is_refused(shelf: ConditionsEditor) -> None:
    with pytest.raises(Refused, match=r"no payload of offset_prompt_v1 begins at 8:0; .* begins at 7:0"):
        shelf.withdraw("offset", "8", "wrong")
    with pytest.raises(Refused, match="a withdrawal needs a reason"):
        shelf.withdraw("offset", "9", "  ")
    with pytest.raises(Refused, match="is past and cannot be changed"):
        shelf.withdraw("offset", "9", "wrong", "offset_prompt_v1@2")


# --- what there is


def test_global_tags_and_snapshots_are_listed(anywhere: ConditionsEditor) -> None:
    assert "prompt_v1" in anywhere.global_tags() and "offset_express_v1" in anywhere.global_tags()
    assert "@" not in anywhere.snapshots()
    settle(anywhere, 7, 8)
    enter(anywhere, RunLumi(11), offset(3.5))
    settle(anywhere, 11)
    rows = [line for line in anywhere.snapshots().splitlines() if "@" in line]
    assert len(rows) == 2 and "7, 8" in rows[0] and "11" in rows[1]


# --- differences


def test_two_tags_are_compared_with_values(shelf: ConditionsEditor) -> None:
    enter(shelf, RunLumi(8), offset(1.75, 90), "offset_express_v1")
    found = shelf.diff("offset_prompt_v1", "offset_express_v1", values=True)
    assert [(row.difference.since.run, str(row.difference.until)) for row in found.rows] == [  # type: ignore[union-attr]
        (7, "8:0"),
        (8, "9:0"),
        (9, "None"),
    ]
    [hits, mean] = found.rows[1].distances
    assert (mean.largest, mean.unit, mean.sigma) == (0.25, "cm", None) and hits.largest == 10
    text = found.text()
    enter(shelf, RunLumi(12), offset(2.0, extra=1.0), "offset_express_v1")
    assert "offset_prompt_v1 has none" in str(shelf.diff("offset_prompt_v1", "offset_express_v1", values=True))
    assert "0.25 cm" in text and "[8:0, 9:0)" in text and found.exit_code == 3
    assert str(shelf.diff("prompt", "express")).count("[") == 4


def test_sigma_is_told_where_there_are_errors(shelf: ConditionsEditor) -> None:
    shelf.create_tag("one", "offset")
    shelf.create_tag("other", "offset")
    enter(shelf, RunLumi(1), offset(1.0, mean_error=np.float64(0.3)), "one")
    enter(shelf, RunLumi(1), offset(2.0, mean_error=np.float64(0.4)), "other")
    [row] = shelf.diff("one", "other", values=True).rows
    assert {d.array: d.sigma for d in row.distances} == {"mean": pytest.approx(2.0), "mean_error": None}
    enter(shelf, RunLumi(5), offset(2.0, mean_error=np.float64(np.nan)), "other")
    said = str(shelf.diff("one", "other", values=True))
    assert "no number in one of the two: 1" in said and "inf" not in said


def test_the_same_is_the_same(shelf: ConditionsEditor) -> None:
    found = shelf.diff("prompt", "prompt_v1", values=True)
    assert str(found) == "prompt and prompt_v1 answer the same" and found.exit_code == 0


def test_one_tag_at_two_moments(anywhere: ConditionsEditor) -> None:
    with anywhere.world.database.read() as connection:
        numbers = [entry.sequence for entry in anywhere.world.conditions(connection).history("offset_prompt_v1")]
    found = anywhere.diff(f"offset_prompt_v1@{numbers[1]}", "offset_prompt_v1")
    assert [spoken(row.difference.since) for row in found.rows] == ["9:0"]
    # By snapshot and by time as well; all entries but the design values are of that noon.
    assert len(anywhere.diff(f"prompt_v1@{numbers[0]}", f"prompt@{numbers[2]}").rows) == 2
    assert not anywhere.diff("prompt@2100-01-01", "prompt").rows


def test_what_cannot_be_compared_is_refused(shelf: ConditionsEditor) -> None:
    shelf.create_tag("by_time", "offset", "time")
    with pytest.raises(Refused, match="goes by lumi, by_time by time"):
        shelf.diff("prompt", "by_time")
    with pytest.raises(UnknownTag, match="no tag or global tag 'promt'; did you mean 'prompt_v1'"):
        shelf.diff("promt", "express")
    with pytest.raises(Refused, match="'soon' is no entry number and no time"):
        shelf.diff("prompt@soon", "express")
    with shelf.world.database.begin() as connection:
        db = shelf.world.conditions(connection)
        db.create_tag("both", "offset", Clock.LUMI, shelf.world.conditions(connection).tag("by_time").sync)
        db.define_global_tag("both", {})
        db.create_tag("pedestals", "pedestal", Clock.LUMI, db.tag("both").sync)
        db.define_global_tag("two", {"offset": "both", "pedestal": "pedestals"})
    with pytest.raises(Refused, match="'both' is a tag and a global tag"):
        shelf.diff("both", "express")
    with pytest.raises(Refused, match="no kind is in both: pedestals has pedestal; prompt has offset"):
        shelf.diff("pedestals", "prompt")
    assert "only two has kind pedestal" in str(shelf.diff("two", "prompt"))
    with pytest.raises(Refused, match="two names 2 tags; copy them one by one"):
        shelf.copy("two", "mine")


def test_a_tag_of_another_kind_is_not_shown(shelf: ConditionsEditor) -> None:
    with shelf.world.database.begin() as connection:
        db = shelf.world.conditions(connection)
        db.create_tag("pedestals", "pedestal", Clock.LUMI, db.tag("offset_prompt_v1").sync)
    with pytest.raises(Refused, match="tag pedestals holds 'pedestal', not 'offset'"):
        shelf.show("offset", "pedestals")


def test_a_tag_by_time_is_shown_in_words(shelf: ConditionsEditor) -> None:
    shelf.create_tag("by_time", "offset", "time")
    enter(shelf, moment_from(Clock.TIME, "2026-05-01T12:00"), offset(1.0), "by_time")
    assert "[2026-05-01T12:00:00.000000, open)" in shelf.show("offset", "by_time")
    assert "2026-05-01T12:00:00.000000" in shelf.history("offset", "by_time")
    [interval] = shelf.intervals("offset", "by_time")
    with pytest.raises(ValueError, match="goes by time"):
        _ = interval.iov
