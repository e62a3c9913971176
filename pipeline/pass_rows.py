"""In how many passes calibrations are made, and the later passes of a run, as they are kept and told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from calib.calibration import Calibration
from calib.graph import levels
from calib.iteration import Iterated
from pipeline.books import Books
from pipeline.journal import get_document
from pipeline.restarts import Start, start_of

PASSES = "passes"
"""the record of a run's later passes: for which kinds, of which products, in which job, in how many seconds"""


def order_of(calibrations: Sequence[Calibration]) -> str:
    """Which calibrations go after which, in words; empty where none goes after another and none iterates."""
    level_of = levels({calibration.kind: calibration.after for calibration in calibrations})
    iterates = {calibration.kind for calibration in calibrations if isinstance(calibration, Iterated)}
    found: dict[int, list[str]] = {}
    for kind, level in level_of.items():
        found.setdefault(level, []).append(f"{kind} (iterates)" if kind in iterates else kind)
    return " -> ".join(", ".join(kinds) for kinds in found.values()) if iterates or len(found) > 1 else ""


@dataclass(frozen=True)
class PassRow:
    """A pass over the events of express once more."""

    kinds: tuple[str, ...]
    number: int
    """the how-manieth for these kinds"""
    seconds: float
    start: Start | None
    """what it has read instead of RAW"""

    def __str__(self) -> str:
        read = self.start or "reads RAW"
        number = f" {self.number}" if self.number > 1 else ""
        return f"pass{number} for {', '.join(self.kinds)} {read} ({self.seconds:.1f} s)"


def passes_of(connection: Connection, books: Books, run: int) -> tuple[PassRow, ...]:
    """The passes of a run that are done, in the order they began."""
    kept = get_document(connection, run, books.key(PASSES)) or {"passes": ()}
    found, numbers = [], Counter[tuple[str, ...]]()
    for row in kept["passes"]:
        kinds = tuple(row["kinds"])
        numbers[kinds] += 1
        if row["seconds"] is not None:
            found.append(PassRow(kinds, numbers[kinds], row["seconds"], start_of(connection, run, row["job"])))
    return tuple(found)
