"""Which structures there are, which of their numbers are free to be aligned, and where they have been put."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from calib.algorithms.alignment_geometry import NUMBERS
from calib.payload import Payload

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

TO_UM = np.array([1e4, 1e4, 1e4, 1e6, 1e6, 1e6])
"""what numbers in cm and rad are to be multiplied by to be in um and urad"""
WHICH = re.compile(r"(?P<level>\w+)(?: (?P<first>\d+)(?:-(?P<last>\d+))?)?: (?P<numbers>[a-z ]+)")
LARGEST = 32_768
"""structures; more pairs of them could not be told apart in a key"""


@dataclass(frozen=True)
class Structures:
    """Structures of several levels, from the largest to the smallest, counted through.

    `levels` name them, each with how many there are. `free` says which numbers are aligned: "half_barrel 0-1: x y z",
    "ladder: all"; what it does not name stays where it is. Raises ValueError for what it does not understand.
    """

    levels: tuple[tuple[str, int], ...]
    free: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self) > LARGEST:
            raise ValueError(f"`levels` have {len(self)} structures, at most {LARGEST} can be aligned")
        if not self.is_free.any():
            raise ValueError("`free` is empty: nothing would be aligned")

    def __len__(self) -> int:
        return sum(count for _, count in self.levels)

    @cached_property
    def first(self) -> Ints:
        """The number of the first structure of each level, and the number of all."""
        return np.cumsum([0, *(count for _, count in self.levels)], dtype=np.int64)

    @cached_property
    def level(self) -> Ints:
        """The level of each structure."""
        return np.repeat(np.arange(len(self.levels)), [count for _, count in self.levels])

    @cached_property
    def is_free(self) -> Mask:
        """[structures, 6]"""
        found = np.zeros((len(self), len(NUMBERS)), np.bool_)
        for text in self.free:
            rows, numbers = self._read(text)
            found[rows, numbers] = True
        return found

    @cached_property
    def numbers(self) -> Ints:
        """Which of NUMBERS are free for any structure: those that sums are made of."""
        return np.flatnonzero(self.is_free.any(axis=0))

    @cached_property
    def any_free(self) -> Mask:
        """[structures]"""
        found: Mask = np.asarray(self.is_free.any(axis=1))
        return found

    def within(self, survey: Sequence[str]) -> Floats:
        """How far numbers are from where they were drawn, rms in um and urad, [structures, 6]; inf where not told.

        Raises ValueError for what it does not understand.

        >>> Structures((("ladder", 2),), ("ladder: x",)).within(["ladder 1: x y 50"])[1].tolist()
        [50.0, 50.0, inf, inf, inf, inf]
        """
        found = np.full((len(self), len(NUMBERS)), np.inf)
        for text in survey:
            which, _, size = text.rpartition(" ")
            if re.fullmatch(r"\d+(\.\d*)?", size) is None or not float(size) > 0:
                raise ValueError(f"`survey` says {text!r}; it names structures and an rms: 'ladder 0-101: x y z 20'")
            rows, numbers = self._read(which, "survey")
            found[rows, numbers] = float(size)
        return found

    def _read(self, text: str, setting: str = "free") -> tuple[slice, list[int]]:
        read = WHICH.fullmatch(text)
        counts = dict(self.levels)
        if read is None or read["level"] not in counts:
            raise ValueError(
                f"`{setting}` says {text!r}; it names a level ({', '.join(counts)}), structures of it where not all "
                f"are meant, and numbers of {', '.join(NUMBERS)} or all: 'half_barrel 0-1: x y z'"
            )
        words = read["numbers"].split()
        if wrong := [word for word in words if word not in (*NUMBERS, "all")]:
            raise ValueError(f"`{setting}` says {wrong[0]!r} in {text!r}; numbers are {', '.join(NUMBERS)}, or all")
        count = counts[read["level"]]
        low = int(read["first"] or 0)
        high = int(read["last"] or (count - 1 if read["first"] is None else low))
        if not low <= high < count:
            raise ValueError(f"`{setting}` says {text!r}; there are {count} of {read['level']}, from 0 on")
        begin = int(self.first[list(counts).index(read["level"])])
        numbers = NUMBERS if "all" in words else words
        return slice(begin + low, begin + high + 1), sorted({NUMBERS.index(word) for word in numbers})

    def numbered(self, labels: Ints) -> Ints:
        """The numbers of structures by their labels within levels, [..., levels]; -1 for none and those not free.

        Raises ValueError for a label that no structure has.
        """
        counts = np.diff(self.first)
        if (wrong := (labels >= counts) | (labels < -1)).any():
            where = tuple(np.argwhere(wrong)[0])
            name, count = self.levels[where[-1]]
            raise ValueError(f"a hit lies on {name} {labels[where]}; there are {count} of them")
        number = labels + self.first[:-1]
        found: Ints = np.where((labels >= 0) & self.any_free[np.maximum(number, 0)], number, -1)
        return found

    def values(self, payload: Payload | None) -> Floats:
        """Where an alignment puts structures, [structures, 6] in um and urad; without one, where they were drawn.

        Raises ValueError for an alignment of others.
        """
        if payload is None:
            return np.zeros((len(self), len(NUMBERS)))
        wanted = {name: (count, len(NUMBERS)) for name, count in self.levels}
        found = {name: payload[name].shape if name in payload.arrays else None for name in wanted}
        if found != wanted:
            raise ValueError(f"an alignment of these structures has {wanted}, this one {found}")
        values: Floats = np.concatenate([payload[name].astype(np.float64) for name in wanted]) * TO_UM
        return values

    def errors(self, payload: Payload, part: str = "error") -> Floats:
        """Those of an alignment, or its `statistical` ones, [structures, 6] in um and urad; NaN where it has none."""
        nothing = np.full((1, len(NUMBERS)), np.nan)
        found = [payload.arrays.get(f"{name}_{part}", np.repeat(nothing, count, axis=0)) for name, count in self.levels]
        every: Floats = np.concatenate(found).astype(np.float64) * TO_UM
        return every

    def fingerprint(self, values: Floats) -> int:
        """Of where those are that stay: what sums are made with that cannot be told apart later."""
        stay = np.where(self.is_free, 0.0, values) + 0.0
        return int(hashlib.sha256(np.ascontiguousarray(stay).tobytes()).hexdigest()[:15], 16)

    def names(self, numbers: Sequence[int] | Ints) -> list[str]:
        """Of structures: level and number in it.

        >>> Structures((("half_barrel", 4), ("ladder", 8)), ("ladder: all",)).names([1, 5])
        ['half_barrel 1', 'ladder 1']
        """
        return [
            f"{self.levels[level][0]} {number - self.first[level]}"
            for number, level in zip(numbers, self.level[np.asarray(numbers, np.int64)], strict=True)
        ]
