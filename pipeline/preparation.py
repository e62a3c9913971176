"""From registered files to runs that can be taken through the house."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dask.utils import parse_timedelta
from sqlalchemy import Connection

from calib.calibration import Calibration
from calib.gates import Gate, gate_from_settings
from calib.iov import RunLumi
from calib.tags import Sync
from pipeline import catalog, journal
from pipeline.booking import GONE, UNREADABLE
from pipeline.catalog import Layout
from pipeline.chain import Chain, Link
from pipeline.express import RunContext
from pipeline.handshake import Rules
from pipeline.ingest import is_sound_again
from pipeline.model import Step
from pipeline.processing import Segment
from pipeline.settings import Settings, SplittingSection, apply_calibration_settings
from pipeline.splitting import Limits, split
from pipeline.way import Stage, Way
from pipeline.world import World


def prepare(
    world: World, runs: Sequence[int], environment: Mapping[str, str] | None = None
) -> tuple[list[Way], list[Chain]]:
    """Every run's way, in order, and the chains of their calibrations. Cuts a run only on first sight of its events.

    `environment` is what the workers run on, recorded in every output.
    """
    ways = [_way(world, run, environment or {}) for run in sorted(runs)]
    return ways, _chains(world, ways)


def calibrations_of(world: World, settings: Settings) -> tuple[Calibration, ...]:
    """The experiment's calibrations under the settings of a run."""
    return apply_calibration_settings(world.experiment.calibrations(), settings.calibration)


def gates_of(settings: Settings, kind: str) -> list[Gate]:
    """The gates of a kind under the settings of a run."""
    return [gate_from_settings(table) for table in settings.gates.get(kind, ())]


def required_kinds(world: World, settings: Settings) -> tuple[str, ...]:
    """Kinds that a run's manifest must have: those set, else all that are calibrated or that prompt needs."""
    if settings.handshake.required is not None:
        return tuple(settings.handshake.required)
    made = [calibration.kind for calibration in world.experiment.calibrations()]
    return tuple(sorted({*made, *world.experiment.needs(Step.PROMPT)}))


def _way(world: World, run: int, environment: Mapping[str, str]) -> Way:
    settings = world.settings.for_run(run)
    with world.database.begin() as connection:
        units, _ = catalog.units(connection, run)
        inputs = _inputs(world, connection, run)
        layout, fan_in = _layout(world, connection, run, inputs, settings.splitting)
        first_seen = _first_seen(world, connection, run)
        segments = _express_conditions(world, connection, run, units.tolist())
    handshake = settings.handshake
    context = RunContext(
        run=run,
        inputs=inputs,
        layout=layout.name,
        leaves=layout.chunks,
        fan_in=fan_in,
        experiment=world.experiment,
        calibrations=calibrations_of(world, settings),
        fraction=settings.express.fraction,
        segments=segments,
        conditions_root=str(world.store.root),
        area=str(world.area),
        environment=environment,
        limit_s=float(parse_timedelta(world.settings.cluster.longest_task)),
    )
    rules = Rules(handshake.max_carried_runs, handshake.failed)
    before = world.books.document(run, "status") or {"seconds": {}}
    spent = {Stage(stage): float(seconds) for stage, seconds in before["seconds"].items()}
    required = required_kinds(world, settings)
    return Way(context, units, rules, required, first_seen + handshake.deadline_s, seconds=spent)


def _inputs(world: World, connection: Connection, run: int) -> str:
    """The name of what a run consists of: another one when a file that could not be read is back or was fetched again,
    so that what it holds is read after all."""
    key = "files that came back"
    came_back = int(journal.get_document(connection, run, key) or 0)
    back = [
        found
        for found in journal.list_setbacks(connection, run)
        if found.run == run
        and found.kind in (GONE, UNREADABLE)
        and is_sound_again(connection, found.place, None if found.kind == GONE else found.at)
    ]
    if back:
        came_back += 1
        journal.set_document(connection, run, key, came_back, world.now())
    for found in back:
        journal.resolve_setbacks(connection, found.kind, found.place, world.now(), run)
    inputs = catalog.inputs(connection, run)
    return f"{inputs}-{came_back}" if came_back else inputs


def _layout(world: World, connection: Connection, run: int, inputs: str, cut: SplittingSection) -> tuple[Layout, int]:
    """How a run is cut, and how many chunks a branch joins: as on first sight of its events, whatever is set since.

    The jobs in the ledger have that shape, and no result depends on it.
    """
    key = f"fan in/{inputs}"
    layout = catalog.find_layout(connection, run, inputs)
    if layout is not None:
        return layout, int(journal.get_document(connection, run, key))
    event_bytes = catalog.event_bytes(connection, run)
    limits = Limits(cut.events, cut.bytes, cut.block_events, cut.units)
    chunks = split(catalog.pieces_of(connection, run), limits, event_bytes.__getitem__)
    journal.set_document(connection, run, key, cut.fan_in, world.now())
    return catalog.save_layout(connection, run, inputs, chunks), cut.fan_in


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
    key = world.books.key("express conditions")
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


def _used(world: World) -> list[str]:
    return [kind for calibration in world.experiment.calibrations() for kind in calibration.uses]


def _chains(world: World, ways: Sequence[Way]) -> list[Chain]:
    """One chain for each kind over all runs, each run under its own settings of it."""
    if not ways:
        return []
    links: dict[str, dict[int, Link]] = {}
    for way in ways:
        settings = world.settings.for_run(way.run)
        for calibration in way.context.calibrations:
            link = Link(calibration, tuple(gates_of(settings, calibration.kind)))
            links.setdefault(calibration.kind, {})[way.run] = link
    here = {way.run for way in ways}
    manifests = {run: manifest for run, manifest in world.books.manifests().items() if run in here}
    with world.database.read() as connection:
        return [
            Chain(
                kind=kind,
                links=of_runs,
                in_force=_in_force_before(world, connection, kind, ways[0].run),
                conditions_root=str(world.store.root),
                settled={run: manifest.at_end(kind) for run, manifest in manifests.items()},
            )
            for kind, of_runs in links.items()
        ]


def _in_force_before(world: World, connection: Connection, kind: str, run: int) -> str | None:
    """The payload in force at the end of all earlier runs; what a restart has published since does not count."""
    db = world.conditions(connection)
    snapshot = db.snapshot(world.global_tag(Sync.PROMPT))
    last_before = RunLumi.unpack(RunLumi(run).packed - 1)
    return db.resolve(snapshot, last_before, [kind]).ids.get(kind)
