"""What a turn of the loop has brought, until it is written down with what follows from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection

from pipeline.books import Books
from pipeline.journal import Setback, add_setbacks
from pipeline.way import Way


class Minutes:
    """Entries in the order they came, and where runs stand. Kept until `done`: a transaction may be rolled back."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._entries: list[Callable[[Connection], None]] = []
        self._told: dict[int, Way] = {}

    def __bool__(self) -> bool:
        return bool(self._entries or self._told)

    def add(self, enter: Callable[..., None], *given: Any) -> None:
        """Have `enter(connection, *given)` called."""
        self._entries.append(lambda connection: enter(connection, *given))

    def set_aside(self, run: int, kind: str, place: str, reason: str) -> None:
        """Have a setback of a run written down."""
        self.add(add_setbacks, [Setback(kind, place, reason, run)], self._books.now())

    def tell(self, way: Way) -> None:
        """Have it written down where a run stands by then."""
        self._told[way.run] = way

    def write(self, connection: Connection) -> None:
        """Write it all down, in a transaction of the caller."""
        for enter in self._entries:
            enter(connection)
        for way in self._told.values():
            self._books.enter(connection, way.run, "status", way.status())

    def done(self) -> None:
        """What was written is committed."""
        self._entries.clear()
        self._told.clear()
