"""What reconstruction up to clusters costs an event of REF10, by stage, against reading the RAW columns it works on.

    python benchmarks/ref10_reconstruction.py            pile-up 0.5 (15 tracks: what is judged), 1 and 3
    python benchmarks/ref10_reconstruction.py --small    only that it works

Minimum bias is simulated, 2 % of it with a sixteenth of the strips read out in full, and written as RAW into a TTree
with zstd level 1; what is read back with uproot is reconstructed a chunk at a time. Times are of CPU, one core with the
allocator settings of a worker, the least of the rounds, after a first one that looks up the conditions.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.pedestal import as_a_worker  # noqa: E402
from calib.payload import Payload  # noqa: E402
from pipeline.experiments.collisions import Collection  # noqa: E402
from pipeline.experiments.ref10.geometry import full_geometry, geometry_of  # noqa: E402
from pipeline.experiments.ref10.reconstruct.digis import READS, Raw  # noqa: E402
from pipeline.experiments.ref10.reconstruct.pixel_clusters import pixel_clusters  # noqa: E402
from pipeline.experiments.ref10.reconstruct.placed import placed  # noqa: E402
from pipeline.experiments.ref10.reconstruct.positions import positions  # noqa: E402
from pipeline.experiments.ref10.reconstruct.stages import BLOCK, clustered, reconstruct  # noqa: E402
from pipeline.experiments.ref10.reconstruct.strip_clusters import strip_clusters  # noqa: E402
from pipeline.experiments.ref10.reconstruct.unpack import unpack  # noqa: E402
from pipeline.experiments.ref10.simulate.events import simulate  # noqa: E402
from pipeline.experiments.ref10.simulate.scenario import Physics, Scenario, truth  # noqa: E402

PILE_UP = (0.5, 1.0, 3.0)
"""vertices beside the first"""
GOAL_US = 1000.0
"""from unpack to clusters, an event of the first of these"""
SEED = 3


@dataclass
class Case:
    """Microseconds an event, by stage."""

    pile_up: float
    digis: float
    """an event"""
    full: float
    """strips an event read out in full"""
    clusters: float = 0.0
    microseconds: dict[str, float] = field(default_factory=dict)

    @property
    def to_clusters(self) -> float:
        """From unpack to clusters."""
        return self.microseconds["unpack"] + self.microseconds["clusters"]


def simulated(pile_up: float, events: int) -> tuple[Mapping[str, Any], Mapping[str, Payload]]:
    """RAW of minimum bias, and the conditions that are true."""
    scenario = Scenario(physics=Physics(pile_up=pile_up, z=0.0, jpsi=0.0))
    geometry = geometry_of(full_geometry())
    done = simulate(scenario, geometry, SEED, 1, 1, np.arange(events))
    return done.raw, truth(scenario, geometry, SEED, 1, 1)


def write_raw(path: Path, columns: Mapping[str, Any]) -> None:
    """As the DAQ does: jagged columns in a TTree, one basket of all events."""
    types = {name: values.type.content if name in READS else values.dtype for name, values in columns.items()}
    with uproot.recreate(path, compression=uproot.ZSTD(1)) as file:
        file.mktree("Events", types).extend(dict(columns))


def read_raw(tree: Any) -> dict[str, Any]:
    """All columns, decompressed and laid out; nothing is kept for the next time."""
    return {name: tree[name].array(library="ak") for name in READS}


def least(do: Callable[[], Any], rounds: int, events: int) -> float:
    """Microseconds of CPU an event."""
    do()
    found = []
    for _ in range(rounds):
        begun = time.process_time()
        do()
        found.append(time.process_time() - begun)
    return 1e6 * min(found) / events


def measure(pile_up: float, events: int, rounds: int) -> Case:
    """One chunk, stage by stage."""
    columns, conditions = simulated(pile_up, events)
    counts = {name: float(ak.count(columns[name])) / events for name in ("digi_module", "nzs_adc")}
    case = Case(pile_up, counts["digi_module"], counts["nzs_adc"])
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "raw.root"
        write_raw(path, columns)
        options = {"array_cache": None, "object_cache": None, "use_threads": False}
        with uproot.open(path, **options) as file:
            tree = file["Events"]
            raw = read_raw(tree)
            case.microseconds["read"] = least(lambda: read_raw(tree), rounds, events)
    hits = [unpack(part, conditions) for part in Raw.of(raw).parts(BLOCK)]
    found = reconstruct(raw, conditions).clusters
    case.clusters = len(found.flat["row"]) / events
    for stage, do in _stages(raw, hits, found, conditions).items():
        case.microseconds[stage] = least(do, rounds, events)
    return case


def _stages(
    raw: Mapping[str, Any], hits: Sequence[Any], found: Collection, conditions: Mapping[str, Payload]
) -> dict[str, Callable[[], Any]]:
    return {
        "unpack": lambda: [unpack(part, conditions) for part in Raw.of(raw).parts(BLOCK)],
        "clusters": lambda: [clustered(part, conditions) for part in hits],
        "pixel clusters": lambda: [pixel_clusters(part.pixels, conditions) for part in hits],
        "strip clusters": lambda: [strip_clusters(part.strips, conditions) for part in hits],
        "positions": lambda: positions(found, conditions),
        "placed": lambda: placed(found, conditions),
        "whole": lambda: reconstruct(raw, conditions),
    }


ROWS = ("read", "unpack", "clusters", "pixel clusters", "strip clusters", "positions", "placed", "whole")
PARTS = ("pixel clusters", "strip clusters")
"""of the stage before them"""


def report(cases: Sequence[Case]) -> str:
    """The figures as a table."""
    head = ["us an event (over reading)", *(f"pile-up {case.pile_up:g}" for case in cases)]
    rows = [head]
    for stage in ROWS:
        cells = [f"{case.microseconds[stage]:.0f} ({_ratio(case, stage):.2f})" for case in cases]
        rows.append(["  of which " + stage if stage in PARTS else stage, *cells])
    rows.append(["unpack to clusters", *(f"{case.to_clusters:.0f}" for case in cases)])
    rows.append(["digis, full strips", *(f"{case.digis:.0f}, {case.full:.0f}" for case in cases)])
    rows.append(["clusters", *(f"{case.clusters:.0f}" for case in cases)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows
    )


def _ratio(case: Case, stage: str) -> float:
    return case.microseconds[stage] / case.microseconds["read"]


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1000, help="of a chunk")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--small", action="store_true", help="a small chunk; nothing is judged")
    options = parser.parse_args()
    if options.small:
        options.events, options.rounds = 20, 1
    return options


def main() -> int:
    options = parsed()
    as_a_worker()
    cases = [measure(pile_up, options.events, options.rounds) for pile_up in PILE_UP]
    print(report(cases))
    if options.small:
        return 0
    missed = cases[0].to_clusters > GOAL_US
    if missed:
        print(f"MISSED: unpack to clusters takes {cases[0].to_clusters:.0f} us an event, at most {GOAL_US:g}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
