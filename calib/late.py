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
    settled, `sequence` the entry made, `explanation` a sentence.
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


class SettledRun(NamedTuple):
    """A settled run as a half-open range on the clock of a tag."""

    run: int
    since: int
    until: int


@dataclass(frozen=True, slots=True)
class Ruling:
    """Where an append may begin (None: not at all) and where the earlier payload must go on again."""

    kind: FateKind
    since: int | None
    until: int | None
    explanation: str


@dataclass(frozen=True, slots=True)
class Asked:
    """An append as asked for: from `since` up to `following`, the next entry of the tag (None: open).

    `touched` are the settled runs in that interval, `first_safe` the first moment behind every settled run of the tag.
    """

    tag: Tag
    since: int
    following: int | None
    touched: Sequence[SettledRun]
    first_safe: int


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
            return _nothing(FateKind.QUEUED, f"{taken}; queued for re-reconstruction of {_runs(asked.touched)}")
        case Sync.HLT | Sync.EXPRESS | Sync.PROMPT:
            return _shifted(asked, taken)


def _bounded(asked: Asked) -> Ruling:
    until = min(run.since for run in asked.touched)
    stop = asked.tag.moment(until)
    return Ruling(
        FateKind.ACCEPTED, asked.since, until, f"holds up to {stop}, where a settled run keeps the payload before it"
    )


def _shifted(asked: Asked, taken: str) -> Ruling:
    safe = asked.tag.moment(asked.first_safe)
    if asked.following is not None and asked.following <= asked.first_safe:
        # Shifted beyond the next entry it would stand in the place of a newer payload.
        newer = asked.tag.moment(asked.following)
        return _nothing(FateKind.REFUSED, f"{taken}, and from {newer} a newer entry holds, before the first safe {safe}")
    return Ruling(FateKind.SHIFTED, asked.first_safe, None, f"{taken}; begins at {safe}, the first safe moment")


def _nothing(kind: FateKind, explanation: str) -> Ruling:
    return Ruling(kind, None, None, explanation)


def _runs(touched: Iterable[SettledRun]) -> str:
    runs = [str(run.run) for run in touched]
    return f"run{'s' if len(runs) > 1 else ''} " + ", ".join(runs[:10]) + (" ..." if len(runs) > 10 else "")


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
