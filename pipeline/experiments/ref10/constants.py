"""The conditions of REF10 beside geometry and alignment: their kinds, shapes and units, and the design values.

Strip channels are numbered `768 * strip module + strip`, strip modules in the order of the geometry; chips (APVs) are
numbered `6 * strip module + chip`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calib.algorithms.pedestal import nominal
from calib.payload import Payload
from pipeline.experiments.ref10.geometry import Geometry
from pipeline.experiments.ref10.layers import CHIPS, LAYERS, ROC, STRIPS

GAIN, LORENTZ, STRIP_STATUS, PIXEL_STATUS = "gain", "lorentz_angle", "strip_status", "pixel_status"
FIELD = "field"

STRIP_ELECTRONS = 265.0
"""electrons for one ADC count of a strip at gain 1"""
PIXEL_ELECTRONS = 150.0
"""electrons for one ADC count of a pixel"""
STRIP_SATURATION = 254
"""counts above pedestal at which a strip saturates"""
PIXEL_SATURATION = 255
STRIP_LARGEST = 1023
"""largest count a strip can send, 10 bits"""
PIXEL_THRESHOLD = 3000.0
"""electrons below which a pixel is not read out"""

DESIGN_TANGENTS = (0.36, 0.09)
"""tangent of the Lorentz angle that the design reckons with, of pixels and of strips at 3.8 T: a tenth less than it is.
Of pixels by the physics note, 9.2 and 11: 0.36 where 0.40 is true, which shifts hits by 5.7 um; of strips likewise"""

DESIGN_TESLA = 3.8
"""the field that the design reckons with; a thousandth less than it is (physics note, 9.2)"""

GOOD = 0
"""status of a channel that takes part; any other is masked"""


def gain(values: NDArray[np.floating]) -> Payload:
    """Relative gain by chip, float32[6 strip modules]: charge = counts above pedestal x gain x 265 electrons."""
    return Payload(GAIN, {"gain": np.asarray(values, np.float32)}, {"gain": "1"})


def lorentz_angle(tangents: NDArray[np.floating], tesla: float = DESIGN_TESLA) -> Payload:
    """Tangent of the Lorentz angle by layer, float64[10], in a sensor's own axes: charge drifts towards +u; and the
    field that it is of [T]. In another it goes with the field."""
    found = np.asarray(tangents, np.float64)
    if found.shape != (len(LAYERS),):
        raise ValueError(f"one tangent for each of {len(LAYERS)} layers is needed, not {found.shape}")
    return Payload(LORENTZ, {"tan": found, "tesla": np.asarray(tesla, np.float64)}, {"tan": "1", "tesla": "T"})


def field(tesla: float) -> Payload:
    """The magnetic field, along +z [T]."""
    return Payload(FIELD, {"tesla": np.asarray(tesla, np.float64)}, {"tesla": "T"})


def strip_status(status: NDArray[np.integer]) -> Payload:
    """Status by strip channel, int8; 0 takes part, any other is masked."""
    return Payload(STRIP_STATUS, {"status": np.asarray(status, np.int8)})


def pixel_status(status: NDArray[np.integer]) -> Payload:
    """Status by readout chip, int8[pixel modules, chips]; chip `9 * (row // 80) + column // 52`; 0 takes part."""
    return Payload(PIXEL_STATUS, {"status": np.asarray(status, np.int8)})


ROC_COLUMNS = -(-432 // ROC[1])
"""readout chips along the columns of a module; the last is narrower"""
ROCS = -(-max(layer.rows for layer in LAYERS if layer.pixel) // ROC[0]) * ROC_COLUMNS
"""readout chips of a module, the largest; smaller ones leave the last unused"""


def roc_of(row: NDArray[np.integer], column: NDArray[np.integer]) -> NDArray[np.int64]:
    """The readout chip of a pixel within its module."""
    chip = np.asarray(row, np.int64) // ROC[0] * ROC_COLUMNS + np.asarray(column, np.int64) // ROC[1]
    found: NDArray[np.int64] = chip
    return found


def pedestal(mean: NDArray[np.floating], noise: NDArray[np.floating]) -> Payload:
    """Pedestal and noise by strip channel [ADC], taken as exact: what `calib.algorithms.pedestal` goes from."""
    return nominal(len(mean), mean, noise)


def design(geometry: Geometry) -> dict[str, Payload]:
    """What one starts from: gain 1, every channel good, pedestal 100, noise 4; Lorentz angle, field of design."""
    modules, pixels = len(geometry.strip_rows), int(geometry.pixel.sum())
    strips = modules * STRIPS
    payloads = (
        gain(np.ones(modules * CHIPS)),
        lorentz_angle(np.array([DESIGN_TANGENTS[0 if layer.pixel else 1] for layer in LAYERS])),
        strip_status(np.zeros(strips, np.int8)),
        pixel_status(np.zeros((pixels, ROCS), np.int8)),
        pedestal(np.full(strips, 100.0), np.full(strips, 4.0)),
        field(DESIGN_TESLA),
    )
    return {payload.kind: payload for payload in payloads}
