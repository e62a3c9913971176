"""What a worker does with a chunk, and what it says of what it could not do."""

import errno
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calib.iov import RunLumi
from calib.payload import open_store
from jobs.reduction import Node
from jobs.retry import Cause, Failure, GiveUp, Limits, classify, decide
from pipeline.columns import join
from pipeline.events import read_header, read_tier
from pipeline.experiments.interface import Processed, Wanted
from pipeline.indexing import index_file
from pipeline.model import Chunk, Piece, Step
from pipeline.processing import ChunkWork, OutOfReach, Segment, StateTooLarge
from pipeline.settings import settings_from
from tests.pipeline.test_bad_cuts import damage, write_baskets
from tests.pipeline.tiny import Offset, Tiny, write_file, write_units
from tests.pipeline.tiny import settings as tier0_settings

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
    assert receipt.note["unread"] == {str(gone): "gone"}


class Locked(Tiny):
    """May not read file b."""

    def identify(self, source, start, stop):
        if source.path.name == "b.root":
            raise PermissionError(errno.EACCES, "Permission denied", str(source.path))
        return super().identify(source, start, stop)


def test_a_file_that_may_not_be_read_leaves_the_others_of_its_chunk_good(tmp_path):
    here, locked = write_file(tmp_path / "a.root", RUN), write_units(tmp_path / "b.root", RUN, [5, 6], first_event=90)
    receipt, _ = work_on(tmp_path, Locked()).leaf(chunk_of(here, locked), "1")
    assert bad_of(receipt) == {5: 5, 6: 5}
    assert receipt.note["setbacks"] == [f"[Errno 13] Permission denied: '{locked}'"]


def test_trouble_of_the_system_is_not_that_of_one_file(tmp_path):
    class Stale(Tiny):
        def identify(self, source, start, stop):
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output") as problem:
        work_on(tmp_path, Stale()).leaf(chunk_of(write_file(tmp_path / "a.root", RUN)), "1")
    assert classify(problem.value) is Cause.PASSING


def bad_of(receipt) -> dict[int, int]:
    """Bad events by lumisection."""
    return {RunLumi.unpack(unit).lumi: bad for unit, *_, bad in receipt.note["counts"] if bad}


@pytest.fixture(scope="module")
def damaged(tmp_path_factory) -> list[Piece]:
    """24 events in baskets of 3, two in each unit, of which 2 baskets are damaged and 2 events are no longer there."""
    path = tmp_path_factory.mktemp("damaged") / "a.root"
    pieces = index_file(Tiny(), write_baskets(path, range(1, 13), first_event=1)).pieces
    # The same with the last event but two now in another unit.
    write_baskets(path, [*range(1, 11), 13, 12], first_event=1)
    for basket in (1, 5):
        damage(path, "hit", basket)
    return list(pieces)


@settings(max_examples=settings().max_examples // 10)
@given(cuts=st.sets(st.integers(1, 23)))
def test_what_cannot_be_read_does_not_depend_on_the_chunk(tmp_path_factory, damaged, cuts):
    folder = tmp_path_factory.mktemp("cuts")
    work = work_on(folder, step=Step.EXPRESS)
    bad: dict[int, int] = {}
    events: list[int] = []
    for index, (first, last) in enumerate(zip([0, *sorted(cuts)], [*sorted(cuts), 24], strict=True)):
        ranges = [(max(p.start, first), min(p.stop, last), p) for p in damaged]
        pieces = tuple(Piece(p.path, start, stop, p.unit) for start, stop, p in ranges if start < stop)
        receipt, _ = work.leaf(Chunk(RUN, index, pieces), "1")
        for lumi, number in bad_of(receipt).items():
            bad[lumi] = bad.get(lumi, 0) + number
        events += [n for file in receipt.files for n in read_tier(file.path)["event"].tolist()]
    # Baskets 1 and 5 hold events 4 to 6 and 16 to 18; events 21 and 22 are of unit 13 now.
    assert bad == {2: 1, 3: 2, 8: 1, 9: 2, 11: 2}
    no_hit = {n for n in range(1, 25) if (n - 1) % 7 == 3}
    assert sorted(events) == [n for n in range(1, 25) if n not in {4, 5, 6, 16, 17, 18, 21, 22} | no_hit]


class More(Tiny):
    """Writes a second tier of the files that have a column more."""

    def wanted(self, step, branches):
        return Wanted(("hit", *({"extra"} & branches)), {} if "extra" in branches else {"extra": "it has none"})

    def process(self, step, events, conditions):
        done = super().process(step, events, conditions)
        if "extra" not in events:
            return done
        return Processed(
            {**done.tiers, "MORE": {"extra": events["extra"][~done.filtered["no hit"]]}}, done.measured, done.filtered
        )


def test_files_that_differ_in_their_columns_are_processed_apart(tmp_path):
    """Every output names what its own files lack; a tier that only some of them give is written all the same."""
    plain = write_units(tmp_path / "a.root", RUN, [1, 2])
    more = write_file(tmp_path / "b.root", RUN, 2, lumi=np.repeat([2, 3], 5), extra=np.arange(10.0))
    float32 = write_file(
        tmp_path / "c.root", RUN, 1, lumi=np.full(5, 4, np.uint32), extra=np.arange(5, dtype=np.float32)
    )
    receipt, _ = work_on(tmp_path, More()).leaf(chunk_of(plain, more, float32), "1")
    found = {}
    for written in receipt.note["tiers"]:
        path = receipt.files[written["file"]].path
        columns = read_tier(path)
        assert len(columns["event"]) == written["events"]
        extra = str(columns["extra"].dtype) if "extra" in columns else ""
        key = (written["tier"], extra, tuple(read_header(path)["absent"]))
        assert key not in found
        found[key] = sorted(set(columns["lumi"].tolist()))
    assert found == {
        ("PROMPT", "", ("extra",)): [1, 2],
        ("PROMPT", "", ()): [2, 3, 4],
        ("MORE", "float64", ()): [2, 3],
        ("MORE", "float32", ()): [4],
    }


def test_a_state_that_is_too_large_is_refused_with_what_to_do(tmp_path):
    work = work_on(tmp_path, step=Step.EXPRESS)
    _, states = work.leaf(chunk_of(write_file(tmp_path / "a.root", RUN, lumis=10)), "1")
    size = states["offset"].nbytes
    assert size == 10 * 3 * 8
    assert states["quality"].nbytes > size
    small = {"offset": states["offset"]}
    receipt = replace(work, largest_state=size).store(small, Node("job", 1, 0), "1")
    assert receipt.note == {"states": {"offset": (size, 10)}}
    with pytest.raises(StateTooLarge) as refusal:
        replace(work, largest_state=size - 1).store(small, Node("job", 1, 0), "1")
    rate = "the state of 'offset' has 240 bytes (10 units x 24 bytes), at most 239 are allowed"
    assert str(refusal.value).startswith(rate)
    assert "set `largest_state` of [express] to 240 or more" in str(refusal.value)
    assert isinstance(decide(Failure(classify(refusal.value), ""), [], Limits()), GiveUp)
    assert work.largest_state == settings_from(tier0_settings(tmp_path)).express.largest_state == 10**9


def test_a_pass_for_states_alone_fills_no_quality_histograms(tmp_path):
    work, chunk = work_on(tmp_path, quality=False), chunk_of(write_file(tmp_path / "a.root", RUN))
    _, states = work.leaf(chunk, "1")
    assert list(states) == list(work.absent(chunk, "lost")[1]) == ["offset"]
    kept = work.store(work.merge([states, work.absent(chunk, "lost")[1]]), Node("job", 1, 0), "1")
    assert list(work.load(kept)) == ["offset"]


def test_parts_with_other_columns_are_not_joined():
    with pytest.raises(ValueError, match="only some parts have extra"):
        join([{"event": np.zeros(1)}, {"event": np.zeros(1), "extra": np.zeros(1)}])
