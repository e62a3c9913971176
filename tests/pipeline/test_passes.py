"""Later passes: under what they are made, from where they start, and what comes of an iteration. Without a cluster."""

from dataclasses import replace

import pytest

from calib.calibration import Outcome
from calib.gates import Decision, MaxMove
from calib.iov import RunLumi
from calib.iteration import Ending
from pipeline.declarations import wrong_calibrations
from pipeline.events import SourceFile
from pipeline.experiments.testing import ExperimentLaws
from pipeline.express import (
    Cut,
    RunContext,
    express_job,
    express_starts,
    express_writes,
    pass_group,
    pass_job,
    pass_writes,
)
from pipeline.handshake import Judged, KindView, Settled, foreseen
from pipeline.iterating import found_by, step_of, told
from pipeline.links import Link
from pipeline.manifest import Condition, Stretch
from pipeline.mistakes import SettingsError
from pipeline.model import Stream
from pipeline.processing import Segment
from pipeline.segments import held_by, of_kind, with_held
from pipeline.settings import settings_from
from pipeline.tier0 import Tier0
from pipeline.waivers import Signature, Waiver
from pipeline.world import open_world
from tests.pipeline.levels import KINDS, First, Last, Levels, Second, Turned, mean
from tests.pipeline.test_chain_of_conditions import Bench, Span
from tests.pipeline.test_handshake import RULES, at, kind, made, too_little
from tests.pipeline.tiny import settings, write_file

BEFORE, ONE, THREE, FIVE = RunLumi(7).packed, at(1), at(3), at(5)
PLAIN = (Segment(BEFORE, {"gain": "g", "alignment": "a"}),)
UNITS = (at(1), at(9))


# under what -----------------------------------------------------------------------------------------------------------


def test_what_was_found_stands_in_the_place_of_what_express_had():
    held = {"alignment": ((BEFORE, "b"), (THREE, "c"))}
    found = with_held(PLAIN, held)
    assert found == (
        Segment(BEFORE, {"gain": "g", "alignment": "b"}),
        Segment(THREE, {"gain": "g", "alignment": "c"}),
    )
    assert of_kind(found, "alignment") == held["alignment"]
    assert of_kind(found, "gain") == ((BEFORE, "g"),)
    assert with_held(found, {"gain": ((BEFORE, "h"),)})[1].ids == {"gain": "h", "alignment": "c"}
    # What begins later leaves what was before it.
    assert [dict(s.ids)["alignment"] for s in with_held(PLAIN, {"alignment": ((FIVE, "b"),)})] == ["a", "b"]
    assert with_held((), {"alignment": ((BEFORE, "b"),)}) == (Segment(BEFORE, {"alignment": "b"}),)


def test_where_nothing_differs_the_conditions_are_those_of_express_as_they_came():
    twice = (PLAIN[0], Segment(THREE, {"alignment": "a", "gain": "g"}))
    for held in ({}, {"alignment": ((BEFORE, "a"),)}, {"alignment": ((BEFORE, "a"), (FIVE, "a"))}):
        assert with_held(twice, held) == twice


def test_what_holds_of_a_kind_by_its_stretches():
    carried = Stretch(at(1), at(2), Condition.CARRIED, None, "")
    fresh = Stretch(at(3), at(4), Condition.FRESH, "p", "")
    fallback = Stretch(at(5), at(9), Condition.FALLBACK, None, "")
    assert held_by([carried, fresh, fallback], BEFORE, "a") == ((BEFORE, "a"), (THREE, "p"))
    assert held_by([fresh, fallback], BEFORE, "a") == ((BEFORE, "p"),)
    assert held_by([carried], BEFORE, None) == held_by([], BEFORE, None) == ()
    assert held_by([carried], BEFORE, "a", ((BEFORE, "b"),)) == ((BEFORE, "b"),)
    assert held_by([fresh, fallback], BEFORE, "a", ((BEFORE, "b"),)) == ((BEFORE, "p"),)
    assert held_by([replace(carried, payload="a"), fresh], BEFORE, "z") == ((BEFORE, "a"), (THREE, "p"))


# when -----------------------------------------------------------------------------------------------------------------


def conditions(found):
    return [(stretch.condition, stretch.payload) for stretch in found]


def test_a_pass_begins_when_what_goes_before_is_decided_or_refused_for_now():
    rejected = made(1, 9, Decision.REJECT)
    failed = Judged(at(1), at(9), Outcome.NOT_CONVERGED, "q", why="stalled")
    fallback = [(Condition.FALLBACK, None)]
    for one, expected in (
        (kind(made(1, 9)), [(Condition.FRESH, "p")]),
        (kind(made(1, 9, Decision.NO_CHANGE)), [(Condition.CARRIED, None)]),
        (kind(too_little()), [(Condition.CARRIED, None)]),
        (kind(too_little(), carried_before=2), fallback),
        (kind(rejected), fallback),
        (kind(failed), fallback),
        (kind(), [(Condition.CARRIED, None)]),
        (KindView("beamspot", None, waits_for="finalize failed", broken=True), fallback),
        (KindView("beamspot", None, calibrated=False), [(Condition.CARRIED, None)]),
        (KindView("beamspot", None, settled=Settled((Stretch(at(1), at(9), Condition.FRESH, "s", ""),))), None),
    ):
        found = foreseen(one, 7, UNITS, RULES)
        assert conditions(found) == (expected or [(Condition.FRESH, "s")])


def test_it_waits_for_what_is_at_work_and_for_runs_before_it_that_could_change_what_holds():
    assert (
        foreseen(KindView("beamspot", None, waits_for="finalize is running"), 7, UNITS, RULES) == "finalize is running"
    )
    for one in (kind(too_little(), earlier_undecided=5), kind(made(1, 9, Decision.REJECT), earlier_undecided=5)):
        assert str(foreseen(one, 7, UNITS, RULES)).startswith("run 5 is not decided yet")
    assert conditions(foreseen(kind(made(1, 9), earlier_undecided=5), 7, UNITS, RULES)) == [(Condition.FRESH, "p")]


def test_what_people_have_published_counts_before_the_run_is_released():
    stalled = kind(Judged(at(1), at(9), Outcome.NOT_CONVERGED, "q", why="stalled"))
    names = Waiver((Signature("alice", 0.0, "good enough"),), payloads=("q",))
    assert conditions(foreseen(replace(stalled, waiver=names), 7, UNITS, RULES)) == [(Condition.FRESH, "q")]
    other = replace(names, payloads=("r",))
    assert conditions(foreseen(replace(stalled, waiver=other), 7, UNITS, RULES)) == [(Condition.FALLBACK, None)]


# iterations -----------------------------------------------------------------------------------------------------------


def note(first, last, moved=None, payload="p", outcome=Outcome.MADE, message=""):
    found = {"first": first, "last": last, "payload": payload, "outcome": outcome.value, "message": message}
    return found if moved is None else {**found, "moved": moved}


LACKS = note(ONE, at(2), None, None, Outcome.NOT_ENOUGH_DATA, "3 tracks")


def test_the_next_pass_is_made_under_all_that_one_has_found():
    notes = [note(FIVE, at(9), 7.0, "r"), LACKS, note(THREE, at(4), 2.0, "q")]
    assert step_of(notes) == 7.0
    assert found_by(notes, BEFORE) == ((THREE, "q"), (FIVE, "r"))
    assert found_by(notes[:1], BEFORE) == ((BEFORE, "r"),)
    assert step_of([LACKS]) is None and found_by([LACKS], BEFORE) == ()


def test_what_has_converged_is_told_in_how_many_steps_and_the_first_needs_no_words():
    [found] = told([note(ONE, FIVE, 0.25)], Ending.CONVERGED, [40.0, 0.25])
    assert (found["outcome"], found["message"]) == ("made", "converged in 2 iterations (steps 40, 0.25, small is 1)")
    assert told([note(ONE, FIVE, 0.25)], Ending.CONVERGED, [0.25]) == [note(ONE, FIVE, 0.25)]


@pytest.mark.parametrize("ending", [Ending.STALLED, Ending.OUT_OF_ITERATIONS])
def test_what_has_not_converged_keeps_its_payload_and_is_named(ending):
    notes = [LACKS, note(THREE, at(4), 0.5, "q"), note(FIVE, at(9), 30.0, "r")]
    lacks, small, large = told(notes, ending, [40.0, 31.0, 30.0], "made under the gain in force")
    assert lacks["message"] == "3 tracks; made under the gain in force"
    assert (small["outcome"], small["payload"]) == ("made", "q")
    assert (large["outcome"], large["payload"]) == ("not converged", "r")
    words = f"{ending} after 3 iterations (steps 40, 31, 30, small is 1)"
    assert large["message"] == f"{words}; made under the gain in force"


def test_what_is_said_of_a_payload_goes_into_the_verdict(tmp_path):
    found = Bench(tmp_path, {7: Link(Span(), (MaxMove("mean", 1.0, "cm"),))})
    [judged] = [
        found.chain.links[7].judge({**note(ONE, FIVE, 0.5, found.start, message="steady"), **EMPTY}, None, found.store)
    ]
    assert judged.why == "steady"


EMPTY = {"vetoed": [], "unconfirmed": False}


# chains that are given another state ----------------------------------------------------------------------------------


def test_a_run_can_be_given_another_state_at_any_time(tmp_path):
    def bench():
        return Bench(tmp_path, dict.fromkeys((7, 8), Link(Span(enough=2))))

    found = bench()
    found.chain.expects(7, "waits for alignment: finalize is running")
    assert found.chain.view(7).waits_for == "offset: waits for alignment: finalize is running"
    assert found.chain.changed() == {7}
    found.ready(7, 8)
    first = found.ask()
    assert [ask.run for ask in first] == [7]
    # While it is at work: what it gives then does not count.
    found.chain.again(7, "it is made anew")
    found.conclude(first)
    assert found.chain.view(7).waits_for == "offset: it is made anew"
    assert (found.chain.found(7), found.chain.asks()) == ((), [])
    # When it has spoken already: what it gave no longer counts, nor what followed from it.
    found.ready(7)
    found.conclude(found.ask())
    found.conclude(found.ask())
    assert found.chain.judged(7) and found.chain.judged(8)
    found.means[7] = 0.5
    found.chain.again(7, "it is made anew")
    assert found.chain.judged(7) is None and found.chain.judged(8) is None
    found.ready(7)
    while asks := found.ask():
        found.conclude(asks)
    anew = bench()
    anew.means[7] = 0.5
    anew.ready(7, 8)
    while asks := anew.ask():
        anew.conclude(asks)
    for run in (7, 8):
        assert found.chain.judged(run) == anew.chain.judged(run) is not None
        assert found.chain.view(run) == anew.chain.view(run)


def test_what_an_iteration_gives_on_its_way_is_not_its_last_word(tmp_path):
    found = Bench(tmp_path, {7: Link(Turned())})
    found.ready(7)
    [_] = found.ask()
    found.chain.again(7, "iteration 2 is at work", spoken=True)
    view = found.chain.view(7)
    assert (view.judged, view.running, view.waits_for) == (None, False, "offset: iteration 2 is at work")
    found.ready(7)
    assert [ask.run for ask in found.ask()] == [7]
    assert found.chain.view(7).running


def test_a_run_that_was_broken_can_be_given_a_state_after_all(tmp_path):
    found = Bench(tmp_path, {7: Link(Span(enough=2))})
    found.chain.broken(7, "its pass stopped")
    assert found.chain.view(7).broken
    found.chain.again(7, "it is made anew")
    assert not found.chain.view(7).broken
    found.ready(7)
    found.conclude(found.ask())
    assert found.chain.judged(7)


def test_an_iteration_takes_what_it_looks_back_to_from_its_own_pass():
    assert not Link(Turned()).ordered
    assert Link(Turned(), (MaxMove("mean", 1.0, "cm"),)).ordered


# from where -----------------------------------------------------------------------------------------------------------


def context(*calibrations, segments=PLAIN):
    cut = Cut(Stream.PHYSICS, "inputs", "layout", 4, 2)
    return RunContext(7, cut, cut, Levels(), calibrations, None, segments, "conditions", "area")


def test_express_leaves_the_tiers_that_a_later_pass_can_start_from():
    found = context(First(), Second(), Turned())
    assert found.before == {"first": frozenset(), "second": {"first"}, "turned": frozenset()}
    assert found.later == {"second": {"first"}, "turned": {"turned"}}
    assert express_writes(found, ["events", "state:first"]) == ("MOVED", "HITS")
    assert express_writes(found, ["state:first"]) == ()
    assert express_writes(context(First()), ["events"]) == ("MOVED",)
    assert express_writes(context(Last()), ["events"]) == ("MOVED",)


def test_a_tier_is_no_start_for_what_it_lacks():
    found = context(First(), Second())
    assert express_starts(found, ["state:first", "state:second"]) == {}
    assert express_starts(found, ["events"]) == {}
    [name] = express_starts(found, ["state:second"]).values()
    later = context(First(), Second(), segments=with_held(PLAIN, {"first": ((BEFORE, "f"),)}))
    assert express_starts(later, ["state:second"]) == {"HITS": name}


def test_a_pass_that_read_raw_leaves_what_those_after_it_can_start_from():
    found = context(First(), Second(), Turned(), Last())
    assert pass_writes(found, ["turned"]) == ("HITS",)
    assert pass_writes(found, ["first"]) == ("HITS",)
    assert pass_writes(found, ["second"]) == pass_writes(found, ["last"]) == ()


def test_a_pass_makes_its_states_and_nothing_else():
    found = context(First(), Second(), Turned())
    job, work = pass_job(found, {"state:second": "s", "state:turned": "t"}, ())
    assert (job.group, job.leaves) == (pass_group(7, ["second", "turned"]), 4)
    assert job.group == "calibrate-7-second+turned" and job.group.startswith(pass_group(7))
    assert ([c.kind for c in work.calibrations], work.tiers) == (["second", "turned"], ())
    assert work.folder == f"area/runs/7/calibrate-{job.name[:12]}"
    _, whole = express_job(found, {"events": "e", "state:first": "f"})
    assert (whole.quality, work.quality) == (True, False)


# order ----------------------------------------------------------------------------------------------------------------


class Circular(First):
    after = ("last",)


class Knotted(Levels):
    """Its first calibration goes after its last."""

    def calibrations(self):
        return (Circular(), type("Ends", (Turned,), {"after": ("first",)})(), Last())


def test_a_cycle_is_refused_before_anything_is_made(tmp_path):
    assert list(wrong_calibrations(Levels())) == []
    [said] = wrong_calibrations(Knotted())
    assert said == "`experiment.name`: of levels, calibrations go after each other: first -> turned -> last -> first"
    with pytest.raises(SettingsError, match="first -> turned -> last -> first"):
        open_world(settings_from(settings(tmp_path / "area")), Knotted())
    assert not (tmp_path / "area" / "tier0.db").exists()


class Twice(Levels):
    """Has two calibrations of a kind."""

    def calibrations(self):
        return (*super().calibrations(), Last(min_hits=7))


def test_two_calibrations_of_a_kind_are_refused(tmp_path):
    with pytest.raises(SettingsError, match="levels has 2 calibrations of last, of which only the last would be made"):
        open_world(settings_from(settings(tmp_path / "area")), Twice())


def test_the_order_is_told_with_the_settings(tmp_path):
    said = "calibrations in their order: first, turned (iterates) -> last, other, second -> third"
    assert said in Tier0(settings(tmp_path / "area"), Levels()).check().splitlines()
    assert "in their order" not in Tier0(settings(tmp_path / "other")).check()


def test_an_iteration_over_runs_is_refused(tmp_path):
    plain = settings(tmp_path / "area", calibration={"turned": {"granularity": "span"}})
    with pytest.raises(SettingsError, match=r"`calibration.turned`: turned iterates over the events of a run"):
        open_world(settings_from(plain), Levels())


class TestLevels(ExperimentLaws):
    """What the tests of passes stand on keeps the laws, with a tier that lacks what one calibration reads."""

    @pytest.fixture
    def experiment(self):
        return Levels()

    @pytest.fixture
    def source(self, tmp_path):
        return SourceFile.open(write_file(tmp_path / "a.root", 7))

    @pytest.fixture
    def other_conditions(self):
        return {kind: mean(kind, 0.5) for kind in KINDS}
