"""Random numbers keyed by what they are for, so that an event does not depend on which others are made with it.

Numbers come from Philox 4x64 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11): key (seed,
run << 32 | lumisection), counter (0, 0, purpose, event). Each event and purpose owns 2^128 blocks of four numbers.

One generator is set to each place in turn through its state, which costs 1 us; making a new one costs 20 us.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from calib.iov import RunLumi

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SEED_LIMIT = 1 << 64


class Purpose(IntEnum):
    """What random numbers are for. The value is part of what an event is, and never given to something else."""

    EVENT = 1
    VERTEX = 2
    MULTIPLICITY = 3
    TRACK = 4
    MASS = 5
    DECAY = 6
    SCATTERING = 7
    CHARGE = 8
    STEPS = 9
    GRAZING_STEPS = 10
    PIXEL_NOISE = 11
    PULSE = 12
    STRIP_NOISE = 13
    COMMON_MODE = 14
    NOISE = 15
    BESIDE = 16
    FULL_READOUT = 17

    PEDESTAL = 101
    NOISE_TABLE = 102
    DRIFT = 103
    GAIN = 104
    SHIFTED_CHIP = 105
    DEAD_STRIP = 106
    DEAD_CHIP = 107
    HOT_STRIP = 108
    DEAD_ROC = 109
    LADDER = 110
    MODULE = 111


class Streams:
    """The random numbers of one lumisection's events.

    Every method gives one flat array: `counts[i]` numbers of `events[i]`, in that order.
    """

    def __init__(self, seed: int, run: int, lumi: int) -> None:
        """Raises ValueError for a seed, run or lumisection that is no key."""
        self._place = _Place(seed, RunLumi(run, lumi).packed)

    def uniform(self, purpose: Purpose, events: Ints, counts: Ints) -> Floats:
        """Uniform in [0, 1)."""
        generator = self._place.generator
        return self._each(purpose, events, counts, lambda out: generator.random(out=out))

    def normal(self, purpose: Purpose, events: Ints, counts: Ints) -> Floats:
        """Normal, mean 0 and variance 1."""
        generator = self._place.generator
        return self._each(purpose, events, counts, lambda out: generator.standard_normal(out=out))

    def gamma(self, shape: float, purpose: Purpose, events: Ints, counts: Ints) -> Floats:
        """Gamma of a shape, scale 1."""
        generator = self._place.generator
        return self._each(purpose, events, counts, lambda out: generator.standard_gamma(shape, out=out))

    def _each(self, purpose: Purpose, events: Ints, counts: Ints, draw: Callable[[Floats], object]) -> Floats:
        ends = np.cumsum(counts)
        flat = np.empty(int(ends[-1]) if len(ends) else 0)
        start = 0
        for event, end in zip(events.tolist(), ends.tolist(), strict=True):
            if end > start:
                self._place.go(purpose, event)
                draw(flat[start:end])
                start = end
        return flat


def table_generator(seed: int, purpose: Purpose) -> np.random.Generator:
    """For a table of the detector, which belongs to a seed and to no run: the key of run 0, lumisection 0."""
    place = _Place(seed, 0)
    place.go(purpose, 0)
    return place.generator


class _Place:
    """One generator, which can be set to any purpose and event of a key."""

    def __init__(self, seed: int, unit: int) -> None:
        if not 0 <= seed < SEED_LIMIT:
            raise ValueError(f"a seed must lie in 0 .. 2^64 - 1, not {seed}")
        self._bits = np.random.Philox(key=[seed, unit])
        self.generator = np.random.Generator(self._bits)
        # Plain lists: the setter takes them three times as fast as arrays.
        self._counter = [0, 0, 0, 0]
        self._state = {
            "bit_generator": "Philox",
            "state": {"counter": self._counter, "key": [seed, unit]},
            "buffer": [0, 0, 0, 0],
            "buffer_pos": 4,
            "has_uint32": 0,
            "uinteger": 0,
        }

    def go(self, purpose: Purpose, event: int) -> None:
        self._counter[2] = int(purpose)
        self._counter[3] = event
        self._bits.state = self._state  # type: ignore[assignment]
