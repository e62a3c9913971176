"""A toy of charge sharing: tracks through single sensors, digitized, with nothing of the simulation in it.

Charge is made evenly along the way but for fluctuations of its 30 steps, drifts to the plane at w = +t/2 with the
Lorentz angle, diffuses, and is shared out among the channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import landau

from pipeline.experiments.ref10.geometry import Geometry

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

STEPS = 30
PEDESTAL, NOISE = 100, 4.0
PIXEL_NOISE = 200.0


@dataclass(frozen=True, eq=False)
class Tracks:
    """Crossings: `event`, `row` of the module, `u`, `v` at the middle plane [cm], slopes du/dw and dv/dw."""

    event: Ints
    row: Ints
    u: Floats
    v: Floats
    du: Floats
    dv: Floats

    def of(self, mask: NDArray[np.bool_]) -> Tracks:
        return Tracks(*(getattr(self, name)[mask] for name in ("event", "row", "u", "v", "du", "dv")))


def scattered(
    geometry: Geometry, rng: np.random.Generator, events: int, each: int, slope: tuple[float, float] = (-0.5, 0.5)
) -> Tracks:
    """Crossings anywhere on any modules, `each` in an event, with du/dw in that range and dv/dw from -1.2 to 1.2."""
    n = events * each
    row = rng.integers(0, len(geometry), n)
    u, v = (rng.uniform(-0.5, 0.5, n) * size[row] for size in (geometry.width, geometry.length))
    return Tracks(np.repeat(np.arange(events), each), row, u, v, rng.uniform(*slope, n), rng.uniform(-1.2, 1.2, n))


def digitized(geometry: Geometry, tracks: Tracks, tangents: Floats, rng: np.random.Generator, events: int) -> Any:
    """The RAW columns of the tracks; pedestal 100, gain 1."""
    cells = [
        _charges(geometry, tracks.of(geometry.layer[tracks.row] == layer), float(tangents[layer - 1]), rng)
        for layer in range(1, 11)
    ]
    key, charge = (np.concatenate(part) for part in zip(*cells, strict=True))
    key, place = np.unique(key, return_inverse=True)
    charge = np.bincount(place, weights=charge, minlength=len(key))
    return _columns(geometry, key, charge, rng, events)


def _charges(geometry: Geometry, tracks: Tracks, tangent: float, rng: np.random.Generator) -> tuple[Ints, Floats]:
    """Keys (event, row, column, row of channel) and the charge there, in electrons."""
    n, row = len(tracks.row), tracks.row
    depth = geometry.thickness[row][:, None]
    path = depth[:, 0] * np.sqrt(1 + tracks.du**2 + tracks.dv**2)
    charge = 1e4 * path * np.clip(landau.rvs(80.6, 5.0, size=n, random_state=rng), 40, 640)
    share = rng.gamma(4.0, size=(n, STEPS))
    share *= (charge / share.sum(axis=1))[:, None]
    height = ((np.arange(STEPS) + 0.5) / STEPS - 0.5) * depth
    drift = 0.5 * depth - height
    sigma = 6e-4 * np.sqrt(drift / depth) + 1e-4
    across = tracks.u[:, None] + height * tracks.du[:, None] + drift * tangent
    along = tracks.v[:, None] + height * tracks.dv[:, None]
    r, in_rows = _shared(across, sigma, geometry.pitch_u[row], geometry.rows[row])
    c, in_columns = _shared(along, sigma, geometry.pitch_v[row], geometry.columns[row])
    cell = np.einsum("nsi,nsj,ns->nij", in_rows, in_columns, share)
    inside = (r >= 0) & (r < geometry.rows[row][:, None])
    inside = inside[:, :, None] & ((c >= 0) & (c < geometry.columns[row][:, None]))[:, None, :] & (cell > 5)
    module = tracks.event * len(geometry) + row
    key = ((module[:, None, None] * 512 + c[:, None, :]) << 10) + r[:, :, None]
    return np.broadcast_to(key, cell.shape)[inside], cell[inside]


def _shared(place: Floats, sigma: Floats, pitch: Floats, channels: NDArray[np.int32]) -> tuple[Ints, Floats]:
    """A window of channels [n, k] about the steps, and the part of each step [n, steps, k] in them."""
    place, sigma = place / pitch[:, None] + 0.5 * channels[:, None], sigma / pitch[:, None]
    low = np.floor((place - 4 * sigma).min(axis=1)).astype(np.int64)
    wide = int((np.floor((place + 4 * sigma).max(axis=1)) - low).max(initial=0)) + 1
    edges = low[:, None] + np.arange(wide + 1)
    part = np.diff(ndtr((edges[:, None, :] - place[:, :, None]) / sigma[:, :, None]), axis=2)
    return edges[:, :-1], part


def _columns(geometry: Geometry, key: Ints, charge: Floats, rng: np.random.Generator, events: int) -> dict[str, Any]:
    r, c, module = key & 1023, (key >> 10) & 511, key >> 19
    row, event = module % len(geometry), module // len(geometry)
    pixel = geometry.pixel[row]
    counts = np.minimum(charge / 265 + NOISE * rng.standard_normal(len(key)), 254)
    seen = charge + PIXEL_NOISE * rng.standard_normal(len(key))
    adc = np.where(pixel, np.minimum(np.rint(seen / 150), 255), np.rint(PEDESTAL + counts))
    kept = np.where(pixel, seen > 3000, counts > 2 * NOISE)
    flat = {
        "digi_module": geometry.module[row[kept]],
        "digi_chan": (r | c << 16)[kept].astype(np.uint32),
        "digi_adc": adc[kept].astype(np.uint16),
    }
    digis = np.bincount(event[kept], minlength=events)
    columns = {name: ak.unflatten(values, digis) for name, values in flat.items()}
    none = np.zeros(events, np.int64)
    columns["nzs_module"] = ak.unflatten(np.zeros(0, np.uint32), none)
    columns["nzs_adc"] = ak.unflatten(np.zeros(0, np.uint16), none)
    return columns
