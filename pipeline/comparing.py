"""Where two tags, two global tags, or one of them at two moments answer differently, and by how much."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from sqlalchemy import Connection

from calib.differences import Difference, Distance, Lacking, differences, distances
from calib.iov import Clock
from pipeline.conditions_words import Refused, Source, sources_of, spoken
from pipeline.tables import as_text, columns
from pipeline.world import World


@dataclass(frozen=True)
class Row:
    """One interval of a kind over which the answers differ; `distances` where they were asked for."""

    kind: str
    difference: Difference
    distances: tuple[Distance, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """The rows by kind and in order; `only` are kinds that just one of the two has. Its text is a table."""

    one: str
    other: str
    rows: tuple[Row, ...]
    only: tuple[tuple[str, str], ...] = ()
    """kind, and which of the two has it"""
    values: bool = False

    @property
    def exit_code(self) -> int:
        """0 the same answers everywhere, 3 not."""
        return 3 if self.rows or self.only else 0

    def text(self, width: int | None = None) -> str:
        """The table."""
        lines = [f"only {which} has kind {kind}" for kind, which in self.only]
        if not self.rows:
            return "\n".join([*lines, f"{self.one} and {self.other} answer the same" if not lines else ""]).strip()
        heads = ["kind", "interval", self.one, self.other]
        cells = [_cells(row) for row in self.rows]
        if self.values:
            heads += ["array", "largest distance", "in sigma", "changed"]
            names = {Lacking.ONE: self.one, Lacking.OTHER: self.other}
            cells = [line for row in self.rows for line in _with_values(row, names)]
        return "\n".join([as_text(heads, cells, width=width or columns(160)), *lines])

    def __str__(self) -> str:
        return self.text()

    __repr__ = __str__


def compare(world: World, connection: Connection, one: str, other: str, values: bool = False) -> Comparison:
    """Compare what two names mean, see `sources_of`. Raises Refused where they cannot be, and UnknownTag."""
    first, second = sources_of(world, connection, one), sources_of(world, connection, other)
    kinds = sorted(first.keys() & second.keys())
    if not kinds:
        has = [f"{words} has {', '.join(found)}" for words, found in ((one, first), (other, second))]
        raise Refused(f"no kind is in both: {'; '.join(has)}")

    @cache
    def apart(left: str, right: str) -> tuple[Distance, ...]:
        return tuple(distances(world.store.get(left), world.store.get(right)))

    rows = []
    for kind in kinds:
        for found in _differences(world, connection, first[kind], second[kind]):
            both = values and found.one and found.other
            rows.append(Row(kind, found, apart(found.one or "", found.other or "") if both else ()))
    only = [
        (kind, words)
        for words, here, there in ((one, first, second), (other, second, first))
        for kind in here - there.keys()
    ]
    return Comparison(one, other, tuple(rows), tuple(only), values)


def _differences(world: World, connection: Connection, one: Source, other: Source) -> list[Difference]:
    if (one.tag.clock is Clock.TIME) is not (other.tag.clock is Clock.TIME):
        raise Refused(f"{one} goes by {one.tag.clock}, {other} by {other.tag.clock}: they cannot be compared")
    db = world.conditions(connection)
    return differences(one.intervals(db), other.intervals(db))


def _cells(row: Row) -> list[str]:
    found = row.difference
    interval = f"[{spoken(found.since)}, {spoken(found.until)})"
    return [row.kind, interval, *(name[:12] if name else "nothing" for name in (found.one, found.other))]


def _with_values(row: Row, names: Mapping[Lacking, str]) -> Iterator[list[str]]:
    """One line an array; what is the same for all of them is said once."""
    head = _cells(row)
    for distance in row.distances:
        why = f"{names[distance.lacking]} has none" if distance.lacking else distance.why
        yield [*head, distance.array, *((why, "", "") if why else _values(distance))]
        head = [""] * len(head)
    if not row.distances:
        yield [*head, "", "", "", ""]


def _values(distance: Distance) -> Sequence[str]:
    sigma = "" if distance.sigma is None else f"{distance.sigma:.3g}"
    return distance.far, sigma, f"{distance.changed} of {distance.size}"
