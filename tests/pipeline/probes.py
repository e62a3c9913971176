"""What tests have done at named points of driver and workers: kill the process, take a file away."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

DRIVER = ("ledger-commit", "ledger-committed", "submit", "publish", "settle", "released", "delete")
WORKER = ("write", "rename", "payload")


@dataclass(frozen=True)
class KillAt:
    """SIGKILL to the process that is the `hit`-th to reach a point, whichever it is; once for each folder."""

    folder: Path
    points: tuple[str, ...]
    hit: int = 1

    def __call__(self, point: str) -> None:
        if point in self.points and _arrivals(self.folder, point) == self.hit:
            os.kill(os.getpid(), signal.SIGKILL)

    def killed(self) -> set[str]:
        """The points at which a process was killed."""
        return {point for point in self.points if (self.folder / f"{point}-{self.hit}").exists()}


@dataclass(frozen=True)
class Once:
    """Does something the first time a point is reached."""

    folder: Path
    point: str
    action: Callable[[], None]

    def __call__(self, point: str) -> None:
        if point == self.point and _arrivals(self.folder, point) == 1:
            self.action()


def _arrivals(folder: Path, point: str) -> int:
    """The how-manieth arrival at a point this is, over all processes."""
    folder.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        try:
            (folder / f"{point}-{number}").touch(exist_ok=False)
            return number
        except FileExistsError:
            number += 1
