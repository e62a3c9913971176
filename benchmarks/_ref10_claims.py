"""What is claimed of the reconstruction against what is seen of it, and lines that say where the two differ."""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks._ref10_costs import aligned

SIGMAS = 3.0
"""statistical errors beyond its tolerance by which a prediction may be missed"""


def new_seed() -> int:
    """A seed that no test uses: theirs are below a million."""
    return 1_000_000 + secrets.randbelow(1 << 30)


@dataclass(frozen=True)
class Limits:
    """A figure that must lie between two values, as it is seen: samples are so large that its error matters little."""

    name: str
    seen: float
    error: float
    low: float = -math.inf
    high: float = math.inf
    unit: str = ""
    digits: int = 3

    @property
    def judged(self) -> bool:
        """Whether there is a limit."""
        return not (math.isinf(self.low) and math.isinf(self.high))

    @property
    def missed(self) -> bool:
        """Whether it does not; what is not a number lies nowhere."""
        return self.judged and not self.low <= self.seen <= self.high

    def row(self) -> list[str]:
        """Name, seen, error, limits, verdict."""
        if math.isinf(self.low):
            wanted = "shown only" if math.isinf(self.high) else f"< {_number(self.high, self.digits)}"
        elif math.isinf(self.high):
            wanted = f"> {_number(self.low, self.digits)}"
        else:
            wanted = f"{_number(self.low, self.digits)} .. {_number(self.high, self.digits)}"
        seen, error = (_number(value, self.digits) for value in (self.seen, self.error))
        return [self.name, seen, f"+- {error}", self.unit, wanted, "MISSED" if self.missed else ""]


def about(name: str, seen: tuple[float, float], predicted: float, tolerance: float, unit: str = "") -> Limits:
    """Within a relative tolerance of what is predicted."""
    value, error = seen
    digits = max(2 - math.floor(math.log10(abs(predicted))), 0) if predicted else 3
    return Limits(name, value, error, predicted * (1 - tolerance), predicted * (1 + tolerance), unit, digits)


@dataclass(frozen=True)
class Damage:
    """What a wrong condition does, predicted by the physics note and by a formula, where there is one; and seen."""

    condition: str
    figure: str
    unit: str
    seen: tuple[float, float]
    """and its statistical error"""
    note: float | None = None
    formula: float | None = None
    tolerance: float = 0.3
    """relative, of the formula; the note's figures are of toys without pattern recognition and good to 30 % (its 14)"""
    near: float = 0.0
    """absolute, of both"""

    NOTE = 0.3

    @property
    def judged(self) -> bool:
        """Whether anything is predicted."""
        return self.note is not None or self.formula is not None

    @property
    def missed(self) -> bool:
        """Whether a prediction is missed by more than its tolerance and three statistical errors; what is not a number
        misses."""
        return not (self._meets(self.note, self.NOTE) and self._meets(self.formula, self.tolerance))

    def _meets(self, predicted: float | None, tolerance: float) -> bool:
        if predicted is None:
            return True
        value, error = self.seen
        return abs(value - predicted) <= max(tolerance * abs(predicted), self.near) + SIGMAS * error

    def row(self) -> list[str]:
        """Condition, figure, note, formula, seen, error, tolerance, verdict."""
        sizes = [abs(value) for value in (self.note, self.formula, self.seen[0]) if value]
        digits = max(2 - math.floor(math.log10(max(sizes))), 0) if sizes and all(map(math.isfinite, sizes)) else 3
        predicted = ["" if value is None else _number(value, digits) for value in (self.note, self.formula)]
        told = f"{100 * self.tolerance:.0f} %" if self.formula is not None else f"{100 * self.NOTE:.0f} %"
        if self.near:
            told = f"{told} or {self.near:g} {self.unit}".strip()
        if self.note is None and self.formula is None:
            told = "shown only"
        value, error = (_number(number, digits) for number in self.seen)
        return [
            f"{self.condition}: {self.figure}" + (f" [{self.unit}]" if self.unit else ""),
            *predicted,
            value,
            f"+- {error}",
            told,
            "MISSED" if self.missed else "",
        ]


DAMAGES = ["wrong condition: what it does", "note", "formula", "seen", "", "within", ""]
FIGURES = ["", "seen", "", "", "wanted", ""]


def told(claims: Sequence[Limits] | Sequence[Damage], heading: Sequence[str]) -> str:
    """A table of claims."""
    return aligned([heading, *(claim.row() for claim in claims)])


def verdict(claims: Sequence[Limits | Damage], *, judged: bool = True) -> tuple[str, int]:
    """One line that says how many are missed, and the exit code."""
    if not judged:
        return "too few events of a part of the detector: nothing is judged", 0
    wanted = [claim for claim in claims if claim.judged]
    missed = sum(claim.missed for claim in wanted)
    if missed or not wanted:
        return f"MISSED: {missed} of {len(wanted)}", 1
    return f"none of {len(wanted)} is missed", 0


def concluded(claims: Sequence[Limits] | Sequence[Damage], heading: Sequence[str], *, judged: bool) -> int:
    """Print the table of claims and the line below it; the exit code."""
    line, missed = verdict(claims, judged=judged)
    print(told(claims, heading), line, sep="\n")
    return missed


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}"
