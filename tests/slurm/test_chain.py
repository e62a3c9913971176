"""The whole chain on two batch nodes gives the same bits as on processes of this host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline import accounting
from pipeline.content import content_hash
from pipeline.tier0 import Tier0
from tests.pipeline import colliding
from tests.pipeline.tiny import settings, write_file
from tests.slurm.loopback import NODES, Slurm

REPOSITORY = Path(__file__).parents[2]
RUNS = (1, 2)


def made(tier0: Tier0, kind: str) -> tuple[list[str], list[str]]:
    """Payload ids in force and the content of every run's prompt output."""
    payloads = [interval.payload.id for interval in tier0.conditions.intervals(kind)]
    hashes = []
    for run in RUNS:
        prompt = tier0._world.books.document(run, "certification")["prompt"]
        with tier0._world.database.read() as connection:
            paths = [output.path for output in accounting.outputs_of(connection, prompt)]
        hashes.append(content_hash(paths))
    return payloads, hashes


def on_nodes(scratch: Path) -> dict[str, Any]:
    """Settings of a cluster of two batch jobs."""
    return {
        "kind": "slurm",
        "workers": 2,
        "memory": "500 MB",
        "spill": "1 GB",
        "walltime": "00:10:00",
        "interface": "lo",
        "dashboard_port": 0,
        "prologue": [f"export PYTHONPATH={REPOSITORY}"],
        "scratch": str(scratch),
    }


@pytest.mark.parametrize("kind", [pytest.param("offset", marks=pytest.mark.verify), "beamspot"])
def test_same_bits_on_two_batch_nodes(slurm: Slurm, tmp_path: Path, kind: str) -> None:
    """Sums of integers; and fits in floating point over both runs, cut and merged otherwise than here."""
    files: list[Any]
    if kind == "offset":
        files, sections = [write_file(tmp_path / "data" / f"{run}.root", run, lumis=6) for run in RUNS], {}
        cuts: list[dict[str, Any]] = [{}, {}]
    else:
        files, sections = colliding.collider_files(tmp_path / "data"), dict(colliding.SECTIONS)
        cuts = [{"splitting": {"units": 1, "fan_in": 2}}, {"splitting": {"events": 1000, "fan_in": 4}}]
    with Tier0(settings(tmp_path / "batch", cluster=on_nodes(tmp_path / "scratch"), **cuts[0], **sections)) as tier0:
        tier0.client.wait_for_workers(2, timeout=60)
        assert set(slurm.jobs().values()) == set(NODES)
        assert tier0.run(*files, progress=False).exit_code == 0
        on_batch = made(tier0, kind)
    with Tier0(settings(tmp_path / "here", **cuts[1], **sections)) as tier0:
        assert tier0.run(*files, progress=False).exit_code == 0
        here = made(tier0, kind)
        if kind == "beamspot":
            colliding.made(tier0)
    assert on_batch == here
