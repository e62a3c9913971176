"""What closure leaves in doubt: units whose conditions do not close, until a person has accepted them by name. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from calib.closure import Closes
from calib.iov import RunLumi
from pipeline.closing import Closed
from pipeline.orders import Order, What
from pipeline.waivers import PAYLOADS, VERSION

CLOSURE = "closure"
"""the entry of a certification that has what closure found"""


class Then(StrEnum):
    """What becomes of units whose conditions do not close."""

    ASK = "ask"
    """a person is asked; until one has accepted them they are in no good-run list"""
    BAD = "bad"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Doubt:
    """A payload that does not close; and who has accepted it all the same, if anybody has."""

    closed: Closed
    accepted: str = ""

    @property
    def units(self) -> tuple[int, int]:
        """First and last packed unit."""
        return self.closed.first, self.closed.last

    @property
    def run(self) -> int:
        """Whose."""
        return RunLumi.unpack(self.closed.first).run

    def __str__(self) -> str:
        way_on = f"`tier0 certify accept {self.run} {self.closed.kind} --reason ...` lets it into the good-run list"
        return f"{self.closed}; {f'accepted by {self.accepted}' if self.accepted else way_on}"


def closure_document(closed: Iterable[Closed], then: Then) -> dict[str, Any]:
    """What closure found, and what becomes of it, as JSON."""
    return {"then": then.value, "found": [one.to_document() for one in closed]}


def closures(certification: Mapping[str, Any]) -> list[Closed]:
    """What closure found of a certified run."""
    return [Closed.from_document(row) for row in certification.get(CLOSURE, {"found": ()})["found"]]


def counted(certification: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Kind to how many of its payloads closed, did not, and were not judged."""
    found: dict[str, Counter[str]] = {}
    for closed in closures(certification):
        found.setdefault(closed.kind, Counter())[closed.closure.answer.value] += 1
    return {kind: dict(counts) for kind, counts in found.items()}


def doubts(certification: Mapping[str, Any], orders: Iterable[Order], version: int) -> list[Doubt]:
    """The payloads of a run that do not close and that a person is to be asked about, whoever has accepted them."""
    if certification.get(CLOSURE, {}).get("then") != Then.ASK:
        return []
    run = int(certification["run"])
    accepted: dict[tuple[str, str], str] = {}
    for order in orders:
        if order.what is What.ACCEPT and order.run == run and order.terms.get(VERSION) == version:
            accepted |= {(order.kind, payload): order.signed for payload in order.terms[PAYLOADS]}
    wrong = [closed for closed in closures(certification) if closed.closure.answer is Closes.NO]
    return [Doubt(closed, accepted.get((closed.kind, closed.payload), "")) for closed in wrong]


def open_units(closed: Iterable[Closed], units: Sequence[int]) -> dict[int, list[str]]:
    """What speaks against the units of a run (packed) whose conditions do not close."""
    found: dict[int, list[str]] = {}
    for one in closed:
        for unit in units if one.closure.answer is Closes.NO else ():
            if one.first <= unit <= one.last:
                found.setdefault(unit, []).append(str(one))
    return found


def in_doubt(found: Iterable[Doubt], certification: Mapping[str, Any]) -> list[int]:
    """The packed units in the good ranges of a certification that some doubt is left about."""
    good = [
        RunLumi(int(run), lumi).packed
        for run, ranges in certification["good"].items()
        for first, last in ranges
        for lumi in range(first, last + 1)
    ]
    left = [doubt.units for doubt in found if not doubt.accepted]
    return [unit for unit in good if any(first <= unit <= last for first, last in left)]
