"""Fixtures for everyone: where the real data lie, and how hypothesis searches."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

# Tables are as wide as usual, whatever width the tests are called with.
os.environ.pop("COLUMNS", None)

# The gate tries the same examples every time, so a change is not blamed for an old fault; `make verify` looks for
# new ones. Deadlines would measure the load of the machine.
settings.register_profile("gate", deadline=None, derandomize=True)
settings.register_profile("verify", deadline=None, max_examples=1000, print_blob=True)
settings.load_profile("gate")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Of several processes one gets all tests of a file, for what they share; and all that bring up SLURM, whose ports
    are given."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "slurm" if file.startswith("tests/slurm/") else file

    return ByFile(config, log)


def find_data(environ: Mapping[str, str], root: Path) -> Path:
    """The folder with the real data: `TIER0_DATA`, else `../shared/data` beside the project.

    Without it the test is skipped, but fails where CI is `true`: there a skip would hide that nothing was checked.
    """
    folder = Path(environ.get("TIER0_DATA") or root.parent / "shared" / "data")
    if folder.is_dir():
        return folder
    reason = f"no real data in {folder}: set TIER0_DATA to the folder that has them"
    if environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with the real data."""
    return find_data(os.environ, ROOT)
