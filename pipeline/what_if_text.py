"""What-if in words and tables."""

from __future__ import annotations

from dataclasses import dataclass

from calib.iov import RunLumi
from pipeline.quantities import bytes_text, seconds_text
from pipeline.tables import as_text
from pipeline.two_ways import BothWays
from pipeline.what_if import Consequences, Touched


@dataclass(frozen=True)
class WhatIf:
    """What would follow, as a notebook and a terminal show it."""

    found: Consequences
    unit_name: str
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join([words(self.found, self.unit_name), *self.notes])

    __repr__ = __str__


def words(found: Consequences, unit_name: str) -> str:
    """All of it, for a terminal."""
    until = "on" if found.until is None else f"up to {RunLumi.unpack(found.until)}"
    head = f"{found.kind} {found.payload_id[:12]} from {RunLumi.unpack(found.since)} {until}, in {found.tag}"
    lines = [head, f"entered now, it would be {_fate(found)}"]
    if found.waiting:
        lines.append(f"runs not released yet that would use it: {', '.join(map(str, found.waiting))}")
    if not found.touched:
        return "\n".join([*lines, "no released run would change"])
    rows = [_row(touched) for touched in found.touched]
    heads = ["run", f"{unit_name}s", "which", "outputs", "size", "CPU"]
    lines.append(as_text(heads, rows, "released runs that would change, and what doing them again would take"))
    lines.append(f"in all: {len(rows)} runs, {bytes_text(found.size)}, {_cpu(found.cpu_s)} of CPU")
    lines += _shown(found.found) if found.found else []
    lines += [str(one) for one in found.compared]
    return "\n".join(lines)


def _fate(found: Consequences) -> str:
    fate = found.fate
    where = f", from {fate.given}" if fate.given is not None else ""
    return f"{fate.kind.value}{where}{': ' if fate.explanation else ''}{fate.explanation}"


def _row(touched: Touched) -> list[str]:
    which = ", ".join(f"{_lumi(first)}-{_lumi(last)}" for first, last in touched.ranges)
    outputs = ", ".join(f"{held.tier}: {held.events} events in {held.files} files" for held in touched.outputs)
    return [
        str(touched.run),
        str(touched.units),
        which,
        outputs or "not done yet",
        bytes_text(touched.size),
        _cpu(touched.cpu_s),
    ]


def _lumi(unit: int) -> int:
    return RunLumi.unpack(unit).lumi


def _cpu(seconds: float) -> str:
    return seconds_text(round(seconds, 1 if seconds < 100 else 0))


def _shown(both: BothWays) -> list[str]:
    found = both.differences
    lines = [f"of {found.events} sampled events {found.changed} would change"]
    if found.lost or found.gained:
        lines[0] += f" ({found.lost} no longer kept, {found.gained} kept anew)"
    moved = [(name, column) for name, column in found.columns.items() if column.moved]
    rows = [[name, f"{c.moved} of {c.values}", f"{c.largest:.4g}"] for name, c in moved]
    return [*lines, *([as_text(["column", "values that move", "by at most"], rows)] if rows else [])]
