"""Vertices and dimuons of simulated events, from RAW on: the tracks are those that pattern recognition finds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import awkward as ak
import numpy as np
import pytest

from pipeline.experiments.collisions import Collection
from pipeline.experiments.ref10.daq import DIMUON
from pipeline.experiments.ref10.reconstruct.candidates import candidates
from pipeline.experiments.ref10.reconstruct.dimuons import Dimuons, dimuons
from pipeline.experiments.ref10.reconstruct.stages import reconstruct
from pipeline.experiments.ref10.reconstruct.tracks import fit_tracks
from pipeline.experiments.ref10.reconstruct.vertices import fit_vertices
from pipeline.experiments.ref10.simulate.events import simulate
from pipeline.experiments.ref10.simulate.scenario import Physics, Scenario, truth
from tests.pipeline.experiments.ref10.reconstruct.flown import PLAN
from tests.pipeline.experiments.ref10.reconstruct.test_vertices import central, finite


@dataclass(frozen=True, eq=False)
class Played:
    """Events from beginning to end; `off` of each vertex of three tracks to the true one nearest in z."""

    vertices: Collection
    both: Dimuons
    off: dict[str, np.ndarray]
    used: np.ndarray


@cache
def played(pile_up: float, events: int) -> Played:
    scenario = Scenario(physics=Physics(pile_up=pile_up, z=0.5, jpsi=0.5))
    conditions = truth(scenario, PLAN, 23, 1, 1)
    made = simulate(scenario, PLAN, 23, 1, 1, np.arange(1, events + 1))
    clusters = reconstruct(made.raw, conditions).clusters
    vertices, tracks = fit_vertices(fit_tracks(candidates(clusters, conditions), clusters, conditions), conditions)
    both = dimuons(tracks, vertices, (np.asarray(made.raw["trig"]) & DIMUON) > 0)
    used = vertices.flat["tracks"] >= 3
    true = {axis: made.truth[f"Vertex_{axis}"] for axis in "xyz"}
    apart = abs(vertices.jagged(vertices["z"])[:, :, None] - true["z"][:, None, :])
    nearest = ak.drop_none(ak.argmin(apart, axis=2))
    off = {axis: vertices[axis] - ak.to_numpy(ak.flatten(values[nearest])) for axis, values in true.items()}
    return Played(vertices, both, {axis: values[used] for axis, values in off.items()}, used)


@pytest.mark.parametrize("prefix", ["", "constrained_"], ids=["without the beam", "with it"])
def test_vertices_are_where_they_were_made(prefix):
    one = played(1.0, 100)
    assert one.used.sum() > 150
    assert finite(one.vertices)
    for axis in "xyz":
        off = one.off[axis] + (one.vertices[prefix + axis] - one.vertices[axis])[one.used]
        pull = off / np.sqrt(one.vertices[f"{prefix}cov_{axis}_{axis}"][one.used])
        # 180 vertices tell a width to 7 %.
        assert 0.85 < central(pull) < 1.2
        assert abs(np.median(pull)) < 4 * 1.25 / np.sqrt(len(pull))


def test_both_resonances_are_found():
    """Half of the events are Z, which are wide by themselves, half J/psi."""
    pairs = played(1.0, 100).both.pairs
    opposite = pairs.flat["charge"] == 0
    at_z = opposite & (np.abs(pairs["mass"] - 91.19) < 10)
    at_jpsi = opposite & (np.abs(pairs["mass"] - 3.0969) < 0.1)
    assert at_z.sum() > 30
    assert at_jpsi.sum() > 30
    assert np.median(pairs["mass"][at_jpsi]) == pytest.approx(3.0969, abs=0.01)
    assert np.median(pairs["mass_error"][at_jpsi]) == pytest.approx(0.0155, rel=0.3)
    assert np.median(pairs["mass_error"][at_z]) == pytest.approx(0.84, rel=0.3)
