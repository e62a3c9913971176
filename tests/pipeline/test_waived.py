"""Holds and waivers in the handshake: pure rules."""

from dataclasses import replace

import pytest

from calib.calibration import Outcome
from calib.gates import Decision
from pipeline.handshake import Hold, Judged, KindView, Release, Wait, decide, offered
from pipeline.manifest import Condition, Manifest, Stretch
from pipeline.waivers import Signature, Waiver
from tests.pipeline.test_handshake import EARLY, LATE, RULES, at, kind, made, states, too_little, view

REJECTED = made(1, 9, Decision.REJECT)
NOT_CONVERGED = Judged(at(1), at(9), Outcome.NOT_CONVERGED, why="it went round")
LAST_TRY = replace(NOT_CONVERGED, payload="p")
GOES_ON = Waiver((Signature("alice", 0.0, "no beam"),))
PUBLISH = replace(GOES_ON, payloads=("p",))


def why(found):
    return [stretch.why for stretch in found.stretches["beamspot"]]


@pytest.mark.parametrize("stopped", [REJECTED, NOT_CONVERGED, LAST_TRY])
def test_what_a_rule_stops_goes_on_now_under_a_waiver_and_says_so(stopped):
    assert isinstance(decide(view(kind(stopped)), RULES, EARLY), Wait)
    found = decide(view(kind(stopped, waiver=GOES_ON)), RULES, EARLY)
    assert states(found) == [Condition.FALLBACK]
    assert found.waivers == {"beamspot": GOES_ON}
    assert why(found) == [f"{stopped.why}; under a waiver by alice (1970-01-01 00:00:00 UTC: no beam)"]


def test_a_broken_finalization_and_too_little_for_too_long_can_be_waived():
    broken = KindView("beamspot", None, waits_for="finalize failed", broken=True, waiver=GOES_ON)
    assert states(decide(view(broken), RULES, EARLY)) == [Condition.FALLBACK]
    over = kind(too_little(), carried_before=2, waiver=GOES_ON)
    assert states(decide(view(over), RULES, EARLY)) == [Condition.FALLBACK]
    assert decide(view(over), RULES, EARLY).waivers


def test_what_is_still_being_made_is_waited_for():
    silent = KindView("beamspot", None, waits_for="express is running", waiver=GOES_ON)
    assert isinstance(decide(view(silent), RULES, EARLY), Wait)


def test_a_waiver_does_not_take_a_run_past_one_before_it():
    waiting = decide(view(kind(REJECTED, earlier_undecided=5, waiver=GOES_ON)), RULES, EARLY)
    assert isinstance(waiting, Wait) and "run 5" in waiting.reasons["beamspot"]


@pytest.mark.parametrize("stopped", [REJECTED, LAST_TRY])
def test_the_very_payload_that_a_rule_is_against_can_be_published(stopped):
    assert offered(view(kind(stopped))) == {"beamspot": ("p",)}
    for now in (EARLY, LATE):
        found = decide(view(kind(stopped, waiver=PUBLISH)), RULES, now)
        assert found.waivers == {"beamspot": PUBLISH}
        [stretch] = found.stretches["beamspot"]
        assert (stretch.condition, stretch.payload) == (Condition.FRESH, "p")
        assert "published under a waiver by alice" in stretch.why


@pytest.mark.parametrize("stopped", [NOT_CONVERGED, replace(REJECTED, payload="q"), too_little()])
def test_who_accepts_a_payload_accepts_no_other_and_not_the_lack_of_one(stopped):
    over = kind(stopped, carried_before=2)
    assert decide(view(replace(over, waiver=PUBLISH)), RULES, EARLY) == decide(view(over), RULES, EARLY)


def test_of_several_intervals_those_against_which_a_rule_is_are_published_or_fall_back():
    parts = (made(1, 3), replace(made(4, 6, Decision.REJECT), payload="q"), replace(NOT_CONVERGED, first=at(7)))
    plain = kind(*parts)
    assert offered(view(plain)) == {"beamspot": ("q",)}
    found = decide(view(replace(plain, waiver=replace(PUBLISH, payloads=("q",)))), RULES, EARLY)
    assert states(found) == [Condition.FRESH, Condition.FRESH, Condition.FALLBACK]
    assert ["waiver" in words for words in why(found)] == [False, True, True]


@pytest.mark.parametrize(
    "unneeded",
    [
        kind(made(1, 9)),
        kind(made(1, 9, Decision.NO_CHANGE)),
        kind(too_little()),
        KindView("beamspot", None, calibrated=False),
    ],
)
def test_a_waiver_that_is_not_needed_leaves_no_mark(unneeded):
    for waiver in (GOES_ON, PUBLISH):
        assert decide(view(replace(unneeded, waiver=waiver)), RULES, EARLY) == decide(view(unneeded), RULES, EARLY)


def test_at_the_deadline_and_where_the_rule_is_to_fall_back_no_waiver_is_needed():
    for rules, now in ((RULES, LATE), (replace(RULES, failed="fallback"), EARLY)):
        found = decide(view(kind(REJECTED, waiver=GOES_ON)), rules, now)
        assert found == decide(view(kind(REJECTED)), rules, now)
        assert not found.waivers


def test_a_hold_is_stronger_than_a_waiver_and_tells_what_else_is_waited_for():
    found = decide(view(kind(REJECTED, waiver=PUBLISH), held="magnet"), RULES, LATE)
    assert found == Hold({"operator": "magnet"})
    waiting = decide(view(kind(REJECTED), held="magnet"), RULES, EARLY)
    assert isinstance(waiting, Hold) and list(waiting.reasons) == ["operator", "beamspot"]
    assert waiting.wake_at == LATE


def test_the_manifest_carries_the_waiver_in_its_hash_and_one_without_is_what_it_was():
    stretch = Stretch(at(1), at(9), Condition.FRESH, "p", "reason")
    plain = Manifest(7, 1, 12, {"beamspot": (stretch,)})
    waived = replace(plain, waivers={"beamspot": PUBLISH})
    assert "waivers" not in plain.to_document()
    assert waived.id != plain.id
    document = waived.to_document()
    assert Manifest.from_document(document) == waived
    document["waivers"]["beamspot"]["signed"][0]["who"] = "mallory"
    with pytest.raises(ValueError, match="altered"):
        Manifest.from_document(document)


def test_two_kinds_need_two_waivers():
    other = replace(kind(REJECTED), kind="pedestal")
    both = view(kind(REJECTED, waiver=GOES_ON), other)
    waiting = decide(both, RULES, EARLY)
    assert isinstance(waiting, Wait) and list(waiting.reasons) == ["pedestal"]
    found = decide(view(kind(REJECTED, waiver=GOES_ON), replace(other, waiver=GOES_ON)), RULES, EARLY)
    assert isinstance(found, Release) and set(found.waivers) == {"beamspot", "pedestal"}
