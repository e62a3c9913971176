"""What reconstruction up to clusters costs an event of REF10, by stage, against reading the RAW columns it works on.

    python benchmarks/ref10_reconstruction.py                    pile-up 0.5, 1 and 3
    python benchmarks/ref10_reconstruction.py --pile-up 0 10     0.5 and these
    python benchmarks/ref10_reconstruction.py --small            only that it works

Pile-up is the mean number of vertices beside the first; with 0.5 a minimum-bias event has 15 tracks, for which the goal
is set: 1 ms from unpack to clusters. 2 % of the events have a sixteenth of the strips read out in full. RAW is written
into a TTree with zstd level 1; what is read back with uproot is reconstructed a chunk at a time. Times are of CPU, one
core with the allocator settings of a worker, the least of the rounds, after a first one that looks up the conditions.

Below the table is told where the time goes and what bounds it, from measurements of the same run (_ref10_bounds.py).
NumPy alone is under the goal several times over, as the last line says, so no stage is compiled.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks._ref10_bounds import Plan, Step, sentences, study, table  # noqa: E402
from benchmarks._ref10_costs import (  # noqa: E402
    PILE_UP,
    READ,
    Goal,
    Prepared,
    costs,
    kinds,
    line_through,
    measured,
    reading,
    scenario,
)
from benchmarks.pedestal import as_a_worker  # noqa: E402
from calib.payload import Payload  # noqa: E402
from pipeline.experiments.ref10.geometry import Geometry, full_geometry, geometry_of, mini_geometry  # noqa: E402
from pipeline.experiments.ref10.reconstruct.digis import Raw  # noqa: E402
from pipeline.experiments.ref10.reconstruct.pixel_clusters import pixel_clusters  # noqa: E402
from pipeline.experiments.ref10.reconstruct.placed import placed  # noqa: E402
from pipeline.experiments.ref10.reconstruct.positions import positions  # noqa: E402
from pipeline.experiments.ref10.reconstruct.stages import BLOCK, clustered, reconstruct  # noqa: E402
from pipeline.experiments.ref10.reconstruct.strip_clusters import strip_clusters  # noqa: E402
from pipeline.experiments.ref10.reconstruct.unpack import unpack  # noqa: E402
from pipeline.experiments.ref10.simulate.events import Simulated, simulate  # noqa: E402
from pipeline.experiments.ref10.simulate.scenario import truth  # noqa: E402
from pipeline.model import Columns  # noqa: E402

GROWS_WITH = {
    "unpack": ("digis", "full strips"),
    "clusters": ("digis",),
    "positions": ("clusters",),
    "placed": ("clusters",),
}
"""the stages, and what their cost goes with"""
PARTS = frozenset({"pixel clusters", "strip clusters"})
"""of the stage before them"""
WHOLE = "reconstruct"
GOAL_MS = 1.0
SEED, RUN, LUMI = 3, 1, 1

Conditions = Mapping[str, Payload]


def simulated(kind: tuple[float, float], geometry: Geometry, events: int) -> tuple[Simulated, Conditions]:
    """Events of one kind, (pile-up, share of full readout), and the conditions that are true."""
    settings = scenario(*kind)
    return (
        simulate(settings, geometry, SEED, RUN, LUMI, np.arange(1, events + 1)),
        truth(settings, geometry, SEED, RUN, LUMI),
    )


def stages(parts: Sequence[Raw], conditions: Conditions) -> dict[str, Step]:
    """All stages of RAW, block after block, each on what those before have left."""
    hits = [unpack(part, conditions) for part in parts]
    found = [clustered(part, conditions) for part in hits]
    located = [positions(part, conditions) for part in found]
    pixels, strips = [part.pixels for part in hits], [part.strips for part in hits]

    def step(stage: Callable[[Any, Conditions], Any], takes: Sequence[Any]) -> Step:
        return Step(lambda: [stage(some, conditions) for some in takes], takes)

    return {
        "unpack": step(unpack, parts),
        "clusters": step(clustered, hits),
        "pixel clusters": step(pixel_clusters, pixels),
        "strip clusters": step(strip_clusters, strips),
        "positions": step(positions, found),
        "placed": step(placed, located),
    }


@dataclass(frozen=True, eq=False)
class Chunk(Prepared):
    """With the RAW that is worked on."""

    columns: Columns
    conditions: Conditions


@contextmanager
def chunk(kind: tuple[float, float], geometry: Geometry, events: int) -> Iterator[Chunk]:
    """One chunk of events of one kind, written and read back."""
    made, conditions = simulated(kind, geometry, events)
    with reading(made.raw) as read:
        columns = read()
        raw = Raw.of(columns)
        works = {READ: read, **{name: step.do for name, step in stages([*raw.parts(BLOCK)], conditions).items()}}
        works[WHOLE] = lambda: reconstruct(columns, conditions)
        sizes = {
            "tracks": float(ak.mean(ak.num(made.truth["Particle_pt"]))),
            "digis": float(raw.counts["digi_module"].mean()),
            "full strips": float(raw.counts["nzs_adc"].mean()),
            "clusters": len(reconstruct(columns, conditions).clusters.flat["row"]) / events,
        }
        yield Chunk(*kind, events, sizes, works, columns, conditions)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1000, help="of a chunk")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pile-up", type=float, nargs="+", default=PILE_UP, help="mean number beside the first vertex")
    parser.add_argument("--goal", type=float, help=f"milliseconds for an event of 15 tracks, {GOAL_MS:g} unless said")
    parser.add_argument("--small", action="store_true", help="a few events of the mini detector; no goal unless said")
    options = parser.parse_args()
    options.sample = 1.0
    if options.small:
        options.events, options.rounds, options.sample = 20, 1, 0.02
    if options.goal is None:
        options.goal = math.inf if options.small else GOAL_MS
    return options


def main() -> int:
    options = parsed()
    as_a_worker()
    geometry = geometry_of(mini_geometry() if options.small else full_geometry())
    with ExitStack() as stack:
        chunks = [stack.enter_context(chunk(kind, geometry, options.events)) for kind in kinds(options.pile_up)]
        cases = measured(chunks, options.rounds)
    print(costs(cases, PARTS))
    judged, first = cases[0], chunks[0]
    block = round(BLOCK / (judged.sizes["digis"] + judged.sizes["full strips"]))

    def prepare(events: int, block: int) -> dict[str, Step]:
        starts = range(0, events, block)
        parts = [Raw.of({name: values[at : at + block] for name, values in first.columns.items()}) for at in starts]
        return {name: step for name, step in stages(parts, first.conditions).items() if name not in PARTS}

    lines = {stage: line_through(cases, stage, of) for stage, of in GROWS_WITH.items()}
    found = study(prepare, judged, lines, Plan(options.events, block, options.sample))
    print("", table(found), "", *sentences(found), sep="\n")
    goal = Goal(("unpack", "clusters"), "unpack to clusters of an event", options.goal)
    print(goal.judgement(judged))
    return int(goal.missed(judged))


if __name__ == "__main__":
    sys.exit(main())
