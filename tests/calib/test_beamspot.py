from __future__ import annotations

from dataclasses import replace
from typing import Any

import awkward as ak
import numpy as np
import pytest
from numpy.typing import NDArray

from calib.accumulators import UnitRows
from calib.algorithms.beamspot import BeamSpot
from calib.algorithms.beamspot_payload import PARAMETERS, Measured, nominal
from calib.algorithms.beamspot_tracks import Tracks, fit_lines
from calib.algorithms.beamspot_vertices import VX, VY, VZ, Vertices, fit_region
from calib.calibration import Calibration, Columns, Granularity, NotConverged, NotEnoughData, Outcome, conclude
from calib.collapsing import Rule
from calib.iov import RunLumi
from calib.payload import Payload
from calib.state import State
from calib.testing import CalibrationLaws
from tests.calib.toy import UM, Beam, Detector, collisions, without

MOVED = Beam(x=0.08 + 60 * UM)
UNITS = [(7, 1), (7, 2), (7, 3), (7, 4), (9, 1), (9, 5)]


def some_collisions() -> dict[str, Any]:
    columns = collisions(np.random.default_rng(3), UNITS, [Beam()] * 2 + [MOVED] * 4, events=25)
    return {name: values[np.random.default_rng(4).permutation(150)] for name, values in columns.items()}


class TestLawsByRun(CalibrationLaws):
    @pytest.fixture
    def calibration(self) -> Calibration:
        return BeamSpot(min_vertices=40)

    @pytest.fixture
    def columns(self) -> Columns:
        return some_collisions()


class TestLawsWithRowsCut(TestLawsByRun):
    @pytest.fixture
    def calibration(self) -> Calibration:
        return BeamSpot(granularity=Granularity.LUMI, keep_tracks=120, keep_vertices=10)


class TestLawsOfSpansWithoutZ(TestLawsByRun):
    @pytest.fixture
    def calibration(self) -> Calibration:
        return BeamSpot(granularity=Granularity.SPAN, min_tracks=150)

    @pytest.fixture
    def columns(self) -> Columns:
        return without(some_collisions(), "track_z0", "track_d0_error", "vertex")


class TestLawsByTheRuleOfCms(TestLawsByRun):
    @pytest.fixture
    def calibration(self) -> Calibration:
        return BeamSpot(granularity=Granularity.LUMI, rule=Rule.CMS, min_tracks=40, min_vertices=9999)

    @pytest.fixture
    def columns(self) -> Columns:
        beams = [Beam(x=0.08 + moved * UM) for moved in (0, 0, 60, 0, 0, 0)]
        units = [(run, lumi) for run in (1, 2) for lumi in (1, 2, 3)]
        return collisions(np.random.default_rng(4), units, beams, 20)


def toy(events: int, beam: Beam | None = None, seed: int = 1, **more: Any) -> dict[str, Any]:
    return collisions(np.random.default_rng(seed), [(1, 1)], [beam or Beam()], events, Detector(**more))


def payload_of(columns: Columns, previous: Payload | None = None, **settings: Any) -> Payload:
    calibration = BeamSpot(**settings)
    return calibration.finalize(calibration.accumulate(columns, {}), previous)


def pulls(payload: Payload, beam: Beam) -> NDArray[np.float64]:
    truth = [beam.x, beam.y, beam.z, beam.sigma_z, beam.dxdz, beam.dydz, beam.width, beam.width]
    return np.array([(payload[n] - t) / payload[f"{n}_error"] for n, t in zip(PARAMETERS, truth, strict=True)])


def grouped(columns: Columns, groups: int) -> tuple[Tracks, NDArray[np.intp]]:
    """The tracks of a toy in groups of as many events each."""
    calibration = BeamSpot(keep_tracks=10**6)
    tracks = Tracks.of(calibration.accumulate(columns, {})["tracks"])
    edges = np.linspace(0, len(columns["event"]), groups + 1)
    return tracks, np.searchsorted(tracks.event - 1, edges[:-1])


class TestTracks:
    def test_without_noise_the_line_is_exact(self) -> None:
        beam = Beam(width=1e-9)
        columns = toy(40, beam, constant=1e-9, over_pt=0.0, displaced=0.0)
        payload = payload_of(without(columns, "vertex", "track_d0_error"))
        found = [float(payload[name]) for name in ("x", "y", "dxdz", "dydz")]
        at_z = float(payload["z"]) - beam.z
        truth = [beam.x + beam.dxdz * at_z, beam.y + beam.dydz * at_z, beam.dxdz, beam.dydz]
        # d0 is kept as float32, and slopes are drawn to 0 by a thousandth.
        np.testing.assert_allclose(found, truth, rtol=3e-3, atol=1e-6)

    def test_it_is_the_weighted_least_squares_of_a_loop(self) -> None:
        columns = toy(60, displaced=0.0, constant=200 * UM, over_pt=0.0)
        tracks, starts = grouped(columns, 1)
        lines = fit_lines(tracks, starts)
        normal, moment = np.diag([0, 0, 1e6, 1e6]), np.zeros(4)
        for i in range(len(tracks)):
            sine, cosine = np.sin(tracks.phi[i]), np.cos(tracks.phi[i])
            lever = tracks.z0[i] - lines.z[0]
            g = np.array([sine, -cosine, lever * sine, -lever * cosine])
            variance = lines.scatter[0, 0] ** 2 + tracks.d0_error[i] ** 2
            off = (tracks.d0[i] - g @ lines.line[0]) ** 2 / variance / 4.685**2
            weight = (1 - min(off, 1.0)) ** 2 / variance
            normal, moment = normal + weight * np.outer(g, g), moment + weight * g * tracks.d0[i]
        expected = np.linalg.solve(normal, moment)
        errors = np.sqrt(np.diag(lines.covariance[0]))
        assert np.all(np.abs(lines.line[0] - expected) < 2e-3 * errors)

    def test_groups_know_nothing_of_each_other(self) -> None:
        tracks, starts = grouped(toy(400), 8)
        together = fit_lines(tracks, starts)
        ends = np.append(starts[1:], len(tracks))
        for i in range(8):
            alone = fit_lines(tracks[slice(starts[i], ends[i])], np.zeros(1, np.intp))
            assert alone.line[0].tobytes() == together.line[i].tobytes()
            assert alone.covariance[0].tobytes() == together.covariance[i].tobytes()

    def test_many_groups_are_fitted_in_slabs(self) -> None:
        tracks, starts = grouped(toy(6000), 50)
        lines = fit_lines(tracks, starts)
        assert len(tracks) > 50_000
        assert lines.line.shape == (50, 4)
        assert lines.settled.all()
        np.testing.assert_array_less(np.abs(lines.line[:, 0] - 0.08), 30 * UM)

    @pytest.mark.parametrize("given", ["errors", "no errors", "no z"])
    def test_pulls_and_precision(self, given: str) -> None:
        """Physics note 10: 1.7 um from 1 000 tracks of an effective 37 um, 41 urad."""
        hidden = {"errors": (), "no errors": ("track_d0_error",), "no z": ("track_d0_error", "track_z0")}[given]
        beam = Beam() if given != "no z" else Beam(dxdz=0.0, dydz=0.0)
        tracks, starts = grouped(without(toy(15_000, beam), *hidden), 150)
        lines = fit_lines(tracks, starts)
        assert lines.settled.all()
        z = lines.z - beam.z if given != "no z" else 0.0
        off = lines.line - np.stack([np.broadcast_to(v, 150) for v in line_at(beam, z)], axis=1)
        pull = off / np.sqrt(np.einsum("mii->mi", lines.covariance))
        assert np.all(np.abs(pull[:, :2].std(axis=0) - 1) < 0.2)
        assert np.all(np.abs(pull[:, :2].mean(axis=0)) < 0.3)
        assert 1.3 * UM < off[:, 0].std() < 2.4 * UM
        if given != "no z":
            assert np.all(np.abs(pull[:, 2:].std(axis=0) - 1) < 0.2)
            assert 30e-6 < off[:, 2].std() < 70e-6

    def test_the_scatter_is_found_among_displaced_tracks(self) -> None:
        columns = toy(4000, displaced=0.1)
        both = (columns, without(columns, "track_d0_error", "vertex"))
        known, fitted = (payload_of(part, keep_tracks=10**6) for part in both)
        assert float(known["scatter_constant"]) == pytest.approx(15 * UM, rel=0.1)
        assert float(fitted["resolution_constant"]) == pytest.approx(np.hypot(10, 15) * UM, rel=0.15)
        assert float(fitted["resolution_over_pt"]) == pytest.approx(40 * UM, rel=0.1)
        assert fitted["resolution_has_width"]
        assert "resolution_constant" not in known.arrays

    def test_one_track_far_off_does_not_matter(self) -> None:
        columns = toy(50)
        wild = dict(columns)
        flat = np.asarray(ak.flatten(columns["track_d0"])).copy()
        flat[7] = 0.99
        wild["track_d0"] = ak.unflatten(flat, ak.num(columns["track_d0"]))
        one, two = payload_of(columns), payload_of(wild)
        assert abs(float(one["x"] - two["x"])) < 0.2 * float(one["x_error"])
        flat[7] = 178.0
        wild["track_d0"] = ak.unflatten(flat, ak.num(columns["track_d0"]))
        assert payload_of(wild)["tracks"] == one["tracks"] - 1


def line_at(beam: Beam, z: Any) -> list[Any]:
    return [beam.x + beam.dxdz * z, beam.y + beam.dydz * z, beam.dxdz, beam.dydz]


class TestVertices:
    def toys(self, vertices: int, toys: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Values and pulls of x, y, z, widths and slopes of that many fits."""
        beam = Beam()
        truth = np.array([beam.x, beam.y, beam.z, beam.width**2, beam.width**2, 0, beam.dxdz, beam.dydz, 16.0])
        values, errors = [], []
        columns = toy(int(vertices * toys / 0.85))
        rows = BeamSpot(keep_vertices=10**6).accumulate(columns, {})["vertices"]
        every = Vertices.of(rows, 10**6)
        for i in range(toys):
            region = fit_region(every[np.arange(len(every)) // vertices == i])
            values.append(region.values)
            errors.append(np.sqrt(np.diag(region.covariance)))
        return np.array(values), (np.array(values) - truth) / np.array(errors)

    def test_pulls_and_precision(self) -> None:
        """Physics note 10, 1 000 vertices: x 1.0 um, widths 1.04 um, sigma_z 0.9 mm, slopes 22 urad."""
        values, pull = self.toys(1000, 30)
        assert np.all(np.abs(pull.std(axis=0) - 1) < 0.4)
        assert np.all(np.abs(pull.mean(axis=0)) < 0.7)
        assert values[:, 0].std() == pytest.approx(1.0 * UM, rel=0.35)
        assert np.sqrt(values[:, VX]).std() == pytest.approx(1.04 * UM, rel=0.4)
        assert np.sqrt(values[:, VZ]).std() == pytest.approx(0.09, rel=0.4)
        assert values[:, 6].std() == pytest.approx(22e-6, rel=0.35)

    def test_widths_of_many(self) -> None:
        """Physics note 10, 10 000 vertices: 0.31 um on the widths."""
        (values,), _ = self.toys(9000, 1)
        assert np.sqrt(values[VX]) == pytest.approx(15 * UM, abs=1.2 * UM)
        assert np.sqrt(values[VY]) == pytest.approx(15 * UM, abs=1.2 * UM)
        assert np.sqrt(values[VZ]) == pytest.approx(4.0, abs=0.12)

    def test_vertices_far_off_are_left_out(self) -> None:
        columns = toy(1000)
        flat = np.asarray(ak.flatten(columns["vertex_x"])).copy()
        flat[::100] += 0.1
        wild = {**columns, "vertex_x": ak.unflatten(flat, ak.num(columns["vertex_x"]))}
        one, two = payload_of(columns), payload_of(wild)
        assert abs(int(two["vertices_used"]) - int(one["vertices_used"]) + len(flat[::100])) <= 1
        assert float(two["width_x"]) == pytest.approx(float(one["width_x"]), abs=0.5 * UM)

    def test_without_a_maximum_it_says_so(self) -> None:
        error = np.tile(np.diag([1.0, 1.0, 1.0]) * 1e-4, (50, 1, 1))
        same = Vertices(np.zeros((50, 3)) + 0.1, error)
        with pytest.raises(NotConverged, match="luminous region"):
            fit_region(same)

    def test_xy_covariance_is_used(self) -> None:
        columns = toy(3000)
        one = payload_of(columns)
        shared = 0.5 * columns["vertex_x_error"] * columns["vertex_y_error"]
        two = payload_of({**columns, "vertex_xy_covariance": shared})
        assert two["vertex_values"].tolist() != one["vertex_values"].tolist()

    def test_vertices_without_a_usable_error_are_left_out(self) -> None:
        columns = toy(300)
        flat = np.asarray(ak.flatten(columns["vertex_x_error"])).copy()
        flat[0], flat[1] = 0.0, np.nan
        wild = {**columns, "vertex_x_error": ak.unflatten(flat, ak.num(columns["vertex_x"]))}
        assert payload_of(wild)["vertices"] == payload_of(columns)["vertices"] - 2


class TestPayload:
    def test_pulls_of_all_parameters(self) -> None:
        rng = np.random.default_rng(8)
        every = []
        for _ in range(40):
            columns = collisions(rng, [(1, 1)], [Beam()], 300)
            every.append(pulls(payload_of(columns), Beam()))
        every = np.array(every)
        assert np.all(np.abs(every.std(axis=0) - 1) < 0.35)
        assert np.all(np.abs(every.mean(axis=0)) < 0.6)

    def test_position_from_tracks_z_and_widths_from_vertices(self) -> None:
        payload = payload_of(toy(800))
        values = payload["vertex_values"]
        assert [float(payload[n]) for n in ("z", "sigma_z", "width_x")] == [values[i] for i in (2, 3, 6)]
        assert float(payload["x"]) != values[0]
        assert payload["slopes_measured"]
        assert payload["z_measured"]
        assert payload["widths_measured"]
        errors = np.sqrt(np.diag(payload["covariance"]))
        assert errors.tolist() == [float(payload[f"{name}_error"]) for name in PARAMETERS]
        np.linalg.cholesky(payload["covariance"])

    def test_covariance_moves_with_the_position(self) -> None:
        covariance = np.zeros((8, 8))
        covariance[np.ix_([0, 4], [0, 4])] = [[4e-8, 1e-9], [1e-9, 9e-10]]
        here = Measured(np.array([0.1, 0, 1.0, 4, 2e-4, 0, 1, 1]), covariance)
        there = here.at(11.0)
        assert there.values[0] == pytest.approx(0.1 + 10 * 2e-4)
        assert there.covariance[0, 0] == pytest.approx(4e-8 + 2 * 10 * 1e-9 + 100 * 9e-10)
        assert there.covariance[0, 4] == pytest.approx(1e-9 + 10 * 9e-10)

    def test_without_z_the_slopes_are_carried_and_marked(self) -> None:
        columns = without(toy(100), "track_z0", "vertex")
        before = payload_of(toy(800))
        payload = payload_of(columns, before)
        for name in ("dxdz", "dydz", "z", "sigma_z", "width_x", "width_y"):
            assert payload[name] == before[name]
            assert float(payload[f"{name}_error"]) == pytest.approx(float(before[f"{name}_error"]))
        assert not payload["slopes_measured"]
        assert not payload["z_measured"]
        alone = payload_of(columns)
        assert [float(alone[name]) for name in ("z", "dxdz", "dydz")] == [0, 0, 0]
        assert np.isnan([float(alone[name]) for name in ("width_x", "sigma_z", "dxdz_error")]).all()
        assert alone["x"] == payload["x"]

    def test_few_vertices_leave_the_widths_to_be_carried(self) -> None:
        payload = payload_of(toy(60), nominal(width_x=0.002))
        assert (float(payload["width_x"]), bool(payload["widths_measured"])) == (0.002, False)
        assert payload["z_measured"]
        assert payload["vertices_used"] == 0
        assert np.isnan(payload["width_x_error"])

    def test_vertices_that_give_no_fit_do_too(self) -> None:
        columns = toy(300)
        same = ak.full_like(columns["vertex_x"], 0.1)
        payload = payload_of({**columns, "vertex_x": same, "vertex_y": same, "vertex_z": same})
        assert not payload["widths_measured"]

    def test_too_few_tracks_make_no_payload(self) -> None:
        with pytest.raises(NotEnoughData, match=r"\d+ tracks; a beam spot needs 100"):
            payload_of(toy(5))

    def test_tracks_of_few_vertices_make_none_either(self) -> None:
        columns = toy(3, tracks=60)
        with pytest.raises(NotConverged, match="tracks of 3 vertices"):
            payload_of(columns)

    def test_a_missing_column_is_named(self) -> None:
        with pytest.raises(KeyError, match="track_phi"):
            payload_of(without(toy(5), "track_phi"))
        with pytest.raises(KeyError, match="vertex_y_error"):
            payload_of(without(toy(5), "vertex_y_error"))

    @pytest.mark.parametrize(
        "wrong",
        [{"min_tracks": 0}, {"keep_vertices": -1}, {"significance": 0.0}, {"max_d0": -1.0}, {"least_move": -1e-4}],
    )
    def test_settings_that_cannot_be_are_refused(self, wrong: dict[str, Any]) -> None:
        [name] = wrong
        with pytest.raises(ValueError, match=f"`{name}`|least moves"):
            BeamSpot(**wrong)

    def test_nominal_payload(self) -> None:
        payload = nominal(x=0.1, width_x=0.002)
        assert (float(payload["x"]), float(payload["y"]), payload.units["x"]) == (0.1, 0.0, "cm")
        assert not payload["slopes_measured"]
        with pytest.raises(ValueError, match="a beam spot has no width; it has x, y, z"):
            nominal(width=0.002)

    def test_every_number_with_a_dimension_has_a_unit(self) -> None:
        payload = payload_of(without(toy(100), "track_d0_error"))
        bare = {"covariance", "vertex_values", "vertex_covariance", "events", "tracks", "tracks_used", "vertices"}
        flags = {name for name in payload.arrays if name.endswith(("_measured", "_has_width"))}
        assert set(payload.arrays) - set(payload.units) == bare | flags | {"vertices_used"}


def beam_walk(lumis: int, step_at: int, granularity: Granularity, runs: int = 1) -> tuple[BeamSpot, State]:
    units = [(run, lumi) for run in range(1, runs + 1) for lumi in range(1, lumis + 1)]
    beams = [replace(Beam(), x=0.08 + 40 * UM * (i >= step_at)) for i in range(len(units))]
    columns = collisions(np.random.default_rng(5), units, beams, events=150)
    calibration = BeamSpot(granularity=granularity, min_tracks=500)
    return calibration, calibration.accumulate(columns, {})


class TestIntervals:
    def test_a_step_is_found_inside_a_run(self) -> None:
        calibration, state = beam_walk(12, 7, Granularity.LUMI)
        first, second = conclude(calibration, state, None, flush=True)
        assert RunLumi.unpack(second.interval.units[0]) == RunLumi(1, 8)
        assert first.payload is not None
        assert second.payload is not None
        assert float(second.payload["x"] - first.payload["x"]) == pytest.approx(40 * UM, abs=8 * UM)

    def test_a_run_keeps_one_payload(self) -> None:
        calibration, state = beam_walk(4, 2, Granularity.RUN, runs=2)
        assert [len(c.interval.units) for c in conclude(calibration, state, None, flush=True)] == [4, 4]

    def test_a_span_goes_on_into_the_next_run_unless_the_beam_moves(self) -> None:
        calibration, state = beam_walk(3, 6, Granularity.SPAN, runs=3)
        intervals = calibration.intervals(state, flush=True)
        assert [len(interval.units) for interval in intervals] == [6, 3]
        still_open = calibration.intervals(state, flush=False)
        assert [interval.closed for interval in still_open] == [True, False]

    def test_a_spike_is_left_out_of_the_payload(self) -> None:
        beams = [Beam()] * 8
        spike = [*beams[:4], Beam(x=0.08 + 200 * UM), *beams[5:]]
        units = [(1, lumi) for lumi in range(1, 9)]
        columns = collisions(np.random.default_rng(6), units, spike, events=150)
        calibration = BeamSpot(granularity=Granularity.LUMI, min_tracks=500)
        state = calibration.accumulate(columns, {})
        (made,) = conclude(calibration, state, None, flush=True)
        assert [RunLumi.unpack(unit).lumi for unit in made.interval.vetoed] == [5]
        assert made.payload is not None
        assert made.payload["events"] == 7 * 150
        assert abs(float(made.payload["x"]) - 0.08) < 6 * UM

    def test_units_without_tracks_belong_to_an_interval(self) -> None:
        columns = without(toy(100), "vertex")
        empty = ak.Array([[]] * 2)
        nothing = {name: empty for name in columns if name.startswith("track")}
        nothing |= {"run": np.array([1, 1]), "lumi": np.array([2, 3]), "event": np.array([1, 2])}
        calibration = BeamSpot(granularity=Granularity.LUMI)
        state = calibration.accumulate(columns, {}).merge(calibration.accumulate(nothing, {}))
        (interval,) = calibration.intervals(state, flush=True)
        assert len(interval.units) == 3
        lone = calibration.accumulate(nothing, {})
        (nothing_made,) = conclude(calibration, lone, None, flush=True)
        assert nothing_made.outcome is Outcome.NOT_ENOUGH_DATA

    def test_the_trend_has_values_errors_and_floors(self) -> None:
        calibration, state = beam_walk(4, 9, Granularity.LUMI)
        trend = calibration.trend(state)
        assert (len(trend.blocks), trend.values.shape) == (4, (4, 3))
        assert np.all(np.abs(trend.values[:, 0] - 0.08) < 6 * trend.errors[:, 0] + 3 * UM)
        np.testing.assert_allclose(trend.floors[:, 0], 10 * UM)
        np.testing.assert_allclose(trend.floors[:, 2], 2.0, rtol=0.2)

    @pytest.mark.parametrize("hidden", ["vertex", "track_d0_error"])
    def test_a_wide_beam_has_a_wide_floor_inside_a_run_only(self, hidden: str) -> None:
        """The width is that of tracks whose errors are known, or of vertices."""
        columns = collisions(np.random.default_rng(5), [(1, 1), (1, 2), (2, 1)], [Beam(width=60 * UM)] * 3, 400)
        calibration = BeamSpot(granularity=Granularity.SPAN, min_tracks=500)
        floors = calibration.trend(calibration.accumulate(without(columns, hidden), {})).floors
        assert floors[1, 0] == pytest.approx(30 * UM, rel=0.1)
        assert floors[2, 0] == 5 * UM

    def test_where_the_width_is_not_known_the_floor_is_the_least_move(self) -> None:
        columns = collisions(np.random.default_rng(5), [(1, 1), (1, 2)], [Beam(width=60 * UM)] * 2, 400)
        few = without(columns, "track_d0_error")
        calibration = BeamSpot(granularity=Granularity.SPAN, min_tracks=500, min_vertices=400)
        for part in (few, without(few, "vertex")):
            assert calibration.trend(calibration.accumulate(part, {})).floors[1, 0] == 10 * UM

    def test_each_block_has_the_width_of_its_own_vertices(self) -> None:
        beams = [Beam(width=width * UM) for width in (60, 30, 60, 90)]
        units = [(1, 1), (1, 2), (1, 3), (1, 4)]
        columns = without(collisions(np.random.default_rng(7), units, beams, 400), "track_d0_error")
        calibration = BeamSpot(granularity=Granularity.LUMI, min_tracks=500)
        state = calibration.accumulate(columns, {})
        # One block in the middle has too few vertices.
        rows = state["vertices"]
        lone = np.flatnonzero(rows.keys[:, 0] == RunLumi(1, 3).packed)
        kept = np.delete(np.arange(len(rows.keys)), lone[50:])
        few = UnitRows(rows.keys[kept], {n: values[kept] for n, values in rows.columns.items()}, rows.keep, rows.rank)
        floors = calibration.trend(State({**state, "vertices": few})).floors[:, 0] / UM
        np.testing.assert_allclose(floors, [30, 15, 10, 45], rtol=0.1)

    def test_a_move_of_less_than_half_the_width_closes_nothing(self) -> None:
        units = [(1, lumi) for lumi in range(1, 7)]
        beams = [Beam(x=0.08 + (i >= 3) * 20 * UM, width=60 * UM) for i in range(6)]
        columns = without(collisions(np.random.default_rng(9), units, beams, 1000), "track_d0_error")
        calibration = BeamSpot(granularity=Granularity.LUMI, min_tracks=500)
        for part, intervals in ((columns, 1), (without(columns, "vertex"), 2)):
            assert len(calibration.intervals(calibration.accumulate(part, {}), flush=True)) == intervals

    def test_thresholds_are_no_business_of_the_state(self) -> None:
        one, two = BeamSpot(), BeamSpot(min_tracks=7, significance=3.0, granularity=Granularity.SPAN)
        assert one.accumulate_settings() == two.accumulate_settings()
        assert one.finalize_settings() != two.finalize_settings()
        assert BeamSpot(keep_tracks=7).accumulate_settings() != one.accumulate_settings()

    def test_four_thousand_lumisections(self) -> None:
        """Intervals and payload of a long run, in seconds."""
        units = [(1, lumi) for lumi in range(1, 4001)]
        columns = without(collisions(np.random.default_rng(5), units, [Beam()] * 4000, events=5), "vertex")
        calibration = BeamSpot(granularity=Granularity.LUMI, min_tracks=50)
        state = calibration.accumulate(columns, {})
        conclusions = conclude(calibration, state, None, flush=True)
        assert sum(len(c.interval.units) for c in conclusions) == 4000
        assert all(c.outcome is Outcome.MADE for c in conclusions)


class TestTheRuleOfCms:
    """Named in settings, to compare with."""

    STEPS = (0, 0, 0, 0, 60, 60, 60, 60, 0, 0, 0, 0)

    def starts(self, rule: str, granularity: Granularity = Granularity.LUMI, flush: bool = True) -> list[int]:
        beams = [Beam(x=0.08 + moved * UM) for moved in self.STEPS]
        columns = collisions(np.random.default_rng(3), [(1, lumi) for lumi in range(1, 13)], beams, 80)
        calibration = BeamSpot(granularity=granularity, rule=Rule(rule))
        state = calibration.accumulate(columns, {})
        return [RunLumi.unpack(interval.units[0]).lumi for interval in calibration.intervals(state, flush)]

    def test_where_two_steps_of_one_sign_reach_the_floor_it_closes_one_early(self) -> None:
        assert self.starts("running_mean") == [1, 5, 9]
        assert self.starts("cms") == [1, 4, 5, 8, 9]

    def test_it_waits_for_the_end_of_the_run(self) -> None:
        assert self.starts("cms", flush=False) == [1]

    def test_it_cuts_no_spans(self) -> None:
        with pytest.raises(ValueError, match="'cms' cuts run by run: `granularity` 'span' needs 'running_mean'"):
            self.starts("cms", Granularity.SPAN)

    def test_moving_to_it_reads_no_event(self) -> None:
        ours, theirs = (BeamSpot(granularity=Granularity.LUMI, rule=rule) for rule in Rule)
        assert ours.accumulate_settings() == theirs.accumulate_settings()
        assert ours.finalize_settings() != theirs.finalize_settings()
