"""Cut a run into chunks: whole units up to a size; a unit too large alone into fixed blocks. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from calib.iov import RunLumi
from pipeline.model import Chunk, Piece


@dataclass(frozen=True)
class Limits:
    """How large a chunk may get; None sets no limit."""

    events: int
    bytes: int | None
    block_events: int
    """how many events a block of a unit too large has"""
    units: int | None = None

    def __post_init__(self) -> None:
        for name in ("events", "bytes", "block_events", "units"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"chunks need a limit of at least 1 for {name}, not {value}")


@dataclass(frozen=True, slots=True)
class _Size:
    events: int = 0
    bytes: float = 0.0
    units: int = 0

    def __add__(self, other: _Size) -> _Size:
        return _Size(self.events + other.events, self.bytes + other.bytes, self.units + other.units)

    def within(self, limits: Limits) -> bool:
        return (
            self.events <= limits.events
            and (limits.bytes is None or self.bytes <= limits.bytes)
            and (limits.units is None or self.units <= limits.units)
        )


def one_byte(path: str) -> float:
    """The size of an event where nothing is known about the file."""
    return 1.0


def split(pieces: Iterable[Piece], limits: Limits, event_bytes: Callable[[str], float] = one_byte) -> Iterator[Chunk]:
    """The chunks of one run, one by one, from its pieces in the order of their units.

    `event_bytes` gives the size of an event of a file (path). Raises ValueError for units out of order or of two runs.
    """
    for index, (run, chosen) in enumerate(_cuts(pieces, limits, event_bytes)):
        yield Chunk(run, index, chosen)


def _cuts(
    pieces: Iterable[Piece], limits: Limits, event_bytes: Callable[[str], float]
) -> Iterator[tuple[int, tuple[Piece, ...]]]:
    held: list[Piece] = []
    size = _Size()
    run = -1
    for run, unit in _units(pieces):
        events = sum(piece.events for piece in unit)
        own = _Size(events, sum(piece.events * event_bytes(piece.path) for piece in unit), 1)
        if held and not (size + own).within(limits):
            yield run, tuple(held)
            held, size = [], _Size()
        if own.within(limits):
            held.extend(unit)
            size += own
        else:
            for block in _blocks(unit, own, limits):
                yield run, block
    if held:
        yield run, tuple(held)


def _units(pieces: Iterable[Piece]) -> Iterator[tuple[int, list[Piece]]]:
    """The pieces of each unit, with its run."""
    last, run = -1, -1
    for unit, found in groupby(pieces, key=lambda piece: piece.unit):
        own = RunLumi.unpack(unit).run
        if unit <= last or (last >= 0 and own != run):
            message = f"{RunLumi.unpack(unit)} after {RunLumi.unpack(last)}"
            raise ValueError(f"pieces must be of one run, in the order of their units, not {message}")
        last, run = unit, own
        yield run, list(found)


def _blocks(unit: Sequence[Piece], size: _Size, limits: Limits) -> Iterator[tuple[Piece, ...]]:
    """A unit too large, as chunks of whole blocks. Where a block ends depends on the unit alone."""
    blocks = max(1, limits.events // limits.block_events)
    if limits.bytes is not None and size.bytes:
        block_bytes = limits.block_events * size.bytes / size.events
        blocks = max(1, min(blocks, int(limits.bytes // block_bytes)))
    yield from _fixed(unit, blocks * limits.block_events)


def _fixed(pieces: Iterable[Piece], events: int) -> Iterator[tuple[Piece, ...]]:
    held: list[Piece] = []
    room = events
    for piece in pieces:
        rest = piece
        while rest.events >= room:
            held.append(replace(rest, stop=rest.start + room))
            rest = replace(rest, start=rest.start + room)
            yield tuple(held)
            held, room = [], events
        if rest.events:
            held.append(rest)
            room -= rest.events
    if held:
        yield tuple(held)
