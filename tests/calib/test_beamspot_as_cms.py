"""CMS's rule along lumisections: each of the eight numbers cuts, and the whole agrees with a loop over payloads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from calib.algorithms.beamspot import BeamSpot
from calib.algorithms.beamspot_as_cms import seen_by_cms
from calib.algorithms.beamspot_payload import PARAMETERS, Measured
from calib.calibration import Granularity, conclude
from calib.collapsing import Rule, collapse
from calib.iov import RunLumi
from calib.payload import Payload
from calib.state import State
from tests.calib.toy import UM, Beam, Detector, collisions, without

LUMIS = 8
VALUES = np.array([0.08, -0.04, 0.5, 4.0, 2e-4, -1e-4, 60 * UM, 50 * UM])
ERRORS = np.array([UM, UM, 0.05, 0.04, 1e-5, 1e-5, UM, UM])
BLOCKS = [(RunLumi(1, lumi).packed,) for lumi in range(1, LUMIS + 1)]


def measured(values: Sequence[float]) -> Measured:
    return Measured(np.array(values), np.diag(ERRORS**2))


def starts_of(alone: Sequence[Measured]) -> list[int]:
    return [RunLumi.unpack(interval.units[0]).lumi for interval in collapse(*seen_by_cms(BLOCKS, alone))]


FLOORS = {"x": 30 * UM, "y": 30 * UM, "z": 2.0}
"""half of width_x, that of x alone, and half of sigma_z"""


@pytest.mark.parametrize("name", PARAMETERS)
def test_each_number_alone_cuts(name: str) -> None:
    """It falls by so much at lumisection 5: a rise of x or y does not count (the lost fabs)."""
    i = PARAMETERS.index(name)
    needed = max({"x": 3.5, "y": 3.5, "z": 3.5}.get(name, 5.0) * np.sqrt(2) * ERRORS[i], FLOORS.get(name, 0.0))
    for moved, expected in ((1.01 * needed, [1, 5]), (0.99 * needed, [1])):
        fallen = VALUES - moved * (np.arange(8) == i)
        assert starts_of([measured(VALUES)] * 4 + [measured(fallen)] * 4) == expected


def test_the_floor_of_a_narrow_beam_is_25_um() -> None:
    narrow = np.where(np.arange(8) >= 6, 30 * UM, VALUES)
    for moved, expected in ((25.1 * UM, [1, 5]), (24.9 * UM, [1])):
        fallen = narrow - moved * (np.arange(8) == 0)
        assert starts_of([measured(narrow)] * 4 + [measured(fallen)] * 4) == expected


def test_a_lumisection_that_is_too_short_or_lacks_a_number_is_left_out() -> None:
    short = np.where(np.arange(8) == 3, 0.99, VALUES)
    without_widths = np.where(np.arange(8) >= 6, np.nan, VALUES)
    alone = [measured(VALUES)] * 2 + [measured(short), measured(without_widths)] + [measured(VALUES)] * 4
    (interval,) = collapse(*seen_by_cms(BLOCKS, alone))
    assert [RunLumi.unpack(unit).lumi for unit in interval.vetoed] == [3, 4]
    alone[2] = measured(np.where(np.arange(8) == 3, 3.99, VALUES))
    assert [RunLumi.unpack(unit).lumi for unit in collapse(*seen_by_cms(BLOCKS, alone))[0].vetoed] == [4]


def test_what_no_lumisection_has_is_not_looked_at() -> None:
    place = np.where(np.arange(8) >= 2, np.nan, VALUES)
    trend, moves = seen_by_cms(BLOCKS, [measured(place)] * 4 + [measured(place - 26 * UM)] * 4)
    assert (trend.values.shape, len(moves)) == ((LUMIS, 2), 2)
    assert [RunLumi.unpack(interval.units[0]).lumi for interval in collapse(trend, moves)] == [1, 5]
    assert seen_by_cms([], [])[0].values.shape == (0, 0)


def naive(payloads: Sequence[Payload | None]) -> list[int]:
    """Which lumisections begin an interval, from the payloads of each alone, in the order the code does it."""
    good = [i for i, p in enumerate(payloads) if p is not None and p["widths_measured"] and p["sigma_z"] >= 1.0]
    begins = [good[0]]

    def delta(name: str, k: int) -> float:
        here, there = payloads[good[k]], payloads[good[k + 1]]
        assert here is not None
        assert there is not None
        return float(here[name] - there[name])

    def sure(name: str, k: int) -> float:
        errors = [float(payloads[good[j]][f"{name}_error"]) for j in (k, k + 1)]  # type: ignore[index]
        return abs(delta(name, k)) / float(np.hypot(*errors))

    for k in range(len(good) - 1):
        here, last = payloads[good[k]], k == len(good) - 2
        assert here is not None
        limit = max(float(here["width_x"]) / 2, 25 * UM)
        shift = False
        for name in PARAMETERS:
            size, place = delta(name, k), name in ("x", "y")
            if place:
                moved = sure(name, k) > 3.5 and size >= limit
            elif name == "z":
                moved = sure(name, k) > 3.5 and abs(size) >= float(here["sigma_z"]) / 2
            else:
                moved = sure(name, k) > 5
            then = 0.0 if last else delta(name, k + 1)
            if place and not moved and size * then > 0 and abs(size + then) >= limit:
                moved = True
            elif name not in ("z", "sigma_z") and moved and size * then < 0 and 0.33 < abs(size / then) < 3:
                moved = False
            if last and name in ("dxdz", "dydz", "width_x", "width_y"):
                moved = False
            shift |= moved
        if shift:
            begins.append(good[k + 1])
    return begins


BEAM = Beam()
CHANGED = {
    "x": replace(BEAM, x=0.08 - 60 * UM),
    "z": replace(BEAM, z=4.0),
    "sigma_z": replace(BEAM, sigma_z=2.0),
    "dxdz": replace(BEAM, dxdz=12e-4),
    "dydz": replace(BEAM, dydz=-11e-4),
    "widths": replace(BEAM, width=45 * UM),
    "too short": replace(BEAM, sigma_z=0.5),
    "nothing": BEAM,
}


def state_of(beams: Sequence[Beam], seed: int = 3) -> State:
    units = [(1, lumi) for lumi in range(1, len(beams) + 1)]
    columns = collisions(np.random.default_rng(seed), units, beams, 160, Detector(tracks=6))
    return CMS.accumulate(columns, {})


CMS = BeamSpot(granularity=Granularity.LUMI, rule=Rule.CMS, min_tracks=200)


@pytest.mark.parametrize("name", CHANGED)
def test_it_agrees_with_a_loop_over_payloads(name: str) -> None:
    """From lumisection 4 to 6 the beam is another."""
    state = state_of([BEAM] * 3 + [CHANGED[name]] * 3 + [BEAM] * 2)
    expected = naive([CMS.finalize(state.select(state.units()[[i]]), None) for i in range(8)])
    found = CMS.intervals(state, flush=True)
    assert [RunLumi.unpack(interval.units[0]).lumi - 1 for interval in found] == expected
    left_out = [RunLumi.unpack(unit).lumi for interval in found for unit in interval.vetoed]
    assert left_out == ([4, 5, 6] if name == "too short" else [])
    assert (len(found) > 1) == (name not in ("nothing", "too short"))
    assert all(made.payload is not None for made in conclude(CMS, state, None, flush=True))


def test_without_vertices_place_slopes_and_length_are_looked_at() -> None:
    columns = without(
        collisions(np.random.default_rng(5), [(1, i) for i in range(1, 7)], [BEAM] * 3 + [CHANGED["dxdz"]] * 3, 160),
        "vertex",
    )
    found = CMS.intervals(CMS.accumulate(columns, {}), flush=True)
    assert [RunLumi.unpack(interval.units[0]).lumi for interval in found] == [1, 4]
