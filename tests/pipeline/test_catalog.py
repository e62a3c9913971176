"""The catalogue: files and their versions, what a run consists of, and how it is cut."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from calib.iov import RunLumi
from pipeline import catalog
from pipeline.catalog import FileState, Registered
from pipeline.database import Database, open_database
from pipeline.model import BadEvent, Chunk, FileIndex, Piece
from pipeline.schema import catalog_metadata
from pipeline.splitting import Limits, split

RUN = 7


def unit(lumi: int, run: int = RUN) -> int:
    return RunLumi(run, lumi).packed


def index(path: str, lumis: dict[int, tuple[int, int]], checksum: str = "c", run: int = RUN) -> FileIndex:
    """A file with these entries (start, stop) of these lumisections."""
    held = tuple(Piece(path, start, stop, unit(lumi, run)) for lumi, (start, stop) in lumis.items())
    return FileIndex(path, 100, f"{checksum}-{path}", held, (), max(piece.stop for piece in held), 5)


def register(catalogue: Database, found: FileIndex) -> Registered:
    with catalogue.begin() as connection:
        return catalog.register_file(connection, found, now=1.0)


def units(catalogue: Database, run: int = RUN) -> dict[int, int]:
    with catalogue.read() as connection:
        packed, events = catalog.units(connection, run)
    return {RunLumi.unpack(one).lumi: number for one, number in zip(packed.tolist(), events.tolist(), strict=True)}


def test_units_add_up_over_files(catalogue: Database) -> None:
    assert register(catalogue, index("a", {2: (0, 10), 1: (10, 15)})) is Registered.NEW
    assert register(catalogue, index("b", {2: (0, 3), 9: (3, 4)})) is Registered.NEW
    assert register(catalogue, index("c", {1: (0, 1)}, run=8)) is Registered.NEW
    assert units(catalogue) == {1: 5, 2: 13, 9: 1}
    with catalogue.read() as connection:
        assert catalog.runs(connection) == [7, 8]
        assert catalog.runs_in(connection, ["b", "c", "none"]) == [7, 8]
        assert catalog.runs_in(connection, ["b"]) == [7]
        assert catalog.event_bytes(connection, RUN) == {"a": 100 / 15, "b": 25.0}
        found = list(catalog.pieces_of(connection, RUN))
        assert [(piece.path, RunLumi.unpack(piece.unit).lumi) for piece in found] == [
            ("a", 1),
            ("a", 2),
            ("b", 2),
            ("b", 9),
        ]
        assert [piece.path for piece in catalog.pieces_of(connection, RUN, [unit(2)])] == ["a", "b"]


def test_no_run_no_units(catalogue: Database) -> None:
    with catalogue.read() as connection:
        packed, events = catalog.units(connection, RUN)
    assert packed.shape == events.shape == (0,)
    assert packed.dtype == events.dtype == "int64"


def test_same_content_again_changes_nothing(catalogue: Database) -> None:
    found = index("a", {1: (0, 10)})
    register(catalogue, found)
    assert register(catalogue, replace(found, modified_ns=99)) is Registered.SAME
    assert units(catalogue) == {1: 10}
    with catalogue.read() as connection:
        version = catalog.find_file(connection, "a")
    assert version is not None
    assert (version.modified_ns, version.state, version.registered) == (99, FileState.VALID, 1.0)


def test_other_content_under_a_path_supersedes(catalogue: Database) -> None:
    register(catalogue, index("a", {1: (0, 10)}))
    assert register(catalogue, index("a", {1: (0, 4), 2: (4, 6)}, checksum="d")) is Registered.CHANGED
    assert units(catalogue) == {1: 4, 2: 2}
    with catalogue.read() as connection:
        assert [(file.checksum, file.state) for file in catalog.list_files(connection)] == [("d-a", FileState.VALID)]
        old = catalog.list_files(connection, FileState.SUPERSEDED)
    assert [file.checksum for file in old] == ["c-a"]
    # And back again: the path has a third version, of the first content.
    assert register(catalogue, index("a", {1: (0, 10)})) is Registered.CHANGED
    assert units(catalogue) == {1: 10}


def test_same_content_of_which_less_takes_part_is_a_change(catalogue: Database) -> None:
    found = index("a", {1: (0, 10)})
    register(catalogue, found)
    bad = BadEvent("a", 9, unit(1), 1234, "second copy of the event", "b")
    less = replace(found, pieces=(Piece("a", 0, 9, unit(1)),), duplicates=(bad,))
    assert register(catalogue, less) is Registered.CHANGED
    assert register(catalogue, less) is Registered.SAME
    assert units(catalogue) == {1: 9}
    with catalogue.read() as connection:
        assert list(catalog.duplicates_of(connection, RUN)) == [bad]
        assert catalog.leaning_on(connection, "b") == ["a"]
        assert catalog.leaning_on(connection, "a") == []


def test_invalid_file_counts_no_more_until_it_is_sound_again(catalogue: Database) -> None:
    found = index("a", {1: (0, 10)})
    register(catalogue, found)
    register(catalogue, index("b", {2: (0, 1)}))
    with catalogue.begin() as connection:
        catalog.file_invalid(connection, "a", "cut short", 2.0, found.size, found.modified_ns)
        catalog.file_invalid(connection, "new", "no ROOT file", 2.0, 17, 3)
        invalid = catalog.list_files(connection, FileState.INVALID)
        assert [(file.path, file.reason) for file in invalid] == [("a", "cut short"), ("new", "no ROOT file")]
    assert units(catalogue) == {2: 1}
    assert register(catalogue, found) is Registered.CHANGED
    assert units(catalogue) == {1: 10, 2: 1}


def test_invalid_replacement_supersedes_the_sound_version(catalogue: Database) -> None:
    register(catalogue, index("a", {1: (0, 10)}))
    with catalogue.begin() as connection:
        catalog.file_invalid(connection, "a", "cut short", 2.0, size=40, modified_ns=6)
        states = [(file.size, file.state) for file in catalog.list_files(connection)]
        assert states == [(40, FileState.INVALID)]
        assert len(catalog.list_files(connection, FileState.SUPERSEDED)) == 1
    assert units(catalogue) == {}


def test_a_copy_is_found_by_content(catalogue: Database) -> None:
    register(catalogue, index("a", {1: (0, 10)}))
    with catalogue.read() as connection:
        assert catalog.find_copy(connection, 100, "c-a", other_than="b") == "a"
        assert catalog.find_copy(connection, 100, "c-a", other_than="a") is None
        assert catalog.find_copy(connection, 101, "c-a", other_than="b") is None


def test_inputs_name_the_content_not_the_path_nor_the_order(tmp_path: Path) -> None:
    def name(*found: FileIndex) -> str:
        store = open_database(tmp_path / f"{len(list(tmp_path.iterdir()))}.db")
        store.create(catalog_metadata)
        for one in found:
            register(store, one)
        with store.read() as connection:
            return catalog.inputs(connection, RUN)

    a, b = index("a", {1: (0, 10)}), index("b", {1: (0, 4)})
    moved = replace(a, path="z", pieces=tuple(replace(piece, path="z") for piece in a.pieces))
    assert name(a, b) == name(b, a) == name(moved, b)
    assert name(a) != name(a, b)
    assert name(a) != name(replace(a, checksum="other"))
    assert name(a) != name(replace(a, pieces=(Piece("a", 0, 9, unit(1)),)))


def test_layout_is_read_back_as_it_was_cut(catalogue: Database) -> None:
    register(catalogue, index("a", {lumi: (10 * lumi, 10 * lumi + 10) for lumi in range(50)}))
    register(catalogue, index("b", {lumi: (3 * lumi, 3 * lumi + 3) for lumi in range(20, 40)}))
    limits = Limits(events=30, bytes=None, block_events=7)
    with catalogue.begin() as connection:
        expected = list(split(catalog.pieces_of(connection, RUN), limits))
        saved = catalog.save_layout(connection, RUN, "one", split(catalog.pieces_of(connection, RUN), limits))
        assert (saved.chunks, saved.events) == (len(expected), 560)
        assert catalog.save_layout(connection, RUN, "one", iter([])) == saved
    with catalogue.read() as connection:
        assert catalog.find_layout(connection, RUN, "one") == saved
        assert catalog.find_layout(connection, RUN, "two") is None
        assert catalog.chunks(connection, RUN, "one", range(len(expected))) == expected
        assert catalog.chunks(connection, RUN, "one", range(3, 5)) == expected[3:5]
        assert catalog.chunks(connection, RUN, "one", range(len(expected), len(expected) + 9)) == []
        assert catalog.chunks(connection, RUN, "one", range(0)) == []
        promised = catalog.promised(connection, RUN, "one", range(2))
    assert sum(promised.values()) == expected[0].events + expected[1].events


@pytest.mark.parametrize("ask", [catalog.chunks, catalog.promised])
def test_a_layout_that_was_never_made_is_unknown(tmp_path: Path, ask: object) -> None:
    store = open_database(tmp_path / "t.db")
    store.create(catalog_metadata)
    assert callable(ask)
    with store.read() as connection, pytest.raises(catalog.UnknownLayout, match="run 7 was never cut as x"):
        ask(connection, RUN, "x", range(1))


def test_layout_streams_many_units_in_bounded_statements(tmp_path: Path) -> None:
    store = open_database(tmp_path / "t.db")
    store.create(catalog_metadata)
    many = 5 * catalog.PAGE // 2
    register(store, index("a", {lumi: (lumi, lumi + 1) for lumi in range(many)}))
    largest: list[int] = []

    def watch(*call: object) -> None:
        if call[5]:
            largest.append(len(call[3]))  # type: ignore[arg-type]

    sa.event.listen(store.engine, "before_cursor_execute", watch)
    with store.begin() as connection:
        pieces = catalog.pieces_of(connection, RUN)
        saved = catalog.save_layout(connection, RUN, "one", split(pieces, Limits(1, None, 1)))
    assert saved.chunks == many
    assert max(largest) == catalog.PAGE
    with store.read() as connection:
        page = catalog.chunks(connection, RUN, "one", range(2000, 2002))
        assert page == [Chunk(RUN, at, (Piece("a", at, at + 1, unit(at)),)) for at in (2000, 2001)]
        some = [piece.start for piece in catalog.pieces_of(connection, RUN, [unit(lumi) for lumi in range(many)])]
        assert some == list(range(many))
