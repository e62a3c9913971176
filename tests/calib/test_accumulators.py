from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib.accumulators import (
    CountedTwice,
    StatesDiffer,
    SumOverflow,
    UnitHistogram,
    UnitRows,
    UnitSums,
    add_exactly,
    to_fixed,
)
from calib.state import State, pack_states, unpack_state, unpack_states

HUGE = np.iinfo(np.int64).max
cuts = st.integers(0, 20)
rows = st.lists(st.tuples(st.integers(0, 4), st.integers(-5, 5), st.integers(-5, 5)), max_size=20)
Rows = list[tuple[int, int, int]]


def sums(given_rows: Rows) -> UnitSums:
    return UnitSums.of_rows([r[0] for r in given_rows], np.array([r[1:] for r in given_rows]).reshape(-1, 2))


@given(rows, cuts)
def test_sums_agree_with_a_loop_however_cut(given_rows: Rows, cut: int) -> None:
    expected: dict[int, list[int]] = {}
    for unit, a, b in given_rows:
        total = expected.setdefault(unit, [0, 0])
        total[0] += a
        total[1] += b
    whole = sums(given_rows)
    assert dict(zip(whole.keys.tolist(), whole.values.tolist(), strict=True)) == expected
    assert whole.keys.tolist() == sorted(expected)
    joined = sums(given_rows[cut:]).merge(sums(given_rows[:cut]))
    assert State({"a": joined}).same(State({"a": whole}))
    assert whole.total().tolist() == np.array([r[1:] for r in given_rows]).reshape(-1, 2).sum(axis=0).tolist()


@pytest.mark.parametrize("shape", [(4000,), (90, 600), (90, 20, 30), (5, 3)])
@pytest.mark.parametrize("dtype", [np.uint16, np.int64, np.bool_])
def test_sums_of_any_width(shape: tuple[int, ...], dtype: type) -> None:
    rng = np.random.default_rng(1)
    units, counts = rng.integers(0, 3, shape[0]), rng.integers(0, 2, shape).astype(dtype)
    found = UnitSums.of_rows(units, counts)
    expected = [counts[units == unit].astype(np.int64).sum(axis=0) for unit in found.keys]
    np.testing.assert_array_equal(found.values, expected)
    assert found.values.dtype == np.int64


@pytest.mark.parametrize(("left", "right"), [(HUGE, 1), (-HUGE, -2), (HUGE, HUGE)])
def test_a_sum_that_does_not_fit_is_refused(left: int, right: int) -> None:
    with pytest.raises(SumOverflow, match=r"passed 2\^63"):
        add_exactly(np.array([0, left]), np.array([0, right]))
    assert add_exactly(np.array([left]), np.array([-right])).tolist() == [left - right]
    with pytest.raises(SumOverflow):
        UnitSums.of_rows([1], [left]).merge(UnitSums.of_rows([1], [right]))


def test_fixed_point_holds_what_fits() -> None:
    assert to_fixed([0.1, -0.25, 1e3], 1e-3).tolist() == [100, -250, 1_000_000]
    for bad in (np.nan, np.inf, 1e16):
        with pytest.raises(SumOverflow, match="does not fit fixed point with resolution"):
            to_fixed([bad], 1.0)


values = st.lists(st.tuples(st.integers(0, 3), st.floats(-2, 2) | st.just(np.nan)), max_size=20)


@given(values, cuts)
def test_histograms_agree_with_a_loop_however_cut(entries: list[tuple[int, float]], cut: int) -> None:
    edges = np.array([-1.0, 0.0, 0.5, 1.0])

    def fill(part: Sequence[tuple[int, float]]) -> UnitHistogram:
        return UnitHistogram.fill(edges, [e[0] for e in part], [e[1] for e in part])

    whole = fill(entries)
    for unit, found in zip(whole.units().tolist(), whole.sums.values.tolist(), strict=True):
        expected = [0, 0, 0, 0, 0]
        for where, value in entries:
            if where == unit:
                expected[4 if np.isnan(value) else sum(bool(value >= edge) for edge in edges)] += 1
        assert found == expected
    assert State({"h": fill(entries[:cut]).merge(fill(entries[cut:]))}).same(State({"h": whole}))


def test_histograms_of_other_bins_do_not_merge() -> None:
    one, two = (UnitHistogram.fill(np.array(edges), [1], [0.5]) for edges in ([0.0, 1.0], [0.0, 2.0]))
    with pytest.raises(StatesDiffer, match="different bins"):
        one.merge(two)


keyed = st.dictionaries(
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), st.integers(0, 3), max_size=25
)
Keyed = dict[tuple[int, int, int], int]


def unit_rows(part: Sequence[tuple[tuple[int, int, int], int]], keep: int) -> UnitRows:
    keys = np.array([key for key, _ in part], np.int64).reshape(-1, 3)
    return UnitRows.of(keys, {"r": np.array([r for _, r in part], np.float64)}, keep, "r" if keep else "")


@given(keyed, st.integers(0, 4), st.randoms(use_true_random=False), cuts)
def test_rows_agree_with_a_loop_however_cut(given_rows: Keyed, keep: int, random: Any, cut: int) -> None:
    expected = []
    for unit in range(4):
        mine = sorted((rank, key) for key, rank in given_rows.items() if key[0] == unit)
        expected += sorted(key for _, key in (mine[:keep] if keep else mine))
    shuffled = list(given_rows.items())
    random.shuffle(shuffled)
    joined = unit_rows(shuffled[:cut], keep).merge(unit_rows(shuffled[cut:], keep))
    assert [tuple(key) for key in joined.keys.tolist()] == expected
    assert joined.columns["r"].tolist() == [given_rows[key] for key in expected]
    assert State({"r": joined}).same(State({"r": unit_rows(shuffled, keep)}))
    if keep > 1:
        assert State({"r": joined.best(1)}).same(State({"r": unit_rows(shuffled, 1)}))


@given(keyed, st.sets(st.integers(0, 3)))
def test_selected_rows_are_those_of_the_units(given_rows: Keyed, wanted: set[int]) -> None:
    whole = unit_rows(list(given_rows.items()), 0)
    part = unit_rows([item for item in given_rows.items() if item[0][0] in wanted], 0)
    assert State({"r": whole.select(np.array(sorted(wanted), np.int64))}).same(State({"r": part}))


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]])
def test_a_row_twice_is_refused(order: list[int]) -> None:
    keys = np.array([[7 << 32 | 3, 5, 0], [7 << 32 | 3, 5, 1], [7 << 32 | 3, 5, 1]])[order]
    with pytest.raises(CountedTwice, match="run 7, lumisection 3, event 5, row 1 entered the state twice"):
        UnitRows.of(keys, {"x": np.zeros(3)})
    once = UnitRows.of(keys[:1], {"x": np.zeros(1)})
    with pytest.raises(CountedTwice):
        once.merge(once)


def test_events_at_the_edge_of_their_integers_sort() -> None:
    keys = np.array([[1, HUGE, 0], [1, -HUGE, 0], [1, 0, 0]])
    assert UnitRows.of(keys, {"x": np.zeros(3)}).keys[:, 1].tolist() == [-HUGE, 0, HUGE]


def test_empty_rows_are_the_identity() -> None:
    some = UnitRows.of(np.array([[1, 1, 1]]), {"x": np.ones(1, np.float32)}, 5, "x")
    none = UnitRows.empty({"x": np.float32}, 5, "x")
    assert State({"r": none.merge(some)}).same(State({"r": some}))
    assert State({"r": none.merge(none)}).same(State({"r": none}))


def test_what_was_made_otherwise_does_not_merge() -> None:
    one = UnitRows.empty({"x": np.float64}, 5, "x")
    for other in (UnitRows.empty({"x": np.float64}), UnitRows.empty({"y": np.float64}, 5, "x")):
        with pytest.raises(StatesDiffer, match="rows kept by different rules"):
            one.merge(other)
    with pytest.raises(StatesDiffer, match=r"sums of shape \(2,\) and \(3,\)"):
        UnitSums.empty((2,)).merge(UnitSums.empty((3,)))
    with pytest.raises(StatesDiffer, match=r"states of \['a'\] and \['b'\] do not merge"):
        State({"a": one}).merge(State({"b": one}))
    with pytest.raises(StatesDiffer):
        State({"a": one}).merge(State({"a": UnitSums.empty()}))
    with pytest.raises(StatesDiffer):
        State({"a": one, "b": one}).merge(State({"a": one, "c": one}))


def test_what_one_state_was_not_made_to_have_it_takes_from_the_other() -> None:
    """A state that was kept, and one of a calibration that has come to look at more."""
    then, new = State({"a": sums([(1, 2, 3)])}), sums([(1, 5, 6)])
    now = State({"a": sums([(2, 3, 4)]), "b": new})
    whole = State({"a": then["a"].merge(now["a"]), "b": new})
    assert then.merge(now).same(whole)
    assert now.merge(then).same(whole)


def test_states_are_read_back_one_or_all(tmp_path: Any) -> None:
    edges = np.array([0.0, 1.0])
    one = State({"h": UnitHistogram.fill(edges, [1, 2], [0.5, 7.0]), "s": sums([(1, 2, 3)])})
    two = State({"r": UnitRows.of(np.array([[1, 1, 1]]), {"x": np.ones(1)}, 5, "x")})
    path = tmp_path / "states.npz"
    path.write_bytes(pack_states({"one": one, "two": two}))
    found = unpack_states(str(path))
    assert found["one"].same(one)
    assert found["two"].same(two)
    assert (alone := unpack_state(str(path), "two")) is not None
    assert alone.same(two)
    assert unpack_state(str(path), "three") is None
    assert two.nbytes == 3 * 8 + 8 + 8 + 4
    assert one.units().tolist() == [1, 2]
