"""Dead and noisy channels, judged among channels of their own kind."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from calib.accumulators import UnitSums
from calib.boundaries import Block, Interval, merge_until_enough
from calib.calibration import Calibration, Columns, Granularity, NotEnoughData, at_finalize, packed_units
from calib.form import Leeway
from calib.jagged import counts_of, flat_of
from calib.payload import Payload
from calib.pulls import Apart, of_count, same_shape
from calib.state import State

Int = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Statuses = NDArray[np.int8]

KIND = "channel_status"
RATES = dict.fromkeys(("rate", "expected", "group_rate"), "1/event")

SLAB = 2_000_000
"""counts judged at a time"""
NEAR = 3.0
"""errors of a count, within which of a limit a status may come out one way or the other"""
BEYOND_NEAR = 1e-3
"""share of such channels that chance has beyond that"""


class Status(IntEnum):
    """What is the matter with a channel."""

    GOOD = 0
    DEAD = 1
    """it counts next to nothing where its kind counts"""
    NOISY = 2
    """it counts far beyond the spread of its kind"""


@dataclass(frozen=True, kw_only=True)
class ChannelStatus(Calibration):
    """The status of every channel by interval of validity, from how often it counts.

    Columns: `counts`, integers [events, channels], or instead `channel`, jagged: the number of the channel of each hit.
    What is usual, and how far good channels differ from it, is measured in the group of a channel; so it does not
    matter by what law they count.

    Intervals: units are merged until a typical channel has `min_counts`; an interval ends where the status of some
    channel changes and stays so in the next block. A change that the next block does not confirm is not followed; one
    in the last block of the data has an interval of its own, `unconfirmed`.
    """

    kind: ClassVar[str] = KIND
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("counts",)
    reads_if_there: ClassVar[tuple[str, ...]] = ("channel",)
    leeway: ClassVar[Leeway] = Leeway(
        more=dict.fromkeys(("counts", "events", "group", "group_spread", "group_fano"), "") | RATES
    )

    channels: int
    granularity: Granularity = at_finalize(Granularity.LUMI)
    groups: tuple[int, ...] = at_finalize(())
    """the group of every channel; empty: all are of one"""
    min_counts: int = at_finalize(50)
    """with fewer counts of a typical channel a dead one cannot be told"""
    dead_below: float = at_finalize(0.1)
    """of the count of a typical channel"""
    noisy_above: float = at_finalize(10.0)
    """spreads of the group (1.4826 x median absolute deviation) above a typical channel; good ones reach 7"""
    shape: tuple[int, ...] = at_finalize(())
    """of what the payload has by channel, such as (modules, chips); empty: one row"""

    def __post_init__(self) -> None:
        if min(self.channels, self.min_counts) < 1 or not 0 <= self.dead_below < 1 or not self.noisy_above > 0:
            raise ValueError("`channels`, `min_counts` are at least 1, `dead_below` is 0 to 1, `noisy_above` above 0")
        if self.shape and math.prod(self.shape) != self.channels:
            raise ValueError(f"{self.channels} channels have no `shape` {self.shape}")
        if self.groups and len(self.groups) != self.channels:
            raise ValueError(f"{len(self.groups)} channels have a group; there are {self.channels}")

    def accumulate(self, columns: Columns, conditions: Mapping[str, Payload]) -> State:
        """Counts by unit and channel. Raises ValueError for another number of channels, or counts that are none."""
        units = packed_units(columns)
        counts = self._dense(units, columns["counts"]) if "counts" in columns else self._hits(units, columns["channel"])
        return State({"counts": counts, "events": UnitSums.of_rows(units, np.ones(len(units), np.int64))})

    def empty(self) -> State:
        """No event."""
        return State({"counts": UnitSums.empty((self.channels,)), "events": UnitSums.empty()})

    def finalize(self, state: State, previous: Payload | None) -> Payload:
        """Judge the interval as a whole. Raises NotEnoughData when a typical channel of a group has too few counts."""
        units: Int = state["counts"].values
        counts, events = units.sum(axis=0), int(state["events"].total())
        groups = self._kinds(counts[None, :])
        least = min((float(kind.typical[0]) for kind in groups if kind.typical[0] > 0), default=0.0)
        if least < self.min_counts:
            raise NotEnoughData(f"a typical channel has {least:.0f} counts; to judge it takes {self.min_counts}")
        fano = np.array([_fano(units[:, kind.members], kind.alive[0]) for kind in groups])
        typical, spread = (np.array([getattr(kind, name)[0] for kind in groups]) for name in ("typical", "spread"))
        counting = np.where(np.isfinite(fano), fano, 1.0) * typical
        arrays = {
            "status": self._judge(counts[None, :])[0],
            "counts": counts,
            "rate": counts / events,
            "expected": np.zeros(self.channels),
            "events": np.asarray(events),
            "group": self._group(),
            "group_rate": typical / events,
            "group_spread": np.sqrt(np.maximum(spread**2 - counting, 0)) / np.maximum(typical, 1),
            "group_fano": fano,
        }
        for kind, rate in zip(groups, typical / events, strict=True):
            arrays["expected"][kind.members] = rate
        shaped = {
            name: arrays[name].reshape(self.shape or -1) for name in ("status", "counts", "rate", "expected", "group")
        }
        return Payload(self.kind, arrays | shaped, RATES)

    def apart(self, found: Payload, expected: Payload) -> dict[str, Apart]:
        """How many channels have another status than by what they count they should have and are not near a limit
        (`channels`); and of a payload that says what it was made from, than by its own counts (`status`)."""
        same_shape(found, expected, "status")
        status = expected["status"].reshape(-1)
        told = all(name in expected.arrays for name in ("counts", "events", "group_fano"))
        # The status in force is by counts that have an error too.
        more = int(found["events"]) / int(expected["events"]) if told else 0.0
        wrong, near = self._contradicted(found, status, 1 + more)
        own = self._contradicted(expected, status, 0.0)[0] if told else np.zeros(0, np.bool_)
        return {
            "status": of_count(int(np.count_nonzero(own)), 0.0),
            "channels": of_count(int(np.count_nonzero(wrong)), BEYOND_NEAR * np.count_nonzero(near)),
        }

    def _contradicted(self, counted: Payload, status: Statuses, variances: float) -> tuple[Mask, Mask]:
        """Channels that have another status than by their counts, but for those near the limit between the two, by so
        many variances of a count; and which are near one. What counts nothing is dead."""
        counts = counted["counts"].reshape(1, -1)
        found, counts = self._judge(counts)[0], counts[0]
        wrong, near = np.zeros(self.channels, np.bool_), np.zeros(self.channels, np.bool_)
        for kind, fano in zip(self._kinds(counts[None]), counted["group_fano"], strict=True):
            own, usual, spread = counts[kind.members], kind.typical[0], kind.spread[0]
            for code, limit in (
                (Status.DEAD, self.dead_below * usual),
                (Status.NOISY, usual + self.noisy_above * spread),
            ):
                close = np.abs(own - limit) < NEAR * np.sqrt(variances * np.fmax(fano, 1.0) * limit)
                close &= own > 0
                differ = (status[kind.members] == code) != (found[kind.members] == code)
                wrong[kind.members] |= differ & ~close
                near[kind.members] |= close
        return wrong, near

    def cut(self, state: State, flush: bool) -> list[Interval]:
        """Blocks with enough counts, cut where the status of a channel changes."""
        sums: UnitSums = state["counts"]
        # Each count only up to a limit, or one noisy channel would make it look enough.
        entries = np.minimum(sums.values, 2 * self.min_counts).sum(axis=1)
        enough = self.min_counts * self.channels
        blocks, rest = merge_until_enough(sums.keys, entries, enough, flush)
        ends = np.searchsorted(sums.keys, [block[-1] for block in blocks], side="right")
        if flush and blocks and entries[ends[-2] if len(ends) > 1 else 0 :].sum() < enough:
            rest, ends = blocks.pop(), ends[:-1]
        if not blocks:
            return [Interval(rest, closed=flush)] if rest else []
        totals = np.add.reduceat(sums.values[: ends[-1]], np.append(0, ends[:-1]), axis=0)
        return follow(blocks, self._judge(totals), flush, rest)

    def _dense(self, units: Int, given: Any) -> UnitSums:
        counts = np.asarray(given)
        if counts.dtype.kind not in "biu" or counts.ndim != 2 or counts.shape[1] != self.channels:
            shape = f"{counts.dtype} of shape {counts.shape}"
            raise ValueError(f"counts are {shape}; they must be integers [events, {self.channels}]")
        return UnitSums.of_rows(units, counts)

    def _hits(self, units: Int, jagged: Any) -> UnitSums:
        channel, hits = flat_of(jagged).astype(np.int64), counts_of(jagged)
        if len(channel) and not 0 <= channel.min() <= channel.max() < self.channels:
            raise ValueError(f"channels {channel.min()} to {channel.max()} were hit; there are {self.channels}")
        keys, place = np.unique(units, return_inverse=True)
        flat = np.repeat(place, hits) * self.channels + channel
        counts = np.bincount(flat, minlength=len(keys) * self.channels)
        return UnitSums(keys, counts.reshape(len(keys), self.channels).astype(np.int64))

    def _group(self) -> Int:
        return np.array(self.groups or (0,) * self.channels, np.int64)

    def _kinds(self, counts: Int) -> list[_Kind]:
        group = self._group()
        return [_Kind.of(counts, np.flatnonzero(group == number)) for number in np.unique(group)]

    def _judge(self, counts: Int) -> Statuses:
        """Status [b, channels] by the counts [b, channels] of blocks, each block on its own."""
        status = np.full(counts.shape, Status.GOOD, np.int8)
        # Some blocks at a time, to bound the memory.
        for slab in np.array_split(np.arange(len(counts)), 1 + counts.size // SLAB):
            for kind in self._kinds(counts[slab]):
                own = counts[np.ix_(slab, kind.members)]
                usual, spread = kind.typical[:, None], kind.spread[:, None]
                dead = ~kind.alive | (own < self.dead_below * usual)
                noisy = own > usual + self.noisy_above * spread
                found = np.where(dead, Status.DEAD, np.where(noisy, Status.NOISY, Status.GOOD))
                status[np.ix_(slab, kind.members)] = found
        return status


@dataclass(frozen=True, eq=False)
class _Kind:
    """What is usual in a group, block by block: `typical` and `spread` float64[b] over the `alive` bool[b, n] members,
    those that count at all.
    """

    members: NDArray[np.intp]
    alive: NDArray[np.bool_]
    typical: Floats
    spread: Floats

    @classmethod
    def of(cls, counts: Int, members: NDArray[np.intp]) -> _Kind:
        own = counts[:, members]
        alive = own > 0
        typical = _median(own, alive)
        spread = 1.4826 * _median(np.abs(own - typical[:, None]), alive)
        # Nothing counts more evenly than by chance, though a few channels may look so.
        return cls(members, alive, typical, np.maximum(spread, np.sqrt(typical)))


def _median(rows: NDArray[Any], among: NDArray[np.bool_]) -> Floats:
    """The (lower) median of every row among the entries of a mask; 0 where there is none."""
    middle = (np.maximum(among.sum(axis=1), 1) - 1) // 2
    ordered = np.partition(np.where(among, rows, np.inf), np.unique(middle), axis=1)
    found = np.take_along_axis(ordered, middle[:, None], axis=1)[:, 0]
    return np.where(among.any(axis=1), found, 0.0)


def _fano(counts: Int, alive: NDArray[np.bool_]) -> float:
    """Variance over mean of the counts [units, n] of a typical channel, beside what all have in common.

    NaN from one unit, or with nothing alive.
    """
    seen = counts[:, alive]
    by_unit = seen.sum(axis=1)
    seen, by_unit = seen[by_unit > 0], by_unit[by_unit > 0]
    if len(seen) < 2:
        return np.nan
    # sum (n - e)^2 / e over units, with e = by_unit x by_channel / total.
    by_channel = seen.sum(axis=0)
    squares = np.einsum("uc,uc,u->c", seen, seen, by_unit.sum() / by_unit) / by_channel - by_channel
    return float(np.median(squares) / (len(seen) - 1))


def follow(blocks: Sequence[Block], status: Statuses, flush: bool, rest: Block = ()) -> list[Interval]:
    """Cut blocks where the status [b, channels] of some channel changes for at least two blocks.

    At the beginning of an interval a channel has the status that two of the first three blocks agree on.
    """
    intervals: list[Interval] = []
    first, last = 0, len(blocks) - 1
    held = _held(status[:3])
    for i in range(1, last):
        if np.any((status[i] != held) & (status[i] == status[i + 1])):
            intervals.append(Interval(_units(blocks[first:i]), closed=True))
            first, held = i, _held(status[i : i + 3])
    if flush and last > first and np.any(status[last] != held):
        intervals.append(Interval(_units(blocks[first:last]), closed=True))
        return [*intervals, Interval(_units(blocks[last:]) + rest, closed=True, unconfirmed=True)]
    return [*intervals, Interval(_units(blocks[first:]) + rest, closed=flush)]


def _held(status: Statuses) -> Statuses:
    if len(status) < 3:
        return status[:1].reshape(-1)
    first, second, third = status
    held: Statuses = np.where((first == second) | (first == third), first, second)
    return held


def _units(blocks: Sequence[Block]) -> Block:
    return tuple(unit for block in blocks for unit in block)


def is_good(payload: Payload) -> NDArray[np.bool_]:
    """Which channels are good: bool[channels]."""
    good: NDArray[np.bool_] = payload["status"] == Status.GOOD
    return good


def all_good(channels: int) -> Payload:
    """A payload to start from: every channel good, and nothing else known."""
    return Payload(KIND, {"status": np.full(channels, Status.GOOD, np.int8)})
