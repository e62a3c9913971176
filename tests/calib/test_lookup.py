"""Every question to the entries is answered from an index, else ten million of them would be read."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, create_engine, text

from calib import lookup
from calib.conditions import ConditionsDB
from calib.iov import Clock, RunLumi
from calib.payload import Payload
from calib.schema import conditions_metadata
from calib.tags import Stamp, Sync
from tests.calib.conditions_model import PayloadsInMemory

STAMP = Stamp("ann", datetime(2026, 5, 1, tzinfo=UTC), "test")

BY_SINCE = "conditions_entries_by_since (tag_id=? AND since"

QUESTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "ANSWERS": ({"global_tag": "g", "kinds": ["a", "b"], "unit": 1, "time": 1, "as_of": 1}, BY_SINCE),
    "CHANGES": ({"tags": [1, 2], "first": 1, "last": 2, "as_of": 1}, BY_SINCE),
    "IN_FORCE": ({"tag": 1, "at": 1, "as_of": 1}, BY_SINCE),
    "PAYLOAD": ({"tag": 1, "at": 1, "as_of": 1}, BY_SINCE),
    "SOUND": ({"tag": 1, "at": 1, "as_of": 1}, BY_SINCE),
    "FOLLOWING": ({"tag": 1, "at": 1, "as_of": 1}, BY_SINCE),
    "STEPS": ({"tag": 1, "at": 1, "until": 2, "as_of": 1}, BY_SINCE),
    "FAMILY": ({"origin": 1, "as_of": 1}, "conditions_entries_by_origin (origin=?)"),
    "LIVE": ({"tag": 1, "as_of": 1}, "conditions_entries_by_since (tag_id=?)"),
    "FATES": ({"tag": 1}, "conditions_entries USING INDEX sqlite_autoindex_conditions_entries_1 (sequence=?)"),
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


def test_spelled_statement_says_the_same(engine: Engine) -> None:
    """The driver by itself and through SQLAlchemy."""
    with engine.connect() as connection, connection.begin() as transaction:
        db = ConditionsDB(connection, PayloadsInMemory())
        number = db.create_tag("t", "k", Clock.LUMI, Sync.PROMPT).number
        for run in (10, 20, 30):
            db.append("t", RunLumi(run), Payload("k", {"run": np.array([run])}), STAMP)
        asked = {"tag": number, "at": RunLumi(25).packed, "as_of": db.history("t")[-1].sequence}
        cursor = connection.connection.cursor()
        for statement in (lookup.PAYLOAD, lookup.FOLLOWING):
            spelled = lookup.Spelled.of(statement, connection.dialect)
            assert spelled is lookup.Spelled.of(statement, connection.dialect)
            row = connection.execute(statement, asked).one()
            assert spelled.first(cursor, **asked) == tuple(row)
            assert spelled.first(cursor, **asked | {"as_of": 0}) is None
        transaction.rollback()
