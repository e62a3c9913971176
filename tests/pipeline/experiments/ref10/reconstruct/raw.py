"""RAW events written down by hand, and a detector whose conditions differ from channel to channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field as made_by
from typing import Any

import awkward as ak
import numpy as np

from calib.algorithms import beamspot_payload
from calib.payload import Payload
from pipeline.experiments.ref10.alignment import KIND as ALIGNMENT
from pipeline.experiments.ref10.alignment import alignment
from pipeline.experiments.ref10.constants import ROCS, field, gain, lorentz_angle, pedestal, pixel_status, strip_status
from pipeline.experiments.ref10.geometry import KIND as GEOMETRY
from pipeline.experiments.ref10.geometry import geometry_of, mini_geometry

MINI = mini_geometry()
PLAN = geometry_of(MINI)

TYPES = {
    "digi_module": np.uint32,
    "digi_chan": np.uint32,
    "digi_adc": np.uint16,
    "nzs_module": np.uint32,
    "nzs_adc": np.uint16,
}


@dataclass
class Event:
    """One event; `digi_*` as long as one another unless they are torn."""

    digi_module: list[int] = made_by(default_factory=list)
    digi_chan: list[int] = made_by(default_factory=list)
    digi_adc: list[int] = made_by(default_factory=list)
    nzs_module: list[int] = made_by(default_factory=list)
    nzs_adc: list[int] = made_by(default_factory=list)

    @classmethod
    def of(cls, digis: Sequence[tuple[int, int, int]], nzs: Sequence[tuple[int, Sequence[int]]] = ()) -> Event:
        """Of (module, channel, adc), in the order of RAW, and (module, its 768 counts)."""
        module, chan, adc = ([digi[i] for digi in sorted(digis)] for i in range(3))
        return cls(module, chan, adc, [block[0] for block in nzs], [count for block in nzs for count in block[1]])


def raw_columns(events: Sequence[Event]) -> dict[str, Any]:
    """The columns of RAW for these events."""
    columns: dict[str, Any] = {}
    for name, dtype in TYPES.items():
        values = [getattr(event, name) for event in events]
        flat = np.array([value for one in values for value in one], dtype)
        columns[name] = ak.unflatten(flat, np.array([len(one) for one in values], np.int64))
    return columns


def pixel(row: int, column: int) -> int:
    """A pixel's number in RAW."""
    return row | column << 16


def strip_module(place: int) -> int:
    """Id of a strip module of the mini geometry."""
    return int(PLAN.module[PLAN.strip_rows[place]])


def pixel_module(place: int) -> int:
    """Id of a pixel module of the mini geometry."""
    return int(PLAN.module[np.flatnonzero(PLAN.pixel)[place]])


def plain(**others: Payload) -> dict[str, Payload]:
    """Pedestal 100, noise 4, gain 1, nothing masked, no drift, nothing displaced, but for the payloads given."""
    strips, pixels = len(PLAN.strip_rows), int(PLAN.pixel.sum())
    found = {
        GEOMETRY: MINI,
        "pedestal": pedestal(np.full(strips * 768, 100.0), np.full(strips * 768, 4.0)),
        "gain": gain(np.ones(strips * 6)),
        "strip_status": strip_status(np.zeros(strips * 768, np.int8)),
        "pixel_status": pixel_status(np.zeros((pixels, ROCS), np.int8)),
        "lorentz_angle": lorentz_angle(np.zeros(10)),
        "field": field(3.8),
        "beamspot": beamspot_payload.nominal(sigma_z=5.0, width_x=0.1, width_y=0.1),
        ALIGNMENT: alignment(np.zeros((4, 6)), np.zeros((int(PLAN.ladder_row.max()) + 1, 6)), np.zeros((len(PLAN), 6))),
    }
    return found | others


def uneven(seed: int = 3, masked: float = 0.15) -> dict[str, Payload]:
    """Conditions that differ from channel to channel, some of them masked."""
    rng = np.random.default_rng(seed)
    strips, pixels = len(PLAN.strip_rows), int(PLAN.pixel.sum())
    status = (rng.random(strips * 768) < masked).astype(np.int8)
    status[768 * 2 : 768 * 2 + 128] = 1
    return plain(
        pedestal=pedestal(rng.normal(100, 10, strips * 768), rng.uniform(3, 5, strips * 768)),
        gain=gain(rng.uniform(0.8, 1.2, strips * 6)),
        strip_status=strip_status(status),
        pixel_status=pixel_status((rng.random((pixels, ROCS)) < 0.2).astype(np.int8)),
        lorentz_angle=lorentz_angle(rng.uniform(0.05, 0.45, 10)),
        field=field(3.8 + 1e-3 * seed),
        beamspot=beamspot_payload.nominal(x=0.01 * seed, y=0.02, sigma_z=4.0, width_x=0.05, width_y=0.05),
        alignment=alignment(
            *(1e-3 * rng.standard_normal((n, 6)) for n in (4, int(PLAN.ladder_row.max()) + 1, len(PLAN)))
        ),
    )
