"""Conditions of the channels as reconstruction looks them up; read once for each content.

A channel whose constants cannot be used (a pedestal or gain that is not finite, a noise or gain that is not above
zero) counts as masked: it must not make NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from calib.algorithms.pedestal import KIND as PEDESTAL
from calib.payload import Payload
from pipeline.experiments.ref10 import geometry as geometry_module
from pipeline.experiments.ref10.constants import (
    GAIN,
    GOOD,
    PIXEL_STATUS,
    ROCS,
    STRIP_ELECTRONS,
    STRIP_STATUS,
)
from pipeline.experiments.ref10.geometry import Geometry, geometry_of
from pipeline.experiments.ref10.layers import CHIP, CHIPS, STRIPS

STRIP_KINDS = (geometry_module.KIND, PEDESTAL, GAIN, STRIP_STATUS)
PIXEL_KINDS = (geometry_module.KIND, PIXEL_STATUS)

Found = TypeVar("Found")
Float32 = NDArray[np.float32]

KEPT = 4
"""how many contents of each table a process keeps"""


@dataclass(frozen=True, eq=False)
class StripChannels:
    """What a strip's count means. Flat arrays are by strip channel, or by chip (6 of a module)."""

    mean: Float32
    """pedestal [ADC]; 0 where masked"""
    noise: Float32
    """[ADC]; infinite where masked, so that no masked strip is ever above it"""
    masked: NDArray[np.bool_]
    electrons: Float32
    """of one count, by chip"""
    chip_noise: Float32
    """root mean square of the noise of a chip's strips that are not masked [ADC]; 0 if all are"""


@dataclass(frozen=True, eq=False)
class PixelChips:
    """Which readout chips of pixels are masked."""

    place: NDArray[np.int64]
    """of a module of the geometry among the pixel modules; -1 for strips"""
    masked: NDArray[np.bool_]
    """[pixel modules, chips]"""
    touched: NDArray[np.bool_]
    """by row of the geometry: whether the module has a masked chip"""


def strip_channels(conditions: Mapping[str, Payload]) -> StripChannels:
    """The strips under such conditions. Raises ValueError for tables of another geometry."""
    return _once(_STRIPS, [conditions[kind] for kind in STRIP_KINDS], _read_strips)


def pixel_chips(conditions: Mapping[str, Payload]) -> PixelChips:
    """The chips of the pixels under such conditions. Raises ValueError for a table of another geometry."""
    return _once(_PIXELS, [conditions[kind] for kind in PIXEL_KINDS], _read_pixels)


@lru_cache(maxsize=KEPT)
def _row_by_id(geometry: Geometry) -> NDArray[np.int32]:
    found = np.full(int(geometry.module[-1]) + 2, -1, np.int32)
    found[geometry.module] = np.arange(len(geometry))
    return found


def module_rows(geometry: Geometry, module: NDArray[np.unsignedinteger]) -> NDArray[np.int32]:
    """As `geometry.index`, from a table: 15 times as quick, which shows as this is asked of every digi."""
    by_id = _row_by_id(geometry)
    found: NDArray[np.int32] = by_id[np.minimum(module, len(by_id) - 1)]
    return found


def _once(kept: dict[tuple[str, ...], Found], payloads: list[Payload], read: Callable[..., Found]) -> Found:
    key = tuple(payload.id for payload in payloads)
    if key not in kept:
        if len(kept) >= KEPT:
            kept.clear()
        kept[key] = read(*payloads)
    return kept[key]


def _read_strips(drawn: Payload, pedestal: Payload, gain: Payload, status: Payload) -> StripChannels:
    modules = len(geometry_of(drawn).strip_rows)
    mean, noise = (_sized(pedestal, name, (modules * STRIPS,)).astype(np.float32) for name in ("mean", "noise"))
    relative = _sized(gain, "gain", (modules * CHIPS,)).astype(np.float32)
    usable = np.isfinite(mean) & np.isfinite(noise) & (noise > 0)
    usable &= np.repeat(np.isfinite(relative) & (relative > 0), CHIP)
    masked = (_sized(status, "status", (modules * STRIPS,)) != GOOD) | ~usable
    squared = np.where(masked, 0, noise.astype(np.float64) ** 2).reshape(-1, CHIP).sum(axis=1)
    taking_part = (~masked).reshape(-1, CHIP).sum(axis=1)
    return StripChannels(
        mean=np.where(masked, np.float32(0), mean),
        noise=np.where(masked, np.float32(np.inf), noise),
        masked=masked,
        electrons=relative * np.float32(STRIP_ELECTRONS),
        chip_noise=np.sqrt(squared / np.maximum(taking_part, 1)).astype(np.float32),
    )


def _read_pixels(drawn: Payload, status: Payload) -> PixelChips:
    geometry: Geometry = geometry_of(drawn)
    masked = _sized(status, "status", (int(geometry.pixel.sum()), ROCS)) != GOOD
    place = np.where(geometry.pixel, np.cumsum(geometry.pixel) - 1, -1)
    touched = geometry.pixel & np.append(masked.any(axis=1), False)[place]
    return PixelChips(place, masked, touched)


def _sized(payload: Payload, name: str, shape: tuple[int, ...]) -> NDArray[np.generic]:
    found = payload[name]
    if found.shape != shape:
        raise ValueError(
            f"{name!r} of the {payload.kind} is of shape {found.shape}, this geometry has {shape}: "
            "are the two of one detector?"
        )
    return found


_STRIPS: dict[tuple[str, ...], StripChannels] = {}
_PIXELS: dict[tuple[str, ...], PixelChips] = {}
