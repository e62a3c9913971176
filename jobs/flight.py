"""What the runner holds in its hands: active jobs, launches in flight, and what one turn writes down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jobs.events import JobDone, JobFailed, NodeCommitted
from jobs.frontier import Frontier, Launch
from jobs.graph import Key
from jobs.job import Job
from jobs.ledger import Ledger
from jobs.reduction import Join, Node, Partial

if TYPE_CHECKING:
    from distributed import Future

Items = Callable[[range], Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Active:
    """A job that is not finished: its pickled work, its items, and what of it may run."""

    job: Job
    work: bytes
    items: Items
    frontier: Frontier


@dataclass(slots=True)
class Flight:
    """A launch that Dask has."""

    active: Active
    launch: Launch
    key: Key
    future: Future[Any]
    submitted_at: float
    check_at: float
    """when to look whether something of it runs for too long"""


@dataclass(slots=True)
class Turn:
    """What came in and what follows: one transaction."""

    commits: list[NodeCommitted] = field(default_factory=list)
    attempts: dict[Node, int] = field(default_factory=dict)
    failed: list[tuple[Launch, Partial]] = field(default_factory=list)
    ended: dict[str, JobDone | JobFailed] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    """jobs of which a node could not be entered"""
    launches: list[tuple[Active, Launch, dict[int, Any]]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.commits or self.failed or self.ended or self.launches)


def items_of(active: Active, launch: Launch) -> dict[int, Any]:
    """Give the items of all leaves of a branch, by leaf; ValueError when there are too few or too many."""
    if launch.node.level > 1:
        return {}
    leaves = active.job.tree.children(launch.node)
    items = active.items(leaves)
    if len(items) != len(leaves):
        raise ValueError(f"job {active.job.name}: {len(items)} items were given for {len(leaves)} leaves")
    return dict(zip(leaves, items, strict=True))


def join_of(ledger: Ledger, active: Active, launch: Launch) -> Join:
    """Give what the merge of a launch must know; children committed in the same transaction are there."""
    if launch.node.level == 1:
        return active.frontier.join(launch)
    children = ledger.committed(active.job.name, launch.node.level - 1, active.job.tree.children(launch.node))
    return Join(launch.node, states=tuple(receipt.state for _, receipt in sorted(children.items())))
