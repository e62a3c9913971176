"""What one more leaf costs the driver and the scheduler: memory, tasks held, CPU. Kernels do nothing.

    python -m benchmarks.bounded               100 000 leaves
    python -m benchmarks.bounded --leaves 10000

Scheduler and workers are processes of their own, so that the memory of each can be told apart. The growth is the
slope of a line through the memory seen beyond the first tenth of the leaves.
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
from sqlalchemy import Connection, Engine, create_engine, event

from jobs.cluster_settings import ClusterSettings, dask_config
from jobs.job import Job, Lane
from jobs.lease import take_lease
from jobs.ledger import ledger_metadata
from jobs.reduction import FileRecord, Node, Receipt
from jobs.runner import JobDone, NodeCommitted, Runner
from jobs.window import Window

FAN_IN = 16
WORKERS = 2


class Nothing:
    """Leaves and states without content, and receipts of the size of real ones."""

    def leaf(self, item: int, attempt: str) -> tuple[Receipt, int]:
        record = FileRecord(f"/data/express/run-190456/leaf-{item}-{attempt}.root", 1_000_000, f"{item:064x}")
        return Receipt((record,), {"events": 1, "run": 190456, "lumi": item}), 1

    def absent(self, item: int, reason: str) -> tuple[Receipt, int]:
        return Receipt((), {"absent": reason}), 0

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
def ledger(folder: Path) -> Iterator[Engine]:
    """A SQLite database set as the pipeline sets it."""
    engine = create_engine(f"sqlite:///{folder / 'ledger.sqlite'}")

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _: Any) -> None:
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    ledger_metadata.create_all(engine)
    yield engine
    engine.dispose()


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
    job = Job("bounded", "prompt-1", Lane.PROMPT, leaves, FAN_IN)
    with tempfile.TemporaryDirectory() as name, ledger(Path(name)) as engine, processes(Path(name)) as found:
        client, scheduler = found
        client.register_plugin(MostTasks())
        with engine.begin() as connection:
            epoch = take_lease(connection)
        runner = Runner(client, engine.begin, epoch)
        watched = [psutil.Process(), scheduler]
        before, begun, committed = [_cpu(process) for process in watched], time.monotonic(), 0
        runner.start(job, Nothing(), lambda page: page)
        while runner.active:
            for told in runner.step():
                if isinstance(told, NodeCommitted) and told.node.level == 1:
                    committed += len(told.receipt.leaves)
                assert not isinstance(told, JobDone) or told.root.state.note["value"] == leaves
            if committed >= len(figures.samples) * leaves / samples:
                memory = [float(process.memory_info().rss) for process in watched]
                figures.samples.append((committed, memory[0], memory[1]))
        figures.wall_s = time.monotonic() - begun
        after = [_cpu(process) for process in watched]
        figures.cpu_s = (after[0] - before[0], after[1] - before[1])
        figures.tasks = client.run_on_scheduler(most_tasks)
    return figures


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def report(figures: Figures) -> str:
    """The figures as a table."""
    driver, scheduler = figures.slopes()
    first, last = figures.samples[0], figures.samples[-1]
    kilo = 1e-3
    rows = [
        ("memory of the driver, kB a leaf", f"{driver * kilo:.3f}", ""),
        ("memory of the scheduler, kB a leaf", f"{scheduler * kilo:.3f}", ""),
        ("memory of both, kB a leaf", f"{(driver + scheduler) * kilo:.3f}", "at most 1.5"),
        ("driver, MB at start and end", f"{first[1] * 1e-6:.0f}, {last[1] * 1e-6:.0f}", ""),
        ("scheduler, MB at start and end", f"{first[2] * 1e-6:.0f}, {last[2] * 1e-6:.0f}", ""),
        ("most tasks in the scheduler, windows", f"{figures.tasks / figures.window:.2f}", "at most 3"),
        ("CPU of driver and scheduler, ms a leaf", f"{figures.cpu_ms:.2f}", "at most 4"),
        ("of it the driver, ms a leaf", f"{1e3 * figures.cpu_s[0] / figures.leaves:.2f}", ""),
        ("wall time, ms a leaf", f"{1e3 * figures.wall_s / figures.leaves:.2f}", ""),
    ]
    head = f"{figures.leaves} leaves, {FAN_IN} to a branch, window of {figures.window} leaves, {WORKERS} workers"
    return "\n".join([head, *(f"{what:<42}{value:>12}  {goal}" for what, value, goal in rows)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--leaves", type=int, default=100_000)
    print(report(measure(parser.parse_args().leaves)))


if __name__ == "__main__":
    main()
