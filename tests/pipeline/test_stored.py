"""What a worker makes of a chunk of which an earlier pass has left a tier: the same as from RAW, or RAW after all."""

import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import awkward as ak
import numpy as np
import pytest

from calib.iov import RunLumi
from calib.payload import open_store
from jobs.retry import BadData
from pipeline.content import content_hash
from pipeline.events import read_header, read_tier
from pipeline.experiments.interface import Processed, Wanted
from pipeline.indexing import index_file
from pipeline.model import Chunk, Counts, Output, Step, Stored
from pipeline.processing import ChunkWork, Segment
from tests.pipeline.staged import Staged, single
from tests.pipeline.tiny import Offset, write_file, write_units

RUN = 7
BEFORE = {"scale": 1.0, "shift": 0.0, "offset": 0.0}
AFTER = BEFORE | {"shift": 0.3, "offset": 1.4}


def work_on(folder: Path, values, experiment=None, step: Step = Step.PROMPT, **more) -> ChunkWork:
    """A step over run 7; the conditions have these values, and another shift from lumisection 3 on."""
    store = open_store(folder / "conditions")

    def ids(**others):
        made = (payload(kind, value) for kind, value in (values | others).items())
        return {found.kind: store.put(found) or found.id for found in made}

    segments = (
        Segment(RunLumi(RUN).packed, ids()),
        Segment(RunLumi(RUN, 3).packed, ids(shift=values["shift"] / 2)),
    )
    given = {"experiment": experiment or Staged(), "step": step, "calibrations": (Offset(),), "segments": segments}
    given |= {"conditions_root": str(folder / "conditions"), "header": {"name": "test"}}
    return ChunkWork(**(given | {"folder": str(folder / f"{step}-{values['shift']}")} | more))


def payload(kind, value):
    if kind == "offset":
        return replace_mean(Staged().initial_conditions()[kind], value)
    return single(kind, value)


def replace_mean(found, mean):
    return type(found)(found.kind, {**found.arrays, "mean": np.float64(mean)}, found.units)


def chunk_of(*paths: Path) -> Chunk:
    pieces = [piece for path in paths for piece in index_file(Staged(), path).pieces]
    return Chunk(RUN, 0, tuple(sorted(pieces, key=lambda piece: (piece.unit, piece.path, piece.start))))


def left_of(receipt, tier: str) -> Stored:
    """What a committed leaf has left, as the catalogue gives it."""
    files = tuple(
        Output(tier, 0, file.path, file.size, file.checksum, written["events"])
        for written in receipt.note["tiers"]
        if written["tier"] == tier
        for file in [receipt.files[written["file"]]]
    )
    counts = {unit: Counts(read, out, lost, bad) for unit, read, out, lost, bad in receipt.note["counts"]}
    return Stored(tier, "earlier", files, counts)


def content(receipt):
    """All that must not depend on from where it was made."""
    hashes = {}
    for written in receipt.note["tiers"]:
        path = receipt.files[written["file"]].path
        columns = tuple(sorted(read_tier(path)))
        hashes.setdefault((written["tier"], columns, str(read_header(path)["absent"])), []).append(path)
    made = {key: content_hash(paths) for key, paths in hashes.items()}
    rows = {tier: found for tier, found in receipt.note["rows"].items() if found}
    return made, sorted(map(str, receipt.note["counts"])), rows, receipt.note["setbacks"]


def same_states(one, other) -> bool:
    return one.keys() == other.keys() and all(state.same(other[name]) for name, state in one.items())


@pytest.fixture
def chunk(tmp_path) -> Chunk:
    """Four lumisections in two files; every seventh event is without a hit."""
    return chunk_of(
        write_units(tmp_path / "a.root", RUN, [1, 2, 3]), write_units(tmp_path / "b.root", RUN, [3, 4], first_event=90)
    )


def from_both(tmp_path, chunk, experiment=None, step=Step.PROMPT, **more):
    """A chunk started from what the step left of it under other conditions, and from RAW."""
    earlier, _ = work_on(tmp_path, BEFORE, experiment, step, **more).leaf(chunk, "1")
    stored = left_of(earlier, step.value.upper())
    work = work_on(tmp_path, AFTER, experiment, step, **more)
    from_raw = work.leaf(chunk, "raw")
    for piece in chunk.pieces:
        Path(piece.path).unlink(missing_ok=True)
    return work.leaf(replace(chunk, stored=stored), "again"), from_raw


@pytest.mark.parametrize("step", Step)
def test_without_raw_the_same_is_made(tmp_path, chunk, step):
    (again, states), (raw, states_of_raw) = from_both(tmp_path, chunk, step=step)
    assert again.note["start"] == {"tier": step.value.upper(), "job": "earlier", "instead": ""}
    assert "start" not in raw.note
    assert content(again) == content(raw)
    assert same_states(states, states_of_raw)
    assert [read_header(file.path)["start"] for file in again.files] == [again.note["start"]]
    counts = [Counts(*row[1:]) for row in again.note["counts"]]
    assert sum(count.filtered["no hit"] for count in counts if count.filtered) == 3
    assert all(count.balanced for count in counts)


def test_what_is_not_express_stays_counted(tmp_path, chunk):
    (again, _), (raw, _) = from_both(tmp_path, chunk, step=Step.EXPRESS, fraction=Fraction(1, 3))
    assert content(again) == content(raw)
    assert sum(lost.get("not express", 0) for _, _, _, lost, _ in again.note["counts"]) > 10
    assert again.note["start"]["instead"] == ""


def test_a_chunk_of_which_all_was_filtered_has_nothing_to_read(tmp_path):
    none = ak.unflatten(np.zeros(0), np.zeros(5, np.int64))
    chunk = chunk_of(write_file(tmp_path / "a.root", RUN, 1, hits=False, hit=none))
    (again, states), (raw, states_of_raw) = from_both(tmp_path, chunk)
    assert again.files == ()
    assert content(again) == content(raw)
    assert same_states(states, states_of_raw)
    assert again.note["start"]["instead"] == ""


def test_a_state_can_be_made_again_where_no_tier_is_written(tmp_path, chunk):
    """Another setting of a calibration: the conditions are the same, and the files are there already."""
    work = work_on(tmp_path, BEFORE, step=Step.EXPRESS)
    stored = left_of(work.leaf(chunk, "1")[0], "EXPRESS")
    work = replace(work, calibrations=(Offset(scale=100),), tiers=())
    again, states = work.leaf(replace(chunk, stored=stored), "again")
    raw, states_of_raw = work.leaf(chunk, "raw")
    assert again.note["start"]["instead"] == ""
    assert content(again) == content(raw)
    assert again.files == ()
    assert same_states(states, states_of_raw)


class More(Staged):
    """Stores a column more of the files that have it."""

    def wanted(self, step, branches):
        return Wanted(("hit", *({"extra"} & branches)), {} if "extra" in branches else {"extra": "it has none"})

    def process(self, step, events, conditions):
        done = super().process(step, events, conditions)
        extra = {"extra": events["extra"][~done.filtered["no hit"]]} if "extra" in events else {}
        return self.with_extra(done, extra)

    def again(self, step, stored, conditions):
        extra = {"extra": stored["extra"]} if "extra" in stored else {}
        return self.with_extra(super().again(step, stored, conditions), extra)

    def with_extra(self, done, extra):
        tiers = {tier: columns | extra for tier, columns in done.tiers.items()}
        return Processed(tiers, done.measured, done.filtered)


def test_files_that_differ_in_their_columns_stay_apart(tmp_path):
    plain = write_units(tmp_path / "a.root", RUN, [1, 2])
    more = write_file(tmp_path / "b.root", RUN, 2, lumi=np.repeat([2, 3], 5), extra=np.arange(10.0))
    (again, states), (raw, states_of_raw) = from_both(tmp_path, chunk_of(plain, more), More())
    assert again.note["start"]["instead"] == ""
    assert len(content(again)[0]) == 2
    assert content(again) == content(raw)
    assert same_states(states, states_of_raw)


def gone(stored):
    Path(stored.files[0].path).unlink()
    return stored


def cut_short(stored):
    path = Path(stored.files[0].path)
    path.write_bytes(path.read_bytes()[:-1])
    return stored


def one_bit(stored):
    path = Path(stored.files[0].path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return stored


def a_folder(stored):
    path = Path(stored.files[0].path)
    path.unlink()
    path.mkdir()
    return stored


def with_bad(stored):
    unit, count = next(iter(stored.counts.items()))
    return replace(stored, counts={**stored.counts, unit: replace(count, read=count.read + 1, bad=1)})


def with_less(stored):
    return replace(stored, files=())


def with_more(stored):
    unit, count = next(iter(stored.counts.items()))
    return replace(stored, counts={**stored.counts, unit: replace(count, out=count.out - 1)})


def unknown_unit(stored):
    return replace(stored, counts=dict(list(stored.counts.items())[1:]))


def never_booked(stored):
    return replace(stored, counts={})


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (gone, "is gone"),
        (cut_short, "is not as it was written"),
        (one_bit, "is not as it was written"),
        (a_folder, "(cannot be opened|is not as it was written)"),
        (with_bad, "1 of its events were bad then"),
        (with_less, "run 7, lumisection 1: 4 events came out, its files of PROMPT have 0"),
        (with_more, "run 7, lumisection 1: 3 events came out, its files of PROMPT have 4"),
        (unknown_unit, "run 7, lumisection 1: 0 events came out, its files of PROMPT have 4"),
        (never_booked, "nothing was booked of it"),
    ],
)
def test_what_is_not_as_it_was_left_is_read_from_raw(tmp_path, chunk, fault, words):
    earlier, _ = work_on(tmp_path, BEFORE).leaf(chunk, "1")
    stored = fault(left_of(earlier, "PROMPT"))
    log = tmp_path / "log"
    work = work_on(tmp_path, AFTER, Staged(log=log))
    again, states = work.leaf(replace(chunk, stored=stored), "again")
    raw, states_of_raw = work.leaf(chunk, "raw")
    assert re.search(words, again.note["start"]["instead"])
    assert "RAW a.root" in log.read_text()
    assert content(again) == content(raw)
    assert same_states(states, states_of_raw)


class Refusing(Staged):
    """Cannot do with what is stored."""

    def again(self, step, stored, conditions):
        raise BadData("a column is missing")


def test_what_the_experiment_refuses_is_read_from_raw(tmp_path, chunk):
    earlier, _ = work_on(tmp_path, BEFORE).leaf(chunk, "1")
    work = work_on(tmp_path, AFTER, Refusing())
    again, _ = work.leaf(replace(chunk, stored=left_of(earlier, "PROMPT")), "again")
    assert again.note["start"]["instead"] == "a column is missing"
    assert content(again) == content(work.leaf(chunk, "raw")[0])
