"""From vertices outwards: where tracks cross the sensors as they really lie, scattered on the way by the material.

Layer by layer, each track is carried to the plane of the ladder it meets, where that was designed to be. The sensors
that it may cross, of that ladder and of its neighbours where they overlap, are then looked at where they really lie,
and the track scatters once in the layer, at the designed plane (80 um of displacement times 1 mrad of scattering: 0.1
um). A track in the gap between two modules meets material, but makes no hit; one that turns back towards the axis, or
meets a ladder at less than 3 degrees, ends there. Inside a sensor a track is straight.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.experiments.ref10.alignment import Frames
from pipeline.experiments.ref10.geometry import Geometry
from pipeline.experiments.ref10.layers import LAYERS, Z_MODULES, Layer
from pipeline.experiments.ref10.simulate.helix import Flight

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

SCATTERERS = 1 + len(LAYERS)
"""beam pipe and layers"""
GRAZING = 0.05
"""cosine of incidence below which a track is taken to turn"""
SLACK = 0.25
"""cm beyond its drawn place within which a sensor may lie; more than any displacement that Misalignment allows"""
CLOSE = 1e-7
"""cm to which tracks are carried to a sensor"""
NEWTON_STEPS = 3


@dataclass(frozen=True, eq=False)
class Crossings:
    """Where tracks cross sensors; a row each, sorted by track and module."""

    track: Ints
    row: Ints
    """of the module in the geometry"""
    u: Floats
    """at the middle plane [cm]"""
    v: Floats
    du: Floats
    """du/dw"""
    dv: Floats


def propagate(geometry: Geometry, frames: Frames, flight: Flight, kicks: Floats) -> Crossings:
    """All crossings of the tracks of `flight` with the sensors at `frames`.

    `kicks` [2, SCATTERERS, tracks]: standard normal numbers for the scattering; zero for none.
    """
    track = np.arange(len(flight.x))
    flight, track = _through_pipe(geometry, flight, track, kicks[:, 0])
    found = []
    for number, layer in enumerate(LAYERS, start=1):
        grid = geometry.grids[number - 1]
        flight, track, ladder = _at_ladder(layer, flight, track)
        candidates = _candidates(layer, grid, flight, ladder)
        found.append(_crossed(geometry, frames, flight, candidates, track))
        flight = _scattered(layer, grid, ladder, flight, kicks[:, number, track])
    parts = [np.concatenate(column) for column in zip(*found, strict=True)]
    order = np.lexsort((parts[1], parts[0]))
    return Crossings(*(part[order] for part in parts))


def _through_pipe(geometry: Geometry, flight: Flight, track: Ints, kicks: Floats) -> tuple[Flight, Ints]:
    way = flight.to_cylinder(geometry.pipe_radius)
    there = ~np.isnan(way)
    flight, track = flight.of(there).moved(way[there]), track[there]
    radial = (flight.x * flight.dx + flight.y * flight.dy) / geometry.pipe_radius
    material = geometry.pipe_x0 / np.maximum(radial * flight.sine, GRAZING)
    return flight.scattered(material, kicks[:, track]), track


def _at_ladder(layer: Layer, flight: Flight, track: Ints) -> tuple[Flight, Ints, Ints]:
    """The tracks that reach the plane of a ladder, there, and its number."""
    way = flight.to_cylinder(layer.radius)
    there = ~np.isnan(way)
    flight, track = flight.of(there), track[there]
    on_circle = flight.moved(way[there])
    share = np.arctan2(on_circle.y, on_circle.x) * (layer.ladders / (2 * np.pi))
    ladder = np.floor(share).astype(np.int64) % layer.ladders
    way, cosine = _to_ladder(layer, flight, ladder)
    met = cosine > GRAZING
    return flight.of(met).moved(way[met]), track[met], ladder[met]


def _to_ladder(layer: Layer, flight: Flight, ladder: Ints) -> tuple[Floats, Floats]:
    phi = _azimuth(layer, ladder)
    return flight.to_plane(np.cos(phi), np.sin(phi), np.full(len(ladder), layer.radius))


def _azimuth(layer: Layer, ladder: Ints) -> Floats:
    """Of the middle of a ladder."""
    found: Floats = 2 * np.pi * (ladder + 0.5) / layer.ladders
    return found


@dataclass(frozen=True, eq=False)
class _Candidates:
    """Sensors that may be crossed: which track (its place), how far on to the drawn plane, and the module's row."""

    place: Ints
    way: Floats
    row: Ints


def _candidates(layer: Layer, grid: Ints, flight: Flight, ladder: Ints) -> _Candidates:
    place, way, ladder = _ladders(layer, flight, ladder)
    share = (flight.z[place] + flight.slope[place] * way) / layer.spacing + Z_MODULES / 2
    module = np.floor(share).astype(np.int64)
    inside = share - module
    reach = (SLACK + abs(np.sin(layer.stereo)) * layer.width / 2) / layer.spacing
    near = np.flatnonzero((inside < reach) | (inside > 1 - reach))
    beside = module[near] + np.where(inside[near] < 0.5, -1, 1)
    which = np.concatenate([np.arange(len(place)), near])
    row = _row(grid, ladder[which], np.concatenate([module, beside]))
    which, row = which[row >= 0], row[row >= 0]
    return _Candidates(place[which], way[which], row)


def _ladders(layer: Layer, flight: Flight, ladder: Ints) -> tuple[Ints, Floats, Ints]:
    """Ladders that may be crossed, with the place of the track and the way to the drawn plane: its own, and the next
    one where that is near."""
    phi = _azimuth(layer, ladder)
    sideways = flight.y * np.cos(phi) - flight.x * np.sin(phi)
    # A turned sensor (stereo) reaches that much further at its ends.
    reach = SLACK + abs(np.sin(layer.stereo)) * layer.length / 2
    near = np.flatnonzero(np.abs(sideways) > layer.radius * np.tan(np.pi / layer.ladders) - reach)
    beside = (ladder[near] + np.where(sideways[near] > 0, 1, -1)) % layer.ladders
    way, cosine = _to_ladder(layer, flight.of(near), beside)
    met = cosine > GRAZING
    return (
        np.concatenate([np.arange(len(ladder)), near[met]]),
        np.concatenate([np.zeros(len(ladder)), way[met]]),
        np.concatenate([ladder, beside[met]]),
    )


def _row(grid: Ints, ladder: Ints, module: Ints) -> Ints:
    """The row in the geometry, -1 where there is no module."""
    within = (module >= 0) & (module < Z_MODULES)
    return np.where(within, grid[ladder, np.where(within, module, 0)], -1)


def _crossed(
    geometry: Geometry, frames: Frames, flight: Flight, candidates: _Candidates, track: Ints
) -> tuple[NDArray[np.generic], ...]:
    """The candidates that a track really crosses, as columns of Crossings."""
    place, row = candidates.place, candidates.row
    centre, u, v, w = (np.ascontiguousarray(part[row].T) for part in (frames.centre, frames.u, frames.v, frames.w))
    start, way = flight.of(place), candidates.way
    for _ in range(NEWTON_STEPS):
        there = start.moved(way)
        height, _ = _along(there, centre, w)
        way = way - height
    there = start.moved(way)
    height, toward = _along(there, centre, w)
    local_u, rate_u = _position(there, centre, u), _rate(there, u)
    local_v, rate_v = _position(there, centre, v), _rate(there, v)
    inside = (np.abs(local_u) <= geometry.width[row] / 2) & (np.abs(local_v) <= geometry.length[row] / 2)
    hit = inside & (np.abs(height) < CLOSE) & (np.abs(toward) > GRAZING * there.sine)
    columns = (track[place], row, local_u, local_v, rate_u / toward, rate_v / toward)
    return tuple(column[hit] for column in columns)


def _along(there: Flight, centre: Floats, axis: Floats) -> tuple[Floats, Floats]:
    """How far on a plane lies, as transverse way; and how fast the track moves along its normal."""
    rate = _rate(there, axis)
    return _position(there, centre, axis) / rate, rate


def _position(there: Flight, centre: Floats, axis: Floats) -> Floats:
    x, y, z = there.x - centre[0], there.y - centre[1], there.z - centre[2]
    along: Floats = x * axis[0] + y * axis[1] + z * axis[2]
    return along


def _rate(there: Flight, axis: Floats) -> Floats:
    rate: Floats = there.dx * axis[0] + there.dy * axis[1] + there.slope * axis[2]
    return rate


def _scattered(layer: Layer, grid: Ints, ladder: Ints, flight: Flight, kicks: Floats) -> Flight:
    """After the material of a layer, at the incidence on the drawn ladder; where no module was drawn there is none."""
    module = np.floor(flight.z / layer.spacing + Z_MODULES / 2).astype(np.int64)
    phi = _azimuth(layer, ladder)
    cosine = (flight.dx * np.cos(phi) + flight.dy * np.sin(phi)) * flight.sine
    return flight.scattered(layer.x0 / cosine, np.where(_row(grid, ladder, module) >= 0, kicks, 0.0))
