"""What a run's calibrations found goes on to express: from the next run that has not started."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection

from calib.conditions import ConditionsDB
from calib.iov import RunLumi
from calib.tags import Entry, Sync
from pipeline import journal
from pipeline.manifest import Condition, Manifest
from pipeline.world import World

EXPRESS_CONDITIONS = "express conditions"
"""the record of what express of a run uses, made on first sight of it"""


def feed_express(
    world: World, connection: Connection, manifest: Manifest, before: Collection[str] = frozenset()
) -> None:
    """Enter what is fresh at the end of a released run into the express tags of the kinds that the settings say.

    Kinds settled `before`, with another dataset of the run, were fed then. A run that has started keeps what
    it has; what a later run has fed already is not taken back by an earlier one.
    """
    kinds = world.settings_of(manifest.run).handshake.feeds_express
    fresh = {kind: manifest.kinds[kind][-1] for kind in kinds if kind in manifest.kinds and kind not in before}
    fresh = {kind: stretch for kind, stretch in fresh.items() if stretch.condition is Condition.FRESH}
    if not fresh:
        return
    world.probe("feed")
    started = journal.last_run(connection, world.books.key(EXPRESS_CONDITIONS))
    since = RunLumi(max(started, manifest.run) + 1)
    db = world.conditions(connection)
    for kind, stretch in fresh.items():
        tag = world.tag_of(kind, Sync.EXPRESS)
        holds = _in_force(db, tag, since)
        newer = holds is not None and int(holds.info.get("fed_by", -1)) > manifest.run
        if stretch.payload is None or newer or (holds is not None and holds.payload_id == stretch.payload):
            continue
        info = {"loop": True, "fed_by": manifest.run}
        db.append(tag, since, stretch.payload, world.stamp(f"found in run {manifest.run}"), info)


def _in_force(db: ConditionsDB, tag: str, at: RunLumi) -> Entry | None:
    return next((found.entry for found in db.intervals(tag) if found.iov.contains(at)), None)
