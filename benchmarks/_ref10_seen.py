"""What is seen of the simulated detector: samples are drawn, reconstructed and put into tables of columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from calib.algorithms.pedestal import Pedestal
from calib.payload import Payload
from calib.state import State
from pipeline.experiments.ref10.alignment import frames
from pipeline.experiments.ref10.constants import GOOD
from pipeline.experiments.ref10.experiment import Ref10
from pipeline.experiments.ref10.geometry import GEOMETRIES, Geometry, geometry_of
from pipeline.experiments.ref10.layers import CHIP, LAYERS, PIPE_X0, ROC, STRIPS
from pipeline.experiments.ref10.measured import pedestal_columns
from pipeline.experiments.ref10.reconstruct.stages import reconstruct
from pipeline.experiments.ref10.simulate.channels import channels
from pipeline.experiments.ref10.simulate.events import simulate
from pipeline.experiments.ref10.simulate.faults import Faults
from pipeline.experiments.ref10.simulate.response import strip_signal
from pipeline.experiments.ref10.simulate.scenario import Physics, Scenario, online, truth
from pipeline.experiments.ref10.simulate.stages import Simulation

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Table = dict[str, NDArray[Any]]

SEED, RUN = 1, 1
COLLISIONS = Scenario(physics=Physics(z=0.0, jpsi=0.0, nzs=0.0))
FULL_READOUT = Scenario(physics=Physics(z=0.0, jpsi=0.0, nzs=1.0, pile_up=0.0), first_run=RUN)
WEAK = Scenario(physics=COLLISIONS.physics, faults=Faults(dead_strips=0.1, hot_strips=0.0, pedestal_shift_chips=0.0))
STEEP = replace(COLLISIONS, field_tesla=3 * COLLISIONS.field_tesla)


@dataclass(frozen=True)
class Plan:
    """How much of what is simulated."""

    geometry: str = "full"
    lumis: int = 20
    events: int = 300
    """of a lumisection"""
    full: int = 110
    """events that each strip is read out in without zero suppression"""
    weak: int = 600
    """events for zero suppression"""
    steep: int = 900
    """events in three times the field"""

    @property
    def detector(self) -> Geometry:
        return geometry_of(GEOMETRIES[self.geometry]())


SMALL = Plan("mini", lumis=2, events=60, full=6, weak=60, steep=60)


def flat(column: Any) -> NDArray[Any]:
    return np.asarray(ak.flatten(column))


def joined(tables: Iterable[Table]) -> Table:
    """Tables of the same columns, one after the other."""
    every = list(tables)
    return {name: np.concatenate([table[name] for table in every]) for name in every[0]}


def collisions(plan: Plan, lumi: int) -> dict[str, Table]:
    """One lumisection, reconstructed under the conditions that are true; tables by what a row is."""
    geometry, numbers = plan.detector, np.arange(1, plan.events + 1)
    made = simulate(COLLISIONS, geometry, SEED, RUN, lumi, numbers)
    conditions = truth(COLLISIONS, geometry, SEED, RUN, lumi)
    crossings = crossings_of(made.truth, geometry)
    layer = geometry.layer[geometry.rows_of(flat(made.raw["digi_module"]))] - 1
    event = np.repeat(np.arange(plan.events), ak.num(made.raw["digi_module"]))
    digis = np.bincount(event * len(LAYERS) + layer, minlength=plan.events * len(LAYERS))
    vertices = {name: flat(made.truth[f"Vertex_{name}"]) for name in "xyz"}
    tracks = np.asarray(ak.num(made.truth["Particle_pt"]))
    own = crossings["layer"] - 1
    off = {name: of[own] for name, of in zip(("masked", "lost"), masked(geometry, conditions), strict=True)}
    return {
        "vertices": vertices | {"lumi": np.full(len(vertices["x"]), lumi)},
        "events": {"tracks": tracks, "digis": digis.reshape(plan.events, len(LAYERS))},
        "kicks": kicks(made.truth, crossings, geometry, conditions),
        "crossings": with_clusters(crossings, reconstruct(made.raw, conditions).clusters, geometry) | off,
    }


def steep(plan: Plan, numbers: Ints) -> Table:
    """As crossings of collisions, but in three times the field: tracks come as steep as the charge drifts, and more."""
    made = simulate(STEEP, plan.detector, SEED, RUN, 1, numbers)
    clusters = reconstruct(made.raw, truth(STEEP, plan.detector, SEED, RUN, 1)).clusters
    return with_clusters(crossings_of(made.truth, plan.detector), clusters, plan.detector)


def masked(geometry: Geometry, conditions: Mapping[str, Payload]) -> tuple[Floats, Floats]:
    """The shares of each layer's channels that are masked by themselves, and with their whole chip."""
    single, whole = np.zeros((2, len(geometry)))
    chips = (conditions["strip_status"]["status"] != GOOD).reshape(len(geometry.strip_rows), -1, CHIP)
    full = chips.all(axis=2, keepdims=True)
    single[~geometry.pixel], whole[~geometry.pixel] = (x.sum(axis=(1, 2)) for x in (chips & ~full, chips & full))
    whole[geometry.pixel] = (conditions["pixel_status"]["status"] != GOOD).sum(axis=1) * np.prod(ROC)
    channel = channels_by_layer(geometry)
    return np.bincount(geometry.layer - 1, single) / channel, np.bincount(geometry.layer - 1, whole) / channel


def channels_by_layer(geometry: Geometry) -> Floats:
    return np.bincount(geometry.layer - 1, geometry.rows * geometry.columns)


def crossings_of(made: Mapping[str, Any], geometry: Geometry) -> Table:
    """The crossings of all events: `key` of event and module, `track` among all particles, and what the truth says."""
    counts = ak.num(made["Crossing_u"])
    event = np.repeat(np.arange(len(counts)), counts)
    particles = np.asarray(ak.num(made["Particle_pt"]))
    row = geometry.rows_of(flat(made["Crossing_module"]))
    names = ("u", "v", "dudw", "dvdw", "path", "charge")
    return {name: flat(made[f"Crossing_{name}"]) for name in names} | {
        "row": row,
        "layer": geometry.layer[row].astype(np.int64),
        "key": event * len(geometry) + row,
        "track": (np.cumsum(particles) - particles)[event] + flat(made["Crossing_particle"]),
    }


def with_clusters(crossings: Table, clusters: Any, geometry: Geometry) -> Table:
    """Crossings with the cluster nearest along u in their module: its columns, and whether both are `alone` there."""
    row = geometry.rows_of(clusters.flat["module"])
    key = clusters.event * len(geometry) + row
    # Modules are a metre apart on this line, and no wider than 10 cm.
    line = 100.0 * key + clusters["u"]
    order = np.argsort(line)
    asked = 100.0 * crossings["key"] + crossings["u"]
    after = np.clip(np.searchsorted(line[order], asked), 1, len(order) - 1)
    after -= asked - line[order][after - 1] < line[order][after] - asked
    nearest = order[after]
    beside = np.abs(line[nearest] - asked) < 5 * geometry.pitch_u[crossings["row"]]
    times = [np.unique(keys, return_inverse=True, return_counts=True) for keys in (crossings["key"], key)]
    single = [counts[place] == 1 for _, place, counts in times]
    names = ("u", "v", "u_error", "v_error", "size_u", "size_v", "size", "charge", "flags")
    found = {f"cluster_{name}": clusters.flat[name][nearest] for name in names}
    both = {"found": beside, "alone": single[0] & single[1][nearest] & (key[nearest] == crossings["key"])}
    return {**crossings, **found, **both}


def kicks(made: Mapping[str, Any], crossings: Table, geometry: Geometry, conditions: Mapping[str, Payload]) -> Table:
    """By how much tracks scattered in the beam pipe (0) and in layers 1 to 9, from their directions before and after.

    `upwards` and `sideways` [rad GeV], angle times momentum, and `width` as Highland's formula has it. Of tracks with
    one crossing in each of two layers that follow each other; before the pipe with the direction they began with.
    """
    seen = directions(made, crossings, geometry, conditions)
    pt, eta, charge, vertex = (flat(made[f"Particle_{name}"]) for name in ("pt", "eta", "charge", "vertex"))
    momentum, start = pt * np.cosh(eta), flat_vertex(made, vertex)
    begun = {"x": start[0], "y": start[1], "slope": np.sinh(eta), "phi": flat(made["Particle_phi_vertex"])}
    begun |= {"track": np.arange(len(pt)), "layer": np.zeros(len(pt), np.int64), "x0": PIPE_X0 * np.cosh(eta)}
    both = joined([begun, {name: seen[name] for name in begun}])
    number = both["track"] * (len(LAYERS) + 1) + both["layer"]
    order = np.argsort(number, kind="stable")
    single = np.bincount(number)[number[order]] == 1
    at = order[single]
    follows = np.flatnonzero(np.diff(number[at]) == 1)
    follows = follows[both["layer"][at[follows]] < len(LAYERS)]
    before, after = ({name: values[at[place]] for name, values in both.items()} for place in (follows, follows + 1))
    p = momentum[before["track"]]
    sine = 1 / np.sqrt(1 + after["slope"] ** 2)
    curvature = 0.00299792458 * COLLISIONS.field_tesla * charge[before["track"]] / (p * sine)
    chord = np.hypot(after["x"] - before["x"], after["y"] - before["y"])
    turned = after["phi"] - before["phi"] + 2 * np.arcsin(curvature * chord / 2)
    return {
        "layer": before["layer"],
        "upwards": p * (np.arctan(after["slope"]) - np.arctan(before["slope"])),
        "sideways": p * sine * np.tan((turned + np.pi) % (2 * np.pi) - np.pi),
        "width": 0.0136 * np.sqrt(before["x0"]) * (1 + 0.038 * np.log(before["x0"])),
    }


def flat_vertex(made: Mapping[str, Any], vertex: NDArray[Any]) -> tuple[Floats, Floats]:
    """x and y of the vertex of every particle; `vertex` is its place in the event."""
    vertices = np.asarray(ak.num(made["Vertex_x"]))
    first = np.repeat(np.cumsum(vertices) - vertices, ak.num(made["Particle_pt"]))
    return flat(made["Vertex_x"])[first + vertex], flat(made["Vertex_y"])[first + vertex]


def directions(
    made: Mapping[str, Any], crossings: Table, geometry: Geometry, conditions: Mapping[str, Payload]
) -> Table:
    """Where crossings are, their directions dz/ds and phi, and the material they meet [X0]; in space."""
    place, row = frames(geometry, conditions["alignment"]), crossings["row"]
    at = place.to_global(row, crossings["u"], crossings["v"])
    along = crossings["dudw"][:, None] * place.u[row] + crossings["dvdw"][:, None] * place.v[row] + place.w[row]
    along *= np.where(geometry.flipped[row], -1.0, 1.0)[:, None]
    incidence = np.sqrt(1 + crossings["dudw"] ** 2 + crossings["dvdw"] ** 2)
    return {
        "track": crossings["track"],
        "layer": crossings["layer"],
        "x": at[:, 0],
        "y": at[:, 1],
        "slope": along[:, 2] / np.hypot(along[:, 0], along[:, 1]),
        "phi": np.arctan2(along[:, 1], along[:, 0]),
        "x0": geometry.x0[row] * incidence,
    }


def full_readout(plan: Plan, numbers: Ints) -> State:
    """The sums of the calibration `pedestal` over events read out without zero suppression."""
    raw = simulate(FULL_READOUT, plan.detector, SEED, RUN, 1, numbers).raw
    conditions = {"geometry": GEOMETRIES[plan.geometry](), "pedestal": before(plan)}
    return calibration(plan).accumulate({**raw, **pedestal_columns(raw, conditions)}, conditions)


def before(plan: Plan) -> Payload:
    """Pedestals and noise as the DAQ has them."""
    return online(FULL_READOUT, plan.detector, SEED)


def calibration(plan: Plan) -> Pedestal:
    found = Ref10({"geometry": plan.geometry}).calibrations()[0]
    assert isinstance(found, Pedestal)
    return replace(found, min_entries=min(found.min_entries, max(plan.full // 2, 2)))


def weak_signals(plan: Plan, numbers: Ints) -> Table:
    """Signal over noise of strips and of their stronger neighbour, and whether zero suppression lets them pass."""
    geometry, simulation = plan.detector, Simulation(WEAK, plan.detector, SEED, RUN, 1)
    strips = channels(WEAK, geometry, SEED, RUN, 1)
    collided = simulation.collide(numbers)
    charges = simulation.ionize(numbers, collided, simulation.trace(numbers, collided))
    digis = simulation.respond(numbers, collided, charges).digis
    signal = strip_signal(geometry, strips, charges.cells)
    pixel = geometry.pixel[digis.row]
    sent = (digis.event * len(strips.dead) + geometry.strip_block[digis.row] * STRIPS + digis.channel)[~pixel]
    height = signal.counts / strips.noise[signal.key % len(strips.dead)]
    touching = (np.diff(signal.key) == 1) & (signal.key[1:] % STRIPS > 0)
    left, right = np.append(0, height[:-1] * touching), np.append(height[1:] * touching, 0)
    return {"height": height, "beside": np.maximum(left, right), "sent": np.isin(signal.key, sent)}
