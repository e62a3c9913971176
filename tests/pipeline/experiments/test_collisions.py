from __future__ import annotations

import awkward as ak
import numpy as np
import pytest

from pipeline.experiments.collisions import (
    MUON_MASS,
    BeamLine,
    Collection,
    about_origin,
    offsets_um,
    opposite_pairs,
    peak,
    require,
)
from pipeline.experiments.interface import MissingBranch


def muons(*events: list[tuple[float, float, float, int]]) -> Collection:
    flat = np.array([muon for event in events for muon in event], np.float64).reshape(-1, 4)
    columns = {name: flat[:, i] for i, name in enumerate(("pt", "eta", "phi", "charge"))}
    return Collection(np.array([len(event) for event in events]), columns)


def test_collection_keeps_its_events() -> None:
    events = {"T_a": ak.Array([[1, 2], [], [3]]), "T_b": ak.Array([[1.5, 2.5], [], [3.5]])}
    tracks = Collection.read(events, "T", ("a", "b", "not there"))
    assert "b" in tracks
    assert "not there" not in tracks
    assert tracks.event.tolist() == [0, 0, 2]
    assert tracks.where(tracks["a"] > 1).columns("X")["X_b"].tolist() == [[2.5], [], [3.5]]
    assert tracks.of_events(np.array([False, True, True])).columns("X", ["a"])["X_a"].tolist() == [[], [3]]
    assert tracks.adding(c=np.array([7, 8, 9])).columns("X", ["c"])["X_c"].tolist() == [[7, 8], [], [9]]


def test_collection_reads_a_picked_column() -> None:
    events = {"T_a": ak.Array([[1, 2], [], [3], [4]])[np.array([3, 0])]}
    assert Collection.read(events, "T", ("a",)).flat["a"].tolist() == [4, 1, 2]


def test_a_missing_branch_is_named() -> None:
    assert require(frozenset({"a", "b"}), ["b"]) == ("b",)
    with pytest.raises(MissingBranch, match=r"no c, d;"):
        require(frozenset({"a"}), ["d", "a", "c"])


def test_straight_track_is_taken_back_to_the_axis() -> None:
    rng = np.random.default_rng(1)
    phi, eta, along = rng.uniform(-3, 3, 50), rng.uniform(-2, 2, 50), rng.uniform(-0.1, 0.1, 50)
    d0, z0 = rng.uniform(-0.1, 0.1, 50), rng.uniform(-5, 5, 50)
    # Nearest to the axis the track is at d0 (sin phi, -cos phi); from there it goes on along (cos phi, sin phi).
    x, y = d0 * np.sin(phi) + along * np.cos(phi), -d0 * np.cos(phi) + along * np.sin(phi)
    found_d0, found_z0 = about_origin(x, y, z0 + along * np.sinh(eta), phi, eta)
    np.testing.assert_allclose(found_d0, d0, atol=1e-14)
    np.testing.assert_allclose(found_z0, z0, atol=1e-13)


def test_a_track_from_the_beam_has_no_distance_from_it() -> None:
    rng = np.random.default_rng(2)
    line = BeamLine(0.07, 0.06, -0.5, 3e-4, -2e-4)
    z, phi, eta = rng.normal(0, 5, 50), rng.uniform(-3, 3, 50), rng.uniform(-2, 2, 50)
    x, y = line.x + line.dxdz * (z - line.z), line.y + line.dydz * (z - line.z)
    d0, z0 = about_origin(x, y, z, phi, eta)
    tracks = Collection(np.array([50]), {"d0": d0, "z0": z0, "phi": phi, "eta": eta})
    # The line is evaluated at the z of the track, 1 mm from where it passes: slope x 1 mm x sinh(2) is 1 um.
    np.testing.assert_allclose(line.d0(tracks), 0, atol=2e-4)
    np.testing.assert_allclose(line.dz(tracks), z - line.z, atol=2e-3)


def test_without_z_the_slopes_do_not_enter() -> None:
    phi = np.linspace(-3, 3, 7)
    tracks = Collection(np.array([7]), {"d0": np.zeros(7), "phi": phi})
    steep, upright = BeamLine(0.07, 0.06, 1.0, 1e-2, 1e-2), BeamLine(0.07, 0.06, 0.0)
    assert steep.d0(tracks).tobytes() == upright.d0(tracks).tobytes()
    with_z = tracks.adding(z0=np.full(7, 3.0))
    assert not np.allclose(steep.d0(with_z), upright.d0(with_z))


def test_offsets_find_a_shifted_beam() -> None:
    phi = np.linspace(-np.pi, np.pi, 1000, endpoint=False)
    x, y = offsets_um(30e-4 * np.sin(phi) + 20e-4 * np.cos(phi), phi)
    assert np.mean(x) == pytest.approx(30)
    assert np.mean(y) == pytest.approx(-20)


def test_mass_of_opposite_pairs() -> None:
    found = opposite_pairs(
        muons(
            [(45.0, 0.0, 0.0, 1), (45.0, 0.0, np.pi, -1)],  # back to back: the sum of both energies
            [(45.0, 0.0, 0.0, 1), (45.0, 0.0, np.pi, 1)],
            [],
            [(5.0, 1.0, 0.0, 1), (5.0, 1.0, 0.0, -1), (5.0, 1.0, 0.0, -1)],  # parallel: the mass of both at rest
        )
    )
    assert found.counts.tolist() == [1, 0, 0, 2]
    back_to_back = 2 * np.hypot(45.0, MUON_MASS)
    np.testing.assert_allclose(found["mass"], [back_to_back, 2 * MUON_MASS, 2 * MUON_MASS], rtol=1e-6)


def test_peak_is_found_on_a_slope() -> None:
    rng = np.random.default_rng(3)
    values = np.concatenate([rng.normal(91, 2, 20_000), rng.uniform(60, 120, 5_000)])
    mean, sigma = peak(values, (89.0, 4.0))
    assert mean == pytest.approx(91, abs=0.1)
    assert sigma == pytest.approx(2, abs=0.15)


def test_no_peak_is_said() -> None:
    with pytest.raises(ValueError, match="a peak needs 10"):
        peak(np.zeros(5), (0.0, 1.0))
    with pytest.raises(ValueError, match=r"a peak needs 10|no peak settled"):
        peak(np.linspace(0, 1, 100), (10.0, 1.0))
