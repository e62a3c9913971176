"""REF10 as an experiment: RAW to tracks, vertices and dimuons; what is calibrated in express is used in prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from calib.algorithms import beamspot_payload
from calib.algorithms.pedestal import Pedestal
from calib.calibration import Calibration
from calib.payload import Payload
from pipeline.experiments.collisions import Collection, require
from pipeline.experiments.interface import ExperimentSettings, Processed, Restart, Triggers, Wanted
from pipeline.experiments.ref10 import alignment, constants, daq, measured
from pipeline.experiments.ref10 import geometry as geometries
from pipeline.experiments.ref10.calibrated import OF_RAW, PEDESTAL_GATES, calibrations
from pipeline.experiments.ref10.measured_alignment import alignment_columns
from pipeline.experiments.ref10.measured_charge import charge_columns
from pipeline.experiments.ref10.measured_status import status_columns
from pipeline.experiments.ref10.quality import JUDGING, Judged, Ref10Settings
from pipeline.experiments.ref10.reconstruct.digis import Tally
from pipeline.experiments.ref10.reconstruct.flags import EventFlag
from pipeline.experiments.ref10.reconstruct.objects import BEHIND_CLUSTERS, KINDS, objects
from pipeline.experiments.ref10.reconstruct.stages import READS, Reconstructed, again, reconstruct
from pipeline.experiments.ref10.tiers import AOD, HEADER, NANO, RECO, aod, nano, reco
from pipeline.experiments.simulated import Demonstration, Order, Simulation
from pipeline.experiments.tracking import line_of
from pipeline.model import Columns, EventSource, Keys, Step, Stream

KEYS = ("run", "lumi", "event")

DESIGN_BEAM = {"sigma_z": 5.0, "width_x": 0.1, "width_y": 0.1}
"""the beam until it is measured [cm]: within a millimetre of the axis, so that it hardly constrains a vertex"""


class Ref10(Judged):
    """Express and prompt do the same, under other conditions."""

    name: ClassVar[str] = "ref10"
    tree: ClassVar[str] = daq.TREE
    versions: ClassVar[Mapping[Step, int]] = {Step.EXPRESS: 8, Step.PROMPT: 8}
    settings_model: ClassVar[type[ExperimentSettings]] = Ref10Settings
    triggers: ClassVar[Triggers] = Triggers(tuple(daq.TRIGGERS), ("trig",), daq.fired)
    tiers: ClassVar[tuple[str, ...]] = (RECO, AOD, NANO)
    default_tiers: ClassVar[tuple[str, ...]] = (AOD, NANO)
    # Pedestals that did not move are not published: all that comes after them would be made once more, from RAW.
    default_gates: ClassVar[Mapping[str, tuple[dict[str, Any], ...]]] = {Pedestal.kind: PEDESTAL_GATES}
    judging: ClassVar[frozenset[str]] = JUDGING

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
        """A beam that drifts, modules displaced and pedestals that move."""
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
        """Tracks, vertices and dimuons; nothing is filtered, what is wrong with an event is flagged."""
        found = reconstruct(events, conditions)
        made = self._made(events, found.clusters, found.tally, conditions)
        # In prompt too, for closure.
        of_raw = measured.pedestal_columns(events, conditions)
        of_raw |= status_columns(found.clusters, found.masked, conditions)
        return replace(made, measured={**made.measured, **of_raw})

    def restarts(self, step: Step) -> tuple[Restart, ...]:
        """From clusters, where only what acts behind them has changed; for pedestals and status RAW is needed."""
        return (Restart(RECO, BEHIND_CLUSTERS, self._again, lacks=OF_RAW),)

    def _again(self, stored: Columns, conditions: Mapping[str, Payload]) -> Processed:
        """Clusters as they are, at their new places in space."""
        return self._made(stored, again(stored, conditions), _stored_tally(stored), conditions)

    def _made(
        self, events: Columns, clusters: Collection, tally: Tally, conditions: Mapping[str, Payload]
    ) -> Processed:
        """All that follows from clusters; `tally` knows what was wrong before."""
        found = objects(clusters, daq.fired(events)["dimuon"], conditions)
        flags = tally.flags | found.flags
        header = {name: events[name] for name in HEADER}
        of_clusters = Reconstructed(clusters, replace(tally, flags=flags)).columns()
        tiers = {
            RECO: reco(header, of_clusters, found),
            AOD: aod(header, flags, found),
            NANO: nano(header, np.asarray(events["lumi"]), found, line_of(conditions)),
        }
        of_events = measured.of_clusters(clusters, conditions) | measured.of_pairs(found.pairs)
        of_tracks = measured.of_tracks(found, self.settings, conditions) | charge_columns(clusters, found, conditions)
        return Processed(tiers, of_events | of_tracks | alignment_columns(clusters, found, conditions))

    def calibrations(self) -> tuple[Calibration, ...]:
        """Pedestals, status of channels, gain, Lorentz angle, alignment and beam spot."""
        return calibrations(geometries.geometry_of(self._geometry()))

    def needs(self, step: Step) -> tuple[str, ...]:
        """All that any stage uses."""
        return tuple(sorted(KINDS))

    def initial_conditions(self) -> Mapping[str, Payload]:
        """The detector as designed, and the beam somewhere within a millimetre of the axis."""
        drawn = self._geometry()
        geometry = geometries.geometry_of(drawn)
        start = (drawn, alignment.no_displacement(geometry), beamspot_payload.nominal(**DESIGN_BEAM))
        return {payload.kind: payload for payload in start} | constants.design(geometry)

    def _geometry(self) -> Payload:
        return geometries.GEOMETRIES[self.settings.geometry]()


def _stored_tally(stored: Columns) -> Tally:
    """What was wrong with events up to their clusters."""
    flags = np.asarray(stored["reco_flags"]) & ~np.uint8(EventFlag.UNCOMBINED)
    return Tally(flags, np.asarray(stored["bad_digis"]), np.asarray(stored["bad_nzs"]))
