"""The beam of simulated runs as REF10 measures it: place, and widths from pairs of tracks and from vertices.

Pairs need no model of the resolution, vertices need their errors: where both are right they agree (physics note, 1.3).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from calib.algorithms.beamspot import BeamSpot
from calib.payload import Payload
from calib.state import State
from pipeline.experiments.ref10.experiment import Ref10
from pipeline.experiments.ref10.geometry import GEOMETRIES, geometry_of
from pipeline.experiments.ref10.simulate.events import simulate
from pipeline.experiments.ref10.simulate.scenario import Beam, Physics, Region, Scenario, truth
from pipeline.experiments.testing import measured
from pipeline.model import Step

UM = 1e-4
RUN, SEED, CHUNK = 7, 41, 100
# Wider across than high: neither is taken for the other.
REGION = Region(0.08, -0.04, 0.5, 24 * UM, 15 * UM, 4.0, 2e-4, -1e-4)
PHYSICS = Physics(pile_up=1.0, tracks=30.0, z=0.0, jpsi=0.0, nzs=0.0)
SCENARIO = Scenario(beam=Beam(start=REGION, drift_um=0.0, step_um=0.0), physics=PHYSICS)
EVERY = {"keep_tracks": 10**6, "keep_vertices": 10**6}


@dataclass(frozen=True, eq=False)
class Seen:
    """Columns that express measured, part by part."""

    parts: list[dict[str, Any]]

    def payload(self, vertex_errors: float = 1.0, track_errors: float = 1.0) -> Payload:
        """The beam spot of all, had vertices or tracks errors off by a factor."""
        calibration, state = BeamSpot(**EVERY), None
        factors = {f"vertex_{axis}_error": vertex_errors for axis in "xyz"}
        factors |= {"vertex_xy_covariance": vertex_errors**2, "track_d0_error": track_errors}
        for part in self.parts:
            changed = {name: factor * part[name] for name, factor in factors.items()}
            found: State = calibration.accumulate({**part, **changed}, {})
            state = found if state is None else state.merge(found)
        assert state is not None
        return calibration.finalize(state, None)


def seen(geometry: str, events: int) -> Seen:
    """What express measures under true conditions, but for the beam: that is not known yet."""
    experiment, detector = Ref10({"geometry": geometry}), geometry_of(GEOMETRIES[geometry]())
    conditions = truth(SCENARIO, detector, SEED, RUN, 1)
    conditions["beamspot"] = experiment.initial_conditions()["beamspot"]
    parts = []
    for first in range(1, events + 1, CHUNK):
        raw = simulate(SCENARIO, detector, SEED, RUN, 1, np.arange(first, min(first + CHUNK, events + 1))).raw
        raw |= {name: np.asarray(raw[name]).astype(np.int64) for name in ("run", "lumi", "event")}
        parts.append(dict(measured(experiment.process(Step.EXPRESS, raw, conditions), raw)))
    return Seen(parts)


def off(payload: Payload, name: str, true: float) -> float:
    """How far a value is from what was put in, in its errors."""
    return float((payload[name] - true) / payload[f"{name}_error"])


@pytest.fixture(scope="module")
def run() -> Iterator[Seen]:
    """Of the full detector."""
    yield seen("full", 1500)


def test_the_place_of_the_beam_is_what_was_put_in() -> None:
    """A quarter of the detector and few events: place and slopes only; the error of x is known to be some um."""
    payload = seen("mini", 150).payload()
    assert float(payload["x_error"]) < 10 * UM
    # The line passes (x, y) at z.
    lever = float(payload["z"]) - REGION.z
    for axis in "xy":
        slope = getattr(REGION, f"d{axis}dz")
        assert abs(off(payload, axis, getattr(REGION, axis) + slope * lever)) < 4
    assert abs(off(payload, "z", REGION.z)) < 4


@pytest.mark.verify
@pytest.mark.parametrize("axis", ["x", "y"])
@pytest.mark.parametrize("way", ["pair_width", "width"])
def test_widths_are_those_put_in_by_pairs_and_by_vertices(run: Seen, axis: str, way: str) -> None:
    payload, true = run.payload(), getattr(REGION, f"width_{axis}")
    assert float(payload[f"{way}_{axis}_error"]) < 1.5 * UM
    assert abs(off(payload, f"{way}_{axis}", true)) < 4


@pytest.mark.verify
def test_pairs_and_vertices_agree(run: Seen) -> None:
    payload = run.payload()
    assert float(payload["widths_probability"]) > 1e-3
    assert not payload["widths_disagree"]


@pytest.mark.verify
def test_wrong_errors_of_vertices_are_seen_and_those_of_tracks_do_not_matter(run: Seen) -> None:
    wrong = run.payload(vertex_errors=0.5)
    assert wrong["widths_disagree"]
    others = (run.payload(track_errors=0.7), wrong)
    for payload in others:
        for axis in "xy":
            assert abs(off(payload, f"pair_width_{axis}", getattr(REGION, f"width_{axis}"))) < 4


@pytest.mark.verify
def test_tracks_given_to_the_wrong_vertex_would_be_seen(run: Seen) -> None:
    """Two of two vertices have nothing in common: with all of an event at one, pairs see less than there is."""
    mixed = replace(run, parts=[{**part, "track_vertex": 0 * part["track_vertex"]} for part in run.parts])
    payload = mixed.payload()
    assert off(payload, "pair_variance_x", REGION.width_x**2) < -4
