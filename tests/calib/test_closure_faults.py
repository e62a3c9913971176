"""A fault in a calibration shows in its own closure, for every kind; and without one it closes.

A new kind is a line in `KINDS`, with a function that gives a calibration of a class, events of the first pass and of
the second, and the payload to start from; and its two classes in `tests.calib.faulty`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest

from calib.algorithms.beamspot import BeamSpot
from calib.algorithms.beamspot_payload import nominal as nominal_beam
from calib.algorithms.pedestal import Pedestal, nominal
from calib.calibration import Calibration, Columns
from calib.closure import Closes, Closure, Demand, close
from calib.payload import Payload
from tests.calib.faulty import FAULTS
from tests.calib.toy import Adc, Beam, adc_samples, collisions, pedestal_columns


@dataclass(frozen=True)
class Played:
    """What express sees, what prompt sees (all of it), and the payload in force before."""

    express: Columns
    prompt: Columns
    before: Payload
    more: Mapping[str, Payload]
    settings: Mapping[str, Any]


@cache
def beam() -> Played:
    units = [(1, lumi) for lumi in range(1, 5)]
    beams = [Beam(dxdz=3e-4, dydz=-2e-4)] * 4
    events = collisions(np.random.default_rng(5), units, beams, 400)
    tenth = {name: values[np.asarray(events["event"]) % 10 == 0] for name, values in events.items()}
    return Played(tenth, events, nominal_beam(sigma_z=5.0, width_x=20e-4, width_y=20e-4), {}, {})


@cache
def adc() -> Played:
    rng = np.random.default_rng(6)
    truth = Adc(100 + 5 * rng.random(512), np.full(512, 4.0), 1.0, 256, 128)
    before = nominal(512, truth.pedestal + np.where(np.arange(512) < 128, 3.0, 0.0), 4.0)
    samples = adc_samples(rng, truth, 1500)
    blocks = np.tile(np.arange(2, dtype=np.uint32), (1500, 1))
    columns = pedestal_columns(blocks, samples.reshape(1500, -1))
    few = {name: values[:300] for name, values in columns.items()}
    return Played(few, columns, before, {}, {"channels": 512, "block": 256, "group": 128})


KINDS: Mapping[str, tuple[type[Calibration], Callable[[], Played]]] = {
    "beamspot": (BeamSpot, beam),
    "pedestal": (Pedestal, adc),
}


def closure(calibration: Calibration, played: Played, demand: Demand | None = None) -> Closure:
    """The first pass, then closure of what it gave over the second."""
    kind = calibration.kind
    start = {**played.more, kind: played.before}
    made = calibration.finalize(calibration.accumulate(played.express, start), played.before)
    under = {**played.more, kind: made}
    state = calibration.accumulate(calibration.corrected(played.prompt, under), under)
    return close(calibration, state, made, demand or Demand())


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_one_closes(kind):
    made, play = KINDS[kind]
    found = closure(made(**play().settings), play())
    assert found.answer is Closes.YES, found.why


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_shows(fault):
    play = KINDS[fault.split()[1]][1]
    found = closure(FAULTS[fault](**play().settings), play())
    assert found.answer is Closes.NO and (found.sigmas is None or found.sigmas > 2 * found.limit), found.why


def test_every_kind_has_both_faults():
    assert {(fault.split()[0], fault.split()[1]) for fault in FAULTS} == {
        (how, kind) for how in ("flipped", "doubled") for kind in KINDS
    }
