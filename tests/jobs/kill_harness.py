"""A driver that can be killed: `python -m tests.jobs.kill_harness FOLDER LEAVES [POINT:HIT]` runs the toy to its end.

Started again on the same folder it goes on. With POINT:HIT it kills itself when that probe is called for the HIT-th
time, once per folder.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil
from sqlalchemy import select

from jobs.cluster import open_cluster
from jobs.cluster_settings import ClusterSettings
from jobs.job import Job
from jobs.lease import drop_lease, take_lease
from jobs.ledger import Ledger
from jobs.reduction import Node, NodeReceipt
from jobs.runner import JobFailed, Runner
from jobs.sweep import sweep
from jobs.tables import nodes
from tests.jobs.ledgers import open_engine
from tests.jobs.record import Record
from tests.jobs.toy import Sum, first_time, make_job, numbers, read_log

REPOSITORY = Path(__file__).resolve().parents[2]
LEAF_S = 0.01


@dataclass
class Suicide:
    """A probe that kills this process at the HIT-th call with the name POINT."""

    folder: Path
    point: str
    hit: int
    calls: int = 0

    def __call__(self, point: str) -> None:
        self.calls += point == self.point
        if point == self.point and self.calls == self.hit and first_time(self.folder / f"killed-{self.point}"):
            os.kill(os.getpid(), signal.SIGKILL)


def the_job(leaves: int) -> Job:
    return make_job(leaves, name="killed")


def drive(folder: Path, leaves: int, point: str, hit: int) -> None:
    """One life of the driver."""
    engine = open_engine(folder / "ledger.sqlite")
    with engine.begin() as connection:
        epoch = take_lease(connection)
    settings = ClusterSettings(workers=2, memory="1 GB", tls=False, dashboard_port=0)
    with open_cluster(settings) as client:
        client.wait_for_workers(2)
        runner = Runner(client, engine.begin, epoch, probe=Suicide(folder, point, hit))
        print("ready", flush=True)
        runner.start(the_job(leaves), Sum(str(folder), LEAF_S), numbers)
        while runner.active:
            for event in runner.step():
                if isinstance(event, JobFailed):
                    raise SystemExit(event.reason)
        runner.close()
    with engine.begin() as connection:
        drop_lease(connection, epoch)


def start_driver(folder: Path, leaves: int, kill: str = ":0") -> subprocess.Popen[str]:
    """Start a driver and come back when its cluster is there."""
    command = [sys.executable, "-m", "tests.jobs.kill_harness", str(folder), str(leaves), kill]
    with (folder / "driver.log").open("a") as log:
        driver = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=log, text=True)
    assert driver.stdout is not None
    with driver.stdout as said:
        assert said.readline() == "ready\n", (folder / "driver.log").read_text()
    return driver


def finish(folder: Path, driver: subprocess.Popen[str], timeout: float = 120.0) -> None:
    """Wait for the driver to complete the job."""
    try:
        driver.wait(timeout)
    finally:
        driver.kill()
    assert driver.returncode == 0, (folder / "driver.log").read_text()


def kill_drivers(folder: Path, leaves: int, kills: int, seed: int) -> int:
    """Kill drivers at random moments, then let one finish; give how often one was killed before its end."""
    moments = random.Random(seed)
    hit = 0
    for _ in range(kills):
        driver = start_driver(folder, leaves)
        try:
            driver.wait(moments.uniform(0.0, 0.5))
        except subprocess.TimeoutExpired:
            driver.kill()
            driver.wait()
            hit += 1
    finish(folder, start_driver(folder, leaves))
    return hit


def kill_workers(folder: Path, leaves: int, kills: int, seed: int) -> int:
    """Kill workers of a running driver at random moments; give how many were killed before its end."""
    moments = random.Random(seed)
    driver = start_driver(folder, leaves)
    hit = 0
    while hit < kills and driver.poll() is None:
        time.sleep(moments.uniform(0.0, 0.6))
        workers = [child for child in psutil.Process(driver.pid).children() if _is_worker(child)]
        if workers:
            moments.choice(workers).kill()
            hit += 1
    finish(folder, driver)
    return hit


def _is_worker(process: psutil.Process) -> bool:
    try:
        return any("spawn_main" in word for word in process.cmdline())
    except psutil.NoSuchProcess:
        return False


def check(folder: Path, leaves: int) -> None:
    """The result is whole, every node is there once, and no leaf was begun again after its commit."""
    engine = open_engine(folder / "ledger.sqlite")
    job = the_job(leaves)
    with engine.begin() as connection:
        record = Record(connection)
        root = Ledger(connection, 0).root(job)
        assert root is not None
        assert Sum(str(folder)).load(root.state) == leaves * (leaves - 1) // 2
        assert record.asides(job.name) == []
        branches = dict(record.branches(job))
        values = [receipt.note["value"] for branch in branches.values() for receipt in branch.leaves]
        assert values == list(range(leaves))
        standing = record.standing(job)
        assert standing.leaves_committed == leaves
        assert standing.commits == sum(job.tree.width(level) for level in range(1, job.tree.depth + 1))
        assert standing.starts >= standing.commits
        times = dict(connection.execute(select(nodes.c.place, nodes.c.committed_at).where(nodes.c.level == 1)).all())
        _check_files(folder, branches, set(record.files(job.name)))
    engine.dispose()
    begun = [(index, at) for what, index, at, _ in read_log(folder) if what == "leaf"]
    assert set(Counter(index for index, _ in begun)) == set(range(leaves))
    late = [index for index, at in begun if at > times[job.tree.parent(Node("", 0, index)).index]]
    assert late == [], "committed leaves were begun again"


def _check_files(folder: Path, branches: dict[int, NodeReceipt], known: set[str]) -> None:
    for branch in branches.values():
        for receipt in branch.leaves:
            assert Path(receipt.files[0].path).read_text() == str(receipt.note["value"])
    outputs = {str(path) for path in [*folder.glob("leaf-*"), *folder.glob("state-*")]}
    swept = {str(path) for path in sweep(folder, known, grace_s=0, now=time.time() + 1)}
    assert known <= outputs
    assert outputs - known == swept & outputs


if __name__ == "__main__":
    _point, _, _hit = sys.argv[3].partition(":")
    drive(Path(sys.argv[1]), int(sys.argv[2]), _point, int(_hit))
