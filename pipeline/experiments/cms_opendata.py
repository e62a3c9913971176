"""CMS Open Data: the 2012 collisions (tracks, vertices, muons) and the 2011A Z to mu mu candidates.

Which of the two a file is shows in its branches. The 2011A file has muons with an impact parameter, but neither
lumisections (every event is in lumisection 1) nor any z (so slopes of the beam do not enter).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from pydantic import Field

from calib.algorithms.beamspot import BeamSpot
from calib.algorithms.beamspot_payload import nominal
from calib.calibration import Calibration
from calib.payload import Payload
from pipeline.experiments.collisions import Collection, about_origin, opposite_pairs, require
from pipeline.experiments.interface import (
    Experiment,
    ExperimentSettings,
    Merit,
    MissingBranch,
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
    evenly,
    good_tracks,
    good_vertices,
    line_of,
)
from pipeline.model import Columns, EventSource, Keys, Step

TRACK = ("pt", "eta", "phi", "charge", "x", "y", "z", "chi2", "ndof")
VERTEX = ("x", "y", "z", "xErr", "yErr", "zErr", "chi2", "ndof", "isFake")
MUON = ("pt", "eta", "phi", "charge")
MUON_2011 = (*MUON, "dxy", "iso")

NO_TRACKS = "a 2011A file has muons only"
NO_Z = "the 2011A muons have no z"
NO_MUON_IMPACT = "the 2012 muons have no impact parameter"
NO_ERRORS = "the file has no errors of impact parameters; the calibration fits them from the data"


DESIGN = {"sigma_z": 5.0, "width_x": 20e-4, "width_y": 20e-4}
"""the beam as designed [cm]: at the origin, upright"""


class CmsSettings(TrackingSettings):
    """Cuts, and how certification judges."""

    beam_within_um: float = Field(100.0, gt=0, description="um; the beam must be so near to its conditions")
    beam_test_tracks: int = Field(40, ge=1, description="a unit with fewer tracks is not judged")
    mass_window: tuple[float, float] = Field((87.0, 93.0), description="GeV; where the mean of 60-120 GeV must lie")
    mass_test_pairs: int = Field(100, ge=1, description="a unit with fewer muon pairs is not judged")


class CmsOpenData(Experiment):
    """Tracks, vertices and muons; the beam spot is calibrated in express and used in prompt."""

    name: ClassVar[str] = "cms_opendata"
    tree: ClassVar[str] = "Events"
    versions: ClassVar[Mapping[Step, int]] = {Step.EXPRESS: 1, Step.PROMPT: 1}
    tiers: ClassVar[tuple[str, ...]] = ("NANO",)
    settings_model: ClassVar[type[ExperimentSettings]] = CmsSettings
    judging: ClassVar[frozenset[str]] = frozenset(
        {"beam_within_um", "beam_test_tracks", "mass_window", "mass_test_pairs"}
    )
    settings: CmsSettings

    def identify(self, source: EventSource, start: int, stop: int) -> Keys:
        """Run, lumisection (1 in a 2011A file) and event number."""
        branches = source.branches(self.tree)
        units = () if _is_2011(branches) else ("luminosityBlock",)
        columns = source.arrays(self.tree, require(branches, ("run", "event", *units)), start, stop)
        run, event = (np.asarray(columns[name]).astype(np.int64) for name in ("run", "event"))
        lumi = np.asarray(columns["luminosityBlock"]).astype(np.int64) if units else np.ones_like(run)
        return Keys(run, lumi, event)

    def wanted(self, step: Step, branches: frozenset[str]) -> Wanted:
        """The jagged columns of its kind of file, and what that kind lacks."""
        if _is_2011(branches):
            absent = {"luminosityBlock": "the file has no lumisections; every event is in lumisection 1"}
            absent |= dict.fromkeys(("Muon_dz", "track_z0"), NO_Z)
            absent |= dict.fromkeys(("Track_*", "PV_*", "vertices"), NO_TRACKS)
            columns = require(branches, _named("Muon", MUON_2011))
        else:
            absent = dict.fromkeys(("Muon_dxy", "Muon_dz"), NO_MUON_IMPACT)
            columns = require(branches, (*_named("Track", TRACK), *_named("PV", VERTEX), *_named("Muon", MUON)))
        return Wanted(columns, {**absent, "track_d0_error": NO_ERRORS})

    def process(self, step: Step, events: Columns, conditions: Mapping[str, Payload]) -> Processed:
        """Select; in prompt, measure about the beam spot that holds."""
        if "Track_pt" in events:
            return self._process_2012(step, events, conditions)
        return self._process_2011(step, events, conditions)

    def calibrations(self) -> tuple[Calibration, ...]:
        """The beam spot."""
        return (BeamSpot(),)

    def needs(self, step: Step) -> tuple[str, ...]:
        """Prompt measures about the beam spot."""
        return ("beamspot",) if step is Step.PROMPT else ()

    def initial_conditions(self) -> Mapping[str, Payload]:
        """The beam where it was designed to be."""
        return {"beamspot": nominal(**DESIGN)}

    def histograms(self, step: Step) -> tuple[QualityHistogram, ...]:
        """Vertices and the mass of muon pairs; in prompt, the beam about its conditions."""
        mass = QualityHistogram("dimuon_mass", "dimuon_mass", evenly(60, 120, 60), "GeV", "mass of muon pairs")
        return (VERTEX_HISTOGRAM, mass, *(BEAM_HISTOGRAMS if step is Step.PROMPT else ()))

    def quality_tests(self) -> tuple[QualityTest, ...]:
        """The beam where its conditions say, and the Z where it belongs."""
        low, high = self.settings.mass_window
        mass = QualityTest("dimuon mass", "dimuon_mass", low, high, self.settings.mass_test_pairs)
        return (*beam_tests(self.settings.beam_within_um, self.settings.beam_test_tracks), mass)

    def merits(self) -> tuple[Merit, ...]:
        """The beam where the conditions say."""
        return beam_merits(self.settings.beam_within_um / 2, self.settings.beam_test_tracks)

    def _process_2012(self, step: Step, events: Columns, conditions: Mapping[str, Payload]) -> Processed:
        tracks = Collection.read(events, "Track", TRACK)
        d0, z0 = about_origin(*(tracks[name] for name in ("x", "y", "z", "phi", "eta")))
        tracks = good_tracks(tracks.adding(d0=d0, z0=z0), self.settings)
        vertices = good_vertices(Collection.read(events, "PV", VERTEX), self.settings)
        muons = Collection.read(events, "Muon", MUON)
        pairs = opposite_pairs(muons)
        measured = beam_columns(tracks, vertices) | {"dimuon_mass": pairs.jagged(pairs["mass"])}
        kinematics = ("pt", "eta", "phi", "charge")
        shared = vertices.columns("PV", [name for name in VERTEX if name != "isFake"])
        shared |= muons.columns("Muon") | pairs.columns("Dimuon")
        if step is Step.EXPRESS:
            return Processed({"EXPRESS": tracks.columns("Track", (*kinematics, "d0", "z0")) | shared}, measured)
        tracks = about_beam(tracks, line_of(conditions))
        nano = tracks.columns("Track", (*kinematics, "dxy", "dz")) | shared
        return Processed({"NANO": nano}, measured | closure_columns(tracks))

    def _process_2011(self, step: Step, events: Columns, conditions: Mapping[str, Payload]) -> Processed:
        muons = Collection.read(events, "Muon", MUON_2011)
        pairs = opposite_pairs(muons)
        filtered = {"fewer than two muons": muons.counts < 2, "same sign": pairs.counts == 0}
        keep = ~(filtered["fewer than two muons"] | filtered["same sign"])
        pairs, muons = pairs.of_events(keep), muons.of_events(keep)
        # CMS's dxy about the origin is -d0; the muon tracks are told apart from it by the cuts on d0 alone.
        muons = muons.adding(d0=-muons["dxy"])
        tracks = good_tracks(muons, self.settings)
        measured = beam_columns(tracks, None) | {"dimuon_mass": pairs.jagged(pairs["mass"])}
        shared = pairs.columns("Dimuon")
        kinematics = (*MUON, "iso")
        if step is Step.EXPRESS:
            express = muons.columns("Muon", (*kinematics, "d0")) | shared
            return Processed({"EXPRESS": express}, measured, filtered)
        line = line_of(conditions)
        nano = about_beam(muons, line).columns("Muon", (*kinematics, "dxy")) | shared
        return Processed({"NANO": nano}, measured | closure_columns(about_beam(tracks, line)), filtered)


def _named(prefix: str, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{prefix}_{name}" for name in names)


def _is_2011(branches: frozenset[str]) -> bool:
    """Whether a file is of the 2011A kind. Raises MissingBranch for one of neither kind."""
    if any(name.startswith(("Track_", "PV_")) for name in branches):
        return False
    if "Muon_dxy" in branches:
        return True
    raise MissingBranch("neither a 2012 file (Track_*, PV_*, luminosityBlock) nor a 2011A file (Muon_dxy)")
