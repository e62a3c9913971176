"""Tier files to test with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest

from pipeline import events
from pipeline.events import write_tier
from pipeline.processing import nothing

Columns = dict[str, Any]


def some_events(count: int, lumis: int = 3, seed: int = 1) -> Columns:
    """Events of one run in order, with every type a tier can hold."""
    rng = np.random.default_rng(seed)
    tracks = rng.integers(0, 4, count)
    total = int(tracks.sum())
    return {
        "run": np.full(count, 7, np.int64),
        "lumi": np.sort(rng.integers(1, lumis + 1, count)).astype(np.int64),
        "event": np.arange(count, dtype=np.uint64) + (1 << 63),
        "good": rng.random(count) < 0.5,
        "mass": rng.normal(size=count).astype(np.float32),
        "matrix": rng.normal(size=(count, 3)),
        "Track_pt": ak.unflatten(rng.normal(size=total).astype(np.float32), tracks),
        "Track_charge": ak.unflatten(rng.integers(-1, 2, total).astype(np.int8), tracks),
        "Muon_z": ak.unflatten(rng.normal(size=count), np.ones(count, np.int64)),
        "rates": ak.unflatten(rng.integers(0, 9, 2 * count).astype(np.uint16), np.full(count, 2)),
    }


def write(path: Path, columns: Columns, **header: Any) -> Path:
    write_tier(path, columns, header, nothing)
    return path


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    for handle in events._HANDLES.values():
        handle.file.close()
    events._HANDLES.clear()
