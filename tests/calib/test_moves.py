"""The gate over structures that move, each of its limits made to fire."""

from __future__ import annotations

import numpy as np
import pytest

from calib.gates import Decision, Moves, judge
from calib.payload import Payload

UNIT = "cm, rad"
FLOORS = (5e-4, 10e-4, 30e-6)
GATE = Moves("ladder", FLOORS, UNIT, most=(200e-4, 200e-4, 200e-6), most_error=(10e-4, 10e-4, 10e-6))


def ladders(moved: float = 0.0, error: float = 1e-4, structures: int = 4, row: int = 1, column: int = 0) -> Payload:
    """Structures of three numbers each; one number of one of them has moved."""
    values, errors = np.zeros((structures, 3)), np.full((structures, 3), 1e-6)
    values[row, column], errors[row, column] = moved, error
    return Payload("alignment", {"ladder": values, "ladder_error": errors}, {"ladder": UNIT, "ladder_error": UNIT})


def said(payload: Payload, gate: Moves = GATE, in_force: Payload | None = None) -> tuple[Decision, str]:
    verdict = judge(payload, ladders() if in_force is None else in_force, [gate])
    return verdict.decision, "; ".join(verdict.reasons)


@pytest.mark.parametrize(
    ("moved", "error", "column", "decision"),
    [
        (4e-4, 1e-5, 0, Decision.NO_CHANGE),
        (-6e-4, 1e-5, 0, Decision.PUBLISH),
        (6e-4, 1e-5, 1, Decision.NO_CHANGE),
        (12e-4, 1e-5, 1, Decision.PUBLISH),
        (12e-4, 5e-4, 1, Decision.NO_CHANGE),
        (12e-4, np.nan, 1, Decision.NO_CHANGE),
        (40e-6, 1e-6, 2, Decision.PUBLISH),
        (20e-6, 1e-6, 2, Decision.NO_CHANGE),
    ],
)
def test_a_move_counts_over_its_floor_and_errors(moved: float, error: float, column: int, decision: Decision) -> None:
    assert said(ladders(moved, error, column=column))[0] is decision


def test_what_two_payloads_share_of_their_errors_hides_no_move() -> None:
    known_badly = ladders(60e-4, 80e-4)
    gate = Moves("ladder", FLOORS, UNIT)
    assert said(known_badly, gate)[0] is Decision.NO_CHANGE

    def with_statistical(error: float, rows: int = 4) -> Payload:
        own = {"ladder_statistical": np.full((rows, 3), error)}
        return Payload("alignment", dict(known_badly.arrays) | own, dict(known_badly.units) | dict.fromkeys(own, UNIT))

    assert said(with_statistical(20e-4), gate)[0] is Decision.PUBLISH
    assert said(with_statistical(30e-4), gate)[0] is Decision.NO_CHANGE
    assert said(with_statistical(20e-4))[1] == "ladder[1, 0] has an error of 0.008, 0.001 cm, rad is allowed"
    assert said(with_statistical(20e-4, rows=2), gate)[0] is Decision.REJECT


def test_moves_too_far_and_errors_too_large_are_rejected() -> None:
    assert said(ladders(0.03)) == (Decision.REJECT, "ladder[1, 0] moved by 0.03, 0.02 cm, rad is allowed")
    assert said(ladders(60e-4, 12e-4)) == (
        Decision.REJECT,
        "ladder[1, 0] has an error of 0.0012, 0.001 cm, rad is allowed",
    )
    # An error counts only where something moved, as CMS has it.
    assert said(ladders(4e-4, 12e-4))[0] is Decision.NO_CHANGE
    # One that is allowed does not hide one that is not: each has its own limit.
    far = ladders(0.015)
    values = far["ladder"].copy()
    values[2, 2] = 250e-6
    turned = Payload("alignment", dict(far.arrays) | {"ladder": values}, dict(far.units))
    assert said(turned)[1] == "ladder[2, 2] moved by 0.00025, 0.0002 cm, rad is allowed"


def test_of_ladders_a_share_must_move() -> None:
    gate = Moves("ladder", FLOORS, UNIT, share=0.25)
    assert said(ladders(6e-4, 1e-5, structures=4), gate, ladders(structures=4))[0] is Decision.PUBLISH
    reason = "1 of 5 ladder moved, a share of 0.25 would count"
    assert said(ladders(6e-4, 1e-5, structures=5), gate, ladders(structures=5)) == (Decision.NO_CHANGE, reason)
    (measure,) = judge(ladders(6e-4, 1e-5), ladders(), [gate]).measures
    assert (measure.what, measure.value, measure.limit) == ("share of ladder moved", 0.25, 0.25)


def test_without_a_payload_in_force_all_is_new() -> None:
    assert judge(ladders(6e-4), None, [GATE]).decision is Decision.PUBLISH


def test_what_cannot_be_compared_is_rejected() -> None:
    plain = ladders()
    none = Payload("alignment", {"ladder": plain["ladder"]}, {"ladder": UNIT})
    assert said(none)[1].startswith("a payload of kind alignment has no array 'ladder_error'")
    assert said(plain, Moves("ladder", (1.0,), UNIT))[1] == "ladder has shape (4, 3), and there are 1 floors"
    assert said(plain, Moves("ladder", FLOORS, "um"))[1] == "the gate has ladder in um, the payload in cm, rad"
    assert said(ladders(structures=5))[1].startswith("ladder has shape (5, 3), in the payload in force (4, 3)")
    assert said(ladders(np.nan))[1] == "ladder has values that are not finite"
