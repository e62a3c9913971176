"""What a person has promoted from a shadow into production: other settings of one kind, from a run on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection

from pipeline import journal
from pipeline.sections import ShadowSection, Table
from pipeline.settings import Settings

NO_RUN = 0
PROMOTIONS = "promotions"


@dataclass(frozen=True)
class Promotion:
    """From `since` (a run) on, a kind is made and judged as its shadow was."""

    shadow: str
    kind: str
    since: int
    calibration: Table
    gates: tuple[Table, ...] | None
    algorithm: str
    author: str
    at: float
    """seconds since 1970"""
    reason: str

    @classmethod
    def of(cls, name: str, section: ShadowSection, since: int, author: str, at: float, reason: str) -> Promotion:
        """Promote a shadow. Raises ValueError without a reason."""
        if not reason.strip():
            raise ValueError("a promotion needs a reason")
        return cls(name, section.kind, since, section.calibration, section.gates, section.algorithm, author, at, reason)

    def sets_the_same(self, other: Promotion) -> bool:
        """Whether both make and judge a kind alike, whoever promoted it, when, and why."""
        mine, its = ((p.kind, p.calibration, p.gates, p.algorithm) for p in (self, other))
        return mine == its

    def __str__(self) -> str:
        when = datetime.fromtimestamp(self.at, UTC).strftime("%Y-%m-%d %H:%M UTC")
        return f"{self.kind} as in shadow {self.shadow} from run {self.since} on ({self.author}, {when}: {self.reason})"


def promotions(connection: Connection) -> tuple[Promotion, ...]:
    """All promotions, in the order made."""
    found = journal.get_document(connection, NO_RUN, PROMOTIONS) or []
    return tuple(Promotion(**{**row, "gates": None if row["gates"] is None else tuple(row["gates"])}) for row in found)


def add_promotion(connection: Connection, promotion: Promotion, now: float) -> None:
    """Enter one, for ever: what is to hold later is promoted later."""
    kept = [asdict(one) for one in (*promotions(connection), promotion)]
    journal.set_document(connection, NO_RUN, PROMOTIONS, kept, now)


def in_force(settings: Settings, found: Sequence[Promotion], run: int) -> Settings:
    """The settings of one run: those of the file, and over them what was promoted for it, the latest last. Pure."""
    plain = settings.for_run(run)
    for one in found:
        if one.since <= run:
            calibration = {**plain.calibration, one.kind: {**plain.calibration.get(one.kind, {}), **one.calibration}}
            gates = plain.gates if one.gates is None else {**plain.gates, one.kind: one.gates}
            plain = plain.model_copy(update={"calibration": calibration, "gates": gates})
    return plain


def algorithm_of(found: Sequence[Promotion], kind: str, run: int) -> str:
    """The class, `module:Class`, that makes a kind for a run by promotion; empty for the experiment's own. Pure."""
    named = [one.algorithm for one in found if one.kind == kind and one.since <= run and one.algorithm]
    return named[-1] if named else ""


def begins(manifests: Mapping[int, Any]) -> int:
    """The first run that a promotion made now can hold for: behind every run that is released."""
    return max(manifests, default=-1) + 1
