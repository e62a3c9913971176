"""The whole chain on generated collisions whose beam spot is known: what was put in, and what was found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from calib.iov import RunLumi
from pipeline.experiments.toy_generator import TRUTH_FILE, Truth, generate
from pipeline.plots import Interval
from pipeline.tables import as_text
from pipeline.tier0 import Tier0

CM_TO_UM = 1e4


def demo_settings(folder: Path) -> dict[str, Any]:
    """Settings as a file would hold them."""
    return {
        "experiment": {"name": "toy_collider"},
        "storage": {"area": str(folder / "area")},
        "cluster": {"kind": "local", "workers": 2},
        "express": {"fraction": "1/2"},
        "splitting": {"events": 1200},
        "calibration": {"beamspot": {"granularity": "lumi"}},
    }


def demonstrate(folder: Path, say: Callable[[str], None]) -> int:
    """Generate three runs, take them through the chain, compare; gives the exit code of the run."""
    say(f"Three runs of collisions, the beam drifting, with a jump in the second (in {folder})")
    truth = _truth(folder / "data")
    with Tier0(demo_settings(folder)) as tier0:
        say(f"Dask dashboard: {tier0.dashboard}")
        summary = tier0.run(*truth.files)
        say(summary.text())
        intervals = tier0.conditions.intervals("beamspot")
        say("")
        say(compared(truth, [interval for interval in intervals if interval.iov.since.run]))
        picture = tier0.conditions.plot("beamspot", "x", "y", path=folder / "beamspot.png")
    say(f"Drawn to {picture}. Look further: tier0 demo --help, tier0 --help")
    return summary.exit_code


def _truth(data: Path) -> Truth:
    """The collisions of an earlier call, where they are whole, so that a second one can show what it need not do."""
    if (data / TRUTH_FILE).exists():
        truth = Truth.read(data)
        if all(Path(file).exists() for file in truth.files):
            return truth
    return generate(data)


def compared(truth: Truth, intervals: list[Interval]) -> str:
    """A table of what was put in and what was found, interval by interval, in micrometres."""
    rows = []
    for interval in intervals:
        inside = [beam for at, beam in truth.beams.items() if interval.iov.contains(at)]
        payload = interval.payload
        row = [str(interval.iov), len(inside)]
        for axis in ("x", "y"):
            put_in = CM_TO_UM * float(np.mean([getattr(beam, axis) for beam in inside]))
            found = CM_TO_UM * float(payload[axis].reshape(()))
            error = CM_TO_UM * float(payload[f"{axis}_error"].reshape(()))
            row += [f"{put_in:.1f}", f"{found:.1f} +- {error:.1f}", f"{(found - put_in) / error:+.1f}"]
        rows.append(row)
    heads = ["interval", "units", "x put in [um]", "x found [um]", "pull", "y put in [um]", "y found [um]", "pull"]
    jump = f"; the jump was put in at {truth.step_at}" if truth.step_at else ""
    return as_text(heads, rows, f"beam spot, put in (mean over the interval) and found{jump}")


def jump_found(truth: Truth, intervals: list[Interval]) -> RunLumi | None:
    """The beginning of the interval that lies nearest to the jump."""
    if truth.step_at is None or not intervals:
        return None
    step = truth.step_at.packed
    return min((interval.iov.since for interval in intervals), key=lambda since: abs(since.packed - step))
