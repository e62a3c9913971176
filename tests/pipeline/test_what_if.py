"""What would change if a payload went in: the pure rules, and a whole chain in which nothing is entered."""

import numpy as np
import pytest
from click.testing import CliRunner

from calib.iov import RunLumi
from calib.late import FateKind
from pipeline.cli import main
from pipeline.manifest import Condition, Manifest, Stretch
from pipeline.settings import settings_from
from pipeline.tier0 import Tier0
from pipeline.what_if import changed_ranges, under
from tests.pipeline.tiny import write_file


def at(lumi, run=5):
    return RunLumi(run, lumi).packed


def manifest(*stretches):
    parts = tuple(Stretch(at(first), at(last), Condition.FRESH, payload, "") for first, last, payload in stretches)
    return Manifest(5, 1, 9, {"offset": parts})


HALVES = manifest((1, 4, "a"), (5, 8, "b"))


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        (at(1), None, [(1, 4), (5, 8)]),
        (at(3), None, [(3, 4), (5, 8)]),
        (at(3), at(6), [(3, 4), (5, 5)]),
        (at(0, 6), None, []),
        (at(0, 4), at(1), []),
    ],
    ids=["all", "from within", "a part of both", "later runs only", "earlier runs only"],
)
def test_ranges_that_would_change(since, until, expected):
    found = changed_ranges(HALVES, "offset", "new", since, until)
    assert found == tuple((at(first), at(last)) for first, last in expected)


def test_what_has_the_payload_already_does_not_change():
    assert changed_ranges(HALVES, "offset", "b", at(1), None) == ((at(1), at(4)),)
    assert changed_ranges(HALVES, "gain", "b", at(1), None) == ()


def test_the_manifest_under_it():
    ranges = changed_ranges(HALVES, "offset", "new", at(3), at(6))
    parts = [
        (RunLumi.unpack(s.first).lumi, RunLumi.unpack(s.last).lumi, s.payload)
        for s in under(HALVES, "offset", "new", ranges).kinds["offset"]
    ]
    assert parts == [(1, 2, "a"), (3, 4, "new"), (5, 5, "new"), (6, 8, "b")]
    assert under(HALVES, "offset", "new", ()) == HALVES


@pytest.fixture
def survey(tmp_path):
    path = tmp_path / "survey.npz"
    np.savez(path, mean=np.float64(1.0), hits=np.int64(50), units='{"mean": "cm"}')
    return path


def test_a_chain_is_asked_and_not_changed(house, tmp_path, survey):
    files = [write_file(tmp_path / f"{run}.root", run, mean=1.5) for run in (1, 2, 3)]
    plain = house(experiment={"name": "tests.pipeline.judging:Judged"})
    with Tier0(plain) as tier0:
        tier0.run(*files, progress=False)
        before = tier0.conditions.history("offset")
        told = tier0.conditions.what_if("offset", survey, "2:3", sample=10)
        assert tier0.conditions.history("offset") == before
    found = told.found
    # The payload of run 3 begins with run 3.
    assert [(t.run, t.units) for t in found.touched] == [(2, 2)] and found.until == at(0, 3)
    assert found.fate.kind is FateKind.REFUSED and found.fate.runs == (2,)
    [prompt] = found.touched[0].outputs
    assert prompt.tier == "PROMPT" and found.size == prompt.size > 0 and found.cpu_s > 0
    assert found.found.differences.changed == found.found.differences.events > 0
    assert found.found.differences.columns["PROMPT/hit"].largest == pytest.approx(0.5, abs=0.1)
    assert found.worse
    for word in ("refused", "3-4", "PROMPT/hit", "hits about nought is worse"):
        assert word in str(told)
    settings = tmp_path / "tier0.toml"
    settings.write_text(settings_from(plain).as_text())
    words = ["conditions", "what-if", "offset", str(survey), "--since", "2:3", "-s", str(settings)]
    asked = [CliRunner().invoke(main, [*words, *more]) for more in ([], ["--sample", "10"])]
    assert [result.exit_code for result in asked] == [0, 3]
    assert "hits about nought is worse" in asked[1].output


def test_nothing_released_nothing_touched(house, survey):
    told = Tier0(house()).conditions.what_if("offset", survey, "2", sample=5)
    assert told.found.touched == () and told.found.fate.kind is FateKind.ACCEPTED
    assert "no released run would change" in str(told)
