"""What is kept of runs in words: what was set aside and why, and documents such as the frozen settings."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pipeline.schema import documents, setbacks


@dataclass(frozen=True, slots=True)
class Setback:
    """Something that was set aside while the rest goes on.

    `kind` is what it is about (file, events, chunk, conditions, ...), `place` the path, unit or step, `run` the run if
    it concerns just one. `at` and `resolved` are seconds since 1970; `resolved` None as long as it holds.
    """

    kind: str
    place: str
    reason: str
    run: int | None = None
    at: float = 0.0
    resolved: float | None = None


def add_setbacks(connection: Connection, found: Iterable[Setback], now: float) -> None:
    """Write down what was set aside; what is written down already and still holds is not repeated."""
    for setback in found:
        same = sa.and_(
            setbacks.c.kind == setback.kind,
            setbacks.c.place == setback.place,
            setbacks.c.reason == setback.reason,
            setbacks.c.run.is_(None) if setback.run is None else setbacks.c.run == setback.run,
            setbacks.c.resolved.is_(None),
        )
        if connection.execute(sa.select(setbacks.c.id).where(same)).first() is None:
            row = {"run": setback.run, "kind": setback.kind, "place": setback.place}
            connection.execute(sa.insert(setbacks), row | {"reason": setback.reason, "at": now, "resolved": None})


def resolve_setbacks(connection: Connection, kind: str, place: str | None, now: float, run: int | None = None) -> None:
    """What was set aside there (None: anywhere) is in order again; of one run, or of all."""
    still = sa.and_(setbacks.c.kind == kind, setbacks.c.resolved.is_(None))
    if place is not None:
        still = sa.and_(still, setbacks.c.place == place)
    if run is not None:
        still = sa.and_(still, setbacks.c.run == run)
    connection.execute(sa.update(setbacks).where(still).values(resolved=now))


def resolve_setbacks_under(connection: Connection, start: str, now: float, run: int) -> None:
    """What was set aside of a run at any place whose name starts so is in order again."""
    still = sa.and_(setbacks.c.run == run, setbacks.c.resolved.is_(None))
    there = sa.and_(still, setbacks.c.place.startswith(start, autoescape=True))
    connection.execute(sa.update(setbacks).where(there).values(resolved=now))


def list_setbacks(connection: Connection, run: int | None = None, *, resolved: bool = False) -> list[Setback]:
    """What was set aside, oldest first: of a run, with what concerns no run in particular; or all of it."""
    query = sa.select(*(setbacks.c[name] for name in ("kind", "place", "reason", "run", "at", "resolved")))
    if run is not None:
        query = query.where(sa.or_(setbacks.c.run == run, setbacks.c.run.is_(None)))
    if not resolved:
        query = query.where(setbacks.c.resolved.is_(None))
    return [Setback(*row) for row in connection.execute(query.order_by(setbacks.c.id))]


def set_document(connection: Connection, run: int, key: str, content: Any, now: float) -> None:
    """Keep anything JSON can carry under a run and a key, in place of what was there. Raises TypeError."""
    text = json.dumps(content, allow_nan=False)
    connection.execute(sa.delete(documents).where(documents.c.run == run, documents.c.key == key))
    connection.execute(sa.insert(documents), {"run": run, "key": key, "content": text, "at": now})


def get_document(connection: Connection, run: int, key: str) -> Any:
    """What is kept under a run and a key; None if nothing is."""
    query = sa.select(documents.c.content).where(documents.c.run == run, documents.c.key == key)
    text = connection.execute(query).scalar_one_or_none()
    return None if text is None else json.loads(text)


def last_run(connection: Connection, key: str) -> int:
    """The last run that has a document under a key; -1 where none has."""
    found = connection.execute(sa.select(sa.func.max(documents.c.run)).where(documents.c.key == key)).scalar_one()
    return -1 if found is None else int(found)


def list_documents(connection: Connection, key: str) -> dict[int, Any]:
    """What is kept under a key, by run in order."""
    query = sa.select(documents.c.run, documents.c.content).where(documents.c.key == key)
    return {run: json.loads(text) for run, text in connection.execute(query.order_by(documents.c.run))}
