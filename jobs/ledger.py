"""The durable journal: which jobs there are, which nodes are committed, what was started, what failed.

A `Ledger` lives as long as one transaction of the caller. A job is one row, however many leaves it has; nodes have
rows once they are started, committed or failed. Nothing here holds more than a page in memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, and_, exists, func, insert, select, update

from jobs.frontier import Launch, Past
from jobs.job import Job, Lane
from jobs.lease import SecondDriver, StaleEpoch, check_epoch, drop_lease, renew_lease, take_lease
from jobs.reduction import Aside, Node, NodeReceipt
from jobs.retry import Cause, Failure
from jobs.tables import failures, insert_new, jobs, ledger_metadata, nodes, set_aside, starts

__all__ = [
    "Job",
    "JobChanged",
    "JobState",
    "Lane",
    "Ledger",
    "SecondDriver",
    "StaleEpoch",
    "Standing",
    "drop_lease",
    "ledger_metadata",
    "renew_lease",
    "take_lease",
]

_PAGE = 1000


class JobChanged(ValueError):
    """A job of this name is in the ledger with another shape."""


class JobState(StrEnum):
    """How far a job is."""

    OPEN = "open"
    DONE = "done"
    FAILED = "failed"  # it cannot be completed; the next start tries again
    HELD = "held"  # the site is at fault (disk full, quota); the next start goes on


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a job is, and why it is not further; `starts` and `commits` count nodes."""

    state: JobState
    reason: str
    starts: int
    commits: int
    leaves_committed: int


class Ledger:
    """The journal within one transaction. What writes raises StaleEpoch once a later driver has taken over."""

    def __init__(self, connection: Connection, epoch: int, clock: Callable[[], float] = time.time) -> None:
        self._connection = connection
        self._epoch = epoch
        self._clock = clock
        self._fenced = False

    # jobs

    def add(self, job: Job) -> bool:
        """Enter a job; False when it is there already. Raises JobChanged when it is there with another shape."""
        self._fence()
        row = _job_row(job) | {"state": JobState.OPEN, "reason": "", "added_at": self._clock()}
        if insert_new(self._connection, jobs, row):
            return True
        there = self.job(job.name)
        if there is None or there.tree != job.tree:
            raise JobChanged(f"job {job.name} is in the ledger as {there}, not as {job}: give the new shape a new name")
        return False

    def job(self, name: str) -> Job | None:
        """Give the job of this name."""
        row = self._connection.execute(select(jobs).where(jobs.c.name == name)).one_or_none()
        return None if row is None else _job(row)

    def open_jobs(self) -> list[Job]:
        """Give the jobs that are not done, in the order they were added."""
        query = select(jobs).where(jobs.c.state != JobState.DONE).order_by(jobs.c.added_at, jobs.c.name)
        return [_job(row) for row in self._connection.execute(query)]

    def mark(self, name: str, state: JobState, reason: str = "") -> None:
        """Write down how far a job is."""
        self._fence()
        ended = None if state is JobState.OPEN else self._clock()
        values = {"state": state, "reason": reason, "ended_at": ended}
        self._connection.execute(update(jobs).where(jobs.c.name == name).values(values))

    def standing(self, job: Job) -> Standing:
        """Give how far a job is."""
        row = self._connection.execute(select(jobs.c.state, jobs.c.reason).where(jobs.c.name == job.name)).one()
        begun = self._connection.scalar(select(func.count()).where(starts.c.job == job.name))
        done = self._count(job.name, nodes.c.level > 0)
        branches = self._count(job.name, nodes.c.level == 1)
        last = job.tree.width(1) - 1
        short = (last + 1) * job.fan_in - job.leaves
        has_last = short and self._count(job.name, and_(nodes.c.level == 1, nodes.c.place == last))
        leaves = branches * job.fan_in - (short if has_last else 0)
        return Standing(JobState(row.state), row.reason, int(begun or 0), done, leaves)

    def _count(self, job: str, condition: Any) -> int:
        return int(self._connection.scalar(select(func.count()).where(nodes.c.job == job, condition)) or 0)

    # what happened

    def started(self, launches: Sequence[Launch]) -> None:
        """Write down that these are submitted."""
        self._fence()
        now = self._clock()
        rows = [
            self._key(launch.node)
            | {"epoch": self._epoch, "attempt": launch.attempt, "leaves": len(launch.leaves)}
            | {"alone": launch.alone, "started_at": now}
            for launch in launches
        ]
        if rows:
            self._connection.execute(insert(starts), rows)

    def commit(self, node: Node, receipt: NodeReceipt, attempt: int = 1) -> bool:
        """Commit a node; False when it is committed already: then this receipt's files are nobody's."""
        self._fence()
        now = self._clock()
        row = {"epoch": self._epoch, "attempt": attempt, "receipt": receipt.to_json(), "committed_at": now}
        if not insert_new(self._connection, nodes, self._key(node) | row):
            return False
        for aside in receipt.aside:
            words = {"cause": aside.cause, "reason": aside.reason, "traceback": aside.traceback}
            row = {"job": node.job, "leaf": aside.leaf, **words, "set_aside_at": now}
            self._connection.execute(insert(set_aside).values(row))
        return True

    def failed(self, launch: Launch, failed: Sequence[Failure]) -> None:
        """Write down what failed in an attempt."""
        self._fence()
        now = self._clock()
        rows = [
            self._key(launch.node)
            | {"epoch": self._epoch, "attempt": launch.attempt, "leaf": failure.leaf, "cause": failure.cause}
            | {"message": failure.message, "traceback": failure.traceback, "alone": failure.alone}
            | {"seen": failure.seen, "failed_at": now}
            for failure in failed
        ]
        if rows:
            self._connection.execute(insert(failures), rows)

    # what is open

    def open_branches(self, job: Job, after: int = -1, limit: int = _PAGE) -> list[int]:
        """Give the branches not committed among the `limit` that follow branch `after`."""
        page = range(after + 1, min(after + 1 + limit, job.tree.width(1)))
        done = set(self._connection.scalars(self._places(job.name, 1, page)))
        return [index for index in page if index not in done]

    def past(self, job: Job) -> Past:
        """Give what a new start of a job must know beside its open branches."""
        mine = (starts.c.job == job.name) & (starts.c.epoch == self._epoch)
        last = self._connection.scalar(select(func.max(starts.c.attempt)).where(mine))
        return Past(self._tallies(job), self._losses(job), int(last or 0))

    def _tallies(self, job: Job) -> dict[Node, int]:
        parent = nodes.alias()
        above = nodes.c.place // job.fan_in
        up = exists().where(parent.c.job == job.name, parent.c.level == nodes.c.level + 1, parent.c.place == above)
        query = (
            select(nodes.c.level, above.label("above"), func.count())
            .where(nodes.c.job == job.name, nodes.c.level < job.tree.depth, ~up)
            .group_by(nodes.c.level, "above")
        )
        rows = self._connection.execute(query)
        return {Node(job.name, int(level) + 1, int(index)): int(count) for level, index, count in rows}

    def _losses(self, job: Job) -> dict[Node, list[Failure]]:
        # A restart does not make them innocent.
        grave = failures.c.cause.in_([Cause.LOST, Cause.TIMEOUT])
        committed = exists().where(*(nodes.c[key] == failures.c[key] for key in ("job", "level", "place")))
        query = select(failures).where(failures.c.job == job.name, grave, ~committed).order_by(failures.c.id)
        found: dict[Node, list[Failure]] = {}
        for row in self._connection.execute(query):
            found.setdefault(Node(row.job, row.level, row.place), []).append(_failure(row))
        return found

    # what is there

    def committed(self, job: str, level: int, places: range) -> dict[int, NodeReceipt]:
        """Give the receipts of the committed nodes among these places of a level."""
        query = select(nodes.c.place, nodes.c.receipt).where(_among(job, level, places))
        return {int(place): NodeReceipt.from_json(text) for place, text in self._connection.execute(query)}

    def root(self, job: Job) -> NodeReceipt | None:
        """Give the root of a job that is complete."""
        return self.committed(job.name, job.tree.depth, range(1)).get(0)

    def branches(self, job: Job) -> Iterator[tuple[int, NodeReceipt]]:
        """Give every committed branch with its receipt, in order, page by page."""
        for first in range(0, job.tree.width(1), _PAGE):
            page = self.committed(job.name, 1, range(first, first + _PAGE))
            yield from sorted(page.items())

    def files(self, job: str) -> Iterator[str]:
        """Give the paths of all files a job has committed: what the sweeper must keep."""
        query = select(nodes.c.receipt).where(nodes.c.job == job)
        for text in self._connection.execution_options(yield_per=_PAGE).scalars(query):
            receipt = NodeReceipt.from_json(text)
            for part in (*receipt.leaves, receipt.state):
                yield from (record.path for record in part.files)

    def history(self, node: Node) -> list[Failure]:
        """Give all failures of a node, oldest first."""
        rows = self._connection.execute(select(failures).where(*_is(failures, node)).order_by(failures.c.id))
        return [_failure(row) for row in rows]

    def attempts(self, node: Node) -> int:
        """Give how often a node was started."""
        return int(self._connection.scalar(select(func.count()).where(*_is(starts, node))) or 0)

    def asides(self, job: str) -> list[Aside]:
        """Give the leaves of a job that are set aside, in order."""
        rows = self._connection.execute(select(set_aside).where(set_aside.c.job == job).order_by(set_aside.c.leaf))
        return [Aside(int(row.leaf), Cause(row.cause), row.reason, row.traceback) for row in rows]

    def _fence(self) -> None:
        # Once is enough: the row stays locked until the transaction ends.
        if not self._fenced:
            check_epoch(self._connection, self._epoch)
            self._fenced = True

    def _key(self, node: Node) -> dict[str, Any]:
        return {"job": node.job, "level": node.level, "place": node.index}

    def _places(self, job: str, level: int, places: range) -> Any:
        return select(nodes.c.place).where(_among(job, level, places))


def _among(job: str, level: int, places: range) -> Any:
    return and_(nodes.c.job == job, nodes.c.level == level, nodes.c.place.between(places.start, places.stop - 1))


def _is(table: Any, node: Node) -> tuple[Any, ...]:
    return table.c.job == node.job, table.c.level == node.level, table.c.place == node.index


def _job_row(job: Job) -> dict[str, Any]:
    shape = {"lane": int(job.lane), "leaves": job.leaves, "fan_in": job.fan_in}
    return {"name": job.name, "task_group": job.group, **shape, "spec": job.spec, "limit_s": job.limit_s}


def _job(row: Row[Any]) -> Job:
    return Job(row.name, row.task_group, Lane(row.lane), row.leaves, row.fan_in, row.spec, row.limit_s)


def _failure(row: Row[Any]) -> Failure:
    return Failure(Cause(row.cause), row.message, row.leaf, row.alone, row.seen, row.traceback)
