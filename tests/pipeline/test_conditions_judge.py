"""Gates tried on past payloads: the rule against a naive loop, and a whole chain that keeps what it needs for it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from calib.gates import Decision, Gate, MaxMove, Significance, Verdict, judge
from calib.iov import RunLumi
from calib.payload import Payload
from pipeline.chain import Chain
from pipeline.cli import main
from pipeline.conditions_words import Refused
from pipeline.express import StateFile
from pipeline.links import Link
from pipeline.mistakes import SettingsError
from pipeline.rejudging import Entered, rejudge, with_settings
from pipeline.tier0 import Tier0
from pipeline.toml_text import toml_text
from pipeline.verdicts import Candidate, candidates, keep_verdicts, without_payload
from tests.pipeline.conditions_shelf import editor, offset
from tests.pipeline.tiny import Offset, write_file

MOVE = {"gate": "max_move", "array": "mean", "limit": 0.5, "unit": "cm"}


def value(mean: float) -> Payload:
    return Payload(
        "offset",
        {"mean": np.float64(mean), "mean_error": np.float64(0.01)},
        dict.fromkeys(("mean", "mean_error"), "cm"),
    )


STORE = {value(tenth / 10).id: value(tenth / 10) for tenth in range(11)}


def gates(limit: float, n_sigma: float) -> list[Gate]:
    return [MaxMove("mean", limit, "cm"), Significance("mean", n_sigma, unit="cm")]


def chain(means: list[int], entered: dict[int, int], asked: list[Gate]) -> list[tuple[str | None, Verdict]]:
    """What is held to what, run by run, and what the gates say: as the loop would have gone."""
    told, held = [], None
    for run, mean in enumerate(means, 1):
        held = value(entered[run] / 10).id if run in entered else held
        verdict = judge(value(mean / 10), STORE[held] if held else None, asked)
        told.append((held, verdict))
        held = value(mean / 10).id if verdict.decision is Decision.PUBLISH else held
    return told


settings_of_gates = st.tuples(st.sampled_from([0.15, 0.35, 2.0]), st.sampled_from([0.0, 12.0, 30.0]))


@given(
    st.lists(st.integers(0, 10), max_size=8),
    st.dictionaries(st.integers(1, 8), st.integers(0, 10), max_size=2),
    settings_of_gates,
    settings_of_gates,
)
def test_other_gates_say_what_the_loop_under_them_would_have(
    means: list[int], entered: dict[int, int], then: tuple[float, float], now: tuple[float, float]
) -> None:
    before = chain(means, entered, gates(*then))
    found = [
        Candidate(
            RunLumi(run, 1).packed,
            RunLumi(run, 9).packed,
            value(mean / 10).id,
            verdict.decision,
            "; ".join(verdict.reasons),
            verdict.measures,
            held or "",
        )
        for run, (mean, (held, verdict)) in enumerate(zip(means, before, strict=True), 1)
    ]
    people = [Entered(RunLumi(run).packed, value(mean / 10).id) for run, mean in entered.items()]
    told = rejudge(found, lambda run: gates(*now), people, STORE.__getitem__)
    after = chain(means, entered, gates(*now))
    assert [(one.held_to, one.now) for one in told] == after
    assert [one.differs for one in told] == [
        a.decision is not b.decision for (_, a), (_, b) in zip(before, after, strict=True)
    ]
    # The same gates say the same, whatever people did to the tag meanwhile.
    assert not any(one.differs for one in rejudge(found, lambda run: gates(*then), [], STORE.__getitem__))


def test_a_payload_that_was_rejected_and_is_not_now_changes_what_follows() -> None:
    found = [
        Candidate(RunLumi(n).packed, RunLumi(n, 9).packed, value(n / 10).id, d)
        for n, d in ((1, Decision.PUBLISH), (5, Decision.REJECT), (6, Decision.REJECT))
    ]
    told = rejudge(found, lambda run: [MaxMove("mean", 0.45, "cm")], [], STORE.__getitem__)
    assert [one.now.decision.value for one in told] == ["publish"] * 3
    assert told[2].held_to == value(0.5).id
    told = rejudge(found, lambda run: [MaxMove("mean", 0.05 if run == 5 else 0.6, "cm")], [], STORE.__getitem__)
    assert [one.now.decision.value for one in told] == ["publish", "reject", "publish"]
    assert told[2].held_to == value(0.1).id


# --- settings of gates


def test_a_setting_is_changed_by_name() -> None:
    tables = [MOVE, {**MOVE, "array": "width"}, {"gate": "min_entries", "array": "hits", "minimum": 5}]
    assert with_settings(tables, {"max_move.width.limit": 2.0, "min_entries.minimum": 7}) == [
        MOVE,
        {**MOVE, "array": "width", "limit": 2.0},
        {"gate": "min_entries", "array": "hits", "minimum": 7},
    ]
    assert tables[1]["limit"] == 0.5


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"max_move.limit": 1.0}, r"a setting of 2 gates: say max_move.mean.limit, max_move.width.limit"),
        ({"max_move.hits.limit": 1.0}, r"no gate max_move of hits is in force; did you mean `max_move.width`"),
        ({"maxmove.limit": 1.0}, r"no gate maxmove is in force; .*max_move.mean"),
        ({"limit": 1.0}, r"is no setting of a gate, such as max_move.limit"),
        ({"max_move.mean.limt": 1.0}, r"gate max_move has no setting `limt`; did you mean `limit`"),
        ({"max_move.mean.limit": "wide"}, r"`limit` of gate max_move is a number, not 'wide'"),
        ({"max_move.mean.limit": -1.0}, r"limit is a distance above 0, not -1.0"),
    ],
)
def test_a_setting_that_is_none_is_refused(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(Refused, match=word):
        with_settings([MOVE, {**MOVE, "array": "width"}], changes)


SHARE = {"gate": "moved_share", "share": 0.01, "group": 128}
TWO: list[dict[str, Any]] = [
    SHARE | {"array": "mean"},
    SHARE | {"array": "noise"},
    SHARE | {"array": "mean", "share": 0.0001, "group": 0, "n_sigma": 6.0},
    SHARE | {"array": "status"},
]
"""as REF10 has them: of chips, and of single channels"""
NOT_IN_FORCE = "is in force; did you mean"


def test_every_gate_can_be_named() -> None:
    """Also two of a kind that look at the same array."""
    names = ["mean.1", "noise", "mean.2", "status"]
    changed = with_settings(TWO, {f"moved_share.{name}.share": 0.5 for name in names})
    assert changed == [{**table, "share": 0.5} for table in TWO]
    for at, name in enumerate(names):
        found = with_settings(TWO, {f"moved_share.{name}.share": 0.5})
        assert [one for one in range(4) if found[one] != TWO[one]] == [at]
    many = [{"gate": "finite"}, MOVE, {"gate": "finite", "arrays": ["mean"]}]
    assert with_settings(many, {"finite.2.arrays": ["width"]})[2]["arrays"] == ["width"]


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("moved_share.mean.limit", r"^gate moved_share has no setting `limit`; there are array, share, n_sigma, floor"),
        ("moved_share.limit", r"^gate moved_share has no setting `limit`"),
        (
            "moved_share.mean.share",
            r"a setting of 2 gates: say moved_share.mean.1.share \(of share 0.01, group 128\), "
            r"moved_share.mean.2.share \(of share 0.0001, group 0, n_sigma 6.0\)$",
        ),
        (
            "moved_share.share",
            r"setting of 4 gates: say moved_share.mean.1.share \(of .*\), moved_share.noise.share, moved_share.mean.2",
        ),
        (
            "moved_share.mean.3.share",
            rf"moved_share of mean.3 {NOT_IN_FORCE} `moved_share.mean.[12]`",
        ),
        ("moved_share.noise.1.share", rf"moved_share of noise.1 {NOT_IN_FORCE} `moved_share.noise`"),
    ],
)
def test_of_gates_of_a_kind_and_an_array_each_is_told_by_what_it_has_otherwise(name: str, word: str) -> None:
    with pytest.raises(Refused, match=word):
        with_settings(TWO, {name: 0.001})


def test_without_gates_there_is_nothing_to_set() -> None:
    with pytest.raises(Refused, match="no gate max_move is in force; none is in force"):
        with_settings([], {"max_move.limit": 1.0})


# --- what is kept


def note(run: int, payload: str | None, first: int = 1, outcome: str = "made") -> dict[str, Any]:
    units = {"first": RunLumi(run, first).packed, "last": RunLumi(run, 9).packed}
    return {**units, "outcome": outcome, "payload": payload, "message": "few", "vetoed": [], "unconfirmed": False}


def test_verdicts_are_kept_for_every_run_of_a_span_and_what_gave_nothing(tmp_path: Path) -> None:
    shelf = editor(tmp_path)
    world = shelf.world
    for mean in (0.0, 1.0):
        world.store.put(offset(mean))
    link = Link(Offset(granularity="span"), (MaxMove("mean", 0.5, "cm"),))
    found = Chain("offset", {7: link, 8: link}, offset(0.0).id, str(world.store.root))
    for run in (7, 8):
        found.ready(run, StateFile("", ""))
    spanning = note(7, offset(1.0).id) | {"last": RunLumi(8, 4).packed}
    found.concluded(8, [spanning, note(8, None, 5, "not enough data")], world.store)
    with world.books.begin() as connection:
        keep_verdicts(connection, world.books, found, 8)
    documents = world.books.documents("verdicts offset")
    assert sorted(documents) == [7, 8]
    [candidate] = candidates(documents.values())
    assert candidate.decision is Decision.REJECT and candidate.held_to == offset(0.0).id
    assert candidate.measures[0].value == 1.0 and candidate.last == RunLumi(8, 4).packed
    assert without_payload(documents.values()) == 1
    tried = shelf.judge("offset", gates=gates_file(tmp_path, 2.0))
    assert len(tried.rows) == 1 and "1 intervals gave no payload and are not judged" in str(tried)
    assert "7:1 to 8:4" in str(tried) and tried.exit_code == 3
    # Asked for one run of the span, it is there too.
    assert len(shelf.judge("offset", gates=gates_file(tmp_path, 2.0), runs="7").rows) == 1
    assert not shelf.judge("offset", gates=gates_file(tmp_path, 2.0), runs="9-").rows
    world.database.close()


def gates_file(folder: Path, limit: float, **more: Any) -> Path:
    path = folder / "candidate.toml"
    path.write_text(toml_text({"gates": {"offset": [{**MOVE, "limit": limit}]}, **more}))
    return path


# --- a whole chain


@dataclass(frozen=True)
class Watch:
    """Notes, whenever a run has been released, how many runs have their verdicts on record."""

    folder: Path

    def __call__(self, point: str) -> None:
        if point == "released":
            with closing(sqlite3.connect(self.folder / "area" / "tier0.db")) as database:
                asked = "SELECT count(*) FROM catalog_documents WHERE key = 'verdicts offset/v1'"
                [(found,)] = database.execute(asked).fetchall()
            with (self.folder / "on record").open("a") as file:
                file.write(f"{found}\n")


@pytest.fixture(scope="module")
def past(joined: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Runs 7 to 10 with means of 0.2, 1.4, 0.5 and 1.5 cm, under a gate that takes moves up to 0.5 cm."""
    from tests.pipeline.tiny import settings

    folder = tmp_path_factory.mktemp("past")
    plain = settings(folder / "area", cluster=joined, gates={"offset": [MOVE]}, handshake={"failed": "fallback"})
    means = {7: 0.2, 8: 1.4, 9: 0.5, 10: 1.5}
    files = [write_file(folder / f"{run}.root", run, lumis=2, mean=mean) for run, mean in means.items()]
    (folder / "tiny.toml").write_text(toml_text(plain))
    with Tier0(plain, probe=Watch(folder)) as tier0:
        tier0.run(*files, progress=False)
        yield tier0.conditions, folder


def test_a_verdict_is_on_record_with_what_is_done_on_it(past: Any) -> None:
    seen = [int(line) for line in (past[1] / "on record").read_text().split()]
    assert len(seen) == 4 and all(found >= released for released, found in enumerate(seen, 1))


def decisions(tried: Any) -> list[tuple[str, str]]:
    return [(str(row.candidate.decision), str(row.now.decision)) for row in tried.rows]


def test_the_gates_in_force_say_what_they_said(past: Any) -> None:
    tried = past[0].judge("offset")
    assert decisions(tried) == [("publish",) * 2, ("reject",) * 2, ("publish",) * 2, ("reject",) * 2]
    assert tried.exit_code == 0 and "0 of 4 payloads would be judged otherwise" in str(tried)
    then = [row.candidate.measures for row in tried.rows]
    assert then == [row.now.measures for row in tried.rows] and all(then)


def test_a_wider_gate_lets_more_pass_and_what_follows_is_held_to_it(past: Any) -> None:
    tried = past[0].judge("offset", {"max_move.limit": 1.3})
    assert decisions(tried) == [("publish",) * 2, ("reject", "publish"), ("publish",) * 2, ("reject", "publish")]
    assert tried.rows[2].held_to == tried.rows[1].candidate.payload
    assert "2 of 4 payloads would be judged otherwise: 2 reject -> publish" in str(tried)
    [now], [then] = tried.rows[2].now.measures, tried.rows[2].candidate.measures
    assert now.value > then.value
    words = [f"largest move of mean {now.value:.6g} cm (1.3)", f"then {then.value:.6g} cm (0.5)"]
    assert ", ".join(words) in tried.text(width=400)
    assert len(past[0].judge("offset", {"max_move.limit": 1.3}, runs="8-9").rows) == 2


def test_a_file_of_gates_by_run(past: Any) -> None:
    conditions, folder = past
    by_run = {"for": [{"runs": "8", "gates": {"offset": [{**MOVE, "limit": 0.1}]}, "express": {"fraction": "1/2"}}]}
    tried = conditions.judge("offset", gates=gates_file(folder, 1.3, **by_run))
    assert [now for _, now in decisions(tried)] == ["publish", "reject", "publish", "publish"]
    with pytest.raises(Refused, match="give a file of gates, or settings to change, not both"):
        conditions.judge("offset", {"max_move.limit": 1.0}, gates=folder / "candidate.toml")
    (folder / "none.toml").write_text("[gates]\n")
    with pytest.raises(Refused, match=r"none.toml has no \[\[gates.offset\]\]"):
        conditions.judge("offset", gates=folder / "none.toml")
    (folder / "wrong.toml").write_text('[[gates.offset]]\ngate = "max_mov"\n')
    with pytest.raises(Refused, match="there is no gate 'max_mov'; did you mean `max_move`"):
        conditions.judge("offset", gates=folder / "wrong.toml")
    (folder / "wrong.toml").write_text("gates = 3\n")
    with pytest.raises(SettingsError, match="`gates`"):
        conditions.judge("offset", gates=folder / "wrong.toml")
    (folder / "wrong.toml").write_text("for = 3\n")
    with pytest.raises(SettingsError, match="`for`"):
        conditions.judge("offset", gates=folder / "wrong.toml")
    (folder / "wrong.toml").write_text("gates =")
    with pytest.raises(Refused, match="is no TOML"):
        conditions.judge("offset", gates=folder / "wrong.toml")
    with pytest.raises(Refused, match="cannot be read"):
        conditions.judge("offset", gates=folder / "nowhere.toml")


def test_other_settings_judge_what_was_made_under_the_old(past: Any) -> None:
    _, folder = past
    changed = Tier0(
        {
            "experiment": {"name": "tests.pipeline.tiny:Tiny"},
            "storage": {"area": str(folder / "area")},
            "gates": {"offset": [{**MOVE, "limit": 1.3}]},
        }
    ).conditions
    assert changed.judge("offset").version == 1 and len(changed.judge("offset").changes) == 2
    with pytest.raises(Refused, match="no payload of kind offset was made and judged in processing version 7 yet"):
        changed.judge("offset", version=7)
    changed.world.database.close()


def test_nothing_judged_yet_is_said(tmp_path: Path) -> None:
    shelf = editor(tmp_path)
    with pytest.raises(Refused, match="no payload of kind offset was made and judged yet"):
        shelf.judge("offset")
    with pytest.raises(Refused, match="there is no kind 'ofset'"):
        shelf.judge("ofset")
    shelf.world.database.close()


def test_judge_on_the_command_line(past: Any) -> None:
    def call(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(main, ["conditions", "judge", "offset", *words, "-s", str(past[1] / "tiny.toml")])
        return done.exit_code, done.output

    assert call()[0] == 0
    code, said = call("--set", "max_move.limit=1.3", "--runs", "1-99")
    assert code == 3 and "publish *" in said and "largest move of mean" in said
    code, said = call("--set", "max_move.limit")
    assert code == 2 and "write GATE.KEY=VALUE" in said
    code, said = call("--set", "max_move.unit=mm")
    assert code == 3 and "the gate has mean in mm, the payload in cm" in said
    code, said = call("--runs", "many")
    assert code == 1 and "no run range" in said
    code, said = call("--runs", "900-999")
    assert code == 2 and "no payload of kind offset was judged in these runs; runs 7 to 10 were judged" in said
