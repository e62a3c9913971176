"""Files of a tier that an earlier pass has left of a chunk, read back only where they are what was written."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from calib.calibration import packed_units
from calib.iov import RunLumi
from jobs.retry import BadData
from pipeline.columns import rows_by_unit
from pipeline.events import read_header, read_tier
from pipeline.model import Columns, Output, Stored
from pipeline.reading import is_closed
from pipeline.whole import checksum_of


class Unfit(BadData):
    """What an earlier pass has left of a chunk cannot be started from; the message says why."""


def read_stored(stored: Stored) -> Iterator[tuple[Columns, Mapping[str, str]]]:
    """The events of each file, all its columns, and the columns that its RAW lacked (name to reason).

    Raises Unfit for a file that is gone or not as it was written, for events that are not all in files, and where some
    were bad: those may be readable by now, which only RAW can tell.
    """
    _check_counts(stored)
    for file in stored.files:
        _check_file(file)
    seen: dict[int, int] = {}
    for file in stored.files:
        columns = read_tier(file.path)
        for unit, (rows, _) in rows_by_unit(packed_units(columns), columns["event"]).items():
            seen[unit] = seen.get(unit, 0) + rows
        yield columns, read_header(file.path)["absent"]
    for unit in sorted({*seen, *stored.counts}):
        kept = stored.counts[unit].out if unit in stored.counts else 0
        if seen.get(unit, 0) != kept:
            raise Unfit(f"{_words(unit)}: {kept} events came out, its files of {stored.tier} have {seen.get(unit, 0)}")


def _check_counts(stored: Stored) -> None:
    if bad := sum(count.bad for count in stored.counts.values()):
        raise Unfit(f"{bad} of its events were bad then")
    if not stored.counts:
        raise Unfit("nothing was booked of it")


def _check_file(file: Output) -> None:
    try:
        same = os.stat(file.path).st_size == file.size and checksum_of(Path(file.path)) == file.checksum
    except OSError as problem:
        if not isinstance(problem, FileNotFoundError) and not is_closed(problem):
            raise
        word = "is gone" if isinstance(problem, FileNotFoundError) else "cannot be opened"
        raise Unfit(f"{file.path} {word}") from None
    if not same:
        raise Unfit(f"{file.path} is not as it was written")


def _words(unit: int) -> str:
    run, lumi = RunLumi.unpack(unit)
    return f"run {run}, lumisection {lumi}"
