"""What follows a failure is decided by its cause and by what happened before."""

from __future__ import annotations

import errno

import pytest

from jobs.retry import (
    Again,
    BadData,
    Cause,
    Failure,
    GiveUp,
    Limits,
    SetAside,
    Stop,
    Verdict,
    alike,
    classify,
    decide,
    verdicts,
)


class StaleFile(Exception):
    """An error of a caller that says what it is."""

    cause = Cause.PASSING


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (BadData("no such branch"), Cause.BAD_DATA),
        (StaleFile(), Cause.PASSING),
        (TimeoutError(), Cause.PASSING),
        (ConnectionResetError(), Cause.PASSING),
        (OSError(errno.ESTALE, "stale"), Cause.PASSING),
        (OSError(errno.EIO, "input/output"), Cause.PASSING),
        (FileNotFoundError(errno.ENOENT, "gone"), Cause.MISSING),
        (OSError(errno.ENOSPC, "full"), Cause.SITE),
        (OSError(errno.EDQUOT, "quota"), Cause.SITE),
        (OSError(errno.EROFS, "read-only"), Cause.SITE),
        (PermissionError(errno.EACCES, "denied"), Cause.BUG),
        (OSError("no number"), Cause.BUG),
        (ValueError(), Cause.BUG),
        (SystemExit(1), Cause.BUG),
    ],
)
def test_classify(error: BaseException, cause: Cause) -> None:
    assert classify(error) is cause


def test_classify_looks_through_raise_from_only() -> None:
    wrapped = RuntimeError("could not write")
    wrapped.__cause__ = OSError(errno.ENOSPC, "full")
    assert classify(wrapped) is Cause.SITE
    incidental = RuntimeError("bug in a handler")
    incidental.__context__ = FileNotFoundError()
    assert classify(incidental) is Cause.BUG


def test_an_attribute_that_is_no_cause_is_no_answer() -> None:
    odd = ValueError()
    odd.cause = "passing"  # type: ignore[attr-defined]
    assert classify(odd) is Cause.BUG


LIMITS = Limits(passing=(1.0, 4.0), missing=0.5)


def follow(cause: Cause, times: int, **more: bool) -> list[Verdict]:
    """The verdicts as one and the same failure comes again and again."""
    failure = Failure(cause, "why", 3, **more)
    return [decide(failure, [failure] * past, LIMITS) for past in range(times)]


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        (Cause.PASSING, [Again(1.0), Again(4.0), GiveUp("why")]),
        (Cause.MISSING, [Again(0.5), SetAside("why")]),
        (Cause.TIMEOUT, [Again(), GiveUp("why")]),
        (Cause.BUG, [Again(), GiveUp("why")]),
        (Cause.BAD_DATA, [SetAside("why")]),
        (Cause.REFUSED, [GiveUp("why")]),
        (Cause.SITE, [Stop("why", held=True)]),
    ],
)
def test_what_follows(cause: Cause, expected: list[Verdict]) -> None:
    assert follow(cause, len(expected)) == expected


def test_only_losses_alone_set_aside() -> None:
    assert follow(Cause.LOST, 4) == [Again(), Again(alone=True), Again(alone=True), Again(alone=True)]
    alone = follow(Cause.LOST, 3, alone=True)
    assert alone[:2] == [Again(alone=True)] * 2
    assert isinstance(alone[2], SetAside)
    assert "died 3 times" in alone[2].reason


def test_seen_executing_is_suspect_at_once() -> None:
    assert follow(Cause.LOST, 1, seen=True) == [Again(alone=True)]


def test_causes_are_counted_apart() -> None:
    earlier = [Failure(Cause.PASSING, "net", 3), Failure(Cause.LOST, "gone", 3)]
    assert decide(Failure(Cause.BUG, "oops", 3), earlier, LIMITS) == Again()
    assert decide(Failure(Cause.PASSING, "net", 3), earlier, LIMITS) == Again(4.0)


def test_verdicts_by_leaf() -> None:
    history = [Failure(Cause.BUG, "a", 1), Failure(Cause.BUG, "b", None), Failure(Cause.BUG, "c", 1)]
    assert verdicts(history, LIMITS) == {1: GiveUp("c"), None: Again()}


def test_many_alike_are_not_the_data() -> None:
    three = {leaf: Failure(Cause.BUG, "oops", leaf) for leaf in range(3)}
    stop = alike(three, LIMITS)
    assert stop is not None
    assert "every leaf fails the same way" in stop.reason
    assert "oops" in stop.reason
    assert not stop.held
    del three[0]
    assert alike(three, LIMITS) is None
    assert alike({leaf: Failure(Cause.BAD_DATA, "unreadable", leaf) for leaf in range(9)}, LIMITS) is None
    mixed = {1: Failure(Cause.BUG, "", 1), 2: Failure(Cause.PASSING, "", 2), 3: Failure(Cause.LOST, "", 3)}
    assert alike(mixed, LIMITS) is None
