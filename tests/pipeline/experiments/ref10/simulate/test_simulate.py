"""Whole events: the same however they are asked for, as a naive digitization has them, and in the form of RAW."""

import hashlib
import tracemalloc
from dataclasses import dataclass, replace

import awkward as ak
import numpy as np
import pytest
from scipy.stats import norm

from pipeline.experiments.ref10.alignment import frames
from pipeline.experiments.ref10.geometry import full_geometry, geometry_of, mini_geometry
from pipeline.experiments.ref10.layers import LAYERS
from pipeline.experiments.ref10.simulate.channels import STRIPS_A_TRACK, channels
from pipeline.experiments.ref10.simulate.events import block_size, simulate
from pipeline.experiments.ref10.simulate.faults import Faults
from pipeline.experiments.ref10.simulate.particles import NZS_GROUPS
from pipeline.experiments.ref10.simulate.scenario import Physics, Scenario, tables_of, truth
from pipeline.experiments.ref10.simulate.stages import Simulation
from pipeline.experiments.ref10.simulate.streams import Purpose
from tests.pipeline.experiments.ref10.simulate import naive

FULL, MINI = geometry_of(full_geometry()), geometry_of(mini_geometry())
MIXED = Scenario(physics=Physics(nzs=0.1))
BIAS = Scenario(physics=Physics(z=0.0, jpsi=0.0, nzs=0.0))
GOOD = Faults(dead_strips=0, dead_chips=0, hot_strips=0, dead_rocs=0, pedestal_shift_chips=0)
QUIET = replace(BIAS, faults=GOOD)
SEED, RUN, LUMI = 3, 2, 8
EVENTS = np.arange(1, 2001)
BLOCK = block_size(MIXED.physics)
TYPES = {
    "run": "uint32",
    "lumi": "uint32",
    "event": "uint64",
    "bx": "uint16",
    "orbit": "uint32",
    "trig": "uint32",
    "digi_module": "var * uint32",
    "digi_chan": "var * uint32",
    "digi_adc": "var * uint16",
    "nzs_module": "var * uint32",
    "nzs_adc": "var * uint16",
}


@pytest.fixture(scope="module")
def many():
    return simulate(MIXED, FULL, SEED, RUN, LUMI, EVENTS)


@pytest.fixture(scope="module")
def bias():
    return simulate(QUIET, FULL, SEED, RUN, LUMI, np.arange(1, 1001))


def flat(column):
    """The values of a jagged column, one after the other."""
    return np.asarray(ak.flatten(column))


def assert_same(some, many, places):
    for found, wanted in ((some.raw, many.raw), (some.truth, many.truth)):
        assert found.keys() == wanted.keys()
        for name in found:
            assert ak.array_equal(found[name], wanted[name][places]), name
            assert str(ak.type(ak.Array(found[name])).content) == str(ak.type(ak.Array(wanted[name])).content)


def test_an_event_is_the_same_alone_or_among_two_thousand(many):
    chosen = [0, 1, BLOCK - 1, BLOCK, 777, 1999, *np.flatnonzero(many.raw["trig"] == 5)[:3]]
    for place in chosen:
        assert_same(simulate(MIXED, FULL, SEED, RUN, LUMI, EVENTS[place : place + 1]), many, slice(place, place + 1))


def test_events_are_the_same_in_another_order_and_other_chunks(many):
    places = np.random.default_rng(1).permutation(len(EVENTS))[:400]
    assert_same(simulate(MIXED, FULL, SEED, RUN, LUMI, EVENTS[places]), many, places)
    for start, stop in ((0, 7), (7, 150), (150, 411)):
        assert_same(simulate(MIXED, FULL, SEED, RUN, LUMI, EVENTS[start:stop]), many, slice(start, stop))


NUMBERS = np.array([0, 999_999, 1_000_000, 1_000_001, 2**31 - 1, 2**31, 2**32, 2**32 + 5, 2**53 + 1, 2**63 - 1])


def test_an_event_of_any_number_is_the_same_alone_or_among_others():
    """Beyond a million, and beyond what 32 bits hold or a float tells apart."""
    among = np.concatenate([EVENTS[:20], NUMBERS, np.arange(10**6 + 2, 10**6 + 40)])
    many = simulate(MIXED, MINI, SEED, RUN, LUMI, among)
    assert (many.raw["event"] == among.astype(np.uint64)).all()
    for place in range(20, 20 + len(NUMBERS)):
        assert_same(simulate(MIXED, MINI, SEED, RUN, LUMI, among[place : place + 1]), many, slice(place, place + 1))
    # No two numbers mean the same event, as they would if a part of them were lost.
    assert len(np.unique(ak.to_numpy(ak.firsts(many.truth["Vertex_z"])))) == len(among)


@pytest.mark.parametrize("other", [(SEED + 1, RUN, LUMI), (SEED, RUN + 1, LUMI), (SEED, RUN, LUMI + 1)])
def test_other_keys_make_other_events(other, many):
    found = simulate(MIXED, FULL, *other, EVENTS[:5])
    assert not np.isin(flat(found.truth["Vertex_z"]), flat(many.truth["Vertex_z"])).any()


def test_raw_is_of_the_types_and_the_order_of_the_daq(many):
    assert {name: str(ak.type(ak.Array(values)).content) for name, values in many.raw.items()} == TYPES
    raw = many.raw
    key = ak.values_astype(raw["digi_module"], np.uint64) << 32 | raw["digi_chan"]
    assert ak.all(key[:, 1:] > key[:, :-1])
    FULL.rows_of(flat(raw["digi_module"]))
    assert (raw["run"] == RUN).all() and (raw["lumi"] == LUMI).all() and (raw["event"] == EVENTS).all()
    row = FULL.index(flat(raw["digi_module"]))
    channel, adc = (flat(raw[name]).astype(np.int64) for name in ("digi_chan", "digi_adc"))
    pixel = FULL.pixel[row]
    line, column = channel & 0xFFFF, channel >> 16
    assert (line < FULL.rows[row]).all() and (column < FULL.columns[row]).all()
    assert (adc[pixel] <= 255).all() and (adc[pixel] >= 20).all() and (adc[~pixel] <= 1023).all()


def test_modules_read_out_in_full_have_no_digis(many):
    raw = many.raw
    nzs = (raw["trig"] & 4) > 0
    assert 0.05 < nzs[raw["trig"] & 1 > 0].mean() < 0.15
    assert (ak.num(raw["nzs_adc"]) == 768 * ak.num(raw["nzs_module"])).to_numpy().all()
    for place in range(len(EVENTS)):
        own = FULL.index(raw["nzs_module"][place].to_numpy())
        block = np.arange(1860)
        wanted = FULL.strip_rows[block % NZS_GROUPS == EVENTS[place] % NZS_GROUPS] if nzs[place] else []
        if nzs[place] or place < 50:
            assert own.tolist() == list(wanted)
            assert not np.isin(flat(raw["digi_module"][place : place + 1]), FULL.module[own]).any()


def test_truth_hangs_together(many):
    truth, raw = many.truth, many.raw
    particles, vertices = ak.num(truth["Particle_pt"]), ak.num(truth["Vertex_x"])
    assert ak.all(truth["Particle_vertex"] < vertices) and ak.all(truth["Crossing_particle"] < particles)
    assert (ak.num(truth["digi_particle"]) == ak.num(raw["digi_adc"])).to_numpy().all()
    assert ak.all(truth["digi_particle"] < particles) and ak.all(truth["digi_particle"] >= -1)
    # Digis that name a particle lie in a module which it crosses.
    for place in range(20):
        crossed = set(
            zip(truth["Crossing_particle"][place].tolist(), truth["Crossing_module"][place].tolist(), strict=True)
        )
        named = zip(truth["digi_particle"][place].tolist(), raw["digi_module"][place].tolist(), strict=True)
        assert all(pair in crossed for pair in named if pair[0] >= 0)
    vertex_x = truth["Vertex_x"][truth["Particle_vertex"]]
    vertex_y = truth["Vertex_y"][truth["Particle_vertex"]]
    phi = truth["Particle_phi"]
    # The circle through the vertex, in Karimaki's terms: its distance from the axis is d0.
    rho = 0.00299792458 * 3.8038 * truth["Particle_charge"] / truth["Particle_pt"]
    d0, square = truth["Particle_d0"], vertex_x**2 + vertex_y**2
    left = rho * square / 2 + rho * d0**2 / 2 + d0 - (1 + rho * d0) * (vertex_x * np.sin(phi) - vertex_y * np.cos(phi))
    assert ak.max(abs(left)) < 1e-12


def test_noise_and_signal_are_as_many_as_expected(many):
    """Noise strips as the tables say, and a few more beside signal; strips and pixels of tracks by their crossings."""
    strips = channels(MIXED, FULL, SEED, RUN, LUMI)
    suppressed = (many.raw["trig"] & 4) == 0
    row = FULL.index(flat(many.truth["Crossing_module"]))
    crossed = np.bincount(FULL.pixel[row])
    noise = ak.sum(many.truth["digi_particle"] == -1, axis=1).to_numpy()[suppressed]
    beside = 2 * (norm.sf(2) - norm.sf(4))
    # In chips whose pedestals have moved, neighbours have moved as well.
    kept = norm.sf((2 * strips.threshold - strips.centre) / strips.spread) - strips.firing
    least = (strips.firing * (1 + 2 * kept)).sum() + strips.pulse_rate[-1]
    most = least + beside * crossed[0] / len(EVENTS) + strips.pulse_rate[-1] * beside
    error = np.sqrt(least / len(noise))
    assert least - 4.5 * error < noise.mean() < most + 4.5 * error
    # A Poisson number of firings, each with 0 to 2 neighbours.
    squared = (strips.firing * ((1 + 2 * kept) ** 2 + 2 * kept * (1 - kept))).sum()
    spread = squared / (strips.firing * (1 + 2 * kept)).sum()
    assert noise.var() / noise.mean() == pytest.approx(spread, abs=4.5 * spread * np.sqrt(2 / len(noise)))
    size = (
        np.bincount(FULL.pixel[FULL.index(flat(many.raw["digi_module"][many.truth["digi_particle"] >= 0]))]) / crossed
    )
    # What hot strips are measured by.
    assert size[0] == pytest.approx(STRIPS_A_TRACK, rel=0.05)
    assert 2.0 < size[1] < 4.5


def reach(layer, beam):
    """Share of minimum-bias tracks that get to a layer before they turn or leave it at its ends."""
    pt = 0.3 + np.linspace(0, 12, 6001)[1:] - 0.001
    spectrum = 0.95 / 0.5 * np.exp(-(pt - 0.3) / 0.5) + 0.05 / 2 * np.exp(-(pt - 0.3) / 2.0)
    eta = np.linspace(-1, 1, 201)
    diameter = 2 * pt / (0.00299792458 * 3.8038)
    way = diameter * np.arcsin(np.minimum(layer.radius / diameter, 1))
    end = 5 * layer.spacing
    z = beam.z + way[:, None] * np.sinh(eta)
    there = (norm.cdf((end - z) / beam.sigma_z) - norm.cdf((-end - z) / beam.sigma_z)).mean(axis=1)
    return (spectrum * there * (diameter > layer.radius)).sum() * (pt[1] - pt[0]) + 0.05 * np.exp(-6)


def test_layers_are_hit_as_often_as_tracks_reach_them(bias):
    """Occupancy: the mean number of hits a track in each layer, from the spectrum, the field and what sensors cover."""
    number = ak.num(bias.truth["Particle_pt"]).to_numpy()
    assert number.mean() == pytest.approx(15, abs=4.5 * np.sqrt((15 + 1.5 * 50 + 0.5 * 100) / 1000))
    layers = FULL.layer[FULL.index(flat(bias.truth["Crossing_module"]))]
    hits = np.bincount(layers, minlength=11)[1:] / number.sum()
    for layer, share in zip(LAYERS, hits, strict=True):
        cover = layer.ladders * np.arctan(layer.width / 2 / layer.radius) / np.pi * layer.length / layer.spacing
        wanted = reach(layer, BIAS.beam.start) * cover
        # Half a percent: inclined tracks see overlaps larger, and the last 3 degrees before the turn are lost.
        error = np.sqrt(max(1 - wanted, 0.02) / number.sum())
        assert share == pytest.approx(wanted, abs=4.5 * error + 0.005), f"layer {layer.number}"


@dataclass
class Clusters:
    """Modules that were crossed once in an event: the crossing, and sums over the digis of particles there."""

    pixel: np.ndarray
    row: np.ndarray
    du: np.ndarray
    dv: np.ndarray
    path: np.ndarray
    made: np.ndarray
    seen: np.ndarray
    """electrons, 0 where a channel saturated"""
    digis: np.ndarray
    columns: np.ndarray


@pytest.fixture(scope="module")
def clusters(bias):
    events, found, true = len(bias.raw["run"]), bias, truth(QUIET, FULL, SEED, RUN, LUMI)

    def key(column):
        event = np.repeat(np.arange(events), ak.num(column).to_numpy())
        return event * len(FULL) + FULL.index(flat(column))

    _, place, times = np.unique(key(found.truth["Crossing_module"]), return_index=True, return_counts=True)
    once = place[times == 1]
    crossing = key(found.truth["Crossing_module"])[once]
    own = flat(found.truth["digi_particle"]) >= 0
    module = key(found.raw["digi_module"])[own]
    channel, adc = (flat(found.raw[f"digi_{name}"]).astype(np.int64)[own] for name in ("chan", "adc"))
    pixel = FULL.pixel[module % len(FULL)]
    strip = np.where(pixel, 0, FULL.strip_block[module % len(FULL)] * 768 + channel)
    above = adc - true["pedestal"]["mean"][strip]
    electrons = np.where(pixel, 150 * adc, 265 * true["gain"]["gain"][strip // 128] * above)
    full = np.where(pixel, adc >= 255, above > 240)
    size = events * len(FULL)
    column = np.unique(module << 10 | channel >> 16) >> 10
    return Clusters(
        FULL.pixel[crossing % len(FULL)],
        crossing % len(FULL),
        *(flat(found.truth[f"Crossing_{name}"])[once] for name in ("dudw", "dvdw", "path", "charge")),
        (np.bincount(module, electrons, size) * (np.bincount(module, full, size) == 0))[crossing],
        np.bincount(module, minlength=size)[crossing],
        np.bincount(column, minlength=size)[crossing],
    )


def test_deposited_charge_arrives_in_the_counts(clusters):
    """Electrons, less what thresholds cut off."""
    for pixel, least in ((True, 0.93), (False, 0.95)):
        chosen = (clusters.pixel == pixel) & (clusters.seen > 0)
        ratio = clusters.seen[chosen] / clusters.made[chosen]
        assert len(ratio) > 20_000
        assert least < np.median(ratio) < 1.0
        assert np.quantile(ratio, 0.99) < 1.12


def test_charge_for_the_way_through_the_sensor_is_landaus(clusters):
    """However thick the sensor is and however the track goes through it; what is seen of it peaks where it should."""
    for thickness in (0.0285, 0.032, 0.050):
        for inclined in (False, True):
            chosen = (FULL.thickness[clusters.row] == thickness) & ((clusters.path > 1.15 * thickness) == inclined)
            made = (clusters.made / clusters.path)[chosen] / 1e4
            n = len(made)
            assert n > 3000
            for edge in (76.0, 79.5, 86.0, 110.0):
                share = naive.landau((edge - 80.6) / 5.0)
                assert (made < edge).mean() == pytest.approx(share, abs=4.5 * np.sqrt(share * (1 - share) / n))
            seen = (clusters.seen / clusters.path)[chosen & (clusters.seen > 0)] / 1e4
            counts, edges = np.histogram(seen, np.arange(60, 110, 1.5))
            top = counts > 0.8 * counts.max()
            square, line, _ = np.polyfit((edges[:-1] + 0.75)[top] - 80, counts[top], 2)
            assert 80 - line / square / 2 == pytest.approx(79.5, abs=2.5), (thickness, inclined)


def test_clusters_grow_with_the_angle(clusters):
    """Channels over threshold: those that the projected way L touches, 1 + L/p, less ends too short for the threshold.

    Columns of pixels (3000 e) and, in the thick layers, strips (2 sigma of noise beside others), whose way is that of
    the charge after its drift.
    """
    pixel, thick = clusters.pixel, FULL.thickness[clusters.row] == 0.05
    cases = (
        (pixel, np.abs(clusters.dv) * 0.0285, 0.015, 3000.0, clusters.columns),
        (thick, np.abs(clusters.du - 0.10) * 0.050, 0.0128, 2 * 4 * 265.0, clusters.digis),
    )
    for kind, way, pitch, threshold, size in cases:
        for low, high in ((1.0, 1.4), (1.4, 1.8), (1.8, 2.2)):
            chosen = kind & (way > low * pitch) & (way < high * pitch) & (size > 0)
            short = threshold / clusters.made[chosen] * way[chosen]
            wanted = (1 + (way[chosen] - 2 * short) / pitch).mean()
            assert chosen.sum() > 500
            assert size[chosen].mean() == pytest.approx(wanted, rel=0.025), (pitch, low)


@pytest.mark.parametrize("lumi", [6, 8])
def test_digis_are_those_of_a_naive_digitization(lumi):
    """Channel by channel in dictionaries, from the same random numbers, on the mini detector."""
    scenario = Scenario(
        physics=Physics(nzs=0.0, pile_up=6.0), faults=Faults(hot_strips=0.02, dead_strips=0.05, dead_rocs=300)
    )
    events = np.array([5, 900, 17, 33])
    simulation = Simulation(scenario, MINI, SEED, RUN, lumi)
    collided = simulation.collide(events)
    charges = simulation.ionize(events, collided, simulation.trace(events, collided)).cells
    found = simulate(scenario, MINI, SEED, RUN, lumi, events)
    strips = channels(scenario, MINI, SEED, RUN, lumi)
    dead = tables_of(scenario, MINI, SEED).dead_roc
    seen = 0
    for place, event in enumerate(events):
        cells = [
            (int(row), int(channel), charge)
            for e, row, channel, charge in zip(charges.event, charges.row, charges.channel, charges.charge, strict=True)
            if e == place
        ]

        def drawn(purpose, event=event):
            return naive.generator(SEED, RUN, lumi, purpose, event)

        wanted = pixels_of_event([cell for cell in cells if MINI.pixel[cell[0]]], drawn, dead if lumi >= 7 else None)
        signal = {}
        for row, channel, charge in cells:
            strip = int(MINI.strip_block[row]) * 768 + channel
            if not MINI.pixel[row] and not strips.dead[strip]:
                signal[strip] = charge / 265 / strips.gain[strip // 128]
        kept = naive.strips_of_event(strips, signal, drawn, collided.header.noise[place])
        wanted += [(int(MINI.module[MINI.strip_rows[s // 768]]), s % 768, adc) for s, adc in kept.items()]
        digis = zip(*(found.raw[f"digi_{name}"][place].tolist() for name in ("module", "chan", "adc")), strict=True)
        assert list(digis) == sorted(wanted)
        seen += len(wanted)
    assert seen > 300


def pixels_of_event(cells, drawn, dead):
    cells = [cell for cell in cells if cell[2] > 3000 - 8 * 200]
    noise = drawn(Purpose.PIXEL_NOISE).standard_normal(len(cells))
    digis = []
    for (row, channel, charge), normal in zip(cells, noise, strict=True):
        chip = 9 * ((channel & 0xFFFF) // 80) + (channel >> 16) // 52
        charge += 200 * normal
        masked = dead is not None and dead[MINI.pixel[:row].sum(), chip]
        if charge >= 3000 and not masked:
            digis.append((int(MINI.module[row]), channel, min(round(charge / 150), 255)))
    return digis


def test_the_same_event_hits_where_the_sensors_truly_lie(many):
    """Crossings brought to space with the true alignment lie on one circle through d0, before much scattering."""
    placed = frames(FULL, truth(MIXED, FULL, SEED, RUN, LUMI)["alignment"])
    counts = ak.num(many.truth["Crossing_u"]).to_numpy()
    event = np.repeat(np.arange(len(EVENTS)), counts)
    hit = {name: flat(many.truth[f"Crossing_{name}"]) for name in ("particle", "module", "u", "v")}
    row = FULL.index(hit["module"])
    points = placed.to_global(row, hit["u"], hit["v"])
    first = np.cumsum(ak.num(many.truth["Particle_pt"]).to_numpy()) - ak.num(many.truth["Particle_pt"]).to_numpy()
    particle = first[event] + hit["particle"]
    track = {
        name: flat(many.truth[f"Particle_{name}"]).astype(float)[particle]
        for name in ("pt", "charge", "d0", "z0", "phi", "eta")
    }
    stiff = (track["pt"] > 20) & (FULL.layer[row] <= 4)
    rho = 0.00299792458 * 3.8038 * track["charge"] / track["pt"]
    x, y = points[:, 0], points[:, 1]
    off = (
        rho * (x**2 + y**2 + track["d0"] ** 2) / 2
        + track["d0"]
        - (1 + rho * track["d0"]) * (x * np.sin(track["phi"]) - y * np.cos(track["phi"]))
    )
    wide = points[:, 2] - track["z0"] - np.hypot(x, y) * np.sinh(track["eta"])
    assert stiff.sum() > 500
    # Highland: 0.1 mrad at 20 GeV over 14 cm.
    assert np.abs(off[stiff]).max() < 60e-4 and np.median(np.abs(off[stiff])) < 6e-4
    assert np.median(np.abs(wide[stiff])) < 10e-4


def test_raw_is_what_it_was():
    """Who changes what the same key gives raises `VERSION` in pipeline/experiments/ref10/simulation.py, and this."""
    scenario = Scenario(physics=Physics(pile_up=4.0, nzs=0.5))
    found = simulate(scenario, MINI, SEED, RUN, LUMI, np.arange(1, 13))
    digest = hashlib.sha256()
    for name in sorted(found.raw):
        digest.update(np.ascontiguousarray(ak.flatten(found.raw[name], axis=None)).tobytes())
    assert digest.hexdigest()[:16] == "c673ac133777bc6c"


def test_memory_is_bounded_by_the_block_not_by_the_events():
    def peak(scenario, events):
        tracemalloc.start()
        simulate(scenario, MINI, SEED, RUN, LUMI, np.arange(1, events + 1))
        _, found = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return found

    crowded = replace(BIAS, physics=Physics(pile_up=100.0, z=0, jpsi=0))
    assert block_size(crowded.physics) == 3
    for scenario in (BIAS, crowded):
        simulate(scenario, MINI, SEED, RUN, LUMI, EVENTS[:1])
    small, large = peak(BIAS, BLOCK), peak(BIAS, 3 * BLOCK)
    # The columns themselves stay.
    assert small < 30e6
    assert large < small + 2 * BLOCK * 20e3
    assert peak(crowded, 12) < 1.5 * small


def test_no_events_and_empty_events_are_no_fault():
    none = simulate(MIXED, FULL, SEED, RUN, LUMI, EVENTS[:0])
    assert {name: str(ak.type(ak.Array(values)).content) for name, values in none.raw.items()} == TYPES
    empty = replace(BIAS, physics=Physics(tracks=0.0, pile_up=0.0, z=0, jpsi=0, nzs=0))
    found = simulate(empty, MINI, SEED, RUN, LUMI, EVENTS[:20])
    assert ak.sum(ak.num(found.truth["Crossing_u"])) == 0 and ak.all(found.truth["digi_particle"] == -1)


@pytest.mark.parametrize(
    ("key", "events", "told"),
    [
        ((1, 0, 1), [1], "runs count from 1"),
        ((-1, 1, 1), [1], "a seed must lie"),
        ((1, 1, -1), [1], "run and lumisection"),
        ((1, 1, 1), [4, -2], r"must lie in 0 .. 2\^63 - 1, not -2"),
        ((1, 1, 1), np.array([4, 2**63], np.uint64), r"must lie in 0 .. 2\^63 - 1, not 9223372036854775808"),
    ],
)
def test_what_is_no_key_is_refused(key, events, told):
    with pytest.raises(ValueError, match=told):
        simulate(MIXED, MINI, *key, np.array(events))
