"""The conditions as people look at them: lists, tables, plots, copies out and payloads brought in."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import Connection

from calib.conditions import ConditionsDB
from calib.gates import Decision, judge
from calib.iov import RunLumi
from calib.late import Fate
from calib.payload import Payload, PayloadStore
from calib.tags import Sync, Validity
from pipeline.exporting import export_folder
from pipeline.plots import Interval, measured, plot, save
from pipeline.preparation import gates_of
from pipeline.rehearsal import rehearsal
from pipeline.tables import as_text
from pipeline.world import World, kinds_of, set_up

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LAST_LUMI = 0xFFFFFFFF


class Refused(ValueError):
    """A payload is not fit to go in, or a request does not say what it must."""


@dataclass(frozen=True)
class ConditionsView:
    """Read and write the conditions of one Tier-0. Without a tag, the one that prompt uses is meant."""

    world: World

    def tags(self) -> str:
        """All tags as a table."""
        with self.world.database.read() as connection:
            db = self.world.conditions(connection)
            rows = [
                [tag.name, tag.kind, tag.clock, tag.sync, len(db.history(tag.name)), str(db.first_safe(tag.name))]
                for tag in db.tags()
            ]
        return as_text(["tag", "kind", "clock", "serves", "entries", "first safe moment"], rows)

    def intervals(self, kind: str, tag: str | None = None) -> list[Interval]:
        """The payloads of a kind and where each holds, in order."""
        with self.world.database.read() as connection:
            found = self._validities(connection, kind, tag)
        return [Interval(validity.iov, self.world.store.get(validity.payload_id)) for validity in found]

    def show(self, kind: str, tag: str | None = None) -> str:
        """The intervals of a kind with the single numbers of their payloads, errors and units."""
        intervals = self.intervals(kind, tag)
        if not intervals:
            return f"no payload of kind {kind} yet"
        names = _scalars([interval.payload for interval in intervals])
        rows = [
            [str(interval.iov), interval.payload.id[:12], *(_with_error(interval.payload, name) for name in names)]
            for interval in intervals
        ]
        units = intervals[0].payload.units
        heads = [f"{name} [{units[name]}]" if units.get(name) else name for name in names]
        return as_text(["interval", "payload", *heads], rows)

    def history(self, kind: str, tag: str | None = None, as_of: str | None = None) -> str:
        """Every entry of a tag in the order made: number, who, when, from where on, why."""
        with self.world.database.read() as connection:
            db = self.world.conditions(connection)
            upto = db.snapshot(self.world.global_tag(Sync.PROMPT), _as_of(as_of)).sequence
            entries = db.history(tag or self._tag(kind), upto)
        rows = [
            [
                entry.sequence,
                entry.recorded.strftime("%Y-%m-%d %H:%M:%S"),
                entry.author,
                str(entry.since),
                entry.payload_id[:12] if entry.payload_id else "-",
                entry.reason or ("made by the loop" if entry.info.get("loop") else ""),
            ]
            for entry in entries
        ]
        return as_text(["entry", "recorded (UTC)", "author", "since", "payload", "why"], rows)

    def plot(self, kind: str, *names: str, tag: str | None = None, path: Path | None = None) -> Figure | Path:
        """Draw numbers of a kind over the intervals, by default all with an error; to a file where one is given."""
        intervals = self.intervals(kind, tag)
        if not names and intervals:
            arrays = intervals[0].payload.arrays
            names = tuple(name for name in _scalars([intervals[0].payload]) if f"{name}_error" in arrays)
        figure = plot(measured(intervals, names), names, f"{kind}, {tag or self._tag(kind)}")
        return save(figure, path) if path else figure

    def export(self, kind: str, folder: Path, tag: str | None = None) -> Path:
        """Write payloads and intervals of a kind to a folder (npz and JSON)."""
        with self.world.database.read() as connection:
            found = self._validities(connection, kind, tag)
        return export_folder(folder, tag or self._tag(kind), found, self.world.store)

    def upload(self, kind: str, file: Path, since: str, reason: str, tag: str | None = None) -> str:
        """Enter a payload from a file; says what became of it. Raises Refused when a gate is against it.

        Without a tag it goes to both of its kind, that of express and that of prompt.
        """
        payload = read_payload(kind, file)
        at = RunLumi.parse(since)
        self._tag(kind)
        world = set_up(self.world)
        said = []
        with world.database.begin() as connection:
            db = world.conditions(connection)
            in_force = db.resolve(db.snapshot(world.global_tag(Sync.PROMPT)), at, [kind]).get(kind)
            verdict = judge(payload, in_force, gates_of(world.settings.for_run(at.run), kind))
            if verdict.decision is Decision.REJECT:
                raise Refused(f"{file}: the gates are against it: {'; '.join(verdict.reasons)}")
            for name in [tag] if tag else [world.tag_of(kind, serves) for serves in (Sync.PROMPT, Sync.EXPRESS)]:
                if _answer(db, name, at) == payload.id:
                    said.append(f"{name}: it holds there already")
                else:
                    said.append(_told(db.append(name, at, payload, world.stamp(reason), {"file": str(file)})))
        return "\n".join(said)

    def lacking(self) -> Sequence[str]:
        """Kinds that have no payload to start from, in the tag that prompt uses."""
        # As it would be, once these settings are run: to look makes no processing version.
        with rehearsal(self.world) as world, world.database.read() as connection:
            db = world.conditions(connection)
            tags = {kind: world.tag_of(kind, Sync.PROMPT) for kind in kinds_of(world.experiment)}
            return [kind for kind, tag in tags.items() if not db.history(tag)]

    def _tag(self, kind: str) -> str:
        known = kinds_of(self.world.experiment)
        if kind not in known:
            raise Refused(f"there is no kind {kind!r}; this experiment has {', '.join(known)}")
        return self.world.tag_of(kind, Sync.PROMPT)

    def _validities(self, connection: Connection, kind: str, tag: str | None) -> Sequence[Validity]:
        return self.world.conditions(connection).intervals(tag or self._tag(kind))


def read_payload(kind: str, file: Path) -> Payload:
    """A payload from an npz file (arrays, and `units` as JSON text) or from an exported zarr folder. Raises Refused."""
    try:
        if file.suffix == ".zarr":
            found = PayloadStore.read(file)
            if found.kind != kind:
                raise Refused(f"{file} holds a payload of kind {found.kind!r}, not {kind!r}")
            return found
        with np.load(file, allow_pickle=False) as stored:
            arrays: dict[str, Any] = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError) as problem:
        if isinstance(problem, Refused):
            raise
        raise Refused(f"{file} cannot be read as a payload ({problem}): give an npz file or a zarr folder") from None
    units = json.loads(str(arrays.pop("units"))) if "units" in arrays else {}
    return Payload(kind, arrays, units)


def _answer(db: ConditionsDB, tag: str, at: RunLumi) -> str | None:
    return next((found.payload_id for found in db.intervals(tag) if found.iov.contains(at)), None)


def _told(fate: Fate) -> str:
    where = f"from {fate.given} on" if fate.given is not None else ""
    runs = f"; runs it touches: {', '.join(map(str, fate.runs))}" if fate.runs else ""
    words = " ".join(part for part in (f"{fate.tag}: {fate.kind.value}", where) if part)
    return f"{words}, payload {fate.payload_id[:12]}{': ' if fate.explanation else ''}{fate.explanation}{runs}"


def _as_of(text: str | None) -> int | datetime | None:
    if text is None or text.isdecimal():
        return int(text) if text else None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Refused(f"{text!r} is neither an entry number nor a time such as 2026-05-01T12:00") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _scalars(payloads: Sequence[Payload]) -> list[str]:
    """Single numbers all payloads have, errors left to their values."""
    names = [name for name, array in payloads[0].arrays.items() if array.size == 1 and not name.endswith("_error")]
    return [name for name in names if all(name in payload.arrays for payload in payloads)]


def _with_error(payload: Payload, name: str) -> str:
    """A number with its error, both to the error's second digit."""
    value = payload[name].reshape(()).item()
    found = payload.arrays.get(f"{name}_error")
    error = float(found.reshape(())) if found is not None and found.size == 1 else 0.0
    if not (isinstance(value, float) and 0.0 < error < math.inf):
        return f"{value:.6g}" if isinstance(value, float) else str(value)
    digits = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{digits}f} +- {error:.{digits}f}"
