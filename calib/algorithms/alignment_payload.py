"""The payload of an alignment: where structures are, how well that is known, and the modes that tracks do not tell.

For every level its displacements under its own name, [structures, 6] in cm and rad: shifts and rotation vectors about
the structure's centre. Of a level that is aligned also, by structure: `<level>_error`, in the same units, NaN where
nothing was measured; `<level>_statistical`, what of that other tracks would change; `<level>_flags` int8 of `Flag`;
`<level>_records` int32.

    records, outliers   int64: used, and left out for their chi2
    cut                 on chi2, in units of its 3 sigma
    chi2_ndf            of the records used, before they were aligned
    weak_deformation    of each mode that tracks do not tell, int16: place in DEFORMATIONS, -1: none of them
    weak_overlap        with that deformation, 0 to 1
    weak_error          of the rms of what it moves measurements by [um], by tracks alone
    weak_structure      int32[modes, 3], weak_number int8[modes, 3]: the numbers that move measurements most, -1: fewer
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import IntFlag
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib import pulls
from calib.algorithms.alignment_geometry import DEFORMATIONS, NUMBERS
from calib.algorithms.alignment_solution import COMPONENTS, Mode
from calib.algorithms.alignment_structures import TO_UM, Structures
from calib.form import Leeway
from calib.payload import Payload
from calib.pulls import Apart

Floats = NDArray[np.float64]
Array = NDArray[Any]

KIND = "alignment"
UNIT = "cm, rad"
WEAK_UNITS = {"weak_error": "um"}
SCALARS = ("records", "outliers", "cut", "chi2_ndf")
WEAK_ARRAYS = tuple(f"weak_{name}" for name in ("deformation", "overlap", "error", "structure", "number"))


class Flag(IntFlag):
    """What is the matter with a number of a structure; bits that may come together."""

    NEW = 0
    """measured, nothing the matter"""
    FEW = 1
    """kept: too few records are on the structure"""
    UNSEEN = 2
    """kept: no measurement goes with it"""
    WEAK = 4
    """measured, but for its part in a mode that is fixed"""
    STAYS = 8
    """kept: it was not to be aligned"""


def nominal(levels: Mapping[str, int]) -> Payload:
    """All structures where they were drawn, by level how many there are."""
    arrays = {name: np.zeros((count, len(NUMBERS))) for name, count in levels.items()}
    return Payload(KIND, arrays, dict.fromkeys(arrays, UNIT))


def leeway(structures: Structures) -> Leeway:
    """What a payload may have that the one an experiment starts from does not show."""
    names = [name for name, _ in structures.levels]
    more = dict.fromkeys((f"{name}_{part}" for name in names for part in ("flags", "records")), "")
    errors = tuple(f"{name}_{part}" for name in names for part in ("error", "statistical"))
    more |= dict.fromkeys(errors, UNIT)
    more |= dict.fromkeys((*SCALARS, *WEAK_ARRAYS), "") | WEAK_UNITS
    return Leeway(more=more, not_finite=errors, any_length=WEAK_ARRAYS)


def apart(found: Payload, expected: Payload) -> dict[str, Apart]:
    """How far two are apart. What a survey does not know is off in both alike, but for what one knows better by tracks;
    so beside statistical errors only the difference of the rest counts."""
    every = pulls.apart(found, expected)
    return {name: _less_what_both_have(name, one, found, expected) for name, one in every.items()}


def _less_what_both_have(name: str, one: Apart, *payloads: Payload) -> Apart:
    own = f"{name}_statistical"
    if any(own not in payload.arrays for payload in payloads):
        return one
    statistical = [payload[own] for payload in payloads]
    errors = (pulls.error_of(name, payload) for payload in payloads)
    rest = [np.sqrt(np.maximum(error**2 - part**2, 0.0)) for error, part in zip(errors, statistical, strict=True)]
    sigma = np.sqrt(sum(part**2 for part in statistical) + (rest[0] - rest[1]) ** 2)
    known = np.isfinite(one.move) & (sigma > 0)
    return replace(one, move=np.where(known, one.move, np.nan), sigma=np.where(known, sigma, np.nan))


def payload_of(
    structures: Structures,
    values: Floats,
    errors: Mapping[str, Floats],
    flags: Array,
    of_structure: Array,
    rest: Mapping[str, Any],
) -> Payload:
    """Of values and errors, by what they are called, [structures, 6] in um and urad; flags [structures, 6]; and records
    by structure."""
    arrays: dict[str, Array] = {}
    for level, (name, _) in enumerate(structures.levels):
        rows = slice(structures.first[level], structures.first[level + 1])
        arrays[name] = values[rows] / TO_UM
        if structures.any_free[rows].any():
            arrays |= {f"{name}_{part}": error[rows] / TO_UM for part, error in errors.items()}
            arrays[f"{name}_flags"] = flags[rows].astype(np.int8)
            arrays[f"{name}_records"] = of_structure[rows].astype(np.int32)
    arrays |= {name: np.asarray(value) for name, value in rest.items()}
    known = dict(leeway(structures).more) | dict.fromkeys((name for name, _ in structures.levels), UNIT)
    return Payload(KIND, arrays, {name: known[name] for name in arrays if known.get(name)})


def weak_arrays(modes: tuple[Mode, ...], structure: Array, number: Array) -> dict[str, Array]:
    """The modes that tracks do not tell, of a system over such structures and numbers [p]."""
    largest = np.full((len(modes), COMPONENTS), -1, np.int64)
    for row, mode in zip(largest, modes, strict=True):
        row[: len(mode.largest)] = mode.largest
    there = largest >= 0
    of: dict[str, Array] = {
        "deformation": np.array([mode.deformation for mode in modes], np.int16),
        "overlap": np.array([mode.overlap for mode in modes], np.float64),
        "error": np.array([mode.error for mode in modes], np.float64),
        "structure": np.where(there, structure[largest], -1).astype(np.int32),
        "number": np.where(there, number[largest], -1).astype(np.int8),
    }
    return {f"weak_{name}": values for name, values in of.items()}


def weak_modes(payload: Payload, structures: Structures) -> list[str]:
    """The modes that tracks do not tell, in words."""
    found = []
    for row in range(len(payload["weak_deformation"])):
        place = int(payload["weak_deformation"][row])
        known = payload["weak_structure"][row] >= 0
        names = structures.names(payload["weak_structure"][row][known])
        numbers = [NUMBERS[number] for number in payload["weak_number"][row][known]]
        parts = ", ".join(f"{name} {number}" for name, number in zip(names, numbers, strict=True))
        overlap, error = float(payload["weak_overlap"][row]), float(payload["weak_error"][row])
        name = f"{tuple(DEFORMATIONS)[place]} ({overlap:.0%} of it)" if place >= 0 else "a mode without a name"
        found.append(f"{name}: tracks do not tell it to better than {error:.3g} um, mostly {parts}")
    return found
