"""From where a pass starts: from RAW, or from a tier that an earlier pass has left, where only conditions that act
behind the tier have changed.

The files of a tier have a name of their own, the lineage of all they depend on but for those conditions. A job that has
written them is entered as a product under it; every pass that would give them the same name can start from them. What
a pass makes, and its name, do not depend on where it started.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy.engine import Connection

from pipeline import accounting, journal
from pipeline.experiments.interface import Experiment
from pipeline.lineage import lineage
from pipeline.model import Chunk, Step
from pipeline.processing import Segment
from pipeline.segments import joined


@dataclass(frozen=True)
class Earlier:
    """A completed job, and the tier of it to start from."""

    tier: str
    job: str

    def __str__(self) -> str:
        return _instead_of_raw(self.tier)


@dataclass(frozen=True)
class Start:
    """From where the chunks of a job were started that could start from a tier of an earlier one."""

    tier: str
    chunks: int = 0
    raw: int = 0
    """chunks of which RAW was read after all"""
    why: str = ""
    """the reason for one of them"""

    def __str__(self) -> str:
        words = f"reads {_instead_of_raw(self.tier)}"
        return f"{words}, but for {self.raw} of {self.chunks} chunks: {self.why}" if self.raw else words


def tier_names(
    experiment: Experiment, step: Step, ingredients: Mapping[str, Any], segments: Sequence[Segment]
) -> dict[str, str]:
    """The names that files of the tiers to start from have: tier to lineage, the one with the least left to do first.

    `ingredients` is all that the step depends on beside its conditions.
    """
    return {
        restart.tier: lineage(tier=restart.tier, conditions=_before(segments, restart.kinds), **ingredients)
        for restart in experiment.restarts(step)
    }


def startable(
    names: Mapping[str, str], experiment: Experiment, step: Step, kinds: Collection[str], *, whole: bool
) -> dict[str, str]:
    """Of the tiers to start from those that a pass can use for calibrations of these kinds; for all that a step makes
    where it makes the `whole` of it."""
    lacking = {restart.tier: restart.lacks for restart in experiment.restarts(step)}
    unfit = {tier for tier, lacks in lacking.items() if set(lacks) & set(kinds) or (whole and lacks)}
    return {tier: name for tier, name in names.items() if tier not in unfit}


def kept_for(experiment: Experiment, step: Step, later: Mapping[str, Collection[str]]) -> list[str]:
    """The tiers that a pass leaves for later ones over the same events: those that one of these can start from.

    `later` are the kinds they make states for, and for each the kinds that may have changed by then.
    """
    return [
        restart.tier
        for restart in experiment.restarts(step)
        if any(set(changed) & set(restart.kinds) and kind not in restart.lacks for kind, changed in later.items())
    ]


def written(names: Mapping[str, str], tiers: Sequence[str] | None) -> list[str]:
    """The names of those tiers that a pass writes; `tiers` None for all."""
    return [name for tier, name in names.items() if tiers is None or tier in tiers]


def with_stored(connection: Connection, chunks: Sequence[Chunk], earlier: Earlier) -> list[Chunk]:
    """The chunks with what an earlier job over the same chunks has left of each."""
    if not chunks:
        return []
    wanted = range(chunks[0].index, chunks[-1].index + 1)
    stored = accounting.stored_of(connection, earlier.job, earlier.tier, wanted)
    return [replace(chunk, stored=stored[chunk.index]) for chunk in chunks]


def book_start(connection: Connection, run: int, job: str, started: Sequence[Mapping[str, str]], now: float) -> None:
    """Add up from where some chunks of a job were started, each once: `tier`, and the reason for RAW `instead`."""
    if not started:
        return
    raw = [note["instead"] for note in started if note["instead"]]
    before = start_of(connection, run, job) or Start(started[0]["tier"])
    why = before.why or next(iter(raw), "")
    total = replace(before, chunks=before.chunks + len(started), raw=before.raw + len(raw), why=why)
    journal.set_document(connection, run, _key(job), asdict(total), now)


def start_of(connection: Connection, run: int, job: str) -> Start | None:
    """From where a job of a run was started; None if from RAW as a matter of course."""
    found = journal.get_document(connection, run, _key(job))
    return Start(**found) if found else None


def _key(job: str) -> str:
    return f"start of {job}"


def _instead_of_raw(tier: str) -> str:
    return f"{tier} of the earlier pass, not RAW"


def _before(segments: Sequence[Segment], behind: Sequence[str]) -> list[list[Any]]:
    """The payloads by unit without some kinds, cut only where one of the others changes."""
    ids = ({kind: payload for kind, payload in segment.ids.items() if kind not in behind} for segment in segments)
    without = [Segment(segment.since, left) for segment, left in zip(segments, ids, strict=True)]
    return [[segment.since, dict(segment.ids)] for segment in joined(without)]
