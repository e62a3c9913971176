"""Try a setting of the gates on the payloads of past runs, as the database has kept them."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from calib.gates import Gate
from calib.iov import RunLumi
from calib.tags import Sync
from pipeline.books import known_versions
from pipeline.conditions_words import Refused, known_kind
from pipeline.preparation import calibrations_of
from pipeline.quantities import Runs
from pipeline.rejudging import Entered, Trial, made, rejudge, with_settings
from pipeline.settings import Settings, settings_from
from pipeline.verdicts import candidates, key_of, without_payload
from pipeline.world import World


@dataclass(frozen=True)
class Proposal:
    """Gates to try: those in force with some settings changed, or those of a file; and over which runs.

    `file` is a TOML file with `[[gates.KIND]]` as in the settings, and tables `[[for]]` where they differ by run.
    """

    changes: Mapping[str, Any] = field(default_factory=dict)
    file: Path | None = None
    runs: str | None = None
    """such as `1-99`; all if not given"""
    version: int | None = None
    """processing version whose payloads are judged; the one of these settings, or the newest that has any"""


def try_gates(world: World, kind: str, proposal: Proposal) -> Trial:
    """What the gates proposed say of every payload of a kind that was judged. Raises Refused."""
    known_kind(world, kind)
    gates = _gates(world, kind, proposal)
    chosen, documents = _judged(world, kind, proposal)
    wanted = {run: found for run, found in documents.items() if _within(proposal.runs, run)}
    every = candidates(documents.values())
    # The chain is followed from its beginning, whatever runs are asked for.
    judged = rejudge(every, gates, _entered(chosen, kind), chosen.store.get)
    asked = {(one.first, one.last) for one in candidates(wanted.values())}
    rows = tuple(row for row in judged if (row.candidate.first, row.candidate.last) in asked)
    last = max(wanted, default=0)
    made_by = calibrations_of(world, world.settings_of(last), last)
    looks_back = any(calibration.kind == kind and calibration.looks_at_previous for calibration in made_by)
    without = without_payload(wanted.values())
    return Trial(kind, chosen.books.version, gates(last), rows, without, looks_back, tuple(documents))


def _within(words: str | None, run: int) -> bool:
    try:
        return words is None or Runs.parse(words).has(run)
    except ValueError as problem:
        raise Refused(str(problem)) from None


def _judged(world: World, kind: str, proposal: Proposal) -> tuple[World, dict[int, Any]]:
    """The world in the processing version whose verdicts are taken, and these by run."""
    with world.database.read() as connection:
        newest = len(known_versions(connection))
    own = [proposal.version] if proposal.version else [world.books.version, *range(newest, 0, -1)]
    for version in own:
        there = replace(world, books=replace(world.books, version=version))
        if documents := there.books.documents(key_of(kind)):
            return there, documents
    where = f" in processing version {proposal.version}" if proposal.version else ""
    raise Refused(f"no payload of kind {kind} was made and judged{where} yet")


def _entered(world: World, kind: str) -> list[Entered]:
    with world.database.read() as connection:
        db, tag = world.conditions(connection), world.tag_of(kind, Sync.PROMPT)
        by_loop = {entry.sequence for entry in db.history(tag) if entry.info.get("loop")}
        found = [v for v in db.intervals(tag) if v.entry.origin not in by_loop]
    return [Entered(v.since.packed, v.payload_id) for v in found if isinstance(v.since, RunLumi)]


def _gates(world: World, kind: str, proposal: Proposal) -> Callable[[int], Sequence[Gate]]:
    if proposal.file is not None and proposal.changes:
        raise Refused("give a file of gates, or settings to change, not both")
    settings_of = world.settings_of
    if proposal.file is not None:
        chosen = _settings_of(world.settings, proposal.file)
        settings_of = chosen.for_run
        if not _has_gates(chosen, kind):
            raise Refused(f"{proposal.file} has no [[gates.{kind}]]")

    @cache
    def of_run(run: int) -> Sequence[Gate]:
        tables = settings_of(run).gates.get(kind, ())
        return [made(table) for table in with_settings(tables, proposal.changes)]

    return of_run


def _has_gates(settings: Settings, kind: str) -> bool:
    return kind in settings.gates or any(kind in override.gates for override in settings.overrides)


def _settings_of(settings: Settings, file: Path) -> Settings:
    """The settings with the gates of a file, and the tables by run that it has, in place of their own."""
    try:
        plain = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as problem:
        raise Refused(f"{file} cannot be read: {problem}") from None
    except tomllib.TOMLDecodeError as problem:
        raise Refused(f"{file} is no TOML: {problem}") from None
    # All else that a whole settings file has does not matter to a gate.
    taken: dict[str, Any] = {name: plain[name] for name in ("gates", "eras") if name in plain}
    by_run = plain.get("for", [])
    taken["for"] = [_of_gates(table) for table in by_run] if isinstance(by_run, list) else by_run
    return settings_from({"experiment": {"name": settings.experiment.name}, **taken}, str(file))


def _of_gates(table: Any) -> Any:
    if not isinstance(table, Mapping):
        return table
    return {name: value for name, value in table.items() if name in ("runs", "era", "gates")}
