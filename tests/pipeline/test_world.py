"""Opening a Tier-0: settings are judged whole, and nothing is made real before something runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pipeline.experiments.interface import Experiment
from pipeline.experiments.registry import UnknownExperiment
from pipeline.preparation import gates_of
from pipeline.settings import SettingsError, settings_from
from pipeline.tier0 import Tier0
from pipeline.world import open_world, settings_lineage
from tests.pipeline.tiny import Tiny, settings


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"calibration": {"ofset": {}}}, "did you mean `offset`"),
        ({"calibration": {"offset": {"min_hit": 3}}}, "did you mean `min_hits`"),
        ({"gates": {"offset": [{"gate": "min_entrys", "array": "hits", "minimum": 3}]}}, "did you mean `min_entries`"),
        ({"handshake": {"required": ["ofset"]}}, "there is no kind 'ofset'"),
        ({"experiment": {"settings": {"cutt": 3}}}, "did you mean `cut`"),
        ({"cluster": {"wokers": 3}}, "did you mean `workers`"),
    ],
)
def test_a_wrong_setting_stops_at_load_time_with_a_suggestion(
    tmp_path: Path, sections: dict[str, Any], words: str
) -> None:
    with pytest.raises(SettingsError) as refusal:
        Tier0(settings(tmp_path, **sections))
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        ("[[1, 50]]", "is not a certification file"),
        ('{"190456": [[50, 1]]}', "run 190456 has the range [50, 1], which ends before it begins"),
    ],
)
def test_a_wrong_certification_file_is_refused_before_anything_is_done(
    tmp_path: Path, content: str | None, words: str
) -> None:
    mask = tmp_path / "mask.json"
    if content is not None:
        mask.write_text(content)
    with pytest.raises(SettingsError) as refusal:
        Tier0(settings(tmp_path / "area", certify={"mask": str(mask)}))
    assert str(refusal.value).startswith(f"`certify.mask`: {mask}")
    assert words in str(refusal.value)
    assert not (tmp_path / "area").exists()


def test_the_certification_file_is_taken_as_it_is_when_all_begins(tmp_path: Path) -> None:
    mask = tmp_path / "mask.json"
    mask.write_text('{"7": [[1, 50]]}')
    world = open_world(settings_from(settings(tmp_path / "area", certify={"mask": str(mask)})))
    mask.unlink()
    assert world.certified == {7: [[1, 50]]}
    world.database.close()


def test_an_unknown_experiment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownExperiment, match="did you mean 'toy_collider'"):
        Tier0(settings(tmp_path, experiment={"name": "toy_colider"}))


def test_how_large_a_state_may_be_makes_no_other_version(tmp_path: Path) -> None:
    def lineage(**sections: Any) -> str:
        return settings_lineage(settings_from(settings(tmp_path, **sections)), Tiny())

    override = {"runs": "7-9", "express": {"fraction": "1/2"}}
    larger = {"runs": "7-9", "express": {"fraction": "1/2", "largest_state": "2 GB"}}
    assert lineage(express={"largest_state": "2 GB"}) == lineage()
    assert lineage(**{"for": [larger]}) == lineage(**{"for": [override]}) != lineage()
    assert lineage(**{"for": [{"runs": "7-9", "express": {"largest_state": "2 GB"}}]}) == lineage()


class Gated(Tiny):
    """With a gate of its own."""

    default_gates: ClassVar[Mapping[str, tuple[dict[str, Any], ...]]] = {
        "offset": ({"gate": "max_move", "array": "x", "limit": 0.5, "unit": "cm"},)
    }


class WronglyGated(Tiny):
    """With a gate that there is not."""

    default_gates: ClassVar[Mapping[str, tuple[dict[str, Any], ...]]] = {"offset": ({"gate": "mox_move"},)}


def test_gates_of_the_experiment_hold_where_the_settings_name_none(tmp_path: Path) -> None:
    def gates(area: str, experiment: Experiment, **sections: Any) -> list[dict[str, Any]]:
        world = open_world(settings_from(settings(tmp_path / area, **sections)), experiment)
        world.database.close()
        return [gate.settings() for gate in gates_of(world.settings_of(7), "offset")]

    own, other = Gated.default_gates["offset"], [{"gate": "min_entries", "array": "entries", "minimum": 3.0}]
    assert gates("a", Tiny()) == []
    assert gates("b", Gated()) == list(own)
    assert gates("c", Gated(), gates={"offset": other}) == other
    assert gates("d", Gated(), gates={"offset": []}) == []
    assert gates("e", Gated(), **{"for": [{"runs": "7", "gates": {"offset": other}}]}) == other
    # People see them, and where they change, results may.
    tier0 = Tier0(settings(tmp_path / "f"), Gated())
    assert "max_move" in tier0.check()
    assert settings_lineage(tier0._world.settings, Tiny()) != settings_lineage(tier0.settings, Tiny())
    with pytest.raises(SettingsError, match=r"`gates.offset\[0\]`: there is no gate 'mox_move'"):
        gates("g", WronglyGated())


def test_looking_makes_no_processing_version(tmp_path: Path) -> None:
    tier0 = Tier0(settings(tmp_path))
    assert tier0.status().rows == ()
    assert "offset" not in tier0.conditions.tags()
    assert "[handshake]" in tier0.check()
    assert "offset" not in tier0.conditions.tags()


def test_kinds_without_a_payload_to_start_from_are_named(tmp_path: Path) -> None:
    lacking = settings(tmp_path / "a", experiment={"settings": {"initial": False}})
    assert "no payload to start from: offset" in Tier0(lacking).check()
    assert "no payload to start from" not in Tier0(settings(tmp_path / "b")).check()
