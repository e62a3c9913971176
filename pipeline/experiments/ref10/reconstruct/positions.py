"""Where on its sensor a cluster's track crossed the middle plane, and how well that is known.

A track that crosses obliquely, seen along the drift (slope du/dw less the tangent of the Lorentz angle), shares its
charge over a width W. One channel: its middle. Two: from their border towards the stronger one, by `skew W / 2`, where
skew is the difference of their charges over the sum (the eta correction); W is not known before the track is, so its
mean over clusters of two channels stands in, in units of the pitch. Three: the centre of the charge. More: the charge
inside says nothing but how the energy loss fluctuated, so only the ends count, the middle and half their skew.

The errors are the spreads of this estimate, in units of the pitch by size, over minimum-bias tracks
(tests/pipeline/experiments/ref10/reconstruct/test_resolution.py measures them). Along the strips nothing is measured:
the middle, with an error of length/sqrt(12).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from calib.payload import Payload
from pipeline.experiments.collisions import Collection
from pipeline.experiments.ref10.constants import LORENTZ
from pipeline.experiments.ref10.geometry import KIND as GEOMETRY
from pipeline.experiments.ref10.geometry import geometry_of
from pipeline.experiments.ref10.reconstruct.flags import ClusterFlag

USES = (GEOMETRY, LORENTZ)
MADE = ("u", "v", "u_error", "v_error")
"""float32 [cm]"""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

PIXEL_U, PIXEL_V, THIN, THICK = range(4)
"""what is measured: by pixels along u and v, by strips of 320 and of 500 um"""
THIN_CM = 0.04
"""strips thinner than this are thin"""

WIDTH_OF_TWO = np.array([0.98, 0.90, 0.81, 0.88])
"""mean W of clusters of two channels, over the pitch"""
HEAD_AND_TAIL = 4
"""channels along an axis from which only the ends count"""

UNIFORM = 1 / np.sqrt(12)
SPREAD = np.array(
    [
        [0.145, 0.100, 0.082, 0.150, 0.150, 0.150],
        [0.206, 0.107, 0.092, 0.150, 0.150, 0.150],
        [0.192, 0.104, 0.110, 0.155, 0.155, 0.155],
        [0.174, 0.096, 0.105, 0.133, 0.150, 0.165],
    ]
)
"""error over the pitch, by what is measured and by size 1 to 6 and more"""
DOUBTFUL = ClusterFlag.SATURATED | ClusterFlag.EDGE | ClusterFlag.NEAR_MASKED | ClusterFlag.BRIDGED


def positions(clusters: Collection, conditions: Mapping[str, Payload]) -> Collection:
    """Clusters with `u`, `v` and errors [cm] added: in the sensor's axes, where the track crossed its middle plane.

    The Lorentz shift, half the thickness times the tangent towards +u, is taken out. Raises UnknownModule for clusters
    of another geometry.
    """
    geometry = geometry_of(conditions[GEOMETRY])
    row = geometry.rows_of(clusters.flat["module"])
    pixel = geometry.pixel[row]
    thick = geometry.thickness[row] > THIN_CM
    tangent = conditions[LORENTZ]["tan"][geometry.layer[row] - 1]
    across, u_error = _along("u", clusters, np.where(pixel, PIXEL_U, np.where(thick, THICK, THIN)))
    along, v_error = _along("v", clusters, np.full(len(row), PIXEL_V))
    u = _centred(across, geometry.rows, geometry.pitch_u, row) - 0.5 * geometry.thickness[row] * tangent
    v = np.where(pixel, _centred(along, geometry.columns, geometry.pitch_v, row), 0.0)
    errors = (u_error * geometry.pitch_u[row], np.where(pixel, v_error, UNIFORM) * geometry.pitch_v[row])
    return clusters.adding(**{name: x.astype(np.float32) for name, x in zip(MADE, (u, v, *errors), strict=True)})


def _centred(channel: Floats, channels: NDArray[np.int32], pitch: Floats, row: Ints) -> Floats:
    """Where a channel lies from the middle of the sensor [cm]."""
    found: Floats = (channel + 0.5 - 0.5 * channels[row]) * pitch[row]
    return found


def _along(axis: str, clusters: Collection, measured: Ints) -> tuple[Floats, Floats]:
    """Position along an axis, in channels, and its error, in units of the pitch."""
    names = ("row", "first_row") if axis == "u" else ("column", "first_column")
    mean, first = (clusters[name] for name in names)
    size, skew = clusters.flat[f"size_{axis}"].astype(np.int64), clusters[f"skew_{axis}"]
    width = np.where(size == 2, WIDTH_OF_TWO[measured], 1.0)
    ends = first + 0.5 * (size - 1) + 0.5 * skew * width
    found = np.where((size == 2) | (size >= HEAD_AND_TAIL), ends, mean)
    error = SPREAD[measured, np.clip(size, 1, SPREAD.shape[1]) - 1]
    flags = clusters.flat["flags"]
    error = np.where(flags & np.uint8(DOUBTFUL), np.maximum(error, UNIFORM), error)
    return found, np.where(flags & np.uint8(ClusterFlag.LARGE), size * UNIFORM, error)
