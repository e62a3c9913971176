"""Pools of units: how many there are at most, that they go by the units seen alone, and what can be had of them."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib.channel_sums import ChannelSums, PartOfAPool
from calib.iov import RunLumi
from calib.pools import Pools
from calib.state import State

MOST = 4
UNITS = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 40)), max_size=30)


def packed(units: list[tuple[int, int]]) -> np.ndarray:
    return np.array([RunLumi(*unit).packed for unit in units], np.int64)


def naive(units: list[tuple[int, int]], most: int = MOST) -> list[set[tuple[int, int]]]:
    """The pools, run by run: the size is doubled until there are few enough."""
    found = []
    for run in sorted({run for run, _ in units}):
        lumis = {lumi for of, lumi in units if of == run}
        size = 1
        while len({lumi // size for lumi in lumis}) > most:
            size *= 2
        for first in sorted({lumi // size for lumi in lumis}):
            found.append({(run, lumi) for lumi in lumis if lumi // size == first})
    return found


def as_sets(pools: Pools) -> list[set[tuple[int, int]]]:
    place = pools.place(pools.seen).tolist()
    found: list[set[tuple[int, int]]] = [set() for _ in range(len(pools))]
    for unit, which in zip(pools.seen.tolist(), place, strict=True):
        found[which].add(tuple(RunLumi.unpack(unit)))
    return found


@given(UNITS)
def test_they_are_as_small_as_their_number_allows(units: list[tuple[int, int]]) -> None:
    assert as_sets(Pools.of(packed(units), MOST)) == naive(units)


@given(UNITS, UNITS, UNITS)
def test_merged_they_go_by_the_units_alone(
    one: list[tuple[int, int]], two: list[tuple[int, int]], three: list[tuple[int, int]]
) -> None:
    a, b, c = (Pools.of(packed(part), MOST) for part in (one, two, three))
    for joined in (a.merge(b).merge(c), a.merge(c.merge(b))):
        assert as_sets(joined) == naive(one + two + three)
        assert len(joined) <= MOST * len(joined.runs)


def test_a_run_may_be_one_pool() -> None:
    pools = Pools.of(packed([(1, 0), (1, 4000), (2, 7)]), 0)
    assert as_sets(pools) == [{(1, 0), (1, 4000)}, {(2, 7)}]
    mixed = pools.merge(Pools.of(packed([(1, 3), (3, 1), (3, 2)]), MOST))
    assert as_sets(mixed) == [{(1, 0), (1, 3), (1, 4000)}, {(2, 7)}, {(3, 1), (3, 2)}]


def test_a_run_of_4000_units_has_few() -> None:
    pools = Pools.of(packed([(1, lumi) for lumi in range(1, 4001)]), 64)
    assert (
        len(pools) == 63
        and pools.together(packed([(1, 100)])).tolist() == packed([(1, lumi) for lumi in range(64, 128)]).tolist()
    )


# What sums in them are. -----------------------------------------------------------------------------------------------


def sums_of(units: list[tuple[int, int]], most: int = MOST) -> ChannelSums:
    """One hit for each of the units, in a row that goes by its number, and one in row 0."""
    pools = Pools.of(packed(units), most)
    place = pools.place(packed(units))
    cells = [(int(which), row) for which, (_, lumi) in zip(place, units, strict=True) for row in (0, 1 + lumi % 3)]
    keys, counts = np.unique([which << 32 | row for which, row in cells] or np.zeros(0, np.int64), return_counts=True)
    return ChannelSums.of(pools, 7, keys.astype(np.int64), {"hits": counts.astype(np.int64).reshape(-1, 1)})


def same(left: ChannelSums, right: ChannelSums) -> bool:
    return State({"x": left}).same(State({"x": right}))


@given(UNITS, st.integers(0, 2**32 - 1))
def test_sums_are_the_same_however_units_are_cut(units: list[tuple[int, int]], seed: int) -> None:
    parts = [units[i::5] for i in np.random.default_rng(seed).permutation(5)]
    joined = reduce(ChannelSums.merge, map(sums_of, parts), ChannelSums.empty({"hits": 1}, MOST))
    assert same(joined, sums_of(units))


@given(UNITS, UNITS)
def test_what_is_left_when_some_are_masked_is_what_the_rest_alone_gives(
    units: list[tuple[int, int]], bad: list[tuple[int, int]]
) -> None:
    whole = sums_of(units)
    out = whole.together(packed(bad))
    expected = set[tuple[int, int]]().union(*(pool for pool in naive(units) if pool & set(bad)))
    assert {tuple(RunLumi.unpack(unit)) for unit in out.tolist()} == expected
    left = whole.select(np.setdiff1d(whole.units(), out))
    rest = sums_of([unit for unit in units if unit not in expected])
    assert left.units().tolist() == rest.units().tolist()
    assert left.total("hits", 4).tolist() == rest.total("hits", 4).tolist()


@given(UNITS)
def test_the_total_is_that_of_a_loop(units: list[tuple[int, int]]) -> None:
    hits = [len(units), *(sum(lumi % 3 == row for _, lumi in units) for row in range(3)), 0]
    total = sums_of(units).total("hits", 5)
    assert total[:, 0].tolist() == hits and total.dtype == np.int8


def test_a_part_of_a_pool_cannot_be_had() -> None:
    sums = sums_of([(3, lumi) for lumi in range(1, 7)])
    word = r"run 3: 1 of 2 units whose sums are kept together were asked for, without 3:3; ask for all of them"
    with pytest.raises(PartOfAPool, match=word):
        sums.select(packed([(3, 2)]))
    assert sums.select(packed([(3, 2), (3, 3)])).total("hits", 4).tolist() == [[2], [1], [0], [1]]


def test_sums_of_states_kept_when_a_run_was_one_pool_are_read() -> None:
    whole = sums_of([(3, 1), (3, 2), (5, 1)], most=0)
    arrays = whole.to_arrays()
    del arrays["sizes"], arrays["most"]
    old = arrays | {"keys": whole.runs()[whole.keys >> 32] << 32 | whole.row()}
    assert same(ChannelSums.from_arrays(old), whole)
    joined = sums_of([(3, 9), (7, 1), (7, 2)]).merge(ChannelSums.from_arrays(old))
    assert as_sets(joined.pools) == [{(3, 1), (3, 2), (3, 9)}, {(5, 1)}, {(7, 1), (7, 2)}]
    assert (
        joined.total("hits", 4).tolist()
        == sums_of([(3, 1), (3, 2), (3, 9), (5, 1), (7, 1), (7, 2)]).total("hits", 4).tolist()
    )
