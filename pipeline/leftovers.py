"""What killed and repeated attempts have left on disk: no row knows it, so nobody will ever read it."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import sqlalchemy as sa
from dask.utils import parse_timedelta
from sqlalchemy import Connection

from jobs.ledger import Ledger
from jobs.sweep import sweep
from jobs.tables import jobs
from pipeline.canary import CANARY
from pipeline.datasets import group_of
from pipeline.express import express_group, folder_of_run, pass_group
from pipeline.products import READING
from pipeline.prompt import prompt_group
from pipeline.world import World

logger = logging.getLogger(__name__)

MARGIN_S = 60.0


def clear_leftovers(world: World, runs: Sequence[int]) -> int:
    """Delete what killed attempts left in the folders of these runs, and payloads never whole; gives how many.

    A task ends itself at twice its time limit, so what has not been written to for longer belongs to nobody.
    """
    grace = 2 * parse_timedelta(world.settings.cluster.longest_task) + MARGIN_S
    return sum(_clear(world, run, grace) for run in runs) + _clear_payloads(world, grace)


def _clear_payloads(world: World, grace_s: float) -> int:
    found = world.store.partials(grace_s, world.now())
    for folder in found:
        world.probe("delete")
        shutil.rmtree(folder, ignore_errors=True)
    if found:
        logger.info("%d payloads that were never whole are deleted", len(found))
    return len(found)


def _clear(world: World, run: int, grace_s: float) -> int:
    with world.database.read() as connection:
        ledger = Ledger(connection, READING)
        known = {file.path for file in ledger.files(_groups(connection, run))}
    found = list(sweep(Path(folder_of_run(world.area, run)), known, grace_s, world.now()))
    for path in found:
        world.probe("delete")
        with suppress(FileNotFoundError):
            path.unlink()
    if found:
        logger.info("run %d: %d files of attempts that did not count are deleted", run, len(found))
    return len(found)


def _groups(connection: Connection, run: int) -> list[str]:
    """What the tasks of a run are called that write into its folder; also those of datasets that are no more."""
    own = [express_group(run), pass_group(run), group_of(CANARY, run, ""), prompt_group(run)]
    of_datasets = (jobs.c.task_group.startswith(f"{group}-", autoescape=True) for group in own)
    return [*own, *connection.scalars(sa.select(jobs.c.task_group).where(sa.or_(*of_datasets)).distinct())]
