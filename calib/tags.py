"""The words of the conditions database: tags, entries, snapshots, and what can go wrong."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from calib.iov import IOV, Clock, RunLumi
from calib.payload import Conditions

Moment = RunLumi | int
"""A unit of a run, or for tags by time nanoseconds since 1970 UTC."""

ENDLESS = (1 << 63) - 1
"""Behind every moment of every clock."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ConditionsError(Exception):
    """The conditions database refuses what was asked."""


class UnknownTag(ConditionsError, LookupError):
    """No tag or global tag of that name."""

    @classmethod
    def named(cls, name: str, known: Iterable[str], what: str = "tag") -> UnknownTag:
        """The error for a name, with the nearest name that is known."""
        near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
        return cls(f"there is no {what} {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))


class BadName(ConditionsError, ValueError):
    """No name for a tag."""


class TagExists(ConditionsError):
    """The name is taken; tags and global tags are never redefined."""


class WrongKind(ConditionsError):
    """A payload or tag of one kind where another is meant."""


class SnapshotOutdated(ConditionsError):
    """A tag answers otherwise for the run than the snapshot says: take a new snapshot, complete the manifest anew."""


class Sync(StrEnum):
    """Who a tag serves, which decides what becomes of a late payload."""

    HLT = "hlt"
    """the trigger: a late payload shifts to the first safe moment"""
    EXPRESS = "express"
    """express reconstruction: shifts"""
    PROMPT = "prompt"
    """prompt reconstruction: shifts"""
    PCL = "pcl"
    """the calibration loop of the run itself: refused, the run has gone on without it"""
    OFFLINE = "offline"
    """re-reconstruction: goes to a tag no settled run uses, else is queued"""
    VALIDATION = "validation"
    """tests: refused; copy the tag to a new one"""


@dataclass(frozen=True, slots=True)
class Stamp:
    """Who does something, when and why. `now` knows its time zone."""

    author: str
    now: datetime
    reason: str = ""

    def __post_init__(self) -> None:
        if not self.author.strip():
            raise ValueError("an entry needs the name of its author")
        microseconds(self.now)


def microseconds(moment: datetime) -> int:
    """Microseconds since 1970 UTC. Raises ValueError for a time without zone.

    >>> microseconds(datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC))
    1000000
    """
    if moment.tzinfo is None:
        raise ValueError(f"{moment} has no time zone; use datetime.now(timezone.utc)")
    return (moment - _EPOCH) // timedelta(microseconds=1)


def moment_of(recorded_us: int) -> datetime:
    """The UTC time of microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=recorded_us)


@dataclass(frozen=True, slots=True)
class Tag:
    """A growing list of payloads of one kind. `number` is its key in the database."""

    name: str
    kind: str
    clock: Clock
    sync: Sync
    number: int = field(repr=False)

    def position(self, at: Moment) -> int:
        """The integer a moment has on the clock of this tag. Raises ValueError for a moment of another clock.

        >>> Tag("t", "beamspot", Clock.RUN, Sync.PCL, 1).position(RunLumi(3, 7)) == RunLumi(3).packed
        True
        """
        position = self.clock.since(at)
        if not 0 <= position < ENDLESS:
            raise ValueError(f"tag {self.name}: {at} is out of range (runs up to 2^31 - 1, times from 1970 to 2262)")
        return position

    def moment(self, position: int) -> Moment:
        """The moment of an integer on the clock of this tag."""
        return position if self.clock is Clock.TIME else RunLumi.unpack(position)

    def range_of(self, run: int, times: tuple[int, int] | None) -> tuple[int, int]:
        """Where a run begins and ends, half open, on the clock of this tag.

        Raises ValueError for a tag by time when the times of the run are not given.
        """
        if self.clock is not Clock.TIME:
            return self.position(RunLumi(run)), RunLumi(run + 1).packed
        if times is None:
            raise ValueError(f"tag {self.name} goes by time; give `times`, begin and end of run {run} in ns since 1970")
        if times[0] >= times[1]:
            raise ValueError(f"run {run} must end after it begins, not {times[0]} to {times[1]}")
        return self.position(times[0]), self.position(times[1])


@dataclass(frozen=True, slots=True)
class Entry:
    """One line in the history of a tag.

    `payload_id` None: from `since` on nothing holds. But where `withdraws` names an entry, that entry counts no more,
    and where `recalls` names an origin, its payload is withdrawn and stays in settled runs only.
    `asked` is where the author of the payload wanted it to begin, `origin` the entry whose payload this one repeats,
    or itself.
    """

    sequence: int
    tag: str
    since: Moment
    asked: Moment
    payload_id: str | None
    author: str
    recorded: datetime
    reason: str
    info: Mapping[str, Any]
    origin: int
    withdraws: int | None = None
    recalls: int | None = None


class Beginning(NamedTuple):
    """From `since` on this payload holds, or with None nothing. `info` is JSON, kept with it."""

    since: Moment
    payload_id: str | None
    info: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Validity:
    """A payload and where it holds, half open; `until` None is open."""

    since: Moment
    until: Moment | None
    payload_id: str
    entry: Entry

    @property
    def iov(self) -> IOV:
        """The interval of a tag by run or lumisection. Raises ValueError for a tag by time."""
        if isinstance(self.since, RunLumi) and not isinstance(self.until, int):
            return IOV(self.since, self.until)
        raise ValueError(f"tag {self.entry.tag} goes by time; use since and until")


class Snapshot(NamedTuple):
    """A global tag as it was after the entry `sequence`. Its answers never change.

    >>> str(Snapshot("prompt", 41)), Snapshot.parse("prompt@41").sequence
    ('prompt@41', 41)
    """

    global_tag: str
    sequence: int

    @classmethod
    def parse(cls, text: str) -> Snapshot:
        """Read what `str` gives."""
        name, _, sequence = text.rpartition("@")
        if not name or not sequence.isdecimal():
            raise ValueError(f"{text!r} is not a snapshot, such as prompt@41")
        return cls(name, int(sequence))

    def __str__(self) -> str:
        return f"{self.global_tag}@{self.sequence}"


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive units of one run with the same conditions: `[since, until)`."""

    since: RunLumi
    until: RunLumi
    conditions: Conditions

    @property
    def ids(self) -> Mapping[str, str]:
        """Payload id by kind; a kind without payload is not there."""
        return self.conditions.ids
