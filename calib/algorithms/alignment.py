"""Where the structures of a tracker are, from residuals of tracks: Millepede by elimination of the tracks' parameters.

V. Blobel and C. Kleinwort, hep-ex/0208021; how CMS runs it in its prompt calibration, and what is made otherwise here:
physics note, 5 and 12.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from calib.algorithms import alignment_payload
from calib.algorithms.alignment_equations import Totals, by_class
from calib.algorithms.alignment_geometry import NUMBERS
from calib.algorithms.alignment_payload import Flag
from calib.algorithms.alignment_records import COLUMNS
from calib.algorithms.alignment_solution import Singular, Solution, solve
from calib.algorithms.alignment_structures import Structures
from calib.algorithms.alignment_sums import COARSE, Summing
from calib.calibration import Columns, NotConverged, NotEnoughData, at_finalize
from calib.form import Leeway
from calib.iteration import Iterated
from calib.payload import Payload
from calib.pulls import Apart
from calib.state import State

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

PART_OF_WEAK = 0.1
"""share of a number in modes that are fixed from which it is flagged"""
MOST_KEYS = 2**32


@dataclass(frozen=True, kw_only=True)
class Alignment(Iterated):
    """Displacements of structures, one payload a run, iterated over its events until nothing moves.

    Columns, jagged: of each record (a track, or several that are fitted together) `alignment_measurements`, m, and
    `alignment_parameters`, k; then, one record of an event after the other,
        `alignment_residuals` [m]           measured less expected, cm
        `alignment_derivatives` [m, k]      of what is expected, in the record's own parameters
        `alignment_covariance`              of the residuals, scattering in it; lower triangle row by row, cm^2
        `alignment_labels` [m, levels]      the structure that a measurement lies on; -1: none
        `alignment_slopes` [m, levels, 6]   of the residual in its displacement (`alignment_geometry.slopes`)
        `alignment_directions` [m, 3]       how the measurement goes with a displacement in space
        `alignment_points` [m, 3]           where it is, cm
    Select records before: stiff, with enough hits.

    The payload in force (conditions `alignment`) is that under which the residuals were made. The payload is a whole
    one: what is free is where tracks have it, the rest as it was. Modes that tracks do not know are named; they stay as
    `previous` has them or, with a `survey`, are as likely as that has them (`alignment_solution`,
    `alignment_payload.weak_modes`).

    Records with too large a chi2 are left out, by the tightest of `cuts` that still passes most of them: of a detector
    out of place by many errors all have one.
    """

    kind: ClassVar[str] = alignment_payload.KIND
    version: ClassVar[int] = 3
    reads: ClassVar[tuple[str, ...]] = COLUMNS
    uses: ClassVar[tuple[str, ...]] = (alignment_payload.KIND,)
    looks_at_previous: ClassVar[bool] = True
    closes_on: ClassVar[Fraction] = Fraction(1, 5)

    levels: tuple[tuple[str, int], ...]
    """the levels from the largest structures to the smallest, and how many there are of each"""
    free: tuple[str, ...]
    """what is aligned, as `Structures` reads it: "half_barrel 0-1: x y z", "ladder: all" """
    survey: tuple[str, ...] = at_finalize(())
    """how far structures are from where they were drawn, rms in um or urad, as `free` names them: "ladder: x y z 20".
    Of all that is free, or of nothing. Tracks follow some deformations with their own parameters; these are held to
    what is likely, and errors say how likely"""
    cuts: tuple[float, ...] = (1.0, 4.5, 30.0)
    """on chi2, rising, in units of what 0.27 % of good records exceed"""
    pools: int = 8
    """in so many parts at most, of consecutive units, are the sums of a run kept: each can be left out of a refit. 0:
    they are in one"""
    passed: float = at_finalize(0.995)
    """share of those within the last cut that a tighter one must let pass to be taken. Few tracks may tell of a move,
    such as those from one half barrel to the other of their shift along z: a cut that leaves these out keeps it"""
    most_outliers: float = at_finalize(0.5)
    """share of all records; with more beyond the last cut there is no payload"""
    min_records: int = at_finalize(1000)
    """with fewer there is no payload"""
    min_entries: int = at_finalize(100)
    """records on a structure; with fewer it stays"""
    weak_error: float = at_finalize(15.0)
    """um, rms over measurements; modes that tracks do not tell so well are named and, without a survey, fixed"""
    settled_errors: float = at_finalize(0.1)
    """a step is small within so many errors, statistical ones"""
    settled: float = at_finalize(0.2)
    """um and urad; a step is small within so much"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.cuts or sorted(set(self.cuts)) != list(self.cuts) or self.cuts[0] <= 0:
            raise ValueError(f"`cuts` are above 0 and rise, not {self.cuts}")
        if len(self.cuts) * len(self.structures) ** 2 > MOST_KEYS:
            raise ValueError(f"there are too many structures for {len(self.cuts)} `cuts`")
        self._check_survey()
        if self.min_records < 1 or self.min_entries < 1:
            raise ValueError("`min_records` and `min_entries` are at least 1")

    @property
    def structures(self) -> Structures:
        """All of them, and what is free."""
        return _structures(self.levels, self.free)

    @property
    def leeway(self) -> Leeway:  # type: ignore[override]
        """By the names of the levels."""
        return alignment_payload.leeway(self.structures)

    @property
    def errors_shared(self) -> tuple[str, ...]:  # type: ignore[override]
        """Structures move together where tracks hardly tell: of all levels."""
        return tuple(name for name, _ in self.levels)

    def accumulate(self, columns: Columns, conditions: Mapping[str, Payload]) -> State:
        """Sums by pair of structures.

        Raises ValueError for columns that do not go together, and for an alignment that is not of these structures.
        """
        values = self.structures.values(conditions[self.kind])
        return Summing(self.structures, self.cuts, self.pools).of(columns, values)

    def empty(self) -> State:
        """No event."""
        return Summing(self.structures, self.cuts, self.pools).empty()

    def finalize(self, state: State, previous: Payload | None) -> Payload:
        """Where structures are, from where `previous` has them.

        Raises NotEnoughData for too few records, on all or on every structure; NotConverged where the equations have no
        solution, most records are outliers, or what stays was elsewhere when they were fitted.
        """
        structures, values = self.structures, self.structures.values(previous)
        counted = by_class(state, len(self.cuts))
        records = counted["records"]
        within = int(records[: len(self.cuts)].sum())
        if within < self.min_records:
            raise NotEnoughData(
                f"{within} records of {records.sum()} can be used; an alignment needs {self.min_records}"
            )
        if np.any(state["fit"].made_with != structures.fingerprint(values)):
            raise NotConverged("structures that are not aligned were elsewhere when these records were fitted")
        classes = 1 + int(np.argmax(np.cumsum(records[: len(self.cuts)]) >= self.passed * within))
        totals = Totals.of(state, structures, classes)
        flags = self._kept(totals)
        if not (flags == Flag.NEW).any():
            raise NotEnoughData(
                f"the structure with the most records has {totals.records.max()}; {self.min_entries} are needed"
            )
        system = totals.system(structures, values, flags == Flag.NEW)
        system = system.surveyed(structures.within(self.survey), values)
        try:
            solution = solve(system, structures, self.weak_error)
        except (Singular, np.linalg.LinAlgError) as problem:
            raise NotConverged(f"the equations of {len(system.right)} numbers have no solution: {problem}") from None
        rest = self._summary(counted, classes) | alignment_payload.weak_arrays(
            solution.modes, system.structure, system.number
        )
        payload = self._payload(totals, flags, values, solution, rest)
        outliers = int(records[len(self.cuts) :].sum())
        if outliers > self.most_outliers * records.sum():
            raise NotConverged(f"{outliers} of {records.sum()} records have too large a chi2 for any cut", payload)
        return payload

    def moved(self, payload: Payload, previous: Payload | None) -> float:
        """The largest step, in units of `settled` or of `settled_errors` errors, whichever is more."""
        structures = self.structures
        steps = np.abs(structures.values(payload) - structures.values(previous))
        small = np.maximum(np.nan_to_num(self.settled_errors * structures.errors(payload, "statistical")), self.settled)
        return float((steps / small).max())

    def apart(self, found: Payload, expected: Payload) -> dict[str, Apart]:
        """In units of what two payloads under one survey do not have in common."""
        return alignment_payload.apart(found, expected)

    def _check_survey(self) -> None:
        """Half of one would leave moves of the rest to chance."""
        structures, told = self.structures, np.isfinite(self.structures.within(self.survey))
        untold = np.argwhere(structures.is_free & ~told)
        if self.survey and len(untold):
            structure, number = untold[0]
            [name] = structures.names([structure])
            raise ValueError(
                f"`survey` says nothing of {NUMBERS[number]} of {name}, which is free: a survey tells of all that is "
                "free, or of nothing"
            )

    def _kept(self, totals: Totals) -> Ints:
        """Flags [structures, 6] of what keeps its place."""
        structures = self.structures
        unseen = np.ones(structures.is_free.shape, np.bool_)
        unseen[:, structures.numbers] = ~totals.seen
        kept = (
            (Flag.FEW, (totals.records < self.min_entries)[:, None]),
            (Flag.UNSEEN, unseen),
        )
        flags = np.where(structures.is_free, 0, int(Flag.STAYS))
        for flag, where in kept:
            flags |= np.where(where & structures.is_free, int(flag), 0)
        return flags

    def _summary(self, counted: Mapping[str, Ints], classes: int) -> dict[str, Any]:
        used = {name: int(values[:classes].sum()) for name, values in counted.items()}
        return {
            "records": np.int64(used["records"]),
            "outliers": np.int64(counted["records"].sum() - used["records"]),
            "cut": np.float64(self.cuts[classes - 1]),
            "chi2_ndf": np.float64(used["chi2"] * COARSE / max(used["ndf"], 1)),
        }

    def _payload(
        self, totals: Totals, flags: Ints, values: Floats, solution: Solution, rest: Mapping[str, Any]
    ) -> Payload:
        measured = flags == Flag.NEW
        values, flags = values.copy(), flags.copy()
        values[measured] += solution.step
        errors = {part: np.full(values.shape, np.nan) for part in ("error", "statistical")}
        for part, every in errors.items():
            every[measured] = getattr(solution, part)
        flags[measured] = np.where(solution.fixed > PART_OF_WEAK, int(Flag.WEAK), int(Flag.NEW))
        return alignment_payload.payload_of(self.structures, values, errors, flags, totals.records, rest)


@lru_cache
def _structures(levels: tuple[tuple[str, int], ...], free: tuple[str, ...]) -> Structures:
    return Structures(levels, free)
