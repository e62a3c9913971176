"""Multiple scattering: Highland's width, and what kicks do to hits further out, each tried on the track itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.experiments.ref10.geometry import geometry_of, mini_geometry
from pipeline.experiments.ref10.reconstruct.helix import Helix
from pipeline.experiments.ref10.reconstruct.refit import MEASURED, OF_LAYER, crossed, met
from pipeline.experiments.ref10.reconstruct.scattering import (
    Material,
    covariance,
    highland,
    inverse_momentum,
    scatterers,
)
from pipeline.experiments.ref10.reconstruct.track_hits import track_hits
from tests.pipeline.experiments.ref10.reconstruct.flown import PLAN, TESLA, flown
from tests.pipeline.experiments.ref10.reconstruct.naive_fit import NaiveFit


def helix_of(truth) -> Helix:
    return Helix(*(truth[name] for name in ("curvature", "phi", "d0", "z0", "cot_theta")))


def test_highland_is_what_the_physics_note_says():
    """13.6 MeV/p sqrt(X) (1 + 0.038 ln X): 2 % of a radiation length at 1 GeV turn by 1.64 mrad."""
    width = highland(np.array([0.02, 0.02, 0.0]), np.array([1.0, 0.2, 1.0]))
    assert width[:2] == pytest.approx([1.6374e-3, 0.3275e-3], rel=1e-3)
    assert width[2] < 1e-6


def test_momentum_is_that_of_the_whole_track():
    helix = Helix(*np.array([[0.00299792458 * 3.8], [0.0], [0.0], [0.0], [0.75]]))
    assert inverse_momentum(helix, 3.8) == pytest.approx([1 / 1.25])
    assert inverse_momentum(helix, -3.8) == pytest.approx([1 / 1.25])
    assert inverse_momentum(helix, 0.0).tolist() == [1.0]
    assert inverse_momentum(replace(helix, curvature=np.array([1e3])), 3.8).tolist() == [20.0]


def test_a_geometry_without_a_layer_is_refused():
    whole = mini_geometry()
    kept = geometry_of(whole).layer != 4
    arrays = {name: values[kept] if np.ndim(values) else values for name, values in whole.arrays.items()}
    geometry = geometry_of(type(whole)(whole.kind, arrays, whole.units))
    with pytest.raises(ValueError, match="no layer 4"):
        Material.of(geometry)


@pytest.mark.parametrize("lost", [(), (2, 6)], ids=["all layers", "two without a hit"])
@pytest.mark.parametrize("pt", [0.5, 2.0])
def test_kicks_move_hits_as_they_do_when_tried(pt, lost):
    """Every element of V, over the scattering of its two hits, within 1 %: at 0.5 GeV tracks turn by a radian."""
    some = flown(np.full(4, pt), smear=False, scatter=False)
    hit = some.candidates.hit.copy()
    hit[:, list(lost)] = -1
    helix, hits = helix_of(some.truth), track_hits(hit, some.clusters, some.conditions)
    material = Material.of(PLAN)
    way, _ = helix.to_radius(np.repeat(material.radius[:, None], 4, axis=1))
    there = helix.at(way)
    planes = hits.planes.standing_in(hits.seen, np.stack([there.x, there.y, there.z]))
    found = crossed(helix, planes, met(helix, planes, way))
    v = covariance(
        found.rows, found.places, OF_LAYER, scatterers(helix, found.places, found.incidence, material, TESLA)
    )
    naive = NaiveFit(some.conditions, some.clusters)
    parameters = np.stack([some.truth[name] for name in ("curvature", "phi", "d0", "z0", "cot_theta")]).T
    for track in range(4):
        of_track = naive.hits(hit[track])
        rows = [(one, axis) for one in of_track for axis in one.measured]
        wanted = naive.covariance(parameters[track], of_track, rows)
        errors = np.diag([one.measured[axis][1] ** 2 for one, axis in rows])
        wanted -= errors
        kept = [row for row, (layer, _) in enumerate(MEASURED) if hit[track, layer] >= 0]
        lower = v[..., track]
        whole = np.tril(lower) + np.tril(lower, -1).T
        scale = np.sqrt(np.diag(wanted))
        off = (whole[np.ix_(kept, kept)] - wanted) / np.outer(scale, scale)
        assert np.abs(off).max() < 0.01
