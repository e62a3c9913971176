"""The gate over channels of which some always fluctuate, each of its reasons made to fire."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from calib.gates import Decision, MovedShare, judge
from calib.payload import Payload

CHANNELS, CHIP = 128 * 2000, 128
GATE = MovedShare("mean", 0.01, 3.0, 0.05, "ADC", CHIP)
ERROR = 0.6

Floats = NDArray[np.float64]


def chance(seed: int = 1, width: float = 1.0) -> Floats:
    """Moves of channels by so many of their errors."""
    moves: Floats = np.random.default_rng(seed).normal(0.0, width * np.hypot(ERROR, ERROR), CHANNELS)
    return moves


def pedestals(moves: Floats, error: float = ERROR, **more: Any) -> Payload:
    arrays = {"mean": 100.0 + moves, "mean_error": np.full(len(moves), error)} | more
    return Payload("pedestal", arrays, {"mean": "ADC", "mean_error": "ADC"})


BEFORE = pedestals(np.zeros(CHANNELS))


def said(payload: Payload, gate: MovedShare = GATE, in_force: Payload | None = BEFORE) -> tuple[Decision, str]:
    verdict = judge(payload, in_force, [gate])
    return verdict.decision, "; ".join(verdict.reasons)


def test_what_chance_moves_is_no_change() -> None:
    decision, why = said(pedestals(chance()))
    assert decision is Decision.NO_CHANGE
    count = int(why.split()[0])
    assert abs(count - 0.0027 * CHANNELS) < 4 * np.sqrt(0.0027 * CHANNELS)
    assert why == f"{count} of {CHANNELS} mean moved, a share of 0.01 would count, or one of 0.25 in 128 together"
    # A gate over single channels has them all published, each time.
    assert judge(pedestals(chance()), BEFORE, [MovedShare("mean", 1e-9)]).decision is Decision.PUBLISH


def test_one_chip_that_jumped_is_published() -> None:
    moves = chance()
    moves[5 * CHIP : 6 * CHIP] += 4.0
    assert said(pedestals(moves))[0] is Decision.PUBLISH
    # Of all channels it is nothing.
    assert said(pedestals(moves), MovedShare("mean", 0.01, 3.0, 0.05, "ADC"))[0] is Decision.NO_CHANGE
    # As many strips that lie anywhere are not a chip.
    apart = chance()
    apart[:: CHANNELS // CHIP] += 4.0
    assert said(pedestals(apart))[0] is Decision.NO_CHANGE


def test_drift_of_all_is_published_when_it_is_more_than_half_an_error() -> None:
    assert said(pedestals(chance(width=1.1)))[0] is Decision.NO_CHANGE
    assert said(pedestals(chance(width=1.2)))[0] is Decision.PUBLISH


def test_a_move_of_all_together_is_published_above_the_floor() -> None:
    assert said(pedestals(chance() + 0.04))[0] is Decision.NO_CHANGE
    assert said(pedestals(chance() + 0.06))[0] is Decision.PUBLISH
    # And not within the error of the mean, however low the floor.
    few = 10 * CHIP
    one, other = pedestals(np.full(few, 0.06)), pedestals(np.zeros(few))
    assert said(one, in_force=other)[0] is Decision.NO_CHANGE


def test_what_is_below_the_floor_is_no_move_however_well_known() -> None:
    moves = np.where(np.arange(CHANNELS) % 2, 0.04, -0.04)
    exact = pedestals(np.zeros(CHANNELS), 0.0)
    assert said(pedestals(moves, 1e-4), in_force=exact)[0] is Decision.NO_CHANGE
    assert said(pedestals(2 * moves, 1e-4), in_force=exact)[0] is Decision.PUBLISH


def test_what_has_no_error_was_not_measured() -> None:
    lost = np.full(CHANNELS, np.nan)
    assert said(pedestals(chance() + 50.0, mean_error=lost))[0] is Decision.NO_CHANGE
    # A value taken as exact before is compared by the error of what is new.
    nominal = Payload("pedestal", {"mean": np.full(CHANNELS, 100.0)}, {"mean": "ADC"})
    assert said(pedestals(chance(width=0.7)), in_force=nominal)[0] is Decision.NO_CHANGE
    assert said(pedestals(chance(width=1.0)), in_force=nominal)[0] is Decision.PUBLISH


def test_values_that_are_no_numbers_any_more_moved() -> None:
    moves = chance()
    moves[: CHANNELS // 50] = np.nan
    assert said(pedestals(moves))[0] is Decision.PUBLISH
    assert said(pedestals(moves), in_force=pedestals(moves))[0] is Decision.NO_CHANGE


def test_codes_move_where_they_are_others() -> None:
    gate = MovedShare("status", 0.01, group=CHIP)

    def flagged(*channels: int) -> Payload:
        status = np.zeros(CHANNELS, np.int8)
        status[list(channels)] = 8
        return Payload("pedestal", {"status": status}, {})

    assert said(flagged(3, 77), gate, flagged())[0] is Decision.NO_CHANGE
    assert said(flagged(*range(CHIP)), gate, flagged())[0] is Decision.PUBLISH
    assert said(flagged(*range(CHIP)), gate, flagged(*range(CHIP)))[0] is Decision.NO_CHANGE
    assert said(flagged(*range(0, CHANNELS, 50)), gate, flagged())[0] is Decision.PUBLISH


def test_without_one_in_force_it_is_published() -> None:
    assert said(pedestals(chance()), in_force=None)[0] is Decision.PUBLISH


@pytest.mark.parametrize(
    ("payload", "gate", "why"),
    [
        (pedestals(chance()), MovedShare("noise", 0.01), "has no array 'noise'"),
        (Payload("pedestal", {"mean": chance()}, {}), MovedShare("mean", 0.01), "has no array 'mean_error'"),
        (pedestals(chance()), MovedShare("mean", 0.01, floor=1.0, unit="V"), "the gate has mean in V"),
        (pedestals(chance()[1:]), GATE, "no whole number of groups of 128"),
        (pedestals(chance()[CHIP:]), GATE, r"in the payload in force \(256000,\)"),
        (pedestals(chance(), mean_error=np.zeros(3)), GATE, r"mean_error \(3,\)"),
    ],
)
def test_what_cannot_be_compared_is_rejected(payload: Payload, gate: MovedShare, why: str) -> None:
    decision, reason = said(payload, gate)
    assert decision is Decision.REJECT
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(reason)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"share": 0.0}, "share is a share between 0 and 1"),
        ({"group_share": 1.0}, "group_share is a share between 0 and 1"),
        ({"n_sigma": -1.0}, "n_sigma is 0 or more"),
        ({"group": -1}, "group is 0 or more"),
        ({"floor": 0.1}, "a floor needs its unit"),
    ],
)
def test_parameters_that_cannot_be_are_refused(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        MovedShare(**{"array": "mean", "share": 0.01, **wrong})
