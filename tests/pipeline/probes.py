"""What tests have done at named points of driver and workers: kill the process, take a file away."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PASSES = ("pass", "pass-done")
"""points of the driver where calibrations go after others"""
DRIVER = ("ledger-commit", "ledger-committed", "submit", "publish", "settle", "released", "delete")
WORKER = ("write", "rename", "payload")
CLOSURE = ("closure", "closed")
"""points of the driver where prompt is done and closure is begun, and known"""
CANARY = ("canary", "canary-verdict", "canary-known", "feed")
"""points of the driver where there is a canary, and what is found goes on to express"""


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
class KillAfter:
    """SIGKILL to the first process that reaches `point` after it has reached `first`; once for each folder."""

    folder: Path
    first: str
    point: str

    def __call__(self, point: str) -> None:
        reached = self.folder / f"{self.first} by {os.getpid()}"
        if point == self.first:
            self.folder.mkdir(parents=True, exist_ok=True)
            reached.touch()
        elif point == self.point and reached.exists() and _arrivals(self.folder, point) == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    def killed(self) -> set[str]:
        """The point, if a process was killed at it."""
        return {self.point} if (self.folder / f"{self.point}-1").exists() else set()


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
