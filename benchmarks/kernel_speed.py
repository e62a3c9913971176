"""How fast the kernels of calibrations are, against memory, plain NumPy and libraries; and what their states cost.

    python benchmarks/kernel_speed.py                REF10's 1.43 million strips, a million channels
    python benchmarks/kernel_speed.py --small        few channels and events; nothing is judged

One core, with the allocator settings of a worker; the best of some rounds. Bandwidth is the best of copy (two arrays
moved) and triad-like add (three), of arrays well beyond the cache, in this same run. Speed is bytes of input, columns
as a kernel gets them, over CPU time. `numpy` and `library` are times over the kernel's: above 1 the kernel is faster,
though it may do more (a common mode, rows that can be cut later); what it waits for is said. Library: boost-histogram;
for the alignment scipy.sparse, on arrays that are ready for it. Of fits, `off` is the largest difference of the two in
errors of ours.

Judged: all calibrations together cost at most a quarter of REF10's express reconstruction.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # found from here, however this file was started

from benchmarks._kernel_shares import MOST, Shares, shares, table  # noqa: E402
from benchmarks._kernel_ways import Drawn, Fit  # noqa: E402
from benchmarks._kernels import FITS, KERNELS  # noqa: E402
from benchmarks.pedestal import as_a_worker, best  # noqa: E402
from calib.algorithms.channel_status import ChannelStatus  # noqa: E402
from calib.algorithms.occupancy_status import OccupancyStatus  # noqa: E402
from calib.algorithms.pedestal import Pedestal, nominal  # noqa: E402
from calib.calibration import Calibration  # noqa: E402
from calib.payload import Payload  # noqa: E402
from calib.state import State, pack_states, unpack_state  # noqa: E402

GIGA = 1e9
TIMES = ("merge ms", 10), ("store ms", 10), ("load ms", 9), ("finalize ms", 13)
CHANNELS = 1_000_000 // 128 * 128


def bandwidth(size: int, rounds: int) -> dict[str, float]:
    """GB/s that one core moves, by what it does with arrays of `size` float64."""
    a, b, c = np.ones((3, size))
    copy, add = best(rounds, time.process_time, lambda: np.copyto(a, b), lambda: np.add(b, c, out=a))
    return {"copy": 2 * a.nbytes / copy / GIGA, "add": 3 * a.nbytes / add / GIGA}


@dataclass(frozen=True)
class Speed:
    """Of one kernel's accumulate; times in seconds."""

    name: str
    bytes: int
    kernel: float
    obvious: float
    library: float
    bound: str

    @property
    def rate(self) -> float:
        """GB/s of input."""
        return self.bytes / self.kernel / GIGA


def speed(name: str, drawn: Drawn, rounds: int) -> Speed:
    works = (lambda: drawn.calibration.accumulate(drawn.columns, drawn.conditions), drawn.obvious, drawn.library)
    return Speed(name, drawn.bytes, *best(rounds, time.process_time, *works), drawn.bound)


@dataclass(frozen=True)
class Fitted:
    """A fit's time and a library's, ms, and by how many errors they differ."""

    what: str
    ours: float
    library: float
    off: float
    told: str


def fitted(fit: Fit, rounds: int) -> Fitted:
    (ours,) = best(rounds, time.process_time, fit.ours)
    if fit.library is None:
        return Fitted(fit.what, 1e3 * ours, np.nan, np.nan, "no library has it")
    (library,) = best(min(rounds, 2), time.process_time, fit.library)
    values, errors = fit.ours()
    return Fitted(fit.what, 1e3 * ours, 1e3 * library, float(np.max(np.abs(values - fit.library()) / errors)), fit.told)


@dataclass(frozen=True)
class Cost:
    """Of a state: bytes and milliseconds."""

    what: str
    channels: int
    size: int
    merge: float
    store: float
    load: float
    finalize: float


def cost(what: str, calibration: Calibration, state: State, previous: Payload | None, channels: int) -> Cost:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "state.npz"
        store, load = best(
            2,
            time.perf_counter,
            lambda: path.write_bytes(pack_states({"one": state})),
            lambda: unpack_state(str(path), "one"),
        )
    (merge,) = best(3, time.process_time, lambda: state.merge(state))
    (finalize,) = best(1, time.process_time, lambda: calibration.finalize(state, previous))
    return Cost(what, channels, state.nbytes, *(1e3 * spent for spent in (merge, store, load, finalize)))


def states(channels: int) -> list[Cost]:
    """States of so many channels, with statistics enough for a payload; that of `channel_status` grows with units."""
    rng = np.random.default_rng(3)
    one = np.ones(1, np.int64)
    event = {"run": one, "lumi": one, "event": one}
    start = nominal(channels, 100.0, 4.0)
    pedestal = Pedestal(channels=channels, block=channels, group=128)
    adc = rng.normal(100, 4, (4, channels)).round().astype(np.uint16)
    state = pedestal.empty()
    for number, samples in enumerate(adc):
        columns = event | {"event": one + number, "pedestal_block": [[0]], "pedestal_adc": samples[None, :]}
        state = state.merge(pedestal.accumulate(columns, {"pedestal": start}))
    for _ in range(5):
        state = state.merge(state)
    costs = [cost("pedestal", pedestal, state, start, channels)]
    occupancy = OccupancyStatus(channels=channels, group=128)
    state = occupancy.empty()
    for number in range(20):
        hits = np.sort(rng.integers(0, channels, channels // 10)).astype(np.uint32)
        state = state.merge(occupancy.accumulate(event | {"event": one + number, "channel": hits[None, :]}, {}))
    costs.append(cost("occupancy_status", occupancy, state, None, channels))
    counting = ChannelStatus(channels=channels)
    state = counting.accumulate(event | {"counts": rng.poisson(140, (1, channels))}, {})
    costs.append(cost("channel_status, a unit", counting, state, None, channels))
    return costs


def report(speeds: Sequence[Speed], fits: Sequence[Fitted], costs: Sequence[Cost], moved: Mapping[str, float]) -> str:
    """All tables but that of the shares."""
    most = max(moved.values())
    lines = ["memory, GB/s: " + ", ".join(f"{what} {rate:.1f}" for what, rate in moved.items())]
    lines.append(f"{'accumulate':18}{'MB in':>8}{'GB/s':>8}{'of memory':>11}{'numpy':>8}{'library':>9}  bound by")
    for one in speeds:
        figures = f"{one.bytes / 1e6:8.1f}{one.rate:8.2f}{100 * one.rate / most:10.1f}%"
        ratios = f"{one.obvious / one.kernel:8.2f}{one.library / one.kernel:9.2f}"
        lines.append(f"{one.name:18}{figures}{ratios}  {one.bound}")
    lines.append(f"{'fits':36}{'ms':>9}{'library ms':>12}{'ratio':>8}{'off':>9}")
    for fit in fits:
        figures = f"{fit.ours:9.2f}{fit.library:12.1f}{fit.library / fit.ours:8.1f}{fit.off:9.1e}"
        lines.append(f"{fit.what:36}{figures}  {fit.told}")
    spent = "".join(f"{name:>{width}}" for name, width in TIMES)
    lines.append(f"{'states':24}{'channels':>10}{'MB':>8}{'B each':>8}{spent}")
    for each in costs:
        sizes = f"{each.channels:10}{each.size / 1e6:8.1f}{each.size / each.channels:8.1f}"
        spent = f"{each.merge:10.1f}{each.store:10.1f}{each.load:9.1f}{each.finalize:13.0f}"
        lines.append(f"{each.what:24}{sizes}{spent}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--small", action="store_true", help="few channels and events; nothing is judged")
    options = parser.parse_args()
    as_a_worker()
    small, rounds = options.small, 1 if options.small else options.rounds
    moved = bandwidth(1 << (16 if small else 24), rounds)
    speeds = [speed(name, draw(small), rounds) for name, draw in KERNELS.items()]
    fits = [fitted(draw(small), rounds) for draw in FITS]
    print(report(speeds, fits, states(128 * 40 if small else CHANNELS), moved))
    found: Shares = shares("mini", 40, 1) if small else shares("full", 500, 3)
    print(table(found))
    missed = not small and found.whole > MOST
    if missed:
        print(f"MISSED: calibrations cost {100 * found.whole:.0f} % of reconstruction, more than {100 * MOST:g} %")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
