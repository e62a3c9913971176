"""Dead and hot channels, and dead and noisy groups of them, from how often they are hit: one payload a run.

For detectors of many channels that are hit seldom. `calib.algorithms.channel_status` is for channels that count often,
whatever the law, and follows them through a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import pdtr, pdtrc

from calib.accumulators import UnitSums
from calib.algorithms.channel_status import KIND
from calib.algorithms.occupancy_contradictions import Contradictions
from calib.algorithms.occupancy_flags import Status, hits_at_once, lower_median
from calib.boundaries import Block, Interval
from calib.calibration import (
    Calibration,
    Columns,
    Granularity,
    NotEnoughData,
    at_finalize,
    packed_units,
    whole_runs,
)
from calib.channel_sums import ChannelSums, holding
from calib.form import Leeway
from calib.iov import LUMI_BITS
from calib.jagged import counts_of, flat_of
from calib.payload import Payload
from calib.pools import Pools
from calib.pulls import Apart
from calib.state import State

Int = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

WIDTH = 128
"""channels that share a row of the sums, at least: keys of narrower rows would outweigh what they hold"""
MANY = 5
"""hits that a group has not where the mean is below 1"""
RATES = dict.fromkeys(("group_rate", "group_rate_error", "group_expected"), "1/event")


@dataclass(frozen=True, kw_only=True)
class OccupancyStatus(Calibration):
    """The status of every channel by run, from the hits of clusters.

    Column: the first of `reads`, jagged, the number of each channel that was hit, once an event; of masked channels
    too, as far as they would be hits, or no flag is ever taken back. Channels are numbered so that the `group` (APV,
    readout chip) of channel c is c // group. `kin` tells which groups see the same (layer, place along the beam).
    What follows is the strips' procedure of CMS (physics note 3.1) with these differences: means of what is not hot
    for medians, which are 0 in short runs; a group is judged against the median of its kin, not by spreads, since a
    spread of a few per cent would mask what works; and dead single channels are found.

    HOT: P(more than n | mean of the group) < `probability`, where those found are taken out of the mean until no more
    are; above `min_occupancy`. What was hot before stays so where the mean is below `min_mean`, since the run cannot
    tell, and where it is hit as often with less than `stays_below`: it is not found anew in each run of few hits.
    DEAD_GROUP: less than `dead_below` of the kin's median, and so few by chance with less than `probability`.
    NOISY_GROUP: more than `noisy_above` of it, likewise. Hits of a group come several at once, with a cluster, so as
    many as one of these count as one: the spread of groups about their kin, over that by chance, is measured. Kin none
    of which is hit are held to what the payload before expected of them.
    DEAD: `silent`, the hits expected of a channel since its last one, grows from run to run by the mean of its group
    (of its kin where that counts nothing); it is beyond chance where exp(-silent) < `probability`, that is above 16.1
    for 1e-7. A channel that counts too seldom, but counts, is not found. `silent` goes on in the payload, so runs must
    be finalized in order, and what a run left without payload saw is lost to it.

    Payload, [channels]: `status` int8 of `Status`; `silent` float32, hits; `counts` int32. [groups]: `group_rate` with
    `group_rate_error`, hits of a channel that takes part, and `group_expected`, the same of its kin, float32 (1/event).
    `events`: int64.
    """

    kind: ClassVar[str] = KIND
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("channel",)
    looks_at_previous: ClassVar[bool] = True
    leeway: ClassVar[Leeway] = Leeway(more=dict.fromkeys(("silent", "counts", "events"), "") | RATES)

    channels: int
    group: int = 1
    """consecutive channels that are judged together, 128 for an APV"""
    pools: int = 8
    """in so many parts at most, of consecutive units, are the sums of a run kept: each can be left out of a refit. 0:
    they are in one"""
    kin: tuple[tuple[int, tuple[int, ...]], ...] = at_finalize(())
    """groups of one number should be hit alike: pairs of how often a pattern comes and the numbers of its groups, from
    the first group to the last (of a layer, its ladders and what is on each); below 0: not there; empty: all alike"""
    min_hits: float = at_finalize(20.0)
    """of a typical group; with fewer there is no payload, or the span goes on (a dead group takes 16.1)"""
    min_mean: float = at_finalize(1.0)
    """hits of a channel of the group below which a run cannot clear one that was hot, nor call the group noisy"""
    min_occupancy: float = at_finalize(0.002)
    """1/event; what is hit less often does no harm and is not called hot"""
    probability: float = at_finalize(1e-7)
    """of a false flag, about, by the Poisson law"""
    stays_below: float = at_finalize(1e-3)
    """of so many hits by chance, for a channel that was hot before"""
    dead_below: float = at_finalize(0.1)
    """of the median of the kin"""
    noisy_above: float = at_finalize(3.0)
    """times the median of the kin"""

    def __post_init__(self) -> None:
        if self.group < 1 or self.channels < 1 or self.channels % self.group:
            raise ValueError(f"`channels` = {self.channels} must be a multiple of `group` = {self.group}")
        named = sum(times * len(pattern) for times, pattern in self.kin)
        if self.kin and named != self.channels // self.group:
            raise ValueError(f"`kin` names {named} groups; there are {self.channels // self.group}")
        if self.granularity is Granularity.LUMI:
            raise ValueError("hits of many channels are judged by run: `granularity` is 'run' or 'span'")
        if not 0 < self.probability < 0.01:
            raise ValueError(f"`probability` = {self.probability} of a false flag must lie between 0 and 0.01")

    def accumulate(self, columns: Columns, conditions: Mapping[str, Payload]) -> State:
        """Hits by channel and pool of units. Raises ValueError for a channel there is not."""
        units = packed_units(columns)
        jagged = columns[self.reads[0]]
        channel, hits = flat_of(jagged).astype(np.int64), counts_of(jagged)
        if len(channel) and not 0 <= channel.min() <= channel.max() < self.channels:
            raise ValueError(
                f"`{self.reads[0]}` has channels {channel.min()} to {channel.max()}; there are {self.channels}"
            )
        pools = Pools.of(units, self.pools)
        of_pool = self._rows * self._width
        flat = np.repeat(pools.place(units), hits) * of_pool + channel if len(pools) > 1 else channel
        rows = len(pools) * self._rows
        of_row = np.bincount(flat // self._width, minlength=rows)
        seen = np.flatnonzero(of_row)
        # No channel has more than its row, so they can be narrow: what is touched is what costs.
        kind = holding(0, int(of_row.max(initial=0)))
        counts = np.zeros(rows * self._width, kind)
        np.add.at(counts, flat, kind(1))
        counts = counts.reshape(-1, self._width)[seen if len(seen) < rows else slice(None)]
        keys = seen // self._rows << LUMI_BITS | seen % self._rows
        events = UnitSums.of_rows(units, np.ones(len(units), np.int64))
        return State({"hits": ChannelSums.of(pools, 0, keys, {"hits": counts}), "events": events})

    def empty(self) -> State:
        """No event."""
        return State({"hits": ChannelSums.empty({"hits": self._width}, self.pools), "events": UnitSums.empty()})

    def finalize(self, state: State, previous: Payload | None) -> Payload:
        """Judge groups and channels. Raises NotEnoughData where a typical group has fewer than `min_hits`."""
        counts, events = self._counts(state["hits"]), int(state["events"].total())
        hits = self._hits_of_typical(counts)
        if hits < self.min_hits:
            raise NotEnoughData(f"a typical group has {hits:.0f} hits; to judge it takes {self.min_hits:g}")
        before, silent, foretold = self._before(previous)
        limit = -np.log(self.probability)
        idle = (silent > limit) & (counts == 0)
        hot = self._hot(counts, idle, events)
        mean = _mean(counts, hot | idle)[:, None]
        hot |= before & ((mean < self.min_mean) | (pdtrc(counts, mean) < self.stays_below))
        groups = self._groups(counts, hot | idle, foretold * events)
        expected = np.where((groups.total == 0) | groups.dead, groups.typical, groups.mean)
        silent = np.where(counts > 0, 0.0, silent + expected[:, None])
        # So long none of them was hit, and so many of them there are.
        dead = groups.dead | (self.group * silent.min(axis=1) > limit * groups.at_once)
        status = (
            (silent > limit) * np.int8(Status.DEAD)
            | hot * np.int8(Status.HOT)
            | dead[:, None] * np.int8(Status.DEAD_GROUP)
            | groups.noisy[:, None] * np.int8(Status.NOISY_GROUP)
        )
        by_channel = {"status": status, "silent": silent.astype(np.float32), "counts": counts.astype(np.int32)}
        by_group = {
            "group_rate": groups.mean / events,
            "group_rate_error": np.sqrt(groups.total) / np.maximum(groups.taking_part, 1) / events,
            "group_expected": groups.typical / events,
        }
        arrays = {name: values.reshape(-1) for name, values in by_channel.items()}
        arrays |= {name: values.astype(np.float32) for name, values in by_group.items()}
        return Payload(self.kind, arrays | {"events": np.asarray(events)}, RATES)

    def apart(self, found: Payload, expected: Payload) -> dict[str, Apart]:
        """How many channels count otherwise than the status in force has it, whatever is called what now: against what
        chance has of such (`calib.algorithms.occupancy_contradictions`)."""
        settings = ("group", "dead_below", "noisy_above", "probability", "stays_below", "min_mean", "min_occupancy")
        given = {name: getattr(self, name) for name in settings}
        return Contradictions(there=self._kin() >= 0, **given).apart(found, expected)

    def cut(self, state: State, flush: bool) -> list[Interval]:
        """Whole runs, as many as it takes."""
        intervals: list[Interval] = []
        units: Block = ()
        for run in whole_runs(state.units(), flush):
            units += run.units
            counts = self._counts(state["hits"].select(np.array(units, np.int64)))
            if run.closed and self._hits_of_typical(counts) >= self.min_hits:
                intervals.append(Interval(units, closed=True))
                units = ()
        return [*intervals, Interval(units, closed=flush)] if units else intervals

    @property
    def _width(self) -> int:
        return self.group * max(1, WIDTH // self.group)

    @property
    def _rows(self) -> int:
        return -(-self.channels // self._width)

    def _kin(self) -> Int:
        """The number of every group."""
        patterns = self.kin or ((self.channels // self.group, (0,)),)
        return np.concatenate([np.tile(np.array(pattern, np.int64), times) for times, pattern in patterns])

    def _hits_of_typical(self, counts: Int) -> float:
        """Hits of the median group, of those that are there."""
        return lower_median(counts.sum(axis=1)[self._kin() >= 0])

    def _counts(self, sums: ChannelSums) -> Int:
        """Hits of every channel, all units together: [groups, group]."""
        total = sums.total("hits", self._rows).astype(np.int64, copy=False)
        return total.reshape(-1)[: self.channels].reshape(-1, self.group)

    def _before(self, previous: Payload | None) -> tuple[Mask, Floats, Floats]:
        """Which channels were hot, for how many hits they have been silent, [groups, group]; and hits of a channel
        expected, 1/event, [groups]."""
        shape = self.channels // self.group, self.group
        silent, foretold = np.zeros(self.channels), np.zeros(shape[0])
        if previous is None:
            return np.zeros(shape, np.bool_), silent.reshape(shape), foretold
        status = previous["status"]
        # A payload to start from knows of the status alone.
        silent, foretold = (
            previous.arrays.get(name, nothing) for name, nothing in (("silent", silent), ("group_expected", foretold))
        )
        if status.size != self.channels or silent.size != self.channels:
            raise ValueError(f"the previous status is of {status.size} channels; there are {self.channels}")
        hot = ((status & Status.HOT) != 0).reshape(shape)
        return hot, silent.astype(np.float64).reshape(shape), foretold.astype(np.float64)

    def _hot(self, counts: Int, idle: Mask, events: int) -> Mask:
        """Channels hit beyond chance. What is found with some taken out is found with more, so any order will do."""
        hot = np.zeros_like(idle)
        left = np.arange(len(counts))
        while len(left):
            mean = _mean(counts[left], hot[left] | idle[left])
            often = (counts[left] > np.maximum(mean[:, None], self.min_occupancy * events)) & ~hot[left]
            row, channel = np.nonzero(often)
            found = pdtrc(counts[left[row], channel], mean[row]) < self.probability
            hot[left[row[found]], channel[found]] = True
            left = left[np.unique(row[found])]
        return hot

    def _groups(self, counts: Int, out: Mask, foretold: Floats) -> _Groups:
        """What groups are hit by, and which of them are not as their kin, without the channels taken out."""
        total, taking_part = np.where(out, 0, counts).sum(axis=1), (~out).sum(axis=1)
        mean = _mean(counts, out)
        kin, typical = self._kin(), np.zeros(len(counts))
        for number in np.unique(kin):
            members = kin == number
            typical[members] = _typical(mean[members], total[members])
        typical = np.where(typical > 0, typical, foretold)
        expected = typical * taking_part
        at_once = hits_at_once(total[kin >= 0], expected[kin >= 0])
        few = pdtr(np.floor(total / at_once), expected / at_once) < self.probability
        many = pdtrc(np.maximum(np.ceil(total / at_once) - 1, 0), expected / at_once) < self.probability
        dead = few & (total < self.dead_below * expected)
        noisy = many & (total > self.noisy_above * expected) & (mean >= self.min_mean)
        return _Groups(total, taking_part, mean, typical, dead, noisy, at_once)


@dataclass(frozen=True, eq=False)
class _Groups:
    """By group: hits and channels that take part, the mean of these, that of the kin, and what follows; and how many
    hits come at once."""

    total: Int
    taking_part: Int
    mean: Floats
    typical: Floats
    dead: Mask
    noisy: Mask
    at_once: float


def _mean(counts: Int, out: Mask) -> Floats:
    """Hits of a channel of each group, without those taken out; 0 where none is left."""
    mean: Floats = np.where(out, 0, counts).sum(axis=1) / np.maximum((~out).sum(axis=1), 1)
    return mean


def _typical(mean: Floats, total: Int) -> float:
    """The median of kin; where most of them have no hit it is that of those that have, if these have many: the others
    are dead; if few, the mean: chance decides who has any."""
    counting = total > 0
    if 2 * np.count_nonzero(counting) > len(total):
        return lower_median(mean)
    return lower_median(mean[counting]) if lower_median(total[counting]) >= MANY else float(mean.mean())
