"""Events that a detector should not send, and those it does, drawn by hypothesis; all on the mini geometry.

Channels are drawn from a few places where something may go wrong: borders of sensors and of readout chips, and close
together, so that they touch.
"""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from pipeline.experiments.ref10.layers import LAYERS
from tests.pipeline.experiments.ref10.reconstruct.raw import PLAN, Event, pixel, pixel_module, strip_module

STRIP_MODULES = [strip_module(place) for place in (0, 1, 2, 3, len(PLAN.strip_rows) - 1)]
PIXEL_MODULES = [pixel_module(place) for place in (0, 1, 2, 9, int(PLAN.pixel.sum()) - 1)]
UNKNOWN = [0, 0xFFFFFFFF, int(PLAN.module[0]) + 7]

STRIPS = [*range(10), *range(124, 133), *range(759, 768)]
COLUMNS = [0, 1, 2, 50, 51, 52, 53, 430, 431]


def rows_of(module: int) -> list[int]:
    rows = LAYERS[(module >> 16) - 1].rows
    return [0, 1, 2, 78, 79, 80, 81, rows - 2, rows - 1]


@st.composite
def strip_digis(draw: st.DrawFn) -> tuple[int, int, int]:
    module, strip = draw(st.sampled_from(STRIP_MODULES)), draw(st.sampled_from(STRIPS))
    adc = draw(st.one_of(st.integers(95, 150), st.sampled_from([0, 200, 340, 345, 350, 354, 1023])))
    return module, strip, adc


@st.composite
def pixel_digis(draw: st.DrawFn) -> tuple[int, int, int]:
    module = draw(st.sampled_from(PIXEL_MODULES))
    channel = pixel(draw(st.sampled_from(rows_of(module))), draw(st.sampled_from(COLUMNS)))
    return module, channel, draw(st.one_of(st.integers(1, 60), st.sampled_from([254, 255])))


bad_digis = st.one_of(
    st.tuples(st.sampled_from(UNKNOWN), st.integers(0, 5), st.integers(0, 300)),
    st.tuples(st.sampled_from(STRIP_MODULES), st.sampled_from([768, 1 << 16, 0xFFFFFFFF]), st.just(200)),
    st.tuples(st.sampled_from(STRIP_MODULES), st.sampled_from(STRIPS), st.sampled_from([1024, 65535])),
    st.tuples(
        st.sampled_from(PIXEL_MODULES), st.sampled_from([pixel(0, 432), pixel(300, 0), 1023, 0xFFFFFFFF]), st.just(40)
    ),
    st.tuples(st.sampled_from(PIXEL_MODULES), st.just(pixel(3, 3)), st.sampled_from([0, 256, 65535])),
)

blocks = st.tuples(
    st.sampled_from([*STRIP_MODULES, *STRIP_MODULES, PIXEL_MODULES[0], *UNKNOWN]), st.integers(0, 2**32 - 1)
)


def counts_of(seed: int) -> list[int]:
    """768 counts of a module: pedestal, noise and common mode of each chip, and some signals; a few do not fit."""
    rng = np.random.default_rng(seed)
    counts = rng.normal(100, 4, 768) + np.repeat(rng.normal(0, 3, 6), 128)
    for _ in range(rng.integers(0, 12)):
        start = int(rng.integers(0, 760))
        counts[start : start + int(rng.integers(1, 8))] += rng.uniform(15, 200)
    if rng.random() < 0.1:
        counts += 100
    counts = np.clip(np.rint(counts), 0, 354)
    if rng.random() < 0.1:
        counts[int(rng.integers(768))] = 1024
    return [int(count) for count in counts]


@st.composite
def events(draw: st.DrawFn, most: int = 30) -> Event:
    good = draw(st.lists(st.one_of(strip_digis(), pixel_digis()), max_size=most))
    if draw(st.booleans()):
        good = list({digi[:2]: digi for digi in good}.values())
    spoilt = draw(st.lists(bad_digis, max_size=3)) if draw(st.booleans()) else []
    nzs = [(module, counts_of(seed)) for module, seed in draw(st.lists(blocks, max_size=2))]
    event = Event.of([*good, *spoilt], nzs)
    if draw(st.integers(0, 9)) == 0:
        return _shuffled(event, draw(st.randoms(use_true_random=False)))
    if draw(st.integers(0, 9)) == 0:
        column = getattr(event, draw(st.sampled_from(["digi_chan", "digi_adc", "nzs_module", "nzs_adc"])))
        column.append(5)
    return event


def _shuffled(event: Event, random) -> Event:
    digis = list(zip(event.digi_module, event.digi_chan, event.digi_adc, strict=True))
    random.shuffle(digis)
    module, chan, adc = ([digi[i] for digi in digis] for i in range(3))
    return Event(module, chan, adc, event.nzs_module, event.nzs_adc)


chunks = st.lists(events(), max_size=4)
