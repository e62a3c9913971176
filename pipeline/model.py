"""What a run is made of: units, files, chunks; and what became of their events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Columns = Mapping[str, Any]
"""Column name to a NumPy array (one value an event) or an awkward array (jagged); `run`, `lumi`, `event` are there."""


class Step(StrEnum):
    """What is done to the events of a run."""

    EXPRESS = "express"
    PROMPT = "prompt"


class Stream(StrEnum):
    """Which of the detector's streams a file is of. Every event is in physics; express has copies of some."""

    PHYSICS = "physics"
    EXPRESS = "express"


class Keys(NamedTuple):
    """Which event each entry of a file is: three int64[n] arrays."""

    run: NDArray[np.int64]
    lumi: NDArray[np.int64]
    event: NDArray[np.int64]


class EventSource(Protocol):
    """An open event file, as an experiment sees it."""

    @property
    def path(self) -> Path:
        """Where it lies."""

    def branches(self, tree: str) -> frozenset[str]:
        """The columns a tree has."""

    def entries(self, tree: str) -> int:
        """How many entries a tree has."""

    def arrays(self, tree: str, columns: tuple[str, ...], start: int, stop: int) -> Columns:
        """These columns of entries `start` to `stop`, NumPy where flat and awkward where jagged."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Entries `start` to `stop` of a file; all of one unit."""

    path: str
    start: int
    stop: int
    unit: int
    """packed run and lumisection"""

    @property
    def events(self) -> int:
        """How many events it has."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Chunk:
    """How much work one task takes: pieces of one run, in the order of their units. Never shows in a result."""

    run: int
    index: int
    pieces: tuple[Piece, ...]
    stored: Stored | None = None
    """what an earlier pass has left of it, to be read instead of the pieces"""

    @property
    def events(self) -> int:
        """How many events it has."""
        return sum(piece.events for piece in self.pieces)

    @property
    def units(self) -> tuple[int, ...]:
        """Its packed units, sorted."""
        return tuple(sorted({piece.unit for piece in self.pieces}))


class BadEvent(NamedTuple):
    """An entry that takes no part, and why."""

    path: str
    entry: int
    unit: int
    event: int
    reason: str
    first_in: str = ""
    """the file that has the first copy"""


@dataclass(frozen=True)
class FileIndex:
    """What a file holds: its pieces by unit, and entries left out (a second copy of an event)."""

    path: str
    size: int
    checksum: str
    pieces: tuple[Piece, ...]
    duplicates: tuple[BadEvent, ...] = ()
    entries: int = 0
    modified_ns: int = 0
    """time stamp of the file when it was read, nanoseconds since 1970"""
    stream: Stream = Stream.PHYSICS

    @property
    def events(self) -> int:
        """How many distinct events it gives."""
        return sum(piece.events for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the distinct events of one unit in one step: `read = out + filtered + bad`."""

    read: int = 0
    out: int = 0
    filtered: Mapping[str, int] = field(default_factory=dict)
    """reason to events"""
    bad: int = 0

    @property
    def balanced(self) -> bool:
        """Whether every event is accounted for once."""
        return self.read == self.out + sum(self.filtered.values()) + self.bad

    def __add__(self, other: Counts) -> Counts:
        reasons = sorted({*self.filtered, *other.filtered})
        filtered = {reason: self.filtered.get(reason, 0) + other.filtered.get(reason, 0) for reason in reasons}
        return Counts(self.read + other.read, self.out + other.out, filtered, self.bad + other.bad)


@dataclass(frozen=True, slots=True)
class Output:
    """A file that a job wrote from one of its chunks."""

    tier: str
    leaf: int
    path: str
    size: int
    checksum: str
    events: int


@dataclass(frozen=True, slots=True)
class Stored:
    """What a job has left of a chunk: its files of one tier, and what became of all events by packed unit."""

    tier: str
    job: str
    files: tuple[Output, ...]
    counts: Mapping[int, Counts]

    @property
    def left_out(self) -> dict[int, Counts]:
        """The events that are in no tier because they were filtered."""
        lost = {unit: count.filtered for unit, count in self.counts.items() if count.filtered}
        return {unit: Counts(sum(filtered.values()), filtered=filtered) for unit, filtered in lost.items()}


class Rows(NamedTuple):
    """What of one unit lies in the files of one tier."""

    written: int = 0
    twice: int = 0
    """of these, second copies of an event"""
    apart: int = 0
    """events kept for which the step has no such tier"""

    def account_for(self, out: int) -> bool:
        """Whether every one of the events that came out is there once."""
        return not self.twice and self.written + self.apart == out
