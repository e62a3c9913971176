"""How long the handshake takes: from the last conditions future finished to the first prompt task running.

    python benchmarks/handshake.py                   50 runs, one after the other
    python benchmarks/handshake.py --small           only that it works

Every run is taken in alone, so slots are free; the gates judge its payload, which is published, the manifest completed
and the run settled in one transaction, before prompt is handed in. All times are what the workers reported to the
scheduler. The conditions future is the task that finalizes; the driver awaits the one that keeps its result, a task
later. From the end of either the same bounds hold to the start of the first prompt task.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distributed import SchedulerPlugin

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # workers get it from here, however this file was started

from pipeline.tier0 import Tier0  # noqa: E402
from tests.pipeline.tiny import settings, write_file  # noqa: E402

MEDIAN_S = 0.1
WORST_S = 0.5
GATES = (
    {"gate": "finite"},
    {"gate": "within", "array": "mean", "low": -100.0, "high": 100.0, "unit": "cm"},
    {"gate": "max_move", "array": "mean", "limit": 100.0, "unit": "cm"},
)


class TaskTimes(SchedulerPlugin):
    """Remembers when each task was computed, by its key: begin and end, seconds since 1970."""

    name = "task-times"

    def __init__(self) -> None:
        self.times: dict[Any, tuple[float, float]] = {}

    def transition(self, key: Any, start: str, finish: str, *_: Any, **told: Any) -> None:
        for part in told.get("startstops") or ():
            if finish == "memory" and part["action"] == "compute":
                self.times[key] = (part["start"], part["stop"])


def task_times(dask_scheduler: Any) -> dict[Any, tuple[float, float]]:
    """Run on the scheduler: what the plugin has seen."""
    return dict(dask_scheduler.plugins[TaskTimes.name].times)


@dataclass
class Figures:
    """Seconds, one for each run."""

    finalized: list[float] = field(default_factory=list)
    """from the end of finalize, the payload in the store"""
    awaited: list[float] = field(default_factory=list)
    """from the end of the task behind it, which the driver awaits"""

    @property
    def missed(self) -> list[str]:
        """The bounds that are missed, in words."""
        both = (("finalize", self.finalized), ("what is awaited", self.awaited))
        return [f"from the end of {what}" for what, seconds in both if _too_long(seconds)]


def _too_long(seconds: Sequence[float]) -> bool:
    return statistics.median(seconds) > MEDIAN_S or max(seconds) > WORST_S


def measure(runs: int) -> Figures:
    """Take so many small runs through the house, each alone."""
    figures = Figures()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Tier0(settings(folder / "area", gates={"offset": GATES})) as tier0:
            tier0.client.register_plugin(TaskTimes())
            for run in range(1, runs + 1):
                tier0.run(write_file(folder / f"{run}.root", run), progress=False)
            times = tier0.client.run_on_scheduler(task_times)
    for run in range(1, runs + 1):
        prompt = min(begin for begin, _ in _of(times, f"prompt-{run}"))
        for where, group in ((figures.finalized, "conditions-offset"), (figures.awaited, "merge-conditions-offset")):
            where.append(prompt - max(end for _, end in _of(times, f"{group}-{run}")))
    return figures


def _of(times: dict[Any, tuple[float, float]], group: str) -> list[tuple[float, float]]:
    return [found for key, found in times.items() if key[0] == group]


def report(figures: Figures) -> str:
    """The figures as a table."""
    rows = [
        ("from the end of finalize", figures.finalized),
        ("from the end of what is awaited", figures.awaited),
    ]
    lines = [f"{len(figures.finalized)} runs; to the first prompt task, s  median    90 %   worst"]
    for what, seconds in rows:
        lines.append(f"{what:<40}{_cells(seconds)}  median at most {MEDIAN_S:g}, worst {WORST_S:g}")
    return "\n".join(lines)


def _cells(seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    shown = (statistics.median(ordered), ordered[int(0.9 * (len(ordered) - 1))], ordered[-1])
    return "".join(f"{value:8.3f}" for value in shown)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--small", action="store_true", help="a few runs; nothing is judged")
    options = parser.parse_args()
    if options.small:
        options.runs = 3
    return options


def main() -> int:
    options = parsed()
    figures = measure(options.runs)
    print(report(figures))
    if options.small:
        return 0
    for what in figures.missed:
        print(f"MISSED: the handshake takes too long {what}")
    return int(bool(figures.missed))


if __name__ == "__main__":
    sys.exit(main())
