"""Strip modules read out in full: pedestal, noise, common mode, signal, and which they are."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.experiments.ref10.geometry import geometry_of, mini_geometry
from pipeline.experiments.ref10.simulate.channels import channels
from pipeline.experiments.ref10.simulate.faults import Faults
from pipeline.experiments.ref10.simulate.full_readout import chosen, full_readout
from pipeline.experiments.ref10.simulate.response import Strips
from pipeline.experiments.ref10.simulate.scenario import Scenario
from pipeline.experiments.ref10.simulate.streams import Purpose, Streams
from tests.pipeline.experiments.ref10.simulate import naive

MINI = geometry_of(mini_geometry())
SCENARIO = Scenario(faults=Faults(dead_strips=0.01, dead_chips=3), first_run=0)
STRIPS = channels(SCENARIO, MINI, 1, 1, 1)
MODULES = len(STRIPS.dead) // 768
NOTHING = np.zeros(0, np.int64)
NO_SIGNAL = Strips(NOTHING, np.zeros(0), NOTHING)


def within(found, wanted, error, sigmas=5.0):
    """Of thousands of values each."""
    assert (np.abs(found - wanted) < sigmas * error).all()


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 10**6)), max_size=6), st.integers(1, 50))
def test_of_a_chosen_event_every_sixteenth_module(events, modules):
    nzs = np.array([flag for flag, _ in events], bool)
    numbers = np.array([number for _, number in events], np.int64)
    wanted = [
        i * modules + module
        for i, (flag, number) in enumerate(events)
        for module in range(modules)
        if flag and module % 16 == number % 16
    ]
    assert chosen(nzs, numbers, modules).tolist() == wanted


def read(events, modules, signal=NO_SIGNAL, common_mode=2.0):
    full = (np.arange(events)[:, None] * MODULES + modules).ravel()
    return full_readout(STRIPS, signal, full, common_mode, (Streams(7, 2, 3), np.arange(1, events + 1)))


def test_pedestal_noise_and_common_mode_are_the_true_ones():
    events = 1500
    adc = read(events, np.arange(4)).adc.reshape(events, 4 * 768).astype(float)
    strips = np.arange(4 * 768)
    good = ~STRIPS.dead[strips]
    total = np.sqrt(STRIPS.noise[strips] ** 2 + 4 + 1 / 12)
    within(adc.mean(axis=0)[good], STRIPS.pedestal[strips][good], total[good] / np.sqrt(events))
    within(adc.std(axis=0)[good], total[good], total[good] / np.sqrt(2 * events))
    # The mean over a chip follows its common mode; chips are independent of each other.
    rest = np.where(good, adc - STRIPS.pedestal[strips], np.nan).reshape(events, 24, 128)
    chips = np.nanmean(rest, axis=2)
    alive = good.reshape(24, 128).sum(axis=1)
    wanted = np.sqrt(4 + 16 / alive)
    within(chips.std(axis=0), wanted, wanted * 1.01 / np.sqrt(2 * events))
    correlation = np.corrcoef(chips.T)[np.triu_indices(24, 1)]
    within(correlation, 0, 1 / np.sqrt(events))
    own = (rest - chips[:, :, None]).reshape(events, -1)[:, good].std(axis=0)
    within(own, STRIPS.noise[strips][good] * np.sqrt(1 - 1 / 128), 1.03 * 4 / np.sqrt(2 * events))


def test_dead_strips_send_their_pedestal_always():
    module = int(np.flatnonzero(STRIPS.dead.reshape(MODULES, 768).sum(axis=1) >= 128)[0])
    adc = read(50, np.array([module])).adc
    dead = STRIPS.dead[module * 768 : module * 768 + 768]
    assert (adc[:, dead] == np.rint(STRIPS.pedestal[module * 768 : module * 768 + 768][dead])).all()
    assert (adc[:, ~dead].std(axis=0) > 0).all()


def test_signal_adds_and_saturates_above_the_baseline():
    key = np.arange(10, 768, 20)
    key = key[~STRIPS.dead[key]]
    counts = np.linspace(0, 500, len(key))
    signal = Strips(key, counts, np.zeros(len(key), np.int64))
    with_signal, without = read(1, np.array([0, 1]), signal, 0.0).adc, read(1, np.array([0, 1]), common_mode=0.0).adc
    assert (with_signal[1] == without[1]).all()
    gained = with_signal[0].astype(float)[key] - without[0][key]
    noise = without[0][key] - STRIPS.pedestal[key]
    assert np.abs(gained - np.minimum(counts, 254 - noise)).max() <= 1.01
    assert (np.delete(with_signal[0], key) == np.delete(without[0], key)).all()
    assert (gained < 200).sum() > 5 and (counts > 260).sum() > 5


def test_counts_stay_within_ten_bits():
    high = replace(STRIPS, pedestal=STRIPS.pedestal + 900, dead=np.zeros_like(STRIPS.dead))
    signal = Strips(np.arange(768), np.full(768, 300.0), np.zeros(768, np.int64))
    draws = (Streams(1, 1, 1), np.array([1]))
    assert full_readout(high, signal, np.array([0]), 2.0, draws).adc.max() == 1023
    low = replace(high, pedestal=np.full_like(STRIPS.pedestal, -50.0))
    assert full_readout(low, NO_SIGNAL, np.array([0]), 2.0, draws).adc.max() == 0


def test_each_strip_is_that_of_a_naive_loop_whatever_is_read_with_it():
    events = np.arange(100, 148)  # three times as many as are read out together
    full = chosen(np.ones(48, bool), events, MODULES)
    key = np.arange(3, 48 * len(STRIPS.dead), 611)
    key = key[~STRIPS.dead[key % len(STRIPS.dead)]]
    signal = Strips(key, np.linspace(1, 400, len(key)), np.zeros(len(key), np.int64))
    found = full_readout(STRIPS, signal, full, 2.0, (Streams(7, 2, 3), events))
    counts = dict(zip(key.tolist(), signal.counts.tolist(), strict=True))
    for event in (0, 17, 47):
        modules = [m for m in range(MODULES) if m % 16 == events[event] % 16]
        normal = naive.generator(7, 2, 3, Purpose.FULL_READOUT, events[event]).standard_normal(len(modules) * 774)
        for place, module in enumerate(modules):
            row = np.flatnonzero((found.event == event) & (found.block == module))
            for strip in range(0, 768, 7):
                channel, own = module * 768 + strip, normal[place * 774 : place * 774 + 774]
                height = counts.get(event * len(STRIPS.dead) + channel, 0.0) + STRIPS.noise[channel] * own[strip]
                value = STRIPS.pedestal[channel] + 2.0 * own[768 + strip // 128] + min(height, 254)
                wanted = round(STRIPS.pedestal[channel] if STRIPS.dead[channel] else value)
                assert found.adc[row[0], strip] == wanted


def test_nothing_is_read_where_nothing_is_chosen():
    found = full_readout(STRIPS, NO_SIGNAL, NOTHING, 2.0, (Streams(1, 1, 1), np.arange(5)))
    assert found.adc.shape == (0, 768) and len(found.event) == 0
