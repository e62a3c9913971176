"""Gain of groups of channels from the charge that particles leave on their way: a payload for a run or several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntFlag
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calib.algorithms.gain_peaks import peaks
from calib.algorithms.gain_shape import Shape, Tables, tables
from calib.algorithms.sorts import Sorts
from calib.boundaries import Interval
from calib.calibration import (
    Calibration,
    Columns,
    Granularity,
    NotConverged,
    NotEnoughData,
    at_finalize,
    packed_units,
    whole_runs,
)
from calib.channel_sums import ChannelSums, holding, places
from calib.form import Leeway
from calib.iov import LUMI_BITS
from calib.jagged import counts_of, flat_of, jagged_of
from calib.payload import Payload
from calib.pools import Pools
from calib.pulls import Apart, of_measured
from calib.state import State

Int = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Array = NDArray[Any]

KIND = "gain"
UNITS = dict.fromkeys(("gain", "gain_error", "scale_error"), "1")
COUNTED = ("entries", "saturated", "chi2", "ndf", "status")
"""without unit"""
STEP = 0.01
"""of the logarithm of the peak, on the grid that the likelihood is taken on"""


class Status(IntFlag):
    """What is the matter with a group; bits that may come together. All keep the gain they had."""

    NEW = 0
    """measured in this interval, nothing the matter"""
    FEW = 1
    """kept: too few clusters; the other bits are those of the payload before"""
    MOVED = 2
    """kept: the gain moved too far to be believed"""
    OUT_OF_REACH = 4
    """kept: the peak lies at the end of where it was looked for"""
    MISFIT = 8
    """kept: charge over path is not distributed as it should be, so that the peak found is none"""


OFF = Status.MOVED | Status.OUT_OF_REACH | Status.MISFIT
"""for which there must be a reason in the detector"""


@dataclass(frozen=True, kw_only=True)
class Gain(Calibration):
    """Gain by group of channels that share one (a readout chip): charge = counts x gain x a constant.

    Columns, jagged, an entry for each cluster on a track: `gain_group`; `gain_charge`, by the gain in force;
    `gain_path` in the sensor; and, where there is one, `gain_saturated`: more charge than could be told. Saturated
    clusters must not be left out: they say that the charge was at least so much.

    The gain in force (conditions `gain`) is taken out of the charge, so that runs made under different ones go
    together. What is left, over the path, has its peak at `expected` / gain: the experiment says, from simulation, how
    large that is at gain 1, and how well that is known. Histograms are of the logarithm, in which a gain is a shift:
    `calib.algorithms.gain_shape`; the peaks of all groups are found at once: `calib.algorithms.gain_peaks`.

    Payload, float32 unless said: `gain` and its statistical `gain_error`; `entries` int32, clusters used, of them
    `saturated` int32; `chi2` of the histogram against its shape, with `ndf`, which is what it is on average and so no
    whole number (`calib.algorithms.gain_agreement`; NaN with too few clusters); `status` int8 of `Status`, all
    [groups]; `scale_error` [sorts], relative, in which all groups of a sort are wrong together.

    Granularity `span`: whole runs are put together until enough groups have enough clusters. What is left over at the
    end of the data is an interval of its own, with too few.
    """

    kind: ClassVar[str] = KIND
    version: ClassVar[int] = 2
    reads: ClassVar[tuple[str, ...]] = ("gain_group", "gain_charge", "gain_path")
    reads_if_there: ClassVar[tuple[str, ...]] = ("gain_saturated",)
    uses: ClassVar[tuple[str, ...]] = (KIND,)
    after: ClassVar[tuple[str, ...]] = ("pedestal", "channel_status")
    looks_at_previous: ClassVar[bool] = True
    tolerated: ClassVar[Mapping[str, float]] = {"gain": 0.002}
    leeway: ClassVar[Leeway] = Leeway(more=UNITS | dict.fromkeys(COUNTED, ""))

    groups: int
    low: float = 25.0
    """charge over path (e/um) from which on clusters are looked at; a third of the smallest peak"""
    high: float = 280.0
    """above this it is only counted how many there are"""
    bins: int = 80
    """even ones of the logarithm between the two; one fourth of the width of the peak costs 0.5 % of the error"""
    pools: int = 8
    """in so many parts at most, of consecutive units, are the sums of a run kept: each can be left out of a refit. 0:
    they are in one"""
    first: tuple[int, ...] = at_finalize((0,))
    """groups are of several sorts, such as thin and thick sensors: the first group of each"""
    expected: tuple[float, ...] = at_finalize((79.5,))
    """peak of charge over path at gain 1 (e/um), of each sort"""
    expected_error: tuple[float, ...] = at_finalize((0.0,))
    """relative"""
    width: tuple[float, ...] = at_finalize((0.064,))
    """of Landau's distribution, over its peak; of each sort"""
    smear: tuple[float, ...] = at_finalize((0.0,))
    """rms of the Gaussian on top, over the peak"""
    stray: float = at_finalize(2e-3)
    """share of the clusters that may have any charge"""
    reach: float = at_finalize(0.7)
    """peaks are looked for from expected / (1 + reach) to expected x (1 + reach)"""
    min_entries: int = at_finalize(25)
    """with fewer clusters a group keeps what it had"""
    max_move: float = at_finalize(0.3)
    """relative; a gain further from that of the payload before keeps what it had"""
    max_chi2: float = at_finalize(0.2)
    """per cluster, beyond what is chance: the shape is not known better, and of many clusters that shows. Of silicon
    strips it is up to 0.03 (the worst of a layer, at the largest slopes), of a spectrum without a peak 3.4, of one that
    is half so 1.9"""
    least_chance: float = at_finalize(1e-6)
    """of a chi2 beyond that; of sound groups of 25 clusters fewer than 1 in 10^5 are called misfits, of flat ones 96 %,
    and all from 40 clusters on"""
    most_few: float = at_finalize(0.05)
    """share of the groups; with more that have too few clusters there is no payload"""
    most_off: float = at_finalize(0.5)
    """share of the groups; with more that moved too far, out of reach or misfits there is no payload"""

    def __post_init__(self) -> None:
        if self.groups < 1 or self.bins < 2 or not 0 < self.low < self.high:
            raise ValueError(
                f"there must be groups, bins, and 0 < low < high: not {self.groups} groups with {self.bins} bins from "
                f"{self.low:g} to {self.high:g}"
            )
        if self.min_entries < 2 or not self.reach > 0 or not 0 <= self.stray < 1:
            raise ValueError("`min_entries` must be at least 2, `reach` above 0, and `stray` a share below 1")
        if len({len(part) for part in self._by_sort()}) > 1:
            raise ValueError(
                "`first`, `expected`, `expected_error`, `width` and `smear` must have an entry a sort each"
            )
        Sorts(self.first, self.groups)  # which raises for what are none

    def accumulate(self, columns: Columns, conditions: Mapping[str, Payload]) -> State:
        """Histograms by group and pool of units.

        Raises ValueError for groups that are none, for a charge or path that is no number, or a gain in force that is
        not of these groups.
        """
        units = packed_units(columns)
        if not len(units):
            return self.empty()
        counts = counts_of(columns["gain_group"])
        group, charge, path, saturated = self._clusters(columns, counts)
        gain = conditions[KIND]["gain"]
        self._check(gain, "in force")
        place = self._bins(charge / gain[group], path)
        pools = Pools.of(units, self.pools)
        seen, row = places(np.repeat(pools.place(units), counts) * self.groups + group, len(pools) * self.groups)
        rows = seen // self.groups << LUMI_BITS | seen % self.groups
        cells, kind = row * self._width + place, holding(0, len(group))
        sums = {name: np.zeros((len(rows), self._width), kind) for name in ("clear", "saturated")}
        for values, which in zip(sums.values(), (~saturated, saturated), strict=True):
            np.add.at(values.reshape(-1), cells[which], kind(1))
        # The gain in force is taken out, so sums do not depend on it.
        return State({"clusters": ChannelSums.of(pools, 0, rows, sums)})

    def empty(self) -> State:
        """No event."""
        return State({"clusters": ChannelSums.empty(dict.fromkeys(("clear", "saturated"), self._width), self.pools)})

    def finalize(self, state: State, previous: Payload | None) -> Payload:
        """Gains; what a group had in `previous` where statistics or movement say so.

        Raises NotEnoughData when too many groups have too few clusters, or one that must keep its gain has none;
        NotConverged, with what was measured, when too many are off.
        """
        clear, saturated = (state["clusters"].total(name, self.groups) for name in ("clear", "saturated"))
        entries = clear[:, 1:].sum(axis=1) + saturated[:, 1:].sum(axis=1)
        few = entries < self.min_entries
        if not len(state.units()) or few.sum() > self.most_few * self.groups:
            raise NotEnoughData(
                f"{few.sum()} of {self.groups} groups have fewer than {self.min_entries} clusters, "
                f"{self.most_few:.3g} of them may"
            )
        found = {name: np.empty(self.groups) for name in ("gain", "gain_error", "chi2", "ndf")}
        status = few * np.int8(Status.FEW)
        for sort, some in enumerate(self._sorts):
            known = self._tables(sort)
            peak = peaks(*_open_ended(clear[some], saturated[some]), known)
            found["gain"][some] = self.expected[sort] / np.exp(peak.logarithm)
            found["gain_error"][some] = found["gain"][some] * np.sqrt(peak.variance)
            of_fit = {"chi2": peak.agreement.chi2, "ndf": peak.agreement.ndf}
            for name, values in of_fit.items():
                found[name][some] = np.where(few[some], np.nan, values)
            # Where there is no peak within reach none is looked at.
            misfit = (peak.agreement.chance(self.max_chi2 * entries[some]) < self.least_chance) & ~peak.at_end
            flags = peak.at_end * np.int8(Status.OUT_OF_REACH) | misfit * np.int8(Status.MISFIT)
            status[some] |= np.where(few[some], np.int8(0), flags)
        counted = {"entries": entries.astype(np.int32), "saturated": saturated[:, 1:].sum(axis=1).astype(np.int32)}
        return self._judged(found, counted, status, previous)

    def corrected(self, columns: Columns, conditions: Mapping[str, Payload]) -> Columns:
        """Charge as the gain in force has it: what `accumulate` takes out of it is put in once more."""
        gain, counts = conditions[KIND]["gain"], counts_of(columns["gain_charge"])
        group, charge = flat_of(columns["gain_group"]), flat_of(columns["gain_charge"])
        return {**columns, "gain_charge": jagged_of(charge * gain[group], counts)}

    def left_by(self, in_force: Payload) -> Payload:
        """A gain of 1, known as well as it was; of a design, that has no errors, to the full."""
        gain = in_force["gain"]
        error = in_force.arrays.get("gain_error", np.zeros_like(gain))
        ones = {"gain": np.ones_like(gain), "gain_error": (error / gain).astype(gain.dtype)}
        return Payload(in_force.kind, {**in_force.arrays, **ones}, in_force.units)

    def apart(self, found: Payload, expected: Payload) -> dict[str, Apart]:
        """Of groups that were measured; and how many moved too far, out of reach, or have no peak."""
        return of_measured(found, expected, Status.FEW | OFF, OFF)

    def cut(self, state: State, flush: bool) -> list[Interval]:
        """Whole runs together until enough groups have enough clusters."""
        if self.granularity is Granularity.LUMI:
            return super().cut(state, flush)
        found, pending = [], np.zeros(0, np.int64)
        clusters = np.zeros(self.groups, np.int64)
        for run in whole_runs(state.units(), flush):
            own = state["clusters"].select(np.array(run.units, np.int64))
            clusters += sum(own.total(name, self.groups)[:, 1:].sum(axis=1) for name in own.columns)
            pending = np.append(pending, run.units)
            enough = np.count_nonzero(clusters < self.min_entries) <= self.most_few * self.groups
            if run.closed and enough:
                found.append(Interval(tuple(pending.tolist()), closed=True))
                pending, clusters = pending[:0], np.zeros(self.groups, np.int64)
        return [*found, Interval(tuple(pending.tolist()), closed=flush)] if len(pending) else found

    @property
    def _width(self) -> int:
        """Counts of a group: below all bins, in each, and above."""
        return self.bins + 2

    def _by_sort(self) -> tuple[tuple[float, ...], ...]:
        return self.first, self.expected, self.expected_error, self.width, self.smear

    @property
    def _sorts(self) -> Sorts:
        return Sorts(self.first, self.groups)

    def _tables(self, sort: int) -> Tables:
        edges = tuple(np.linspace(np.log(self.low), np.log(self.high), self.bins + 1).tolist())
        shape = Shape(self.width[sort], self.smear[sort])
        return tables(shape, self.expected[sort], edges, (self.reach, STEP), self.stray)

    def _clusters(self, columns: Columns, counts: Int) -> tuple[Int, Floats, Floats, Mask]:
        """Group, charge, path, and whether it is saturated, of all clusters in line."""
        flat = {name: flat_of(columns[name]) for name in self.reads}
        named = [name for name in self.reads_if_there if name in columns]
        flat |= {name: flat_of(columns[name]) for name in named}
        wrong = {name: len(values) for name, values in flat.items() if len(values) != counts.sum()}
        if wrong:
            raise ValueError(f"there are {counts.sum()} entries of `gain_group`, but of others {wrong}")
        group = flat["gain_group"].astype(np.int64)
        if len(group) and not 0 <= group.min() <= group.max() < self.groups:
            raise ValueError(f"groups {group.min()} to {group.max()} have clusters; there are {self.groups}")
        charge, path = (flat[name].astype(np.float64) for name in ("gain_charge", "gain_path"))
        if not (np.isfinite(charge).all() and np.isfinite(path).all() and (path > 0).all()):
            raise ValueError("a cluster has a charge or a path that is no number, or a path that is not above 0")
        none = np.zeros(len(group), np.bool_)
        return group, charge, path, flat.get("gain_saturated", none).astype(np.bool_)

    def _check(self, gain: Array, which: str) -> None:
        if gain.shape != (self.groups,) or not np.all(gain > 0):
            raise ValueError(
                f"the gain {which} has shape {gain.shape} and is {gain.min(initial=np.inf):g} at the least; it must "
                f"have {self.groups} values above 0"
            )

    def _bins(self, charge: Floats, path: Floats) -> Int:
        """0 below `low`, then 1 for the first bin, up to `bins` + 1 for what is above `high`."""
        logarithm = np.log(np.maximum(charge, 1e-3 * self.low * path) / path)
        place = np.floor((logarithm - np.log(self.low)) * (self.bins / np.log(self.high / self.low)))
        found: Int = 1 + np.clip(place, -1, self.bins).astype(np.int64)
        return found

    def _judged(
        self, found: dict[str, Floats], counted: Mapping[str, Array], status: Array, previous: Payload | None
    ) -> Payload:
        if previous is not None:
            self._check(previous["gain"], "before")
            far = np.abs(found["gain"] / previous["gain"] - 1) > self.max_move
            status = status | (far & (status == Status.NEW)) * np.int8(Status.MOVED)
        off = np.count_nonzero(status & OFF)
        if off > self.most_off * self.groups:
            measured = status & ~np.int8(Status.MOVED)
            raise NotConverged(
                f"{off} of {self.groups} gains moved by more than {self.max_move:.3g} of what they were, or out of "
                f"reach, or are of spectra that have not the shape of particles; if that is true, have it published by "
                f"name, or raise `max_move`, `reach` and `max_chi2`",
                None if previous is None else self._payload(found, counted, measured, previous),
            )
        return self._payload(found, counted, status, previous)

    def _payload(
        self, found: Mapping[str, Floats], counted: Mapping[str, Array], status: Array, previous: Payload | None
    ) -> Payload:
        kept = status != Status.NEW
        arrays: dict[str, Array] = {name: values.astype(np.float32) for name, values in found.items()}
        if previous is None and kept.any():
            first = int(np.flatnonzero(kept)[0])
            raise NotEnoughData(
                f"{kept.sum()} groups must keep what they had, the first {first} ({Status(int(status[first]))!r}), "
                "and there is no payload before; publish one to begin with (`nominal`)"
            )
        if previous is not None:
            arrays["gain"][kept] = previous["gain"][kept]
            # One to begin with may have no errors: it is taken as exact.
            arrays["gain_error"][kept] = previous["gain_error"][kept] if "gain_error" in previous.arrays else 0.0
            before = previous.arrays.get("status", np.zeros(self.groups, np.int8))
            status = np.where(status & Status.FEW, status | before, status)
        arrays |= {**counted, "status": status.astype(np.int8)}
        return Payload(KIND, arrays | {"scale_error": np.asarray(self.expected_error, np.float32)}, UNITS)


def _open_ended(clear: Array, saturated: Array) -> tuple[Array, Array]:
    """What the likelihood is of: without what is below all bins; above them it does not matter what is saturated."""
    counted = clear[:, 1:].astype(np.int64 if clear.dtype == np.int64 else np.int32)
    counted[:, -1] = counted[:, -1] + saturated[:, -1].astype(counted.dtype)
    return counted, saturated[:, 1:-1]


def nominal(groups: int, gain: ArrayLike = 1.0) -> Payload:
    """A payload to start from: the gain of every group, or one for all, taken as exact."""
    values = np.broadcast_to(np.asarray(gain, np.float32), groups)
    none = np.zeros(groups, np.int32)
    arrays: dict[str, Array] = {"gain": values, "gain_error": np.zeros(groups, np.float32), "entries": none}
    arrays |= {"saturated": none, "status": np.zeros(groups, np.int8), "scale_error": np.zeros(1, np.float32)}
    return Payload(KIND, arrays, UNITS)


def is_good(payload: Payload) -> Mask:
    """Which groups have a gain that was measured, now or before: those without any flag, and those with FEW alone."""
    good: Mask = (payload["status"] & ~np.int8(Status.FEW)) == 0
    return good
