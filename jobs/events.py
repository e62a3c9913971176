"""What a runner tells."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.job import Job
from jobs.reduction import Node, NodeReceipt


class Refused(Exception):
    """What is about to be committed cannot be entered as it is. Raised by `on_commit` of a runner, it undoes the commit
    of that node and ends its job, and no other."""


@dataclass(frozen=True, slots=True)
class NodeCommitted:
    """A node is committed; the two times (UNIX seconds) are when it was submitted and when its receipt was here."""

    job: Job
    node: Node
    receipt: NodeReceipt
    submitted_at: float
    arrived_at: float


@dataclass(frozen=True, slots=True)
class JobDone:
    """A job is complete."""

    job: Job
    root: NodeReceipt


@dataclass(frozen=True, slots=True)
class JobFailed:
    """A job cannot be completed now; `stop`: the site is at fault (disk full...), and others would fare no better."""

    job: Job
    reason: str
    stop: bool = False


Event = NodeCommitted | JobDone | JobFailed
