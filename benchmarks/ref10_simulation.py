"""What an event of the simulated detector costs, stage by stage, against reading the RAW columns that come of it.

    python benchmarks/ref10_simulation.py                    pile-up 0.5, 1 and 3
    python benchmarks/ref10_simulation.py --pile-up 0 10     0.5 and these
    python benchmarks/ref10_simulation.py --small            only that it works

Pile-up is the mean number of vertices beside the first; with 0.5 a minimum-bias event has 15 tracks, for which the goal
of 5 ms is set. Events are made in blocks as simulate() does it; all that it does is the last row. Times are of CPU, one
core with the allocator settings of a worker, the least of the rounds. The tables of the detector and of the run, made
before, are told apart. RAW is written into a TTree with zstd level 1, and read back with uproot.

Below the table is told where the time goes and what bounds it, from measurements of the same run (_ref10_bounds.py).
NumPy alone is under the goal several times over, as the last line says, so no stage is compiled.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import NDArray

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
from pipeline.experiments.ref10.geometry import Geometry, full_geometry, geometry_of, mini_geometry  # noqa: E402
from pipeline.experiments.ref10.simulate.columns import joined  # noqa: E402
from pipeline.experiments.ref10.simulate.events import Made, Simulated, block_size, in_columns  # noqa: E402
from pipeline.experiments.ref10.simulate.stages import Simulation  # noqa: E402

GROWS_WITH = {
    "collide": ("tracks",),
    "trace": ("tracks",),
    "ionize": ("crossings",),
    "respond": ("digis", "full strips"),
    "columns": ("digis", "full strips"),
}
"""the stages, and what their cost goes with"""
WHOLE = "simulate"
GOAL_MS = 5.0
SEED, RUN, LUMI = 1, 1, 1


def stages(simulation: Simulation, events: int, block: int) -> dict[str, Step]:
    """All stages of some events, each on what those before have left."""
    numbers = np.arange(1, events + 1)
    parts = [numbers[start : start + block] for start in range(0, events, block)]
    collided = [simulation.collide(part) for part in parts]
    traces = [simulation.trace(*some) for some in zip(parts, collided, strict=True)]
    charges = [simulation.ionize(*some) for some in zip(parts, collided, traces, strict=True)]
    sent = [simulation.respond(*some) for some in zip(parts, collided, charges, strict=True)]
    made = [Made(*some) for some in zip(collided, traces, charges, sent, strict=True)]

    def step(stage: Any, *takes: Any) -> Step:
        return Step(lambda: [stage(*some) for some in zip(*takes, strict=True)], takes)

    return {
        "collide": step(simulation.collide, parts),
        "trace": step(simulation.trace, parts, collided),
        "ionize": step(simulation.ionize, parts, collided, traces),
        "respond": step(simulation.respond, parts, collided, charges),
        "columns": step(lambda part, one: in_columns(simulation, part, one), parts, made),
    }


def whole(simulation: Simulation, numbers: NDArray[np.int64]) -> Simulated:
    """What simulate() does, whose Simulation is here made before: it keeps tables of two scenarios, not of all."""
    size, made = block_size(simulation.scenario.physics), []
    for start in range(0, len(numbers), size):
        part = numbers[start : start + size]
        collided = simulation.collide(part)
        traces = simulation.trace(part, collided)
        charges = simulation.ionize(part, collided, traces)
        sent = simulation.respond(part, collided, charges)
        made.append(in_columns(simulation, part, Made(collided, traces, charges, sent)))
    raw, truth = zip(*made, strict=True)
    return Simulated(joined(raw), joined(truth))


@contextmanager
def prepared(kind: tuple[float, float], geometry: Geometry, events: int) -> Iterator[Prepared]:
    """Events of one kind: (pile-up, share of full readout)."""
    settings, numbers = scenario(*kind), np.arange(1, events + 1)
    simulation = Simulation(settings, geometry, SEED, RUN, LUMI)
    steps = stages(simulation, events, block_size(settings.physics))
    made = whole(simulation, numbers)
    with reading(made.raw) as read:
        works = {READ: read, **{name: step.do for name, step in steps.items()}}
        works[WHOLE] = lambda: whole(simulation, numbers)
        yield Prepared(*kind, events, sizes(made), works)


def sizes(made: Simulated) -> dict[str, float]:
    """What an event has on average."""
    found: Mapping[str, Any] = {
        "tracks": made.truth["Particle_pt"],
        "crossings": made.truth["Crossing_u"],
        "digis": made.raw["digi_adc"],
        "full strips": made.raw["nzs_adc"],
    }
    return {name: float(ak.mean(ak.num(column))) for name, column in found.items()}


def tables(geometry: Geometry) -> float:
    """Seconds to make the tables of a seed and of its first run."""
    begin = time.process_time()
    Simulation(scenario(0.0), geometry, SEED + 1, RUN, LUMI)
    return time.process_time() - begin


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pile-up", type=float, nargs="+", default=PILE_UP, help="mean number beside the first vertex")
    parser.add_argument("--goal", type=float, help=f"milliseconds for an event of 15 tracks, {GOAL_MS:g} unless said")
    parser.add_argument("--small", action="store_true", help="a few events of the mini detector; no goal unless said")
    options = parser.parse_args()
    options.sample = 1.0
    if options.small:
        options.events, options.rounds, options.sample = 30, 1, 0.02
    if options.goal is None:
        options.goal = math.inf if options.small else GOAL_MS
    return options


def main() -> int:
    options = parsed()
    as_a_worker()
    geometry = geometry_of(mini_geometry() if options.small else full_geometry())
    print(f"tables of a seed and its first run: {tables(geometry):.2f} s")
    with ExitStack() as stack:
        every = [stack.enter_context(prepared(kind, geometry, options.events)) for kind in kinds(options.pile_up)]
        cases = measured(every, options.rounds)
    print(costs(cases))
    judged = scenario(cases[0].pile_up)
    simulation = Simulation(judged, geometry, SEED, RUN, LUMI)
    lines = {stage: line_through(cases, stage, of) for stage, of in GROWS_WITH.items()}
    plan = Plan(options.events, block_size(judged.physics), options.sample)
    found = study(lambda events, block: stages(simulation, events, block), cases[0], lines, plan)
    print("", table(found), "", *sentences(found), sep="\n")
    goal = Goal((WHOLE,), "to simulate an event", options.goal)
    print(goal.judgement(cases[0]))
    return int(goal.missed(cases[0]))


if __name__ == "__main__":
    sys.exit(main())
