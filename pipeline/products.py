"""Which results exist, by lineage, and the jobs that hold them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from jobs.lease import Begin
from jobs.ledger import Ledger
from jobs.reduction import NodeReceipt
from pipeline import accounting
from pipeline.restarts import Earlier

READING = 0
"""an epoch for those who only read the ledger"""


@dataclass(frozen=True)
class Products:
    """Products over all processing versions: equal lineage, equal content."""

    begin: Begin
    """a transaction that writes"""
    read: Begin

    def made(self, lineages: Sequence[str]) -> dict[str, str]:
        """Which of these products exist, and the job that holds each."""
        with self.read() as connection:
            return accounting.made_by(connection, lineages)

    def add(self, lineages: Collection[str], job: str) -> None:
        """Enter what a completed job has made."""
        if lineages:
            with self.begin() as connection:
                accounting.add_products(connection, lineages, job)

    def earlier(self, tiers: Mapping[str, str]) -> Earlier | None:
        """The first of these tiers (to the name of its files) that some job has left, and that job."""
        made = self.made(list(tiers.values())) if tiers else {}
        return next((Earlier(tier, made[name]) for tier, name in tiers.items() if name in made), None)

    def result(self, job: str) -> NodeReceipt:
        """The root of a completed job. Raises LookupError when it is not complete."""
        root = self.find(job)
        if root is None:
            raise LookupError(f"job {job} is not complete; run it again")
        return root

    def find(self, job: str) -> NodeReceipt | None:
        """The root of a job, or None while it is not complete."""
        with self.read() as connection:
            ledger = Ledger(connection, READING)
            known = ledger.job(job)
            return ledger.root(known) if known else None
