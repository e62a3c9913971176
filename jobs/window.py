"""How much may be in flight: a bounded window of leaves, with room for higher lanes, and nobody beside a suspect.

Pure. The window is what bounds the scheduler's memory: whatever the length of a run, so many leaves are known to it.
"""

from __future__ import annotations

from collections import Counter

from jobs.frontier import Launch
from jobs.job import Lane

_TOP = max(Lane)


class Window:
    """Counts what is in flight, by lane, and says whether a launch may join it.

    A lane sees its own leaves and those of higher lanes, so lower ones never keep it out. It may fill twice the
    threads, so that no thread waits for the driver, and at least two whole branches, so that a branch is there when
    another ends. With a `reserve` all lanes but the highest share what is left of the threads, and at least a branch.
    """

    def __init__(self, threads: int = 1, reserve: int = 0) -> None:
        self.threads = threads
        self._reserve = reserve
        self._leaves: Counter[Lane] = Counter()
        self._launches = 0
        self._alone = False

    def size(self, lane: Lane, fan_in: int) -> int:
        """How many of the leaves a lane sees may be in flight."""
        if self._reserved(lane):
            return max(self.threads - self._reserve, fan_in)
        return 2 * max(self.threads, fan_in)

    def _reserved(self, lane: Lane) -> bool:
        return self._reserve > 0 and lane is not _TOP

    def _seen(self, lane: Lane) -> int:
        if self._reserved(lane):
            return sum(count for other, count in self._leaves.items() if other is not _TOP)
        return sum(count for other, count in self._leaves.items() if other >= lane)

    @property
    def closed(self) -> bool:
        """Whether something in flight must stay alone."""
        return self._alone

    def admits(self, launch: Launch, lane: Lane, fan_in: int) -> bool:
        """Say whether this launch may be submitted now."""
        if self._alone or launch.alone:
            return not self._launches
        return self._seen(lane) + launch.width <= self.size(lane, fan_in)

    def add(self, launch: Launch, lane: Lane) -> None:
        """Take in that a launch was submitted."""
        self._leaves[lane] += launch.width
        self._launches += 1
        self._alone = launch.alone

    def remove(self, launch: Launch, lane: Lane) -> None:
        """Take in that a launch has ended."""
        self._leaves[lane] -= launch.width
        self._launches -= 1
        self._alone = False
