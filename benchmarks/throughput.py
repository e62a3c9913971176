"""What the chain costs beside a bare loop: the same kernels, outputs, allocator and number of processes, no Dask.

    python benchmarks/throughput.py                chunks of 0.5 s and 2 s, 120 a process: a quarter of an hour
    python benchmarks/throughput.py --seconds 0.5 --chunks 40
    python benchmarks/throughput.py --small        only that it works

Both ways do the chunks of one express pass: read, unfold, cluster, write a tier, accumulate and fill histograms. The
chain is the runner with ledger, catalogue and accounts; the bare loop is two processes that take the next chunk and
add up. They take turns, and every round gives a ratio; the median counts. The wall time of the chain is all that a
running Tier-0 needs, from handing in the job to its committed root; start-up is told apart. Rounds are many and short:
a machine that others use too changes its pace within minutes (the column `pace` has the slowest pass of the bare loop
over the fastest), and only passes close in time can be compared. There the ratio of CPU time, of all processes, says
more, too.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import dask.config
import numpy as np
import psutil
from distributed import Client, LocalCluster

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # workers get it from here, however this file was started

from benchmarks._detector import RUN, Detector, write_raw  # noqa: E402
from calib.state import unpack_states  # noqa: E402
from jobs.cluster import ClusterSettings, dask_config, open_cluster  # noqa: E402
from jobs.cluster_settings import ONE_THREAD, worker_environment  # noqa: E402
from jobs.inspection import verify  # noqa: E402
from jobs.job import Job  # noqa: E402
from jobs.ledger import take_lease  # noqa: E402
from jobs.reduction import Node  # noqa: E402
from jobs.runner import JobDone, Runner  # noqa: E402
from pipeline.booking import book_branch  # noqa: E402
from pipeline.express import express_job, express_products  # noqa: E402
from pipeline.ingest import ingest  # noqa: E402
from pipeline.model import Chunk  # noqa: E402
from pipeline.preparation import prepare  # noqa: E402
from pipeline.processing import ChunkWork, States  # noqa: E402
from pipeline.settings import settings_from  # noqa: E402
from pipeline.warm import WarmWorkers, warm_up  # noqa: E402
from pipeline.world import World, open_world, set_up  # noqa: E402

PROCESSES = 2
UNITS = 5
"""lumisections of a chunk"""
GOALS = {0.5: 1.15, 2.0: 1.05}
"""seconds of a chunk, and how much longer the chain may take"""
START_UP_S = 10.0
CLUSTER = ClusterSettings(workers=PROCESSES, dashboard_port=0)
DASK_DEFAULT = {"MALLOC_TRIM_THRESHOLD_": "65536", **ONE_THREAD}
"""the allocator as Dask's nanny sets it by itself"""

START_UP = """
import json, sys, time
from benchmarks._detector import Detector
from pipeline.tier0 import Tier0
with Tier0(json.loads(sys.argv[1]), Detector()) as tier0:
    print(tier0.client.submit(time.time).result())
"""


@dataclass(frozen=True)
class Field:
    """One pass over one run, which both ways do."""

    world: World
    job: Job
    work: ChunkWork
    chunks: Sequence[Chunk]


class Spent(NamedTuple):
    """Seconds of a pass; of CPU, in all processes."""

    wall: float
    cpu: float


@dataclass
class Case:
    """What was measured at one size of chunks, over equal passes."""

    wanted_s: float
    chunks: int
    """of one pass"""
    events: int
    """of one chunk"""
    rounds: list[tuple[Spent, Spent]] = field(default_factory=list)
    """bare, chain"""
    default: list[tuple[Spent, Spent]] = field(default_factory=list)
    """bare, chain with Dask's default allocator"""

    @property
    def missed(self) -> bool:
        """Whether the bound of this size is missed."""
        return statistics.median(ratios(self.rounds)) > GOALS.get(self.wanted_s, float("inf"))

    def a_chunk(self, rounds: Sequence[tuple[Spent, Spent]], way: int) -> str:
        """How long a process spends on a chunk."""
        return f"{statistics.median(pair[way].wall for pair in rounds) * PROCESSES / self.chunks:.3f} s"


def ratios(rounds: Sequence[tuple[Spent, Spent]], what: int = 0) -> list[float]:
    """Chain over bare, round by round: of the wall time, or (1) of the CPU time."""
    return [chain[what] / bare[what] for bare, chain in rounds]


def measured(pids: Sequence[int], do: Callable[[], States]) -> tuple[Spent, States]:
    """Do it, and tell what it took this process and those."""
    processes = [psutil.Process(pid) for pid in (os.getpid(), *pids)]
    before, begun = sum(map(_cpu, processes)), time.perf_counter()
    done = do()
    wall = time.perf_counter() - begun
    return Spent(wall, sum(map(_cpu, processes)) - before), done


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def settings_of(area: Path, events: int = 1) -> dict[str, Any]:
    """Settings of a Tier-0 over the detector, with so many events a chunk."""
    return {
        "experiment": {"name": "benchmarks._detector:Detector"},
        "storage": {"area": str(area)},
        "cluster": {"workers": PROCESSES, "dashboard_port": 0},
        "splitting": {"events": events, "block_events": events},
    }


def make_field(area: Path, chunks: int, events: int) -> Field:
    """Write the data, register and cut them as the pipeline does; `events` is a multiple of UNITS."""
    world = set_up(open_world(settings_from(settings_of(area, events)), Detector()))
    path = write_raw(area / "raw.root", chunks * events, events // UNITS)
    ingest(world.database.begin, world.experiment, [path], world.now())
    context = prepare(world, [RUN])[0][0].context
    job, work = express_job(context, express_products(context))
    if job.leaves != chunks:
        raise RuntimeError(f"{job.leaves} chunks were cut instead of {chunks}")
    return Field(world, job, work, world.chunks(RUN, context.express.layout, range(chunks)))


# the bare loop --------------------------------------------------------------------------------------------------------


class Bare:
    """Processes that take the next chunk until none is left, and add up."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._next = context.Value("q", 0)
        self._pipes = []
        for _ in range(PROCESSES):
            pipe, other = context.Pipe()
            context.Process(target=_take_orders, args=(other, self._next), daemon=True).start()
            other.close()
            self._pipes.append(pipe)
        self.pids = [int(pipe.recv()) for pipe in self._pipes]

    def run(self, work: ChunkWork, chunks: Sequence[Chunk]) -> States:
        """Do all chunks; gives the joined states."""
        self._next.value = 0
        for pipe in self._pipes:
            pipe.send((work, chunks))
        states = work.merge([states for pipe in self._pipes if (states := pipe.recv()) is not None])
        work.store(states, Node("bare", 1, 0), "bare")
        return states

    def close(self) -> None:
        """Let the processes end."""
        for pipe in self._pipes:
            pipe.send(None)


def _take_orders(pipe: Any, following: Any) -> None:
    warm_up()
    pipe.send(os.getpid())
    while (order := pipe.recv()) is not None:
        pipe.send(_share(*order, following))


def _share(work: ChunkWork, chunks: Sequence[Chunk], following: Any) -> States | None:
    joined = None
    while True:
        with following.get_lock():
            index = following.value
            following.value += 1
        if index >= len(chunks):
            return joined
        _, states = work.leaf(chunks[index], f"bare-{index}")
        joined = states if joined is None else work.merge([joined, states])


@contextmanager
def bare_loop() -> Iterator[Bare]:
    """Bare processes in the environment of the workers."""
    with environment(worker_environment(CLUSTER)):
        bare = Bare()
    try:
        yield bare
    finally:
        bare.close()


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Variables for the processes started in the block."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


# the chain ------------------------------------------------------------------------------------------------------------


@contextmanager
def cluster() -> Iterator[Client]:
    """A cluster as `Tier0` opens it; says what is not in force."""
    with open_cluster(CLUSTER) as client:
        client.register_plugin(WarmWorkers())
        for mismatch in verify(client, CLUSTER):
            print(f"not in force: {mismatch}")
        yield client


@contextmanager
def cluster_of_default_allocator() -> Iterator[Client]:
    """The same with the allocator that Dask sets by itself."""
    config = {**dask_config(CLUSTER), "distributed.nanny.pre-spawn-environ": DASK_DEFAULT}
    with (
        dask.config.set(config),
        LocalCluster(n_workers=PROCESSES, threads_per_worker=1, dashboard_address="127.0.0.1:0") as local,
        Client(local, set_as_default=False) as client,
    ):
        client.register_plugin(WarmWorkers())
        client.wait_for_workers(PROCESSES)
        yield client


def run_chain(client: Client, field_: Field, name: str) -> States:
    """Do the pass as a job of this name; gives the joined states."""
    world, job = field_.world, replace(field_.job, name=f"{field_.job.name}-{name}")
    with world.database.begin() as connection:
        epoch = take_lease(connection)
    runner = Runner(
        client,
        world.database.begin,
        epoch,
        lambda connection, job, node, receipt: book_branch(connection, job, node, receipt, world.now()),
    )
    runner.start(job, field_.work, lambda leaves: [field_.chunks[leaf] for leaf in leaves])
    told = [event for _ in iter(lambda: runner.active, 0) for event in runner.step()]
    runner.close()
    end = told[-1]
    if not isinstance(end, JobDone):
        raise RuntimeError(f"the chain did not come through: {end}")
    return unpack_states(end.root.state.files[0].path)


# both -----------------------------------------------------------------------------------------------------------------


def chunk_events(bare: Bare, area: Path, seconds: float) -> int:
    """How many events take so long, while both processes work; a multiple of UNITS."""
    chunks, events = 4 * PROCESSES, 500 * UNITS
    sample = make_field(area, chunks, events)
    walls = [measured(bare.pids, lambda: bare.run(sample.work, sample.chunks))[0].wall for _ in range(3)]
    rate = chunks * events / statistics.median(walls) / PROCESSES
    return UNITS * max(1, round(seconds * rate / UNITS))


def same(one: States, other: States) -> bool:
    """Whether two passes came to the same sums."""
    pairs = ((one[kind].to_arrays(), other[kind].to_arrays()) for kind in one)
    return all(a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a) for a, b in pairs)


def take_turns(bare: Bare, client: Client, both: Field, names: Sequence[str]) -> list[tuple[Spent, Spent]]:
    """Do the pass both ways, once for each name; every way is first in every second round."""
    workers = list(client.run(os.getpid).values())
    rounds = []
    for number, name in enumerate(names):
        found: dict[str, tuple[Spent, States]] = {}
        for way in ("bare", "chain") if number % 2 == 0 else ("chain", "bare"):
            folder = Path(both.work.folder).with_name(way)
            one = replace(both, work=replace(both.work, folder=str(folder)))
            if way == "bare":
                found[way] = measured(bare.pids, partial(bare.run, one.work, one.chunks))
            else:
                found[way] = measured(workers, partial(run_chain, client, one, name))
            shutil.rmtree(folder)
        if not same(found["bare"][1], found["chain"][1]):
            raise RuntimeError("the two ways did not come to the same sums: nothing can be compared")
        rounds.append((found["bare"][0], found["chain"][0]))
    return rounds


def measure(seconds: float, chunks: int, rounds: int) -> Case:
    """Chunks of so many seconds, so many of them a process, in so many rounds."""
    with tempfile.TemporaryDirectory() as name, bare_loop() as bare:
        events = chunk_events(bare, Path(name) / "sample", seconds)
        count = PROCESSES * -(-chunks // rounds)
        both = make_field(Path(name) / "area", count, events)
        case = Case(seconds, count, events)
        with cluster() as client:
            case.rounds = take_turns(bare, client, both, [f"round-{i}" for i in range(rounds)])
        with cluster_of_default_allocator() as client:
            case.default = take_turns(bare, client, both, [f"default-{i}" for i in range(-(-rounds // 12))])
        return case


def start_up() -> float:
    """Seconds from nothing to the first task on a worker that has all it needs."""
    with tempfile.TemporaryDirectory() as name:
        variables = {**os.environ, "PYTHONPATH": str(ROOT)}
        begun = time.time()
        command = [sys.executable, "-c", START_UP, json.dumps(settings_of(Path(name)))]
        told = subprocess.run(command, env=variables, stdout=subprocess.PIPE, text=True, check=True)
        return float(told.stdout) - begun


def report(start: float, cases: Sequence[Case]) -> str:
    """The figures as a table."""
    head = f"start-up {start:.1f} s (at most {START_UP_S:g})"
    columns = ("chunk", "events", "chunks", "bare", "chain", "ratio", "at most", "rounds", "CPU", "pace", "by default")
    rows = [columns, *map(_row, cases)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(columns))]
    return "\n".join([head, *("  ".join(map(str.rjust, row, widths)) for row in rows)])


def _row(case: Case) -> tuple[str, ...]:
    walls, goal = ratios(case.rounds), GOALS.get(case.wanted_s)
    bare = [before.wall for before, _ in case.rounds]
    return (
        f"{case.wanted_s:g} s",
        str(case.events),
        f"{len(case.rounds)} x {case.chunks}",
        case.a_chunk(case.rounds, 0),
        case.a_chunk(case.rounds, 1),
        f"{statistics.median(walls):.3f}",
        f"{goal:g}" if goal else "-",
        f"{min(walls):.3f}-{max(walls):.3f}",
        f"{statistics.median(ratios(case.rounds, 1)):.3f}",
        f"{max(bare) / min(bare):.2f}",
        f"{case.a_chunk(case.default, 1)}, {statistics.median(ratios(case.default)):.2f} x bare",
    )


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, nargs="+", default=list(GOALS), help="how long a chunk takes")
    parser.add_argument("--chunks", type=int, default=120, help="chunks a process, over all rounds")
    parser.add_argument("--rounds", type=int, default=12, help="how often they take turns")
    parser.add_argument("--small", action="store_true", help="a few tiny chunks; nothing is judged")
    options = parser.parse_args()
    if options.small:
        options.seconds, options.chunks, options.rounds = [0.02], 6, 2
    return options


def main() -> int:
    options = parsed()
    warm_up()
    start = start_up()
    cases = [measure(seconds, options.chunks, options.rounds) for seconds in options.seconds]
    print(report(start, cases))
    if options.small:
        return 0
    missed = [f"chunks of {case.wanted_s:g} s" for case in cases if case.missed]
    missed += ["start-up"] if start > START_UP_S else []
    if missed:
        print(f"MISSED: {', '.join(missed)}")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
