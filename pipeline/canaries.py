"""The canaries of a service: started when a run could be released, kept, and obeyed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path

from sqlalchemy import Connection

from jobs.flight import Items
from jobs.job import Job
from jobs.reduction import NodeReceipt, Work
from pipeline import catalog
from pipeline.canary import (
    CANARY,
    Verdict,
    after_canary,
    canary_chunks,
    canary_job,
    fresh_payloads,
    verdict,
)
from pipeline.canary_plot import draw
from pipeline.datasets import place_text
from pipeline.handshake import Hold, Release, Wait
from pipeline.manifest import Manifest
from pipeline.model import Chunk, Step
from pipeline.processing import nothing
from pipeline.release import NoConditions, complete, release
from pipeline.two_ways import TwoWays
from pipeline.waivers import Waiver
from pipeline.way import Ends, Part, Way
from pipeline.what_if import two_ways
from pipeline.world import World

Start = Callable[[Way, Job, Work, Items, Ends], None]
"""begins a job on behalf of a run"""


class Canaries:
    """Asks of every release that publishes something whether it makes the first events of its run worse."""

    def __init__(self, world: World, start: Start, spoken: Callable[[Way], None]) -> None:
        self._world, self._start, self._spoken = world, start, spoken
        self._running: dict[str, int] = {}
        self._verdicts: dict[str, Verdict] = {}

    def after(self, way: Way, part: Part, found: Release, waiver: Waiver | None) -> Release | Wait | Hold:
        """What becomes of a release that the handshake allows; a canary that it needs is begun."""
        fresh = fresh_payloads(found)
        if part.canary is None or not fresh:
            return found
        try:
            old, new = self._prospects(way, found)
        except NoConditions:
            return found  # the release itself says what is lacking
        with self._world.database.read() as connection:
            chunks = _chunks(connection, way.run, old, new, part.canary)
        if old.missing or not chunks:
            return found  # nothing was in force that it could be held to
        job = canary_job(way.run, old, new, self._world.experiment, chunks, part.dataset)
        record = part.dataset.of(CANARY)
        known = self._known(way.run, record, job.name)
        if known is None and job.name not in self._running:
            if way.run in self._running.values():
                # Once that is released, there may be nothing new left to try here.
                return Wait({CANARY: "the first events of another dataset of the run go both ways"}, None)
            self._begin(way, record, job, two_ways(self._world, old, new), chunks)
            known = self._known(way.run, record, job.name)
        if known is not None and known.worse:
            part.offered = {**part.offered, CANARY: fresh}
        return after_canary(way.run, found, known, None if waiver is None else set(fresh) <= set(waiver.payloads))

    def _prospects(self, way: Way, found: Release) -> tuple[Manifest, Manifest]:
        """What the run would get with nothing published, and with all of it. Raises NoConditions."""
        world = self._world
        with world.database.trial() as connection:
            db, publication = world.conditions(connection), world.publication()
            snapshot = db.snapshot(publication.global_tag)
            old = complete(db, snapshot, way.run, way.units, found, publication.version)
            return old, release(db, way.run, way.units, found, publication, nothing)

    def _begin(self, way: Way, record: str, job: Job, ways: TwoWays, chunks: Sequence[Chunk]) -> None:
        self._running[job.name] = way.run
        self._world.probe("canary")
        ends = (partial(self._done, way, record, job, ways), partial(self._failed, way, job))
        self._start(way, job, ways, partial(_among, chunks), ends)

    def _known(self, run: int, record: str, name: str) -> Verdict | None:
        if name not in self._verdicts:
            kept = self._world.books.document(run, record)
            if kept is not None and kept["name"] == name:
                self._verdicts[name] = Verdict.from_document(kept)
        return self._verdicts.get(name)

    def _done(self, way: Way, record: str, job: Job, ways: TwoWays, root: NodeReceipt) -> None:
        world, both = self._world, ways.load(root.state)
        path = Path(world.area) / CANARY / f"{way.run}-{job.name[:12]}.png"
        found, compared = verdict(job.name, world.experiment, both, str(path))
        if compared:
            place = place_text(way.run, ways.new.dataset.name)
            title = f"{place}: its first {found.events} events under the conditions in force and the new ones"
            draw(path, title, compared, world.experiment.histograms(Step.PROMPT), both)
        world.probe("canary-verdict")
        world.books.record(way.run, record, found.to_document())
        world.probe("canary-known")
        self._speak(way, found)

    def _failed(self, way: Way, job: Job, reason: str) -> None:
        # Not recorded: what failed may pass, and the next start tries it again.
        self._speak(way, Verdict(job.name, True, (f"it could not be done: {reason}",)))

    def _speak(self, way: Way, found: Verdict) -> None:
        self._running.pop(found.name, None)
        self._verdicts[found.name] = found
        self._spoken(way)


def _chunks(connection: Connection, run: int, old: Manifest, new: Manifest, part: int | Fraction) -> list[Chunk]:
    return canary_chunks(run, list(catalog.pieces_of(connection, run)), old, new, part)


def _among(chunks: Sequence[Chunk], leaves: range) -> list[Chunk]:
    return [chunks[leaf] for leaf in leaves]
