"""A fault in a calibration shows in its own closure, for every kind; and without one it closes.

A new kind is a line in `KINDS`, with a function that gives a calibration of a class, events of the first pass and of
the second, and the payload to start from; and its two classes in `tests.calib.faulty`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pytest

from benchmarks._toys_alignment import LEVELS, Play, played
from benchmarks._toys_gain import clusters as charges
from calib.algorithms.alignment import Alignment
from calib.algorithms.alignment_payload import nominal as drawn
from calib.algorithms.beamspot import BeamSpot
from calib.algorithms.beamspot_payload import nominal as nominal_beam
from calib.algorithms.channel_status import ChannelStatus, all_good
from calib.algorithms.gain import Gain
from calib.algorithms.gain import nominal as gains_of_one
from calib.algorithms.lorentz_angle import LorentzAngle
from calib.algorithms.lorentz_angle import nominal as no_angle
from calib.algorithms.occupancy_status import OccupancyStatus
from calib.algorithms.pedestal import Pedestal, nominal
from calib.calibration import Calibration, Columns
from calib.closure import Closes, Closure, Demand, close
from calib.payload import Payload
from tests.calib.faulty import FAULTS
from tests.calib.test_alignment import displaced, moved_halves
from tests.calib.test_lorentz_angle import drawn as sizes
from tests.calib.test_occupancy_status import hits
from tests.calib.toy import Adc, Beam, adc_samples, collisions, pedestal_columns


@dataclass(frozen=True)
class Played:
    """What express sees, what prompt sees (all of it) under a payload, and the payload in force before."""

    express: Columns
    prompt: Callable[[Payload], Columns]
    before: Payload
    settings: Mapping[str, Any] = field(default_factory=dict)


def first(columns: Columns, events: int) -> Columns:
    return {name: values[:events] for name, values in columns.items()}


@cache
def beam() -> Played:
    units = [(1, lumi) for lumi in range(1, 5)]
    beams = [Beam(dxdz=3e-4, dydz=-2e-4)] * 4
    events = collisions(np.random.default_rng(5), units, beams, 400)
    tenth = {name: values[np.asarray(events["event"]) % 10 == 0] for name, values in events.items()}
    return Played(tenth, lambda _: events, nominal_beam(sigma_z=5.0, width_x=20e-4, width_y=20e-4))


@cache
def adc() -> Played:
    rng = np.random.default_rng(6)
    truth = Adc(100 + 5 * rng.random(512), np.full(512, 4.0), 1.0, 256, 128)
    other = np.arange(512) < 128
    before = nominal(512, truth.pedestal + np.where(other, 3.0, 0.0), np.where(other, 5.0, 4.0))
    samples = adc_samples(rng, truth, 1500)
    blocks = np.tile(np.arange(2, dtype=np.uint32), (1500, 1))
    columns = pedestal_columns(blocks, samples.reshape(1500, -1))
    return Played(first(columns, 300), lambda _: columns, before, {"channels": 512, "block": 256, "group": 128})


@cache
def charge() -> Played:
    rng = np.random.default_rng(7)
    made = charges(rng, 1 + 0.08 * rng.standard_normal(20), 400)
    raw = made.of_events(400)

    def under(payload: Payload) -> Columns:
        return {**raw, "gain_charge": raw["gain_charge"] * payload["gain"][raw["gain_group"]]}

    return Played(first(raw, 200), under, gains_of_one(20), {"groups": 20})


@cache
def size() -> Played:
    columns = sizes(np.random.default_rng(8), np.array([0.4, 0.4, 0.1, 0.1]), 3000).of_events(600)
    return Played(first(columns, 300), lambda _: columns, no_angle(2, 0.3), {"groups": 4, "together": 2})


@cache
def residuals() -> Played:
    """Of pixel half barrels that are shifted by some tens of um."""
    return shifted({"free": ("half_barrel 0-1: x y z",), "min_entries": 10}, 500)


@cache
def residuals_beside_a_survey() -> Played:
    """The same, of an alignment of which tracks leave most to a survey: that errors are large hides no fault."""
    free = ("half_barrel 0-1: x y z", "ladder 0-101: x y z", "ladder 102-117: x y z", "ladder 118-287: x y")
    survey = tuple(f"{which} {size}" for which, size in zip(free, (100, 20, 50, 50), strict=True))
    return shifted({"free": free, "survey": survey, "min_entries": 5}, 1500)


def shifted(settings: Mapping[str, Any], tracks: int) -> Played:
    every = {"levels": LEVELS, "min_records": 100, **settings}
    structures = Alignment(**every).structures

    def under(payload: Payload, number: int = 2 * tracks) -> Columns:
        left = structures.values(displaced(moved_halves())) - structures.values(payload)
        return played(9, Play(number, stereo=0.1), left)

    return Played(under(drawn(dict(LEVELS)), tracks), under, drawn(dict(LEVELS)), every)


@cache
def occupancy() -> Played:
    rates = np.full(1024, 0.01)
    rates[np.arange(40, 140, 4)], rates[::256] = 0.0, 0.3
    columns = hits(np.random.default_rng(10), [(1, 1)], rates, 12_000)
    before = OccupancyStatus(channels=1024, group=128)
    start = Payload(before.kind, {"status": np.zeros(1024, np.int8), "silent": np.zeros(1024, np.float32)})
    return Played(first(columns, 6000), lambda _: columns, start, {"channels": 1024, "group": 128})


@cache
def counting() -> Played:
    """By channels that count often, the first dozen of 1024 dead and another one noisy."""
    rates = np.full(1024, 12.0)
    rates[:12], rates[500] = 0.0, 60.0
    run, lumi = np.repeat([[1] * 100, list(range(100))], 10, axis=1)
    counts = np.random.default_rng(11).poisson(rates / 2, (1000, 1024))
    columns = {"run": run, "lumi": lumi, "event": np.arange(1000), "counts": counts}
    return Played(first(columns, 300), lambda _: columns, all_good(1024), {"channels": 1024})


KINDS: Mapping[str, tuple[type[Calibration], Callable[[], Played]]] = {
    "beamspot": (BeamSpot, beam),
    "pedestal": (Pedestal, adc),
    "noise": (Pedestal, adc),
    "gain": (Gain, charge),
    "lorentz_angle": (LorentzAngle, size),
    "alignment": (Alignment, residuals),
    "surveyed_alignment": (Alignment, residuals_beside_a_survey),
    "channel_status": (OccupancyStatus, occupancy),
    "counting_channels": (ChannelStatus, counting),
}


def closure(calibration: Calibration, played: Played) -> Closure:
    """The first pass, then closure of what it gave over the second."""
    start = {calibration.kind: played.before}
    made = calibration.finalize(calibration.accumulate(played.express, start), played.before)
    under = {calibration.kind: made}
    corrected = calibration.corrected(played.prompt(made), under)
    return close(calibration, calibration.accumulate(corrected, under), made, Demand())


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_one_closes(kind):
    made, play = KINDS[kind]
    found = closure(made(**play().settings), play())
    assert found.answer is Closes.YES, found.why


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_shows(fault):
    play = KINDS[fault.split()[1]][1]
    found = closure(FAULTS[fault](**play().settings), play())
    assert found.answer is Closes.NO, found.why


def test_every_kind_has_both_faults():
    assert {(fault.split()[0], fault.split()[1]) for fault in FAULTS} == {
        (how, kind) for how in ("flipped", "doubled") for kind in KINDS
    }
