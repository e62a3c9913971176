"""A file that cannot be opened, or not even be looked at, is set aside by itself, and read when it can be."""

import os
from pathlib import Path

import pytest

from pipeline.service import Stage
from pipeline.tier0 import Tier0
from tests.pipeline.probes import Once
from tests.pipeline.tiny import write_file, write_units

# As root every file may be read; a link that leads to itself cannot be looked at by anybody.


def lock(path: Path) -> None:
    os.rename(path, path.with_suffix(".away"))
    path.symlink_to(path)


def unlock(path: Path) -> None:
    path.unlink()
    os.rename(path.with_suffix(".away"), path)


@pytest.mark.parametrize("word", ["Too many levels of symbolic links", "File name too long"])
def test_a_path_that_cannot_be_looked_at_is_set_aside_and_the_rest_goes_on(house, tmp_path, word):
    good, bad = write_file(tmp_path / "a.root", 7), tmp_path / "b.root"
    if word.startswith("Too"):
        bad.symlink_to(bad)
    else:
        bad = tmp_path / f"{'b' * 300}.root"
    with Tier0(house()) as tier0:
        summary = tier0.run(good, bad, progress=False)
        assert ([(row.run, row.stage) for row in summary.rows], summary.exit_code) == ([(7, Stage.CERTIFIED)], 3)
        assert word in summary.text(width=1000)
        # Registered before, it is out as long as it cannot be looked at.
        other = write_units(tmp_path / "c.root", 7, [5], first_event=90)
        assert tier0.run(good, other, progress=False)[7].prompt.read == 25
        lock(other)
        summary = tier0.run(good, other, progress=False)
        assert (summary[7].prompt.read, summary.exit_code) == (20, 3)
        unlock(other)
        assert tier0.run(good, other, progress=False)[7].prompt.read == 25


def test_a_file_that_was_closed_for_a_while(house, tmp_path):
    """It was when express began to read; what it holds is read once it can be, and not before."""
    plain = house()
    good = write_units(tmp_path / "a.root", 7, [1, 2, 3])
    bad = write_units(tmp_path / "b.root", 7, [4, 5], first_event=90)
    with Tier0(plain, probe=Once(tmp_path / "points", "submit", lambda: lock(bad))) as tier0:
        summary = tier0.run(good, bad, progress=False)
        assert (summary[7].stage, summary[7].prompt.read, summary[7].prompt.bad) == (Stage.CERTIFIED, 25, 10)
        assert f"{bad}: it could not be opened when it was to be read; see who may read it" in tier0.why(7)
        unlock(bad)
        summary = tier0.run(good, bad, progress=False)
        assert (summary[7].prompt.read, summary[7].prompt.bad, summary.exit_code) == (25, 0, 0)
