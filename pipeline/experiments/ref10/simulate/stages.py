"""The stages of the simulation, each from the columns of the one before; events are those simulated together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calib.iov import RunLumi
from pipeline.experiments.ref10.alignment import frames
from pipeline.experiments.ref10.geometry import Geometry
from pipeline.experiments.ref10.running import Status
from pipeline.experiments.ref10.simulate.cells import NOBODY, Cells, gather
from pipeline.experiments.ref10.simulate.channels import channels
from pipeline.experiments.ref10.simulate.deposit import GRAZING_STEPS, STEPS, charge, deposit, path, shape, steps
from pipeline.experiments.ref10.simulate.full_readout import FullReadout, chosen, full_readout
from pipeline.experiments.ref10.simulate.helix import Flight, launched
from pipeline.experiments.ref10.simulate.particles import (
    Header,
    Particles,
    Vertices,
    collisions,
    columns_of,
    headers,
)
from pipeline.experiments.ref10.simulate.propagate import SCATTERERS, Crossings, propagate
from pipeline.experiments.ref10.simulate.response import (
    Digis,
    in_order,
    pixel_digis,
    pulses,
    strip_digis,
    strip_signal,
)
from pipeline.experiments.ref10.simulate.scenario import Scenario, tables_of
from pipeline.experiments.ref10.simulate.streams import Purpose, Streams
from pipeline.experiments.ref10.simulate.zero_suppression import zero_suppressed

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Collisions:
    """What was made in some events, before it meets the detector."""

    header: Header
    vertices: Vertices
    particles: Particles
    flight: Flight


@dataclass(frozen=True, eq=False)
class Traces:
    """Where particles cross sensors; `event` is the place of each crossing's among those simulated together."""

    crossings: Crossings
    event: Ints


@dataclass(frozen=True, eq=False)
class Charges:
    """What was left in the sensors: path [cm] and electrons collected of each crossing, and the same by channel."""

    path: Floats
    electrons: Floats
    cells: Cells


@dataclass(frozen=True, eq=False)
class Readout:
    """What is sent."""

    digis: Digis
    full: FullReadout


class Simulation:
    """One lumisection of a scenario, ready to make events: collide, then trace, then ionize, then respond."""

    def __init__(self, scenario: Scenario, geometry: Geometry, seed: int, run: int, lumi: int) -> None:
        """Raises ValueError for a seed, run or lumisection that is no key."""
        if run < 1:
            raise ValueError(f"runs count from 1, not from {run}: 0 is the key of the detector's own tables")
        self.scenario, self.geometry, self.at = scenario, geometry, RunLumi(run, lumi)
        self._streams = Streams(seed, run, lumi)
        self._tables = tables_of(scenario, geometry, seed)
        self._channels = channels(scenario, geometry, seed, run, lumi)
        self._frames = frames(geometry, self._tables.alignment)
        self._running = scenario.running(self.at)
        pixels, strips = (bit in self._running.on for bit in (Status.PIXELS_ON, Status.STRIPS_ON))
        self._biased = np.where(geometry.pixel, pixels, strips)

    def collide(self, events: Ints) -> Collisions:
        """Vertices and particles."""
        scenario, streams = self.scenario, self._streams
        header = headers(scenario.physics, self.at.lumi, streams, events)
        if Status.STABLE_BEAMS not in self._running.on:
            header = header.without_collisions()
        vertices, made = collisions(scenario.physics, scenario.beam.at(self.at), header, streams, events)
        place = vertices.x[made.vertex], vertices.y[made.vertex], vertices.z[made.vertex]
        bending = made.charge.astype(np.float64) * self._running.field_tesla
        flight = launched(place, made.pt, made.eta, made.phi, bending)
        return Collisions(header, vertices, made, flight)

    def trace(self, events: Ints, collided: Collisions) -> Traces:
        """Crossings of the particles with the sensors."""
        made, each = collided.particles, 2 * SCATTERERS
        flat = self._streams.normal(Purpose.SCATTERING, events, each * _counts(made.event, events))
        kicks = columns_of(flat, each).reshape(2, SCATTERERS, -1)
        crossings = propagate(self.geometry, self._frames, collided.flight, kicks)
        return Traces(crossings, made.event[crossings.track])

    def ionize(self, events: Ints, collided: Collisions, traces: Traces) -> Charges:
        """Charge of the crossings and of the hot strips' pulses, by channel."""
        geometry, crossings, draws = self.geometry, traces.crossings, (self._streams, events)
        way = path(geometry, crossings)
        counts = _counts(traces.event, events)
        # What is made in a sensor without voltage recombines there.
        electrons = charge(way, self._streams.uniform(Purpose.CHARGE, events, counts)) * self._biased[crossings.row]
        left = deposit(geometry, self.scenario.lorentz(self.at), crossings, electrons, self._weights(events, traces))
        event, row, strip, pulse = pulses(self._channels, geometry, collided.header.pulse, draws)
        place = (
            np.concatenate([crossings.row[left.crossing], row]),
            np.concatenate([left.channel, strip]),
        )
        cells = gather(
            len(geometry),
            np.concatenate([traces.event[left.crossing], event]),
            place,
            np.concatenate([left.charge, pulse]),
            np.concatenate([crossings.track[left.crossing], np.full(len(event), NOBODY)]),
        )
        return Charges(way, electrons, cells)

    def _weights(self, events: Ints, traces: Traces) -> tuple[Floats, Floats]:
        number = steps(self.geometry, traces.crossings)

        def drawn(width: int, purpose: Purpose) -> Floats:
            counts = width * _counts(traces.event[number == width], events)
            return self._streams.gamma(shape(width), purpose, events, counts).reshape(-1, width)

        return drawn(STEPS, Purpose.STEPS), drawn(GRAZING_STEPS, Purpose.GRAZING_STEPS)

    def respond(self, events: Ints, collided: Collisions, charges: Charges) -> Readout:
        """What the DAQ sends of the charges, and of noise."""
        geometry, strips, draws = self.geometry, self._channels, (self._streams, events)
        electronics, header, cells = self.scenario.electronics, collided.header, charges.cells
        dead = self._tables.dead_roc & self.scenario.faults.dead_roc.holds(self.at)
        signal = strip_signal(geometry, strips, cells)
        full = chosen(header.nzs, events, len(geometry.strip_rows))
        kept = zero_suppressed(strips, signal, full, header.noise, draws)
        pixels = pixel_digis(geometry, cells, dead, electronics.pixel_noise, draws)
        digis = in_order([pixels, strip_digis(geometry, strips, kept)])
        return Readout(digis, full_readout(strips, signal, full, electronics.common_mode, draws))


def _counts(event: Ints, events: Ints) -> Ints:
    return np.bincount(event, minlength=len(events))
