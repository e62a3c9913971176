"""A process that writes conditions beside others, at random, and notes in which order it got its turns."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Barrier

import numpy as np
from sqlalchemy import Column, Connection, Engine, Integer, MetaData, Table, create_engine, insert, update

from calib.conditions import ConditionsDB
from calib.iov import Clock, RunLumi
from calib.late import Fate
from calib.payload import Payload
from calib.tags import Snapshot, SnapshotOutdated, Stamp, Sync
from tests.calib.conditions_model import GRID, TICK_NS, Model, ModelTag, PayloadsInMemory, Told
from tests.calib.conftest import open_sqlite

NOW = datetime(2026, 5, 1, tzinfo=UTC)
RUNS = range(1, 40)
MOMENTS = range(GRID * RUNS.start, GRID * RUNS.stop)
WAIT_SECONDS = 120
# SQLite asks again every 0.1 s, so with many writers one may be passed over for long.
LOCKED_SECONDS = 600
PAUSE_SECONDS = 0.002

turns_metadata = MetaData()
turns = Table("turns", turns_metadata, Column("id", Integer, primary_key=True), Column("last", Integer))
"""Counts what was done, in the transactions that did it: the order for the model."""

Answers = dict[tuple[str, int], str | None]


def layout(tags: int) -> Model:
    """So many tags of every kind and clock; each global tag has ten of them. Offline ones are of one kind by clock."""
    made = {}
    for n in range(tags):
        clock, sync = list(Clock)[n % 3], list(Sync)[n // 3 % 6]
        kind = f"offline-{clock}" if sync is Sync.OFFLINE else f"kind{n}"
        made[f"tag{n}"] = ModelTag(kind, clock, sync)
    # Of one kind a global tag can have one tag only, so the tags of a clock lie far apart.
    groups = {f"g{n}": tuple(list(made)[n : n + 10]) for n in range(0, tags, 10)}
    return Model(made, groups)


def set_up(engine: Engine, model: Model) -> None:
    turns_metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(insert(turns).values(id=1, last=0))
        db = ConditionsDB(connection, PayloadsInMemory())
        for name, tag in model.tags.items():
            db.create_tag(name, tag.kind, tag.clock, tag.sync)
        for name, members in model.global_tags.items():
            db.define_global_tag(name, {model.tags[tag].kind: tag for tag in members})


@dataclass(frozen=True)
class Order:
    """What one process is to do."""

    url: str
    writer: int
    operations: int
    tags: int


@dataclass(frozen=True)
class Done:
    """A write: its turn, what it was, and what it was told (None: nothing, or it was refused)."""

    turn: int
    what: str
    where: str
    at: int
    payload: str = ""
    told: Told | None = None
    sequence: int | None = None


@dataclass
class Writer:
    engine: Engine
    order: Order
    done: list[Done] = field(default_factory=list)
    seen: list[tuple[Snapshot, RunLumi, dict[str, str]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.model = layout(self.order.tags)
        self.chance = random.Random(self.order.writer)
        self.stamp = Stamp(f"writer {self.order.writer}", NOW, "test")

    def work(self) -> None:
        for n in range(self.order.operations):
            with self.engine.begin() as connection:
                db = ConditionsDB(connection, PayloadsInMemory())
                what = self.chance.choices(["append", "withdraw", "settle"], [70, 20, 10])[0]
                {"append": self.append, "withdraw": self.withdraw, "settle": self.settle}[what](db, connection, n)
            with self.engine.begin() as connection:
                self.look(ConditionsDB(connection, PayloadsInMemory()))
            # Who comes back at once is always first.
            time.sleep(PAUSE_SECONDS * self.chance.random())
        for snapshot, at, ids in self.seen:
            with self.engine.begin() as connection:
                db = ConditionsDB(connection, PayloadsInMemory())
                assert db.resolve(snapshot, at, time=_time(at)).ids == ids

    def append(self, db: ConditionsDB, connection: Connection, n: int) -> None:
        name, tag = self._tag()
        at = tag.begin(self.chance.choice(MOMENTS))
        payload = Payload(tag.kind, {"n": np.array([self.order.writer, n])})
        fate = db.append(name, tag.moment(at), payload, self.stamp)
        self._note(connection, Done(0, "append", name, at, payload.id, _told(tag, fate), fate.sequence))

    def withdraw(self, db: ConditionsDB, connection: Connection, n: int) -> None:
        name, tag = self._tag()
        held = db.intervals(name)
        if not held:
            return
        since = self.chance.choice(held).since
        try:
            fate = db.withdraw(name, since, self.stamp)
        except ValueError:
            return  # somebody else has been faster
        told = _told(tag, fate)
        self._note(connection, Done(0, "withdraw", name, tag.place(since) or 0, fate.payload_id, told, fate.sequence))

    def settle(self, db: ConditionsDB, connection: Connection, n: int) -> None:
        name, run = self.chance.choice(sorted(self.model.global_tags)), self.chance.choice(RUNS)
        times = GRID * run * TICK_NS, (GRID * run + GRID - 1) * TICK_NS
        try:
            db.settle(run, db.snapshot(name), NOW, times)
        except SnapshotOutdated:
            return
        self._note(connection, Done(0, "settle", name, run))

    def look(self, db: ConditionsDB) -> None:
        snapshot = db.snapshot(self.chance.choice(sorted(self.model.global_tags)))
        at = RunLumi(*divmod(self.chance.choice(MOMENTS), GRID))
        self.seen.append((snapshot, at, dict(db.resolve(snapshot, at, time=_time(at)).ids)))
        if len(self.seen) > 100:
            self.seen.pop(self.chance.randrange(100))

    def _tag(self) -> tuple[str, ModelTag]:
        return self.chance.choice(list(self.model.tags.items()))

    def _note(self, connection: Connection, done: Done) -> None:
        grown = update(turns).values(last=turns.c.last + 1).returning(turns.c.last)
        self.done.append(replace(done, turn=connection.execute(grown).scalar_one()))


def _time(at: RunLumi) -> int:
    return (GRID * at.run + at.lumi) * TICK_NS


def _told(tag: ModelTag, fate: Fate) -> Told:
    return Told(fate.kind, tag.place(fate.given), fate.runs, tag.place(fate.until), fate.into)


@contextmanager
def opened(url: str) -> Iterator[Engine]:
    if url.startswith("sqlite"):
        engine = open_sqlite(Path(url.removeprefix("sqlite:///")), LOCKED_SECONDS)
    else:
        engine = create_engine(url)
    yield engine
    engine.dispose()


_all_here: list[Barrier] = []


def wait_for_all(barrier: Barrier) -> None:
    """Run first in each process: none writes before all are there."""
    _all_here.append(barrier)


def write(order: Order) -> list[Done]:
    """Do what is ordered; what was done, in order."""
    with opened(order.url) as engine:
        writer = Writer(engine, order)
        _all_here[0].wait(WAIT_SECONDS)
        writer.work()
    return writer.done


def replay(model: Model, done: list[Done]) -> None:
    """The same in the same order, one after the other; raises AssertionError where a fate differs."""
    for step in sorted(done, key=lambda step: step.turn):
        if step.what == "append":
            assert model.append(step.where, step.at, step.payload) == step.told, step
        elif step.what == "withdraw":
            tag = model.tags[step.where]
            assert tag.answer(step.at) == step.payload, step
            assert tag.withdraw(step.at) == step.told, step
        else:
            for name in model.global_tags[step.where]:
                model.tags[name].settle(step.at)
