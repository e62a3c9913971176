"""What a job is, and which work goes before which."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from jobs.reduction import Tree


class Lane(IntEnum):
    """Which work goes first; the number is the priority Dask is given."""

    CONDITIONS = 30
    EXPRESS = 20
    PROMPT = 10
    BULK = 0
    """re-reconstruction, whatever can wait"""


@dataclass(frozen=True, slots=True)
class Job:
    """Leaves and their reduction. A job is one row of the ledger, however many leaves it has.

    Raises ValueError for a shape that cannot be reduced.
    """

    name: str
    """unique; the same name is the same work"""
    group: str
    """how its tasks are called in the dashboard"""
    lane: Lane
    leaves: int
    fan_in: int
    spec: str = "{}"
    """JSON of the caller, kept as it is"""
    limit_s: float | None = None
    """seconds one leaf or merge may run; None: no limit"""

    def __post_init__(self) -> None:
        Tree(self.leaves, self.fan_in)
        if self.limit_s is not None and self.limit_s <= 0:
            raise ValueError(f"job {self.name}: limit_s must be above zero, not {self.limit_s}")

    @property
    def tree(self) -> Tree:
        """The shape of its reduction."""
        return Tree(self.leaves, self.fan_in)
