"""How certification, canaries and what-if judge REF10: histograms, tests and figures of merit."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from pipeline.experiments.interface import Measure, Merit, QualityHistogram, QualityTest
from pipeline.experiments.ref10.measured import JPSI_WINDOW, Z_WINDOW
from pipeline.experiments.simulated import Simulated
from pipeline.experiments.tracking import (
    BEAM_HISTOGRAMS,
    VERTEX_HISTOGRAM,
    TrackingSettings,
    beam_merits,
    beam_tests,
    evenly,
)
from pipeline.model import Step

CLUSTERS = tuple(np.linspace(0.0, 400.0, 81).tolist())
STRIP_CHARGE = tuple(np.linspace(0.0, 100.0, 51).tolist())

EVENTS, TRACKS, PAIRS = 50, 400, 50
"""with fewer of them nothing is judged: by numbers of tracks, by tracks, by a resonance"""
TRACKS_AN_EVENT, CHI2_NDF, Z_MASS_GEV = (0.1, 500.0), (0.3, 8.0), (86.0, 94.0)
"""between these their means must be"""
BEAM_WITHIN_UM = 30.0
"""so near the beam must be to its conditions"""


class Ref10Settings(TrackingSettings):
    """Which detector, cuts on what the beam spot is measured with, and how certification judges."""

    geometry: Literal["full", "mini"] = Field("full", description="all modules, or the few of unit tests")
    vertex_ndof_min: float = Field(4.0, ge=0)
    strip_charge_ke: tuple[float, float] = Field(
        (15.0, 60.0), description="thousand electrons; between these the mean charge of strip clusters must be"
    )
    least_clusters: int = Field(200, ge=1, description="a lumisection with fewer strip clusters is not judged")


JUDGING = frozenset(Ref10Settings.model_fields) - {"geometry", *TrackingSettings.model_fields}


class Judged(Simulated):
    """REF10's histograms and what is asked of them."""

    settings: Ref10Settings

    def histograms(self, step: Step) -> tuple[QualityHistogram, ...]:
        """Clusters and their charge; tracks, vertices and the beam; resonances."""
        return (
            QualityHistogram("strip clusters", "strip_clusters", CLUSTERS, "clusters", "strip clusters an event"),
            QualityHistogram("pixel clusters", "pixel_clusters", CLUSTERS, "clusters", "pixel clusters an event"),
            QualityHistogram("strip charge", "strip_charge_ke", STRIP_CHARGE, "ke", "charge of strip clusters"),
            QualityHistogram("tracks", "tracks", evenly(-0.5, 599.5, 600), "tracks", "tracks an event"),
            QualityHistogram("chi2", "track_chi2_ndf", evenly(0, 10, 100), "", "chi2/ndf of good tracks"),
            QualityHistogram("stiff d0", "stiff_d0_um", evenly(-400, 400, 160), "um", "d0 about the beam spot"),
            QualityHistogram("Z", "z_mass", evenly(*Z_WINDOW, 80), "GeV", "mass of pairs near the Z"),
            QualityHistogram("Jpsi", "jpsi_mass", evenly(*JPSI_WINDOW, 120), "GeV", "mass of pairs near the J/psi"),
            VERTEX_HISTOGRAM,
            *BEAM_HISTOGRAMS,
        )

    def quality_tests(self) -> tuple[QualityTest, ...]:
        """Charge goes with pedestals and gains, chi2 with the alignment, the beam with its spot, masses with the field;
        tracks with all of it."""
        asked = self.settings
        return (
            QualityTest("strip charge", "strip charge", *asked.strip_charge_ke, asked.least_clusters),
            QualityTest("tracks", "tracks", *TRACKS_AN_EVENT, EVENTS),
            QualityTest("chi2", "chi2", *CHI2_NDF, TRACKS),
            QualityTest("Z mass", "Z", *Z_MASS_GEV, PAIRS),
            *beam_tests(BEAM_WITHIN_UM, TRACKS),
        )

    def merits(self) -> tuple[Merit, ...]:
        """How wide d0 is at high pT, and the resonances; how far the beam is from where the conditions say."""
        return (
            Merit("width of d0 at high pT", "stiff d0", Measure.WIDTH, tolerance=3.0),
            Merit("width of the Z", "Z", Measure.WIDTH, tolerance=0.3, entries=PAIRS),
            Merit("width of the J/psi", "Jpsi", Measure.WIDTH, tolerance=0.005, entries=PAIRS),
            *beam_merits(BEAM_WITHIN_UM / 2, TRACKS),
        )
