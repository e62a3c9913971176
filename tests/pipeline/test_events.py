"""ROOT in and out: what is read is what is there, and what is damaged says so."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.retry import Cause, classify
from pipeline import events
from pipeline.columns import take
from pipeline.events import BadFile, SourceFile, VanishedFile, read_header, read_tier, write_tier
from pipeline.experiments.interface import MissingBranch
from pipeline.processing import nothing
from tests.pipeline.tiers import Columns, closed, some_events, write

__all__ = ["closed"]


def same(left: Any, right: Any) -> bool:
    if isinstance(left, np.ndarray) or isinstance(right, np.ndarray):
        return type(left) is type(right) and left.dtype == right.dtype and np.array_equal(left, right)
    return str(left.type) == str(right.type) and bool(ak.array_equal(left, right))


# writing and reading back


def test_a_tier_comes_back_as_it_was_written(tmp_path: Path) -> None:
    columns = some_events(50)
    size, checksum, count = write_tier(tmp_path / "new" / "t.root", columns, {"a": [1, None]}, nothing)
    path = tmp_path / "new" / "t.root"
    assert (size, count, len(checksum)) == (path.stat().st_size, 50, 64)
    found = read_tier(path)
    assert set(found) == set(columns)
    assert all(same(found[name], columns[name]) for name in columns)
    assert read_header(path) == {"a": [1, None]}
    assert [file.name for file in path.parent.iterdir()] == ["t.root"]


def test_jagged_columns_of_one_prefix_share_a_counter(tmp_path: Path) -> None:
    write(tmp_path / "t.root", some_events(5))
    with uproot.open(tmp_path / "t.root") as file:
        tree = file["Events"]
        counters = {
            branch.name: branch.count_branch.name for branch in tree.branches if branch.count_branch is not None
        }
    assert counters == {"Track_pt": "nTrack", "Track_charge": "nTrack", "Muon_z": "nMuon", "rates": "nrates"}


def test_no_event_keeps_every_type(tmp_path: Path) -> None:
    none = take(some_events(5), slice(0, 0))
    found = read_tier(write(tmp_path / "t.root", none))
    assert all(same(found[name], none[name]) for name in none)
    assert str(found["Track_charge"].type) == "0 * var * int8"


def test_a_long_header_survives(tmp_path: Path) -> None:
    text = "ä" * 100_000
    assert read_header(write(tmp_path / "t.root", some_events(1), text=text)) == {"text": text}


def test_baskets_end_with_lumisections_and_are_bounded(tmp_path: Path) -> None:
    count = 25_000
    columns = some_events(count) | {"lumi": np.repeat([1, 2, 3], [7000, 1000, 17_000])}
    write(tmp_path / "t.root", columns)
    with uproot.open(tmp_path / "t.root") as file:
        assert file["Events"]["mass"].entry_offsets == [0, 8000, 18_000, 25_000]
    wide = some_events(4) | {"matrix": np.zeros((4, events.BASKET_BYTES // 8))}
    write(tmp_path / "wide.root", wide)
    with uproot.open(tmp_path / "wide.root") as file:
        assert file["Events"]["matrix"].entry_offsets == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("more", "problem", "word"),
    [
        ({"name": ak.Array(["a", "b"])}, TypeError, "'name'"),
        ({"deep": ak.Array([[[1]], [[2]]])}, TypeError, "'deep' is 2 . var . var"),
        ({"gap": ak.Array([1, None])}, TypeError, "'gap'"),
        ({"what": np.array([1j, 2j])}, TypeError, "'what' is complex128"),
        ({"half": np.zeros(2, np.float16)}, TypeError, "'half' is float16"),
        ({"short": np.zeros(1)}, ValueError, "'short' has 1 entries for 2 events"),
        ({"T_a": ak.Array([[1], []]), "T_b": ak.Array([[1], [2]])}, ValueError, "T_a, T_b share the name T"),
        ({"T_a": ak.Array([[1], []]), "nT": np.zeros(2)}, ValueError, "'nT' has the name of the counter"),
    ],
)
def test_what_a_tier_cannot_hold_is_refused(tmp_path: Path, more: Columns, problem: type[Exception], word: str) -> None:
    with pytest.raises(problem, match=word):
        write(tmp_path / "t.root", some_events(2) | more)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("point", ["write", "rename"])
def test_an_end_at_a_kill_point_leaves_no_file(tmp_path: Path, point: str) -> None:
    def stop(reached: str) -> None:
        if reached == point:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_tier(tmp_path / "t.root", some_events(2), {}, stop)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_stays_a_full_disk(tmp_path: Path) -> None:
    def full(point: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left") as problem:
        write_tier(tmp_path / "t.root", some_events(2), {}, full)
    assert classify(problem.value) is Cause.SITE


# sources


@settings(max_examples=settings().max_examples // 2)
@given(st.data())
def test_reading_in_pieces_is_reading_at_once(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    columns = some_events(60)
    path = tmp_path_factory.mktemp("pieces") / "t.root"
    make = data.draw(st.sampled_from(["mktree", "mkrntuple"]))
    baskets = sorted(data.draw(st.sets(st.integers(1, 59), max_size=5)))
    with uproot.recreate(path) as file:
        types = {
            name: values.dtype if isinstance(values, np.ndarray) else values.type.content
            for name, values in columns.items()
            if name != "matrix"
        }
        tree = getattr(file, make)("Events", types)
        for start, stop in zip([0, *baskets], [*baskets, 60], strict=True):
            tree.extend({name: columns[name][start:stop] for name in types})
    source = SourceFile.open(path)
    ranges = st.tuples(st.integers(0, 60), st.integers(0, 60)).map(sorted)
    for start, stop in data.draw(st.lists(ranges, min_size=1, max_size=8)):
        found = source.arrays("Events", ("event", "Track_pt", "good"), start, stop)
        for name, values in found.items():
            assert same(values, columns[name][start:stop])
        jagged = found["Track_pt"]
        # Flat content and offsets can be taken as they are.
        assert len(jagged.layout.content) == int(ak.sum(ak.num(jagged)))


def test_columns_are_read_only(tmp_path: Path) -> None:
    source = SourceFile.open(write(tmp_path / "t.root", some_events(9)))
    for start, stop in [(0, 9), (0, 3), (3, 6)]:
        mass = source.arrays("Events", ("mass",), start, stop)["mass"]
        with pytest.raises(ValueError, match="read-only"):
            mass[0] = 1.0


def test_a_column_goes_by_its_full_name_or_the_last_part_of_it(data_dir: Path) -> None:
    source = SourceFile.open(data_dir / "icecube_sndaq_131738.root")
    there = source.branches("sn_all")
    assert {"sn_all_data/data", "data", "no_channels", "base_time"} <= there
    assert source.entries("sn_all") == 371
    found = source.arrays("sn_all", ("data", "no_channels", "sn_all_data/SN_Streaming_t/base_time"), 10, 12)
    assert str(found["data"].type) == "2 * var * uint16"
    assert found["no_channels"].tolist() == [5160, 5160]
    assert found["sn_all_data/SN_Streaming_t/base_time"].dtype == np.uint64


def test_names_that_are_not_clear_must_be_given_in_full(tmp_path: Path, data_dir: Path) -> None:
    class Branch:
        def __init__(self, name: str) -> None:
            self.name = name

    class Tree:
        def iteritems(self, **options: object) -> Iterator[tuple[str, Branch]]:
            for name in ("a/x", "b/x", "a/y"):
                yield name, Branch(name)

    assert sorted(events._by_name(Tree())) == ["a/x", "a/y", "b/x", "y"]


def test_real_collisions_go_through_a_tier_unchanged(tmp_path: Path, data_dir: Path) -> None:
    source = SourceFile.open(data_dir / "cms_2012_collisions.root")
    names = tuple(sorted(source.branches("Events") - {"nTrack", "nPV", "nMuon"}))
    columns = dict(source.arrays("Events", names, 0, source.entries("Events")))
    columns["lumi"] = columns.pop("luminosityBlock")
    found = read_tier(write(tmp_path / "t.root", columns))
    assert all(same(found[name], columns[name]) for name in columns)


def test_handles_are_few_and_come_back_when_needed(tmp_path: Path) -> None:
    sources = [
        SourceFile.open(write(tmp_path / f"{seed}.root", some_events(5, seed=seed)))
        for seed in range(events.HANDLES + 3)
    ]
    assert len(events._HANDLES) == events.HANDLES
    first = sources[0].arrays("Events", ("mass",), 0, 5)["mass"]
    assert same(first, some_events(5, seed=0)["mass"])
    assert len(events._HANDLES) == events.HANDLES


def test_what_is_kept_of_a_file_is_one_basket_a_column_and_goes_with_the_next_file(tmp_path: Path) -> None:
    with uproot.recreate(tmp_path / "a.root") as file:
        tree = file.mktree("Events", {"x": np.float64})
        for _ in range(10):
            tree.extend({"x": np.zeros(1000)})
    source = SourceFile.open(tmp_path / "a.root")
    source.arrays("Events", ("x",), 0, 4500)
    handle = next(iter(events._HANDLES.values()))
    assert [(first, len(kept)) for first, kept in handle.rest.values()] == [(4000, 1000)]
    SourceFile.open(write(tmp_path / "b.root", some_events(1)))
    assert handle.rest == {}


# what goes wrong


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(VanishedFile, match=r"none\.root is not there; bring it back") as problem:
        SourceFile.open(tmp_path / "none.root")
    assert classify(problem.value) is Cause.MISSING


def test_a_replaced_file_is_another_file(tmp_path: Path) -> None:
    path = write(tmp_path / "t.root", some_events(5, seed=1))
    old = SourceFile.open(path)
    write(path, some_events(6, seed=2))
    assert SourceFile.open(path).entries("Events") == 6
    # What is open goes on with what it was opened for, and is not mixed up with the other.
    assert old.entries("Events") == 5
    events._HANDLES.clear()
    with pytest.raises(VanishedFile, match="replaced by another file; register it again"):
        old.entries("Events")


def test_a_file_that_vanishes_half_way_is_read_to_its_end(tmp_path: Path) -> None:
    path = write(tmp_path / "t.root", some_events(5))
    source = SourceFile.open(path)
    path.unlink()
    assert len(source.arrays("Events", ("mass",), 0, 5)["mass"]) == 5
    with pytest.raises(VanishedFile):
        SourceFile.open(path)


@pytest.mark.parametrize("content", [b"", b"root", b"not a ROOT file at all\n" * 100, b"root" + bytes(1000)])
def test_what_is_no_root_file_is_bad_data(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.root"
    path.write_bytes(content)
    with pytest.raises(BadFile, match="damaged, cut short, or no ROOT file; fetch it again") as problem:
        SourceFile.open(path).entries("Events")
    assert str(path) in str(problem.value)
    assert classify(problem.value) is Cause.BAD_DATA


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.9, 0.9999])
def test_a_file_cut_short_is_bad_data(tmp_path: Path, share: float) -> None:
    whole_of_it = write(tmp_path / "t.root", some_events(2000)).read_bytes()
    path = tmp_path / "cut.root"
    path.write_bytes(whole_of_it[: int(share * len(whole_of_it))])
    with pytest.raises(BadFile, match="cut short"):
        read_tier(path)


def test_flipped_bits_are_bad_data_or_go_unnoticed_but_nothing_else(tmp_path: Path) -> None:
    sound = write(tmp_path / "t.root", some_events(300)).read_bytes()
    rng = np.random.default_rng(5)
    noticed = 0
    for _ in range(25):
        damaged = bytearray(sound)
        for place in rng.integers(0, len(sound), 4):
            damaged[place] ^= 1 << int(rng.integers(0, 8))
        (tmp_path / "d.root").write_bytes(damaged)
        try:
            read_tier(tmp_path / "d.root")
        except (BadFile, MissingBranch):
            noticed += 1
    assert 2 < noticed < 25


def test_trouble_of_the_system_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="stale") as problem, events._sound(tmp_path):
        raise OSError(errno.ESTALE, "stale file handle")
    assert classify(problem.value) is Cause.PASSING


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="directory") as problem:
        SourceFile.open(tmp_path)
    assert problem.value.errno == errno.EISDIR


def test_a_tree_that_is_not_there_is_named_with_those_that_are(tmp_path: Path, data_dir: Path) -> None:
    with pytest.raises(BadFile, match="no tree 'Evnts': it has Events; is it a file of this experiment"):
        SourceFile.open(data_dir / "cms_2012_collisions.root").entries("Evnts")
    with uproot.recreate(tmp_path / "t.root") as file:
        file["note"] = "hello"
    with pytest.raises(BadFile, match="it has no tree at all"):
        SourceFile.open(tmp_path / "t.root").entries("Events")
    with pytest.raises(BadFile, match="has no header 'tier0'"):
        read_header(data_dir / "cms_2012_collisions.root")


def test_a_missing_column_is_named_with_the_nearest(tmp_path: Path) -> None:
    source = SourceFile.open(write(tmp_path / "t.root", some_events(2)))
    with pytest.raises(MissingBranch, match="no column 'Track_pr'; it has 'Track_pt'") as problem:
        source.arrays("Events", ("Track_pr",), 0, 1)
    assert classify(problem.value) is Cause.BAD_DATA
    with pytest.raises(MissingBranch, match=r"no column 'zzz'$"):
        source.arrays("Events", ("zzz",), 0, 1)


@pytest.mark.parametrize(("start", "stop"), [(0, 3), (-1, 1), (2, 1)])
def test_entries_beyond_the_end_are_bad_data(tmp_path: Path, start: int, stop: int) -> None:
    source = SourceFile.open(write(tmp_path / "t.root", some_events(2)))
    with pytest.raises(BadFile, match="asked of 2; register the file again"):
        source.arrays("Events", ("mass",), start, stop)


def test_a_column_that_ends_before_its_tree_is_bad_data(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="ends early: 5 entries of 6"), events._sound(tmp_path):
        events._whole(np.zeros(5), 6)


def test_header_is_plain_json(tmp_path: Path) -> None:
    write(tmp_path / "t.root", some_events(1), b=1, a={"x": 0.5})
    with uproot.open(tmp_path / "t.root") as file:
        assert json.loads(str(file["tier0"])) == {"b": 1, "a": {"x": 0.5}}
    with pytest.raises(ValueError, match="JSON"):
        write(tmp_path / "u.root", some_events(1), bad=float("nan"))
    assert not (tmp_path / "u.root").exists()
