"""What the gates said of every payload the loop has made, kept so that other gates can be tried on it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection

from calib.calibration import Outcome
from calib.gates import Decision, Measure
from calib.iov import RunLumi
from pipeline.books import Books
from pipeline.chain import Chain
from pipeline.handshake import Judged


@dataclass(frozen=True)
class Candidate:
    """A payload made from the packed units `first` to `last`, and what was said of it then."""

    first: int
    last: int
    payload: str
    decision: Decision
    why: str = ""
    measures: tuple[Measure, ...] = ()
    held_to: str | None = None
    """the payload id it was compared with; empty where there was none, None where no gate compared"""


def key_of(kind: str) -> str:
    """The name of the record of a kind's verdicts for a run."""
    return f"verdicts {kind}"


def keep_verdicts(connection: Connection, books: Books, chain: Chain, run: int) -> None:
    """Write down what a chain has concluded up to a run, and what was said of it: before anything is done on it.

    An interval that spans runs is in the record of each.
    """
    first = min((RunLumi.unpack(judged.first).run for judged in chain.found(run)), default=run)
    for one in chain.runs[bisect_left(chain.runs, first) : bisect_right(chain.runs, run)]:
        if chain.found(one):
            document = {"intervals": [to_document(judged) for judged in chain.found(one)]}
            books.enter(connection, one, key_of(chain.kind), document)


def to_document(judged: Judged) -> dict[str, Any]:
    """A conclusion as JSON."""
    return asdict(judged)


def from_document(found: Mapping[str, Any]) -> Judged:
    """Read what `to_document` gave."""
    decision = Decision(found["decision"]) if found["decision"] else None
    measures = tuple(Measure(**measure) for measure in found.get("measures", ()))
    lists = {"measures": measures, "vetoed": tuple(found.get("vetoed", ()))}
    return Judged(**{**found, **lists, "outcome": Outcome(found["outcome"]), "decision": decision})


def candidates(documents: Iterable[Mapping[str, Any]]) -> list[Candidate]:
    """The judged payloads of several runs in the order of their units; one made over several runs is there once."""
    rows = (row for document in documents for row in document["intervals"] if row["decision"] is not None)
    found = {(row["first"], row["last"]): _candidate(row) for row in rows}
    return [found[units] for units in sorted(found)]


def _candidate(row: Mapping[str, Any]) -> Candidate:
    one = from_document(row)
    if one.payload is None or one.decision is None:
        raise ValueError(f"what the units {one.first} to {one.last} gave was not judged")
    return Candidate(one.first, one.last, one.payload, one.decision, one.why, one.measures, one.held_to)


def without_payload(documents: Iterable[Mapping[str, Any]]) -> int:
    """How many intervals gave nothing to judge: too little data, or no convergence."""
    rows = (row for document in documents for row in document["intervals"] if row["decision"] is None)
    return len({(row["first"], row["last"]) for row in rows})
