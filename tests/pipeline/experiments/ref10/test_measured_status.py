"""What the status of channels is made of, against loops; and what is found of a detector with faults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from calib.algorithms.occupancy_status import Status
from calib.form import misfits
from calib.payload import Payload
from pipeline.experiments.ref10 import alignment, constants
from pipeline.experiments.ref10.constants import ROCS, roc_of
from pipeline.experiments.ref10.geometry import GEOMETRIES, geometry_of
from pipeline.experiments.ref10.layers import CHIP, STRIPS
from pipeline.experiments.ref10.measured_status import WIDEST, status_calibrations, status_columns
from pipeline.experiments.ref10.reconstruct.stages import FromRaw, reconstruct
from pipeline.experiments.ref10.simulate.events import simulate
from pipeline.experiments.ref10.simulate.faults import Faults, When
from pipeline.experiments.ref10.simulate.scenario import DEAD, HOT, Physics, Scenario, truth
from tests.pipeline.experiments.ref10.reconstruct.raw import (
    MINI,
    PLAN,
    Event,
    pixel,
    pixel_module,
    plain,
    raw_columns,
    strip_module,
)

RUN, SEED, EVENTS, CHUNK = 7, 3, 1500, 500
SCENARIO = Scenario(
    physics=Physics(pile_up=3.0, z=0.0, jpsi=0.0),
    faults=Faults(dead_strips=0.002, hot_strips=0.004, hot_factor=60.0, dead_rocs=2, dead_roc=When()),
)


def status(**masked: list[int]) -> dict[str, Payload]:
    """The plain detector, with some strips and chips masked."""
    strips, chips = np.zeros(len(PLAN.strip_rows) * STRIPS, np.int8), np.zeros(int(PLAN.pixel.sum()) * ROCS, np.int8)
    strips[masked.get("strips", [])] = Status.HOT
    chips[masked.get("chips", [])] = Status.DEAD_GROUP
    return plain(
        strip_status=constants.strip_status(strips), pixel_status=constants.pixel_status(chips.reshape(-1, ROCS))
    )


def of(seen: FromRaw, conditions: Mapping[str, Payload]) -> dict[str, Any]:
    return status_columns(seen.clusters, seen.masked, conditions)


def found(events: list[Event], conditions: Mapping[str, Payload]) -> tuple[list[list[int]], list[list[int]]]:
    columns = raw_columns(events)
    made = of(reconstruct(columns, conditions), conditions)
    strips, chips = (made[name].to_list() for name in ("strip_hit", "roc_hit"))
    return strips, chips


STRONG, WEAK = 160, 112


class TestByHand:
    def test_strips_of_clusters_and_masked_ones_that_would_seed(self) -> None:
        module = strip_module(2)
        digis = [(module, strip, STRONG) for strip in (10, 11, 13, 40)] + [(module, 41, WEAK), (module, 60, WEAK)]
        events = [Event.of([]), Event.of(digis), Event.of([(strip_module(0), 5, STRONG)])]
        first = 2 * STRIPS
        assert found(events, status())[0] == [[], [first + strip for strip in (10, 11, 13, 40, 41)], [5]]
        # A cluster reaches over strip 12, which is masked and was not hit; 40 and 41 are masked, one is too weak.
        masked = status(strips=[first + strip for strip in (12, 40, 41, 60)])
        strips, _ = found(events, masked)
        assert [sorted(of) for of in strips] == [[], [first + strip for strip in (10, 11, 13, 40)], [5]]

    def test_what_grazes_a_sensor_does_not_count(self) -> None:
        wide = [(strip_module(1), strip, STRONG) for strip in range(WIDEST + 1)]
        events = [Event.of(wide), Event.of(wide[1:])]
        assert [len(of) for of in found(events, status())[0]] == [0, WIDEST]

    def test_chips_of_clusters_and_masked_ones_that_send_anything(self) -> None:
        module, other = pixel_module(1), pixel_module(3)
        digis = [(module, pixel(row, 3), 100) for row in (78, 79, 80, 81, 82)] + [(other, pixel(2, 60), 200)]
        chips = [ROCS + int(roc_of(np.array(80), np.array(3))), 3 * ROCS + 1]
        assert found([Event.of(digis), Event.of([])], status())[1] == [chips, []]
        # Of a masked chip there is no cluster, and each of its pixels tells that it is alive, once.
        masked = status(chips=[*chips, ROCS])
        assert found([Event.of(digis), Event.of([])], masked)[1] == [sorted([ROCS, *chips]), []]

    def test_damaged_events_have_no_say(self) -> None:
        torn = Event([strip_module(0)] * 2, [5, 6], [STRONG])
        foreign = Event.of(
            [(1 << 25, 3, STRONG), (strip_module(0), STRIPS, STRONG), (pixel_module(0), pixel(999, 1), 99)]
        )
        masked = status(strips=list(range(STRIPS)), chips=list(range(ROCS)))
        assert found([torn, foreign], masked) == ([[], []], [[], []])


def naive(raw: Mapping[str, Any], clusters: Any, conditions: Mapping[str, Payload]) -> tuple[list[Any], list[Any]]:
    """Event by event, cluster by cluster, digi by digi."""
    strips, chips = conditions["strip_status"]["status"], conditions["pixel_status"]["status"].reshape(-1)
    mean, noise = conditions["pedestal"]["mean"], conditions["pedestal"]["noise"]
    place = {int(PLAN.module[row]): i for i, row in enumerate(np.flatnonzero(PLAN.pixel))}
    block = {int(PLAN.module[row]): i for i, row in enumerate(PLAN.strip_rows)}
    hit: tuple[list[Any], list[Any]] = ([], [])
    start = 0
    for event, count in enumerate(clusters.counts.tolist()):
        seen: tuple[list[int], set[int]] = ([], set())
        middles = []
        for i in range(start, start + count):
            one = {name: values[i] for name, values in clusters.flat.items()}
            if int(one["module"]) in block and one["size_u"] <= WIDEST:
                first = block[int(one["module"])] * STRIPS + int(one["first_row"])
                seen[0].extend(c for c in range(first, first + int(one["size_u"])) if not strips[c])
            elif int(one["module"]) in place:
                row, column = round(float(one["row"])), round(float(one["column"]))
                middles.append(place[int(one["module"])] * ROCS + row // 80 * 9 + column // 52)
        start += count
        digis = zip(*(raw[f"digi_{name}"][event].to_list() for name in ("module", "chan", "adc")), strict=True)
        for module, chan, adc in digis:
            if module in block:
                c = block[module] * STRIPS + chan
                if strips[c] and adc - mean[c] > 5 * noise[c]:
                    seen[0].append(c)
            else:
                chip = place[module] * ROCS + (chan & 0xFFFF) // 80 * 9 + (chan >> 16) // 52
                if chips[chip]:
                    seen[1].add(chip)
        hit[0].append(sorted(seen[0]))
        hit[1].append(sorted([*middles, *seen[1]]))
    return hit


def test_agrees_with_loops_over_simulated_events() -> None:
    raw = dict(simulate(replace(SCENARIO, physics=Physics(nzs=0.2)), PLAN, SEED, RUN, 1, np.arange(40)).raw)
    rng = np.random.default_rng(1)
    strips, chips = len(PLAN.strip_rows) * STRIPS, int(PLAN.pixel.sum()) * ROCS
    conditions = status(
        strips=np.flatnonzero(rng.random(strips) < 0.2).tolist(), chips=np.flatnonzero(rng.random(chips) < 0.2).tolist()
    )
    seen = reconstruct(raw, conditions)
    made = of(seen, conditions)
    wanted = naive(raw, seen.clusters, conditions)
    for name, expected in zip(("strip_hit", "roc_hit"), wanted, strict=True):
        assert [sorted(of) for of in made[name].to_list()] == expected
        assert sum(len(of) for of in expected) > 100


@pytest.fixture(scope="module")
def runs() -> list[tuple[dict[str, Payload], dict[str, Payload]]]:
    """What is found in two runs, the second under what was found in the first; and what is true."""
    geometry = geometry_of(MINI)
    design = {**constants.design(geometry), "geometry": MINI, "alignment": alignment.no_displacement(geometry)}
    conditions = design | {"pedestal": truth(SCENARIO, geometry, SEED, RUN, 1)["pedestal"]}
    outcome = []
    for run in (RUN, RUN + 1):
        calibrations = status_calibrations(geometry)
        states = [calibration.empty() for calibration in calibrations]
        for start in range(0, EVENTS, CHUNK):
            raw = dict(simulate(SCENARIO, geometry, SEED, run, 1, np.arange(start, start + CHUNK)).raw)
            columns = raw | of(reconstruct(raw, conditions), conditions)
            states = [c.merge(s, c.accumulate(columns, conditions)) for c, s in zip(calibrations, states, strict=True)]
        payloads = {c.kind: c.finalize(s, conditions[c.kind]) for c, s in zip(calibrations, states, strict=True)}
        conditions = conditions | payloads
        outcome.append((payloads, truth(SCENARIO, geometry, SEED, run, 1)))
    return outcome


class TestOfASimulatedRun:
    def test_hot_strips_are_found_and_stay_found_when_masked(self, runs: Any) -> None:
        for payloads, true in runs:
            hot = true["strip_status"]["status"] == HOT
            flagged = (payloads["strip_status"]["status"] & Status.HOT) != 0
            assert flagged[hot].mean() > 0.85
            assert (flagged & ~hot).sum() <= 1

    def test_dead_chips_and_no_others_are_found(self, runs: Any) -> None:
        for payloads, true in runs:
            dead = (true["strip_status"]["status"] == DEAD).reshape(-1, CHIP).all(axis=1)
            flagged = (payloads["strip_status"]["status"] & (Status.DEAD_GROUP | Status.NOISY_GROUP)).reshape(-1, CHIP)
            assert np.flatnonzero(flagged.any(axis=1)).tolist() == np.flatnonzero(dead).tolist()

    def test_dead_chips_of_pixels_are_found_where_there_are_hits_enough_and_no_others(self, runs: Any) -> None:
        for payloads, true in runs:
            payload, dead = payloads["pixel_status"], true["pixel_status"]["status"] == DEAD
            expected = (payload["group_expected"] * payload["events"]).reshape(-1, ROCS)
            assert (payload["status"][dead & (expected > 30)] & Status.DEAD_GROUP).all()
            assert (expected[dead] > 30).any()
            assert not payload["status"][~dead].any()

    def test_they_have_the_form_of_the_design(self, runs: Any) -> None:
        geometry = geometry_of(MINI)
        for calibration in status_calibrations(geometry):
            payload = runs[0][0][calibration.kind]
            assert misfits(payload, constants.design(geometry)[calibration.kind], calibration.leeway) == ()


@pytest.mark.parametrize("name", sorted(GEOMETRIES))
def test_of_every_geometry_each_chip_has_kin(name: str) -> None:
    geometry = geometry_of(GEOMETRIES[name]())
    strips, chips = status_calibrations(geometry)
    kin = strips._kin().reshape(-1, 6)
    rows = geometry.strip_rows
    place = np.stack([geometry.layer[rows], geometry.z_module[rows]])
    for number in np.unique(kin):
        alike = place[:, (kin == number).any(axis=1)]
        assert (alike == alike[:, :1]).all()
    pixels = np.flatnonzero(geometry.pixel)
    there = (chips._kin() >= 0).reshape(-1, ROCS)
    assert (there.sum(axis=1) == 9 * -(-geometry.rows[pixels] // 80)).all()
