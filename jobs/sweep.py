"""Find what attempts have left behind: files of killed, repeated or fenced-off tasks that no row knows."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator
from pathlib import Path


def sweep(root: Path, known: Container[str], grace_s: float, now: float) -> Iterator[Path]:
    """Give the files below `root` that are not known and have not been written to for `grace_s` seconds.

    A known directory keeps all that is in it. The grace is for tasks that still run, and for receipts not yet
    committed: it must be longer than the longest task. Nothing is deleted here.
    """
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if os.path.join(folder, name) not in known)
        for name in sorted(names):
            path = Path(folder, name)
            if str(path) not in known and _age(path, now) > grace_s:
                yield path


def _age(path: Path, now: float) -> float:
    try:
        return now - path.lstat().st_mtime
    except FileNotFoundError:  # renamed into place, or gone, since the folder was read
        return 0.0
