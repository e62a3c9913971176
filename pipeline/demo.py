"""The whole chain on simulated runs whose truth is known: what was put in, and what was found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.experiments.registry import find_experiment
from pipeline.experiments.simulated import Comparison, Demonstration, Found, demonstration_of
from pipeline.tier0 import Tier0

BUNDLED = "ref10"
PICTURE = "put_in_and_found.png"
DISAGREE = 3
"""exit code where what was found is not what was put in; as of a run that is not good"""


def demo_settings(demo: Demonstration, folder: Path) -> dict[str, Any]:
    """Settings as a file would hold them."""
    return {
        **demo.settings,
        "storage": {"area": str(folder / "area")},
        "cluster": {"kind": "local", "workers": 2},
    }


def demonstrate(folder: Path, say: Callable[[str], None], experiment: str = BUNDLED) -> int:
    """The demonstration of an experiment, as `play`. Raises NotSimulated for one without."""
    return play(demonstration_of(find_experiment(experiment)), folder, say)


def play(demo: Demonstration, folder: Path, say: Callable[[str], None]) -> int:
    """Simulate, take the runs through the chain, compare; gives the exit code of the run, or DISAGREE."""
    data = folder / "data"
    say(f"{demo.title} (in {folder})")
    with Tier0(demo_settings(demo, folder)) as tier0:
        say(f"Dask dashboard: {tier0.dashboard}")
        files = tier0.simulate(data, demo.runs, demo.order)
        say(f"{len(files)} files of RAW are simulated")
        for upload in demo.uploads(data):
            fates = tier0.conditions.upload(upload.kind, upload.file, upload.since, upload.reason)
            say(f"{upload.kind} uploaded, {upload.reason}: {fates}")
        summary = tier0.run(*files)
        say(summary.text())
        if summary.unfinished:
            say("Not every run has come to its end: nothing is compared")
            return summary.exit_code
        comparison = demo.compared(data, _found(tier0, demo))
    return tell(comparison, folder / PICTURE, say) or summary.exit_code


def tell(comparison: Comparison, picture: Path, say: Callable[[str], None]) -> int:
    """Say and draw what was put in and found; gives 0, or DISAGREE."""
    say("")
    say(comparison.text)
    comparison.draw(picture)
    say(f"Drawn to {picture}. Look further: tier0 demo --help, tier0 --help")
    for words in comparison.wrong:
        say(f"Not as it was put in: {words}")
    return DISAGREE if comparison.wrong else 0


def _found(tier0: Tier0, demo: Demonstration) -> Found:
    conditions = {kind: [(one.iov, one.payload) for one in tier0.conditions.intervals(kind)] for kind in demo.kinds}
    return Found(conditions, {run: tier0.results.files(run, demo.tier) for run in demo.runs})
