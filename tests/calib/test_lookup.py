"""Every question to the entries is answered from an index, else ten million of them would be read."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import create_engine, text

from calib import lookup
from calib.schema import conditions_metadata

BY_SINCE = "conditions_entries_by_since (tag_id=? AND since"

QUESTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "ANSWERS": ({"global_tag": "g", "kinds": ["a", "b"], "unit": 1, "time": 1, "as_of": 1}, BY_SINCE),
    "CHANGES": ({"tags": [1, 2], "first": 1, "last": 2, "as_of": 1}, BY_SINCE),
    "IN_FORCE": ({"tag": 1, "at": 1, "as_of": 1}, BY_SINCE),
    "SOUND": ({"tag": 1, "at": 1, "as_of": 1}, BY_SINCE),
    "FOLLOWING": ({"tag": 1, "at": 1, "as_of": 1}, BY_SINCE),
    "STEPS": ({"tag": 1, "at": 1, "until": 2, "as_of": 1}, BY_SINCE),
    "FAMILY": ({"origin": 1, "as_of": 1}, "conditions_entries_by_origin (origin=?)"),
    "LIVE": ({"tag": 1, "as_of": 1}, "conditions_entries_by_since (tag_id=?)"),
    "SETTLED": ({"tag": 1, "since": 1, "until": 2}, "conditions_settled_by_until (tag_id=? AND until>?)"),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_question_is_answered_from_an_index(question: str) -> None:
    values, index = QUESTIONS[question]
    engine = create_engine("sqlite://")
    conditions_metadata.create_all(engine)
    statement = getattr(lookup, question).params(**values)
    spelled = str(statement.compile(dialect=engine.dialect, compile_kwargs={"literal_binds": True}))
    with engine.connect() as connection:
        plan = [row[3] for row in connection.execute(text(f"EXPLAIN QUERY PLAN {spelled}"))]
    assert any(index in step for step in plan)
    assert not [step for step in plan if step.startswith("SCAN")]
