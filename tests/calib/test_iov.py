from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib.iov import IOV, LUMI_LIMIT, Clock, RunLumi

UNITS = [RunLumi(run, lumi) for run in (1, 2) for lumi in (0, 1, 5)]
INTERVALS = [
    IOV(since, until) for since, until in itertools.product(UNITS, [*UNITS, None]) if until is None or since < until
]
numbers = st.integers(0, LUMI_LIMIT - 1)


@given(numbers, numbers, numbers, numbers)
def test_packed_units_sort_and_come_back(run: int, lumi: int, other_run: int, other_lumi: int) -> None:
    one, two = RunLumi(run, lumi), RunLumi(other_run, other_lumi)
    assert RunLumi.unpack(one.packed) == one
    assert (one < two) == (one.packed < two.packed)
    assert RunLumi.parse(str(one)) == one


@pytest.mark.parametrize("unit", [RunLumi(-1, 0), RunLumi(1, -1), RunLumi(1, LUMI_LIMIT), RunLumi(LUMI_LIMIT, 0)])
def test_a_unit_that_does_not_fit_is_refused(unit: RunLumi) -> None:
    with pytest.raises(ValueError, match="must lie in 0"):
        _ = unit.packed


@pytest.mark.parametrize("text", ["", "x", "1:x", "1:2:3", ":2"])
def test_a_text_that_is_no_unit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a run or run:lumi, such as"):
        RunLumi.parse(text)


@pytest.mark.parametrize("until", [RunLumi(2, 5), RunLumi(2, 4), RunLumi(1, 9)])
def test_an_interval_that_is_empty_or_ends_before_it_begins_is_refused(until: RunLumi) -> None:
    with pytest.raises(ValueError, match="must end after it begins"):
        IOV(RunLumi(2, 5), until)


def test_contains_is_half_open() -> None:
    iov = IOV(RunLumi(1, 1), RunLumi(2, 1))
    assert [at for at in UNITS if iov.contains(at)] == [RunLumi(1, 1), RunLumi(1, 5), RunLumi(2, 0)]
    assert IOV(RunLumi(2)).contains(RunLumi(10**6, 7))


def test_intervals_are_in_order_by_begin_then_end_and_an_open_one_ends_last() -> None:
    end = RunLumi(10**6)
    wanted = sorted(INTERVALS, key=lambda iov: (iov.since, iov.until or end))
    assert sorted(random.Random(1).sample(INTERVALS, len(INTERVALS))) == wanted
    for one, two in itertools.product(INTERVALS, INTERVALS):
        assert (one < two) + (one == two) + (one > two) == 1
        assert (one <= two) == (wanted.index(one) <= wanted.index(two)) == (two >= one)


def test_an_interval_says_itself() -> None:
    assert str(IOV(RunLumi(1, 2), RunLumi(3, 4))) == "[1:2, 3:4)"
    assert str(IOV(RunLumi(1, 2))) == "[1:2, open)"


def test_clocks_store_what_they_count_in() -> None:
    at = RunLumi(3, 7)
    assert Clock.LUMI.since(at) == at.packed
    assert Clock.RUN.since(at) == RunLumi(3).packed
    assert Clock.TIME.since(1_700_000_000_000_000_000) == 1_700_000_000_000_000_000


def test_clocks_refuse_what_they_do_not_count_in() -> None:
    with pytest.raises(ValueError, match="begins at nanoseconds since 1970"):
        Clock.TIME.since(RunLumi(3, 7))
    with pytest.raises(ValueError, match="begins at a run or unit"):
        Clock.LUMI.since(5)
