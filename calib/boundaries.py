"""Where an interval of validity must end."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Interval:
    """Consecutive units that share one payload.

    `units` are packed and sorted; `closed` is False for the last one while more data may still join it.
    `vetoed` are units whose own value was off and was left out of the mean; `unconfirmed` marks a move seen in the
    last unit only.
    """

    units: tuple[int, ...]
    closed: bool
    vetoed: tuple[int, ...] = ()
    unconfirmed: bool = False
