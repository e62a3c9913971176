"""The calibrations on real data: CMS collisions of 2011 and 2012, and IceCube's dark counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
from numpy.typing import NDArray

from calib.algorithms.beamspot import BeamSpot
from calib.algorithms.channel_status import ChannelStatus, Status
from calib.calibration import Conclusion, Granularity, conclude
from calib.iov import RunLumi
from calib.payload import Payload
from calib.state import State
from calib.testing import PayloadLaws

UM = 1e-4
"""cm"""

Floats = NDArray[np.float64]


def events(columns: dict[str, Any], which: NDArray[np.bool_]) -> dict[str, Any]:
    return {name: values[which] for name, values in columns.items()}


def made(conclusions: list[Conclusion]) -> list[tuple[tuple[int, ...], Payload]]:
    """Runs and payload of each interval that has one."""
    return [
        (tuple(sorted({RunLumi.unpack(unit).run for unit in c.interval.units})), c.payload)
        for c in conclusions
        if c.payload is not None
    ]


def place(payload: Payload) -> tuple[Floats, Floats]:
    """x and y, and their errors [um]."""
    found = np.array([[float(payload[axis]), float(payload[f"{axis}_error"])] for axis in "xy"]) / UM
    return found[:, 0], found[:, 1]


@pytest.fixture(scope="module")
def muons(data_dir: Path) -> dict[str, Any]:
    names = ["run", "event", "Muon_pt", "Muon_phi", "Muon_dxy"]
    found = uproot.open(data_dir / "cms_2011A_zmumu.root")["Events"].arrays(names)
    return {
        "run": ak.to_numpy(found.run).astype(np.int64),
        "lumi": np.ones(len(found), np.int64),
        "event": ak.to_numpy(found.event).astype(np.int64),
        "track_pt": found.Muon_pt,
        "track_phi": found.Muon_phi,
        "track_d0": -found.Muon_dxy,
    }


class Test2011:
    """Muon pairs of 19 runs: d0, phi and pT, no z and no errors."""

    def width(self, muons: dict[str, Any], conclusions: list[Conclusion]) -> float:
        """1.4826 x median absolute deviation of d0 about the payload in force, on odd events [um]."""
        odd = events(muons, muons["event"] % 2 == 1)
        payloads = made(conclusions)
        begins = np.array([runs[0] for runs, _ in payloads])
        in_force = np.maximum(np.searchsorted(begins, odd["run"], side="right") - 1, 0)
        x, y = (np.array([float(payload[axis]) for _, payload in payloads])[in_force] for axis in "xy")
        phi = ak.values_astype(odd["track_phi"], np.float64)
        residual = np.asarray(ak.flatten(odd["track_d0"] - (x * np.sin(phi) - y * np.cos(phi)))) / UM
        return float(1.4826 * np.median(np.abs(residual - np.median(residual))))

    def of_even(self, muons: dict[str, Any], calibration: BeamSpot) -> list[Conclusion]:
        even = events(muons, muons["event"] % 2 == 0)
        return conclude(calibration, calibration.accumulate(even, {}), None, flush=True)

    def test_one_constant_for_all(self, muons: dict[str, Any]) -> None:
        one = BeamSpot(granularity=Granularity.SPAN, significance=np.inf)
        conclusions = self.of_even(muons, one)
        assert self.width(muons, conclusions) == pytest.approx(47.5, abs=1.0)
        ((runs, payload),) = made(conclusions)
        assert len(runs) == 19
        np.testing.assert_allclose(place(payload)[0], [746, 422], atol=4)

    def test_a_payload_a_run(self, muons: dict[str, Any]) -> None:
        assert self.width(muons, self.of_even(muons, BeamSpot())) == pytest.approx(28.8, abs=0.7)

    def test_spans(self, muons: dict[str, Any]) -> None:
        conclusions = self.of_even(muons, BeamSpot(granularity=Granularity.SPAN))
        assert self.width(muons, conclusions) <= 29.5
        assert 10 <= len(made(conclusions)) <= 16

    def pulls(self, muons: dict[str, Any], halves: tuple[int | None, int | None], **settings: Any) -> list[float]:
        """How far each run of more than 100 muons lies from the payload that covers it, in errors of both.

        Payloads from one half of the events (None: from all), runs measured with the other or the same.
        """
        spans = BeamSpot(granularity=Granularity.SPAN, keep_tracks=10_000, **settings)
        fitted, seen = (
            spans.accumulate(muons if half is None else events(muons, muons["event"] % 2 == half), {})
            for half in halves
        )
        runs, counts = np.unique(muons["run"], return_counts=True)
        many = runs[2 * counts > 100]
        far = []
        for covered, payload in made(conclude(spans, fitted, None, flush=True)):
            for run in set(covered) & set(many):
                part = seen.select(np.array([RunLumi(run, 1).packed]))
                if len(part["tracks"].keys) >= spans.min_tracks:
                    (at, error), (expected, of_payload) = place(spans.finalize(part, None)), place(payload)
                    far.append(float(np.max(np.abs(at - expected) / np.hypot(error, of_payload))))
        assert len(far) >= 16
        return far

    @pytest.mark.parametrize("half", [0, 1, None])
    def test_no_run_is_off_the_payload_that_covers_it(self, muons: dict[str, Any], half: int | None) -> None:
        assert max(self.pulls(muons, (half, half))) < 4

    @pytest.mark.parametrize("halves", [(0, 1), (1, 0)])
    def test_events_not_used_find_no_run_off_but_where_half_of_them_cannot_tell(
        self, muons: dict[str, Any], halves: tuple[int, int]
    ) -> None:
        """Run 166784 lies 12 um from the next, 6.6 errors with all events; the even ones have it 8.3 um, 2.6 errors,
        away, so they make one payload of both, and the odd ones see it 5.0 errors off.
        """
        far = sorted(self.pulls(muons, halves))
        assert far[-2] < 4
        assert far[-1] < 5.5

    def test_a_floor_of_10_um_between_runs_would_leave_a_run_off(self, muons: dict[str, Any]) -> None:
        assert max(self.pulls(muons, (None, None), least_move_between_runs=10 * UM)) > 4.5

    def test_spans_are_stable(self, muons: dict[str, Any]) -> None:
        spans = BeamSpot(granularity=Granularity.SPAN)
        state = spans.accumulate(muons, {})
        PayloadLaws().test_what_is_closed_stays(spans, state)
        PayloadLaws().test_an_open_interval_can_be_gone_on_with(spans, state)

    def test_ranges_of_the_readme(self, muons: dict[str, Any]) -> None:
        expected = {
            (160_000, 163_500): (790, 332),
            (163_500, 165_500): (753, 373),
            (167_000, 168_500): (758, 401),
            (171_500, 172_700): (724, 461),
            (173_300, 174_000): (731, 472),
        }
        calibration = BeamSpot()
        state = calibration.accumulate(muons, {})
        for (first, last), truth in expected.items():
            payload = calibration.finalize(in_range(state, first, last), None)
            found, error = place(payload)
            assert np.all(np.abs(found - truth) < 3 * np.hypot(error, 2) + 3)
            assert not payload["slopes_measured"]
            assert np.all(error < 6)

    def test_resolution_is_found(self, muons: dict[str, Any]) -> None:
        calibration = BeamSpot(keep_tracks=10_000)
        state = calibration.accumulate(muons, {})
        payload = calibration.finalize(in_range(state, 173_692, 173_693), None)
        # The beam of about 20 um is in it.
        assert 20 < float(payload["resolution_constant"]) / UM < 30
        assert payload["resolution_has_width"]


def in_range(state: State, first: int, last: int) -> State:
    """The state of runs first <= run < last."""
    units = state.units()
    return state.select(units[(units >= RunLumi(first).packed) & (units < RunLumi(last).packed)])


COLUMNS_2012 = {
    "Track": ("pt", "eta", "phi", "x", "y", "z", "chi2", "ndof"),
    "PV": ("x", "y", "z", "xErr", "yErr", "zErr", "ndof", "isFake"),
}

RANGES = {(190_000, 196_000): (721, 616), (196_000, 198_600): (722, 620), (198_600, 200_500): (711, 606)}
"""x and y from tracks [um] in the notes with the data"""


@pytest.fixture(scope="module")
def collisions(data_dir: Path) -> dict[str, Any]:
    found = uproot.open(data_dir / "cms_2012_collisions.root")["Events"].arrays()
    track, vertex = ({n: found[f"{p}_{n}"] for n in names} for p, names in COLUMNS_2012.items())
    phi, eta = (ak.values_astype(track[name], np.float64) for name in ("phi", "eta"))
    d0 = track["x"] * np.sin(phi) - track["y"] * np.cos(phi)
    z0 = track["z"] - (track["x"] * np.cos(phi) + track["y"] * np.sin(phi)) * np.sinh(eta)
    good = (track["pt"] > 1) & (np.abs(eta) < 2.4) & (track["chi2"] < 10 * track["ndof"])
    good = good & (np.abs(d0) < 1) & (np.abs(z0) < 60)
    seen = (vertex["isFake"] == 0) & (vertex["ndof"] >= 10)
    columns = {"track_d0": d0[good], "track_z0": z0[good], "track_phi": phi[good], "track_pt": track["pt"][good]}
    columns |= {f"vertex_{axis}": vertex[axis][seen] for axis in "xyz"}
    columns |= {f"vertex_{axis}_error": vertex[f"{axis}Err"][seen] for axis in "xyz"}
    keys = {"run": found.run, "lumi": found.luminosityBlock, "event": found.event}
    return columns | {name: ak.to_numpy(values).astype(np.int64) for name, values in keys.items()}


class Test2012:
    """Tracks and vertices of 288 events in 96 runs: a few events a run."""

    @pytest.mark.parametrize(("granularity", "min_tracks"), [("run", 100), ("run", 200), ("span", 300), ("span", 1000)])
    def test_intervals_pooled_agree_with_the_ranges(
        self, collisions: dict[str, Any], granularity: str, min_tracks: int
    ) -> None:
        calibration = BeamSpot(granularity=Granularity(granularity), min_tracks=min_tracks)
        state = calibration.accumulate(collisions, {})
        shares, at, errors = [], [], []
        for conclusion in conclude(calibration, state, None, flush=True):
            if conclusion.payload is not None:
                part = state.select(np.array(conclusion.interval.units))
                # An interval may lie in two ranges: it enters each by its share of tracks.
                shares.append(
                    [len(in_range(part, *range_)["tracks"].keys) / len(part["tracks"].keys) for range_ in RANGES]
                )
                found, error = place(conclusion.payload)
                at.append(found)
                errors.append(error)
        weights = np.array(errors) ** -2.0
        for share, truth in zip(np.array(shares).T[:, :, None], RANGES.values(), strict=True):
            pooled = np.average(np.array(at), axis=0, weights=share * weights)
            own = (share * weights).sum(axis=0) ** -0.5
            assert np.all(np.abs(pooled - truth) < 3 * np.hypot(own, 2) + 3)
        one = np.average(np.array(at), axis=0, weights=weights)
        chi2 = np.sum((np.array(at) - one) ** 2 * weights)
        freedom = 2 * (len(at) - 1)
        assert chi2 > freedom + 10 * np.sqrt(2 * freedom)

    def test_one_constant_is_refused_by_the_three_ranges(self, collisions: dict[str, Any]) -> None:
        calibration = BeamSpot()
        state = calibration.accumulate(collisions, {})
        found = np.array([place(calibration.finalize(in_range(state, *range_), None)) for range_ in RANGES])
        at, weights = found[:, 0], found[:, 1] ** -2.0
        for row, error, truth in zip(at, found[:, 1], RANGES.values(), strict=True):
            assert np.all(np.abs(row - truth) < 3 * np.hypot(error, 2) + 3)
            assert np.all(error < 3)
        chi2 = np.sum((at - np.average(at, axis=0, weights=weights)) ** 2 * weights)
        assert chi2 > 60  # of 4 degrees of freedom

    def test_widths_and_length_from_vertices(self, collisions: dict[str, Any]) -> None:
        calibration = BeamSpot()
        state = calibration.accumulate(collisions, {})
        for first, last in [*RANGES, (190_000, 200_500)]:
            payload = calibration.finalize(in_range(state, first, last), None)
            assert payload["widths_measured"]
            assert 12 < float(payload["width_x"]) / UM < 19
            assert 14 < float(payload["width_y"]) / UM < 20
            assert 4.7 <= float(payload["sigma_z"]) <= 5.0
            np.testing.assert_allclose(payload["vertex_values"][:2] / UM, place(payload)[0], atol=6)
        slopes = [float(payload[name]) for name in ("dxdz", "dydz", "dxdz_error")]
        assert slopes[:2] == pytest.approx([80e-6, -55e-6], abs=3 * slopes[2])

    def test_some_runs_are_fresh_and_some_have_too_little(self, collisions: dict[str, Any]) -> None:
        calibration = BeamSpot()
        conclusions = conclude(calibration, calibration.accumulate(collisions, {}), None, flush=True)
        assert len(conclusions) == 96
        assert 40 < len(made(conclusions)) < 70
        lacking = [c.message for c in conclusions if c.payload is None]
        assert all("tracks; a beam spot needs 100" in message for message in lacking)


MODULES = 5160
HIGH_EFFICIENCY = (
    (2143, 2143), (2145, 2145), (2147, 2158), (2574, 2574), (4709, 4710),
    (4712, 4719), (4721, 4721), (4723, 4723), (4769, 4782), (4800, 5159),
)  # fmt: skip


@pytest.fixture(scope="module")
def counts(data_dir: Path) -> NDArray[np.uint16]:
    data = uproot.open(data_dir / "icecube_sndaq_131738.root")["sn_all"]["sn_all_data/data"].array()
    return np.asarray(ak.flatten(data)).reshape(-1, MODULES)


class TestIceCube:
    def calibration(self, kinds: bool) -> ChannelStatus:
        group = np.zeros(MODULES, np.int64)
        for first, last in HIGH_EFFICIENCY:
            group[first : last + 1] = 1
        return ChannelStatus(channels=MODULES, groups=tuple(group.tolist()) if kinds else ())

    def conclusions(self, counts: NDArray[np.uint16], kinds: bool = True) -> list[tuple[int, int, Payload]]:
        """First bin, bin behind the last, and payload of every interval."""
        bins = np.arange(len(counts))
        columns = {"run": np.full(len(bins), 131738), "lumi": bins, "event": bins, "counts": counts}
        calibration = self.calibration(kinds)
        found = conclude(calibration, calibration.accumulate(columns, {}), None, flush=True)
        return [
            (c.interval.units[0] & 0xFFFF, (c.interval.units[-1] & 0xFFFF) + 1, c.payload) for c in found if c.payload
        ]

    @pytest.mark.parametrize("kinds", [True, False])
    def test_exactly_the_dead_ones_are_flagged(self, counts: NDArray[np.uint16], kinds: bool) -> None:
        ((first, end, payload),) = self.conclusions(counts, kinds)
        assert (first, end) == (0, 371)
        assert np.count_nonzero(payload["status"] == Status.DEAD) == 83
        assert np.count_nonzero(payload["status"]) == 83
        assert (payload["status"][counts.sum(axis=0) == 0] == Status.DEAD).all()

    def test_what_is_usual_is_measured(self, counts: NDArray[np.uint16]) -> None:
        ((_, _, payload),) = self.conclusions(counts)
        np.testing.assert_allclose(2 * payload["group_rate"], [287, 374], atol=4)
        np.testing.assert_allclose(payload["group_spread"], 0.125, atol=0.01)
        np.testing.assert_allclose(payload["group_fano"], 1.5, atol=0.1)

    def test_a_module_that_falls_silent_and_one_that_becomes_noisy(self, counts: NDArray[np.uint16]) -> None:
        counts = counts.copy()
        silent, noisy = np.flatnonzero(counts.sum(axis=0))[[1234, 4321]]
        counts[100:150, silent] = 0
        counts[200:, noisy] *= 5
        found = self.conclusions(counts)
        assert [(first, end) for first, end, _ in found] == [(0, 100), (100, 150), (150, 200), (200, 371)]
        assert [int(payload["status"][silent]) for _, _, payload in found] == [0, Status.DEAD, 0, 0]
        assert [int(payload["status"][noisy]) for _, _, payload in found] == [0, 0, 0, Status.NOISY]
        flagged = [np.count_nonzero(payload["status"]) for _, _, payload in found]
        assert flagged == [83, 84, 83, 84]
