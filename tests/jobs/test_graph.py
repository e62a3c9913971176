"""A launch becomes a graph that Dask runs, and what Dask reports is traced back to a leaf."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dask
import pytest
from distributed import KilledWorker

from jobs.frontier import Launch
from jobs.graph import build_graph, executing, failure_of, leaf_of, overdue, to_bytes
from jobs.reduction import Aside, Join, Node, NodeReceipt
from jobs.retry import Cause
from tests.jobs.toy import Sum, make_job

JOB = make_job(8, limit_s=10.0)
LAUNCH = Launch(Node("sum", 1, 1), attempt=2, leaves=(4, 5, 6, 7))
JOIN = Join(LAUNCH.node, LAUNCH.leaves)


def test_branch_runs_as_one_graph(tmp_path: Path) -> None:
    work = Sum(str(tmp_path))
    launch = replace(LAUNCH, absent={5: Aside(5, Cause.BUG, "oops")})
    items = {leaf: leaf for leaf in range(8)}
    join = replace(JOIN, absent=tuple(launch.absent.values()))
    graph, end = build_graph(JOB, launch, 3, to_bytes(work), join, items)
    assert len(graph) == 5
    found = dask.get(graph, end)
    assert isinstance(found, NodeReceipt)
    assert work.load(found.state) == 4 + 6 + 7
    assert [aside.leaf for aside in found.aside] == [5]


def test_keys_name_attempts(tmp_path: Path) -> None:
    work, items = to_bytes(Sum(str(tmp_path))), {leaf: leaf for leaf in range(8)}
    seen: set[Any] = set()
    for epoch, attempt in ((1, 1), (1, 2), (2, 1)):
        graph, _ = build_graph(JOB, replace(LAUNCH, attempt=attempt), epoch, work, JOIN, items)
        assert not seen & set(graph)
        seen |= set(graph)


def test_leaves_and_merges_are_groups_of_their_own() -> None:
    graph, end = build_graph(JOB, LAUNCH, 1, b"", JOIN, {leaf: leaf for leaf in range(8)})
    assert {key[0] for key in graph if key != end} == {"sum-1"}
    assert end[0] == "merge-sum-1"


def test_items_of_any_shape_are_not_read_as_graph(tmp_path: Path) -> None:
    class Echo(Sum):
        def leaf(self, item: Any, attempt: str) -> Any:
            return super().leaf(item[1], attempt)

    # To Dask a tuple that begins with a callable is a call.
    items = {leaf: (sum, leaf) for leaf in range(4, 8)}
    graph, end = build_graph(JOB, LAUNCH, 1, to_bytes(Echo(str(tmp_path))), JOIN, items)
    found = dask.get(graph, end)
    assert isinstance(found, NodeReceipt)
    assert Sum(str(tmp_path)).load(found.state) == 22


def test_what_a_notebook_defines_goes_by_value() -> None:
    main = sys.modules["__main__"]
    made = type("Cell", (), {"__module__": "__main__", "word": "hello"})
    main.Cell = made  # type: ignore[attr-defined]
    try:
        pickled = to_bytes(made())
    finally:
        del main.Cell
    assert b"hello" in pickled


@pytest.mark.parametrize(
    ("key", "leaf"),
    [
        (("sum-1", "sum", 1, 5, 2), 5),
        (("merge-sum-1", "sum", 1, "1.1", 2), None),
        (("sum-1", "sum", 1, 3, 2), None),
        (("sum-1", "other", 1, 5, 2), None),
        ("something", None),
    ],
)
def test_leaf_of_a_key(key: Any, leaf: int | None) -> None:
    assert leaf_of(key, JOB, LAUNCH) == leaf


def killed(key: Any, *executing: Any) -> KilledWorker:
    worker = SimpleNamespace(address="tcp://w", executing=dict.fromkeys(executing, 0.3))
    return KilledWorker(key, worker, 0)  # type: ignore[arg-type]


def test_lost_worker_names_the_leaf_and_whether_it_was_seen() -> None:
    key, neighbour = ("sum-1", "sum", 1, 5, 2), ("sum-1", "sum", 1, 6, 2)
    loss = failure_of(killed(key, neighbour), JOB, LAUNCH)
    assert (loss.cause, loss.leaf, loss.seen, loss.alone) == (Cause.LOST, 5, False, False)
    assert failure_of(killed(key, key), JOB, LAUNCH).seen
    alone = replace(LAUNCH, leaves=(5,), alone=True)
    assert failure_of(killed(key), JOB, alone).alone
    merge = failure_of(killed(("merge-sum-1", "sum", 1, "1.1", 2)), JOB, LAUNCH)
    assert (merge.leaf, merge.alone) == (None, False)


def test_other_errors_of_dask_are_judged_by_their_class() -> None:
    assert failure_of(RuntimeError("cannot import"), JOB, LAUNCH).cause is Cause.BUG
    assert failure_of(TimeoutError(), JOB, LAUNCH).cause is Cause.PASSING


@dataclass(eq=False)
class Task:
    """What the scheduler knows of a task."""

    key: str
    processing_on: Any


def test_executing_leaves_out_what_has_ended() -> None:
    worker = SimpleNamespace(address="tcp://a")
    worker.executing = {Task("t", worker): 5.0, Task("ended", None): 9.0}
    assert executing(SimpleNamespace(workers={"a": worker})) == [("t", "tcp://a", 5.0)]


def test_only_own_tasks_over_the_limit_are_overdue() -> None:
    end = ("merge-sum-1", "sum", 1, "1.1", 2)
    tasks = [
        (("sum-1", "sum", 1, 4, 2), "a", 11.0),
        (("sum-1", "sum", 1, 5, 2), "b", 9.0),
        (("sum-1", "sum", 1, 6, 1), "c", 99.0),
        (("sum-1", "sum", 1, 3, 2), "d", 99.0),
        (end, "e", 12.0),
    ]
    failures, workers = overdue(tasks, JOB, LAUNCH, end)
    assert [(failure.leaf, failure.cause) for failure in failures] == [(4, Cause.TIMEOUT), (None, Cause.TIMEOUT)]
    assert failures[0].message == "it ran for 11 s; the limit is 10 s"
    assert workers == {"a", "b", "e"}
    assert overdue(tasks[1:-1], JOB, LAUNCH, end) == ([], set())
    assert overdue(tasks, replace(JOB, limit_s=None), LAUNCH, end) == ([], set())
