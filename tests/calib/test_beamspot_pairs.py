"""Widths from pairs of tracks of one vertex: against a loop over pairs, a known beam, and the vertex likelihood."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import awkward as ak
import numpy as np
import pytest
from numpy.typing import NDArray

from calib.accumulators import UnitRows
from calib.algorithms.beamspot import BeamSpot
from calib.algorithms.beamspot_pairs import Members, PairWidths, fit_pairs, vertex_of
from calib.algorithms.beamspot_payload import COUNTS, OF_PAIRS, nominal
from calib.algorithms.beamspot_tracks import REACH, Tracks, fit_lines
from calib.calibration import Calibration, Columns, Granularity
from calib.form import misfits
from calib.gates import Decision, Within, judge
from calib.payload import Payload
from calib.state import State
from calib.testing import CalibrationLaws, take
from tests.calib.toy import UM, Beam, Detector, collisions, without

Floats = NDArray[np.float64]

SHAPE = np.array([[18.0**2, -60.0], [-60.0, 12.0**2]]) * UM**2
"""a beam wider in x than in y, and tilted"""
TRUTH = SHAPE[[0, 1, 0], [0, 1, 1]]


def members(
    rng: np.random.Generator, counts: NDArray[np.int64], resolution: float = 35 * UM, shape: Floats = SHAPE
) -> Members:
    """So many tracks of each vertex, all of one resolution [cm], in any direction."""
    place = rng.standard_normal((len(counts), 2)) @ np.linalg.cholesky(shape).T
    phi = rng.uniform(-np.pi, np.pi, counts.sum())
    across = np.stack([np.sin(phi), -np.cos(phi)], axis=1)
    d0 = np.sum(across * np.repeat(place, counts, axis=0), axis=1) + resolution * rng.standard_normal(len(phi))
    keys = np.stack([np.ones_like(counts), np.arange(len(counts)), np.zeros_like(counts)], axis=1)
    variance = np.full(len(phi), resolution**2 + np.trace(shape) / 2)
    return Members(d0, across, variance, keys, np.cumsum(counts) - counts)


def by_a_loop(given: Members) -> PairWidths:
    """The same fit, pair by pair."""
    edges = [*given.starts, len(given.d0)]
    weights, values = np.ones(len(given.keys)), np.zeros(3)
    for beam in (False, True):
        moments, normals = np.zeros((len(given.keys), 3)), np.zeros((len(given.keys), 3, 3))
        for v in range(len(given.keys)):
            if beam:
                information = sum(0.5 / given.variance[i] for i in range(edges[v], edges[v + 1]))
                weights[v] = (1 + max(values[:2].mean(), 0.0) * information) ** -2
            for i in range(edges[v], edges[v + 1]):
                for j in range(edges[v], i):
                    (s1, c1), (s2, c2) = given.across[i] * [1, -1], given.across[j] * [1, -1]
                    h = np.array([s1 * s2, c1 * c2, -(s1 * c2 + c1 * s2)])
                    w = weights[v] / (given.variance[i] * given.variance[j])
                    moments[v] += w * h * given.d0[i] * given.d0[j]
                    normals[v] += w * np.outer(h, h)
        values = np.linalg.solve(normals.sum(axis=0), moments.sum(axis=0))
    inverse, covariance = np.linalg.inv(normals.sum(axis=0)), np.zeros((3, 3))
    for moment, normal in zip(moments, normals, strict=True):
        moved = inverse @ (moment - normal @ values)
        covariance += np.outer(moved, moved) * len(moments) / (len(moments) - 3)
    return PairWidths(values, covariance, 0, fit_pairs(given, 0).influence)


class TestFit:
    def test_it_is_the_fit_of_a_loop_over_pairs(self) -> None:
        rng = np.random.default_rng(1)
        given = members(rng, rng.integers(2, 9, 60))
        given = replace(given, variance=given.variance * rng.uniform(0.5, 2, len(given.d0)))
        found, expected = fit_pairs(given, 0), by_a_loop(given)
        np.testing.assert_allclose(found.values, expected.values, rtol=1e-9)
        np.testing.assert_allclose(found.covariance, expected.covariance, rtol=1e-9)
        counts = np.diff(given.starts, append=len(given.d0))
        assert found.pairs == sum(c * (c - 1) // 2 for c in counts.tolist())

    def test_without_noise_it_is_exact(self) -> None:
        rng = np.random.default_rng(2)
        given = members(rng, np.full(50, 4), shape=np.eye(2) * UM**2)
        place = np.outer(rng.choice([-1.0, 1.0], 50), [20 * UM, -10 * UM])
        d0 = np.sum(given.across * np.repeat(place, 4, axis=0), axis=1)
        found = fit_pairs(replace(given, d0=d0), 0)
        np.testing.assert_allclose(found.values / UM**2, [400, 100, -200], rtol=1e-9)
        assert np.all(np.sqrt(np.diag(found.covariance)) < 1e-9 * 100 * UM**2)

    def test_unbiased_with_pulls_of_one(self) -> None:
        """300 toys of three values: the width of their pulls is known to 0.03, their mean to 0.06."""
        rng = np.random.default_rng(3)
        fits = [fit_pairs(members(rng, np.maximum(rng.poisson(10, 500), 2)), 0) for _ in range(300)]
        pull = np.array([(fit.values - TRUTH) / np.sqrt(np.diag(fit.covariance)) for fit in fits])
        assert np.all(np.abs(pull.std(axis=0) - 1) < 0.13)
        assert 0.9 < pull.std() < 1.1
        # The values themselves, for values and errors fluctuate together; in errors of their mean.
        off = np.mean([fit.values - TRUTH for fit in fits], axis=0)
        error = np.std([fit.values for fit in fits], axis=0) / np.sqrt(300)
        assert np.all(np.abs(off) < 4 * error)

    @pytest.mark.parametrize("resolution", [15, 35, 70])
    def test_errors_are_those_of_vertices_of_as_many_tracks(self, resolution: float) -> None:
        """Physics note 10: a width is known to (sb^2 + sv^2) / (sb sqrt(2 N)). Of n tracks, sv^2 = 2 sigma^2 / n."""
        beam, tracks, vertices = 15 * UM, 12, 4000
        shape = np.eye(2) * beam**2
        found = fit_pairs(members(np.random.default_rng(4), np.full(vertices, tracks), resolution * UM, shape), 0)
        of_vertex = 2 * (resolution * UM) ** 2 / tracks
        expected = (beam**2 + of_vertex) / (beam * np.sqrt(2 * vertices))
        assert np.sqrt(np.diag(found.covariance))[:2] / (2 * beam) == pytest.approx(expected, rel=0.15)

    @pytest.mark.parametrize("resolution", [5, 35, 100])
    @pytest.mark.parametrize("believed", [0.5, 1.0, 2.0])
    def test_the_resolution_drops_out(self, resolution: float, believed: float) -> None:
        """Whatever it is, and whatever is believed of it; not Gaussian either, and another for each track."""
        rng = np.random.default_rng(5)
        given = members(rng, np.full(8000, 10), 0.0)
        noise = resolution * UM * rng.uniform(0.5, 1.5, len(given.d0)) * rng.laplace(0, 0.5**0.5, len(given.d0))
        variance = np.full(len(given.d0), (believed * resolution * UM) ** 2 + np.trace(SHAPE) / 2)
        found = fit_pairs(replace(given, d0=given.d0 + noise, variance=variance), 0)
        errors = np.sqrt(np.diag(found.covariance))
        assert np.all(np.abs(found.values - TRUTH) < 4 * errors)
        assert np.all(errors < 50 * UM**2)

    def test_two_vertices_of_an_event_are_no_pair(self) -> None:
        """Taken for one vertex, their tracks would halve the widths."""
        given = members(np.random.default_rng(6), np.full(4000, 8))
        joined = replace(given, keys=given.keys[::2], starts=given.starts[::2])
        one, two = fit_pairs(given, 0), fit_pairs(joined, 0)
        assert np.all(np.abs(one.values - TRUTH) < 4 * np.sqrt(np.diag(one.covariance)))
        assert np.all(two.values[:2] < 0.65 * one.values[:2])

    def test_the_sum_of_the_influences_is_nothing(self) -> None:
        found = fit_pairs(members(np.random.default_rng(7), np.full(300, 5)), 0)
        total = found.influence.values.sum(axis=0)
        assert np.all(np.abs(total) < 1e-9 * np.sqrt(np.diag(found.covariance)))

    @pytest.mark.parametrize("directions", ["all one", "two of them"])
    def test_where_pairs_do_not_tell_nothing_is_measured(self, directions: str) -> None:
        """In one direction the widths are one number. In x and y alone, and mixed, they are all known."""
        rng = np.random.default_rng(8)
        given = members(rng, np.full(200, 4))
        phi = np.full(800, 0.3) if directions == "all one" else np.tile([0.0, 0.0, np.pi / 2, np.pi / 2], 200)
        found = fit_pairs(replace(given, across=np.stack([np.sin(phi), -np.cos(phi)], axis=1)), 0)
        assert np.isnan(found.values).all() == np.isnan(found.covariance).all() == (directions == "all one")
        assert found.pairs == 1200

    def test_fewer_vertices_than_asked_for_measure_nothing(self) -> None:
        given = members(np.random.default_rng(9), np.full(50, 4))
        assert np.isfinite(fit_pairs(given, 50).values).all()
        few = fit_pairs(given, 51)
        assert np.isnan(few.values).all()
        assert (few.pairs, len(few.influence.keys)) == (300, 0)
        none = Members(np.zeros(0), np.zeros((0, 2)), np.zeros(0), np.zeros((0, 3), np.int64), np.zeros(0, np.int64))
        assert (fit_pairs(none, 0).pairs, np.isnan(fit_pairs(none, 0).values).all()) == (0, True)

    def test_identical_tracks_and_very_many_are_fitted(self) -> None:
        given = members(np.random.default_rng(10), np.array([*[2] * 200, 500]))
        same = np.arange(400) // 2 * 2
        given.across[:400], given.d0[:400] = given.across[same], given.d0[same]
        found = fit_pairs(given, 0)
        assert np.isfinite(found.values).all()
        assert np.linalg.eigvalsh(found.covariance)[0] > 0


def piled(columns: dict[str, Any]) -> dict[str, Any]:
    """Every event with the next as its pile-up; and `track_vertex`."""
    seen = np.asarray(ak.num(columns["vertex_x"]))
    number = np.where(seen > 0, 0, -1)
    number[1::2] += seen[::2] * seen[1::2]
    columns = {**columns, "track_vertex": ak.zeros_like(columns["track_pt"], dtype=np.int64) + number}
    return {
        name: values[::2] if values.ndim == 1 else ak.concatenate([values[::2], values[1::2]], axis=1)
        for name, values in columns.items()
    }


def toy(events: int, seed: int = 1, beam: Beam | None = None, **detector: Any) -> dict[str, Any]:
    beams = [beam or Beam()]
    return piled(collisions(np.random.default_rng(seed), [(1, 1)], beams, 2 * events, Detector(**detector)))


def state_of(columns: Columns, **settings: Any) -> State:
    return BeamSpot(**settings).accumulate(columns, {})


def payload_of(columns: Columns, **settings: Any) -> Payload:
    return BeamSpot(**settings).finalize(state_of(columns, **settings), None)


class TestLawsWithVertices(CalibrationLaws):
    @pytest.fixture
    def calibration(self) -> Calibration:
        return BeamSpot(granularity=Granularity.LUMI, keep_tracks=200, keep_vertices=30, min_vertices=10)

    @pytest.fixture
    def columns(self) -> Columns:
        units = [(7, 1), (7, 2), (7, 3), (9, 1), (9, 5)]
        columns = piled(collisions(np.random.default_rng(3), units, [Beam()] * 5, events=30))
        return take(columns, np.random.default_rng(4).permutation(75))


class TestMembers:
    def naive(self, tracks: Tracks, vertex: NDArray[np.int64]) -> dict[tuple[int, ...], list[int]]:
        lines, groups = fit_lines(tracks, np.zeros(1, np.intp)), {}
        for i in range(len(tracks)):
            sine, cosine, lever = np.sin(tracks.phi[i]), np.cos(tracks.phi[i]), tracks.z0[i] - lines.z[0]
            off = tracks.d0[i] - lines.line[0] @ np.array([sine, -cosine, lever * sine, -lever * cosine])
            variance = lines.scatter[0, 0] ** 2 + tracks.d0_error[i] ** 2
            if vertex[i] >= 0 and abs(off) < REACH * np.sqrt(variance):
                groups.setdefault((int(tracks.unit[i]), int(tracks.event[i]), int(vertex[i])), []).append(off)
        return {key: offs for key, offs in groups.items() if len(offs) > 1}

    def test_tracks_are_put_together_as_by_a_loop(self) -> None:
        state = state_of(toy(60, tracks=3))
        tracks, vertex = Tracks.of(state["tracks"]), vertex_of(state["tracks"], state["vertex_of_track"])
        assert set(vertex) == {-1, 0, 1}
        found = Members.of(tracks, vertex, fit_lines(tracks, np.zeros(1, np.intp)))
        expected = self.naive(tracks, vertex)
        assert [tuple(key) for key in found.keys.tolist()] == sorted(expected)
        for key, part in zip(found.keys.tolist(), np.split(found.d0, found.starts[1:]), strict=True):
            np.testing.assert_allclose(part, expected[tuple(key)], rtol=1e-9, atol=1e-12)

    def test_vertices_are_known_of_the_same_tracks_only(self) -> None:
        """A file without the column, and rows cut after another mix of files, leave tracks without a vertex."""
        keys = np.array([[1, 1, 0], [1, 1, 2], [1, 4, 0], [2, 1, 0]])
        tracks = UnitRows(keys, {"d0": np.zeros(4)})
        numbers = UnitRows(np.array([[1, 1, 1], [1, 1, 2], [1, 3, 0], [2, 1, 0]]), {"vertex": np.array([5, 6, 7, 8])})
        assert vertex_of(tracks, numbers).tolist() == [-1, 6, -1, 8]

    def test_a_track_without_z_makes_no_pair(self) -> None:
        columns = toy(200)
        assert payload_of(columns)["pairs"] > 0
        blind = payload_of(without(columns, "track_z0"))
        assert blind["pairs"] == 0
        assert np.isnan(blind["pair_width_x"])
        assert np.isnan(blind["widths_probability"])


class TestPayload:
    def test_nothing_changes_without_the_column(self) -> None:
        columns = toy(300)
        bare, told = payload_of(without(columns, "track_vertex")), payload_of(columns)
        new = set(told.arrays) - set(bare.arrays)
        assert {name for name in new if not name.startswith("pair")} == {"widths_probability", "widths_disagree"}
        assert all(told[name].tobytes() == bare[name].tobytes() for name in bare.arrays)

    def test_every_quantity_has_an_error_a_unit_and_the_form_of_the_kind(self) -> None:
        payload = payload_of(toy(300))
        for name, unit in OF_PAIRS.items():
            assert payload[f"{name}_error"] > 0
            assert payload.units.get(name, "") == payload.units.get(f"{name}_error", "") == unit
        assert {"pairs", "pair_vertices"} < set(COUNTS)
        assert misfits(payload, nominal(x=0.1), BeamSpot.leeway) == ()
        # What was in use before files told vertices does not stand in the way.
        assert misfits(payload, payload_of(without(toy(300), "track_vertex")), BeamSpot.leeway) == ()

    def test_widths_and_correlation_follow_from_what_is_fitted(self) -> None:
        payload = payload_of(toy(1000), keep_tracks=10**5)
        vx, vy, c = (float(payload[name]) for name in ("pair_variance_x", "pair_variance_y", "pair_xy"))
        assert payload["pair_width_x"] == pytest.approx(np.sqrt(vx))
        assert payload["pair_correlation"] == pytest.approx(c / np.sqrt(vx * vy))
        draws = np.random.default_rng(1).multivariate_normal([vx, vy, c], payload["pair_covariance"], 100_000)
        small = np.array([vx, vy, c]) + 1e-3 * (draws - [vx, vy, c])
        spread = 1e3 * np.std(small[:, 2] / np.sqrt(small[:, 0] * small[:, 1]))
        assert payload["pair_correlation_error"] == pytest.approx(spread, rel=0.02)
        assert payload["pair_width_y_error"] == pytest.approx(1e3 * np.std(np.sqrt(small[:, 1])), rel=0.02)

    def test_a_variance_below_nothing_has_no_width(self) -> None:
        found = [payload_of(toy(60, seed, Beam(width=1 * UM)), min_vertices=40) for seed in range(6)]
        below = [payload for payload in found if payload["pair_variance_x"] < 0]
        assert 0 < len(below) < 6
        for payload in below:
            assert np.isnan([payload["pair_width_x"], payload["pair_width_x_error"], payload["pair_correlation"]]).all()
            assert payload["pair_variance_x_error"] > 0

    def test_few_vertices_measure_nothing_and_contradict_nothing(self) -> None:
        payload = payload_of(toy(40))
        assert (payload["pair_vertices"], bool(payload["widths_disagree"])) == (0, False)
        assert payload["pairs"] > 0
        assert np.isnan([float(payload[name]) for name in OF_PAIRS]).all()

    def test_pairs_alone_have_nothing_to_be_held_against(self) -> None:
        payload = payload_of(without(toy(300), "vertex"))
        assert payload["pair_width_x"] == pytest.approx(15 * UM, abs=4 * float(payload["pair_width_x_error"]))
        assert np.isnan(payload["widths_probability"])
        assert not payload["widths_disagree"]

    def test_files_that_tell_vertices_and_files_that_do_not_go_together(self) -> None:
        columns = toy(400)
        first, second = (take(columns, columns["event"] % 4 == part) for part in (1, 3))
        every = {"keep_tracks": 10**5}
        state = state_of(first, **every).merge(state_of(without(second, "track_vertex"), **every))
        mixed, alone = BeamSpot(**every).finalize(state, None), payload_of(first, **every)
        # The line of the beam is that of both, so a track may come in or go out.
        assert int(mixed["pairs"]) == pytest.approx(int(alone["pairs"]), rel=0.01)
        assert float(mixed["pair_width_x"]) == pytest.approx(float(alone["pair_width_x"]), abs=1.5 * UM)

    def test_a_state_kept_before_there_were_pairs_is_good_for_the_same_payload(self) -> None:
        columns = without(toy(300), "track_vertex")
        now = state_of(columns)
        then = State({name: now[name] for name in ("events", "tracks", "vertices")})
        made = BeamSpot().finalize(now, None)
        for state in (then, BeamSpot().empty().merge(then), then.merge(BeamSpot().empty())):
            assert BeamSpot().finalize(state, None).id == made.id

    def test_what_is_no_vertex_of_each_track_is_refused(self) -> None:
        columns = toy(30)
        with pytest.raises(ValueError, match="track_vertex is of float64; it is the index of a vertex"):
            state_of({**columns, "track_vertex": columns["track_d0"]})
        with pytest.raises(ValueError, match="not one entry a track"):
            state_of({**columns, "track_vertex": columns["track_vertex"][:, 1:]})


def misjudged(columns: dict[str, Any], factor: float, *starts: str) -> dict[str, Any]:
    """With errors off by a factor."""
    names = [name for name in columns if name.startswith(starts) and name.endswith("_error")]
    assert names
    return {**columns, **{name: factor * columns[name] for name in names}}


class TestAgreement:
    def test_the_probability_is_flat_where_both_are_right(self) -> None:
        """40 toys: its mean is known to 0.046, its standard deviation, 0.289, to about 0.02.

        So good are these vertices that both see much the same: with the errors of both its mean would be 0.67.
        """
        found = [payload_of(toy(100, seed, displaced=0.0, vertex_error=5 * UM)) for seed in range(40)]
        probability = np.array([float(payload["widths_probability"]) for payload in found])
        assert probability.mean() == pytest.approx(0.5, abs=0.14)
        assert probability.std() == pytest.approx(0.289, abs=0.08)
        assert not any(payload["widths_disagree"] for payload in found)

    @pytest.mark.parametrize(("what", "factor", "fires"), [("vertex", 0.6, True), ("track", 0.6, False)])
    def test_wrong_errors_of_vertices_are_seen_and_those_of_tracks_do_not_matter(
        self, what: str, factor: float, fires: bool
    ) -> None:
        columns = toy(1000)
        gate = Within("widths_disagree", 0, 0, "")
        right, wrong = (payload_of(part, keep_tracks=10**5) for part in (columns, misjudged(columns, factor, what)))
        assert judge(right, None, [gate]).decision is Decision.PUBLISH
        verdict = judge(wrong, None, [gate])
        assert verdict.decision is (Decision.REJECT if fires else Decision.PUBLISH)
        assert bool(wrong["widths_disagree"]) == fires
        assert (float(wrong["width_x"]) > 19 * UM) == fires
        # Either way pairs are right.
        for name in ("pair_width_x", "pair_width_y"):
            assert abs(float(wrong[name]) - 15 * UM) < 4 * float(wrong[f"{name}_error"])
