"""The solution of the normal equations of an alignment: what tracks tell, and the modes that they do not.

Moves are compared by what they do to the measurements: in the metric U = sum G^T G a move x has the size x^T U x, um^2
summed over measurements. In C x = lambda U x the eigenvalue is then the information [1/um^2] that a measurement gives
of a mode. Modes of which too little is known, such as a shift of all pixels along z where strips do not measure it, are
fixed: the solution does not move along them. They are named by how much of them is a known deformation.

Where structures of two levels are free, those of the lower may be able to do together what the one above does. Then
that is no move of theirs: over the structures c on one p, sum U_pc x_c = 0.

A survey that knows something of every number makes both needless: each move then has a likely size, and the solution is
the most likely of all, with an error that has in it what tracks leave open.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from calib.algorithms.alignment_equations import System
from calib.algorithms.alignment_structures import Structures

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

UNSEEN = 1e-4
"""of the scaled metric, over its largest eigenvalue: moves whose parts cancel to a hundredth are none, for slopes are
right to some thousandths"""
RIDGE = 1e-9
"""of the metric, over its diagonal, where it is inverted"""
IMITATED = 0.99
"""share of what a move does to measurements, squared: ladders that shift do not turn, as their half barrel would make
them, but that is a thousandth of it"""
RANK = 1e-8
"""of constraints, over the largest: what has less is said by others"""
NOTHING = 1e-10
"""information, over the largest, that is none"""
NAMED = 0.7
"""overlap from which a mode has the name of a deformation: half of what it does is that"""
LEFT = 1e-3
"""of a deformation, squared, below which others have said all of it"""
LEAST = 1e-12
"""1/um^2 of information in all, below which it is none"""
COMPONENTS = 3
"""numbers that a mode is described by beside"""


@dataclass(frozen=True, eq=False)
class Mode:
    """A mode that tracks do not tell."""

    move: Floats
    """[p], x^T U x = 1"""
    error: float
    """of the rms of what it moves measurements by, um; at most a metre"""
    deformation: int
    """place in DEFORMATIONS; -1: none of them"""
    overlap: float
    """with that"""
    largest: Ints
    """the places of the numbers that move measurements most, [COMPONENTS] or fewer"""


@dataclass(frozen=True, eq=False)
class Solution:
    """Of a system of p numbers."""

    step: Floats
    """[um, urad]"""
    error: Floats
    """of what is not fixed"""
    statistical: Floats
    """what of that other tracks would change: the rest is what a survey does not know, and the same for all of them"""
    fixed: Floats
    """share of each number that belongs to fixed modes, 0 to 1"""
    modes: tuple[Mode, ...]
    information: Floats
    """of tracks about all modes that constraints leave, 1/um^2 a measurement, rising"""


class Singular(ValueError):
    """A system has no solution."""


def solve(system: System, structures: Structures, weak_error: float) -> Solution:
    """Solve without the modes of which is not known to `weak_error` [um, rms] how far they move measurements.

    Where something is known beside of every number, all of them move, to where they most likely are; then the modes are
    named that tracks alone do not tell so well.

    Raises Singular where numbers are not finite, or nothing is measured.
    """
    scale = 1 / np.sqrt(np.diag(system.metric))
    if not all(np.isfinite(part).all() for part in (scale, system.matrix, system.right)):
        raise Singular("some of the numbers that are to be aligned move no measurement")
    information, moves = _modes(system.matrix, _coordinates(system.metric, scale, _let(system, structures, scale)))
    if not len(information) or not information[-1] > 0:
        raise Singular("no track measures any of the numbers that are to be aligned")
    weak = (information < NOTHING * information[-1]) | (information * system.measurements < weak_error**-2)
    modes = _named(system, moves[:, weak], information[weak])
    if (system.known > 0).all():
        values, known, fixed = *_held(system), np.zeros(len(scale))
    elif weak.all():
        raise Singular(f"no move is known to {weak_error:g} um")
    else:
        values, known = information[~weak], moves[:, ~weak]
        fixed = ((system.metric @ moves[:, weak]) ** 2).sum(axis=1) * scale**2
    inverse = (known / values) @ known.T
    variance = np.diag(inverse)
    statistical = np.sqrt(np.maximum(variance - inverse**2 @ system.known, 0.0))
    return Solution(inverse @ system.right, np.sqrt(variance), statistical, np.minimum(fixed, 1.0), modes, information)


def _held(system: System) -> tuple[Floats, Floats]:
    """Information and moves [p, p] of all that tracks and what is known beside tell together.

    Moves that no track sees are there too, and those of structures that go along with others: they are what is known
    beside, and so are their errors.
    """
    every = system.matrix + np.diag(system.known)
    scale = 1 / np.sqrt(np.diag(every))
    values, vectors = np.linalg.eigh(every * scale * scale[:, None])
    # Rounding of the sums may take away from what is known beside, that tracks can only add to.
    return np.maximum(values, (system.known * scale**2).min()), scale[:, None] * vectors


def _modes(matrix: Floats, whole: Floats) -> tuple[Floats, Floats]:
    """Information of modes, rising, and the modes as moves [p, y] of size 1."""
    inside = whole.T @ matrix @ whole
    values, vectors = np.linalg.eigh((inside + inside.T) / 2)
    return values, whole @ vectors


def _let(system: System, structures: Structures, scale: Floats) -> Floats:
    """An orthonormal basis [p, r] of scaled moves in which structures do not go along with those above them."""
    level = structures.level[system.structure]
    metric = system.metric * scale[:, None] * scale
    rows = [np.zeros((0, len(level)))]
    for above, below in pairwise(np.unique(level)):
        rows.append(_imitated(metric, level == above, level == below))
    every = np.concatenate(rows)
    if not len(every):
        return np.eye(len(level))
    _, size, directions = np.linalg.svd(every, full_matrices=False)
    held = directions[size > RANK * size[0]].T
    return np.linalg.qr(held, mode="complete")[0][:, held.shape[1] :]


def _imitated(metric: Floats, above: Mask, below: Mask) -> Floats:
    """What those below do together when they do as those above can, one row [p] a move of these; sum U_pc x_c.

    Only of moves that they can imitate at all measurements: others differ, and can be told apart.
    """
    together, own = metric[np.ix_(above, below)], metric[np.ix_(below, below)]
    lower = np.linalg.cholesky(metric[np.ix_(above, above)] + RIDGE * np.eye(int(above.sum())))
    across = np.linalg.solve(lower, together)
    share, moves = np.linalg.eigh(across @ np.linalg.solve(own + RIDGE * np.eye(len(own)), across.T))
    found = np.zeros((int((share > IMITATED).sum()), len(above)))
    found[:, below] = moves[:, share > IMITATED].T @ across
    return found


def _coordinates(metric: Floats, scale: Floats, let: Floats) -> Floats:
    """Moves [p, y] that span those of the basis, and of which y of them have the size y^T y in the metric."""
    moves = scale[:, None] * let
    size, directions = np.linalg.eigh(moves.T @ metric @ moves)
    seen = size > UNSEEN * size[-1]
    found: Floats = moves @ (directions[:, seen] / np.sqrt(size[seen]))
    return found


def _named(system: System, moves: Floats, information: Floats) -> tuple[Mode, ...]:
    """The space of weak modes [p, w] as modes: first those that are deformations, the largest overlap first.

    What one deformation has said is taken out of the others: a telescope is more than a shift along z.
    """
    inside, field = moves.T @ system.deformed, system.field.copy()
    space, own = np.eye(len(information)), np.diag(field).copy()
    found: list[tuple[Floats, int, float]] = []
    while space.shape[1]:
        left = np.diag(field) > LEFT * own
        size = np.sqrt(np.where(left, np.diag(field), np.inf))
        overlap = np.linalg.norm(space.T @ inside, axis=0) / size
        most = int(np.argmax(overlap))
        if overlap[most] < NAMED:
            break
        direction = space.T @ inside[:, most]
        found.append((space @ direction / np.linalg.norm(direction), most, float(overlap[most])))
        said = field[most] / field[most, most]
        inside = inside - np.outer(inside[:, most], said)
        field = field - np.outer(field[most], said)
        space = _complement(space, found[-1][0])
    found += [(direction, -1, 0.0) for direction in space.T]
    return tuple(_mode(system, moves, information, one) for one in found)


def _complement(space: Floats, direction: Floats) -> Floats:
    """An orthonormal basis of a space [w, r] without one of its directions, [w, r - 1]."""
    basis, _, _ = np.linalg.svd(space - np.outer(direction, direction @ space), full_matrices=False)
    return basis[:, : space.shape[1] - 1]


def _mode(system: System, moves: Floats, information: Floats, found: tuple[Floats, int, float]) -> Mode:
    direction, deformation, overlap = found
    move = moves @ direction
    told = float(direction**2 @ information) * system.measurements
    error = told**-0.5 if told > LEAST else LEAST**-0.5
    size = np.abs(move) * np.sqrt(np.diag(system.metric))
    largest = np.argsort(-size, kind="stable")[:COMPONENTS]
    return Mode(move * np.sign(move[largest[0]]), error, deformation, min(overlap, 1.0), largest)
