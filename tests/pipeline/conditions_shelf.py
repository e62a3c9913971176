"""The conditions of a small Tier-0 without a cluster: its tags made, and payloads by the dozen."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from calib.payload import Payload
from calib.tags import Moment, Stamp, Sync
from pipeline.conditions_editor import ConditionsEditor
from pipeline.payload_files import npz_of
from pipeline.settings import settings_from
from pipeline.world import open_world, set_up
from tests.pipeline.tiny import settings

ANN = Stamp("ann", datetime(2026, 5, 1, 12, tzinfo=UTC), "test")


def editor(area: Path, **sections: Any) -> ConditionsEditor:
    """The conditions of a Tier-0 whose tags start from the design value 0."""
    return ConditionsEditor(set_up(open_world(settings_from(settings(area, **sections)))))


def offset(mean: float, hits: int = 100, **more: Any) -> Payload:
    """A payload of the tiny experiment."""
    arrays = {"mean": np.float64(mean), "hits": np.int64(hits)} | {k: np.asarray(v) for k, v in more.items()}
    return Payload("offset", arrays, {"mean": "cm"})


def enter(found: ConditionsEditor, since: Moment, payload: Payload, tag: str | None = None, **info: Any) -> None:
    """Append a payload, by default to the tag of prompt."""
    world = found.world
    with world.database.begin() as connection:
        world.conditions(connection).append(tag or world.tag_of("offset", Sync.PROMPT), since, payload, ANN, info)


def settle(found: ConditionsEditor, *runs: int) -> None:
    """Settle runs under the global tag of prompt as it is now."""
    world = found.world
    with world.database.begin() as connection:
        db = world.conditions(connection)
        for run in runs:
            db.settle(run, db.snapshot(world.global_tag(Sync.PROMPT)), ANN.now)


def written(path: Path, payload: Payload) -> Path:
    """A payload as people have it: an npz file."""
    path.write_bytes(npz_of(payload))
    return path
