"""When a run's prompt reconstruction may start, and what its manifest says."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib.calibration import Outcome
from calib.gates import Decision
from calib.iov import RunLumi
from pipeline.handshake import Hold, Judged, KindView, Release, Rules, RunView, Wait, decide
from pipeline.manifest import Condition, Manifest, Stretch

RULES = Rules(max_carried_runs=2, failed="wait")
EARLY, LATE = 0.0, 1000.0


def at(lumi, run=7):
    return RunLumi(run, lumi).packed


def made(first, last, decision=Decision.PUBLISH, payload="p"):
    return Judged(at(first), at(last), Outcome.MADE, payload, decision, "reason")


def too_little(first=1, last=9):
    return Judged(at(first), at(last), Outcome.NOT_ENOUGH_DATA, why="12 tracks of 50")


def view(*kinds, held=""):
    return RunView(7, (at(1), at(9)), kinds, deadline_at=LATE, held=held)


def kind(*judged, **more):
    return KindView("beamspot", judged, **more)


def states(found):
    return [stretch.condition for stretch in found.stretches["beamspot"]]


def test_fresh_releases_at_once_over_all_units():
    found = decide(view(kind(made(2, 8))), RULES, EARLY)
    stretches = {"beamspot": (Stretch(at(1), at(9), Condition.FRESH, "p", "reason"),)}
    assert found == Release(stretches, intervals={"p": (at(2), at(8))})


def test_several_intervals_cover_the_run_without_gap():
    found = decide(view(kind(made(2, 3), made(5, 6, payload="q"))), RULES, EARLY)
    assert [(s.first, s.last, s.payload) for s in found.stretches["beamspot"]] == [
        (at(1), at(4), "p"),
        (at(5), at(9), "q"),
    ]


def test_no_significant_change_carries():
    assert states(decide(view(kind(made(1, 9, Decision.NO_CHANGE))), RULES, EARLY)) == [Condition.CARRIED]


def test_too_little_data_carries_within_the_limit_then_waits_then_falls_back():
    assert states(decide(view(kind(too_little(), carried_before=1)), RULES, EARLY)) == [Condition.CARRIED]
    over = view(kind(too_little(), carried_before=2))
    waiting = decide(over, RULES, EARLY)
    assert isinstance(waiting, Wait) and "the limit" in waiting.reasons["beamspot"] and waiting.wake_at == LATE
    assert states(decide(over, RULES, LATE)) == [Condition.FALLBACK]


@pytest.mark.parametrize("bad", [made(1, 9, Decision.REJECT), Judged(at(1), at(9), Outcome.NOT_CONVERGED, why="no")])
def test_what_failed_waits_for_the_deadline_or_falls_back_by_setting(bad):
    assert isinstance(decide(view(kind(bad)), RULES, EARLY), Wait)
    assert states(decide(view(kind(bad)), RULES, LATE)) == [Condition.FALLBACK]
    assert states(decide(view(kind(bad)), replace(RULES, failed="fallback"), EARLY)) == [Condition.FALLBACK]


def test_no_verdict_waits_then_falls_back_and_says_for_what():
    silent = view(KindView("beamspot", None, waits_for="finalize is running"))
    waiting = decide(silent, RULES, EARLY)
    assert isinstance(waiting, Wait) and waiting.reasons == {"beamspot": "finalize is running"}
    found = decide(silent, RULES, LATE)
    assert states(found) == [Condition.FALLBACK] and "finalize is running" in found.stretches["beamspot"][0].why


def test_a_broken_finalization_falls_back_at_once_only_by_setting():
    broken = view(KindView("beamspot", None, waits_for="finalize failed: a fault", broken=True))
    assert isinstance(decide(broken, RULES, EARLY), Wait)
    found = decide(broken, replace(RULES, failed="fallback"), EARLY)
    assert states(found) == [Condition.FALLBACK] and "a fault" in found.stretches["beamspot"][0].why


def test_what_leans_on_an_earlier_run_waits_for_it_but_fresh_does_not():
    waiting = decide(view(kind(too_little(), earlier_undecided=5)), RULES, EARLY)
    assert isinstance(waiting, Wait) and "run 5" in waiting.reasons["beamspot"]
    assert isinstance(decide(view(kind(made(1, 9), earlier_undecided=5)), RULES, EARLY), Release)
    assert isinstance(decide(view(kind(made(1, 9), earlier_undecided=5, relative=True)), RULES, EARLY), Wait)
    assert isinstance(decide(view(kind(too_little(), earlier_undecided=5)), RULES, LATE), Release)


def test_an_earlier_run_elsewhere_is_waited_for_until_its_own_deadline():
    waiting = kind(too_little(), earlier_undecided=5, earlier_until=400.0)
    assert decide(view(waiting), RULES, EARLY).wake_at == 400.0
    fresh = replace(kind(made(1, 9), earlier_undecided=5, earlier_until=400.0), kind="pedestal")
    assert (
        decide(view(fresh, KindView("beamspot", None, waits_for="finalize is running")), RULES, EARLY).wake_at == LATE
    )


def test_a_kind_not_calibrated_here_is_carried():
    assert states(decide(view(KindView("beamspot", None, calibrated=False)), RULES, EARLY)) == [Condition.CARRIED]


def test_one_kind_that_waits_holds_the_run():
    other = KindView("pedestal", None, waits_for="express is running")
    found = decide(view(kind(made(1, 9)), other), RULES, EARLY)
    assert isinstance(found, Wait) and list(found.reasons) == ["pedestal"]


def test_an_operator_holds_even_a_late_run():
    assert decide(view(kind(made(1, 9)), held="magnet off"), RULES, LATE) == Hold({"operator": "magnet off"})


INTERVALS = st.lists(
    st.tuples(st.integers(1, 9), st.sampled_from(list(Decision))), min_size=1, unique_by=lambda x: x[0]
)


@given(INTERVALS)
def test_stretches_always_tile_the_run(intervals):
    starts = sorted(intervals)
    ends = [start - 1 for start, _ in starts[1:]] + [9]
    judged = [made(start, end, decision) for (start, decision), end in zip(starts, ends, strict=True)]
    found = decide(view(kind(*judged)), RULES, LATE).stretches["beamspot"]
    assert found[0].first == at(1) and found[-1].last == at(9)
    assert all(left.last + 1 == right.first for left, right in pairwise(found))


def manifest():
    first = Stretch(at(1), at(4), Condition.FRESH, "p", "made")
    rest = Stretch(at(5), at(9), Condition.CARRIED, "q", "same")
    return Manifest(7, 1, 12, {"beamspot": (first, rest), "geometry": (replace(rest, first=at(1), payload="g"),)})


def test_segments_cut_where_any_kind_changes():
    found = manifest().segments()
    assert [(s.since, s.ids) for s in found] == [
        (at(0), {"beamspot": "p", "geometry": "g"}),
        (at(5), {"beamspot": "q", "geometry": "g"}),
    ]


def test_a_manifest_is_read_back_and_an_altered_one_refused():
    document = manifest().to_document()
    assert Manifest.from_document(document) == manifest()
    document["kinds"]["beamspot"][0]["payload"] = "other"
    with pytest.raises(ValueError, match="altered"):
        Manifest.from_document(document)


def test_absent_kinds_are_named():
    lack = replace(manifest(), kinds={"beamspot": (Stretch(at(1), at(9), Condition.ABSENT, None, "no data"),)})
    assert lack.missing == {"beamspot": "no data"}
