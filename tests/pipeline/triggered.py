"""The tiny experiment with triggers, and a second calibration that only some datasets wait for."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from calib.payload import Payload
from pipeline import accounting
from pipeline.content import content_hash
from pipeline.experiments.interface import Measure, Merit, Triggers
from pipeline.settings import settings_from
from pipeline.world import open_world
from tests.pipeline.tiny import Offset, Tiny, TinySettings, write_file

MUON, BEAM = 1, 2
"""trigger bits"""


@dataclass(frozen=True, kw_only=True)
class Spread(Offset):
    """The same over again under another name; prompt does not use it."""

    kind: ClassVar[str] = "spread"

    def finalize(self, state, previous):
        made = super().finalize(state, previous)
        return Payload("spread", {"mean": made["mean"], "hits": made["hits"]}, {"mean": "cm"})


class Triggered(Tiny):
    """Reads `tiny` files with a column of trigger bits."""

    name = "triggered"
    triggers = Triggers(
        ("muon", "beam"),
        ("trig",),
        lambda events: {"muon": events["trig"] & MUON != 0, "beam": events["trig"] & BEAM != 0},
    )

    def calibrations(self):
        return (Offset(), Spread())

    def initial_conditions(self):
        start = Payload("spread", {"mean": np.float64(0.0), "hits": np.int64(0)}, {"mean": "cm"})
        return super().initial_conditions() | {"spread": start}

    def merits(self):
        return (Merit("hits about nought", "hit", Measure.OFFSET, tolerance=0.1, entries=5),)


class FickleSettings(TinySettings):
    folder: str


class Fickle(Triggered):
    """Says otherwise the second time it is asked of a lumisection."""

    settings_model = FickleSettings

    @property
    def triggers(self):
        return Triggers(("muon", "beam"), ("trig",), self._fired)

    def _fired(self, events):
        asked = Path(self.settings.folder) / f"{events['run'][0]}-{events['lumi'][0]}"
        again = asked.exists()
        asked.touch()
        some = events["event"] % 3 == 0
        return {"muon": ~some if again else some, "beam": np.zeros(len(some), np.bool_)}


def bits(events):
    """Every third event is of muons, every fourth of the beam: some of both, half of neither."""
    numbers = np.arange(1, events + 1)
    return (np.where(numbers % 3 == 0, MUON, 0) | np.where(numbers % 4 == 0, BEAM, 0)).astype(np.uint32)


def write_triggered(path, run, lumis=2, events=12, mean=0.5):
    return write_file(path, run, lumis, events, mean, trig=bits(lumis * events))


# what came of it ------------------------------------------------------------------------------------------------------


class Dies(Exception):
    """The driver is gone."""


@dataclass
class Watch:
    now: float = 1.7e9

    def __call__(self):
        return self.now


@dataclass
class DiesAt:
    """Ends the driver at the so-manieth time it comes by a point."""

    point: str
    left: int = 1

    def __call__(self, point):
        if point == self.point:
            self.left -= 1
            if self.left == 0:
                raise Dies


def stages(summary, run=7):
    return {row.name: row.stage for row in summary[run].datasets}


def outputs(plain):
    """Run and dataset to its files, of all that are released in the latest version."""
    world = open_world(settings_from(plain))
    status = world.books.documents("status")
    with world.database.read() as connection:
        found = {
            (run, name): [file.path for file in accounting.outputs_of(connection, row["prompt"])]
            for run, document in status.items()
            for name, row in document["datasets"].items()
            if row["prompt"]
        }
    world.database.close()
    return found


def made(plain):
    """What must be the same however it came about."""
    world = open_world(settings_from(plain))
    released = {
        (run, name): manifest.content()
        for run, found in world.books.released().items()
        for name, manifest in found.manifests.items()
    }
    good = {run: found["good"] for run, found in world.books.documents("certification").items()}
    world.database.close()
    return released, {key: content_hash(paths) for key, paths in outputs(plain).items()}, good
