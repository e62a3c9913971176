"""The sweeper finds what nobody knows, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

from jobs.sweep import sweep


def write(path: Path, written_at: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    os.utime(path, (written_at, written_at))
    return path


def test_finds_old_files_without_a_row(tmp_path: Path) -> None:
    known = write(tmp_path / "a" / "known", 0)
    orphan = write(tmp_path / "a" / "orphan.partial", 0)
    write(tmp_path / "a" / "young", 95)
    state = tmp_path / "state.zarr"
    write(state / "c" / "0", 0)
    lost = write(tmp_path / "lost.zarr" / "c" / "0", 0)
    found = sweep(tmp_path, {str(known), str(state)}, grace_s=10, now=100)
    assert list(found) == [orphan, lost]


def test_dangling_link_is_found_and_a_vanished_file_is_not(tmp_path: Path) -> None:
    write(tmp_path / "first", 0)
    write(tmp_path / "second", 0)
    found = sweep(tmp_path, set(), grace_s=10, now=100)
    assert next(found).name == "first"
    (tmp_path / "second").unlink()
    assert list(found) == []
