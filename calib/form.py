"""Whether a payload made elsewhere has the form of its kind: names, shapes, types, units, numbers where they must be.

Pure. The form is that of a reference payload, which everything that reads the kind is known to take.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from calib.payload import Array, Payload
from calib.verdict import element

_TYPES = {"b": "booleans", "i": "integers", "u": "integers", "f": "floats"}


@dataclass(frozen=True)
class Leeway:
    """What a payload of a kind may have that its reference does not show."""

    more: Mapping[str, str] = field(default_factory=dict)
    """arrays beyond those of the reference, with their units; of these only the units are looked at"""
    not_finite: tuple[str, ...] = ()
    """arrays that may have NaN or infinity where the reference has numbers"""
    any_length: tuple[str, ...] = ()
    """arrays whose axes may have other lengths, not another number"""

    def knowing(self, payload: Payload) -> Leeway:
        """This, and whatever arrays a payload has that is in use."""
        return replace(self, more={name: payload.units.get(name, "") for name in payload.arrays} | dict(self.more))


def misfits(payload: Payload, reference: Payload, leeway: Leeway | None = None) -> tuple[str, ...]:
    """Every way in which a payload has not the form of the reference, each with what was expected; empty: it fits.

    Bits of a type may differ, its sort (booleans, integers, floats) may not. A value must be finite where that of the
    reference is; where the lengths differ, if all of its array are.
    """
    return tuple(_misfits(payload, reference, leeway or Leeway()))


def _misfits(payload: Payload, reference: Payload, leeway: Leeway) -> Iterator[str]:
    for name, wanted in reference.arrays.items():
        unit = reference.units.get(name, "")
        if name in payload.arrays:
            yield from _of_array(name, payload, reference, leeway)
        else:
            yield f"it has no `{name}`: {_TYPES[wanted.dtype.kind]} of shape {wanted.shape} in {unit or 'no unit'}"
    for name in sorted(payload.arrays.keys() - reference.arrays.keys()):
        if name in leeway.more:
            yield from _of_unit(name, payload.units.get(name, ""), leeway.more[name])
        else:
            # Which there are is said only where it helps: those that are missing are named anyway.
            near = difflib.get_close_matches(name, sorted({*reference.arrays, *leeway.more}), n=1)
            yield f"`{name}` is foreign to kind {payload.kind}" + (f"; did you mean `{near[0]}`?" if near else "")


def _of_array(name: str, payload: Payload, reference: Payload, leeway: Leeway) -> Iterator[str]:
    found, wanted = payload[name], reference[name]
    yield from _of_unit(name, payload.units.get(name, ""), reference.units.get(name, ""))
    has, needs = _TYPES[found.dtype.kind], _TYPES[wanted.dtype.kind]
    if has != needs:
        yield f"`{name}` is of {has}, expected are {needs} such as {wanted.dtype}"
    if found.ndim != wanted.ndim or (found.shape != wanted.shape and name not in leeway.any_length):
        yield f"`{name}` has shape {found.shape}, expected is {wanted.shape}"
    elif name not in leeway.not_finite:
        yield from _of_numbers(name, found, wanted)


def _of_unit(name: str, has: str, needs: str) -> Iterator[str]:
    if has != needs:
        yield f"`{name}` is in {has or 'no unit'}, expected is {needs or 'no unit'}"


def _of_numbers(name: str, found: Array, wanted: Array) -> Iterator[str]:
    finite = np.isfinite(wanted)
    must = finite if found.shape == wanted.shape else finite.all()
    wrong = np.asarray(~np.isfinite(found) & must)
    if count := int(np.count_nonzero(wrong)):
        if found.ndim == 0:
            yield f"`{name}` is {found}, expected is a finite number"
            return
        first = element(name, wrong.astype(np.float64), int(np.argmax(wrong)))
        yield f"`{name}`: {count} of {found.size} values are no finite numbers, expected are such; the first is {first}"
