"""Sums of ADC samples by channel, with and without the common mode of each group of channels taken off.

Everything is integer. A deviation is `16 * adc - round(16 * reference)`: sixteenths of an ADC count from the pedestal
in force. In each event the common mode of a group is the median of its channels' deviations; a sample counts when it
lies within the window *of the common mode*, not of the reference. So a group whose pedestals moved together, or a
large common mode, loses no samples at one side more than at the other, and what is left of the spread is the noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.channel_sums import holding

Int = NDArray[np.int64]
Fixed = NDArray[np.int32]
Array = NDArray[Any]

RESOLUTION = 16
"""parts of an ADC count"""
TOP = (1 << 16) - 1
"""ADC; no sample is larger, and no reference may be"""
LARGEST_WINDOW = 1000.0
"""ADC; up to here what is inside of the window has its place among 32-bit integers many times over"""

SLAB = 1 << 18
"""samples looked at in one piece: few enough to stay in the outer cache, so many that calls cost nothing"""
FAR = np.uint32(1 << 31)
"""stands for a deviation that no window holds"""


@dataclass(frozen=True, eq=False)
class Reference:
    """What samples are held against, block by block.

    `mean` [blocks, block]: the pedestals of all blocks there are (ADC); `seen`: the b among them that samples are of.
    `idle`: row (of those seen) and channel of those that have no say in the median, sorted. `voices` int32[b, groups]:
    how many have one. `window` in sixteenths; `group` 0 for no common mode.
    """

    mean: Array
    seen: Int
    idle: tuple[Int, Int]
    voices: Fixed
    window: int
    group: int

    @classmethod
    def of(cls, mean: Array, idle: NDArray[np.bool_], seen: Int, window: float, group: int) -> Reference:
        """Of pedestals `mean` [blocks, block] (ADC), and of blocks that were seen channels to leave out of the median,
        bool[b, block].

        In a group with more than half of its channels to leave out all have a say: it may have come back to life.
        """
        blocks, block = idle.shape
        groups = block // group if group else 0
        cells = np.flatnonzero(idle) if group else np.zeros(0, np.int64)
        of_group = cells // max(group, 1)
        silent = np.bincount(of_group, minlength=blocks * groups)
        heeded = np.where(2 * silent > group, 0, silent)
        cells = cells[heeded[of_group] > 0]
        voices = (group - heeded).astype(np.int32).reshape(blocks, groups)
        return cls(mean, seen, (cells // block, cells % block), voices, round(RESOLUTION * window), group)

    @property
    def shape(self) -> tuple[int, int]:
        """Blocks that were seen, and channels of each."""
        return len(self.seen), self.mean.shape[1]

    def level(self, rows: Int) -> Fixed:
        """The pedestals of some rows in sixteenths. Raises ValueError for one that no ADC can have."""
        level = self.mean[self.seen[rows]] * np.float32(RESOLUTION)
        np.rint(level, out=level)
        if not (level.min(initial=0) >= -RESOLUTION * TOP and level.max(initial=0) <= RESOLUTION * TOP):
            raise ValueError(
                f"a reference pedestal is not finite, or beyond {TOP} ADC; publish a payload that is right"
            )
        return level.astype(np.int32)

    def deviations(self, rows: Int, adc: Fixed) -> tuple[Fixed, Fixed, NDArray[np.bool_]]:
        """Deviations int32[m, k, block] of samples [m, k, block] of some rows [m], the common mode taken off.

        With them how many channels the median of each group was taken among, int32[m, k, groups], and whether the
        group is to be left out: when fewer than half of the channels with a say lie within the window.
        """
        found = adc << np.int32(RESOLUTION.bit_length() - 1)
        found -= self.level(rows)[:, None, :]
        if not self.group:
            none = np.zeros((*found.shape[:2], 0), np.int32)
            return found, none, none.astype(np.bool_)
        median, among = self._common_mode(rows, found)
        lost = (2 * among < self.voices[rows][:, None, :]) | (among == 0)
        median[lost] = 0
        grouped = found.reshape(*median.shape, self.group)
        grouped -= median[..., None]
        return found, among, lost

    def _common_mode(self, rows: Int, found: Fixed) -> tuple[Fixed, Fixed]:
        """The median of each group of deviations, int32[m, k, groups], and among how many channels.

        Of an even number it is the mean of the two in the middle, rounded down to a sixteenth.
        """
        # Without a sign, what lies below the window comes after everything in it, as what lies above does.
        rising = (found + np.int32(self.window)).view(np.uint32)
        first, last = (np.searchsorted(self.idle[0], rows, side) for side in ("left", "right"))
        silent = last - first
        mine = np.repeat(first - np.cumsum(silent) + silent, silent) + np.arange(silent.sum())
        rising[np.repeat(np.arange(len(rows)), silent), :, self.idle[1][mine]] = FAR
        flat = rising.reshape(-1, self.group)
        # Whole rows are sorted: for 32-bit integers that is vectorized, and quicker than to search two of them.
        flat.sort(axis=1)
        inside = (flat <= 2 * self.window).view(np.uint8)
        among = inside.sum(axis=1, dtype=np.uint8 if self.group < 256 else np.int32).astype(np.int32)
        start = np.arange(len(flat)) * self.group
        low = flat.reshape(-1)[start + np.maximum(among - 1, 0) // 2]
        high = flat.reshape(-1)[start + np.minimum(among // 2, self.group - 1)]
        median = ((low + high) >> np.uint32(1)).astype(np.int32) - np.int32(self.window)
        shape = (*found.shape[:2], -1)
        return median.reshape(shape), among.reshape(shape)


def sum_samples(adc: NDArray[np.uint16], place: Int, reference: Reference) -> dict[str, Array]:
    """Sums by channel of samples [rows, block], row i of block `place[i]` of those that the reference has seen.

    Columns [b, block], over samples in the window: `entries`; `adc` and `adc_squared`, sums of the samples themselves;
    `rest` and `rest_squared`, sums of the deviations (sixteenths) with the common mode taken off. `under` and `over`
    count samples outside. Columns [b, groups]: `left_out`, events in which the group was left out of all the above;
    `among`, over the other events, the number of channels in the median. Types are as narrow as counts allow: what
    is touched is what costs. Raises ValueError for a reference that no ADC can have.
    """
    counts = np.bincount(place, minlength=len(reference.seen))
    tally = _Tally.empty(reference, int(adc.max(initial=0)), int(counts.max(initial=0)))
    for rows, samples, again in _slabs(place, counts, adc.shape[1]):
        tally.add(rows, adc[samples].astype(np.int32), again=again)
    return tally.columns(counts)


def _slabs(place: Int, counts: Int, block: int) -> Iterator[tuple[Int, Int, bool]]:
    """Rows [m] of the reference and which samples are theirs [m, k], all of them seen as often; and whether these rows
    were there before, with other samples.

    So slabs are not ragged, and no row needs a pass of its own.
    """
    rows = np.argsort(counts, kind="stable")
    rank = np.empty_like(rows)
    rank[rows] = np.arange(len(rows))
    # Which of a row's samples comes first does not matter; to sort packed integers is vectorized, argsort is not.
    order = np.sort(rank[place] << 32 | np.arange(len(place))) & 0xFFFFFFFF
    times = counts[rows]
    edges = np.concatenate([[0], np.flatnonzero(np.diff(times)) + 1, [len(times)]])
    done = 0
    for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        often = int(times[begin]) if end > begin else 0
        samples = order[done : done + (end - begin) * often].reshape(end - begin, often)
        done += samples.size
        deep = max(1, min(often, SLAB // block))
        wide = max(1, SLAB // (deep * block))
        for first in range(begin, end, wide):
            last = min(end, first + wide)
            for layer in range(0, often, deep):
                yield rows[first:last], samples[first - begin : last - begin, layer : layer + deep], layer > 0


@dataclass(frozen=True, eq=False)
class _Tally:
    """Sums in the making, and where samples lay outside of the window."""

    reference: Reference
    sums: Mapping[str, Array]
    outside: list[tuple[Int, NDArray[np.bool_]]]

    @classmethod
    def empty(cls, reference: Reference, top: int, most: int) -> _Tally:
        """For samples up to `top`, at most so many of a channel."""
        largest = {"adc": top, "adc_squared": top**2, "rest": reference.window, "rest_squared": reference.window**2}
        # They are made in 32 bits anyway, or where these do not do in 64.
        sums = {name: np.zeros(reference.shape, holding(0, most * each)) for name, each in largest.items()}
        sums |= {name: np.zeros(reference.voices.shape, np.int64) for name in ("among", "left_out")}
        return cls(reference, sums, [])

    def add(self, rows: Int, adc: Fixed, *, again: bool) -> None:
        """Take in samples [m, k, block] of these rows; they are written over. `again`: on top of others of them."""
        rest, among, lost = self.reference.deviations(rows, adc)
        if lost.any():
            among[lost] = 0
            for values in (adc, rest):
                values.reshape(*lost.shape, -1)[lost] = 0
        self._mask(rows, adc, rest)
        found = {"among": among.sum(axis=1, dtype=np.int64), "left_out": lost.sum(axis=1, dtype=np.int64)}
        for name, values in (("adc", adc), ("rest", rest)):
            found[name] = _sum_layers(values, self.sums[name].dtype)
            kind = self.sums[f"{name}_squared"].dtype
            squares = np.multiply(values, values, dtype=np.int64 if kind == np.int64 else np.int32)
            found[f"{name}_squared"] = _sum_layers(squares, kind)
        for name, values in found.items():
            self.sums[name][rows] = self.sums[name][rows] + values if again else values

    def _mask(self, rows: Int, adc: Fixed, rest: Fixed) -> None:
        """Put what lies outside of the window to 0, and remember its channels."""
        _, layers, block = rest.shape
        distance = (rest + np.int32(self.reference.window)).view(np.uint32)
        off = np.flatnonzero(distance > 2 * self.reference.window)
        flat = rest.reshape(-1)
        self.outside.append((rows[off // (layers * block)] * block + off % block, flat[off] > 0))
        flat[off] = 0
        adc.reshape(-1)[off] = 0

    def columns(self, counts: Int) -> dict[str, Array]:
        """The sums, and the counts that follow from how often each row was seen."""
        group, kind = self.reference.group, holding(0, int(counts.max(initial=0)))
        under, over = (np.zeros(self.reference.shape, kind) for _ in range(2))
        for cells, above in self.outside:
            for found, side in ((under, ~above), (over, above)):
                np.add.at(found.reshape(-1), cells[side], kind(1))
        entries = counts[:, None].astype(kind) - under
        entries -= over
        if group:
            left_out = self.sums["left_out"].astype(kind)
            entries.reshape(*left_out.shape, group)[...] -= left_out[..., None]
        return {**self.sums, "under": under, "over": over, "entries": entries}


def _sum_layers(values: Array, kind: np.dtype[Any]) -> Array:
    """Sums over the middle axis."""
    return values[:, 0] if values.shape[1] == 1 else np.add.reduce(values, axis=1, dtype=kind)
