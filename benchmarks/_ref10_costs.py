"""What stages cost an event of REF10, on one core, and how that goes with the size of events; in tables."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import uproot

from pipeline.experiments.ref10.daq import TREE, Format, write_raw
from pipeline.experiments.ref10.reconstruct.digis import READS
from pipeline.experiments.ref10.simulate.scenario import Physics, Scenario

PILE_UP = (0.5, 1.0, 3.0)
"""mean number of vertices beside the first, as everywhere"""
JUDGED = PILE_UP[0]
"""the pile-up at which an event has 15 tracks, for which the goals are set"""
READ = "read RAW"

Work = Callable[[], Any]
Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Case:
    """Minimum-bias events of one kind: what one has and what it costs, on average."""

    pile_up: float
    nzs: float
    """share of the events with a sixteenth of the strips read out in full"""
    sizes: Mapping[str, float]
    """tracks, digis, ... of an event"""
    stages: Mapping[str, float]
    """milliseconds of one core, by stage; READ is among them"""

    def over_read(self, stage: str) -> float:
        """The cost of a stage over that of reading the RAW columns of the same events."""
        return self.stages[stage] / self.stages[READ]


@dataclass(frozen=True)
class Goal:
    """What stages may take together."""

    stages: tuple[str, ...]
    told: str
    milliseconds: float

    def reached(self, case: Case) -> float:
        """What they take, in milliseconds."""
        return sum(case.stages[stage] for stage in self.stages)

    def missed(self, case: Case) -> bool:
        """Whether that is too much."""
        return self.reached(case) > self.milliseconds

    def judgement(self, case: Case) -> str:
        """The same in words."""
        reached = self.reached(case)
        what = f"{self.told} of {case.sizes['tracks']:.1f} tracks takes {reached:.3f} ms"
        if self.missed(case):
            return f"MISSED: {what}, at most {self.milliseconds:g}"
        if math.isinf(self.milliseconds):
            return f"{what}; nothing is judged"
        return f"{what}, {self.milliseconds / reached:.1f} times less than the {self.milliseconds:g} ms it may take"


@dataclass(frozen=True)
class Line:
    """cost = a + sum of b x size: milliseconds, and microseconds for one more of each size."""

    a: float
    b: Mapping[str, float]
    off: float
    """the largest deviation of what was measured, relative"""


def scenario(pile_up: float, nzs: float = Physics.nzs) -> Scenario:
    """Minimum bias alone."""
    return Scenario(physics=Physics(pile_up=pile_up, z=0.0, jpsi=0.0, nzs=nzs))


def kinds(pile_up: Sequence[float]) -> list[tuple[float, float]]:
    """(pile-up, share of full readout) of what is measured: what is judged first, and last the same without any strip
    read out in full, so that these are told from the rest."""
    every = [(one, Physics.nzs) for one in dict.fromkeys((JUDGED, *pile_up))]
    return [*every, (JUDGED, 0.0)]


def least(works: Mapping[Name, Work], rounds: int, clock: Callable[[], float] = time.process_time) -> dict[Name, float]:
    """The shortest time of each, in milliseconds of CPU; they take turns, after a first round that does not count."""
    found = dict.fromkeys(works, math.inf)
    for turn in range(rounds + 1):
        for name, work in works.items():
            begun = clock()
            work()
            spent = 1e3 * (clock() - begun)
            if turn:
                found[name] = min(found[name], spent)
    return found


@dataclass(frozen=True, eq=False)
class Prepared:
    """Events of one kind, ready to be measured: as Case, and what works on all of the events."""

    pile_up: float
    nzs: float
    events: int
    sizes: Mapping[str, float]
    works: Mapping[str, Work]


def measured(every: Sequence[Prepared], rounds: int) -> list[Case]:
    """The costs of all; they take turns, so that one is not slower because the machine was busy then."""
    spent = least({(number, stage): do for number, one in enumerate(every) for stage, do in one.works.items()}, rounds)
    found = []
    for number, one in enumerate(every):
        stages = {stage: spent[number, stage] / one.events for stage in one.works}
        found.append(Case(one.pile_up, one.nzs, one.sizes, stages))
    return found


@contextmanager
def reading(columns: Mapping[str, Any]) -> Iterator[Work]:
    """RAW is written as the DAQ does; gives what reads the columns that reconstruction needs, from a file that is open.

    Decompressed and laid out each time: nothing is kept.
    """
    options: dict[str, Any] = {"array_cache": None, "object_cache": None, "use_threads": False}
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "raw.root"
        write_raw(path, columns, Format.TTREE, lambda step: None)
        with uproot.open(path, **options) as file:
            tree = file[TREE]
            yield lambda: {name: tree[name].array(library="ak") for name in READS}


def line_through(cases: Sequence[Case], stage: str, sizes: Sequence[str]) -> Line:
    """How the cost of a stage goes with some sizes: least squares of relative deviations."""
    cost = np.array([case.stages[stage] for case in cases])
    terms = np.array([[1.0, *(case.sizes[size] for size in sizes)] for case in cases])
    found = np.linalg.lstsq(terms / cost[:, None], np.ones(len(cost)), rcond=None)[0]
    off = float(np.abs(terms @ found / cost - 1).max())
    return Line(float(found[0]), dict(zip(sizes, (1e3 * found[1:]).tolist(), strict=True)), off)


def costs(cases: Sequence[Case], parts: frozenset[str] = frozenset()) -> str:
    """A table of all stages; `parts` are of the stage before them."""
    rows = [["ms of a core an event (over reading RAW)", *(_named(case) for case in cases)]]
    for stage in cases[0].stages:
        cells = [f"{case.stages[stage]:.3f} ({case.over_read(stage):5.2f})" for case in cases]
        rows.append([f"  of which {stage}" if stage in parts else stage, *cells])
    rows += [[size, *(f"{case.sizes[size]:.1f}" for case in cases)] for size in cases[0].sizes]
    return aligned(rows)


def _named(case: Case) -> str:
    return f"pile-up {case.pile_up:g}" + ("" if case.nzs else ", no NZS")


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as lines: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows
    )
