"""Many matrices at once give what NumPy gives for each of them."""

from __future__ import annotations

import numpy as np
import pytest

from calib import cholesky


def positive(size: int, items: int):
    """Matrices as a stack for NumPy, and with the items last."""
    half = np.random.default_rng(size).normal(size=(items, size, 2 * size + 5))
    stack = half @ half.transpose(0, 2, 1)
    return stack, np.ascontiguousarray(stack.transpose(1, 2, 0))


@pytest.mark.parametrize("size", [1, 2, 5, 14])
def test_factor_solution_and_inverse_are_those_of_numpy(size):
    stack, matrix = positive(size, 50)
    before = matrix.copy()
    lower, sound = cholesky.factors(matrix)
    assert sound.all()
    assert (matrix == before).all()
    wanted = np.linalg.cholesky(stack)
    np.testing.assert_allclose(np.tril(lower.transpose(2, 0, 1)), wanted, atol=1e-11)
    right = np.random.default_rng(1).normal(size=(size, 3, 50))
    half = cholesky.solved(lower, right)
    np.testing.assert_allclose(half.transpose(2, 0, 1), np.linalg.solve(wanted, right.transpose(2, 0, 1)), atol=1e-11)
    both = cholesky.solved_back(lower, half).transpose(2, 0, 1)
    np.testing.assert_allclose(both, np.linalg.solve(stack, right.transpose(2, 0, 1)), atol=1e-11)
    np.testing.assert_allclose(cholesky.inverse(lower).transpose(2, 0, 1), np.linalg.inv(stack), atol=1e-11)


def test_units_do_not_decide_what_is_singular():
    _, matrix = positive(5, 20)
    units = 10.0 ** np.array([-9, -3, 0, 4, 11])
    assert cholesky.factors(matrix * (units[:, None] * units)[..., None])[1].all()


def test_only_the_lower_triangle_is_read():
    _, matrix = positive(5, 20)
    torn = matrix.copy()
    torn[np.triu_indices(5, 1)] = np.nan
    whole, lower = cholesky.factors(matrix)[0], cholesky.factors(torn)[0]
    assert (whole[np.tril_indices(5)] == lower[np.tril_indices(5)]).all()


@pytest.mark.parametrize(
    "broken",
    [np.zeros((3, 3)), np.ones((3, 3)), np.diag([1.0, -1.0, 1.0]), np.diag([1.0, 1.0, 0.0]), np.full((3, 3), np.nan)],
    ids=["nothing", "one direction", "negative", "a row of zeros", "not numbers"],
)
def test_what_is_not_positive_definite_is_told_and_its_neighbours_do_not_notice(broken):
    _, matrix = positive(3, 3)
    alone = cholesky.factors(matrix)
    matrix[:, :, 1] = broken
    lower, sound = cholesky.factors(matrix)
    assert sound.tolist() == [True, False, True]
    assert (lower[..., [0, 2]] == alone[0][..., [0, 2]]).all()
    if not np.isnan(broken).any():
        assert np.isfinite(cholesky.inverse(lower)).all()


def test_a_matrix_has_the_same_bits_alone_and_among_others():
    _, matrix = positive(14, cholesky.FEW + 100)
    lower, _ = cholesky.factors(matrix)
    right = np.random.default_rng(2).normal(size=(14, 6, cholesky.FEW + 100))
    found = (lower, cholesky.solved(lower, right), cholesky.solved_back(lower, right), cholesky.inverse(lower))
    for some in ([7], [299, 3], range(40, 57)):
        part, _ = cholesky.factors(matrix[..., some])
        again = right[..., some]
        own = (part, cholesky.solved(part, again), cholesky.solved_back(part, again), cholesky.inverse(part))
        assert all((one[..., some] == two).all() for one, two in zip(found, own, strict=True))
