"""Where on its sensor a cluster's track crossed the middle plane, and how well that is known.

A track that crosses obliquely, seen along the drift (slope du/dw less the tangent of the Lorentz angle), shares its
charge over a width W. One channel: its middle. Two: from their border towards the stronger one by `skew W / 2`, skew
being the difference of their charges over the sum (the eta correction); W is not known before the track is, so its mean
over clusters of two channels stands in. Three and four: the centre of the charge. More, or reaching over a masked
strip: what lies inside says nothing but how the energy loss fluctuated, or misses a part, so only the ends count, the
middle and half their skew.

Widths and errors, in units of the pitch, are those of this estimate over simulated minimum bias; their size and what
they follow from is tested in tests/pipeline/experiments/ref10/reconstruct/test_resolution.py. Where charge is missing
(saturated, at the border, beside a masked channel) errors are those of such clusters. Along strips nothing is measured:
the middle, with an error of length/sqrt(12).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from calib.algorithms.lorentz_field import in_field
from calib.payload import Payload
from pipeline.experiments.collisions import Collection
from pipeline.experiments.ref10.constants import FIELD, LORENTZ
from pipeline.experiments.ref10.geometry import KIND as GEOMETRY
from pipeline.experiments.ref10.geometry import geometry_of
from pipeline.experiments.ref10.reconstruct.flags import ClusterFlag

USES = (GEOMETRY, LORENTZ, FIELD)
MADE = ("u", "v", "u_error", "v_error")
"""float32 [cm]"""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

PIXEL_U, PIXEL_V, THIN, THICK = range(4)
"""what is measured: by pixels along u and v, by strips of 320 and of 500 um"""
THIN_CM = 0.04
"""strips thinner than this are thin"""

WIDTH_OF_TWO = np.array([1.00, 0.94, 0.84, 0.92])
"""mean W of clusters of two channels, over the pitch"""
HEAD_AND_TAIL = 5
"""channels along an axis from which only the ends count"""

UNIFORM = 1 / np.sqrt(12)
SPREAD = np.array(
    [
        [0.143, 0.086, 0.061, 0.080, 0.100, 0.100],
        [0.205, 0.095, 0.068, 0.080, 0.100, 0.100],
        [0.192, 0.097, 0.088, 0.114, 0.150, 0.150],
        [0.177, 0.085, 0.079, 0.105, 0.126, 0.138],
    ]
)
"""error over the pitch, by what is measured and by size 1 to 6 and more"""
SATURATED = 0.13
"""least error over the pitch of a saturated cluster"""
BRIDGED = 0.15
"""the same, of one that reaches over a masked strip"""
BESIDE_MASKED = (0.50, 0.30)
"""the same, of one channel and of more beside a masked one"""
BORDER = (0.50, 0.10)
"""the same along an axis at whose end it lies: of one channel, and what each further one adds"""
EDGE = 0.30
"""the same, along the other axis"""


def positions(clusters: Collection, conditions: Mapping[str, Payload]) -> Collection:
    """Clusters with `u`, `v` and errors [cm] added: in the sensor's axes, where the track crossed its middle plane.

    The Lorentz shift, half the thickness times the tangent towards +u, is taken out; the tangent is brought to the
    field of the events. Raises UnknownModule for clusters of another geometry, ValueError for a tangent of no field
    where there is one.
    """
    geometry = geometry_of(conditions[GEOMETRY])
    row = geometry.rows_of(clusters.flat["module"])
    pixel = geometry.pixel[row]
    thick = geometry.thickness[row] > THIN_CM
    tangent = in_field(conditions[LORENTZ], conditions[FIELD])[geometry.layer[row] - 1]
    across, u_error = _along("u", clusters, geometry.rows[row], np.where(pixel, PIXEL_U, np.where(thick, THICK, THIN)))
    along, v_error = _along("v", clusters, geometry.columns[row], np.full(len(row), PIXEL_V))
    u = _centred(across, geometry.rows[row]) * geometry.pitch_u[row] - 0.5 * geometry.thickness[row] * tangent
    v = np.where(pixel, _centred(along, geometry.columns[row]), 0.0) * geometry.pitch_v[row]
    errors = (u_error * geometry.pitch_u[row], np.where(pixel, v_error, UNIFORM) * geometry.pitch_v[row])
    return clusters.adding(**{name: x.astype(np.float32) for name, x in zip(MADE, (u, v, *errors), strict=True)})


def _centred(channel: Floats, channels: NDArray[np.int32]) -> Floats:
    """Where a place in channels lies from the middle of the sensor, in channels."""
    found: Floats = channel - 0.5 * (channels - 1)
    return found


def _along(axis: str, clusters: Collection, channels: NDArray[np.int32], measured: Ints) -> tuple[Floats, Floats]:
    """Position along an axis, in channels, and its error, in units of the pitch."""
    names = ("row", "first_row") if axis == "u" else ("column", "first_column")
    mean, first = (clusters[name] for name in names)
    size, skew = clusters.flat[f"size_{axis}"].astype(np.int64), clusters[f"skew_{axis}"]
    ends = (size == 2) | (size >= HEAD_AND_TAIL) | _flagged(clusters, ClusterFlag.BRIDGED)
    width = np.where(size == 2, WIDTH_OF_TWO[measured], 1.0)
    found = np.where(ends, first + 0.5 * (size - 1) + 0.5 * skew * width, mean)
    border = (first == 0) | (first + size == channels)
    return found, _error(clusters, size, border, SPREAD[measured, np.clip(size, 1, SPREAD.shape[1]) - 1])


def _error(clusters: Collection, size: Ints, border: Mask, spread: Floats) -> Floats:
    """The error over the pitch, from that of a cluster with nothing wrong."""
    least = (
        (ClusterFlag.SATURATED, SATURATED),
        (ClusterFlag.BRIDGED, BRIDGED),
        (ClusterFlag.EDGE, EDGE),
        (ClusterFlag.NEAR_MASKED, np.where(size == 1, *BESIDE_MASKED)),
    )
    for flag, error in least:
        spread = np.where(_flagged(clusters, flag), np.maximum(spread, error), spread)
    first, more = BORDER
    spread = np.where(border, np.maximum(spread, first + more * (size - 1)), spread)
    return np.where(_flagged(clusters, ClusterFlag.LARGE), size * UNIFORM, spread)


def _flagged(clusters: Collection, flag: ClusterFlag) -> Mask:
    found: Mask = (clusters.flat["flags"] & np.uint8(flag)) > 0
    return found
