"""What the DAQ keeps: its rule, how often noise and signal pass; against tables and against full readout."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest, norm

from pipeline.experiments.ref10.geometry import full_geometry, geometry_of, mini_geometry
from pipeline.experiments.ref10.simulate.cells import NOBODY
from pipeline.experiments.ref10.simulate.channels import channels, expected_occupancy
from pipeline.experiments.ref10.simulate.faults import Faults
from pipeline.experiments.ref10.simulate.full_readout import full_readout
from pipeline.experiments.ref10.simulate.response import Strips, pulses
from pipeline.experiments.ref10.simulate.scenario import Scenario, tables_of
from pipeline.experiments.ref10.simulate.streams import Streams
from pipeline.experiments.ref10.simulate.tables import Electronics
from pipeline.experiments.ref10.simulate.zero_suppression import keeps, zero_suppressed
from tests.pipeline.experiments.ref10.simulate import naive

FULL, MINI = geometry_of(full_geometry()), geometry_of(mini_geometry())
FAULTLESS = Faults(dead_strips=0, dead_chips=0, hot_strips=0, pedestal_shift_chips=0, pedestal_drift=0)
GOOD = Scenario(faults=FAULTLESS)
NOTHING = np.zeros(0, np.int64)
NO_SIGNAL = Strips(NOTHING, np.zeros(0), NOTHING)


def within(found, wanted, error, sigmas=4.5):
    assert abs(found - wanted) < sigmas * error, f"{found} is {(found - wanted) / error:.1f} sigma from {wanted}"


def suppressed(strips, signal=NO_SIGNAL, full=NOTHING, events=400, seed=1):
    numbers = np.arange(1, events + 1)
    uniform = np.random.default_rng(seed).random(events)
    return zero_suppressed(strips, signal, full, uniform, (Streams(seed, 1, 1), numbers))


@given(st.lists(st.tuples(st.sampled_from([764, 765, 766, 767, 768, 769, 770]), st.floats(-1, 6)), max_size=7))
def test_the_rule_of_the_daq(given_strips):
    heights = dict(given_strips)
    key = np.array(sorted(heights), np.int64)
    kept = keeps(key, np.array([heights[k] for k in sorted(heights)]))
    for strip, value in zip(key.tolist(), kept.tolist(), strict=True):
        near = [heights.get(other, 0) for other in (strip - 1, strip + 1) if other // 768 == strip // 768]
        assert value == (heights[strip] > 4 or (heights[strip] > 2 and max(near) > 4))


def test_noise_passes_as_often_as_the_tables_say():
    strips = channels(GOOD, FULL, 1, 1, 1)
    kept = suppressed(strips)
    # 45 beyond 4 sigma of a Gaussian, and a ninth more by the error of the median.
    assert 47 < strips.firing.sum() < 53
    expected = 400 * strips.firing.sum()
    # Strips that lie together are one over 4 sigma and what lies beside it.
    first = np.flatnonzero(np.diff(kept.key, prepend=-9) > 1)
    within(len(first), expected, np.sqrt(expected))
    # Two neighbours each, between 2 and 4 sigma with the probability of a Gaussian.
    both = 2 * (norm.sf(2) - norm.sf(4))
    within(len(kept.key) - len(first), expected * both, np.sqrt(expected * both))
    assert (kept.particle == NOBODY).all()
    # Poisson-binomial: the variance of the number an event is the mean.
    number = np.bincount(kept.key[first] // len(strips.dead), minlength=400)
    within(number.var() / number.mean(), 1, np.sqrt(2 / 400))


def test_noise_over_five_sigma_is_as_rare_as_the_tables_say():
    """What an offline seed of 5 sigma meets: 0.41 an event for perfect Gaussians, somewhat more beside a median."""
    strips, events = channels(GOOD, FULL, 1, 1, 1), 3000
    kept = suppressed(strips, events=events)
    level = strips.online + 5 * strips.threshold
    found = (kept.counts > level[kept.key % len(strips.dead)]).sum()
    # Sent are whole counts: over the level is what rounds to the next one.
    edge = np.floor(level) + 0.5 - strips.online
    wanted = norm.sf((edge - strips.centre) / strips.spread).sum()
    assert len(strips.dead) * norm.sf(5) == pytest.approx(0.41, abs=0.005)
    assert 0.41 < wanted < 0.65
    within(found, events * wanted, np.sqrt(events * wanted))


def test_noise_of_a_strip_passes_with_its_own_probability():
    """Also where it is not small: strips of a noise that the DAQ does not know."""
    strips = channels(GOOD, MINI, 1, 1, 1)
    firing = np.full(len(strips.dead), 1e-9)
    firing[:2000:4] = np.linspace(0.05, 0.95, 500)
    loud = replace(
        strips,
        firing=firing,
        noise_rate=np.cumsum(-np.log1p(-firing)),
        centre=np.where(firing > 0.01, 4 * strips.threshold + strips.spread * norm.ppf(firing), -99.0),
    )
    kept = suppressed(loud, events=1000)
    times = np.bincount(kept.key % len(strips.dead), minlength=len(strips.dead))[:2000:4]
    pull = (times - 1000 * firing[:2000:4]) / np.sqrt(1000 * firing[:2000:4] * (1 - firing[:2000:4]))
    within(pull.mean(), 0, 1 / np.sqrt(500))
    within(pull.std(), 1, 1 / np.sqrt(1000))


def test_heights_of_noise_are_the_tail_of_a_gaussian():
    strips = channels(GOOD, FULL, 1, 1, 1)
    kept = suppressed(strips, events=600)
    strip = kept.key % len(strips.dead)
    height = (kept.counts - strips.online[strip]) / strips.spread[strip]
    edge = 4.3
    over = height[height > edge]
    assert len(over) > 5000
    for level in (4.5, 4.8, 5.2):
        share = norm.sf(level) / norm.sf(edge)
        # Rounding to counts (a quarter of a sigma) moves each edge by what it averages over.
        within((over > level).mean(), share, np.sqrt(share / len(over)) + 0.03 * share / 4.5)


def test_signal_passes_with_the_efficiency_of_its_height():
    strips = channels(GOOD, MINI, 1, 1, 1)
    n = 3000
    chosen = np.arange(50, len(strips.dead) - 50, 700)[:60]
    for height in (2.0, 4.0, 5.0, 6.0):
        key = (np.arange(n)[:, None] * len(strips.dead) + chosen).ravel()
        strip = key % len(strips.dead)
        signal = Strips(key, height * strips.threshold[strip], np.zeros(len(key), np.int64))
        kept = suppressed(strips, signal, events=n)
        seen = np.isin(key, kept.key[kept.particle == 0])
        # It lifts the median of the chip itself.
        wanted = norm.cdf((height - 4 - 1.2533 / 128) * strips.threshold[chosen] / strips.spread[chosen]).mean()
        # Beside a strip that fires by noise, rarely, 2 sigma are enough.
        slack = 2 * 3.2e-5 * 2
        within(seen.mean(), wanted, np.sqrt(wanted * (1 - wanted) / len(key)) + slack)


def usual_medians(strips):
    """Where the median of adc - online pedestal lies on the average over events, for each strip's chip."""
    return np.repeat(np.median((strips.pedestal - strips.online).reshape(-1, 128), axis=1), 128)


def full_and_suppressed(strips, signal, events, scenario=GOOD, seed=2):
    """Every module of the mini detector in each event, read out in full and then suppressed; and the quick way."""
    modules = len(strips.dead) // 768
    all_of = np.arange(events * modules)
    numbers = np.arange(1, events + 1)
    whole = full_readout(strips, signal, all_of, scenario.electronics.common_mode, (Streams(seed, 1, 1), numbers))
    naively = []
    for module, adc in enumerate(whole.adc.astype(float)):
        block = slice(module % modules * 768, module % modules * 768 + 768)
        if (adc - strips.online[block] > 10).any():
            kept = naive.suppress(adc, strips.online[block], strips.threshold[block], usual_medians(strips)[block])
            naively += [(module * 768 + strip, value) for strip, value in kept.items()]
    key, counts = np.array(naively, float).reshape(-1, 2).T
    return Strips(key.astype(np.int64), counts, np.zeros(len(key), np.int64)), suppressed(strips, signal, events=events)


@pytest.fixture(scope="module")
def compared():
    """Signals of all sizes in threes, in a third of the chips; pedestals partly shifted, some strips dead."""
    scenario = Scenario(
        faults=Faults(hot_strips=0.0, dead_chips=0, pedestal_shift_chips=0.5, pedestal_drift=0.3), first_run=0
    )
    strips = channels(scenario, MINI, 3, 1, 1)
    events = 10
    chips = np.arange(0, events * len(strips.dead), 128)
    rng = np.random.default_rng(5)
    chosen = np.flatnonzero(rng.random(len(chips)) < 1 / 3)
    first = chips[chosen] + rng.integers(2, 120, len(chosen))
    middle = rng.exponential(40, len(chosen))
    key = (first[:, None] + np.arange(3)).ravel()
    counts = (middle[:, None] * [0.15, 1, 0.3]).ravel()
    alive = ~strips.dead[key % len(strips.dead)]
    signal = Strips(key[alive], counts[alive], np.zeros(alive.sum(), np.int64))
    return strips, signal, *full_and_suppressed(strips, signal, events, scenario)


def test_quick_suppression_keeps_what_that_of_full_readout_keeps(compared):
    strips, signal, slow, quick = compared
    for kept in (slow, quick):
        assert not strips.dead[kept.key % len(strips.dead)].any()
    own_slow, own_quick = (np.isin(kept.key, signal.key) for kept in (slow, quick))
    # By noise alone: with signal in the event or not.
    number = [(~own).sum() for own in (own_slow, own_quick)]
    within(number[1], number[0], np.sqrt(sum(number)))
    assert min(number) > 25
    # With signal: the same strips, but for noise at the threshold.
    number = [own.sum() for own in (own_slow, own_quick)]
    within(number[1], number[0], np.sqrt(0.1 * sum(number)))
    assert min(number) > 2000


@pytest.mark.verify
def test_noise_of_full_readout_passes_as_often_as_the_tables_say():
    scenario = Scenario(
        faults=Faults(hot_strips=0.0, dead_chips=0, pedestal_shift_chips=0.5, pedestal_drift=0.3), first_run=0
    )
    strips = channels(scenario, MINI, 3, 1, 1)
    full = np.arange(len(strips.dead) // 768)
    fired = 0
    for event in range(3000):
        adc = full_readout(strips, NO_SIGNAL, full, 2.0, (Streams(4, 1, 1), np.array([event]))).adc
        height = (adc - strips.online.reshape(-1, 768)).reshape(-1, 128)
        height -= np.median(height, axis=1, keepdims=True) - usual_medians(strips)[::128, None]
        fired += (height.ravel() > 4 * strips.threshold).sum()
    wanted = 3000 * strips.firing.sum()
    assert wanted > 7000
    within(fired, wanted, np.sqrt(wanted), sigmas=4)


def test_what_is_sent_lies_as_far_above_the_pedestal_as_by_full_readout(compared):
    strips, signal, slow, quick = compared
    strong = signal.key[(signal.counts > 30) & (signal.counts < 230)]
    rest = []
    for kept in (slow, quick):
        own = np.isin(kept.key, strong)
        place = np.searchsorted(signal.key, kept.key[own])
        rest.append(kept.counts[own] - strips.online[kept.key[own] % len(strips.dead)] - signal.counts[place])
    n = min(map(len, rest))
    assert n > 1000
    within(rest[1].mean(), rest[0].mean(), 4.1 * np.sqrt(2 / n))
    within(rest[1].std(), rest[0].std(), 4.1 * np.sqrt(1 / n))
    # Half of the chips are shifted by one sigma, 4 counts; some of the signal has been taken for common mode.
    assert rest[0].mean() == pytest.approx(2.0, abs=0.7)


def test_common_mode_error_is_that_of_a_median():
    strips = channels(GOOD, MINI, 1, 1, 1)
    events, chips = 3000, np.arange(0, len(strips.dead), 1280)[:20]
    # Two distant strips of each chip with a large signal: what moves both alike is the common mode's error.
    key = (np.arange(events)[:, None, None] * len(strips.dead) + chips[:, None] + np.array([10, 100])).ravel()
    signal = Strips(key, np.full(len(key), 100.0), np.zeros(len(key), np.int64))
    kept = suppressed(strips, signal, events=events)
    own = kept.of(np.isin(kept.key, key))
    rest = (own.counts - strips.online[own.key % len(strips.dead)] - 100).reshape(-1, 2)
    n = len(rest)
    error = 1.2533 * 4 / np.sqrt(128)
    within(np.mean((rest[:, 0] - rest[:, 0].mean()) * (rest[:, 1] - rest[:, 1].mean())), error**2, 16 / np.sqrt(n))
    within(rest.mean(), -2 * 1.2533 * 4 / 128, 4 / np.sqrt(2 * n))
    variance = (strips.noise[key % len(strips.dead)] ** 2).mean() + 2 / 12 + error**2
    within(rest.std(), np.sqrt(variance), 4 / np.sqrt(4 * n))


def test_large_signals_saturate_and_dead_strips_say_nothing():
    scenario = Scenario(faults=replace(FAULTLESS, dead_strips=0.2))
    strips = channels(scenario, MINI, 1, 1, 1)
    strip = np.arange(5, 5000, 10)
    signal = Strips(strip, np.full(len(strip), 900.0), np.zeros(len(strip), np.int64))
    kept = suppressed(strips, signal.of(~strips.dead[strip]), events=1)
    assert not strips.dead[kept.key].any()
    saturated = kept.of(np.isin(kept.key, strip))
    height = saturated.counts - strips.online[saturated.key]
    assert np.abs(height - 254).max() < 0.5 + 4.5 * strips.median_error.max() + 1.2533 * 4 * 13 / 128
    assert len(height) == (~strips.dead[strip]).sum() > 300


def test_modules_read_out_in_full_send_nothing_suppressed():
    strips = channels(GOOD, MINI, 1, 1, 1)
    modules = len(strips.dead) // 768
    full = np.flatnonzero(np.arange(300 * modules) % 3 == 0)
    key = np.arange(400, 300 * len(strips.dead), 768)
    signal = Strips(key, np.full(len(key), 60.0), np.zeros(len(key), np.int64))
    kept = suppressed(strips, signal, full, 300)
    assert not np.isin(kept.key // 768, full).any()
    assert np.isin(key[~np.isin(key // 768, full)], kept.key).all()
    # Elsewhere the same strips make noise as without them.
    kept, others = suppressed(strips, full=full, events=300), suppressed(strips, events=300)
    left = others.key[~np.isin(others.key // 768, full)]
    assert len(np.setxor1d(kept.key, left)) < 0.1 * len(left) and len(left) > 400


def test_a_shift_of_whole_chips_stays_in_the_data():
    """The DAQ takes out what moves with the event; it knows where the median of a chip usually lies."""
    shifted = Scenario(faults=replace(FAULTLESS, pedestal_shift_chips=1.0))
    good, moved = channels(GOOD, MINI, 1, 1, 1), channels(shifted, MINI, 1, 1, 1)
    assert np.allclose(moved.pedestal - moved.online, moved.threshold, atol=1e-5)
    assert np.allclose(moved.centre - good.centre, moved.threshold, atol=0.02)
    # Over 4 sigma of the DAQ's tables is now over 3.
    assert moved.firing.sum() == pytest.approx(norm.sf(3) * len(moved.firing), rel=0.12)


def test_one_strip_that_drifts_fires_more():
    drifted = Scenario(faults=replace(FAULTLESS, pedestal_drift=0.5), first_run=0)
    strips = channels(drifted, MINI, 1, 8, 1)
    tables = tables_of(drifted, MINI, 1)
    assert np.allclose(strips.centre, 8 * tables.drift, atol=0.12)
    wanted = norm.sf((4 * strips.threshold - strips.centre) / strips.spread)
    assert np.allclose(strips.firing, wanted)
    kept = suppressed(strips, events=600)
    times = np.bincount(kept.key % len(strips.dead), minlength=len(strips.dead))
    most = strips.firing > np.quantile(strips.firing, 0.99)
    seeds = 600 * strips.firing[most].sum()
    assert seeds > 500
    within(times[most].sum(), seeds, np.sqrt(seeds) + 0.1 * seeds / 4.5)


def test_hot_strips_fire_ten_times_as_often_as_is_expected():
    scenario = Scenario(faults=replace(FAULTLESS, hot_strips=0.001))
    strips = channels(scenario, FULL, 1, 1, 1)
    events = np.arange(1, 2001)
    event, row, strip, electrons = pulses(
        strips, FULL, np.random.default_rng(3).random(2000), (Streams(1, 1, 1), events)
    )
    hot = np.flatnonzero(tables_of(scenario, FULL, 1).hot)
    assert np.isin(FULL.strip_block[row] * 768 + strip, hot).all()
    wanted = 2000 * 10 * expected_occupancy(scenario, FULL)[hot].sum()
    within(len(event), wanted, np.sqrt(wanted))
    counts = electrons / 265
    assert counts.min() >= 20
    assert kstest(counts - 20, "expon", args=(0, 20)).pvalue > 1e-4
    # 16 tracks' worth of strips over the strips of the layer, and noise over 4 sigma.
    assert expected_occupancy(scenario, FULL)[0] == pytest.approx(15 * 2.8 / (16 * 10 * 768) + 3.17e-5, rel=1e-3)


def test_noise_table_may_be_without_common_mode_or_spread():
    plain = Scenario(faults=FAULTLESS, electronics=Electronics(noise_spread=0, common_mode=0))
    strips = channels(plain, MINI, 1, 1, 1)
    assert np.allclose(strips.spread, np.sqrt(16 * (1 + 1.5708 / 128) + 1 / 12))
    assert np.allclose(strips.firing, norm.sf((16 + 1.2533 * 4 / 128) / strips.spread), rtol=1e-4)
