"""Random histories of the conditions database against a plain model: what was answered stays answered."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise

import hypothesis
import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import Engine

from calib.conditions import ConditionsDB
from calib.iov import Clock, RunLumi
from calib.late import FateKind
from calib.payload import Payload, PayloadStore
from calib.tags import Snapshot, SnapshotOutdated, Stamp, Sync

NOW = datetime(2026, 5, 1, tzinfo=UTC)
RUNS = range(2, 10)
LUMIS = (0, 1)
UNITS = [RunLumi(run, lumi) for run in RUNS for lumi in LUMIS]
TAGS = {"p": Sync.PROMPT, "l": Sync.PCL, "o": Sync.OFFLINE}
GLOBAL_TAGS = {"all": list(TAGS), "prompt": ["p"], "rereco": ["o", "l"]}
SHIFTS = {Sync.PROMPT, Sync.EXPRESS, Sync.HLT}

Answers = dict[tuple[str, RunLumi], str | None]


@dataclass
class Line:
    """An entry of the model. `payload` None: nothing holds from here."""

    since: RunLumi
    asked: RunLumi
    payload: str | None
    counts: bool = True


@dataclass
class ModelTag:
    """A tag as a list of lines that is searched from end to end."""

    sync: Sync
    lines: list[Line] = field(default_factory=list)
    settled: set[int] = field(default_factory=set)
    withdrawn: set[str] = field(default_factory=set)

    def holder(self, at: RunLumi, without: frozenset[str] = frozenset()) -> Line | None:
        best = None
        for line in self.lines:
            holds = line.counts and line.since <= at and line.payload not in without
            if holds and (best is None or line.since >= best.since):
                best = line
        return best

    def answer(self, at: RunLumi) -> str | None:
        line = self.holder(at)
        return line.payload if line else None

    def end(self, since: RunLumi) -> RunLumi:
        return min((x.since for x in self.lines if x.counts and x.since > since), default=RunLumi(99))

    def touched(self, since: RunLumi) -> list[int]:
        end = self.end(since)
        return sorted(run for run in self.settled if RunLumi(run) < end and since < RunLumi(run + 1))

    @property
    def first_safe(self) -> RunLumi:
        return RunLumi(max(self.settled, default=-1) + 1)

    def copy(self, at: RunLumi, line: Line | None) -> None:
        self.lines.append(Line(at, line.asked if line else at, line.payload if line else None))

    def append(self, since: RunLumi, payload: str) -> tuple[FateKind, RunLumi | None]:
        if since.run in self.settled:
            if self.sync not in SHIFTS:
                return (FateKind.QUEUED if self.sync is Sync.OFFLINE else FateKind.REFUSED), None
            holder = self.holder(self.first_safe)
            if holder is not None and holder.payload is not None and holder.asked > since:
                return FateKind.REFUSED, None
            self.lines.append(Line(self.first_safe, since, payload))
            return FateKind.SHIFTED, self.first_safe
        later = self.touched(since)
        if later:
            self.copy(RunLumi(later[0]), self.holder(RunLumi(later[0])))
        self.lines.append(Line(since, since, payload))
        return FateKind.ACCEPTED, since

    def withdraw(self, payload: str) -> None:
        """Settled units keep their answer; every other one gets the best that is not withdrawn. By brute force."""
        kept = {at: self.holder(at) for at in UNITS if at.run in self.settled}
        family = [line for line in self.lines if line.payload == payload]
        tops = [line for line in family if line.counts and self.holder(line.since) is line]
        spans = [(line.since, self.end(line.since)) for line in tops]
        self.withdrawn.add(payload)
        gone = frozenset(self.withdrawn)
        for line in family:
            if not (line in tops and line.since.run in self.settled):
                line.counts = False
        for since, end in sorted(spans):
            before_settled = since.run in self.settled
            for run in range(since.run, 100):
                at = max(RunLumi(run), since)
                if at >= end:
                    break
                if run in self.settled and not before_settled:
                    self.copy(at, kept[at])
                elif run not in self.settled and (before_settled or self._is_gone(at)):
                    self.copy(at, self.holder(at, gone))
                before_settled = run in self.settled

    def _is_gone(self, at: RunLumi) -> bool:
        holder = self.holder(at)
        return holder is not None and holder.payload in self.withdrawn


class PayloadsInMemory(PayloadStore):
    """A store without files: thousands of payloads are written here."""

    def __init__(self) -> None:
        super().__init__("memory")
        self.held: dict[str, Payload] = {}

    def put(self, payload: Payload) -> str:
        self.held[payload.id] = payload
        return payload.id

    def get(self, payload_id: str) -> Payload:
        return self.held[payload_id]


class History(RuleBasedStateMachine):
    """Appends, withdrawals, settling and snapshots of three tags, by turns of two authors."""

    units = st.sampled_from(UNITS)
    names = st.sampled_from(sorted(TAGS))
    authors = st.sampled_from(["ann", "bob"])
    global_tags = st.sampled_from(sorted(GLOBAL_TAGS))
    picks = st.floats(0, 1, exclude_max=True)

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.connection = engine.connect()
        self.transaction = self.connection.begin()
        self.db = ConditionsDB(self.connection, PayloadsInMemory())
        self.models = {name: ModelTag(sync) for name, sync in TAGS.items()}
        self.made = 0
        self.pinned: list[tuple[Snapshot, Answers]] = []
        self.settled: Answers = {}
        self.newest: tuple[Snapshot, Answers] = Snapshot("", 0), {}

    @initialize()
    def define(self) -> None:
        for name, sync in TAGS.items():
            self.db.create_tag(name, name, Clock.LUMI, sync)
        for name, tags in GLOBAL_TAGS.items():
            self.db.define_global_tag(name, {tag: tag for tag in tags})

    def answers(self, snapshot: Snapshot) -> Answers:
        tags = GLOBAL_TAGS[snapshot.global_tag]
        found: Answers = {(tag, at): None for tag in tags for at in UNITS}
        for run in RUNS:
            for segment in self.db.resolve_run(snapshot, [RunLumi(run, lumi).packed for lumi in LUMIS], tags):
                for lumi in LUMIS:
                    if segment.since <= RunLumi(run, lumi) < segment.until:
                        found |= {(kind, RunLumi(run, lumi)): id for kind, id in segment.ids.items()}
        return found

    def now(self) -> Answers:
        snapshot = self.db.snapshot("all")
        if self.newest[0] != snapshot:
            self.newest = snapshot, self.answers(snapshot)
        return self.newest[1]

    @rule(name=names, since=units, author=authors)
    def append(self, name: str, since: RunLumi, author: str) -> None:
        self.made += 1
        payload = Payload(name, {"n": np.array([self.made])})
        model, before = self.models[name], self.now()
        end, touched = model.end(since), model.touched(since)
        safe_end, first_safe = model.end(model.first_safe), model.first_safe
        kind, given = model.append(since, payload.id)
        fate = self.db.append(name, since, payload, Stamp(author, NOW))
        assert (fate.kind, fate.given, fate.runs) == (kind, given, tuple(touched))
        if kind is FateKind.ACCEPTED:
            gets = [at for at in UNITS if since <= at < min([end, *map(RunLumi, touched)])]
        else:
            gets = [at for at in UNITS if kind is FateKind.SHIFTED and first_safe <= at < safe_end]
        assert self.now() == before | {(name, at): payload.id for at in gets}

    @rule(name=names, pick=picks, author=authors)
    def withdraw(self, name: str, pick: float, author: str) -> None:
        model, before = self.models[name], self.now()
        begins = sorted({line.since for line in model.lines if line.counts and model.answer(line.since)})
        if not begins:
            return
        since = begins[int(pick * len(begins))]
        payload = model.answer(since)
        assert payload is not None
        again = payload in model.withdrawn
        if not again:
            model.withdraw(payload)
        fate = self.db.withdraw(name, since, Stamp(author, NOW, "wrong"))
        assert (fate.kind is FateKind.REFUSED) == again
        changed = {key for key, held in self.now().items() if held != before[key]}
        mine = {(name, at) for at in UNITS if before[name, at] == payload and at.run not in model.settled}
        assert changed == mine

    @rule(run=st.sampled_from(RUNS), global_tag=global_tags, pick=picks)
    def settle(self, run: int, global_tag: str, pick: float) -> None:
        newest_first = [self.db.snapshot(global_tag)]
        newest_first += [snapshot for snapshot, _ in reversed(self.pinned) if snapshot.global_tag == global_tag]
        snapshot = newest_first[int(pick**3 * len(newest_first))]
        tags = GLOBAL_TAGS[global_tag]
        keys = [(tag, RunLumi(run, lumi)) for tag in tags for lumi in LUMIS]
        held, newest = self.answers(snapshot), self.now()
        if any(held[key] != newest[key] for key in keys):
            try:
                self.db.settle(run, snapshot, NOW)
            except SnapshotOutdated:
                return
            raise AssertionError("settled an answer that the tag no longer gives")
        new = self.db.settle(run, snapshot, NOW)
        assert sorted(new) == sorted(tag for tag in tags if run not in self.models[tag].settled)
        self.settled |= {key: held[key] for key in keys}
        for tag in tags:
            self.models[tag].settled.add(run)

    @rule(global_tag=global_tags, pick=picks)
    def pin(self, global_tag: str, pick: float) -> None:
        newest = self.db.snapshot(global_tag).sequence
        snapshot = self.db.snapshot(global_tag, newest - int(pick**3 * newest))
        self.pinned.append((snapshot, self.answers(snapshot)))

    @invariant()
    def answers_are_those_of_the_model(self) -> None:
        if self.db.tags():
            assert self.now() == {(name, at): self.models[name].answer(at) for name in TAGS for at in UNITS}

    @invariant()
    def settled_answers_never_change(self) -> None:
        if self.settled:
            assert self.settled.items() <= self.now().items()

    @invariant()
    def withdrawn_payloads_hold_in_settled_runs_only(self) -> None:
        if any(model.withdrawn for model in self.models.values()):
            for (name, at), held in self.now().items():
                assert held not in self.models[name].withdrawn or at.run in self.models[name].settled

    @invariant()
    def intervals_are_disjoint_and_say_the_same(self) -> None:
        if not self.made:
            return
        now = self.now()
        for name in TAGS:
            held = self.db.intervals(name)
            assert all(left.until is not None and left.until <= right.since for left, right in pairwise(held))
            for at in UNITS:
                here = [v.payload_id for v in held if v.iov.contains(at)]
                assert here == ([] if now[name, at] is None else [now[name, at]])

    @invariant()
    def first_safe_is_behind_every_settled_run(self) -> None:
        for name, model in self.models.items():
            if self.made:
                assert self.db.first_safe(name) == model.first_safe

    def teardown(self) -> None:
        try:
            for snapshot, answers in self.pinned:
                assert self.answers(snapshot) == answers
        finally:
            self.transaction.rollback()
            self.connection.close()


INVARIANTS = [name for name, value in vars(History).items() if hasattr(value, "hypothesis_stateful_invariant")]


def walk(history: History, chance: random.Random, steps: int) -> None:
    """Go on by dice: longer and more even histories than those hypothesis finds worth trying."""
    history.define()
    for _ in range(steps):
        name, author, pick = chance.choice(sorted(TAGS)), chance.choice("ab"), chance.random()
        global_tag, since = chance.choice(sorted(GLOBAL_TAGS)), chance.choice(UNITS)
        match chance.choices(["append", "withdraw", "settle", "pin"], [50, 25, 15, 10])[0]:
            case "append":
                history.append(name, since, author)
            case "withdraw":
                history.withdraw(name, pick, author)
            case "settle":
                history.settle(since.run, global_tag, pick)
            case "pin":
                history.pin(global_tag, pick)
        for invariant_name in INVARIANTS:
            getattr(history, invariant_name)()


def share(engine: Engine) -> int:
    """How many examples each database gets; PostgreSQL runs the same statements, at three times the price."""
    return hypothesis.settings().max_examples // (8 if engine.dialect.name == "sqlite" else 50)


def test_histories_by_hypothesis(engine: Engine) -> None:
    settings = hypothesis.settings(max_examples=share(engine), stateful_step_count=20)
    run_state_machine_as_test(partial(History, engine), settings=settings)


def test_long_histories_by_dice(engine: Engine) -> None:
    assert len(INVARIANTS) == 5
    for seed in range(share(engine)):
        history = History(engine)
        try:
            walk(history, random.Random(seed), 40)
        except Exception as failure:
            failure.add_note(f"seed {seed}")
            raise
        finally:
            history.teardown()
