"""Which runs are looked at, and when."""

import pytest

from pipeline.agenda import Agenda


@pytest.fixture
def agenda():
    return Agenda()


def popped(agenda, now=0.0):
    return list(iter(lambda: agenda.pop(now), None))


def test_marked_runs_come_once_each_the_first_run_first(agenda):
    for run in (9, 7, 8, 7):
        agenda.mark(run)
    assert popped(agenda) == [7, 8, 9]
    assert popped(agenda) == []


def test_a_run_is_looked_at_when_its_time_has_come_and_not_before(agenda):
    agenda.wait(7, 100.0)
    agenda.wait(8, 90.0)
    assert (popped(agenda, 89.9), agenda.next_at()) == ([], 90.0)
    assert (popped(agenda, 90.0), agenda.next_at()) == ([8], 100.0)
    assert (popped(agenda, 200.0), agenda.next_at()) == ([7], None)


def test_the_last_wait_of_a_run_counts(agenda):
    agenda.wait(7, 50.0)
    agenda.wait(7, 100.0)
    agenda.wait(8, 60.0)
    agenda.wait(8, None)
    assert (popped(agenda, 99.0), agenda.next_at()) == ([], 100.0)
    agenda.wait(7, 50.0)
    assert popped(agenda, 99.0) == [7]


def test_who_watches_a_run_is_looked_at_once_when_it_changes(agenda):
    agenda.wait(8, None, [7])
    agenda.wait(9, None, [7, 8])
    agenda.changed(5)
    assert popped(agenda) == []
    agenda.changed(7)
    assert popped(agenda) == [8, 9]
    agenda.changed(7)
    assert popped(agenda) == []
    agenda.changed(8)
    assert popped(agenda) == [9]


def test_what_is_marked_meanwhile_takes_its_place(agenda):
    for run in (5, 9):
        agenda.mark(run)
    assert agenda.pop(0.0) == 5
    agenda.mark(7)
    assert popped(agenda) == [7, 9]
