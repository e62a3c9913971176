"""SLURM on loopback for the tests of this folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

import pytest

from tests.slurm.loopback import Slurm, reason, running_slurm


def insist(why: str | None, environ: Mapping[str, str]) -> None:
    """Skip for a reason, but fail where CI is `true`: there a skip would hide that nothing was checked."""
    if why is None:
        return
    if environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)


@pytest.fixture(scope="session")
def slurm_daemons() -> Iterator[Slurm]:
    insist(reason(), os.environ)
    with running_slurm() as slurm:
        yield slurm


@pytest.fixture
def slurm(slurm_daemons: Slurm, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    """A SLURM of two idle nodes that `sbatch` and its kin of this process find."""
    monkeypatch.setenv("SLURM_CONF", str(slurm_daemons.configuration))
    return slurm_daemons
