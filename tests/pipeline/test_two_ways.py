"""The same events under two sets of conditions, held against a loop over events and entries."""

import awkward as ak
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib.iov import RunLumi
from calib.payload import Payload, open_store
from jobs.reduction import Node
from pipeline.model import Chunk, Piece, Step
from pipeline.processing import ChunkWork, Segment
from pipeline.two_ways import Differences, Moved, TwoWays, differ
from tests.pipeline.tiny import Tiny, write_file

NUMBERS = st.sampled_from([0.0, 1.0, 2.5, float("nan")])
EVENTS = st.dictionaries(st.integers(1, 6), st.tuples(st.lists(NUMBERS, max_size=3), NUMBERS), max_size=6)


def columns(events):
    numbers = sorted(events)
    return {
        "run": np.full(len(numbers), 3),
        "lumi": np.array([1 + number % 2 for number in numbers], np.int64),
        "event": np.array(numbers, np.int64),
        "flat": np.array([events[number][1] for number in numbers], np.float64),
        "hits": ak.unflatten(
            np.array([hit for number in numbers for hit in events[number][0]], np.float64),
            np.array([len(events[number][0]) for number in numbers], np.int64),
        ),
    }


def differs(one, other):
    return not (one == other or (np.isnan(one) and np.isnan(other)))


def by_loop(old, new):
    moved = {"T/flat": Moved(), "T/hits": Moved()}
    changed = len(old.keys() ^ new.keys())
    for number in old.keys() & new.keys():
        hits = (old[number][0], new[number][0])
        pairs = [("T/flat", old[number][1], new[number][1])]
        any_moved = len(hits[0]) != len(hits[1])
        if not any_moved:
            pairs += [("T/hits", one, other) for one, other in zip(*hits, strict=True)]
        for name, one, other in pairs:
            size = abs(other - one) if differs(one, other) else 0.0
            moved[name] += Moved(1, int(differs(one, other)), 0.0 if np.isnan(size) else size)
            any_moved |= differs(one, other)
        changed += any_moved
    lost, gained = len(old.keys() - new.keys()), len(new.keys() - old.keys())
    return Differences(len(old.keys() | new.keys()), changed, lost, gained, moved if old and new else {})


@given(EVENTS, EVENTS)
def test_differences_are_those_of_a_loop(old, new):
    found = differ({"T": [columns(old)]}, {"T": [columns(new)]})
    assert found == by_loop(old, new)
    assert Differences.from_json(found.to_json()) == found


def test_a_tier_of_other_columns_is_all_changed():
    one, other = columns({1: ([1.0], 2.0)}), columns({1: ([1.0], 2.0)})
    other["flat"] = other["flat"].astype(np.float32)
    found = differ({"T": [one]}, {"T": [other]})
    assert (found.events, found.changed) == (1, 1)


@pytest.fixture
def ways(tmp_path):
    """Prompt of the tiny experiment with the offset at 1.5 and, from lumisection 3 on, at 1.6."""
    store = open_store(tmp_path / "conditions")
    ids = [store.put(Payload("offset", {"mean": np.float64(mean), "hits": np.int64(9)})) for mean in (1.5, 1.6)]
    start, later = RunLumi(4).packed, RunLumi(4, 3).packed
    both = [
        (Segment(start, {"offset": ids[0]}),),
        (Segment(start, {"offset": ids[0]}), Segment(later, {"offset": ids[1]})),
    ]
    works = [
        ChunkWork(Tiny(), Step.PROMPT, (), segments, str(tmp_path / "conditions"), str(tmp_path), {})
        for segments in both
    ]
    return TwoWays(*works)


@pytest.fixture
def chunks(tmp_path):
    path = str(write_file(tmp_path / "4.root", 4))
    return [
        Chunk(4, index, (Piece(path, 5 * index, 5 * index + 5, RunLumi(4, index + 1).packed),)) for index in range(4)
    ]


def test_only_the_units_with_other_conditions_move(ways, chunks):
    found = [ways.leaf(chunk, "a")[1] for chunk in chunks]
    assert [bool(one.differences.changed) for one in found] == [False, False, True, True]
    moved = found[3].differences.columns["PROMPT/hit"]
    assert moved.values == moved.moved > 0 and moved.largest == pytest.approx(0.1)
    joined = ways.merge(found)
    assert joined.differences.events == sum(one.differences.events for one in found)
    assert not joined.old.same(joined.new)


def test_what_was_found_is_read_back(ways, chunks):
    found = ways.merge([ways.leaf(chunk, "a")[1] for chunk in chunks])
    back = ways.load(ways.store(found, Node("canary", 1, 0), "a"))
    assert back.differences == found.differences and back.old.same(found.old) and back.new.same(found.new)


def test_a_chunk_set_aside_says_nothing(ways, chunks):
    receipt, nothing = ways.absent(chunks[0], "it is gone")
    whole = ways.leaf(chunks[3], "a")[1]
    assert receipt.note["setbacks"] == ["it is gone"]
    joined = ways.merge([nothing, whole])
    assert joined.differences == whole.differences and joined.new.same(whole.new)
