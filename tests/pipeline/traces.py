"""What a Tier-0 left behind: results to compare, and how often work was started."""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from calib.tags import Sync
from jobs.tables import jobs, nodes, starts
from pipeline import accounting
from pipeline.content import content_hash
from pipeline.events import SourceFile, read_header, tier_columns
from pipeline.model import Step
from pipeline.settings import settings_from
from pipeline.world import World, open_world

STEPS = ("express", "conditions", "prompt")


@dataclass(frozen=True)
class Results:
    """All that must be the same however often and wherever it was made; times, paths and attempts are left out."""

    payloads: list[Any]
    """kind, where it holds, id"""
    outputs: dict[Any, str]
    """run and tier to the hash of the content of its prompt; a tier in two forms has an entry for each, by columns"""
    counts: dict[Any, Any]
    """run and step to counts by unit"""
    manifests: dict[int, Any]
    good: dict[int, Any]


def results(plain) -> Results:
    """What the latest processing version of these settings has made."""
    world = open_world(settings_from(plain))
    try:
        return _results(world)
    finally:
        world.database.close()


def _results(world: World) -> Results:
    certified = world.books.documents("certification")
    with world.database.read() as connection:
        db = world.conditions(connection)
        held = [(tag, str(v.iov), v.payload_id) for tag in _tags(world) for v in db.intervals(tag)]
        outputs, counts = {}, {}
        for run, job in _jobs(world, connection):
            paths: dict[str, dict[tuple[str, ...], list[str]]] = {}
            for file in accounting.outputs_of(connection, job[Step.PROMPT]):
                columns = tuple(sorted(tier_columns(SourceFile.open(file.path))))
                paths.setdefault(file.tier, {}).setdefault(columns, []).append(file.path)
            for tier, forms in paths.items():
                for columns, found in forms.items():
                    outputs[(run, tier) if len(forms) == 1 else (run, tier, columns)] = content_hash(found)
            counts |= {(run, step): accounting.counts_of(connection, name) for step, name in job.items()}
    manifests = {run: world.books.manifest(run).content() for run in world.books.documents("manifest")}
    good = {run: found["good"] for run, found in certified.items()}
    return Results(held, outputs, counts, manifests, good)


def fed(plain) -> list[Any]:
    """What express was given by the runs before: tag, where it holds, id."""
    world = open_world(settings_from(plain))
    try:
        with world.database.read() as connection:
            db = world.conditions(connection)
            tags = db.global_tag(world.global_tag(Sync.EXPRESS)).values()
            return [(tag.name, str(v.iov), v.payload_id) for tag in tags for v in db.intervals(tag.name)]
    finally:
        world.database.close()


def _tags(world):
    return list(world.publication().tag_of_kind.values())


def _jobs(world, connection):
    """Run to its express and prompt job, for runs that are certified."""
    status = world.books.documents("status")
    for run, found in world.books.documents("certification").items():
        product = status[run]["express"]
        express = accounting.made_by(connection, [product])[product]
        yield run, {Step.EXPRESS: express, Step.PROMPT: found["prompt"]}


def stray(plain, run: int, name: str, written_at: float = 0.0) -> Path:
    """A file among those of a run that no row knows, as a killed attempt leaves it."""
    path = Path(plain["storage"]["area"]) / "runs" / str(run) / "express-0" / "EXPRESS" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("half of something")
    os.utime(path, (written_at, written_at))
    return path


def headers(plain, step) -> list[dict[str, Any]]:
    """The headers of all output files of a step that count, whatever version made them."""
    world = open_world(settings_from(plain))
    with world.database.read() as connection:
        found = connection.execute(sa.text("SELECT path FROM catalog_outputs WHERE step = :step"), {"step": step})
        paths = [path for (path,) in found]
    world.database.close()
    return [read_header(path) for path in paths]


def work(plain) -> Counter[str]:
    """How many leaves were started in each step, repeats counted."""
    started: Counter[str] = Counter()
    query = sa.select(jobs.c.task_group, starts.c.leaves).join(jobs, jobs.c.name == starts.c.job)
    for group, leaves in _rows(plain, query):
        started[group.partition("-")[0]] += leaves
    return started


def done_again(plain) -> int:
    """How many nodes were started after they had been committed."""
    same = sa.and_(*(starts.c[name] == nodes.c[name] for name in ("job", "level", "place")))
    later = sa.or_(
        starts.c.epoch > nodes.c.epoch,
        sa.and_(starts.c.epoch == nodes.c.epoch, starts.c.attempt > nodes.c.attempt),
    )
    [(number,)] = _rows(plain, sa.select(sa.func.count()).select_from(starts.join(nodes, same)).where(later))
    return int(number)


def starts_and_commits(plain) -> tuple[int, int]:
    """How many nodes were started, repeats counted, and how many are committed."""
    [(begun,)] = _rows(plain, sa.select(sa.func.count()).select_from(starts))
    [(committed,)] = _rows(plain, sa.select(sa.func.count()).select_from(nodes))
    return begun, committed


def _rows(plain, query):
    world = open_world(settings_from(plain))
    try:
        with world.database.read() as connection:
            return connection.execute(query).all()
    finally:
        world.database.close()
