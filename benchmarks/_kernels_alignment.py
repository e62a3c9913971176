"""The kernels of the alignment with tracks to run them on: the elimination with its sums, and the solution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from benchmarks._kernel_ways import Drawn, Fit
from benchmarks._toys_alignment import LADDERS, LEVELS, PIXELS, Play, played
from calib.algorithms.alignment import Alignment
from calib.algorithms.alignment_equations import Totals
from calib.algorithms.alignment_payload import nominal
from calib.algorithms.alignment_solution import solve
from calib.calibration import Columns

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

UM = 1e-4
AXES, PARAMETERS = 3, 5
OF_PIXELS = int(LADDERS[:PIXELS].sum())
FREE = ("half_barrel 0-1: x y z", f"ladder 0-{OF_PIXELS - 1}: x y z")
UNCUT = 1e9
"""the other ways make no cut on chi2"""


@dataclass(frozen=True, eq=False)
class Alike:
    """Tracks that have as many measurements, m of them, in um."""

    residuals: Floats
    """[n, m]"""
    derivatives: Floats
    """[n, m, parameters]"""
    covariance: Floats
    """[n, m, m]"""
    number: Ints
    """which of the p free numbers a measurement goes with; p: with none, [n, m, levels * AXES]"""
    slopes: Floats
    """0 for none, [n, m, levels * AXES]"""


def alike(columns: Columns, free: NDArray[np.bool_]) -> list[Alike]:
    """The tracks of events, sorted by how many measurements they have; `free` [structures]."""
    flat = {name: np.asarray(ak.flatten(columns[f"alignment_{name}"])) for name in _SIZES}
    sizes = flat["measurements"].astype(np.int64)
    first = np.cumsum([0, *(count for _, count in LEVELS)])[:-1]
    ordinal = np.append(np.where(free, np.cumsum(free) - 1, free.sum()), free.sum())
    found = []
    for m in np.unique(sizes).tolist():
        part = {}
        for name, size in _SIZES.items():
            begins = np.cumsum(size(sizes)) - size(sizes)
            part[name] = flat[name][begins[sizes == m][:, None] + np.arange(size(m))]
        n = len(part["residuals"])
        low = np.zeros((n, m, m))
        low[:, *np.tril_indices(m)] = part["covariance"]
        labels = part["labels"].reshape(n, m, -1)
        structure = ordinal[np.where(labels >= 0, labels + first, -1)]
        number = np.where(structure < free.sum(), structure * AXES, free.sum() * AXES)[..., None] + np.arange(AXES)
        number = np.minimum(number, free.sum() * AXES).reshape(n, m, -1)
        slopes = part["slopes"].reshape(n, m, -1, 6)[..., :AXES].reshape(n, m, -1)
        found.append(
            Alike(
                part["residuals"] / UM,
                part["derivatives"].reshape(n, m, -1) / UM,
                (low + np.tril(low, -1).swapaxes(1, 2)) / UM**2,
                number,
                np.where(number < free.sum() * AXES, slopes, 0.0),
            )
        )
    return found


_SIZES: dict[str, Any] = {
    "measurements": lambda m: m * 0 + 1,
    "residuals": lambda m: m,
    "derivatives": lambda m: PARAMETERS * m,
    "covariance": lambda m: m * (m + 1) // 2,
    "labels": lambda m: len(LEVELS) * m,
    "slopes": lambda m: 6 * len(LEVELS) * m,
}


def projected(tracks: Alike) -> Floats:
    """P = W - W A (A^T W A)^-1 A^T W, [n, m, m]."""
    weights = np.linalg.inv(tracks.covariance)
    along = weights @ tracks.derivatives
    normal = np.swapaxes(tracks.derivatives, 1, 2) @ along
    return weights - along @ np.linalg.solve(normal, np.swapaxes(along, 1, 2))


def alignment(small: bool) -> Drawn:
    """Tracks through ten layers; half barrels and ladders of the pixels free along all axes."""
    calibration = Alignment(levels=LEVELS, free=FREE, cuts=(UNCUT,))
    columns = played(11, Play(100 if small else 4000))
    free = calibration.structures.any_free
    groups, p = alike(columns, free), AXES * int(free.sum())

    def obvious() -> Floats:
        matrix, right = np.zeros((p + 1, p + 1)), np.zeros(p + 1)
        for tracks in groups:
            weights = projected(tracks)
            pulls = np.einsum("nij,nj->ni", weights, tracks.residuals)
            n, m, numbers = tracks.slopes.shape
            blocks = np.einsum("nia,nij,njb->niajb", tracks.slopes, weights, tracks.slopes, optimize=True)
            every = tracks.number.reshape(n, m * numbers)
            np.add.at(matrix, (every[:, :, None], every[:, None, :]), blocks.reshape(n, m * numbers, -1))
            np.add.at(right, tracks.number, tracks.slopes * pulls[:, :, None])
        return np.column_stack([matrix[:p, :p], right[:p]])

    def library() -> Floats:
        from scipy.sparse import bsr_array, csr_array

        matrix, right = csr_array((p, p)), np.zeros(p)
        for tracks in groups:
            n, m = tracks.residuals.shape
            there = tracks.number < p
            ends = np.append(0, np.cumsum(there.reshape(n * m, -1).sum(axis=1)))
            slopes = csr_array((tracks.slopes[there], tracks.number[there], ends), shape=(n * m, p))
            weights = bsr_array((projected(tracks), np.arange(n), np.arange(n + 1)), shape=(n * m, n * m))
            matrix = matrix + slopes.T @ (weights @ slopes)
            right = right + slopes.T @ (weights @ tracks.residuals.reshape(-1))
        return np.column_stack([matrix.toarray(), right])

    return Drawn(
        calibration,
        columns,
        {"alignment": nominal(dict(LEVELS))},
        obvious,
        library,
        "small matrices, a batch of tracks at a time; its sums are exact, and of deformations and metric too",
    )


def places_of_ladders(small: bool) -> Fit:
    """Normal equations of 78 ladders; the library knows no weak modes, and there are none here."""
    calibration = Alignment(levels=LEVELS, free=FREE[1:], cuts=(UNCUT,), min_records=100, min_entries=1, weak_error=1e4)
    start = nominal(dict(LEVELS))
    state = calibration.accumulate(played(12, Play(1500 if small else 10_000, stereo=0.1)), {"alignment": start})
    structures = calibration.structures
    wanted = structures.is_free
    system = Totals.of(state, structures, 1).system(structures, structures.values(start), wanted)

    def ours() -> tuple[Floats, Floats]:
        found = solve(system, structures, calibration.weak_error)
        return found.step, found.error

    def library() -> Floats:
        from scipy.linalg import lstsq

        step: Floats = lstsq(system.matrix, system.right)[0]
        return step

    return Fit(f"alignment: {len(system.right)} numbers", ours, library, "scipy.linalg.lstsq")
