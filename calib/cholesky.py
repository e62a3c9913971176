"""Many small symmetric matrices at once, by their Cholesky factors: axes of the matrix first, the items last.

Each step is elementwise along the items and sums go in the order of the matrix: an item has the same bits alone, among
others, and on any processor, and thousands of matrices cost no more calls than one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

FEW = 400
"""matrices; for fewer, calls cost more than copies of what is to be taken away"""
SINGULAR = 1e-11
"""what is left of a diagonal element, over itself, below which a matrix counts as singular"""


def factors(matrix: Floats) -> tuple[Floats, Mask]:
    """The lower triangle L of matrices [m, m, n] = L L^T, and which of them, bool[n], are positive definite.

    Only the lower triangle is read and written. What a matrix that is not positive definite lacks is replaced by 1 on
    the diagonal: its L is finite, if of no meaning.
    """
    lower = matrix.copy()
    size = len(lower)
    sound = np.ones(matrix.shape[2:], np.bool_)
    few = lower.shape[2] < FEW
    for j in range(size):
        if few:
            lower[j:, j] = _left(lower, matrix, j)
        fine = lower[j, j] > SINGULAR * matrix[j, j]
        sound &= fine
        root = np.sqrt(np.where(fine, lower[j, j], 1.0))
        lower[j, j] = root
        below = lower[j + 1 :, j]
        below *= np.where(fine, 1 / root, 0.0)
        for i in range(j + 1, size if not few else 0):
            lower[i, j + 1 : i + 1] -= lower[i, j] * below[: i - j]
    return lower, sound


def _left(lower: Floats, matrix: Floats, j: int) -> Floats:
    """Column j less what the columns before take away, one after the other: in fewer steps, to the same bits."""
    parts = np.empty((len(lower) - j, j + 1, *lower.shape[2:]))
    parts[:, 0] = matrix[j:, j]
    np.multiply(lower[j:, :j], lower[j, :j], out=parts[:, 1:])
    found: Floats = np.subtract.reduce(parts, axis=1)
    return found


def solved(lower: Floats, right: Floats) -> Floats:
    """X with L X = `right`, [m, k, n]."""
    found = right.copy()
    for j in range(len(lower)):
        found[j] /= lower[j, j]
        found[j + 1 :] -= lower[j + 1 :, j, None] * found[j]
    return found


def inverse_factor(lower: Floats) -> Floats:
    """L^-1, [m, m, n], with zeros above."""
    size = len(lower)
    half = np.broadcast_to(np.eye(size)[..., None], lower.shape).copy()
    for j in range(size):
        half[j, : j + 1] /= lower[j, j]
        half[j + 1 :, : j + 1] -= lower[j + 1 :, j, None] * half[j, : j + 1]
    return half


def inverse(lower: Floats) -> Floats:
    """The inverse of L L^T, [m, m, n]."""
    size = len(lower)
    half = inverse_factor(lower)
    found = np.zeros_like(lower)
    for k in range(size):
        found[: k + 1, : k + 1] += half[k, : k + 1, None] * half[k, None, : k + 1]
    return found


def solved_back(lower: Floats, right: Floats) -> Floats:
    """X with L^T X = `right`, [m, k, n]."""
    found = right.copy()
    for j in reversed(range(len(lower))):
        found[j] /= lower[j, j]
        found[:j] -= lower[j, :j, None] * found[j]
    return found
