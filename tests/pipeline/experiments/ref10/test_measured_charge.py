"""What gain and Lorentz angle are measured from, against loops and the truth; and what is found on simulated events."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

import awkward as ak
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chi2

from calib.algorithms.gain import Gain, nominal
from calib.algorithms.gain import Status as GainStatus
from calib.calibration import Calibration
from calib.form import misfits
from calib.graph import before, levels
from calib.payload import Payload
from calib.state import State
from pipeline.experiments.collisions import Collection
from pipeline.experiments.ref10 import constants, daq
from pipeline.experiments.ref10.calibrated import calibrations
from pipeline.experiments.ref10.geometry import Geometry, full_geometry, geometry_of
from pipeline.experiments.ref10.layers import LAYERS
from pipeline.experiments.ref10.measured_charge import (
    CHI2,
    LEAST_HITS,
    MOMENTUM,
    SPOILT,
    TRANSVERSE,
    WIDEST,
    charge_calibrations,
    charge_columns,
    crossings,
)
from pipeline.experiments.ref10.reconstruct.flags import ClusterFlag
from pipeline.experiments.ref10.reconstruct.objects import Objects, objects
from pipeline.experiments.ref10.reconstruct.placed import frames_of
from pipeline.experiments.ref10.reconstruct.stages import reconstruct
from pipeline.experiments.ref10.simulate.events import Simulated, simulate
from pipeline.experiments.ref10.simulate.scenario import Physics, Scenario, truth
from tests.pipeline.experiments.ref10.reconstruct.raw import PLAN

RUN, SEED, EVENTS = 7, 3, 150
SCENARIO = Scenario(physics=Physics(pile_up=2.0, z=0.2, jpsi=0.0, nzs=0.0))
NAMES = ("gain_group", "gain_charge", "gain_path", "gain_saturated", "lorentz_group", "lorentz_slope", "lorentz_size")


@dataclass(frozen=True, eq=False)
class Made:
    """Events as simulated, and as reconstructed under some conditions."""

    events: Simulated
    clusters: Collection
    objects: Objects
    conditions: Mapping[str, Payload]

    @property
    def columns(self) -> dict[str, Any]:
        return charge_columns(self.clusters, self.objects, self.conditions)


def made(scenario: Scenario, plan: Geometry, events: NDArray[np.int64], wrong: Mapping[str, Payload]) -> Made:
    """Events reconstructed under true conditions but for some."""
    conditions = {**truth(scenario, plan, SEED, RUN, 1), **wrong}
    drawn = simulate(scenario, plan, SEED, RUN, 1, events)
    clusters = reconstruct(drawn.raw, conditions).clusters
    return Made(drawn, clusters, objects(clusters, daq.fired(drawn.raw)["dimuon"], conditions), conditions)


@cache
def few() -> Made:
    return made(SCENARIO, PLAN, np.arange(EVENTS), {})


def naive(one: Made) -> list[dict[str, list[float]]]:
    """The columns of each event, hit by hit."""
    frames, clusters, tracks = frames_of(one.conditions), one.clusters, one.objects.tracks
    found: list[dict[str, list[float]]] = []
    first_cluster = first_track = first_hit = 0
    for event in range(len(clusters.counts)):
        row: dict[str, list[float]] = {name: [] for name in NAMES}
        for track in range(first_track, first_track + int(tracks.counts[event])):
            own = {name: float(values[track]) for name, values in tracks.flat.items()}
            hits = one.objects.hits.flat["hit"][first_hit : first_hit + int(own["hits"])]
            first_hit += int(own["hits"])
            if own["flags"] or own["hits"] < LEAST_HITS or own["pt"] <= TRANSVERSE or own["chi2"] >= CHI2 * own["ndf"]:
                continue
            for hit in hits.tolist():
                cluster = {name: values[first_cluster + hit].item() for name, values in clusters.flat.items()}
                if not cluster["flags"] & SPOILT:
                    place = int(PLAN.index(np.array([cluster["module"]]))[0])
                    _add(row, own, cluster, place, [axis[place] for axis in (frames.u, frames.v, frames.w)])
        first_cluster += int(clusters.counts[event])
        first_track += int(tracks.counts[event])
        found.append(row)
    return found


def _add(row: dict[str, list[float]], own: dict[str, float], cluster: dict[str, Any], place: int, axes: Any) -> None:
    # The way to the radius by halving: where the circle is that far out.
    radius, low, high = math.hypot(cluster["x"], cluster["y"]), 0.0, 120.0
    for _ in range(50):
        way = (low + high) / 2
        angle = own["phi"] - own["curvature"] * way / 2
        chord = way * (math.sin(turn := own["curvature"] * way / 2) / turn if way else 1.0)
        x = own["d0"] * math.sin(own["phi"]) + chord * math.cos(angle)
        y = -own["d0"] * math.cos(own["phi"]) + chord * math.sin(angle)
        low, high = (way, high) if math.hypot(x, y) < radius else (low, way)
    angle = own["phi"] - own["curvature"] * way
    direction = np.array([math.cos(angle), math.sin(angle), own["cot_theta"]])
    u, v, w = (float(direction @ axis) for axis in axes)
    row["lorentz_group"].append(2 * (PLAN.layer[place] - 1) + PLAN.flipped[place])
    row["lorentz_slope"].append(u / w)
    row["lorentz_size"].append(cluster["size_u"])
    first, last = cluster["first_row"], cluster["first_row"] + cluster["size_u"] - 1
    momentum = own["pt"] * math.hypot(1, own["cot_theta"])
    if PLAN.pixel[place] or momentum <= MOMENTUM or cluster["size_u"] > WIDEST or first // 128 != last // 128:
        return
    row["gain_group"].append(6 * PLAN.strip_block[place] + first // 128)
    row["gain_charge"].append(cluster["charge"])
    row["gain_path"].append(1e4 * PLAN.thickness[place] * math.sqrt(1 + (u / w) ** 2 + (v / w) ** 2))
    row["gain_saturated"].append(bool(cluster["flags"] & ClusterFlag.SATURATED))


class TestColumns:
    def test_they_are_those_of_a_loop(self) -> None:
        found, expected = few().columns, naive(few())
        assert set(found) == set(NAMES)
        for name in NAMES:
            assert ak.num(found[name]).tolist() == [len(event[name]) for event in expected]
            flat = [value for event in expected for value in event[name]]
            assert np.allclose(ak.to_numpy(ak.flatten(found[name])), flat, rtol=1e-7, atol=1e-9)
        assert ak.sum(found["gain_saturated"]) > 20
        assert ak.count(found["gain_group"]) > 400

    def test_slopes_and_paths_are_those_of_the_particles(self) -> None:
        one = few()
        crossed = crossings(one.clusters, one.objects, one.conditions)
        true = {name: one.events.truth[f"Crossing_{name}"] for name in ("module", "u", "dudw", "path")}
        off, longer = [], []
        flat = {name: ak.to_numpy(ak.flatten(values)) for name, values in true.items()}
        ends = np.cumsum(ak.num(true["module"]))
        for i in range(len(crossed.row)):
            begin, end = (ends[crossed.event[i] - 1] if crossed.event[i] else 0), ends[crossed.event[i]]
            there = begin + np.flatnonzero(flat["module"][begin:end] == one.clusters.flat["module"][crossed.cluster[i]])
            if len(there):
                nearest = there[np.argmin(np.abs(flat["u"][there] - one.clusters.flat["u"][crossed.cluster[i]]))]
                off.append(crossed.along_u[i] - flat["dudw"][nearest])
                path = PLAN.thickness[crossed.row[i]] * math.hypot(1, crossed.along_u[i], crossed.along_v[i])
                longer.append(path / flat["path"][nearest] - 1)
        assert len(off) > 0.98 * len(crossed.row)
        # Scattering in the layers before, of a GeV, is a few mrad.
        assert np.median(np.abs(off)) < 0.003
        assert abs(np.median(off)) < 3e-4
        assert np.median(np.abs(longer)) < 0.003

    def test_an_event_does_not_know_its_neighbours(self) -> None:
        whole = few().columns
        for start in (0, 61):
            part = made(SCENARIO, PLAN, np.arange(start, start + 40), {}).columns
            for name in NAMES:
                assert ak.array_equal(part[name], whole[name][start : start + 40], dtype_exact=True)

    def test_sizes_know_of_gains_only_where_clusters_reach_over_two_chips(self) -> None:
        """So the Lorentz angle goes after the gain. Of chips as unequal as this, by a factor of nine."""
        chips = np.arange(6 * len(PLAN.strip_rows))
        true = few().conditions["gain"]
        wrong = Payload("gain", {"gain": true["gain"] * np.where(chips % 2, 3.0, 1 / 3)}, true.units)
        other = made(SCENARIO, PLAN, np.arange(EVENTS), {"gain": wrong})
        flat, moved = few().clusters.flat, other.clusters.flat
        assert all(np.array_equal(flat[name], moved[name]) for name in ("module", "first_row", "size_u"))
        alone = flat["first_row"] // 128 == (flat["first_row"] + flat["size_u"] - 1) // 128
        assert np.allclose(flat["u"][alone], moved["u"][alone], rtol=0, atol=1e-6)
        assert np.abs(flat["u"] - moved["u"])[~alone].max() > 1e-3
        assert not ak.array_equal(few().columns["lorentz_slope"], other.columns["lorentz_slope"])

    def test_without_tracks(self) -> None:
        one = few()
        none = np.zeros(len(one.objects.tracks.flat["pt"]), np.bool_)
        empty = replace(
            one.objects,
            tracks=one.objects.tracks.where(none),
            hits=one.objects.hits.where(np.zeros(len(one.objects.hits.flat["hit"]), np.bool_)),
        )
        found = charge_columns(one.clusters, empty, one.conditions)
        assert all(ak.num(found[name]).tolist() == [0] * EVENTS for name in NAMES)


def states_of(one: Made, calibrations: tuple[Calibration, ...]) -> list[State]:
    columns = {name: np.asarray(one.events.raw[name]) for name in ("run", "lumi", "event")} | one.columns
    return [calibration.accumulate(columns, one.conditions) for calibration in calibrations]


def test_calibrations_are_of_this_detector() -> None:
    for plan in (PLAN, geometry_of(full_geometry())):
        gain, angle = charge_calibrations(plan)
        design = constants.design(plan)
        assert gain.groups == len(design["gain"]["gain"])
        thick = np.repeat(plan.thickness[plan.strip_rows] > 0.04, 6)
        assert np.array_equal(np.arange(gain.groups) >= gain.first[1], thick)
        assert angle.groups == 2 * len(LAYERS)
        thin, strips = (int(np.argmax([test(layer) for layer in LAYERS])) for test in (_thick, _strips))
        assert angle.first == (0, 2, 2 * strips, 2 * thin)


def _thick(layer: Any) -> bool:
    return bool(layer.thickness > 0.04)


def _strips(layer: Any) -> bool:
    return not layer.pixel


def test_the_order_is_that_of_a_tracker() -> None:
    after = {calibration.kind: calibration.after for calibration in calibrations(PLAN)}
    names = ["pedestal", "strip_status", "gain", "lorentz_angle", "alignment", "beamspot"]
    assert levels(after) == {"pixel_status": 0} | {name: level for level, name in enumerate(names)}
    everything = {"pixel_status", *names}
    assert before(after)["lorentz_angle"] == {"pedestal", "strip_status", "pixel_status", "gain"}
    assert before(after)["alignment"] == everything - {"alignment", "beamspot"}
    assert before(after)["beamspot"] == everything - {"beamspot"}


def test_payloads_have_the_form_that_reconstruction_reads() -> None:
    gain, angle = charge_calibrations(PLAN)
    loose = (
        replace(gain, min_entries=2, most_few=1.0, most_off=1.0),
        replace(angle, min_entries=10, most_few=1.0, most_off=1.0),
    )
    design = constants.design(PLAN)
    for calibration, state in zip(loose, states_of(few(), loose), strict=True):
        before = design[calibration.kind]
        payload = calibration.finalize(state, before)
        assert misfits(payload, before, calibration.leeway) == ()
        assert made(SCENARIO, PLAN, np.arange(3), {calibration.kind: payload}).clusters.counts.sum() > 0


def test_many_clusters_of_simulated_events_have_the_shape_that_is_reckoned_with() -> None:
    """Of 10 000 clusters a sort, smeared, saturated and of all slopes; true gains are taken out, so that chips go
    together. The shape is not exact: by 0.003 to 0.01 of chi2 a cluster, where 0.2 is allowed and 3.4 is no peak."""
    plan = geometry_of(full_geometry())
    gain, _ = charge_calibrations(plan)
    busy = Scenario(physics=Physics(pile_up=30.0, z=0.05, jpsi=0.05, nzs=0.0))
    parts = [made(busy, plan, np.arange(start, start + 20), {}) for start in (0, 20)]
    columns = {name: ak.concatenate([part.columns[name] for part in parts]) for name in NAMES}
    columns |= {name: np.arange(40) for name in ("run", "lumi", "event")}
    columns["run"][:], columns["lumi"][:] = RUN, 1
    columns["gain_group"] = ak.values_astype(columns["gain_group"] >= gain.first[1], np.int64)
    by_sort = Gain(**{each.name: getattr(gain, each.name) for each in fields(gain)} | {"groups": 2, "first": (0, 1)})
    payload = by_sort.finalize(by_sort.accumulate(columns, {"gain": nominal(2)}), None)
    excess = (payload["chi2"] - payload["ndf"]) / payload["entries"]
    assert payload["entries"].min() > 10_000
    assert payload["saturated"].min() > 300
    assert payload["status"].tolist() == [0, 0]
    assert excess.max() < 0.02 + 5 * math.sqrt(2 * 85) / 10_000
    assert payload["gain"] == pytest.approx([1, 1], abs=5 * 0.15 / math.sqrt(10_000))


@pytest.mark.verify
def test_gain_and_lorentz_angle_of_simulated_events() -> None:
    """12 000 events of two vertices under the gain and angle of design: what was put in is found."""
    plan = geometry_of(full_geometry())
    design = {kind: constants.design(plan)[kind] for kind in ("gain", "lorentz_angle")}
    scenario = Scenario(physics=Physics(pile_up=1.0, z=0.05, jpsi=0.05, nzs=0.0))
    calibrations = charge_calibrations(plan)
    total: list[State] = [calibration.empty() for calibration in calibrations]
    for start in range(0, 12_000, 500):
        states = states_of(made(scenario, plan, np.arange(start, start + 500), design), calibrations)
        total = [before.merge(more) for before, more in zip(total, states, strict=True)]
    gain, angle = (c.finalize(s, design[c.kind]) for c, s in zip(calibrations, total, strict=True))
    true = truth(scenario, plan, SEED, RUN, 1)
    new = gain["status"] == GainStatus.NEW
    pull = (gain["gain"] - true["gain"]["gain"])[new] / gain["gain_error"][new]
    assert new.mean() > 0.6
    assert not (gain["status"] & GainStatus.MISFIT).any()
    assert abs(pull.mean()) < 3.3 / math.sqrt(new.sum()) + 0.0005 / np.median(gain["gain_error"][new])
    assert 0.9 < pull.std() < 1.1
    off = (angle["tan"] - true["lorentz_angle"]["tan"]) / np.hypot(angle["tan_error"], angle["scale_error"])
    assert angle["status"].tolist() == [0] * len(LAYERS)
    assert chi2.sf(np.sum(off**2), len(LAYERS)) > 1e-3
