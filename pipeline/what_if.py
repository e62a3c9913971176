"""What would change if a payload went in: which runs, units and outputs, what it would cost, and whether it is better.

Nothing is entered. The fate told is that of an append that is rolled back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection

from calib.conditions import ConditionsDB
from calib.iov import RunLumi
from calib.late import Fate
from calib.payload import Payload
from jobs.ledger import Ledger
from pipeline import accounting, catalog
from pipeline.certifying import prompts_of
from pipeline.datasets import dataset_named
from pipeline.express import folder_of_run
from pipeline.manifest import Manifest, Stretch
from pipeline.merits import Compared, compare
from pipeline.model import Chunk, Step
from pipeline.processing import ChunkWork
from pipeline.products import READING
from pipeline.released import Released
from pipeline.sampling import sample
from pipeline.two_ways import BothWays, TwoWays
from pipeline.world import World


@dataclass(frozen=True)
class Held:
    """What a job has made of one tier."""

    tier: str
    files: int
    events: int
    size: int
    """bytes"""


@dataclass(frozen=True)
class Touched:
    """A released run that would change: in which closed ranges of packed units, what was made of it, at what cost."""

    run: int
    ranges: tuple[tuple[int, int], ...]
    units: int
    """how many units with data lie in these ranges"""
    outputs: tuple[Held, ...] = ()
    """of its prompt; empty while that is not done"""
    cpu_s: float = 0.0
    """what its prompt took, in seconds of a worker"""

    @property
    def size(self) -> int:
        """Bytes that would be written again."""
        return sum(held.size for held in self.outputs)


@dataclass(frozen=True)
class Consequences:
    """What would follow from a payload that holds from `since` up to `until` (packed; None: open)."""

    kind: str
    payload_id: str
    tag: str
    since: int
    until: int | None
    fate: Fate
    touched: tuple[Touched, ...]
    waiting: tuple[int, ...] = ()
    """runs not released yet that would use it"""
    found: BothWays | None = None
    """of sampled events, where a sample was asked for"""
    compared: tuple[Compared, ...] = field(default=())

    @property
    def cpu_s(self) -> float:
        """Seconds of a worker that doing the touched runs again would take, going by what they took."""
        return sum(touched.cpu_s for touched in self.touched)

    @property
    def size(self) -> int:
        """Bytes that would be written again."""
        return sum(touched.size for touched in self.touched)

    @property
    def worse(self) -> bool:
        """Whether a figure of merit of the sampled events is worse with it."""
        return any(one.worse for one in self.compared)


def consequences(world: World, tag: str, payload: Payload, since: RunLumi) -> Consequences:
    """What would follow if a payload went into a tag. Raises UnknownTag, WrongKind, ValueError for a wrong moment."""
    released = world.books.released()
    manifests = {run: found.settled for run, found in released.items()}
    whole = {run for run, found in released.items() if found.whole(world.books.datasets)}
    settled = {run for run, manifest in manifests.items() if run in whole or payload.kind in manifest.kinds}
    with world.database.read() as connection:
        until = next_entry(world.conditions(connection), tag, since.packed)
        ranges = {
            run: found
            for run, manifest in sorted(manifests.items())
            if (found := changed_ranges(manifest, payload.kind, payload.id, since.packed, until))
        }
        touched = tuple(
            _touched(world, connection, run, found, _with(released[run], payload.kind)) for run, found in ranges.items()
        )
        waiting = tuple(
            run
            for run in catalog.runs(connection)
            if run not in settled and since.run <= run and (until is None or RunLumi(run).packed < until)
        )
    fate = _fate(world, tag, payload, since)
    return Consequences(payload.kind, payload.id, tag, since.packed, until, fate, touched, waiting)


def next_entry(db: ConditionsDB, tag: str, since: int) -> int | None:
    """Where the payload that follows begins (packed). Copies made only to keep what is settled do not count."""
    later = (v.iov.since.packed for v in db.intervals(tag) if v.entry.origin == v.entry.sequence)
    return min((begin for begin in later if begin > since), default=None)


def changed_ranges(
    manifest: Manifest, kind: str, payload_id: str, since: int, until: int | None
) -> tuple[tuple[int, int], ...]:
    """The closed ranges of packed units whose payload would be another one. Pure."""
    found = []
    for stretch in manifest.kinds.get(kind, ()):
        first = max(stretch.first, since)
        last = stretch.last if until is None else min(stretch.last, until - 1)
        if first <= last and stretch.payload != payload_id:
            found.append((first, last))
    return tuple(found)


def under(manifest: Manifest, kind: str, payload_id: str, ranges: Sequence[tuple[int, int]]) -> Manifest:
    """The manifest as it would be with a payload in these ranges. Pure."""
    parts: list[Stretch] = []
    for stretch in manifest.kinds[kind]:
        inside = [(first, last) for first, last in ranges if stretch.first <= first and last <= stretch.last]
        begin = stretch.first
        for first, last in inside:
            if begin < first:
                parts.append(replace(stretch, first=begin, last=first - 1))
            parts.append(replace(stretch, first=first, last=last, payload=payload_id))
            begin = last + 1
        if begin <= stretch.last:
            parts.append(replace(stretch, first=begin))
    return replace(manifest, kinds={**manifest.kinds, kind: tuple(parts)})


def samples(world: World, found: Consequences, events: int) -> list[tuple[TwoWays, Chunk]]:
    """What to do both ways for about so many events, spread evenly over the touched runs and their units."""
    work: list[tuple[TwoWays, Chunk]] = []
    released = world.books.released()
    runs = found.touched[:: max(1, len(found.touched) // max(1, events))] if found.touched else ()
    share = -(-events // max(1, len(runs)))
    for touched in runs:
        with world.database.read() as connection:
            pieces = [piece for piece in catalog.pieces_of(connection, touched.run) if _within(piece.unit, touched)]
        chunks = list(sample(touched.run, pieces, share))
        for manifest in _with(released[touched.run], found.kind):
            ways = two_ways(world, manifest, under(manifest, found.kind, found.payload_id, touched.ranges))
            work += [(ways, chunk) for chunk in chunks]
    return work


def two_ways(world: World, old: Manifest, new: Manifest) -> TwoWays:
    """Prompt of a run, or of a dataset of it, under two manifests, for events of which nothing is kept."""
    dataset = dataset_named(world.settings.datasets, new.dataset)
    ways = [
        ChunkWork(
            experiment=world.experiment,
            step=Step.PROMPT,
            calibrations=(),
            segments=manifest.segments(),
            conditions_root=str(world.store.root),
            folder=folder_of_run(world.area, new.run),
            header={},
            dataset=dataset,
        )
        for manifest in (old, new)
    ]
    return TwoWays(*ways)


def try_out(world: World, found: Consequences, events: int) -> Consequences:
    """The consequences with about so many events done both ways, here and now."""
    work = samples(world, found, events)
    shown = [ways.leaf(chunk, "what if")[1] for ways, chunk in work]
    return judged(world, found, work[0][0].merge(shown)) if work else found


def judged(world: World, found: Consequences, both: BothWays) -> Consequences:
    """The consequences with what sampled events have shown."""
    experiment = world.experiment
    compared = compare(experiment.merits(), experiment.histograms(Step.PROMPT), both.old, both.new)
    return replace(found, found=both, compared=compared)


def _within(unit: int, touched: Touched) -> bool:
    return any(first <= unit <= last for first, last in touched.ranges)


def _with(released: Released, kind: str) -> list[Manifest]:
    """The manifests of a run that name a kind: those of the datasets that depend on it."""
    return [manifest for manifest in released.manifests.values() if kind in manifest.kinds]


def _touched(
    world: World,
    connection: Connection,
    run: int,
    ranges: tuple[tuple[int, int], ...],
    manifests: Sequence[Manifest],
) -> Touched:
    units, _ = catalog.units(connection, run)
    inside = sum(int(((units >= first) & (units <= last)).sum()) for first, last in ranges)
    prompts = prompts_of(world.books.document(run, "certification") or {}, {})
    jobs = [prompts[manifest.dataset] for manifest in manifests if manifest.dataset in prompts]
    tiers: dict[str, Held] = {}
    for output in (output for job in jobs for output in accounting.outputs_of(connection, job)):
        held = tiers.get(output.tier, Held(output.tier, 0, 0, 0))
        tiers[output.tier] = Held(output.tier, held.files + 1, held.events + output.events, held.size + output.size)
    spent = sum(Ledger(connection, READING).spent(job) for job in jobs)
    return Touched(run, ranges, inside, tuple(tiers.values()), spent)


def _fate(world: World, tag: str, payload: Payload, since: RunLumi) -> Fate:
    """What an append would be told now."""
    with world.database.trial() as connection:
        return world.conditions(connection).append(tag, since, payload, world.stamp("what if"))
