"""The normal equations of an alignment, put together from the sums of pairs of structures."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from calib.algorithms.alignment_geometry import DEFORMATIONS
from calib.algorithms.alignment_structures import Structures
from calib.algorithms.alignment_sums import OF_DEFORMED, OF_FIELD, OF_METRIC, RESOLUTION
from calib.channel_sums import ChannelSums
from calib.state import State

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class System:
    """Equations for p numbers of structures, in um and urad, from where these are now."""

    structure: Ints
    """[p]"""
    number: Ints
    """which of NUMBERS, [p]"""
    matrix: Floats
    """C [1/um^2], [p, p]"""
    right: Floats
    """b [1/um], [p]"""
    metric: Floats
    """U = sum G^T G over measurements, [p, p]"""
    deformed: Floats
    """sum G^T times what the deformations do, [p, deformations]"""
    field: Floats
    """sum of the products of that, [deformations, deformations]"""
    measurements: int
    known: Floats
    """what is known of each number beside, [p], 1/um^2: it is in b, and not in C"""

    def surveyed(self, within: Floats, values: Floats) -> System:
        """With what is known beside: that numbers [structures, 6], which have these values, are 0 to so much, rms.

        A measurement each, of the number itself. Moves that tracks hardly tell, such as those that tracks follow with
        their own parameters, are held by it; others hardly feel it.
        """
        information = within[self.structure, self.number] ** -2.0
        off = values[self.structure, self.number]
        return replace(self, known=self.known + information, right=self.right - information * off)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Blocks [pairs, d, d] of structures `one` <= `other`."""

    one: Ints
    other: Ints
    blocks: Floats

    @classmethod
    def of(cls, sums: ChannelSums, every: int, classes: int, resolution: float) -> Pairs:
        """Of the first classes of records."""
        of_class, pair = np.divmod(sums.row(), every**2)
        (values,) = sums.columns.values()
        pair, values = pair[of_class < classes], values[of_class < classes]
        keys, where = np.unique(pair, return_inverse=True)
        d = round(values.shape[1] ** 0.5)
        blocks: Floats = _summed(len(keys), where, values).reshape(-1, d, d) * resolution
        one, other = np.divmod(keys, every)
        own = one == other
        # A product of two factors, rounded each its own way, is a little off that of the other two.
        blocks[own] = 0.5 * (blocks[own] + blocks[own].swapaxes(1, 2))
        return cls(one, other, blocks)

    def times(self, values: Floats) -> Floats:
        """The symmetric matrix times values [structures, d]."""
        found = np.zeros_like(values)
        np.add.at(found, self.one, np.matmul(self.blocks, values[self.other][..., None])[..., 0])
        apart = self.one != self.other
        back = np.matmul(self.blocks[apart].swapaxes(1, 2), values[self.one[apart]][..., None])[..., 0]
        np.add.at(found, self.other[apart], back)
        return found

    def square(self, place: Ints) -> Floats:
        """[p, p], by the place 0 to p - 1 of each number [structures, d], -1: not among them."""
        p = int(place.max(initial=-1)) + 1
        found = np.zeros((p, p))
        row, column = place[self.one][:, :, None], place[self.other][:, None, :]
        row, column = np.broadcast_arrays(row, column)
        there = (row >= 0) & (column >= 0)
        found[row[there], column[there]] = self.blocks[there]
        found[column[there], row[there]] = self.blocks[there]
        return found


@dataclass(frozen=True, eq=False)
class Totals:
    """The sums of a state over those classes of records that count."""

    matrix: Pairs
    metric: Pairs
    right: Floats
    """about no displacement, [structures, d]"""
    deformed: Floats
    """[structures, d, deformations]"""
    records: Ints
    """on each structure"""
    field: Floats
    """[deformations, deformations]"""
    measurements: int

    @classmethod
    def of(cls, state: State, structures: Structures, classes: int) -> Totals:
        """Of the first classes."""
        every, d = len(structures), len(structures.numbers)
        sums, fit = state["structures"], state["fit"]
        of_class, on = np.divmod(sums.row(), every**2)
        chosen = of_class < classes
        found = {name: _summed(every, on[chosen], values[chosen]) for name, values in sums.columns.items()}
        counted = fit.row() < classes
        field = fit.columns["field"][counted]
        return cls(
            Pairs.of(state["matrix"], every, classes, RESOLUTION),
            Pairs.of(state["metric"], every, classes, OF_METRIC),
            found["right"] * RESOLUTION,
            found["deformed"].reshape(every, d, len(DEFORMATIONS)) * OF_DEFORMED,
            found["records"][:, 0].astype(np.int64),
            _summed(1, np.zeros(len(field), np.int64), field).reshape(len(DEFORMATIONS), -1) * OF_FIELD,
            int(fit.columns["measurements"][counted].sum(dtype=np.int64)),
        )

    @property
    def seen(self) -> Mask:
        """Numbers that some measurement goes with, [structures, d]."""
        found = np.zeros(self.right.shape, np.bool_)
        for pairs in (self.matrix, self.metric):
            own = pairs.one == pairs.other
            there = np.zeros(self.right.shape, np.bool_)
            there[pairs.one[own]] = np.einsum("pii->pi", pairs.blocks[own]) > 0
            found = there & (found if pairs is self.metric else True)
        return found

    def system(self, structures: Structures, values: Floats, wanted: Mask) -> System:
        """For the numbers of `wanted` [structures, 6], from `values` [structures, 6] in um and urad, where the others
        stay."""
        numbers = structures.numbers
        chosen = wanted[:, numbers]
        place = np.full(chosen.shape, -1, np.int64)
        place[chosen] = np.arange(chosen.sum())
        structure, column = np.nonzero(chosen)
        right = self.right - self.matrix.times(np.where(structures.is_free, values, 0.0)[:, numbers])
        return System(
            structure,
            numbers[column],
            self.matrix.square(place),
            right[chosen],
            self.metric.square(place),
            self.deformed[chosen],
            self.field,
            self.measurements,
            np.zeros(len(structure)),
        )


def by_class(state: State, classes: int) -> dict[str, Ints]:
    """`chi2` (in steps of COARSE), `ndf` and `records` of each class of records, those not used last, [classes + 2]."""
    fit: ChannelSums = state["fit"]
    found = {name: np.zeros(classes + 2, np.int64) for name in ("chi2", "ndf", "records")}
    for name, total in found.items():
        np.add.at(total, fit.row(), fit.columns[name][:, 0])
    return found


def _summed(rows: int, where: Ints, values: NDArray[np.signedinteger]) -> Floats:
    """Sums of whole numbers [n, width] by the row that each goes to, [rows, width]: rounded once, at the end.

    In two halves, for parts that each have room in int64 need not have it together.
    """
    high, low = np.zeros((2, rows, values.shape[1]), np.int64)
    wide = values.astype(np.int64, copy=False)
    np.add.at(high, where, wide >> 32)
    np.add.at(low, where, wide & 0xFFFFFFFF)
    found: Floats = high.astype(np.float64) * 2.0**32 + low
    return found
