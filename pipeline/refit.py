"""Payloads made again from kept states: under other settings, or without what certification found bad.

Nothing is published by it. What comes out is held beside what was published, and can be offered to an offline tag,
where it has the fate that such a tag gives to it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from calib.calibration import Calibration, Outcome
from calib.gates import Decision
from calib.inventory import held_at
from calib.iov import RunLumi
from calib.late import Fate
from calib.state import unpack_together
from calib.tags import Sync
from pipeline.chain import Chain
from pipeline.conditions_words import Refused, known_kind
from pipeline.express import StateFile
from pipeline.fates import Fates
from pipeline.finalizing import Hands, finalize_again, other_states
from pipeline.handshake import Judged
from pipeline.links import Link
from pipeline.manifest import Manifest
from pipeline.mistakes import SettingsError, unknown
from pipeline.passes import states_of
from pipeline.preparation import calibrations_of, gates_of, in_force_before, prepare
from pipeline.settings import apply_calibration_settings
from pipeline.shadow import Beside, Shadowed, beside, end_of, shadowed
from pipeline.verdicts import key_of
from pipeline.way import Way
from pipeline.world import World

LEFT_OUT = "left out"


@dataclass(frozen=True)
class Refit:
    """What came of one kind: by run what is concluded and judged, and beside it what was published."""

    kind: str
    found: Mapping[int, Shadowed]
    rows: tuple[Beside, ...]
    """of the runs asked for, in order of their units"""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """settings that were other ones"""
    without: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    """by run, units (packed) that were left out"""
    along: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    """by run, further units that had to be left out with them, for sums are kept of several together"""

    @property
    def differing(self) -> tuple[Beside, ...]:
        """Where another payload would hold than was published; of runs of which nothing could be made, none."""
        return tuple(
            row for row in self.rows if not row.same and not self.found[row.run].failed and row.shadow_says != LEFT_OUT
        )

    @property
    def made(self) -> tuple[Judged, ...]:
        """The payloads that the gates let pass, each once, in order."""
        runs = {row.run for row in self.rows}
        every = {one.first: one for run in runs for one in self.found[run].judged if one.decision is Decision.PUBLISH}
        return tuple(every[first] for first in sorted(every))

    @property
    def exit_code(self) -> int:
        """0 all as it was published, 2 nothing could be made of some run, 3 something differs."""
        whole = {row.run for row in self.rows} - {row.run for row in self.rows if row.shadow_says != LEFT_OUT}
        if whole or any(found.failed for found in self.found.values()):
            return 2
        return 3 if self.differing else 0


def refit(
    world: World,
    kind: str,
    runs: Sequence[int],
    hands: Hands,
    changes: Mapping[str, Any] | None = None,
    without: Mapping[int, Sequence[int]] | None = None,
) -> Refit:
    """Make a kind again for released runs, under changed settings of its finalization, without some units (packed).

    An interval that spans runs is made again of all of them. Raises Refused for runs that were not released under these
    settings, and SettingsError for a setting that is none or that goes into the state.
    """
    known_kind(world, kind)
    manifests = _manifests(world, kind, runs)
    together = with_spans(world, kind, runs)
    ways, _ = prepare(world, together)
    links = {way.run: link_of(world, way, kind, changes or {}) for way in ways}
    with world.database.read() as connection:
        start = in_force_before(world, connection, kind, ways[0].run)
    chain = Chain(kind, links, start, str(world.store.root))
    left_out = {run: tuple(sorted(units)) for run, units in (without or {}).items() if units}
    states = {way.run: _state(world, way, kind, left_out.get(way.run, ())) for way in ways}
    along = {
        run: more
        for run, units in left_out.items()
        if isinstance(state := states.get(run), StateFile) and (more := tuple(sorted({*state.without} - {*units})))
    }
    finalize_again(chain, states, hands, world.store)
    found = {way.run: shadowed(chain, way.run) for way in ways}
    rows: list[Beside] = []
    for run in together:
        settled = manifests.get(run) or world.books.manifest(run)
        if run in runs and settled is not None:
            gone = {*left_out.get(run, ()), *along.get(run, ())}
            rows += [_or_none(row, found[run], gone) for row in beside(run, settled.kinds[kind], found[run], start)]
        start = end_of(found[run], start)
    return Refit(kind, found, tuple(rows), dict(changes or {}), left_out, along)


def _or_none(row: Beside, found: Shadowed, gone: Collection[int]) -> Beside:
    """Of units of which nothing could be made or was to be, not what would then be in force."""
    if found.failed:
        return replace(row, shadow=None)
    made = any(one.first <= row.first <= one.last for one in found.judged)
    return row if made or row.first not in gone else replace(row, shadow=None, shadow_says=LEFT_OUT)


def link_of(world: World, way: Way, kind: str, changes: Mapping[str, Any]) -> Link:
    """How a kind of a run is made and judged, with some settings changed. Raises SettingsError."""
    settings = world.settings_of(way.run)
    production = _of_kind(way.context.calibrations, kind)
    tables = {kind: {**settings.calibration.get(kind, {}), **changes}}
    plain = _of_kind(calibrations_of(world, settings.model_copy(update={"calibration": {}}), way.run), kind)
    [tried] = apply_calibration_settings([plain], tables)
    if differing := other_states(production, tried):
        names = ", ".join(f"`{kind}.{name}`" for name in differing)
        wrong = f"{names} goes into the state, which is made from events"
        raise SettingsError([f"{wrong}: change it in the settings file, and `tier0 run` makes it anew"])
    return Link(tried, tuple(gates_of(settings, kind)))


def _of_kind(calibrations: Sequence[Calibration], kind: str) -> Calibration:
    for calibration in calibrations:
        if calibration.kind == kind:
            return calibration
    raise SettingsError([unknown(kind, [calibration.kind for calibration in calibrations], "")])


def _manifests(world: World, kind: str, runs: Sequence[int]) -> dict[int, Manifest]:
    released = world.books.released()
    found = {run: released[run].settled for run in runs if run in released}
    missing = [run for run in runs if run not in found or kind not in found[run].kinds]
    if missing or not runs:
        some, there = ", ".join(map(str, missing)) or "none", ", ".join(map(str, sorted(released))) or "none yet"
        version = world.books.version
        raise Refused(
            f"runs {some}: {kind} was not released of them under these settings (processing version {version}); "
            f"released are {there}"
        )
    return found


def with_spans(world: World, kind: str, runs: Sequence[int]) -> list[int]:
    """These runs, and those that share an interval of a kind with one of them, in order."""
    spans = {
        run: (
            min(RunLumi.unpack(row["first"]).run for row in kept["intervals"]),
            max(RunLumi.unpack(row["last"]).run for row in kept["intervals"]),
        )
        for run, kept in world.books.documents(key_of(kind)).items()
        if kept["intervals"]
    }
    found = set(runs)
    while True:
        ranges = [spans[run] for run in found if run in spans]
        more = {run for run in spans if any(first <= run <= last for first, last in ranges)} - found
        if not more:
            return sorted(found)
        found |= more


def _state(world: World, way: Way, kind: str, without: tuple[int, ...]) -> StateFile | str:
    state = states_of(world, way).get(kind)
    if state is None:
        return f"no state of {kind} is kept of run {way.run}"
    if not without:
        return state
    every = unpack_together(state.path, kind, np.array(without, np.int64))
    return replace(state, without=tuple(every.tolist()))


def offer(world: World, found: Refit, tag: str, reason: str) -> Fates:
    """Enter what was made into an offline tag, each payload from where its interval begins; gives the fates.

    What a gate is against is not among it. Raises Refused for a tag of another kind, or one that prompt or express
    reads, and UnknownTag.
    """
    if not reason.strip():
        raise Refused("say why it is to go into the tag: --reason")
    fates: list[Fate] = []
    there: list[str] = []
    with world.database.begin() as connection:
        db = world.conditions(connection)
        into = db.tag(tag)
        if into.kind != found.kind:
            raise Refused(f"tag {tag} holds {into.kind!r}, not {found.kind!r}")
        if into.sync is not Sync.OFFLINE:
            raise Refused(f"tag {tag} serves {into.sync}; what is made again is offered to an offline tag")
        for one in found.made:
            first = RunLumi.unpack(one.first)
            since = RunLumi(first.run) if _begins(found, one) else first
            if held_at(connection, into, since) == one.payload:
                there.append(f"{tag}: {since}, payload {str(one.payload)[:12]}: it holds there already")
                continue
            info = {"made_first": one.first, "made_last": one.last, **_how(found)}
            fates.append(db.append(tag, since, str(one.payload), world.stamp(reason), info))
    return Fates(tuple(fates), tuple(there), against(found))


def _begins(found: Refit, one: Judged) -> bool:
    """Whether an interval is the first of its run: it then holds from the beginning of the run, for units to come."""
    run = RunLumi.unpack(one.first).run
    return one.first == min(judged.first for judged in found.found[run].judged)


def _how(found: Refit) -> dict[str, Any]:
    changes = {"set": dict(found.changes)} if found.changes else {}
    units = sorted(unit for left in (found.without, found.along) for of_run in left.values() for unit in of_run)
    return changes | ({"without": [str(RunLumi.unpack(unit)) for unit in units]} if units else {})


def against(found: Refit) -> tuple[str, ...]:
    """What gave no payload to offer, and why."""
    runs = {row.run for row in found.rows}
    judged = {(one.first, one.last): one for run in runs for one in found.found[run].judged}
    return tuple(
        f"{RunLumi.unpack(first)} to {RunLumi.unpack(last)}: {one.decision or one.outcome}: {one.why}"
        for (first, last), one in sorted(judged.items())
        if one.decision is Decision.REJECT or one.outcome is not Outcome.MADE
    )
