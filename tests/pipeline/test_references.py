"""A gate may hold payloads to one of its own choice, wherever they are judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from calib.deletion import InUse
from calib.payload import PayloadStore
from pipeline.conditions_words import Refused
from pipeline.settings import SettingsError
from tests.pipeline.conditions_shelf import editor, offset, written


def gates(reference: str, limit: float = 0.5) -> dict[str, Any]:
    table = {"gate": "distance", "array": "mean", "reference": reference, "limit": limit, "unit": "cm"}
    return {"offset": [table]}


@pytest.fixture
def survey(tmp_path: Path) -> str:
    """A payload of the area, that nothing else names."""
    area = tmp_path / "area"
    editor(area).world.database.close()
    return PayloadStore(area / "conditions").put(offset(2.0))


def test_an_upload_too_far_from_it_stays_out(tmp_path: Path, survey: str) -> None:
    shelf = editor(tmp_path / "area", gates=gates(survey))
    with pytest.raises(Refused, match=r"mean is 2.6, in the reference 2 cm, at most 0.5 cm apart are allowed"):
        shelf.upload("offset", written(tmp_path / "far.npz", offset(2.6)), "7", "by hand")
    assert shelf.upload("offset", written(tmp_path / "near.npz", offset(2.4)), "7", "by hand")


def test_settings_that_name_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="there is no payload 000000000000 to hold to: upload it first"):
        editor(tmp_path / "area", gates=gates("0" * 64))


def test_it_is_not_deleted_while_the_settings_name_it(tmp_path: Path, survey: str) -> None:
    shelf = editor(tmp_path / "area", gates=gates(survey))
    with pytest.raises(InUse, match="a gate of the settings holds to it"):
        shelf.delete(survey, "not wanted any more")
    assert editor(tmp_path / "area").delete(survey, "not wanted any more")
