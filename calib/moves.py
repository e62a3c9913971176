"""A gate over structures that move: which of their numbers count as moved, how many must, and how far they may."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from calib.payload import Payload
from calib.verdict import (
    Decision,
    Finding,
    Floats,
    Gate,
    Measure,
    element,
    incomparable,
    lacks,
    quantity,
    unfit,
    wrong_errors,
)

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Moves(Gate):
    """Of an array [structures, numbers], such as displacements. Limits are one for each number, in the payload's unit.

    A number has moved from the payload in force where it did by more than its `floors` and more than `n_sigma` of its
    errors: `<array>_error` or, where there are such, `<array>_statistical`, what of them payloads do not share. With
    fewer structures than `share` of all with any number that moved, there is no change. Where one moved further than
    `most`, or moved and has an error above `most_error`, the payload is rejected. What has no error (NaN) has not been
    measured, and did not move; of no limit there is none.

    CMS (MillePedeFileReader, physics note, 5.2): 5, 10, 15 um and 30 urad, 2.5 sigma, at most 200 with errors up to 10;
    for ladders a share of 0.25.
    """

    name: ClassVar[str] = "moves"
    relative: ClassVar[bool] = True
    watches: ClassVar[bool] = True
    array: str
    floors: tuple[float, ...]
    unit: str
    n_sigma: float = 2.5
    share: float = 0.0
    """0: one structure is enough"""
    most: tuple[float, ...] = ()
    most_error: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("floors", "most", "most_error"):
            limits = getattr(self, name)
            if any(limit < 0 for limit in limits):
                raise ValueError(f"{name} are 0 or more, not {min(limits)}")
            if limits and len(limits) != len(self.floors):
                raise ValueError(f"there are {len(self.floors)} floors, but {len(limits)} of {name}")
        if not self.floors:
            raise ValueError("floors are missing; 0 counts every move")
        if not 0.0 <= self.share <= 1.0:
            raise ValueError(f"share is from 0 to 1, not {self.share}")
        if self.n_sigma < 0:
            raise ValueError(f"n_sigma is 0 or more, not {self.n_sigma}")

    def look(self, payload: Payload, in_force: Payload | None) -> Finding:
        """Says NO_CHANGE where too few structures moved; rejects what moved too far, or is known too badly."""
        errors, own = (f"{self.array}_{part}" for part in ("error", "statistical"))
        if errors not in payload.arrays:
            return lacks(payload, errors)
        own = own if own in payload.arrays else errors
        wrong = unfit(payload, self.array, self.unit) or wrong_errors(payload, self.array, errors)
        if wrong := wrong or wrong_errors(payload, self.array, own):
            return wrong
        shape = payload[self.array].shape
        if shape[-1:] != (len(self.floors),):
            return Finding(Decision.REJECT, f"{self.array} has shape {shape}, and there are {len(self.floors)} floors")
        if in_force is None or self.array not in in_force.arrays:
            return Finding(Decision.PUBLISH)
        if wrong := incomparable(payload, in_force, self.array):
            return wrong
        return self._compare(
            payload, in_force, *(np.broadcast_to(payload[name].astype(np.float64), shape) for name in (errors, own))
        )

    def _compare(self, payload: Payload, in_force: Payload, errors: Floats, own: Floats) -> Finding:
        new = payload[self.array].astype(np.float64)
        moves = np.abs(new - in_force[self.array].astype(np.float64))
        if not np.isfinite(moves).all():
            return Finding(Decision.REJECT, f"{self.array} has values that are not finite")
        measured = np.isfinite(errors)
        moved = measured & (moves > np.array(self.floors)) & (moves > self.n_sigma * np.where(measured, own, 0.0))
        limits = ((self.most, measured, moves, "moved by"), (self.most_error, moved, errors, "has an error of"))
        found = [self._beyond(most, where, of, words, new) for most, where, of, words in limits if most and where.any()]
        share = float(moved.any(axis=-1).mean()) if moved.size else 0.0
        measures = (
            *(measure for measure, _ in found),
            Measure(self.name, f"share of {self.array} moved", share, self.share),
        )
        if reasons := [reason for _, reason in found if reason]:
            return Finding(Decision.REJECT, "; ".join(reasons), measures)
        if share and share >= self.share:
            return Finding(Decision.PUBLISH, measures=measures)
        count = int(moved.any(axis=-1).sum())
        needed = f"a share of {self.share:g} would count" if self.share else "one would count"
        return Finding(Decision.NO_CHANGE, f"{count} of {len(new)} {self.array} moved, {needed}", measures)

    def _beyond(
        self, most: tuple[float, ...], where: Mask, of: Floats, words: str, values: Floats
    ) -> tuple[Measure, str]:
        """The number nearest to or furthest beyond its limit, and what to say if it is beyond."""
        limit = np.broadcast_to(np.array(most), of.shape)
        over = np.where(where, of / np.where(limit > 0, limit, np.finfo(np.float64).tiny), 0.0)
        worst = int(np.argmax(over))
        value, allowed = float(of.flat[worst]), float(limit.flat[worst])
        which = element(self.array, values, worst)
        measure = Measure(self.name, f"{which} {words}", value, allowed, self.unit)
        if value <= allowed or not where.flat[worst]:
            return measure, ""
        return measure, f"{which} {words} {value:.6g}, {quantity(allowed, self.unit)} is allowed"
