"""What bounds the stages of REF10: calls, random numbers, memory or the number of channels; from measurements only.

The cost of a stage is taken apart. *Calls*: in blocks of n events it is A/n + B, seen at 1 and at 10; A is what a call
takes whatever it is given. *Random numbers*: the share of the time inside of them, by samples of the stack. *Memory*:
what a plain copy of all that goes in and out would take, or what an event costs more in a large block than in one of
10, which the caches hold, if that is more. What is left is work on each number.
"""

from __future__ import annotations

import signal
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import awkward as ak
import numpy as np

from benchmarks._ref10_costs import Case, Line, Work, aligned, least
from pipeline.experiments.ref10.simulate import streams

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = tuple(str(ROOT / name) for name in ("calib", "pipeline"))
FEW, SOME = 1, 10
"""events of a block, of which the cost of a call is seen"""
ROUNDS = 3

CALLS, RANDOM, MEMORY, WORK = "calls", "random numbers", "memory", "work"


@dataclass(frozen=True, eq=False)
class Step:
    """A stage over a sample, block after block, on what the stages before have left."""

    do: Work
    takes: Any


Prepare = Callable[[int, int], Mapping[str, Step]]
"""(events, events of a block) to the stages, in their order"""


@dataclass(frozen=True)
class Plan:
    """How much is measured: events that there are, events of a block as it is used, CPU seconds of samples a stage."""

    events: int
    block: int
    seconds: float


@dataclass(frozen=True)
class Sampled:
    """Where time goes: shares of functions, each with what it calls outside of this project."""

    own: Mapping[str, float]
    random: float
    """share of random numbers"""


@dataclass(frozen=True)
class Bounds:
    """Of one stage, an event in a large block: milliseconds of one core."""

    cost: float
    alone: float
    """the cost of an event that is worked on alone"""
    call: float
    """what one call takes whatever it is given, not an event"""
    calls: float
    random: float
    memory: float
    kilobytes: float
    """what goes in and comes out"""

    def shares(self) -> dict[str, float]:
        """Of the cost; they sum to one."""
        found = {CALLS: self.calls / self.cost, RANDOM: self.random / self.cost, MEMORY: self.memory / self.cost}
        return {**found, WORK: max(1 - sum(found.values()), 0.0)}

    def bound_by(self, line: Line) -> str:
        """What the largest share is; of work, whether it goes with the sizes of the event."""
        shares = self.shares()
        largest = max(shares, key=lambda name: shares[name])
        if largest != WORK:
            return {CALLS: "calls of Python", RANDOM: RANDOM, MEMORY: "memory traffic"}[largest]
        if line.a > self.cost / 2:
            return "what every event has, whatever its size"
        return f"number of {' and '.join(line.b)}"


def sampled(work: Work, seconds: float) -> Sampled:
    """Samples of the stack while work is done again and again, for so long at least.

    A sample weighs the CPU time since the one before: the system gives one signal for several that come in one call.
    """
    own: dict[str, float] = defaultdict(float)
    random, last = 0.0, time.process_time()

    def sample(number: int, frame: FrameType | None) -> None:
        nonlocal random, last
        now = time.process_time()
        weight, last = now - last, now
        found = None
        while frame is not None:
            if found is None and frame.f_code.co_filename.startswith(PACKAGES):
                found = frame.f_code
            if frame.f_code.co_filename == streams.__file__:
                random += weight
                break
            frame = frame.f_back
        name = "elsewhere" if found is None else f"{Path(found.co_filename).stem}.{found.co_qualname.split('.<')[0]}"
        own[name] += weight

    before = signal.signal(signal.SIGPROF, sample)
    signal.setitimer(signal.ITIMER_PROF, 1e-3, 1e-3)
    try:
        end = last + seconds
        while time.process_time() < end:
            work()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    total = sum(own.values()) or 1.0
    return Sampled({name: weight / total for name, weight in own.items()}, random / total)


def copy_rate(megabytes: int = 64) -> float:
    """Bytes a millisecond that a plain copy moves, read and written, of arrays that no cache holds."""
    source = np.ones(megabytes * 125_000)
    target = np.empty_like(source)
    spent = least({"copy": lambda: np.copyto(target, source)}, 5)["copy"]
    return 2 * source.nbytes / spent


def nbytes(value: Any) -> int:
    """Bytes of all columns in it."""
    if isinstance(value, np.ndarray | ak.Array):
        return int(value.nbytes)
    if is_dataclass(value):
        return sum(nbytes(getattr(value, part.name)) for part in fields(value))
    if isinstance(value, Mapping):
        return sum(map(nbytes, value.values()))
    return sum(map(nbytes, value)) if isinstance(value, list | tuple) else 0


def taken_apart(cost: Mapping[int, float], random: float, kilobytes: float, copy: float) -> Bounds:
    """From milliseconds an event in blocks of 1, of 10, and of the size in use, the last; `copy` in bytes/ms."""
    block = max(cost)
    call = max((cost[FEW] - cost[SOME]) / (1 / FEW - 1 / SOME), 0.0)
    alone, here = cost[FEW], cost[block]
    # More than all of it is noise of small costs.
    calls = min(call / block, here)
    memory = min(max(1e3 * kilobytes / copy, here - calls - (alone - call / FEW), 0.0), here - calls)
    return Bounds(here, alone, call, calls, min(random * here, here - calls - memory), memory, kilobytes)


@dataclass(frozen=True, eq=False)
class Study:
    """All that is known of events of one kind, the sum of the stages being `whole`."""

    case: Case
    block: int
    """events worked on at a time"""
    copy: float
    """bytes a millisecond that a plain copy moves"""
    bounds: Mapping[str, Bounds]
    lines: Mapping[str, Line]
    samples: Mapping[str, Sampled]

    @property
    def cost(self) -> float:
        """Of all stages together [ms]."""
        return sum(one.cost for one in self.bounds.values())

    def share(self, name: str) -> float:
        """Of one of calls, random numbers, memory and work, over all stages."""
        return sum(one.cost * one.shares()[name] for one in self.bounds.values()) / self.cost

    def own(self) -> dict[str, float]:
        """Shares of functions over all stages, the largest first."""
        found: dict[str, float] = defaultdict(float)
        for stage, one in self.samples.items():
            for name, share in one.own.items():
                found[name] += share * self.bounds[stage].cost / self.cost
        return dict(sorted(found.items(), key=lambda item: -item[1]))


def study(prepare: Prepare, case: Case, lines: Mapping[str, Line], plan: Plan) -> Study:
    """Measure all of it, on two blocks of events."""
    events = min(plan.events, 2 * plan.block)
    block = max(min(plan.block, events), SOME + 1)
    cost: dict[str, dict[int, float]] = defaultdict(dict)
    for size in (FEW, SOME, block):
        steps = prepare(events, size)
        for stage, spent in least({stage: step.do for stage, step in steps.items()}, ROUNDS).items():
            cost[stage][size] = spent / events
    copy = copy_rate()
    samples = {stage: sampled(step.do, plan.seconds) for stage, step in steps.items()}
    kilobytes = {stage: 1e-3 * (nbytes(step.takes) + nbytes(step.do())) / events for stage, step in steps.items()}
    found = {stage: taken_apart(cost[stage], samples[stage].random, kilobytes[stage], copy) for stage in steps}
    return Study(case, block, copy, found, lines, samples)


def table(found: Study) -> str:
    """How the stages' cost goes with the size of events, and what it consists of."""
    names = (CALLS, RANDOM, MEMORY, WORK)
    rows = [["stage", "a us", "b us", "within", *(f"{name} %" for name in names), "bound by"]]
    for stage, one in found.bounds.items():
        line, shares = found.lines[stage], one.shares()
        b = ", ".join(f"{value:.3f} / {size.removesuffix('s')}" for size, value in line.b.items())
        cells = [f"{100 * shares[name]:.0f}" for name in names]
        rows.append([stage, f"{1e3 * line.a:.0f}", b, f"{100 * line.off:.0f} %", *cells, one.bound_by(line)])
    return aligned(rows)


def sentences(found: Study) -> list[str]:
    """Where the time goes, and why."""
    bounds, lines = found.bounds, found.lines
    order = sorted(bounds, key=lambda stage: -bounds[stage].cost)
    parts = ", ".join(f"{stage} {_percent(bounds[stage].cost / found.cost)}" for stage in order)
    told = [f"Of {found.cost:.3f} ms an event of {found.case.sizes['tracks']:.0f} tracks, {parts}."]
    functions = list(found.own().items())[:5]
    if functions:
        told.append(f"Most time goes to {', '.join(f'{name} {_percent(share)}' for name, share in functions)}.")
    call = sum(one.call for one in bounds.values())
    alone = call / sum(one.alone for one in bounds.values())
    told.append(
        f"One call of every stage takes {call:.2f} ms whatever it is given: {_percent(alone)} of an event alone, "
        f"{_percent(found.share(CALLS))} in blocks of {found.block}."
    )
    if random := found.share(RANDOM):
        going = found.own().get("streams._Place.go", 0.0)
        told.append(
            f"Random numbers take {_percent(random)}, of which setting the generator to each event's own place takes "
            f"{_percent(min(going / random, 1.0))}."
        )
    kilobytes = sum(one.kilobytes for one in bounds.values())
    told.append(
        f"A plain copy moves {found.copy / 1e6:.1f} GB/s; what goes into the stages and out of them, {kilobytes:.0f} "
        f"kB an event, is {kilobytes / found.cost / 1e3:.2f} GB/s, and a copy of it would take "
        f"{_percent(1e3 * kilobytes / found.copy / found.cost)} of the time. With what no longer lies in the caches in "
        f"large blocks, memory is {_percent(found.share(MEMORY))}."
    )
    causes: dict[str, list[str]] = defaultdict(list)
    for stage in order:
        causes[bounds[stage].bound_by(lines[stage])].append(stage)
    told.append("; ".join(f"{_and(stages)}: bound by {cause}" for cause, stages in causes.items()) + ".")
    return told


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _and(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
