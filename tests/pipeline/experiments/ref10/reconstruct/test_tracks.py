"""Tracks fitted: exact hits, toys against errors and the physics note, a naive fit, and hits that make no track."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.experiments.collisions import Collection
from pipeline.experiments.ref10.alignment import KIND as ALIGNMENT
from pipeline.experiments.ref10.alignment import alignment, no_displacement
from pipeline.experiments.ref10.reconstruct import tracks as fitting
from pipeline.experiments.ref10.reconstruct.candidates import Candidates
from pipeline.experiments.ref10.reconstruct.helix import PARAMETERS
from pipeline.experiments.ref10.reconstruct.track_flags import FAILED, TrackFlag
from pipeline.experiments.ref10.reconstruct.track_hits import track_hits
from pipeline.experiments.ref10.reconstruct.tracks import (
    COVARIANCES,
    PAIRS,
    UNKNOWN,
    fit_tracks,
    hits_of_tracks,
    starting,
)
from tests.pipeline.experiments.ref10.reconstruct.flown import (
    FULL,
    PLAN,
    Flown,
    clusters_at,
    conditions,
    flown,
    one_each,
)
from tests.pipeline.experiments.ref10.reconstruct.naive_fit import NaiveFit, karimaki

TABLE = {1.0: (55e-4, 70e-4, 0.0063), 5.0: (17.7e-4, 36e-4, 0.0067), 20.0: (11.0e-4, 33e-4, 0.0085)}
"""sigma of d0 and z0 [cm] and of pT over pT at eta 0: physics note, 9.1"""


def fitted(some: Flown, hit=None) -> Collection:
    return fit_tracks(some.candidates if hit is None else one_each(hit), some.clusters, some.conditions)


def parameters(tracks) -> np.ndarray:
    return np.stack([tracks[name] for name in PARAMETERS])


def apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Differences of parameters, those of phi not by turns."""
    off = one - other
    off[1] = np.angle(np.exp(1j * off[1]))
    return off


def errors(tracks: Collection) -> np.ndarray:
    return np.stack([np.sqrt(tracks[f"cov_{name}_{name}"]) for name in PARAMETERS])


def covariances(tracks: Collection) -> np.ndarray:
    found = np.empty((5, 5, len(tracks.flat["phi"])))
    for name, (a, b) in zip(COVARIANCES, PAIRS, strict=True):
        found[a, b] = found[b, a] = tracks[name]
    return found


def same_bits(one: Collection, other: Collection) -> bool:
    return list(one.flat) == list(other.flat) and all(
        one.flat[name].tobytes() == other.flat[name].tobytes() and one.flat[name].dtype == other.flat[name].dtype
        for name in one.flat
    )


# what goes in comes out -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pt", [0.35, 1.0, 20.0, 1000.0])
def test_exact_hits_on_displaced_sensors_give_the_exact_track(pt):
    """Sensors are off by 0.1 mm and 1 mrad: what is left is rounding, the bound a hundredth of an error."""
    some = flown(np.full(60, pt), scatter=False, smear=False)
    tracks = fitted(some)
    enough = tracks.flat["hits"] >= 8
    assert enough.sum() > 40
    off = apart(parameters(tracks), parameters(some.truth)) / errors(tracks)
    assert np.abs(off[:, enough]).max() < (0.01 if pt < 0.5 else 1e-4)
    assert tracks["chi2"][enough].max() < 1e-4
    assert (tracks.flat["flags"][enough] & ~np.uint8(TrackFlag.STRAIGHT)).max() == 0
    assert tracks["pt"][enough] == pytest.approx(some.truth["pt"][enough], rel=1e-3)
    assert (tracks.flat["charge"] == np.sign(some.truth["curvature"])).all()


def test_columns_are_those_agreed():
    some = flown(np.full(3, 2.0))
    tracks = fitted(some)
    kinds = {name: values.dtype.name for name, values in tracks.flat.items()}
    whole = {"ndf": "int32", "hits": "int16", "pixel_hits": "int16", "charge": "int8", "flags": "uint8"}
    assert kinds == dict.fromkeys((*PARAMETERS, "chi2", "pt", *COVARIANCES), "float64") | whole
    assert tracks.counts.tolist() == [1, 1, 1]
    assert len(COVARIANCES) == 15
    seen = some.candidates.hit >= 0
    assert tracks.flat["hits"].tolist() == seen.sum(axis=1).tolist()
    assert tracks.flat["pixel_hits"].tolist() == seen[:, :4].sum(axis=1).tolist()
    assert tracks.flat["ndf"].tolist() == (seen.sum(axis=1) + seen[:, :4].sum(axis=1) - 5).tolist()
    assert ((tracks["phi"] > -np.pi) & (tracks["phi"] <= np.pi)).all()


# toys -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pt", list(TABLE))
def test_toys_spread_as_their_errors_and_the_physics_note_say(pt):
    """Scattered step by step by the simulation, not by V; wrong alignment and scattering are in none of it."""
    n = 3000
    some = flown(np.full(n, pt), seed=int(pt))
    tracks = fitted(some)
    good = tracks.flat["hits"] >= 8
    n = int(good.sum())
    assert (tracks.flat["flags"][good] == 0).all()
    off = apart(parameters(tracks), parameters(some.truth))[:, good]
    pull = off / errors(tracks)[:, good]
    assert (np.abs(pull.mean(axis=1)) < 4 / np.sqrt(n)).all(), pull.mean(axis=1)
    # The spread of a Gaussian is known to 1 / sqrt(2 n), 1.3 %.
    assert (np.abs(pull.std(axis=1) - 1) < 0.03 + 4 / np.sqrt(2 * n)).all(), pull.std(axis=1)
    assert (tracks["chi2"] / tracks["ndf"])[good].mean() == pytest.approx(1, abs=0.02 + 4 * np.sqrt(2 / 9 / n))
    d0, z0, momentum = TABLE[pt]
    assert off[2].std() == pytest.approx(d0, rel=0.3)
    assert off[3].std() == pytest.approx(z0, rel=0.3)
    assert (tracks["pt"] / some.truth["pt"] - 1)[good].std() == pytest.approx(momentum, rel=0.3)


def test_correlations_are_those_of_the_toys():
    """The whole 5 x 5: parameters taken apart along its axes have spread 1 and nothing in common."""
    some = flown(np.full(2500, 2.0), seed=9)
    tracks = fitted(some)
    good = tracks.flat["hits"] >= 8
    off = apart(parameters(tracks), parameters(some.truth))[:, good]
    lower = np.linalg.cholesky(covariances(tracks)[..., good].transpose(2, 0, 1))
    seen = np.cov(np.linalg.solve(lower, off.T[..., None])[..., 0].T)
    assert np.abs(seen - np.eye(5)).max() < 0.03 + 4 * np.sqrt(2 / good.sum())


def test_scattering_left_out_would_be_seen():
    """At 1 GeV the hits' own errors explain a small part of the spread: chi2 of the circle alone is far off."""
    some = flown(np.full(300, 1.0))
    hits = track_hits(some.candidates.hit, some.clusters, some.conditions)
    x, y, _ = hits.points
    flat = [layer for layer in range(10) if layer != 4]
    weight = np.where(hits.seen, 1 / hits.u_error**2, 0.0)
    ratio = [
        karimaki([(x[i, track], y[i, track], weight[i, track]) for i in flat])[3] / (weight[flat, track] > 0).sum()
        for track in range(300)
    ]
    assert np.mean(ratio) > 5


# the naive fit --------------------------------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(st.floats(0.8, 30), st.integers(0, 2**32 - 1), st.lists(st.integers(0, 9), max_size=4, unique=True)),
        min_size=1,
        max_size=3,
    )
)
@settings(max_examples=12, deadline=None)
def test_fits_are_the_naive_ones(several):
    """To 1 % of the errors: two steps against three."""
    some = flown(np.array([pt for pt, _, _ in several]), seed=several[0][1])
    hit = some.candidates.hit.copy()
    for track, (_, _, lost) in enumerate(several):
        hit[track, lost] = -1
    enough = ((hit >= 0).sum(axis=1) >= 6) & ((hit[:, :4] >= 0).sum(axis=1) >= 2)
    off, spread, chi2 = from_naive(some, hit, np.flatnonzero(enough))
    assert (off < 0.01).all()
    assert (spread < 0.01).all()
    assert (chi2 < 0.01).all()


def from_naive(some: Flown, hit: np.ndarray, tracks, *, renewed: bool = False) -> tuple[np.ndarray, ...]:
    """How far these fits are from naive ones, each the most: parameters and covariance in units of the errors, chi2
    over 1 and itself."""
    fits = fitted(some, hit)
    begin, _ = starting(track_hits(hit, some.clusters, some.conditions))
    naive = NaiveFit(some.conditions, some.clusters)
    off = []
    for track in tracks:
        found, cov, chi2 = naive.fit(hit[track], parameters(vars(begin))[:, track], renewed=renewed)
        scale = np.sqrt(np.diag(cov))
        off.append(
            (
                np.abs(apart(parameters(fits)[:, track], found) / scale).max(),
                np.abs((covariances(fits)[..., track] - cov) / np.outer(scale, scale)).max(),
                abs(fits["chi2"][track] - chi2) / (1 + chi2),
            )
        )
    return tuple(np.array(off).reshape(-1, 3).T)


def test_derivatives_of_the_start_lead_to_the_least_chi2():
    """Renewed in each step they would move tracks of 1 GeV by 5 % of their errors at the most."""
    some = flown(np.full(12, 1.0), seed=6)
    off, spread, chi2 = from_naive(some, some.candidates.hit, range(12), renewed=True)
    assert off.max() < 0.1
    assert spread.max() < 0.05
    assert chi2.max() < 0.01


def test_a_start_is_a_circle_and_a_line_through_the_hits():
    some = flown(np.full(20, 3.0))
    hits = track_hits(some.candidates.hit, some.clusters, some.conditions)
    begin, found = starting(hits)
    assert found.all()
    x, y, _ = hits.points
    for track in range(20):
        seen = [i for i in range(10) if hits.seen[i, track]]
        tilt = np.hypot(hits.planes.v[0], hits.planes.v[1])[:, track]
        variance = hits.u_error[:, track] ** 2 + (hits.v_error[:, track] * tilt) ** 2
        rho, phi, d0, _ = karimaki([(x[i, track], y[i, track], 1 / variance[i]) for i in seen])
        assert begin.curvature[track] == pytest.approx(rho, rel=1e-6)
        assert np.cos(begin.phi[track] - phi) == pytest.approx(1)
        assert begin.d0[track] == pytest.approx(d0, abs=1e-7)
        assert begin.z0[track] == pytest.approx(some.truth["z0"][track], abs=0.1)
        assert begin.cot_theta[track] == pytest.approx(some.truth["cot_theta"][track], abs=0.02)


# neighbours -----------------------------------------------------------------------------------------------------------


MIXED = fitting.BLOCK + 76


@pytest.fixture(scope="module")
def mixed() -> tuple[Flown, np.ndarray]:
    """Tracks of all momenta, some short, some with nothing or nonsense to fit."""
    some = flown(np.geomspace(0.35, 200, MIXED), seed=4)
    hit = some.candidates.hit.copy()
    rng = np.random.default_rng(4)
    hit[rng.random(hit.shape) < 0.1] = -1
    hit[::50] = -1
    hit[1::50, 2:] = -1
    return some, hit


@pytest.mark.parametrize("chosen", [[0], [3], [51, 699], range(100, 613), range(0, MIXED, 7)], ids=str)
def test_a_track_has_the_same_bits_whatever_is_fitted_with_it(mixed, chosen):
    some, hit = mixed
    whole = fitted(some, hit)
    alone = fitted(some, hit[list(chosen)])
    of_whole = Collection(alone.counts, {name: values[list(chosen)] for name, values in whole.flat.items()})
    assert same_bits(of_whole, alone)


def test_blocks_do_not_show(mixed):
    some, hit = mixed
    parts = [fitted(some, hit[start : start + 100]) for start in range(0, MIXED, 100)]
    flat = {name: np.concatenate([part.flat[name] for part in parts]) for name in parts[0].flat}
    assert same_bits(fitted(some, hit), Collection(np.ones(MIXED, np.int64), flat))


def test_memory_goes_with_a_block_not_with_the_tracks(mixed):
    some, hit = mixed
    many = np.tile(hit, (10, 1))
    assert len(many) > 10 * fitting.BLOCK
    fitted(some, hit)
    tracemalloc.start()
    fitted(some, many)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    columns = 30 * 8
    assert peak < 8_000 * fitting.BLOCK + 3 * columns * len(many)


# what is no track -----------------------------------------------------------------------------------------------------


def finite(tracks: Collection) -> bool:
    return all(np.isfinite(values).all() for values in tracks.flat.values())


def unfitted(tracks: Collection) -> bool:
    """Values 0, variances so large that the track has no weight."""
    diagonal = [f"cov_{name}_{name}" for name in PARAMETERS]
    nothing = (*PARAMETERS, "chi2", "pt", "charge", "ndf", *(set(COVARIANCES) - set(diagonal)))
    return all((tracks[name] == 0).all() for name in nothing) and all(
        (tracks[name] == UNKNOWN).all() for name in diagonal
    )


def test_no_tracks_no_events():
    some = flown(np.full(2, 1.0))
    nothing = np.zeros((0, 10), np.int64)
    for counts in (np.zeros(0, np.int64), np.zeros(3, np.int64)):
        found = fit_tracks(Candidates(counts, nothing, np.zeros(len(counts), np.uint8)), some.clusters, some.conditions)
        assert found.counts.tolist() == counts.tolist()
        assert {len(values) for values in found.flat.values()} == {0}
        assert {name: v.dtype for name, v in found.flat.items()} == {n: v.dtype for n, v in fitted(some).flat.items()}


@pytest.mark.parametrize(
    ("kept", "flag"),
    [
        ([], TrackFlag.TOO_FEW),
        ([0, 1], TrackFlag.TOO_FEW),
        ([0, 8, 9], TrackFlag.TOO_FEW),
        ([5, 6, 7, 8, 9], TrackFlag.SINGULAR),
        ([4, 5, 6, 7, 8, 9], TrackFlag.SINGULAR),
    ],
    ids=["none", "two", "four measurements", "nothing tells z", "a stereo layer alone tells z"],
)
def test_hits_that_do_not_fix_a_track_are_flagged(kept, flag):
    """Nothing is displaced: strips that are turned by a milliradian do tell z, to some centimetres."""
    some = flown(np.full(40, 1.0), under=conditions(moved=no_displacement(PLAN)))
    hit = some.candidates.hit[(some.candidates.hit >= 0).all(axis=1)][:3]
    hit[:, np.setdiff1d(np.arange(10), kept)] = -1
    tracks = fitted(some, hit)
    assert (tracks.flat["flags"] & np.uint8(flag)).all()
    assert unfitted(tracks)


@pytest.mark.parametrize("kept", [[0, 1, 2], [0, 1, 2, 3], [0, 1, 9], [0, 4, 5, 6, 7, 8, 9]], ids=str)
def test_few_hits_fit_if_they_fix_all(kept):
    """Three and four pixels; two and a far strip, without a degree of freedom; one pixel and the stereo layer for z."""
    some = flown(np.full(400, 5.0), seed=8)
    hit = some.candidates.hit[(some.candidates.hit >= 0).all(axis=1)]
    truth = parameters(some.truth)[:, (some.candidates.hit >= 0).all(axis=1)]
    hit[:, np.setdiff1d(np.arange(10), kept)] = -1
    tracks = fitted(some, hit)
    assert not (tracks.flat["flags"] & np.uint8(FAILED)).any()
    pull = apart(parameters(tracks), truth) / errors(tracks)
    assert (np.abs(pull.std(axis=1) - 1) < 0.05 + 4 / np.sqrt(2 * len(hit))).all(), pull.std(axis=1)
    pixels = sum(layer < 4 for layer in kept)
    assert (tracks.flat["ndf"] == len(kept) + pixels - 5).all()


def by_hand(rows, u=0.0) -> Flown:
    """A track of the middle of these modules, where they were drawn."""
    rows = np.asarray(rows)
    n = len(rows)
    flat = clusters_at(rows, np.full(n, u), np.zeros(n), np.zeros((2, n)))
    hit = np.full((1, 10), -1)
    hit[0, PLAN.layer[rows] - 1] = np.arange(n)
    return Flown({}, Collection(np.array([n]), flat), one_each(hit), conditions(moved=no_displacement(PLAN)))


def at_azimuth(phi: float, layers=range(1, 11)) -> list[int]:
    """The modules of each layer nearest to an azimuth, just above z = 0."""
    found = []
    for layer in layers:
        rows = np.flatnonzero((PLAN.layer == layer) & (PLAN.z_module == 5))
        found.append(int(rows[np.argmin(np.abs(np.angle(np.exp(1j * (PLAN.phi[rows] - phi)))))]))
    return found


def test_three_hits_in_a_line_make_a_straight_track():
    """Modules' middles are not in a line; points of them are, along one azimuth."""
    rows = np.array(at_azimuth(1.0, (1, 2, 3)))
    drawn = by_hand(rows)
    u = PLAN.radius[rows] * np.tan(1.0 - PLAN.phi[rows]) * np.where(PLAN.flipped[rows], -1, 1)
    flat = drawn.clusters.flat | {"u": u, "v": 0.5 - PLAN.centre[rows, 2]}
    tracks = fitted(replace(drawn, clusters=Collection(drawn.clusters.counts, flat)))
    assert tracks.flat["flags"].tolist() == [TrackFlag.STRAIGHT]
    assert tracks["phi"][0] == pytest.approx(1.0, abs=1e-9)
    assert abs(tracks["curvature"][0]) < 1e-9
    assert tracks["d0"][0] == pytest.approx(0, abs=1e-9)
    assert tracks["z0"][0] == pytest.approx(0.5, abs=1e-9)
    assert tracks["pt"][0] == fitting.LARGEST_PT
    assert finite(tracks)


def test_a_track_without_any_curvature_is_not_divided_by_it():
    """Of 1e9 GeV: the curvature found is a rounding error, or nothing."""
    some = flown(np.full(50, 1e9), scatter=False, smear=False)
    tracks = fitted(some)
    assert finite(tracks)
    assert (tracks.flat["flags"] == TrackFlag.STRAIGHT).all()
    assert (tracks["pt"] == fitting.LARGEST_PT).all()
    assert np.abs(tracks["d0"] - some.truth["d0"]).max() < 1e-9


def test_identical_hits_are_no_track():
    """Ten sensors that the alignment has put upon each other, each hit in its middle."""
    rows = np.array(at_azimuth(1.0))
    drawn = by_hand(rows)
    shift = np.zeros((len(PLAN), 6))
    # Every sensor moved, in its own axes, to lie upon the first.
    away = PLAN.centre[rows[0]] - PLAN.centre[rows]
    for number, axis in enumerate((PLAN.u, PLAN.v, PLAN.w)):
        shift[rows, number] = (away * axis[rows]).sum(axis=1)
    still = drawn.conditions[ALIGNMENT]
    moved = drawn.conditions | {ALIGNMENT: alignment(still["half_barrel"], still["ladder"], shift)}
    tracks = fitted(replace(drawn, conditions=moved))
    assert (tracks.flat["flags"] & np.uint8(TrackFlag.SINGULAR)).all()
    assert unfitted(tracks)


@pytest.mark.parametrize("seed", range(3))
def test_hits_of_nothing_are_flagged_or_at_least_finite(seed):
    """Clusters anywhere on any ladder: no track at all, and chi2 says so where no flag does."""
    rng = np.random.default_rng(seed)
    rows = np.stack([rng.choice(np.flatnonzero(PLAN.layer == layer), 200) for layer in range(1, 11)], axis=1).ravel()
    u, v = (rng.uniform(-0.5, 0.5, len(rows)) * size[rows] for size in (PLAN.width, PLAN.length))
    clusters = Collection(np.full(200, 10), clusters_at(rows, u, v, np.zeros((2, len(rows)))))
    tracks = fit_tracks(one_each(np.arange(2000).reshape(200, 10)), clusters, conditions())
    assert finite(tracks)
    for flag in (TrackFlag.UNREACHED, TrackFlag.UNSETTLED):
        assert (tracks.flat["flags"] & np.uint8(flag)).any()
    bad = (tracks.flat["flags"] & np.uint8(TrackFlag.UNREACHED | TrackFlag.UNSETTLED | FAILED)) > 0
    assert bad.mean() > 0.99
    assert (bad | (tracks["chi2"] > 1e4)).all()


def test_without_a_field_tracks_have_directions_and_no_momentum():
    some = flown(np.full(500, 1.0), under=conditions(0.0))
    tracks = fitted(some)
    assert (tracks.flat["flags"] & np.uint8(TrackFlag.NO_FIELD)).all()
    assert not tracks["pt"].any()
    assert not tracks.flat["charge"].any()
    good = tracks.flat["hits"] >= 8
    off = (apart(parameters(tracks), parameters(some.truth)) / errors(tracks))[:, good]
    # Flown with 1 GeV of pT, scattered as of 1 GeV of p: not far off.
    assert (np.abs(off.std(axis=1) - 0.9) < 0.2).all()


def test_a_field_turned_round_turns_curvatures_round_and_not_charges():
    ahead, back = (flown(np.full(30, 1.0), under=conditions(tesla)) for tesla in (3.8, -3.8))
    assert (np.sign(ahead.truth["curvature"]) == -np.sign(back.truth["curvature"])).all()
    assert (fitted(ahead).flat["charge"] == fitted(back).flat["charge"]).all()
    assert fitted(back)["pt"] == pytest.approx(np.full(30, 1.0), rel=0.05)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda hit: np.roll(hit, 1, axis=1), "has on layer 1 a cluster of layer 10"),
        (lambda hit: hit[:, :9], "one for each layer"),
        (lambda hit: hit + 10**6, "are they of other events"),
    ],
    ids=["wrong layers", "nine layers", "of other events"],
)
def test_hits_that_are_none_are_refused(change, said):
    some = flown(np.full(40, 5.0))
    hit = some.candidates.hit[(some.candidates.hit >= 0).all(axis=1)]
    with pytest.raises(ValueError, match=said):
        fitted(some, change(hit))


def test_hits_are_listed_by_event_and_outwards():
    clusters = Collection(np.array([4, 0, 3]), {"module": np.zeros(7, np.uint32)})
    hit = np.full((3, 10), -1)
    hit[0, [0, 2]] = [3, 1]
    hit[1, [1, 9]] = [0, 2]
    hit[2, [0, 1, 5]] = [6, 4, 5]
    found = hits_of_tracks(Candidates(np.array([2, 0, 1]), hit, np.zeros(3, np.uint8)), clusters)
    assert found.counts.tolist() == [4, 0, 3]
    assert found.flat["hit"].tolist() == [3, 1, 0, 2, 2, 0, 1]
    assert found.flat["hit"].dtype == np.uint32


def test_the_geometry_is_the_detectors():
    assert conditions()["geometry"].id == FULL.id
