"""Read the events of a chunk's pieces, and hold the file to what was promised of it."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calib.calibration import packed_units
from jobs.retry import BadData
from pipeline.columns import join, length
from pipeline.events import SourceFile
from pipeline.experiments.interface import Experiment
from pipeline.model import Columns, EventSource, Piece

VANISHED_PATIENCE_S = 0.5

_CLOSED = frozenset({errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR})


class FileChanged(BadData):
    """A file no longer holds the events it held when it was registered."""


def is_closed(problem: Exception) -> bool:
    """Whether an error of the system says that one file cannot be opened, and nothing of any other.

    >>> is_closed(PermissionError(errno.EACCES, "denied")), is_closed(OSError(errno.EIO, "input/output"))
    (True, False)
    """
    return isinstance(problem, OSError) and problem.errno in _CLOSED


def can_be_opened(path: Path | str) -> bool:
    """Whether a file is there and may be read."""
    try:
        with open(path, "rb"):
            return True
    except OSError:
        return False


def open_patiently(path: str) -> SourceFile:
    """Open a file; one that is not there is looked for once more, as a network file system may be slow to show it."""
    if not os.path.exists(path):
        time.sleep(VANISHED_PATIENCE_S)
    return SourceFile.open(path)


def read_pieces(
    source: EventSource, experiment: Experiment, columns: tuple[str, ...], pieces: Sequence[Piece]
) -> Columns:
    """The events of these pieces of one file with `run`, `lumi`, `event`. Raises FileChanged when units differ."""
    parts = []
    for start, stop in joined_ranges(pieces):
        keys = experiment.identify(source, start, stop)
        read = source.arrays(experiment.tree, columns, start, stop)
        parts.append({**read, "run": keys.run, "lumi": keys.lumi, "event": keys.event})
    events = join(parts)
    promised = np.repeat([piece.unit for piece in pieces], [piece.events for piece in pieces])
    if not np.array_equal(np.sort(packed_units(events)), np.sort(promised)):
        message = f"{source.path}: {length(events)} events read, not the units registered; register the file again"
        raise FileChanged(message)
    return events


def read_sound(
    source: SourceFile, experiment: Experiment, columns: tuple[str, ...], pieces: Sequence[Piece]
) -> tuple[list[Columns], list[tuple[Piece, str]]]:
    """The events of these pieces that can be read, part by part, and the parts that cannot, with the reason.

    Whether an event can be read depends on the file alone, not on what is read with it: what the file keeps together
    (baskets of a column) is bad together, and nothing beside it.
    """
    try:
        return [read_pieces(source, experiment, columns, pieces)], []
    except BadData:
        breaks = source.breaks(experiment.tree)
    read = partial(read_pieces, source, experiment, columns)
    found = [part for piece in pieces for part in _salvaged(read, piece, breaks)]
    return [got for _, got in found if not isinstance(got, str)], [
        (at, got) for at, got in found if isinstance(got, str)
    ]


def _salvaged(
    read: Callable[[Sequence[Piece]], Columns], piece: Piece, breaks: NDArray[np.int64]
) -> Iterator[tuple[Piece, Columns | str]]:
    """The parts of a piece, each with its events or why they cannot be read."""
    try:
        events = read([piece])
    except BadData as problem:
        middle = _middle(piece, breaks, problem)
        if middle is None:
            yield piece, str(problem)
            return
        yield from _salvaged(read, replace(piece, stop=middle), breaks)
        yield from _salvaged(read, replace(piece, start=middle), breaks)
    else:
        yield piece, events


def _middle(piece: Piece, breaks: NDArray[np.int64], problem: BadData) -> int | None:
    """Where a piece that cannot be read is best cut in two; None where it is bad as a whole."""
    inside = breaks[(breaks > piece.start) & (breaks < piece.stop)]
    if len(inside):
        return int(inside[len(inside) // 2])
    # The entries can be read, but some are not what they were.
    return (piece.start + piece.stop) // 2 if isinstance(problem, FileChanged) and piece.events > 1 else None


def joined_ranges(pieces: Sequence[Piece]) -> Iterator[tuple[int, int]]:
    """The entry ranges of pieces of one file, neighbours joined so that they are read in one go.

    >>> list(joined_ranges([Piece("f", 5, 7, 1), Piece("f", 0, 2, 1), Piece("f", 2, 5, 2)]))
    [(0, 7)]
    """
    ordered = sorted(pieces, key=lambda piece: piece.start)
    start, stop = ordered[0].start, ordered[0].stop
    for piece in ordered[1:]:
        if piece.start != stop:
            yield start, stop
            start = piece.start
        stop = piece.stop
    yield start, stop
