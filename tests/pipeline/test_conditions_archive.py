"""Exports: the same content gives the same bytes, others can read them, and what is damaged is told."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from calib.iov import Clock, RunLumi
from calib.payload import Payload, PayloadStore
from calib.tags import Sync, TagExists
from pipeline.archive import READ_ME, Span, TagContent, open_archive, write_archive
from pipeline.conditions_editor import ConditionsEditor
from pipeline.conditions_words import Refused
from pipeline.payload_files import npz_of, read_payload
from pipeline.processing import nothing
from tests.pipeline.conditions_shelf import editor, enter, offset


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Design values, two payloads of two runs, and the first again; an empty tag by time beside them."""
    found = editor(tmp_path_factory.mktemp("archive"))
    enter(found, RunLumi(7), offset(1.5), run=7, loop=True)
    enter(found, RunLumi(8, 3), offset(2.5, weights=np.arange(6.0).reshape(2, 3)))
    enter(found, RunLumi(9), offset(1.5))
    found.create_tag("empty", "offset", "time", "validation")
    return found


# --- round trips


names = st.sampled_from(["x", "mean", "file", "units", "a_error", "Größe"])
numbers = st.sampled_from([np.float64, np.float32, np.int64, np.uint8, np.bool_])
content = st.dictionaries(names, numbers.flatmap(lambda t: arrays(t, array_shapes(min_dims=0, min_side=0))), max_size=3)
payloads = st.builds(
    lambda found, unit: Payload("offset", found, dict.fromkeys(list(found)[:1], unit)),
    content,
    st.sampled_from(["", "cm"]),
)


@st.composite
def histories(draw: Any) -> tuple[TagContent, list[Payload]]:
    """A tag by any clock with gaps, the same payload more than once, and all that is said of an entry."""
    clock = draw(st.sampled_from(list(Clock)))
    moments = sorted(draw(st.sets(st.integers(0, 1 << 40), min_size=0, max_size=6)))
    edges = [m if clock is Clock.TIME else RunLumi(m >> 20, 0 if clock is Clock.RUN else m % 7) for m in moments]
    edges = sorted(set(edges))
    choice = draw(st.lists(payloads, min_size=1, max_size=3))
    made = {"author": "ann", "recorded": "2026-05-01T12:00:00+00:00", "reason": draw(st.text()), "info": {"run": 7}}
    spans = []
    for since, until in zip(edges, [*edges[1:], None][: len(edges)], strict=True):
        if draw(st.booleans()):
            spans.append(Span(since, until, draw(st.sampled_from(choice)).id, made))
    return TagContent("tag", "offset", clock, draw(st.sampled_from(list(Sync))), tuple(spans)), choice


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Another Tier-0, which knows nothing of what is brought to it."""
    return editor(tmp_path_factory.mktemp("elsewhere"))


@settings(max_examples=12, deadline=None)
@given(histories())
def test_export_import_export_gives_the_same_bytes(elsewhere: Any, given_: tuple[TagContent, list[Payload]]) -> None:
    history, choice = given_
    history = replace(history, name=f"tag{len(elsewhere.tags().splitlines())}")
    there = {payload.id: payload for payload in choice}
    with tempfile.TemporaryDirectory() as name:
        first = write_archive(Path(name) / "first.zip", [history], there.__getitem__, nothing)
        elsewhere.import_tags(first)
        second = elsewhere.export_file((), Path(name) / "second.zip", history.name)
        assert second.read_bytes() == first.read_bytes()


def test_a_folder_of_zarr_loses_nothing_either(shelf: Any, elsewhere: Any, tmp_path: Path) -> None:
    odd = offset(3.0, file=np.float32(1), units=np.zeros(0), flag=np.array([True, False]))
    shelf.create_tag("odd", "offset", "lumi", "offline")
    enter(shelf, RunLumi(5), odd, "odd")
    shelf.export((), tmp_path / "zarr", "odd", "zarr")
    elsewhere.import_tags(tmp_path / "zarr")
    files = [found.export_file((), tmp_path / f"{n}.zip", "odd") for n, found in enumerate((shelf, elsewhere))]
    assert files[0].read_bytes() == files[1].read_bytes()


@settings(max_examples=40, deadline=None)
@given(payloads)
def test_one_payload_comes_back_from_npz(payload: Payload) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "one.npz"
        if "units" in payload.arrays and payload.units:
            with pytest.raises(Refused, match="export to zarr"):
                npz_of(payload)
            return
        path.write_bytes(npz_of(payload))
        assert read_payload("offset", path).id == payload.id
        assert npz_of(payload) == path.read_bytes()


@pytest.mark.parametrize("form", ["npz", "zarr"])
def test_a_folder_is_read_back(shelf: Any, tmp_path: Path, form: Any) -> None:
    [index] = shelf.export("offset", tmp_path / "folder", form=form)
    files = {row["file"] for row in json.loads(index.read_text())["intervals"]}
    assert {file.rpartition(".")[2] for file in files} == {form} and len(files) == 3
    other = editor(tmp_path / "area")
    said = other.import_tags(tmp_path / "folder", new="elsewhere", serves="validation")
    assert said == [
        "tag elsewhere (offset, by lumi, for validation): 4 intervals, 3 payloads, [0:0, open), "
        f"imported from {tmp_path}/folder"
    ]
    assert not other.diff("elsewhere", "elsewhere").rows
    ids = [
        [i.payload.id for i in found.intervals("offset", tag)] for found, tag in ((shelf, None), (other, "elsewhere"))
    ]
    assert ids[0] == ids[1]


def test_who_made_it_travels_with_it(shelf: Any, tmp_path: Path) -> None:
    shelf.export_file("offset", tmp_path / "a.zip")
    other = editor(tmp_path / "area")
    other.import_tags(tmp_path / "a.zip", new="mine")
    other.copy("mine", "again")
    with open_archive(other.export_file((), tmp_path / "b.zip", "again")) as archive:
        made = archive.tags[0].spans[1].made
    assert made == {
        "author": "ann",
        "recorded": datetime(2026, 5, 1, 12, tzinfo=UTC).isoformat(),
        "reason": "test",
        "info": {"run": 7, "loop": True},
    }


def test_what_is_there_already_is_left_alone(shelf: Any, tmp_path: Path) -> None:
    shelf.export_file((), tmp_path / "a.zip", ["prompt", "empty"])
    other = editor(tmp_path / "area")
    with pytest.raises(TagExists, match="is there with another content; give a new name with --as"):
        other.import_tags(tmp_path / "a.zip")
    # All or none.
    assert "empty" not in other.tags()
    with pytest.raises(Refused, match="has 2 tags, so one new name will not do; choose one with --only"):
        other.import_tags(tmp_path / "a.zip", new="one")
    assert "imported from" in other.import_tags(tmp_path / "a.zip", ["offset_prompt_v1"], new="one")[0]
    shelf.export_file((), tmp_path / "b.zip", "empty")
    assert other.import_tags(tmp_path / "b.zip")[0].startswith("tag empty (offset, by time, for validation): empty")
    entries = other.history("offset", "one")
    other.export_file((), tmp_path / "c.zip", "one")
    [said] = other.import_tags(tmp_path / "c.zip")
    assert said.endswith("there already") and other.history("offset", "one") == entries
    with pytest.raises(Refused, match="has no tag two; it has one"):
        other.import_tags(tmp_path / "c.zip", ["two"])


# --- read by others


def test_a_program_without_this_one_reads_the_file(shelf: Any, tmp_path: Path) -> None:
    shelf.export_file("offset", tmp_path / "conditions.zip")
    with zipfile.ZipFile(tmp_path / "conditions.zip") as file:
        read_me = file.read("README.txt").decode()
    assert read_me == READ_ME
    code = "\n".join(
        line[4:] for line in re.findall(r"^(?: {4}.*|)$", read_me.split("index.json has:")[0], re.MULTILINE)
    )
    ask = """
    import sys
    assert holding("offset_prompt_v1", 6, 1)["mean"] == 0.0
    assert holding("offset_prompt_v1", 8, 2)["mean"] == 1.5
    assert holding("offset_prompt_v1", 8, 3)["mean"] == 2.5
    assert holding("offset_prompt_v1", 8, 3)["weights"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert index["payloads"][index["tags"][0]["intervals"][1]["payload"]]["units"] == {"mean": "cm"}
    assert not {"calib", "pipeline", "zarr", "sqlalchemy"} & set(sys.modules)
    """
    script = code + "\n".join(line[4:] for line in ask.splitlines())
    done = subprocess.run(
        [sys.executable, "-I", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_folder_too(shelf: Any, tmp_path: Path) -> None:
    [index] = shelf.export("offset", tmp_path)
    plain = json.loads(index.read_text())
    assert [row["since"] for row in plain["intervals"]] == ["0:0", "7:0", "8:3", "9:0"]
    assert [row["until"] for row in plain["intervals"]] == ["7:0", "8:3", "9:0", None]
    with np.load(tmp_path / plain["intervals"][1]["file"]) as stored:
        assert stored["mean"] == 1.5 and json.loads(str(stored["units"])) == {"mean": "cm"}


# --- what is asked wrongly, or damaged


def rewritten(path: Path, target: Path, **changed: bytes | None) -> Path:
    """The same zip file with some members changed, or left out."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = changed.get(name.rpartition("/")[2], old.read(name))
            if content is not None:
                new.writestr(name, content)
    return target


@pytest.fixture(scope="module")
def file(shelf: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found: Path = shelf.export_file("offset", tmp_path_factory.mktemp("file") / "conditions.zip")
    return found


def npy(value: float) -> bytes:
    with zipfile.ZipFile(io.BytesIO(npz_of(offset(value)))) as made:
        return made.read("mean.npy")


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"mean.npy": npy(9.0)}, "has changed since it was written; get another copy"),
        ({"mean.npy": b"nothing"}, "damaged"),
        ({"mean.npy": None}, "is missing|no item"),
        ({"index.json": b"{"}, "is no JSON"),
        ({"index.json": b"[]"}, "is no file of `tier0 conditions export`"),
        ({"index.json": b'{"format": "conditions", "version": 2}'}, "of version 2, this program reads 1"),
        ({"index.json": b'{"format": "conditions", "version": 1}'}, "'tags' is missing"),
        ({"index.json": None}, "has no index.json"),
    ],
)
def test_a_damaged_file_changes_nothing(file: Path, tmp_path: Path, changed: Any, word: str) -> None:
    other = editor(tmp_path / "area")
    with pytest.raises(Refused, match=word):
        other.import_tags(rewritten(file, tmp_path / "bad.zip", **changed), new="mine")
    assert "mine" not in other.tags()


def test_intervals_that_overlap_are_refused(file: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(file) as stored:
        index = json.loads(stored.read("index.json"))
    index["tags"][0]["intervals"][0]["until"] = "7:1"
    bad = rewritten(file, tmp_path / "bad.zip", **{"index.json": json.dumps(index).encode()})
    with pytest.raises(Refused, match="the interval from 7:0 begins before the one before it ends"), open_archive(bad):
        pass


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"nothing")
    for path, word in (("a.zip", "cannot be read as exported"), ("no.zip", "cannot be read"), (".", "has no TAG.json")):
        with pytest.raises(Refused, match=word), open_archive(tmp_path / path):
            pass


def test_a_payload_of_a_folder_is_held_to_its_id(shelf: Any, tmp_path: Path) -> None:
    [index] = shelf.export("offset", tmp_path / "f")
    row = json.loads(index.read_text())["intervals"][1]
    (tmp_path / "f" / row["file"]).write_bytes(npz_of(offset(9.0)))
    with pytest.raises(Refused, match="has changed since it was written"):
        editor(tmp_path / "area").import_tags(tmp_path / "f", new="mine")


def test_what_is_not_there_is_not_exported(shelf: Any, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="there is no kind 'ofset'"):
        shelf.export("ofset", tmp_path)
    with pytest.raises(LookupError, match="did you mean 'offset_prompt_v1'"):
        shelf.export((), tmp_path, "offset_promt_v1")
    with pytest.raises(Refused, match="empty has nothing of kind 'other'; it has offset"):
        shelf.export("other", tmp_path, "empty")
    with pytest.raises(Refused, match="tag empty is asked for twice"):
        shelf.export((), tmp_path, ["empty", "empty@1"])
    shelf.create_tag("../up", "offset")
    with pytest.raises(Refused, match="cannot be the name of a file: export it to one zip file"):
        shelf.export((), tmp_path / "folder", "../up")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("point", ["write", "rename"])
def test_a_killed_export_leaves_no_half_file(shelf: Any, tmp_path: Path, point: str) -> None:
    def stop(there: str) -> None:
        if there == point:
            raise KeyboardInterrupt(there)

    with pytest.raises(KeyboardInterrupt, match=point):
        ConditionsEditor(replace(shelf.world, probe=stop)).export_file("offset", tmp_path / "a.zip")
    assert not list(tmp_path.iterdir())


def test_the_store_keeps_what_was_imported(file: Path, tmp_path: Path) -> None:
    other = editor(tmp_path / "area")
    other.import_tags(file, new="mine")
    assert PayloadStore(other.world.store.root).get(offset(1.5).id)["mean"] == 1.5
