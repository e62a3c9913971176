from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib.accumulators import StatesDiffer, SumOverflow
from calib.channel_sums import ChannelSums, narrowest
from calib.iov import RunLumi
from calib.pools import Pools
from calib.state import State

WIDTHS = {"entries": 3, "left_out": 1}


def packed(*units: tuple[int, int]) -> np.ndarray:
    return np.array([RunLumi(*unit).packed for unit in units], np.int64)


def some(rng: np.random.Generator, runs: tuple[int, ...] = (3, 5), top: int = 100) -> ChannelSums:
    """Sums of a few units and blocks of each run."""
    units = packed(*((run, int(lumi)) for run in runs for lumi in rng.integers(0, 9, 3)))
    pools = Pools.of(units, 2)
    keys = np.unique(packed(*((pool, int(row)) for pool in range(len(pools)) for row in rng.integers(0, 6, 4))))
    columns = {name: rng.integers(-top, top, (len(keys), width)) for name, width in WIDTHS.items()}
    return ChannelSums.of(pools, 7, keys, columns)


def of(units: np.ndarray, mark: int, keys: np.ndarray, columns: dict[str, np.ndarray]) -> ChannelSums:
    """Of units each of which is a pool."""
    return ChannelSums.of(Pools.of(units, 64), mark, keys, columns)


def same(left: ChannelSums, right: ChannelSums) -> bool:
    return State({"x": left}).same(State({"x": right}))


def as_dict(sums: ChannelSums) -> dict[tuple[int, int, str, int], int]:
    """By run, row, column and place in it."""
    found: dict[tuple[int, int, str, int], int] = {}
    for row, key in enumerate(sums.keys.tolist()):
        run = int(sums.pools.firsts[key >> 32]) >> 32
        for name, values in sums.columns.items():
            for i in range(values.shape[1]):
                cell = run, key & 0xFFFFFFFF, name, i
                found[cell] = found.get(cell, 0) + int(values[row, i])
    return found


@given(st.integers(0, 2**32 - 1), st.sampled_from([10, 100, 20_000, 2**31, 2**60]))
def test_merging_adds_by_run_and_channel(seed: int, top: int) -> None:
    rng = np.random.default_rng(seed)
    a, b, c = (some(rng, top=top) for _ in range(3))
    left, right = as_dict(a), as_dict(b)
    joined = a.merge(b)
    assert as_dict(joined) == {key: left.get(key, 0) + right.get(key, 0) for key in left | right}
    assert same(joined, b.merge(a))
    assert same(joined.merge(c), a.merge(b.merge(c)))
    assert same(a.merge(ChannelSums.empty(WIDTHS, 2)), a)
    assert same(ChannelSums.empty(WIDTHS, 2).merge(a), a)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5))
def test_the_narrowest_type_holds_them_all_and_no_narrower_one_does(values: list[int]) -> None:
    found = narrowest(np.array(values, np.int64))
    assert found.tolist() == values
    narrower = [kind for kind in (np.int8, np.int16, np.int32) if np.dtype(kind).itemsize < found.itemsize]
    for kind in narrower:
        assert any(not np.iinfo(kind).min <= value <= np.iinfo(kind).max for value in values)


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32, np.int64])
@pytest.mark.parametrize("place", [0, 500, 999])
@pytest.mark.parametrize(("value", "expected"), [(100, np.int8), (-129, np.int16), (200, np.int16), (70_000, np.int32)])
def test_it_does_not_matter_what_type_they_came_in(kind: type, place: int, value: int, expected: type) -> None:
    if np.iinfo(kind).max < abs(value):
        return
    values = np.zeros((1000, 3), kind)
    values[place, 1] = value
    found = narrowest(values)
    assert found.dtype == expected
    assert found[place, 1] == value and np.count_nonzero(found) == 1


def test_types_follow_the_values_and_not_the_way_there() -> None:
    unit, keys = packed((1, 0)), np.array([0])
    one, minus = (of(unit, 7, keys, {"n": np.array([[value]])}) for value in (100, -100))
    assert one.columns["n"].dtype == np.int8
    assert one.merge(one).columns["n"].dtype == np.int16
    assert same(one.merge(one).merge(minus), one)


def test_a_sum_too_large_is_an_error() -> None:
    unit = packed((1, 0))
    large = of(unit, 7, np.array([0]), {"n": np.array([[2**62]])})
    other = of(unit, 7, np.array([0, 1]), {"n": np.array([[2**62], [1]])})
    for right in (large, other):
        with pytest.raises(SumOverflow):
            large.merge(right)


def test_whole_runs_can_be_selected() -> None:
    rng = np.random.default_rng(1)
    three, five = some(rng, (3,)), some(rng, (5,))
    both = three.merge(five)
    assert same(both.select(three.units()), three)
    assert same(both.select(five.units()), five)
    assert same(both.select(both.units()), both)
    assert same(both.select(packed((4, 1))), ChannelSums.empty(WIDTHS, 2))
    large = {"entries": np.full((1, 3), 10**6), "left_out": np.zeros((1, 1), np.int64)}
    wide = ChannelSums.of(Pools.of(packed((9, 1)), 2), 7, np.array([1]), large)
    assert same(both.merge(wide).select(both.units()), both)


def test_a_unit_without_sums_is_remembered() -> None:
    units = packed((3, 2), (3, 1), (3, 2))
    sums = of(units, 7, np.zeros(0, np.int64), {"n": np.zeros((0, 2), np.int64)})
    assert sums.units().tolist() == packed((3, 1), (3, 2)).tolist()
    assert sums.runs().tolist() == [3]


def test_sums_made_with_other_conditions_do_not_merge() -> None:
    units, keys = packed((3, 0), (5, 0)), packed((0, 0), (1, 0))
    one, other = (of(units, mark, keys, {"n": np.ones((2, 1), np.int64)}) for mark in (7, 8))
    with pytest.raises(StatesDiffer, match="run 3: sums were made with different conditions"):
        one.merge(other)
    apart = one.select(units[:1]).merge(other.select(units[1:]))
    assert apart.made_with.tolist() == [7, 8]


def test_other_columns_do_not_merge() -> None:
    with pytest.raises(StatesDiffer, match="columns"):
        ChannelSums.empty({"n": 1}, 2).merge(ChannelSums.empty({"n": 2}, 2))


def test_the_total_over_units_and_runs() -> None:
    columns = {"n": np.array([[1, 2], [3, 4], [100, 0]])}
    sums = of(packed((3, 1), (5, 1)), 7, packed((0, 0), (0, 2), (1, 2)), columns)
    assert sums.total("n", 4).tolist() == [[1, 2], [0, 0], [103, 4], [0, 0]]
    assert sums.merge(sums).total("n", 4).dtype == np.int16
    assert ChannelSums.empty({"n": 2}, 2).total("n", 2).tolist() == [[0, 0], [0, 0]]
