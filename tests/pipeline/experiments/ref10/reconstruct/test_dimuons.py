"""Muons and pairs of them: mass and its error against plain loops, toys and the physics note."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.experiments.collisions import Collection
from pipeline.experiments.ref10.reconstruct.dimuons import MOST, Dimuons, PairFlag, dimuons
from pipeline.experiments.ref10.reconstruct.track_flags import TrackFlag
from pipeline.experiments.ref10.reconstruct.vertices import fit_vertices
from tests.pipeline.experiments.ref10.reconstruct import toy_tracks as toy
from tests.pipeline.experiments.ref10.reconstruct.naive_vertices import MUON, NaiveTrack, mass_and_error
from tests.pipeline.experiments.ref10.reconstruct.test_vertices import central, finite, same, taken

Floats = np.ndarray


def decays(rng: np.random.Generator, mass: Floats, pt: Floats) -> tuple[Floats, Floats, Floats]:
    """pT, phi and eta [2, n] of the muons that particles of |eta| below 0.8 decay to, in any direction."""
    n = len(mass)
    momentum, cosine, angle = np.sqrt(mass**2 / 4 - MUON**2), rng.uniform(-1, 1, n), rng.uniform(-np.pi, np.pi, n)
    across = np.sqrt(1 - cosine**2)
    own = momentum * np.array([across * np.cos(angle), across * np.sin(angle), cosine])
    phi, pz = rng.uniform(-np.pi, np.pi, n), pt * np.sinh(rng.uniform(-0.8, 0.8, n))
    parent = np.array([pt * np.cos(phi), pt * np.sin(phi), pz])
    energy = np.sqrt((parent**2).sum(axis=0) + mass**2)
    sides = []
    for one in (own, -own):
        along = (parent * one).sum(axis=0)
        sides.append(one + parent * (along / (energy + mass) + mass / 2) / mass)
    both = np.array(sides)
    size = np.hypot(both[:, 0], both[:, 1])
    return size, np.arctan2(both[:, 1], both[:, 0]), np.arcsinh(both[:, 2] / size)


def resonance(seed: int, mass: float, pt: tuple[float, float], least: float, events: int) -> tuple[Collection, Floats]:
    """Events of two muons and eight other tracks of one vertex, both muons within |eta| < 1 and above `least` GeV."""
    rng = np.random.default_rng(seed)
    size, phi, eta = decays(rng, np.full(6 * events, mass), rng.uniform(*pt, 6 * events))
    inside = np.flatnonzero(((np.abs(eta) < 1) & (size > least)).all(axis=0))[:events]
    assert len(inside) == events
    place = toy.places(rng, events)
    others = toy.soft(rng, 8 * events).reshape(8, events)
    both = [
        np.concatenate([part[:, inside], more]).T
        for part, more in (
            (size, others),
            (phi, rng.uniform(-np.pi, np.pi, (8, events))),
            (eta, rng.uniform(-1, 1, (8, events))),
        )
    ]
    charge = rng.choice([-1.0, 1.0], (events, 10))
    charge[:, 1] = -charge[:, 0]
    pt_of, phi_of, eta_of, charge_of = (part.ravel() for part in (*both, charge))
    truth = toy.helices(np.repeat(place, 10, axis=0), pt_of, phi_of, np.sinh(eta_of), charge_of)
    return toy.measured(np.full(events, 10), truth, pt_of, rng), place


def found(tracks: Collection, triggered: Floats | None = None) -> Dimuons:
    vertices, linked = fit_vertices(tracks, {})
    return dimuons(linked, vertices, np.ones(len(tracks.counts), bool) if triggered is None else triggered)


CASES = {"Z": (91.1876, (0.0, 20.0), 15.0, 0.84), "J/psi": (3.0969, (5.0, 15.0), 1.5, 0.0155)}


@pytest.mark.parametrize("name", list(CASES))
def test_masses_have_the_widths_of_the_physics_note_and_errors_that_are_right(name):
    mass, pt, least, width = CASES[name]
    tracks, _ = resonance(1, mass, pt, least, 2500)
    both = found(tracks)
    first = np.cumsum(both.muons.counts) - both.muons.counts
    sides = [first[both.pairs.event] + both.pairs.flat[side] for side in ("first", "second")]
    # The decay's own, not another track with one of them.
    real = (both.muons.flat["track"][sides] <= 1).all(axis=0)
    assert real.sum() > 2400
    off = both.pairs["mass"][real] - mass
    # A width of n values is known to 0.94 / sqrt(n), 2 %.
    assert central(off) == pytest.approx(width, rel=0.1)
    pull = off / both.pairs["mass_error"][real]
    assert 0.94 < central(pull) < 1.06
    assert abs(np.median(pull)) < 4 * 1.25 / np.sqrt(len(pull))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 12), min_size=1, max_size=4), st.floats(1.0, 60.0))
def test_as_in_plain_loops(seed, sizes, pt):
    rng = np.random.default_rng(seed)
    place = np.repeat(toy.places(rng, len(sizes)), sizes, axis=0)
    tracks = toy.from_places(rng, np.array(sizes), place, pt * rng.uniform(0.5, 2.0, len(place)))
    tracks.flat["flags"][rng.random(len(place)) < 0.1] = TrackFlag.STRAIGHT
    triggered = rng.random(len(sizes)) < 0.8
    vertices, linked = fit_vertices(tracks, {})
    muons, pairs = (lambda both: (both.muons, both.pairs))(dimuons(linked, vertices, triggered))
    first = np.cumsum(tracks.counts) - tracks.counts
    at = np.cumsum(vertices.counts) - vertices.counts
    muon, pair = 0, 0
    for event, number in enumerate(sizes):
        mine = [first[event] + i for i in range(number)]
        mine = [
            i
            for i in mine
            if triggered[event]
            and tracks.flat["pt"][i] > 1.5
            and not tracks.flat["flags"][i]
            and linked.flat["vertex_weight"][i] > 0.5
        ]
        mine.sort(key=lambda i: -tracks.flat["pt"][i])
        assert muons.counts[event] == len(mine)
        naive = []
        for i in mine:
            naive.append(NaiveTrack(tracks, i))
            vertex = at[event] + linked.flat["vertex"][i]
            naive[-1].move(vertices.flat["x"][vertex], vertices.flat["y"][vertex])
            assert muons.flat["track"][muon] == i - first[event]
            assert muons["dxy"][muon] == pytest.approx(naive[-1].near[0], abs=1e-12)
            assert muons["dz"][muon] == pytest.approx(naive[-1].near[1] - vertices.flat["z"][vertex], abs=1e-10)
            relative = np.sqrt(tracks.flat["cov_curvature_curvature"][i]) / abs(tracks.flat["curvature"][i])
            assert muons["pt_error"][muon] == pytest.approx(muons["pt"][muon] * relative)
            muon += 1
        wanted = [
            (a, b)
            for a in range(len(mine))
            for b in range(a + 1, len(mine))
            if linked.flat["vertex"][mine[a]] == linked.flat["vertex"][mine[b]]
        ]
        assert pairs.counts[event] == len(wanted)
        for a, b in wanted:
            assert (pairs.flat["first"][pair], pairs.flat["second"][pair]) == (a, b)
            assert pairs.flat["charge"][pair] == naive[a].charge + naive[b].charge
            mass, error = mass_and_error(naive[a], naive[b])
            assert pairs["mass"][pair] == pytest.approx(mass, rel=1e-7)
            assert pairs["mass_error"][pair] == pytest.approx(error, rel=1e-4)
            pair += 1


def test_an_event_has_the_same_bits_alone_and_among_others():
    tracks, _ = resonance(2, 3.0969, (5.0, 15.0), 1.5, 30)
    whole = found(tracks)
    for events in (slice(0, 1), slice(5, 6), slice(11, 30)):
        alone = found(taken(tracks, events))
        assert same(alone.muons, taken(whole.muons, events))
        assert same(alone.pairs, taken(whole.pairs, events))


def test_only_where_the_trigger_has_fired_and_only_hard_tracks_are_muons():
    tracks, _ = resonance(3, 91.19, (0.0, 20.0), 15.0, 40)
    triggered = np.arange(40) % 2 == 0
    both = found(tracks, triggered)
    assert (both.muons.counts[triggered] >= 2).all()
    assert not both.muons.counts[~triggered].any()
    assert not both.pairs.counts[~triggered].any()
    assert both.muons["pt"].min() > 1.5
    assert (np.diff(both.muons["pt"])[both.muons.event[1:] == both.muons.event[:-1]] <= 0).all()


@pytest.mark.parametrize("flag", [TrackFlag.SINGULAR, TrackFlag.UNSETTLED, TrackFlag.STRAIGHT, TrackFlag.NO_FIELD])
def test_tracks_without_a_sure_momentum_are_no_muons(flag):
    tracks, _ = resonance(4, 91.19, (0.0, 20.0), 15.0, 1)
    assert found(tracks).muons.flat["track"][:2].tolist() in ([0, 1], [1, 0])
    tracks.flat["flags"][0] |= np.uint8(flag)
    assert found(tracks).muons.flat["track"][0] == 1


def test_muons_of_two_vertices_are_no_pair():
    rng = np.random.default_rng(5)
    place = np.array([[0.08, -0.04, 0.0]] * 2 + [[0.08, -0.04, 2.0]] * 2)
    both = found(toy.from_places(rng, np.array([4]), place, np.full(4, 20.0)))
    assert both.muons.counts.tolist() == [4]
    assert both.pairs.counts.tolist() == [2]
    vertex = both.muons.flat["vertex"]
    assert (vertex[both.pairs.flat["first"]] == vertex[both.pairs.flat["second"]]).all()


def test_muons_that_fly_together_have_the_least_mass():
    """Digits are not lost; the vertex that these two alone make is said to be none."""
    truth = toy.helices(np.tile([0.08, -0.04, 0.0], (2, 1)), np.full(2, 50.0), np.zeros(2), np.zeros(2), np.ones(2))
    truth[1, 1] += 1e-9
    both = found(toy.collection([2], truth, toy.covariances(np.full(2, 50.0), truth[:, 0])))
    assert finite(both.pairs)
    assert both.pairs["mass"][0] == pytest.approx(2 * MUON, rel=1e-12)
    assert both.pairs.flat["charge"].tolist() == [2]
    assert both.pairs.flat["flags"].tolist() == [PairFlag.LOOSE_VERTEX]


def test_of_very_many_the_hardest_are_paired_and_that_is_noted():
    rng = np.random.default_rng(6)
    counts = np.array([500, 5])
    place = np.repeat(toy.places(rng, 2), counts, axis=0)
    both = found(toy.from_places(rng, counts, place, rng.uniform(2, 50, 505)))
    assert both.muons.counts[0] > 450
    # Some have no place at the vertex, or at one of a few that lie apart.
    assert 0.8 * MOST * (MOST - 1) / 2 < both.pairs.counts[0] <= MOST * (MOST - 1) / 2
    assert both.pairs.flat["second"].max() < MOST
    assert (both.pairs.flat["flags"] == np.where(both.pairs.event == 0, PairFlag.CROWDED, 0)).all()


def test_no_events_and_no_tracks():
    full = found(resonance(7, 91.19, (0.0, 20.0), 15.0, 2)[0])
    for counts in ([], [0, 0]):
        both = found(toy.collection(counts, np.zeros((0, 5)), np.zeros((0, 5, 5))))
        for one, other in ((both.muons, full.muons), (both.pairs, full.pairs)):
            assert one.counts.tolist() == counts
            assert {name: v.dtype for name, v in one.flat.items()} == {name: v.dtype for name, v in other.flat.items()}
