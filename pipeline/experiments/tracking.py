"""What tracker experiments share: cuts on tracks and vertices, and whether the beam is where the conditions say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import Field

from pipeline.experiments.collisions import BeamLine, Collection, offsets_um
from pipeline.experiments.interface import ExperimentSettings, Measure, Merit, QualityHistogram, QualityTest


class TrackingSettings(ExperimentSettings):
    """Cuts on tracks and vertices; the defaults are those of CMS's beam spot workflow (physics note 1.1)."""

    track_pt_min: float = Field(1.0, ge=0, description="GeV")
    track_eta_max: float = Field(2.4, gt=0)
    track_chi2_max: float = Field(10.0, gt=0, description="chi2 per degree of freedom")
    track_d0_max: float = Field(1.0, gt=0, description="cm, about the origin")
    track_z0_max: float = Field(60.0, gt=0, description="cm")
    vertex_ndof_min: float = Field(10.0, ge=0)
    vertex_radius_max: float = Field(2.0, gt=0, description="cm, of |x| and |y|")


def good_tracks(tracks: Collection, cuts: TrackingSettings) -> Collection:
    """The tracks (or muons with d0) that pass; a cut on what they do not have is not made."""
    passed = (tracks["pt"] > cuts.track_pt_min) & (np.abs(tracks["eta"]) < cuts.track_eta_max)
    passed &= np.abs(tracks["d0"]) < cuts.track_d0_max
    if "z0" in tracks:
        passed &= np.abs(tracks["z0"]) < cuts.track_z0_max
    if "chi2" in tracks:
        passed &= tracks["chi2"] < cuts.track_chi2_max * tracks["ndof"]
    return tracks.where(passed)


def good_vertices(vertices: Collection, cuts: TrackingSettings) -> Collection:
    """The vertices that pass: found, not made up, with enough tracks, near the axis."""
    near = (np.abs(vertices["x"]) < cuts.vertex_radius_max) & (np.abs(vertices["y"]) < cuts.vertex_radius_max)
    return vertices.where((vertices.flat["isFake"] == 0) & (vertices["ndof"] >= cuts.vertex_ndof_min) & near)


def beam_columns(tracks: Collection, vertices: Collection | None) -> dict[str, Any]:
    """What the beam spot calibration reads [cm, rad, GeV]: tracks about the origin, vertices with their errors."""
    names = {"d0": "d0", "phi": "phi", "z0": "z0", "pt": "pt", "d0Error": "d0_error"}
    columns = {f"track_{to}": tracks.jagged(tracks[name]) for name, to in names.items() if name in tracks}
    if vertices is not None:
        names = {axis: axis for axis in "xyz"} | {f"{axis}Err": f"{axis}_error" for axis in "xyz"}
        columns |= {f"vertex_{to}": vertices.jagged(vertices[name]) for name, to in names.items()}
        columns["vertices"] = vertices.counts
    return columns


def closure_columns(tracks: Collection) -> dict[str, Any]:
    """How far the beam lies from where the conditions say, one estimate a track [um], from `dxy` about the beam."""
    x, y = offsets_um(-tracks["dxy"], tracks["phi"])
    return {"beam_dx": tracks.jagged(x), "beam_dy": tracks.jagged(y)}


def about_beam(tracks: Collection, line: BeamLine) -> Collection:
    """The tracks with `dxy` and, where they have z, `dz` about the line of the beam [cm].

    dxy has CMS's sign: -d0.
    """
    found = {"dxy": -line.d0(tracks)}
    if "z0" in tracks:
        found["dz"] = line.dz(tracks)
    return tracks.adding(**found)


def evenly(low: float, high: float, bins: int) -> tuple[float, ...]:
    """Edges of bins of one width."""
    return tuple(np.linspace(low, high, bins + 1).tolist())


VERTEX_HISTOGRAM = QualityHistogram("vertices", "vertices", evenly(-0.5, 59.5, 60), "", "good vertices an event")
BEAM_HISTOGRAMS = (
    QualityHistogram("beam_dx", "beam_dx", evenly(-1000, 1000, 80), "um", "2 d0 sin(phi) about the beam spot"),
    QualityHistogram("beam_dy", "beam_dy", evenly(-1000, 1000, 80), "um", "-2 d0 cos(phi) about the beam spot"),
)


def beam_tests(within_um: float, tracks: int) -> tuple[QualityTest, ...]:
    """The beam is within so many um of where the conditions say, in x and in y, where there are enough tracks."""
    return tuple(QualityTest(f"beam spot {axis}", f"beam_d{axis}", -within_um, within_um, tracks) for axis in "xy")


def beam_merits(tolerance_um: float, tracks: int) -> tuple[Merit, ...]:
    """The beam is no further from where the conditions say than before, but for so many um."""
    return tuple(
        Merit(f"distance of the beam in {axis}", f"beam_d{axis}", Measure.OFFSET, tolerance_um, entries=tracks)
        for axis in "xy"
    )


def line_of(conditions: Mapping[str, Any]) -> BeamLine:
    """The line of the beam of a `beamspot` payload."""
    arrays = conditions["beamspot"].arrays
    return BeamLine(**{name: float(arrays[name]) for name in ("x", "y", "z", "dxdz", "dydz")})
