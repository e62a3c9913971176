"""What is simulated while beams, voltages or magnet are off, beside the same events when all is on."""

from dataclasses import replace
from functools import cache

import awkward as ak
import numpy as np
import pytest
from scipy.stats import norm

from calib.iov import RunLumi
from calib.payload import Payload
from pipeline.experiments.ref10.alignment import frames
from pipeline.experiments.ref10.constants import LORENTZ, lorentz_angle
from pipeline.experiments.ref10.geometry import full_geometry, geometry_of
from pipeline.experiments.ref10.reconstruct.stages import reconstruct
from pipeline.experiments.ref10.running import RunClass, Status
from pipeline.experiments.ref10.simulate.channels import channels
from pipeline.experiments.ref10.simulate.events import Simulated, simulate
from pipeline.experiments.ref10.simulate.faults import Misalignment, When
from pipeline.experiments.ref10.simulate.scenario import Physics, Scenario, truth
from pipeline.experiments.ref10.simulate.spells import Spell

FULL = geometry_of(full_geometry())
SEED, RUN = 3, 2
EVENTS = np.arange(1, 71)
USUAL = Scenario(physics=Physics(nzs=0.1), misalignment=Misalignment.none())
FIELD = USUAL.field_tesla

# One after the other, a lumisection each, in a run of a class of its own.
TIMES = (
    {"off": (Status.PIXELS_ON,)},
    {"off": (Status.STRIPS_ON,)},
    {"off": (Status.PIXELS_ON, Status.STRIPS_ON)},
    {"off": (Status.STABLE_BEAMS,)},
    {"off": (Status.MAGNET_ON,)},
    {"field_tesla": FIELD / 2},
    {"field_tesla": -FIELD},
)
PIXELS_OFF, STRIPS_OFF, SENSORS_OFF, NO_BEAMS, NO_MAGNET, HALF_FIELD, REVERSED, AFTER = range(1, len(TIMES) + 2)
MOVED = replace(
    USUAL,
    spells=(
        Spell(When(str(RUN)), run_class=RunClass.COSMICS),
        *(Spell(When(f"{RUN}:{lumi}", f"{RUN}:{lumi + 1}"), **otherwise) for lumi, otherwise in enumerate(TIMES, 1)),
    ),
)


def flat(column):
    return np.asarray(ak.flatten(column))


@cache
def usual(lumi: int) -> Simulated:
    """The events of a lumisection, had nothing been otherwise."""
    return simulate(USUAL, FULL, SEED, RUN, lumi, EVENTS)


@cache
def made(lumi: int) -> Simulated:
    return simulate(MOVED, FULL, SEED, RUN, lumi, EVENTS)


def digis(simulated: Simulated, *, pixel: bool):
    """Event, module, channel, counts and particle of pixels or of strips, a row each."""
    event = np.repeat(EVENTS, ak.num(simulated.raw["digi_adc"]))
    columns = [flat(simulated.raw[f"digi_{name}"]) for name in ("module", "chan", "adc")]
    every = np.stack([event, *columns, flat(simulated.truth["digi_particle"])], axis=1).astype(np.int64)
    return every[FULL.pixel[FULL.rows_of(every[:, 1])] == pixel]


def test_pixels_without_voltage_send_nothing_and_strips_are_as_they_were():
    off, before = made(PIXELS_OFF), usual(PIXELS_OFF)
    assert len(digis(off, pixel=True)) == 0 < len(digis(before, pixel=True))
    assert (digis(off, pixel=False) == digis(before, pixel=False)).all()
    assert ak.array_equal(off.raw["nzs_adc"], before.raw["nzs_adc"])
    pixel = FULL.pixel[FULL.rows_of(flat(off.truth["Crossing_module"]))]
    charges = [flat(simulated.truth["Crossing_charge"]) for simulated in (off, before)]
    assert (charges[0][pixel] == 0).all() and (charges[0][~pixel] == charges[1][~pixel]).all()


def test_strips_without_voltage_are_left_with_their_noise():
    off, before = made(STRIPS_OFF), usual(STRIPS_OFF)
    assert (digis(off, pixel=True) == digis(before, pixel=True)).all()
    seen = digis(off, pixel=False)
    assert (seen[:, 4] == -1).all() and (digis(before, pixel=False)[:, 4] >= 0).mean() > 0.5
    # As often as the tables say, each with its neighbours.
    strips = channels(USUAL, FULL, SEED, RUN, STRIPS_OFF)
    beside = norm.sf((2 * strips.threshold - strips.centre) / strips.spread) - strips.firing
    wanted = ((strips.firing * (1 + 2 * beside)).sum() + strips.pulse_rate[-1] * 1.05) * len(EVENTS)
    suppressed = 1 - ak.sum(ak.num(before.raw["nzs_module"])) / (len(EVENTS) * len(FULL.strip_rows))
    assert len(seen) == pytest.approx(wanted * suppressed, abs=4.5 * np.sqrt(1.2 * wanted))
    # Whole modules: pedestal and noise, no strip far above.
    true = truth(USUAL, FULL, SEED, RUN, STRIPS_OFF)
    good = true["strip_status"]["status"].reshape(-1, 768) == 0
    block = FULL.strip_block[FULL.rows_of(flat(off.raw["nzs_module"]))]
    above = [
        (flat(simulated.raw["nzs_adc"]).reshape(-1, 768) - true["pedestal"]["mean"].reshape(-1, 768)[block])[
            good[block]
        ]
        for simulated in (off, before)
    ]
    assert above[0].max() < 30 < 100 < above[1].max()


def test_tracks_are_there_though_nothing_is_seen_of_them():
    off, before = made(SENSORS_OFF), usual(SENSORS_OFF)
    for name in ("Vertex_z", "Particle_pt", "Crossing_module", "Crossing_u", "Crossing_path"):
        assert ak.array_equal(off.truth[name], before.truth[name])
    assert not flat(off.truth["Crossing_charge"]).any()


def test_without_beams_nothing_collides():
    off, before = made(NO_BEAMS), usual(NO_BEAMS)
    for name in ("Vertex_z", "Particle_pt", "Crossing_u"):
        assert len(flat(off.truth[name])) == 0 < len(flat(before.truth[name]))
    assert (flat(off.truth["digi_particle"]) == -1).all() and len(flat(off.raw["digi_adc"])) > 20 * len(EVENTS)
    # What would have been dimuons is read out all the same; whole modules are sent as they would have been.
    assert (off.raw["trig"] == np.where(before.raw["trig"] == 2, 1, before.raw["trig"])).all()
    assert (before.raw["trig"] == 2).any()
    assert ak.array_equal(off.raw["nzs_module"], before.raw["nzs_module"])
    for name in ("run", "lumi", "event", "bx", "orbit"):
        assert (off.raw[name] == before.raw[name]).all()


def test_an_event_without_beams_does_not_depend_on_its_neighbours():
    off = made(NO_BEAMS)
    for place in (0, 50, 69):
        alone = simulate(MOVED, FULL, SEED, RUN, NO_BEAMS, EVENTS[place : place + 1])
        assert all(ak.array_equal(alone.raw[name], off.raw[name][place : place + 1]) for name in alone.raw)


def off_the_helix(simulated: Simulated, tesla: float):
    """How far, across, tracks of 2 to 6 GeV cross layer 4 beside the helix of the truth in some field [cm]."""
    truth_of = simulated.truth
    particles = np.asarray(ak.num(truth_of["Particle_pt"]))
    particle = flat(truth_of["Crossing_particle"] + (np.cumsum(particles) - particles))
    pt, charge, d0, phi = (flat(truth_of[f"Particle_{name}"])[particle] for name in ("pt", "charge", "d0", "phi"))
    row = FULL.rows_of(flat(truth_of["Crossing_module"]))
    x, y, _ = frames(FULL).to_global(row, flat(truth_of["Crossing_u"]), flat(truth_of["Crossing_v"])).T
    rho = 0.00299792458 * tesla * charge / pt
    off = rho * (x**2 + y**2 + d0**2) / 2 + d0 - (1 + rho * d0) * (x * np.sin(phi) - y * np.cos(phi))
    return off[(pt > 2) & (pt < 6) & (FULL.layer[row] == 4)]


def test_tracks_are_straight_without_magnet():
    off, before = made(NO_MAGNET), usual(NO_MAGNET)
    straight, as_if_bent = off_the_helix(off, 0.0), off_the_helix(off, FIELD)
    # Scattering: 2 mrad / p [GeV] over 14 cm or less. The field: 0.0057 r^2 / pT, 2.4 mm at 6 GeV.
    assert len(straight) > 20
    assert np.abs(straight).max() < 0.06 and np.abs(as_if_bent).min() > 0.15
    assert np.abs(off_the_helix(before, FIELD)).max() < 0.06
    # None turns back: slow ones get to the last layer, too.
    for simulated, slow in ((off, True), (before, False)):
        pt = flat(simulated.truth["Particle_pt"][simulated.truth["Crossing_particle"]])
        last = FULL.layer[FULL.rows_of(flat(simulated.truth["Crossing_module"]))] == 10
        assert (pt[last] < 0.38).any() == slow
    assert ak.array_equal(off.truth["Particle_phi_vertex"], before.truth["Particle_phi_vertex"])
    assert np.allclose(flat(off.truth["Particle_phi"]), flat(off.truth["Particle_phi_vertex"]), atol=1e-12)


def test_a_field_the_other_way_round_bends_tracks_the_other_way():
    found = made(REVERSED)
    assert np.abs(off_the_helix(found, -FIELD)).max() < 0.06 < 0.15 < np.abs(off_the_helix(found, FIELD)).min()


def shift_um(simulated: Simulated, conditions: dict[str, Payload]) -> tuple[float, float]:
    """By how much clusters of pixels lie beside the only crossing of their module, on average; and its error."""
    clusters = reconstruct(simulated.raw, conditions).clusters
    crossed = np.repeat(EVENTS, ak.num(simulated.truth["Crossing_module"])) << 32
    crossed |= flat(simulated.truth["Crossing_module"])
    found = EVENTS[clusters.event] << 32 | clusters.flat["module"]
    single, place, times = np.unique(crossed, return_index=True, return_counts=True)
    mine, own, number = np.unique(found, return_index=True, return_counts=True)
    _, a, b = np.intersect1d(single[times == 1], mine[number == 1], assume_unique=True, return_indices=True)
    crossing, cluster = place[times == 1][a], own[number == 1][b]
    pixel = FULL.pixel[FULL.rows_of(clusters.flat["module"][cluster])] & (clusters.flat["flags"][cluster] == 0)
    off = 1e4 * (clusters.flat["u"][cluster][pixel] - flat(simulated.truth["Crossing_u"])[crossing[pixel]])
    near = off[np.abs(off) < 300]
    assert len(near) > 1000 and len(near) > 0.99 * len(off)
    return float(near.mean()), float(near.std() / np.sqrt(len(near)))


@pytest.mark.parametrize(("lumi", "shift"), [(NO_MAGNET, 0.0), (HALF_FIELD, 28.5), (REVERSED, -57.0)])
def test_charge_drifts_sideways_by_the_field(lumi, shift):
    """Half of 285 um times 0.40 at 3.8 T; with the true Lorentz angle of that field, or of the full one brought to it,
    nothing is left."""
    true = truth(MOVED, FULL, SEED, RUN, lumi)
    of_full = lorentz_angle(MOVED.by_layer, MOVED.field_tesla)
    for angle, wanted in ((true[LORENTZ], 0.0), (of_full, 0.0), (lorentz_angle(np.zeros(10)), shift)):
        found, error = shift_um(made(lumi), {**true, LORENTZ: angle})
        assert found == pytest.approx(wanted, abs=0.5 + 4.5 * error)


def test_a_spell_is_over_when_it_ends_and_the_class_of_a_run_changes_no_event():
    after, before = made(AFTER), usual(AFTER)
    assert MOVED.running(RunLumi(RUN, AFTER)).run_class is RunClass.COSMICS
    assert all(ak.array_equal(after.raw[name], before.raw[name]) for name in after.raw)
