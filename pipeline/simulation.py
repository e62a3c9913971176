"""Simulated runs, made on the cluster like everything else: each lumisection once, over restarts and kills."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from calib.iov import RunLumi
from jobs.job import Job, Lane
from jobs.ledger import Ledger
from jobs.reduction import FileRecord, Node, Receipt
from jobs.runner import JobDone, JobFailed, NodeCommitted, Runner
from pipeline.experiments.simulated import Probe, Simulation
from pipeline.lineage import lineage
from pipeline.processing import nothing
from pipeline.products import READING
from pipeline.site import SiteStopped
from pipeline.way import News, Stage
from pipeline.whole import write_whole
from pipeline.world import World

FAN_IN = 8
RECORD = "record"


class SimulationFailed(RuntimeError):
    """Some lumisections could not be made; the message says why. Call it again once that is mended."""


@dataclass(frozen=True)
class SimulateWork:
    """The lumisections of one run (`jobs.reduction.Work`); what goes up the tree are their records."""

    simulation: Simulation
    folder: str
    states: str
    probe: Probe = field(default=nothing)

    def leaf(self, item: RunLumi, attempt: str) -> tuple[Receipt, dict[int, Any]]:
        """Write one lumisection; done a second time, the same content goes under the same names."""
        written = self.simulation.write(item, Path(self.folder), self.probe)
        note = {"events": [record.path for record in written.events]}
        return Receipt((*written.events, *written.others), note), {item.lumi: written.record}

    def absent(self, item: RunLumi, reason: str) -> tuple[Receipt, dict[int, Any]]:
        """A lumisection that cannot be made stops its run."""
        raise SimulationFailed(f"{item}: {reason}")

    def merge(self, values: Sequence[dict[int, Any]]) -> dict[int, Any]:
        """The records of all."""
        return {lumi: record for value in values for lumi, record in value.items()}

    def store(self, value: dict[int, Any], node: Node, attempt: str) -> Receipt:
        """Keep the records as JSON."""
        path = Path(self.states) / f"{node.level}-{node.index}.{attempt}.json"
        size, checksum = write_whole(path, json.dumps(value).encode(), self.probe)
        return Receipt((FileRecord(str(path), size, checksum),))

    def load(self, receipt: Receipt) -> dict[int, Any]:
        """Read them back."""
        found: Mapping[str, Any] = json.loads(Path(receipt.files[0].path).read_text())
        return {int(lumi): record for lumi, record in found.items()}


@dataclass(frozen=True)
class _Run:
    run: int
    job: Job
    work: SimulateWork


def simulate(
    world: World,
    runner: Runner,
    simulation: Simulation,
    runs: Iterable[int],
    folder: Path,
    listen: Callable[[News], None],
) -> list[Path]:
    """Make runs; gives the event files of all, in order. What is made and still there is not made again.

    Raises SimulationFailed, and SiteStopped when nothing can be written.
    """
    simulation.begin(folder, world.probe)
    found = [_prepared(world, simulation, run, folder) for run in runs]
    for one in found:
        runner.start(one.job, one.work, partial(_lumisections, one.run))
    by_name = {one.job.name: one for one in found}
    done = dict.fromkeys(by_name, 0)
    while by_name:
        for event in runner.step():
            if isinstance(event, NodeCommitted):
                _tell(event, done, listen)
            elif isinstance(event, JobFailed):
                raise _failure(event)
            else:
                _end(by_name.pop(event.job.name), event, folder, listen)
    return [path for one in found for path in event_files(world, one.job)]


def _lumisections(run: int, leaves: range) -> list[RunLumi]:
    return [RunLumi(run, leaf + 1) for leaf in leaves]


def _prepared(world: World, simulation: Simulation, run: int, folder: Path) -> _Run:
    """The job of a run; another one where files of an earlier one are gone."""
    again = 0
    while True:
        name = lineage(simulate=simulation.depends_on(), run=run, folder=str(folder), again=again)
        job = Job(name, f"simulate-{run}", Lane.BULK, simulation.order.lumis, FAN_IN)
        if all(path.exists() for path in event_files(world, job)):
            break
        again += 1
    return _Run(run, job, SimulateWork(simulation, str(folder), f"{world.area}/simulated/{name[:12]}", world.probe))


def event_files(world: World, job: Job) -> list[Path]:
    """The event files that the committed lumisections of a job have, in order."""
    with world.database.read() as connection:
        receipts = Ledger(connection, READING).committed(job.name, 1, range(job.tree.width(1)))
    leaves = (leaf for _, receipt in sorted(receipts.items()) for leaf in receipt.leaves)
    return [Path(path) for leaf in leaves for path in leaf.note["events"]]


def _tell(event: NodeCommitted, done: dict[str, int], listen: Callable[[News], None]) -> None:
    if event.node.level == 1:
        done[event.job.name] += len(event.receipt.leaves)
        run = int(event.job.group.rpartition("-")[2])
        listen(News(run, Stage.SIMULATION, done[event.job.name], event.job.leaves))


def _failure(event: JobFailed) -> Exception:
    if event.stop:
        return SiteStopped(event.reason)
    return SimulationFailed(f"{event.job.group}: {event.reason}")


def _end(one: _Run, event: JobDone, folder: Path, listen: Callable[[News], None]) -> None:
    records = one.work.load(event.root.state)
    one.work.simulation.end_run(one.run, folder, [records[lumi] for lumi in sorted(records)], one.work.probe)
    listen(News(one.run, Stage.CERTIFIED))
