"""The canary: the first events of a run go both ways, under the conditions in force and the new ones, before its prompt
is released. Where a figure of merit gets worse, the run is held, and nothing of it is published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import Any

from jobs.job import Job, Lane
from pipeline.datasets import WHOLE, Dataset, group_of
from pipeline.experiments.interface import Experiment
from pipeline.handshake import Hold, Release, Wait
from pipeline.lineage import lineage
from pipeline.manifest import Condition, Manifest
from pipeline.merits import Compared, compare
from pipeline.model import Chunk, Piece, Step
from pipeline.sampling import first_part
from pipeline.two_ways import BothWays

CANARY = "canary"
FAN_IN = 16


@dataclass(frozen=True)
class Verdict:
    """What a canary has shown. `name` is the lineage of what it looked at: another decision needs another canary."""

    name: str
    worse: bool
    figures: tuple[str, ...]
    """every figure of merit in words, those that got worse first"""
    events: int = 0
    changed: int = 0
    """of these events, how many come out otherwise"""
    plot: str = ""
    """path of the picture"""

    @property
    def why(self) -> str:
        """In one sentence."""
        seen = f"{self.changed} of {self.events} events change"
        picture = f"; see {self.plot}" if self.plot else ""
        return f"{'; '.join(self.figures) or 'nothing to judge by'} ({seen}){picture}"

    def to_document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @classmethod
    def from_document(cls, found: Mapping[str, Any]) -> Verdict:
        """Read what `to_document` gave."""
        return cls(**{**found, "figures": tuple(found["figures"])})


def changed_units(old: Manifest, new: Manifest) -> tuple[tuple[int, int], ...]:
    """The closed ranges of packed units for which some kind has another payload. Pure."""
    ranges = []
    for kind, stretches in new.kinds.items():
        for stretch in stretches:
            for before in old.kinds.get(kind, ()):
                first, last = max(stretch.first, before.first), min(stretch.last, before.last)
                if first <= last and stretch.payload != before.payload:
                    ranges.append((first, last))
    return tuple(sorted(set(ranges)))


def canary_chunks(run: int, pieces: Sequence[Piece], old: Manifest, new: Manifest, part: int | Fraction) -> list[Chunk]:
    """The first part of a run of which the conditions change: so many units, or such a share of all events."""
    ranges = changed_units(old, new)
    inside = [piece for piece in pieces if any(first <= piece.unit <= last for first, last in ranges)]
    if isinstance(part, Fraction) and inside:
        # A share of the whole run, not of what changes.
        total, changing = (sum(piece.events for piece in among) for among in (pieces, inside))
        part = min(Fraction(1), part * total / changing)
    return first_part(run, inside, part)


def canary_job(
    run: int,
    old: Manifest,
    new: Manifest,
    experiment: Experiment,
    chunks: Sequence[Chunk],
    dataset: Dataset = WHOLE,
) -> Job:
    """Both ways over these chunks, named by all that the outcome depends on."""
    name = lineage(
        canary_of=[[[p.path, p.start, p.stop, p.unit] for p in chunk.pieces] for chunk in chunks],
        experiment=experiment.name,
        version=experiment.versions[Step.PROMPT],
        settings=experiment.step_settings(),
        old=old.content(),
        new=new.content(),
        merits=[asdict(merit) for merit in experiment.merits()],
        **dataset.ingredients,
    )
    group = group_of(CANARY, run, dataset.name)
    return Job(name=name, group=group, lane=Lane.CONDITIONS, leaves=len(chunks), fan_in=FAN_IN)


def verdict(name: str, experiment: Experiment, both: BothWays, plot: str = "") -> tuple[Verdict, tuple[Compared, ...]]:
    """What the two ways say; worse when any figure of merit is. `plot` is where the picture goes, if there is one."""
    compared = compare(experiment.merits(), experiment.histograms(Step.PROMPT), both.old, both.new)
    figures = tuple(str(one) for one in sorted(compared, key=lambda one: not one.worse))
    worse = any(one.worse for one in compared)
    seen = both.differences
    return Verdict(name, worse, figures, seen.events, seen.changed, plot if compared else ""), compared


def after_canary(run: int, release: Release, found: Verdict | None, accepted: bool | None) -> Release | Wait | Hold:
    """What becomes of a run's release that needs a canary. Pure.

    `found` is None while it runs. `accepted` is what a person has said to a bad one: True to publish all the same,
    False to go on with the payloads in force, None where nobody has.
    """
    if found is None:
        return Wait({CANARY: "its first events go both ways, under the conditions in force and the new ones"}, None)
    if not found.worse or accepted:
        return release
    if accepted is None:
        return Hold({CANARY: f"the new conditions are worse on its first events: {found.why}; {ways_on(run)}"})
    return in_force(release, f"the canary was against the new payload: {found.figures[0]}")


def ways_on(run: int) -> str:
    """What a person can order for a run that its canary holds, in words."""
    order = f"tier0 waive {run} {CANARY}"
    publish, go_on = f"`{order} --publish --reason ...`", f"`{order} --reason ...`"
    return f"{publish} publishes them all the same, {go_on} goes on with the payload in force"


def in_force(release: Release, why: str) -> Release:
    """The same release with the payloads in force where it would publish new ones. Pure."""
    stretches = {
        kind: tuple(
            replace(stretch, condition=Condition.FALLBACK, payload=None, why=why)
            if stretch.condition is Condition.FRESH and kind not in release.settled
            else stretch
            for stretch in found
        )
        for kind, found in release.stretches.items()
    }
    waivers = {kind: waiver for kind, waiver in release.waivers.items() if kind in release.settled}
    return replace(release, stretches=stretches, intervals={}, waivers=waivers, late=frozenset())


def fresh_payloads(release: Release) -> tuple[str, ...]:
    """The ids of the payloads that a release publishes; only where there is one is there something to try."""
    new = (found for kind, found in release.stretches.items() if kind not in release.settled)
    stretches = (stretch for found in new for stretch in found)
    return tuple(sorted({s.payload for s in stretches if s.condition is Condition.FRESH and s.payload}))
