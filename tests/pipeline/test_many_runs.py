"""What a service does for many runs, counted: how often each is looked at, how many transactions it costs.

The work itself is not done: its results are made up, in the order a test wants them.
"""

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pytest
import sqlalchemy as sa

from calib.calibration import Outcome
from calib.iov import RunLumi
from calib.payload import Payload
from calib.state import pack_states
from jobs.events import JobDone
from jobs.ledger import Ledger, take_lease
from jobs.reduction import FileRecord, NodeReceipt, Receipt
from pipeline.chain import Chain
from pipeline.database import Database
from pipeline.express import Cut, RunContext
from pipeline.handshake import Rules
from pipeline.links import Link
from pipeline.model import Stream
from pipeline.service import Service
from pipeline.settings import settings_from
from pipeline.way import Part, Stage, Way
from pipeline.world import open_world, set_up
from tests.pipeline.tiny import Offset, Tiny, settings

RUNS = 48
MADE = Payload("offset", {"mean": np.float64(0.5), "hits": np.int64(40)}, {"mean": "cm"})


@dataclass(frozen=True)
class Counting(Database):
    """A database that counts the transactions that write."""

    begun: Counter

    @contextmanager
    def begin(self):
        self.begun["transactions"] += 1
        with super().begin() as connection:
            yield connection


class Seen(Chain):
    """A chain that counts how often somebody looks at a run."""

    def view(self, run):
        self.looks[run] += 1
        return super().view(run)


class MadeUp:
    """A runner whose jobs are done as soon as asked for, one a step, in the order `choose` gives."""

    def __init__(self, begin, epoch, state, choose):
        self._begin, self._epoch, self._choose = begin, epoch, choose
        self._state = Receipt((FileRecord(str(state), 0, ""),))
        self._waiting, self.paused = [], False

    def add(self, connection, job):
        Ledger(connection, self._epoch).add(job)

    def start(self, job, work, items):
        notes = {"conclusions": [concluded(job)]} if job.group.startswith("conditions-") else {}
        self._waiting.append((job, NodeReceipt((Receipt((), notes),), self._state)))

    def step(self, timeout=None):
        if not self._waiting:
            return []
        job, root = self._waiting.pop(self._choose(len(self._waiting)))
        with self._begin() as connection:
            Ledger(connection, self._epoch).add(job)
            Ledger(connection, self._epoch).commit(job.tree.root(job.name), root)
        return [JobDone(job, root)]


def concluded(job):
    """Every third run has a payload of its own; the others have too little data, and lean on those before them."""
    run = int(job.group.rpartition("-")[2])
    unit = RunLumi(run, 1).packed
    found = {"first": unit, "last": unit, "units": 1, "vetoed": [], "unconfirmed": False}
    if run % 3 == 0:
        return found | {"outcome": Outcome.MADE.value, "payload": MADE.id, "message": ""}
    return found | {"outcome": Outcome.NOT_ENOUGH_DATA.value, "payload": None, "message": "2 hits of 10"}


def way(world, run):
    """One unit of one run, as if it had been prepared."""
    cut = Cut(Stream.PHYSICS, f"events of {run}", f"events of {run}", leaves=1, fan_in=2)
    places = {"conditions_root": str(world.store.root), "area": str(world.area)}
    context = RunContext(run, cut, cut, Tiny(), (Offset(),), None, (), **places)
    units = np.array([RunLumi(run, 1).packed])
    rules = Rules(max_carried_runs=RUNS, failed="wait")
    return Way(context, units, (Part(rules, ("offset",), world.now() + 3600.0),))


@pytest.fixture
def work_off(tmp_path):
    """Takes runs to their end; gives their ways, how often each was looked at, and what was counted."""

    def call(runs, choose):
        world = set_up(open_world(settings_from(settings(tmp_path / f"area-{len(runs)}"))))
        world.store.put(MADE)
        # What is counted does not depend on it, and it takes most of the time.
        sa.event.listen(world.database.engine, "connect", lambda raw, _: raw.execute("PRAGMA synchronous = OFF"))
        world.database.engine.dispose()
        with world.database.begin() as connection:
            epoch = take_lease(connection)
        state = tmp_path / "state.npz"
        state.write_bytes(pack_states({"offset": Offset().empty()}))
        counting = Counting(world.database.engine, Counter())
        counted = replace(world, database=counting, books=replace(world.books, database=counting)).under(epoch)
        ways = [way(counted, run) for run in runs]
        chain = Seen("offset", {run: Link(Offset()) for run in runs}, None, str(world.store.root))
        chain.looks = Counter()
        runner = MadeUp(world.database.begin, epoch, state, choose)
        Service(counted, runner, ways, [chain], lambda news: None).work_off()
        world.database.close()
        return ways, chain.looks, counting.begun["transactions"]

    return call


def in_order(waiting):
    return 0


def any_order():
    rng = np.random.default_rng(17)
    return lambda waiting: int(rng.integers(waiting))


def test_a_run_is_looked_at_as_often_whether_others_wait_or_not(work_off):
    few, many = work_off(range(1, 13), in_order), work_off(range(1, RUNS + 1), in_order)
    for ways, looks, transactions in (few, many):
        assert {way.stage for way in ways} == {Stage.CERTIFIED}
        assert max(looks.values()) <= 3
        # With what begins and ends all: the turn of express, the release, the turns of finalize and of prompt.
        assert transactions <= 4 * len(ways) + 4


def test_when_results_come_in_any_order_those_that_wait_are_looked_at_little_more_often(work_off):
    ways, looks, transactions = work_off(range(1, RUNS + 1), any_order())
    assert {way.stage for way in ways} == {Stage.CERTIFIED}
    assert [way.parts[0].manifest.states()["offset"] for way in ways[2:]] == [
        {"fresh" if way.run % 3 == 0 else "carried": 1} for way in ways[2:]
    ]
    # Every look of one that waits halves, on the average, the runs it may still wait for.
    assert looks.total() <= len(ways) * (2 + np.log2(len(ways)))
    assert transactions <= 4 * len(ways) + 4
