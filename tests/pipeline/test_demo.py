"""The demo finds what was put in."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.demo import demo_settings, demonstrate
from pipeline.experiments.ref10.demonstration import RUNS, Ref10Demonstration
from pipeline.experiments.simulated import NotSimulated
from pipeline.tier0 import Tier0


def test_put_in_and_found_agree(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["demo", "--folder", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "Dask dashboard: http://127.0.0.1" in done.output
    assert "pedestal: 3 fresh, 0 carried, 0 fallback" in done.output
    rows = [line.split("│")[1:-1] for line in done.output.splitlines() if re.match(r"│ 10[123] │ \d{5}", line)]
    assert [int(row[0]) for row in rows] == list(RUNS)
    for row in rows:
        put_in, found = float(row[2]), float(row[3])
        # 29 chips of 128 strips, each by the common mode of some 85 events: 2 ADC / sqrt(29 x 85) and the noise.
        assert found == pytest.approx(put_in, abs=0.2)
        mean, width = (float(word) for word in row[6].split(","))
        # The chips' common modes are shared by 128 strips: 0.45 sigma a chip, over 560 chips.
        assert abs(mean) < 0.1 and 0.97 < width < 1.06
    assert float(rows[0][2]) == 0 and float(rows[1][2]) > 3
    assert (tmp_path / "pedestal.png").stat().st_size > 10_000


DEMO_SECONDS = 120
"""on two cores; what is asked of the demonstration is a time, so here and nowhere else a time is the limit"""


def free_cores() -> float:
    """How many cores nothing runs on, over two seconds."""
    return (os.cpu_count() or 1) * (1 - psutil.cpu_percent(interval=2) / 100)


@pytest.mark.verify
@pytest.mark.timeout(1200)
def test_it_takes_two_minutes_and_little_when_called_again(tmp_path: Path) -> None:
    seconds, tables, files = [], [], []
    free = free_cores()
    for _ in range(2):
        said: list[str] = []
        begun = time.monotonic()
        assert demonstrate(tmp_path, said.append) == 0
        seconds.append(time.monotonic() - begun)
        tables.append([text for text in said if "pulls of pedestals" in text])
        files.append({path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.root")})
    assert files[0] and files[1] == files[0]
    assert len(tables[0]) == 1 and tables[1] == tables[0]
    assert seconds[1] < seconds[0] / 2
    if seconds[0] > DEMO_SECONDS and min(free, free_cores()) < 1.8:
        pytest.skip(f"took {seconds[0]:.0f} s, with less than two cores to itself")
    assert seconds[0] < DEMO_SECONDS


def test_a_wrong_constant_shows(tmp_path: Path) -> None:
    """The table compares: with the DAQ's tables for the found ones the jump is missed, and pulls are far off."""
    demo = Ref10Demonstration()
    data = tmp_path / "data"
    with Tier0(demo_settings(demo, tmp_path)) as tier0:
        order = type(demo.order)(seed=1, lumis=1, events=2, scenario=demo.order.scenario)
        tier0.simulate(data, RUNS, order, progress=False)
    from calib.algorithms.pedestal import nominal

    with np.load(data / "online_pedestal.npz") as tables:
        stale = nominal(len(tables["mean"]), tables["mean"], tables["noise"])
    arrays = dict(stale.arrays) | {f"{name}_error": np.full_like(stale["mean"], 0.5) for name in ("mean", "noise")}
    found = {run: type(stale)("pedestal", arrays, stale.units) for run in RUNS}
    row = next(line for line in demo.compared(data, found).splitlines() if line.startswith("│ 102"))
    cells = row.split("│")[1:-1]
    assert float(cells[2]) > 3 and float(cells[3]) == 0
    assert float(cells[6].split(",")[1]) > 1.5


def test_experiment_without_a_demonstration_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotSimulated, match="icecube_sndaq has no demonstration"):
        demonstrate(tmp_path, print, "icecube_sndaq")
