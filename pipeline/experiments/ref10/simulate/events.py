"""Whole events: RAW columns as the detector sends them, and the truth behind them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.experiments.ref10.geometry import Geometry
from pipeline.experiments.ref10.simulate.columns import (
    Columns,
    Parts,
    digi_particle,
    joined,
    keys,
    made_columns,
    raw_columns,
    seen_columns,
)
from pipeline.experiments.ref10.simulate.scenario import Physics, Scenario
from pipeline.experiments.ref10.simulate.stages import Charges, Collisions, Readout, Simulation, Traces

Ints = NDArray[np.int64]

BLOCK_TRACKS = 4000
"""about so many tracks are in memory together; does not show in the result"""


@dataclass(frozen=True, eq=False)
class Simulated:
    """RAW and truth columns of some events, in the order asked for.

    RAW, as the DAQ writes it: run, lumi, event, bx, orbit, trig (bits 1 minimum bias, 2 dimuon, 4 NZS), and jagged
    digi_module, digi_chan, digi_adc; nzs_module, nzs_adc (768 for each module).

    Truth: run, lumi, event, and jagged Vertex_x, _y, _z [cm]; Particle_vertex (place in the event), _pdg, _charge, _pt
    [GeV], _eta, _phi_vertex (where it was made), and _phi, _d0, _z0 at the point of closest approach to the z axis;
    Crossing_particle, _module, _u, _v (at the middle plane of the sensor as it lies), _dudw, _dvdw, _path [cm],
    _charge [electrons collected]; digi_particle: for each of the digis the particle with the largest share, -1 for
    noise.
    """

    raw: Columns
    truth: Columns


def simulate(
    scenario: Scenario, geometry: Geometry, seed: int, run: int, lumi: int, events: NDArray[np.int64]
) -> Simulated:
    """Some events of a lumisection, by their numbers; each is the same whatever others are asked for with it.

    Raises ValueError for a seed, run, lumisection or event number that is no key.
    """
    given, events = events, np.asarray(events).astype(np.int64)
    # Unsigned numbers too large for 64 bits with a sign come out negative.
    if (events < 0).any():
        raise ValueError(f"event numbers must lie in 0 .. 2^63 - 1, not {given[events < 0][0]}")
    simulation = Simulation(scenario, geometry, seed, run, lumi)
    size = block_size(scenario.physics)
    starts = range(0, max(len(events), 1), size)
    raw, truth = zip(*(_block(simulation, events[start : start + size]) for start in starts), strict=True)
    return Simulated(joined(raw), joined(truth))


def block_size(physics: Physics) -> int:
    """How many events are made at a time."""
    return max(int(BLOCK_TRACKS / max((1 + physics.pile_up) * physics.tracks, 1)), 1)


def _block(simulation: Simulation, events: Ints) -> tuple[Parts, Parts]:
    collided = simulation.collide(events)
    traces = simulation.trace(events, collided)
    charges = simulation.ionize(events, collided, traces)
    return in_columns(
        simulation, events, Made(collided, traces, charges, simulation.respond(events, collided, charges))
    )


@dataclass(frozen=True, eq=False)
class Made:
    """Events through all stages."""

    collided: Collisions
    traces: Traces
    charges: Charges
    readout: Readout


def in_columns(simulation: Simulation, events: Ints, made: Made) -> tuple[Parts, Parts]:
    """The columns of RAW and of the truth."""
    geometry, collided, digis = simulation.geometry, made.collided, made.readout.digis
    key = keys(simulation.at, events)
    first = np.searchsorted(collided.particles.event, np.arange(len(events)))
    raw = key | raw_columns(geometry, collided.header, digis, made.readout.full)
    truth = key | made_columns(collided.vertices, collided.particles, collided.flight, len(events))
    truth |= seen_columns(geometry, made.traces, made.charges, first)
    truth["digi_particle"] = digi_particle(digis, first)
    return raw, truth
