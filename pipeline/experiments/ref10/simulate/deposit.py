"""Charge in the channels: Landau deposits along the way through a sensor, drift with Lorentz angle, and diffusion.

The charge of a crossing is Landau distributed in proportion to its path, at most 8 times the most probable; the ways
through the sensor are cut into 30 steps, whose shares of it fluctuate (gamma distributed). A step at height h along w
drifts d = t/2 - h to the readout plane at +t/2, d tan(theta_L) along +u, and spreads by sigma = 6 um sqrt(d/t) + 1 um.
Channels get integrals of the Gaussian. Physics note, section 9.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import landau

from pipeline.experiments.ref10.geometry import Geometry
from pipeline.experiments.ref10.simulate.propagate import Crossings

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LANDAU_PLACE, LANDAU_SCALE = 80.6, 5.0
"""electrons for each um of path; the mode is 79.5"""
MOST_PROBABLE = LANDAU_PLACE - 0.22278 * LANDAU_SCALE
LARGEST = 8.0
"""times the most probable"""

STEPS = 30
GRAZING_STEPS = 180
"""where 30 steps would be longer than half a pitch"""
STEP_SHAPE = 4.0
"""shape of the gamma distribution of one of 30 steps: 10 um of silicon vary by about a half; others in proportion"""

DIFFUSION, SMEAR = 6e-4, 1e-4
"""cm"""
LEAST = 5.0
"""electrons below which the charge of a channel is forgotten: 0.02 counts of a strip"""
COLUMN_BIT = 16
"""of the channel number of a pixel: row | column << 16"""

_BLOCK = 1024
"""crossings whose steps are in memory together"""


@dataclass(frozen=True, eq=False)
class Deposits:
    """Charge by channel and crossing; flat, by block of crossings: in no order across them."""

    crossing: Ints
    channel: Ints
    """strip number, or row | column << 16"""
    charge: Floats
    """electrons"""


def path(geometry: Geometry, crossings: Crossings) -> Floats:
    """The way through the sensor [cm]."""
    long = np.sqrt(1 + crossings.du**2 + crossings.dv**2)
    return np.asarray(geometry.thickness[crossings.row] * long)


def charge(way: Floats, uniform: Floats) -> Floats:
    """Electrons made on a way [cm], from uniform random numbers."""
    by_um = LANDAU_PLACE + LANDAU_SCALE * np.interp(uniform, *_landau())
    return 1e4 * way * np.minimum(by_um, LARGEST * MOST_PROBABLE)


@cache
def _landau() -> tuple[Floats, Floats]:
    """Landau's quantile function as points (probability, value), up to the largest value that is used.

    The value is Landau's lambda (mode -0.22278, full width at half maximum 4.018). scipy has the same distribution as
    the stable one of alpha = 1 in its unit scale, lambda = pi/2 x + ln(pi/2).
    """
    largest = (LARGEST * MOST_PROBABLE - LANDAU_PLACE) / LANDAU_SCALE
    # Dense where the curve bends; between 20 and the end it is all but straight in steps of a tenth.
    value = np.concatenate([np.arange(-4.0, 20.0, 0.005), np.arange(20.0, largest + 0.1, 0.1)])
    return landau.cdf((value - np.log(np.pi / 2)) / (np.pi / 2)), value


def steps(geometry: Geometry, crossings: Crossings) -> Ints:
    """Into how many steps each crossing is cut: 30, or 180 where those would be longer than half a channel."""
    row = crossings.row
    tall = geometry.thickness[row] / STEPS
    long = tall * np.abs(crossings.du) > geometry.pitch_u[row] / 2
    long |= geometry.pixel[row] & (tall * np.abs(crossings.dv) > geometry.pitch_v[row] / 2)
    return np.where(long, GRAZING_STEPS, STEPS)


def shape(number: int) -> float:
    """Shape of the gamma distribution of the weight of one of so many steps."""
    return STEP_SHAPE * STEPS / number


def deposit(
    geometry: Geometry, tangents: Floats, crossings: Crossings, electrons: Floats, weights: tuple[Floats, Floats]
) -> Deposits:
    """The charge of each crossing in the channels of its module.

    `tangents`: of the Lorentz angle, by layer. `weights`: gamma distributed, [n, 30] and [m, 180], for the crossings of
    30 and of 180 steps in their order.
    """
    number = steps(geometry, crossings)
    parts = []
    for width, weight in zip((STEPS, GRAZING_STEPS), weights, strict=True):
        for pixel in (True, False):
            own = number == width
            chosen = np.flatnonzero(own & (geometry.pixel[crossings.row] == pixel))
            place = (np.cumsum(own) - 1)[chosen]
            for block in _blocks(len(chosen)):
                some = chosen[block]
                shares = weight[place[block]]
                shares *= (electrons[some] / shares.sum(axis=1))[:, None]
                parts.append(_spread(geometry, tangents, crossings, some, shares))
    return Deposits(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _blocks(size: int) -> Iterator[slice]:
    for start in range(0, max(size, 1), _BLOCK):
        yield slice(start, start + _BLOCK)


def _spread(
    geometry: Geometry, tangents: Floats, crossings: Crossings, some: Ints, shares: Floats
) -> tuple[NDArray[np.generic], ...]:
    """Columns of Deposits of some crossings, all of pixels or all of strips; `shares` [n, steps] in electrons."""
    row = crossings.row[some]
    depth = geometry.thickness[row]
    drift = np.broadcast_to(1 - (np.arange(shares.shape[1]) + 0.5) / shares.shape[1], shares.shape)
    sigma = DIFFUSION * np.sqrt(drift) + SMEAR
    lorentz = tangents[geometry.layer[row] - 1]
    # The way along u or v in channels: a straight line in the drift, as height and Lorentz shift are.
    pitch = geometry.pitch_u[row]
    begin = (crossings.u[some] + crossings.du[some] * depth / 2) / pitch + geometry.rows[row] / 2
    rise = (lorentz - crossings.du[some]) * depth / pitch
    along_u = _axis(begin[:, None] + rise[:, None] * drift, sigma / pitch[:, None])
    if not geometry.pixel[row].any():
        box, which, line = _strips(along_u, shares)
        column = np.zeros_like(line)
    else:
        pitch = geometry.pitch_v[row]
        begin = (crossings.v[some] + crossings.dv[some] * depth / 2) / pitch + geometry.columns[row] / 2
        rise = -crossings.dv[some] * depth / pitch
        along_v = _axis(begin[:, None] + rise[:, None] * drift, sigma / pitch[:, None])
        box, which, line, column = _pixels(along_u, along_v, shares)
    own = row[which]
    kept = (box > LEAST) & (line >= 0) & (line < geometry.rows[own])
    kept &= (column >= 0) & (column < geometry.columns[own])
    return some[which[kept]], (line | column << COLUMN_BIT)[kept], box[kept]


@dataclass(frozen=True, eq=False)
class _Axis:
    """Steps along one axis, [n, steps]: the lower of the two channels each touches, and its share of the charge."""

    lower: Ints
    share: Floats
    first: Ints
    """[n] the first channel of a crossing's box"""
    size: Ints
    """[n] channels of the box"""


def _axis(place: Floats, sigma: Floats) -> _Axis:
    """Where steps fall, in units of channels.

    A step touches the two channels whose border is nearest: the next border is at least half a channel off, which is
    7 sigma where diffusion is largest and channels are narrowest.
    """
    border = np.rint(place)
    lower = border.astype(np.int64) - 1
    first = lower.min(axis=1)
    return _Axis(lower, ndtr((border - place) / sigma), first, lower.max(axis=1) - first + 2)


def _strips(along: _Axis, shares: Floats) -> tuple[Floats, Ints, Ints]:
    """Charge of each channel of each box, with the place of its crossing and the channel."""
    start = np.cumsum(along.size) - along.size
    cell = along.lower + (start - along.first)[:, None]
    low = shares * along.share
    cells = int(along.size.sum())
    box = _sums(cell, low, cells) + _sums(cell + 1, shares - low, cells)
    which = np.repeat(np.arange(len(start)), along.size)
    return box, which, np.arange(cells) - start[which] + along.first[which]


def _pixels(along_u: _Axis, along_v: _Axis, shares: Floats) -> tuple[Floats, Ints, Ints, Ints]:
    """As `_strips`, with rows and columns."""
    size = along_u.size * along_v.size
    start = np.cumsum(size) - size
    width = along_v.size[:, None]
    cell = (along_u.lower - along_u.first[:, None]) * width + along_v.lower + (start - along_v.first)[:, None]
    low = shares * along_u.share
    high = shares - low
    cells = int(size.sum())
    box = _sums(cell, low * along_v.share, cells) + _sums(cell + 1, low * (1 - along_v.share), cells)
    box += _sums(cell + width, high * along_v.share, cells)
    box += _sums(cell + width + 1, high * (1 - along_v.share), cells)
    which = np.repeat(np.arange(len(start)), size)
    line, column = np.divmod(np.arange(cells) - start[which], along_v.size[which])
    return box, which, line + along_u.first[which], column + along_v.first[which]


def _sums(cell: Ints, weight: Floats, cells: int) -> Floats:
    return np.asarray(np.bincount(cell.ravel(), weight.ravel(), cells), np.float64)
