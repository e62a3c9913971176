"""How well REF10 finds and measures tracks, vertices and muon pairs under true conditions, and what that costs.

    python benchmarks/ref10_tracking.py                 the full detector, a new seed each time
    python benchmarks/ref10_tracking.py --seed 12345    as it was with that seed
    python benchmarks/ref10_tracking.py --no-speed      figures of physics alone
    python benchmarks/ref10_tracking.py --small         the mini detector and few events, only that it works

Wanted (physics note, 9.1, 9.4 and 11): widths within 30 % of those that were worked out without pattern recognition;
pulls of 0.9 to 1.15; of particles above 1 GeV that cross eight layers, three of them pixels, where channels are read
out, 97 % have a track with three in four of its hits from them; and less than 1 % of the tracks are of no particle.
Widths and pulls are half of what holds 68.27 %, and how much of a pull lies beyond five is shown. Statistical errors
are beside the figures. A minimum-bias event at pile-up 1 may take 3 ms of one core, from RAW to pairs of muons.

Pile-up is the mean number of vertices beside the first. Times are of CPU, with the allocator settings of a worker, the
least of the rounds. The exit code is 1 where a figure or the cost is missed.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks._ref10_bounds import Plan, Step, sentences, study, table  # noqa: E402
from benchmarks._ref10_claims import FIGURES, Limits, about, concluded, new_seed  # noqa: E402
from benchmarks._ref10_costs import READ, Case, Goal, Prepared, costs, line_through, measured, reading, scenario  # noqa: E402
from benchmarks._ref10_formulas import UM  # noqa: E402
from benchmarks._ref10_played import (  # noqa: E402
    Conditions,
    Sample,
    Tables,
    as_it_is,
    collected,
    error_of,
    minimum_bias,
    muon_pairs,
    off_of,
    played,
    share,
    true_tracks,
    width,
)
from benchmarks.pedestal import as_a_worker  # noqa: E402
from pipeline.experiments.ref10.daq import DIMUON  # noqa: E402
from pipeline.experiments.ref10.reconstruct.candidates import candidates  # noqa: E402
from pipeline.experiments.ref10.reconstruct.digis import Raw  # noqa: E402
from pipeline.experiments.ref10.reconstruct.dimuons import dimuons  # noqa: E402
from pipeline.experiments.ref10.reconstruct.helix import PARAMETERS  # noqa: E402
from pipeline.experiments.ref10.reconstruct.placed import placed  # noqa: E402
from pipeline.experiments.ref10.reconstruct.positions import positions  # noqa: E402
from pipeline.experiments.ref10.reconstruct.stages import BLOCK, clustered  # noqa: E402
from pipeline.experiments.ref10.reconstruct.tracks import fit_tracks  # noqa: E402
from pipeline.experiments.ref10.reconstruct.unpack import unpack  # noqa: E402
from pipeline.experiments.ref10.reconstruct.vertices import fit_vertices  # noqa: E402
from pipeline.experiments.ref10.simulate.events import Simulated  # noqa: E402

NOTE = {1.0: (55.0, 70.0, 0.63), 5.0: (17.7, 36.0, 0.67), 20.0: (11.0, 33.0, 0.85)}
"""by pT: sigma of d0 and z0 [um], of pT [%]; physics note, 9.1"""
MASSES = {"Z": (91.19, 30.0, 0.84, "GeV", 1.0), "J/psi": (3.097, 0.5, 15.5, "MeV", 1e3)}
"""mass and window [GeV], width, its unit, units in a GeV; physics note, 9.1"""
TOLERANCE = 0.3
PULLS = (0.9, 1.15)
SLOPES = (0.0, 0.12, 0.25, 0.37, 0.5, 0.7, 0.9, 1.2)
"""between which pulls of z0 are told apart"""
SHOWN = (-math.inf, math.inf)
FAR = 5.0
"""errors"""
EFFICIENCY, FAKES = 0.97, 0.01
FOUND_ABOVE = 1.0
"""GeV"""
JUDGED_AT = (1.0, 3.0)
"""pile-up at which efficiency and fakes are judged"""
VERTICES = 3000
"""of the sample of each"""
GROWN_TO = (1.0, 3.0, 10.0, 20.0)
SMALL_EVENTS, LEAST_EVENTS = 12, 40
GOAL_MS = 3.0
GROWS_WITH = {
    "unpack": ("digis",),
    "clusters": ("digis",),
    "positions": ("clusters",),
    "placed": ("clusters",),
    "candidates": ("tracks", "pairs of tracks"),
    "tracks": ("tracks",),
    "vertices": ("tracks",),
    "dimuons": ("tracks",),
}
"""the stages, and what their cost goes with"""


# Figures. -------------------------------------------------------------------------------------------------------------


def resolutions(pt: float, found: Tables) -> list[Limits]:
    """Of tracks of one momentum."""
    tracks, (d0, z0, momentum) = true_tracks(found["tracks"]), NOTE[pt]
    own = f"pT {pt:g} GeV, sigma of"
    off, error = width(off_of(tracks, "z0") / UM)
    relative = tracks["pt"] / tracks["true_pt"] - 1
    return [
        about(f"{own} d0", width(off_of(tracks, "d0") / UM), d0, TOLERANCE, "um"),
        about(f"{own} pT", width(100 * relative), momentum, TOLERANCE, "%"),
        # Clusters do better along z than the note's 30 um, where pixels share charge.
        Limits(f"{own} z0", off, error, high=z0 * (1 + TOLERANCE), unit="um", digits=1),
    ]


def pulls(name: str, tables: Tables) -> list[Limits]:
    """Of parameters of tracks and of places of vertices."""
    tracks, vertices = true_tracks(tables["tracks"]), tables["vertices"]
    every = {f"{name}, pull of {one}": off_of(tracks, one) / error_of(tracks, one) for one in PARAMETERS}
    for prefix, of in (("", "vertex"), ("constrained_", "vertex with the beam,")):
        for axis in "xyz":
            error = np.sqrt(vertices[f"{prefix}cov_{axis}_{axis}"])
            every[f"{name}, pull of {of} {axis}"] = vertices[f"off_{prefix}{axis}"] / error
    slope = np.abs(tracks["true_cot_theta"])
    for low, high in pairwise(SLOPES):
        own = (slope >= low) & (slope < high)
        every[f"{name}, pull of z0 at |cot| {low:g} to {high:g}"] = every[f"{name}, pull of z0"][own]
    found = []
    for what, pull in every.items():
        judged = SHOWN if what.endswith("cot_theta") else PULLS
        beyond, _ = share(np.abs(pull) > FAR)
        found.append(Limits(f"{what} ({100 * beyond:.2f} % beyond {FAR:g})", *width(pull), *judged))
    return found


def recognized(name: str, tables: Tables, *, judged: bool = True) -> list[Limits]:
    """How many of the particles are found, and how many tracks are of none."""
    particles, key = tables["particles"], tables["tracks"]["key"]
    findable = particles["findable"]
    hard = findable & (particles["pt"] > FOUND_ABOVE)
    repeated = len(key[key >= 0]) - len(np.unique(key[key >= 0]))
    efficiency, fakes = ((EFFICIENCY, math.inf), (-math.inf, FAKES)) if judged else (SHOWN, SHOWN)
    found = {
        f"{name}, found of {hard.sum()} above 1 GeV": (particles["tracks"][hard] > 0, efficiency),
        f"{name}, found of all {findable.sum()}": (particles["tracks"][findable] > 0, SHOWN),
        f"{name}, fakes of {len(key)} tracks": (key < 0, fakes),
        f"{name}, repeated": (np.arange(len(key)) < repeated, SHOWN),
    }
    return [
        Limits(what, *(100 * one for one in (*share(mask), *limits)), unit="%", digits=2)
        for what, (mask, limits) in found.items()
    ]


def masses(tables: Tables) -> list[Limits]:
    """What the masses of muon pairs are off by."""
    pairs = tables["pairs"]
    found = []
    for name, (mass, window, wide, unit, scale) in MASSES.items():
        own = np.abs(pairs["true_mass"] - mass) < window
        off = (pairs["mass"] - pairs["true_mass"])[own] * scale
        found.append(about(f"{name}, sigma of the mass of {own.sum()}", width(off), wide, TOLERANCE, unit))
        error = pairs["mass_error"][own] * scale
        found.append(Limits(f"{name}, pull of the mass", *width(off / error)))
    return found


def figures(seed: int, *, small: bool) -> list[Limits]:
    """All that is judged of physics."""
    geometry, part = ("mini", 0.04) if small else ("full", 1.0)

    def of(number: int, events: int, *more: Any, **others: Any) -> Tables:
        sample = Sample(seed + number, max(int(part * events), 6), *more, geometry=geometry, **others)
        return collected(sample, {"": as_it_is})[""]

    found = [claim for number, pt in enumerate(NOTE) for claim in resolutions(pt, of(number, 150, pt=pt))]
    for number, pile_up in enumerate(JUDGED_AT, start=len(NOTE)):
        tables = of(number, round(VERTICES / (1 + pile_up)), minimum_bias(pile_up))
        name = f"pile-up {pile_up:g}"
        found += [*recognized(name, tables), *pulls(name, tables)]
    number, crowded = len(NOTE) + len(JUDGED_AT), GROWN_TO[-1]
    found += recognized(f"pile-up {crowded:g}", of(number, 60, minimum_bias(crowded)), judged=False)
    return found + masses(of(number + 1, 1500, muon_pairs()))


# Speed. ---------------------------------------------------------------------------------------------------------------


def stages(parts: Sequence[Raw], triggers: Sequence[Any], conditions: Conditions) -> dict[str, Step]:
    """All stages of RAW, block after block, each on what those before have left."""
    hits = [unpack(part, conditions) for part in parts]
    local = [clustered(part, conditions) for part in hits]
    located = [positions(part, conditions) for part in local]
    clusters = [placed(part, conditions) for part in located]
    found = [candidates(part, conditions) for part in clusters]
    tracks = [fit_tracks(one, other, conditions) for one, other in zip(found, clusters, strict=True)]
    vertices = [fit_vertices(part, conditions) for part in tracks]

    def step(stage: Callable[..., Any], *takes: Sequence[Any], conditioned: bool = True) -> Step:
        more = (conditions,) if conditioned else ()
        return Step(lambda: [stage(*some, *more) for some in zip(*takes, strict=True)], takes)

    linked, placed_at = [track for _, track in vertices], [vertex for vertex, _ in vertices]
    return {
        "unpack": step(unpack, parts),
        "clusters": step(clustered, hits),
        "positions": step(positions, local),
        "placed": step(placed, located),
        "candidates": step(candidates, clusters),
        "tracks": step(fit_tracks, found, clusters),
        "vertices": step(fit_vertices, tracks),
        "dimuons": step(dimuons, linked, placed_at, triggers, conditioned=False),
    }


@dataclass(frozen=True, eq=False)
class Chunk(Prepared):
    """With what is worked on."""

    made: Simulated
    conditions: Conditions

    def prepare(self, events: int, block: int) -> dict[str, Step]:
        """The stages of the first events in blocks."""
        columns = self.made.raw
        some = [{name: values[at : at + block] for name, values in columns.items()} for at in range(0, events, block)]
        return stages([Raw.of(one) for one in some], [_triggered(one) for one in some], self.conditions)


def _triggered(raw: Mapping[str, Any]) -> Any:
    return (np.asarray(raw["trig"]) & DIMUON) > 0


@contextmanager
def chunk(sample: Sample) -> Iterator[Chunk]:
    """Minimum bias, written and read back."""
    physics = sample.scenario.physics
    made, conditions = sample.made(np.arange(1, sample.events + 1)), sample.truth
    with reading(made.raw) as read:
        whole = [*Raw.of(made.raw).parts(BLOCK)]
        starts = np.append(0, np.cumsum([len(part.counts["digi_module"]) for part in whole]))
        triggers = [_triggered(made.raw)[first:last] for first, last in pairwise(starts.tolist())]
        works = {READ: read, **{name: step.do for name, step in stages(whole, triggers, conditions).items()}}
        one = played(made.raw, conditions)
        number = one.tracks.counts.astype(np.float64)
        sizes = {
            "digis": float(np.mean([part.counts["digi_module"].mean() for part in whole])),
            "clusters": float(one.clusters.counts.mean()),
            "tracks": float(number.mean()),
            "pairs of tracks": float((number * (number - 1) / 2).mean()),
            "vertices": float(one.vertices.counts.mean()),
        }
        yield Chunk(physics.pile_up, physics.nzs, sample.events, sizes, works, made, conditions)


def growth(cases: Sequence[Case]) -> list[str]:
    """How the cost goes with pile-up, in words: a power of the number of tracks between neighbours."""
    told = []
    for few, many in pairwise(cases):
        apart = math.log(many.sizes["tracks"] / few.sizes["tracks"])
        powers = [
            f"{stage} {math.log(many.stages[stage] / few.stages[stage]) / apart:.2f}"
            for stage in ("candidates", "tracks", "vertices")
        ]
        whole = math.log(_whole(many) / _whole(few)) / apart
        told.append(
            f"Pile-up {few.pile_up:g} to {many.pile_up:g}: {_whole(few):.2f} to {_whole(many):.2f} ms, as the number "
            f"of tracks to the {whole:.2f}; {', '.join(powers)}."
        )
    return told


def _whole(case: Case) -> float:
    return sum(case.stages[stage] for stage in GROWS_WITH)


def speed(seed: int, options: argparse.Namespace) -> int:
    """Tells what stages cost; whether that is too much."""
    geometry = "mini" if options.small else "full"
    with ExitStack() as stack:
        chunks = []
        for number, pile_up in enumerate(options.pile_up):
            events = SMALL_EVENTS if options.small else max(round(options.tracks / (10 * (1 + pile_up))), LEAST_EVENTS)
            sample = Sample(seed + 100 + number, events, scenario(pile_up), geometry=geometry)
            chunks.append(stack.enter_context(chunk(sample)))
        cases = measured(chunks, options.rounds)
    first = chunks[0]
    print("", costs(cases), "", *growth(cases), sep="\n")
    judged = cases[0]
    block = min(round(BLOCK / judged.sizes["digis"]), first.events)
    lines = {stage: line_through(cases, stage, of) for stage, of in GROWS_WITH.items()}
    found = study(first.prepare, judged, lines, Plan(first.events, block, options.sample))
    print("", table(found), "", *sentences(found), sep="\n")
    goal = Goal(tuple(GROWS_WITH), f"RAW to pairs of muons at pile-up {judged.pile_up:g} of an event", options.goal)
    print(goal.judgement(judged))
    return int(goal.missed(judged))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=new_seed(), help="of the simulation; else a new one")
    parser.add_argument("--tracks", type=int, default=6000, help="of the events of which costs are measured")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pile-up", type=float, nargs="+", default=GROWN_TO, help="costs are judged at the first")
    parser.add_argument("--goal", type=float, help=f"milliseconds an event, {GOAL_MS:g} unless said")
    parser.add_argument("--no-speed", action="store_true", help="no costs")
    parser.add_argument("--small", action="store_true", help="few events of the mini detector; nothing is judged")
    options = parser.parse_args()
    options.sample = 0.02 if options.small else 1.0
    if options.small:
        options.rounds, options.pile_up = 1, options.pile_up[:2]
    if options.goal is None:
        options.goal = math.inf if options.small else GOAL_MS
    return options


def main() -> int:
    options = parsed()
    as_a_worker()
    print(f"seed {options.seed}")
    missed = concluded(figures(options.seed, small=options.small), FIGURES, judged=not options.small)
    slow = 0 if options.no_speed else speed(options.seed, options)
    return int(missed or slow)


if __name__ == "__main__":
    sys.exit(main())
