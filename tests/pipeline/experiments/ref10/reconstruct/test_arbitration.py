"""Shared hits: in rounds for all events together, as if one took the tracks in their order."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.experiments.ref10.reconstruct.arbitration import ranked, shared_out
from pipeline.experiments.ref10.reconstruct.search import Search

SEARCH = Search()


def tracks(seed: int):
    """Of three events, with few hits to choose from in each layer, and few values of chi2, so that many are equal."""
    rng = np.random.default_rng(seed)
    found = []
    for event in np.sort(rng.integers(0, 3, rng.integers(0, 40))).tolist():
        choice = rng.choice([-1, 0, 0, 0, 0, 1, 1, 2], 10)
        hit = np.where(choice < 0, -1, 100 * event + 10 * np.arange(10) + choice)
        found.append((event, hit.tolist(), float(rng.integers(1, 3))))
    return found


def naive(found, search):
    used, kept = set(), []
    for event, hit, chi2 in sorted(found, key=lambda one: (one[0], -sum(h >= 0 for h in one[1]), one[2], one[1])):
        left = [-1 if place in used else place for place in hit]
        enough = sum(h >= 0 for h in left) >= search.hits and sum(h >= 0 for h in left[:4]) >= search.pixel_hits
        if enough:
            kept.append((event, left, chi2))
            used |= set(left) - {-1}
    return kept


def arrays(found):
    event, hit, chi2 = ([one[i] for one in found] for i in range(3))
    return np.array(event, np.int64), np.array(hit, np.int64).reshape(-1, 10), np.array(chi2, np.float64)


@given(st.integers(0, 10**6).map(tracks), st.sampled_from([SEARCH, Search(hits=4), Search(hits=6, pixel_hits=4)]))
@settings(max_examples=150)
def test_hits_go_to_the_first_that_can_use_them(found, search):
    # What is asked for here are tracks that were kept until now: each has enough hits by itself.
    found = [one for one in found if naive([one], search)]
    event, hit, chi2 = shared_out(arrays(found), search)
    assert list(zip(event.tolist(), hit.tolist(), chi2.tolist(), strict=True)) == naive(found, search)


def test_a_dropped_track_gives_its_hits_back():
    """The second loses three hits to the first and is dropped; the third, the worst, keeps what it shares with it."""
    hit = np.arange(10) + np.array([[0], [100], [200]])
    hit[1, :3] = hit[0, :3]
    hit[2, 5:] = hit[1, 5:]
    event, kept, _ = shared_out((np.zeros(3, np.int64), hit.copy(), np.array([1.0, 2.0, 3.0])), SEARCH)
    assert kept.tolist() == hit[[0, 2]].tolist()
    assert event.tolist() == [0, 0]


def test_of_two_equal_tracks_one_is_left():
    hit = np.arange(10)[None].repeat(2, axis=0)
    _, kept, _ = shared_out((np.zeros(2, np.int64), hit, np.ones(2)), SEARCH)
    assert kept.tolist() == hit[:1].tolist()


def test_equal_tracks_are_ranked_by_their_hits_alone():
    hit = np.array([[3, 4, 5], [3, 4, 1], [1, 9, 9]]).repeat([1, 1, 1], axis=0)
    hit = np.pad(hit, ((0, 0), (0, 7)), constant_values=50)
    assert ranked(np.zeros(3, np.int64), hit, np.ones(3)).tolist() == [2, 1, 0]


def test_no_tracks_at_all():
    event, hit, chi2 = shared_out(arrays([]), SEARCH)
    assert (len(event), hit.shape, len(chi2)) == (0, (0, 10), 0)
