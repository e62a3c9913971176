"""Some events of a run, chosen by rule: a sample spread over it, or its first part. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import groupby

from pipeline.model import Chunk, Piece

MOST_UNITS = 20
"""a sample is taken from so many units at most"""


def sample(run: int, pieces: Sequence[Piece], events: int, most_units: int = MOST_UNITS) -> list[Chunk]:
    """About so many events, from units spread evenly over those given: the first of each, one chunk a unit.

    Raises ValueError for a sample of nothing.
    """
    if events < 1:
        raise ValueError(f"a sample has at least one event, not {events}")
    units = _units(pieces)
    wanted = min(len(units), most_units, events)
    if not wanted:
        return []
    chosen = [units[place * len(units) // wanted] for place in range(wanted)]
    share = -(-events // wanted)
    return [Chunk(run, index, _first(unit, share)) for index, unit in enumerate(chosen)]


def first_part(run: int, pieces: Sequence[Piece], part: int | Fraction) -> list[Chunk]:
    """The first units of a run, as many as said, or as many events as a share of all; one chunk a unit."""
    units = _units(pieces)
    if isinstance(part, Fraction):
        total = sum(piece.events for piece in pieces)
        left = -(-total * part.numerator // part.denominator)
        taken = []
        for unit in units:
            if left > 0:
                taken.append(_first(unit, left))
                left -= sum(piece.events for piece in unit)
        return [Chunk(run, index, unit) for index, unit in enumerate(taken)]
    return [Chunk(run, index, tuple(unit)) for index, unit in enumerate(units[:part])]


def _units(pieces: Iterable[Piece]) -> list[list[Piece]]:
    ordered = sorted(pieces, key=lambda piece: (piece.unit, piece.path, piece.start))
    return [list(found) for _, found in groupby(ordered, key=lambda piece: piece.unit)]


def _first(pieces: Sequence[Piece], events: int) -> tuple[Piece, ...]:
    taken: list[Piece] = []
    for piece in pieces:
        if events <= 0:
            break
        taken.append(replace(piece, stop=min(piece.stop, piece.start + events)))
        events -= taken[-1].events
    return tuple(taken)
