"""Kill any process at any moment: nothing is lost, nothing is there twice, nothing committed is done again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.jobs import kill_harness as harness


def test_every_kill_point_of_the_driver(tmp_path: Path) -> None:
    points = {"submit": 9, "ledger-commit": 5, "ledger-committed": 5}
    for point, hit in points.items():
        driver = harness.start_driver(tmp_path, 120, f"{point}:{hit}")
        assert driver.wait(60) == -9
        assert (tmp_path / f"killed-{point}").exists()
    harness.finish(tmp_path, harness.start_driver(tmp_path, 120))
    harness.check(tmp_path, 120)


# In the gate drivers and workers are killed at random over the whole chain: tests/pipeline/test_kills.py.
@pytest.mark.verify
def test_drivers_killed_at_random(tmp_path: Path) -> None:
    assert harness.kill_drivers(tmp_path, 500, kills=5, seed=1) == 5
    harness.check(tmp_path, 500)


@pytest.mark.verify
def test_workers_killed_at_random(tmp_path: Path) -> None:
    assert harness.kill_workers(tmp_path, 500, kills=5, seed=2) == 5
    harness.check(tmp_path, 500)


@pytest.mark.verify
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", [3, 4])
def test_forty_drivers_killed(tmp_path: Path, seed: int) -> None:
    assert harness.kill_drivers(tmp_path, 4000, kills=20, seed=seed) == 20
    harness.check(tmp_path, 4000)


@pytest.mark.verify
@pytest.mark.timeout(1200)
def test_forty_workers_killed(tmp_path: Path) -> None:
    assert harness.kill_workers(tmp_path, 4000, kills=40, seed=5) == 40
    harness.check(tmp_path, 4000)
