"""Where every run stands, as a table: events in and out, conditions, quality, time."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from calib.closure import Closes
from jobs.lease import driver
from pipeline import accounting, catalog
from pipeline.certifying import prompts_of
from pipeline.doubts import Doubt, closures, counted, doubts, in_doubt
from pipeline.handshake import OPERATOR
from pipeline.holds import hold_text, holds_in_force, holds_of
from pipeline.in_charge import rules_in_force
from pipeline.ingest import holes
from pipeline.journal import Setback, get_document, list_documents, list_setbacks
from pipeline.manifest import Condition, Manifest
from pipeline.model import Counts
from pipeline.orders import list_orders, moment
from pipeline.pass_rows import PassRow, passes_of
from pipeline.released import Released
from pipeline.restarts import Start, start_of
from pipeline.standing import orders_about, standing_orders
from pipeline.tables import as_text, columns
from pipeline.tally import ELSEWHERE
from pipeline.way import Stage
from pipeline.world import World


@dataclass(frozen=True)
class DatasetRow:
    """One dataset of a run that has several."""

    name: str
    stage: Stage
    prompt: Counts
    """of its own events"""
    elsewhere: int
    """events of the run that are in other datasets only"""
    manifest: str
    """id of what it was released under; empty while it is not"""
    reasons: Mapping[str, str]
    wake_at: float | None = None


@dataclass(frozen=True)
class RunRow:
    """One run. Counts are of distinct events; times in seconds."""

    run: int
    stage: Stage
    units: int
    express: Counts
    prompt: Counts
    conditions: Mapping[str, Mapping[str, int]]
    """kind to state to number of stretches"""
    good: int
    tests: Mapping[str, Mapping[str, int]]
    seconds: Mapping[str, float]
    reasons: Mapping[str, str]
    wake_at: float | None = None
    duplicates: int = 0
    holes: tuple[str, ...] = ()
    """ranges of units without data between the first and the last"""
    waivers: Mapping[str, str] = field(default_factory=dict)
    """kind to who accepted that a rule was against it"""
    setbacks: tuple[Setback, ...] = ()
    starts: Mapping[str, Start] = field(default_factory=dict)
    """step to what it has read, where that could be a tier of an earlier pass instead of RAW"""
    passes: tuple[PassRow, ...] = ()
    """later passes over the events of express, for calibrations that go after others or iterate"""
    datasets: tuple[DatasetRow, ...] = ()
    """where it has several; `prompt` is then the sum of theirs, and an event that is in two counts twice"""
    closure: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """kind to how many of its payloads closed, did not, and were not judged"""
    doubts: tuple[Doubt, ...] = ()
    """payloads that do not close and that a person is asked about, or has accepted"""

    @property
    def certified(self) -> bool:
        """Whether it has gone all the way."""
        return self.stage is Stage.CERTIFIED

    @property
    def in_order(self) -> bool:
        """Whether there is nothing to look after: all of it done and good, nothing missing or left out, and no
        conditions taken for want of better ones or against a rule."""
        fallback = any(states.get(Condition.FALLBACK) for states in self.conditions.values())
        complete = self.certified and self.good == self.units and not fallback
        closes = not any(Closes.NO in found for found in self.closure.values())
        return complete and closes and not (self.setbacks or self.duplicates or self.holes or self.waivers)


@dataclass(frozen=True)
class Summary:
    """Runs in order, and what concerns none of them in particular."""

    rows: tuple[RunRow, ...]
    unit_name: str
    version: int
    setbacks: tuple[Setback, ...] = ()
    orders: tuple[str, ...] = ()
    """holds and waivers that count now"""
    wall_s: float = 0.0
    at_work: bool = True
    """whether a driver lives"""

    def __getitem__(self, run: int) -> RunRow:
        """The row of a run. Raises KeyError."""
        return {row.run: row for row in self.rows}[run]

    @property
    def states(self) -> dict[str, dict[str, int]]:
        """Kind to state to number of runs' stretches, over all runs."""
        total: dict[str, dict[str, int]] = {}
        for row in self.rows:
            for kind, states in row.conditions.items():
                for state, number in states.items():
                    found = total.setdefault(kind, {})
                    found[state] = found.get(state, 0) + number
        return total

    @property
    def unfinished(self) -> bool:
        """Whether some run has not come to its end."""
        return any(row.stage in (Stage.EXPRESS, Stage.CONDITIONS, Stage.PROMPT) for row in self.rows)

    @property
    def exit_code(self) -> int:
        """0 all well, 3 something was set aside, is missing or not good, 4 a run waits or is held."""
        if self.unfinished:
            return 4
        return 3 if self.setbacks or any(not row.in_order for row in self.rows) else 0

    def text(self, width: int | None = None) -> str:
        """The table, for a terminal; where there is no run, only the words."""
        rows, title = [_cells(row) for row in self.rows], f"processing version {self.version}"
        table = (
            as_text(_heads(self.unit_name), rows, title, width or columns(160)) if rows else f"{title}: no run to show"
        )
        return "\n".join([table, *_afterwords(self)])

    def __str__(self) -> str:
        return self.text()

    __repr__ = __str__


def summarize(
    world: World, runs: Sequence[int] | None = None, wall_s: float = 0.0, files: Sequence[Path] | None = None
) -> Summary:
    """Read where runs stand from the database; all runs of the processing version by default.

    With `files`, what was set aside beside the runs is told of these alone, also what was left out of them because a
    run that is not among `runs` has it already.
    """
    with world.database.read() as connection:
        known = list_documents(connection, world.books.key("status"))
        wanted = sorted(known if runs is None else runs)
        rows = tuple(_row(world, connection, run, known.get(run)) for run in wanted)
        loose = beside(list_setbacks(connection), wanted, files)
        orders = _orders(world, connection, rows)
        # By the clock of the wall, as the lease is renewed.
        at_work = bool(driver(connection, time.time()))
    return Summary(rows, world.experiment.unit_name, world.books.version, loose, orders, wall_s, at_work)


def beside(
    setbacks: Iterable[Setback], runs: Collection[int], files: Sequence[Path] | None = None
) -> tuple[Setback, ...]:
    """Setbacks of no run in particular; of some files, all that none of these runs tells of."""
    if files is None:
        return tuple(setback for setback in setbacks if setback.run is None)
    places = set(map(str, files))
    return tuple(setback for setback in setbacks if setback.place in places and setback.run not in runs)


def placed(setback: Setback) -> str:
    """What was set aside and why, the place named once.

    >>> placed(Setback("file", "a.root", "a.root is not there")), placed(Setback("file", "a.root", "holds no event"))
    ('a.root is not there', 'a.root: holds no event')
    """
    return setback.reason if setback.reason.startswith(setback.place) else f"{setback.place}: {setback.reason}"


def _orders(world: World, connection: Connection, rows: Sequence[RunRow]) -> tuple[str, ...]:
    """What people have ordered and is not settled yet."""
    rules = rules_in_force(connection, world.settings.authority, world.author)
    open_runs = {row.run for row in rows if row.stage in (Stage.EXPRESS, Stage.CONDITIONS)}
    return tuple(standing_orders(list_orders(connection), open_runs, rules, world.books.version))


def _row(world: World, connection: Connection, run: int, status: Mapping[str, Any] | None) -> RunRow:
    found = status or {"stage": Stage.EXPRESS, "reasons": {}, "wake_at": None, "seconds": {}, "express": ""}
    released = Released.from_document(get_document(connection, run, world.books.key("manifest")))
    settled = released.settled if released.manifests else None
    certification = get_document(connection, run, world.books.key("certification")) or {}
    express = accounting.made_by(connection, [found["express"]]).get(found["express"], "")
    prompts = prompts_of(certification, found)
    datasets = _datasets(connection, found, released, prompts)
    units, _ = catalog.units(connection, run)
    steps = {f"prompt of dataset {name}" if name else "prompt": job for name, job in prompts.items()}
    starts = {step: start_of(connection, run, job) for step, job in {"express": express, **steps}.items()}
    good = sum(last - first + 1 for ranges in certification.get("good", {}).values() for first, last in ranges)
    doubted = doubts(certification, list_orders(connection), world.books.version)
    return RunRow(
        run=run,
        stage=Stage(found["stage"]),
        units=len(units),
        express=accounting.total_of(connection, express),
        prompt=sum((row.prompt for row in datasets), accounting.total_of(connection, certification.get("prompt", ""))),
        conditions=_conditions(world, settled) if settled else {},
        good=good - (len(in_doubt(doubted, certification)) if doubted else 0),
        tests=certification.get("tests", {}),
        seconds=found["seconds"],
        reasons=found["reasons"],
        wake_at=found["wake_at"],
        duplicates=sum(1 for _ in catalog.duplicates_of(connection, run)),
        holes=_holes(units.tolist()),
        setbacks=tuple(setback for setback in list_setbacks(connection, run) if setback.run == run),
        waivers={kind: str(waiver) for kind, waiver in settled.waivers.items()} if settled else {},
        starts={step: start for step, start in starts.items() if start},
        passes=passes_of(connection, world.books, run),
        datasets=datasets,
        closure=counted(certification),
        doubts=tuple(doubted),
    )


def _datasets(
    connection: Connection, status: Mapping[str, Any], released: Released, prompts: Mapping[str, str]
) -> tuple[DatasetRow, ...]:
    rows = []
    for name, found in status.get("datasets", {}).items():
        counts, elsewhere = _own(accounting.total_of(connection, prompts.get(name, "")))
        under = released.manifests.get(name)
        manifest = under.id if under else ""
        rows.append(
            DatasetRow(name, Stage(found["stage"]), counts, elsewhere, manifest, found["reasons"], found["wake_at"])
        )
    return tuple(sorted(rows, key=lambda row: row.name))


def _own(counts: Counts) -> tuple[Counts, int]:
    """The counts of a dataset's own events, and how many are in others only."""
    filtered = {reason: events for reason, events in counts.filtered.items() if reason != ELSEWHERE}
    elsewhere = counts.filtered.get(ELSEWHERE, 0)
    return Counts(counts.read - elsewhere, counts.out, filtered, counts.bad), elsewhere


def _conditions(world: World, manifest: Manifest) -> dict[str, dict[str, int]]:
    """States of the kinds that are calibrated here; of the others only what is not simply the payload in force."""
    calibrated = {calibration.kind for calibration in world.experiment.calibrations()}
    states = manifest.states()
    return {kind: found for kind, found in states.items() if kind in calibrated or set(found) != {Condition.CARRIED}}


def _heads(unit_name: str) -> list[str]:
    events = [f"{step}: in = out + filtered + bad" for step in ("express", "prompt")]
    return [
        "run",
        f"{unit_name}s",
        *events,
        "conditions",
        "quality",
        "good",
        "express, conditions, prompt [s]",
        "stage",
    ]


def _cells(row: RunRow) -> list[str]:
    states = [
        f"{kind}: " + ", ".join(f"{number} {state}" for state, number in found.items())
        for kind, found in row.conditions.items()
    ]
    times = ", ".join(f"{row.seconds.get(stage, 0.0):.1f}" for stage in ("express", "conditions", "prompt"))
    return [
        str(row.run),
        str(row.units),
        _counts(row.express),
        "\n".join(f"{one.name}: {_counts(one.prompt)}" for one in row.datasets) or _counts(row.prompt),
        "\n".join(states) or "-",
        "\n".join([*(f"{name}: {_verdicts(found)}" for name, found in row.tests.items()), *_closures(row)]) or "-",
        f"{row.good} of {row.units}",
        times,
        "\n".join([row.stage.value, *(f"{one.name}: {one.stage.value}" for one in row.datasets)]),
    ]


def _closures(row: RunRow) -> list[str]:
    judged = {kind: (found.get(Closes.YES, 0), found.get(Closes.NO, 0)) for kind, found in row.closure.items()}
    return [f"{kind}: {yes} of {yes + no} close" for kind, (yes, no) in judged.items() if yes + no]


def _verdicts(found: Mapping[str, int]) -> str:
    judged = found.get("good", 0) + found.get("bad", 0)
    return f"{found.get('good', 0)} of {judged} good" if judged else "not judged"


def _counts(counts: Counts) -> str:
    if not counts.read:
        return "-"
    return f"{counts.read} = {counts.out} + {sum(counts.filtered.values())} + {counts.bad}"


def _afterwords(summary: Summary) -> list[str]:
    lines = []
    for kind, states in summary.states.items():
        lines.append(f"{kind}: " + ", ".join(f"{states.get(s, 0)} {s}" for s in ("fresh", "carried", "fallback")))
    for reason, events in _filtered(summary).items():
        lines.append(f"filtered: {events} {reason}")
    lines += summary.orders
    for row in summary.rows:
        lines += [f"run {row.run}: {reason}" for reason in _reasons(row, summary.orders)]
        lines += [f"run {row.run}, {_standing(one)}" for one in row.datasets]
        lines += [f"run {row.run}: {kind} was released {waiver}" for kind, waiver in row.waivers.items()]
        lines += [f"run {row.run}: {step} {start}" for step, start in row.starts.items()]
        lines += [f"run {row.run}: {one}" for one in row.passes]
        lines += [f"run {row.run}: {placed(setback)}" for setback in row.setbacks]
        lines += [f"run {row.run}: {doubt}" for doubt in row.doubts]
        if row.duplicates:
            lines.append(f"run {row.run}: {row.duplicates} events came a second time; the copies take no part")
        if row.holes:
            lines.append(f"run {row.run}: no data for {summary.unit_name}s {', '.join(row.holes)}")
    for setback in summary.setbacks:
        whose = "set aside" if setback.run is None else f"run {setback.run}"
        lines.append(f"{whose}: {placed(setback)}")
    if summary.unfinished and not summary.at_work:
        lines.append("nothing is at work now, whatever is said to run: the next `tier0 run` goes on from here")
    if summary.wall_s:
        lines.append(f"{summary.wall_s:.1f} s in all")
    return lines


def _standing(row: DatasetRow) -> str:
    under = f"released under manifest {row.manifest[:12]}" if row.manifest else "not released"
    waits = f" (looked at again at {moment(row.wake_at)})" if row.wake_at else ""
    return f"dataset {row.name}: {row.stage.value}, {under}{waits}"


def _filtered(summary: Summary) -> dict[str, int]:
    total: dict[str, int] = {}
    for row in summary.rows:
        for step, counts in (("express", row.express), ("prompt", row.prompt)):
            for reason, events in counts.filtered.items():
                total[f"{reason} ({step})"] = total.get(f"{reason} ({step})", 0) + events
    return total


def _reasons(row: RunRow, orders: Sequence[str]) -> list[str]:
    """Why a run stands where it stands, and until when; who holds it is among the orders."""
    waits = f" (until {moment(row.wake_at)})" if row.wake_at else ""
    said = [f"{reason}{waits}" for what, reason in row.reasons.items() if what != OPERATOR]
    if OPERATOR in row.reasons and not any(order in row.reasons[OPERATOR] for order in orders):
        said.append("no longer held: the next `tier0 run` goes on")
    return said


def explain(world: World, run: int) -> str:
    """Why a run stands where it stands. Raises LookupError for a run that was never seen."""
    with world.database.read() as connection:
        status = get_document(connection, run, world.books.key("status"))
        released = Released.from_document(get_document(connection, run, world.books.key("manifest")))
        known = catalog.runs(connection)
        orders = list_orders(connection)
    ordered, held = orders_about(orders, run), holds_of(holds_in_force(orders), run)
    found = summarize(world, [run])
    if status is None and run not in known:
        aside = [f"; set aside: {placed(setback)}" for setback in found.setbacks]
        aside += [f"; {hold_text(hold)}" for hold in held]
        raise LookupError(f"{catalog.never_seen(run, known)}{''.join(aside)}")
    row = found.rows[0]
    lines = [f"run {run}, processing version {world.books.version}: {row.stage.value}"]
    lines += [*_afterwords(found), *ordered]
    for name, manifest in released.manifests.items():
        lines += [f"{name}, {line}" if name else line for line in manifest.lines()]
    certification = world.books.document(run, "certification") or {"bad": {}}
    lines += [str(closed) for closed in closures(certification)]
    lines += [f"{unit} is not good: {'; '.join(why)}" for unit, why in certification["bad"].items()]
    return "\n".join(lines)


def _holes(units: Sequence[int]) -> tuple[str, ...]:
    """Ranges of units missing between the first and the last of a run, as text."""
    gaps = [gap for found in holes(units).values() for gap in found]
    return tuple(str(first) if first == last else f"{first}-{last}" for first, last in gaps)
