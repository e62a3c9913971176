from __future__ import annotations

from dataclasses import replace
from typing import Any

import awkward as ak
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from calib.accumulators import UnitSums
from calib.algorithms.channel_status import all_good
from calib.algorithms.occupancy_status import OccupancyStatus, Status
from calib.calibration import Calibration, Columns, Granularity, NotEnoughData, Outcome, conclude
from calib.channel_sums import ChannelSums
from calib.form import misfits
from calib.gates import GoodShare, MaxMove, MinEntries, judge
from calib.iov import RunLumi
from calib.payload import Payload
from calib.pools import Pools
from calib.state import State
from calib.testing import CalibrationLaws, take
from calib.verdict import Decision

CHIP = 128
DEAD, HOT, DEAD_GROUP, NOISY_GROUP = Status.DEAD, Status.HOT, Status.DEAD_GROUP, Status.NOISY_GROUP


def hits(rng: np.random.Generator, units: list[tuple[int, int]], rates: NDArray[Any], events: int) -> dict[str, Any]:
    """`events` events of each unit, in each of which a channel is hit with the chance `rates`; one event without."""
    run, lumi = np.repeat(np.array(units), events, axis=0).T
    hit = rng.random((len(run), len(rates))) < rates
    hit[3] = False
    channel = ak.unflatten(np.nonzero(hit)[1].astype(np.uint32), hit.sum(axis=1))
    return {"run": run, "lumi": lumi, "event": np.arange(len(run)), "channel": channel}


def state_of(calibration: OccupancyStatus, counts: NDArray[Any], run: int = 1, events: int = 20_000) -> State:
    """What a run of such counts leaves."""
    unit = np.array([RunLumi(run, 1).packed])
    width = calibration._width
    rows = -(-counts.size // width)
    padded = np.append(counts.reshape(-1), np.zeros(rows * width - counts.size, np.int64)).reshape(rows, width)
    sums = ChannelSums.of(Pools.of(unit, calibration.pools), 0, np.arange(rows), {"hits": padded})
    return State({"hits": sums, "events": UnitSums(unit, np.array([events]))})


def bits(payload: Payload, bit: Status, group: int = CHIP) -> NDArray[np.bool_]:
    """Which channels have it, [groups, group]."""
    found: NDArray[np.bool_] = ((payload["status"] & bit) != 0).reshape(-1, group)
    return found


def few_channels(**more: Any) -> OccupancyStatus:
    return OccupancyStatus(channels=24, group=4, kin=((3, (0,)), (3, (1,))), min_hits=5, min_occupancy=0.0, **more)


RATES = np.repeat([0.05, 0.15], 12) * np.where(np.arange(24) == 7, 12, 1) * ~np.isin(np.arange(24), [3, 20, 21, 22, 23])


class TestLaws(CalibrationLaws):
    """Runs of one unit each: all laws as they are."""

    @pytest.fixture
    def calibration(self) -> Calibration:
        return few_channels()

    @pytest.fixture
    def columns(self) -> Columns:
        return hits(np.random.default_rng(1), [(run, 1) for run in range(2, 7)], RATES, 40)


class TestLawsOfSpans(TestLaws):
    @pytest.fixture
    def calibration(self) -> Calibration:
        return few_channels(granularity=Granularity.SPAN, min_mean=0.1)

    @pytest.fixture
    def columns(self) -> Columns:
        return hits(np.random.default_rng(1), [(run, 1) for run in range(2, 12)], RATES, 15)


class TestLawsOfRunsOfManyUnits(TestLaws):
    """Of so few units each has hits of its own."""

    @pytest.fixture
    def columns(self) -> Columns:
        return hits(np.random.default_rng(1), [(run, lumi) for run in (2, 4) for lumi in range(3)], RATES, 20)


def naive(
    calibration: OccupancyStatus, counts: list[list[int]], events: int, previous: Payload | None
) -> tuple[list[int], list[float]]:
    """Status and silence channel by channel; the hottest of a group is taken out first, one at a time."""
    groups, group = len(counts), calibration.group
    before = [0] * calibration.channels if previous is None else previous["status"].tolist()
    silent = [0.0] * calibration.channels if previous is None else previous["silent"].tolist()
    limit = -np.log(calibration.probability)
    kin = [number for times, pattern in calibration.kin for _ in range(times) for number in pattern]
    hot: list[set[int]] = []
    idle: list[set[int]] = []
    for g, row in enumerate(counts):
        idle.append({c for c in range(group) if row[c] == 0 and silent[g * group + c] > limit})
        out: set[int] = set()
        while rest := [c for c in range(group) if c not in out | idle[g]]:
            mean = sum(row[c] for c in rest) / len(rest)
            most = max(rest, key=lambda c: row[c])
            beyond = stats.poisson.sf(row[most], mean) < calibration.probability
            if not (row[most] > mean and beyond and row[most] > calibration.min_occupancy * events):
                break
            out.add(most)
        mean = sum(row[c] for c in rest) / max(len(rest), 1)
        for c in (c for c in range(group) if before[g * group + c] & HOT):
            if mean < calibration.min_mean or stats.poisson.sf(row[c], mean) < calibration.stays_below:
                out.add(c)
        hot.append(out)
    part = [[c for c in range(group) if c not in hot[g] | idle[g]] for g in range(groups)]
    total = [sum(counts[g][c] for c in part[g]) for g in range(groups)]
    mean_of = [total[g] / max(len(part[g]), 1) for g in range(groups)]
    typical_of = []
    for g in range(groups):
        like = [k for k in range(groups) if kin[k] == kin[g]]
        counting = [k for k in like if total[k] > 0]
        among = like if 2 * len(counting) > len(like) else counting
        middle = [sorted(of[k] for k in among)[(len(among) - 1) // 2] for of in (mean_of, total)] if among else [0, 0]
        chance = among is counting and middle[1] < 5
        typical_of.append(sum(mean_of[k] for k in like) / len(like) if chance else middle[0])
        if typical_of[g] == 0 and previous is not None:
            typical_of[g] = float(previous["group_expected"][g]) * events
    wanted = [typical_of[g] * len(part[g]) for g in range(groups)]
    squares = sorted((total[g] - wanted[g]) ** 2 / wanted[g] for g in range(groups) if wanted[g] > 0)
    at_once = max(1.0, squares[(len(squares) - 1) // 2] / 0.4549)
    status: list[int] = []
    since: list[float] = []
    for g, row in enumerate(counts):
        typical, expected = typical_of[g], wanted[g]
        few = stats.poisson.cdf(total[g] // at_once, expected / at_once) < calibration.probability
        many = stats.poisson.sf(-(-total[g] // at_once) - 1, expected / at_once) < calibration.probability
        dead = few and total[g] < calibration.dead_below * expected
        noisy = many and total[g] > calibration.noisy_above * expected and mean_of[g] >= calibration.min_mean
        rate = typical if dead or total[g] == 0 else mean_of[g]
        now = [0.0 if row[c] else silent[g * group + c] + rate for c in range(group)]
        dead = dead or group * min(now) > limit * at_once
        flags = dead * DEAD_GROUP | noisy * NOISY_GROUP
        status += [(now[c] > limit) * DEAD | (c in hot[g]) * HOT | flags for c in range(group)]
        since += now
    return status, since


def test_agrees_with_loops_over_runs() -> None:
    rng = np.random.default_rng(4)
    calibration = OccupancyStatus(
        channels=40 * 8, group=8, kin=((5, (0, 1, 1, 0, 1)), (15, (3,))), min_occupancy=1e-4, min_hits=3
    )
    rates = np.repeat(rng.lognormal(0, 0.3, (40, 1)), 8, axis=1) * np.repeat([2.0, 0.7], [25, 15])[:, None]
    rates[rng.random(rates.shape) < 0.05] *= 12
    rates[rng.random(rates.shape) < 0.05] = 0
    rates[[3, 30]] = 0
    rates[[9, 33]] *= 8
    payload: Payload | None = None
    seen = 0
    for run in range(1, 13):
        counts = rng.poisson(rates * (0.3 if run % 4 == 3 else 2.0))
        if run > 8:
            counts[30] = rng.poisson(1.0, 8)
        status, silent = naive(calibration, counts.tolist(), 20_000, payload)
        payload = calibration.finalize(state_of(calibration, counts, run), payload)
        assert payload["status"].tolist() == status
        np.testing.assert_allclose(payload["silent"], silent, rtol=1e-6)
        seen |= int(np.bitwise_or.reduce(payload["status"]))
    assert seen == DEAD | HOT | DEAD_GROUP | NOISY_GROUP


class TestToys:
    """False flags and efficiencies of physics note 3.1 and 10, at 5 sigma of what was drawn."""

    CHANNELS = 1_000_000 // CHIP * CHIP

    def test_at_a_mean_of_2_hot_strips_are_found_and_hardly_any_other(self) -> None:
        rng = np.random.default_rng(5)
        calibration = OccupancyStatus(channels=self.CHANNELS, group=CHIP, min_occupancy=0.0)
        rates = np.full(self.CHANNELS, 2.0)
        hot = rng.random(self.CHANNELS) < 1e-3
        rates[hot] = 20.0
        payload = calibration.finalize(state_of(calibration, rng.poisson(rates)), None)
        found = bits(payload, HOT).reshape(-1)
        # P(n > 12 | 20) = 0.961; 4e-7 a strip are 0.4 false flags, more than 4 come by chance in 1 of 16 000.
        assert abs(found[hot].mean() - 0.961) < 5 * np.sqrt(0.961 * 0.039 / hot.sum())
        assert (found & ~hot).sum() <= 4
        assert not (payload["status"] & ~HOT).any()
        rate = payload["group_rate"] * 20_000
        pull = (rate - 2) / (payload["group_rate_error"] * 20_000)
        assert abs(pull.mean()) < 5 / np.sqrt(len(pull))
        assert abs(pull.std() - 1) < 5 / np.sqrt(2 * len(pull))

    @pytest.mark.parametrize("mean", [0.1, 0.4, 1, 2, 5, 10, 20, 50])
    def test_from_so_many_counts_on_a_strip_is_hot(self, mean: float) -> None:
        first = {0.1: 4, 0.4: 7, 1: 10, 2: 13, 5: 20, 10: 30, 20: 47, 50: 91}[mean]
        # So large a group that the one looked at does not shift its mean.
        group = 1 << 15
        calibration = OccupancyStatus(channels=2 * group, group=group, min_occupancy=0.0, min_hits=0)
        counts = np.full((2, group), int(mean))
        counts[:, : round((mean - int(mean)) * group)] += 1
        counts[:, -1] = first - 1, first
        found = np.flatnonzero(bits(calibration.finalize(state_of(calibration, counts), None), HOT))
        assert found.tolist() == [2 * group - 1]

    def test_single_dead_strips_are_found_over_runs(self) -> None:
        rng = np.random.default_rng(6)
        calibration = OccupancyStatus(channels=200 * CHIP, group=CHIP, min_occupancy=0.0)
        rates = np.repeat(rng.gamma(25, 2 / 25, (200, 1)), CHIP, axis=1)
        dead = rng.random(rates.shape) < 3e-3
        rates[dead] = 0
        payload: Payload | None = None
        found = []
        for run in range(1, 17):
            payload = calibration.finalize(state_of(calibration, rng.poisson(rates), run), payload)
            flagged = bits(payload, DEAD)
            assert not (flagged & ~dead).any()
            found.append(flagged[dead].mean())
        # 16.1 hits of a typical 2 a run, within the spread of groups.
        assert found[3] == 0.0 and 0.2 < found[8] < 0.8 and found[-1] == 1.0
        # One that comes to life again is good at its first hit.
        counts = rng.poisson(rates)
        counts[dead] = 1
        assert payload is not None
        assert not bits(calibration.finalize(state_of(calibration, counts, 20), payload), DEAD).any()

    def test_dead_and_noisy_chips_after_one_run(self) -> None:
        rng = np.random.default_rng(7)
        kin = ((100, (0,)), (100, (1,)))
        calibration = OccupancyStatus(channels=200 * CHIP, group=CHIP, kin=kin, min_occupancy=0.0)
        rates = np.repeat(rng.gamma(100, 0.5 / 100, (200, 1)) * np.repeat([1, 4], 100)[:, None], CHIP, axis=1)
        rates[[5, 150]] = 0
        rates[151] *= 0.5
        rates[[7, 160]] *= 6
        payload = calibration.finalize(state_of(calibration, rng.poisson(rates)), None)
        found = [np.flatnonzero(bits(payload, bit).any(axis=1)).tolist() for bit in (DEAD_GROUP, NOISY_GROUP, HOT)]
        assert found == [[5, 150], [7, 160], []]
        assert bits(payload, DEAD_GROUP)[5].all()


class TestStatus:
    def test_a_group_may_be_one_channel(self) -> None:
        calibration = OccupancyStatus(channels=300, kin=((200, (0,)), (100, (1,))))
        counts = np.random.default_rng(8).poisson(np.repeat([40, 400], [200, 100]))
        counts[[3, 250]] = 0, 12
        payload = calibration.finalize(state_of(calibration, counts), None)
        assert np.flatnonzero(payload["status"] & DEAD_GROUP).tolist() == [3, 250]
        assert payload["status"][[3, 250]].tolist() == [DEAD | DEAD_GROUP, DEAD_GROUP]

    def test_short_runs_do_not_clear_what_was_hot_and_longer_ones_do(self) -> None:
        calibration = OccupancyStatus(channels=4 * CHIP, group=CHIP, min_occupancy=0.0)
        counts = np.full(4 * CHIP, 3)
        counts[9] = 60
        first = calibration.finalize(state_of(calibration, counts), None)
        short = calibration.finalize(state_of(calibration, (counts > 2) * (np.arange(4 * CHIP) % 3 == 0)), first)
        longer = calibration.finalize(state_of(calibration, np.full(4 * CHIP, 3)), short)
        assert [np.flatnonzero(bits(p, HOT)).tolist() for p in (first, short, longer)] == [[9], [9], []]

    def test_over_runs_of_few_hits_all_that_is_hot_comes_to_be_known(self) -> None:
        rng = np.random.default_rng(10)
        calibration = OccupancyStatus(channels=400 * CHIP, group=CHIP, min_occupancy=0.0)
        rates = np.full(400 * CHIP, 1.2)
        rates[::100] = 12.0
        payload: Payload | None = None
        shares = []
        for run in range(1, 7):
            payload = calibration.finalize(state_of(calibration, rng.poisson(rates), run), payload)
            found = bits(payload, HOT).reshape(-1)
            shares.append(found[::100].mean())
            assert found.sum() == found[::100].sum()
        # P(n > 10 | 12) = 0.65 of them in the first run; then those stay with P(n > 5 | 12) = 0.98.
        assert shares[0] < 0.75 and shares[-1] > 0.93

    def test_kin_none_of_which_is_hit_are_held_to_what_was_before(self) -> None:
        calibration = OccupancyStatus(channels=6 * CHIP, group=CHIP, kin=((4, (0,)), (2, (1,))))
        counts = np.full((6, CHIP), 2)
        lit = calibration.finalize(state_of(calibration, counts), None)
        counts[4:] = 0
        for previous, dead in ((lit, True), (None, False), (all_good(6 * CHIP), False)):
            payload = calibration.finalize(state_of(calibration, counts, 2), previous)
            assert bits(payload, DEAD_GROUP).all(axis=1).tolist() == [False] * 4 + [dead] * 2
        # What lies outside of the acceptance has never been hit, and its silence tells nothing.
        assert not payload["silent"].reshape(-1, CHIP)[4:].any()

    def test_kin_most_of_which_are_dead(self) -> None:
        calibration = OccupancyStatus(channels=16 * CHIP, group=CHIP, kin=((8, (0, 1)),))
        counts = np.full((16, CHIP), 2)
        counts[2::2] = 0
        payload = calibration.finalize(state_of(calibration, counts), None)
        assert bits(payload, DEAD_GROUP).all(axis=1).tolist() == [False, False] + [True, False] * 7
        assert not bits(payload, NOISY_GROUP).any()

    def test_kin_most_of_which_have_no_hit_by_chance(self) -> None:
        rng = np.random.default_rng(12)
        calibration = OccupancyStatus(channels=3000, kin=((1000, (0,)), (2000, (1,))), min_hits=1)
        rates = np.repeat([0.4, 9.0], [1000, 2000])
        payload: Payload | None = None
        for run in range(1, 31):
            payload = calibration.finalize(state_of(calibration, rng.poisson(rates), run), payload)
            assert not payload["status"].any()

    def test_hits_that_come_several_at_once_make_no_group_bad(self) -> None:
        rng = np.random.default_rng(11)
        calibration = OccupancyStatus(channels=2000 * CHIP, group=CHIP, min_occupancy=0.0)
        clusters = rng.poisson(6, 2000)
        clusters[9] = 0
        counts = np.zeros((2000, CHIP), np.int64)
        for group, strips in enumerate(clusters):
            for first in rng.integers(0, CHIP - 5, strips):
                counts[group, first : first + 5] += 1
        payload = calibration.finalize(state_of(calibration, counts), None)
        # 30 hits are 6 clusters, and none of these come by chance to one group in 400.
        assert not (payload["status"] & ~HOT).any()
        # By Poisson's law those without any, and those with three times as many, would be bad.
        assert np.count_nonzero(clusters == 0) > 3

    def test_groups_that_are_not_there_are_neither_dead_nor_typical(self) -> None:
        calibration = OccupancyStatus(channels=6 * CHIP, group=CHIP, kin=((2, (0, -1, -1)),))
        counts = np.zeros((6, CHIP), np.int64)
        counts[[0, 3]] = 2
        assert not calibration.finalize(state_of(calibration, counts), None)["status"].any()

    def test_groups_too_dim_for_one_run_are_found_over_runs(self) -> None:
        kin = ((6, (0,)), (4, (1,)))
        calibration = OccupancyStatus(channels=10 * CHIP, group=CHIP, kin=kin, min_occupancy=0.0)
        counts = np.full((10, CHIP), 1)
        counts[6:] = np.arange(CHIP) % 16 == 0
        counts[9] = 0
        payload: Payload | None = None
        found = []
        for run in range(1, 4):
            payload = calibration.finalize(state_of(calibration, counts, run), payload)
            found.append(bool(bits(payload, DEAD_GROUP)[9].all()))
        # 8 hits a run of a group of its kin.
        assert found == [False, False, True]

    def test_what_is_hit_seldom_is_not_called_hot(self) -> None:
        counts = np.full(4 * CHIP, 1)
        counts[9] = 30
        calibration = OccupancyStatus(channels=4 * CHIP, group=CHIP)
        assert not calibration.finalize(state_of(calibration, counts, events=20_000), None)["status"].any()
        assert calibration.finalize(state_of(calibration, counts, events=10_000), None)["status"][9] == HOT

    def test_too_few_hits_give_no_payload_and_go_on_in_a_span(self) -> None:
        columns = hits(np.random.default_rng(1), [(run, 1) for run in range(1, 7)], np.full(24, 0.05), 40)
        outcomes = []
        for granularity in (Granularity.RUN, Granularity.SPAN):
            calibration = replace(few_channels(), granularity=granularity, min_hits=20)
            made = conclude(calibration, calibration.accumulate(columns, {}), None, flush=True)
            outcomes.append([(len(c.interval.units), c.outcome) for c in made])
        assert outcomes[0] == [(1, Outcome.NOT_ENOUGH_DATA)] * 6
        assert outcomes[1] == [(3, Outcome.MADE), (3, Outcome.MADE)]
        with pytest.raises(NotEnoughData, match=r"a typical group has 6 hits; to judge it takes 20"):
            calibration.finalize(calibration.accumulate(take(columns, columns["run"] == 1), {}), None)

    def test_it_goes_on_from_a_payload_that_knows_only_who_is_good(self) -> None:
        calibration = few_channels()
        state = state_of(calibration, np.full(24, 3))
        payload = calibration.finalize(state, all_good(24))
        assert payload.id == calibration.finalize(state, None).id
        assert misfits(payload, all_good(24), calibration.leeway) == ()
        with pytest.raises(ValueError, match="the previous status is of 5 channels; there are 24"):
            calibration.finalize(state, all_good(5))


class TestGates:
    """Each lets the payload of a sound run pass, and fires on one of a run that is not."""

    @pytest.fixture
    def sound(self) -> Payload:
        counts = np.random.default_rng(9).poisson(np.full(100 * CHIP, 2.0))
        return TestGates.calibration().finalize(state_of(TestGates.calibration(), counts), None)

    @staticmethod
    def calibration() -> OccupancyStatus:
        return OccupancyStatus(channels=100 * CHIP, group=CHIP, min_occupancy=0.0)

    @pytest.mark.parametrize(
        ("gate", "spoiled"),
        [
            (GoodShare(array="status", code=Status.GOOD, minimum=0.9), np.repeat([0, 2], [20, 80])),
            (MinEntries(array="counts", minimum=20_000), np.full(100, 0.5)),
            (MaxMove(array="group_rate", limit=1e-4, unit="1/event"), np.repeat([2, 8], [99, 1])),
        ],
        ids=lambda value: getattr(value, "name", ""),
    )
    def test_fires(self, sound: Payload, gate: Any, spoiled: NDArray[Any]) -> None:
        counts = np.random.default_rng(9).poisson(np.repeat(spoiled, CHIP))
        bad = self.calibration().finalize(state_of(self.calibration(), counts), None)
        assert judge(sound, sound, [gate]).decision is Decision.PUBLISH
        assert judge(bad, sound, [gate]).decision is Decision.REJECT


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 10, "group": 4}, "`channels` = 10 must be a multiple of `group` = 4"),
        ({"channels": 8, "group": 4, "kin": ((3, (1,)),)}, "`kin` names 3 groups; there are 2"),
        ({"channels": 8, "granularity": Granularity.LUMI}, "`granularity` is 'run' or 'span'"),
        ({"channels": 8, "probability": 0.5}, "must lie between 0 and 0.01"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OccupancyStatus(**settings)


def test_channels_there_are_not_are_refused() -> None:
    columns = {"run": np.array([1]), "lumi": np.array([1]), "event": np.array([1]), "channel": ak.Array([[2, 5]])}
    with pytest.raises(ValueError, match="`channel` has channels 2 to 5; there are 5"):
        OccupancyStatus(channels=5).accumulate(columns, {})
