"""What the gates said of every payload the loop has made, kept so that other gates can be tried on it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection

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
            document = {"intervals": [_plain(judged) for judged in chain.found(one)]}
            books.enter(connection, one, key_of(chain.kind), document)


def _plain(judged: Judged) -> dict[str, Any]:
    return {
        "first": judged.first,
        "last": judged.last,
        "outcome": judged.outcome.value,
        "payload": judged.payload,
        "decision": judged.decision.value if judged.decision else None,
        "why": judged.why,
        "measures": [asdict(measure) for measure in judged.measures],
        "held_to": judged.held_to,
    }


def candidates(documents: Iterable[Mapping[str, Any]]) -> list[Candidate]:
    """The judged payloads of several runs in the order of their units; one made over several runs is there once."""
    rows = (row for document in documents for row in document["intervals"] if row["decision"] is not None)
    found = {(row["first"], row["last"]): _candidate(row) for row in rows}
    return [found[units] for units in sorted(found)]


def _candidate(row: Mapping[str, Any]) -> Candidate:
    measures = tuple(Measure(**measure) for measure in row["measures"])
    decision = Decision(row["decision"])
    return Candidate(row["first"], row["last"], row["payload"], decision, row["why"], measures, row["held_to"])


def without_payload(documents: Iterable[Mapping[str, Any]]) -> int:
    """How many intervals gave nothing to judge: too little data, or no convergence."""
    rows = (row for document in documents for row in document["intervals"] if row["decision"] is None)
    return len({(row["first"], row["last"]) for row in rows})
