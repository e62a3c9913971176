"""Runs that an operator keeps from prompt, whatever their conditions say and whatever the settings."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline import journal
from pipeline.books import Books

HOLD = "hold"


@dataclass(frozen=True)
class Holds:
    """The holds of one Tier-0, each with its reason and the name of who put it."""

    books: Books
    author: str

    def put(self, run: int, reason: str) -> None:
        """Keep a run's prompt from being released until the hold is lifted."""
        self.books.record_for_ever(run, HOLD, {"reason": f"{self.author}: {reason}"})

    def lift(self, run: int) -> None:
        """Take a hold back: the next `run` releases the run when its conditions allow."""
        self.books.record_for_ever(run, HOLD, {})

    def why(self, run: int) -> str:
        """Who holds a run, and why; empty if nobody does."""
        with self.books.database.read() as connection:
            found = journal.get_document(connection, run, HOLD)
        return str(found["reason"]) if found else ""
