"""What a calibration makes of the same events must not change unless its `version` is raised.

If one of these fails and the change is meant: raise the version, then write the new numbers here.
"""

from __future__ import annotations

from dataclasses import replace

import awkward as ak
import numpy as np
import pytest

from benchmarks import _toys_gain, _toys_lorentz
from benchmarks._toys_alignment import LEVELS, Play, played
from calib.algorithms import gain, lorentz_angle
from calib.algorithms.alignment import Alignment
from calib.algorithms.alignment_payload import nominal as drawn
from calib.algorithms.beamspot import BeamSpot
from calib.algorithms.beamspot_payload import PARAMETERS
from calib.algorithms.channel_status import ChannelStatus
from calib.algorithms.occupancy_status import OccupancyStatus
from calib.algorithms.pedestal import Pedestal, nominal
from calib.calibration import Granularity
from calib.iov import RunLumi
from calib.state import State
from tests.calib.toy import UM, Adc, Beam, adc_samples, collisions, dark_counts, pedestal_columns, without

BEAM_2 = [
    0.08014214706,
    -0.03988749522,
    0.1692466129,
    3.546225845,
    0.0001803167428,
    -3.80151765e-06,
    0.001432635628,
    0.00127738701,
    0.0001099713475,
    0.001418323552,
    0.0,
]
BEAM_2_FITTED = [
    0.08012340238,
    -0.03989449234,
    0.0651347774,
    3.705908644,
    0.0001767740708,
    -4.739121883e-06,
    np.nan,
    np.nan,
    0.0001108877191,
    0.002,
    0.003534316771,
]
PAIRS_2 = {
    "pairs": 8875,
    "pair_vertices": 265,
    "pair_variance_x": 1.786022109e-06,
    "pair_variance_y": 2.253874936e-06,
    "pair_xy": 9.789269309e-08,
    "pair_variance_x_error": 2.710426438e-07,
    "pair_width_y": 0.00150129109,
    "pair_width_y_error": 0.0001018215323,
    "pair_correlation": 0.04879125107,
    "widths_probability": 0.750375437,
}
PEDESTAL_ARRAYS = ("mean", "mean_error", "noise", "noise_error")
PEDESTAL_2 = [
    100.85933,
    0.34955633,
    4.4789619,
    0.22601126,
    2.1912107467651367,
    2.101799249649048,
    2.1268792152404785,
    1.960210919380188,
]
ALIGNMENT_3 = [
    0.004640201604,
    -0.002268879488,
    0.006486838084,
    -0.002063057032,
    0.005952827632,
    -0.005646707485,
    0.0003722322126,
    0.0004657175556,
    0.0005909647292,
    0.0003655278926,
    0.0004107633174,
    0.0005165446339,
]
ALIGNMENT_3_SURVEYED = [
    0.00461985184,
    -0.002255599526,
    0.00592442948,
    -0.002064605338,
    0.00591688705,
    -0.005924256323,
    0.0003709344838,
    0.0004636970762,
    0.003577590216,
    0.0003642799204,
    0.0004093732901,
    0.003577589094,
    0.0003696423234,
    0.0004616855837,
    0.0005401963858,
    0.0003630373093,
    0.0004079881357,
    0.0005401965614,
]
CHANNEL_1 = [99.22222222, 0.0, 1.6112243]
SILENT_1 = [20.0, 19.125]
RATES_1 = [0.0199999996, 0.0215000007, 0.0, 0.0191249996]


def test_beam_spot_version_2() -> None:
    columns = collisions(np.random.default_rng(21), [(1, 1)], [Beam()], 300)
    for part, expected in ((columns, BEAM_2), (without(columns, "track_d0_error", "vertex"), BEAM_2_FITTED)):
        calibration = BeamSpot(keep_tracks=2500)
        payload = calibration.finalize(calibration.accumulate(part, {}), None)
        found = [float(payload[name]) for name in (*PARAMETERS, "x_error", "scatter_constant", "scatter_over_pt")]
        assert found == pytest.approx(expected, rel=1e-6, nan_ok=True)
    assert BeamSpot.version == 2


def test_beam_spot_of_pairs_version_2() -> None:
    columns = collisions(np.random.default_rng(21), [(1, 1)], [Beam()], 300)
    columns["track_vertex"] = ak.zeros_like(columns["track_pt"], dtype=np.int32) - 1 + ak.num(columns["vertex_x"])
    calibration = BeamSpot(keep_tracks=2500)
    payload = calibration.finalize(calibration.accumulate(columns, {}), None)
    found = {name: float(payload[name]) for name in PAIRS_2}
    assert found == pytest.approx(PAIRS_2, rel=1e-5)
    # What tracks and vertices say is what they say without.
    assert [float(payload[name]) for name in PARAMETERS] == pytest.approx(BEAM_2[:8], rel=1e-6)
    assert BeamSpot.version == 2


def a_walk() -> State:
    """Runs of few and of many events; the beam moves by up to 60 um, and is off in one lumisection."""
    plan = [
        *(
            (1, 1, 25, 0),
            (1, 2, 25, 0),
            (2, 1, 400, 0),
            (2, 2, 400, 0),
            (2, 3, 400, 90),
            (2, 4, 400, 0),
            (3, 1, 25, 12),
        ),
        *((4, 1, 400, 12), (4, 2, 400, 12), (4, 3, 25, 60), (4, 4, 400, 60), (5, 1, 400, 60), (5, 2, 25, 0)),
    ]
    rng, calibration = np.random.default_rng(23), BeamSpot()
    state = calibration.empty()
    for run, lumi, events, moved in plan:
        beam = Beam(x=0.08 + moved * UM)
        state = state.merge(calibration.accumulate(collisions(rng, [(run, lumi)], [beam], events), {}))
    return state


def test_beam_spot_intervals_version_2() -> None:
    spans = BeamSpot(min_tracks=150, granularity=Granularity.SPAN)
    found = [(interval.units[0], interval.vetoed, interval.unconfirmed) for interval in spans.intervals(a_walk(), True)]
    assert found == [
        (RunLumi(1, 1).packed, (RunLumi(2, 3).packed,), False),
        (RunLumi(3, 1).packed, (), False),
        (RunLumi(4, 3).packed, (), False),
        (RunLumi(5, 2).packed, (), True),
    ]
    assert BeamSpot.version == 2


def test_channel_status_version_1() -> None:
    rates = np.array([100.0] * 20 + [0.0, 900.0])
    columns = dark_counts(np.random.default_rng(22), [(1, lumi) for lumi in range(9)], rates)
    calibration = ChannelStatus(channels=22)
    payload = calibration.finalize(calibration.accumulate(columns, {}), None)
    found = [float(payload[name][0]) for name in ("group_rate", "group_spread", "group_fano")]
    assert payload["status"].tolist() == [0] * 20 + [1, 2]
    assert found == pytest.approx(CHANNEL_1, rel=1e-9)
    assert ChannelStatus.version == 1


def test_pedestal_version_2() -> None:
    truth = Adc(np.full(64, 100.4), np.full(64, 4.0), 2.0, block=32, group=16, occupancy=0.01, dead=np.array([3, 40]))
    adc = adc_samples(np.random.default_rng(23), truth, 200)
    calibration = Pedestal(channels=64, block=32, group=16)
    reference = nominal(64, 100 + np.arange(64) / 64, 4)
    columns = pedestal_columns(np.tile(np.arange(2, dtype=np.uint32), (200, 1)), adc)
    payload = calibration.finalize(calibration.accumulate(columns, {"pedestal": reference}), reference)
    found = [float(payload[name][7]) for name in PEDESTAL_ARRAYS] + payload["common_mode"].tolist()
    assert found == pytest.approx(PEDESTAL_2, rel=1e-5)
    assert {int(i): int(payload["status"][i]) for i in np.flatnonzero(payload["status"])} == {3: 8, 40: 4}
    assert payload["entries"][:9].tolist() == [199, 198, 199, 200, 198, 200, 200, 199, 198]
    assert Pedestal.version == 2


def test_occupancy_status_version_1() -> None:
    rng = np.random.default_rng(24)
    events, channels = 500, 64
    rates = (
        np.where(np.arange(channels) == 9, 0.2, 0.02) * (np.arange(channels) // 16 != 2) * (np.arange(channels) != 3)
    )
    hit = rng.random((events, channels)) < rates
    columns = {name: np.ones(events, np.int64) for name in ("run", "lumi")} | {"event": np.arange(events)}
    columns["channel"] = ak.unflatten(np.nonzero(hit)[1], hit.sum(axis=1))
    calibration = OccupancyStatus(channels=channels, group=16)
    first = calibration.finalize(calibration.accumulate(columns, {}), None)
    payload = calibration.finalize(calibration.accumulate(columns, {}), first)
    assert {int(i): int(payload["status"][i]) for i in np.flatnonzero(payload["status"])} == {
        **dict.fromkeys(range(32, 48), 5),
        3: 1,
        9: 2,
    }
    assert payload["silent"][[3, 40]].tolist() == pytest.approx(SILENT_1, rel=1e-6)
    assert payload["group_rate"].tolist() == pytest.approx(RATES_1, rel=1e-6)
    assert OccupancyStatus.version == 1


def test_gain_version_2() -> None:
    sensor = _toys_gain.Sensor(_toys_gain.SMEARED, thickness=500.0, saturation=67310.0)
    truth, counts = np.array([0.9, 1.0, 1.1, 1.0]), np.array([300, 40, 1000, 10])
    made = _toys_gain.clusters(np.random.default_rng(24), truth, counts, sensor)
    calibration = gain.Gain(groups=4, smear=(0.05,), most_few=0.3)
    state = calibration.accumulate(made.of_events(20), {"gain": gain.nominal(4)})
    payload = calibration.finalize(state, gain.nominal(4, 0.95))
    assert payload["gain"].tolist() == pytest.approx([0.89167899, 0.9718864, 1.1006602, 0.95], rel=1e-5)
    assert payload["gain_error"].tolist() == pytest.approx([0.0076989131, 0.022980899, 0.0052051684, 0.0], rel=1e-5)
    assert payload["saturated"].tolist() == [129, 5, 159, 2]
    assert payload["status"].tolist() == [0, 0, 0, 1]
    assert payload["chi2"].tolist() == pytest.approx([21.191477, 25.036198, 35.945423, np.nan], rel=1e-4, nan_ok=True)
    assert payload["ndf"].tolist() == pytest.approx([25.174019, 19.020393, 35.140137, np.nan], rel=1e-4, nan_ok=True)
    assert gain.Gain.version == 2


def test_lorentz_angle_version_3() -> None:
    truth, counts = np.array([0.4, 0.4, 0.1, 0.1]), np.array([3000, 2000, 4000, 50])
    made = _toys_lorentz.clusters(np.random.default_rng(25), truth, counts)
    calibration = lorentz_angle.LorentzAngle(groups=4, together=2, bias=(-0.01,), bias_error=(0.001,), min_entries=100)
    payload = calibration.finalize(
        calibration.accumulate(made.of_events(20), {}), lorentz_angle.nominal(2, [0.36, 0.09])
    )
    assert payload["tan"].tolist() == pytest.approx([0.40135091, 0.097726319], rel=1e-5)
    assert payload["tan_error"].tolist() == pytest.approx([0.0038666948, 0.003091308], rel=1e-5)
    assert payload["group_tan"][:3].tolist() == pytest.approx([0.3998469, 0.40386688, 0.097726319], rel=1e-5)
    assert payload["chi2"][:3].tolist() == pytest.approx([25.58744, 26.178619, 55.368205], rel=1e-4)
    assert lorentz_angle.LorentzAngle.version == 3


def test_alignment_version_3() -> None:
    under = drawn(dict(LEVELS))
    truth = np.zeros((sum(count for _, count in LEVELS), 6))
    truth[:2, :3] = [(50, -30, 40), (-20, 60, -80)]
    calibration = Alignment(levels=LEVELS, free=("half_barrel 0-1: x y z",), min_records=100)
    columns = played(24, Play(400, stereo=0.0), truth)
    payload = calibration.finalize(calibration.accumulate(columns, {"alignment": under}), under)
    found = [payload["half_barrel"][:2, :3], payload["half_barrel_error"][:2, :3]]
    assert np.stack(found).reshape(-1).tolist() == pytest.approx(ALIGNMENT_3, rel=1e-6)
    assert [int(payload[name]) for name in ("records", "outliers")] == [400, 0]
    assert [float(payload[name]) for name in ("cut", "chi2_ndf")] == pytest.approx([4.5, 1.2326953], rel=1e-6)
    assert payload["weak_deformation"].tolist() == [2]
    assert payload["half_barrel_statistical"][:2, :3] == pytest.approx(payload["half_barrel_error"][:2, :3])
    surveyed = replace(calibration, survey=("half_barrel: all 50",))
    payload = surveyed.finalize(surveyed.accumulate(columns, {"alignment": under}), under)
    found = [payload[f"half_barrel{part}"][:2, :3] for part in ("", "_error", "_statistical")]
    assert np.stack(found).reshape(-1).tolist() == pytest.approx(ALIGNMENT_3_SURVEYED, rel=1e-6)
    assert Alignment.version == 3
