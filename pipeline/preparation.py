"""From registered files to runs that can be taken through the house."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dask.utils import parse_timedelta
from sqlalchemy import Connection

from calib.calibration import Calibration
from calib.gates import Gate, gate_from_settings
from calib.iov import RunLumi
from calib.iteration import Iterated
from calib.tags import Sync
from pipeline import catalog, journal
from pipeline.chain import Chain
from pipeline.cutting import cut
from pipeline.datasets import canary_of, datasets_of, handshake_of
from pipeline.experiments.registry import find_object
from pipeline.express import RunContext
from pipeline.feeding import EXPRESS_CONDITIONS
from pipeline.handshake import OPEN_SPAN, OpenSpan, Rules
from pipeline.links import Link
from pipeline.manifest import Manifest
from pipeline.model import Step, Stream
from pipeline.processing import Segment
from pipeline.promotion import algorithm_of
from pipeline.settings import Settings, apply_calibration_settings
from pipeline.verdicts import key_of
from pipeline.way import Part, Stage, Way
from pipeline.world import World

TOGETHER = 20
"""runs that are prepared in one transaction; other writers wait so long"""


def prepare(
    world: World, runs: Sequence[int], environment: Mapping[str, str] | None = None
) -> tuple[list[Way], list[Chain]]:
    """Every run's way, in order, and the chains of their calibrations. Cuts a run only on first sight of its events.

    `environment` is what the workers run on, recorded in every output.
    """
    numbers = sorted(runs)
    ways: list[Way] = []
    for at in range(0, len(numbers), TOGETHER):
        with world.database.begin() as connection:
            found = [_way(world, connection, run, environment or {}) for run in numbers[at : at + TOGETHER]]
        ways += [way for way in found if way is not None]
    return ways, _chains(world, ways)


def calibrations_of(world: World, settings: Settings, run: int) -> tuple[Calibration, ...]:
    """The experiment's calibrations, and those promoted in their place, under the settings of a run."""
    chosen = []
    for calibration in world.experiment.calibrations():
        promoted = algorithm_of(world.promoted, calibration.kind, run)
        chosen.append(find_object(promoted)() if promoted else calibration)
    return apply_calibration_settings(chosen, settings.calibration)


def gates_of(settings: Settings, kind: str) -> list[Gate]:
    """The gates of a kind under the settings of a run."""
    return [gate_from_settings(table) for table in settings.gates.get(kind, ())]


def required_kinds(world: World, settings: Settings, dataset: str = "") -> tuple[str, ...]:
    """Kinds that the manifest of a run, or of a dataset of it, must have: those set, else all that are calibrated or
    that prompt needs. What prompt needs and nobody waits for, a dataset has without being asked."""
    set_for_it = handshake_of(settings, dataset).required
    made, needed = {calibration.kind for calibration in world.experiment.calibrations()}, world.experiment.needs
    if set_for_it is None:
        return tuple(sorted({*made, *needed(Step.PROMPT)}))
    more = set(needed(Step.PROMPT)) - made if dataset else set()
    return tuple(dict.fromkeys([*set_for_it, *sorted(more)]))


def required_of_run(world: World, settings: Settings) -> tuple[str, ...]:
    """Kinds that some manifest of a run must have."""
    datasets = datasets_of(settings.datasets)
    return tuple(dict.fromkeys(kind for one in datasets for kind in required_kinds(world, settings, one.name)))


def parts_of(world: World, settings: Settings, first_seen: float) -> tuple[Part, ...]:
    """The datasets of a run under its settings: those with an earlier deadline first, then those that need less."""
    parts = []
    for dataset in datasets_of(settings.datasets):
        handshake, canary = handshake_of(settings, dataset.name), canary_of(settings, dataset.name)
        rules = Rules(handshake.max_carried_runs, handshake.failed)
        required = required_kinds(world, settings, dataset.name)
        parts.append(Part(rules, required, first_seen + handshake.deadline_s, dataset, canary.part))
    return tuple(sorted(parts, key=lambda part: (part.deadline_at, len(part.required), part.dataset.name)))


def _way(world: World, connection: Connection, run: int, environment: Mapping[str, str]) -> Way | None:
    """The way of a run; None where only copies of its events are here, in the express stream."""
    settings = world.settings_of(run)
    units, _ = catalog.units(connection, run)
    prompt = cut(world, connection, run, Stream.PHYSICS, settings.splitting)
    express = cut(world, connection, run, Stream.EXPRESS, settings.splitting)
    if prompt is None:
        _no_physics(world, connection, run)
        return None
    first_seen = _first_seen(world, connection, run)
    segments = _express_conditions(world, connection, run, units.tolist())
    context = RunContext(
        run=run,
        express=express or prompt,
        prompt=prompt,
        experiment=world.experiment,
        calibrations=calibrations_of(world, settings, run),
        fraction=None if express else settings.express.fraction,
        segments=segments,
        conditions_root=str(world.store.root),
        area=str(world.area),
        environment=environment,
        largest_state=settings.express.largest_state,
        limit_s=float(parse_timedelta(world.settings.cluster.longest_task)),
    )
    return Way(context, units, parts_of(world, settings, first_seen), seconds=_spent(world, connection, run))


def _no_physics(world: World, connection: Connection, run: int) -> None:
    reason = "only files of its express stream are here: give those of its physics stream too"
    status = {"stage": Stage.EXPRESS, "reasons": {"physics": reason}, "wake_at": None, "seconds": {}, "express": ""}
    journal.set_document(connection, run, world.books.key("status"), status, world.now())


def _spent(world: World, connection: Connection, run: int) -> dict[Stage, float]:
    """Wall time that earlier starts have spent on a run."""
    before = journal.get_document(connection, run, world.books.key("status")) or {"seconds": {}}
    return {Stage(stage): float(seconds) for stage, seconds in before["seconds"].items()}


def _first_seen(world: World, connection: Connection, run: int) -> float:
    """When the run was first seen in this processing version: its deadline counts from there, over restarts."""
    key = world.books.key("first seen")
    found = journal.get_document(connection, run, key)
    if found is None:
        found = {"at": world.now()}
        journal.set_document(connection, run, key, found, found["at"])
    return float(found["at"])


def _express_conditions(world: World, connection: Connection, run: int, units: Sequence[int]) -> tuple[Segment, ...]:
    """What express of a run uses: taken once, on first sight, and the same ever after."""
    key = world.books.key(EXPRESS_CONDITIONS)
    found = journal.get_document(connection, run, key)
    if found is None:
        db = world.conditions(connection)
        kinds = sorted({*world.experiment.needs(Step.EXPRESS), *_used(world)})
        snapshot = db.snapshot(world.global_tag(Sync.EXPRESS))
        resolved = db.resolve_run(snapshot, units, kinds) if kinds else []
        found = [[segment.since.packed, dict(segment.ids)] for segment in resolved]
        if found:
            found[0][0] = RunLumi(run).packed  # holds for earlier units too, should they come late
        journal.set_document(connection, run, key, found, world.now())
    return tuple(Segment(since, ids) for since, ids in found) or (Segment(RunLumi(run).packed, {}),)


def _used(world: World) -> set[str]:
    """Kinds that the passes for calibrations are made under, beside those that express needs."""
    made = {calibration.kind: calibration for calibration in world.experiment.calibrations()}
    used = {kind for calibration in made.values() for kind in calibration.uses}
    first = {kind for calibration in made.values() for kind in calibration.after if kind in made}
    return used | first | {kind for kind, calibration in made.items() if isinstance(calibration, Iterated)}


def _chains(world: World, ways: Sequence[Way]) -> list[Chain]:
    """One chain for each kind over all runs, each run under its own settings of it."""
    if not ways:
        return []
    links: dict[str, dict[int, Link]] = {}
    for way in ways:
        settings = world.settings_of(way.run)
        for calibration in way.context.calibrations:
            gates, span = tuple(gates_of(settings, calibration.kind)), OpenSpan(settings.handshake.span)
            link = Link(calibration, gates, span)
            links.setdefault(calibration.kind, {})[way.run] = link
    here = {way.run for way in ways}
    released = {run: found for run, found in world.books.released().items() if run in here}
    whole = {run for run, found in released.items() if found.whole(world.books.datasets)}
    manifests = {run: found.settled for run, found in released.items()}
    with world.database.read() as connection:
        return [
            Chain(
                kind=kind,
                links=of_runs,
                in_force=in_force_before(world, connection, kind, ways[0].run),
                conditions_root=str(world.store.root),
                settled={run: one.at_end(kind) for run, one in manifests.items() if run in whole or kind in one.kinds},
                left_open=frozenset(run for run, manifest in manifests.items() if is_open(manifest, kind)),
                intervals=_intervals(world, connection, kind, manifests),
            )
            for kind, of_runs in links.items()
        ]


def is_open(manifest: Manifest, kind: str) -> bool:
    """Whether a run was released while its span of this kind was open."""
    return any(stretch.why.startswith(OPEN_SPAN) for stretch in manifest.kinds.get(kind, ()))


def open_spans(world: World) -> set[int]:
    """Released runs whose data may still become part of a span: later runs need them beside theirs."""
    found: set[int] = set()
    manifests = {run: released.settled for run, released in world.books.released().items()}
    for kind in {kind for manifest in manifests.values() for kind in manifest.kinds}:
        went_on = {run for run, manifest in manifests.items() if is_open(manifest, kind)}
        if went_on:
            documents = world.books.documents(key_of(kind)).values()
            closed = max((int(row["last"]) for kept in documents for row in kept["intervals"]), default=0)
            found |= {run for run in went_on if run >= RunLumi.unpack(closed).run}
    return found


def _intervals(
    world: World, connection: Connection, kind: str, manifests: Mapping[int, Manifest]
) -> tuple[tuple[int, int], ...]:
    """What was concluded of runs that were released with their span open."""
    found = set()
    for run in (run for run, manifest in manifests.items() if is_open(manifest, kind)):
        kept = journal.get_document(connection, run, world.books.key(key_of(kind))) or {"intervals": ()}
        found |= {(row["first"], row["last"]) for row in kept["intervals"]}
    return tuple(sorted(found))


def in_force_before(world: World, connection: Connection, kind: str, run: int) -> str | None:
    """The payload in force at the end of all earlier runs; what a restart has published since does not count."""
    db = world.conditions(connection)
    snapshot = db.snapshot(world.global_tag(Sync.PROMPT))
    last_before = RunLumi.unpack(RunLumi(run).packed - 1)
    return db.resolve(snapshot, last_before, [kind]).ids.get(kind)
