"""The accounts: every event once, or a word that says which unit is wrong."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import IntegrityError

from calib.iov import RunLumi
from pipeline import accounting, catalog
from pipeline.accounting import Task, Unbalanced
from pipeline.database import Database
from pipeline.model import Chunk, Counts, FileIndex, Output, Piece, Rows, Step

RUN = 7
TASK = Task("job", RUN, Step.EXPRESS, "layout")
ONE, TWO, THREE = (RunLumi(RUN, lumi).packed for lumi in (1, 2, 3))

PIECES = (Piece("a", 0, 10, ONE), Piece("a", 10, 30, TWO), Piece("a", 30, 35, TWO), Piece("a", 35, 40, THREE))
CHUNKS = (Chunk(RUN, 0, PIECES[:2]), Chunk(RUN, 1, PIECES[2:]))
ALL = {
    0: {ONE: Counts(10, 10), TWO: Counts(20, 12, {"no track": 5, "not express": 3})},
    1: {TWO: Counts(5, 0, {"no track": 4}, 1), THREE: Counts(5, 0, {}, 5)},
}
MINI = {ONE: Rows(10), TWO: Rows(12)}


@pytest.fixture
def books(catalogue: Database) -> Database:
    with catalogue.begin() as connection:
        catalog.register_file(connection, FileIndex("a", 1, "c", PIECES, (), 40, 1), 1.0)
        catalog.save_layout(connection, RUN, "layout", CHUNKS)
    return catalogue


def test_counts_are_summed_by_unit_and_over_the_run(books: Database) -> None:
    with books.begin() as connection:
        accounting.book(connection, TASK, ALL)
        accounting.check_complete(connection, RUN, "job")
        assert accounting.counts_of(connection, "job") == {
            ONE: Counts(10, 10),
            TWO: Counts(25, 12, {"no track": 9, "not express": 3}, 1),
            THREE: Counts(5, 0, {}, 5),
        }
        total = accounting.total_of(connection, "job")
        assert total == Counts(40, 22, {"no track": 9, "not express": 3}, 6)
        assert total.balanced
        assert accounting.bad_units(connection, "job") == {TWO: 1, THREE: 5}
        assert accounting.total_of(connection, "another job") == Counts()
        assert accounting.counts_of(connection, "another job") == {}


@pytest.mark.parametrize(
    ("found", "word"),
    [
        (
            {0: {ONE: Counts(10, 9), TWO: Counts(20, 20)}},
            "run 7, lumisection 1, chunk 0, express: 10 events read, but 9",
        ),
        ({0: {ONE: Counts(9, 9), TWO: Counts(20, 20)}}, "run 7, lumisection 1, .* 10 events in its files, 9 read"),
        ({0: {ONE: Counts(11, 11), TWO: Counts(20, 20)}}, "run 7, lumisection 1, .* 10 events in its files, 11 read"),
        ({0: {ONE: Counts(10, 10)}}, "run 7, lumisection 2, .* 20 events in its files, none read"),
        ({0: {**ALL[0], THREE: Counts(1, 1)}}, "run 7, lumisection 3, .* 0 events in its files, 1 read"),
        (
            {0: ALL[0], 1: {TWO: Counts(5, 5, {"x": 1}), THREE: Counts(5, 5)}},
            "lumisection 2, chunk 1, .* 5 out . 1 filt",
        ),
    ],
)
def test_an_event_that_is_missing_or_twice_is_refused(books: Database, found: dict, word: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(Unbalanced, match=word), books.begin() as connection:
        accounting.book(connection, TASK, found)
    with books.read() as connection:
        assert accounting.counts_of(connection, "job") == {}


@pytest.mark.parametrize(
    ("one", "two", "word"),
    [
        (Rows(9), Rows(12), "run 7, lumisection 1, chunk 0, express: 10 events out, 9 in tier AOD"),
        (Rows(11, 1), Rows(12), "lumisection 1, .* 10 events out, 11 in tier AOD, 1 of them for the second time"),
        (Rows(10, 1), Rows(12), "lumisection 1, .* 10 events out, 10 in tier AOD, 1 of them for the second time"),
        (Rows(10), Rows(0), "lumisection 2, .* 12 events out, 0 in tier AOD"),
        (Rows(10), Rows(8, 0, 3), "lumisection 2, .* 12 events out, 8 in tier AOD; 3 have no such tier"),
        (Rows(10), Rows(8, 0, 4), ""),
        (Rows(10), Rows(12), ""),
    ],
)
def test_what_came_out_must_lie_in_the_files(books: Database, one: Rows, two: Rows, word: str) -> None:
    rows = {0: {"AOD": {unit: found for unit, found in ((ONE, one), (TWO, two)) if found != Rows()}, "MINI": MINI}}
    with books.begin() as connection:
        if word:
            with pytest.raises(Unbalanced, match=word):
                accounting.book(connection, TASK, {0: ALL[0]}, rows=rows)
        else:
            accounting.book(connection, TASK, {0: ALL[0]}, rows=rows)


def test_a_unit_that_should_not_be_in_the_files_is_refused(books: Database) -> None:
    rows = {0: {"MINI": {**MINI, THREE: Rows(1)}}}
    with (
        pytest.raises(Unbalanced, match=r"lumisection 3, .* 0 events out, 1 in tier MINI"),
        books.begin() as connection,
    ):
        accounting.book(connection, TASK, {0: ALL[0]}, rows=rows)


def test_a_chunk_cannot_be_booked_twice(books: Database) -> None:
    with books.begin() as connection:
        accounting.book(connection, TASK, ALL)
    with pytest.raises(IntegrityError), books.begin() as connection:
        accounting.book(connection, TASK, {0: ALL[0]})
    with books.read() as connection:
        assert accounting.total_of(connection, "job").read == 40


def test_a_job_is_complete_only_with_every_chunk(books: Database) -> None:
    with books.begin() as connection:
        accounting.book(connection, TASK, {0: ALL[0]})
    with books.read() as connection, pytest.raises(Unbalanced, match="lumisection 2: 25 events in its files, 20 acc"):
        accounting.check_complete(connection, RUN, "job")
    with books.begin() as connection:
        accounting.book(connection, TASK, {1: ALL[1]})
        # The file turns out to be bad only now: what was made of it has no source any more.
        catalog.file_invalid(connection, "a", "cut short", 2.0)
        with pytest.raises(Unbalanced, match="lumisection 1: 10 events accounted for, but no file has any"):
            accounting.check_complete(connection, RUN, "job")


def test_nothing_found_books_nothing(books: Database) -> None:
    with books.begin() as connection:
        accounting.book(connection, TASK, {})
        assert accounting.total_of(connection, "job") == Counts()


def test_outputs_come_back_in_the_order_of_the_chunks(books: Database) -> None:
    files = [Output("AOD", 1, "/b", 5, "y", 0), Output("AOD", 0, "/a", 5, "x", 22), Output("MINI", 0, "/m", 5, "z", 22)]
    with books.begin() as connection:
        accounting.book(connection, TASK, ALL, files)
        assert list(accounting.outputs_of(connection, "job")) == [files[1], files[0], files[2]]
        assert list(accounting.outputs_of(connection, "job", "MINI")) == [files[2]]
        assert list(accounting.outputs_of(connection, "another job")) == []


def test_products_belong_to_the_job_that_made_them_last(books: Database) -> None:
    with books.begin() as connection:
        accounting.add_products(connection, ["p", "q"], "first")
        accounting.add_products(connection, ["q"], "second")
        assert accounting.made_by(connection, ["p", "q", "r"]) == {"p": "first", "q": "second"}
        assert accounting.made_by(connection, []) == {}
