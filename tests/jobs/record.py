"""What tests ask the ledger: how far a job is, what was tried, what is set aside, which files it holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Table, and_, func, select

from jobs.job import Job
from jobs.ledger import JobState, failure_of, job_of
from jobs.reduction import Aside, Node, NodeReceipt
from jobs.retry import Cause, Failure
from jobs.tables import failures, jobs, nodes, set_aside, starts

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a job is, and why it is not further; `starts` and `commits` count nodes."""

    state: JobState
    reason: str
    starts: int
    commits: int
    leaves_committed: int


class Record:
    """What the ledger holds, as one transaction sees it. Needs no epoch."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def open_jobs(self) -> list[Job]:
        """Give the jobs that are not done, in the order they were added."""
        query = select(jobs).where(jobs.c.state != JobState.DONE).order_by(jobs.c.added_at, jobs.c.name)
        return [job_of(row) for row in self._connection.execute(query)]

    def standing(self, job: Job) -> Standing:
        """Give how far a job of the ledger is."""
        row = self._connection.execute(select(jobs.c.state, jobs.c.reason).where(jobs.c.name == job.name)).one()
        begun = self._count(starts, starts.c.job == job.name)
        commits = self._count(nodes, nodes.c.job == job.name)
        branch = and_(nodes.c.job == job.name, nodes.c.level == 1)
        last = job.tree.width(1) - 1
        missing_in_last = job.tree.width(1) * job.fan_in - job.leaves
        leaves = self._count(nodes, branch) * job.fan_in
        leaves -= missing_in_last * self._count(nodes, and_(branch, nodes.c.place == last))
        return Standing(JobState(row.state), row.reason, begun, commits, leaves)

    def branches(self, job: Job) -> Iterator[tuple[int, NodeReceipt]]:
        """Give every committed branch with its receipt, in order, page by page."""
        branch = and_(nodes.c.job == job.name, nodes.c.level == 1)
        for first in range(0, job.tree.width(1), _PAGE):
            page = and_(branch, nodes.c.place.between(first, first + _PAGE - 1))
            rows = self._connection.execute(select(nodes.c.place, nodes.c.receipt).where(page).order_by(nodes.c.place))
            for place, text in rows:
                yield int(place), NodeReceipt.from_json(text)

    def files(self, job: str) -> Iterator[str]:
        """Give the paths of all files a job has committed: what the sweeper must keep."""
        query = select(nodes.c.receipt).where(nodes.c.job == job).execution_options(yield_per=_PAGE)
        for text in self._connection.scalars(query):
            receipt = NodeReceipt.from_json(text)
            for part in (*receipt.leaves, receipt.state):
                yield from (record.path for record in part.files)

    def history(self, node: Node) -> list[Failure]:
        """Give all failures of a node, oldest first."""
        rows = self._connection.execute(select(failures).where(_is(failures, node)).order_by(failures.c.id))
        return [failure_of(row) for row in rows]

    def attempts(self, node: Node) -> int:
        """Give how often a node was started."""
        return self._count(starts, _is(starts, node))

    def asides(self, job: str) -> list[Aside]:
        """Give the leaves of a job that are set aside, in order."""
        rows = self._connection.execute(select(set_aside).where(set_aside.c.job == job).order_by(set_aside.c.leaf))
        return [Aside(int(row.leaf), Cause(row.cause), row.reason, row.traceback) for row in rows]

    def _count(self, table: Table, condition: Any) -> int:
        return int(self._connection.scalar(select(func.count()).select_from(table).where(condition)) or 0)


def _is(table: Table, node: Node) -> Any:
    return and_(table.c.job == node.job, table.c.level == node.level, table.c.place == node.index)
