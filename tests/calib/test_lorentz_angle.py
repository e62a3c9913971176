from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import awkward as ak
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import curve_fit
from scipy.stats import chi2

from benchmarks._toys_lorentz import Clusters, clusters
from calib.algorithms.lorentz_angle import LorentzAngle, Status, nominal
from calib.algorithms.lorentz_field import in_field
from calib.algorithms.lorentz_fit import Sums, fit
from calib.calibration import Calibration, Columns, Granularity, NotConverged, NotEnoughData, conclude
from calib.closure import Closes, Demand, close
from calib.gates import Decision, Gate, GoodShare, MaxMove, MinEntries, Significance, Within, judge
from calib.payload import Payload
from calib.state import State
from calib.testing import CalibrationLaws

Floats = NDArray[np.float64]
TRUE = 0.40
COLUMNS = ("lorentz_group", "lorentz_slope", "lorentz_size")


def state_of(calibration: LorentzAngle, made: Clusters) -> State:
    return calibration.accumulate(made.of_events(50), {})


def drawn(rng: np.random.Generator, tangents: Floats, counts: Any) -> Clusters:
    """Clusters of sizes that follow a hyperbola and nothing else, quicker than those of a sensor."""
    group = rng.permutation(np.repeat(np.arange(len(tangents)), counts))
    slope = rng.uniform(-0.8, 0.8, len(group))
    mean = 0.9 + 2.5 * np.hypot(slope - tangents[group], 0.1)
    return Clusters(group, slope, np.floor(mean + rng.random(len(group))).astype(np.int64))


class TestLaws(CalibrationLaws):
    @pytest.fixture
    def calibration(self) -> Calibration:
        return LorentzAngle(groups=4, together=2, min_entries=200)

    @pytest.fixture
    def columns(self) -> Columns:
        made = drawn(np.random.default_rng(1), np.array([0.4, 0.4, 0.1, 0.1]), 600)
        columns = made.of_events(300, (3, 5), 3)
        # A unit in which nothing was seen.
        empty = {name: ak.where(columns["event"] < 20, [[]], columns[name]) for name in COLUMNS}
        return {**columns, **empty, "lumi": np.where(columns["event"] < 20, 0, columns["lumi"])}


class TestLawsByLumi(TestLaws):
    @pytest.fixture
    def calibration(self) -> Calibration:
        return LorentzAngle(groups=4, together=2, min_entries=150, granularity=Granularity.LUMI)


class TestLawsOfSpans(TestLaws):
    @pytest.fixture
    def calibration(self) -> Calibration:
        return LorentzAngle(groups=4, together=2, min_entries=180, granularity=Granularity.SPAN)


class FieldAngle(LorentzAngle):
    """Of which the field is known."""

    uses: ClassVar[tuple[str, ...]] = ("magnet",)
    field: ClassVar[str | None] = "magnet"


def magnet(tesla: float) -> Payload:
    return Payload("magnet", {"tesla": np.asarray(tesla)}, {"tesla": "T"})


class TestLawsInAField(TestLaws):
    @pytest.fixture
    def calibration(self) -> Calibration:
        return FieldAngle(groups=4, together=2, min_entries=180, granularity=Granularity.SPAN)

    @pytest.fixture
    def conditions(self) -> Mapping[str, Payload]:
        return {"magnet": magnet(3.8038)}


# Against a naive reference. -------------------------------------------------------------------------------------------


class TestAgainstNaive:
    def test_sums_are_those_of_a_loop(self) -> None:
        made = drawn(np.random.default_rng(2), np.array([0.4, 0.1]), 400)
        columns = made.of_events(60, (3, 5), 2) | {"lorentz_pt": None}
        columns["lorentz_pt"] = ak.unflatten(np.linspace(0, 2, len(made.size)), ak.num(columns["lorentz_size"]))
        calibration = LorentzAngle(groups=2, largest=2, least_pt=0.5, slopes=(-0.5, 0.7), bins=7)
        found = calibration.accumulate(columns, {})["sizes"]
        expected = {unit: np.zeros((2, 7, 4), np.int64) for unit in found.keys.tolist()}
        names = ("run", "lumi", *COLUMNS, "lorentz_pt")
        for run, lumi, *event in zip(*(columns[name].tolist() for name in names), strict=True):
            for group, slope, size, pt in zip(*event, strict=True):
                if size <= 2 and pt >= 0.5 and -0.5 <= slope < 0.7:
                    row = [1, size, size * size, round(slope * 1e6)]
                    expected[run << 32 | lumi][group, math.floor((slope + 0.5) / 1.2 * 7)] += np.array(row)
        for unit, values in zip(found.keys.tolist(), found.values, strict=True):
            assert values.tolist() == expected[unit].tolist()

    def test_a_fit_of_many_is_a_fit_of_each(self) -> None:
        tangents = np.array([0.4, 0.3, 0.0, -0.2, 0.45])
        calibration = LorentzAngle(groups=5)
        total = state_of(calibration, clusters(np.random.default_rng(3), tangents, 3000))["sizes"].total()
        sums = Sums(total[..., 0], total[..., 1], total[..., 2], total[..., 3] * 1e-6)
        slope, size, weight = sums.points()
        start = np.tile([0.2, 0.9, 2.5, 0.1], (5, 1))
        found = fit(sums, start, np.ones((5, 4), np.bool_))
        assert found.settled.all()
        for group in range(5):
            some = weight[group] > 0
            best, covariance = curve_fit(
                lambda x, x0, p0, k, w: p0 + k * np.sqrt((x - x0) ** 2 + w**2),
                slope[group][some],
                size[group][some],
                start[group],
                1 / np.sqrt(weight[group][some]),
                absolute_sigma=True,
            )
            assert found.parameters[group, 0] == pytest.approx(best[0], abs=1e-4)
            assert np.abs(found.parameters[group, 1:]) == pytest.approx(np.abs(best[1:]), rel=2e-3)
            assert found.error[group] == pytest.approx(math.sqrt(covariance[0, 0]), rel=0.01)

    def test_weights_do_not_go_with_the_means_that_they_weigh(self) -> None:
        """About the truth the mean square by weight is what weights claim; 18 % more if each bin had its own alone."""
        groups = 400
        made = drawn(np.random.default_rng(4), np.full(groups, TRUE), 1000)
        total = state_of(LorentzAngle(groups=groups), made)["sizes"].total()
        slope, size, weight = Sums(total[..., 0], total[..., 1], total[..., 2], total[..., 3] * 1e-6).points()
        off = size - 0.9 - 2.5 * np.hypot(slope - TRUE, 0.1)
        assert (weight**2 * off**2).sum() / weight.sum() == pytest.approx(1.0, abs=0.04)

    def test_what_is_held_stays(self) -> None:
        calibration = LorentzAngle(groups=1)
        total = state_of(calibration, clusters(np.random.default_rng(3), np.array([0.4]), 3000))["sizes"].total()
        sums = Sums(total[..., 0], total[..., 1], total[..., 2], total[..., 3] * 1e-6)
        start = np.array([[0.2, 0.87, 2.5, 0.1]])
        found = fit(sums, start, np.array([[True, False, False, False]]))
        assert found.parameters[0, 1:].tolist() == start[0, 1:].tolist()
        assert found.ndf.tolist() == [39]
        assert found.parameters[0, 0] == pytest.approx(0.4, abs=0.02)
        # The bottom is known, and both sides of it tell where it is.
        assert found.error[0] < fit(sums, start, np.ones((1, 4), np.bool_)).error[0]


# Toys: unbiased but for what thresholds do, and as good as can be. ----------------------------------------------------

BIAS, BIAS_ERROR = -0.0070, 0.0004
"""of pixels with thresholds of 3000 electrons: from 2.4 million clusters of this toy"""
NOTED = 0.30
"""physics note, 10: error of one cluster"""


def test_toys() -> None:
    """Sizes are of two neighbouring numbers where they are of a slope, so that their means say all: the least error is
    that of the weighted fit. The rms of so many groups is itself known to 7 %."""
    groups, clusters_each = 100, 1500
    calibration = LorentzAngle(groups=groups, bias=(BIAS,), bias_error=(BIAS_ERROR,))
    made = clusters(np.random.default_rng(5), np.full(groups, TRUE), clusters_each)
    payload = calibration.finalize(state_of(calibration, made), nominal(groups, 0.36))
    assert payload["status"].tolist() == [0] * groups
    off, error = payload["tan"] - TRUE, payload["tan_error"]
    least = float(np.sqrt(np.mean(error**2)))
    assert 0.85 * least < off.std() < 1.15 * NOTED / math.sqrt(clusters_each)
    pull = off / error
    # The bias is known to so much only.
    allowed = math.sqrt(1 / groups + (BIAS_ERROR * TRUE / least) ** 2)
    assert chi2.sf((pull.mean() / allowed) ** 2, 1) > 1e-3
    assert 0.9 < pull.std() < 1.1
    assert payload["scale_error"] == pytest.approx(payload["tan"] * BIAS_ERROR)


def test_tracks_that_do_not_reach_the_bottom_need_the_shape() -> None:
    """As in a barrel, where slopes are within 0.3: the flank alone tells the angle if all else is known."""
    made = clusters(np.random.default_rng(7), np.full(10, TRUE), 4000, slopes=(-0.3, 0.3))
    free = LorentzAngle(groups=10, max_error=1.0)
    held = replace(free, held=(True,), shape=((0.862, 2.51, 0.11),))
    loose, tight = (one.finalize(state_of(one, made), nominal(10, 0.36)) for one in (free, held))
    assert np.median(loose["group_error"]) > 5 * np.median(tight["group_error"])
    assert tight["tan"] == pytest.approx(TRUE, abs=0.02)
    assert np.median(tight["group_error"]) < 0.2 / math.sqrt(4000)


# What keeps what it had, and what gives no payload. -------------------------------------------------------------------


def some(counts: Any, tangents: Any = 0.4, seed: int = 9) -> Clusters:
    return drawn(np.random.default_rng(seed), np.broadcast_to(np.asarray(tangents, float), len(counts)), counts)


class TestKept:
    def test_few_clusters(self) -> None:
        calibration = LorentzAngle(groups=6, together=2)
        made = some([999, 999, 1000, 10, 5000, 5000])
        before = nominal(3, [0.3, 0.35, 0.38])
        payload = calibration.finalize(state_of(calibration, made), before)
        assert payload["status"].tolist() == [Status.FEW, 0, 0]
        assert payload["tan"][0] == 0.3
        assert payload["tan_error"][0] == 0
        assert payload["entries"].tolist() == [1998, 1010, 10_000]
        assert np.isnan(payload["group_tan"]).tolist() == [True, True, False, True, False, False]
        assert payload["tan"][1] == pytest.approx(payload["group_tan"][2], rel=1e-14)
        assert np.all(payload["tan"][1:] != before["tan"][1:])

    def test_a_value_keeps_the_flags_it_has_while_there_are_too_few(self) -> None:
        calibration = LorentzAngle(groups=2)
        before = Payload(
            "lorentz_angle", {"tan": np.array([0.4, 0.4]), "status": np.array([4, 4], np.int8)}, {"tan": "1"}
        )
        payload = calibration.finalize(state_of(calibration, some([5, 4000])), before)
        assert payload["status"].tolist() == [Status.FEW | Status.VAGUE, 0]

    def test_groups_that_share_a_value(self) -> None:
        calibration = LorentzAngle(groups=4, together=2, max_move=1.0)
        payload = calibration.finalize(state_of(calibration, some([4000] * 4, [0.4, 0.4, 0.4, 0.1])), nominal(2, 0.4))
        assert payload["status"].tolist() == [0, Status.DIFFER]
        weight = 1 / payload["group_error"][:2] ** 2
        assert payload["tan"][0] == pytest.approx((weight * payload["group_tan"][:2]).sum() / weight.sum())
        assert payload["tan_error"][0] == pytest.approx(weight.sum() ** -0.5)

    def test_a_move_too_far(self) -> None:
        calibration = LorentzAngle(groups=3)
        payload = calibration.finalize(state_of(calibration, some([4000] * 3, [0.4, 0.55, 0.42])), nominal(3, 0.4))
        assert payload["status"].tolist() == [0, Status.MOVED, 0]
        assert payload["tan"][1] == 0.4

    def test_an_error_too_large(self) -> None:
        calibration = LorentzAngle(groups=3, max_error=0.006)
        payload = calibration.finalize(state_of(calibration, some([1000, 9000, 9000])), nominal(3, 0.38))
        assert payload["status"].tolist() == [Status.VAGUE, 0, 0]
        assert payload["tan"][0] == 0.38

    def test_sizes_that_do_not_follow_the_slope(self) -> None:
        calibration = LorentzAngle(groups=3)
        made = some([4000] * 3)
        spoilt = np.where((made.group == 1) & (np.abs(made.slope) < 0.1), 5, made.size)
        payload = calibration.finalize(state_of(calibration, replace(made, size=spoilt)), nominal(3, 0.38))
        assert payload["status"][1] & Status.MISFIT
        assert payload["status"][[0, 2]].tolist() == [0, 0]
        assert payload["tan"][1] == 0.38

    def test_without_a_payload_before_there_is_nothing_to_keep(self) -> None:
        calibration = LorentzAngle(groups=2)
        with pytest.raises(NotEnoughData, match=r"1 values must stay as they were, the first 0 .*`nominal`"):
            calibration.finalize(state_of(calibration, some([5, 4000])), None)

    def test_too_many_with_few_clusters(self) -> None:
        calibration = LorentzAngle(groups=3)
        with pytest.raises(NotEnoughData, match="2 of 3 values have fewer than 1000 clusters"):
            calibration.finalize(state_of(calibration, some([5, 5, 4000])), nominal(3, 0.4))

    def test_too_many_that_moved_are_kept_for_people(self) -> None:
        calibration = LorentzAngle(groups=3)
        with pytest.raises(NotConverged, match=r"3 of 3 tangents moved by more than 0\.1") as caught:
            calibration.finalize(state_of(calibration, some([4000] * 3, 0.2)), nominal(3, 0.4))
        assert caught.value.payload is not None
        assert caught.value.payload["tan"] == pytest.approx(0.2, abs=0.03)

    def test_another_number_of_values_before(self) -> None:
        calibration = LorentzAngle(groups=3)
        with pytest.raises(ValueError, match=r"has \(2,\) values; there are 3"):
            calibration.finalize(state_of(calibration, some([4000] * 3)), nominal(2, 0.4))


class TestRefused:
    def test_settings(self) -> None:
        for wrong in (
            {"groups": 3, "together": 2},
            {"bins": 4},
            {"slopes": (0.8, -0.8)},
            {"largest": 0},
            {"first": (0, 2)},
            {"bias": (-1.0,)},
            {"first": (1,)},
            {"first": (0, 1), "shape": ((1.0, 1.0, 1.0),) * 2, "held": (True, True)}
            | {"bias": (0.0, 0.0), "bias_error": (0.0, 0.0), "together": 2},
        ):
            with pytest.raises(ValueError, match="`"):
                LorentzAngle(**{"groups": 4, **wrong})

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [("lorentz_group", 5, "groups 5 to 5 have clusters"), ("lorentz_slope", np.inf, "no number")],
    )
    def test_clusters(self, name: str, value: float, message: str) -> None:
        columns = {"run": np.array([1]), "lumi": np.array([1]), "event": np.array([1])}
        columns |= dict(zip(COLUMNS, (ak.Array([[1]]), ak.Array([[0.1]]), ak.Array([[2]])), strict=True))
        with pytest.raises(ValueError, match=message):
            LorentzAngle(groups=5).accumulate({**columns, name: ak.Array([[value]])}, {})
        with pytest.raises(ValueError, match="but of others"):
            LorentzAngle(groups=5).accumulate({**columns, name: ak.Array([[value, value]])}, {})


# The angle goes with the field. ---------------------------------------------------------------------------------------


def in_fields(calibration: LorentzAngle, fields: Mapping[tuple[int, int], float], each: int = 3000) -> State:
    """Units, and the fields that they are in; the tangents are 0.4 and 0.1 in 3.8 T."""
    total = calibration.empty()
    for seed, ((run, lumi), tesla) in enumerate(fields.items()):
        made = drawn(np.random.default_rng(40 + seed), np.array([0.4, 0.4, 0.1, 0.1]) * tesla / 3.8, each)
        columns = made.of_events(30, (run,), 1) | {"lumi": np.full(30, lumi)}
        total = calibration.merge(total, calibration.accumulate(columns, {"magnet": magnet(tesla)}))
    return total


def units_of(calibration: LorentzAngle, state: State, flush: bool) -> list[tuple[list[tuple[int, int]], bool]]:
    return [
        ([(unit >> 32, unit & 0xFFFFFFFF) for unit in interval.units], interval.closed)
        for interval in calibration.intervals(state, flush)
    ]


class TestField:
    SPAN = FieldAngle(groups=4, together=2, min_entries=4000, granularity=Granularity.SPAN)
    RUN = FieldAngle(groups=4, together=2)

    def test_units_of_another_field_are_never_put_together(self) -> None:
        fields = {(1, 1): 3.8, (2, 1): 3.8, (3, 1): 3.8, (4, 1): 1.9, (5, 1): 1.9, (6, 1): 3.8}
        state = in_fields(self.SPAN, fields)
        found = [([run for (run, _) in units], closed) for units, closed in units_of(self.SPAN, state, False)]
        # What is left over where the field changes has too few, and says so.
        assert found == [([1, 2], True), ([3], True), ([4, 5], True), ([6], False)]
        steady = in_fields(self.SPAN, dict.fromkeys(fields, 3.8))
        found = [([run for (run, _) in units], closed) for units, closed in units_of(self.SPAN, steady, False)]
        assert found == [([1, 2], True), ([3, 4], True), ([5, 6], False)]

    def test_what_is_closed_stays_where_the_field_changes(self) -> None:
        fields = {(1, 1): 3.8, (1, 2): 3.8, (1, 3): 3.8, (1, 4): 1.9, (2, 1): 1.9, (2, 2): 3.8, (3, 1): 3.8}
        for calibration in (self.SPAN, self.RUN, replace(self.SPAN, granularity=Granularity.LUMI)):
            final = units_of(calibration, in_fields(calibration, fields, 1500), True)
            for known in range(1, len(fields) + 1):
                part = in_fields(calibration, dict(list(fields.items())[:known]), 1500)
                closed = [row for row in units_of(calibration, part, False) if row[1]]
                assert closed == final[: len(closed)]

    def test_a_run_is_cut_at_a_change(self) -> None:
        fields = {(1, 1): 3.8, (1, 2): 3.8, (1, 3): 1.9, (2, 1): 1.9}
        state = in_fields(self.RUN, fields)
        expected = [([(1, 1), (1, 2)], True), ([(1, 3)], True), ([(2, 1)], True)]
        assert units_of(self.RUN, state, True) == expected
        found = conclude(self.RUN, state, nominal(2, [0.38, 0.12], 3.8), flush=True)
        payloads = [one.payload for one in found if one.payload is not None]
        assert [float(payload["tesla"]) for payload in payloads] == [3.8, 1.9, 1.9]
        for payload in payloads:
            true = np.array([0.4, 0.1]) * float(payload["tesla"]) / 3.8
            assert payload["status"].tolist() == [0, 0]
            assert np.abs((payload["tan"] - true) / payload["tan_error"]).max() < 4
            assert payload.units["tesla"] == "T"

    def test_units_of_two_fields_give_no_payload_and_are_told_of(self) -> None:
        state = in_fields(self.RUN, {(1, 1): 3.8, (1, 2): 1.9})
        with pytest.raises(NotEnoughData, match=r"units of different fields, 1.9 to 3.8 T, are not put together"):
            self.RUN.finalize(state, nominal(2, 0.3, 3.8))

    def test_without_a_field_there_is_none(self) -> None:
        with pytest.raises(NotEnoughData, match="there is no field, and so no angle"):
            self.RUN.finalize(in_fields(self.RUN, {(1, 1): 0.0}), nominal(2, 0.3, 3.8))

    def test_the_payload_before_is_brought_to_the_field(self) -> None:
        """It moved by nothing, though its number is half: so it is not said to have moved too far, and what is kept is
        brought too."""
        state = in_fields(self.RUN, {(1, 1): 1.9})
        before = nominal(2, [0.4, 0.1], 3.8)
        assert self.RUN.finalize(state, before)["status"].tolist() == [0, 0]
        unaware = Payload(before.kind, {"tan": before["tan"]}, {"tan": "1"})
        assert self.RUN.finalize(state, unaware)["status"].tolist() == [Status.MOVED, 0]
        kept = replace(self.RUN, min_entries=100_000, most_few=1.0).finalize(state, before)
        assert kept["tan"] == pytest.approx([0.2, 0.05]) and float(kept["tesla"]) == 1.9
        with pytest.raises(NotEnoughData, match="no payload before"):
            replace(self.RUN, min_entries=100_000, most_few=1.0).finalize(state, nominal(2, 0.0, 0.0))

    def test_slopes_for_closure_are_about_the_angle_in_the_field_of_the_events(self) -> None:
        columns = drawn(np.random.default_rng(3), np.array([0.2, 0.2, 0.05, 0.05]), 3000).of_events(30)
        under = {"lorentz_angle": nominal(2, [0.4, 0.1], 3.8), "magnet": magnet(1.9)}
        state = self.RUN.accumulate(self.RUN.corrected(columns, under), under)
        left = self.RUN.left_by(under["lorentz_angle"])
        found = self.RUN.finalize(state, left)
        assert np.abs(found["tan"] / found["tan_error"]).max() < 4
        assert close(self.RUN, state, under["lorentz_angle"], Demand()).answer is Closes.YES
        wrong = {**under, "lorentz_angle": nominal(2, [0.4, 0.1], 1.9)}
        spoiled = self.RUN.accumulate(self.RUN.corrected(columns, wrong), wrong)
        assert close(self.RUN, spoiled, wrong["lorentz_angle"], Demand()).answer is Closes.NO

    def test_errors_too_are_in_the_field_that_is_closed_in(self) -> None:
        low, high = (self.RUN.finalize(in_fields(self.RUN, {(1, 1): tesla}), None) for tesla in (1.9, 3.8))
        moves = self.RUN.apart(high, low)["tan"]
        assert moves.move == pytest.approx(high["tan"] - 2 * low["tan"])
        assert moves.sigma == pytest.approx(np.hypot(high["tan_error"], 2 * low["tan_error"]))

    def test_tangents_in_another_field(self) -> None:
        angle = nominal(2, [0.4, 0.1], 3.8)
        assert in_field(angle, magnet(3.8)).tolist() == [0.4, 0.1]
        assert in_field(angle, magnet(-1.9)) == pytest.approx([-0.2, -0.05])
        assert in_field(angle, magnet(0.0)).tolist() == [0.0, 0.0]
        assert in_field(nominal(2, 0.4), magnet(1.0)).tolist() == [0.4, 0.4]
        assert in_field(nominal(2, 0.0, 0.0), magnet(0.0)).tolist() == [0.0, 0.0]
        with pytest.raises(ValueError, match=r"of no field, and says nothing of 3\.8 T"):
            in_field(nominal(2, 0.0, 0.0), magnet(3.8))


def test_every_gate_fires() -> None:
    calibration = LorentzAngle(groups=3)
    payload = calibration.finalize(state_of(calibration, some([5, 4000, 4000])), nominal(3, 0.36))
    assert judge(payload, nominal(3, 0.36), []).decision is Decision.PUBLISH
    fires: list[Gate] = [
        GoodShare("status", Status.NEW, 0.9),
        MinEntries("entries", 9000),
        MaxMove("tan", 0.01, "1"),
        Within("tan", 0.37, 0.5, "1"),
    ]
    for gate in fires:
        assert judge(payload, nominal(3, 0.36), [gate]).decision is Decision.REJECT
    passes: list[Gate] = [
        GoodShare("status", Status.NEW, 0.6),
        MinEntries("entries", 8000),
        MaxMove("tan", 0.1, "1"),
        Within("tan", 0.3, 0.5, "1"),
    ]
    assert judge(payload, nominal(3, 0.36), passes).decision is Decision.PUBLISH
    again = calibration.finalize(state_of(calibration, some([5, 4000, 4000], seed=10)), payload)
    assert judge(again, payload, [Significance("tan", 5.0)]).decision is Decision.NO_CHANGE
    assert judge(again, nominal(3, 0.3), [Significance("tan", 5.0)]).decision is Decision.PUBLISH
