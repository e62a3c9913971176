"""Several writers at once: nothing is lost, and whoever comes second sees what the first one did."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import numpy as np
import pytest
from sqlalchemy import Engine

from calib.conditions import ConditionsDB
from calib.iov import Clock, RunLumi
from calib.late import Fate, FateKind
from calib.payload import Payload, PayloadStore
from calib.tags import SnapshotOutdated, Stamp, Sync

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


@pytest.mark.parametrize("writers", [2, 8])
def test_no_update_is_lost(engine: Engine, store: PayloadStore, ids: list[str], writers: int) -> None:
    each = 160 // writers

    def write(writer: int) -> list[Fate]:
        fates = []
        for n in range(each):
            with engine.begin() as connection:
                db = ConditionsDB(connection, store)
                fates.append(db.append("ab"[n % 2], RunLumi(writer, n), ids[n % 3], ANN))
        return fates

    with ThreadPoolExecutor(writers) as pool:
        made = [fate for fates in pool.map(write, range(writers)) for fate in fates]
    with engine.begin() as connection:
        db = ConditionsDB(connection, store)
        history = db.history("a") + db.history("b")
        assert sorted(entry.sequence for entry in history) == list(range(1, 161))
        assert {(entry.tag, entry.since, entry.sequence) for entry in history} == {
            (fate.tag, fate.given, fate.sequence) for fate in made
        }
        assert len(db.intervals("a")) + len(db.intervals("b")) == 160


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
