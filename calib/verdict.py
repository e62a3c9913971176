"""What a gate is, what it finds, and the words for what cannot be checked."""

from __future__ import annotations

import dataclasses
import difflib
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from calib.payload import Payload

Floats = NDArray[np.float64]


class Decision(StrEnum):
    """What is to become of a payload."""

    PUBLISH = "publish"
    """it goes into its tag"""
    NO_CHANGE = "no change"
    """nothing it watches has moved; the payload in force goes on"""
    REJECT = "reject"
    """something is wrong with it; a person should look"""


@dataclass(frozen=True, slots=True)
class Measure:
    """A number a gate looked at, and its limit, in the unit of the payload."""

    gate: str
    what: str
    value: float
    limit: float
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one gate says: PUBLISH means nothing against it, NO_CHANGE that what the gate watches stood still."""

    decision: Decision
    reason: str = ""
    measures: tuple[Measure, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision over a payload of a kind, why, and the (finite) numbers it rests on."""

    kind: str
    decision: Decision
    reasons: tuple[str, ...] = ()
    measures: tuple[Measure, ...] = ()


@dataclass(frozen=True)
class Gate(ABC):
    """A check with its parameters. Gates are values: equal parameters, equal gates."""

    name: ClassVar[str]
    """how settings call it"""
    relative: ClassVar[bool] = False
    """whether it compares with the payload in force"""
    watches: ClassVar[bool] = False
    """whether it can say that nothing has moved"""

    @property
    def standard(self) -> str:
        """Id of the payload it compares with in place of the one in force; empty for none."""
        return ""

    @abstractmethod
    def look(self, payload: Payload, in_force: Payload | None) -> Finding:
        """What this gate says of a payload, beside the one in force or the gate's `standard`. Raises nothing: what
        cannot be checked is rejected with a reason."""

    def settings(self) -> dict[str, Any]:
        """Name and parameters, as `gate_from_settings` takes them."""
        return {"gate": self.name, **dataclasses.asdict(self)}


def lacks(payload: Payload, name: str) -> Finding:
    """The finding when a payload has no array of that name."""
    return Finding(
        Decision.REJECT, f"a payload of kind {payload.kind} has no array {name!r}{meant(name, payload.arrays)}"
    )


def unfit(payload: Payload, name: str, unit: str) -> Finding | None:
    """The finding when an array is missing or in another unit than `unit`; None when all is well."""
    if name not in payload.arrays:
        return lacks(payload, name)
    has = payload.units.get(name, "")
    if has == unit:
        return None
    return Finding(Decision.REJECT, f"the gate has {name} in {unit or 'no unit'}, the payload in {has or 'no unit'}")


def incomparable(payload: Payload, other: Payload, name: str, called: str = "the payload in force") -> Finding | None:
    """The finding when the array has another unit or shape in the other payload; None when all is well."""
    old, new = other.units.get(name, ""), payload.units.get(name, "")
    if old != new:
        return Finding(Decision.REJECT, f"{name} is in {new or 'no unit'}, in {called} in {old or 'no unit'}")
    old_shape, new_shape = other[name].shape, payload[name].shape
    if old_shape != new_shape:
        return Finding(Decision.REJECT, f"{name} has shape {new_shape}, in {called} {old_shape}")
    return None


def wrong_errors(payload: Payload, name: str, errors: str) -> Finding | None:
    """The finding when the errors have another unit or shape than the values; one error for all is fine."""
    unit, other = payload.units.get(name, ""), payload.units.get(errors, "")
    if unit != other:
        return Finding(Decision.REJECT, f"{name} is in {unit or 'no unit'}, {errors} in {other or 'no unit'}")
    if payload[errors].shape not in ((), payload[name].shape):
        return Finding(Decision.REJECT, f"{name} has shape {payload[name].shape}, {errors} {payload[errors].shape}")
    return None


def element(name: str, values: Floats, flat: int) -> str:
    """The name of one element of an array, `x[1, 2]`, by its place in the flat array."""
    if values.ndim == 0:
        return name
    return f"{name}[{', '.join(str(int(i)) for i in np.unravel_index(flat, values.shape))}]"


def quantity(value: float, unit: str) -> str:
    """A number with its unit."""
    return f"{value:.6g} {unit}".rstrip()


def meant(name: str, known: Iterable[str]) -> str:
    """What may have been meant by a name, or what there is, as the end of a sentence."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean `{near[0]}`?" if near else f"; there are {', '.join(names)}"
