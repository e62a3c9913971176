"""One number for each channel of a chunk, rising with event, module, column and row: neighbours are found by it.

Rows and columns are given more room than a sensor has, so that the last of one line and the first of the next are never
one apart.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.experiments.collisions import Collection
from pipeline.experiments.ref10.geometry import Geometry

Ints = NDArray[np.int64]

ROW_BITS, COLUMN_BITS = 10, 9
NEXT_COLUMN = 1 << ROW_BITS
"""from a channel to the one beside it in the next column; the next row is 1 away"""
MODULE_BITS = ROW_BITS + COLUMN_BITS

COLUMN_SHIFT, ROW_MASK = 16, 0xFFFF
"""how RAW packs a pixel: row | column << 16"""


def channel_keys(module_key: Ints, channel: NDArray[np.uint32]) -> Ints:
    """The keys of channels (as RAW numbers them) of modules whose `module_keys` these are."""
    keys: Ints = (module_key << MODULE_BITS) + ((channel >> COLUMN_SHIFT) << ROW_BITS) + (channel & ROW_MASK)
    return keys


def module_keys(event: NDArray[np.integer], row: NDArray[np.integer], geometry: Geometry) -> Ints:
    """A number for each module of each event: `event * modules + row`."""
    keys: Ints = np.asarray(event, np.int64) * len(geometry) + row
    return keys


def hit_keys(hits: Collection, geometry: Geometry) -> Ints:
    """The keys of hits with their module's `row` and their `channel`."""
    return channel_keys(module_keys(hits.event, hits.flat["row"], geometry), hits.flat["channel"])


def check_room(geometry: Geometry) -> None:
    """Raises ValueError for sensors with more channels than the keys have room for."""
    rows, columns = int(geometry.rows.max()), int(geometry.columns.max())
    if rows >= (1 << ROW_BITS) - 1 or columns >= (1 << COLUMN_BITS) - 1:
        raise ValueError(f"sensors of {rows} rows and {columns} columns: raise ROW_BITS and COLUMN_BITS for them")
