from __future__ import annotations

import math
import statistics
from dataclasses import replace
from typing import Any

import awkward as ak
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from calib.algorithms.channel_status import ChannelStatus, Status, _fano, all_good, follow, is_good
from calib.calibration import Calibration, Columns, Granularity, NotEnoughData, Outcome, conclude
from calib.iov import RunLumi
from calib.payload import Payload
from calib.testing import CalibrationLaws
from tests.calib.toy import dark_counts

GOOD, DEAD, NOISY = Status.GOOD, Status.DEAD, Status.NOISY
CHANNELS = 60
GROUPS = (0,) * 40 + (1,) * 20
UNITS = [(3, lumi) for lumi in range(1, 21)]


def rates(rng: np.random.Generator, spread: float = 0.12, mean: float = 140.0) -> NDArray[np.float64]:
    """Two kinds of channels, the second half as fast again, spread among themselves."""
    return mean * np.where(np.array(GROUPS) == 0, 1.0, 1.5) * rng.lognormal(0, spread, CHANNELS)


def some_counts(seed: int = 1, units: list[tuple[int, int]] | None = None, **more: float) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    columns: dict[str, Any] = dark_counts(rng, units or UNITS, rates(rng, **more))
    return columns


def status() -> ChannelStatus:
    return ChannelStatus(channels=CHANNELS, groups=GROUPS)


def payloads(columns: Columns, calibration: ChannelStatus | None = None) -> list[Payload]:
    calibration = calibration or status()
    made = conclude(calibration, calibration.accumulate(columns, {}), None, flush=True)
    return [c.payload for c in made if c.payload is not None]


def changing() -> dict[str, Any]:
    """Counts of two runs: a channel falls silent in the first, another becomes noisy in the second."""
    columns = some_counts(2, [(3, i) for i in range(6)] + [(5, i) for i in range(6)])
    counts = columns["counts"].copy()
    counts[3:7, 5] = 0
    counts[9:, 50] *= 6
    counts[0, 7] = 0
    return {**columns, "counts": counts}


class TestLawsByLumi(CalibrationLaws):
    @pytest.fixture
    def calibration(self) -> Calibration:
        return status()

    @pytest.fixture
    def columns(self) -> Columns:
        return changing()


class TestLawsOfSpans(TestLawsByLumi):
    @pytest.fixture
    def calibration(self) -> Calibration:
        return replace(status(), granularity=Granularity.SPAN, min_counts=200)


class TestLawsOfHits(TestLawsByLumi):
    """Hits by channel number, few a unit."""

    @pytest.fixture
    def calibration(self) -> Calibration:
        return ChannelStatus(channels=5, granularity=Granularity.RUN, min_counts=5)

    @pytest.fixture
    def columns(self) -> Columns:
        rng = np.random.default_rng(1)
        hits = rng.poisson(2.0, 60)
        hits[3] = 0
        units = np.sort(rng.integers(0, 6, 60))
        channel = ak.unflatten(rng.integers(0, 5, hits.sum()), hits)
        return {"run": 1 + units // 4, "lumi": units, "event": np.arange(60), "channel": channel}


class TestStatus:
    def test_good_channels_are_good(self) -> None:
        (payload,) = payloads(some_counts())
        assert is_good(payload).all()
        np.testing.assert_allclose(payload["group_rate"], [140, 210], rtol=0.1)
        np.testing.assert_allclose(payload["group_spread"], 0.12, atol=0.05)
        np.testing.assert_allclose(payload["group_fano"], 1.5, atol=0.25)
        counts = some_counts()["counts"]
        np.testing.assert_array_equal(payload["counts"], counts.sum(axis=0))
        np.testing.assert_allclose(payload["rate"], counts.mean(axis=0))
        assert payload["expected"][0] == payload["group_rate"][0]

    @pytest.mark.parametrize(
        ("factor", "expected"), [(0.0, DEAD), (0.05, DEAD), (0.5, GOOD), (1.6, GOOD), (5.0, NOISY), (1000.0, NOISY)]
    )
    def test_by_rate(self, factor: float, expected: Status) -> None:
        columns = some_counts()
        counts = columns["counts"].astype(np.int64)
        counts[:, 45] = counts[:, 45] * factor
        (payload,) = payloads({**columns, "counts": counts})
        assert payload["status"][45] == expected
        assert np.count_nonzero(payload["status"]) == (expected != GOOD)

    def test_by_chance_alone_most_would_be_called_bad(self) -> None:
        (payload,) = payloads(some_counts())
        chance = np.abs(payload["counts"] - payload["expected"] * 20) > 5.2 * np.sqrt(payload["expected"] * 20)
        assert chance.mean() > 0.3
        assert is_good(payload).all()

    def test_each_is_judged_among_its_own_kind(self) -> None:
        columns = some_counts()
        counts = columns["counts"].astype(np.int64)
        counts[:, 40:] *= 10
        (apart,) = payloads({**columns, "counts": counts})
        (together,) = payloads({**columns, "counts": counts}, ChannelStatus(channels=CHANNELS))
        assert is_good(apart).all()
        assert (together["status"][40:] == NOISY).all()

    def test_a_group_of_which_nothing_counts_is_dead(self) -> None:
        columns = some_counts()
        counts = columns["counts"].copy()
        counts[:, 40:] = 0
        (payload,) = payloads({**columns, "counts": counts})
        assert (payload["status"] == np.where(np.arange(CHANNELS) < 40, GOOD, DEAD)).all()
        assert np.isnan(payload["group_fano"][1])

    def test_few_channels_that_agree_by_chance_are_not_called_noisy(self) -> None:
        counts = np.array([[100, 100, 100, 109]])
        columns = {"run": [1], "lumi": [1], "event": [1], "counts": counts}
        (payload,) = payloads(columns, ChannelStatus(channels=4))
        assert is_good(payload).all()
        assert np.isnan(payload["group_fano"]).all()

    def test_too_few_counts_tell_no_dead_channel(self) -> None:
        calibration = ChannelStatus(channels=CHANNELS)
        state = calibration.accumulate(some_counts(mean=1.0), {})
        with pytest.raises(NotEnoughData, match=r"a typical channel has \d+ counts; to judge it takes 50"):
            calibration.finalize(state, None)
        (conclusion,) = conclude(calibration, state, None, flush=True)
        assert conclusion.outcome is Outcome.NOT_ENOUGH_DATA

    def test_all_good_to_start_from(self) -> None:
        assert is_good(all_good(5)).tolist() == [True] * 5


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (np.zeros((1, 3), np.int64), r"int64 of shape \(1, 3\); they must be integers \[events, 60\]"),
        (np.zeros((1, CHANNELS)), r"float64 of shape \(1, 60\)"),
        (np.zeros(1, np.int64), r"shape \(1,\)"),
    ],
)
def test_counts_that_are_none_are_refused(counts: NDArray[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        status().accumulate({"run": [1], "lumi": [1], "event": [1], "counts": counts}, {})


def test_hits_of_channels_there_are_not_are_refused() -> None:
    columns = {"run": np.array([1]), "lumi": np.array([1]), "event": np.array([1]), "channel": ak.Array([[2, 5]])}
    with pytest.raises(ValueError, match="channels 2 to 5 were hit; there are 5"):
        ChannelStatus(channels=5).accumulate(columns, {})


def test_hits_and_counts_give_the_same_state() -> None:
    columns = some_counts(mean=3.0)
    hits = [np.repeat(np.arange(CHANNELS), row) for row in columns["counts"].tolist()]
    jagged = {name: columns[name] for name in ("run", "lumi", "event")} | {"channel": ak.Array(hits)}
    assert status().accumulate(jagged, {}).same(status().accumulate(columns, {}))


@pytest.mark.parametrize("wrong", [{"min_counts": 0}, {"dead_below": 1.5}, {"noisy_above": -1.0}, {"channels": 0}])
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="`dead_below` is 0 to 1"):
        ChannelStatus(**{"channels": 3, **wrong})


def test_groups_must_be_of_all_channels() -> None:
    with pytest.raises(ValueError, match="2 channels have a group; there are 3"):
        ChannelStatus(channels=3, groups=(0, 1))


def test_a_payload_has_the_shape_that_its_readers_want() -> None:
    (flat,) = payloads(some_counts())
    (shaped,) = payloads(some_counts(), replace(status(), shape=(3, 20)))
    assert {name for name in flat.arrays if shaped[name].shape != flat[name].shape} == {
        *("status", "counts", "rate", "expected", "group")
    }
    assert shaped["rate"].shape == (3, 20) and (shaped["rate"].reshape(-1) == flat["rate"]).all()
    with pytest.raises(ValueError, match=r"60 channels have no `shape` \(7, 9\)"):
        replace(status(), shape=(7, 9))


def bounds(columns: Columns, calibration: ChannelStatus) -> list[tuple[int, int]]:
    intervals = calibration.intervals(calibration.accumulate(columns, {}), flush=True)
    ends = [(RunLumi.unpack(i.units[0]), RunLumi.unpack(i.units[-1])) for i in intervals]
    return [(first.lumi, last.lumi) for first, last in ends]


def naive_judge(counts: list[int], groups: list[int], dead_below: float, noisy_above: float) -> list[int]:
    """Status by channel of one block, group by group."""
    found = [int(Status.GOOD)] * len(counts)
    for group in sorted(set(groups)):
        members = [i for i, own in enumerate(groups) if own == group]
        counting = [counts[i] for i in members if counts[i] > 0]
        usual = float(statistics.median_low(counting)) if counting else 0.0
        away = statistics.median_low([abs(n - usual) for n in counting]) if counting else 0.0
        # What is usual scatters as counts do at least.
        spread = max(1.4826 * away, math.sqrt(usual))
        for i in members:
            if counts[i] == 0 or counts[i] < dead_below * usual:
                found[i] = int(Status.DEAD)
            elif counts[i] > usual + noisy_above * spread:
                found[i] = int(Status.NOISY)
    return found


def test_judging_agrees_with_a_loop() -> None:
    rng = np.random.default_rng(21)
    groups = rng.integers(0, 3, 60)
    calibration = ChannelStatus(channels=60, groups=tuple(groups.tolist()), noisy_above=4.0)
    blocks = rng.poisson(rng.choice([0.0, 3.0, 40.0, 90.0], (50, 60), p=[0.1, 0.05, 0.8, 0.05]))
    blocks[7, groups == 1] = 0
    found = calibration._judge(blocks)
    for block, status in zip(blocks, found, strict=True):
        assert status.tolist() == naive_judge(block.tolist(), groups.tolist(), calibration.dead_below, 4.0)
    assert set(np.unique(found)) == {Status.GOOD, Status.DEAD, Status.NOISY}


def naive_fano(counts: list[list[int]], alive: list[bool]) -> float:
    """Of each living channel the chi2 of its counts by unit to its share of each, by degree of freedom; the median."""
    channels = [i for i, living in enumerate(alive) if living]
    units = [unit for unit in counts if sum(unit[i] for i in channels) > 0]
    if len(units) < 2:
        return math.nan
    total = sum(unit[i] for unit in units for i in channels)
    found = []
    for i in channels:
        chi2, own = 0.0, sum(unit[i] for unit in units)
        for unit in units:
            expected = own * sum(unit[k] for k in channels) / total
            chi2 += (unit[i] - expected) ** 2 / expected
        found.append(chi2 / (len(units) - 1))
    return statistics.median(found)


@pytest.mark.parametrize("units", [1, 2, 9, 30])
def test_variance_over_mean_agrees_with_a_loop(units: int) -> None:
    rng = np.random.default_rng(22)
    counts = rng.negative_binomial(20, 0.5, (units, 12)) * rng.integers(1, 4, (units, 1))
    counts[:, 3] = 0
    counts[units // 2 + 1 : units // 2 + 2] = 0
    alive = counts.sum(axis=0) > 0
    expected = naive_fano(counts.tolist(), alive.tolist())
    np.testing.assert_allclose(_fano(counts, alive), expected, rtol=1e-12)
    assert np.isnan(expected) == (units == 1)


class TestIntervals:
    def test_a_channel_silent_for_a_while_and_one_noisy_from_then_on(self) -> None:
        columns = some_counts()
        counts = columns["counts"].copy()
        counts[5:9, 3] = 0
        counts[12:, 44] *= 5
        columns = {**columns, "counts": counts}
        assert bounds(columns, status()) == [(1, 5), (6, 9), (10, 12), (13, 20)]
        found = [np.flatnonzero(payload["status"]).tolist() for payload in payloads(columns)]
        assert found == [[], [3], [], [44]]

    def test_a_glitch_is_not_followed_but_for_the_last_block(self) -> None:
        columns = some_counts()
        counts = columns["counts"].copy()
        counts[0, 3] = counts[7, 4] = 0
        assert bounds({**columns, "counts": counts}, status()) == [(1, 20)]
        counts[19, 5] = 0
        calibration = status()
        *_, last = calibration.intervals(calibration.accumulate({**columns, "counts": counts}, {}), True)
        assert (len(last.units), last.unconfirmed) == (1, True)

    def test_low_rates_are_merged_and_one_noisy_channel_cannot_make_it_look_enough(self) -> None:
        columns = some_counts(mean=20.0)
        counts = columns["counts"].astype(np.int64)
        counts[:, 0] = 10**7
        counts[10:, 7] = 0
        bound = bounds({**columns, "counts": counts}, status())
        assert len(bound) == 2
        assert 9 <= bound[0][1] <= 12

    def test_a_run_is_one_interval_if_so_wanted(self) -> None:
        calibration = replace(status(), granularity=Granularity.RUN)
        assert len(payloads(changing(), calibration)) == 2

    def test_scant_units_at_the_end_have_no_say(self) -> None:
        columns = some_counts()
        counts = columns["counts"].copy()
        counts[19] = 0
        assert bounds({**columns, "counts": counts}, status()) == [(1, 20)]


def naive_follow(status: list[list[int]]) -> list[int]:
    """Where intervals begin, channel by channel in a loop."""
    begins, first = [0], 0

    def held(block: int, channel: int) -> int:
        seen = [row[channel] for row in status[block : block + 3]]
        return seen[1] if len(seen) == 3 and seen[0] not in seen[1:] else seen[0]

    for i in range(1, len(status) - 1):
        if any(status[i][c] != held(first, c) and status[i][c] == status[i + 1][c] for c in range(len(status[0]))):
            begins.append(i)
            first = i
    last = len(status) - 1
    if last > first and any(status[last][c] != held(first, c) for c in range(len(status[0]))):
        begins.append(last)
    return begins


@given(st.lists(st.lists(st.sampled_from([0, 0, 0, 1, 2]), min_size=2, max_size=2), min_size=1, max_size=12))
def test_following_agrees_with_a_loop(seen: list[list[int]]) -> None:
    blocks = [(unit,) for unit in range(len(seen))]
    intervals = follow(blocks, np.array(seen, np.int8), flush=True, rest=(99,))
    assert [interval.units[0] for interval in intervals] == naive_follow(seen)
    assert [unit for interval in intervals for unit in interval.units] == [*range(len(seen)), 99]
