"""Pedestals and noise that hardly drift: what was before counts as much as it is known better."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from calib.algorithms.pedestal import Pedestal, Status, nominal
from calib.algorithms.pedestal_estimates import FAR, FAR_NOISE, with_before
from calib.calibration import Columns
from calib.payload import Payload

CHANNELS, NOISE = 256, 4.0
FREE = Pedestal(channels=CHANNELS, block=128, min_entries=20)
STEADY = replace(FREE, steady=0.2, steady_noise=0.01)


def columns(true: np.ndarray, samples: int, seed: int) -> Columns:
    """So many samples of each channel."""
    rng = np.random.default_rng(seed)
    events = np.arange(samples)
    adc = np.rint(rng.normal(true, NOISE, (samples, CHANNELS))).astype(np.uint16)
    of_event = np.full(samples, 7)
    blocks = np.tile(np.arange(CHANNELS // 128), (samples, 1))
    return {"run": of_event, "lumi": of_event, "event": events, "pedestal_block": blocks, "pedestal_adc": adc}


def found(calibration: Pedestal, true: np.ndarray, previous: Payload, samples: int = 50, seed: int = 3) -> Payload:
    state = calibration.accumulate(columns(true, samples, seed), {"pedestal": previous})
    return calibration.finalize(state, previous)


TRUE = 100.0 + 0.2 * np.random.default_rng(1).standard_normal(CHANNELS)
BEFORE = nominal(CHANNELS, 100.03, NOISE)


def test_it_is_what_a_loop_over_channels_makes() -> None:
    free, steady = (found(each, TRUE, BEFORE) for each in (FREE, STEADY))
    drifts = {"mean": np.full(CHANNELS, 0.2), "noise": 0.01 * BEFORE["noise"]}
    for name, drift in drifts.items():
        for channel in range(CHANNELS):
            value, error = (float(free[each][channel]) for each in (name, f"{name}_error"))
            old, known = float(BEFORE[name][channel]), float(drift[channel])
            far = FAR
            if name == "noise":
                far, error = FAR_NOISE, error * old / value
            if abs(value - old) <= far * np.hypot(error, known):
                weights = error**-2.0, known**-2.0
                value = (weights[0] * value + weights[1] * old) / sum(weights)
                error = sum(weights) ** -0.5
            assert float(steady[name][channel]) == pytest.approx(value, rel=1e-5)
            assert float(steady[f"{name}_error"][channel]) == pytest.approx(error, rel=1e-5)


def test_values_are_nearer_and_errors_say_so() -> None:
    free, steady = (found(each, TRUE, BEFORE) for each in (FREE, STEADY))
    assert np.std(steady["mean"] - TRUE) < 0.5 * np.std(free["mean"] - TRUE)
    assert np.std(steady["noise"] - NOISE) < 0.2 * np.std(free["noise"] - NOISE)
    # 256 channels: a width is good to 4.4 %.
    assert np.std((steady["mean"] - TRUE) / steady["mean_error"]) == pytest.approx(1.0, abs=0.18)


def test_what_moved_is_where_it_was_measured() -> None:
    moved = TRUE + np.where(np.arange(CHANNELS) < 128, NOISE, 0.0)
    free, steady = (found(each, moved, BEFORE) for each in (FREE, STEADY))
    far = np.abs(free["mean"] - 100.03) > FAR * np.hypot(free["mean_error"], 0.2)
    assert far[:128].mean() > 0.97
    assert (steady["mean"][far] == free["mean"][far]).all()
    assert (steady["mean"][~far] != free["mean"][~far]).all()


def test_noise_that_fluctuates_low_is_not_taken_for_less_noise() -> None:
    """Of ten times as many channels with few samples none goes by these alone, though many are three errors off."""
    many = Pedestal(channels=10 * CHANNELS, block=128, min_entries=20)
    steady, before = replace(many, steady_noise=0.01), nominal(10 * CHANNELS, 100.03, NOISE)
    rng = np.random.default_rng(6)
    adc = np.rint(rng.normal(100.0, NOISE, (50, 10 * CHANNELS))).astype(np.uint16)
    blocks, events = np.tile(np.arange(10 * CHANNELS // 128), (50, 1)), np.arange(50)
    run = np.full(50, 7)
    some = {"run": run, "lumi": run, "event": events, "pedestal_block": blocks, "pedestal_adc": adc}
    free, held = (each.finalize(each.accumulate(some, {"pedestal": before}), before) for each in (many, steady))
    low = NOISE - free["noise"] > 3 * free["noise_error"]
    assert low.sum() > 5
    assert np.abs(held["noise"] / NOISE - 1).max() < 0.02


def test_what_had_something_the_matter_has_no_say() -> None:
    flagged = np.zeros(CHANNELS, np.int8)
    flagged[:5] = Status.MOVED
    before = Payload(BEFORE.kind, {**BEFORE.arrays, "status": flagged}, BEFORE.units)
    free, steady = (found(each, TRUE, before) for each in (FREE, STEADY))
    assert (free["mean"] == steady["mean"]).tolist() == (flagged != 0).tolist()


def test_by_itself_it_has_none() -> None:
    assert FREE.steady == FREE.steady_noise == 0.0
    other = nominal(CHANNELS, 100.4, NOISE)
    one, two = (found(FREE, TRUE, previous) for previous in (BEFORE, other))
    assert np.abs(one["mean"] - two["mean"]).max() < 1e-3


def test_a_filter_of_many_runs_is_as_good_as_its_error() -> None:
    """Run after run from the payload before: drifts as told, and pulls of width 1."""
    rng, true, payload = np.random.default_rng(8), np.full(CHANNELS, 100.0), BEFORE
    for run in range(6):
        true = true + 0.2 * rng.standard_normal(CHANNELS)
        payload = found(STEADY, true, payload, seed=run)
    pulls = (payload["mean"] - true) / payload["mean_error"]
    assert np.std(pulls) == pytest.approx(1.0, abs=0.2)
    assert payload["mean_error"].mean() < 0.4


def test_values_without_errors_stay_as_they_are() -> None:
    same = np.ones(2), np.zeros(2)
    value, error = with_before(same, same, 0.0, FAR)
    assert value.tolist() == [1.0, 1.0]
    assert error.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("table", [{"steady": -0.1}, {"steady_noise": -1.0}])
def test_drifts_are_not_negative(table: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="not negative"):
        replace(FREE, **table)
