"""Everything wrong with REF10 at once: the benchmark works through a run, and judges what it should."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks._ref10_claims import Limits
from benchmarks.ref10_everything import AFTER, BEFORE, FACTORS, TRUE, ratios, shifted
from tests.benchmarks.test_benchmarks_run import run


@pytest.mark.timeout(600)
@pytest.mark.verify
def test_everything_wrong_runs() -> None:
    told = run("ref10_everything.py", "--small", "--seed", "7").splitlines()
    assert told[0] == "seed 7"
    named = [line.split(", conditions")[0].strip() for line in told if ", conditions true" in line]
    assert named == ["sigma d0, 20 GeV", "sigma of the mass, Z", "Z that are found", "hits of noise an event"]
    assert told[-1].endswith("nothing is judged")


def missed(before: float, after: float, true: float) -> list[str]:
    seen = {BEFORE: (before, 0.1), AFTER: (after, 0.1), TRUE: (true, 0.1)}
    return [one.name.strip() for one in ratios("sigma", "um", seen, 3.0) if isinstance(one, Limits) and one.missed]


def test_what_is_judged() -> None:
    assert missed(31.0, 10.9, 10.0) == []
    assert missed(29.0, 10.9, 10.0) == ["before over true"]
    assert missed(31.0, 11.1, 10.0) == ["found over true"]
    assert missed(np.nan, np.nan, 10.0) == ["before over true", "found over true"]


def test_factors_are_those_of_the_note() -> None:
    for name, factor in {"d0": 3.81, "Z": 1.57, "noise": 6.59}.items():
        assert FACTORS[name] == pytest.approx(factor, abs=0.01)


def test_a_shift_of_everything_is_no_error() -> None:
    rng = np.random.default_rng(1)
    phi, own = rng.uniform(-np.pi, np.pi, 2000), rng.normal(0, 10e-4, 2000)
    moved = own + 12e-4 * np.sin(phi) + 7e-4 * np.cos(phi)
    off, shift = shifted({"d0": moved, "true_d0": np.zeros(2000), "true_phi": phi})
    assert shift == pytest.approx([12e-4, -7e-4], abs=2e-4)
    assert np.std(off) == pytest.approx(np.std(own), rel=0.01)
    # What is no shift stays.
    off, _ = shifted({"d0": own + 12e-4 * np.sin(2 * phi), "true_d0": np.zeros(2000), "true_phi": phi})
    assert np.std(off) > 1.2 * np.std(own)
