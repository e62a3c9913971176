"""A whole history is entered into an empty tag, gaps and all."""

from __future__ import annotations

import numpy as np
import pytest

from calib.conditions import ConditionsDB
from calib.iov import Clock, RunLumi
from calib.payload import Payload, PayloadMissing
from calib.tags import Beginning, Sync, TagExists, UnknownTag, WrongKind
from tests.calib.test_conditions import ANN, by_run, payload, settle, tag


def history(db: ConditionsDB, **values: int | None) -> list[Beginning]:
    """Payload `value`, or nothing, from run `rN` on."""
    return [
        Beginning(RunLumi(int(run[1:])), None if value is None else db.store.put(payload(value)), {"from": run})
        for run, value in values.items()
    ]


def test_what_is_filled_in_is_answered_gaps_and_all(db: ConditionsDB) -> None:
    name = tag(db)
    db.fill(name, history(db, r2=1, r4=None, r6=1, r8=2), ANN)
    assert by_run(db, name, 1, 2, 3, 4, 5, 6, 7, 8, 9) == [None, 1, 1, None, None, 1, 1, 2, 2]
    assert [entry.info["from"] for entry in db.history(name)] == ["r2", "r4", "r6", "r8"]
    # It goes on as any other tag.
    db.append(name, RunLumi(9), payload(3), ANN)
    db.withdraw(name, RunLumi(6), ANN.__class__("bob", ANN.now, "wrong"))
    assert by_run(db, name, 5, 6, 8, 9) == [None, None, 2, 3]


def test_a_snapshot_taken_before_does_not_see_it(db: ConditionsDB) -> None:
    name = tag(db)
    before = db.snapshot(name)
    db.fill(name, history(db, r2=1), ANN)
    assert by_run(db, before, 2) == [None] and by_run(db, name, 2) == [1]


def test_nothing_to_fill_in_is_nothing(db: ConditionsDB) -> None:
    name = tag(db)
    db.fill(name, [], ANN)
    assert db.history(name) == []


def test_only_an_empty_tag_is_filled(db: ConditionsDB) -> None:
    name = tag(db)
    db.append(name, RunLumi(1), payload(1), ANN)
    with pytest.raises(TagExists, match="in use already; only an empty one"):
        db.fill(name, history(db, r2=1), ANN)
    with pytest.raises(UnknownTag):
        db.fill("nowhere", [], ANN)


def test_a_settled_answer_is_not_filled_in_afterwards(db: ConditionsDB) -> None:
    name = tag(db)
    settle(db, name, 5)
    with pytest.raises(TagExists, match="in use already"):
        db.fill(name, history(db, r2=1), ANN)
    assert by_run(db, name, 5) == [None]


def test_what_does_not_fit_is_refused(db: ConditionsDB) -> None:
    name = tag(db)
    with pytest.raises(ValueError, match="in order, each moment once"):
        db.fill(name, history(db, r2=1, r1=2), ANN)
    with pytest.raises(ValueError, match="in order"):
        db.fill(name, [*history(db, r2=1), *history(db, r2=2)], ANN)
    other = db.store.put(Payload("pedestal", {"mean": np.zeros(2)}))
    with pytest.raises(WrongKind, match="is of kind 'pedestal'"):
        db.fill(name, [Beginning(RunLumi(1), other, {})], ANN)
    with pytest.raises(PayloadMissing):
        db.fill(name, [Beginning(RunLumi(1), "0" * 64, {})], ANN)
    assert db.history(name) == []


def test_it_goes_by_the_clock_of_the_tag(db: ConditionsDB) -> None:
    name = tag(db, Sync.OFFLINE, Clock.TIME)
    db.fill(name, [Beginning(1_000, db.store.put(payload(1)), {})], ANN)
    [found] = db.intervals(name)
    assert (found.since, found.until) == (1_000, None)
    run = tag(db, Sync.VALIDATION, Clock.RUN)
    with pytest.raises(ValueError, match="in order"):
        # The same run twice, on a clock that knows no lumisections.
        db.fill(run, [Beginning(RunLumi(3, 1), None, {}), Beginning(RunLumi(3, 2), None, {})], ANN)
