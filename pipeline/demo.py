"""The whole chain on simulated runs whose truth is known: what was put in, and what was found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from calib.iov import RunLumi
from calib.payload import Payload
from pipeline.experiments.registry import find_experiment
from pipeline.experiments.simulated import Demonstration, demonstration_of
from pipeline.tier0 import Tier0

BUNDLED = "ref10"


def demo_settings(demo: Demonstration, folder: Path) -> dict[str, Any]:
    """Settings as a file would hold them."""
    return {
        **demo.settings,
        "storage": {"area": str(folder / "area")},
        "cluster": {"kind": "local", "workers": 2},
    }


def demonstrate(folder: Path, say: Callable[[str], None], experiment: str = BUNDLED) -> int:
    """Simulate, take the runs through the chain, compare; gives the exit code of the run.

    Raises NotSimulated for an experiment without a demonstration.
    """
    demo = demonstration_of(find_experiment(experiment))
    data = folder / "data"
    say(f"{demo.title} (in {folder})")
    with Tier0(demo_settings(demo, folder)) as tier0:
        say(f"Dask dashboard: {tier0.dashboard}")
        files = tier0.simulate(data, demo.runs, demo.order)
        say(f"{len(files)} files of RAW are simulated")
        _bring_in(tier0, demo, data)
        summary = tier0.run(*files)
        say(summary.text())
        found = {run: _at_end(tier0, demo.kind, run) for run in demo.runs}
        say("")
        say(demo.compared(data, found))
        picture = folder / f"{demo.kind}.png"
        demo.drawn(data, found, picture)
    say(f"Drawn to {picture}. Look further: tier0 demo --help, tier0 --help")
    return summary.exit_code


def _bring_in(tier0: Tier0, demo: Demonstration, data: Path) -> None:
    """What is known before the first run."""
    for upload in demo.uploads:
        tier0.conditions.upload(upload.kind, data / upload.file, "0", upload.reason)


def _at_end(tier0: Tier0, kind: str, run: int) -> Payload:
    """The payload in force at the end of a run."""
    last = RunLumi.unpack(RunLumi(run + 1).packed - 1)
    return next(found.payload for found in tier0.conditions.intervals(kind) if found.iov.contains(last))
