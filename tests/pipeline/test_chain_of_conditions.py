"""Which finalization may start, over which units, and what each run gets: the chain of one kind, without a cluster."""

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pytest

from calib.accumulators import UnitSums
from calib.calibration import Granularity, Outcome, at_finalize, conclude
from calib.gates import Decision, MaxMove
from calib.iov import RunLumi
from calib.payload import Payload, PayloadStore
from calib.state import State, pack_states, unpack_state
from pipeline.chain import Chain
from pipeline.express import StateFile, conclusion_note
from pipeline.handshake import OpenSpan, Release, Rules, RunView, Wait, decide
from pipeline.links import Link
from pipeline.manifest import Condition
from tests.pipeline.judging import Gathered

RULES = Rules(max_carried_runs=2, failed="wait")


@dataclass(frozen=True, kw_only=True)
class Span(Gathered):
    """Its intervals close once they hold `enough` units."""

    enough: int = at_finalize(100)


class BackLooking(Span):
    """Finalize looks at the payload before."""

    looks_at_previous = True

    def finalize(self, state, previous):
        made = super().finalize(state, previous)
        before = float(previous["mean"]) if previous else 0.0
        return Payload("offset", {**made.arrays, "before": np.float64(before)}, {"mean": "cm"})


class Bench:
    """Does at once what a chain asks for, from states kept in files."""

    def __init__(self, folder, links, settled=None, means=None, **more):
        self.store = PayloadStore(folder / "conditions")
        self.folder = folder
        self.means = means or {}
        self.start = self.store.put(Payload("offset", {"mean": np.float64(0.0), "hits": np.int64(0)}, {"mean": "cm"}))
        self.chain = Chain("offset", links, self.start, str(self.store.root), settled or {}, **more)
        self.done = []

    def ready(self, *runs):
        for run in runs:
            units = np.array([RunLumi(run, lumi).packed for lumi in (1, 2)])
            total = round(self.means.get(run, 0.001 * run) * 1000)
            state = State({"hits": UnitSums.of_rows(units, np.array([[20, 20 * total]] * 2, np.int64))})
            path = self.folder / f"{run}.npz"
            path.write_bytes(pack_states({"offset": state}))
            self.chain.ready(run, StateFile(str(path), f"state {run}"))

    def ask(self, late=()):
        asks = self.chain.asks(late)
        self.done += [(ask.run, tuple(RunLumi.unpack(file.since).run for file in ask.states)) for ask in asks]
        return asks

    def conclude(self, asks):
        for ask in asks:
            parts = [unpack_state(file.path, "offset") for file in ask.states]
            state = parts[0]
            for part in parts[1:]:
                state = state.merge(part)
            units = state.units()
            state = state.select(units[units >= ask.states[0].since])
            previous = self.store.get(ask.work.previous) if ask.work.previous else None
            found = conclude(ask.work.calibration, state, previous, ask.work.flush, ask.work.gates)
            for conclusion in found:
                if conclusion.payload:
                    self.store.put(conclusion.payload)
            self.chain.concluded(ask.run, [conclusion_note(conclusion) for conclusion in found], self.store)

    def work(self, *runs, late=()):
        self.ready(*runs)
        while asks := self.ask(late):
            self.conclude(asks)

    def mean(self, run):
        [judged] = self.chain.judged(run)
        return float(self.store.get(judged.payload)["mean"])


@pytest.fixture
def bench(tmp_path):
    def make(runs, calibration=None, settled=None, means=None, **other):
        link = Link(calibration or Span())
        return Bench(tmp_path, {run: other.get(f"run_{run}", link) for run in runs}, settled, means)

    return make


def verdict(bench, run, *, late=False, failed="wait"):
    """What the handshake makes of a run now."""
    view = replace(bench.chain.view(run), earlier_undecided=None)
    units = (RunLumi(run, 1).packed, RunLumi(run, 2).packed)
    return decide(RunView(run, units, (view,), deadline_at=100.0), Rules(2, failed), 100.0 if late else 0.0)


def test_a_span_takes_in_all_its_runs(bench):
    found = bench([1, 2, 3])
    found.work(1, 2)
    assert found.chain.judged(1) is None
    assert "still open" in found.chain.view(1).waits_for
    found.work(3)
    assert [found.mean(run) for run in (1, 2, 3)] == pytest.approx([0.002] * 3)


@pytest.mark.parametrize("early", [True, False])
def test_a_span_whose_last_run_breaks_is_closed_without_it(bench, early):
    """Before run 2 was asked or after it: no difference."""
    found = bench([1, 2, 3])
    if early:
        found.chain.broken(3, "express-3 stopped: bad luck")
    found.work(1, 2)
    if not early:
        assert found.chain.judged(1) is None
        found.chain.broken(3, "express-3 stopped: bad luck")
        found.work()
    assert [found.mean(run) for run in (1, 2)] == pytest.approx([0.0015] * 2)
    assert isinstance(verdict(found, 1), Release)
    assert isinstance(verdict(found, 3), Wait)


def test_when_the_finalization_that_closes_a_span_fails_the_runs_before_it_are_closed_without_its_run(bench):
    found = bench([1, 2, 3])
    found.work(1, 2)
    found.ready(3)
    assert [ask.run for ask in found.ask()] == [3]
    found.chain.broken(3, "finalize failed: a fault")
    assert not isinstance(verdict(found, 1), Release)
    found.work()
    assert [found.mean(run) for run in (1, 2)] == pytest.approx([0.0015] * 2)


def test_when_every_finalization_fails_no_run_is_carried_for_want_of_data(bench):
    found = bench([1, 2])
    found.ready(1, 2)
    while asks := found.ask():
        for ask in asks:
            found.chain.broken(ask.run, f"finalize failed: a fault at {ask.run}")
    for run in (1, 2):
        assert verdict(found, run).reasons == {"offset": f"offset: finalize failed: a fault at {run}"}
        [stretch] = verdict(found, run, late=True).stretches["offset"]
        assert stretch.condition is Condition.FALLBACK


def test_a_span_ends_where_settings_change(bench):
    found = bench([1, 2, 3], run_3=Link(Span(min_hits=11)))
    found.work(1, 2)
    assert [found.mean(run) for run in (1, 2)] == pytest.approx([0.0015] * 2)
    found.work(3)
    assert found.mean(3) == pytest.approx(0.003)


def test_settled_runs_give_no_data_to_those_that_follow(bench):
    found = bench([1, 2, 3], settled={1: "x"})
    found.work(1, 2, 3)
    assert 1 not in [run for run, _ in found.done]
    assert [found.mean(run) for run in (2, 3)] == pytest.approx([0.0025] * 2)


def test_a_run_settled_in_between_parts_the_span(bench):
    found = bench([1, 2, 3], settled={2: None})
    found.work(3)
    assert found.chain.asks() == []
    found.work(1)
    assert (found.mean(1), found.mean(3)) == (pytest.approx(0.001), pytest.approx(0.003))


@pytest.mark.parametrize("change", [False, True])
def test_previous_is_what_the_run_before_left_in_force_whatever_its_settings(bench, change):
    run_2 = Link(BackLooking(min_hits=12 if change else 10, granularity=Granularity.RUN))
    found = bench([1, 2], BackLooking(granularity=Granularity.RUN), run_2=run_2)
    found.ready(2)
    assert found.ask() == []
    found.work(1)
    [judged] = found.chain.judged(2)
    assert float(found.store.get(judged.payload)["before"]) == pytest.approx(found.mean(1))


def test_after_a_restart_previous_is_what_was_settled(bench):
    first = bench([1, 2], BackLooking(granularity=Granularity.RUN))
    first.work(1, 2)
    [one], [two] = first.chain.judged(1), first.chain.judged(2)
    again = bench([1, 2], BackLooking(granularity=Granularity.RUN), settled={1: one.payload})
    again.work(1, 2)
    assert again.chain.judged(2) == (two,)


def test_order_of_conclusion_does_not_decide_what_is_in_force(bench):
    looking = Link(BackLooking(granularity=Granularity.RUN))
    found = bench([1, 2, 3], Span(granularity=Granularity.RUN), run_3=looking)
    found.ready(1, 2, 3)
    asks = found.ask()
    assert [ask.run for ask in asks] == [1, 2]
    found.conclude(asks[::-1])
    found.work()
    [judged] = found.chain.judged(3)
    assert float(found.store.get(judged.payload)["before"]) == pytest.approx(found.mean(2))


def test_a_rejected_payload_is_not_seen_by_the_next_interval(bench):
    """Two intervals in one finalization, or in two: the same."""
    gates = (MaxMove("mean", 0.5, "cm"),)
    link = Link(BackLooking(enough=2), gates)
    for links in (
        {"run_1": link, "run_2": link},
        {"run_1": Link(BackLooking(enough=2, min_hits=11), gates), "run_2": link},
    ):
        found = bench([1, 2], means={1: 9.0, 2: 0.2}, **links)
        found.ready(1, 2)
        found.work()
        [one], [two] = found.chain.judged(1), found.chain.judged(2)
        assert (one.decision, two.decision) == (Decision.REJECT, Decision.PUBLISH)
        assert float(found.store.get(two.payload)["before"]) == 0.0


def test_a_late_run_holds_up_nobody_but_one_at_work_is_waited_for(bench):
    found = bench([1, 2], BackLooking(granularity=Granularity.RUN))
    found.ready(2)
    assert found.ask() == []
    assert [ask.run for ask in found.ask(late={1})] == [2]
    other = bench([1, 2], BackLooking(granularity=Granularity.RUN))
    other.ready(1, 2)
    assert [ask.run for ask in other.ask(late={1})] == [1]
    assert other.ask(late={1}) == []


def test_at_the_deadline_a_finalization_at_work_is_waited_for(bench):
    found = bench([1], Span(granularity=Granularity.RUN))
    found.ready(1)
    asks = found.ask()
    waits = verdict(found, 1, late=True)
    assert isinstance(waits, Wait)
    assert waits.wake_at is None
    found.conclude(asks)
    [stretch] = verdict(found, 1, late=True).stretches["offset"]
    assert stretch.condition is Condition.FRESH


def test_at_the_deadline_express_is_not_waited_for(bench):
    found = bench([1])
    [stretch] = verdict(found, 1, late=True).stretches["offset"]
    assert (stretch.condition, stretch.why) == (
        Condition.FALLBACK,
        "no verdict at the deadline: offset: express is running",
    )


# While run 2 is at work, a span of run 1 is open.
@pytest.mark.parametrize(
    ("granularity", "at_work"), [(Granularity.RUN, False), (Granularity.RUN, True), (Granularity.SPAN, False)]
)
def test_what_people_had_published_is_seen_by_the_runs_after_it_as_after_a_restart(bench, granularity, at_work):
    """Run 1 is rejected and published all the same; run 2 was judged, or was at work, as if it were not."""
    link = Link(BackLooking(enough=2, granularity=granularity), (MaxMove("mean", 0.5, "cm"),))
    means = {1: 9.0, 2: 9.2, 3: 9.1}
    found = bench([1, 2, 3], means=means, run_1=link, run_2=link, run_3=link)
    found.work(1)
    found.ready(2, 3)
    asks = found.ask()
    if not at_work:
        found.conclude(asks)
        found.work()
    [one] = found.chain.judged(1)
    assert one.decision is Decision.REJECT
    found.chain.settle(1, one.payload)
    if at_work:
        assert found.chain.view(2).running and found.ask() == []
        found.conclude(asks)
    found.work()
    again = bench([1, 2, 3], settled={1: one.payload}, means=means, run_1=link, run_2=link, run_3=link)
    again.work(2, 3)
    for run in (2, 3):
        assert found.chain.judged(run) == again.chain.judged(run)
    [two] = found.chain.judged(2)
    assert two.decision is Decision.PUBLISH
    assert float(found.store.get(two.payload)["before"]) == 9.0


def test_a_run_that_leaves_in_force_what_was_expected_changes_nothing_for_the_others(bench):
    link = Link(BackLooking(granularity=Granularity.RUN), (MaxMove("mean", 0.5, "cm"),))
    found = bench([1, 2], means={1: 0.1, 2: 0.2}, run_1=link, run_2=link)
    found.work(1, 2)
    [one], [two] = found.chain.judged(1), found.chain.judged(2)
    found.chain.settle(1, one.payload)
    assert found.chain.judged(2) == (two,) and found.ask() == []


@pytest.mark.parametrize("runs_of_a_span", [5, 200])
def test_of_a_thousand_runs_each_changes_a_few_times(runs_of_a_span):
    """When it is ready and asked for, when its finalization has spoken, when its span closes and the next begins."""
    chain, changes, begin = Chain("offset", {run: Link(Span()) for run in range(1, 1001)}, None, ""), Counter(), 1
    for run in chain.runs:
        chain.ready(run, StateFile("", ""))
        assert [ask.run for ask in chain.asks()] == [run]
        changes.update(chain.changed())
        notes = []
        if run % runs_of_a_span == 0:
            note = {"outcome": Outcome.NOT_ENOUGH_DATA.value, "payload": None, "message": "", "vetoed": []}
            notes = [note | {"first": RunLumi(begin, 1).packed, "last": RunLumi(run, 2).packed, "unconfirmed": False}]
            begin = run + 1
        chain.concluded(run, notes, None)
        changes.update(chain.changed())
    assert all(chain.judged(run) for run in chain.runs)
    assert max(changes.values()) <= 4


def going_on(bench, runs, span, enough=3, **more):
    """Runs that need not wait: two units each, an interval closes with so many."""
    links = {f"run_{run}": Link(Span(enough=enough), span=span) for run in runs}
    return bench(list(runs), **links, **more)


def release(found, run):
    """What the handshake makes of a run, which is then released under it."""
    decided = decide(
        RunView(run, (RunLumi(run, 1).packed, RunLumi(run, 2).packed), (found.chain.view(run),), deadline_at=100.0),
        RULES,
        0.0,
    )
    assert isinstance(decided, Release), decided
    stretches = decided.stretches["offset"]
    fresh = [stretch.payload for stretch in stretches if stretch.condition is Condition.FRESH]
    before = max((r for r in found.chain.settled if r < run), default=None)
    in_force = found.chain.in_force if before is None else found.chain.settled[before]
    found.chain.settle(run, fresh[-1] if fresh else in_force)
    return decided


def states(decided):
    return [
        (RunLumi.unpack(s.first).lumi, RunLumi.unpack(s.last).lumi, s.condition.value)
        for s in decided.stretches["offset"]
    ]


@pytest.mark.parametrize("span", [OpenSpan.CARRY, OpenSpan.LATER])
def test_runs_whose_span_is_open_go_on_and_stay_in_it(bench, span):
    found, decided = going_on(bench, range(1, 5), span), {}
    for run in range(1, 5):
        found.work(run)
        decided[run] = release(found, run)
    # 1:1-2:1 close the first interval, 2:2-3:2 the second.
    assert {run: states(one) for run, one in decided.items()} == {
        1: [(1, 2, "carried")],
        2: [(1, 1, "fresh"), (2, 2, "carried")],
        3: [(1, 2, "fresh")],
        4: [(1, 2, "carried")],
    }
    late = [bool(decided[run].late) for run in (1, 2, 3, 4)]
    assert late == ([False, True, True, False] if span is OpenSpan.CARRY else [False] * 4)


def test_the_next_run_takes_what_closed_before_it(bench):
    found = going_on(bench, (1, 2, 3), OpenSpan.LATER, enough=4)
    found = Bench(found.folder, found.chain.links, {1: found.start, 2: found.start}, left_open=frozenset({1, 2}))
    found.work(1, 2, 3)
    decided = release(found, 3)
    assert states(decided) == [(1, 2, "fresh")]
    [stretch] = decided.stretches["offset"]
    assert "in force from here on" in stretch.why and stretch.payload in decided.intervals
    assert found.chain.left_open == {1, 2, 3}


def test_after_a_restart_what_was_concluded_is_not_concluded_again(bench):
    units = (RunLumi(1, 1).packed, RunLumi(2, 1).packed)
    link = Link(Span(enough=3), span=OpenSpan.LATER)
    found = bench([1], run_1=link)
    found = Bench(
        found.folder,
        dict.fromkeys((1, 2, 3), link),
        {1: found.start, 2: found.start},
        left_open=frozenset({1, 2}),
        intervals=(units,),
    )
    found.work(1, 2, 3)
    [judged] = found.chain.found(3)
    assert (judged.first, judged.last) == (RunLumi(2, 2).packed, RunLumi(3, 2).packed)


def test_a_later_run_waits_until_the_one_before_is_decided(bench):
    found = going_on(bench, (1, 2), OpenSpan.LATER, enough=9)
    found.work(1, 2)
    assert "run 1 is not decided yet" in str(
        decide(
            RunView(2, (RunLumi(2, 1).packed, RunLumi(2, 2).packed), (found.chain.view(2),), deadline_at=100.0),
            RULES,
            0.0,
        ).reasons
    )
    release(found, 1)
    assert states(release(found, 2)) == [(1, 2, "carried")]
