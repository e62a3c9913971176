"""A launch as a Dask graph, and what a key or an error of it says about a leaf."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distributed import KilledWorker
from distributed.protocol.pickle import dumps

from jobs.frontier import Launch
from jobs.job import Job
from jobs.reduction import Join, merge_branch, merge_node, run_leaf
from jobs.retry import Cause, Failure, classify

Key = tuple[Any, ...]
Graph = dict[Key, tuple[Any, ...]]


def to_bytes(value: Any) -> bytes:
    """Pickle, also what was defined in a notebook or a script."""
    pickled: bytes = dumps(value)  # type: ignore[no-untyped-call]
    return pickled


def build_graph(
    job: Job, launch: Launch, epoch: int, work: bytes, join: Join, items: Mapping[int, Any]
) -> tuple[Graph, Key]:
    """Give the graph of a launch and the key of its one result. Keys name attempts: none is ever met again.

    Everything of the caller goes as bytes: the scheduler neither imports nor understands it, and the one pickle of
    `work` is shared by all tasks of the job.
    """
    attempt = f"e{epoch}-{launch.attempt}"
    node = launch.node
    end = (f"merge-{job.group}", job.name, epoch, f"{node.level}.{node.index}", launch.attempt)
    joined = to_bytes(join)
    if node.level > 1:
        return {end: (merge_node, work, joined, attempt, job.limit_s)}, end
    graph: Graph = {}
    for leaf in launch.leaves:
        absent = launch.absent[leaf].reason if leaf in launch.absent else None
        key = (job.group, job.name, epoch, leaf, launch.attempt)
        graph[key] = (run_leaf, work, to_bytes(items[leaf]), leaf, attempt, absent, job.limit_s)
    leaves = list(graph)
    graph[end] = (merge_branch, work, joined, attempt, leaves, job.limit_s)
    return graph, end


def leaf_of(key: Any, job: Job, launch: Launch) -> int | None:
    """Give the leaf a key stands for; None for a merge, or a key that is not of this launch."""
    if isinstance(key, tuple) and len(key) == 5 and key[:2] == (job.group, job.name) and key[3] in launch.leaves:
        return int(key[3])
    return None


def failure_of(error: BaseException, job: Job, launch: Launch) -> Failure:
    """Give what an error that Dask itself reports says about a launch."""
    if not isinstance(error, KilledWorker):
        return Failure(classify(error), f"{type(error).__name__}: {error}")
    leaf = leaf_of(error.task, job, launch)
    worker = error.last_worker
    seen = error.task in worker.executing
    message = f"worker {worker.address} died while it held this task"
    return Failure(Cause.LOST, message, leaf, alone=launch.alone_for(leaf), seen=seen)


def executing(dask_scheduler: Any = None) -> list[tuple[Key, str, float]]:
    """Run on the scheduler: every task known to be executed, its worker, and for how many seconds (by heartbeat)."""
    return [
        (task.key, worker.address, seconds)
        for worker in dask_scheduler.workers.values()
        for task, seconds in worker.executing.items()
        if task.processing_on is worker
    ]


def overdue(
    tasks: Sequence[tuple[Key, str, float]], job: Job, launch: Launch, end: Key
) -> tuple[list[Failure], set[str]]:
    """Give what of this launch has run for longer than its job allows, and, if anything has, all workers it is on."""
    mine = [task for task in tasks if task[0] == end or _is_leaf_of(task[0], job, launch)]
    late = [(key, seconds) for key, _, seconds in mine if job.limit_s is not None and seconds > job.limit_s]
    message = "it ran for {:.0f} s; the limit is {:g} s"
    failures = [
        Failure(Cause.TIMEOUT, message.format(seconds, job.limit_s), leaf_of(key, job, launch)) for key, seconds in late
    ]
    return failures, {worker for _, worker, _ in mine} if late else set()


def _is_leaf_of(key: Key, job: Job, launch: Launch) -> bool:
    return leaf_of(key, job, launch) is not None and key[-1] == launch.attempt
