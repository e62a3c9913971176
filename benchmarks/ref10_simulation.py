"""What an event of the simulated detector costs, stage by stage: CPU of one core.

    python benchmarks/ref10_simulation.py            2 000 events for each pile-up
    python benchmarks/ref10_simulation.py --small    only that it works

Minimum-bias events of 1, 1.5 and 3 vertices in the mean (10 tracks each), made in blocks as simulate() does it, whose
own time is the last. The tables of the detector and of a run's channels are made before; what that takes is told apart.
The goal is set for 1.5 vertices, 15 tracks.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import awkward as ak
import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pipeline.experiments.ref10.geometry import Geometry, full_geometry, geometry_of, mini_geometry  # noqa: E402
from pipeline.experiments.ref10.simulate.events import Made, block_size, in_columns, simulate  # noqa: E402
from pipeline.experiments.ref10.simulate.scenario import Physics, Scenario  # noqa: E402
from pipeline.experiments.ref10.simulate.stages import Simulation  # noqa: E402

VERTICES = (1.0, 1.5, 3.0)
JUDGED, GOAL_MS = 1.5, 5.0
STAGES = ("collide", "trace", "ionize", "respond", "columns")
SEED, RUN, LUMI = 1, 1, 1

Result = TypeVar("Result")


@dataclass
class Figures:
    """Of one pile-up: CPU milliseconds an event by stage, and what an event has."""

    vertices: float
    stages: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    tracks: float = 0.0
    crossings: float = 0.0
    digis: float = 0.0
    in_one: float = 0.0
    """simulate() itself, all stages and the columns"""

    @property
    def missed(self) -> bool:
        """Whether the goal is missed."""
        return self.vertices == JUDGED and self.in_one > GOAL_MS


class Watch:
    """CPU seconds of calls, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(STAGES, 0.0)

    def timed(self, name: str, call: Callable[[], Result]) -> Result:
        begin = time.process_time()
        result = call()
        self.seconds[name] += time.process_time() - begin
        return result


def scenario(vertices: float) -> Scenario:
    return Scenario(physics=Physics(pile_up=vertices - 1, z=0.0, jpsi=0.0))


def staged(simulation: Simulation, events: NDArray[np.int64], watch: Watch) -> None:
    """The stages of one block, each timed."""
    collided = watch.timed("collide", lambda: simulation.collide(events))
    traces = watch.timed("trace", lambda: simulation.trace(events, collided))
    charges = watch.timed("ionize", lambda: simulation.ionize(events, collided, traces))
    readout = watch.timed("respond", lambda: simulation.respond(events, collided, charges))
    watch.timed("columns", lambda: in_columns(simulation, events, Made(collided, traces, charges, readout)))


def measure(vertices: float, geometry: Geometry, events: int) -> Figures:
    numbers, figures, watch = np.arange(1, events + 1), Figures(vertices), Watch()
    simulation = Simulation(scenario(vertices), geometry, SEED, RUN, LUMI)
    staged(simulation, numbers[:10], Watch())
    block = block_size(simulation.scenario.physics)
    for start in range(0, events, block):
        staged(simulation, numbers[start : start + block], watch)
    begin = time.process_time()
    found = simulate(scenario(vertices), geometry, SEED, RUN, LUMI, numbers)
    figures.in_one = 1e3 * (time.process_time() - begin) / events
    figures.stages = {name: 1e3 * seconds / events for name, seconds in watch.seconds.items()}
    sizes = (found.truth["Particle_pt"], found.truth["Crossing_u"], found.raw["digi_adc"])
    figures.tracks, figures.crossings, figures.digis = (float(ak.mean(ak.num(column))) for column in sizes)
    return figures


def tables(geometry: Geometry) -> float:
    """Seconds to make the tables of a seed and of its first run."""
    begin = time.process_time()
    Simulation(scenario(1.0), geometry, SEED + 1, RUN, LUMI)
    return time.process_time() - begin


def report(seconds: float, found: list[Figures]) -> str:
    """The figures as a table."""
    heads = (*STAGES, "simulate", "tracks", "crossings", "digis", "goal")
    lines = [f"tables of a seed and its first run: {seconds:.2f} s; ms of CPU an event:"]
    lines.append("vertices" + "".join(f"{head:>10}" for head in heads))
    for one in found:
        times = [*one.stages.values(), one.in_one]
        sizes = [one.tracks, one.crossings, one.digis]
        goal = f"{GOAL_MS:g} ms" if one.vertices == JUDGED else "-"
        cells = [f"{value:10.3f}" for value in times] + [f"{value:10.1f}" for value in sizes]
        lines.append(f"{one.vertices:8g}{''.join(cells)}{goal:>10}")
    return "\n".join(lines)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=2000)
    parser.add_argument("--small", action="store_true", help="a few events of the mini detector; nothing is judged")
    options = parser.parse_args()
    if options.small:
        options.events = 20
    return options


def main() -> None:
    options = parsed()
    geometry = geometry_of(mini_geometry() if options.small else full_geometry())
    seconds = tables(geometry)
    found = [measure(vertices, geometry, options.events) for vertices in VERTICES]
    print(report(seconds, found))
    if not options.small and any(one.missed for one in found):
        sys.exit(f"an event of {JUDGED:g} vertices takes more than {GOAL_MS:g} ms")


if __name__ == "__main__":
    main()
