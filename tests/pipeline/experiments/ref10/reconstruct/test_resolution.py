"""How well clusters tell where a track crossed: against the physics note, the errors given, and angle and size.

First with the toy of single sensors, which knows nothing of the simulation, then with the simulation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import awkward as ak
import numpy as np
import pytest
from numpy.typing import NDArray

from calib.payload import Payload
from pipeline.experiments.collisions import Collection
from pipeline.experiments.ref10.constants import LORENTZ, design, lorentz_angle
from pipeline.experiments.ref10.geometry import Geometry, full_geometry, geometry_of
from pipeline.experiments.ref10.reconstruct.flags import ClusterFlag
from pipeline.experiments.ref10.reconstruct.stages import reconstruct
from pipeline.experiments.ref10.simulate.events import Simulated, simulate
from pipeline.experiments.ref10.simulate.scenario import Physics, Scenario, truth
from tests.pipeline.experiments.ref10.reconstruct import toy
from tests.pipeline.experiments.ref10.reconstruct.raw import PLAN, plain

Floats = NDArray[np.float64]

UM = 1e-4
TANGENTS = np.array([0.4] * 4 + [0.1] * 6)
THIN, THICK = (5, 6, 7), (8, 9, 10)
PIXELS = (1, 2, 3, 4)
EVENTS = 500


@dataclass(frozen=True, eq=False)
class Matched:
    """Clusters alone in their module in an event, as was the one crossing; a row each."""

    geometry: Geometry
    row: NDArray[np.int64]
    flat: dict[str, Floats]
    u: Floats
    """of the crossing, as v and the slopes"""
    v: Floats
    du: Floats
    dv: Floats

    def residual(self, axis: str) -> Floats:
        """Found less true, in units of the pitch."""
        pitch = (self.geometry.pitch_u if axis == "u" else self.geometry.pitch_v)[self.row]
        return (self.flat[axis].astype(np.float64) - getattr(self, axis)) / pitch

    def pull(self, axis: str) -> Floats:
        found = self.flat[axis].astype(np.float64) - getattr(self, axis)
        return found / self.flat[f"{axis}_error"]

    def width(self) -> Floats:
        """Over which charge is shared along u, in units of the pitch."""
        across = np.abs(self.du - TANGENTS[self.geometry.layer[self.row] - 1])
        return across * self.geometry.thickness[self.row] / self.geometry.pitch_u[self.row]

    def of(self, layers, *, sound=True) -> NDArray[np.bool_]:
        """Those of these layers with no flag, or with one."""
        return np.isin(self.geometry.layer[self.row], layers) & ((self.flat["flags"] == 0) == sound)


def matched(geometry: Geometry, clusters: Collection, event, tracks) -> Matched:
    """Where one cluster and one crossing (columns module, u, v, du, dv) share a module of an event."""
    module = clusters.flat["module"].astype(np.int64)
    ours, theirs = clusters.event << 32 | module, np.asarray(event, np.int64) << 32 | tracks["module"].astype(np.int64)
    kept = []
    for keys in (ours, theirs):
        single, place, count = np.unique(keys, return_index=True, return_counts=True)
        kept.append((single[count == 1], place[count == 1]))
    _, one, other = np.intersect1d(kept[0][0], kept[1][0], assume_unique=True, return_indices=True)
    one, other = kept[0][1][one], kept[1][1][other]
    flat = {name: values[one] for name, values in clusters.flat.items()}
    return Matched(
        geometry, geometry.rows_of(module[one]), flat, *(tracks[name][other] for name in ("u", "v", "du", "dv"))
    )


def spread(values: Floats) -> tuple[float, float]:
    """Standard deviation and its error; of far outliers (another track's cluster) there are next to none."""
    near = values[np.abs(values) < 5]
    assert len(near) > 0.99 * len(values)
    kurtosis = np.mean((near - near.mean()) ** 4) / near.var() ** 2
    return float(near.std()), float(near.std() * np.sqrt((kurtosis - 1) / (4 * len(near))))


# the toy --------------------------------------------------------------------------------------------------------------


def at_slope(layer: int, across: float, tracks: int = 3000) -> Matched:
    """Tracks that cross modules of a layer with du/dw by `across` steeper than the drift, one an event."""
    rng = np.random.default_rng([int(1000 * abs(across)), layer])
    rows = np.flatnonzero(PLAN.layer == layer)
    row = rows[rng.integers(0, len(rows), tracks)]
    u, v = (rng.uniform(-0.4, 0.4, tracks) * size[row] for size in (PLAN.width, PLAN.length))
    slope = np.full(tracks, TANGENTS[layer - 1] + across)
    crossed = toy.Tracks(np.arange(tracks), row, u, v, slope, rng.uniform(-0.1, 0.1, tracks))
    raw = toy.digitized(PLAN, crossed, TANGENTS, rng, tracks)
    clusters = reconstruct(raw, plain(lorentz_angle=lorentz_angle(TANGENTS))).clusters
    columns = {"module": PLAN.module[row], "u": u, "v": v, "du": slope, "dv": crossed.dv}
    return matched(PLAN, clusters, crossed.event, columns)


@pytest.mark.parametrize(
    ("across", "size", "low", "high"), [(0.0, 1.12, 24.0, 27.0), (0.33, 1.8, 5.0, 7.2), (0.6, 2.4, 0.0, 12.0)]
)
def test_pixels_resolve_as_the_physics_note_says(across, size, low, high):
    """9.4.2, pitch 100 um: mean size 1.1, 25 um; 1.8, 6.6 um; 2.3 to 2.7, 12 um by the centre of charge."""
    found = at_slope(2, across)
    assert found.flat["size_u"].mean() == pytest.approx(size, abs=0.1)
    sigma, error = spread(found.residual("u"))
    assert low - 4 * 100 * error < 100 * sigma < high + 4 * 100 * error


@pytest.mark.parametrize("layer", [2, 6, 9])
@pytest.mark.parametrize("across", [-0.25, 0.02, 0.25])
def test_the_lorentz_shift_is_taken_out_without_bias(layer, across):
    found = at_slope(layer, across)
    residual = found.residual("u")
    # What is left when strips that drifted off a threshold are lost: less than 1.5 % of the pitch.
    assert abs(residual.mean()) < 0.015 + 4 * residual.std() / np.sqrt(len(residual))


def test_a_strip_that_shares_no_charge_knows_its_pitch():
    """One strip: the crossing is anywhere within what gives one strip, the pitch less the width of sharing."""
    found = at_slope(6, 0.0)
    single = found.residual("u")[found.flat["size_u"] == 1]
    # Diffusion still shares charge above threshold (2 sigma of 24 000 e / 265 / 4) over some um at either side.
    assert 0.8 / np.sqrt(12) < single.std() < 1 / np.sqrt(12)


# the simulation -------------------------------------------------------------------------------------------------------


@cache
def simulated() -> Matched:
    """Under the conditions that are true."""
    return reconstructed(truth(*simulation()[:2], 5, 1, 1))


@cache
def simulation() -> tuple[Scenario, Geometry, Simulated]:
    geometry = geometry_of(full_geometry())
    scenario = Scenario(physics=Physics(pile_up=0.5, z=0.0, jpsi=0.0, nzs=0.0))
    return scenario, geometry, simulate(scenario, geometry, 5, 1, 1, np.arange(EVENTS))


def reconstructed(conditions: Mapping[str, Payload]) -> Matched:
    _, geometry, done = simulation()
    clusters = reconstruct(done.raw, conditions).clusters
    names = {"module": "module", "u": "u", "v": "v", "du": "dudw", "dv": "dvdw"}
    columns = {name: ak.to_numpy(ak.flatten(done.truth[f"Crossing_{column}"])) for name, column in names.items()}
    event = np.repeat(np.arange(EVENTS), ak.to_numpy(ak.num(done.truth["Crossing_u"])))
    assert len(clusters.flat["row"]) > 0.95 * len(event)
    return matched(geometry, clusters, event, columns)


MEASURED = [("u", PIXELS, (1, 2, 3)), ("v", PIXELS, (1, 2, 3)), ("u", THIN, (1, 2, 3)), ("u", THICK, (1, 2, 3, 4, 5))]


@pytest.mark.parametrize(
    ("axis", "layers", "size"), [(axis, layers, size) for axis, layers, sizes in MEASURED for size in sizes]
)
def test_errors_by_size_are_right(axis, layers, size):
    found = simulated()
    chosen = found.of(layers) & (found.flat[f"size_{axis}"] == size)
    width, error = spread(found.pull(axis)[chosen])
    assert chosen.sum() > 500
    assert abs(width - 1) < 0.05 + 4 * error


def test_positions_have_no_bias():
    found = simulated()
    for axis, layers, _ in MEASURED:
        pull = found.pull(axis)[found.of(layers)]
        assert abs(pull.mean()) < 0.05 + 4 / np.sqrt(len(pull)), (axis, layers)


@pytest.mark.parametrize(("layers", "shift"), [(PIXELS, 5.7), (THIN, 1.6), (THICK, 2.5)])
def test_the_lorentz_angle_of_the_design_shifts_hits_as_known_and_the_true_one_does_not(layers, shift):
    """Physics note, 11: 0.36 instead of 0.40 shifts pixel hits by half of 285 um times 0.04, ladders as they face.

    Strips alike: 0.09 instead of 0.10, by half of 320 and of 500 um times 0.01.
    """
    scenario, geometry, _ = simulation()
    true = truth(scenario, geometry, 5, 1, 1)
    as_designed = reconstructed({**true, LORENTZ: design(geometry)[LORENTZ]})
    for found, wanted in ((as_designed, shift), (simulated(), 0.0)):
        chosen = found.of(layers)
        row = found.row[chosen]
        flipped = found.geometry.flipped[row]
        # Around the barrel, in the direction that u has where ladders are not flipped.
        off = found.residual("u")[chosen] * found.geometry.pitch_u[row] / UM * np.where(flipped, -1, 1)
        outward, inward = off[~flipped], off[flipped]
        errors = [values.std() / np.sqrt(len(values)) for values in (outward, inward)]
        # Half a micron more or less is what thresholds do.
        assert outward.mean() == pytest.approx(wanted, abs=0.5 + 4 * errors[0])
        assert inward.mean() == pytest.approx(-wanted, abs=0.5 + 4 * errors[1])
        assert outward.mean() - inward.mean() == pytest.approx(2 * wanted, abs=1 + 4 * np.hypot(*errors))


@pytest.mark.parametrize("flag", [ClusterFlag.SATURATED, ClusterFlag.EDGE, ClusterFlag.NEAR_MASKED])
def test_errors_of_flagged_clusters_cover_them(flag):
    found = simulated()
    chosen = found.flat["flags"] & np.uint8(flag) > 0
    width, error = spread(found.pull("u")[chosen])
    assert chosen.sum() > 100
    assert 0.5 < width < 1.2 + 4 * error


@pytest.mark.parametrize(
    ("layers", "widths", "low", "high"),
    [
        # The middle of the only pixel at first, then the sharing between two, best where it spans the pitch.
        (PIXELS, (0.0, 0.3), 0.18, 0.27),
        (PIXELS, (0.8, 1.1), 0.055, 0.085),
        (PIXELS, (1.5, 2.0), 0.06, 0.12),
        (THIN, (0.0, 0.2), 0.22, 0.28),
        (THIN, (0.8, 1.1), 0.05, 0.09),
        (THICK, (0.8, 1.1), 0.05, 0.09),
        (THICK, (3.0, 4.0), 0.08, 0.13),
    ],
)
def test_resolution_follows_the_angle(layers, widths, low, high):
    """Pixels: 25 um where nothing is shared, 6.6 um where sharing spans the pitch, 12 um beyond (9.4.2)."""
    found = simulated()
    width = found.width()
    chosen = found.of(layers) & (width >= widths[0]) & (width < widths[1])
    sigma, error = spread(found.residual("u")[chosen])
    assert chosen.sum() > 100
    assert low - 4 * error < sigma < high + 4 * error


@pytest.mark.parametrize(("layers", "threshold"), [(PIXELS, 3000.0), (THIN, 2 * 4 * 265.0), (THICK, 2 * 4 * 265.0)])
@pytest.mark.parametrize("low", [0.2, 0.6, 1.0, 1.4])
def test_sizes_follow_the_angle(layers, threshold, low):
    """1 + W (1 - 2 T / Q): of charge Q spread evenly over W pitches, either end is lost below threshold T."""
    found = simulated()
    chosen = found.of(layers) & (found.width() >= low) & (found.width() < low + 0.4)
    kept = 1 - 2 * threshold / found.flat["charge"][chosen]
    expected = np.mean(1 + found.width()[chosen] * kept)
    size = found.flat["size_u"][chosen]
    # Diffusion adds a little, up to a tenth of a channel.
    assert chosen.sum() > 300
    assert -4 * size.std() / np.sqrt(len(size)) < size.mean() - expected < 0.15


def test_overall_resolution_is_as_good_as_tracks_are_planned_with():
    """9.1: 10 and 30 um of pixels, 25 um of strips."""
    found = simulated()
    sigma = {
        (axis, layers): spread(found.residual(axis)[np.isin(found.geometry.layer[found.row], layers)])[0]
        for axis, layers, _ in MEASURED
    }
    assert 100 * sigma["u", PIXELS] < 12
    assert 150 * sigma["v", PIXELS] < 30
    assert 128 * sigma["u", THIN] < 25
    assert 128 * sigma["u", THICK] < 25
