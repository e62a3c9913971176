"""Two runs of toy collisions and settings under which all that could show a cut is at work."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calib.iov import RunLumi
from calib.payload import Payload
from pipeline.experiments.toy_generator import Scenario, generate
from pipeline.tier0 import Tier0

RUNS = (1, 2)
LUMIS, EVENTS = 4, 4

KEPT_TRACKS, KEPT_VERTICES = 90, 3
"""of a lumisection, of about 115 and 4 that pass the cuts"""

SECTIONS: Mapping[str, Any] = {
    "experiment": {"name": "toy_collider"},
    "express": {"fraction": 1},
    "calibration": {
        "beamspot": {
            "granularity": "span",
            "keep_tracks": KEPT_TRACKS,
            "keep_vertices": KEPT_VERTICES,
            "min_tracks": 150,
            "min_vertices": 15,
        }
    },
}
"""settings beside those of the area and the cluster: a span over both runs until the beam jumps in the second; the best
tracks and vertices of a lumisection are kept; the widths of the second interval are carried from the first"""


def collider_files(folder: Path) -> list[str]:
    """A file a run."""
    scenario = Scenario(step_um=60.0, step_at=RunLumi(2, 3), drift_um=0.1, tracks=48.0, vertex_error_um=8.0, empty=0.0)
    return list(generate(folder, RUNS, LUMIS, EVENTS, scenario=scenario).files)


def made(tier0: Tier0) -> list[Payload]:
    """The beam spots found, in order; it is seen that they are what the settings are for."""
    found = [i for i in tier0.conditions.intervals("beamspot") if i.iov.since.run]
    assert [i.iov.since for i in found] == [RunLumi(1), RunLumi(2, 3)]
    first, second = (i.payload for i in found)
    assert (int(first["tracks"]), int(second["tracks"])) == (6 * KEPT_TRACKS, 2 * KEPT_TRACKS)
    assert (int(first["vertices"]), int(second["vertices"])) == (6 * KEPT_VERTICES, 2 * KEPT_VERTICES)
    assert first["widths_measured"] and not second["widths_measured"]
    assert second["width_x"] == first["width_x"]
    return [first, second]
