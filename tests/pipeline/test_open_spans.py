"""What a run does while its span is open: `carry` and `later`, with restarts between the runs."""

import pytest

from calib.iov import RunLumi
from pipeline.tier0 import Tier0
from pipeline.way import Stage
from tests.pipeline.tiny import write_file


@pytest.fixture
def house_of(house):
    def make(span):
        return house(experiment={"name": "tests.pipeline.judging:Gathering"}, handshake={"span": span})

    return make


@pytest.fixture
def file(tmp_path):
    """Four lumisections a run: six close an interval."""
    return lambda run: write_file(tmp_path / f"{run}.root", run, lumis=4, events=5, mean=float(run))


def stretches(tier0, run, kind="offset"):
    found = tier0._world.books.manifest(run).kinds[kind]
    return [(RunLumi.unpack(s.first).lumi, RunLumi.unpack(s.last).lumi, s.condition.value) for s in found]


def published(tier0):
    return [str(interval.iov.since) for interval in tier0.conditions.intervals("offset")]


@pytest.mark.parametrize("span", ["later", "carry"])
def test_runs_go_on_and_their_data_count_for_the_runs_to_come(house_of, file, span):
    plain = house_of(span)
    for runs in ((1, 2), (3,), (4,)):
        with Tier0(plain) as tier0:
            summary = tier0.run(*map(file, runs), progress=False)
        assert all(row.stage is Stage.CERTIFIED for row in summary.rows)
    # 1:1 to 2:2 make the first payload, 2:3 to 3:4 the second; run 4 opens the next span.
    assert published(tier0) == ["0:0", "2:0", "3:0"]
    assert stretches(tier0, 1) == [(1, 4, "carried")]
    assert stretches(tier0, 2) == [(1, 2, "fresh"), (3, 4, "carried")]
    assert stretches(tier0, 3) == [(1, 4, "fresh")]
    assert stretches(tier0, 4) == [(1, 4, "carried")]
    assert "its span is open" in tier0.why(1)
    means = [float(i.payload["mean"]) for i in tier0.conditions.intervals("offset")]
    assert 1.0 < means[1] < 2.0 < means[2] < 3.0
    with tier0._world.database.read() as connection:
        fates = tier0._world.conditions(connection).fates(tier0._world.tag_of("offset", "prompt"))
    assert [fate.runs for fate in fates] == ([] if span == "later" else [(1,), (2,)])


def test_cut_in_one_call_or_several_the_conditions_are_the_same(house_of, house, file):
    plain = house_of("later")
    with Tier0(plain) as tier0:
        tier0.run(*map(file, (1, 2, 3, 4)), progress=False)
        assert published(tier0) == ["0:0", "2:0", "3:0"]
        assert [stretches(tier0, run)[0][2] for run in (1, 2, 3, 4)] == ["carried", "fresh", "fresh", "carried"]


def test_by_default_they_wait(house_of, file):
    with Tier0(house_of("wait")) as tier0:
        summary = tier0.run(*map(file, (1, 2)), progress=False)
    # A closed set of files: the last run closes what is open.
    assert [row.conditions["offset"] for row in summary.rows] == [{"fresh": 1}, {"fresh": 2}]
