"""Waivers: named people accept that a run goes on where a rule stops one of its kinds of conditions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.orders import Order, What, moment

VERSION, PAYLOADS = "version", "payloads"
"""the terms of a waiver: the processing version it is for, and the payloads that are to be published"""


@dataclass(frozen=True, slots=True)
class Signature:
    """Who agrees, when (seconds since 1970) and why."""

    who: str
    at: float
    reason: str


@dataclass(frozen=True, slots=True)
class Waiver:
    """Some people's consent, for one run and kind in one processing version. Signatures in the order given."""

    signed: tuple[Signature, ...]
    payloads: tuple[str, ...] = ()
    """ids of what is to be published though a rule is against it; with none, the payload in force goes on"""

    def __str__(self) -> str:
        names = ", ".join(f"{one.who} ({moment(one.at)}: {one.reason})" for one in self.signed)
        return f"under a waiver by {names}"

    def to_document(self) -> dict[str, Any]:
        """As JSON."""
        signed = [{"who": one.who, "at": one.at, "reason": one.reason} for one in self.signed]
        return {"signed": signed, "payloads": list(self.payloads)}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Waiver:
        """Read it back."""
        return cls(tuple(Signature(**one) for one in document["signed"]), tuple(document["payloads"]))


def waivers_given(orders: Iterable[Order], run: int, version: int) -> dict[str, list[Waiver]]:
    """All that is waived of a run, by kind; those who agree on the same terms together, the latest last.

    A later waiver of the same person takes the place of an earlier one; withdrawing takes away all of the kind.
    """
    latest: dict[str, dict[str, Order]] = {}
    for order in orders:
        if order.run != run or order.terms.get(VERSION) != version:
            continue
        if order.what is What.WITHDRAW:
            latest.pop(order.kind, None)
        elif order.what is What.WAIVE:
            of_kind = latest.setdefault(order.kind, {})
            of_kind.pop(order.who, None)
            of_kind[order.who] = order
    return {kind: _by_terms(of_kind.values()) for kind, of_kind in latest.items()}


def _by_terms(orders: Iterable[Order]) -> list[Waiver]:
    together: dict[tuple[str, ...], list[Signature]] = {}
    for order in orders:
        terms = tuple(order.terms[PAYLOADS])
        signed = together.pop(terms, [])
        together[terms] = [*signed, Signature(order.who, order.at, order.reason)]
    return [Waiver(tuple(signed), terms) for terms, signed in together.items()]


def waivers_in_force(given: Mapping[str, list[Waiver]], need: int) -> dict[str, Waiver]:
    """The waivers that enough different people have signed; of several for a kind the latest."""
    return {kind: full[-1] for kind, found in given.items() if (full := [w for w in found if len(w.signed) >= need])}


def waiver_text(run: int, kind: str, waiver: Waiver, need: int) -> str:
    """A waiver in words, with what it still needs."""
    missing = need - len(waiver.signed)
    text = f"run {run}: {kind} {'may be published' if waiver.payloads else 'may go on'} {waiver}"
    more = f"; it needs {missing} more {'name' if missing == 1 else 'names'}, other than these, on the same terms"
    return text + (more if missing > 0 else "")
