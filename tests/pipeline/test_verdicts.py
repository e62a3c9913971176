"""What a chain concluded is written as JSON in one form, and read back as it was; records of before are read too."""

from __future__ import annotations

import json

import pytest

from calib.calibration import Outcome
from calib.gates import Decision, Measure
from pipeline.handshake import Judged
from pipeline.shadow import Shadowed
from pipeline.verdicts import candidates, from_document, to_document

MADE = Judged(
    7 << 32 | 1,
    7 << 32 | 9,
    Outcome.MADE,
    "p" * 64,
    Decision.PUBLISH,
    "it moved",
    True,
    (7 << 32 | 3,),
    (Measure("max_move", "x", 0.1, 0.2, "cm"),),
    "q" * 64,
)
LACKING = Judged(8 << 32 | 1, 8 << 32 | 9, Outcome.NOT_ENOUGH_DATA, why="12 tracks of 50")


@pytest.mark.parametrize("judged", [MADE, LACKING])
def test_a_conclusion_comes_back_as_it_was(judged):
    found = from_document(json.loads(json.dumps(to_document(judged))))
    assert found == judged and type(found.outcome) is Outcome
    shadow = Shadowed(7, (judged,), "it broke")
    assert Shadowed.from_document(7, json.loads(json.dumps(shadow.to_document()))) == shadow


def test_records_of_before_are_read():
    """Verdicts were kept without what was vetoed, and whether the move was confirmed."""
    old = {name: value for name, value in to_document(MADE).items() if name not in ("vetoed", "unconfirmed")}
    [found] = candidates([{"intervals": [old, to_document(LACKING)]}])
    assert (found.payload, found.decision, found.measures) == (MADE.payload, Decision.PUBLISH, MADE.measures)
    assert from_document(old).vetoed == ()
