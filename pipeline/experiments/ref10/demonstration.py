"""Pedestals that move, on the few modules of the mini detector: what was put in, and what the chain found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from calib.algorithms.pedestal import is_good
from calib.payload import Payload, PayloadStore
from pipeline.experiments.ref10 import daq
from pipeline.experiments.ref10.constants import GOOD, STRIP_STATUS
from pipeline.experiments.ref10.layers import CHIP
from pipeline.experiments.ref10.simulation import TRUTH, truth_of
from pipeline.experiments.simulated import Demonstration, Order, Upload
from pipeline.tables import as_text

PEDESTAL = "pedestal"
RUNS = (101, 102, 103)

# Every event is read out in part without zero suppression, so that a minute of it carries pedestals; in a real run
# 2 in 100 are, and it lasts for hours.
SCENARIO: Mapping[str, Any] = {
    "first_run": RUNS[0],
    "physics": {"nzs": 1.0},
    "faults": {"shifted": {"since": str(RUNS[1])}, "pedestal_drift": 0.5},
}


@dataclass(frozen=True)
class Ref10Demonstration(Demonstration):
    """Three runs: pedestals drift from run to run, and one chip in twenty jumps with the second."""

    title: ClassVar[str] = (
        "Three runs of REF10 (its mini detector): pedestals drift by 0.5 ADC (rms) a run, and those of one chip in "
        f"twenty jump by one sigma with run {RUNS[1]}"
    )
    settings: ClassVar[Mapping[str, Any]] = {
        "experiment": {"name": "ref10", "settings": {"geometry": "mini"}},
        "splitting": {"events": 500},
        "calibration": {PEDESTAL: {"min_entries": 50}},
    }
    runs: ClassVar[tuple[int, ...]] = RUNS
    order: ClassVar[Order] = Order(seed=1, lumis=4, events=350, scenario=json.dumps(SCENARIO))
    uploads: ClassVar[tuple[Upload, ...]] = (Upload(PEDESTAL, daq.TABLES, "the tables that the DAQ works with"),)
    kind: ClassVar[str] = PEDESTAL

    def compared(self, data: Path, found: Mapping[int, Payload]) -> str:
        """By run: of chips that jumped and of the others, how far pedestals are from where the DAQ has them."""
        before = _tables(data)
        rows = []
        for run, payload in found.items():
            true, good = _true(data, run)
            good &= is_good(payload)
            jumped = _jumped(data) & good
            pull = (payload["mean"] - true["mean"])[good] / payload["mean_error"][good]
            noise = (payload["noise"] - true["noise"])[good] / payload["noise_error"][good]
            cells = [f"{np.mean((now['mean'] - before)[jumped]):.2f}" for now in (true, payload)]
            cells += [f"{np.std((now['mean'] - before)[good & ~jumped]):.2f}" for now in (true, payload)]
            cells += [f"{pull.mean():+.3f}, {pull.std():.3f}", f"{noise.mean():+.3f}, {noise.std():.3f}"]
            rows.append([run, int(good.sum()), *cells])
        heads = [
            "run",
            "strips compared",
            "jump put in [ADC]",
            "jump found [ADC]",
            "drift put in [ADC rms]",
            "drift found [ADC rms]",
            "pulls of pedestals: mean, width",
            "pulls of noise: mean, width",
        ]
        return as_text(heads, rows, "pedestals, put in and found (less the DAQ's tables; dead strips left out)")

    def drawn(self, data: Path, found: Mapping[int, Payload], path: Path) -> None:
        """Put in against found, strip by strip, a panel a run."""
        from pipeline.drawing import Drawing

        before, jumped = _tables(data), _jumped(data)
        figure = Drawing(figsize=(4.2 * len(found), 4.2), layout="constrained")
        axes = figure.subplots(1, len(found), sharex=True, sharey=True, squeeze=False)[0]
        for axis, (run, payload) in zip(axes, found.items(), strict=True):
            true, good = _true(data, run)
            for of, name in ((good & ~jumped, "other chips"), (good & jumped, "chips that jump")):
                put_in, seen = (np.asarray(now["mean"] - before)[of] for now in (true, payload))
                axis.plot(put_in, seen, ".", markersize=1.5, label=name, rasterized=True)
            axis.plot([-6, 10], [-6, 10], color="black", linewidth=0.7)
            axis.set(title=f"run {run}", xlabel="pedestal put in, less the DAQ's [ADC]")
            axis.grid(alpha=0.3)
        axes[0].set_ylabel("found, less the DAQ's [ADC]")
        axes[0].legend(markerscale=6, loc="upper left")
        figure.savefig(path, dpi=120)


def _tables(data: Path) -> NDArray[np.float32]:
    with np.load(data / daq.TABLES) as tables:
        found: NDArray[np.float32] = tables["mean"]
    return found


def _true(data: Path, run: int) -> tuple[Payload, NDArray[np.bool_]]:
    """The pedestals of a run, and which strips are good."""
    ids = truth_of(data, run, 1)
    store = PayloadStore(data / TRUTH / "conditions")
    return store.get(ids[PEDESTAL]), store.get(ids[STRIP_STATUS])["status"] == GOOD


def _jumped(data: Path) -> NDArray[np.bool_]:
    """The strips of the chips that jump: with the second run by much more than any drift."""
    first, second = (_true(data, run)[0]["mean"].reshape(-1, CHIP).mean(axis=1) for run in RUNS[:2])
    return np.repeat(second - first > 2.0, CHIP)
