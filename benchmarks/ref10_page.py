"""The simulated detector at one look: what was put in or is predicted, as lines, against what is seen of it, as points.

    python benchmarks/ref10_page.py                  the full detector; build/ref10_page.png and .html
    python benchmarks/ref10_page.py --folder WHERE   elsewhere
    python benchmarks/ref10_page.py --small          the mini detector and few events, only that it works

Minimum bias of 20 lumisections is simulated and reconstructed under the true conditions. In further samples strips are
read out without zero suppression; zero suppression itself is looked at with many dead strips, beside which weak signals
stand alone; and pixels are looked at in three times the field, where tracks come steep enough.

Predictions are closed forms or integrals, not the simulation again: the truth enters with the number, the angles and
the charges of tracks. Every comparison is given as chi2; where a prediction is not exact, what it is good to is said.
The page fails where chi2 is too large to be chance.
"""

from __future__ import annotations

import argparse
import base64
import html
import io
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial, reduce
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
from matplotlib.image import imsave
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from scipy.interpolate import RegularGridInterpolator
from scipy.special import ndtr, ndtri
from scipy.stats import chi2, landau, norm

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from calib.algorithms.pedestal import Pedestal, Status  # noqa: E402
from calib.iov import RunLumi  # noqa: E402
from calib.payload import Payload  # noqa: E402
from calib.state import State  # noqa: E402
from pipeline.drawing import Drawing  # noqa: E402
from pipeline.experiments.ref10.alignment import frames  # noqa: E402
from pipeline.experiments.ref10.constants import GOOD, PIXEL_THRESHOLD, STRIP_ELECTRONS  # noqa: E402
from pipeline.experiments.ref10.experiment import GEOMETRIES, Ref10, pedestal_columns  # noqa: E402
from pipeline.experiments.ref10.geometry import Geometry, geometry_of  # noqa: E402
from pipeline.experiments.ref10.layers import CHIP, LAYERS, PIPE_X0, ROC, STRIPS, Layer  # noqa: E402
from pipeline.experiments.ref10.reconstruct.flags import ClusterFlag  # noqa: E402
from pipeline.experiments.ref10.reconstruct.stages import reconstruct  # noqa: E402
from pipeline.experiments.ref10.reconstruct.thresholds import Thresholds  # noqa: E402
from pipeline.experiments.ref10.simulate.channels import channels  # noqa: E402
from pipeline.experiments.ref10.simulate.events import simulate  # noqa: E402
from pipeline.experiments.ref10.simulate.faults import Faults  # noqa: E402
from pipeline.experiments.ref10.simulate.particles import NZS_GROUPS  # noqa: E402
from pipeline.experiments.ref10.simulate.response import strip_signal  # noqa: E402
from pipeline.experiments.ref10.simulate.scenario import Physics, Scenario, online, truth  # noqa: E402
from pipeline.experiments.ref10.simulate.stages import Simulation  # noqa: E402

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Table = dict[str, NDArray[Any]]
Image = NDArray[np.uint8]

SEED, RUN = 1, 1
COLLISIONS = Scenario(physics=Physics(z=0.0, jpsi=0.0, nzs=0.0))
FULL_READOUT = Scenario(physics=Physics(z=0.0, jpsi=0.0, nzs=1.0, pile_up=0.0), first_run=RUN)
WEAK = Scenario(physics=COLLISIONS.physics, faults=Faults(dead_strips=0.1, hot_strips=0.0, pedestal_shift_chips=0.0))
STEEP = replace(COLLISIONS, field_tesla=3 * COLLISIONS.field_tesla)
UM = 1e-4
PEAK = 79.5
"""most probable electrons for each um of path"""
STRIP_NOISE = COLLISIONS.electronics.noise * STRIP_ELECTRONS
LEAST = 30
"""entries of a point"""
CHANCE = 1e-4
DPI = 100
CHI2 = "chi2 / points of each comparison, and how exact the prediction is"


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


# what is seen ---------------------------------------------------------------------------------------------------------


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


# what is predicted ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cut:
    """Thresholds [electrons] of a channel alone and of one beside such a channel, and the noise they act on."""

    alone: float
    beside: float
    noise: float


PIXEL = Cut(PIXEL_THRESHOLD, PIXEL_THRESHOLD, COLLISIONS.electronics.pixel_noise)
STRIP = Cut(4 * STRIP_NOISE, 2 * STRIP_NOISE, STRIP_NOISE)
MOVED = Cut(3 * STRIP_NOISE, 1 * STRIP_NOISE, STRIP_NOISE)
"""of strips whose pedestal has moved by one sigma since the DAQ's tables were made"""
SEEDS = Cut(5 * STRIP_NOISE, 5 * STRIP_NOISE, STRIP_NOISE)
"""strips that a cluster can begin with"""

PITCHES, DEPTHS, PHASES, SHOWN = 10, 40, 40, 10
WAYS = np.concatenate([np.arange(0, 4, 0.05), np.linspace(4, PITCHES, 25)])
ELECTRONS = np.geomspace(4e3, 4e5, 30)


@cache
def over_threshold(pitch: float, cut: Cut) -> RegularGridInterpolator:
    """How many channels of a pitch [cm] are over threshold along one axis, on average over where the way begins; and
    for each of SHOWN such places the share of the charge that they see. By the logarithm of the charge [electrons] and
    by how many pitches it is spread over.

    The charge lies evenly along its way, blurred by diffusion (6 um sqrt(d) + 1 um at the share d of the drift).
    Averages are taken over the noise of each channel.
    """
    depth = (np.arange(DEPTHS) + 0.5) / DEPTHS
    phase = (np.arange(PHASES) + 0.5) / PHASES
    edge = (np.arange(-2, PITCHES + 4) - phase[:, None])[None, :, :, None]
    blur = (6 * np.sqrt(depth) + 1) * UM / pitch
    share = np.diff(ndtr((edge - WAYS[:, None, None, None] * depth) / blur).mean(axis=-1), axis=-1)
    height = ELECTRONS[:, None, None, None] * share
    alone, beside = ((height - level) / cut.noise for level in (cut.alone, cut.beside))
    none = np.pad(1 - ndtr(alone), [(0, 0)] * 3 + [(1, 1)], constant_values=1)
    near = 1 - none[..., :-2] * none[..., 2:]
    number = ndtr(alone) + (ndtr(beside) - ndtr(alone)) * near
    # Of a channel that is over threshold noise is part of what is seen.
    lifted = norm.pdf(alone) + (norm.pdf(beside) - norm.pdf(alone)) * near
    kept = number * share + lifted * cut.noise / ELECTRONS[:, None, None, None]
    values = np.concatenate(
        [number.sum(axis=-1).mean(axis=-1, keepdims=True), kept.sum(axis=-1)[..., :: PHASES // SHOWN]], axis=-1
    )
    return RegularGridInterpolator((np.log(ELECTRONS), WAYS), values, bounds_error=False, fill_value=None)


def along(layer: Layer, axis: str, slope: Floats, electrons: Floats, cut: Cut) -> tuple[Floats, Floats]:
    """How many channels along an axis tracks of a slope (du/dw or dv/dw) and a charge leave over threshold, and the
    shares of the charge that these see, [..., SHOWN]."""
    pitch, shift = (layer.pitch_u, COLLISIONS.by_layer[layer.number - 1]) if axis == "u" else (layer.pitch_v, 0.0)
    way = np.abs(slope - shift) * layer.thickness / pitch
    found = over_threshold(pitch, cut)(np.stack([np.log(electrons), way], axis=-1))
    return found[..., 0], found[..., 1:]


def channels_of(layer: Layer, du: Floats, dv: Floats, electrons: Floats, cut: Cut) -> Floats:
    """How many channels tracks leave over threshold.

    Of pixels one more for each border that is crossed, but for the pieces shorter than the share f = T/Q of the way:
    those along one axis, and where borders of both are crossed (a and b times) within f of each other, 2abf.
    """
    if not layer.pixel:
        return along(layer, "u", du, electrons, cut)[0]
    along_u, along_v = (along(layer, *of, electrons, cut)[0] for of in (("u", du), ("v", dv)))
    a = np.abs(du - COLLISIONS.tangents[0]) * layer.thickness / layer.pitch_u
    b = np.abs(dv) * layer.thickness / layer.pitch_v
    f = PIXEL_THRESHOLD / electrons
    return along_u + along_v - 1 - 2 * a * b * f + 3 * a * b * f**2


def landau_cdf(by_um: Floats) -> Floats:
    """Of electrons for each um, 80.6 + 5.0 lambda; scipy has Landau's lambda as pi/2 x + ln(pi/2)."""
    found: Floats = landau.cdf(((by_um - 80.6) / 5.0 - np.log(np.pi / 2)) / (np.pi / 2))
    return found


@cache
def landau_by_um() -> Floats:
    """Electrons for each um, at the middles of 16 equal shares of Landau's distribution, at most 8 times the peak."""
    value = landau.ppf((np.arange(16) + 0.5) / 16) * np.pi / 2 + np.log(np.pi / 2)
    return np.minimum(80.6 + 5.0 * value, 8 * PEAK)


def reaching(layer: Layer) -> tuple[Floats, Floats, Floats]:
    """Weight, du/dw and dv/dw of minimum-bias tracks where they cross a layer: from spectrum, field and beam.

    Tracks turn by asin(r / 2R) until they are there, meet a ladder anywhere, and may have left it at its ends.
    """
    grid = np.geomspace(0.3, 30, 4000)
    spectrum = 1 - 0.95 * np.exp(-(grid - 0.3) / 0.5) - 0.05 * np.exp(-(grid - 0.3) / 2.0)
    pt = np.interp((np.arange(120) + 0.5) / 120, spectrum, grid)
    diameter = 2 * pt / (0.00299792458 * COLLISIONS.field_tesla)
    eta, inside = ((np.arange(n) + 0.5) / n * 2 - 1 for n in (8, 6))
    bend, phi = np.arcsin(np.minimum(layer.radius / diameter, 1)), inside * np.pi / layer.ladders
    turn = np.concatenate([bend, -bend])[:, None, None] + phi
    climb = np.sinh(eta)[:, None]
    way = np.tile(diameter * bend, 2)[:, None, None] * climb
    region, end = COLLISIONS.beam.start, 5 * layer.spacing
    there = norm.cdf((end - way - region.z) / region.sigma_z) - norm.cdf((-end - way - region.z) / region.sigma_z)
    met = np.tile(diameter > layer.radius, 2)[:, None, None] & (np.abs(turn) < 1.5)
    shape = np.broadcast_shapes(turn.shape, climb.shape)
    weight, du, dv = (np.broadcast_to(x, shape).ravel() for x in (there * met, np.tan(turn), climb / np.cos(turn)))
    return weight / weight.size, du, dv


def cover(layer: Layer) -> float:
    """How many sensors a track meets in a layer on average: overlaps count twice, gaps not at all."""
    return layer.ladders * np.arctan(layer.width / 2 / layer.radius) / np.pi * layer.length / layer.spacing


def digis_a_track(layer: Layer, moved: float) -> float:
    """How many channels a track leaves over threshold in a layer, of whose chips the share `moved` has moved."""
    weight, du, dv = reaching(layer)
    electrons = layer.thickness / UM * np.sqrt(1 + du**2 + dv**2) * landau_by_um()[:, None]
    du, dv = np.broadcast_to(du, electrons.shape), np.broadcast_to(dv, electrons.shape)
    cuts = ((PIXEL, 1.0),) if layer.pixel else ((STRIP, 1 - moved), (MOVED, moved))
    number = sum(share * channels_of(layer, du, dv, electrons, cut) for cut, share in cuts)
    return cover(layer) * float((weight * number).sum(axis=1).mean())


def digis_by_noise(layer: Layer, moved: float, hot: float) -> float:
    """What share of the strips of a layer an event sends that no track crosses, `hot` of them pulses.

    The error of the common mode and the rounding to whole counts add to the noise; a strip lifts the median itself.
    """
    if layer.pixel:
        return 0.0
    wide = np.sqrt(1 + np.pi / 2 / CHIP + 1 / 12 / COLLISIONS.electronics.noise**2)
    lift = np.sqrt(np.pi / 2) / CHIP
    found = hot
    for shift, share in ((0, 1 - moved), (1, moved)):
        alone, beside = (norm.sf((level + lift - shift) / wide) for level in (4, 2))
        found += share * alone * (1 + 2 * (beside - alone))
    return found


# one against the other ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Series:
    """What is predicted and what is seen at some places.

    `good_to` is how exact the prediction is, relative; with infinity it is shown and not judged.
    """

    label: str
    x: Floats
    seen: Floats
    error: Floats
    predicted: Floats
    good_to: float = 0.0

    @classmethod
    def of_means(cls, label: str, place: Ints, parts: tuple[Floats, Floats, Floats], good_to: float = 0.0) -> Series:
        """Of entries at places 0 to n: x, seen and predicted are the means of `parts`."""
        number, (x, seen, predicted) = _grouped(place, *parts)
        square = _grouped(place, parts[1] ** 2)[1][0]
        # As for a share of which there is one entry more of either kind: none of 50 is not without error.
        error = np.sqrt(np.maximum(square - seen**2, 1 / number) / number)
        return cls(label, x, seen, error, predicted, good_to)._where(number >= LEAST)

    @classmethod
    def of_widths(cls, label: str, place: Ints, parts: tuple[Floats, Floats, Floats], good_to: float = 0.0) -> Series:
        """The same with root mean squares of what is seen, and of the widths that are predicted."""
        x, seen, width = parts
        number, (x, square, fourth, predicted) = _grouped(place, x, seen**2, seen**4, width**2)
        wide = np.sqrt(square)
        error = np.sqrt(np.maximum(fourth - square**2, 0) / number) / (2 * wide)
        return cls(label, x, wide, error, np.sqrt(predicted), good_to)._where(number >= LEAST)

    @classmethod
    def of_histogram(
        cls, label: str, values: Floats, edges: Floats, cdf: Callable[[Floats], Floats], good_to: float = 0.0
    ) -> Series:
        """Shares of the values by bin, over the width of the bins."""
        expected, wide = np.diff(cdf(edges)), np.diff(edges) * max(len(values), 1)
        seen = np.histogram(values, edges)[0]
        error = np.sqrt(np.maximum(expected * len(values), 1)) / wide
        middle = (edges[1:] + edges[:-1]) / 2
        return cls(label, middle, seen / wide, error, expected / np.diff(edges), good_to)

    def _where(self, chosen: NDArray[np.bool_]) -> Series:
        columns = (values[chosen] for values in (self.x, self.seen, self.error, self.predicted))
        return Series(self.label, *columns, self.good_to)

    @property
    def chi2(self) -> float:
        """Over all points."""
        return float(np.sum(((self.seen - self.predicted) / np.hypot(self.error, self.good_to * self.predicted)) ** 2))

    @property
    def agrees(self) -> bool:
        """Whether so large a chi2 can be chance; nothing to compare is no agreement."""
        return np.isinf(self.good_to) or (len(self.x) > 0 and bool(chi2.sf(self.chi2, len(self.x)) > CHANCE))


def _grouped(place: Ints, *values: Floats) -> tuple[Floats, list[Floats]]:
    """Entries of each place that has some, and the means of values there."""
    number = np.bincount(place).astype(np.float64)
    some = number > 0
    return number[some], [np.bincount(place, one)[some] / number[some] for one in values]


@dataclass(frozen=True, eq=False)
class Panel:
    """A part of the page."""

    title: str
    x: str
    y: str
    series: Sequence[Series]
    steps: bool = False
    log: bool = False
    cloud: tuple[Floats, Floats] | None = None
    """single entries, in grey behind the points"""
    marks: tuple[Floats, Floats, str] | None = None
    """what else is known: x, y and what it is"""

    def draw(self, axis: Any) -> None:
        """Lines for what is predicted, points for what is seen."""
        if self.cloud is not None:
            axis.hexbin(*self.cloud, gridsize=60, cmap="Greys", bins="log", linewidths=0)
        for place, one in enumerate(self.series):
            style = {"color": f"C{place}", "linewidth": 1.3, "drawstyle": "steps-mid" if self.steps else "default"}
            axis.plot(one.x, one.predicted, **style)
            points = {"fmt": "osD^v"[place % 5], "markersize": 3.2, "color": f"C{place}", "markerfacecolor": "white"}
            axis.errorbar(one.x, one.seen, one.error, label=one.label, elinewidth=1, **points)
        if self.marks is not None:
            axis.plot(*self.marks[:2], "k*", markersize=8, label=self.marks[2])
        axis.set(title=self.title, xlabel=self.x, ylabel=self.y)
        if self.steps:
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        if self.log:
            axis.set_yscale("log")
        axis.grid(alpha=0.25)
        axis.legend(fontsize="small", framealpha=0.8)


def beam_panels(vertices: Table) -> list[Panel]:
    """The luminous region by lumisection, from the true vertices."""
    lumis = np.unique(vertices["lumi"])
    rows = [of_lumi(int(lumi), where(vertices, vertices["lumi"] == lumi)) for lumi in lumis]

    def series(name: str, label: str, scale: float = 1.0, origin: float = 0.0) -> Series:
        seen, error, line = np.array([row[name] for row in rows]).T * scale
        return Series(label, lumis, seen - origin * scale, error, line - origin * scale)

    start = COLLISIONS.beam.start
    place = [series(name, f"{name} - ({of:g} cm)", 1e4, of) for name, of in (("x", start.x), ("y", start.y))]
    width = [series(f"width_{name}", f"sigma {name}", 1e4) for name in "xy"]
    tilt = [series(f"d{name}dz", f"d{name}/dz", 1e6) for name in "xy"]
    along_z = [series("z", "mean z"), series("sigma_z", "sigma z")]
    return [
        Panel("luminous region: position", "lumisection", f"position at z = {start.z:g} cm [um]", place, steps=True),
        Panel("luminous region: widths", "lumisection", "width at fixed z [um]", width, steps=True),
        Panel("luminous region: tilt", "lumisection", "slope [urad]", tilt, steps=True),
        Panel("luminous region: along z", "lumisection", "mean, width [cm]", along_z, steps=True),
    ]


def of_lumi(lumi: int, vertices: Table) -> dict[str, tuple[float, float, float]]:
    """What is seen of the luminous region, its error, and what was put in; from straight lines x(z) and y(z)."""
    region, z = COLLISIONS.beam.at(RunLumi(RUN, lumi)), vertices["z"]
    n, root = len(z), np.sqrt(len(z))
    row = {"z": (z.mean(), region.sigma_z / root, region.z)}
    row["sigma_z"] = (z.std(ddof=1), region.sigma_z / np.sqrt(2 * n), region.sigma_z)
    for name in "xy":
        values, width = vertices[name], getattr(region, f"width_{name}")
        slope = np.cov(values, z)[0, 1] / z.var(ddof=1)
        middle = values.mean() - slope * (z.mean() - region.z)
        left = values - middle - slope * (z - region.z)
        row[name] = (middle, width / root, getattr(region, name))
        row[f"width_{name}"] = (np.sqrt(np.sum(left**2) / (n - 2)), width / np.sqrt(2 * n), width)
        row[f"d{name}dz"] = (slope, width / (z.std() * root), getattr(region, f"d{name}dz"))
    return row


def occupancy_panels(events: Table, crossings: Table, geometry: Geometry) -> list[Panel]:
    """How often layers are hit."""
    number, tracks = np.arange(1, len(LAYERS) + 1), events["tracks"]
    hits = np.bincount(crossings["layer"], minlength=len(LAYERS) + 1)[1:] / tracks.sum()
    hit = np.array([cover(layer) * reaching(layer)[0].sum() for layer in LAYERS])
    error = np.sqrt(np.maximum(hit * (1 - hit), 0.02) / tracks.sum())
    channel = channels_by_layer(geometry)
    # What the number of tracks does to the number of digis is known, as that number is.
    slope = np.array([np.cov(one, tracks)[0, 1] for one in events["digis"].T]) / tracks.var(ddof=1)
    rest = events["digis"] - slope * (tracks - tracks.mean())[:, None]
    moved, dead, hot = put_in(geometry)
    left = np.array([digis_a_track(layer, moved[layer.number - 1]) for layer in LAYERS]) / channel
    noise = np.array([digis_by_noise(layer, *of) for layer, *of in zip(LAYERS, moved, hot, strict=True)])
    share = (1 - dead) * (tracks.mean() * left + noise)
    digis = (events["digis"].mean(axis=0) / channel, rest.std(axis=0) / np.sqrt(len(tracks)) / channel, share)
    hits_seen, sent = Series("true crossings", number, hits, error, hit, 0.01), Series("digis", number, *digis, 0.02)
    y = "share of channels sent, an event"
    return [
        Panel("hits of a track: spectrum, field and cover", "layer", "crossings a track", [hits_seen], steps=True),
        Panel("occupancy: tracks x channels of a track, and noise", "layer", y, [sent], steps=True, log=True),
    ]


def put_in(geometry: Geometry) -> tuple[Floats, Floats, Floats]:
    """By layer: shares of the strips that moved and that are dead, and how often a strip sends a pulse of its own."""
    strips = channels(COLLISIONS, geometry, SEED, RUN, 1)
    pulses = np.diff(strips.pulse_rate, prepend=0)
    layer = np.repeat(geometry.layer[geometry.strip_rows], STRIPS) - 1
    number = np.maximum(np.bincount(layer, minlength=len(LAYERS)), 1)
    of_strips = (strips.pedestal - strips.online > 2, strips.dead, pulses)
    moved, dead, hot = (np.bincount(layer, values, len(LAYERS)) / number for values in of_strips)
    return moved, dead, hot


def of_layers(crossings: Table, function: Callable[[Layer, Table], Floats]) -> Floats:
    """One number for each crossing, by a function that takes those of one layer."""
    found = np.zeros(len(crossings["layer"]))
    for layer in LAYERS:
        own = crossings["layer"] == layer.number
        found[own] = function(layer, where(crossings, own))
    return found


def where(table: Table, chosen: NDArray[np.bool_]) -> Table:
    return {name: values[chosen] for name, values in table.items()}


PIXELS, THIN, THICK = ("pixels", (1, 2, 3, 4)), ("strips of 320 um", (5, 6, 7)), ("strips of 500 um", (8, 9, 10))
"""by what they are called"""


def alone(crossings: Table, allowed: int = 0) -> NDArray[np.bool_]:
    """Which crossings and their clusters are the only ones in their module, with no flag but those allowed."""
    found: NDArray[np.bool_] = (
        crossings["alone"] & crossings["found"] & (crossings["cluster_flags"] | allowed == allowed)
    )
    return found


def of_kind(crossings: Table, kind: tuple[str, tuple[int, ...]]) -> Table:
    return where(crossings, np.isin(crossings["layer"], kind[1]))


def size_panels(single: Table, steep: Table) -> list[Panel]:
    """Cluster size along u against angle, of clusters alone in their module and without a flag."""

    def series(label: str, some: Table, cut: Cut) -> Series:
        some = where(some, np.abs(some["dudw"]) < 2)
        expected = of_layers(some, lambda layer, own: along(layer, "u", own["dudw"], own["charge"], cut)[0])
        place = np.floor((some["dudw"] + 2) / 0.05).astype(np.int64)
        return Series.of_means(label, place, (some["dudw"], some["cluster_size_u"], expected), 0.02)

    pixels = [
        series(label, where(of, np.abs(of["dvdw"]) < 0.2), PIXEL)
        for label, of in (("3.8 T", of_kind(single, PIXELS)), ("11.4 T, for steep tracks", of_kind(steep, PIXELS)))
    ]
    strips = [series(kind[0], of_kind(single, kind), STRIP) for kind in (THIN, THICK)]
    return [
        Panel("pixel cluster size: least at tan(theta_L) = 0.40", "du/dw (|dv/dw| < 0.2)", "rows", pixels),
        Panel("strip cluster size: least at tan(theta_L) = 0.10", "du/dw", "strips", strips),
    ]


def charge_panels(crossings: Table) -> list[Panel]:
    """Charge over path, as it was made, and as clusters have it that are alone in their module; the path is true."""
    edges = np.arange(60, 141, 2.0)
    single = where(crossings, alone(crossings, ClusterFlag.SATURATED))
    series, layers = [], []
    for kind in (PIXELS, THIN, THICK):
        every, some = of_kind(crossings, kind), of_kind(single, kind)
        made, seen = every["charge"] / every["path"] * UM, some["cluster_charge"] / some["path"] * UM
        series.append(Series.of_histogram(f"{kind[0]}, made", made, edges, landau_cdf))
        series.append(Series.of_histogram(f"{kind[0]}, clusters", seen, edges, seen_charge(some), np.inf))
    for number in np.unique(single["layer"]):
        some = where(single, single["layer"] == number)
        seen = some["cluster_charge"] / some["path"] * UM
        expected = np.diff(seen_charge(some)(edges))
        layers.append((number, *peak(np.histogram(seen, edges)[0], edges), peak(expected, edges)[0]))
    x, y = "charge / path [electrons / um]", "share / (electrons / um)"
    peaks = [Series("clusters", *np.array(layers).T, 0.01)]
    return [
        Panel("charge over path: pixels, Landau with peak 79.5", x, y, series[:2]),
        Panel("charge over path: strips, Landau with peak 79.5", x, y, series[2:]),
        Panel("peak of the charge of clusters", "layer", "peak [electrons / um]", peaks, steps=True),
    ]


def seen_charge(some: Table) -> Callable[[Floats], Floats]:
    """Distribution of the charge of clusters over path: Landau's, less what thresholds cut off, blurred by noise.

    The charge is taken to lie evenly along its way, which it does not: it is good for the peak, not for the tail below.
    """
    few = where(some, np.arange(len(some["u"])) % max(len(some["u"]) // 200, 1) == 0)
    factors = []
    for layer in LAYERS:
        own = where(few, few["layer"] == layer.number)
        cut, of_path = PIXEL if layer.pixel else STRIP, PEAK / UM * own["path"]
        noise = cut.noise * np.sqrt(own["cluster_size"]) / of_path
        blur = noise[:, None, None, None] * ndtri((np.arange(9) + 0.5) / 9)
        kept_u = along(layer, "u", own["dudw"], own["charge"], cut)[1]
        kept_v = along(layer, "v", own["dvdw"], own["charge"], cut)[1] if layer.pixel else np.ones((len(kept_u), 1))
        factors.append((kept_u[:, :, None, None] * kept_v[:, None, :, None] + blur).ravel())
    # The noise is that of the most probable charge, so that it can be taken as a factor.
    factor = np.sort(np.concatenate(factors))
    factor = np.maximum(factor[:: max(len(factor) // 500, 1)], 0.05)
    return lambda by_um: landau_cdf(np.asarray(by_um)[:, None] / factor).mean(axis=1)


def peak(counts: Floats, edges: Floats) -> tuple[float, float]:
    """Where a parabola through the bins over 0.7 of the largest has its top, and its error if these are counts."""
    top = counts > 0.7 * counts.max()
    middle = (edges[1:] + edges[:-1])[top] / 2 - PEAK
    if len(middle) < 4:
        return float(middle.mean() + PEAK), float(np.ptp(edges))
    (square, line, _), spread = np.polyfit(middle, counts[top], 2, w=1 / np.sqrt(counts[top]), cov="unscaled")
    of = np.array([line / (2 * square**2), -1 / (2 * square), 0.0])
    return float(PEAK - line / square / 2), float(np.sqrt(of @ spread @ of))


def readout_panels(found: Payload, plan: Plan, weak: Table) -> list[Panel]:
    """Noise and common mode of the strips as they are calibrated, and zero suppression."""
    true = truth(FULL_READOUT, plan.detector, SEED, RUN, 1)
    good = (found["status"] == Status.NEW) & (true["strip_status"]["status"] == GOOD)
    put, seen = true["pedestal"]["noise"][good].astype(np.float64), found["noise"][good].astype(np.float64)
    place = np.floor((np.clip(put, 3.0, 4.99) - 3.0) / 0.1).astype(np.int64)
    some = slice(None, None, max(len(put) // 30_000, 1))
    weak = where(weak, weak["height"] < 8)
    height, beside = weak["height"], weak["beside"]
    # Rounding, and the error of the common mode; each strip over the threshold lifts the median.
    wide = np.sqrt(1 + 1 / 12 / COLLISIONS.electronics.noise**2 + np.pi / 2 / CHIP)
    lift, step = np.sqrt(np.pi / 2) / CHIP, np.floor(height / 0.25).astype(np.int64)
    cases = (("no signal beside", beside < 1, 4 + lift), ("signal over 7 sigma beside", beside > 7, 2 + 2 * lift))
    sent = [
        Series.of_means(name, step[own], (height[own], weak["sent"][own] * 1.0, ndtr((height[own] - level) / wide)))
        for name, own, level in cases
    ]
    noise = [Series.of_means(f"mean of {len(put)} strips", place, (put, seen, put), 0.003)]
    cloud = (put[some], seen[some])
    return [
        Panel("noise of strips, from full readout", "put in [ADC]", "found [ADC]", noise, cloud=cloud),
        common_mode_panel(found, good),
        Panel("zero suppression: over 4 sigma, or 2 beside such", "signal / noise", "share sent", sent),
    ]


def common_mode_panel(found: Payload, good: NDArray[np.bool_]) -> Panel:
    """Common mode by chip: the root of a chi2 of nearly as many degrees as there were events.

    It is the median over the strips of what their variance has more with it than without: products with their own
    noise s add 4 s^2 c^2 (pi/2) / 128 to the 2 c^4 that a variance c^2 spreads with anyway.
    """
    c, s = COLLISIONS.electronics.common_mode, COLLISIONS.electronics.noise
    chips = good.reshape(-1, CHIP).mean(axis=1) > 0.5
    values = found["common_mode"][chips].astype(np.float64)
    events = np.median(found["entries"][good])
    degrees = max(events * 2 * c**4 / (2 * c**4 + 4 * s**2 * c**2 * np.pi / 2 / CHIP), 1)
    edges = np.linspace(1.4, 2.6, 25)
    name = f"{len(values)} chips, mean {values.mean():.3f}"
    series = Series.of_histogram(name, values, edges, lambda x: chi2.cdf(degrees * (x / c) ** 2, degrees), 0.05)
    x = "common mode of a chip, rms [ADC]"
    return Panel(f"common mode, from full readout: {c:g} ADC put in", x, "share / ADC", [series])


def scattering_panel(kicks: Table) -> Panel:
    """Angles between one layer and the next."""
    layer, width = kicks["layer"], 1e3 * kicks["width"]
    parts = [
        Series.of_widths(name, layer, (layer, 1e3 * kicks[name], width), 0.005) for name in ("upwards", "sideways")
    ]
    y = "angle x momentum, rms [mrad GeV]"
    return Panel("multiple scattering: Highland's formula", "beam pipe (0) and layer", y, parts, steps=True)


def position_panels(crossings: Table, geometry: Geometry) -> list[Panel]:
    """Cluster less truth: by cluster size against the error assigned, by angle, and over the error."""
    single = where(crossings, alone(crossings))
    by_size, by_way, pulls = [], [], []
    for place, (kind, axis) in enumerate(((PIXELS, "u"), (PIXELS, "v"), (THIN, "u"), (THICK, "u"))):
        name, some = f"{kind[0]}, {axis}", of_kind(single, kind)
        some["pitch"] = (geometry.pitch_u if axis == "u" else geometry.pitch_v)[some["row"]]
        # Others are another track's, a few in ten thousand.
        some = where(some, np.abs(some[f"cluster_{axis}"] - some[axis]) < 5 * some["pitch"])
        off = (some[f"cluster_{axis}"] - some[axis]) / UM
        error = some[f"cluster_{axis}_error"].astype(np.float64) / UM
        size = np.minimum(some[f"cluster_size_{axis}"].astype(np.int64), LONG)
        by_size.append(Series.of_widths(name, size, (size + 0.1 * (place - 1.5), off, error), 0.06))
        pull, edges = off / error, np.linspace(-4, 4, 41)
        pulls.append(Series.of_histogram(f"{name}: rms {pull.std():.3f}", pull, edges, ndtr, np.inf))
        if axis == "u":
            across = np.abs(some["dudw"] - COLLISIONS.by_layer[some["layer"] - 1])
            way = across * geometry.thickness[some["row"]] / some["pitch"]
            near = way < 5
            parts = (way[near], off[near], error[near])
            by_way.append(Series.of_widths(name, np.floor(way[near] / 0.2).astype(np.int64), parts, np.inf))
    size, y = f"channels along the axis ({LONG}: and more)", "rms of cluster - truth [um]"
    return [
        Panel("position: by size; line: error assigned", size, y, by_size),
        Panel("position: by width of sharing; line: error assigned", "width / pitch", y, by_way, marks=NOTE),
        Panel("pulls of positions; line: Gaussian of width 1", "(cluster - truth) / error", "share / unit", pulls),
    ]


LONG = 7
"""channels; longer clusters are taken together"""
NOTE = (np.array([0.0, 0.94, 1.71]), np.array([25.0, 6.6, 12.0]), "pixels, physics note 9.4.2")
"""At tan - tan(theta_L) = 0, 0.33 and 0.6, where mean sizes are 1.1, 1.8 and 2.4; the last by the centre of charge"""


def efficiency_panel(crossings: Table) -> Panel:
    """Crossings with a cluster within five pitches.

    Lost are those in chips that are masked altogether, those of which every strip that a cluster could begin with is
    masked, and those so near an edge that less than the threshold's share f of the charge drifts to a channel: along u
    within du t/2 + f t (tan(theta_L) - du) of it.
    """

    def expected(layer: Layer, own: Table) -> Floats:
        threshold = SEEDS.alone if not layer.pixel else PIXEL_THRESHOLD if layer.number == 1 else Thresholds().pixels
        f, du, tangent = threshold / own["charge"], own["dudw"], COLLISIONS.by_layer[layer.number - 1]
        edge = np.maximum(layer.thickness * (du / 2 + f * (tangent - du)), 0) / layer.width
        seeds = 1.0 if layer.pixel else along(layer, "u", du, own["charge"], SEEDS)[0]
        return 1 - edge - own["lost"] - own["masked"] * np.clip(2 - seeds, 0, 1)

    values = crossings["layer"].astype(np.float64), crossings["found"] * 1.0, of_layers(crossings, expected)
    series = Series.of_means("true crossings", crossings["layer"], values, 5e-4)
    return Panel("efficiency of clusters", "layer", "share of crossings with a cluster", [series], steps=True)


# the page -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Observed:
    """All that the page is made of."""

    collisions: dict[str, Table]
    steep: Table
    weak: Table
    pedestal: Payload


def observed(plan: Plan, processes: int) -> Observed:
    """Simulate and reconstruct; the work is cut into tasks of some seconds."""

    def cut(events: int, parts: int) -> list[Ints]:
        return np.array_split(np.arange(1, events + 1), min(parts, events))

    with ProcessPoolExecutor(processes) as pool:
        states = pool.map(partial(full_readout, plan), cut(plan.full * NZS_GROUPS, 8))
        weak = pool.map(partial(weak_signals, plan), cut(plan.weak, 3))
        bent = pool.map(partial(steep, plan), cut(plan.steep, 4))
        parts = list(pool.map(partial(collisions, plan), range(1, plan.lumis + 1)))
        pedestal = calibration(plan)
        found = pedestal.finalize(reduce(pedestal.merge, states), before(plan))
        tables = {name: joined(part[name] for part in parts) for name in parts[0]}
        return Observed(tables, joined(bent), joined(weak), found)


def panels_of(plan: Plan, seen: Observed) -> list[Panel]:
    """All of the page."""
    crossings, detector = seen.collisions["crossings"], plan.detector
    return [
        *beam_panels(seen.collisions["vertices"]),
        *occupancy_panels(seen.collisions["events"], crossings, detector),
        *size_panels(where(crossings, alone(crossings)), where(seen.steep, alone(seen.steep))),
        *charge_panels(crossings),
        scattering_panel(seen.collisions["kicks"]),
        *readout_panels(seen.pedestal, plan, seen.weak),
        efficiency_panel(crossings),
        *position_panels(crossings, detector),
    ]


def compared(panels: Sequence[Panel]) -> list[str]:
    """A line for each comparison."""
    lines = []
    for panel in panels:
        for one in panel.series:
            told = "shown only" if np.isinf(one.good_to) else f"{one.chi2:.1f} / {len(one.x)}"
            told += f", good to {100 * one.good_to:g} %" if 0 < one.good_to < np.inf else ""
            lines.append(f"{panel.title}; {one.label}: {told}" + ("" if one.agrees else "  DISAGREES"))
    return lines


def drawn(draw: Callable[[Any], None], inches: tuple[float, float] = (5.2, 4.0)) -> Image:
    """A picture of what a function draws on axes, uint8[height, width, 4]."""
    figure = Drawing(figsize=inches, layout="constrained")
    draw(figure.subplots())
    buffer = io.BytesIO()
    figure.savefig(buffer, format="rgba", dpi=DPI)
    return np.frombuffer(buffer.getvalue(), np.uint8).reshape(round(DPI * inches[1]), -1, 4)


def text(lines: str, size: float) -> Callable[[Any], None]:
    """Draws lines of text and nothing else."""

    def draw(axis: Any) -> None:
        axis.axis("off")
        axis.text(0, 1, lines, va="top", fontsize=size)

    return draw


def page(pictures: Sequence[Image], title: str) -> Image:
    """Pictures of one size four abreast, the title above."""
    blank = np.full_like(pictures[0], 255)
    every = [*pictures, *[blank] * (-len(pictures) % 4)]
    rows = [np.hstack(every[start : start + 4]) for start in range(0, len(every), 4)]
    return np.vstack([drawn(text(title, 14), (rows[0].shape[1] / DPI, 0.5)), *rows])


def as_html(panels: Sequence[Panel], pictures: Sequence[Image], title: str) -> str:
    """The same as HTML that needs nothing beside it."""
    figures = []
    for panel, picture in zip(panels, pictures, strict=True):
        buffer = io.BytesIO()
        imsave(buffer, picture, format="png")
        data = base64.b64encode(buffer.getvalue()).decode()
        figures.append(f'<img alt="{html.escape(panel.title)}" src="data:image/png;base64,{data}">')
    told = "".join(f"<li>{html.escape(line)}</li>" for line in compared(panels))
    head = f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title></head>'
    body = f"<h1>{html.escape(title)}</h1>\n" + "\n".join(figures) + f"\n<p>{CHI2}:</p>\n<ul>{told}</ul>"
    return f"{head}\n<body>{body}</body></html>\n"


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "build", help="where the page is written")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--small", action="store_true", help="the mini detector and few events; nothing is judged")
    return parser.parse_args()


def main() -> int:
    options, begun = parsed(), time.monotonic()
    plan = SMALL if options.small else Plan()
    panels = panels_of(plan, observed(plan, options.processes))
    title = (
        f"REF10, {plan.geometry} detector, {plan.lumis} x {plan.events} events: lines put in or predicted, points seen"
    )
    pictures = [drawn(panel.draw) for panel in panels]
    summary = drawn(text("\n".join([CHI2, *compared(panels)]), 5.2))
    options.folder.mkdir(parents=True, exist_ok=True)
    path = options.folder / "ref10_page.png"
    imsave(path, page([*pictures, summary], title))
    path.with_suffix(".html").write_text(as_html(panels, pictures, title), encoding="utf-8")
    print(f"{path} and .html, {time.monotonic() - begun:.0f} s")
    print("\n".join([CHI2, *compared(panels)]))
    if options.small:
        print("too few events of a part of the detector: nothing is judged")
        return 0
    return int(not all(one.agrees for panel in panels for one in panel.series))


if __name__ == "__main__":
    sys.exit(main())
