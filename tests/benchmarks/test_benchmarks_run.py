"""Every benchmark runs and prints its table; at this size nothing is judged, so a busy machine fails none."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks._kernel_ways import Fit
from benchmarks._kernels import FITS, KERNELS
from benchmarks._kernels_alignment import alignment, places_of_ladders
from calib.algorithms.alignment import Alignment
from calib.algorithms.alignment_equations import Totals

ROOT = Path(__file__).resolve().parents[2]
PATHS = sorted((ROOT / "benchmarks").glob("[a-z]*.py"))
HELP = """
import contextlib, io, json, runpy, sys
found, paths, here = {}, sys.argv[1:], sys.path[1:]
for path in paths:
    sys.argv, sys.path = [path, "--help"], list(here)
    with contextlib.redirect_stdout(io.StringIO()) as told:
        try:
            runpy.run_path(path, run_name="__main__")
        except SystemExit as end:
            found[path] = end.code, told.getvalue()
print(json.dumps(found))
"""


def run(name: str, *words: str) -> str:
    command = [sys.executable, str(ROOT / "benchmarks" / name), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def helps() -> dict[str, Any]:
    """How each benchmark asked for help ends, and what it prints: in one process, which reads libraries once."""
    done = subprocess.run([sys.executable, "-c", HELP, *map(str, PATHS)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_it_says_how_to_call_it(helps: dict[str, Any], path: Path) -> None:
    code, told = helps[str(path)]
    assert code == 0 and f"usage: {path.name}" in told


@pytest.mark.verify
def test_throughput() -> None:
    told = run("throughput.py", "--small").splitlines()
    assert told[-3].startswith("start-up")
    assert {"bare", "chain", "ratio", "CPU"} <= set(told[-2].split())
    assert told[-1].split()[:2] == ["0.02", "s"]


def test_handshake() -> None:
    told = run("handshake.py", "--small").splitlines()
    assert told[-3].startswith("3 runs")
    assert [line.split("  ")[0] for line in told[-2:]] == [
        "from the end of finalize",
        "from the end of what is awaited",
    ]


def test_conditions() -> None:
    told = run("conditions.py", "--small").splitlines()
    assert told[0].startswith("sqlite: 16000 intervals in 21 tags")
    assert [line.split("  ")[0] for line in told[2:6]] == [
        "look-ups uncached, kHz",
        "look-ups cached, asked for the first time, kHz",
        "look-ups cached, kHz",
        "a run of 4000 lumisections, 20 kinds, ms",
    ]


def test_iov_rules() -> None:
    told = run("iov_rules.py", "--small").splitlines()
    assert told[1].split() == ["rule", *(word for error in (1, 3, 8, 14) for word in (str(error), "um", "a", "unit"))]
    rules = {"running_mean": 0, "one by one": 0, "cms": 0, "cms, fabs": 0}
    for line in told[2:30]:
        rules[line[12:26].strip()] += 1
    assert set(rules.values()) == {7}
    assert told[2].split()[3] == "100.0"
    assert told[30] == "of the physics note" and len(told) == 32 + 29


def test_kernel_speed() -> None:
    told = run("kernel_speed.py", "--small")
    lines = told.splitlines()
    assert {"copy", "add"} <= set(lines[0].split())
    for kernel, line in zip(KERNELS, lines[2:], strict=False):
        name, size, _, share = line.split()[:4]
        assert (name, share[-1]) == (kernel, "%") and float(size) >= 0
    assert told.count("iminuit") == 4
    assert {"strip_status", "pedestal", "beamspot"} <= set(told.replace(",", " ").split())
    assert lines[-1].split()[0] == "all"


@pytest.mark.parametrize("fit", [*FITS[:2], places_of_ladders], ids=lambda fit: fit.__name__)
def test_libraries_find_what_kernels_do(fit: Callable[[bool], Fit]) -> None:
    both = fit(True)
    assert both.library is not None
    values, errors = both.ours()
    np.testing.assert_array_less(np.abs(values - both.library()), 0.3 * errors)


def test_other_ways_sum_up_an_alignment_as_its_kernel_does() -> None:
    drawn = alignment(True)
    calibration = drawn.calibration
    assert isinstance(calibration, Alignment)
    structures, under = calibration.structures, calibration.structures.values(drawn.conditions["alignment"])
    state = calibration.accumulate(drawn.columns, drawn.conditions)
    system = Totals.of(state, structures, 1).system(structures, under, structures.is_free)
    expected = drawn.obvious()
    np.testing.assert_allclose(drawn.library(), expected, atol=1e-12 * np.abs(expected).max())
    # The kernel rounds its factors.
    np.testing.assert_allclose(system.matrix, expected[:, :-1], atol=1e-4 * np.abs(expected[:, :-1]).max())
    np.testing.assert_allclose(system.right, expected[:, -1], atol=1e-4 * np.abs(expected[:, -1]).max())


def test_pedestal() -> None:
    told = run("pedestal.py", "--small").splitlines()
    assert told[1].split()[-4:] == ["sort", "alone", "of", "bare"]
    assert told[2].split()[:2] == ["2", "30720"]
    assert told[3] == "state of 15360 channels"
    # A few events of it, then these eightfold, then sixty-four times those.
    assert [line.split()[0] for line in told[5:]] == ["2", "16", "1024"]
