"""What would change if a payload went in: the pure rules, and a whole chain in which nothing is entered."""

import numpy as np
import pytest

from calib.iov import RunLumi
from calib.late import FateKind
from calib.payload import Payload
from calib.tags import Sync
from pipeline.handshake import Condition, Manifest, Stretch
from pipeline.tier0 import Tier0
from pipeline.what_if import changed_ranges, consequences, judged, samples, under
from pipeline.what_if_text import words
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


def test_a_chain_is_asked_and_not_changed(house, tmp_path):
    files = [write_file(tmp_path / f"{run}.root", run, mean=1.5) for run in (1, 2, 3)]
    payload = Payload("offset", {"mean": np.float64(1.0), "hits": np.int64(50)}, {"mean": "cm"})
    with Tier0(house()) as tier0:
        tier0.run(*files, progress=False)
        world = tier0._world
        tag = world.tag_of("offset", Sync.PROMPT)
        before = tier0.conditions.history("offset")
        found = consequences(world, tag, payload, RunLumi(2, 3))
        assert tier0.conditions.history("offset") == before
        work = samples(world, found, 10)
        ways = [ways for ways, _ in work]
        found = judged(world, found, ways[0].merge([one.leaf(chunk, "a")[1] for one, chunk in work]))
    # The payload of run 3 begins with run 3.
    assert [(t.run, t.units) for t in found.touched] == [(2, 2)] and found.until == at(0, 3)
    assert found.fate.kind is FateKind.REFUSED and found.fate.runs == (2,)
    [prompt] = found.touched[0].outputs
    assert prompt.tier == "PROMPT" and found.size == prompt.size > 0 and found.cpu_s > 0
    assert found.found.differences.changed == found.found.differences.events > 0
    assert found.found.differences.columns["PROMPT/hit"].largest == pytest.approx(0.5, abs=0.1)
    text = words(found, "spill")
    assert "refused" in text and "3-4" in text and "PROMPT/hit" in text


def test_nothing_released_nothing_touched(house):
    payload = Payload("offset", {"mean": np.float64(1.0), "hits": np.int64(50)}, {"mean": "cm"})
    with Tier0(house()) as tier0:
        tier0.check()
        from pipeline.world import set_up

        world = set_up(tier0._world)
        found = consequences(world, world.tag_of("offset", Sync.PROMPT), payload, RunLumi(2))
    assert found.touched == () and found.fate.kind is FateKind.ACCEPTED
    assert "no released run would change" in words(found, "spill")
