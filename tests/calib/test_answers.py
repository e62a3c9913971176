"""Look-ups one by one, and what is kept of them: bounded, never wrong, and never of what may be rolled back."""

from __future__ import annotations

import tracemalloc
from bisect import bisect_right
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine

from calib.answers import KEPT, AnswerCache, Held
from calib.conditions import ConditionsDB
from calib.iov import Clock, RunLumi
from calib.payload import Payload
from calib.reading import look_up
from calib.schema import conditions_metadata
from calib.tags import ENDLESS, Snapshot, Stamp, Sync, UnknownTag, WrongKind
from tests.calib.conditions_model import PayloadsInMemory
from tests.calib.conftest import open_sqlite

ANN = Stamp("ann", datetime(2026, 5, 1, tzinfo=UTC), "test")
STORE = PayloadsInMemory()


def payload(value: int) -> Payload:
    return Payload("k", {"x": np.array([value])})


def append(connection: Connection, run: int, value: int) -> None:
    ConditionsDB(connection, STORE).append("t", RunLumi(run), payload(value), ANN)


def make(connection: Connection) -> None:
    """A tag by lumisection with payload 1 from run 10 and 2 from run 20, and an empty one by time."""
    db = ConditionsDB(connection, STORE)
    db.create_tag("t", "k", Clock.LUMI, Sync.PROMPT)
    db.create_tag("u", "l", Clock.TIME, Sync.PROMPT)
    db.define_global_tag("g", {"k": "t", "l": "u"})
    append(connection, 10, 1)
    append(connection, 20, 2)


@pytest.fixture
def engine(tmp_path: Path) -> Any:
    made = open_sqlite(tmp_path / "c.sqlite")
    conditions_metadata.create_all(made)
    with made.begin() as connection:
        make(connection)
    yield made
    made.dispose()


class Asked:
    """The statements SQLite was given in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self.statements: list[str] = []
        raw: Any = connection.connection.driver_connection
        raw.set_trace_callback(self.statements.append)


def ids(connection: Connection, snapshot: Snapshot, cache: AnswerCache | None, *runs: int) -> list[str | None]:
    asked = look_up(ConditionsDB(connection, STORE), snapshot, cache)
    return [asked.payload_id("k", RunLumi(run)) for run in runs]


def test_uncached_each_look_up_asks_and_cached_none(engine: Engine) -> None:
    cache = AnswerCache()
    with engine.begin() as connection:
        db = ConditionsDB(connection, STORE)
        plain, kept = look_up(db, db.snapshot("g")), look_up(db, db.snapshot("g"), cache)
        asked = Asked(connection)
        for n in range(1, 6):
            assert plain.payload_id("k", RunLumi(15)) == payload(1).id
            assert len(asked.statements) == n
        del asked.statements[:]
        # One interval, wherever in it.
        held = [kept.payload_id("k", RunLumi(run, lumi)) for run, lumi in [(15, 3), (10, 0), (19, 9999), (15, 3)]]
        assert held == [payload(1).id] * 4
        assert len(asked.statements) == 2
        assert len(cache) == 1


def test_cache_serves_later_transactions_and_each_snapshot_by_itself(engine: Engine) -> None:
    cache = AnswerCache()
    with engine.begin() as connection:
        old = ConditionsDB(connection, STORE).snapshot("g")
        before = ids(connection, old, cache, 9, 15, 25)
    with engine.begin() as connection:
        append(connection, 12, 3)
        ConditionsDB(connection, STORE).withdraw("t", RunLumi(20), ANN)
    with engine.begin() as connection:
        new = ConditionsDB(connection, STORE).snapshot("g")
        one, two, three = (payload(value).id for value in (1, 2, 3))
        assert ids(connection, new, cache, 9, 11, 15, 25) == [None, one, three, three]
        asked = Asked(connection)
        assert ids(connection, old, cache, 9, 15, 25) == before == [None, one, two]
        assert not [statement for statement in asked.statements if "payload_id" in statement]


def test_what_may_be_rolled_back_is_not_kept(engine: Engine) -> None:
    """Numbers of entries that were rolled back are given again, to other entries."""
    cache = AnswerCache()
    with engine.connect() as connection, connection.begin() as transaction:
        append(connection, 15, 7)
        snapshot = ConditionsDB(connection, STORE).snapshot("g")
        assert ids(connection, snapshot, cache, 16) == [payload(7).id]
        transaction.rollback()
    assert len(cache) == 0
    with engine.begin() as connection:
        append(connection, 15, 8)
    with engine.begin() as connection:
        assert ConditionsDB(connection, STORE).snapshot("g") == snapshot
        assert ids(connection, snapshot, cache, 16) == [payload(8).id]
    assert len(cache) == 1


def test_questions_that_mean_nothing(engine: Engine) -> None:
    with engine.begin() as connection:
        db = ConditionsDB(connection, STORE)
        snapshot = db.snapshot("g")
        asked = look_up(db, snapshot)
        with pytest.raises(WrongKind, match="the snapshot has no kind 'm'; there are k, l"):
            asked.payload_id("m", RunLumi(1))
        with pytest.raises(ValueError, match="kind 'l' goes by time; give the time, ns since 1970"):
            asked.payload_id("l", RunLumi(1))
        assert asked.payload_id("l", RunLumi(1), time=5) is None
        with pytest.raises(ValueError, match="out of range"):
            asked.payload_id("k", RunLumi(1 << 31))
        with pytest.raises(UnknownTag, match="no global tag 'h'"):
            look_up(db, Snapshot("h", 0))
        coming = Snapshot("g", snapshot.sequence + 1)
        for ask in (look_up, lambda db, of: db.resolve(of, RunLumi(1), ["k"])):
            with pytest.raises(ValueError, match=f"no entry {coming.sequence} for the snapshot {coming}; the newest"):
                ask(db, coming)
    with engine.begin(), pytest.raises(ValueError, match="the transaction of this look-up is over; open another"):
        asked.payload_id("k", RunLumi(1))


def cut(begins: list[int], ids: list[str]) -> list[Held]:
    return [Held(*row) for row in zip(begins, [*begins[1:], ENDLESS], ids, strict=True)]


@given(
    tags=st.lists(st.sets(st.integers(1, 30), max_size=8), min_size=1, max_size=3),
    keep=st.integers(1, 8),
    questions=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(0, 40)), max_size=80),
)
def test_kept_answers_are_the_answers(tags: list[set[int]], keep: int, questions: list[tuple[int, int, int]]) -> None:
    cache, used = AnswerCache(keep), list[tuple[int, int, int]]()
    for number, as_of, at in questions:
        tag = number % len(tags)
        begins = [0, *sorted(tags[tag])]
        right = cut(begins, [f"{tag}-{as_of}-{begin}" for begin in begins])[bisect_right(begins, at) - 1]
        found = cache.get(tag, as_of, at)
        key = tag, as_of, right.since
        # Of all that was asked, the last `keep` intervals are there, and no other.
        assert found == (right if key in used[-keep:] else None)
        if found is None:
            cache.put(tag, as_of, right)
        used = [*(other for other in used if other != key), key]
        assert len(cache) == min(keep, len(used))


def test_cache_for_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="must keep one interval at least, not 0"):
        AnswerCache(0)


def test_cache_is_as_large_as_it_says() -> None:
    """At most 500 bytes an interval, however many are put in."""
    count = KEPT // 50
    tracemalloc.start()
    cache = AnswerCache(count)
    for n in range(2 * count):
        cache.put(1, 7, Held(10**12 + 10 * n, 10**12 + 10 * n + 10, f"{n:064x}"))
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(cache) == count
    assert 200 < used / count < 500


def test_threads_share_a_cache() -> None:
    held = cut(list(range(0, 100, 10)), [str(n) for n in range(10)])
    cache = AnswerCache(4)

    def ask(seed: int) -> int:
        chance, right = Random(seed), 0
        for _ in range(2000):
            at = chance.randrange(100)
            found = cache.get(1, 1, at)
            if found is None:
                cache.put(1, 1, held[at // 10])
            right += found in (None, held[at // 10])
        return right

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(4))) == [2000] * 4
    assert len(cache) == 4
