"""What `tier0 run` can refuse by looking is refused before a cluster is started for it."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner, Result

from jobs.lease import Holder, take_lease
from pipeline.cli import main
from pipeline.database import open_database
from pipeline.ingest import ingest
from pipeline.tier0 import NoFiles, Tier0
from pipeline.toml_text import toml_text
from tests.pipeline.tiny import Tiny, settings, write_file

CLUSTER = {"kind": "slurm", "memory": "1 GB"}
STARTED = "no sbatch on this host"
"""what is said where a cluster is asked for"""


@pytest.fixture(autouse=True)
def _no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No batch system is found."""
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    """Settings, beside one good file."""
    path = tmp_path / "tiny.toml"
    path.write_text(toml_text(settings(tmp_path / "area", cluster=CLUSTER)))
    write_file(tmp_path / "7.root", 7)
    return path


def run(*words: object) -> Result:
    return CliRunner().invoke(main, ["run", *map(str, words), "--quiet"])


def test_what_is_in_order_starts_one(toml: Path) -> None:
    assert STARTED in run(toml, toml.parent / "7.root").output


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["8.root"], "8.root is not there: look at the names; nothing is begun"),
        (["8.root", "7.root/9.root"], "8.root and all other files named are not there"),
        (["7.root", "8*.root"], "no file matches"),
    ],
)
def test_files_that_are_not_there(toml: Path, names: list[str], said: str) -> None:
    files = [toml.parent / name for name in names]
    for more in ((), ("--dry-run",)):
        done = run(toml, *files, *more)
        assert done.exit_code == 1 and done.output.startswith("tier0: ") and said in done.output


def test_a_missing_file_stops_only_itself(toml: Path) -> None:
    assert STARTED in run(toml, toml.parent / "7.root", toml.parent / "8.root").output


def test_a_file_that_gave_events_once_may_be_gone(toml: Path) -> None:
    file = toml.parent / "7.root"
    tier0 = Tier0(toml)
    database = open_database(toml.parent / "area" / "tier0.db")
    ingest(database.begin, Tiny(), [file], 0.0)
    file.unlink()
    assert "on this cluster" in str(tier0.plan(file))
    with pytest.raises(NoFiles):
        tier0.plan(toml.parent / "8.root")


def driven_by_another(toml: Path) -> int:
    """Give the area of these settings to another process that lives; its pid."""
    Tier0(toml)
    other = psutil.Process(os.getppid())
    with open_database(toml.parent / "area" / "tier0.db").begin() as connection:
        take_lease(connection, Holder(Holder.here().host, other.pid, other.create_time()))
    return other.pid


def test_a_second_driver(toml: Path) -> None:
    pid = driven_by_another(toml)
    done = run(toml, toml.parent / "7.root")
    assert done.exit_code == 5 and f"another driver works on this database: pid {pid}" in done.output


def test_a_second_driver_that_would_simulate(toml: Path) -> None:
    mini = {"name": "ref10", "settings": {"geometry": "mini"}}
    toml.write_text(toml_text(settings(toml.parent / "area", cluster=CLUSTER) | {"experiment": mini, "splitting": {}}))
    words = ["simulate", str(toml), str(toml.parent / "raw"), "--runs", "7", "--quiet"]
    assert STARTED in CliRunner().invoke(main, words).output
    driven_by_another(toml)
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 5 and "another driver works on this database" in done.output


def test_settings_that_were_forgotten_are_asked_for(toml: Path) -> None:
    file = toml.parent / "7.root"
    form = "that comes first: tier0 run SETTINGS FILES..., such as `tier0 run"
    for files, meant in (((file,), "tier0.toml"), ((file, file), "tier0.toml"), ((file, toml), toml)):
        done = run(*files)
        assert done.exit_code == 2 and f"{file} is no settings file, and {form} {meant} {file}`" in done.output
    done = run(toml.parent / "8.root")
    assert done.exit_code == 2 and form in done.output


def test_files_that_were_forgotten_are_asked_for(toml: Path) -> None:
    done = run(toml)
    assert done.exit_code == 2 and f"no event files are named: tier0 run {toml} FILES..." in done.output
