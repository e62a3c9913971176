"""Payloads made elsewhere go through the gates, one or many at once, and their authors are told what became of them."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calib.iov import RunLumi
from calib.payload import Payload
from pipeline.conditions_editor import ConditionsEditor
from pipeline.conditions_words import Refused
from tests.pipeline.conditions_shelf import editor, enter, offset, settle, written

GATES = {"offset": [{"gate": "max_move", "array": "mean", "limit": 1.0, "unit": "cm"}]}


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[ConditionsEditor]:
    """Tags that start at 0, and take no step of more than 1 cm."""
    found = editor(tmp_path / "area", gates=GATES)
    yield found
    found.world.database.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Payloads of another Tier-0, from runs 0, 5, 7 and 9 on: the third is too far off."""
    other = editor(tmp_path / "other")
    for run, mean in ((5, 0.5), (7, 3.0), (9, 1.0)):
        enter(other, RunLumi(run), offset(mean))
    other.export("offset", tmp_path / "folder")
    other.export_file("offset", tmp_path / "folder.zip")
    other.world.database.close()
    return tmp_path / "folder"


def means(found: ConditionsEditor, tag: str | None = None) -> dict[str, float]:
    return {str(i.since): float(i.payload["mean"]) for i in found.intervals("offset", tag)}


@pytest.mark.parametrize("suffix", ["", ".zip"])
def test_many_go_in_and_what_the_gates_are_against_stays_out(
    shelf: ConditionsEditor, folder: Path, suffix: str
) -> None:
    found = shelf.upload("offset", folder.with_name(folder.name + suffix), None, "from elsewhere")
    assert [(fate.tag, str(fate.given)) for fate in found.fates] == [
        ("offset_prompt_v1", "5:0"),
        ("offset_express_v1", "5:0"),
        ("offset_prompt_v1", "9:0"),
        ("offset_express_v1", "9:0"),
    ]
    assert len(found.there) == 2 and "it holds there already" in found.there[0]
    [against] = found.rejected
    # Held to what went in before it, not to what was there at first.
    assert "7:0, payload" in against and "mean moved from 0.5 to 3 cm, at most 1 cm are allowed" in against
    assert found.exit_code == 3 and against in str(found)
    assert str(found).splitlines()[-1] == "4 accepted, 2 there already, 1 rejected"
    assert means(shelf) == means(shelf, "express") == {"0:0": 0.0, "5:0": 0.5, "9:0": 1.0}
    assert "from elsewhere" in shelf.history("offset")


def test_runs_that_are_settled_are_named(shelf: ConditionsEditor, folder: Path) -> None:
    settle(shelf, 5, 6, 10)
    found = shelf.upload("offset", folder, None, "late", "prompt")
    assert [(fate.kind.value, str(fate.given), str(fate.until), fate.runs) for fate in found.fates] == [
        ("shifted", "11:0", "None", (5, 6, 10)),
        ("accepted", "9:0", "10:0", (10,)),
    ]
    said = str(found).splitlines()
    assert said[0].endswith("runs it touches: 5, 6, 10") and said[1].endswith("runs it touches: 10")
    with shelf.world.database.read() as connection:
        db = shelf.world.conditions(connection)
        held = db.resolve(db.snapshot("prompt_v1"), RunLumi(5, 1), ["offset"])
        assert held["offset"]["mean"] == 0.0


def test_a_second_time_all_is_there(shelf: ConditionsEditor, folder: Path) -> None:
    shelf.upload("offset", folder, None, "once")
    before = shelf.history("offset")
    again = shelf.upload("offset", folder, None, "twice")
    assert not again.fates and len(again.there) == 6 and shelf.history("offset") == before


def test_what_holds_there_is_not_judged_again(tmp_path: Path) -> None:
    gates = {"offset": [{"gate": "min_entries", "array": "hits", "minimum": 1000}]}
    strict = editor(tmp_path / "strict", gates=gates)
    strict.export_file("offset", tmp_path / "own.zip")
    found = strict.upload("offset", tmp_path / "own.zip", None, "again")
    assert (len(found.there), found.rejected, found.exit_code) == (2, (), 0)
    strict.world.database.close()


def test_one_against_the_gates_changes_nothing(shelf: ConditionsEditor, tmp_path: Path) -> None:
    file = written(tmp_path / "far.npz", offset(3.0))
    with pytest.raises(Refused, match=r"far.npz: 7:0, payload .* at most 1 cm are allowed"):
        shelf.upload("offset", file, "7", "a survey")
    assert means(shelf) == {"0:0": 0.0}
    gates = [{"gate": "max_move", "array": "mean", "limit": 5.0, "unit": "cm"}]
    wider = editor(tmp_path / "wider", gates=GATES, **{"for": [{"runs": "7-", "gates": {"offset": gates}}]})
    assert not wider.upload("offset", tmp_path / "far.npz", "7", "a survey").rejected
    with pytest.raises(Refused, match="at most 1 cm"):
        wider.upload("offset", tmp_path / "far.npz", "6", "a survey")


def test_a_test_tag_is_held_to_what_it_has_itself(shelf: ConditionsEditor, tmp_path: Path) -> None:
    shelf.create_tag("survey", "offset", serves="validation")
    assert "survey: accepted" in str(
        shelf.upload("offset", written(tmp_path / "a.npz", offset(3.0)), "7", "a", "survey")
    )
    assert "survey: accepted" in str(
        shelf.upload("offset", written(tmp_path / "b.npz", offset(3.5)), "8", "b", "survey")
    )
    with pytest.raises(Refused, match=r"moved from 3.5 to 0 cm"):
        shelf.upload("offset", written(tmp_path / "c.npz", offset(0.0)), "9", "c", "survey")
    assert means(shelf) == {"0:0": 0.0}


def test_a_moment_or_file_that_does_not_fit_is_refused(shelf: ConditionsEditor, folder: Path, tmp_path: Path) -> None:
    file = written(tmp_path / "one.npz", offset(0.5))
    with pytest.raises(Refused, match="say from which run or moment on it is to hold, with --since"):
        shelf.upload("offset", file, None, "x")
    for path in (folder, folder.with_suffix(".zip")):
        with pytest.raises(Refused, match="leave --since out"):
            shelf.upload("offset", path, "7", "x")
    with pytest.raises(Refused, match="'soon' is not run or run:lumisection"):
        shelf.upload("offset", file, "soon", "x")
    with pytest.raises(Refused, match="has no tag other of kind offset; it has offset_prompt_v1"):
        shelf.upload("offset", folder, None, "x", None, ["other"])
    shelf.create_tag("by_time", "offset", "time")
    with pytest.raises(Refused, match="a tag by time begins at nanoseconds"):
        shelf.upload("offset", folder, None, "x", "by_time")
    np.savez(tmp_path / "text.npz", mean=np.array("much"))
    with pytest.raises(Refused, match="use booleans, integers or floats"):
        shelf.upload("offset", tmp_path / "text.npz", "7", "x")
    np.savez(tmp_path / "units.npz", mean=1.0, units=np.array("[1]"))
    with pytest.raises(Refused, match="must be a JSON object"):
        shelf.upload("offset", tmp_path / "units.npz", "7", "x")
    np.savez(tmp_path / "units.npz", mean=1.0, units=np.array("cm"))
    with pytest.raises(Refused, match="cannot be read as a payload"):
        shelf.upload("offset", tmp_path / "units.npz", "7", "x")
    assert means(shelf) == {"0:0": 0.0}


def test_of_several_tags_one_must_be_named(shelf: ConditionsEditor, folder: Path, tmp_path: Path) -> None:
    shelf.export_file((), tmp_path / "two.zip", ["prompt", "express"])
    with pytest.raises(Refused, match=r"has not one tag of kind offset: .*; say which with --only"):
        shelf.upload("offset", tmp_path / "two.zip", None, "x")
    assert shelf.upload("offset", tmp_path / "two.zip", None, "x", None, ["offset_express_v1"]).there


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (offset(np.nan), "`mean` is nan, expected is a finite number"),
        (offset([1.0, 2.0]), r"`mean` has shape \(2,\), expected is \(\)"),  # type: ignore[arg-type]
        (offset(0.5, width=1.0), "`width` is foreign to kind offset"),
        (Payload("offset", offset(0.5).arrays, {"mean": "mm"}), "`mean` is in mm, expected is cm"),
        (Payload("offset", {"noise": np.zeros(3)}), "it has no `mean`: floats of shape .* in cm; `noise` is foreign"),
    ],
    ids=["nan", "shape", "foreign", "unit", "of another kind"],
)
def test_what_has_not_the_form_of_its_kind_stays_out(
    shelf: ConditionsEditor, tmp_path: Path, wrong: Any, said: str
) -> None:
    file = written(tmp_path / "wrong.npz", wrong)
    for ask in (lambda: shelf.upload("offset", file, "7", "x"), lambda: shelf.what_if("offset", file, "7")):
        with pytest.raises(Refused, match=rf"wrong.npz: this is no payload of kind offset: .*{said}"):
            ask()
    assert means(shelf) == {"0:0": 0.0} and not shelf.world.store.has(wrong.id)


def test_of_many_only_those_of_the_right_form_go_in(shelf: ConditionsEditor, tmp_path: Path) -> None:
    other = editor(tmp_path / "other")
    enter(other, RunLumi(5), offset(np.nan))
    enter(other, RunLumi(7), offset(0.5))
    other.export_file("offset", tmp_path / "a.zip")
    other.world.database.close()
    found = shelf.upload("offset", tmp_path / "a.zip", None, "x")
    assert found.exit_code == 3 and "5:0, payload" in found.rejected[0] and "`mean` is nan" in found.rejected[0]
    assert means(shelf) == {"0:0": 0.0, "7:0": 0.5}


def test_a_tag_in_use_takes_no_import_of_another_form(tmp_path: Path) -> None:
    other = editor(tmp_path / "other")
    enter(other, RunLumi(5), offset(np.nan))
    other.export_file("offset", tmp_path / "a.zip")
    other.world.database.close()
    empty = editor(tmp_path / "empty", conditions={"initial": False})
    with pytest.raises(Refused, match=r"a.zip, payload .*: this is no payload of kind offset: `mean` is nan"):
        empty.import_tags(tmp_path / "a.zip")
    assert not empty.intervals("offset")
    assert "imported from" in empty.import_tags(tmp_path / "a.zip", new="aside")[0]
    empty.world.database.close()


def test_without_a_design_the_payload_in_force_gives_the_form(tmp_path: Path) -> None:
    bare = editor(tmp_path / "bare", experiment={"name": "tests.pipeline.tiny:Tiny", "settings": {"initial": False}})
    first, other = written(tmp_path / "a.npz", offset(0.5)), written(tmp_path / "b.npz", offset(np.nan))
    said = "nothing is known yet of the form of offset: names, shapes and units are not checked"
    assert said in str(bare.what_if("offset", first, "3"))
    assert str(bare.upload("offset", first, "3", "the first")).splitlines()[-1] == said
    again = bare.upload("offset", written(tmp_path / "c.npz", offset(0.6)), "4", "the next")
    assert not again.notes and said not in str(bare.what_if("offset", first, "3"))
    with pytest.raises(Refused, match="`mean` is nan"):
        bare.upload("offset", other, "4", "x")
    bare.world.database.close()


def test_tags_of_which_one_refused_are_said_to_differ(shelf: ConditionsEditor, tmp_path: Path) -> None:
    enter(shelf, RunLumi(8), offset(0.2))
    settle(shelf, 5, 8, 9)
    found = shelf.upload("offset", written(tmp_path / "a.npz", offset(0.5)), "5:3", "late")
    assert [fate.kind.value for fate in found.fates] == ["refused", "accepted"] and found.exit_code == 3
    assert "offset_prompt_v1 and offset_express_v1 now differ from 5:3 on: see `tier0 conditions diff" in str(found)
    # Those that both take it, later or not, do what they always do.
    both = shelf.upload("offset", written(tmp_path / "b.npz", offset(0.6)), "9", "late")
    assert [fate.kind.value for fate in both.fates] == ["shifted", "accepted"] and both.exit_code == 0
    assert "now differ" not in str(both)


def test_a_folder_or_zip_that_is_no_export_is_said_to_be_none(shelf: ConditionsEditor, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "7.root").write_bytes(b"root")
    for since in ("7", None):
        with pytest.raises(Refused, match=r"data has no TAG.json: it is no folder of `tier0 conditions export`"):
            shelf.upload("offset", data, since, "x")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("a.txt", "a")
    with pytest.raises(Refused, match=r"a.zip has no index.json: it is no file of `tier0 conditions export`"):
        shelf.upload("offset", tmp_path / "a.zip", "7", "x")
    with pytest.raises(Refused, match=r"no.zip cannot be read as exported conditions"):
        shelf.upload("offset", tmp_path / "no.zip", "7", "x")


def test_files_of_another_kind_are_refused_in_words(shelf: ConditionsEditor, tmp_path: Path) -> None:
    (tmp_path / "7.root").write_bytes(b"root" + bytes(100))
    (tmp_path / "notes.txt").write_text("x = 0.1 cm\n")
    np.save(tmp_path / "array.npy", np.zeros(3))
    np.savez(tmp_path / "objects.npz", mean=np.array([{}], dtype=object))
    np.savez(tmp_path / "units.npz", mean=0.1, units='{"x": "cm"}')
    said = {
        "7.root": "it is no npz file",
        "notes.txt": "it is no npz file",
        "array.npy": "it is no npz file",
        "objects.npz": "array 'mean' is damaged, or of Python objects instead of numbers",
        "units.npz": "units given for arrays it has not: ['x']",
        "missing.npz": "No such file",
    }
    for name, word in said.items():
        with pytest.raises(Refused) as problem:
            shelf.upload("offset", tmp_path / name, "7", "x")
        told = str(problem.value)
        assert told.startswith(f"{tmp_path / name} cannot be read as a payload (") and word in told
        assert "give an npz file or a zarr folder" in told and "pickle" not in told
