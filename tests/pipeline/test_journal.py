"""Setbacks and documents."""

from __future__ import annotations

import pytest

from pipeline import journal
from pipeline.database import Database
from pipeline.journal import Setback

CUT = Setback("file", "/data/a.root", "cut short")
ODD = Setback("events", "express-7, chunk 3", "no such column", 7)


def test_setbacks_are_written_once_while_they_hold(catalogue: Database) -> None:
    with catalogue.begin() as connection:
        journal.add_setbacks(connection, [CUT, ODD], 1.0)
        journal.add_setbacks(connection, [CUT, ODD, Setback("file", "/data/a.root", "no ROOT file")], 2.0)
        found = journal.list_setbacks(connection)
    assert [(setback.reason, setback.at) for setback in found] == [
        ("cut short", 1.0),
        ("no such column", 1.0),
        ("no ROOT file", 2.0),
    ]


def test_a_run_sees_its_own_and_what_concerns_all(catalogue: Database) -> None:
    with catalogue.begin() as connection:
        journal.add_setbacks(connection, [CUT, ODD, Setback("events", "x", "y", 8)], 1.0)
        assert [setback.run for setback in journal.list_setbacks(connection, 7)] == [None, 7]


def test_what_is_in_order_again_is_kept_as_history_and_may_come_back(catalogue: Database) -> None:
    with catalogue.begin() as connection:
        journal.add_setbacks(connection, [CUT, ODD], 1.0)
        journal.resolve_setbacks(connection, "file", CUT.place, 2.0)
        journal.resolve_setbacks(connection, "events", ODD.place, 2.0, run=8)
        assert [setback.kind for setback in journal.list_setbacks(connection)] == ["events"]
        journal.add_setbacks(connection, [CUT], 3.0)
        everything = journal.list_setbacks(connection, resolved=True)
    assert [(setback.kind, setback.at, setback.resolved) for setback in everything] == [
        ("file", 1.0, 2.0),
        ("events", 1.0, None),
        ("file", 3.0, None),
    ]


def test_documents_are_json_by_run_and_key(catalogue: Database) -> None:
    with catalogue.begin() as connection:
        assert journal.get_document(connection, 7, "manifest") is None
        journal.set_document(connection, 7, "manifest", {"a": [1, None, "ä"]}, 1.0)
        journal.set_document(connection, 7, "manifest", {"a": 0.1}, 2.0)
        journal.set_document(connection, 5, "manifest", [], 2.0)
        journal.set_document(connection, 7, "status", "done", 2.0)
        assert journal.get_document(connection, 7, "manifest") == {"a": 0.1}
        assert journal.list_documents(connection, "manifest") == {5: [], 7: {"a": 0.1}}


@pytest.mark.parametrize("content", [{1, 2}, float("nan")])
def test_what_is_not_json_is_no_document(catalogue: Database, content: object) -> None:
    with pytest.raises((TypeError, ValueError)), catalogue.begin() as connection:
        journal.set_document(connection, 7, "manifest", content, 1.0)
