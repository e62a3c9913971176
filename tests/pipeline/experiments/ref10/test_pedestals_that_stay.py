"""Pedestals of REF10 that did not move are not published, and no pass is made under them; a chip that jumped is.

Of 72 192 strips of the mini detector, 50 samples a run, as an express stream of 20 000 events leaves them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from calib.algorithms.pedestal import Pedestal, nominal
from calib.calibration import Calibration
from calib.gates import Decision, gate_from_settings, judge
from calib.iov import RunLumi
from calib.jagged import jagged_of
from calib.payload import Payload
from pipeline.experiments.ref10 import daq
from pipeline.experiments.ref10.calibrated import PEDESTAL_GATES, calibrations
from pipeline.experiments.ref10.experiment import Ref10
from pipeline.experiments.ref10.geometry import GEOMETRIES, geometry_of
from pipeline.experiments.ref10.layers import CHIP, STRIPS
from pipeline.experiments.ref10.measured_status import StripStatus
from pipeline.experiments.ref10.simulate.events import simulate
from pipeline.experiments.ref10.simulate.scenario import Scenario, online
from pipeline.model import Stream
from pipeline.processing import nothing
from pipeline.tier0 import Tier0

Floats = NDArray[np.float64]

MINI = geometry_of(GEOMETRIES["mini"]())
MODULES, SAMPLES = len(MINI.strip_rows), 50
CHANNELS = MODULES * STRIPS
NOISE, COMMON_MODE = 4.0, 2.0
GATES = [gate_from_settings(table) for table in PEDESTAL_GATES]
[PEDESTALS] = [c for c in calibrations(MINI) if isinstance(c, Pedestal)]
TRUE = np.round(np.random.default_rng(0).normal(100.0, 10.0, CHANNELS), 2)
TABLES = nominal(CHANNELS, TRUE, NOISE)


def measured(seed: int, mean: Floats, in_force: Payload, noise: Floats | float = NOISE) -> Payload:
    """What a run makes of such strips."""
    rng = np.random.default_rng(seed)
    noise = np.broadcast_to(noise, CHANNELS)
    adc = np.empty((SAMPLES, CHANNELS), np.uint16)
    for event in adc:
        common = np.repeat(rng.normal(0.0, COMMON_MODE, CHANNELS // CHIP), CHIP)
        event[:] = np.rint(np.clip(mean + common + noise * rng.standard_normal(CHANNELS), 0, 1023))
    events = np.ones(SAMPLES, np.int64)
    columns = {
        "run": 7 * events,
        "lumi": events,
        "event": np.arange(SAMPLES),
        "pedestal_block": jagged_of(np.tile(np.arange(MODULES, dtype=np.uint32), SAMPLES), MODULES * events),
        "pedestal_adc": jagged_of(adc.reshape(-1), CHANNELS * events),
    }
    return PEDESTALS.finalize(PEDESTALS.accumulate(columns, {"pedestal": in_force}), in_force)


@cache
def first() -> Payload:
    """Of the first run."""
    return measured(1, TRUE, TABLES)


def verdict(payload: Payload, in_force: Payload) -> tuple[Decision, list[str]]:
    """With it what was above its limit."""
    found = judge(payload, in_force, GATES)
    return found.decision, [measure.what for measure in found.measures if measure.value > measure.limit]


@pytest.mark.parametrize("in_force", [lambda: TABLES, first], ids=["of the DAQ", "of the run before"])
def test_what_did_not_move_is_no_change(in_force: Callable[[], Payload]) -> None:
    assert verdict(measured(2, TRUE, in_force()), in_force()) == (Decision.NO_CHANGE, [])


def with_chip(values: Floats | float, change: Callable[[Floats], Floats], chips: int = 1) -> Floats:
    """Values by strip, changed for the strips of some chips."""
    found = np.broadcast_to(values, CHANNELS).astype(np.float64)
    some = slice(9 * CHIP, (9 + chips) * CHIP)
    found[some] = change(found[some])
    return found


@pytest.mark.parametrize(
    ("mean", "noise", "why"),
    [
        (with_chip(TRUE, lambda mean: mean + NOISE), NOISE, "largest share of 128 mean together moved"),
        (TRUE, with_chip(NOISE, lambda noise: 2 * noise), "largest share of 128 noise together moved"),
        (TRUE, with_chip(NOISE, lambda noise: 0 * noise), "largest share of 128 status together moved"),
        (TRUE + np.random.default_rng(3).normal(0.0, 0.6, CHANNELS), NOISE, "share of mean moved"),
        (TRUE + 0.5, NOISE, "mean move of mean"),
    ],
    ids=["a chip jumped", "a chip is noisy", "a chip is dead", "all drifted", "all moved together"],
)
def test_what_moved_is_published(mean: Floats, noise: Floats | float, why: str) -> None:
    decision, reasons = verdict(measured(2, mean, first(), noise), first())
    assert decision is Decision.PUBLISH
    assert why in reasons


def test_some_strips_that_moved_alone_are_published() -> None:
    alone = np.zeros(CHANNELS)
    alone[:: CHANNELS // 4] = 7.0
    decision, reasons = verdict(measured(2, TRUE + alone, first()), first())
    assert (decision, reasons) == (Decision.PUBLISH, ["share of mean moved"])


RUNS, EVENTS = (7, 8), 320
SCENARIO = {
    "first_run": RUNS[0],
    "physics": {"nzs": 1.0, "pile_up": 0.0, "tracks": 3.0, "z": 0.0, "jpsi": 0.0},
    # With the second run those of one chip in twenty jump.
    "faults": {"dead_chips": 0, "shifted": {"since": str(RUNS[1])}},
}


class Short(Ref10):
    """With one calibration after pedestals."""

    def calibrations(self) -> tuple[Calibration, ...]:
        return tuple(c for c in super().calibrations() if isinstance(c, Pedestal | StripStatus))


@pytest.fixture
def data(tmp_path: Path) -> tuple[Path, Sequence[Path]]:
    """The tables of the DAQ, and what it wrote."""
    scenario, tables, paths = Scenario.from_json(json.dumps(SCENARIO)), tmp_path / daq.TABLES, []
    daq.write_tables(tables, online(scenario, MINI, 5), nothing)
    for run in RUNS:
        made = simulate(scenario, MINI, 5, run, 1, np.arange(EVENTS)).raw
        for stream in Stream:
            paths.append(daq.raw_path(tmp_path, stream, RunLumi(run, 1)))
            daq.write_raw(paths[-1], made, daq.Format.TTREE, nothing)
    return tables, paths


@pytest.mark.verify
def test_no_pass_is_made_under_pedestals_that_stayed(house: Any, data: tuple[Path, Sequence[Path]]) -> None:
    own, (tables, files) = {"geometry": "mini"}, data
    sections = {
        "experiment": {"name": "ref10", "settings": own},
        "splitting": {"events": EVENTS},
        "calibration": {"pedestal": {"min_entries": 12}},
    }
    with Tier0(house(**sections), Short(own)) as tier0:
        tier0.conditions.upload("pedestal", tables, "0", "the DAQ's")
        summary = tier0.run(*files, progress=False)
        stayed, jumped = (summary[run].conditions["pedestal"] for run in RUNS)
        assert (stayed, jumped) == ({"carried": 1}, {"fresh": 1})
        said = [tier0.why(run) for run in RUNS]
    assert "mean moved, a share of 0.01 would count, or one of 0.25 in 128 together" in said[0]
    assert "pass for" not in said[0]
    assert f"run {RUNS[1]}: pass for strip_status reads RAW" in said[1]
