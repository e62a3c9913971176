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

    Averaged over what the others, of which the mean is taken, are hit by.
    """
    total = np.arange(*np.rint(poisson.interval(1 - 1e-12, mean * group)).astype(int))
    others = total / group
    first = poisson.isf(probability, others)
    # `isf` is the first n of which P(more than n) is not above; below is asked for.
    first += pdtrc(first, others) >= probability
    weight = poisson.pmf(total, mean * group)
    return float(np.sum(weight * pdtrc(first - 1, factor * mean)) / weight.sum())


def found_dead(expected: float, group: int, probability: float) -> float:
    """Chance that one that is never hit is called dead where `expected` hits of a channel of its group are to come."""
    return float(poisson.sf(-np.log(probability) * (group - 1), expected * (group - 1)))
