"""The demo finds what was put in."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from calib.iov import RunLumi
from pipeline.cli import main
from pipeline.demo import demo_settings, jump_found
from pipeline.experiments.toy_generator import Truth
from pipeline.tier0 import Tier0


def test_put_in_and_found_agree(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["demo", "--folder", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "Dask dashboard: http://127.0.0.1" in done.output
    rows = [line.split("│") for line in done.output.splitlines() if line.startswith("│ [")]
    pulls = [float(row[cell]) for row in rows for cell in (5, 8)]
    assert len(rows) >= 4 and max(map(abs, pulls)) < 5
    assert (tmp_path / "beamspot.png").stat().st_size > 10_000
    truth = Truth.read(tmp_path / "data")
    intervals = Tier0(demo_settings(tmp_path)).conditions.intervals("beamspot")
    assert truth.step_at == RunLumi(102, 7)
    found = jump_found(truth, intervals)
    assert found is not None and abs(found.packed - truth.step_at.packed) <= 1
