"""The rules of the canary: what it looks at, what it says, and what becomes of a release. Pure."""

from fractions import Fraction

import numpy as np
import pytest

from calib.accumulators import UnitHistogram
from calib.iov import RunLumi
from calib.state import State
from pipeline.canary import (
    Verdict,
    after_canary,
    canary_chunks,
    canary_job,
    changed_units,
    fresh_payloads,
    in_force,
    verdict,
)
from pipeline.canary_plot import draw
from pipeline.experiments.interface import Measure, Merit
from pipeline.handshake import Hold, Release, Wait
from pipeline.manifest import Condition, Manifest, Stretch
from pipeline.model import Piece, Step
from pipeline.two_ways import BothWays, Differences
from tests.pipeline.tiny import Tiny


def at(lumi):
    return RunLumi(5, lumi).packed


def manifest(*stretches, kind="offset"):
    return Manifest(5, 1, 9, {kind: tuple(Stretch(at(a), at(b), Condition.FRESH, p, "") for a, b, p in stretches)})


OLD = manifest((1, 8, "a"))
NEW = manifest((1, 4, "a"), (5, 8, "b"))
PIECES = [Piece("x.root", 10 * lumi, 10 * lumi + 10, at(lumi)) for lumi in range(1, 9)]
RELEASE = Release(
    {
        "offset": (
            Stretch(at(1), at(4), Condition.CARRIED, None, "no change"),
            Stretch(at(5), at(8), Condition.FRESH, "b", "made"),
        )
    },
    {"b": (at(5), at(8))},
)


class Judged(Tiny):
    """Tiny with a figure of merit: the hits should be around nought."""

    def merits(self):
        return (Merit("hits about nought", "hit", Measure.OFFSET, 0.05, entries=10),)


def test_it_looks_where_the_conditions_change():
    assert changed_units(OLD, NEW) == ((at(5), at(8)),)
    assert changed_units(OLD, OLD) == ()
    lumis = [RunLumi.unpack(u).lumi for c in canary_chunks(5, PIECES, OLD, NEW, 2) for u in c.units]
    assert lumis == [5, 6]


def test_a_share_is_one_of_the_whole_run():
    chunks = canary_chunks(5, PIECES, OLD, NEW, Fraction(1, 4))
    assert sum(chunk.events for chunk in chunks) == 20  # of 80, though only 40 change
    assert sum(chunk.events for chunk in canary_chunks(5, PIECES, OLD, NEW, Fraction(1))) == 40
    assert canary_chunks(5, PIECES, OLD, OLD, Fraction(1, 4)) == []


def test_other_conditions_or_events_are_another_canary():
    chunks = canary_chunks(5, PIECES, OLD, NEW, 1)
    names = {
        canary_job(5, OLD, NEW, Judged(), chunks).name,
        canary_job(5, OLD, manifest((1, 8, "b")), Judged(), chunks).name,
        canary_job(5, OLD, NEW, Judged(), canary_chunks(5, PIECES, OLD, NEW, 2)).name,
        canary_job(5, OLD, NEW, Judged({"cut": 5.0}), chunks).name,
        canary_job(5, OLD, NEW, Tiny(), chunks).name,
    }
    assert len(names) == 5
    assert canary_job(5, OLD, NEW, Judged(), chunks).name in names


def both(old, new):
    edges = np.array(Judged().histograms(Step.PROMPT)[0].edges)
    states = [
        State({"hit": UnitHistogram.fill(edges, np.full(40, at(5)), np.full(40, value) + np.linspace(-0.4, 0.4, 40))})
        for value in (old, new)
    ]
    return BothWays(Differences(20, 7), *states)


def test_worse_is_said_first(tmp_path):
    found, compared = verdict("n", Judged(), both(0.0, 2.0))
    assert found.worse and "hits about nought is worse" in found.why and "7 of 20 events change" in found.why
    assert Verdict.from_document(found.to_document()) == found
    assert not verdict("n", Judged(), both(2.0, 0.0))[0].worse
    picture = draw(tmp_path / "c.png", "run 5", compared, Judged().histograms(Step.PROMPT), both(0.0, 2.0))
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 5000


def test_without_a_figure_of_merit_nothing_is_worse():
    found, _ = verdict("n", Tiny(), both(0.0, 2.0))
    assert not found.worse and "nothing to judge by" in found.why


GOOD, BAD = Verdict("n", False, ("fine",)), Verdict("n", True, ("worse by far",))


def test_it_is_waited_for():
    assert isinstance(after_canary(5, RELEASE, None, None), Wait)


@pytest.mark.parametrize(("found", "accepted"), [(GOOD, None), (GOOD, False), (BAD, True)])
def test_a_good_one_or_an_accepted_one_releases(found, accepted):
    assert after_canary(5, RELEASE, found, accepted) == RELEASE


def test_a_bad_one_holds_and_says_why():
    held = after_canary(5, RELEASE, BAD, None)
    assert isinstance(held, Hold) and "worse by far" in held.reasons["canary"]
    assert "`tier0 waive 5 canary --publish --reason ...` publishes them all the same" in held.reasons["canary"]
    assert "`tier0 waive 5 canary --reason ...` goes on with the payload in force" in held.reasons["canary"]


def test_a_refused_one_goes_on_with_what_is_in_force():
    found = after_canary(5, RELEASE, BAD, False)
    carried, fallen = found.stretches["offset"]
    assert carried == RELEASE.stretches["offset"][0]
    assert (fallen.condition, fallen.payload) == (Condition.FALLBACK, None) and "canary" in fallen.why
    assert found.intervals == {} and fresh_payloads(found) == () and fresh_payloads(RELEASE) == ("b",)
    assert in_force(found, "again") == found
