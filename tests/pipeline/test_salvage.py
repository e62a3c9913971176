"""Mistakes of the file and mistakes that only the experiment knows are told together."""

from __future__ import annotations

import pytest

from pipeline.mistakes import SettingsError
from pipeline.salvage import further_mistakes
from pipeline.settings import load_settings

TINY = '[experiment]\nname = "tests.pipeline.tiny:Tiny"\n'
GOOD = "[calibration.offset]\nmin_hits = 5\n"


def mistakes(tmp_path, text: str) -> list[str]:
    (tmp_path / "t.toml").write_text(text)
    with pytest.raises(SettingsError) as problem:
        load_settings(tmp_path / "t.toml")
    return list(problem.value.mistakes)


def test_what_the_experiment_finds_is_said_with_what_the_file_has_wrong(tmp_path):
    told = mistakes(
        tmp_path,
        TINY + "[prompt]\ntires = []\n[calibration.ofset]\nmin_hits = 3\n[[gates.offset]]\ngate = 'max_mov'\n"
        "[handshake]\nrequired = ['beam']\n",
    )
    assert len(told) == 4
    words = ("`prompt.tires`", "`calibration.ofset`", "`gates.offset[0]`", "`handshake.required`")
    assert all(any(word in one for one in told) for word in words)


def test_an_unknown_experiment_is_said_too(tmp_path):
    told = mistakes(tmp_path, '[experiment]\nname = "toy_colider"\n[prompt]\ntires = []\n')
    assert len(told) == 2 and "toy_collider" in told[1]


@pytest.mark.parametrize(
    "text",
    [
        TINY + GOOD + "[prompt]\ntires = []\n",
        TINY + "[handshake]\nrequired = ['beam']\ndeadline = 'soon'\n",  # the table is left out with its other mistakes
        "[experiment]\nname = 3\n",
        "[prompt]\ntires = []\n",
    ],
)
def test_where_nothing_more_can_be_said_nothing_is(tmp_path, text):
    (tmp_path / "t.toml").write_text(text)
    told = mistakes(tmp_path, text)
    assert told and len(told) == len(set(told)) and "beam" not in " ".join(told)


def test_nothing_is_said_of_settings_that_are_right():
    assert further_mistakes({"experiment": {"name": "tests.pipeline.tiny:Tiny"}, "calibration": {"offset": {}}}) == []
