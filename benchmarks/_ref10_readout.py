"""What wrong conditions of single channels and sensors do to clusters: predicted beside seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import awkward as ak
import numpy as np
from scipy.special import ndtr

from benchmarks._ref10_beliefs import equal_gains, lorentz_as_designed
from benchmarks._ref10_claims import Damage
from benchmarks._ref10_damaged import TRUE
from benchmarks._ref10_formulas import UM
from benchmarks._ref10_played import Change, Floats, Sample, Table, as_it_is, clusters_of, joined, mean
from pipeline.experiments.ref10.constants import DESIGN_TANGENTS, GAIN
from pipeline.experiments.ref10.layers import CHIP, CHIPS, LAYERS, STRIPS
from pipeline.experiments.ref10.running import Status
from pipeline.experiments.ref10.simulate.events import Simulated
from pipeline.experiments.ref10.simulate.faults import Faults, When
from pipeline.experiments.ref10.simulate.scenario import Physics, Scenario, online
from pipeline.experiments.ref10.simulate.spells import Spell

LORENTZ, GAINS = "Lorentz angle 0.36 for 0.40", "gains taken as equal"
PEDESTALS = {1.0: "pedestals +1 sigma", 0.05: "pedestals +1 sigma in 5 %"}
NOISE_SEEDS = {1.0: 45.0, 0.05: 2.7}
"""clusters of noise an event; physics note, 11"""
SEED, SHIFTED = 5.0, 4.0
"""sigma of the cut, and what is left of it"""


def lonely(made: Simulated, sample: Sample, change: Change) -> Table:
    """Crossings alone in their module of an event, with the one sound cluster there under changed conditions."""
    geometry = sample.detector
    clusters = clusters_of(made.raw, change(sample.truth))
    module, u = (np.asarray(ak.flatten(made.truth[f"Crossing_{name}"])) for name in ("module", "u"))
    event = np.repeat(np.arange(len(clusters.counts)), np.asarray(ak.num(made.truth["Crossing_u"])))
    single = []
    for of, which in ((event, module), (clusters.event, clusters.flat["module"])):
        keys, first, number = np.unique(of * len(geometry) + geometry.rows_of(which), True, return_counts=True)
        single.append((keys[number == 1], first[number == 1]))
    key, one, other = np.intersect1d(single[0][0], single[1][0], assume_unique=True, return_indices=True)
    found = {name: clusters.flat[name][single[1][1][other]] for name in ("u", "charge", "flags")}
    table = {f"cluster_{name}": values for name, values in found.items()}
    table |= {"u": u[single[0][1][one]], "row": key % len(geometry), "key": key}
    sound = table["cluster_flags"] == 0
    return {name: values[sound] for name, values in table.items()}


def errors_of(sample: Sample) -> list[Floats]:
    """Errors across of the clusters of each layer [cm], of the first events."""
    clusters = clusters_of(sample.made(sample.chunks()[0][:40]).raw, sample.truth)
    geometry = sample.detector
    layer = geometry.layer[geometry.rows_of(clusters.flat["module"])]
    return [clusters["u_error"][layer == one.number] for one in LAYERS]


def read_out(sample: Sample) -> list[Damage]:
    """Lorentz angle and gains, of tracks in minimum bias."""
    beliefs: Mapping[str, Change] = {TRUE: as_it_is, LORENTZ: lorentz_as_designed, GAINS: equal_gains}
    parts: dict[str, list[Table]] = {name: [] for name in beliefs}
    for numbers in sample.chunks():
        made = sample.made(numbers)
        for name, change in beliefs.items():
            found = lonely(made, sample, change)
            offset = int(numbers[0]) << 32
            parts[name].append({**found, "key": found["key"] + offset})
    tables = {name: joined(some) for name, some in parts.items()}
    return [*lorentz_off(sample, tables), *gains_off(sample, tables[TRUE], tables[GAINS])]


def lorentz_off(sample: Sample, tables: Mapping[str, Table]) -> list[Damage]:
    """By how much clusters of pixels are off round the barrel, on ladders that face outwards less those that do not."""
    geometry = sample.detector
    shift = LAYERS[0].thickness / 2 / UM * (sample.scenario.by_layer[0] - DESIGN_TANGENTS[0])
    found = []
    for name, note, formula in ((TRUE, None, 0.0), (LORENTZ, 11.0, 2 * float(shift))):
        table = tables[name]
        pixel = geometry.pixel[table["row"]]
        flipped = geometry.flipped[table["row"]][pixel]
        off = (table["cluster_u"] - table["u"])[pixel] / UM * np.where(flipped, -1, 1)
        (outward, error), (inward, other) = (mean(off[flipped == turned]) for turned in (False, True))
        seen = outward - inward, float(np.hypot(error, other))
        found.append(Damage(name, "pixels outward less inward ladders", "um", seen, note, formula, 0.1, 1.0))
    return found


def gains_off(sample: Sample, real: Table, wrong: Table) -> list[Damage]:
    """The spread over chips of the charge that is found beside the true one."""
    geometry = sample.detector
    _, one, other = np.intersect1d(real["key"], wrong["key"], return_indices=True)
    row, line = real["row"][one], real["cluster_u"][one] / geometry.pitch_u[real["row"][one]] + STRIPS / 2
    strip = ~geometry.pixel[row]
    chip = (geometry.strip_block[row] * CHIPS + np.clip(line, 0, STRIPS - 1).astype(np.int64) // CHIP)[strip]
    ratio = (wrong["cluster_charge"][other] / real["cluster_charge"][one])[strip]
    number = np.bincount(chip)
    seen = np.bincount(chip, ratio)[number > 0] / number[number > 0]
    true = 1 / sample.truth[GAIN]["gain"][np.flatnonzero(number)]
    spread = 100 * float(seen.std()), 100 * float(seen.std() / np.sqrt(2 * len(seen)))
    return [Damage(GAINS, "rms of charge over chips", "%", spread, 10.0, 100 * float(true.std()), 0.1)]


def noisy(share: float) -> Scenario:
    """Nothing collides and no strip is hot; pedestals of this share of the chips are off those of the DAQ."""
    faults = Faults(hot_strips=0.0, pedestal_shift_chips=share)
    physics = Physics(pile_up=0.0, z=0.0, jpsi=0.0, nzs=0.0)
    return Scenario(physics=physics, faults=faults, spells=(Spell(When(), off=(Status.STABLE_BEAMS,)),))


def pedestals_off(sample: Sample, share: float) -> list[Damage]:
    """Clusters of noise, where pedestals are off and where they are known; in events without collisions."""
    sample = replace(sample, scenario=noisy(share))
    strips = len(sample.detector.strip_rows) * STRIPS
    believed = online(sample.scenario, sample.detector, sample.seed)
    beliefs: dict[str, Change] = {
        PEDESTALS[share]: lambda real: {**real, believed.kind: believed},
        TRUE: as_it_is,
    }
    number = dict.fromkeys(beliefs, 0)
    for numbers in sample.chunks():
        made = sample.made(numbers)
        for name, change in beliefs.items():
            number[name] += int(clusters_of(made.raw, change(sample.truth)).counts.sum())
    off, known = (strips * float(ndtr(-cut)) for cut in (SHIFTED, SEED))
    expected = {PEDESTALS[share]: share * off + (1 - share) * known, TRUE: known}
    notes = {PEDESTALS[share]: NOISE_SEEDS[share], TRUE: 0.41}
    found = []
    for name, counted in number.items():
        seen = counted / sample.events, float(np.sqrt(counted + 1)) / sample.events
        figure = "clusters of noise an event" + (f", {PEDESTALS[share]} known" if name == TRUE else "")
        found.append(Damage(name, figure, "", seen, notes[name], expected[name], 0.3))
    return found
