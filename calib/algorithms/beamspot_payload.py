"""The payload `beamspot`: which numbers it has, and how what tracks and vertices say goes together.

Position and slopes come from tracks, z and the widths from vertices where there are enough (physics note 1.5). x and y,
and their covariance, are quoted at the z of the payload. Where the vertex of each track is known, pairs of tracks tell
the widths too, and whether the vertices are right about them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from calib.algorithms.beamspot_pairs import PairWidths
from calib.algorithms.beamspot_tracks import Lines
from calib.algorithms.beamspot_vertices import DX, DY, VX, VY, VZ, Region, X, Y, Z
from calib.form import Leeway
from calib.jagged import counts_of, flat_of, jagged_of
from calib.payload import Payload

Floats = NDArray[np.float64]

KIND = "beamspot"

PARAMETERS = ("x", "y", "z", "sigma_z", "dxdz", "dydz", "width_x", "width_y")
"""the order of `covariance`, `vertex_values` and `vertex_covariance`"""

UNITS = {name: "rad" if name in ("dxdz", "dydz") else "cm" for name in PARAMETERS}

_X, _Y, _Z, _SIGMA_Z, _DXDZ, _DYDZ, _WIDTH_X, _WIDTH_Y = range(8)
SLOPES, PLACE_IN_Z, WIDTHS = [_DXDZ, _DYDZ], [_Z, _SIGMA_Z], [_WIDTH_X, _WIDTH_Y]


@dataclass(frozen=True, eq=False)
class Measured:
    """Values float64[8] and covariance float64[8, 8] in the order of PARAMETERS; NaN where not measured."""

    values: Floats
    covariance: Floats

    @classmethod
    def nothing(cls) -> Self:
        """All of it unknown."""
        return cls(np.full(8, np.nan), np.diag(np.full(8, np.nan)))

    @classmethod
    def from_lines(cls, lines: Lines, group: int = 0) -> Measured:
        """What the tracks of one group say, at the mean z of their own."""
        found = cls.nothing()
        place = [_X, _Y, *SLOPES] if np.isfinite(lines.z[group]) else [_X, _Y]
        found.values[place] = lines.line[group, : len(place)]
        found.covariance[np.ix_(place, place)] = lines.covariance[group, : len(place), : len(place)]
        if np.isfinite(lines.z[group]):
            found.values[PLACE_IN_Z] = lines.z[group], lines.z_spread[group]
            error = lines.z_error[group]
            found.covariance[np.ix_(PLACE_IN_Z, PLACE_IN_Z)] = np.diag([error**2, error**2 / 2])
        return found

    @classmethod
    def from_region(cls, region: Region) -> Measured:
        """What vertices say, at their own z."""
        order = [X, Y, Z, VZ, DX, DY, VX, VY]
        values = region.values[order]
        slope = np.ones(8)
        # From variances to widths.
        spreads = [_SIGMA_Z, *WIDTHS]
        values[spreads] = np.sqrt(values[spreads])
        slope[spreads] = 0.5 / values[spreads]
        return cls(values, region.covariance[np.ix_(order, order)] * slope * slope[:, None])

    def at(self, z: float) -> Measured:
        """With x and y moved along the slopes to another z."""
        move = np.eye(8)
        move[_X, _DXDZ] = move[_Y, _DYDZ] = z - self.values[_Z]
        known = np.isfinite(self.values)
        place = np.ix_(known, known)
        values, covariance = self.values.copy(), self.covariance.copy()
        values[known] = move[place] @ self.values[known]
        covariance[place] = move[place] @ self.covariance[place] @ move[place].T
        # z is chosen, no longer measured here.
        values[_Z] = z
        return Measured(values, covariance)

    def taking(self, parameters: list[int], other: Measured) -> Measured:
        """With these parameters and their covariance from the other; what the two share is not correlated further."""
        values, covariance = self.values.copy(), self.covariance.copy()
        values[parameters] = other.values[parameters]
        covariance[parameters, :] = covariance[:, parameters] = 0.0
        covariance[np.ix_(parameters, parameters)] = other.covariance[np.ix_(parameters, parameters)]
        return Measured(values, covariance)


def nominal(**values: float) -> Payload:
    """A payload from design values, by PARAMETERS [cm, rad]; what is not given is 0. Nothing of it is measured.

    Raises ValueError for a name it does not know.

    >>> float(nominal(x=0.07, sigma_z=5.0)["x"])
    0.07
    """
    unknown = sorted(set(values) - set(PARAMETERS))
    if unknown:
        raise ValueError(f"a beam spot has no {', '.join(unknown)}; it has {', '.join(PARAMETERS)}")
    given = np.array([values.get(name, 0.0) for name in PARAMETERS])
    nothing = Measured.nothing()
    return build(Measured(given, nothing.covariance), nothing, {}, dict.fromkeys(_FLAGS, False))


def on_axis(payload: Payload) -> Payload:
    """The same beam with its line on the z axis, its middle at 0."""
    zero = {name: np.zeros_like(payload[name]) for name in ("x", "y", "z", "dxdz", "dydz")}
    return Payload(payload.kind, {**payload.arrays, **zero}, payload.units)


def about_line(columns: Mapping[str, Any], payload: Payload) -> dict[str, Any]:
    """Columns of tracks and vertices (`calib.algorithms.beamspot`) as seen from the beam: its line is the z axis, and z
    counts from its middle. `track_d0` has the sign of x sin(phi) - y cos(phi)."""
    x, y, z, dxdz, dydz = (float(payload[name]) for name in ("x", "y", "z", "dxdz", "dydz"))
    moved = dict(columns)

    def put(name: str, values: NDArray[Any], like: str) -> None:
        moved[name] = jagged_of(values, counts_of(columns[like]))

    d0, phi = flat_of(columns["track_d0"]), flat_of(columns["track_phi"])
    along = flat_of(columns["track_z0"]) - z if "track_z0" in columns else np.zeros_like(d0)
    put("track_d0", d0 - ((x + dxdz * along) * np.sin(phi) - (y + dydz * along) * np.cos(phi)), "track_d0")
    if "track_z0" in columns:
        put("track_z0", along, "track_z0")
    if "vertex_x" in columns:
        along = flat_of(columns["vertex_z"]) - z
        put("vertex_x", flat_of(columns["vertex_x"]) - (x + dxdz * along), "vertex_x")
        put("vertex_y", flat_of(columns["vertex_y"]) - (y + dydz * along), "vertex_y")
        put("vertex_z", along, "vertex_z")
    return moved


_FLAGS = {"slopes_measured": SLOPES, "z_measured": PLACE_IN_Z, "widths_measured": WIDTHS}


def together(tracks: Measured, vertices: Measured) -> Measured:
    """Place and slopes of the tracks; and if the vertices were fitted, at their z, with their length and widths."""
    if not np.isfinite(vertices.values[_Z]):
        return tracks
    at_z = tracks.at(float(vertices.values[_Z])) if np.isfinite(tracks.values[_Z]) else tracks
    return at_z.taking([*PLACE_IN_Z, *WIDTHS], vertices)


def combine(tracks: Measured, vertices: Measured, extra: Mapping[str, Any], previous: Payload | None) -> Payload:
    """The payload of an interval. What neither measured is carried from `previous`; without one, z and slopes are 0."""
    best = together(tracks, vertices)
    flags = {name: bool(np.isfinite(best.values[place]).all()) for name, place in _FLAGS.items()}
    return build(_carry(best, previous), vertices, extra, flags)


def _carry(best: Measured, previous: Payload | None) -> Measured:
    values, covariance = best.values.copy(), best.covariance.copy()
    for i in np.flatnonzero(np.isnan(values)):
        name = PARAMETERS[i]
        if previous is None:
            values[i] = 0.0 if i in (_Z, *SLOPES) else np.nan
        else:
            values[i] = float(previous[name])
            covariance[i, i] = float(previous.arrays.get(f"{name}_error", np.nan)) ** 2
    return Measured(values, covariance)


def build(best: Measured, vertices: Measured, extra: Mapping[str, Any], flags: Mapping[str, bool]) -> Payload:
    """The arrays: each parameter and its error, their covariance, what vertices alone say, flags and the rest."""
    errors = np.sqrt(np.diag(best.covariance))
    arrays: dict[str, NDArray[np.generic]] = {
        **{name: np.asarray(best.values[i]) for i, name in enumerate(PARAMETERS)},
        **{f"{name}_error": np.asarray(errors[i]) for i, name in enumerate(PARAMETERS)},
        "covariance": best.covariance,
        "vertex_values": vertices.values,
        "vertex_covariance": vertices.covariance,
        **{name: np.asarray(value) for name, value in {**extra, **flags}.items()},
    }
    units = UNITS | {f"{name}_error": unit for name, unit in UNITS.items()}
    units |= {name: unit for name, unit in EXTRA_UNITS.items() if name in arrays}
    return Payload(KIND, arrays, units)


def of_pairs(pairs: PairWidths, probability: float) -> dict[str, Any]:
    """What pairs of tracks say of the widths, beside the rest of a payload: variances and the covariance of x and y,
    which are what is fitted, with their covariance; then widths and correlation, NaN where a variance is not above 0.

    `probability` is that of vertices to differ from it by more than they do.
    """
    variance, xy = np.where(pairs.values[:2] > 0, pairs.values[:2], np.nan), pairs.values[2]
    width = np.sqrt(variance)
    both = width.prod()
    values = [*pairs.values, *width, xy / both]
    slope = np.vstack([np.eye(3), np.diag(0.5 / width) @ np.eye(2, 3), [*(-xy / both / 2 / variance), 1 / both]])
    errors = np.sqrt(np.einsum("qk,kl,ql->q", slope, pairs.covariance, slope))
    return {
        **dict(zip(OF_PAIRS, values, strict=True)),
        **{f"{name}_error": error for name, error in zip(OF_PAIRS, errors, strict=True)},
        "pair_covariance": pairs.covariance,
        "pairs": pairs.pairs,
        "pair_vertices": len(pairs.influence.keys),
        "widths_probability": probability,
        "widths_disagree": probability < LEAST_PROBABILITY,
    }


LEAST_PROBABILITY = 1e-4
"""less, and vertices and pairs disagree on the widths: one of the two is wrong, most likely the errors of vertices"""

OF_PAIRS = {
    **dict.fromkeys(("pair_variance_x", "pair_variance_y", "pair_xy"), "cm^2"),
    **dict.fromkeys(("pair_width_x", "pair_width_y"), "cm"),
    "pair_correlation": "",
}
"""what pairs of tracks tell, and its units; each has an error of the same; the first three are in `pair_covariance`"""

COUNTS = ("events", "tracks", "tracks_used", "vertices", "vertices_used", "pairs", "pair_vertices")

EXTRA_UNITS = {
    "scatter_constant": "cm",
    "scatter_over_pt": "cm GeV",
    "resolution_constant": "cm",
    "resolution_over_pt": "cm GeV",
    **{name + part: unit for name, unit in OF_PAIRS.items() if unit for part in ("", "_error")},
}

BARE = ("pair_correlation", "pair_correlation_error", "pair_covariance", "widths_probability", "widths_disagree")
"""what there may be without a unit, beside counts; a covariance has those of its values"""

# What is counted has no unit. Without vertices and a payload before, widths are not known.
LEEWAY = Leeway(
    more=dict.fromkeys((*COUNTS, *BARE), "") | EXTRA_UNITS,
    not_finite=("sigma_z", "width_x", "width_y"),
)
