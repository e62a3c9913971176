"""Files taken in: what each holds, second copies, and what cannot be used while the rest goes on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import uproot
from hypothesis import given, settings
from hypothesis import strategies as st

from calib.calibration import Calibration
from calib.iov import RunLumi
from calib.payload import Payload
from jobs.retry import Cause, classify
from pipeline import catalog, indexing, ingest, journal
from pipeline.catalog import FileState, Registered
from pipeline.database import Database, open_database
from pipeline.events import BadFile, VanishedFile
from pipeline.experiments.interface import Experiment, MissingBranch, Processed, Wanted
from pipeline.indexing import index_file
from pipeline.ingest import REGISTERED, Ingested, batches_of, holes
from pipeline.model import Columns, EventSource, Keys, Piece, Step, Stream
from pipeline.schema import catalog_metadata

RUN = 190456


class Plain(Experiment):
    """Reads files with run, lumi and event, and does nothing with them."""

    name = "plain"
    unit_name = "spill"
    tree = "Events"
    versions: ClassVar[dict[Step, int]] = dict.fromkeys(Step, 1)

    def identify(self, source: EventSource, start: int, stop: int) -> Keys:
        read = source.arrays(self.tree, ("run", "lumi", "event"), start, stop)
        return Keys(read["run"], read["lumi"], read["event"])

    def wanted(self, step: Step, branches: frozenset[str]) -> Wanted:
        return Wanted(())

    def process(self, step: Step, events: Columns, conditions: Any) -> Processed:
        return Processed({}, {})

    def calibrations(self) -> tuple[Calibration, ...]:
        return ()

    def initial_conditions(self) -> dict[str, Payload]:
        return {}


PLAIN = Plain()
Key = tuple[int, int, int]


def write(path: Path, keys: list[Key], extra: int = 0) -> str:
    """A file of these events (run, lumi, event)."""
    table = np.array(keys, np.int64).reshape(-1, 3)
    columns = {name: table[:, at] for at, name in enumerate(("run", "lumi", "event"))}
    if extra:
        columns["extra"] = np.full(len(table), extra)
    with uproot.recreate(path) as file:
        file.mktree("Events", {name: values.dtype for name, values in columns.items()})
        if len(table):
            file["Events"].extend(columns)
    return str(path)


def events(lumi: int, numbers: range | list[int], run: int = RUN) -> list[Key]:
    return [(run, lumi, number) for number in numbers]


@pytest.fixture
def database(tmp_path: Path) -> Database:
    found = open_database(tmp_path / "db" / "t.db")
    found.create(catalog_metadata)
    return found


def take_in(database: Database, *paths: str | Path, now: float = 1.0, experiment: Experiment = PLAIN) -> Ingested:
    return ingest.ingest(database.begin, experiment, paths, now)


def registered(database: Database, run: int = RUN) -> dict[int, int]:
    with database.read() as connection:
        units, counts = catalog.units(connection, run)
    return {RunLumi.unpack(unit).lumi: count for unit, count in zip(units.tolist(), counts.tolist(), strict=True)}


def setbacks(database: Database) -> dict[tuple[str, str, int | None], str]:
    with database.read() as connection:
        return {(s.kind, Path(s.place).name, s.run): s.reason for s in journal.list_setbacks(connection)}


# one file


def test_pieces_are_stretches_of_one_unit(tmp_path: Path) -> None:
    path = write(tmp_path / "a.root", events(3, range(4)) + events(1, range(2)) + events(3, [9]))
    index = index_file(PLAIN, path)
    found = [(piece.start, piece.stop, RunLumi.unpack(piece.unit).lumi) for piece in index.pieces]
    assert found == [(0, 4, 3), (4, 6, 1), (6, 7, 3)]
    assert (index.entries, index.events, index.duplicates) == (7, 7, ())
    status = os.stat(path)
    assert (index.size, index.modified_ns) == (status.st_size, status.st_mtime_ns)


def test_event_numbers_count_within_their_unit_only(tmp_path: Path) -> None:
    path = write(tmp_path / "a.root", events(1, [5]) + events(2, [5]) + events(1, [5], run=RUN + 1))
    assert index_file(PLAIN, path).events == 3


def test_a_second_copy_in_the_file_is_left_out_and_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.root", events(1, [1, 2, 1, 3, 3]))
    index = index_file(PLAIN, path)
    assert [(piece.start, piece.stop) for piece in index.pieces] == [(0, 2), (3, 4)]
    left_out = [(bad.entry, bad.event, bad.reason, bad.first_in) for bad in index.duplicates]
    assert left_out == [(2, 1, "second copy of the event", path), (4, 3, "second copy of the event", path)]


@given(st.lists(st.tuples(st.just(RUN), st.integers(0, 3), st.integers(0, 6)), max_size=30))
def test_every_event_takes_part_just_once(tmp_path_factory: pytest.TempPathFactory, keys: list[Key]) -> None:
    folder = tmp_path_factory.mktemp("index")
    index = index_file(PLAIN, write(folder / "a.root", keys))
    taking_part = [entry for piece in index.pieces for entry in range(piece.start, piece.stop)]
    assert sorted(taking_part) == [at for at, key in enumerate(keys) if key not in keys[:at]]
    assert sorted([*taking_part, *(bad.entry for bad in index.duplicates)]) == list(range(len(keys)))
    for piece in index.pieces:
        assert {keys[entry][1] for entry in range(piece.start, piece.stop)} == {RunLumi.unpack(piece.unit).lumi}
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("key", "word"), [((-1, 1, 1), "run -1, spill 1"), ((1 << 31, 1, 1), "run 2147483648"), ((5, -2, 1), "spill -2")]
)
def test_units_that_cannot_be_are_bad_data(tmp_path: Path, key: Key, word: str) -> None:
    path = write(tmp_path / "a.root", [*events(1, range(3)), key])
    with pytest.raises(BadFile, match=f"entry 3 is of .*{word}.* which cannot be") as problem:
        index_file(PLAIN, path)
    assert classify(problem.value) is Cause.BAD_DATA


def test_files_of_another_kind_say_what_they_lack(tmp_path: Path) -> None:
    with uproot.recreate(tmp_path / "a.root") as file:
        file["Events"] = {"run": np.zeros(3, np.int64)}
    with pytest.raises(MissingBranch, match="no column 'lumi'"):
        index_file(PLAIN, tmp_path / "a.root")
    with pytest.raises(VanishedFile):
        index_file(PLAIN, tmp_path / "none.root")


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = Path(write(tmp_path / "a.root", events(1, range(3))))

    class Growing(Plain):
        def identify(self, source: EventSource, start: int, stop: int) -> Keys:
            with path.open("ab") as file:
                file.write(b"more")
            return super().identify(source, start, stop)

    with pytest.raises(BadFile, match="changed while it was read; register it again when it is complete"):
        index_file(Growing(), path)


def test_large_files_are_identified_in_steps(tmp_path: Path) -> None:
    asked: list[tuple[int, int]] = []

    class Counting(Plain):
        def identify(self, source: EventSource, start: int, stop: int) -> Keys:
            asked.append((start, stop))
            return super().identify(source, start, stop)

    count = 2 * indexing.STEP + 5
    keys = np.stack([np.full(count, RUN), np.full(count, 1), np.arange(count)], axis=1)
    assert index_file(Counting(), write(tmp_path / "a.root", keys)).events == count  # type: ignore[arg-type]
    assert asked == [(0, indexing.STEP), (indexing.STEP, 2 * indexing.STEP), (2 * indexing.STEP, count)]


# several files


def test_files_of_one_unit_add_up(database: Database, tmp_path: Path) -> None:
    a = write(tmp_path / "a.root", events(1, range(5)) + events(2, range(5)))
    b = write(tmp_path / "b.root", events(2, range(5, 8)))
    done = take_in(database, a, b)
    assert done.became == {a: Registered.NEW, b: Registered.NEW}
    assert registered(database) == {1: 5, 2: 8}
    assert setbacks(database) == {}


def test_what_is_registered_is_not_opened_again(database: Database, tmp_path: Path) -> None:
    a = Path(write(tmp_path / "a.root", events(1, range(5))))
    take_in(database, a)
    status = a.stat()
    a.write_bytes(b"x" * status.st_size)
    os.utime(a, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert take_in(database, a).became == {str(a): Registered.SAME}
    assert registered(database) == {1: 5}


def test_a_new_time_stamp_alone_changes_nothing(database: Database, tmp_path: Path) -> None:
    a = write(tmp_path / "a.root", events(1, range(5)))
    take_in(database, a)
    os.utime(a, ns=(1, 1))
    assert take_in(database, a).became == {a: Registered.SAME}
    with database.read() as connection:
        version = catalog.find_file(connection, a)
    assert version is not None and version.modified_ns == 1


def test_names_are_paths_whatever_the_folder_one_is_in(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = write(tmp_path / "a.root", events(1, range(5)))
    monkeypatch.chdir(tmp_path)
    assert list(take_in(database, "a.root", a).became) == [a]
    assert registered(database) == {1: 5}


def test_second_copies_in_other_files_are_left_out_and_named(database: Database, tmp_path: Path) -> None:
    a = write(tmp_path / "a.root", events(1, range(5)) + events(2, range(3)))
    b = write(tmp_path / "b.root", events(1, [3, 4, 5, 6]) + events(3, [1]))
    done = take_in(database, a, b)
    assert done.duplicates == {b: 2}
    assert registered(database) == {1: 7, 2: 3, 3: 1}
    reason = setbacks(database)["duplicates", "b.root", RUN]
    assert reason == f"left out 2 x second copy of the event, first spill 1, event 3, also in {a}"
    with database.read() as connection:
        found = list(catalog.duplicates_of(connection, RUN))
    assert [(bad.path, bad.entry, bad.event, bad.first_in) for bad in found] == [(b, 0, 3, a), (b, 1, 4, a)]


@settings(max_examples=settings().max_examples // 4)
@given(
    st.lists(
        st.lists(st.tuples(st.just(RUN), st.integers(0, 2), st.integers(0, 8)), max_size=12), min_size=1, max_size=4
    )
)
def test_every_event_of_a_run_takes_part_just_once(
    tmp_path_factory: pytest.TempPathFactory, contents: list[list[Key]]
) -> None:
    folder = tmp_path_factory.mktemp("many")
    database = open_database(folder / "t.db")
    database.create(catalog_metadata)
    paths = [write(folder / f"{at}.root", keys, extra=at + 1) for at, keys in enumerate(contents)]
    done = take_in(database, *paths)
    assert done.invalid == {}
    expected: dict[int, int] = {}
    for _, lumi, _ in {key for keys in contents for key in keys}:
        expected[lumi] = expected.get(lumi, 0) + 1
    assert registered(database) == dict(sorted(expected.items()))
    database.close()
    shutil.rmtree(folder)


def test_a_copy_of_a_whole_file_is_set_aside(database: Database, tmp_path: Path) -> None:
    a = write(tmp_path / "a.root", events(1, range(5)))
    b = str(shutil.copy(a, tmp_path / "b.root"))
    done = take_in(database, a, b)
    assert done.invalid == {b: f"{b} has the same content as {a}, which is registered; leave one of them out"}
    assert registered(database) == {1: 5}


def test_a_file_that_was_moved_keeps_its_events(database: Database, tmp_path: Path) -> None:
    a = write(tmp_path / "a.root", events(1, range(5)))
    take_in(database, a)
    with database.read() as connection:
        before = catalog.inputs(connection, RUN)
    b = str(shutil.move(a, tmp_path / "b.root"))
    done = take_in(database, b)
    assert done.became == {b: Registered.NEW}
    assert registered(database) == {1: 5}
    assert "a.root is not there" in setbacks(database)["file", "a.root", None]
    with database.read() as connection:
        assert catalog.inputs(connection, RUN) == before


def test_a_changed_file_gives_free_what_leaned_on_it(database: Database, tmp_path: Path) -> None:
    a = write(tmp_path / "a.root", events(1, range(5)))
    b = write(tmp_path / "b.root", events(1, [3, 4, 5]))
    take_in(database, a, b)
    assert registered(database) == {1: 6}
    write(tmp_path / "a.root", events(1, range(4)), extra=1)
    done = take_in(database, b, a)
    assert done.became == {a: Registered.CHANGED, b: Registered.CHANGED}
    # Event 4 has just one copy now, event 3 still two.
    assert registered(database) == {1: 6}
    assert done.duplicates == {b: 1}


def test_an_invalid_file_gives_free_what_leaned_on_it(database: Database, tmp_path: Path) -> None:
    a = write(tmp_path / "a.root", events(1, range(5)))
    b = write(tmp_path / "b.root", events(1, [3, 4, 5]))
    take_in(database, a, b)
    Path(a).write_bytes(Path(a).read_bytes()[:300])
    done = take_in(database, a)
    assert list(done.invalid) == [a]
    assert done.became == {b: Registered.CHANGED}
    assert registered(database) == {1: 3}
    assert list(setbacks(database)) == [("file", "a.root", None)]


def test_a_vanished_file_is_found_out_when_it_is_compared(database: Database, tmp_path: Path) -> None:
    a = write(tmp_path / "a.root", events(1, range(5)))
    take_in(database, a)
    os.unlink(a)
    b = write(tmp_path / "b.root", events(1, [3, 4, 5]))
    done = take_in(database, b)
    assert done.became == {b: Registered.NEW}
    assert "is not there" in done.invalid[a]
    assert registered(database) == {1: 3}


def test_shares_are_of_whole_units_and_in_the_order_of_the_files() -> None:
    def piece(path: str, unit: int, events: int) -> Piece:
        return Piece(path, 0, events, unit)

    pieces = {
        1: [(REGISTERED, piece("z", 1, 4)), (1, piece("b", 1, 4))],
        2: [(0, piece("c", 2, 1)), (1, piece("b", 2, 1))],
        3: [(0, piece("c", 3, 9)), (1, piece("b", 3, 9))],
    }
    found = [[(s.path, s.is_new, [p.unit for p in s.pieces]) for s in batch] for batch in batches_of(pieces, 10)]
    assert found == [
        [("z", False, [1]), ("c", True, [2]), ("b", True, [1, 2])],
        [("c", True, [3]), ("b", True, [3])],
    ]


# what cannot be used


def spoiled(folder: Path) -> Iterator[tuple[Path, str]]:
    """Files that cannot be used, and the word for each."""
    sound = Path(write(folder / "sound.root", events(9, range(1000)))).read_bytes()
    cut = folder / "cut.root"
    cut.write_bytes(sound[: len(sound) // 2])
    yield cut, "cut short"
    text = folder / "text.root"
    text.write_text("not a ROOT file\n" * 50)
    yield text, "no ROOT file"
    with uproot.recreate(folder / "tree.root") as file:
        file["Other"] = {"x": np.zeros(1)}
    yield folder / "tree.root", "no tree 'Events': it has Other"
    with uproot.recreate(folder / "branch.root") as file:
        file["Events"] = {"run": np.zeros(1, np.int64)}
    yield folder / "branch.root", "no column 'lumi'"
    yield folder / "gone.root", "is not there"
    (folder / "folder.root").mkdir()
    yield folder / "folder.root", f"is a folder; give the files in it: {folder / 'folder.root'}/*.root"


def test_bad_files_are_set_aside_with_their_reason_and_the_rest_goes_on(database: Database, tmp_path: Path) -> None:
    bad = dict(spoiled(tmp_path))
    good = [write(tmp_path / f"{name}.root", events(lumi, range(5))) for lumi, name in enumerate("ab")]
    done = take_in(database, good[0], *bad, good[1])
    assert done.became == dict.fromkeys(good, Registered.NEW)
    assert registered(database) == {0: 5, 1: 5}
    found = setbacks(database)
    assert set(done.invalid) == set(map(str, bad))
    for path, word in bad.items():
        assert word in done.invalid[str(path)]
        assert word in found["file", path.name, None]
    with database.read() as connection:
        assert {file.path for file in catalog.list_files(connection, FileState.INVALID)} == set(map(str, bad))


class Demanding(Plain):
    """Wants a column of its own for each step; files named so are of the express stream."""

    def __init__(self, express: str, prompt: str) -> None:
        super().__init__()
        self.columns = {Step.EXPRESS: express, Step.PROMPT: prompt}

    def stream(self, path: Path) -> Stream:
        return Stream.EXPRESS if path.stem == "express" else Stream.PHYSICS

    def wanted(self, step: Step, branches: frozenset[str]) -> Wanted:
        if self.columns[step] not in branches:
            raise MissingBranch(f"no {self.columns[step]} for {step.value}")
        return Wanted((self.columns[step],))


def test_what_no_step_can_use_does_not_stand_in_the_way_of_a_copy_that_can_be_used(
    database: Database, tmp_path: Path
) -> None:
    bad = write(tmp_path / "bad.root", events(1, range(5)))
    good = write(tmp_path / "good.root", events(1, range(5)), extra=1)
    experiment = Demanding("extra", "extra")
    word = f"{bad}: no extra for express; no extra for prompt; give a copy that has it, or leave the file out"
    assert take_in(database, bad, experiment=experiment).invalid == {bad: word}
    assert setbacks(database) == {("file", "bad.root", None): word}
    done = take_in(database, good, experiment=experiment)
    assert (done.became, done.duplicates) == ({good: Registered.NEW}, {})
    assert registered(database) == {1: 5}
    # An experiment that can do without takes the same file in.
    assert take_in(database, bad).duplicates == {bad: 5}


def test_what_one_step_of_its_stream_can_use_is_taken_in(database: Database, tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{name}.root", events(at, range(5))) for at, name in enumerate(("express", "physics"))]
    for experiment in (Demanding("run", "extra"), Demanding("extra", "run")):
        assert take_in(database, paths[1], experiment=experiment).invalid == {}
    assert "no extra for express; give" in take_in(database, paths[0], experiment=experiment).invalid[paths[0]]
    empty = write(tmp_path / "empty.root", [])
    assert take_in(database, empty, experiment=Demanding("extra", "extra")).empty == {empty}


def test_doing_it_again_repeats_no_setback(database: Database, tmp_path: Path) -> None:
    bad = [path for path, _ in spoiled(tmp_path)]
    take_in(database, *bad, now=1.0)
    take_in(database, *bad, now=2.0)
    assert len(setbacks(database)) == len(bad)
    with database.read() as connection:
        assert len(catalog.list_files(connection)) == len(bad)


def test_a_file_that_is_mended_is_taken_in_and_its_setback_resolved(database: Database, tmp_path: Path) -> None:
    a = tmp_path / "a.root"
    a.write_bytes(b"broken")
    take_in(database, a)
    write(a, events(1, range(5)))
    done = take_in(database, a, now=2.0)
    assert (done.became, done.invalid) == ({str(a): Registered.CHANGED}, {})
    assert registered(database) == {1: 5}
    assert setbacks(database) == {}
    with database.read() as connection:
        assert [s.resolved for s in journal.list_setbacks(connection, resolved=True)] == [2.0]


def test_a_file_without_events_is_registered_with_a_word(database: Database, tmp_path: Path) -> None:
    a = write(tmp_path / "a.root", [])
    done = take_in(database, a)
    assert (done.became, done.empty) == ({a: Registered.NEW}, {a})
    assert setbacks(database)["file", "a.root", None].startswith("holds no event (tree 'Events' has 0 entries)")
    with database.read() as connection:
        assert catalog.runs(connection) == []


# holes


def test_holes_are_between_the_first_and_the_last_of_each_run() -> None:
    units = [RunLumi(5, lumi).packed for lumi in (9, 3, 4, 7)] + [RunLumi(6, 1).packed, RunLumi(8, 2).packed]
    assert holes(units) == {5: [(5, 6), (8, 8)]}
    assert holes([]) == {}


@given(st.sets(st.integers(0, 60), min_size=1))
def test_holes_and_units_fill_the_run(lumis: set[int]) -> None:
    found = holes([RunLumi(5, lumi).packed for lumi in lumis]).get(5, [])
    missing = {lumi for first, last in found for lumi in range(first, last + 1)}
    assert missing | lumis == set(range(min(lumis), max(lumis) + 1))
    assert not missing & lumis
