"""The search for tracks: against plain loops, cut anywhere, on data meant to break it, and against the truth."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks._ref10_tracks import judged
from pipeline.experiments.collisions import Collection
from pipeline.experiments.ref10.alignment import KIND as ALIGNMENT
from pipeline.experiments.ref10.alignment import no_displacement
from pipeline.experiments.ref10.geometry import full_geometry, geometry_of
from pipeline.experiments.ref10.reconstruct.budget import Budget
from pipeline.experiments.ref10.reconstruct.candidates import candidates
from pipeline.experiments.ref10.reconstruct.flags import ClusterFlag, EventFlag
from pipeline.experiments.ref10.reconstruct.search import Search
from pipeline.experiments.ref10.reconstruct.stages import reconstruct
from pipeline.experiments.ref10.simulate.events import simulate
from pipeline.experiments.ref10.simulate.scenario import Scenario, truth
from tests.pipeline.experiments.ref10.reconstruct.hits_by_hand import (
    CONDITIONS,
    Hit,
    chunks,
    clusters,
    hit_at,
    stray,
    track,
    tracks,
)
from tests.pipeline.experiments.ref10.reconstruct.naive_tracks import NaiveSearch
from tests.pipeline.experiments.ref10.reconstruct.raw import PLAN


def by_event(found, made: Collection) -> list[list[list[int]]]:
    """The hits of the tracks of each event, by place among its clusters."""
    start = np.repeat(np.cumsum(made.counts) - made.counts, found.counts)[:, None]
    hit = np.where(found.hit >= 0, found.hit - start, -1)
    return [part.tolist() for part in np.split(hit, np.cumsum(found.counts)[:-1])]


def cut(made: Collection, start: int, stop: int) -> Collection:
    return made.of_events((np.arange(len(made.counts)) >= start) & (np.arange(len(made.counts)) < stop))


@given(chunks)
@settings(max_examples=20)
def test_tracks_are_the_naive_ones(chunk):
    made = clusters(chunk)
    wanted = [NaiveSearch(made, event, Search()).tracks() for event in range(len(chunk))]
    if chunk:
        assert by_event(candidates(made, CONDITIONS), made) == wanted


SOME = clusters(
    [[*track(i, 0.6), *track(i, 2.0)[1:], *track(i + 1, 2.0), *track(i + 1, 2.0), *stray(i, 9)] for i in range(12)]
)
WHOLE = candidates(SOME, CONDITIONS)


def test_there_are_tracks_to_compare():
    assert (WHOLE.counts >= 2).all()
    assert (WHOLE.hit < 0).any()
    assert not WHOLE.flags.any()


@given(st.lists(st.integers(0, 12), max_size=5))
@settings(max_examples=8)
def test_cutting_changes_nothing(cuts):
    parts = [cut(SOME, *pair) for pair in pairwise([0, *sorted(cuts), 12])]
    found = [tracks for part in parts if len(part.counts) for tracks in by_event(candidates(part, CONDITIONS), part)]
    assert found == by_event(WHOLE, SOME)


@pytest.mark.parametrize("at_once", [1, 7, 300])
def test_how_much_is_combined_at_once_changes_nothing(at_once):
    found = candidates(SOME, CONDITIONS, Search(at_once=at_once))
    assert found.hit.tolist() == WHOLE.hit.tolist()


@pytest.mark.parametrize("at_once", [1, 5, 100])
def test_slices_are_whole_events_and_bounded(at_once):
    rng = np.random.default_rng(at_once)
    event, number = np.sort(rng.integers(0, 20, 60)), rng.integers(0, 4, 60)
    total = np.bincount(event, weights=number)
    budget = Budget.of(20, Search(at_once=at_once))
    for slices, largest in ((budget.events(event, number), total.max()), (budget.entries(number), 3)):
        cuts = list(slices)
        assert np.concatenate([np.arange(60)[cut] for cut in cuts]).tolist() == list(range(60))
        assert all(number[cut].sum() < at_once + largest for cut in cuts)
        assert len(cuts) >= total.sum() // (at_once + largest)
    for before, after in pairwise(budget.events(event, number)):
        assert event[before][-1] != event[after][0]


def test_among_crowded_events_a_track_is_the_same():
    noisy = [*(hit for which in range(30) for hit in track(which, 1.0)), *stray(3, 400)]
    lonely = [*track(1, 2.0), *stray(1, 9)]
    alone, among = clusters([lonely]), clusters([noisy, lonely, noisy])
    assert by_event(candidates(among, CONDITIONS), among)[1] == by_event(candidates(alone, CONDITIONS), alone)[0]


# what breaks it -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [{"hits": 11}, {"pixel_hits": 2}, {"hits": 4, "pixel_hits": 5}])
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match="3 hits of pixels or more"):
        Search(**wrong)


def test_no_events_and_no_hits():
    none = candidates(clusters([]), CONDITIONS)
    assert (none.counts.shape, none.hit.shape, none.flags.shape) == ((0,), (0, 10), (0,))
    empty = candidates(clusters([[], [hit_at(0, 0.0, 0.0)], []]), CONDITIONS)
    assert (empty.counts.tolist(), empty.hit.shape, empty.flags.tolist()) == ([0, 0, 0], (0, 10), [0, 0, 0])


def test_two_tracks_with_the_same_hits_are_one():
    made = clusters([track(5, 3.0) * 2])
    found = candidates(made, CONDITIONS)
    # Each hit is there twice, so both can have one of each.
    assert found.counts.tolist() == [2]
    assert len(np.unique(found.hit)) == found.hit.size


def test_hits_all_in_one_place_make_no_tracks():
    rows = [int(np.flatnonzero(PLAN.layer == layer)[0]) for layer in range(1, 11)]
    same = [hit_at(row, 0.0, 0.0) for row in rows[:1] * 20]
    assert candidates(clusters([same]), CONDITIONS).counts.tolist() == [0]


def test_parallel_hits_through_one_module_each():
    """Lines of hits that all go straight up: side by side, not in one another's way."""
    middle = tracks(50.0, beam=0.0)[0]
    assert len(middle) == 10
    side = {hit.row: 0.05 * np.sign(PLAN.u[hit.row, 0]) for hit in middle}
    lines = [[replace(hit, u=hit.u + shift * side[hit.row]) for hit in middle] for shift in range(4)]
    found = candidates(clusters([[hit for line in lines for hit in line]]), CONDITIONS)
    assert found.counts.tolist() == [4]


def test_large_clusters_take_no_part():
    hits = track(5, 3.0)
    marked = [replace(hit, flags=int(ClusterFlag.LARGE)) if place < 3 else hit for place, hit in enumerate(hits)]
    assert candidates(clusters([hits]), CONDITIONS).counts.tolist() == [1]
    assert candidates(clusters([marked]), CONDITIONS).counts.tolist() == [0]


@pytest.mark.parametrize("lost", range(4))
def test_one_pixel_hit_may_be_missing(lost):
    hits = [hit for hit in track(5, 3.0) if PLAN.layer[hit.row] != lost + 1]
    found = candidates(clusters([hits]), CONDITIONS)
    assert found.counts.tolist() == [1]
    assert np.flatnonzero(found.hit[0] < 0).tolist() == [lost]


@pytest.mark.parametrize("lost", [(4, 5), (8, 9), (5, 9), (3, 7)])
def test_two_hits_may_be_missing_and_not_three(lost):
    hits = [hit for hit in track(5, 3.0) if PLAN.layer[hit.row] - 1 not in lost]
    assert candidates(clusters([hits]), CONDITIONS).counts.tolist() == [1]
    assert candidates(clusters([hits[:5] + hits[6:]]), CONDITIONS).counts.tolist() == [0]


def crowd(number: int, seed: int = 0) -> list[Hit]:
    """As many stray hits, the same number in each layer."""
    rng = np.random.default_rng(seed)
    rows = [rng.choice(np.flatnonzero(PLAN.layer == 1 + i % 10)) for i in range(number)]
    return [
        hit_at(int(row), *(rng.uniform(-0.5, 0.5) * size[row] for size in (PLAN.width, PLAN.length))) for row in rows
    ]


@pytest.mark.parametrize("limit", [{"tried": 500}, {"kept": 200}])
def test_an_event_over_a_limit_is_flagged_and_spoils_no_other(limit):
    full, good = crowd(600), track(5, 3.0)
    made = clusters([good, full, good])
    found = candidates(made, CONDITIONS, Search(**limit))
    assert found.flags.tolist() == [0, EventFlag.UNCOMBINED, 0]
    assert found.counts.tolist() == [1, 0, 1]
    assert by_event(found, made)[0] == by_event(candidates(clusters([good]), CONDITIONS), clusters([good]))[0]


def test_five_thousand_hits_take_no_memory_to_speak_of():
    """All in a quarter of the detector and near z = 0, as full as with 100 000: some make tracks by chance."""
    made = clusters([crowd(5000), track(5, 3.0)])
    tracemalloc.start()
    found = candidates(made, CONDITIONS)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 150e6
    assert not found.flags.any()
    assert (found.counts > 0).all()


def test_the_same_hits_over_and_over_are_bounded():
    """Fifty copies of one track: each triplet of copies is as good as any other, 125 000 of them."""
    copies, good = track(5, 3.0) * 50, track(6, 3.0)
    made = clusters([copies, good])
    tracemalloc.start()
    found = candidates(made, CONDITIONS)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 150e6
    assert found.flags.tolist() == [EventFlag.UNCOMBINED, 0]
    assert found.counts.tolist() == [0, 1]


# against the truth ----------------------------------------------------------------------------------------------------


@cache
def simulated(pile_up: float, events: int, *, aligned: bool = True, shuffled: bool = False):
    scenario = Scenario()
    scenario = replace(scenario, physics=replace(scenario.physics, pile_up=pile_up, nzs=0.0))
    geometry = geometry_of(full_geometry())
    made = simulate(scenario, geometry, 11, 1, 1, np.arange(1, events + 1))
    conditions = truth(scenario, geometry, 11, 1, 1)
    believed = conditions if aligned else {**conditions, ALIGNMENT: no_displacement(geometry)}
    found = reconstruct(made.raw, believed).clusters
    tracks = candidates(found, believed)
    if shuffled:
        tracks = replace(tracks, hit=np.random.default_rng(1).permuted(tracks.hit, axis=0))
    return judged(made, conditions, found, tracks)


@pytest.mark.parametrize(
    ("pile_up", "events"),
    [(1.0, 80), pytest.param(3.0, 400, marks=pytest.mark.verify), pytest.param(1.0, 800, marks=pytest.mark.verify)],
)
def test_particles_are_found_and_fakes_are_not(pile_up, events):
    """Efficiency above 97 % for pT > 1 GeV, fakes below 1 %; of the few events that always run, within four sigma."""
    seen = simulated(pile_up, events)
    efficiency, number = seen.efficiency(1.0)
    assert number > 3 * events
    slack = 0 if events > 100 else 4
    assert efficiency > 0.97 - slack * np.sqrt(0.97 * 0.03 / number)
    assert seen.fakes < 0.01 + slack * np.sqrt(0.01 / len(seen.particle))
    assert seen.repeated < 0.01


def test_before_the_alignment_stiff_tracks_are_found_as_well():
    """Half barrels 80 um off, ladders of strips 50: the alignment must not see only what happens to fit."""
    seen = simulated(1.0, 80, aligned=False)
    wanted = seen.findable & (seen.pt > 4)
    assert wanted.sum() > 15
    assert (seen.tracks[wanted] > 0).all()
    efficiency, number = seen.efficiency(1.0)
    assert efficiency > 0.97 - 4 * np.sqrt(0.97 * 0.03 / number)


def test_tracks_of_shuffled_hits_are_fakes():
    seen = simulated(1.0, 80, shuffled=True)
    assert seen.fakes > 0.99
    assert seen.efficiency(1.0)[0] < 0.01


def test_five_hundred_tracks_in_an_event():
    seen = simulated(50.0, 2)
    efficiency, number = seen.efficiency(1.0)
    assert len(seen.pt) > 800
    assert efficiency > 0.97 - 4 * np.sqrt(0.97 * 0.03 / number)
    assert seen.fakes < 0.01 + 4 * np.sqrt(0.01 / len(seen.particle))
