"""A job that sums integers and leaves a trace of all it does. Workers import this, so it imports little."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.job import Job, Lane
from jobs.reduction import FileRecord, Node, NodeReceipt, Receipt
from jobs.retry import BadData


def make_job(leaves: int, **changes: Any) -> Job:
    """A job with sensible rest."""
    return Job(**{"name": "sum", "group": "sum-1", "lane": Lane.PROMPT, "leaves": leaves, "fan_in": 4} | changes)


def numbers(leaves: range) -> list[int]:
    """The items of the toy: leaf i is worth i."""
    return list(leaves)


@dataclass(frozen=True)
class Sum:
    """Leaf i writes i to a file and is worth i; states are files with their sum; all steps are logged."""

    root: str
    seconds: float = 0.0
    failing: Mapping[int, str] = field(default_factory=dict)
    """what happens in a leaf: the name of a method of `Mishap`"""
    kill_at: Mapping[str, int] = field(default_factory=dict)
    """the worker kills itself once, at this point of this leaf (for "merge" and "store": of the node that holds it)"""

    def leaf(self, item: int, attempt: str) -> tuple[Receipt, int]:
        self._log("leaf", item)
        if item in self.failing:
            getattr(Mishap(self.root, item), self.failing[item])()
        time.sleep(self.seconds)
        self._kill("write", item)
        partial = Path(self.root) / f"leaf-{item}-{attempt}.partial"
        partial.write_text(str(item))
        self._kill("rename", item)
        return Receipt((_whole(partial),), {"value": item}), item

    def absent(self, item: int, reason: str) -> tuple[Receipt, int]:
        return Receipt((), {"absent": reason}), 0

    def merge(self, values: Sequence[int]) -> int:
        return sum(values)

    def store(self, value: int, node: Node, attempt: str) -> Receipt:
        self._log(f"store{node.level}", node.index)
        self._kill(f"store{node.level}", node.index)
        partial = Path(self.root) / f"state-{node.level}-{node.index}-{attempt}.partial"
        partial.write_text(str(value))
        return Receipt((_whole(partial),), {})

    def load(self, receipt: Receipt) -> int:
        return int(Path(receipt.files[0].path).read_text())

    def _log(self, what: str, index: int) -> None:
        line = json.dumps([what, index, time.time(), os.getpid()]) + "\n"
        log = os.open(Path(self.root) / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(log, line.encode())
        os.close(log)

    def _kill(self, point: str, index: int) -> None:
        if self.kill_at.get(point) == index and first_time(Path(self.root) / f"killed-{point}"):
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Mishap:
    """Ways to go wrong."""

    root: str
    item: int

    def bad_data(self) -> None:
        raise BadData(f"item {self.item} is unreadable")

    def bug(self) -> None:
        raise ZeroDivisionError("a bug")

    def bug_once(self) -> None:
        if first_time(Path(self.root) / f"bug-{self.item}"):
            raise ZeroDivisionError("a bug that passes")

    def network(self) -> None:
        raise TimeoutError("no answer")

    def network_once(self) -> None:
        if first_time(Path(self.root) / f"network-{self.item}"):
            raise TimeoutError("no answer, once")

    def vanished(self) -> None:
        raise FileNotFoundError(2, "No such file", f"item-{self.item}")

    def disk_full(self) -> None:
        raise OSError(28, "No space left on device")

    def poison(self) -> None:
        kill_myself()

    def hang(self) -> None:
        time.sleep(600)


def kill_myself() -> None:
    time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGKILL)


def first_time(mark: Path) -> bool:
    """True for one caller only, whatever process asks."""
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _whole(partial: Path) -> FileRecord:
    path = partial.with_suffix(".txt")
    partial.rename(path)
    return FileRecord(str(path), path.stat().st_size, "")


def read_log(root: Path) -> list[tuple[str, int, float, int]]:
    """What workers have begun: (what, index, UNIX time, pid)."""
    return [tuple(json.loads(line)) for line in (root / "log").read_text().splitlines()]


def total(root: NodeReceipt) -> int:
    """The value a root stands for."""
    return int(Path(root.state.files[0].path).read_text())
