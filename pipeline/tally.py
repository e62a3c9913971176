"""What became of the events of a chunk, unit by unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.calibration import packed_units
from calib.iov import RunLumi
from pipeline.model import Chunk, Columns, Counts, Piece

NOT_EXPRESS = "not express"
ELSEWHERE = "in other datasets"
"""why an event is left out of a pass over one dataset"""


class Unaccounted(Exception):
    """A step lost an event or made one twice."""


def is_express(numbers: NDArray[Any], fraction: Fraction) -> NDArray[np.bool_]:
    """Which event numbers belong to express: e is taken if `e * p mod q < p` for the share p/q. Exact, and the same
    however the run is cut.

    >>> is_express(np.arange(6), Fraction(1, 2)).tolist()
    [True, False, True, False, True, False]
    """
    p, q = fraction.numerator, fraction.denominator
    # Reduced first, so that the product cannot leave 64 bits for any event number.
    return (numbers.astype(np.uint64) % np.uint64(q)) * np.uint64(p) % np.uint64(q) < np.uint64(p)


def first_reason(events: int, filtered: Mapping[str, NDArray[np.bool_]]) -> NDArray[np.int64]:
    """The first reason that filters each event, by its place; -1 for events that are kept."""
    reason = np.full(events, -1, np.int64)
    for place, mask in reversed(list(enumerate(filtered.values()))):
        reason[np.asarray(mask)] = place
    return reason


def counts_of(
    events: Columns,
    outside: Mapping[str, NDArray[np.bool_]],
    inside: Columns,
    filtered: Mapping[str, NDArray[np.bool_]],
) -> dict[int, Counts]:
    """What became of the events, by packed unit: `outside` (reason to mask) of all of them, `filtered` of the rest."""
    all_units, inner = packed_units(events), packed_units(inside)
    lost = {name: by_unit(inner[mask]) for name, mask in filtered.items()}
    lost |= {name: by_unit(all_units[mask]) for name, mask in outside.items()}
    counts = {}
    for unit, read in by_unit(all_units).items():
        reasons = {name: found[unit] for name, found in lost.items() if unit in found}
        counts[unit] = Counts(read, read - sum(reasons.values()), reasons, 0)
    return counts


def by_unit(units: NDArray[np.int64]) -> dict[int, int]:
    """How many events each packed unit has.

    >>> by_unit(np.array([5, 5, 7]))
    {5: 2, 7: 1}
    """
    found, numbers = np.unique(units, return_counts=True)
    return dict(zip(found.tolist(), numbers.tolist(), strict=True))


def tally(chunk: Chunk, found: Sequence[Mapping[int, Counts]], bad: Sequence[tuple[Piece, str]]) -> list[Any]:
    """Counts by unit as JSON rows: unit, read, out, filtered by reason, bad.

    Raises Unaccounted when they are not those of the chunk.
    """
    total = {unit: Counts() for unit in chunk.units}
    for counts in found:
        for unit, count in counts.items():
            total[unit] = total[unit] + count
    for piece, _ in bad:
        total[piece.unit] = total[piece.unit] + Counts(read=piece.events, bad=piece.events)
    promised = {unit: sum(piece.events for piece in chunk.pieces if piece.unit == unit) for unit in total}
    for unit, count in total.items():
        if not count.balanced or count.read != promised[unit]:
            raise Unaccounted(f"{RunLumi.unpack(unit)}: {promised[unit]} events in the chunk, but {count}")
    return [[unit, c.read, c.out, dict(c.filtered), c.bad] for unit, c in total.items()]
