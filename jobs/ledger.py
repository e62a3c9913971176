"""The durable journal: which jobs there are, which nodes are committed, what was started, what failed.

A `Ledger` lives as long as one transaction of the caller. A job is one row, however many leaves it has; nodes have
rows once they are started, committed or failed. Nothing here holds more than a page in memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, Table, and_, delete, exists, func, insert, or_, select, update

from jobs.frontier import Launch, Past
from jobs.job import Job, Lane
from jobs.lease import SecondDriver, StaleEpoch, check_epoch, drop_lease, renew_lease, take_lease
from jobs.reduction import FileRecord, Node, NodeReceipt, Partial
from jobs.retry import Cause, Failure
from jobs.tables import failures, insert_new, jobs, ledger_metadata, nodes, partials, set_aside, starts

__all__ = [
    "Job",
    "JobChanged",
    "JobState",
    "Lane",
    "Ledger",
    "SecondDriver",
    "StaleEpoch",
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
        return None if row is None else job_of(row)

    def mark(self, name: str, state: JobState, reason: str = "") -> None:
        """Write down how far a job is."""
        self._fence()
        values: dict[str, Any] = {"state": state, "reason": reason}
        values |= {"ended_at": self._clock()} if state in (JobState.DONE, JobState.FAILED) else {}
        self._connection.execute(update(jobs).where(jobs.c.name == name).values(values))

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
        self._connection.execute(delete(partials).where(_is(partials, node)))
        for aside in receipt.aside:
            words = {"cause": aside.cause, "reason": aside.reason, "traceback": aside.traceback}
            row = {"job": node.job, "leaf": aside.leaf, **words, "set_aside_at": now}
            self._connection.execute(insert(set_aside).values(row))
        return True

    def failed(self, launch: Launch, result: Partial) -> None:
        """Write down what failed in an attempt, and what of the branch is done all the same."""
        self._fence()
        now = self._clock()
        rows = [
            self._key(launch.node)
            | {"epoch": self._epoch, "attempt": launch.attempt, "leaf": failure.leaf, "cause": failure.cause}
            | {"message": failure.message, "traceback": failure.traceback, "alone": failure.alone}
            | {"seen": failure.seen, "failed_at": now}
            for failure in result.failures
        ]
        if rows:
            self._connection.execute(insert(failures), rows)
        if len(result.done) > len(launch.prior.done):
            self._connection.execute(delete(partials).where(_is(partials, launch.node)))
            self._connection.execute(insert(partials).values(self._key(launch.node) | {"content": result.to_json()}))

    # what is open

    def open_branches(self, job: Job, after: int = -1, limit: int = _PAGE) -> list[int]:
        """Give the branches not committed among the `limit` that follow branch `after`."""
        page = range(after + 1, min(after + 1 + limit, job.tree.width(1)))
        done = set(self._connection.scalars(select(nodes.c.place).where(_among(job.name, 1, page))))
        return [index for index in page if index not in done]

    def past(self, job: Job) -> Past:
        """Give what a new start of a job must know beside its open branches."""
        mine = (starts.c.job == job.name) & (starts.c.epoch == self._epoch)
        last = self._connection.scalar(select(func.max(starts.c.attempt)).where(mine))
        kept = self._connection.execute(select(partials).where(partials.c.job == job.name))
        done = {Node(row.job, row.level, row.place): Partial.from_json(row.content) for row in kept}
        return Past(self._tallies(job), done, self._losses(job), self._has_good(job), int(last or 0))

    def _has_good(self, job: Job) -> bool:
        """Whether a committed branch has a leaf that is not set aside."""
        branches = (nodes.c.job == job.name) & (nodes.c.level == 1)
        query = select(func.count(), func.max(nodes.c.place)).where(branches)
        count, last = self._connection.execute(query).one()
        lacking = job.tree.width(1) * job.fan_in - job.leaves if last == job.tree.width(1) - 1 else 0
        aside = select(func.count()).select_from(set_aside).where(set_aside.c.job == job.name)
        return int(count) * job.fan_in - lacking > int(self._connection.scalar(aside) or 0)

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
        # A restart does not make them innocent; a job that failed is tried again as if nothing had happened.
        committed = exists().where(*(nodes.c[key] == failures.c[key] for key in ("job", "level", "place")))
        since = or_(jobs.c.ended_at.is_(None), failures.c.failed_at > jobs.c.ended_at)
        lost = (failures.c.job == job.name) & (failures.c.cause == Cause.LOST)
        query = select(failures).join(jobs, jobs.c.name == failures.c.job).where(lost, since, ~committed)
        found: dict[Node, list[Failure]] = {}
        for row in self._connection.execute(query.order_by(failures.c.id)):
            found.setdefault(Node(row.job, row.level, row.place), []).append(failure_of(row))
        return found

    # what is there

    def committed(self, job: str, level: int, places: range) -> dict[int, NodeReceipt]:
        """Give the receipts of the committed nodes among these places of a level."""
        query = select(nodes.c.place, nodes.c.receipt).where(_among(job, level, places))
        return {int(place): NodeReceipt.from_json(text) for place, text in self._connection.execute(query)}

    def root(self, job: Job) -> NodeReceipt | None:
        """Give the root of a job that is complete."""
        return self.committed(job.name, job.tree.depth, range(1)).get(0)

    def spent(self, name: str) -> float:
        """Give the seconds that workers have spent on what is committed of a job."""
        query = select(nodes.c.receipt).where(nodes.c.job == name).execution_options(yield_per=_PAGE)
        return sum(NodeReceipt.from_json(text).seconds for text in self._connection.scalars(query))

    def files(self, groups: Sequence[str]) -> Iterator[FileRecord]:
        """Give every file that counts of these task groups: of committed nodes, and of what is done of open ones."""
        mine = jobs.c.task_group.in_(groups)
        query = select(nodes.c.receipt).join(jobs, jobs.c.name == nodes.c.job).where(mine)
        for text in self._connection.scalars(query.execution_options(yield_per=_PAGE)):
            receipt = NodeReceipt.from_json(text)
            for part in (*receipt.leaves, receipt.state):
                yield from part.files
        query = select(partials.c.content).join(jobs, jobs.c.name == partials.c.job).where(mine)
        for text in self._connection.scalars(query):
            yield from Partial.from_json(text).files

    def _fence(self) -> None:
        # Once is enough: the row stays locked until the transaction ends.
        if not self._fenced:
            check_epoch(self._connection, self._epoch)
            self._fenced = True

    def _key(self, node: Node) -> dict[str, Any]:
        return {"job": node.job, "level": node.level, "place": node.index}


def _among(job: str, level: int, places: range) -> Any:
    return and_(nodes.c.job == job, nodes.c.level == level, nodes.c.place.between(places.start, places.stop - 1))


def _is(table: Table, node: Node) -> Any:
    return and_(table.c.job == node.job, table.c.level == node.level, table.c.place == node.index)


def _job_row(job: Job) -> dict[str, Any]:
    shape = {"lane": int(job.lane), "leaves": job.leaves, "fan_in": job.fan_in}
    return {"name": job.name, "task_group": job.group, **shape, "spec": job.spec, "limit_s": job.limit_s}


def job_of(row: Row[Any]) -> Job:
    """Give the job a row of the table holds."""
    return Job(row.name, row.task_group, Lane(row.lane), row.leaves, row.fan_in, row.spec, row.limit_s)


def failure_of(row: Row[Any]) -> Failure:
    """Give the failure a row of the table holds."""
    return Failure(Cause(row.cause), row.message, row.leaf, row.alone, row.seen, row.traceback)
