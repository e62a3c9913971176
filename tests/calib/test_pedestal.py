from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import awkward as ak
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import erf

from calib.algorithms.pedestal import Pedestal, Status, is_good, nominal
from calib.algorithms.pedestal_estimates import CLEAR, cut_gaussian, uncut
from calib.algorithms.pedestal_samples import SLAB
from calib.calibration import Calibration, Columns, Granularity, NotConverged, NotEnoughData, Outcome, conclude
from calib.channel_sums import ChannelSums
from calib.iov import RunLumi
from calib.payload import Payload
from calib.state import State
from calib.testing import CalibrationLaws
from tests.calib.toy import Adc, adc_samples, pedestal_columns

Floats = NDArray[np.float64]
NOISE, COMMON = 4.0, 2.0


def few_channels() -> Pedestal:
    return Pedestal(channels=48, block=16, group=8, min_entries=5, noisy_above=9.0)


def small_events(runs: int, lumis: int, events: int) -> dict[str, Any]:
    """Events of one or two of three blocks; a unit without a block, and one block twice in an event."""
    rng = np.random.default_rng(4)
    number = np.arange(runs * lumis * events)
    unit = number // events
    counts = np.where(unit == 1, 0, rng.integers(0, 4, len(number)))
    blocks = rng.integers(0, 3, counts.sum())
    adc = np.rint(rng.normal(100, 4, (len(blocks), 16)) + rng.normal(0, 2, (len(blocks), 1)))
    columns = {"run": 3 + 2 * (unit // lumis), "lumi": 1 + unit % lumis, "event": number}
    columns["pedestal_block"] = ak.unflatten(blocks.astype(np.uint32), counts)
    columns["pedestal_adc"] = ak.unflatten(adc.reshape(-1).astype(np.uint16), counts * 16)
    return columns


class TestLaws(CalibrationLaws):
    """Runs of one unit each: all laws as they are."""

    @pytest.fixture
    def calibration(self) -> Calibration:
        return few_channels()

    @pytest.fixture
    def columns(self) -> Columns:
        return small_events(runs=5, lumis=1, events=30)

    @pytest.fixture
    def conditions(self) -> Mapping[str, Payload]:
        return {"pedestal": nominal(48, 100.3, 4)}


class TestLawsOfRunsOfManyUnits(TestLaws):
    """Of so few units each has sums of its own."""

    @pytest.fixture
    def calibration(self) -> Calibration:
        return replace(few_channels(), pools=4)

    @pytest.fixture
    def columns(self) -> Columns:
        return small_events(runs=2, lumis=4, events=20)


class TestLawsOfPairs(TestLaws):
    """Plain pairs of channel and ADC count, without groups; columns of other names."""

    @pytest.fixture
    def calibration(self) -> Calibration:
        return Pedestal(channels=5, min_entries=5, noisy_above=9.0, block_column="channel", adc_column="adc")

    @pytest.fixture
    def columns(self) -> Columns:
        rng = np.random.default_rng(3)
        counts = rng.integers(0, 9, 120)
        counts[30:60] = 0
        columns = {"run": 1 + np.arange(120) // 30, "lumi": np.ones(120, np.int64), "event": np.arange(120)}
        columns["channel"] = ak.unflatten(rng.integers(0, 5, counts.sum()), counts)
        columns["adc"] = ak.unflatten(np.rint(rng.normal(100, 4, counts.sum())).astype(np.uint16), counts)
        return columns

    @pytest.fixture
    def conditions(self) -> Mapping[str, Payload]:
        return {"pedestal": nominal(5, 100.3, 4)}


Naive = dict[tuple[int, int, int], dict[str, list[int]]]


def naive_sums(calibration: Pedestal, columns: Columns, reference: Payload) -> Naive:
    """All sums by unit and block, sample by sample in a loop."""
    size, group, window = calibration.block, calibration.group, round(16 * calibration.window)
    level = [round(16 * float(mean)) for mean in reference["mean"]]
    silent = [bool(status & (Status.DEAD | Status.NOISY)) for status in reference["status"].tolist()]
    found: Naive = {}
    names = ("run", "lumi", "pedestal_block", "pedestal_adc")
    for run, lumi, blocks, samples in zip(*(columns[name].tolist() for name in names), strict=True):
        for number, block in enumerate(blocks):
            names = ("entries", "under", "over", "adc", "adc_squared", "rest", "rest_squared")
            empty = {name: [0] * size for name in names}
            empty |= {name: [0] * (size // group if group else 0) for name in ("among", "left_out")}
            sums = found.setdefault((run, lumi, block), empty)
            adc = samples[number * size : (number + 1) * size]
            for first in range(0, size, group or size):
                members = range(first, first + (group or size))
                off = {i: 16 * adc[i] - level[block * size + i] for i in members}
                common = 0
                if group:
                    voices = [i for i in members if not silent[block * size + i]]
                    voices = voices if 2 * len(voices) >= group else list(members)
                    inside = sorted(off[i] for i in voices if abs(off[i]) <= window)
                    if not inside or 2 * len(inside) < len(voices):
                        sums["left_out"][first // group] += 1
                        continue
                    common = (inside[(len(inside) - 1) // 2] + inside[len(inside) // 2]) // 2
                    sums["among"][first // group] += len(inside)
                for i in members:
                    rest = off[i] - common
                    if abs(rest) > window:
                        sums["over" if rest > 0 else "under"][i] += 1
                        continue
                    for name, value in zip(names, (1, 0, 0, adc[i], adc[i] ** 2, rest, rest**2), strict=True):
                        sums[name][i] += value
    return found


def as_naive(state: State) -> Naive:
    sums: ChannelSums = state["samples"]
    return {
        (*RunLumi.unpack(sums.pools.firsts[key >> 32]), key & 0xFFFFFFFF): {
            name: values[row].tolist() for name, values in sums.columns.items()
        }
        for row, key in enumerate(sums.keys.tolist())
    }


@dataclass(frozen=True)
class Case:
    calibration: Pedestal
    columns: Columns
    reference: Payload


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Few channels and events, with samples at the edges of the window, flagged channels and groups all outside."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    group = draw(st.sampled_from([0, 8, 9]))
    block = draw(st.sampled_from([1, 5])) if not group else group * draw(st.integers(1, 3))
    channels, events = 3 * block, draw(st.integers(0, 5))
    counts = rng.integers(0, 5, events)
    shape = (int(counts.sum()), block)
    middle = draw(st.sampled_from([30, 1000, 65000]))
    adc = middle + rng.integers(-3, 4, shape)
    wild = rng.random(shape) < draw(st.sampled_from([0.0, 0.1, 0.6]))
    adc[wild] += rng.choice([-30, -8, -6, -5, 5, 6, 8, 500], int(wild.sum()))
    columns = {"run": rng.integers(1, 3, events), "lumi": rng.integers(1, 3, events), "event": np.arange(events)}
    columns["pedestal_block"] = ak.unflatten(rng.integers(0, 3, shape[0]).astype(np.uint32), counts)
    columns["pedestal_adc"] = ak.unflatten(adc.reshape(-1).astype(np.uint16), counts * block)
    status = rng.choice([0, *Status], channels, p=[0.75] + [0.05] * 5) if draw(st.booleans()) else np.zeros(channels)
    if draw(st.booleans()):
        status[: block // 2 + 2] = Status.DEAD
    start = nominal(channels, middle + np.round(rng.uniform(-1, 1, channels), draw(st.integers(0, 2))), 4)
    reference = Payload("pedestal", {**start.arrays, "status": status.astype(np.int8)}, start.units)
    return Case(Pedestal(channels=channels, block=block, group=group, window=6.0), columns, reference)


@given(cases())
def test_sums_are_those_of_a_loop(case: Case) -> None:
    state = case.calibration.accumulate(case.columns, {"pedestal": case.reference})
    assert as_naive(state) == naive_sums(case.calibration, case.columns, case.reference)


@pytest.mark.parametrize(("block", "top"), [(SLAB // 2, 0), (64, 0), (64, 65000)])
def test_so_are_they_where_a_block_fills_several_slabs(block: int, top: int) -> None:
    rng = np.random.default_rng(1)
    events = SLAB // block + 3
    blocks = np.zeros((events, 1), np.uint32)
    blocks[::3000] = 1
    adc = top + np.rint(rng.normal(100, 4, (events, block)))
    calibration = Pedestal(channels=2 * block, block=block, group=64)
    reference = nominal(2 * block, top + 100.3, 4)
    columns = pedestal_columns(blocks, adc.astype(np.uint16))
    state = calibration.accumulate(columns, {"pedestal": reference})
    assert as_naive(state) == naive_sums(calibration, columns, reference)


@dataclass(frozen=True)
class Run:
    """A run of one detector, its truth, and what was found in it."""

    truth: Adc
    columns: Columns
    reference: Payload
    calibration: Pedestal

    @classmethod
    def take(cls, truth: Adc, reference: Payload, events: int, **settings: Any) -> Run:
        blocks = truth.channels // truth.block
        calibration = Pedestal(channels=truth.channels, block=truth.block, group=truth.group, **settings)
        adc = adc_samples(np.random.default_rng(12), truth, events)
        every = np.tile(np.arange(blocks, dtype=np.uint32), (events, 1))
        return cls(truth, pedestal_columns(every, adc), reference, calibration)

    @property
    def state(self) -> State:
        return self.calibration.accumulate(self.columns, {"pedestal": self.reference})

    @property
    def payload(self) -> Payload:
        (made,) = conclude(self.calibration, self.state, self.reference, flush=True)
        assert made.payload is not None, made.message
        return made.payload


def detector(seed: int = 11, **more: Any) -> tuple[Adc, Payload]:
    """27 modules of 768 strips, 0.3 % dead (half of them at zero), 0.1 % hot, 5 % of the groups moved by 4 ADC."""
    rng = np.random.default_rng(seed)
    size = 27 * 768
    before = rng.normal(100, 10, size)
    moved = rng.permutation(size // 128) < round(0.05 * size / 128)
    place = rng.permutation(size)
    truth = Adc(
        pedestal=before + NOISE * np.repeat(moved, 128),
        noise=np.full(size, NOISE),
        common=COMMON,
        block=768,
        group=128,
        occupancy=1e-3,
        dead=np.sort(place[: round(0.003 * size)]),
        hot=np.sort(place[-round(0.001 * size) :]),
    )
    return replace(truth, **more), nominal(size, before, NOISE)


@pytest.fixture(scope="module")
def taken() -> tuple[Run, Payload]:
    run = Run.take(*detector(), events=300)
    return run, run.payload


class TestPrecision:
    """On 20 736 channels; bounds are 4 sigma of what the number of channels and groups allows."""

    def pulls(self, taken: tuple[Run, Payload], name: str) -> tuple[Floats, NDArray[np.bool_]]:
        run, payload = taken
        true = {"mean": run.truth.pedestal, "noise": run.truth.noise}[name]
        good = payload["status"] == Status.NEW
        error = payload[f"{name}_error"][good].astype(np.float64)
        if name == "noise":
            # The error goes with the noise found, so low ones look surer than they are: take it at the truth.
            error *= true[good] / payload["noise"][good]
        return (payload[name] - true)[good] / error, good

    def test_nearly_all_channels_are_measured(self, taken: tuple[Run, Payload]) -> None:
        run, payload = taken
        assert np.count_nonzero(payload["status"] == Status.NEW) == run.truth.channels - 62 - 21
        assert (payload["entries"][is_good(payload)] > 290).all()

    def test_pulls_of_the_mean(self, taken: tuple[Run, Payload]) -> None:
        pulls, _ = self.pulls(taken, "mean")
        groups, shared = 162, COMMON**2 / (COMMON**2 + NOISE**2)
        assert abs(pulls.mean()) < 4 * np.sqrt(shared / groups)
        assert 0.95 < pulls.std() < 1.05

    def test_the_mean_is_right_to_a_hundredth_of_the_noise_in_groups_that_moved(
        self, taken: tuple[Run, Payload]
    ) -> None:
        run, payload = taken
        good = payload["status"] == Status.NEW
        common = adc_samples(np.random.default_rng(12), run.truth, 300, only_common=True).mean(axis=0)
        off = payload["mean"] - run.truth.pedestal - np.repeat(common, 128)
        moved = run.truth.pedestal - run.reference["mean"] > 3
        assert np.count_nonzero(moved) == 8 * 128
        for which in (moved, ~moved):
            assert abs(off[good & which].mean()) < 4 * NOISE / np.sqrt(300 * np.count_nonzero(good & which))

    def test_pulls_of_the_noise(self, taken: tuple[Run, Payload]) -> None:
        pulls, good = self.pulls(taken, "noise")
        assert abs(pulls.mean()) < 4 / np.sqrt(np.count_nonzero(good))
        assert 0.95 < pulls.std() < 1.05

    def test_the_common_mode_of_each_group(self, taken: tuple[Run, Payload]) -> None:
        found = taken[1]["common_mode"]
        assert found.shape == (162,)
        np.testing.assert_allclose(found, COMMON, atol=4.5 * COMMON / np.sqrt(2 * 300))

    def test_the_common_mode_of_few_events_is_not_too_small(self) -> None:
        """Its square is a difference of two variances, both without bias; 4 of 4, and not 3.6."""
        modules, events = 200, 20
        truth = Adc(np.full(modules * 128, 100.0), np.full(modules * 128, 4.0), 2.0, block=128, group=128)
        adc = adc_samples(np.random.default_rng(8), truth, events)
        calibration = Pedestal(channels=modules * 128, block=128, group=128, min_entries=10)
        reference = nominal(modules * 128, 100 + np.arange(modules * 128) % 16 / 16 - 0.5, 4)
        columns = pedestal_columns(np.tile(np.arange(modules, dtype=np.uint32), (events, 1)), adc)
        payload = calibration.finalize(calibration.accumulate(columns, {"pedestal": reference}), reference)
        squared = payload["common_mode"].astype(np.float64) ** 2
        error = 4.0 * np.sqrt(2 / (events - 1)) / np.sqrt(modules)
        assert abs(squared.mean() - 4.0) < 2.5 * error

    def test_dead_and_hot_channels_are_flagged(self, taken: tuple[Run, Payload]) -> None:
        run, payload = taken
        at_zero = run.truth.dead[1::2]
        expected = np.zeros(run.truth.channels, np.int8)
        expected[run.truth.dead] = Status.DEAD
        expected[at_zero] = Status.OUT_OF_WINDOW
        expected[run.truth.hot] = Status.NOISY
        assert payload["status"].tolist() == expected.tolist()
        for name in ("mean", "noise"):
            np.testing.assert_array_equal(payload[name][run.truth.dead], run.reference[name][run.truth.dead])
        assert (payload["noise"][run.truth.hot] > 2.5 * NOISE).all()


def neighbours(run: Run, bad: NDArray[np.int64]) -> NDArray[np.int64]:
    """The good channels of groups with a bad one."""
    groups = np.unique(bad // 128)
    members = (groups[:, None] * 128 + np.arange(128)).reshape(-1)
    return np.setdiff1d(members, bad)


class TestNeighbours:
    """Dead and hot channels change nothing for those beside them; the same events with and without them."""

    def with_and_without(self, flagged: bool) -> tuple[Run, Run]:
        truth, reference = detector()
        if flagged:
            status = np.zeros(truth.channels, np.int8)
            status[truth.dead], status[truth.hot] = Status.DEAD, Status.NOISY
            reference = Payload("pedestal", {**reference.arrays, "status": status}, reference.units)
        well = replace(truth, dead=truth.dead[:0], hot=truth.hot[:0])
        return Run.take(truth, reference, events=120), Run.take(well, reference, events=120)

    def test_once_the_reference_knows_them_not_a_bit_of_their_sums(self) -> None:
        ill, well = self.with_and_without(flagged=True)
        beside = np.setdiff1d(np.arange(ill.truth.channels), np.append(ill.truth.dead, ill.truth.hot))
        for name in ("mean", "entries", "status"):
            np.testing.assert_array_equal(ill.payload[name][beside], well.payload[name][beside])
        sums = [run.state["samples"].columns for run in (ill, well)]
        for name in ("adc", "adc_squared", "rest", "rest_squared"):
            one, other = (columns[name].reshape(-1)[beside] for columns in sums)
            np.testing.assert_array_equal(one, other)
        # What is taken off for the share in the median goes by the typical width of the group, theirs among it.
        np.testing.assert_allclose(ill.payload["noise"][beside], well.payload["noise"][beside], rtol=1e-4)

    def test_the_first_time_next_to_nothing(self) -> None:
        ill, well = self.with_and_without(flagged=False)
        beside = neighbours(ill, np.append(ill.truth.dead, ill.truth.hot))
        one, other = ill.payload, well.payload
        assert len(beside) > 5000
        for name in ("mean", "noise"):
            change = (one[name] - other[name])[beside] / other[f"{name}_error"][beside]
            assert np.abs(change).max() < 0.25
            assert np.sqrt(np.mean(change**2)) < 0.05
            assert abs(change.mean()) < 0.001


def plain(**more: Any) -> tuple[Adc, Payload]:
    """4 groups of 128 channels with nothing the matter."""
    rng = np.random.default_rng(2)
    pedestal = rng.normal(100, 10, 512)
    truth = Adc(pedestal=pedestal, noise=np.full(512, NOISE), common=COMMON, block=256, group=128)
    return replace(truth, **more), nominal(512, pedestal, NOISE)


class TestBias:
    """Each correction is there and is of the size that is claimed: without it the test fails."""

    def noise(self, payload: Payload) -> tuple[float, float]:
        """Mean noise over the truth, less 1, and its error."""
        ratio = payload["noise"] / NOISE
        return float(ratio.mean() - 1), float((payload["noise_error"] / NOISE).mean() / np.sqrt(len(ratio)))

    def test_noise_is_freed_of_the_median_of_small_groups(self) -> None:
        truth, reference = plain(group=8)
        off, error = self.noise(Run.take(truth, reference, events=1500).payload)
        assert abs(off) < 4 * error + 0.003
        # Of a group of 8, the median takes 2.7 % of the noise of its members.
        assert error < 0.002

    def test_noise_is_freed_of_digitisation(self) -> None:
        truth, reference = plain(noise=np.full(512, 0.8), common=0.5)
        payload = Run.take(truth, reference, events=1500).payload
        error = float(payload["noise_error"].mean() / np.sqrt(512))
        assert abs(float(payload["noise"].mean()) - 0.8) < 4 * error
        assert error < 0.001 < np.hypot(0.8, 12**-0.5) - 0.8

    def test_the_root_of_few_entries_is_put_right(self) -> None:
        truth, reference = detector(dead=np.zeros(0, np.int64), hot=np.zeros(0, np.int64), occupancy=0.0)
        off, error = self.noise(Run.take(truth, reference, events=12, min_entries=10).payload)
        # Of 12 entries the root of the variance is 2.3 % short.
        assert abs(off) < 4 * error < 0.01

    def test_references_of_one_fraction_make_the_noise_too_large_by_as_much_as_is_said(self) -> None:
        truth, _ = plain()
        run = Run.take(truth, nominal(512, np.rint(truth.pedestal), NOISE), events=3000)
        first = run.payload
        (too_large, _), (off, error) = self.noise(first), self.noise(replace(run, reference=first).payload)
        # Of the same samples, so the difference is far surer than either.
        assert 1 / (48 * NOISE**2) < too_large - off < 1 / (24 * NOISE**2)
        assert abs(off) < 4 * error

    def test_a_window_about_the_reference_alone_is_put_right(self) -> None:
        """Without groups, a pedestal that moved by 10 has its window cut at 2.2 widths on one side."""
        truth, reference = plain(group=0, common=0.0)
        truth = replace(truth, pedestal=truth.pedestal + 11)
        payload = Run.take(truth, reference, events=1000, max_move=20.0).payload
        off = (payload["mean"] - truth.pedestal).mean()
        assert abs(off) < 4 * NOISE / np.sqrt(1000 * 512)
        assert abs(self.noise(payload)[0]) < 0.01
        left, _ = cut_gaussian(np.array([11.0]), np.array([NOISE**2]), 20.0)
        assert left[0] - 11 < -0.1

    def test_a_group_that_moved_by_three_widths_has_no_such_need(self) -> None:
        truth, reference = plain()
        truth = replace(truth, pedestal=truth.pedestal + np.repeat([12.0, 0, 0, -12.0], 128))
        run = Run.take(truth, reference, events=400, max_move=20.0)
        common = adc_samples(np.random.default_rng(12), truth, 400, only_common=True).mean(axis=0)
        off = run.payload["mean"] - truth.pedestal - np.repeat(common, 128)
        assert np.abs(off.reshape(4, 128).mean(axis=1)).max() < 4 * NOISE / np.sqrt(400 * 128)
        assert abs(self.noise(run.payload)[0]) < 0.005


def test_digitisation_adds_a_twelfth_from_noise_of_0_7_counts_on() -> None:
    for middle in (0.0, 0.25, 0.5):
        counts = np.arange(-20, 21)
        edges = (np.append(counts - 0.5, 20.5) - middle) / 0.7
        share = np.diff(0.5 * (1 + erf(edges / np.sqrt(2))))
        variance = share @ counts**2 - (share @ counts) ** 2
        assert abs(np.sqrt(variance - 1 / 12) / 0.7 - 1) < 2e-4


@settings(max_examples=200)
@given(st.floats(-14, 14), st.floats(1.0, 12.0))
def test_what_the_window_cuts_is_put_back(mean: float, width: float) -> None:
    seen = cut_gaussian(np.array([mean]), np.array([width**2]), 20.0)
    (found,), (variance,) = uncut(*seen, 20.0)
    if width < 8:
        assert found == pytest.approx(mean, abs=0.02)
        assert np.sqrt(variance) == pytest.approx(width, rel=5e-3)
    else:
        # Wider ones converge slowly; they are called NOISY in any case.
        assert np.sqrt(variance) > 0.8 * width or np.sqrt(variance) > 8


def test_an_edge_that_is_clear_cuts_next_to_nothing() -> None:
    width = 20 / CLEAR
    mean, variance = cut_gaussian(np.zeros(1), np.array([width**2]), 20.0)
    assert abs(np.sqrt(variance[0]) / width - 1) < 1e-4
    mean, variance = cut_gaussian(np.array([5.0]), np.array([(15 / CLEAR) ** 2]), 20.0)
    assert abs(mean[0] - 5) / (15 / CLEAR) < 2e-5
    assert abs(np.sqrt(variance[0]) / (15 / CLEAR) - 1) < 4e-5


def test_channels_do_not_depend_on_each_other_where_the_window_is_put_right() -> None:
    mean, variance = np.array([0.0, 3.0, 9.0, 1.0]), np.array([30.0, 40.0, 50.0, 100.0])
    together = uncut(mean, variance, 20.0)
    for i in range(4):
        alone = uncut(mean[i : i + 1], variance[i : i + 1], 20.0)
        assert (together[0][i], together[1][i]) == (alone[0][0], alone[1][0])


class TestStatus:
    def run(self, change: Any = None, events: int = 150, **settings: Any) -> tuple[Run, Payload]:
        truth, reference = plain()
        run = Run.take(truth, reference, events, **settings)
        if change is not None:
            adc = np.asarray(ak.flatten(run.columns["pedestal_adc"])).reshape(events, 512).copy()
            change(adc)
            run = replace(run, columns={**run.columns, "pedestal_adc": ak.unflatten(adc.reshape(-1), 512)})
        return run, run.payload

    def test_all_is_well(self) -> None:
        _, payload = self.run()
        assert not payload["status"].any()
        assert is_good(payload).all()
        assert (payload["entries"] == 150).all()
        assert payload["left_out"].tolist() == [0] * 4
        assert {name: array.dtype.name for name, array in payload.arrays.items()} == {
            **dict.fromkeys(("common_mode", "mean", "mean_error", "noise", "noise_error"), "float32"),
            **dict.fromkeys(("entries", "left_out"), "int32"),
            "status": "int8",
        }

    def test_a_saturated_module_is_left_out(self) -> None:
        def saturate(adc: NDArray[np.uint16]) -> None:
            adc[5:9, :256] = 1023

        _, payload = self.run(saturate)
        clean = self.run()[1]
        assert payload["left_out"].tolist() == [4, 4, 0, 0]
        assert not payload["status"].any()
        assert (payload["entries"] == np.repeat([146, 150], 256)).all()
        np.testing.assert_array_equal(payload["mean"][256:], clean["mean"][256:])
        change = (payload["noise"] - clean["noise"])[:256] / clean["noise_error"][:256]
        assert np.abs(change).max() < 1.0

    def test_a_group_beyond_the_window_keeps_what_it_had(self) -> None:
        def shift(adc: NDArray[np.uint16]) -> None:
            adc[:, 128:256] += 60

        run, payload = self.run(shift)
        assert (payload["status"].reshape(4, 128) == [[0], [Status.OUT_OF_WINDOW], [0], [0]]).all()
        assert payload["left_out"].tolist() == [0, 150, 0, 0]
        assert payload["common_mode"][1] == 0
        np.testing.assert_array_equal(payload["mean"][128:256], run.reference["mean"][128:256])

    def test_a_channel_that_moved_too_far_keeps_what_it_had(self) -> None:
        def shift(adc: NDArray[np.uint16]) -> None:
            adc[:, 7] += 11
            adc[:, 8] += 6

        run, payload = self.run(shift)
        assert np.flatnonzero(payload["status"]).tolist() == [7]
        assert payload["status"][7] == Status.MOVED
        assert payload["mean"][7] == run.reference["mean"][7]
        assert payload["mean"][8] == pytest.approx(run.truth.pedestal[8] + 6, abs=4 * 4.5 / np.sqrt(150))
        assert self.run(shift, max_move=12.0)[1]["status"][7] == Status.NEW

    def test_a_channel_that_flickers_is_dead(self) -> None:
        def flicker(adc: NDArray[np.uint16]) -> None:
            adc[:, 7] = adc[0, 7]
            adc[3, 7] += 1

        assert self.run(flicker)[1]["status"][7] == Status.DEAD

    def test_what_is_dead_comes_back(self) -> None:
        """Not even a whole group that was dead stays so for lack of channels with a say."""
        run, _ = self.run()
        status = np.zeros(512, np.int8)
        status[:128], status[300] = Status.DEAD, Status.DEAD
        reference = Payload("pedestal", {**run.reference.arrays, "status": status}, run.reference.units)
        assert not replace(run, reference=reference).payload["status"].any()

    def test_too_few_entries_keep_what_was_and_its_flags(self) -> None:
        truth, reference = plain()
        status = np.zeros(512, np.int8)
        status[3] = Status.DEAD
        reference = Payload("pedestal", {**reference.arrays, "status": status}, reference.units)
        run = Run.take(truth, reference, events=150, most_few=0.5)
        columns = {**run.columns, "pedestal_block": run.columns["pedestal_block"][:, 1:]}
        columns["pedestal_adc"] = run.columns["pedestal_adc"][:, 256:]
        payload = replace(run, columns=columns).payload
        expected = np.where(np.arange(512) < 256, Status.FEW, Status.NEW)
        expected[3] |= Status.DEAD
        assert payload["status"].tolist() == expected.tolist()
        assert np.flatnonzero(~is_good(payload)).tolist() == [3]
        for name in ("mean", "noise", "mean_error"):
            np.testing.assert_array_equal(payload[name][:256], reference[name][:256])
        state = run.calibration.accumulate(columns, {"pedestal": reference})
        with pytest.raises(NotEnoughData, match=r"256 of 512 channels have fewer than 100 entries, 0.1 of them may"):
            replace(run.calibration, most_few=0.1).finalize(state, reference)

    def test_nothing_to_keep_is_not_enough(self) -> None:
        def kill(adc: NDArray[np.uint16]) -> None:
            adc[:, 7] = 100

        run, _ = self.run(kill)
        state = run.state
        (made,) = conclude(run.calibration, state, None, flush=True)
        assert made.outcome is Outcome.NOT_ENOUGH_DATA
        assert "1 channels must keep what they had, the first 7 (<Status.DEAD: 8>)" in made.message

    def test_a_reference_of_another_detector_does_not_converge(self) -> None:
        truth, _ = plain()
        run = Run.take(truth, nominal(512, 50, 4), events=150)
        state = run.state
        with pytest.raises(
            NotConverged, match="512 of 512 channels moved by more than 8 ADC or out of the window of 20"
        ):
            run.calibration.finalize(state, run.reference)

    def test_moves_of_too_many_are_kept_as_measured_for_people_to_publish(self) -> None:
        """All channels are 9 ADC above the reference: more than the 8 that a channel may move, and in the window."""
        truth, _ = plain()
        moved = nominal(512, 50, 4)
        run = Run.take(
            truth, Payload("pedestal", {**moved.arrays, "mean": truth.pedestal - 9}, moved.units), events=300
        )
        (made,) = conclude(run.calibration, run.state, run.reference, flush=True)
        assert made.outcome is Outcome.NOT_CONVERGED and made.payload is not None
        assert not made.payload["status"].any()
        np.testing.assert_allclose(made.payload["mean"], truth.pedestal, atol=5 * 4.5 / np.sqrt(300))

    def test_from_a_payload_that_is_not_near_a_wide_window_leads_there(self) -> None:
        truth, _ = plain()
        first = Run.take(truth, nominal(512, 100, 4), events=300, window=80.0, max_move=80.0)
        second = Run.take(truth, first.payload, events=300)
        assert not second.payload["status"].any()
        np.testing.assert_allclose(second.payload["mean"], truth.pedestal, atol=5 * 4.5 / np.sqrt(300))

    def test_a_window_too_narrow_for_the_noise_does_not_converge(self) -> None:
        truth, reference = plain(noise=np.full(512, 15.0))
        run = Run.take(truth, reference, events=300)
        state = run.state
        with pytest.raises(NotConverged, match=r"a typical noise is 1[0-9.]* ADC, too much for a window of 20"):
            run.calibration.finalize(state, reference)


class TestRefusals:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"channels": 10, "block": 4}, "`channels` = 10 must be a multiple of `block` = 4"),
            ({"channels": 0}, "`channels` = 0"),
            ({"channels": 32, "block": 16, "group": 4}, "`group` = 4 must be 0, or at least 8"),
            ({"channels": 40, "block": 20, "group": 8}, "divide `block` = 20"),
            ({"channels": 4, "window": 1001.0}, "`window` = 1001.0 must be 1 to 1000 ADC"),
            ({"channels": 4, "min_entries": 1}, "`min_entries` = 1 must be at least 2"),
        ],
    )
    def test_settings_that_do_not_fit(self, settings: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Pedestal(**settings)

    @pytest.mark.parametrize(
        ("block", "adc", "message"),
        [
            ([[0], [0]], [[1, 2], [1]], "event 8 has 1 samples in `pedestal_adc` for 1 entries .*; a block has 2"),
            ([[0], [2]], [[1, 2], [1, 2]], "`pedestal_block` goes from 0 to 2; it must lie within 0 to 1"),
            ([[0], [1]], [[1, 2], [1, 65536]], "`pedestal_adc` goes from 1 to 65536; it must lie within 0 to 65535"),
            ([[0], [1]], [[1, 2], [1, -1]], "goes from -1 to 2"),
            ([[0], [1]], [[1.0, 2.0], [1.0, 2.0]], "`pedestal_adc` is of type float64; it must be integers"),
        ],
    )
    def test_samples_that_are_none(self, block: Any, adc: Any, message: str) -> None:
        columns = {"run": np.ones(2, np.int64), "lumi": np.ones(2, np.int64), "event": np.array([7, 8])}
        columns |= {"pedestal_block": ak.Array(block), "pedestal_adc": ak.Array(adc)}
        with pytest.raises(ValueError, match=message):
            Pedestal(channels=4, block=2).accumulate(columns, {"pedestal": nominal(4, 100, 4)})

    def test_references_that_do_not_fit(self) -> None:
        columns = pedestal_columns(np.array([[0]], np.uint32), np.array([[1, 2]], np.uint16))
        calibration = Pedestal(channels=4, block=2)
        with pytest.raises(ValueError, match=r"the reference pedestals have shapes .*; there are 4 channels"):
            calibration.accumulate(columns, {"pedestal": nominal(5, 100, 4)})
        start = nominal(4, 100, 4)
        for wrong in (np.nan, np.inf, 1e7):
            broken = Payload("pedestal", {**start.arrays, "mean": np.full(4, wrong, np.float32)}, start.units)
            with pytest.raises(ValueError, match="a reference pedestal is not finite, or beyond 65535 ADC"):
                calibration.accumulate(columns, {"pedestal": broken})
        state = calibration.accumulate(columns, {"pedestal": start})
        with pytest.raises(ValueError, match="the previous pedestals have shapes"):
            replace(calibration, min_entries=2, most_few=1.0).finalize(state, nominal(5, 100, 4))

    def test_one_run_against_two_references(self) -> None:
        columns = pedestal_columns(np.array([[0]], np.uint32), np.array([[1, 2]], np.uint16))
        calibration = Pedestal(channels=4, block=2)
        one, other = (calibration.accumulate(columns, {"pedestal": nominal(4, mean, 4)}) for mean in (100, 101))
        with pytest.raises(ValueError, match="run 1: sums were made with different conditions"):
            one.merge(other)

    def test_other_granularities(self) -> None:
        calibration = replace(few_channels(), granularity=Granularity.LUMI)
        state = calibration.accumulate(small_events(2, 1, 5), {"pedestal": nominal(48, 100, 4)})
        with pytest.raises(NotImplementedError, match="pedestal has no rule for granularity lumi; use 'run'"):
            calibration.intervals(state, True)

    @pytest.mark.parametrize(
        ("mean", "noise", "message"),
        [
            (np.zeros(3), 4, r"mean has shape \(3,\); give one number, or one for each of 4 channels"),
            (np.nan, 4, "a pedestal must lie within 0 to 65535 ADC"),
            (100, 0, "and a noise above 0"),
        ],
    )
    def test_nominal_values_that_are_none(self, mean: Any, noise: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            nominal(4, mean, noise)


def test_settings_say_who_looks_at_them() -> None:
    named = few_channels().accumulate_settings()
    names = {"kind", "version", "channels", "block", "group", "window", "pools", "block_column", "adc_column"}
    assert set(named) == names
    assert Pedestal(channels=4).finalize_settings()["max_move"] == 8.0
