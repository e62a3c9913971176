"""Random histories of the conditions database against a plain model: what was answered stays answered."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise

import hypothesis
import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import Engine

from calib.answers import AnswerCache, LookUp
from calib.conditions import ConditionsDB
from calib.iov import Clock, RunLumi
from calib.late import Fate, FateKind
from calib.payload import Payload
from calib.tags import Entry, Snapshot, SnapshotOutdated, Stamp, Sync
from tests.calib.conditions_model import GRID, TICK_NS, Model, ModelTag, PayloadsInMemory, Told

NOON = datetime(2026, 5, 1, tzinfo=UTC)
RUNS = range(2, 7)
# One run more than are ever settled.
MOMENTS = range(GRID * RUNS.start, GRID * (RUNS.stop + 1))
GLOBAL_TAGS = {"all": ("a", "b", "old"), "prompt": ("a",), "next": ("b", "new")}
EVERYTHING = ("all", "next")
KEPT = 6

Answers = dict[tuple[str, int], str | None]
Snapshots = dict[str, Snapshot]

syncs = st.sampled_from(list(Sync))
clocks = st.sampled_from(list(Clock))


class History(RuleBasedStateMachine):
    """Appends, withdrawals, settling, snapshots and look-ups of four tags, by turns of two authors, as time goes on.

    Tags `a` and `b` are of any kind and clock; `old` and `new` are offline tags of one kind.
    """

    moments = st.sampled_from(MOMENTS)
    names = st.sampled_from(["a", "b", "old", "new"])
    authors = st.sampled_from(["ann", "bob"])
    global_tags = st.sampled_from(sorted(GLOBAL_TAGS))
    picks = st.floats(0, 1, exclude_max=True)

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.connection = engine.connect()
        self.transaction = self.connection.begin()
        self.db = ConditionsDB(self.connection, PayloadsInMemory())
        self.model = Model({}, {})
        self.made = 0
        self.now = NOON
        self.times: list[tuple[datetime, int]] = []
        self.pinned: list[tuple[Snapshot, Answers]] = []
        self.settled: Answers = {}
        self.newest: tuple[int, Answers] = -1, {}
        self.told: dict[str, list[Fate]] = {}
        self.histories: dict[str, list[Entry]] = {}
        self.authors_of: dict[int, str] = {}
        self.cache = AnswerCache(KEPT)

    @initialize(of_a=st.tuples(clocks, syncs), of_b=st.tuples(clocks, syncs), offline=clocks)
    def define(self, of_a: tuple[Clock, Sync], of_b: tuple[Clock, Sync], offline: Clock) -> None:
        tags = {"a": ModelTag("a", *of_a), "b": ModelTag("b", *of_b)}
        tags |= {name: ModelTag("offline", offline, Sync.OFFLINE) for name in ("old", "new")}
        self.model = Model(tags, GLOBAL_TAGS)
        for name, tag in tags.items():
            self.db.create_tag(name, tag.kind, tag.clock, tag.sync)
            self.told[name], self.histories[name] = [], []
        for name, members in GLOBAL_TAGS.items():
            self.db.define_global_tag(name, {tags[tag].kind: tag for tag in members})

    def answers(self, snapshot: Snapshot) -> Answers:
        of_kind = {self.model.tags[tag].kind: tag for tag in GLOBAL_TAGS[snapshot.global_tag]}
        found: Answers = {(tag, at): None for tag in of_kind.values() for at in MOMENTS}
        for run in range(RUNS.start, RUNS.stop + 1):
            here = range(GRID * run, GRID * (run + 1))
            units, times = [RunLumi(run, at % GRID).packed for at in here], [TICK_NS * at for at in here]
            for segment in self.db.resolve_run(snapshot, units, of_kind, times):
                for at in here:
                    if segment.since <= RunLumi(run, at % GRID) < segment.until:
                        found |= {(of_kind[kind], at): id for kind, id in segment.ids.items()}
        return found

    def all_now(self) -> Answers:
        sequence = self.db.snapshot("all").sequence
        if self.newest[0] != sequence:
            found = [self.answers(Snapshot(name, sequence)) for name in EVERYTHING]
            self.newest = sequence, {key: id for answers in found for key, id in answers.items()}
        return self.newest[1]

    def stamp(self, author: str) -> Stamp:
        self.now += timedelta(minutes=1)
        return Stamp(author, self.now, "test")

    def as_told(self, name: str, fate: Fate) -> Told:
        place = self.model.tags[name].place
        return Told(fate.kind, place(fate.given), fate.runs, place(fate.until), fate.into)

    def note(self, name: str, fate: Fate, author: str) -> None:
        if fate.runs:
            self.told[name].append(fate)
        if fate.sequence is not None:
            self.authors_of[fate.sequence] = author
        self.times.append((self.now, self.db.snapshot("all").sequence))

    @rule(name=names, at=moments, author=authors)
    def append(self, name: str, at: int, author: str) -> None:
        self.made += 1
        model, before = self.model, self.all_now()
        tag, payload = model.tags[name], Payload(model.tags[name].kind, {"n": np.array([self.made])})
        since = tag.begin(at)
        where = model.tags[model.unused(name) or name] if tag.is_settled(since) and tag.sync is Sync.OFFLINE else tag
        begin = tag.first_safe if tag.is_settled(since) and where is tag else since
        end = where.end(begin)
        told = model.append(name, since, payload.id)
        fate = self.db.append(name, tag.moment(at), payload, self.stamp(author))
        self.note(name, fate, author)
        assert (self.as_told(name, fate), tag.place(fate.asked)) == (told, since)
        gets = range(0) if told.given is None else range(begin, end if told.until is None else told.until)
        assert self.all_now() == before | {(told.into or name, at): payload.id for at in MOMENTS if at in gets}

    @rule(name=names, pick=picks, author=authors)
    def withdraw(self, name: str, pick: float, author: str) -> None:
        tag, before = self.model.tags[name], self.all_now()
        begins = sorted({line.since for line in tag.lines if line.counts and tag.answer(line.since)})
        if not begins:
            return
        since = begins[int(pick * len(begins))]
        payload = tag.answer(since)
        told = tag.withdraw(since)
        fate = self.db.withdraw(name, tag.moment(since), self.stamp(author))
        self.note(name, fate, author)
        assert (self.as_told(name, fate), fate.payload_id) == (told, payload)
        now = self.all_now()
        changed = {key for key, held in now.items() if held != before[key]}
        open_ones = {(name, at) for at in MOMENTS if before[name, at] == payload and not tag.is_settled(at)}
        assert changed == (set() if told.kind is FateKind.REFUSED else open_ones)
        # A gap opens only where nothing else is left to hold.
        sound = [line.since for line in tag.lines if line.payload and line.payload not in tag.withdrawn]
        gaps_before = [line.since for line in tag.lines if line.counts and line.payload is None]
        for _, at in changed:
            assert now[name, at] or not any(since <= at for since in sound) or any(since <= at for since in gaps_before)

    @rule(run=st.sampled_from(RUNS), global_tag=global_tags, pick=picks)
    def settle(self, run: int, global_tag: str, pick: float) -> None:
        newest_first = [self.db.snapshot(global_tag)]
        newest_first += [snapshot for snapshot, _ in reversed(self.pinned) if snapshot.global_tag == global_tag]
        snapshot = newest_first[int(pick**3 * len(newest_first))]
        times = GRID * run * TICK_NS, (GRID * run + GRID - 1) * TICK_NS
        tags = {name: self.model.tags[name] for name in GLOBAL_TAGS[global_tag]}
        keys = [
            (name, at)
            for name, tag in tags.items()
            for at in range(GRID * run, GRID * run + GRID - (tag.clock is Clock.TIME))
        ]
        held, newest = self.answers(snapshot), self.all_now()
        if any(held[key] != newest[key] for key in keys):
            try:
                self.db.settle(run, snapshot, self.now, times)
            except SnapshotOutdated:
                return
            raise AssertionError("settled an answer that the tag no longer gives")
        new = self.db.settle(run, snapshot, self.now, times)
        assert sorted(new) == sorted(name for name, tag in tags.items() if run not in tag.settled)
        self.settled |= {key: held[key] for key in keys}
        for tag in tags.values():
            tag.settle(run)
        self.first_safe_is_behind_every_settled_run()

    @rule(global_tag=global_tags, pick=picks)
    def pin(self, global_tag: str, pick: float) -> None:
        newest = self.db.snapshot(global_tag).sequence
        snapshot = self.db.snapshot(global_tag, newest - int(pick**3 * newest))
        self.pinned.append((snapshot, self.answers(snapshot)))
        self.histories_only_grow()

    @rule(global_tag=global_tags, pick=picks)
    def pin_at_a_time(self, global_tag: str, pick: float) -> None:
        moment = NOON + pick * (self.now - NOON)
        snapshot = self.db.snapshot(global_tag, moment)
        assert snapshot.sequence == max((sequence for at, sequence in self.times if at <= moment), default=0)
        self.pinned.append((snapshot, self.answers(snapshot)))

    @rule(pick=picks, asked=st.lists(moments, min_size=1, max_size=5))
    def look_up(self, pick: float, asked: list[int]) -> None:
        """What is kept of earlier look-ups is what the database says, whatever has happened since."""
        sequence = self.db.snapshot("all").sequence
        pinned = [*self.pinned, *((Snapshot(name, sequence), self.all_now()) for name in EVERYTHING)]
        snapshot, answers = pinned[int(pick * len(pinned))]
        tags = self.db.global_tag(snapshot.global_tag)
        plain, kept = (LookUp(self.connection, tags, snapshot.sequence, cache) for cache in (None, self.cache))
        for at in [*asked, *reversed(asked)]:
            for kind, tag in tags.items():
                question = kind, RunLumi(*divmod(at, GRID)), at * TICK_NS
                assert plain.payload_id(*question) == kept.payload_id(*question) == answers[tag.name, at]
        assert len(self.cache) <= KEPT

    @invariant()
    def answers_are_those_of_the_model(self) -> None:
        if self.model.tags:
            assert self.all_now() == {
                (name, at): tag.answer(at) for name, tag in self.model.tags.items() for at in MOMENTS
            }

    @invariant()
    def settled_answers_never_change(self) -> None:
        if self.settled:
            assert self.settled.items() <= self.all_now().items()

    @invariant()
    def withdrawn_payloads_hold_in_settled_runs_only(self) -> None:
        tags = self.model.tags
        if any(tag.withdrawn for tag in tags.values()):
            for (name, at), held in self.all_now().items():
                assert held not in tags[name].withdrawn or tags[name].is_settled(at)

    @invariant()
    def intervals_are_disjoint_and_say_the_same(self) -> None:
        if not self.made:
            return
        now = self.all_now()
        for name, tag in self.model.tags.items():
            held = self.db.intervals(name)
            assert all(left.until is not None and left.until <= right.since for left, right in pairwise(held))
            for at in MOMENTS:
                moment = tag.moment(at)
                here = [v.payload_id for v in held if v.since <= moment and (v.until is None or moment < v.until)]
                assert here == ([] if now[name, at] is None else [now[name, at]])

    def first_safe_is_behind_every_settled_run(self) -> None:
        for name, tag in self.model.tags.items():
            assert tag.place(self.db.first_safe(name)) == tag.first_safe

    def histories_only_grow(self) -> None:
        for name, before in self.histories.items():
            self.histories[name] = self.db.history(name)
            assert self.histories[name][: len(before)] == before

    def teardown(self) -> None:
        try:
            self.first_safe_is_behind_every_settled_run()
            self.histories_only_grow()
            for snapshot, answers in self.pinned:
                assert self.answers(snapshot) == answers
            for name, told in self.told.items():
                assert self.db.fates(name) == told
            authors = {entry.sequence: entry.author for made in self.histories.values() for entry in made}
            assert self.authors_of.items() <= authors.items()
        finally:
            self.transaction.rollback()
            self.connection.close()


INVARIANTS = [name for name, made in vars(History).items() if hasattr(made, "hypothesis_stateful_invariant")]


def walk(history: History, chance: random.Random, steps: int) -> None:
    """Go on by dice: longer and more even histories than those hypothesis finds worth trying."""
    kinds = [(chance.choice(list(Clock)), chance.choice(list(Sync))) for _ in "ab"]
    history.define(*kinds, chance.choice(list(Clock)))
    for _ in range(steps):
        name, author, pick = chance.choice(sorted(history.model.tags)), chance.choice("ab"), chance.random()
        global_tag, at = chance.choice(sorted(GLOBAL_TAGS)), chance.choice(MOMENTS)
        match chance.choices(["append", "withdraw", "settle", "pin", "time", "look"], [50, 25, 15, 5, 5, 10])[0]:
            case "append":
                history.append(name, at, author)
            case "withdraw":
                history.withdraw(name, pick, author)
            case "settle":
                history.settle(chance.choice(RUNS), global_tag, pick)
            case "pin":
                history.pin(global_tag, pick)
            case "time":
                history.pin_at_a_time(global_tag, pick)
            case "look":
                history.look_up(pick, chance.sample(MOMENTS, 4))
        for invariant_name in INVARIANTS:
            getattr(history, invariant_name)()


def share(engine: Engine) -> int:
    """How many examples each database gets; PostgreSQL runs the same statements, at three times the price."""
    return hypothesis.settings().max_examples // (8 if engine.dialect.name == "sqlite" else 50)


def test_histories_by_hypothesis(engine: Engine) -> None:
    settings = hypothesis.settings(max_examples=share(engine), stateful_step_count=20)
    run_state_machine_as_test(partial(History, engine), settings=settings)


def test_long_histories_by_dice(engine: Engine) -> None:
    assert len(INVARIANTS) == 4
    for seed in range(share(engine) // 2 + 2):
        history = History(engine)
        try:
            walk(history, random.Random(seed), 40)
        except Exception as failure:
            failure.add_note(f"seed {seed}")
            raise
        finally:
            history.teardown()
