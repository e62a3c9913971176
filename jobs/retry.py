"""What follows a failure: decided by what kind of failure it was and what happened before. Pure."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Cause(StrEnum):
    """Why a leaf or a merge failed; each member says what follows."""

    PASSING = "passing"  # the network or a file server did not answer: again, after longer and longer pauses
    MISSING = "missing"  # a file is not there: again once after a short pause, then set aside
    LOST = "lost"  # the worker died: again; if it may be the culprit, alone; set aside when it kills alone
    TIMEOUT = "timeout"  # it ran longer than its limit: again, then given up
    BAD_DATA = "bad data"  # the input is bad, and stays bad: set aside at once
    REFUSED = "refused"  # the settings do not allow what it makes: given up at once
    SITE = "site"  # disk full, quota, read-only: nothing that runs here can succeed: stop, lose nothing
    BUG = "bug"  # anything else: again once, then given up


class BadData(Exception):
    """The input of a leaf is unusable. Raise it (or any exception with an attribute `cause`) from `Work.leaf`."""

    cause = Cause.BAD_DATA


@dataclass(frozen=True, slots=True)
class Failure:
    """One failure of one leaf, or of the merge of its node (`leaf` None)."""

    cause: Cause
    message: str
    leaf: int | None = None
    alone: bool = False
    """Nothing else was in flight: a loss cannot have been a neighbour's fault."""
    seen: bool = False
    """The lost worker had reported that it was executing just this task."""
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """How often and after how many seconds a failed leaf is tried again."""

    passing: tuple[float, ...] = (1.0, 5.0, 25.0)
    """Pause before each further try; one more failure, and it is given up."""
    missing: float = 1.0
    """Pause before the only further try for a missing file."""
    alone: int = 3
    """Losses while alone after which the leaf is set aside."""
    company: int = 1
    """Losses in company, without having been seen executing, that do not yet make a suspect."""
    timeouts: int = 2
    """Runs over the time limit after which the leaf is given up."""
    bugs: int = 2
    """Unexplained exceptions after which the leaf is given up."""
    alike: int = 3
    """So many leaves that fail for one cause before any has succeeded: the others would fare no better."""


@dataclass(frozen=True, slots=True)
class Again:
    """Run it again, not before `after` seconds; `alone`: with nothing else in flight."""

    after: float = 0.0
    alone: bool = False


@dataclass(frozen=True, slots=True)
class SetAside:
    """Commit its node without it, for good, and say why: only for what the data are to blame for."""

    reason: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Leave it and its node to the next start, and say why: it may well succeed then."""

    reason: str


@dataclass(frozen=True, slots=True)
class Stop:
    """End the job; `held`: it is the site's fault, and no other job would fare better."""

    reason: str
    held: bool = False


Verdict = Again | SetAside | GiveUp | Stop

_SITE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
_PASSING = frozenset(
    {errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EIO, errno.EPIPE, errno.ESTALE, errno.ETIMEDOUT}
    | {errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH}
    | {errno.ENETDOWN, errno.ENETRESET, errno.ENETUNREACH}
)


def classify(error: BaseException) -> Cause:
    """Give the cause of an exception, looking through explicit `raise ... from` chains.

    >>> classify(OSError(errno.ENOSPC, "No space left on device"))
    <Cause.SITE: 'site'>
    """
    link: BaseException | None = error
    while link is not None:
        cause = _classify_one(link)
        if cause is not Cause.BUG:
            return cause
        link = link.__cause__
    return Cause.BUG


def _classify_one(error: BaseException) -> Cause:
    declared = getattr(error, "cause", None)
    if isinstance(declared, Cause):
        return declared
    if isinstance(error, FileNotFoundError):
        return Cause.MISSING
    if isinstance(error, OSError) and error.errno in _SITE:
        return Cause.SITE
    if isinstance(error, TimeoutError | ConnectionError):
        return Cause.PASSING
    if isinstance(error, OSError) and error.errno in _PASSING:
        return Cause.PASSING
    return Cause.BUG


def decide(failure: Failure, earlier: Sequence[Failure], limits: Limits) -> Verdict:
    """Give what follows `failure`, where `earlier` are the failures of the same leaf before it."""
    same = [past for past in earlier if past.cause is failure.cause]
    count = len(same) + 1
    match failure.cause:
        case Cause.SITE:
            return Stop(failure.message, held=True)
        case Cause.BAD_DATA:
            return SetAside(failure.message)
        case Cause.REFUSED:
            return GiveUp(failure.message)
        case Cause.LOST:
            return _after_loss(failure, same, limits)
        case Cause.TIMEOUT:
            return GiveUp(failure.message) if count >= limits.timeouts else Again()
        case Cause.MISSING:
            return SetAside(failure.message) if count > 1 else Again(limits.missing)
        case Cause.PASSING:
            tried = len(same)
            return Again(limits.passing[tried]) if tried < len(limits.passing) else GiveUp(failure.message)
        case Cause.BUG:
            return GiveUp(failure.message) if count >= limits.bugs else Again()


def _after_loss(failure: Failure, losses: Sequence[Failure], limits: Limits) -> Verdict:
    everything = [*losses, failure]
    killed = sum(loss.alone for loss in everything)
    if killed >= limits.alone:
        return SetAside(f"its worker died {killed} times while it ran alone; the last time: {failure.message}")
    suspect = any(loss.alone or loss.seen for loss in everything) or len(everything) > limits.company
    return Again(alone=suspect)


def verdicts(history: Iterable[Failure], limits: Limits) -> dict[int | None, Verdict]:
    """Give for every leaf that ever failed (None: the merge) what follows now."""
    by_leaf: dict[int | None, list[Failure]] = {}
    for failure in history:
        by_leaf.setdefault(failure.leaf, []).append(failure)
    return {leaf: decide(failures[-1], failures[:-1], limits) for leaf, failures in by_leaf.items()}


def alike(hopeless: Mapping[int, Failure], limits: Limits) -> Stop | None:
    """Judge a job of which no leaf has succeeded: many leaves failing in one way are not the data's fault.

    `hopeless` holds the last failure of every leaf that is given up or would be set aside. Bad data are the data's
    fault, always.
    """
    for cause in set(Cause) - {Cause.BAD_DATA}:
        some = [failure for failure in hopeless.values() if failure.cause is cause]
        if len(some) >= limits.alike:
            return Stop(f"every leaf fails the same way ({len(some)} tried, none succeeded): {some[0].message}")
    return None
