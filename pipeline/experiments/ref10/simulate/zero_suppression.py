"""Which strips the DAQ keeps: over 4 sigma, or over 2 sigma beside one over 4 sigma, noise and all.

1.43 million strips are over 4 sigma 50 times in an event by noise, 45 times if the common mode were known exactly:
only those are drawn. If each strip got a Poisson
number of firings of mean -log(1 - p), it would have at least one with probability p, and independently of the others.
The sum of these numbers is Poisson again, and each falls on a strip in proportion to its mean. So a Poisson number of
picks from the cumulative table, doubles taken once, is exactly the distribution of strips that fire independently, each
with its own p. A strip with signal is drawn in full instead, and its picks are left out; a strip beside a firing one,
if not firing itself, has the part of the Gaussian that is left to it, below threshold.

What the error of the common mode makes common to a chip's strips (1 % of their variance) is kept among strips with
signal only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from pipeline.experiments.ref10.constants import STRIP_LARGEST, STRIP_SATURATION
from pipeline.experiments.ref10.layers import CHIP, STRIPS
from pipeline.experiments.ref10.simulate.cells import NOBODY
from pipeline.experiments.ref10.simulate.channels import BESIDE, SEED, Channels
from pipeline.experiments.ref10.simulate.response import Strips, picks
from pipeline.experiments.ref10.simulate.streams import Purpose, Streams

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

Draws = tuple[Streams, Ints]


def zero_suppressed(channels: Channels, signal: Strips, full: Ints, uniform: Floats, draws: Draws) -> Strips:
    """Strips that are kept, sorted; `counts` are adc less the common mode, as sent.

    `full`: event x strip modules + module, sorted, of what is read out in full instead; `uniform`: one number an event,
    for how many strips fire by noise; `draws`: streams and the events they are of.
    """
    signal = signal.of(~_among(full, signal.key // STRIPS))
    own = _with_noise(channels, signal, draws)
    fired = _fired(channels, uniform, draws)
    fired = fired.of(~_among(signal.key, fired.key) & ~_among(full, fired.key // STRIPS))
    over = own.of(own.counts > SEED * channels.threshold[own.key % len(channels.dead)])
    known = np.concatenate([own.key, fired.key])
    beside = _beside(channels, np.concatenate([over.key, fired.key]), np.sort(known), draws)
    strips = _sorted([own, fired, beside])
    strip = strips.key % len(channels.dead)
    kept = strips.of(keeps(strips.key, strips.counts / channels.threshold[strip]))
    sent = np.rint(channels.online[kept.key % len(channels.dead)] + kept.counts)
    return Strips(kept.key, np.clip(sent, 0, STRIP_LARGEST), kept.particle)


def keeps(key: Ints, significance: Floats) -> Bools:
    """Which of some strips, sorted by key, are kept; those not given are below threshold."""
    over = significance > SEED
    beside = np.zeros_like(over)
    # The last strip of a module and the first of the next are no neighbours.
    touching = (np.diff(key) == 1) & (key[1:] % STRIPS != 0)
    beside[1:] |= over[:-1] & touching
    beside[:-1] |= over[1:] & touching
    return over | (beside & (significance > BESIDE))


def _with_noise(channels: Channels, signal: Strips, draws: Draws) -> Strips:
    """adc less common mode less online pedestal, of strips with signal."""
    streams, events = draws
    strips = len(channels.dead)
    strip = signal.key % strips
    counts = np.bincount(signal.key // strips, minlength=len(events))
    noise = channels.own_spread[strip] * streams.normal(Purpose.STRIP_NOISE, events, counts)
    # The chips of all events that have a strip with signal, and the chip of each strip among them.
    chip = signal.key // CHIP
    begins = np.diff(chip, prepend=-1) > 0
    which, chip = np.cumsum(begins) - 1, chip[begins]
    counts = np.bincount(chip // (strips // CHIP), minlength=len(events))
    normal = streams.normal(Purpose.COMMON_MODE, events, counts)
    carrying = np.bincount(which, signal.counts > BESIDE * channels.noise[strip], len(chip))
    error = channels.median_error[chip % (strips // CHIP)] * (normal + np.maximum(carrying - 1, 0) / np.sqrt(CHIP))
    height = channels.centre[strip] + np.minimum(signal.counts + noise, STRIP_SATURATION) - error[which]
    return Strips(signal.key, height, signal.particle)


def _fired(channels: Channels, uniform: Floats, draws: Draws) -> Strips:
    """Strips over threshold by noise alone, sorted."""
    event, strip, size = picks(channels.noise_rate, uniform, Purpose.NOISE, draws)
    key, first = np.unique(event * len(channels.dead) + strip, return_index=True)
    strip, size = strip[first], size[first]
    # The upper tail, of probability `firing`; 1 - size is never 0.
    height = channels.centre[strip] - channels.spread[strip] * ndtri((1 - size) * channels.firing[strip])
    return Strips(key, height, np.full(len(key), NOBODY))


def _beside(channels: Channels, over: Ints, known: Ints, draws: Draws) -> Strips:
    """Strips beside those over threshold that are not known yet: below threshold, by noise alone."""
    streams, events = draws
    strips = len(channels.dead)
    key = np.sort(np.concatenate([(over - 1)[over % STRIPS > 0], (over + 1)[over % STRIPS < STRIPS - 1]]))
    key = key[np.diff(key, prepend=-1) > 0]
    key = key[~channels.dead[key % strips]]
    key = key[~_among(known, key)]
    strip = key % strips
    size = streams.uniform(Purpose.BESIDE, events, np.bincount(key // strips, minlength=len(events)))
    height = channels.centre[strip] + channels.spread[strip] * ndtri(size * (1 - channels.firing[strip]))
    return Strips(key, height, np.full(len(key), NOBODY))


def _sorted(parts: list[Strips]) -> Strips:
    key, counts, particle = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("key", "counts", "particle")
    )
    return Strips(key, counts, particle).of(np.argsort(key, kind="stable"))


def _among(known: Ints, asked: Ints) -> Bools:
    """Whether each is one of the known, which are sorted."""
    if len(known) == 0:
        return np.zeros(len(asked), bool)
    place = np.minimum(np.searchsorted(known, asked), len(known) - 1)
    found: Bools = known[place] == asked
    return found
