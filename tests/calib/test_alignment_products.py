"""Sums of outer products by cell: those of a loop, whatever their order, and exact where float64 would not be."""

from __future__ import annotations

import numpy as np
import pytest

from calib.accumulators import SumOverflow
from calib.algorithms import alignment_products
from calib.algorithms.alignment_products import EXACT, Products, squared, whole


def drawn(seed: int, cells: int, size: int = 1000) -> tuple[np.ndarray, ...]:
    """Cells, left factors, how many go with each right one, and these."""
    rng = np.random.default_rng(seed)
    each = rng.integers(0, 4, 80)
    left, right = rng.integers(-size, size, (each.sum(), 3)), rng.integers(-size, size, (80, 2))
    return rng.integers(0, cells, each.sum()), left, each, right


@pytest.mark.parametrize("cells", [7, 10**12])
def test_products_are_those_of_a_loop(cells: int) -> None:
    cell, left, each, right = drawn(1, cells)
    found = Products(cells, (3, 2))
    found.add(cell, left, each, right)
    expected: dict[int, np.ndarray] = {}
    for at, one, other in zip(cell.tolist(), left, np.repeat(right, each, axis=0), strict=True):
        expected[at] = expected.get(at, 0) + np.outer(one, other)
    total = found.fold()
    assert total.keys.tolist() == sorted(expected)
    assert all((values == expected[key]).all() for key, values in zip(total.keys.tolist(), total.values, strict=True))


def test_what_is_added_in_parts_is_the_same() -> None:
    parts, whole_of_it = [drawn(seed, 9, 2**26) for seed in (1, 2, 3)], Products(9, (3, 2))
    for part in parts:
        whole_of_it.add(*part)
    bit_by_bit = Products(9, (3, 2), size=alignment_products.MOST_VALUES)
    for part in reversed(parts):
        bit_by_bit.add(*part)
        bit_by_bit.size = alignment_products.MOST_VALUES
    one, other = whole_of_it.fold(), bit_by_bit.fold()
    assert (one.keys == other.keys).all() and (one.values == other.values).all()
    assert not len(Products(9, (3, 2)).fold().keys)


def test_what_may_have_no_room_is_an_error_and_only_that() -> None:
    rows, large = np.arange(2000), np.full((2000, 1), 1 << 26)
    apart = Products(2000, (1, 1))
    apart.add(rows, -large, np.ones_like(rows), large)
    assert (apart.fold().values == -(1 << 52)).all()
    together = Products(1, (1, 1))
    together.add(0 * rows, -large, np.ones_like(rows), large)
    with pytest.raises(SumOverflow, match="the products of some structure in one chunk pass 2\\^62"):
        together.fold()


def test_squares_are_exact_beyond_what_float64_holds() -> None:
    rng = np.random.default_rng(4)
    for size in (10, 2**28):
        values = rng.integers(-size, size, (60, 4))
        values[0, 0] = size + 1
        expected = [[sum(int(a) * int(b) for a, b in zip(x, y, strict=True)) for y in values.T] for x in values.T]
        assert squared(values).tolist() == expected
    assert float(size) ** 2 * 60 > EXACT
    assert squared(values[:0]).tolist() == [[0] * 4] * 4


def test_whole_numbers_of_steps() -> None:
    assert whole(np.array([0.26, -0.12, 0.375]), 0.25).tolist() == [1, 0, 2]
