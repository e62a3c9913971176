"""The field that a Lorentz angle was measured in, and what it is in another: the tangent goes with the field.

So does CMS's, which publishes tangents over the field and stops where runs of another come together.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calib.accumulators import UnitSums, to_fixed
from calib.calibration import NotEnoughData
from calib.payload import Payload

Int = NDArray[np.int64]
Floats = NDArray[np.float64]

PARTS_OF_TESLA = 1_000_000
"""to which a field is known"""


def field_sums(units: Int, events: Int, field: Payload) -> UnitSums:
    """Of units with so many events each: these, and their sum of the field."""
    tesla = int(to_fixed(field["tesla"], 1 / PARTS_OF_TESLA))
    return UnitSums(units, np.stack([events, events * tesla], axis=-1).astype(np.int64))


def fields_of(sums: UnitSums) -> Floats:
    """The field of every unit (T)."""
    events, tesla = sums.values.T
    found: Floats = np.rint(tesla / events) / PARTS_OF_TESLA
    return found


def one_field(fields: Floats) -> float:
    """The field (T) that units have in common. Raises NotEnoughData where they have several, or none."""
    if len(np.unique(fields)) > 1:
        raise NotEnoughData(
            f"units of different fields, {fields.min():g} to {fields.max():g} T, are not put together: the angle goes "
            "with the field; take those of one field"
        )
    if fields[0] == 0:
        raise NotEnoughData("there is no field, and so no angle; the one in force says what it is in another")
    return float(fields[0])


def in_field(angle: Payload, field: Payload) -> Floats:
    """The tangents of a payload in the field of another, which says it as `tesla`; as they are where they know none.

    Raises ValueError where they are of no field and there is one: they do not tell.
    """
    tan: Floats = angle["tan"]
    now = float(field["tesla"])
    measured = float(angle.arrays.get("tesla", now))
    if measured == now:
        return tan
    if measured == 0:
        raise ValueError(f"{angle.kind} is of no field, and says nothing of {now:g} T; publish one measured in a field")
    return tan * (now / measured)


def brought(previous: Payload, tesla: float | None) -> Payload | None:
    """A payload in another field; None where it was of none."""
    before = previous.arrays.get("tesla")
    if tesla is None or before is None or float(before) == tesla:
        return previous
    if float(before) == 0:
        return None
    times = {"tan": tesla / float(before)} | dict.fromkeys(("tan_error", "scale_error"), abs(tesla / float(before)))
    arrays = {name: values * times.get(name, 1) for name, values in previous.arrays.items() if name in times}
    return Payload(previous.kind, {**previous.arrays, **arrays, "tesla": np.asarray(tesla)}, previous.units)
