"""A toy collider whose beam is known: reads the files that `toy_generator.generate` writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from pydantic import Field

from calib.algorithms.beamspot import BeamSpot
from calib.algorithms.beamspot_payload import nominal
from calib.calibration import Calibration
from calib.payload import Payload
from pipeline.experiments.collisions import Collection, require
from pipeline.experiments.interface import (
    Experiment,
    ExperimentSettings,
    Merit,
    Processed,
    QualityHistogram,
    QualityTest,
    Wanted,
)
from pipeline.experiments.tracking import (
    BEAM_HISTOGRAMS,
    VERTEX_HISTOGRAM,
    TrackingSettings,
    about_beam,
    beam_columns,
    beam_merits,
    beam_tests,
    closure_columns,
    good_tracks,
    good_vertices,
    line_of,
)
from pipeline.model import Columns, EventSource, Keys, Step

KEYS = ("run", "luminosityBlock", "event")
TRACK = ("pt", "eta", "phi", "charge", "d0", "d0Error", "z0", "z0Error", "chi2", "ndof")
VERTEX = ("x", "y", "z", "xErr", "yErr", "zErr", "chi2", "ndof", "isFake")


DESIGN = {"sigma_z": 5.0, "width_x": 20e-4, "width_y": 20e-4}
"""the beam as designed [cm]: at the origin, upright"""


class ToySettings(TrackingSettings):
    """Cuts, and how certification judges."""

    beam_within_um: float = Field(20.0, gt=0, description="um; the beam must be so near to its conditions")
    beam_test_tracks: int = Field(200, ge=1, description="a unit with fewer tracks is not judged")


class ToyCollider(Experiment):
    """Tracks with their errors, and vertices; the beam spot is calibrated in express and used in prompt."""

    name: ClassVar[str] = "toy_collider"
    tree: ClassVar[str] = "Events"
    versions: ClassVar[Mapping[Step, int]] = {Step.EXPRESS: 1, Step.PROMPT: 1}
    tiers: ClassVar[tuple[str, ...]] = ("NANO",)
    settings_model: ClassVar[type[ExperimentSettings]] = ToySettings
    judging: ClassVar[frozenset[str]] = frozenset({"beam_within_um", "beam_test_tracks"})
    settings: ToySettings

    def identify(self, source: EventSource, start: int, stop: int) -> Keys:
        """Run, lumisection and event number as the file has them."""
        columns = source.arrays(self.tree, require(source.branches(self.tree), KEYS), start, stop)
        return Keys(*(np.asarray(columns[name]).astype(np.int64) for name in KEYS))

    def wanted(self, step: Step, branches: frozenset[str]) -> Wanted:
        """All columns of tracks and vertices."""
        names = [f"Track_{name}" for name in TRACK] + [f"PV_{name}" for name in VERTEX]
        return Wanted(require(branches, names))

    def process(self, step: Step, events: Columns, conditions: Mapping[str, Payload]) -> Processed:
        """Select; in prompt, measure about the beam spot that holds. An event with nothing in it is filtered."""
        tracks, vertices = Collection.read(events, "Track", TRACK), Collection.read(events, "PV", VERTEX)
        empty = (tracks.counts == 0) & (vertices.counts == 0)
        tracks = good_tracks(tracks.of_events(~empty), self.settings)
        vertices = good_vertices(vertices.of_events(~empty), self.settings)
        measured = beam_columns(tracks, vertices)
        filtered = {"nothing in it": empty}
        shared = vertices.columns("PV", [name for name in VERTEX if name != "isFake"])
        kinematics = ("pt", "eta", "phi", "charge")
        if step is Step.EXPRESS:
            express = tracks.columns("Track", (*kinematics, "d0", "d0Error", "z0", "z0Error")) | shared
            return Processed({"EXPRESS": express}, measured, filtered)
        tracks = about_beam(tracks, line_of(conditions))
        nano = tracks.columns("Track", (*kinematics, "dxy", "dz")) | shared
        return Processed({"NANO": nano}, measured | closure_columns(tracks), filtered)

    def calibrations(self) -> tuple[Calibration, ...]:
        """The beam spot."""
        return (BeamSpot(),)

    def needs(self, step: Step) -> tuple[str, ...]:
        """Prompt measures about the beam spot."""
        return ("beamspot",) if step is Step.PROMPT else ()

    def initial_conditions(self) -> Mapping[str, Payload]:
        """The beam where it was designed to be: at the origin."""
        return {"beamspot": nominal(**DESIGN)}

    def histograms(self, step: Step) -> tuple[QualityHistogram, ...]:
        """Vertices; in prompt, the beam about its conditions."""
        return (VERTEX_HISTOGRAM, *(BEAM_HISTOGRAMS if step is Step.PROMPT else ()))

    def quality_tests(self) -> tuple[QualityTest, ...]:
        """The beam where its conditions say, in every lumisection."""
        return beam_tests(self.settings.beam_within_um, self.settings.beam_test_tracks)

    def merits(self) -> tuple[Merit, ...]:
        """The beam where the conditions say."""
        return beam_merits(self.settings.beam_within_um / 2, self.settings.beam_test_tracks)
