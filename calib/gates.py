"""Is a payload fit to be published? Gates look at it, and at the one in force, and give a verdict with reasons."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, get_type_hints

import numpy as np

from calib.moved_share import MovedShare
from calib.moves import Moves
from calib.payload import Payload, is_payload_id
from calib.verdict import (
    Decision,
    Finding,
    Floats,
    Gate,
    Measure,
    Verdict,
    element,
    incomparable,
    lacks,
    meant,
    quantity,
    unfit,
    wrong_errors,
)

__all__ = [
    "GATES",
    "Decision",
    "Distance",
    "Finding",
    "Finite",
    "Gate",
    "GoodShare",
    "MaxMove",
    "Measure",
    "MinEntries",
    "MovedShare",
    "Moves",
    "Significance",
    "Verdict",
    "Within",
    "gate_from_settings",
    "judge",
    "nowhere",
]


@dataclass(frozen=True)
class Finite(Gate):
    """No NaN or infinity in these arrays; with none named, in any."""

    name: ClassVar[str] = "finite"
    arrays: tuple[str, ...] = ()

    def look(self, payload: Payload, in_force: Payload | None) -> Finding:
        """Rejects when a value is not finite."""
        measures = []
        for name in self.arrays or payload.arrays:
            if name not in payload.arrays:
                return lacks(payload, name)
            wrong = int(np.count_nonzero(~np.isfinite(payload[name])))
            measures.append(Measure(self.name, f"values of {name} that are not finite", wrong, 0))
        found = [f"{measure.value:.0f} {measure.what}" for measure in measures if measure.value]
        decision = Decision.REJECT if found else Decision.PUBLISH
        return Finding(decision, ", ".join(found), tuple(measures))


@dataclass(frozen=True)
class MinEntries(Gate):
    """At least so many entries, summed over the array."""

    name: ClassVar[str] = "min_entries"
    array: str
    minimum: float

    def look(self, payload: Payload, in_force: Payload | None) -> Finding:
        """Rejects when there are fewer."""
        if self.array not in payload.arrays:
            return lacks(payload, self.array)
        total, unit = float(payload[self.array].sum()), payload.units.get(self.array, "")
        measure = Measure(self.name, f"sum of {self.array}", total, self.minimum, unit)
        if total >= self.minimum:
            return Finding(Decision.PUBLISH, measures=(measure,))
        reason = (
            f"the sum of {self.array} is {quantity(total, unit)}, at least {quantity(self.minimum, unit)} are needed"
        )
        return Finding(Decision.REJECT, reason, (measure,))


@dataclass(frozen=True)
class GoodShare(Gate):
    """At least this share, 0 to 1, of the array has the value `code`."""

    name: ClassVar[str] = "good_share"
    array: str
    code: int
    minimum: float

    def __post_init__(self) -> None:
        _demand(0.0 <= self.minimum <= 1.0, f"minimum is a share from 0 to 1, not {self.minimum}")

    def look(self, payload: Payload, in_force: Payload | None) -> Finding:
        """Rejects when the share is less, or the array is empty."""
        if self.array not in payload.arrays:
            return lacks(payload, self.array)
        values = payload[self.array]
        good = int(np.count_nonzero(values == self.code))
        share = good / values.size if values.size else 0.0
        measure = Measure(self.name, f"share of {self.array} = {self.code}", share, self.minimum)
        if values.size and share >= self.minimum:
            return Finding(Decision.PUBLISH, measures=(measure,))
        # A share that rounds to the minimum must not read as if it had passed.
        reason = f"{self.array} is {self.code} for {good} of {values.size}, a share of {self.minimum:.6g} is needed"
        return Finding(Decision.REJECT, reason, (measure,))


@dataclass(frozen=True)
class Within(Gate):
    """Every value lies in `[low, high]`. `unit` is that of the limits and must be the payload's."""

    name: ClassVar[str] = "within"
    array: str
    low: float
    high: float
    unit: str

    def __post_init__(self) -> None:
        _demand(self.low <= self.high, f"low = {self.low} is above high = {self.high}")

    def look(self, payload: Payload, in_force: Payload | None) -> Finding:
        """Rejects when a value lies outside, or is no number."""
        if wrong := unfit(payload, self.array, self.unit):
            return wrong
        values = payload[self.array].astype(np.float64)
        outside = ~((values >= self.low) & (values <= self.high))
        measures = tuple(
            Measure(self.name, f"{edge} of {self.array}", float(value), limit, self.unit)
            for edge, value, limit in [
                ("smallest", values.min(initial=math.inf), self.low),
                ("largest", values.max(initial=-math.inf), self.high),
            ]
        )
        if not outside.any():
            return Finding(Decision.PUBLISH, measures=measures)
        first = int(np.flatnonzero(outside)[0])
        value, allowed = float(values.flat[first]), f"{self.low:.6g} to {quantity(self.high, self.unit)}"
        reason = f"{element(self.array, values, first)} is {quantity(value, self.unit)}, {allowed} is allowed"
        return Finding(Decision.REJECT, reason, measures)


@dataclass(frozen=True)
class MaxMove(Gate):
    """No value is further than `limit` from the payload in force. `unit` is the limit's and must be the payload's."""

    name: ClassVar[str] = "max_move"
    relative: ClassVar[bool] = True
    array: str
    limit: float
    unit: str

    def __post_init__(self) -> None:
        _demand(self.limit > 0, f"limit is a distance above 0, not {self.limit}")

    def look(self, payload: Payload, in_force: Payload | None) -> Finding:
        """Rejects a move too far, to what is no number, or to another shape or unit. A first value may be any."""
        if wrong := unfit(payload, self.array, self.unit):
            return wrong
        if in_force is None or self.array not in in_force.arrays:
            return Finding(Decision.PUBLISH)
        if wrong := incomparable(payload, in_force, self.array):
            return wrong
        move, which, before, now = _furthest(payload, in_force, self.array)
        allowed = f"at most {quantity(self.limit, self.unit)} are allowed"
        reason = f"{which} moved from {before:.6g} to {quantity(now, self.unit)}, {allowed}"
        return _limited(self, move, f"largest move of {self.array}", reason)


@dataclass(frozen=True)
class Distance(Gate):
    """No value is further than `limit` from that of the payload `reference` (its id), such as a survey or a simulation.

    `unit` is the limit's and must be the payload's. What the reference does not know (NaN) may be any.
    """

    name: ClassVar[str] = "distance"
    array: str
    reference: str
    limit: float
    unit: str

    def __post_init__(self) -> None:
        _demand(self.limit > 0, f"limit is a distance above 0, not {self.limit}")
        _demand(is_payload_id(self.reference), f"reference is the whole id of a payload, not {self.reference!r}")

    @property
    def standard(self) -> str:
        """The reference."""
        return self.reference

    def look(self, payload: Payload, in_force: Payload | None) -> Finding:
        """Rejects what is too far off, no number, or of another shape or unit; and all while the reference is gone."""
        if in_force is None:
            return Finding(Decision.REJECT, f"the reference {self.reference[:12]} is not among the payloads")
        if in_force.kind != payload.kind:
            return Finding(Decision.REJECT, f"the reference is of kind {in_force.kind}")
        if wrong := unfit(payload, self.array, self.unit):
            return wrong
        if self.array not in in_force.arrays:
            return Finding(Decision.REJECT, f"the reference has no array {self.array!r}")
        if wrong := incomparable(payload, in_force, self.array, "the reference"):
            return wrong
        off, which, there, here = _furthest(payload, in_force, self.array)
        allowed = f"at most {quantity(self.limit, self.unit)} apart are allowed"
        reason = f"{which} is {here:.6g}, in the reference {quantity(there, self.unit)}, {allowed}"
        return _limited(self, off, f"largest distance of {self.array} to the reference", reason)


@dataclass(frozen=True)
class Significance(Gate):
    """A change counts when it exceeds both `n_sigma` errors (new and old in quadrature) and `floor`.

    `error` names the array of errors, by default `<array>_error`. A floor above 0 needs its unit, the payload's.
    """

    name: ClassVar[str] = "significance"
    relative: ClassVar[bool] = True
    watches: ClassVar[bool] = True
    array: str
    n_sigma: float
    error: str = ""
    floor: float = 0.0
    unit: str = ""

    def __post_init__(self) -> None:
        _demand(self.n_sigma >= 0, f"n_sigma is 0 or more, not {self.n_sigma}")
        _demand(self.floor >= 0, f"floor is 0 or more, not {self.floor}")
        _demand(not self.floor or bool(self.unit), "a floor needs its unit, such as unit = 'cm'")

    def look(self, payload: Payload, in_force: Payload | None) -> Finding:
        """Says NO_CHANGE when no value has changed; never rejects but for what cannot be compared."""
        errors = self.error or f"{self.array}_error"
        for name in (self.array, errors):
            if name not in payload.arrays:
                return lacks(payload, name)
        if self.floor and (wrong := unfit(payload, self.array, self.unit)):
            return wrong
        if wrong := wrong_errors(payload, self.array, errors):
            return wrong
        if in_force is None or self.array not in in_force.arrays:
            return Finding(Decision.PUBLISH)
        for name in [name for name in (self.array, errors) if name in in_force.arrays]:
            if wrong := incomparable(payload, in_force, name):
                return wrong
        return self._compare(payload, in_force, errors)

    def _compare(self, payload: Payload, in_force: Payload, errors: str) -> Finding:
        old, new = _doubles(in_force, self.array), _doubles(payload, self.array)
        before = _doubles(in_force, errors) if errors in in_force.arrays else np.float64(0)
        # A value without error, such as a nominal one, counts as exact.
        after = _doubles(payload, errors)
        sigma = np.hypot(np.where(np.isnan(after), 0.0, after), np.where(np.isnan(before), 0.0, before))
        sigma = np.broadcast_to(sigma, new.shape)
        moves = np.where(np.isnan(old) & np.isnan(new), 0.0, _distance(old, new))
        moved = ~((moves <= self.n_sigma * sigma) | (moves <= self.floor))
        unit = payload.units.get(self.array, "")
        if not moves.size:
            return Finding(Decision.NO_CHANGE, f"{self.array} is empty, as before")
        most = _most_significant(moves, sigma)
        move, one = float(moves.flat[most]), float(sigma.flat[most])
        limit = max(self.n_sigma * one, self.floor)
        measure = Measure(self.name, f"most significant move of {self.array}", move, limit, unit)
        if moved.any():
            return Finding(Decision.PUBLISH, measures=(measure,))
        which, allowed = element(self.array, new, most), quantity(limit, unit)
        reason = f"{which} moved by {quantity(move, unit)}, up to {allowed} is no change"
        return Finding(Decision.NO_CHANGE, reason, (measure,))


GATES: Mapping[str, type[Gate]] = {
    gate.name: gate
    for gate in (Finite, MinEntries, GoodShare, Within, MaxMove, Distance, Significance, Moves, MovedShare)
}
"""every gate by the name settings use"""


def nowhere(payload_id: str) -> None:
    """There are no payloads to hold to."""


def judge(
    payload: Payload, in_force: Payload | None, gates: Sequence[Gate], find: Callable[[str], Payload | None] = nowhere
) -> Verdict:
    """The verdict over a payload. One gate that rejects is enough; NO_CHANGE needs every gate that watches to say so.

    Without a payload in force, and without a gate that watches, there is no NO_CHANGE. `find` gives the payload of an
    id, for gates that hold to one of their own; None where it is gone. Raises ValueError when the payload in force is
    of another kind.
    """
    if in_force is not None and in_force.kind != payload.kind:
        raise ValueError(f"a payload of kind {payload.kind!r} cannot be held to one of kind {in_force.kind!r}")
    findings = [(gate, gate.look(payload, find(gate.standard) if gate.standard else in_force)) for gate in gates]
    # JSON, in which verdicts are kept, knows neither NaN nor infinity.
    measures = tuple(m for _, finding in findings for m in finding.measures if math.isfinite(m.value))
    decision = Decision.PUBLISH
    watched = [finding for gate, finding in findings if gate.watches]
    if any(finding.decision is Decision.REJECT for _, finding in findings):
        decision = Decision.REJECT
    elif watched and all(finding.decision is Decision.NO_CHANGE for finding in watched):
        decision = Decision.NO_CHANGE
    reasons = (finding.reason for _, finding in findings if finding.decision is decision and finding.reason)
    return Verdict(payload.kind, decision, tuple(reasons), measures)


def gate_from_settings(table: Mapping[str, Any]) -> Gate:
    """The gate of a table such as `{gate = "max_move", array = "x", limit = 0.01, unit = "cm"}`.

    Raises ValueError naming the key that is unknown (with what may be meant), missing, or of the wrong type.

    >>> gate_from_settings({"gate": "min_entries", "array": "entries", "minimum": 1000})
    MinEntries(array='entries', minimum=1000)
    """
    if "gate" not in table:
        raise ValueError(f"`gate` is missing; it names one of {', '.join(GATES)}")
    made = GATES.get(str(table["gate"]))
    if made is None:
        raise ValueError(f"there is no gate {table['gate']!r}{meant(str(table['gate']), GATES)}")
    fields = {field.name: field for field in dataclasses.fields(made)}
    given = {key: value for key, value in table.items() if key != "gate"}
    for key in given:
        if key not in fields:
            raise ValueError(f"gate {made.name} has no setting `{key}`{meant(key, fields)}")
    needed = [name for name, field in fields.items() if field.default is dataclasses.MISSING]
    if missing := [name for name in needed if name not in given]:
        raise ValueError(f"gate {made.name} needs {', '.join(f'`{name}`' for name in missing)}")
    hints = get_type_hints(made)
    return made(**{key: _typed(made.name, key, value, hints[key]) for key, value in given.items()})


def _typed(gate: str, key: str, value: Any, hint: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    many = isinstance(value, list | tuple)
    texts = many and all(isinstance(text, str) for text in value)
    numbers = many and all(
        isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one) for one in value
    )
    fits, expected = {
        str: (isinstance(value, str), "a text"),
        int: (isinstance(value, int) and not isinstance(value, bool), "a whole number"),
        float: (number, "a number"),
        tuple[float, ...]: (numbers, "a list of numbers"),
    }.get(hint, (texts, "a list of texts"))
    if not fits:
        raise ValueError(f"`{key}` of gate {gate} is {expected}, not {value!r}")
    return tuple(value) if isinstance(value, list) else value


def _demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


def _doubles(payload: Payload, name: str) -> Floats:
    return payload[name].astype(np.float64)


def _distance(old: Floats, new: Floats) -> Floats:
    with np.errstate(invalid="ignore", over="ignore"):
        return np.where(old == new, 0.0, np.abs(new - old))


def _furthest(payload: Payload, other: Payload, name: str) -> tuple[float, str, float, float]:
    """The largest distance of the array between two payloads: how far, of which element, the value there and here.

    What the other does not know (NaN) is no distance; what this one does not know is infinitely far.
    """
    old, new = _doubles(other, name), _doubles(payload, name)
    if not new.size:
        return 0.0, name, 0.0, 0.0
    far = np.where(np.isnan(old), 0.0, np.where(np.isnan(new), math.inf, _distance(old, new)))
    worst = int(np.argmax(far))
    return float(far.flat[worst]), element(name, new, worst), float(old.flat[worst]), float(new.flat[worst])


def _limited(gate: MaxMove | Distance, off: float, measured: str, reason: str) -> Finding:
    """What a gate finds whose payload is `off` by so much, with the reason if that is over its limit."""
    within = off <= gate.limit
    measure = Measure(gate.name, measured, off, gate.limit, gate.unit)
    return Finding(Decision.PUBLISH if within else Decision.REJECT, "" if within else reason, (measure,))


def _most_significant(moves: Floats, sigma: Floats) -> int:
    with np.errstate(divide="ignore", invalid="ignore"):
        pulls = np.where(moves > 0, moves / sigma, 0.0)
    return int(np.argmax(np.where(np.isnan(moves), math.inf, pulls)))
