"""What becomes of a payload that comes after a run it touches was settled. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from calib.tags import Moment, Sync, Tag


class FateKind(StrEnum):
    """How an append or withdrawal ended."""

    ACCEPTED = "accepted"
    """it begins where it was asked to"""
    SHIFTED = "shifted"
    """it begins at the first safe moment"""
    REFUSED = "refused"
    """it changes nothing"""
    QUEUED = "queued"
    """it changes nothing now; the runs it touches wait for re-reconstruction"""


@dataclass(frozen=True, slots=True)
class Fate:
    """What an author is told. `runs` are the settled runs it touches; their answers stay as they were.

    `given` is where it begins (None: nowhere), `until` where the earlier payload goes on because a run from there is
    settled, `sequence` the entry made, `explanation` a sentence. `into` names the tag it went to where that is another
    than `tag`, the one it was meant for.
    """

    kind: FateKind
    tag: str
    payload_id: str
    asked: Moment
    given: Moment | None
    until: Moment | None = None
    sequence: int | None = None
    runs: tuple[int, ...] = ()
    explanation: str = ""
    into: str | None = None


class SettledRun(NamedTuple):
    """A settled run as a half-open range on the clock of a tag."""

    run: int
    since: int
    until: int


@dataclass(frozen=True, slots=True)
class Ruling:
    """Where an append may begin (None: not at all), where the earlier payload must go on again, and the tag it goes
    `into` where that is another one."""

    kind: FateKind
    since: int | None
    until: int | None
    explanation: str
    into: Tag | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """An append as asked for: from `since` up to `following`, the next entry of the tag (None: open).

    `touched` are the settled runs in that interval, `first_safe` is the first moment behind every settled run of the
    tag, `newer` where the payload that holds there was asked to begin (None: nothing holds there), `unused` another
    offline tag of the same kind and clock, of some global tag, that no settled run uses.
    """

    tag: Tag
    since: int
    following: int | None
    touched: Sequence[SettledRun]
    first_safe: int
    newer: int | None = None
    unused: Tag | None = None


def rule(asked: Asked) -> Ruling:
    """The fate of an append."""
    if not asked.touched:
        return Ruling(FateKind.ACCEPTED, asked.since, None, "")
    if not any(run.since <= asked.since < run.until for run in asked.touched):
        return _bounded(asked)
    taken = f"{asked.tag.moment(asked.since)} lies in a settled run"
    match asked.tag.sync:
        case Sync.PCL:
            return _nothing(FateKind.REFUSED, f"{taken}; a pcl tag takes no late payload")
        case Sync.VALIDATION:
            return _nothing(FateKind.REFUSED, f"{taken}; copy the validation tag to a new one")
        case Sync.OFFLINE:
            return _offline(asked, taken)
        case Sync.HLT | Sync.EXPRESS | Sync.PROMPT:
            return _shifted(asked, taken)


def _bounded(asked: Asked) -> Ruling:
    until = min(run.since for run in asked.touched)
    stop = asked.tag.moment(until)
    return Ruling(
        FateKind.ACCEPTED,
        asked.since,
        until,
        f"holds up to {stop}, where a settled run keeps the payload before it",
    )


def _shifted(asked: Asked, taken: str) -> Ruling:
    safe = asked.tag.moment(asked.first_safe)
    if asked.newer is not None and asked.newer > asked.since:
        newer = asked.tag.moment(asked.newer)
        return _nothing(
            FateKind.REFUSED, f"{taken}, and at {safe}, the first safe moment, the newer one of {newer} holds"
        )
    return Ruling(FateKind.SHIFTED, asked.first_safe, None, f"{taken}; begins at {safe}, the first safe moment")


def _offline(asked: Asked, taken: str) -> Ruling:
    if asked.unused is None:
        return _nothing(FateKind.QUEUED, f"{taken}; queued for re-reconstruction of {_runs(asked.touched)}")
    goes = f"goes to {asked.unused.name}, which no settled run uses"
    return Ruling(FateKind.ACCEPTED, asked.since, None, f"{taken}; {goes}", asked.unused)


def _nothing(kind: FateKind, explanation: str) -> Ruling:
    return Ruling(kind, None, None, explanation)


def _runs(touched: Iterable[SettledRun]) -> str:
    runs = [str(run.run) for run in touched]
    return f"run{'s' if len(runs) > 1 else ''} " + ", ".join(runs[:10]) + (" ..." if len(runs) > 10 else "")


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """How an entry that holds over `[since, following)` ends: taken away `whole`, and then where it must go on for a
    settled run, or end.

    `steps` are (position, whether it ends there) in order. A `hidden` entry is one with a newer of the same moment.
    """

    since: int
    following: int | None
    whole: bool
    steps: tuple[tuple[int, bool], ...] = ()
    hidden: bool = False

    @classmethod
    def of(cls, since: int, following: int | None, touched: Iterable[SettledRun]) -> Withdrawal:
        """The plan for an entry in whose interval the runs `touched` are settled."""
        ranges = closed_ranges(touched, since, following)
        steps = []
        for begin, end in ranges:
            if begin > since:
                steps.append((begin, False))
            if end is not None:
                steps.append((end, True))
        return cls(since, following, not ranges or ranges[0][0] > since, tuple(steps))

    @property
    def begins(self) -> list[int]:
        """Where something else holds from now on."""
        whole = [self.since] if self.whole and not self.hidden else []
        return whole + [position for position, ends in self.steps if ends]


def rule_withdrawal(tag: Tag, own: Withdrawal, plans: Iterable[Withdrawal]) -> Ruling:
    """The fate of a withdrawal: the `own` plan of the entry named, and the plans of all that hold its payload."""
    begins = sorted(position for plan in plans for position in plan.begins)
    if begins and begins[0] <= own.since:
        return Ruling(FateKind.ACCEPTED, begins[0], None, "withdrawn")
    # With nothing to end, it holds in settled runs only, up to the next entry; it will not outlive that one.
    first = begins[0] if begins else own.following
    at = "" if first is None else f" from {tag.moment(first)}"
    return Ruling(FateKind.SHIFTED, first, None, f"withdrawn{at}; the settled runs before keep it")


def closed_ranges(touched: Iterable[SettledRun], since: int, until: int | None) -> list[tuple[int, int | None]]:
    """The settled runs as disjoint ranges, cut to `[since, until)`; neighbours that meet are joined.

    An end None reaches `until`: nothing can begin behind it.

    >>> closed_ranges([SettledRun(1, 10, 20), SettledRun(2, 20, 30), SettledRun(4, 40, 50)], 15, 50)
    [(15, 30), (40, None)]
    """
    ranges: list[tuple[int, int]] = []
    for run in sorted(touched, key=lambda run: run.since):
        begin = max(run.since, since)
        if ranges and begin <= ranges[-1][1]:
            ranges[-1] = ranges[-1][0], max(ranges[-1][1], run.until)
        else:
            ranges.append((begin, run.until))
    return [(begin, end if until is None or end < until else None) for begin, end in ranges]
