"""What REF10's tracks say of alignment: slopes against displaced frames, what the fit said, and back to the truth."""

from __future__ import annotations

from functools import cache
from typing import Any

import awkward as ak
import numpy as np
import pytest

from calib.algorithms.alignment_records import COLUMNS
from calib.payload import Payload
from pipeline.experiments.collisions import Collection
from pipeline.experiments.ref10.alignment import KIND as ALIGNMENT
from pipeline.experiments.ref10.alignment import alignment, frames, no_displacement
from pipeline.experiments.ref10.measured_alignment import (
    LEVELS,
    MOMENTUM,
    Stiff,
    _log_mass,
    _record,
    alignment_calibration,
    alignment_columns,
    stiff_tracks,
)
from pipeline.experiments.ref10.reconstruct.helix import CURVATURE_GEV, Helix
from pipeline.experiments.ref10.reconstruct.objects import Objects
from pipeline.experiments.ref10.reconstruct.tracks import fit_tracks, hits_of_tracks
from tests.pipeline.experiments.ref10.reconstruct.flown import PLAN, Flown, conditions, displaced, flown

Conditions = dict[str, Payload]


def found_of(some: Flown, under: Conditions) -> Objects:
    """Tracks of the candidates of flown tracks, fitted under other conditions."""
    tracks = fit_tracks(some.candidates, some.clusters, under)
    hits = hits_of_tracks(some.candidates, some.clusters)
    nothing = Collection(np.zeros(len(tracks.counts), np.int64), {})
    return Objects(tracks, hits, nothing, nothing, nothing, some.candidates.flags)


def under(payload: Payload) -> Conditions:
    return conditions(moved=payload)


def columns_of(some: Flown, payload: Payload) -> dict[str, Any]:
    """The columns of flown tracks that are fitted under an alignment."""
    events = len(some.clusters.counts)
    where = {"run": np.ones(events, np.int64), "lumi": np.ones(events, np.int64), "event": np.arange(events)}
    found = found_of(some, under(payload))
    return where | alignment_columns(some.clusters, found, under(payload), z_mass=False)


@cache
def stiff(tracks: int = 120, seed: int = 3) -> Flown:
    return flown(np.random.default_rng(seed).uniform(4, 30, tracks), seed=seed, under=under(displaced(scale=0.1)))


def moved_by(payload: Payload, level: str, structure: int, step: np.ndarray) -> Payload:
    arrays = {name: payload[name].copy() for name in LEVELS}
    arrays[level][structure] += step
    return alignment(*(arrays[name] for name in LEVELS))


@pytest.mark.parametrize("level", LEVELS)
def test_slopes_are_those_of_displaced_structures(level: str) -> None:
    some, rng = stiff(), np.random.default_rng(8)
    base = displaced(scale=0.1)
    tracks = stiff_tracks(some.clusters, found_of(some, under(base)), PLAN)
    before = _record(tracks, some.clusters, under(base)).flat()
    at = before["labels"][0].reshape(-1, len(LEVELS))[:, LEVELS.index(level)]
    given = before["slopes"][0].reshape(-1, len(LEVELS), 6)[:, LEVELS.index(level)]
    for structure in rng.choice(np.unique(at), 4, replace=False):
        step = rng.normal(0, 1, 6) * ([1e-4] * 3 + [1e-6] * 3)
        after = _record(tracks, some.clusters, under(moved_by(base, level, int(structure), step))).flat()
        change = after["residuals"][0] - before["residuals"][0]
        on = at == structure
        assert on.any() and np.abs(change[~on]).max() == 0
        # Expected moves by the structure, measured stays; second order is a thousandth, as angles of the base are.
        assert np.abs(change[on] + given[on] @ step).max() < 4e-3 * np.abs(given[on] * step).sum(axis=1).max()


def test_residuals_are_those_that_the_fit_leaves() -> None:
    some, base = stiff(), displaced(scale=0.1)
    found = found_of(some, under(base))
    columns = columns_of(some, base)
    chosen = ak.num(columns["alignment_measurements"]).to_numpy() > 0
    chi2 = []
    for event in np.flatnonzero(chosen):
        m = int(columns["alignment_measurements"][event][0])
        r = columns["alignment_residuals"][event].to_numpy()
        a = columns["alignment_derivatives"][event].to_numpy().reshape(m, 5)
        v = np.zeros((m, m))
        v[np.tril_indices(m)] = columns["alignment_covariance"][event].to_numpy()
        w = np.linalg.inv(np.where(np.tri(m) > 0, v, v.T))
        chi2.append(r @ w @ r)
        step = np.linalg.solve(a.T @ w @ a, a.T @ w @ r)
        errors = np.sqrt(np.diag(np.linalg.inv(a.T @ w @ a)))
        assert np.abs(step / errors).max() < 0.02
    assert np.array(chi2) == pytest.approx(found.tracks.flat["chi2"][chosen], rel=0.005, abs=0.02)


def test_stiff_tracks_with_enough_hits_are_looked_at() -> None:
    pt = np.array([0.9, 4.5, 4.5, 20.0, 3.95])
    some = flown(pt, seed=4, under=under(displaced(scale=0.1)))
    hit = some.candidates.hit.copy()
    lost = np.flatnonzero(hit[2] >= 0)[4:7]
    hit[2, lost] = -1
    fewer = type(some.candidates)(some.candidates.counts, hit, some.candidates.flags)
    few = Flown(some.truth, some.clusters, fewer, some.conditions)
    chosen = stiff_tracks(few.clusters, found_of(few, some.conditions), PLAN)
    momentum = pt * np.sqrt(1 + some.truth["cot_theta"] ** 2)
    enough = (hit >= 0).sum(axis=1) >= 8
    assert chosen.event.tolist() == np.flatnonzero((momentum > MOMENTUM) & enough).tolist()
    assert 2 not in chosen.event and 3 in chosen.event and 0 not in chosen.event
    assert (chosen.hit == hit[chosen.event]).all()


def test_events_do_not_know_of_each_other() -> None:
    some = stiff(30, 5)
    base = displaced(scale=0.1)
    whole = columns_of(some, base)
    first = np.cumsum(some.clusters.counts) - some.clusters.counts
    for event in (0, 7, 29):
        clusters = some.clusters.of_events(np.arange(30) == event)
        hit = some.candidates.hit[event : event + 1]
        hit = np.where(hit >= 0, hit - first[event], -1)
        one = type(some.candidates)(np.ones(1, np.int64), hit, np.zeros(1, np.uint8))
        alone = columns_of(Flown({}, clusters, one, some.conditions), base)
        for name in COLUMNS:
            assert ak.to_list(alone[name][0]) == ak.to_list(whole[name][event]), name


def test_no_event_and_events_without_tracks() -> None:
    some = flown(np.full(3, 0.6), seed=6, under=under(no_displacement(PLAN)))
    columns = columns_of(some, no_displacement(PLAN))
    assert all(ak.num(columns[name]).tolist() == [0, 0, 0] for name in COLUMNS)
    calibration = alignment_calibration(PLAN)
    state = calibration.accumulate(columns, {ALIGNMENT: no_displacement(PLAN)})
    assert state["fit"].units().tolist() == [1 << 32 | 1] and not len(state["fit"].keys)


def test_half_barrels_that_were_moved_are_found() -> None:
    still = no_displacement(PLAN)
    step = np.array([[50e-4, -30e-4, 40e-4, 0, 0, 100e-6], [-20e-4, 60e-4, -80e-4, 0, 0, 0]])
    truth = moved_by(moved_by(still, "half_barrel", 0, step[0]), "half_barrel", 1, step[1])
    some = flown(np.random.default_rng(9).uniform(3, 20, 900), seed=9, under=under(truth))
    calibration = alignment_calibration(PLAN)
    calibration = type(calibration)(levels=calibration.levels, free=("half_barrel 0-1: x y z rz",), min_records=500)
    payload, moved = still, []
    for _ in range(3):
        state = calibration.accumulate(columns_of(some, payload), {ALIGNMENT: payload})
        before, payload = payload, calibration.finalize(state, payload)
        moved.append(calibration.moved(payload, before))
    assert moved[0] > 100 and moved[-1] <= 1
    free = [0, 1, 2, 5]
    off = (payload["half_barrel"][:2] - truth["half_barrel"][:2])[:, free]
    errors = payload["half_barrel_error"][:2][:, free]
    assert (errors[:, :2] < 4e-4).all() and np.abs(off / errors).max() < 4
    assert float(payload["chi2_ndf"]) == pytest.approx(1, abs=0.08)
    # What was measured is taken by all that asks where modules are.
    assert np.abs(frames(PLAN, payload).centre - frames(PLAN, truth).centre)[PLAN.pixel].max() < 40e-4


def a_pair(some: Flown) -> tuple[Objects, Flown]:
    """Tracks of two events each as one event's: the first two as muons of a Z, and one more."""
    found = found_of(some, some.conditions)
    counts = found.tracks.counts.reshape(-1, 2).sum(axis=1)
    clusters = Collection(some.clusters.counts.reshape(-1, 2).sum(axis=1), some.clusters.flat)
    first = np.cumsum(some.clusters.counts) - some.clusters.counts
    in_event = first - np.repeat(first[::2], 2)
    hits = Collection(
        found.hits.counts.reshape(-1, 2).sum(axis=1),
        {"hit": found.hits.flat["hit"] + in_event[found.hits.event].astype(np.uint32)},
    )
    events = len(counts)
    muons = Collection(counts, {"track": np.tile(np.array([1, 0], np.int32), events)})
    pairs = Collection(
        np.ones(events, np.int64),
        {
            "charge": np.zeros(events, np.int8),
            "mass": np.full(events, 90.0),
            "first": np.zeros(events, np.int32),
            "second": np.ones(events, np.int32),
        },
    )
    tracks = Collection(counts, found.tracks.flat)
    nothing = Collection(np.zeros(events, np.int64), {})
    return Objects(tracks, hits, nothing, muons, pairs, np.zeros(events, np.uint8)), Flown(
        {}, clusters, some.candidates, some.conditions
    )


def test_the_muons_of_a_z_are_one_record() -> None:
    found, some = a_pair(stiff(12, 7))
    alone = alignment_columns(some.clusters, found, some.conditions, z_mass=False)
    pairs = Collection(found.pairs.counts, dict(found.pairs.flat) | {"mass": np.where(np.arange(6) == 2, 60.0, 90.0)})
    found = Objects(found.tracks, found.hits, found.vertices, found.muons, pairs, found.flags)
    columns = alignment_columns(some.clusters, found, some.conditions)
    for event in range(6):
        m, k = columns["alignment_measurements"][event].tolist(), columns["alignment_parameters"][event].tolist()
        each = alone["alignment_measurements"][event].tolist()
        assert (m, k) == ((each, [5, 5]) if event == 2 else ([sum(each) + 1], [10]))
    before = alone["alignment_residuals"][0].tolist()
    first, second = before[: alone["alignment_measurements"][0][0]], before[alone["alignment_measurements"][0][0] :]
    assert columns["alignment_residuals"][0].tolist()[:-1] == second + first  # the muon of larger pT is track 1
    assert columns["alignment_labels"][0].tolist()[-3:] == [-1, -1, -1]
    calibration = alignment_calibration(PLAN)
    where = {name: np.arange(6) + 1 for name in ("run", "lumi", "event")}
    state = calibration.accumulate(where | columns, {ALIGNMENT: displaced(scale=0.1)})
    assert state["fit"].columns["records"].sum() == 7


def test_the_mass_goes_with_the_parameters_as_told() -> None:
    rng = np.random.default_rng(14)
    n = 50
    values = rng.normal(0, 1, (2, 5, n)) * np.array([3e-4, 3.0, 0.1, 3.0, 0.7])[:, None]
    one, other = (Helix(*side) for side in values)
    log_mass, told = _log_mass(one, other)
    bending = CURVATURE_GEV * 3.8
    for place in range(n):
        p = []
        for helix in (one, other):
            pt, phi = bending / abs(helix.curvature[place]), helix.phi[place]
            p.append(pt * np.array([np.cos(phi), np.sin(phi), helix.cot_theta[place]]))
        energy = sum(np.linalg.norm(each) for each in p)
        assert np.exp(log_mass[place]) * bending == pytest.approx(np.sqrt(energy**2 - np.sum(sum(p) ** 2)), rel=1e-9)
    for side in range(2):
        for parameter in range(5):
            step = 1e-6 * np.abs(values[side, parameter]).max()
            more = values.copy()
            more[side, parameter] += step
            change = (_log_mass(*(Helix(*each) for each in more))[0] - log_mass) / step
            assert change == pytest.approx(
                told[:, 5 * side + parameter], rel=1e-3, abs=1e-4 * np.abs(change).max() + 1e-9
            )


def test_what_moves_is_asked_of_a_record_only_where_it_was_hit() -> None:
    some, base = stiff(), displaced(scale=0.1)
    tracks = stiff_tracks(some.clusters, found_of(some, under(base)), PLAN)
    part = tracks.where(np.arange(5))
    assert isinstance(part, Stiff) and len(part.event) == 5
    found = _record(part, some.clusters, under(base)).flat()
    measurements = (part.hit >= 0).sum(axis=1) + (part.hit[:, :4] >= 0).sum(axis=1)
    assert found["measurements"][0].tolist() == measurements.tolist()
    labels = found["labels"][0].reshape(-1, len(LEVELS))
    assert (labels >= 0).all() and labels.max(axis=0)[2] < len(PLAN)
