"""What a worker does with a chunk, and what it says of what it could not do."""

from pathlib import Path

import pytest

from calib.iov import RunLumi
from calib.payload import open_store
from jobs.retry import Cause, classify
from pipeline.ingest import index_file
from pipeline.model import Chunk, Step
from pipeline.processing import ChunkWork, OutOfReach, Segment
from tests.pipeline.tiny import Offset, Tiny, write_file, write_units

RUN = 7


def work_on(folder: Path, experiment=None, step: Step = Step.PROMPT, **more) -> ChunkWork:
    """A step over run 7 under the payload Tiny starts from, which is stored."""
    experiment = experiment or Tiny()
    payload = experiment.initial_conditions()["offset"]
    open_store(folder / "conditions").put(payload)
    given = {
        "experiment": experiment,
        "step": step,
        "calibrations": (Offset(),),
        "segments": (Segment(RunLumi(RUN).packed, {"offset": payload.id}),),
        "conditions_root": str(folder / "conditions"),
        "folder": str(folder / "out"),
        "header": {"name": "test"},
    }
    return ChunkWork(**(given | more))


def chunk_of(*paths: Path, index: int = 0) -> Chunk:
    """All of these files as one chunk."""
    pieces = [piece for path in paths for piece in index_file(Tiny(), path).pieces]
    return Chunk(RUN, index, tuple(sorted(pieces, key=lambda piece: (piece.unit, piece.path, piece.start))))


class Calling(Tiny):
    """It looks for a program that is not there."""

    def process(self, step, events, conditions):
        Path("/nowhere/program").read_bytes()


def test_what_else_is_not_there_is_not_the_fault_of_the_events(tmp_path):
    chunk = chunk_of(write_file(tmp_path / "a.root", RUN))
    with pytest.raises(OutOfReach, match="/nowhere/program") as problem:
        work_on(tmp_path, Calling()).leaf(chunk, "1")
    assert classify(problem.value) is Cause.PASSING


def test_events_of_a_file_that_is_gone_are_bad_and_the_file_is_named(tmp_path):
    here, gone = write_file(tmp_path / "a.root", RUN), write_units(tmp_path / "b.root", RUN, [5, 6], first_event=90)
    chunk = chunk_of(here, gone)
    gone.unlink()
    receipt, _ = work_on(tmp_path).leaf(chunk, "1")
    assert sum(bad for *_, bad in receipt.note["counts"]) == 10
    assert receipt.note["unread"] == {str(gone): False}
