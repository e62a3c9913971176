"""Files are indexed and compared on the workers, some at a time; a file that kills its worker harms no other."""

import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from distributed import Client, get_worker

from jobs.runner import SchedulerLost
from pipeline import catalog
from pipeline.database import open_database
from pipeline.ingest import ingest
from pipeline.journal import list_setbacks
from pipeline.schema import catalog_metadata
from pipeline.spread import Lost, OnWorkers, in_turn
from tests.pipeline.tiny import Tiny, write_file


class Counting(Tiny):
    """Writes down in which process it identifies how many entries of which file."""

    def __init__(self, log: Path) -> None:
        super().__init__()
        self.log = log

    def identify(self, source, start, stop):
        with self.log.open("a") as log:
            log.write(f"{os.getpid()} {source.path.name} {stop - start}\n")
        return super().identify(source, start, stop)


def opened(folder: Path):
    folder.mkdir(parents=True, exist_ok=True)
    database = open_database(folder / "t.db")
    database.create(catalog_metadata)
    return database


def written(folder: Path, files: int, *, apart: bool, events: int = 12) -> list[Path]:
    """Files that all have events of lumisections 1 to 4, in turn or one after the other; each has one event of the file
    before it too."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for place in range(files):
        numbers = np.arange(events) + place * events if apart else np.arange(events) * files + place
        if place:
            numbers = np.append(numbers, numbers[0] - 1)
        lumis = numbers % 4 + 1
        order = np.lexsort((numbers, lumis))
        more = {"lumi": lumis[order].astype(np.uint32), "event": (numbers[order] + 1).astype(np.uint64)}
        found.append(write_file(folder / f"{place:02}.root", 7, 1, len(numbers), **more))
    return found


def taken_in(folder: Path, experiment, paths, spread=in_turn):
    """What became of the files, and all that the catalogue has of them."""
    database = opened(folder)
    done = ingest(database.begin, experiment, paths, 1.0, spread)
    with database.read() as connection:
        kept = list(catalog.pieces_of(connection, 7)), list(catalog.duplicates_of(connection, 7))
        setbacks = [(found.kind, found.place, found.reason) for found in list_setbacks(connection)]
    database.close()
    return done, kept, setbacks


@pytest.mark.parametrize("apart", [False, True])
def test_keys_are_read_twice_at_most_however_many_files_share_their_units(tmp_path, apart):
    paths = written(tmp_path / "in", 10, apart=apart)
    done, (pieces, copies), _ = taken_in(tmp_path, Counting(tmp_path / "log"), paths)
    assert sum(piece.events for piece in pieces) == 120
    assert {Path(bad.path).name for bad in copies} == {f"{place:02}.root" for place in range(1, 10)}
    assert [(int(Path(bad.path).stem) - int(Path(bad.first_in).stem)) for bad in copies] == [1] * 9
    assert done.duplicates == {str(path): 1 for path in paths[1:]}
    read: Counter[str] = Counter()
    for line in (tmp_path / "log").read_text().splitlines():
        _, name, entries = line.split()
        read[name] += int(entries)
    assert max(read[name] for name in read) <= 2 * 13


def test_units_whose_event_numbers_lie_apart_are_not_compared(tmp_path):
    paths = [
        write_file(tmp_path / f"{place}.root", 7, 4, 5, event=np.arange(20, dtype=np.uint64) + 100 * place)
        for place in range(5)
    ]
    done, (pieces, _), _ = taken_in(tmp_path / "db", Counting(tmp_path / "log"), paths)
    assert (len(done.became), sum(piece.events for piece in pieces)) == (5, 100)
    assert len((tmp_path / "log").read_text().splitlines()) == 5


def test_workers_index_and_the_driver_only_registers(crew, tmp_path):
    paths = written(tmp_path / "in", 6, apart=False)
    paths[3].write_text("not a ROOT file")
    paths.append(tmp_path / "none.root")
    here = taken_in(tmp_path / "here", Tiny(), paths)
    there = taken_in(tmp_path / "there", Counting(tmp_path / "log"), paths, OnWorkers(crew))
    assert there == here
    assert set(here[0].invalid) == {str(paths[3]), str(paths[6])}
    pids = {int(line.split()[0]) for line in (tmp_path / "log").read_text().splitlines()}
    assert pids
    assert os.getpid() not in pids


def current_key(item: str) -> tuple[str, ...]:
    return get_worker().get_current_task()


def test_tasks_are_named_for_whoever_watches(crew):
    keys = list(OnWorkers(crew)("index", current_key, ["/data/a.root", "/data/b.root"]))
    assert [(what, name) for what, _, name in keys] == [("index", "a.root"), ("index", "b.root")]


def test_no_more_is_asked_for_than_twice_the_threads(crew):
    taken = []

    def items():
        for number in range(30):
            taken.append(number)
            yield number

    for place, result in enumerate(OnWorkers(crew)("square", lambda x: x * x, items())):
        assert result == place * place
        assert len(taken) - place <= 4
    assert len(taken) == 30


def test_what_the_function_raises_is_raised(crew):
    with pytest.raises(ZeroDivisionError):
        list(OnWorkers(crew)("divide", lambda x: 1 // x, [1, 0, 1]))


def test_a_scheduler_that_is_lost_is_said(crew):
    with Client(crew.scheduler.address, set_as_default=False) as other:
        threading.Timer(0.3, other.close).start()
        with pytest.raises(SchedulerLost, match="start again"):
            list(OnWorkers(other)("sleep", time.sleep, [3.0]))


class Deadly(Tiny):
    """Reading file 02 kills the process."""

    def identify(self, source, start, stop):
        if source.path.name == "02.root":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().identify(source, start, stop)


def test_a_file_that_kills_its_worker_is_set_aside_and_the_rest_goes_on(crew, tmp_path):
    paths = written(tmp_path / "in", 4, apart=True)
    done, (pieces, _), setbacks = taken_in(tmp_path / "db", Deadly(), paths, OnWorkers(crew))
    assert done.invalid == {str(paths[2]): "its worker died 3 times while it was read"}
    assert set(done.became) == {str(paths[place]) for place in (0, 1, 3)}
    assert ("file", str(paths[2]), "its worker died 3 times while it was read") in setbacks
    assert sum(piece.events for piece in pieces) == 37


def test_what_is_lost_is_said(crew):
    found = list(OnWorkers(crew)("kill", lambda x: os.kill(os.getpid(), signal.SIGKILL) if x == 1 else x, [0, 1, 2]))
    assert found == [0, Lost("its worker died 3 times while it was read"), 2]
