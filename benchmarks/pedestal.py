"""What pedestals of REF10's strips cost: accumulating samples, and the state of 1.43 million channels.

    python benchmarks/pedestal.py                    chunks of 16, 160 and 480 events, each with 116 modules of 768
    python benchmarks/pedestal.py --small            20 modules; nothing is judged

One core, with the allocator settings of a worker. The bare kernel sums samples and squares of what is sorted by module
already, module by module: no window, no common mode, nothing found out. The sort is that of each group of 128 alone,
which the median takes. Every figure is the best of some rounds; the two kernels take turns with accumulate. Store and
load are elapsed time (file system included, no fsync), all else is CPU time.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # found from here, however this file was started

import awkward as ak  # noqa: E402

from calib.algorithms.pedestal import Pedestal, nominal  # noqa: E402
from calib.payload import Payload  # noqa: E402
from calib.state import State, pack_states, unpack_state  # noqa: E402
from jobs.cluster_settings import ALLOCATOR, ONE_THREAD  # noqa: E402

MODULES = 1860
BLOCK = 768
GROUP = 128
SHARE = 16
"""an event holds one module in so many"""
GOAL = 50.0
"""million samples a second of one core, from chunks in which a channel comes ten times on"""
JUDGED_FROM = 10

Samples = NDArray[np.uint16]


def best(rounds: int, clock: Callable[[], float], *works: Callable[[], Any]) -> list[float]:
    """The shortest time each takes, seconds; they take turns."""
    found = [float("inf")] * len(works)
    for _ in range(rounds):
        for number, work in enumerate(works):
            begun = clock()
            work()
            found[number] = min(found[number], clock() - begun)
    return found


def draw(modules: int, events: int) -> tuple[dict[str, Any], Payload, Samples]:
    """Columns of `Pedestal`, the payload in force, and the same samples by module, [modules, k, block]."""
    rng = np.random.default_rng(1)
    pedestal = rng.normal(100, 10, (modules, BLOCK))
    some = 400
    noise = 4 * rng.standard_normal((some, BLOCK)) + np.repeat(
        2 * rng.standard_normal((some, BLOCK // GROUP)), GROUP, 1
    )
    noise[rng.random(noise.shape) < 1e-3] += 90
    status = (8 * (rng.random(modules * BLOCK) < 4e-3)).astype(np.int8)
    start = nominal(modules * BLOCK, pedestal.reshape(-1), 4)
    reference = Payload("pedestal", {**start.arrays, "status": status}, start.units)
    an_event = max(1, modules // SHARE)
    module = np.arange(events * an_event) % modules
    whole, fraction = np.floor(pedestal), pedestal % 1
    drawn = rng.integers(0, some, len(module))
    adc = np.empty((len(module), BLOCK), np.uint16)
    for row, (at, kind) in enumerate(zip(module.tolist(), drawn.tolist(), strict=True)):
        adc[row] = np.rint(noise[kind] + fraction[at]) + whole[at]
    one = np.ones(events, np.int64)
    columns: dict[str, Any] = {"run": one, "lumi": one, "event": np.arange(events)}
    columns["pedestal_block"] = ak.unflatten(module.astype(np.uint32), an_event)
    columns["pedestal_adc"] = ak.unflatten(adc.reshape(-1), an_event * BLOCK)
    rounds = len(module) // modules
    by_module = np.ascontiguousarray(adc[: rounds * modules].reshape(rounds, modules, BLOCK).swapaxes(0, 1))
    return columns, reference, by_module


def bare(by_module: Samples) -> None:
    """Sums of samples and of their squares."""
    total = np.empty((2, len(by_module), BLOCK), np.int64)
    for module, adc in enumerate(by_module):
        wide = adc.astype(np.int32)
        np.add.reduce(wide, axis=0, out=total[0, module])
        wide *= wide
        np.add.reduce(wide, axis=0, out=total[1, module])


def sort_alone(by_module: Samples) -> None:
    """Every group of every event sorted."""
    for adc in by_module:
        adc.astype(np.int32).reshape(-1, GROUP).sort(axis=1)


@dataclass(frozen=True)
class Rate:
    """Million samples a second."""

    times: int
    samples: int
    accumulate: float
    bare: float
    sort: float

    @property
    def missed(self) -> bool:
        return self.times >= JUDGED_FROM and self.accumulate < GOAL


@dataclass(frozen=True)
class Cost:
    """Of a state in which every channel has so many entries: bytes, and seconds."""

    entries: int
    size: int
    merge: float
    store: float
    load: float
    finalize: float


def rate(modules: int, events: int, rounds: int) -> tuple[Rate, State, Payload, Pedestal]:
    """How fast a chunk of so many events is accumulated; with its state."""
    columns, reference, by_module = draw(modules, events)
    calibration = Pedestal(channels=modules * BLOCK, block=BLOCK, group=GROUP)
    conditions = {"pedestal": reference}
    works = (
        lambda: calibration.accumulate(columns, conditions),
        lambda: bare(by_module),
        lambda: sort_alone(by_module),
    )
    whole, *others = best(rounds, time.process_time, *works)
    samples = len(ak.flatten(columns["pedestal_adc"]))
    speeds = [samples / whole / 1e6, *(by_module.size / spent / 1e6 for spent in others)]
    found = Rate(by_module.shape[1], samples, *speeds)
    return found, calibration.accumulate(columns, conditions), reference, calibration


def cost(state: State, reference: Payload, calibration: Pedestal, rounds: int) -> Cost:
    """What a state costs; finalize where it has enough entries."""
    entries = int(state["samples"].columns["entries"].max())
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "state.npz"
        store, load = best(
            rounds,
            time.perf_counter,
            lambda: path.write_bytes(pack_states({"pedestal": state})),
            lambda: unpack_state(str(path), "pedestal"),
        )
    (merge,) = best(rounds, time.process_time, lambda: state.merge(state))
    (finalize,) = (
        best(2, time.process_time, lambda: calibration.finalize(state, reference)) if entries >= 100 else [float("nan")]
    )
    return Cost(entries, state.nbytes, merge, store, load, finalize)


def measure(modules: int, chunks: Sequence[int], rounds: int) -> tuple[list[Rate], list[Cost]]:
    """All figures; states of more entries are those of the last chunk merged with themselves."""
    rates, costs = [], []
    for events in chunks:
        found, state, reference, calibration = rate(modules, events, rounds)
        rates.append(found)
        costs.append(cost(state, reference, calibration, rounds))
    for doublings in (3, 6):
        for _ in range(doublings):
            state = state.merge(state)
        costs.append(cost(state, reference, calibration, rounds))
    return rates, costs


def report(modules: int, rates: Sequence[Rate], costs: Sequence[Cost]) -> str:
    """The figures as two tables."""
    lines = [f"M samples/s of one core (accumulate: at least {GOAL:g} from {JUDGED_FROM} a channel on)"]
    lines.append(f"{'a channel':>9}{'samples':>12}{'accumulate':>12}{'bare sums':>11}{'sort alone':>12}{'of bare':>9}")
    for one in rates:
        speeds = f"{one.accumulate:12.1f}{one.bare:11.1f}{one.sort:12.1f}{one.accumulate / one.bare:9.2f}"
        lines.append(f"{one.times:9}{one.samples:12}{speeds}")
    lines.append(f"state of {modules * BLOCK} channels")
    lines.append(
        f"{'entries':>9}{'MB':>8}{'B/channel':>11}{'merge ms':>10}{'store ms':>10}{'load ms':>9}{'finalize s':>12}"
    )
    for each in costs:
        sizes = f"{each.size / 1e6:8.1f}{each.size / modules / BLOCK:11.1f}"
        spent = f"{1e3 * each.merge:10.1f}{1e3 * each.store:10.1f}{1e3 * each.load:9.1f}{each.finalize:12.2f}"
        lines.append(f"{each.entries:9}{sizes}{spent}")
    return "\n".join(lines)


def as_a_worker() -> None:
    """Start afresh under the settings of a worker, which the allocator reads once only."""
    wanted = {**ALLOCATOR, **ONE_THREAD}
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **wanted})


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modules", type=int, default=MODULES)
    parser.add_argument("--chunks", type=int, nargs="+", default=[16 + 1, 160 + 1, 480 + 2], help="events of each")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="a few modules; nothing is judged")
    options = parser.parse_args()
    if options.small:
        options.modules, options.chunks, options.rounds = 20, [40], 1
    return options


def main() -> int:
    options = parsed()
    as_a_worker()
    rates, costs = measure(options.modules, options.chunks, options.rounds)
    print(report(options.modules, rates, costs))
    missed = not options.small and any(one.missed for one in rates)
    if missed:
        print("MISSED: samples are accumulated too slowly")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
