"""Several writers at once: nothing is lost, and whoever comes second sees what the first one did."""

from __future__ import annotations

import multiprocessing
from bisect import bisect_right
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
import pytest
from sqlalchemy import Engine

from calib.conditions import ConditionsDB
from calib.iov import Clock, RunLumi
from calib.late import Fate, FateKind
from calib.payload import Payload, PayloadStore
from calib.tags import SnapshotOutdated, Stamp, Sync
from tests.calib.conditions_model import PayloadsInMemory
from tests.calib.writing import MOMENTS, Order, layout, replay, set_up, wait_for_all, write

NOW = datetime(2026, 5, 1, tzinfo=UTC)
ANN = Stamp("ann", NOW, "test")
WAIT_SECONDS = 60
A_MOMENT = 0.2


@pytest.fixture
def engine(empty_engine: Engine, store: PayloadStore) -> Engine:
    with empty_engine.begin() as connection:
        db = ConditionsDB(connection, store)
        for name in ("a", "b"):
            db.create_tag(name, "k", Clock.LUMI, Sync.PROMPT)
            db.define_global_tag(name, {"k": name})
    return empty_engine


@pytest.fixture(scope="module")
def ids(store: PayloadStore) -> list[str]:
    return [store.put(Payload("k", {"n": np.array([n])})) for n in range(3)]


def write_at_once(engine: Engine, writers: int, each: int, tags: int) -> None:
    """Processes append, withdraw and settle; the model does the same in the order they did, and must agree."""
    model = layout(tags)
    set_up(engine, model)
    url = engine.url.render_as_string(hide_password=False)
    orders = [Order(url, writer, each, tags) for writer in range(writers)]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.calib.writing"])
    barrier = context.Barrier(writers)
    with ProcessPoolExecutor(writers, context, wait_for_all, (barrier,)) as pool:
        done = [step for steps in pool.map(write, orders) for step in steps]
    assert sorted(step.turn for step in done) == list(range(1, len(done) + 1))
    # Some withdrawals and settlings find nothing to do, or come too late.
    assert len(done) > 0.6 * writers * each
    replay(model, done)
    with engine.begin() as connection:
        db = ConditionsDB(connection, PayloadsInMemory())
        made = [entry.sequence for name in model.tags for entry in db.history(name)]
        assert sorted(made) == list(range(1, len(made) + 1))
        told = [step.sequence for step in done if step.sequence is not None]
        assert len(set(told)) == len(told)
        assert set(told) <= set(made)
        for name, tag in model.tags.items():
            held = db.intervals(name)
            assert all(left.until is not None and left.until <= right.since for left, right in pairwise(held))
            begins = [tag.place(interval.since) for interval in held]
            for at in MOMENTS:
                place = bisect_right(begins, at) - 1
                holds = place >= 0 and (held[place].until is None or at < tag.place(held[place].until))
                assert (held[place].payload_id if holds else None) == tag.answer(at)


@pytest.mark.parametrize("writers", [2, 8])
def test_no_update_is_lost(empty_engine: Engine, writers: int) -> None:
    write_at_once(empty_engine, writers, 64 // writers, tags=18)


@pytest.mark.verify
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("writers", [2, 8])
def test_no_update_is_lost_in_many_thousands(empty_engine: Engine, writers: int) -> None:
    """13 000 writes and as many questions; four times that with both databases, over 10^5 operations in all."""
    write_at_once(empty_engine, writers, 13_000 // writers, tags=60)


def test_append_waits_for_settling_and_is_late(engine: Engine, store: PayloadStore, ids: list[str]) -> None:
    def append() -> Fate:
        with engine.begin() as connection:
            return ConditionsDB(connection, store).append("a", RunLumi(12), ids[0], ANN)

    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as connection:
            db = ConditionsDB(connection, store)
            db.settle(12, db.snapshot("a"), NOW)
            waits = pool.submit(append)
            with pytest.raises(TimeoutError):
                waits.result(A_MOMENT)
        fate = waits.result(WAIT_SECONDS)
    assert (fate.kind, fate.given, fate.runs) == (FateKind.SHIFTED, RunLumi(13), (12,))


def test_settling_waits_for_an_append_and_sees_it(engine: Engine, store: PayloadStore, ids: list[str]) -> None:
    with engine.begin() as connection:
        snapshot = ConditionsDB(connection, store).snapshot("a")

    def settle() -> list[str]:
        with engine.begin() as connection:
            return ConditionsDB(connection, store).settle(12, snapshot, NOW)

    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as connection:
            ConditionsDB(connection, store).append("a", RunLumi(12), ids[0], ANN)
            waits = pool.submit(settle)
            with pytest.raises(TimeoutError):
                waits.result(A_MOMENT)
        with pytest.raises(SnapshotOutdated):
            waits.result(WAIT_SECONDS)


def test_snapshot_gains_nothing_from_a_slow_writer(engine: Engine, store: PayloadStore, ids: list[str]) -> None:
    """A writer that numbers its entry early and commits late must not slip under a snapshot taken in between."""

    def append_b() -> int | None:
        with engine.begin() as connection:
            return ConditionsDB(connection, store).append("b", RunLumi(1), ids[1], ANN).sequence

    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as slow:
            first = ConditionsDB(slow, store).append("a", RunLumi(1), ids[0], ANN).sequence
            waits = pool.submit(append_b)
            with pytest.raises(TimeoutError):
                waits.result(A_MOMENT)
        second = waits.result(WAIT_SECONDS)
    assert first is not None
    assert second == first + 1


def test_rolled_back_writer_leaves_nothing(engine: Engine, store: PayloadStore, ids: list[str]) -> None:
    with engine.connect() as connection, connection.begin() as transaction:
        db = ConditionsDB(connection, store)
        db.append("a", RunLumi(1), ids[0], ANN)
        db.settle(1, db.snapshot("a"), NOW)
        transaction.rollback()
    with engine.begin() as connection:
        db = ConditionsDB(connection, store)
        assert (db.history("a"), db.settled_runs("a"), db.snapshot("a").sequence) == ([], [], 0)
