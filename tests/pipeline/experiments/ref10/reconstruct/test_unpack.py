"""RAW to hits: what is bad is counted and left out, and the common mode is found."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from pipeline.experiments.ref10.constants import gain, pedestal, pixel_status, strip_status
from pipeline.experiments.ref10.geometry import Geometry
from pipeline.experiments.ref10.reconstruct.channel_keys import check_room
from pipeline.experiments.ref10.reconstruct.flags import EventFlag
from pipeline.experiments.ref10.reconstruct.nzs import common_mode
from pipeline.experiments.ref10.reconstruct.thresholds import Thresholds
from pipeline.experiments.ref10.reconstruct.unpack import unpack
from tests.pipeline.experiments.ref10.reconstruct.raw import (
    PLAN,
    Event,
    pixel,
    pixel_module,
    plain,
    raw_columns,
    strip_module,
)

STRIP, PIXEL = strip_module(4), pixel_module(3)
GOOD = [(PIXEL, pixel(3, 5), 40), (PIXEL, pixel(3, 6), 50), (STRIP, 7, 150), (STRIP, 8, 160)]
CHANNELS = len(PLAN.strip_rows) * 768


def unpacked(*events, limits=None, conditions=None):
    return unpack(raw_columns(events), conditions or plain(), limits or Thresholds())


def contents(hits):
    """Hits of all events as one list."""
    both = (hits.pixels, hits.strips)
    return [[part.counts.tolist(), {name: values.tolist() for name, values in part.flat.items()}] for part in both]


GONE = {
    "module": (PIXEL + 7, 5, 40),
    "largest module": (0xFFFFFFFF, 5, 40),
    "strip": (STRIP, 768, 150),
    "column of a strip": (STRIP, pixel(5, 1), 150),
    "row": (PIXEL, pixel(160, 5), 40),
    "column": (PIXEL, pixel(5, 432), 40),
    "counts of a strip": (STRIP, 9, 1024),
    "counts of a pixel": (PIXEL, pixel(3, 7), 256),
    "pixel without charge": (PIXEL, pixel(3, 7), 0),
    "repeated": (STRIP, 8, 160),
}


@pytest.mark.parametrize("bad", GONE.values(), ids=GONE.keys())
def test_bad_digis_are_left_out_and_counted(bad):
    hits = unpacked(Event.of([*GOOD, bad]), Event.of(GOOD))
    assert hits.tally.flags.tolist() == [EventFlag.BAD_DIGIS, 0]
    assert hits.tally.bad_digis.tolist() == [1, 0]
    assert contents(hits) == contents(unpacked(Event.of(GOOD), Event.of(GOOD)))


def test_of_a_repeated_channel_the_first_counts():
    event = Event.of(GOOD)
    again = replace(
        event,
        digi_module=[*event.digi_module, STRIP],
        digi_chan=[*event.digi_chan, 7],
        digi_adc=[*event.digi_adc, 300],
    )
    hits = unpacked(again)
    assert hits.strips.flat["charge"].tolist() == [265 * 50, 265 * 60]
    assert hits.tally.flags.tolist() == [EventFlag.BAD_DIGIS | EventFlag.UNSORTED]


def test_digis_out_of_order_give_the_same():
    backwards = Event(*(column[::-1] for column in raw_lists(Event.of(GOOD))))
    hits = unpacked(Event.of(GOOD), backwards, Event.of(GOOD))
    assert hits.tally.flags.tolist() == [0, EventFlag.UNSORTED, 0]
    assert hits.tally.bad_digis.tolist() == [0, 0, 0]
    assert contents(hits) == contents(unpacked(*[Event.of(GOOD)] * 3))


def raw_lists(event):
    return [getattr(event, part.name) for part in fields(Event)]


def test_columns_that_do_not_fit_together_cost_their_event():
    torn = Event.of(GOOD)
    torn.digi_adc.pop()
    hits = unpacked(Event.of(GOOD), torn, Event.of(GOOD))
    assert hits.tally.bad_digis.tolist() == [0, 4, 0]
    assert hits.strips.counts.tolist() == [2, 0, 2]


@pytest.mark.parametrize(("limit", "kept"), [(4, True), (3, False)])
def test_an_event_of_too_many_digis_is_not_looked_at(limit, kept):
    hits = unpacked(Event.of(GOOD), Event.of(GOOD[:3]), limits=Thresholds(digis=limit))
    assert hits.tally.flags.tolist() == [0 if kept else EventFlag.TOO_MANY_DIGIS, 0]
    assert hits.strips.counts.tolist() == [2 * kept, 1]
    full = Event.of([], [(STRIP, [100] * 768)])
    assert unpacked(full, limits=Thresholds(digis=767)).tally.flags.tolist() == [EventFlag.TOO_MANY_DIGIS]


# full readout ---------------------------------------------------------------------------------------------------------


def block(rng, signals=(), mode=(0.0,) * 6):
    counts = 100 + 4 * rng.standard_normal(768) + np.repeat(mode, 128)
    for strip, height in signals:
        counts[strip] += height
    return np.rint(counts).astype(int).tolist()


def test_signals_are_found_under_a_common_mode():
    mode = (-12.0, 9.0, 0.0, 25.0, -3.0, 6.0)
    hits = unpacked(Event.of([], [(STRIP, block(np.random.default_rng(1), [(200, 90), (500, 70)], mode))]))
    strong = hits.strips.flat["charge"] > 10 * 4 * 265
    assert hits.strips.flat["channel"][strong].tolist() == [200, 500]
    # 4 counts of noise, and what the median knows.
    assert np.abs(hits.strips.flat["charge"][strong] / 265 - [90, 70]).max() < 4 * 4.1
    # 2 sigma: 2.28 % of 768 strips.
    assert abs(len(strong) - 17.5) < 4 * np.sqrt(17.5)


@pytest.mark.parametrize("firing", [0, 12, 40])
def test_the_common_mode_does_not_follow_the_signals(firing):
    rng, chips = np.random.default_rng(2), 4000
    above = (4 * rng.standard_normal((chips, 128))).astype(np.float32)
    plain_median = np.median(above, axis=1)
    for chip in range(chips):
        above[chip, rng.permutation(128)[:firing]] += 100
    unmasked, noise = np.ones((chips, 128), bool), np.full(chips, 4, np.float32)
    modes = common_mode(above, unmasked, noise)
    error = 1.2533 * 4 / np.sqrt(128 - firing)
    # The strips cut off above 3 sigma are 0.13 % of those without signal: 0.007 counts.
    assert abs(modes.mean()) < 4 * error / np.sqrt(chips) + 0.007
    assert modes.std() == pytest.approx(error, rel=0.06)
    if not firing:
        assert np.abs(modes - plain_median).max() < 0.5


def test_masked_strips_do_not_vote():
    rng = np.random.default_rng(3)
    above = (4 * rng.standard_normal((3, 128))).astype(np.float32)
    unmasked = np.ones((3, 128), bool)
    unmasked[0, :100] = False
    unmasked[1] = False
    above[0, :100] = 500
    modes = common_mode(above, unmasked, np.array([4, 0, 4], np.float32))
    assert abs(modes[0] - np.median(above[0, 100:])) < 0.5
    assert modes[1] == 0


def test_a_dead_chip_and_all_strips_masked_are_no_trouble():
    status = np.ones(CHANNELS, np.int8)
    hits = unpacked(
        Event.of([], [(STRIP, block(np.random.default_rng(1), [(9, 90)]))]),
        conditions=plain(strip_status=strip_status(status)),
    )
    assert hits.strips.counts.tolist() == [0]


ONES = [100] * 768


BLOCKS = {
    "unknown": ([0xFFFFFFFF], ONES),
    "of pixels": ([PIXEL], ONES),
    "too long": ([STRIP], [*ONES, 100]),
    "too short": ([STRIP], ONES[1:]),
    "without a module": ([], ONES),
    "without counts": ([STRIP], []),
    "counts beyond 10 bits": ([STRIP], [*ONES[1:], 1024]),
}


@pytest.mark.parametrize(("module", "counts"), BLOCKS.values(), ids=BLOCKS.keys())
def test_bad_blocks_are_left_out_and_counted(module, counts):
    bad = Event.of(GOOD)
    bad.nzs_module, bad.nzs_adc = list(module), list(counts)
    good = Event.of([], [(STRIP, [*ONES[:-1], 200])])
    hits = unpacked(good, bad, good)
    assert hits.tally.flags.tolist() == [0, EventFlag.BAD_NZS, 0]
    assert hits.tally.bad_nzs.tolist() == [0, max(1, -(-len(counts) // 768)), 0]
    assert hits.strips.counts.tolist() == [1, 2, 1]


def test_of_a_module_read_out_twice_the_full_readout_counts():
    full = [*ONES]
    full[20] = 170
    hits = unpacked(Event.of(GOOD, [(STRIP, full), (STRIP, ONES)]))
    assert hits.strips.flat["channel"].tolist() == [20]
    assert hits.tally.bad_digis.tolist() == [2]
    assert hits.tally.bad_nzs.tolist() == [1]
    assert hits.tally.flags.tolist() == [EventFlag.BAD_DIGIS | EventFlag.BAD_NZS]


# conditions -----------------------------------------------------------------------------------------------------------


OTHERS = {
    "pedestal": lambda: pedestal(np.ones(768), np.ones(768)),
    "gain": lambda: gain(np.ones(6)),
    "strip_status": lambda: strip_status(np.zeros(768)),
    "pixel_status": lambda: pixel_status(np.zeros((3, 36))),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_tables_of_another_detector_are_refused(kind):
    with pytest.raises(ValueError, match=f"of the {kind} is of shape .*are the two of one detector"):
        unpacked(Event.of(GOOD), conditions=plain(**{kind: OTHERS[kind]()}))


def test_a_chip_whose_gain_cannot_be_used_counts_as_masked():
    gains = np.ones(len(PLAN.strip_rows) * 6)
    gains[4 * 6] = np.nan
    hits = unpacked(Event.of(GOOD), conditions=plain(gain=gain(gains)))
    assert hits.strips.counts.tolist() == [0]


def test_sensors_too_large_for_the_keys_are_refused():
    columns = {part.name: getattr(PLAN, part.name) for part in fields(Geometry)}
    wide = Geometry(**(columns | {"rows": np.full(len(PLAN), 1023, np.int32)}))
    with pytest.raises(ValueError, match="raise ROW_BITS"):
        check_room(wide)
