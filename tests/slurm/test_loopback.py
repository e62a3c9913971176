"""SLURM on loopback comes up with two nodes, leaves nothing behind, and is not skipped in silence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.slurm.conftest import insist
from tests.slurm.loopback import NODES, Slurm, reason, unavailable


def test_what_is_missing_is_named() -> None:
    assert unavailable(0, lambda name: f"/usr/bin/{name}") is None
    assert unavailable(1000, lambda name: f"/usr/bin/{name}") == "SLURM on loopback is brought up by root only"
    why = unavailable(0, lambda name: None if name in ("munged", "sbatch") else name)
    assert why == "no munged, sbatch: as root, apt-get update && apt-get install slurm-wlm munge"


def test_missing_slurm_skips_at_home_and_fails_in_ci() -> None:
    insist(None, {"CI": "true"})
    with pytest.raises(pytest.skip.Exception, match="no sbatch"):
        insist("no sbatch", {})
    with pytest.raises(pytest.fail.Exception, match="no sbatch"):
        insist("no sbatch", {"CI": "true"})


def test_two_jobs_go_to_two_nodes(slurm: Slurm) -> None:
    for _ in NODES:
        slurm.ask("sbatch", "--output=/dev/null", "--mem=100M", "--wrap", "sleep 60")
    slurm.wait_until(lambda: set(slurm.jobs().values()) == set(NODES), "running on two nodes")
    slurm.ask("scancel", *slurm.jobs())
    slurm.wait_until(lambda: not slurm.jobs(), "empty")


def test_nothing_stays_behind() -> None:
    insist(reason(), {})
    program = "sbatch --output=/dev/null --wrap 'sleep 600' >/dev/null; echo $SLURM_CONF"
    done = subprocess.run(
        [sys.executable, "-m", "tests.slurm.loopback", "sh", "-c", program], capture_output=True, text=True, check=True
    )
    configuration = Path(done.stdout.strip())
    assert configuration.name == "slurm.conf"
    assert not configuration.parent.exists()
    assert [process for process in psutil.process_iter(["environ"])
            if (process.info["environ"] or {}).get("SLURM_CONF") == str(configuration)] == []  # fmt: skip


def test_what_did_not_come_up_shows_its_logs(tmp_path: Path) -> None:
    (tmp_path / "slurmctld.log").write_text("fatal: no such thing")
    with pytest.raises(RuntimeError, match=r"not up after 0 s\n--- slurmctld.log\nfatal: no such thing"):
        Slurm(tmp_path).wait_until(lambda: False, "up", timeout=0.0)
