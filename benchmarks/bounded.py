"""What one more leaf costs the driver and the scheduler: memory, tasks held, CPU. Kernels do nothing.

    python -m benchmarks.bounded               100 000 leaves; ends with 1 when a bound is missed
    python -m benchmarks.bounded --leaves 10000

A leaf is a chunk of one lumisection with one event, and is entered in the accounts as `tier0 run` enters it. Scheduler
and workers are processes of their own, so that the memory of each can be told apart. The growth is the slope of a
line through the memory seen beyond the first tenth of the leaves.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dask.config
import numpy as np
import psutil
from distributed import Client, SchedulerPlugin

from calib.iov import RunLumi
from jobs.cluster_settings import ClusterSettings, dask_config
from jobs.job import Job, Lane
from jobs.lease import take_lease
from jobs.ledger import ledger_metadata
from jobs.reduction import FileRecord, Node, Receipt
from jobs.runner import JobDone, JobFailed, NodeCommitted, Runner
from jobs.window import Window
from pipeline import accounting, catalog
from pipeline.booking import book_branch, task_spec
from pipeline.database import Database, open_database
from pipeline.model import Chunk, FileIndex, Piece, Step
from pipeline.schema import catalog_metadata

FAN_IN = 16
WORKERS = 2
RUN = 190456
TIER = "EXPRESS"

MOST_LEAVES = 100_000
"""what the bounds are for: with fewer, caches and logs of fixed length are still filling"""
MOST_KB, MOST_WINDOWS, MOST_MS = 1.5, 3.0, 4.0
"""of memory and CPU a leaf; of tasks in the scheduler"""


class Nothing:
    """Leaves and states without content, and receipts like real ones."""

    def leaf(self, item: int, attempt: str) -> tuple[Receipt, int]:
        unit = RunLumi(RUN, item).packed
        path = f"/data/runs/{RUN}/express-0123456789ab/{TIER}/express-{RUN}-{item}.0.{attempt}.root"
        note = {
            "counts": [[unit, 1, 1, {}, 0]],
            "tiers": [{"tier": TIER, "file": 0, "events": 1}],
            "rows": {TIER: [[unit, 1, 0, 0]]},
            "setbacks": [],
            "unread": {},
        }
        return Receipt((FileRecord(path, 1_000_000, f"{item:064x}"),), note), 1

    def absent(self, item: int, reason: str) -> tuple[Receipt, int]:
        raise AssertionError(f"leaf {item} was set aside: {reason}")

    def merge(self, values: Sequence[int]) -> int:
        return sum(values)

    def store(self, value: int, node: Node, attempt: str) -> Receipt:
        return Receipt((), {"value": value})

    def load(self, receipt: Receipt) -> int:
        return int(receipt.note["value"])


class MostTasks(SchedulerPlugin):
    """Remembers the largest number of tasks the scheduler ever held."""

    name = "most-tasks"

    def __init__(self) -> None:
        self.most = 0

    def start(self, scheduler: Any) -> None:
        self.scheduler = scheduler

    def update_graph(self, scheduler: Any, **_: Any) -> None:
        self.most = max(self.most, len(scheduler.tasks))


def most_tasks(dask_scheduler: Any) -> int:
    """Run on the scheduler: what the plugin saw."""
    return int(dask_scheduler.plugins[MostTasks.name].most)


@dataclass
class Figures:
    """What was seen."""

    leaves: int
    samples: list[tuple[int, float, float]] = field(default_factory=list)
    """leaves committed, memory of driver and of scheduler in bytes"""
    tasks: int = 0
    window: int = 0
    cpu_s: tuple[float, float] = (0.0, 0.0)
    """driver, scheduler"""
    wall_s: float = 0.0

    def slopes(self) -> tuple[float, float]:
        """Bytes a leaf, of the driver and of the scheduler."""
        late = np.array([sample for sample in self.samples if sample[0] >= self.leaves / 10])
        driver, scheduler = (float(np.polyfit(late[:, 0], late[:, column], 1)[0]) for column in (1, 2))
        return driver, scheduler

    @property
    def cpu_ms(self) -> float:
        """CPU of driver and scheduler, ms a leaf."""
        return 1e3 * sum(self.cpu_s) / self.leaves


@contextmanager
def opened(folder: Path, leaves: int) -> Iterator[tuple[Database, Job]]:
    """The database of a Tier-0 with one run of so many lumisections, and the job over its chunks."""
    database = open_database(folder / "tier0.db")
    database.create(ledger_metadata, catalog_metadata)
    pieces = tuple(Piece("/data/raw.root", i, i + 1, RunLumi(RUN, i).packed) for i in range(leaves))
    with database.begin() as connection:
        catalog.register_file(connection, FileIndex("/data/raw.root", leaves, "0" * 64, pieces, (), leaves), 0.0)
        catalog.save_layout(connection, RUN, "layout", (Chunk(RUN, i, (piece,)) for i, piece in enumerate(pieces)))
    spec = task_spec(RUN, Step.EXPRESS, "layout")
    yield database, Job("bounded", f"express-{RUN}", Lane.PROMPT, leaves, FAN_IN, spec)
    database.close()


@contextmanager
def processes(folder: Path) -> Iterator[tuple[Client, psutil.Process]]:
    """A scheduler and workers, set as `jobs.cluster` sets them; gives a client and the scheduler's process."""
    settings = {**dask_config(ClusterSettings(workers=WORKERS)), "distributed.admin.system-monitor.gil.enabled": False}
    environment = {**os.environ, "DASK_INTERNAL_INHERIT_CONFIG": dask.config.serialize(settings)}
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
    where = ["--scheduler-file", str(folder / "scheduler.json")]
    loopback = ["--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0"]
    command = {
        "scheduler": ["scheduler", *where, *loopback, "--port", "0"],
        "worker": ["worker", *where, *loopback, "--nworkers", str(WORKERS), "--nthreads", "1"],
    }
    with ExitStack() as stack:
        started = {}
        for name, words in command.items():
            log = stack.enter_context((folder / f"{name}.log").open("w"))
            line = [sys.executable, "-m", "dask", *words]
            started[name] = subprocess.Popen(line, env=environment, stdout=log, stderr=log, cwd=folder)
            stack.callback(_end, started[name])
            while name == "scheduler" and not (folder / "scheduler.json").exists():
                time.sleep(0.05)
        client = stack.enter_context(Client(scheduler_file=str(folder / "scheduler.json"), set_as_default=False))
        client.wait_for_workers(WORKERS, timeout=60)
        yield client, psutil.Process(started["scheduler"].pid)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()


def measure(leaves: int, samples: int = 50) -> Figures:
    """Run a job of so many leaves and watch."""
    figures = Figures(leaves, window=Window(WORKERS).size(Lane.PROMPT, FAN_IN))
    with tempfile.TemporaryDirectory() as name, opened(Path(name), leaves) as house, processes(Path(name)) as found:
        (database, job), (client, scheduler) = house, found
        client.register_plugin(MostTasks())
        with database.begin() as connection:
            epoch = take_lease(connection)
        runner = Runner(client, database.begin, epoch, lambda *what: book_branch(*what, time.time()))
        watched = [psutil.Process(), scheduler]
        before, begun, committed = [_cpu(process) for process in watched], time.monotonic(), 0
        runner.start(job, Nothing(), lambda page: page)
        while runner.active:
            for told in runner.step():
                if isinstance(told, NodeCommitted) and told.node.level == 1:
                    committed += len(told.receipt.leaves)
                assert not isinstance(told, JobFailed), told
                assert not isinstance(told, JobDone) or told.root.state.note["value"] == leaves
            if committed >= len(figures.samples) * leaves / samples:
                memory = [float(process.memory_info().rss) for process in watched]
                figures.samples.append((committed, memory[0], memory[1]))
        figures.wall_s = time.monotonic() - begun
        after = [_cpu(process) for process in watched]
        figures.cpu_s = (after[0] - before[0], after[1] - before[1])
        figures.tasks = client.run_on_scheduler(most_tasks)
        with database.read() as connection:
            accounting.check_complete(connection, RUN, job.name)
    return figures


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def missed(figures: Figures) -> list[str]:
    """The bounds that these figures do not keep, in words."""
    found = {
        f"{sum(figures.slopes()) * 1e-3:.3f} kB of memory a leaf, at most {MOST_KB:g}": sum(figures.slopes())
        > MOST_KB * 1e3,
        f"{figures.tasks} tasks in the scheduler, at most {MOST_WINDOWS:g} windows of {figures.window}": figures.tasks
        > MOST_WINDOWS * figures.window,
        f"{figures.cpu_ms:.2f} ms of CPU a leaf, at most {MOST_MS:g}": figures.cpu_ms > MOST_MS,
    }
    return [words for words, wrong in found.items() if wrong]


def report(figures: Figures) -> str:
    """The figures as a table."""
    driver, scheduler = figures.slopes()
    first, last = figures.samples[0], figures.samples[-1]
    kilo = 1e-3
    rows = [
        ("memory of the driver, kB a leaf", f"{driver * kilo:.3f}", ""),
        ("memory of the scheduler, kB a leaf", f"{scheduler * kilo:.3f}", ""),
        ("memory of both, kB a leaf", f"{(driver + scheduler) * kilo:.3f}", f"at most {MOST_KB:g}"),
        ("driver, MB at start and end", f"{first[1] * 1e-6:.0f}, {last[1] * 1e-6:.0f}", ""),
        ("scheduler, MB at start and end", f"{first[2] * 1e-6:.0f}, {last[2] * 1e-6:.0f}", ""),
        ("most tasks in the scheduler, windows", f"{figures.tasks / figures.window:.2f}", f"at most {MOST_WINDOWS:g}"),
        ("CPU of driver and scheduler, ms a leaf", f"{figures.cpu_ms:.2f}", f"at most {MOST_MS:g}"),
        ("of it the driver, ms a leaf", f"{1e3 * figures.cpu_s[0] / figures.leaves:.2f}", ""),
        ("wall time, ms a leaf", f"{1e3 * figures.wall_s / figures.leaves:.2f}", ""),
    ]
    head = f"{figures.leaves} leaves, {FAN_IN} to a branch, window of {figures.window} leaves, {WORKERS} workers"
    return "\n".join([head, *(f"{what:<42}{value:>12}  {goal}" for what, value, goal in rows)])


def judge(figures: Figures) -> int:
    """The exit code: 1 when a bound is missed, which is said. With fewer leaves than the bounds are for, none is."""
    wrong = missed(figures) if figures.leaves >= MOST_LEAVES else []
    for words in wrong:
        print(f"missed: {words}", file=sys.stderr)
    return 1 if wrong else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--leaves", type=int, default=MOST_LEAVES)
    figures = measure(parser.parse_args().leaves)
    print(report(figures))
    return judge(figures)


if __name__ == "__main__":
    sys.exit(main())
