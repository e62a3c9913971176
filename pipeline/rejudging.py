"""What other gates would have said of past payloads. Pure: no event is read, nothing is made or published."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from calib.gates import GATES, Decision, Gate, Measure, Verdict, gate_from_settings, judge
from calib.iov import RunLumi
from calib.payload import Payload
from calib.verdict import meant, quantity
from pipeline.conditions_words import Refused
from pipeline.tables import as_text, columns
from pipeline.verdicts import Candidate

Table = Mapping[str, Any]


@dataclass(frozen=True)
class Entered:
    """A payload that people have put into the tag: it holds from a packed unit on, whatever the gates say."""

    since: int
    payload: str


@dataclass(frozen=True)
class Rejudged:
    """What was said of a payload, and what would be."""

    candidate: Candidate
    now: Verdict
    held_to: str | None
    """the payload id in force before it under the gates tried"""

    @property
    def differs(self) -> bool:
        """Whether the decision would be another."""
        return self.now.decision is not self.candidate.decision


def rejudge(
    found: Sequence[Candidate],
    gates: Callable[[int], Sequence[Gate]],
    entered: Sequence[Entered],
    get: Callable[[str], Payload],
) -> list[Rejudged]:
    """Judge payloads of one kind, in the order of their units, by the gates of their runs; `get` gives one by its id.

    Each is held to what would be in force under these gates: the last one before it that they let pass, or what people
    have entered since.
    """
    rejudged: list[Rejudged] = []
    for candidate in found:
        held = _held(candidate, rejudged, entered)
        of_run = gates(RunLumi.unpack(candidate.last).run)
        verdict = judge(get(candidate.payload), get(held) if held else None, of_run, get)
        rejudged.append(Rejudged(candidate, verdict, held))
    return rejudged


def _held(candidate: Candidate, before: Sequence[Rejudged], entered: Sequence[Entered]) -> str | None:
    then = next((one.candidate for one in reversed(before) if one.candidate.decision is Decision.PUBLISH), None)
    last = next((one.candidate for one in reversed(before) if one.now.decision is Decision.PUBLISH), None)
    if then is last and candidate.held_to is not None:
        # As it was: with all that people had done to the tag by then, which the tag of today may no longer show.
        return candidate.held_to or None
    since = last.first if last else -1
    later = [one for one in entered if since <= one.since <= candidate.first]
    if later:
        return max(later, key=lambda one: one.since).payload
    return last.payload if last else None


@dataclass(frozen=True)
class Trial:
    """Gates tried on the past payloads of a kind. Its text is a table with a summary."""

    kind: str
    version: int
    """processing version whose payloads these are"""
    gates: Sequence[Gate]
    """those tried on the last run; other runs may have others"""
    rows: tuple[Rejudged, ...]
    without_payload: int = 0
    """intervals of these runs that gave nothing to judge"""
    looks_back: bool = False
    """whether the calibration makes a payload from the one before, and so might have made others"""
    runs: tuple[int, ...] = ()
    """all runs that were judged, whatever was asked for"""

    @property
    def changes(self) -> tuple[Rejudged, ...]:
        """Those that would be judged otherwise."""
        return tuple(row for row in self.rows if row.differs)

    @property
    def exit_code(self) -> int:
        """0 all as it was, 2 there was nothing to judge, 3 some would be judged otherwise."""
        if not self.rows:
            return 2
        return 3 if self.changes else 0

    def text(self, width: int | None = None) -> str:
        """The table: then and now with the numbers the gates looked at, and how many would change."""
        if not self.rows:
            there = f"; runs {min(self.runs)} to {max(self.runs)} were judged" if self.runs else ""
            return "\n".join([f"no payload of kind {self.kind} was judged in these runs{there}", *self._without()])
        heads = ["units", "payload", "then", "would be (* differs)", "looked at (limit)", "why"]
        title = f"{self.kind}, processing version {self.version}"
        tried = "; ".join(map(str, self.gates)) or "none: all is published"
        table = as_text(heads, [_cells(row) for row in self.rows], title, width or columns(180))
        return "\n".join([table, f"gates tried: {tried}", *self._afterwords()])

    def __str__(self) -> str:
        return self.text()

    __repr__ = __str__

    def _afterwords(self) -> list[str]:
        ways = Counter(f"{row.candidate.decision} -> {row.now.decision}" for row in self.changes)
        which = f": {', '.join(f'{number} {way}' for way, number in sorted(ways.items()))}" if ways else ""
        lines = [f"{len(self.changes)} of {len(self.rows)} payloads would be judged otherwise{which}", *self._without()]
        if self.looks_back and self.changes:
            lines.append(
                f"{self.kind} is made from the payload before it: some could have come out otherwise themselves"
            )
        return lines

    def _without(self) -> list[str]:
        number = self.without_payload
        return [f"{number} intervals gave no payload and are not judged"] if number else []


def _cells(row: Rejudged) -> list[str]:
    candidate, now = row.candidate, row.now
    first, last = RunLumi.unpack(candidate.first), RunLumi.unpack(candidate.last)
    decision = f"{now.decision} *" if row.differs else str(now.decision)
    why = "; ".join(now.reasons) or (candidate.why and f"then: {candidate.why}")
    then = {(measure.gate, measure.what): measure for measure in candidate.measures}
    measures = "\n".join(_measure(measure, then.get((measure.gate, measure.what))) for measure in now.measures)
    return [f"{first} to {last}", candidate.payload[:12], str(candidate.decision), decision, measures, why]


def _measure(now: Measure, then: Measure | None) -> str:
    """A number with its limit; and what it was then, where either has changed."""
    words = f"{now.what} {quantity(now.value, now.unit)} ({now.limit:.6g})"
    if then is None or then == now:
        return words
    return f"{words}, then {quantity(then.value, then.unit)} ({then.limit:.6g})"


def with_settings(tables: Sequence[Table], changes: Mapping[str, Any]) -> Sequence[Table]:
    """Gates in force with some settings changed, named `GATE.KEY`; `GATE.ARRAY.KEY` where several are of a kind, and
    `GATE.ARRAY.PLACE.KEY` where several are of a kind and an array, which are counted from 1 in their order.

    Raises Refused, in words, for a gate that is not there, one that is not the only one, and a wrong setting or value.

    >>> with_settings([{"gate": "max_move", "array": "x", "limit": 0.1, "unit": "cm"}], {"max_move.limit": 0.2})
    [{'gate': 'max_move', 'array': 'x', 'limit': 0.2, 'unit': 'cm'}]
    """
    changed = [dict(table) for table in tables]
    names = _names(changed)
    for name, value in changes.items():
        gate, _, rest = name.partition(".")
        which, _, key = rest.rpartition(".")
        if not key:
            raise Refused(f"{name!r} is no setting of a gate, such as max_move.limit or max_move.x.limit")
        wanted = f"{gate}.{which}" if which else gate
        fit = [at for at, called in enumerate(names) if f"{called}.".startswith(f"{wanted}.")]
        if not fit:
            alike = [called for called, table in zip(names, changed, strict=True) if table["gate"] == gate]
            there = alike or names
            hint = meant(wanted if alike else gate, there) if there else "; none is in force"
            raise Refused(f"no gate {gate}{f' of {which}' if which else ''} is in force{hint}")
        _has_setting(changed[fit[0]], key)
        if len(fit) > 1:
            alike = [_apart(f"{names[at]}.{key}", changed[at], [changed[one] for one in fit]) for at in fit]
            raise Refused(f"{name} is a setting of {len(fit)} gates: say {', '.join(alike)}")
        changed[fit[0]][key] = value
    for table in changed:
        made(table)
    return changed


def _names(tables: Sequence[Table]) -> list[str]:
    """What each gate is called: by its kind and array, and its place among those of the same where there are more."""
    plain = [f"{table['gate']}.{table['array']}" if "array" in table else str(table["gate"]) for table in tables]
    return [f"{name}.{plain[: at + 1].count(name)}" if plain.count(name) > 1 else name for at, name in enumerate(plain)]


def _has_setting(table: Table, key: str) -> None:
    """Raise Refused where the gate of a table has no such setting; a table that is itself wrong is told of later."""
    gate = GATES.get(str(table["gate"]))
    known = [field.name for field in fields(gate)] if gate else [key]
    if key not in known:
        raise Refused(f"gate {table['gate']} has no setting `{key}`{meant(key, known)}")


def _apart(name: str, table: Table, others: Sequence[Table]) -> str:
    """The name of a gate's setting, with what the gate has otherwise than those of the same kind and array."""
    alike = [other for other in others if other.get("array") == table.get("array")]
    differ = [key for key in table if any(other.get(key) != table[key] for other in alike)]
    return name + (f" (of {', '.join(f'{key} {table[key]}' for key in differ)})" if differ else "")


def made(table: Table) -> Gate:
    """The gate of a table. Raises Refused."""
    try:
        return gate_from_settings(table)
    except ValueError as problem:
        raise Refused(str(problem)) from None
