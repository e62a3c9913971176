"""The canary in whole chains: a wrong payload is caught before anything of it is published."""

from pathlib import Path

import pytest

from pipeline.operations import Operator
from pipeline.tier0 import Tier0
from pipeline.way import Stage
from tests.pipeline.tiny import write_file

WRONG = {"wrong_by": 1.0, "in_run": 2}


@pytest.fixture
def plain(house, tmp_path):
    for run in (1, 2, 3):
        write_file(tmp_path / f"{run}.root", run, lumis=4, events=10)

    def make(**sections):
        found = {"experiment": {"name": "tests.pipeline.judging:Judged"}, "canary": {"units": 2}}
        return house(**(found | {"calibration": {"offset": WRONG}} | sections))

    return make


def files(tmp_path):
    return [tmp_path / f"{run}.root" for run in (1, 2, 3)]


def published(tier0):
    return [interval.iov.since.run for interval in tier0.conditions.intervals("offset")]


def test_a_wrong_payload_is_held_and_the_others_go_on(plain, tmp_path):
    with Tier0(plain()) as tier0:
        summary = tier0.run(*files(tmp_path), progress=False)
        assert [row.stage for row in summary.rows] == [Stage.CERTIFIED, Stage.CONDITIONS, Stage.CERTIFIED]
        assert summary.exit_code == 4 and published(tier0) == [0, 1, 3]
        why = tier0.why(2)
        assert "the new conditions are worse on its first events: hits about nought is worse" in why
        assert "`tier0 waive 2 canary --publish --reason ...`" in why
        picture = Path(why.split("see ")[1].split(";")[0])
        assert picture.read_bytes().startswith(b"\x89PNG")
        # A restart asks nobody again, and holds it still.
        assert tier0.run(*files(tmp_path), progress=False)[2].stage is Stage.CONDITIONS


@pytest.mark.parametrize(("publish", "state", "since"), [(True, "fresh", [0, 1, 2, 3]), (False, "fallback", [0, 1, 3])])
def test_a_person_decides_of_a_bad_one(plain, tmp_path, publish, state, since):
    with Tier0(plain()) as tier0:
        tier0.run(*files(tmp_path), progress=False)
        operator: Operator = tier0.operator
        said = operator.waive(2, "canary", "we know why", publish=publish)
        assert "canary" in said
        row = tier0.run(*files(tmp_path), progress=False)[2]
        assert row.stage is Stage.CERTIFIED and row.conditions == {"offset": {state: 1}}
        assert published(tier0) == since


def test_without_a_canary_nothing_is_tried(plain, tmp_path):
    with Tier0(plain(canary={})) as tier0:
        summary = tier0.run(*files(tmp_path), progress=False)
    assert all(row.stage is Stage.CERTIFIED for row in summary.rows)


def test_setting_a_canary_redoes_nothing(plain, tmp_path):
    good = {"calibration": {"offset": {}}}
    with Tier0(plain(canary={}, **good)) as tier0:
        tier0.run(*files(tmp_path), progress=False)
    with Tier0(plain(canary={"share": 0.5}, **good)) as tier0:
        assert not tier0.plan(*files(tmp_path)).todos
