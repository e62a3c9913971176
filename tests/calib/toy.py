"""Toy counts of channels; toy collisions and samples are those of the benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._toys_beamspot import UM as UM
from benchmarks._toys_beamspot import Beam as Beam
from benchmarks._toys_beamspot import Detector as Detector
from benchmarks._toys_beamspot import collisions as collisions
from benchmarks._toys_pedestal import Adc as Adc
from benchmarks._toys_pedestal import adc_samples as adc_samples
from benchmarks._toys_pedestal import pedestal_columns as pedestal_columns

Floats = NDArray[np.float64]


def without(columns: dict[str, Any], *starts: str) -> dict[str, Any]:
    """The columns whose names do not begin so."""
    return {name: values for name, values in columns.items() if not name.startswith(starts)}


def dark_counts(rng: np.random.Generator, units: Sequence[tuple[int, int]], rates: Floats, fano: float = 1.5) -> Any:
    """Columns of `ChannelStatus`, one event a unit: counts of mean `rates`, their variance `fano` times that."""
    run, lumi = np.array(units, np.int64).T
    spread = rng.negative_binomial(np.maximum(rates, 1e-9) / (fano - 1), 1 / fano, (len(units), len(rates)))
    counts = np.where(rates > 0, spread, 0)
    return {"run": run, "lumi": lumi, "event": np.arange(len(units)), "counts": counts.astype(np.uint16)}
