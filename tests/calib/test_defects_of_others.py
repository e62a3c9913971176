"""What the reference implementation of conditions databases, or a client of it, got wrong (nopayloaddb 5.0.0, July
2026): one test each."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, event

from calib.conditions import ConditionsDB
from calib.iov import LUMI_LIMIT, Clock, RunLumi
from calib.late import FateKind
from calib.payload import Payload, PayloadMissing, PayloadStore
from calib.reading import look_up
from calib.schema import conditions_metadata
from calib.tags import ConditionsError, Snapshot, Stamp, Sync
from tests.calib.conditions_model import PayloadsInMemory
from tests.calib.conftest import open_sqlite

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
ANN = Stamp("ann", NOON, "test")
WAIT_SECONDS = 60
A_MOMENT = 0.2
LAST_RUN = (1 << 31) - 1


@pytest.fixture
def db(db: ConditionsDB) -> ConditionsDB:
    """A tag `t` for prompt, by lumisection, alone in the global tag `g`."""
    return made(db)


def made(db: ConditionsDB) -> ConditionsDB:
    db.create_tag("t", "k", Clock.LUMI, Sync.PROMPT)
    db.define_global_tag("g", {"k": "t"})
    return db


def payload(value: int) -> Payload:
    return Payload("k", {"x": np.array([value])})


def begin(db: ConditionsDB, value: int, *at: int) -> FateKind:
    return db.append("t", RunLumi(*at), payload(value), ANN).kind


def spans(db: ConditionsDB) -> list[tuple[str, int]]:
    """Interval and value of all that holds."""
    return [(str(held.iov), int(db.store.get(held.payload_id).arrays["x"][0])) for held in db.intervals("t")]


def settle(db: ConditionsDB, run: int) -> None:
    db.settle(run, db.snapshot("g"), NOON)


def test_1_closed_interval_behind_an_earlier_one_in_a_settled_tag(db: ConditionsDB) -> None:
    """Defect 1: in the append-only state an interval with an end, after any earlier one, gave HTTP 500."""
    begin(db, 1, 10)
    settle(db, 10)
    assert [begin(db, value, run) for value, run in ((2, 20), (3, 30), (4, 25))] == [FateKind.ACCEPTED] * 3
    assert spans(db) == [
        ("[10:0, 20:0)", 1),
        ("[20:0, 25:0)", 2),
        ("[25:0, 30:0)", 4),
        ("[30:0, open)", 3),
    ]


def test_2_interval_before_the_first_one(db: ConditionsDB) -> None:
    """Defect 2: an interval before the first one gave UnboundLocalError; where the next begins was never used."""
    begin(db, 1, 10)
    assert begin(db, 2, 5) is FateKind.ACCEPTED
    assert spans(db) == [("[5:0, 10:0)", 2), ("[10:0, open)", 1)]


def test_3_interval_inside_another_one(db: ConditionsDB) -> None:
    """Defect 3: an interval inside another gave overlaps, moved ends by one, and a second open one overflowed."""
    begin(db, 1, 10)
    begin(db, 2, 40)
    begin(db, 1, 51)
    assert spans(db) == [("[10:0, 40:0)", 1), ("[40:0, 51:0)", 2), ("[51:0, open)", 1)]
    begin(db, 3, LAST_RUN)
    begin(db, 4, LAST_RUN, LUMI_LIMIT - 2)
    assert spans(db)[-2:] == [(f"[{LAST_RUN}:0, {LAST_RUN}:4294967294)", 3), (f"[{LAST_RUN}:4294967294, open)", 4)]
    with pytest.raises(ValueError, match="out of range"):
        begin(db, 5, LAST_RUN + 1)


@settings(max_examples=settings().max_examples // 5)
@given(begins=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), max_size=12))
def test_3_no_order_of_appends_makes_an_overlap(engine: Engine, begins: list[tuple[int, int]]) -> None:
    """Defect 3, for any order: intervals are disjoint, and each ends where the next begins."""
    with engine.connect() as connection, connection.begin() as transaction:
        db = made(ConditionsDB(connection, PayloadsInMemory()))
        for value, at in enumerate(begins):
            begin(db, value, *at)
        held = db.intervals("t")
        assert [interval.since for interval in held] == sorted(RunLumi(*at) for at in set(begins))
        assert all(left.until == right.since for left, right in pairwise(held))
        transaction.rollback()


def test_4_what_was_answered_yesterday_can_be_asked_again(db: ConditionsDB) -> None:
    """Defect 4: earlier intervals were trimmed in place, so that no earlier answer could be rebuilt."""
    begin(db, 1, 10)
    yesterday, before = db.snapshot("g"), spans(db)
    begin(db, 2, 5)
    begin(db, 3, 20)
    db.withdraw("t", RunLumi(10), ANN)
    assert [held.payload_id for held in db.intervals("t", yesterday.sequence)] == [payload(1).id]
    assert before == [("[10:0, open)", 1)]
    assert db.resolve(yesterday, RunLumi(30)).ids == {"k": payload(1).id}
    assert db.resolve(yesterday, RunLumi(5)).ids == {}


def test_4_an_append_reads_no_more_of_a_long_tag(tmp_path: Path) -> None:
    """Defect 4, its cost: every insert loaded all earlier intervals. Here in steps of the machine of SQLite."""
    engine = open_sqlite(tmp_path / "c.sqlite")
    conditions_metadata.create_all(engine)
    steps = []
    with engine.begin() as connection:
        db = made(ConditionsDB(connection, PayloadsInMemory()))
        raw: Any = connection.connection.driver_connection
        for value in range(1, 301):
            counted = [0]
            if value in (10, 300):
                raw.set_progress_handler(lambda counted=counted: counted.__setitem__(0, counted[0] + 1), 1)
            begin(db, value, value)
            raw.set_progress_handler(None, 0)
            steps += counted if counted[0] else []
    engine.dispose()
    short, long = steps
    assert long < 1.5 * short


def test_5_nothing_is_returned_in_a_gap(db: ConditionsDB) -> None:
    """Defect 5: the look-up ignored where an interval ends, and gave what had expired inside a gap."""
    settle(db, 14)
    begin(db, 1, 12)  # holds up to the settled run, in which nothing held
    begin(db, 2, 20)
    snapshot = db.snapshot("g")
    one_by_one = look_up(db, snapshot)
    for run, held in [(11, None), (12, 1), (13, 1), (14, None), (19, None), (20, 2)]:
        expected = None if held is None else payload(held).id
        at = RunLumi(run, 3)
        (segment,) = db.resolve_run(snapshot, [at.packed])
        assert db.resolve(snapshot, at).ids.get("k") == segment.ids.get("k") == expected
        assert one_by_one.payload_id("k", at) == expected
    assert spans(db) == [("[12:0, 14:0)", 1), ("[20:0, open)", 2)]


def test_6_lumisections_of_one_run_and_the_same_moment_twice(db: ConditionsDB) -> None:
    """Defect 6: equal runs gave NameError in one test for conflicts, and were always a conflict in the other."""
    assert [begin(db, lumi, 10, lumi) for lumi in (1, 50, 20)] == [FateKind.ACCEPTED] * 3
    assert spans(db) == [("[10:1, 10:20)", 1), ("[10:20, 10:50)", 20), ("[10:50, open)", 50)]
    assert begin(db, 7, 10, 20) is FateKind.ACCEPTED
    assert spans(db)[1] == ("[10:20, 10:50)", 7)


def test_7_nothing_deletes_or_changes_entries_or_takes_settling_back(db: ConditionsDB, engine: Engine) -> None:
    """Defect 7: the locked state allowed deletion, and could be left again."""
    begin(db, 1, 10)
    settle(db, 12)
    settled = [db.resolve(db.snapshot("g"), RunLumi(12)).ids]
    statements: list[str] = []

    def hear(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        statements.append(statement)

    event.listen(engine, "before_cursor_execute", hear)
    try:
        begin(db, 2, 11)
        begin(db, 3, 12)
        db.withdraw("t", RunLumi(10), ANN)
        db.withdraw("t", RunLumi(13), ANN)
        settle(db, 12)
        db.define_global_tag("other", {"k": "t"})
    finally:
        event.remove(engine, "before_cursor_execute", hear)
    words = {" ".join(statement.split()[:2]) for statement in statements if not statement.startswith("SELECT")}
    assert {word for word in words if not word.startswith("INSERT")} == {"UPDATE conditions_sequence"}
    settled.append(db.resolve(db.snapshot("g"), RunLumi(12)).ids)
    assert settled == [{"k": payload(1).id}] * 2
    assert db.settled_runs("t") == [12]


@pytest.fixture
def two_writers(empty_engine: Engine, store: PayloadStore) -> Iterator[Engine]:
    with empty_engine.begin() as connection:
        begin(made(ConditionsDB(connection, store)), 1, 10)
    yield empty_engine


def test_8_two_writers_do_not_interleave(two_writers: Engine, store: PayloadStore) -> None:
    """Defect 8: nothing locked a tag between reading what conflicts and writing."""

    def write(value: int, run: int) -> FateKind:
        with two_writers.begin() as connection:
            return begin(ConditionsDB(connection, store), value, run)

    with ThreadPoolExecutor(1) as pool:
        with two_writers.begin() as connection:
            db = ConditionsDB(connection, store)
            settle(db, 20)
            begin(db, 2, 12)
            second = pool.submit(write, 3, 14)
            with pytest.raises(TimeoutError):
                second.result(A_MOMENT)
        assert second.result(WAIT_SECONDS) is FateKind.ACCEPTED
    with two_writers.begin() as connection:
        db = ConditionsDB(connection, store)
        assert spans(db) == [
            ("[10:0, 12:0)", 1),
            ("[12:0, 14:0)", 2),
            ("[14:0, 20:0)", 3),
            # What held in the settled run before either of them wrote.
            ("[20:0, open)", 1),
        ]


def test_9_every_refusal_says_why_and_leaves_nothing(db: ConditionsDB) -> None:
    """Defect 9: what is against the rules came as HTTP 500, and nobody had to say who they are."""
    begin(db, 1, 10)
    settle(db, 10)
    newest = db.snapshot("g").sequence
    refusals = {
        "there is no tag 'u'": lambda: db.append("u", RunLumi(1), payload(1), ANN),
        "there is no global tag 'h'": lambda: db.snapshot("h"),
        "no payload 0000": lambda: db.append("t", RunLumi(11), "0" * 64, ANN),
        "this payload is of kind 'other'": lambda: db.append("t", RunLumi(11), Payload("other", {}), ANN),
        "begins at a run or unit": lambda: db.append("t", 7, payload(1), ANN),
        "no payload of t begins at 11:0": lambda: db.withdraw("t", RunLumi(11), ANN),
        "a withdrawal needs a reason": lambda: db.withdraw("t", RunLumi(10), Stamp("ann", NOON)),
        "needs the name of its author": lambda: db.append("t", RunLumi(11), payload(1), Stamp("", NOON)),
        "take another name": lambda: db.create_tag("t", "k", Clock.RUN, Sync.PROMPT),
        "never changes": lambda: db.define_global_tag("g", {}),
        "the newest is": lambda: db.resolve(Snapshot("g", newest + 1), RunLumi(1)),
    }
    for why, attempt in refusals.items():
        with pytest.raises((ConditionsError, ValueError, PayloadMissing), match=why):
            attempt()
    assert db.snapshot("g").sequence == newest
    assert spans(db) == [("[10:0, open)", 1)]


units = st.tuples(st.integers(0, LAST_RUN), st.integers(0, LUMI_LIMIT - 1))


@given(left=units, right=units)
def test_10_run_and_lumisection_are_one_integer_in_order(left: tuple[int, int], right: tuple[int, int]) -> None:
    """Defect 10: the joint number of run and lumisection was made of the run twice."""
    one, other = RunLumi(*left), RunLumi(*right)
    assert (one.packed < other.packed) == (left < right)
    assert RunLumi.unpack(one.packed) == left


def test_10_look_up_tells_run_from_lumisection(db: ConditionsDB) -> None:
    """Defect 10, where it showed: the answer at a lumisection."""
    begin(db, 1, 2, 7)
    begin(db, 2, 7, 2)
    snapshot = db.snapshot("g")
    held = [db.resolve(snapshot, RunLumi(*at)).ids.get("k") for at in ((2, 6), (2, 7), (7, 1), (7, 2), (7, 7))]
    assert held == [None, payload(1).id, payload(1).id, payload(2).id, payload(2).id]
