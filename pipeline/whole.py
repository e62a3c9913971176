"""A file is there whole or not at all."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: Path, probe: Callable[[str], None]) -> Iterator[Path]:
    """Give a partial name to write under; at the end of the block it becomes `path`, on disk for good.

    The probe is called at the kill points `write` (written, not yet safe) and `rename` (safe, not yet visible).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _beside(path)
    try:
        yield partial
        probe("write")
        sync(partial)
        probe("rename")
        partial.replace(path)
        sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_first(path: Path, content: bytes) -> None:
    """Write bytes whole, unless the file is there: of several that do at once one is first, and its file stays."""
    partial = _beside(path)
    try:
        partial.write_bytes(content)
        sync(partial)
        os.link(partial, path)  # fails where there is one, as a rename would not
        sync(path.parent)
    except FileExistsError:
        pass
    finally:
        partial.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    """Where a file is written before it is whole: under a name of this writer's own."""
    return path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")


def sync(path: Path) -> None:
    """Have the system put a file or folder on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checksum_of(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, content: bytes, probe: Callable[[str], None]) -> tuple[int, str]:
    """Write bytes whole; gives size and SHA-256."""
    with whole(path, probe) as partial:
        partial.write_bytes(content)
    return len(content), hashlib.sha256(content).hexdigest()
