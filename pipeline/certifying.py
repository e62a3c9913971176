"""Certification of a run whose prompt is done: from its quality histograms and accounts to the document kept of it."""

from __future__ import annotations

from typing import Any

from calib.state import State, unpack_states
from jobs.job import Job
from jobs.reduction import NodeReceipt
from pipeline import accounting
from pipeline.certify import certify, spoken_against
from pipeline.manifest import Manifest
from pipeline.processing import QUALITY
from pipeline.way import Way
from pipeline.world import World


def certification(world: World, way: Way, manifest: Manifest, job: Job, root: NodeReceipt) -> dict[str, Any]:
    """What is kept of a run's certification, as JSON; it names the manifest and the job of its prompt."""
    quality = unpack_states(root.state.files[0].path).get(QUALITY)
    tests = world.experiment.quality_tests() if quality is not None else ()
    with world.database.read() as connection:
        bad = accounting.bad_units(connection, job.name)
    set_aside = spoken_against(bad, manifest.vetoed)
    found = certify(way.run, way.units.tolist(), quality or State({}), tests, set_aside, world.certified)
    return found.to_document(manifest.id) | {"prompt": job.name}
