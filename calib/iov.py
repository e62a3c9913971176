"""Where conditions hold: a moment of data taking, and half-open intervals of validity."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import total_ordering
from typing import NamedTuple

LUMI_BITS = 32
LUMI_LIMIT = 1 << LUMI_BITS


class RunLumi(NamedTuple):
    """One unit of data taking: a lumisection of a run. Ordered by run, then lumisection.

    >>> RunLumi(190456, 12) < RunLumi(190457, 1)
    True
    >>> str(RunLumi(190456, 12))
    '190456:12'
    """

    run: int
    lumi: int = 0

    @property
    def packed(self) -> int:
        """The unit as one integer, `run << 32 | lumi`, which sorts as the unit does.

        >>> RunLumi.unpack(RunLumi(3, 7).packed)
        RunLumi(run=3, lumi=7)
        """
        if not (0 <= self.lumi < LUMI_LIMIT and 0 <= self.run < LUMI_LIMIT):
            raise ValueError(f"run and lumisection must lie in 0 .. 2^32 - 1, not {self.run}:{self.lumi}")
        return self.run << LUMI_BITS | self.lumi

    @classmethod
    def unpack(cls, packed: int) -> RunLumi:
        """The unit of a packed integer."""
        return cls(int(packed) >> LUMI_BITS, int(packed) & (LUMI_LIMIT - 1))

    @classmethod
    def parse(cls, text: str) -> RunLumi:
        """Read `run` or `run:lumi`.

        >>> RunLumi.parse("190456"), RunLumi.parse("190456:12")
        (RunLumi(run=190456, lumi=0), RunLumi(run=190456, lumi=12))
        """
        run, _, lumi = text.partition(":")
        try:
            return cls(int(run), int(lumi) if lumi else 0)
        except ValueError:
            raise ValueError(f"{text!r} is not a run or run:lumi, such as 190456 or 190456:12") from None

    def __str__(self) -> str:
        return f"{self.run}:{self.lumi}"


class Clock(StrEnum):
    """What a tag counts its intervals in."""

    RUN = "run"
    """since is a run: the payload holds from its first unit."""
    LUMI = "lumi"
    """since is a unit of a run."""
    TIME = "time"
    """since is a time stamp, nanoseconds since 1970 UTC."""

    def since(self, at: RunLumi | int) -> int:
        """The integer a tag of this clock stores for a beginning at `at`.

        >>> Clock.RUN.since(RunLumi(3, 7)) == RunLumi(3, 0).packed
        True
        """
        if self is Clock.TIME:
            if isinstance(at, tuple):
                raise ValueError(f"a tag by time begins at nanoseconds since 1970, not at the unit {at}")
            return int(at)
        if not isinstance(at, RunLumi):
            raise ValueError(f"a tag by {self} begins at a run or unit, not at {at!r}")
        return RunLumi(at.run).packed if self is Clock.RUN else at.packed


@total_ordering
@dataclass(frozen=True, slots=True)
class IOV:
    """An interval of validity, half open: `[since, until)`; `until=None` is open.

    Ordered by where it begins, then by where it ends; an open one ends last.

    >>> IOV(RunLumi(1, 1), RunLumi(1, 5)).contains(RunLumi(1, 5))
    False
    """

    since: RunLumi
    until: RunLumi | None = None

    def __post_init__(self) -> None:
        if self.until is not None and self.until <= self.since:
            raise ValueError(f"an interval of validity must end after it begins, not [{self.since}, {self.until})")

    def contains(self, at: RunLumi) -> bool:
        """Whether the unit lies in the interval."""
        return self.since <= at and (self.until is None or at < self.until)

    def __lt__(self, other: IOV) -> bool:
        return self._place < other._place

    @property
    def _place(self) -> tuple[RunLumi, bool, RunLumi]:
        return self.since, self.until is None, self.until or self.since

    def __str__(self) -> str:
        return f"[{self.since}, {self.until or 'open'})"
