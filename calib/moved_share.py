"""A gate over channels, of which some always fluctuate: what share of them, or of those that move together, moved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from calib.payload import Payload
from calib.pulls import error_of
from calib.verdict import (
    Decision,
    Finding,
    Floats,
    Gate,
    Measure,
    incomparable,
    lacks,
    unfit,
    wrong_errors,
)

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class MovedShare(Gate):
    """There is no change where too few channels moved, of all and of each group.

    Of a million channels some are beyond any limit by chance: 0.27 % beyond 3 errors. So a channel alone is no change,
    and neither are as many as chance has. A channel has moved where it did by more than `n_sigma` errors (new and old
    in quadrature) and more than `floor`. It counts as a change where

    - more than a share `share` of all channels moved. With limits of 3 errors and 1 %, four times chance, that is
      where channels spread by 1.17 times their errors: all have drifted by 0.6 of an error;
    - more than a share `group_share` of some `group` consecutive channels did, which share a fate (a chip): 128 of a
      million are nothing of all, and yet a chip that jumped. Common noise moves them together within their errors, so
      it takes many times the share that chance has;
    - they moved by more than `floor` on average, and `n_sigma` errors of the mean: what all share is seen long before
      any channel shows it. Noise that groups have in common makes this mean worse than the errors say: to a tenth of
      an error, where there are a hundred groups and more. A floor should be above that.

    The errors are those of `<array>_error`; a value without one (NaN) has not been measured, and did not move. Integers
    that have no errors are codes: each that is another moved, and has no mean. A floor above 0 needs its unit, the
    payload's.
    """

    name: ClassVar[str] = "moved_share"
    relative: ClassVar[bool] = True
    watches: ClassVar[bool] = True
    array: str
    share: float
    n_sigma: float = 3.0
    floor: float = 0.0
    unit: str = ""
    group: int = 0
    """consecutive channels; 0: there are no groups"""
    group_share: float = 0.25

    def __post_init__(self) -> None:
        for name in ("share", "group_share"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise ValueError(f"{name} is a share between 0 and 1, not {getattr(self, name)}")
        for name in ("n_sigma", "floor", "group"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is 0 or more, not {getattr(self, name)}")
        if self.floor and not self.unit:
            raise ValueError("a floor needs its unit, such as unit = 'ADC'")

    def look(self, payload: Payload, in_force: Payload | None) -> Finding:
        """Says NO_CHANGE where too few moved; never rejects but for what cannot be compared."""
        if self.array not in payload.arrays:
            return lacks(payload, self.array)
        errors, values = f"{self.array}_error", payload[self.array]
        if errors not in payload.arrays and values.dtype.kind not in "iub":
            return lacks(payload, errors)
        wrong = unfit(payload, self.array, self.unit) if self.floor else None
        if errors in payload.arrays:
            wrong = wrong or wrong_errors(payload, self.array, errors)
        if self.group and values.size % self.group:
            reason = f"{self.array} has {values.size} values, which are no whole number of groups of {self.group}"
            wrong = wrong or Finding(Decision.REJECT, reason)
        if wrong or in_force is None or self.array not in in_force.arrays:
            return wrong or Finding(Decision.PUBLISH)
        return incomparable(payload, in_force, self.array) or self._compare(payload, in_force)

    def _compare(self, payload: Payload, in_force: Payload) -> Finding:
        new, old = (p[self.array].astype(np.float64).reshape(-1) for p in (payload, in_force))
        with np.errstate(invalid="ignore"):  # infinity less infinity is no number, and is no move
            moves = np.where((new == old) | (np.isnan(new) & np.isnan(old)), 0.0, new - old)
        own, before = (error_of(self.array, p).reshape(-1) for p in (payload, in_force))
        # What was taken as exact has no error; what is new and has none has not been measured.
        sigma = np.hypot(own, np.where(np.isnan(before), 0.0, before))
        moved = ~np.isnan(own) & ~((np.abs(moves) <= self.n_sigma * sigma) | (np.abs(moves) <= self.floor))
        measures = self._measures(payload, moves, sigma, moved)
        if any(measure.value > measure.limit for measure in measures):
            return Finding(Decision.PUBLISH, measures=measures)
        needed = f"a share of {self.share:g} would count"
        if self.group:
            needed += f", or one of {self.group_share:g} in {self.group} together"
        reason = f"{np.count_nonzero(moved)} of {moved.size} {self.array} moved, {needed}"
        return Finding(Decision.NO_CHANGE, reason, measures)

    def _measures(self, payload: Payload, moves: Floats, sigma: Floats, moved: Mask) -> tuple[Measure, ...]:
        """What would be a change where it is above its limit."""
        share = float(moved.mean()) if moved.size else 0.0
        found = [Measure(self.name, f"share of {self.array} moved", share, self.share)]
        if self.group and moved.size:
            largest = float(moved.reshape(-1, self.group).mean(axis=1).max())
            what = f"largest share of {self.group} {self.array} together moved"
            found.append(Measure(self.name, what, largest, self.group_share))
        known = np.isfinite(moves) & np.isfinite(sigma)
        if f"{self.array}_error" in payload.arrays and known.any():
            error = float(np.sqrt((sigma[known] ** 2).sum())) / np.count_nonzero(known)
            together, limit = abs(float(moves[known].mean())), max(self.floor, self.n_sigma * error)
            unit = payload.units.get(self.array, "")
            found.append(Measure(self.name, f"mean move of {self.array}", together, limit, unit))
        return tuple(found)
