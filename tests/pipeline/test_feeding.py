"""Payloads go on to express, from the next run that has not started."""

import pytest

from pipeline.mistakes import SettingsError
from pipeline.tier0 import Tier0
from pipeline.world import settings_lineage
from tests.pipeline.tiny import write_file


@pytest.fixture
def files(tmp_path):
    return [write_file(tmp_path / f"{run}.root", run, mean=float(run)) for run in (1, 2, 3, 4)]


def express(tier0):
    tag = tier0._world.tag_of("offset", "express")
    found = tier0.conditions.intervals("offset", tag)
    return [(interval.iov.since.run, round(float(interval.payload["mean"]))) for interval in found]


def test_each_run_feeds_those_to_come(house, files):
    plain = house(handshake={"feeds_express": ["offset"]})
    with Tier0(plain) as tier0:
        tier0.run(files[0], progress=False)
        assert express(tier0) == [(0, 0), (2, 1)]
        # Both have started before either is released: run 4 is the next. The later run has the last word.
        tier0.run(files[1], files[2], progress=False)
        assert express(tier0) == [(0, 0), (2, 1), (4, 3)]
        # An earlier run that comes later takes nothing back.
        tier0.run(files[3], progress=False)
        assert express(tier0)[-1] == (5, 4)
        assert "found in run 3" in tier0.conditions.history("offset", tier0._world.tag_of("offset", "express"))


def test_by_default_express_keeps_what_it_has(house, files):
    with Tier0(house()) as tier0:
        tier0.run(files[0], progress=False)
        assert express(tier0) == [(0, 0)]


def test_a_kind_that_is_none_is_refused(house):
    with pytest.raises(SettingsError, match="there is no kind 'ofset'"):
        Tier0(house(handshake={"feeds_express": ["ofset"]}))


def test_not_set_it_opens_no_version(house):
    tier0 = Tier0(house())
    plain = tier0.settings.model_dump(mode="json")
    assert plain["handshake"]["feeds_express"] == []
    assert settings_lineage(tier0.settings, tier0._world.experiment) != settings_lineage(
        Tier0(house(handshake={"feeds_express": ["offset"]})).settings, tier0._world.experiment
    )
