"""Where one Tier-0 lives: its folder, its database, its experiment, and the tags of its processing version."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection

from calib.conditions import ConditionsDB
from calib.gates import Gate, gate_from_settings
from calib.iov import Clock, RunLumi
from calib.payload import PayloadStore, open_store
from calib.tags import Stamp, Sync
from pipeline import catalog
from pipeline.areas import claim, refuse_other, take_for
from pipeline.books import Books, processing_version, version_of
from pipeline.certify import BadMask, Ranges, read_mask
from pipeline.database import Database, open_database
from pipeline.datasets import datasets_of, last_deadline_s
from pipeline.declarations import kinds_of, wrong_declarations
from pipeline.experiments.interface import Experiment
from pipeline.in_charge import GuardedConditions, acting, may_write, rules_in_force
from pipeline.lineage import lineage
from pipeline.migration import bring_up_to_date
from pipeline.model import Chunk, Step
from pipeline.processing import nothing
from pipeline.products import Products
from pipeline.promotion import Promotion, in_force, promotions
from pipeline.release import Publication
from pipeline.restarts import Earlier, with_stored
from pipeline.settings import Settings, SettingsError, check_settings, make_experiment
from pipeline.standing import Standing
from pipeline.tiers import tiers_of

logger = logging.getLogger(__name__)

LOOP = "tier0"
"""author of what the loop itself publishes, beside the user's name"""


@dataclass(frozen=True)
class World:
    """What everything else is given. Holds no state of its own."""

    settings: Settings
    experiment: Experiment
    area: Path
    database: Database
    store: PayloadStore
    books: Books
    author: str
    now: Callable[[], float]
    probe: Callable[[str], None] = nothing
    promoted: tuple[Promotion, ...] = ()
    """what people had promoted from shadows when this was opened"""
    certified: Ranges | None = None
    """the units that may be certified good, by the file that the settings name as it was when this was opened; None for
    all"""
    rehearses: bool = False
    """whether it is a copy, in which anything may be tried"""

    def settings_of(self, run: int) -> Settings:
        """The settings of a run: those of the file, and what people have promoted since."""
        return in_force(self.settings, self.promoted, run)

    def conditions(self, connection: Connection) -> ConditionsDB:
        """The conditions database in an open transaction; into which tags one may write is looked at there."""
        if self.rehearses or self.books.epoch is not None:  # a copy, and the driver, who may write all
            return ConditionsDB(connection, self.store)
        rules = rules_in_force(connection, self.settings.authority, self.author)
        return GuardedConditions(connection, self.store, partial(may_write, self.author, rules))

    def stamp(self, reason: str = "") -> Stamp:
        """Who does something now."""
        return Stamp(self.author, datetime.fromtimestamp(self.now(), UTC), reason)

    def tag_of(self, kind: str, serves: Sync) -> str:
        """The tag of a kind for prompt or express in this processing version."""
        return f"{kind}_{serves}_v{self.books.version}"

    def global_tag(self, serves: Sync) -> str:
        """The global tag for prompt or express of this processing version."""
        return f"{serves}_v{self.books.version}"

    @property
    def products(self) -> Products:
        """Which results exist already."""
        return Products(self.books.begin, self.database.read)

    def under(self, epoch: int) -> World:
        """This world as the driver of an epoch writes to it: once a later driver has taken over, nothing is taken."""
        return replace(self, books=replace(self.books, epoch=epoch))

    def standing(self) -> Standing:
        """What people have ordered, as it is now."""
        found = Standing(self.database.read, self.books.version, self.settings.authority.waivers_need)
        found.look()
        return found

    @property
    def tiers(self) -> tuple[str, ...] | None:
        """The tiers that prompt writes; None for all."""
        return tiers_of(self.settings.prompt.tiers, self.experiment)

    def chunks(self, run: int, layout: str, wanted: range, earlier: Earlier | None = None) -> list[Chunk]:
        """Some chunks of a run, each with what an earlier job has left of it where there is one."""
        with self.database.read() as connection:
            found = catalog.chunks(connection, run, layout, wanted)
            return with_stored(connection, found, earlier) if earlier else found

    def undecided_beside(self, here: Container[int]) -> dict[int, float]:
        """Other runs that wait for their conditions, and until when the runs worked on `here` must wait for them."""
        beside = {run: seen for run, seen in self.books.undecided().items() if run not in here}
        return {run: seen + last_deadline_s(self.settings_of(run)) for run, seen in beside.items()}

    def publication(self) -> Publication:
        """Where prompt conditions are published, and by whom."""
        tags = {kind: self.tag_of(kind, Sync.PROMPT) for kind in kinds_of(self.experiment)}
        return Publication(self.books.version, self.global_tag(Sync.PROMPT), tags, self.stamp())


class Places(NamedTuple):
    """Where a Tier-0 keeps what it knows: its database (path or URL), and its payloads."""

    database: str | Path
    payloads: Path


def places_of(settings: Settings) -> Places:
    """Where these settings put them."""
    area = Path(settings.storage.area).absolute()
    return Places(settings.storage.database or area / "tier0.db", area / "conditions")


def open_world(
    settings: Settings,
    experiment: Experiment | None = None,
    clock: Callable[[], float] = time.time,
    probe: Callable[[str], None] = nothing,
    database: Database | None = None,
) -> World:
    """Open the Tier-0 of these settings; its folder and database are made on first sight. If a `database` is given,
    nothing is made: that is read in the place of its own.

    Raises SettingsError with everything that is wrong with the settings, OtherExperiment where the area is that of
    another one. The processing version is the one of these settings, or, until something is run under them, the next.
    """
    chosen = experiment or make_experiment(settings)
    settings = with_gates_of(chosen, settings)
    wrong = wrong_declarations(settings, chosen)
    area = Path(settings.storage.area).absolute()
    store = open_store(area / "conditions")
    check_settings(settings, chosen.calibrations(), kinds_of(chosen), partial(_gate, store), wrong)
    mask = _mask(settings)
    given, database = database, database or _own(settings, clock)
    with database.read() as connection:
        refuse_other(connection, chosen.name, settings.storage)
        version = version_of(connection, settings_lineage(settings, chosen))
        promoted = promotions(connection)
    if given is None:
        area.mkdir(parents=True, exist_ok=True)
        claim(area, database, clock())
    names = tuple(dataset.name for dataset in datasets_of(settings.datasets))
    books = Books(database, version, clock, names)
    return World(settings, chosen, area, database, store, books, acting(database), clock, probe, promoted, mask)


def _own(settings: Settings, clock: Callable[[], float]) -> Database:
    database = open_database(places_of(settings).database)
    migrated = bring_up_to_date(database, clock())
    if migrated.copy:
        logger.warning("%s is migrated; as it was before it is kept in %s", database.name, migrated.copy)
    return database


def with_gates_of(experiment: Experiment, settings: Settings) -> Settings:
    """The settings with the gates that the experiment has for kinds of which they name none."""
    return settings.model_copy(update={"gates": {**experiment.default_gates, **settings.gates}})


def _gate(store: PayloadStore, table: Mapping[str, Any]) -> Gate:
    """The gate of a table. Raises ValueError also for one that holds to a payload which is not there."""
    gate = gate_from_settings(table)
    if gate.standard and not store.has(gate.standard):
        first = "upload it first, by `tier0 conditions upload` under settings without this gate"
        raise ValueError(f"there is no payload {gate.standard[:12]} to hold to: {first}")
    return gate


def _mask(settings: Settings) -> Ranges | None:
    path = settings.certify.mask
    try:
        return read_mask(Path(path)) if path else None
    except BadMask as problem:
        raise SettingsError([f"`certify.mask`: {problem}"]) from None


def set_up(world: World) -> World:
    """Make the processing version of these settings real: its number, its tags, what they start from. Idempotent."""
    with world.database.begin() as connection:
        # On PostgreSQL two could find the same number free.
        world.database.take_turn(connection)
        take_for(connection, world.experiment.name, world.settings.storage, world.now())
        wanted = settings_lineage(world.settings, world.experiment)
        version, new = processing_version(connection, wanted, world.now())
        ready = replace(world, books=replace(world.books, version=version))
        if new:
            _fill(ready, connection)
    return ready


def settings_lineage(settings: Settings, experiment: Experiment) -> str:
    """The lineage of all settings that can change a result: not where it runs, nor where it lies, nor its limits."""
    apart = {"experiment", "storage", "cluster", "splitting", "certify", "closure", "authority", "canary", "shadow"}
    relevant: dict[str, Any] = settings.model_dump(mode="json", exclude=apart)
    for section in (relevant, *relevant["overrides"]):
        section["express"].pop("largest_state", None)
    # A table `[[for]]` that sets nothing else is none.
    selects = {"runs", "era"}
    # Not there where they are not set, so that databases from before them keep their version.
    if not relevant["handshake"]["feeds_express"]:
        del relevant["handshake"]["feeds_express"]
    if not relevant["datasets"]:
        del relevant["datasets"]
    for dataset in relevant.get("datasets", {}).values():
        dataset.pop("canary")
    for one in relevant["overrides"]:
        one.pop("canary")
    relevant["overrides"] = [one for one in relevant["overrides"] if any(one[name] for name in one.keys() - selects)]
    relevant["experiment"] = {"name": experiment.name, "settings": experiment.step_settings()}
    versions = {step.value: experiment.versions[step] for step in Step}
    made = {c.kind: c.version for c in experiment.calibrations()}
    return lineage(settings=relevant, versions=versions, calibrations=made)


def _fill(world: World, connection: Connection) -> None:
    """Tags and global tags of a new processing version, filled with what the version before it started from."""
    db = ConditionsDB(connection, world.store)  # whoever comes first does this, whatever tags they may write
    for serves in (Sync.PROMPT, Sync.EXPRESS):
        tags = {kind: world.tag_of(kind, serves) for kind in kinds_of(world.experiment)}
        for kind, tag in tags.items():
            db.create_tag(tag, kind, Clock.LUMI, serves)
        db.define_global_tag(world.global_tag(serves), tags)
    for kind in kinds_of(world.experiment):
        _start_tags(world, db, kind)


def _start_tags(world: World, db: ConditionsDB, kind: str) -> None:
    for serves in (Sync.PROMPT, Sync.EXPRESS):
        tag = world.tag_of(kind, serves)
        earlier = f"{kind}_{serves}_v{world.books.version - 1}"
        known = {found.name for found in db.tags()}
        given = [e for e in db.history(earlier) if not e.info.get("loop")] if earlier in known else []
        for entry in given:
            if entry.payload_id is not None:
                reason = f"copied from {earlier}"
                db.append(tag, entry.since, entry.payload_id, world.stamp(reason), entry.info)
        initial = world.experiment.initial_conditions().get(kind)
        if not given and initial is not None and world.settings.conditions.initial:
            db.append(tag, RunLumi(0), initial, world.stamp("design values of the experiment"), {"initial": True})
