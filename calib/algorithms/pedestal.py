"""Pedestal and noise of every ADC channel, from samples without signal: one payload a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntFlag
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calib.algorithms.pedestal_estimates import (
    FAR,
    FAR_NOISE,
    Estimates,
    Moments,
    estimate,
    median_among,
    with_before,
)
from calib.algorithms.pedestal_samples import LARGEST_WINDOW, TOP, Reference, sum_samples
from calib.calibration import Calibration, Columns, NotConverged, NotEnoughData, at_finalize, packed_units
from calib.channel_sums import ChannelSums, places
from calib.form import Leeway
from calib.iov import LUMI_BITS
from calib.jagged import counts_of, flat_of
from calib.payload import Payload
from calib.pools import Pools
from calib.pulls import Apart, of_measured
from calib.state import State

Int = NDArray[np.int64]
Mask = NDArray[np.bool_]
Array = NDArray[Any]

KIND = "pedestal"
SAMPLE_COLUMNS = ("adc", "adc_squared", "entries", "over", "rest", "rest_squared", "under")
GROUP_COLUMNS = ("among", "left_out")
UNITS = dict.fromkeys(("mean", "mean_error", "noise", "noise_error"), "ADC")
SMALLEST_GROUP = 8
"""the median of fewer channels is no common mode"""


class Status(IntFlag):
    """What is the matter with a channel; bits that may come together. All but NOISY keep the old mean and noise."""

    NEW = 0
    """measured in this run, nothing the matter"""
    FEW = 1
    """kept: too few entries; the other bits are those of the payload before"""
    MOVED = 2
    """kept: the mean moved too far to be believed"""
    OUT_OF_WINDOW = 4
    """kept: most samples lay outside of the window; moved beyond it, or stuck at some value"""
    DEAD = 8
    """kept: the samples do not spread. What was before is kept so that the channel can come back"""
    NOISY = 16
    """the noise, which is the measured one, is far above that of the group"""


@dataclass(frozen=True, kw_only=True)
class Pedestal(Calibration):
    """Mean and noise by channel, one payload a run.

    Columns: `block_column`, jagged, the index of a block of `block` consecutive channels (a module, a board), and
    `adc_column`, jagged uint16, `block` samples for each entry of the former in the order of the channels. With
    `block` = 1 they are plain pairs of channel and ADC count. A block may come more than once in an event; samples
    are then taken as independent (of two in a row with correlation rho, errors are sqrt(1 + rho) larger).

    The payload in force (conditions `pedestal`) is the reference that the window lies about. The mean is taken
    without subtraction of the common mode, or a pedestal that moved for a whole group would be swallowed by it; the
    noise with the median of the group subtracted. Channels that the reference calls DEAD or NOISY, and samples
    outside of the window, have no say in the median. A group of which more than half is outside, such as a saturated
    module, is left out of that event. How sums are made: `calib.algorithms.pedestal_samples`; what is corrected, and
    the errors: `calib.algorithms.pedestal_estimates`.

    Means and noise that hardly drift are better known from what was before than from few samples: `steady`.

    Payload, float32 unless said: `mean`, `noise`, their `mean_error`, `noise_error` (ADC); `entries` int32, samples
    used; `status` int8 of `Status`, all [channels]. With groups, [channels / group]: `common_mode`, its rms (ADC), and
    `left_out` int32, events in which the group was left out.

    A run that begins from a payload that is not near (`nominal`) wants a wide `window` and `max_move`.
    """

    kind: ClassVar[str] = KIND
    version: ClassVar[int] = 2
    reads: ClassVar[tuple[str, ...]] = ("pedestal_block", "pedestal_adc")
    uses: ClassVar[tuple[str, ...]] = (KIND,)
    looks_at_previous: ClassVar[bool] = True
    may_stray: ClassVar[float] = 2e-5
    tolerated: ClassVar[Mapping[str, float]] = {"mean": 0.05, "noise": 0.02}
    leeway: ClassVar[Leeway] = Leeway(more={"common_mode": "ADC", "left_out": ""})

    channels: int
    block: int = 1
    """consecutive channels that are read out together"""
    group: int = 0
    """consecutive channels that share a common mode, 128 for an APV; 0: there is none"""
    window: float = 20.0
    """ADC; samples this far from reference and common mode count; about five times the noise"""
    pools: int = 2
    """in so many parts at most, of consecutive units, are the sums of a run kept: each can be left out of a refit. 0:
    they are in one"""
    block_column: str = "pedestal_block"
    adc_column: str = "pedestal_adc"
    min_entries: int = at_finalize(100)
    """with fewer a channel keeps what it had"""
    max_move: float = at_finalize(8.0)
    """ADC; a mean further from the payload before keeps what it had"""
    most_few: float = at_finalize(0.1)
    """share of the channels; with more that have too few entries there is no payload"""
    most_off: float = at_finalize(0.5)
    """share of the channels; with more that moved too far or out of the window there is no payload"""
    dead_below: float = at_finalize(0.1)
    """of the width of a typical channel of the detector"""
    noisy_above: float = at_finalize(2.0)
    """times the noise of a typical channel of the group (of the block, or of all, where there is no group)"""
    steady: float = at_finalize(0.0)
    """ADC, rms by which means drift from one payload to the next: what a channel had then counts with that, but where
    it moved by more than 3 errors; 0: what was before has no say"""
    steady_noise: float = at_finalize(0.0)
    """the same of the noise, relative, within 5 errors. Noise of 50 samples is good to 10 %: of cuts at five times as
    much, ten times as many fluctuations pass"""

    def __post_init__(self) -> None:
        if self.channels < 1 or self.block < 1 or self.channels % self.block:
            raise ValueError(f"`channels` = {self.channels} must be a multiple of `block` = {self.block}")
        if self.group and (self.group < SMALLEST_GROUP or self.block % self.group):
            raise ValueError(
                f"`group` = {self.group} must be 0, or at least {SMALLEST_GROUP} and divide `block` = {self.block}"
            )
        if not 1 <= self.window <= LARGEST_WINDOW:
            raise ValueError(f"`window` = {self.window} must be 1 to {LARGEST_WINDOW:g} ADC")
        if min(self.steady, self.steady_noise) < 0:
            raise ValueError("`steady` and `steady_noise` are not negative; 0: what was before has no say")
        if self.min_entries < 2:
            raise ValueError(f"`min_entries` = {self.min_entries} must be at least 2, or there is no noise")

    def accumulate(self, columns: Columns, conditions: Mapping[str, Payload]) -> State:
        """Sums by channel against the payload in force, by pools of units.

        Raises ValueError for samples that are none, or not those of whole blocks, and for a reference that is not of
        these channels.
        """
        units = packed_units(columns)
        if not len(units):
            return self.empty()
        counts, block, adc = self._samples(columns)
        pools = Pools.of(units, self.pools)
        keys, place = places(np.repeat(pools.place(units), counts) * self._blocks + block, len(pools) * self._blocks)
        seen = keys % self._blocks
        reference = conditions[KIND]
        self._check(reference, "the reference")
        mean, status = (reference[name].reshape(-1, self.block) for name in ("mean", "status"))
        idle = (status[seen] & (Status.DEAD | Status.NOISY)) != 0
        sums = sum_samples(adc, place, Reference.of(mean, idle, seen, self.window, self.group))
        packed = keys // self._blocks << LUMI_BITS | seen
        # 15 of its 64 digits: as good as the id itself to see that two are not the same.
        return State({"samples": ChannelSums.of(pools, int(reference.id[:15], 16), packed, sums)})

    def empty(self) -> State:
        """No event."""
        groups = self.block // self.group if self.group else 0
        widths = dict.fromkeys(SAMPLE_COLUMNS, self.block) | dict.fromkeys(GROUP_COLUMNS, groups)
        return State({"samples": ChannelSums.empty(widths, self.pools)})

    def finalize(self, state: State, previous: Payload | None) -> Payload:
        """Mean and noise of a run; what a channel had in `previous` where statistics or movement say so.

        Raises NotEnoughData when too many channels have too few entries, or one that must keep its values has none;
        NotConverged, with what was measured, when too many are off, or the noise is too large for the window.
        """
        sums = self._totals(state["samples"])
        entries = sums["entries"]
        seen = entries + sums["under"] + sums["over"] + sums["left_out"]
        outside = (seen >= self.min_entries) & (2 * entries < seen)
        few = (entries < self.min_entries) & ~outside
        if not len(state.units()) or few.sum() > self.most_few * self.channels:
            raise NotEnoughData(
                f"{few.sum()} of {self.channels} channels have fewer than {self.min_entries} entries, "
                f"{self.most_few:.3g} of them may"
            )
        usable = ~(few | outside)
        found = estimate(Moments.of(entries, sums), entries, self._among(sums, seen), usable, self.window)
        status = self._judge(found, few, outside)
        status |= self._moved(found, usable & (status & Status.DEAD == 0), previous)
        if why := self._not_whole(found, status):
            # The moves as they were measured, for people who say that they are true.
            measured = status & ~np.int8(Status.MOVED)
            raise NotConverged(why, self._payload(found, sums, measured, previous) if previous is not None else None)
        return self._payload(found, sums, status, previous)

    def apart(self, found: Payload, expected: Payload) -> dict[str, Apart]:
        """Of channels that were measured; and how many moved too far, or out of the window."""
        return of_measured(found, expected, ~Status.NOISY, Status.MOVED | Status.OUT_OF_WINDOW)

    @property
    def _blocks(self) -> int:
        return self.channels // self.block

    def _samples(self, columns: Columns) -> tuple[Int, Int, NDArray[np.uint16]]:
        """Entries of each event, their blocks, and their samples [entries, block]."""
        jagged, samples = columns[self.block_column], columns[self.adc_column]
        counts, given = (counts_of(values) for values in (jagged, samples))
        wrong = np.flatnonzero(given != counts * self.block)
        if len(wrong):
            event = np.asarray(columns["event"])[wrong[0]]
            raise ValueError(
                f"event {event} has {given[wrong[0]]} samples in `{self.adc_column}` for {counts[wrong[0]]} entries of "
                f"`{self.block_column}`; a block has {self.block}"
            )
        block = _whole_numbers(jagged, self.block_column, self._blocks - 1).astype(np.int64)
        adc = _whole_numbers(samples, self.adc_column, TOP).astype(np.uint16, copy=False)
        return counts, block, adc.reshape(-1, self.block)

    def _check(self, payload: Payload, what: str) -> None:
        shapes = {name: payload[name].shape for name in ("mean", "noise", "status")}
        if any(shape != (self.channels,) for shape in shapes.values()):
            raise ValueError(f"{what} pedestals have shapes {shapes}; there are {self.channels} channels")

    def _totals(self, sums: ChannelSums) -> dict[str, Array]:
        """The columns for all channels, flat; `left_out` for every channel of its group."""
        found = {name: sums.total(name, self._blocks).reshape(-1) for name in sums.columns}
        counted = {name: found[name].astype(np.int64) for name in ("entries", "under", "over", "left_out")}
        counted["left_out"] = np.repeat(counted["left_out"], self.group) if self.group else np.zeros(1, np.int64)
        return found | counted

    def _among(self, sums: Mapping[str, Array], seen: Int) -> NDArray[np.float64] | None:
        """How many channels the median was taken among, on average, [groups]."""
        if not self.group:
            return None
        events = (seen - sums["left_out"])[:: self.group]
        among: NDArray[np.float64] = sums["among"] / np.maximum(events, 1)
        return among

    def _judge(self, found: Estimates, few: Mask, outside: Mask) -> NDArray[np.int8]:
        usable = ~(few | outside)
        typical = np.median(found.raw[usable]) if usable.any() else 0.0
        dead = usable & ((found.raw <= self.dead_below * typical) | (found.noise == 0))
        alive = usable & ~dead
        noisy = alive & (found.noise > self.noisy_above * self._typical_noise(found, alive))
        flags = {Status.FEW: few, Status.OUT_OF_WINDOW: outside, Status.DEAD: dead, Status.NOISY: noisy}
        status = np.zeros(self.channels, np.int8)
        for flag, where in flags.items():
            status |= where * np.int8(flag)
        return status

    def _typical_noise(self, found: Estimates, alive: Mask) -> NDArray[np.float64]:
        """The median noise among the kin of each channel that are alive, [channels]."""
        kin = self.group or (self.block if self.block >= SMALLEST_GROUP else self.channels)
        return np.repeat(median_among(found.noise.reshape(-1, kin), alive.reshape(-1, kin)), kin)

    def _moved(self, found: Estimates, alive: Mask, previous: Payload | None) -> NDArray[np.int8]:
        if previous is None:
            return np.zeros(self.channels, np.int8)
        self._check(previous, "the previous")
        return (alive & (np.abs(found.mean - previous["mean"]) > self.max_move)) * np.int8(Status.MOVED)

    def _not_whole(self, found: Estimates, status: NDArray[np.int8]) -> str:
        off = np.count_nonzero(status & (Status.MOVED | Status.OUT_OF_WINDOW))
        if off > self.most_off * self.channels:
            return (
                f"{off} of {self.channels} channels moved by more than {self.max_move:g} ADC or out of the window of "
                f"{self.window:g} ADC; if that is true, have it published by name, or widen `window` and `max_move`"
            )
        alive = (status & ~(Status.NOISY | Status.MOVED)) == 0
        noise = float(np.median(found.noise[alive])) if alive.any() else 0.0
        if 2 * noise > self.window:
            return (
                f"a typical noise is {noise:.3g} ADC, too much for a window of {self.window:g}; `window` should be "
                "about five times as wide as the noise"
            )
        return ""

    def _payload(
        self, found: Estimates, sums: Mapping[str, Array], status: NDArray[np.int8], previous: Payload | None
    ) -> Payload:
        kept = (status & ~np.int8(Status.NOISY)) != 0
        if previous is None and kept.any():
            first = int(np.flatnonzero(kept)[0])
            raise NotEnoughData(
                f"{kept.sum()} channels must keep what they had, the first {first} ({Status(int(status[first]))!r}), "
                "and there is no payload before; publish one to begin with (`nominal`)"
            )
        entries = sums["entries"]
        of_mean, of_noise = found.errors(entries)
        new = {"mean": found.mean, "noise": found.noise, "mean_error": of_mean, "noise_error": of_noise}
        if previous is not None:
            self._steady(new, status, previous)
        arrays: dict[str, Array] = {name: values.astype(np.float32) for name, values in new.items()}
        if previous is not None:
            for name in arrays:
                arrays[name][kept] = previous[name][kept]
            few = (status & Status.FEW) != 0
            status = np.where(few, status | previous["status"], status)
        arrays |= {"entries": entries.astype(np.int32), "status": status}
        if self.group:
            arrays |= {"common_mode": self._common_mode(found, kept)}
            arrays |= {"left_out": sums["left_out"][:: self.group].astype(np.int32)}
        return Payload(KIND, arrays, UNITS | ({"common_mode": "ADC"} if self.group else {}))

    def _steady(self, new: dict[str, NDArray[np.float64]], status: NDArray[np.int8], previous: Payload) -> None:
        """What channels had before has its say, where nothing is the matter with them and was not."""
        sound = (status == Status.NEW) & is_good(previous)
        old_noise = previous["noise"][sound].astype(np.float64)
        # The error of a noise goes with the noise: with what was measured, low ones would seem well known.
        unmoved = {"mean": 1.0, "noise": old_noise / new["noise"][sound]}
        drifts = {"mean": (self.steady, FAR), "noise": (self.steady_noise * old_noise, FAR_NOISE)}
        for name, (drift, far) in drifts.items():
            if not np.any(drift):
                continue
            names = name, f"{name}_error"
            before = tuple(previous[each][sound].astype(np.float64) for each in names)
            measured = tuple(new[each][sound] for each in names)
            found = with_before(measured, before, drift, far, unmoved[name])
            for each, values in zip(names, found, strict=True):
                new[each] = new[each].copy()
                new[each][sound] = values

    def _common_mode(self, found: Estimates, kept: Mask) -> NDArray[np.float32]:
        """The rms of the common mode of each group, ADC: what its typical channel spreads more with it than without."""
        more = (found.raw**2 - found.variance).reshape(-1, self.group)
        return np.sqrt(np.maximum(median_among(more, ~kept.reshape(more.shape)), 0.0)).astype(np.float32)


def _whole_numbers(jagged: Any, column: str, most: int) -> Array:
    values = flat_of(jagged)
    if values.dtype.kind not in "iu" and len(values):
        raise ValueError(f"`{column}` is of type {values.dtype}; it must be integers")
    if len(values) and not 0 <= values.min() <= values.max() <= most:
        raise ValueError(f"`{column}` goes from {values.min()} to {values.max()}; it must lie within 0 to {most}")
    return values


def nominal(channels: int, mean: ArrayLike, noise: ArrayLike) -> Payload:
    """A payload to start from: mean and noise (ADC) of every channel, or one for all, taken as exact.

    Raises ValueError for a mean outside of the range of an ADC or a noise that is not above 0.
    """
    given = {name: np.asarray(values, np.float32) for name, values in (("mean", mean), ("noise", noise))}
    for name, values in given.items():
        if values.shape not in ((), (channels,)):
            raise ValueError(
                f"{name} has shape {values.shape}; give one number, or one for each of {channels} channels"
            )
    if not np.all((given["mean"] >= 0) & (given["mean"] <= TOP)) or not np.all(given["noise"] > 0):
        raise ValueError(f"a pedestal must lie within 0 to {TOP} ADC, and a noise above 0")
    arrays: dict[str, Array] = {name: np.broadcast_to(values, channels) for name, values in given.items()}
    arrays |= {f"{name}_error": np.zeros(channels, np.float32) for name in given}
    arrays |= {"entries": np.zeros(channels, np.int32), "status": np.zeros(channels, np.int8)}
    return Payload(KIND, arrays, UNITS)


def is_good(payload: Payload) -> Mask:
    """Which channels can be used: bool[channels]; those without any flag, and those with FEW alone."""
    good: Mask = (payload["status"] & ~np.int8(Status.FEW)) == 0
    return good
