"""The accounts: what became of every event, which files came of it, and which job made what."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from calib.iov import RunLumi
from jobs.events import Refused
from pipeline import catalog
from pipeline.model import Counts, Output, Rows, Step, Stored, Stream
from pipeline.schema import counts, filtered, outputs, products


class Unbalanced(Refused):
    """Events of a unit are unaccounted for: `read` is not `out + filtered + bad`, or not what the catalogue has, or
    `out` is not what lies in the files."""


@dataclass(frozen=True, slots=True)
class Task:
    """On whose account something is booked: a job over the chunks of one layout of a run."""

    job: str
    run: int
    step: Step
    layout: str


_OUTPUT = [outputs.c[name] for name in ("tier", "leaf", "path", "size", "checksum", "events")]

LeafRows = Mapping[str, Mapping[int, Rows]]
"""of one chunk: tier to packed unit to what lies in its files"""


def book(
    connection: Connection,
    task: Task,
    found: Mapping[int, Mapping[int, Counts]],
    written: Iterable[Output] = (),
    rows: Mapping[int, LeafRows] | None = None,
) -> None:
    """Record what became of the events of some chunks: leaf to packed unit to counts; and the files written, with the
    rows in them by leaf.

    Raises Unbalanced, naming the unit, when an event of a chunk is missing or is there twice.
    """
    if not found:
        return
    _check(connection, task, found)
    for leaf, tiers in (rows or {}).items():
        _check_rows(f"chunk {leaf}, {task.step}", found[leaf], tiers)
    entries = [(leaf, unit, count) for leaf, by_unit in found.items() for unit, count in by_unit.items()]
    keys = {"job": task.job, "run": task.run, "step": task.step}
    booked = [
        {**keys, "unit": unit, "leaf": leaf, "read": count.read, "out": count.out, "bad": count.bad}
        for leaf, unit, count in entries
    ]
    reasons = [
        {"job": task.job, "unit": unit, "leaf": leaf, "reason": reason, "events": events}
        for leaf, unit, count in entries
        for reason, events in count.filtered.items()
        if events
    ]
    # An empty list would be read as a row of defaults.
    for table, values in ((counts, booked), (filtered, reasons), (outputs, [_row(keys, file) for file in written])):
        if values:
            connection.execute(sa.insert(table), values)


def booked(connection: Connection, job: str) -> bool:
    """Whether anything was booked on account of a job."""
    return connection.execute(sa.select(counts.c.job).where(counts.c.job == job).limit(1)).first() is not None


def check_complete(connection: Connection, run: int, job: str, stream: Stream = Stream.PHYSICS) -> None:
    """Raise Unbalanced, naming the first unit, unless a job has accounted for every event of the stream once."""
    units, events = catalog.units(connection, run, stream)
    read = dict(_sums(connection, job, counts.c.read))
    for unit, promised in zip(units.tolist(), events.tolist(), strict=True):
        if (got := read.pop(unit, 0)) != promised:
            raise Unbalanced(f"{_words(unit)}: {promised} events in its files, {got} accounted for")
    if read:
        unit, got = next(iter(read.items()))
        raise Unbalanced(f"{_words(unit)}: {got} events accounted for, but no file has any")


def unbalanced(connection: Connection, run: int, job: str, stream: Stream) -> str:
    """What is wrong with the accounts of a completed job; empty if every event of the stream is accounted for once."""
    try:
        check_complete(connection, run, job, stream)
    except Unbalanced as problem:
        return str(problem)
    return ""


def astray(connection: Connection, run: int, jobs: Sequence[str], rest: str, elsewhere: str) -> str:
    """What is wrong where datasets do not have the events of a run between them; empty if nothing is.

    Each of the jobs left out what is `elsewhere`; `rest` took what none of the others takes: so of each unit it left
    out at least what one of them has, and at most what they have together.
    """
    units, events = catalog.units(connection, run)
    found = {job: counts_of(connection, job) for job in (rest, *jobs)}
    for unit, promised in zip(units.tolist(), events.tolist(), strict=True):
        of_unit = {job: counts.get(unit, Counts()) for job, counts in found.items()}
        have = {job: count.read - count.filtered.get(elsewhere, 0) for job, count in of_unit.items()}
        left = have.pop(rest)
        if left + sum(have.values()) < promised:
            return f"{_words(unit)}: of {promised} events in its files the datasets have {left + sum(have.values())}"
        # What is bad may be so in each of them.
        sound = not any(count.bad for count in of_unit.values())
        if sound and left + max(have.values(), default=0) > promised:
            return f"{_words(unit)}: of {promised} events in its files two datasets that exclude each other have more"
    return ""


def counts_of(connection: Connection, job: str) -> dict[int, Counts]:
    """What a job made of each packed unit, in order."""
    columns = [sa.cast(sa.func.sum(counts.c[name]), sa.BigInteger) for name in ("read", "out", "bad")]
    query = sa.select(counts.c.unit, *columns).where(counts.c.job == job).group_by(counts.c.unit)
    reasons: dict[int, dict[str, int]] = {}
    total = sa.cast(sa.func.sum(filtered.c.events), sa.BigInteger)
    by_reason = sa.select(filtered.c.unit, filtered.c.reason, total).where(filtered.c.job == job)
    for unit, reason, events in connection.execute(by_reason.group_by(filtered.c.unit, filtered.c.reason)):
        reasons.setdefault(unit, {})[reason] = events
    rows = connection.execute(query.order_by(counts.c.unit))
    return {unit: Counts(read, out, reasons.get(unit, {}), bad) for unit, read, out, bad in rows}


def total_of(connection: Connection, job: str) -> Counts:
    """What a job made of all events of its run."""
    columns = [sa.cast(sa.func.coalesce(sa.func.sum(counts.c[n]), 0), sa.BigInteger) for n in ("read", "out", "bad")]
    row = connection.execute(sa.select(*columns).where(counts.c.job == job)).one()
    read, out, bad = (int(value) for value in row)
    events = sa.cast(sa.func.sum(filtered.c.events), sa.BigInteger)
    query = sa.select(filtered.c.reason, events).where(filtered.c.job == job).group_by(filtered.c.reason)
    reasons = {str(row.reason): int(row[1]) for row in connection.execute(query.order_by(filtered.c.reason))}
    return Counts(read, out, reasons, bad)


def bad_units(connection: Connection, job: str) -> dict[int, int]:
    """The packed units in which a job set events aside as bad, and how many."""
    return {unit: bad for unit, bad in _sums(connection, job, counts.c.bad) if bad}


def outputs_of(connection: Connection, job: str, tier: str | None = None) -> Iterator[Output]:
    """The files of a job in the order of its chunks; of one tier, or of all."""
    query = sa.select(*_OUTPUT).where(outputs.c.job == job).order_by(outputs.c.tier, outputs.c.leaf)
    if tier is not None:
        query = query.where(outputs.c.tier == tier)
    for row in connection.execute(query, execution_options={"yield_per": catalog.PAGE}):
        yield Output(*row)


def stored_of(connection: Connection, job: str, tier: str, wanted: range) -> dict[int, Stored]:
    """What a job has left of each of these chunks: its files of a tier, and what became of the events."""
    found: dict[int, dict[int, Counts]] = {leaf: {} for leaf in wanted}
    files: dict[int, list[Output]] = {leaf: [] for leaf in wanted}
    reasons: dict[tuple[int, int], dict[str, int]] = {}
    for row in connection.execute(sa.select(filtered).where(_among(filtered, job, wanted))):
        reasons.setdefault((row.leaf, row.unit), {})[row.reason] = row.events
    for row in connection.execute(sa.select(counts).where(_among(counts, job, wanted))):
        found[row.leaf][row.unit] = Counts(row.read, row.out, reasons.get((row.leaf, row.unit), {}), row.bad)
    query = sa.select(*_OUTPUT).where(_among(outputs, job, wanted), outputs.c.tier == tier)
    for row in connection.execute(query.order_by(outputs.c.leaf, outputs.c.path)):
        files[row.leaf].append(Output(*row))
    return {leaf: Stored(tier, job, tuple(files[leaf]), found[leaf]) for leaf in wanted}


def add_products(connection: Connection, names: Iterable[str], job: str) -> None:
    """Say which job made the products of these lineages; one made again by another job belongs to the later one."""
    for name in names:
        connection.execute(sa.delete(products).where(products.c.name == name))
        connection.execute(sa.insert(products), {"name": name, "job": job})


def made_by(connection: Connection, names: Sequence[str]) -> dict[str, str]:
    """Of these lineages those that are made, and the job that made each."""
    query = sa.select(products.c.name, products.c.job).where(products.c.name.in_(names))
    return {row.name: row.job for row in connection.execute(query)}


def _among(table: sa.Table, job: str, wanted: range) -> sa.ColumnElement[bool]:
    return sa.and_(table.c.job == job, table.c.leaf.between(wanted.start, wanted.stop - 1))


def _check(connection: Connection, task: Task, found: Mapping[int, Mapping[int, Counts]]) -> None:
    wanted = catalog.promised(connection, task.run, task.layout, range(min(found), max(found) + 1))
    for leaf, by_unit in found.items():
        for unit, count in by_unit.items():
            if not count.balanced:
                raise Unbalanced(f"{_words(unit)}, chunk {leaf}, {task.step}: {_sum_words(count)}")
            promised = wanted.pop((leaf, unit), 0)
            if count.read != promised:
                message = f"{promised} events in its files, {count.read} read"
                raise Unbalanced(f"{_words(unit)}, chunk {leaf}, {task.step}: {message}")
    for (leaf, unit), promised in wanted.items():
        if leaf in found:
            raise Unbalanced(f"{_words(unit)}, chunk {leaf}, {task.step}: {promised} events in its files, none read")


def _check_rows(where: str, found: Mapping[int, Counts], tiers: LeafRows) -> None:
    for tier, rows in tiers.items():
        for unit in sorted({*found, *rows}):
            out, there = found.get(unit, Counts()).out, rows.get(unit, Rows())
            if not there.account_for(out):
                message = f"{out} events out, {there.written} in tier {tier}"
                twice = f", {there.twice} of them for the second time" if there.twice else ""
                apart = f"; {there.apart} have no such tier" if there.apart else ""
                raise Unbalanced(f"{_words(unit)}, {where}: {message}{twice}{apart}")


def _sums(connection: Connection, job: str, column: sa.Column[int]) -> Iterator[tuple[int, int]]:
    total = sa.cast(sa.func.sum(column), sa.BigInteger)
    query = sa.select(counts.c.unit, total).where(counts.c.job == job).group_by(counts.c.unit)
    for row in connection.execute(query.order_by(counts.c.unit)):
        yield int(row[0]), int(row[1])


def _row(keys: Mapping[str, object], file: Output) -> dict[str, object]:
    row = {"tier": file.tier, "leaf": file.leaf, "path": file.path, "size": file.size}
    return {**keys, **row, "checksum": file.checksum, "events": file.events}


def _words(unit: int) -> str:
    run, lumi = RunLumi.unpack(unit)
    return f"run {run}, lumisection {lumi}"


def _sum_words(count: Counts) -> str:
    lost = sum(count.filtered.values())
    return f"{count.read} events read, but {count.out} out + {lost} filtered + {count.bad} bad"
