"""The rules for late payloads, as tables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib.iov import Clock
from calib.late import Asked, FateKind, Ruling, SettledRun, Withdrawal, closed_ranges, rule, rule_withdrawal
from calib.tags import Sync, Tag

RUN_5 = SettledRun(5, 50, 60)
RUN_8 = SettledRun(8, 80, 90)
ALL = list(Sync)
SHIFTING = [Sync.HLT, Sync.EXPRESS, Sync.PROMPT]


def tag(sync: Sync) -> Tag:
    return Tag("t", "k", Clock.TIME, sync, 1)


def short(ruling: Ruling) -> tuple[FateKind, int | None, int | None]:
    return ruling.kind, ruling.since, ruling.until


@pytest.mark.parametrize("sync", ALL)
def test_in_time(sync: Sync) -> None:
    assert rule(Asked(tag(sync), 10, 50, [], 90)) == Ruling(FateKind.ACCEPTED, 10, None, "")


@pytest.mark.parametrize("sync", ALL)
def test_only_later_runs_are_settled(sync: Sync) -> None:
    found = rule(Asked(tag(sync), 10, None, [RUN_5, RUN_8], 90, newer=0))
    assert short(found) == (FateKind.ACCEPTED, 10, 50)
    assert "holds up to 50" in found.explanation


@pytest.mark.parametrize("since", [50, 59])
@pytest.mark.parametrize(
    ("sync", "kind"),
    [(Sync.PCL, FateKind.REFUSED), (Sync.VALIDATION, FateKind.REFUSED), (Sync.OFFLINE, FateKind.QUEUED)],
)
def test_since_is_settled_and_nothing_changes(sync: Sync, kind: FateKind, since: int) -> None:
    assert short(rule(Asked(tag(sync), since, None, [RUN_5], 60))) == (kind, None, None)


@pytest.mark.parametrize("sync", SHIFTING)
@pytest.mark.parametrize("newer", [None, 0, 55])
def test_since_is_settled_and_shifts(sync: Sync, newer: int | None) -> None:
    assert short(rule(Asked(tag(sync), 55, None, [RUN_5, RUN_8], 90, newer))) == (FateKind.SHIFTED, 90, None)


@pytest.mark.parametrize("sync", SHIFTING)
def test_what_is_newer_is_not_replaced(sync: Sync) -> None:
    assert short(rule(Asked(tag(sync), 55, None, [RUN_5], 90, newer=56))) == (FateKind.REFUSED, None, None)


def test_late_offline_payload_goes_to_a_tag_that_no_settled_run_uses() -> None:
    unused = Tag("next", "k", Clock.TIME, Sync.OFFLINE, 2)
    found = rule(Asked(tag(Sync.OFFLINE), 55, None, [RUN_5, RUN_8], 90, unused=unused))
    assert (*short(found), found.into) == (FateKind.ACCEPTED, 55, None, unused)
    assert found.explanation == "55 lies in a settled run; goes to next, which no settled run uses"
    # In time it stays where it was meant to be.
    for runs in ([], [RUN_8]):
        assert rule(Asked(tag(Sync.OFFLINE), 55, None, runs, 90, unused=unused)).into is None


def test_end_of_a_settled_run_is_safe() -> None:
    assert short(rule(Asked(tag(Sync.PCL), 60, None, [RUN_8], 90))) == (FateKind.ACCEPTED, 60, 80)


def test_many_runs_are_not_all_named() -> None:
    touched = [SettledRun(n, n, n + 1) for n in range(50)]
    assert rule(Asked(tag(Sync.OFFLINE), 0, None, touched, 50)).explanation.endswith("7, 8, 9 ...")


def test_withdrawal_plans() -> None:
    assert Withdrawal.of(10, 20, []) == Withdrawal(10, 20, whole=True)
    assert Withdrawal.of(10, None, [RUN_5]).steps == ((50, False), (60, True))
    assert Withdrawal.of(55, None, [RUN_5, RUN_8]) == Withdrawal(55, None, False, ((60, True), (80, False), (90, True)))
    assert Withdrawal.of(55, 60, [RUN_5]) == Withdrawal(55, 60, whole=False)


@pytest.mark.parametrize(
    ("own", "others", "kind", "since"),
    [
        (Withdrawal(10, 20, whole=True), [], FateKind.ACCEPTED, 10),
        (Withdrawal.of(55, None, [RUN_5]), [], FateKind.SHIFTED, 60),
        (Withdrawal.of(55, 60, [RUN_5]), [], FateKind.SHIFTED, 60),
        (Withdrawal.of(55, 60, [RUN_5]), [Withdrawal(10, 20, whole=True)], FateKind.ACCEPTED, 10),
        (Withdrawal.of(55, 60, [RUN_5]), [Withdrawal(10, 20, whole=True, hidden=True)], FateKind.SHIFTED, 60),
    ],
)
def test_withdrawal_fates(own: Withdrawal, others: list[Withdrawal], kind: FateKind, since: int) -> None:
    assert short(rule_withdrawal(tag(Sync.PCL), own, [own, *others])) == (kind, since, None)


@given(
    runs=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 6)), max_size=6),
    since=st.integers(0, 30),
    length=st.none() | st.integers(1, 30),
)
def test_closed_ranges_cover_what_is_settled(runs: list[tuple[int, int]], since: int, length: int | None) -> None:
    until = None if length is None else since + length
    settled = [SettledRun(n, begin, begin + size) for n, (begin, size) in enumerate(runs)]
    touched = [run for run in settled if run.until > since and (until is None or run.since < until)]
    found = closed_ranges(touched, since, until)
    for at in range(since, until or 50):
        inside = any(begin <= at and (end is None or at < end) for begin, end in found)
        assert inside == any(run.since <= at < run.until for run in touched)
    ends = [0 if end is None else end for _, end in found[:-1]]
    assert all(end < begin for end, (begin, _) in zip(ends, found[1:], strict=True))
