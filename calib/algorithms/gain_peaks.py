"""The peaks of many histograms of charge over path at once, by maximum likelihood.

The likelihood of every group is taken on a grid of peaks, all groups in one product of matrices. From the best place of
the grid one step of Halley's leads to where the slope vanishes: with the third derivative known it leaves 1e-6 of the
grid's step or less, so there is nothing to iterate, and a second maximum far off is not mistaken for the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.algorithms.gain_agreement import Agreement, agreement
from calib.algorithms.gain_shape import Tables

Floats = NDArray[np.float64]
Array = NDArray[Any]

SLAB = 8192
"""groups worked on at a time"""


@dataclass(frozen=True, eq=False)
class Peaks:
    """Of n groups; of no meaning where there is no cluster."""

    logarithm: Floats
    """of charge over path at the peak, [n]"""
    variance: Floats
    """of the logarithm, [n]"""
    at_end: NDArray[np.bool_]
    """whether the likelihood is largest at an end of the grid"""
    agreement: Agreement
    """of the histogram with the shape at its peak"""


def peaks(clear: Array, saturated: Array, known: Tables) -> Peaks:
    """Peaks of histograms: counts `clear` [n, bins + 1], the last bin all above; `saturated` [n, bins].

    The variance is that of the information of a typical cluster of all groups: that of a group's own clusters depends
    on where they lie, and so on the peak it is to be the variance of. Of the first order of the bias, `Tables.skew`,
    the peaks are freed.
    """
    found = [_slab(clear[some], saturated[some], known) for some in _slabs(len(clear))]
    place, step, information, *agrees = (np.concatenate(part) for part in zip(*found, strict=True))
    entries = clear.sum(axis=1, dtype=np.int64) + saturated.sum(axis=1, dtype=np.int64)
    usable = (entries > 0) & (place > 0) & (place < len(known.peaks) - 1)
    typical = float(information[usable].sum() / max(int(entries[usable].sum()), 1))
    counted = np.maximum(entries, 1)
    least = known.information() * 1e-2
    return Peaks(
        known.peaks[place] + step - known.skew() / counted,
        1.0 / (counted * max(typical, least)),
        (place == 0) | (place == len(known.peaks) - 1),
        Agreement(*agrees),
    )


def _slabs(size: int) -> Iterator[slice]:
    for start in range(0, max(size, 1), SLAB):
        yield slice(start, start + SLAB)


def _slab(clear: Array, saturated: Array, known: Tables) -> tuple[Array, ...]:
    """Of each group the best place on the grid, the step from there to the maximum, the information there; and of its
    agreement with the shape."""
    counts, least = clear.astype(np.float64), saturated.astype(np.float64)
    place = np.argmax(counts @ known.clear[0].T + least @ known.saturated[0].T, axis=1)
    first, second, third = (
        np.einsum("gb,gb->g", counts, known.clear[order][place])
        + np.einsum("gb,gb->g", least, known.saturated[order][place])
        for order in (1, 2, 3)
    )
    bent = 2 * second**2 - first * third
    # At the top of the likelihood `second` is below zero; at an end of the grid there may be no top.
    step = np.divide(-2 * first * second, bent, out=np.zeros_like(first), where=(second < 0) & (bent > 0))
    step = np.clip(step, -known.step, known.step)
    return place, step, np.maximum(-second, 0.0), *agreement(counts, least, known.shares(place, step))
