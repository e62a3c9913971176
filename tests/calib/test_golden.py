"""What a calibration makes of the same events must not change unless its `version` is raised.

If one of these fails and the change is meant: raise the version, then write the new numbers here.
"""

from __future__ import annotations

import numpy as np
import pytest

from calib.algorithms.beamspot import BeamSpot
from calib.algorithms.beamspot_payload import PARAMETERS
from calib.algorithms.channel_status import ChannelStatus
from calib.calibration import Granularity
from calib.iov import RunLumi
from calib.state import State
from tests.calib.toy import UM, Beam, collisions, dark_counts, without

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
CHANNEL_1 = [99.22222222, 0.0, 1.6112243]


def test_beam_spot_version_2() -> None:
    columns = collisions(np.random.default_rng(21), [(1, 1)], [Beam()], 300)
    for part, expected in ((columns, BEAM_2), (without(columns, "track_d0_error", "vertex"), BEAM_2_FITTED)):
        calibration = BeamSpot(keep_tracks=2500)
        payload = calibration.finalize(calibration.accumulate(part, {}), None)
        found = [float(payload[name]) for name in (*PARAMETERS, "x_error", "scatter_constant", "scatter_over_pt")]
        assert found == pytest.approx(expected, rel=1e-6, nan_ok=True)
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
