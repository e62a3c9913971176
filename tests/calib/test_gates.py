"""Every gate lets through, and fires."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest

from calib.gates import (
    GATES,
    Decision,
    Distance,
    Finite,
    Gate,
    GoodShare,
    MaxMove,
    MinEntries,
    MovedShare,
    Moves,
    Significance,
    Verdict,
    Within,
    gate_from_settings,
    judge,
)
from calib.payload import Payload

NAN = float("nan")
PUBLISH, NO_CHANGE, REJECT = Decision.PUBLISH, Decision.NO_CHANGE, Decision.REJECT


def spot(x: Any = 0.1, error: Any = 0.01, **more: Any) -> Payload:
    return Payload("spot", {"x": np.asarray(x), "x_error": np.asarray(error), **more}, {"x": "cm", "x_error": "cm"})


def verdict(gate: Gate, payload: Payload, in_force: Payload | None = None) -> tuple[Decision, str]:
    found = judge(payload, in_force, [gate])
    return found.decision, "; ".join(found.reasons)


# --- one by one


@pytest.mark.parametrize(
    ("x", "wanted"),
    [
        (1.0, (PUBLISH, "")),
        (NAN, (REJECT, "1 values of x that are not finite")),
        ([1, np.inf, -np.inf], (REJECT, "2 values of x that are not finite")),
    ],
)
def test_finite(x: Any, wanted: tuple[Decision, str]) -> None:
    assert verdict(Finite(), spot(x)) == wanted
    assert verdict(Finite(("x",)), spot(x, NAN)) == wanted


def test_finite_looks_only_where_it_is_told() -> None:
    assert verdict(Finite(("x",)), spot(1.0, NAN))[0] is PUBLISH
    assert verdict(Finite(), spot(1.0, NAN)) == (REJECT, "1 values of x_error that are not finite")


@pytest.mark.parametrize(("entries", "decision"), [(100, PUBLISH), ([60, 40], PUBLISH), (99, REJECT), ([], REJECT)])
def test_min_entries(entries: Any, decision: Decision) -> None:
    payload = Payload("spot", {"entries": np.asarray(entries, np.int64)}, {"entries": "tracks"})
    found, reason = verdict(MinEntries("entries", 100), payload)
    assert found is decision
    if entries == 99:
        assert reason == "the sum of entries is 99 tracks, at least 100 tracks are needed"


@pytest.mark.parametrize(
    ("status", "decision"), [([0, 0, 0, 1], PUBLISH), ([0, 0, 1, 1], REJECT), (np.zeros(0, int), REJECT)]
)
def test_good_share(status: Any, decision: Decision) -> None:
    payload = Payload("status", {"code": np.asarray(status)})
    assert verdict(GoodShare("code", 0, 0.75), payload)[0] is decision


def test_share_just_below_is_told_apart() -> None:
    payload = Payload("status", {"code": np.r_[np.zeros(74_999, int), np.ones(25_001, int)]})
    assert verdict(GoodShare("code", 0, 0.75), payload) == (
        REJECT,
        "code is 0 for 74999 of 100000, a share of 0.75 is needed",
    )


@pytest.mark.parametrize(
    ("x", "wanted"),
    [
        ([0.0, 1.0], (PUBLISH, "")),
        ([0.5, -0.1], (REJECT, "x[1] is -0.1 cm, 0 to 1 cm is allowed")),
        ([[0.5, 0.6], [0.7, 1.5]], (REJECT, "x[1, 1] is 1.5 cm, 0 to 1 cm is allowed")),
        (NAN, (REJECT, "x is nan cm, 0 to 1 cm is allowed")),
        (np.zeros(0), (PUBLISH, "")),
    ],
)
def test_within(x: Any, wanted: tuple[Decision, str]) -> None:
    assert verdict(Within("x", 0, 1, "cm"), spot(x)) == wanted


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        (None, 9.0, (PUBLISH, "")),
        (0.1, 0.2, (PUBLISH, "")),
        (0.1, 0.201, (REJECT, "x moved from 0.1 to 0.201 cm, at most 0.1 cm are allowed")),
        ([0.1, 0.1], [0.1, -0.3], (REJECT, "x[1] moved from 0.1 to -0.3 cm, at most 0.1 cm are allowed")),
        (0.1, NAN, (REJECT, "x moved from 0.1 to nan cm, at most 0.1 cm are allowed")),
        (NAN, 0.1, (PUBLISH, "")),
        (np.inf, np.inf, (PUBLISH, "")),
        (np.inf, -np.inf, (REJECT, "x moved from inf to -inf cm, at most 0.1 cm are allowed")),
        ([0.1], [0.1, 0.1], (REJECT, "x has shape (2,), in the payload in force (1,)")),
        (np.zeros(0), np.zeros(0), (PUBLISH, "")),
    ],
)
def test_max_move(old: Any, new: Any, wanted: tuple[Decision, str]) -> None:
    assert verdict(MaxMove("x", 0.1, "cm"), spot(new), None if old is None else spot(old)) == wanted


@pytest.mark.parametrize(
    ("old", "new", "decision"),
    [
        (None, spot(0.1), PUBLISH),
        (spot(0.10, 0.03), spot(0.24, 0.04), NO_CHANGE),  # 2.8 x hypot(0.03, 0.04)
        (spot(0.10, 0.03), spot(0.26, 0.04), PUBLISH),  # 3.2 x
        (spot(0.10, NAN), spot(0.21, 0.04), NO_CHANGE),  # nominal before: the new error alone
        (spot(0.10, NAN), spot(0.23, 0.04), PUBLISH),
        (spot(0.100, 0.0), spot(0.119, 0.0), NO_CHANGE),  # 0.02 cm is the floor
        (spot(0.100, 0.0), spot(0.121, 0.0), PUBLISH),
        (spot([0.1, 0.1]), spot([0.1, 0.1]), NO_CHANGE),
        (spot([0.1, 0.1]), spot([0.1, 0.9]), PUBLISH),
        (spot(NAN), spot(NAN), NO_CHANGE),
        (spot(np.inf), spot(np.inf, np.inf), NO_CHANGE),
        (spot(0.1), spot(0.2, np.inf), NO_CHANGE),
        (spot(NAN), spot(0.1), PUBLISH),
        (spot(0.1), spot(NAN), PUBLISH),
        (spot(np.zeros(0)), spot(np.zeros(0)), NO_CHANGE),
        (Payload("spot", {"y": np.zeros(1)}), spot(0.1), PUBLISH),
        (Payload("spot", {"x": np.asarray(0.1)}, {"x": "cm"}), spot(0.1), NO_CHANGE),
        (spot([0.1]), spot([0.1, 0.1]), REJECT),
    ],
)
def test_significance(old: Payload | None, new: Payload, decision: Decision) -> None:
    assert verdict(Significance("x", n_sigma=3, floor=0.02, unit="cm"), new, old)[0] is decision


def test_significance_says_what_moved_most() -> None:
    found = judge(spot([0.1, 0.12], [0.1, 0.01]), spot([0.0, 0.1], [0.0, 0.0]), [Significance("x", 3)])
    assert found.reasons == ("x[1] moved by 0.02 cm, up to 0.03 cm is no change",)
    (measure,) = found.measures
    assert (measure.gate, measure.unit, measure.limit) == ("significance", "cm", pytest.approx(0.03))


def test_errors_of_another_name() -> None:
    old, new = (Payload("spot", {"x": np.asarray(x), "s": np.asarray(1.0)}) for x in (0.0, 4.0))
    assert verdict(Significance("x", 3, error="s"), new, old)[0] is NO_CHANGE  # 2.8 x hypot(1, 1)
    assert verdict(Significance("x", 2, error="s"), new, old)[0] is PUBLISH


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (spot([0.1, 0.2], [0.1, 0.1, 0.1]), "x has shape (2,), x_error (3,)"),
        (
            Payload("spot", {"x": np.asarray(1.0), "x_error": np.asarray(1.0)}, {"x": "cm"}),
            "x is in cm, x_error in no unit",
        ),
    ],
)
def test_errors_that_do_not_belong_to_the_values(payload: Payload, reason: str) -> None:
    assert verdict(Significance("x", 3), payload) == (REJECT, reason)


@pytest.mark.parametrize("gate", [Within("x", 0, 1, "um"), MaxMove("x", 1, "um"), Significance("x", 1, "", 1, "um")])
def test_limit_in_another_unit_than_the_payload(gate: Gate) -> None:
    assert verdict(gate, spot()) == (REJECT, "the gate has x in um, the payload in cm")


@pytest.mark.parametrize("gate", [MaxMove("x", 1, "cm"), Significance("x", 1)])
def test_payload_in_force_in_another_unit(gate: Gate) -> None:
    old = Payload("spot", {"x": np.asarray(0.1)}, {"x": "um"})
    assert verdict(gate, spot(), old) == (REJECT, "x is in cm, in the payload in force in um")


@pytest.mark.parametrize(
    "gate",
    [
        Finite(("xx",)),
        MinEntries("xx", 1),
        GoodShare("xx", 0, 0.5),
        Within("xx", 0, 1, "cm"),
        MaxMove("xx", 1, "cm"),
        Significance("xx", 1),
        Significance("x", 1, error="xx"),
    ],
)
def test_array_that_is_not_there(gate: Gate) -> None:
    decision, reason = verdict(gate, spot())
    assert decision is REJECT
    assert reason == "a payload of kind spot has no array 'xx'; did you mean `x`?"


SURVEY = spot([0.1, NAN], [0.0, 0.0])


def against_survey(payload: Payload, limit: float = 0.05, survey: Payload | None = SURVEY) -> tuple[Decision, str]:
    # What is in force does not count.
    gates = [Distance("x", SURVEY.id, limit, "cm")]
    found = judge(payload, spot([9.0, 9.0]), gates, {SURVEY.id: survey}.get)
    return found.decision, "; ".join(found.reasons)


def test_distance_to_a_reference() -> None:
    assert against_survey(spot([0.149, 7.0])) == (PUBLISH, "")  # what the reference does not know may be any
    assert against_survey(spot([0.16, 7.0])) == (
        REJECT,
        "x[0] is 0.16, in the reference 0.1 cm, at most 0.05 cm apart are allowed",
    )
    assert against_survey(spot([0.16, 7.0]), limit=0.07)[0] is PUBLISH
    assert against_survey(spot([NAN, 7.0]))[0] is REJECT


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (spot(0.1), "x has shape (), in the reference (2,)"),
        (Payload("spot", {"x": np.zeros(2)}, {"x": "um"}), "the gate has x in cm, the payload in um"),
        (Payload("spot", {"y": np.zeros(2)}), "a payload of kind spot has no array 'x'; there are y"),
        (Payload("line", {"x": np.zeros(2)}, {"x": "cm"}), "the reference is of kind spot"),
    ],
)
def test_what_cannot_be_held_to_the_reference_is_rejected(payload: Payload, reason: str) -> None:
    found = judge(payload, None, [Distance("x", SURVEY.id, 1, "cm")], {SURVEY.id: SURVEY}.get)
    assert found.decision is REJECT
    assert reason in found.reasons[0]


def test_without_its_reference_nothing_passes() -> None:
    assert against_survey(spot([0.1, 0.1]), survey=None)[0] is REJECT
    other = Payload("spot", {"y": np.zeros(2)})
    assert against_survey(spot([0.1, 0.1]), survey=other) == (REJECT, "the reference has no array 'x'")


# --- together


def test_one_that_rejects_is_enough_and_all_are_named() -> None:
    gates = [Finite(), Within("x", 0, 1, "cm"), MaxMove("x", 0.5, "cm"), Significance("x", 3)]
    found = judge(spot(5.0), spot(0.0), gates)
    assert found.decision is REJECT
    assert found.reasons == (
        "x is 5 cm, 0 to 1 cm is allowed",
        "x moved from 0 to 5 cm, at most 0.5 cm are allowed",
    )
    assert {measure.gate for measure in found.measures} == {"finite", "within", "max_move", "significance"}


def test_no_change_needs_every_gate_that_watches() -> None:
    y = {"y": np.asarray(1.0), "y_error": np.asarray(0.1)}
    gates = [Finite(), Significance("x", 3), Significance("y", 3)]
    still = judge(spot(**y), spot(**y), gates)
    assert (still.decision, len(still.reasons)) == (NO_CHANGE, 2)
    assert judge(spot(**y), spot(**{**y, "y": np.asarray(2.0)}), gates).decision is PUBLISH
    assert judge(spot(NAN, **y), spot(NAN, **y), gates).decision is REJECT


def test_without_gates_or_payload_in_force_there_is_no_no_change() -> None:
    assert judge(spot(), spot(), []) == Verdict("spot", PUBLISH)
    assert judge(spot(), spot(), [Finite(), MaxMove("x", 1, "cm")]).decision is PUBLISH
    assert judge(spot(), None, [Significance("x", 3)]).decision is PUBLISH


def test_payload_in_force_of_another_kind_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="kind 'spot' cannot be held to one of kind 'pedestal'"):
        judge(spot(), Payload("pedestal", {}), [])


def test_measures_are_numbers_that_json_knows() -> None:
    found = judge(spot(NAN), spot(0.1), [Within("x", 0, 1, "cm"), MaxMove("x", 1, "cm")])
    assert found.decision is REJECT
    assert found.measures == ()


def test_gates_say_whether_they_compare() -> None:
    assert sorted(name for name, gate in GATES.items() if gate.relative) == [
        "max_move",
        "moved_share",
        "moves",
        "significance",
    ]
    assert [name for name, gate in GATES.items() if gate.watches] == ["significance", "moves", "moved_share"]


# --- from settings

EXAMPLES: list[Gate] = [
    Finite(),
    Finite(("x", "y")),
    MinEntries("entries", 100),
    GoodShare("code", 0, 0.9),
    Within("x", -1.5, 1, "cm"),
    MaxMove("x", 0.1, "cm"),
    Distance("x", "0" * 64, 0.1, "cm"),
    Significance("x", 3, "s", 0.1, "cm"),
    Moves("x", (5e-4, 1e-3), "cm"),
    Moves("x", (0.0,), "cm", 3.0, 0.25, (0.02,), (0.001,)),
    MovedShare("x", 0.01, 5, 0.05, "cm", 128, 0.5),
]


@pytest.mark.parametrize("gate", EXAMPLES, ids=repr)
def test_settings_make_the_gate_again(gate: Gate) -> None:
    settings = {key: list(v) if isinstance(v, tuple) else v for key, v in gate.settings().items()}
    made = gate_from_settings(settings)
    assert made == gate
    assert hash(made) == hash(gate)


def test_every_gate_has_an_example() -> None:
    assert {type(gate) for gate in EXAMPLES} == set(GATES.values())
    assert all(dataclasses.is_dataclass(gate) for gate in GATES.values())


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "`gate` is missing; it names one of finite, min_entries"),
        ({"gate": "max_mov"}, "there is no gate 'max_mov'; did you mean `max_move`?"),
        ({"gate": "zzz"}, "there is no gate 'zzz'; there are finite, min_entries"),
        ({"gate": "max_move", "arry": "x"}, "gate max_move has no setting `arry`; did you mean `array`?"),
        ({"gate": "max_move", "array": "x"}, "gate max_move needs `limit`, `unit`"),
        ({"gate": "finite", "arrays": "x"}, "`arrays` of gate finite is a list of texts, not 'x'"),
        ({"gate": "min_entries", "array": 1, "minimum": 1}, "`array` of gate min_entries is a text, not 1"),
        ({"gate": "min_entries", "array": "x", "minimum": True}, "`minimum` of gate min_entries is a number, not True"),
        ({"gate": "min_entries", "array": "x", "minimum": NAN}, "`minimum` of gate min_entries is a number, not nan"),
        (
            {"gate": "good_share", "array": "x", "code": 0.5, "minimum": 1},
            "`code` of gate good_share is a whole number",
        ),
        ({"gate": "good_share", "array": "x", "code": 0, "minimum": 2}, "minimum is a share from 0 to 1, not 2"),
        ({"gate": "within", "array": "x", "low": 2, "high": 1, "unit": ""}, "low = 2 is above high = 1"),
        ({"gate": "max_move", "array": "x", "limit": 0, "unit": ""}, "limit is a distance above 0, not 0"),
        (
            {"gate": "distance", "array": "x", "reference": "survey", "limit": 1, "unit": ""},
            "reference is the whole id of a payload, not 'survey'",
        ),
        ({"gate": "significance", "array": "x", "n_sigma": -1}, "n_sigma is 0 or more, not -1"),
        ({"gate": "significance", "array": "x", "n_sigma": 1, "floor": -1}, "floor is 0 or more, not -1"),
        ({"gate": "significance", "array": "x", "n_sigma": 1, "floor": 1}, "a floor needs its unit"),
        (
            {"gate": "moves", "array": "x", "floors": 1, "unit": ""},
            "`floors` of gate moves is a list of numbers, not 1",
        ),
        ({"gate": "moves", "array": "x", "floors": ["1"], "unit": ""}, "`floors` of gate moves is a list of numbers"),
        ({"gate": "moves", "array": "x", "floors": [], "unit": ""}, "floors are missing; 0 counts every move"),
        ({"gate": "moves", "array": "x", "floors": [-1], "unit": ""}, "floors are 0 or more, not -1"),
        (
            {"gate": "moves", "array": "x", "floors": [1], "most": [1, 2], "unit": ""},
            "there are 1 floors, but 2 of most",
        ),
        ({"gate": "moves", "array": "x", "floors": [1], "share": 2, "unit": ""}, "share is from 0 to 1, not 2"),
        ({"gate": "moves", "array": "x", "floors": [1], "n_sigma": -1, "unit": ""}, "n_sigma is 0 or more, not -1"),
    ],
)
def test_wrong_settings_are_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        gate_from_settings(table)
