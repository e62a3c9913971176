"""The whole chain on two batch nodes gives the same bits as on processes of this host."""

from __future__ import annotations

from pathlib import Path

from pipeline import accounting
from pipeline.content import content_hash
from pipeline.tier0 import Tier0
from tests.pipeline.tiny import settings, write_file
from tests.slurm.loopback import NODES, Slurm

REPOSITORY = Path(__file__).parents[2]


def made(tier0: Tier0, runs: tuple[int, ...]) -> tuple[list[str], list[str]]:
    """Payload ids in force and the content of every run's prompt output."""
    payloads = [interval.payload.id for interval in tier0.conditions.intervals("offset")]
    hashes = []
    for run in runs:
        prompt = tier0._world.books.document(run, "certification")["prompt"]
        with tier0._world.database.read() as connection:
            paths = [output.path for output in accounting.outputs_of(connection, prompt)]
        hashes.append(content_hash(paths))
    return payloads, hashes


def test_same_bits_on_two_batch_nodes(slurm: Slurm, tmp_path: Path) -> None:
    files = [write_file(tmp_path / "data" / f"{run}.root", run, lumis=6) for run in (1, 2)]
    batch = {
        "kind": "slurm",
        "workers": 2,
        "memory": "500 MB",
        "spill": "1 GB",
        "walltime": "00:10:00",
        "interface": "lo",
        "dashboard_port": 0,
        "prologue": [f"export PYTHONPATH={REPOSITORY}"],
        "scratch": str(tmp_path / "scratch"),
    }
    with Tier0(settings(tmp_path / "batch", cluster=batch)) as tier0:
        tier0.client.wait_for_workers(2, timeout=60)
        assert set(slurm.jobs().values()) == set(NODES)
        assert tier0.run(*files, progress=False).exit_code == 0
        on_batch = made(tier0, (1, 2))
    with Tier0(settings(tmp_path / "here")) as tier0:
        assert tier0.run(*files, progress=False).exit_code == 0
        here = made(tier0, (1, 2))
    assert on_batch == here
