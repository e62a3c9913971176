"""REF10 as an experiment: RAW to clusters in space, pedestals calibrated in express and used in prompt."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import awkward as ak
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from calib.algorithms.pedestal import Pedestal
from calib.calibration import Calibration
from calib.payload import Payload
from pipeline.experiments.collisions import Collection, require
from pipeline.experiments.interface import (
    ExperimentSettings,
    Processed,
    QualityHistogram,
    QualityTest,
    Restart,
    Triggers,
    Wanted,
)
from pipeline.experiments.ref10 import alignment, constants, daq
from pipeline.experiments.ref10 import geometry as geometries
from pipeline.experiments.ref10.layers import CHIP, STRIPS
from pipeline.experiments.ref10.reconstruct.digis import Raw, Tally
from pipeline.experiments.ref10.reconstruct.nzs import sound_blocks
from pipeline.experiments.ref10.reconstruct.stages import BEHIND_CLUSTERS, CLUSTER, READS, USES, again, reconstruct
from pipeline.experiments.simulated import Demonstration, Order, Simulated, Simulation
from pipeline.model import Columns, EventSource, Keys, Step, Stream

TRIGGERS = {"minimum_bias": daq.MINIMUM_BIAS, "dimuon": daq.DIMUON, "nzs": daq.NZS}
"""name to bit of `trig`; events without zero suppression (`nzs`) are of minimum bias too"""

KEYS = ("run", "lumi", "event")
HEADER = ("bx", "orbit", "trig")
TIER = "CLUSTERS"

STRIP_CHARGE = tuple(np.linspace(0.0, 100.0, 51).tolist())
CLUSTERS = tuple(np.linspace(0.0, 400.0, 81).tolist())


def fired(events: Columns) -> dict[str, NDArray[np.bool_]]:
    """Which events fired each trigger, by the bits that the DAQ has set."""
    trig = np.asarray(events["trig"])
    return {name: trig & np.uint32(bit) != 0 for name, bit in TRIGGERS.items()}


class Ref10Settings(ExperimentSettings):
    """Which detector, and how certification judges."""

    geometry: Literal["full", "mini"] = Field("full", description="all modules, or the few of unit tests")
    strip_charge_ke: tuple[float, float] = Field(
        (15.0, 60.0), description="thousand electrons; between these the mean charge of strip clusters must be"
    )
    least_clusters: int = Field(200, ge=1, description="a lumisection with fewer strip clusters is not judged")


class Ref10(Simulated):
    """Express and prompt do the same, under other conditions."""

    name: ClassVar[str] = "ref10"
    tree: ClassVar[str] = daq.TREE
    versions: ClassVar[Mapping[Step, int]] = {Step.EXPRESS: 2, Step.PROMPT: 2}
    settings_model: ClassVar[type[ExperimentSettings]] = Ref10Settings
    triggers: ClassVar[Triggers] = Triggers(tuple(TRIGGERS), ("trig",), fired)
    judging: ClassVar[frozenset[str]] = frozenset({"strip_charge_ke", "least_clusters"})
    settings: Ref10Settings

    def stream(self, path: Path) -> Stream:
        """By the folder that the DAQ puts it in."""
        return daq.stream_of(path)

    def simulation(self, order: Order) -> Simulation:
        """The detector of these settings, played."""
        # Only who simulates may see how data are made, and so the truth: reconstruction never imports it.
        from pipeline.experiments.ref10.simulation import Ref10Simulation

        return Ref10Simulation(order, self.settings.geometry)

    @classmethod
    def demonstration(cls) -> Demonstration:
        """Pedestals that move."""
        from pipeline.experiments.ref10.demonstration import Ref10Demonstration

        return Ref10Demonstration()

    def identify(self, source: EventSource, start: int, stop: int) -> Keys:
        """Run, lumisection and event number as the DAQ wrote them."""
        # All of RAW must be there: a file of the truth has events of the same numbers.
        require(source.branches(self.tree), (*KEYS, *HEADER, *READS))
        columns = source.arrays(self.tree, KEYS, start, stop)
        return Keys(*(np.asarray(columns[name]).astype(np.int64) for name in KEYS))

    def wanted(self, step: Step, branches: frozenset[str]) -> Wanted:
        """All of RAW."""
        return Wanted(require(branches, (*HEADER, *READS)))

    def process(self, step: Step, events: Columns, conditions: Mapping[str, Payload]) -> Processed:
        """Clusters in space; nothing is filtered, what is wrong with an event is flagged."""
        found = reconstruct(events, conditions)
        header = {name: events[name] for name in HEADER}
        measured = self._quality(found.clusters, conditions)
        if step is Step.EXPRESS:
            measured |= pedestal_columns(events, conditions)
        return Processed({TIER: header | found.columns()}, measured)

    def restarts(self, step: Step) -> tuple[Restart, ...]:
        """From clusters, where the Lorentz angle or the alignment has changed; not in express, which measures pedestals
        of what RAW alone has."""
        return (Restart(TIER, BEHIND_CLUSTERS, self._again),) if step is Step.PROMPT else ()

    def _again(self, stored: Columns, conditions: Mapping[str, Payload]) -> Processed:
        """Clusters as they are, at their new places in space."""
        clusters = again(stored, conditions)
        kept = {name: values for name, values in stored.items() if name not in KEYS}
        return Processed({TIER: kept | clusters.columns(CLUSTER)}, self._quality(clusters, conditions))

    def _quality(self, clusters: Collection, conditions: Mapping[str, Payload]) -> dict[str, Any]:
        geometry = geometries.geometry_of(conditions[geometries.KIND])
        strips = ~geometry.pixel[geometry.rows_of(clusters.flat["module"])]
        charge = clusters.where(strips)
        return {
            "strip_clusters": charge.counts,
            "pixel_clusters": clusters.counts - charge.counts,
            "strip_charge_ke": ak.unflatten(charge.flat["charge"] * np.float32(1e-3), charge.counts),
        }

    def calibrations(self) -> tuple[Calibration, ...]:
        """Pedestals, of what is read out without zero suppression."""
        modules = len(geometries.geometry_of(self._geometry()).strip_rows)
        return (Pedestal(channels=modules * STRIPS, block=STRIPS, group=CHIP),)

    def needs(self, step: Step) -> tuple[str, ...]:
        """All that any stage uses."""
        return tuple(sorted({kind for kinds in USES.values() for kind in kinds}))

    def initial_conditions(self) -> Mapping[str, Payload]:
        """The detector as designed."""
        drawn = self._geometry()
        geometry = geometries.geometry_of(drawn)
        design = constants.design(geometry)
        return {geometries.KIND: drawn, alignment.KIND: alignment.no_displacement(geometry), **design}

    def histograms(self, step: Step) -> tuple[QualityHistogram, ...]:
        """How many clusters, and their charge."""
        return (
            QualityHistogram("strip clusters", "strip_clusters", CLUSTERS, "clusters", "strip clusters an event"),
            QualityHistogram("pixel clusters", "pixel_clusters", CLUSTERS, "clusters", "pixel clusters an event"),
            QualityHistogram("strip charge", "strip_charge_ke", STRIP_CHARGE, "ke", "charge of strip clusters"),
        )

    def quality_tests(self) -> tuple[QualityTest, ...]:
        """The charge a track leaves in strips: far off when pedestals or gains are wrong."""
        low, high = self.settings.strip_charge_ke
        return (QualityTest("strip charge", "strip charge", low, high, self.settings.least_clusters),)

    def _geometry(self) -> Payload:
        return geometries.GEOMETRIES[self.settings.geometry]()


def pedestal_columns(events: Columns, conditions: Mapping[str, Payload]) -> dict[str, Any]:
    """What `calib.algorithms.pedestal` reads, of the sound blocks without zero suppression: `pedestal_block`, the place
    among strip modules, and `pedestal_adc`, 768 counts for each."""
    geometry = geometries.geometry_of(conditions[geometries.KIND])
    raw = Raw.of(events)
    every: NDArray[np.bool_] = np.ones(len(raw), np.bool_)
    blocks = sound_blocks(raw, geometry, every, Tally.of(len(raw)))
    place = geometry.strip_block[blocks.flat["row"]].astype(np.uint32)
    adc = blocks.flat["adc"].astype(np.uint16).reshape(-1)
    return {
        "pedestal_block": ak.unflatten(place, blocks.counts),
        "pedestal_adc": ak.unflatten(adc, blocks.counts * STRIPS),
    }
