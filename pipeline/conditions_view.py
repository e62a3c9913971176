"""The conditions as people look at them: lists, tables, plots, what differs, and what other gates would have said."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from calib.inventory import counts_of_entries, snapshots_used
from calib.late import FateKind
from calib.payload import Payload
from calib.tags import Sync, Validity
from pipeline.comparing import Comparison, compare
from pipeline.conditions_words import Source, entry_of, source_named, spoken
from pipeline.declarations import kinds_of
from pipeline.fates import fate_text
from pipeline.finalizing import Hired
from pipeline.plots import Interval, drawable, plot, save
from pipeline.refit_view import Refits
from pipeline.rehearsal import rehearsal
from pipeline.rejudging import Trial
from pipeline.tables import as_text
from pipeline.trials import Proposal, try_gates
from pipeline.world import World

if TYPE_CHECKING:
    from distributed import Client
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class ConditionsView:
    """Looks at the conditions of one Tier-0, and changes nothing.

    Without a tag, the one that prompt uses is meant; a tag may stand in place of a kind. A tag may be named `prompt` or
    `express`, and with `@` and an entry number or time (`beamspot_prompt_v1@41`) as it was then.
    """

    world: World
    client: Callable[[], Client] | None = None
    """gives a cluster for what is done on workers; without one it is done here"""

    @property
    def refits(self) -> Refits:
        """What is made again from kept states: under other settings, or without what certification found bad."""
        return Refits(self.world, Hired(self.client))

    def tags(self) -> str:
        """All tags as a table."""
        with self.world.database.read() as connection:
            db, counts = self.world.conditions(connection), counts_of_entries(connection)
            rows = [
                [tag.name, tag.kind, tag.clock, tag.sync, counts.get(tag.number, 0), spoken(db.first_safe(tag.name))]
                for tag in db.tags()
            ]
        return as_text(["tag", "kind", "clock", "serves", "entries", "first safe moment"], rows)

    def global_tags(self) -> str:
        """All global tags and their tags as a table."""
        with self.world.database.read() as connection:
            db = self.world.conditions(connection)
            rows = [
                [name if first else "", kind, tag.name]
                for name in db.global_tags()
                for first, (kind, tag) in _marked(sorted(db.global_tag(name).items()))
            ]
        return as_text(["global tag", "kind", "tag"], rows)

    def snapshots(self) -> str:
        """Every snapshot under which runs were settled, as a table."""
        with self.world.database.read() as connection:
            used = snapshots_used(connection)
        rows = [[str(use.snapshot), _time(use.first), _time(use.last), ", ".join(map(str, use.runs))] for use in used]
        return as_text(["snapshot", "first settled (UTC)", "last settled (UTC)", "runs settled"], rows)

    def intervals(self, kind: str, tag: str | None = None) -> list[Interval]:
        """The payloads of a kind and where each holds, in order."""
        with self.world.database.read() as connection:
            _, found = self._found(connection, kind, tag)
        return list(self._with_payloads(found))

    def show(self, kind: str, tag: str | None = None) -> str:
        """The intervals of a kind with the single numbers of their payloads, errors and units."""
        intervals = self.intervals(kind, tag)
        if not intervals:
            return f"no payload of {'kind' if kind in kinds_of(self.world.experiment) else 'tag'} {kind} yet"
        names = _scalars([interval.payload for interval in intervals])
        rows = [
            [
                f"[{spoken(interval.since)}, {spoken(interval.until)})",
                interval.payload.id[:12],
                *(_with_error(interval.payload, name) for name in names),
            ]
            for interval in intervals
        ]
        units = intervals[0].payload.units
        heads = [f"{name} [{units[name]}]" if units.get(name) else name for name in names]
        return as_text(["interval", "payload", *heads], rows)

    def history(self, kind: str, tag: str | None = None, as_of: str | None = None) -> str:
        """Every entry of a tag in the order made: number, who, when, from where on, why."""
        with self.world.database.read() as connection:
            source = source_named(self.world, connection, kind, tag)
            upto = source.as_of if as_of is None else entry_of(connection, as_of)
            entries = self.world.conditions(connection).history(source.tag.name, upto)
        rows = [
            [
                entry.sequence,
                _time(entry.recorded),
                entry.author,
                spoken(entry.since),
                entry.payload_id[:12] if entry.payload_id else "-",
                entry.reason or ("made by the loop" if entry.info.get("loop") else entry.info.get("why", "")),
            ]
            for entry in entries
        ]
        return as_text(["entry", "recorded (UTC)", "author", "since", "payload", "why"], rows)

    def late(self, tag: str | None = None) -> str:
        """What became of every payload and withdrawal that touched a settled run, by tag in the order they came."""
        with self.world.database.read() as connection:
            db = self.world.conditions(connection)
            names = [tag] if tag is not None else [known.name for known in db.tags()]
            fates = [fate for name in names for fate in db.fates(name)]
        queued = sorted({run for fate in fates if fate.kind is FateKind.QUEUED for run in fate.runs})
        waits = f"queued for re-reconstruction: runs {', '.join(map(str, queued))}"
        return "\n".join([*map(fate_text, fates), *([waits] if queued else [])]) or "nothing came late"

    def plot(
        self, kind: str, *names: str, tag: str | Sequence[str] | None = None, path: Path | None = None
    ) -> Figure | Path:
        """Draw arrays of a kind over the intervals of one tag or several; to a file where one is given.

        By default the single numbers that have an error. Raises NothingToPlot.
        """
        asked = [tag] if tag is None or isinstance(tag, str) else list(tag)
        with self.world.database.read() as connection:
            found = dict(self._found(connection, kind, one) for one in asked)
        first = next((v.payload_id for validities in found.values() for v in validities), None)
        if not names and first is not None:
            names = drawable(self.world.store.get(first))
        histories = {str(source): self._with_payloads(validities) for source, validities in found.items()}
        figure = plot(histories, names, f"{kind}, {', '.join(histories)}" if len(histories) == 1 else kind)
        return save(figure, path) if path else figure

    def diff(self, one: str, other: str, *, values: bool = False) -> Comparison:
        """Where two tags, or two global tags, answer differently; with `values` how far the payloads are apart."""
        with self.world.database.read() as connection:
            return compare(self.world, connection, one, other, values)

    def judge(
        self,
        kind: str,
        changes: Mapping[str, Any] | None = None,
        *,
        gates: Path | None = None,
        runs: str | None = None,
        version: int | None = None,
    ) -> Trial:
        """What other gates would have said of past payloads: those in force with some `changes`, or those of a file.

        For instance `judge("beamspot", {"max_move.x.limit": 0.02}, runs="1-99")`. Reads no event, changes nothing.
        """
        return try_gates(self.world, kind, Proposal(changes or {}, gates, runs, version))

    def lacking(self) -> Sequence[str]:
        """Kinds that have no payload to start from, in the tag that prompt uses."""
        # As it would be, once these settings are run: to look makes no processing version.
        with rehearsal(self.world) as world, world.database.read() as connection:
            db, counts = world.conditions(connection), counts_of_entries(connection)
            tags = {kind: db.tag(world.tag_of(kind, Sync.PROMPT)) for kind in kinds_of(world.experiment)}
            return [kind for kind, tag in tags.items() if tag.number not in counts]

    def _found(self, connection: Connection, kind: str, tag: str | None) -> tuple[Source, list[Validity]]:
        source = source_named(self.world, connection, kind, tag)
        return source, source.intervals(self.world.conditions(connection))

    def _with_payloads(self, validities: Sequence[Validity]) -> Iterator[Interval]:
        return (Interval(v.since, v.until, self.world.store.get(v.payload_id)) for v in validities)


def _marked(rows: Sequence[Any]) -> Iterator[tuple[bool, Any]]:
    return ((place == 0, row) for place, row in enumerate(rows))


def _time(moment: Any) -> str:
    return str(moment.strftime("%Y-%m-%d %H:%M:%S"))


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
