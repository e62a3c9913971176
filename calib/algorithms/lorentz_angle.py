"""Lorentz angle from the slope of tracks at which clusters are smallest: one payload a run, or whatever is merged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntFlag
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calib.accumulators import UnitSums, to_fixed
from calib.algorithms.lorentz_field import brought, field_sums, fields_of, in_field, one_field
from calib.algorithms.lorentz_fit import PARAMETERS, Fit, Sums, fit
from calib.algorithms.sorts import Sorts
from calib.boundaries import Interval, merge_until_enough
from calib.calibration import Calibration, Columns, NotConverged, NotEnoughData, at_finalize, packed_units
from calib.form import Leeway
from calib.jagged import counts_of, flat_of, jagged_of
from calib.payload import Payload
from calib.pulls import Apart, of_measured
from calib.state import State

Int = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Array = NDArray[Any]

KIND = "lorentz_angle"
UNITS = dict.fromkeys(("tan", "tan_error", "scale_error", "group_tan", "group_error"), "1") | {"tesla": "T"}
RESOLUTION = 1e-6
"""of slopes"""
CLUSTERS, SIZE, SIZE_SQUARED, SLOPE = range(4)
"""what is summed"""


class Status(IntFlag):
    """What is the matter with a value; bits that may come together. All but DIFFER keep the old one."""

    NEW = 0
    """measured in this interval, nothing the matter"""
    FEW = 1
    """kept: too few clusters; the other bits are those of the payload before"""
    MOVED = 2
    """kept: it moved too far to be believed"""
    VAGUE = 4
    """kept: the fit did not settle, or its error is too large"""
    MISFIT = 8
    """kept: sizes do not follow the slope as they should"""
    DIFFER = 16
    """groups that share the value do not agree about it: is a sensor turned, or one side's sign wrong?"""


@dataclass(frozen=True, kw_only=True)
class LorentzAngle(Calibration):
    """Tangent of the Lorentz angle, of values that `together` consecutive groups share (as those of two sides).

    Columns, jagged, an entry for each cluster on a track: `lorentz_group`; `lorentz_slope`, that of the track across
    the channels and against the normal of the sensor, du/dw, by axes in which the charge drifts towards +u where the
    tangent is above 0; `lorentz_size`, the channels that the cluster reaches over along u; and, where there is one,
    `lorentz_pt`. Clusters at borders or beside masked channels are for the experiment to leave out.

    Sums of sizes in bins of the slope; then a hyperbola for each group (`calib.algorithms.lorentz_fit`). Its lowest
    point is the tangent but for a `bias`, relative, that thresholds and the longer way of steep tracks make; the
    experiment says how large it is, from simulation, and how well that is known. Where tracks are not steep enough to
    go past the lowest point, its other parameters are not told by the data: `held` keeps them at `shape`, which then
    must be from simulation too.

    The tangent goes with the field. Where the conditions of a `field` kind have it, as `tesla`, units of different
    fields never share an interval, the payload says in which it was measured, and whoever uses it brings it to that of
    the events (`in_field`), as is done with the payload before. Without a field nothing is made: there is no angle.

    Payload, float64 unless said, [values]: `tan`, its statistical `tan_error`, `scale_error` (what the bias leaves),
    `entries` int64, `status` int8 of `Status`; [groups]: `group_tan`, `group_error`, `chi2`, `ndf` int32, and `shape`
    [groups, 3], the other parameters p0, k, w (channels); and, where it is known, `tesla`, the field (T).
    """

    kind: ClassVar[str] = KIND
    version: ClassVar[int] = 3
    reads: ClassVar[tuple[str, ...]] = ("lorentz_group", "lorentz_slope", "lorentz_size")
    reads_if_there: ClassVar[tuple[str, ...]] = ("lorentz_pt",)
    # A channel's charge and threshold share its gain; where a cluster is that reaches over two gains goes by both.
    after: ClassVar[tuple[str, ...]] = ("pedestal", "channel_status", "gain")
    looks_at_previous: ClassVar[bool] = True
    field: ClassVar[str | None] = None
    """the kind of conditions that says in which field events were; it must be among `uses` then"""
    tolerated: ClassVar[Mapping[str, float]] = {"tan": 0.002}
    leeway: ClassVar[Leeway] = Leeway(more=UNITS | dict.fromkeys(("entries", "status", "chi2", "ndf", "shape"), ""))

    groups: int
    together: int = 1
    """consecutive groups that share a value"""
    slopes: tuple[float, float] = (-0.8, 0.8)
    """between which they are looked at"""
    bins: int = 40
    largest: int = 12
    """clusters of more channels are left out: delta rays, or two tracks"""
    least_pt: float = 0.0
    """GeV, of tracks, where `lorentz_pt` is there"""
    first: tuple[int, ...] = at_finalize((0,))
    """groups are of several sorts, such as thin and thick sensors: the first group of each"""
    shape: tuple[tuple[float, float, float], ...] = at_finalize(((0.9, 2.5, 0.1),))
    """p0, k and w that the fit begins with (channels, channels, 1), of each sort"""
    held: tuple[bool, ...] = at_finalize((False,))
    """whether these stay as they are, of each sort"""
    bias: tuple[float, ...] = at_finalize((0.0,))
    """the lowest point lies at (1 + bias) x tangent, of each sort"""
    bias_error: tuple[float, ...] = at_finalize((0.0,))
    min_entries: int = at_finalize(1000)
    """with fewer clusters a group has no say"""
    max_error: float = at_finalize(0.05)
    """a value with a larger error stays as it was"""
    max_move: float = at_finalize(0.1)
    """a value further from the payload before stays as it was"""
    max_chi2: float = at_finalize(10.0)
    """per degree of freedom, of any group of a value; with more it stays as it was"""
    differ: float = at_finalize(5.0)
    """errors, by which groups of a value are apart when it is flagged"""
    most_few: float = at_finalize(0.5)
    """share of the values; with more that have too few clusters there is no payload"""
    most_off: float = at_finalize(0.5)
    """share of the values; with more that moved too far, or are vague or misfits, there is no payload"""

    def __post_init__(self) -> None:
        if self.groups < 1 or self.together < 1 or self.groups % self.together:
            raise ValueError(f"`groups` = {self.groups} must be a multiple of `together` = {self.together}")
        if self.bins <= len(PARAMETERS) or not self.slopes[0] < self.slopes[1] or self.largest < 1:
            raise ValueError(f"`bins` must be more than {len(PARAMETERS)}, `slopes` rise, `largest` be 1 at least")
        if len({len(part) for part in (self.first, self.shape, self.held, self.bias, self.bias_error)}) > 1:
            raise ValueError("`first`, `shape`, `held`, `bias` and `bias_error` must have an entry for each sort")
        if any(begin % self.together for begin in self._sorts.first) or min(self.bias) <= -1:
            raise ValueError("a sort must begin with the first group of a value, and a `bias` be above -1")

    def accumulate(self, columns: Columns, conditions: Mapping[str, Payload]) -> State:
        """Sums by unit, group and bin. Raises ValueError for groups that are none, or a slope that is no number."""
        units = packed_units(columns)
        counts = counts_of(columns["lorentz_group"])
        flat = self._clusters(columns, counts)
        keys, place = np.unique(units, return_inverse=True)
        low, high = self.slopes
        scaled = np.floor((flat["slope"] - low) / (high - low) * self.bins)
        use = (scaled >= 0) & (scaled < self.bins) & (flat["size"] <= self.largest) & (flat["size"] > 0)
        use &= flat["pt"] >= self.least_pt
        cell = (np.repeat(place, counts) * self.groups + flat["group"]) * self.bins
        cell = (cell + scaled.astype(np.int64))[use]
        size = flat["size"][use].astype(np.float64)
        # Of whole numbers, and small enough that sums of them in double precision are exact.
        slope = to_fixed(flat["slope"][use], RESOLUTION).astype(np.float64)
        sums = np.stack(
            [np.bincount(cell, weight, len(keys) * self._cells) for weight in (None, size, size**2, slope)], axis=-1
        )
        shape = (len(keys), self.groups, self.bins, 4)
        state = {"sizes": UnitSums(keys, np.rint(sums).astype(np.int64).reshape(shape))}
        if self.field is not None:
            state["field"] = field_sums(keys, np.bincount(place, minlength=len(keys)), conditions[self.field])
        return State(state)

    def corrected(self, columns: Columns, conditions: Mapping[str, Payload]) -> Columns:
        """Slopes about those in force, at which sizes should be smallest."""
        tan = conditions[KIND]["tan"] if self.field is None else in_field(conditions[KIND], conditions[self.field])
        lowest = np.repeat(tan, self.together) * (1 + self._sorts.by_group(self.bias))
        slope, counts = flat_of(columns["lorentz_slope"]), counts_of(columns["lorentz_slope"])
        about = slope - lowest[flat_of(columns["lorentz_group"])]
        return {**columns, "lorentz_slope": jagged_of(about, counts)}

    def left_by(self, in_force: Payload) -> Payload:
        """No angle."""
        return Payload(in_force.kind, {**in_force.arrays, "tan": np.zeros_like(in_force["tan"])}, in_force.units)

    def apart(self, found: Payload, expected: Payload) -> dict[str, Apart]:
        """Of values that were measured, in the field of the first; and how many moved too far, or have no fit."""
        off, tesla = Status.MOVED | Status.MISFIT, found.arrays.get("tesla")
        there = brought(expected, None if tesla is None else float(tesla))
        return of_measured(found, expected if there is None else there, Status.FEW | Status.VAGUE | off, off)

    def empty(self) -> State:
        """No event."""
        field = {} if self.field is None else {"field": UnitSums.empty((2,))}
        return State({"sizes": UnitSums.empty((self.groups, self.bins, 4))} | field)

    def finalize(self, state: State, previous: Payload | None) -> Payload:
        """Tangents; what they were in `previous` where statistics, movement or the fit say so.

        Raises NotEnoughData when too many values have too few clusters, or one that must be kept is not there;
        NotConverged, with what was measured, when too many are off; NotEnoughData for units of several fields, or none.
        """
        tesla = self._tesla(state)
        previous = None if previous is None else brought(previous, tesla)
        total = state["sizes"].total()
        parts = (total[..., CLUSTERS], total[..., SIZE], total[..., SIZE_SQUARED], total[..., SLOPE] * RESOLUTION)
        sums = Sums(*parts)
        entries = sums.clusters.sum(axis=1)
        enough = entries >= self.min_entries
        few = ~enough.reshape(-1, self.together).any(axis=1)
        if not len(state.units()) or few.sum() > self.most_few * len(few):
            raise NotEnoughData(
                f"{few.sum()} of {len(few)} values have fewer than {self.min_entries} clusters in all their groups, "
                f"{self.most_few:.3g} of them may"
            )
        start, free = self._start(previous)
        found = fit(sums, start, free)
        scale = 1 + self._sorts.by_group(self.bias)
        own = np.where(enough, found.parameters[:, 0] / scale, np.nan)
        error = np.where(enough & found.settled, found.error / np.abs(scale), np.inf)
        arrays: dict[str, Array] = {
            "group_tan": own,
            "group_error": np.where(enough, error, np.nan),
            "chi2": np.where(enough, found.chi2, np.nan),
            "ndf": np.where(enough, found.ndf, 0).astype(np.int32),
            "shape": np.where(enough[:, None], found.parameters[:, 1:], np.nan),
            "entries": entries.reshape(-1, self.together).sum(axis=1),
        }
        tan, tan_error, apart = self._combined(own, error)
        arrays |= {"tan": tan, "tan_error": tan_error}
        arrays["scale_error"] = np.abs(tan) * self._sorts.by_group(self.bias_error)[:: self.together]
        arrays |= {} if tesla is None else {"tesla": np.asarray(tesla)}
        return self._judged(arrays, self._status(found, enough, few, apart, tan_error), previous)

    def intervals(self, state: State, flush: bool) -> list[Interval]:
        """As of any calibration; runs too are cut where the field changes."""
        return [part for whole in super().intervals(state, flush) for part in self._of_one_field(whole, state)]

    def cut(self, state: State, flush: bool) -> list[Interval]:
        """Units of one field together until there are `min_entries` clusters for each group, on average."""
        sums: UnitSums = state["sizes"]
        clusters = sums.values[..., CLUSTERS].sum(axis=(1, 2))
        found = []
        parts = self._fields_apart(state)
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            enough = self.min_entries * self.groups
            blocks, rest = merge_until_enough(sums.keys[part], clusters[part], enough, flush or not last)
            found += [Interval(block, closed=True) for block in blocks]
            found += [Interval(rest, closed=False)] if rest else []
        return found

    def _fields_apart(self, state: State) -> list[slice]:
        """The units of a state, cut where the field is another than before."""
        sums: UnitSums = state["sizes"]
        tesla = self._fields(state)
        places = [0, *(np.flatnonzero(np.diff(tesla)) + 1).tolist(), len(sums.keys)]
        return [slice(begin, end) for begin, end in pairwise(places) if end > begin]

    def _fields(self, state: State) -> Floats:
        """The field of every unit (T); 0 of all where it is not known."""
        return np.zeros(len(state["sizes"].keys)) if self.field is None else fields_of(state["field"])

    def _of_one_field(self, whole: Interval, state: State) -> list[Interval]:
        part = state.select(np.array(whole.units, np.int64))
        pieces = [whole.units[place] for place in self._fields_apart(part)]
        if len(pieces) < 2:
            return [whole]
        return [Interval(units, closed=whole.closed or units is not pieces[-1]) for units in pieces]

    def _tesla(self, state: State) -> float | None:
        """The field of all units; None where it is not known."""
        if self.field is None or not len(state.units()):
            return None
        return one_field(self._fields(state))

    @property
    def _cells(self) -> int:
        return self.groups * self.bins

    def _clusters(self, columns: Columns, counts: Int) -> dict[str, Array]:
        """Group, slope, size and pt of all clusters in line."""
        names = [*self.reads, *(name for name in self.reads_if_there if name in columns)]
        flat = {name.removeprefix("lorentz_"): flat_of(columns[name]) for name in names}
        wrong = {name: len(values) for name, values in flat.items() if len(values) != counts.sum()}
        if wrong:
            raise ValueError(f"there are {counts.sum()} entries of `lorentz_group`, but of others {wrong}")
        group = flat["group"].astype(np.int64)
        if len(group) and not 0 <= group.min() <= group.max() < self.groups:
            raise ValueError(f"groups {group.min()} to {group.max()} have clusters; there are {self.groups}")
        slope = flat["slope"].astype(np.float64)
        if not np.isfinite(slope).all():
            raise ValueError("a track has a slope that is no number")
        pt = flat.get("pt", np.full(len(group), np.inf))
        return {"group": group, "slope": slope, "size": flat["size"].astype(np.int64), "pt": pt}

    @property
    def _sorts(self) -> Sorts:
        return Sorts(self.first, self.groups)

    def _start(self, previous: Payload | None) -> tuple[Floats, Mask]:
        """Where the fits begin, and what they may move."""
        start, free = np.zeros((self.groups, len(PARAMETERS))), np.ones((self.groups, len(PARAMETERS)), np.bool_)
        for sort, some in enumerate(self._sorts):
            start[some, 1:] = self.shape[sort]
            free[some, 1:] = not self.held[sort]
        if previous is not None:
            if previous["tan"].shape != (self.groups // self.together,):
                raise ValueError(
                    f"the payload before has {previous['tan'].shape} values; there are {self.groups // self.together}"
                )
            start[:, 0] = np.repeat(previous["tan"], self.together) * (1 + self._sorts.by_group(self.bias))
        return start, free

    def _combined(self, own: Floats, error: Floats) -> tuple[Floats, Floats, Mask]:
        """The mean of the groups of each value by their weights, its error, and whether they are apart."""
        weight = np.where(np.isfinite(error) & np.isfinite(own), 1 / error**2, 0.0).reshape(-1, self.together)
        values = np.where(weight > 0, own.reshape(weight.shape), 0.0)
        total = weight.sum(axis=1)
        mean = np.divide((weight * values).sum(axis=1), total, out=np.full(len(total), np.nan), where=total > 0)
        spread = (weight * (values - np.nan_to_num(mean)[:, None]) ** 2).sum(axis=1)
        more = np.maximum(np.count_nonzero(weight, axis=1) - 1, 1)
        with np.errstate(divide="ignore"):
            return mean, 1 / np.sqrt(total), spread > self.differ**2 * more

    def _status(self, found: Fit, enough: Mask, few: Mask, apart: Mask, error: Floats) -> NDArray[np.int8]:
        bad = enough & (found.chi2 > self.max_chi2 * np.maximum(found.ndf, 1))
        misfit = bad.reshape(-1, self.together).any(axis=1)
        flags = {
            Status.FEW: few,
            Status.VAGUE: ~few & ~(error <= self.max_error),
            Status.MISFIT: ~few & misfit,
            Status.DIFFER: ~few & apart,
        }
        status = np.zeros(len(few), np.int8)
        for flag, where in flags.items():
            status |= where * np.int8(flag)
        return status

    def _judged(self, arrays: dict[str, Array], status: NDArray[np.int8], previous: Payload | None) -> Payload:
        well = status & ~np.int8(Status.DIFFER) == 0
        if previous is not None:
            moved = well & (np.abs(arrays["tan"] - previous["tan"]) > self.max_move)
            status = status | moved * np.int8(Status.MOVED)
        off = np.count_nonzero(status & (Status.MOVED | Status.VAGUE | Status.MISFIT))
        if off > self.most_off * len(status):
            measured = status & ~np.int8(Status.MOVED)
            raise NotConverged(
                f"{off} of {len(status)} tangents moved by more than {self.max_move:g}, have an error above "
                f"{self.max_error:g}, or sizes that do not follow the slope; if a move is true, have it published by "
                "name, or raise `max_move`",
                None if previous is None else self._payload(arrays, measured, previous),
            )
        return self._payload(arrays, status, previous)

    def _payload(self, arrays: dict[str, Array], status: NDArray[np.int8], previous: Payload | None) -> Payload:
        kept = status & ~np.int8(Status.DIFFER) != 0
        found = dict(arrays)
        if previous is None and kept.any():
            first = int(np.flatnonzero(kept)[0])
            raise NotEnoughData(
                f"{kept.sum()} values must stay as they were, the first {first} ({Status(int(status[first]))!r}), "
                "and there is no payload before; publish one to begin with (`nominal`)"
            )
        if previous is not None:
            for name in ("tan", "tan_error", "scale_error"):
                # One to begin with may have no errors: it is taken as exact.
                before = previous.arrays.get(name, np.zeros(len(status)))
                found[name] = np.where(kept, before, found[name])
            few = (status & Status.FEW) != 0
            status = np.where(few, status | previous.arrays.get("status", status), status)
        units = {name: unit for name, unit in UNITS.items() if name in found}
        return Payload(KIND, found | {"status": status.astype(np.int8)}, units)


def nominal(values: int, tan: ArrayLike, tesla: float | None = None) -> Payload:
    """A payload to start from: the tangent of every value, or one for all, taken as exact; and of which field."""
    found = {"tan": np.broadcast_to(np.asarray(tan, np.float64), values)}
    found |= {} if tesla is None else {"tesla": np.asarray(tesla, np.float64)}
    return Payload(KIND, found, {name: UNITS[name] for name in found})
