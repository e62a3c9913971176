"""Hits of channels whose rates are known: for benchmarks of `calib.algorithms.occupancy_status`."""

from __future__ import annotations

from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import NDArray
from scipy.special import pdtrc
from scipy.stats import poisson

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def hit_columns(rng: np.random.Generator, counts: Ints, events: int, run: int = 1) -> dict[str, Any]:
    """Columns of `OccupancyStatus`: so many hits of each channel, at random in the events of a run."""
    channel = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    in_event = rng.multinomial(len(channel), np.full(events, 1 / events))
    number = np.arange(events)
    columns: dict[str, Any] = {"run": np.full(events, run), "lumi": np.ones_like(number), "event": number}
    return columns | {"channel": ak.unflatten(channel, in_event)}


def found_hot(mean: float, factor: float, group: int, probability: float) -> float:
    """Chance that a channel hit `factor` times as often as the others of its group, `mean` times each, is called hot.

    Over all that it and the others may be hit by; the mean is of both, as it is not known before to be hot.
    """
    others = np.arange(*np.rint(poisson.interval(1 - 1e-12, mean * (group - 1))).astype(int))
    hits = np.arange(1 + int(poisson.isf(1e-12, factor * mean)))
    hot = pdtrc(hits, (others[:, None] + hits) / group) < probability
    return float(poisson.pmf(others, mean * (group - 1)) @ hot @ poisson.pmf(hits, factor * mean))


def found_dead(expected: float, group: int, probability: float) -> float:
    """Chance that one that is never hit is called dead where `expected` hits of a channel of its group are to come."""
    return float(poisson.sf(-np.log(probability) * (group - 1), expected * (group - 1)))
