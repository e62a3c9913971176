"""Tracks of vertices along the beam: what is kept apart, what is kept together, and how well."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.experiments.ref10.reconstruct.vertex_clusters import DEFAULT, Separation, vertex_clusters
from pipeline.experiments.ref10.reconstruct.vertices import fit_vertices
from tests.pipeline.experiments.ref10.reconstruct import toy_tracks as toy
from tests.pipeline.experiments.ref10.reconstruct.naive_vertices import clusters_of

GAPS_ONLY = Separation(gain=np.inf)


def clusters(z, error=0.005, event=None, separation=DEFAULT):
    z = np.asarray(z, float)
    event = np.zeros(len(z), np.int64) if event is None else np.asarray(event)
    return vertex_clusters(event, z, np.broadcast_to(np.asarray(error, float), z.shape), separation).tolist()


def test_a_gap_must_be_of_one_millimetre():
    assert clusters([0.0, 0.099], separation=GAPS_ONLY) == [0, 0]
    assert clusters([0.0, 0.101], separation=GAPS_ONLY) == [0, 1]
    assert clusters([0.101, 0.0], separation=GAPS_ONLY) == [1, 0]


@pytest.mark.parametrize("error", [[0.005, 0.03], [0.03, 0.005]])
def test_and_of_five_errors_of_the_one_less_well_known(error):
    assert clusters([0.0, 0.149], error, separation=GAPS_ONLY) == [0, 0]
    assert clusters([0.0, 0.151], error, separation=GAPS_ONLY) == [0, 1]


def test_events_are_apart_however_near():
    assert clusters([0.0, 0.0, 0.0], event=[0, 2, 2]) == [0, 1, 1]
    assert clusters([]) == []


def test_what_one_vertex_cannot_explain_is_split_and_nothing_else():
    """Two groups of three at 0.6 mm, 50 um: 6 / 4 x 12^2 = 216 of chi2 less, 21 is asked for."""
    near = [0.0, 0.0, 0.0, 0.06, 0.06, 0.06]
    assert clusters(near) == [0, 0, 0, 1, 1, 1]
    assert clusters(near, separation=GAPS_ONLY) == [0] * 6
    assert clusters([*near, 0.12, 0.12]) == [0, 0, 0, 1, 1, 1, 2, 2]
    # 6 / 4 x (z / 50 um)^2 against 15 + 6.
    assert clusters(np.array(near) * 0.0185 / 0.06) == [0] * 6
    assert clusters(np.array(near) * 0.0189 / 0.06) == [0, 0, 0, 1, 1, 1]
    # One that is far off takes no other with it.
    assert clusters([0.0, 0.0, 0.0, 0.0, 0.0, 0.09]) == [0, 0, 0, 0, 0, 1]


def test_tracks_that_say_nothing_split_nothing():
    """2 mm of error is of no weight."""
    assert clusters([0.0, 0.2, 0.4, 0.6, 0.8], 0.2) == [0] * 5


@pytest.mark.parametrize("number", [2, 500, 10_000])
def test_as_many_tracks_as_there_may_be_in_a_chain_over_the_whole_beam(number):
    """Of the best errors: the largest sums there are."""
    z = np.repeat(np.linspace(-16, 16, 401), -(-number // 400))[:number]
    assert clusters(z, 0.002) == np.unique(z, return_inverse=True)[1].tolist()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 40), min_size=1, max_size=5), st.floats(0.02, 3.0))
def test_as_with_exact_numbers_in_plain_loops(seed, counts, width):
    rng = np.random.default_rng(seed)
    event = np.repeat(np.arange(len(counts)), counts)
    error = 0.003 * 10 ** rng.uniform(0, 1.5, len(event))
    z = np.round(rng.normal(0, width, len(event)), 2) + error * rng.normal(size=len(event))
    found = vertex_clusters(event, z, error)
    before = 0
    for number, start in zip(counts, np.cumsum(counts) - counts, strict=True):
        some = slice(start, start + number)
        wanted = clusters_of(z[some].tolist(), error[some].tolist(), DEFAULT)
        named = np.full(number, -1)
        for name, places in enumerate(wanted):
            named[places] = before + name
        assert found[some].tolist() == named.tolist()
        before += len(wanted)
        alone = vertex_clusters(np.zeros(number, np.int64), z[some], error[some])
        assert (alone == found[some] - found[some].min(initial=2**62)).all()


def shares(made: toy.PiledUp, separation: Separation) -> tuple[float, float]:
    """Of true vertices with three tracks, those found; and of vertices found with two, those that are a part of one
    that has another. A vertex is of that one most of its tracks are of."""
    vertices, tracks = fit_vertices(made.tracks, {}, separation)
    place = (np.cumsum(vertices.counts) - vertices.counts)[tracks.event] + tracks.flat["vertex"]
    belongs = tracks["vertex_weight"] > 0.5
    pairs, number = np.unique(np.stack([place[belongs], made.vertex[belongs]]), axis=1, return_counts=True)
    order = np.argsort(number, kind="stable")
    of = np.full(len(vertices.flat["x"]), -1)
    of[pairs[0][order]] = pairs[1][order]
    of = of[vertices.flat["tracks"] >= 2]
    found = np.bincount(of[of >= 0], minlength=len(made.event))
    wanted = np.bincount(made.vertex, minlength=len(made.event)) >= 3
    return float((found[wanted] > 0).mean()), float(np.maximum(found - 1, 0).sum() / len(of))


@pytest.mark.parametrize(("pile_up", "events", "least", "by_gaps"), [(3, 400, 0.985, 0.985), (20, 60, 0.95, 0.90)])
def test_vertices_are_found_when_there_are_many(pile_up, events, least, by_gaps):
    """99.6 % and 97 %, where gaps alone leave 97.5 % and 85 %; 0.04 % and 0.3 % of them twice."""
    made = toy.piled_up(np.random.default_rng(pile_up), events, pile_up)
    found, twice = shares(made, DEFAULT)
    assert found > least
    assert twice < 0.01
    gaps, _ = shares(made, GAPS_ONLY)
    assert gaps < by_gaps
    assert gaps < found


def test_vertices_alone_stay_whole():
    """Of 2 000 vertices of 5 to 60 tracks not one in 300 is cut."""
    rng = np.random.default_rng(3)
    tracks, _ = toy.single(rng, 500, 5, 0.4)
    cut = [fit_vertices(toy.single(rng, 500, each, 0.4)[0], {})[0].counts for each in (10, 30, 60)]
    cut.append(fit_vertices(tracks, {})[0].counts)
    assert sum((counts > 1).sum() for counts in cut) <= 7
