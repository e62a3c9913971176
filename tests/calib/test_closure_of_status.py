"""Closure of the status of channels: what a few channels contradict is found among many, and sound ones close."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from calib.accumulators import UnitSums
from calib.algorithms import channel_status
from calib.algorithms.channel_status import ChannelStatus
from calib.algorithms.occupancy_flags import Status
from calib.algorithms.occupancy_status import OccupancyStatus
from calib.closure import Closes, Closure, Demand, close
from calib.iov import RunLumi
from calib.payload import Payload
from calib.pulls import furthest, of_count
from calib.state import State
from tests.calib.test_occupancy_status import state_of

CHIP = 128
EXPRESS, PROMPT = 2_000, 20_000
"""events"""
DEAD, HOT, DEAD_GROUP, NOISY_GROUP = Status.DEAD, Status.HOT, Status.DEAD_GROUP, Status.NOISY_GROUP


def with_status(payload: Payload, where: Any, code: int) -> Payload:
    status = payload["status"].copy()
    status.reshape(-1)[where] = code
    return Payload(payload.kind, {**payload.arrays, "status": status}, payload.units)


class TestOfCount:
    def test_a_pull_is_what_poisson_gives(self) -> None:
        for number, expected in ((1, 1e-4), (4, 0.5), (140, 100.0)):
            pull = float(of_count(number, expected).pulls())
            assert stats.norm.sf(pull) == pytest.approx(stats.poisson.sf(number - 1, expected), rel=1e-6)

    def test_none_or_as_many_as_expected_are_no_pull_and_more_than_can_be_is_a_number(self) -> None:
        assert [float(of_count(*each).pulls()) for each in ((0, 0.0), (0, 5.0), (3, 5.0))] == [0.0, 0.0, 0.0]
        assert 30 < float(of_count(10_000, 0.0).pulls()) < 40


# Channels that are hit seldom. ----------------------------------------------------------------------------------------


def strips(chips: int) -> OccupancyStatus:
    return OccupancyStatus(channels=chips * CHIP, group=CHIP, min_occupancy=0.0)


def played(seed: int, calibration: OccupancyStatus, mean: float, share: float = 0.002) -> tuple[Payload, State]:
    """The status as express finds it, after runs that have found the dead ones; and the state that prompt leaves.

    Shares of the strips are dead, but for noise of a thousandth, and hot; so is one chip in a hundred."""
    rng = np.random.default_rng(seed)
    rates = np.repeat(rng.gamma(100, mean / 100, calibration.channels // CHIP), CHIP)
    dead = rng.random(len(rates)) < share
    dead |= np.repeat(rng.random(calibration.channels // CHIP) < 0.01, CHIP)
    rates[dead] *= 1e-3
    hot = ~dead & (rng.random(len(rates)) < share / 2)
    rates[hot] *= 40
    before = {"status": np.where(dead, DEAD, 0).astype(np.int8), "silent": np.where(dead, 20.0, 0.0).astype(np.float32)}
    express, more = rng.poisson(rates), rng.poisson(9 * rates)
    made = calibration.finalize(state_of(calibration, express, events=EXPRESS), Payload("channel_status", {**before}))
    return made, state_of(calibration, express + more, events=PROMPT)


def closed(calibration: OccupancyStatus, state: State, in_force: Payload) -> Closure:
    return close(calibration, state, in_force, Demand())


def test_one_chip_of_thousands_that_is_called_dead_does_not_close() -> None:
    """640 000 strips, 8000 of them flagged; a sound status of them closes."""
    calibration = strips(5000)
    made, state = played(1, calibration, 2.0)
    assert np.count_nonzero(made["status"]) > 6000
    sound = closed(calibration, state, made)
    assert sound.answer is Closes.YES and sound.sigmas is not None and sound.sigmas < 2, sound.why
    good = np.flatnonzero((made["status"].reshape(-1, CHIP) == 0).all(axis=1))[5]
    chip = slice(good * CHIP, (good + 1) * CHIP)
    found = calibration.finalize(state, made)
    for code in (DEAD, DEAD_GROUP, DEAD | DEAD_GROUP, NOISY_GROUP):
        most = furthest(calibration.apart(found, with_status(made, chip, code)), 3.0, {})
        assert most is not None and most.beyond and "status by 128" in str(most)


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("a dead chip called good", 0),
        ("hot strips called good", 0),
        ("hot strips called dead", DEAD),
        ("silent strips called good", 0),
    ],
)
def test_a_few_wrong_ones_among_many_do_not_close(what: str, code: int) -> None:
    calibration = strips(1000)
    made, state = played(2, calibration, 2.0)
    status = made["status"]
    which = {
        "a dead chip": np.flatnonzero((status & DEAD_GROUP) != 0)[:CHIP],
        "hot strips": np.flatnonzero(status == HOT)[:6],
        "silent strips": np.flatnonzero(status == DEAD)[:2],
    }[what.split(" called")[0]]
    assert len(which) >= 2
    assert closed(calibration, state, made).answer is Closes.YES
    found = closed(calibration, state, with_status(made, which, code))
    assert found.answer is Closes.NO, found.why


def test_hot_strips_of_an_upload_that_are_hit_as_others_do_not_close() -> None:
    """It says nothing of what it was made from."""
    calibration = strips(100)
    made, state = played(3, calibration, 2.0)
    bare = Payload("channel_status", {"status": made["status"]})
    assert closed(calibration, state, bare).answer is Closes.YES
    good = np.flatnonzero(made["status"] == 0)[:40]
    assert closed(calibration, state, with_status(bare, good, HOT)).answer is Closes.NO
    assert closed(calibration, state, with_status(bare, good, DEAD)).answer is Closes.NO


@pytest.mark.parametrize("mean", [0.02, 0.1, 0.4, 2.0, 10.0])
def test_sound_ones_close_at_every_mean(mean: float) -> None:
    """40 runs of 130 chips with 500 flags, at a mean in express of 0.02 and more: of sound runs one in 700 may fail,
    that is 3.2 sigma, the larger of two; none here."""
    calibration = OccupancyStatus(channels=130 * CHIP, group=CHIP, min_occupancy=0.0, min_hits=1)
    for seed in range(40):
        made, state = played(100 + seed, calibration, mean, share=0.02)
        found = closed(calibration, state, made)
        assert found.answer is Closes.YES, found.why


@pytest.mark.parametrize("channels", [1, CHIP])
def test_a_status_of_other_channels_is_refused(channels: int) -> None:
    calibration = strips(3)
    found = calibration.finalize(state_of(calibration, np.full(3 * CHIP, 5)), None)
    with pytest.raises(ValueError, match=r"status is of shape \(384,\) in no unit and of shape"):
        calibration.apart(found, Payload("channel_status", {"status": np.zeros(channels, np.int8)}))


def test_single_channels_are_held_to_their_kin_where_there_is_no_group() -> None:
    """As the readout chips of pixels: one wrong one that is hit often, and none that is hit too rarely to tell."""
    rng = np.random.default_rng(4)
    calibration = OccupancyStatus(channels=2000, kin=((1000, (0,)), (1000, (1,))), dead_below=0.5, min_hits=1)
    rates = np.repeat([0.6, 24.0], 1000)
    rates[[7, 1007]] = 0.0
    express = rng.poisson(rates)
    made = calibration.finalize(state_of(calibration, express, events=EXPRESS), None)
    state = state_of(calibration, express + rng.poisson(9 * rates), events=PROMPT)
    assert made["status"][1007] & DEAD_GROUP
    assert closed(calibration, state, made).answer is Closes.YES
    assert closed(calibration, state, with_status(made, 1500, DEAD_GROUP)).answer is Closes.NO
    assert closed(calibration, state, with_status(made, 1007, 0)).answer is Closes.NO
    assert closed(calibration, state, with_status(made, 500, DEAD_GROUP)).answer is Closes.YES


# Channels that count often. -------------------------------------------------------------------------------------------


def counting(seed: int, channels: int = 5000, limit: bool = False) -> tuple[ChannelStatus, Payload, State]:
    """The status as a tenth of the units gives it, and the state of all of them; with `limit` a tenth of the channels
    count about as much as the least that is good."""
    rng = np.random.default_rng(seed)
    calibration = ChannelStatus(channels=channels)
    rates = rng.normal(12.0, 0.5, channels)
    rates[:12], rates[12:20], rates[20:24] = 0.0, 0.02, 60.0
    if limit:
        rates[100 : 100 + channels // 10] = 1.2
    counts = rng.poisson(rates, (100, channels))
    units = np.array([RunLumi(1, lumi).packed for lumi in range(100)])
    events = UnitSums(units, np.full(100, 10))
    state = State({"counts": UnitSums(units, counts.astype(np.int64)), "events": events})
    return calibration, calibration.finalize(state.select(units[::10]), None), state


def test_dead_channels_called_good_do_not_close_and_be_it_one() -> None:
    calibration, made, state = counting(1)
    assert np.count_nonzero(made["status"]) == 24
    sound = close(calibration, state, made, Demand())
    assert sound.answer is Closes.YES, sound.why
    dead, noisy = channel_status.Status.DEAD, channel_status.Status.NOISY
    for number in (1, 8, 12):
        assert close(calibration, state, with_status(made, slice(0, number), 0), Demand()).answer is Closes.NO
    for where, code in ((15, 0), (21, 0), (21, dead), (3, noisy), (1000, dead), (1000, noisy)):
        found = close(calibration, state, with_status(made, where, code), Demand())
        assert found.answer is Closes.NO, found.why


def test_an_upload_of_flags_alone_is_held_to_what_is_counted() -> None:
    calibration, made, state = counting(2)
    bare = Payload(made.kind, {"status": made["status"]})
    assert close(calibration, state, bare, Demand()).answer is Closes.YES
    for where, code in ((3, 0), (15, 0), (21, 0), (1000, 1)):
        assert close(calibration, state, with_status(bare, where, code), Demand()).answer is Closes.NO


@pytest.mark.parametrize("limit", [False, True])
def test_sound_ones_that_count_often_close(limit: bool) -> None:
    """Though half of those at the limit come out otherwise: 50 of 1000 channels in each of 30 runs."""
    differ = 0
    for seed in range(30):
        calibration, made, state = counting(50 + seed, 500, limit)
        found = close(calibration, state, made, Demand())
        assert found.answer is Closes.YES, found.why
        differ += np.count_nonzero(calibration.finalize(state, None)["status"] != made["status"])
    assert differ > 300 if limit else differ < 30
