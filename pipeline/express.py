"""Express: the pass over a run's express events, and the conditions futures that follow from it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from calib.calibration import Calibration, Conclusion, conclude
from calib.gates import Gate
from calib.graph import before
from calib.iteration import Iterated, conclude_pass
from calib.payload import Payload, PayloadStore, open_store
from calib.state import State, unpack_state
from jobs.job import Job, Lane
from jobs.reduction import InReceipts, Receipt
from pipeline.booking import task_spec
from pipeline.experiments.interface import Experiment
from pipeline.lineage import lineage
from pipeline.model import Step, Stream
from pipeline.processing import LARGEST_STATE, ChunkWork, Segment, nothing
from pipeline.restarts import kept_for, startable, tier_names
from pipeline.segments import Held

EVENTS = "events"
"""the product of express that is its output files and quality histograms"""


INGREDIENTS = "express ingredients"
"""the record of what the last express of a run was made of, to tell what has changed since"""


def ingredients_of(kind: str) -> str:
    """The name of the record of what the last finalization of a kind was made of."""
    return f"finalize {kind} ingredients"


def state_product(kind: str) -> str:
    """The name of the product that is the state of one calibration."""
    return f"state:{kind}"


@dataclass(frozen=True)
class Cut:
    """The events that a step reads of a run, and how they are cut into chunks."""

    stream: Stream
    inputs: str
    """lineage of the events: files by checksum, entries, units"""
    layout: str
    """name of the way they are cut"""
    leaves: int
    fan_in: int


@dataclass(frozen=True)
class RunContext:
    """All that decides what is made of one run, but for its conditions."""

    run: int
    express: Cut
    """the express stream where the detector has one, else the physics stream, of which `fraction` is taken"""
    prompt: Cut
    experiment: Experiment
    calibrations: tuple[Calibration, ...]
    fraction: Fraction | None
    """the share of the events that express takes; None for all, as of an express stream"""
    segments: tuple[Segment, ...]
    """express conditions"""
    conditions_root: str
    area: str
    environment: Mapping[str, str] = field(default_factory=dict)
    """what the workers run on: recorded in every output, never compared"""
    largest_state: int = LARGEST_STATE
    """bytes that the joined state of one calibration may have"""
    limit_s: float | None = None
    """seconds a chunk may take before its worker is given up"""

    @cached_property
    def before(self) -> dict[str, frozenset[str]]:
        """By kind that is calibrated, all that go before it."""
        return before({calibration.kind: calibration.after for calibration in self.calibrations})

    @cached_property
    def later(self) -> dict[str, frozenset[str]]:
        """Kinds whose state may have to be made once more, after express: by kind, those that may have changed then."""
        own = {c.kind: {c.kind} if isinstance(c, Iterated) else set() for c in self.calibrations}
        return {kind: changed for kind, found in self.before.items() if (changed := found.union(own[kind]))}


def folder_of_run(area: Path | str, run: int) -> str:
    """Where everything lies that is made of a run."""
    return f"{area}/runs/{run}"


def express_group(run: int) -> str:
    """How the tasks of a run's express are called, in the dashboard and in the ledger."""
    return f"express-{run}"


def express_ingredients(context: RunContext) -> dict[str, dict[str, Any]]:
    """What each product of express depends on, by name; states depend on all that the events do as well."""
    experiment = context.experiment
    events = {
        "step": Step.EXPRESS.value,
        "experiment": experiment.name,
        "version": experiment.versions[Step.EXPRESS],
        "settings": experiment.step_settings(),
        "stream": context.express.stream,
        "fraction": str(context.fraction or 1),
        "conditions": [[segment.since, dict(segment.ids)] for segment in context.segments],
        "inputs": context.express.inputs,
    }
    states = {state_product(c.kind): {"accumulate": c.accumulate_settings()} for c in context.calibrations}
    return {EVENTS: events, **states}


def express_products(context: RunContext) -> dict[str, str]:
    """Everything express makes of a run, by name, and the lineage each has."""
    ingredients = express_ingredients(context)
    events = lineage(**ingredients.pop(EVENTS))
    return {EVENTS: events, **{name: lineage(events=events, **parts) for name, parts in ingredients.items()}}


def express_tiers(context: RunContext) -> dict[str, str]:
    """The tiers that hold express, and the name their files have (`pipeline.restarts.tier_names`)."""
    events = express_ingredients(context)[EVENTS]
    del events["conditions"]
    return tier_names(context.experiment, Step.EXPRESS, events, context.segments)


def express_starts(context: RunContext, wanted: Collection[str]) -> dict[str, str]:
    """Of these the tiers that a pass can be started from which makes these products."""
    kinds = [c.kind for c in context.calibrations if state_product(c.kind) in wanted]
    return startable(express_tiers(context), context.experiment, Step.EXPRESS, kinds, whole=EVENTS in wanted)


def express_writes(context: RunContext, wanted: Collection[str]) -> tuple[str, ...] | None:
    """The tiers that a pass writes; None for all. Beside those that are asked for, what a later pass can start from."""
    if EVENTS not in wanted:
        return ()
    own = context.experiment.default_tiers
    return None if own is None else tuple(dict.fromkeys((*own, *_kept(context, context.later))))


def pass_writes(context: RunContext, kinds: Collection[str]) -> tuple[str, ...]:
    """The tiers that a pass for these kinds leaves for those after it, where it found none to start from."""
    again = {k: changed for k, changed in context.later.items() if changed & set(kinds)}
    return tuple(_kept(context, again))


def _kept(context: RunContext, later: Mapping[str, Collection[str]]) -> list[str]:
    return kept_for(context.experiment, Step.EXPRESS, later)


def express_job(context: RunContext, wanted: Mapping[str, str], probe: Callable[[str], None] = nothing) -> _JobAndWork:
    """The pass that makes these products (name to lineage) and no others."""
    return _job(context, wanted, express_group(context.run), express_writes(context, wanted), probe)


def pass_group(run: int, kinds: Iterable[str] = ()) -> str:
    """How the tasks of a later pass for some kinds are called, in the dashboard and in the ledger; without kinds, how
    the names of all of them begin."""
    return "-".join(["calibrate", str(run), *filter(None, ["+".join(kinds)])])


def pass_job(
    context: RunContext, wanted: Mapping[str, str], tiers: tuple[str, ...], probe: Callable[[str], None] = nothing
) -> _JobAndWork:
    """A later pass over the events of express, under the conditions of this context, for the states wanted."""
    kinds = [c.kind for c in context.calibrations if state_product(c.kind) in wanted]
    return _job(context, wanted, pass_group(context.run, kinds), tiers, probe)


def _job(
    context: RunContext,
    wanted: Mapping[str, str],
    group: str,
    tiers: tuple[str, ...] | None,
    probe: Callable[[str], None],
) -> _JobAndWork:
    name = lineage(pass_of=dict(wanted))
    calibrations = tuple(c for c in context.calibrations if state_product(c.kind) in wanted)
    header = {
        "name": group,
        "step": Step.EXPRESS.value,
        "run": context.run,
        "lineage": name,
        "experiment": context.experiment.name,
        "environment": dict(context.environment),
        "conditions": [[segment.since, dict(segment.ids)] for segment in context.segments],
    }
    work = ChunkWork(
        experiment=context.experiment,
        step=Step.EXPRESS,
        calibrations=calibrations,
        segments=context.segments,
        conditions_root=context.conditions_root,
        folder=f"{folder_of_run(context.area, context.run)}/{group.partition('-')[0]}-{name[:12]}",
        header=header,
        tiers=tiers,
        fraction=context.fraction,
        quality=EVENTS in wanted,
        largest_state=context.largest_state,
        probe=probe,
    )
    job = Job(
        name=name,
        group=group,
        lane=Lane.EXPRESS,
        leaves=context.express.leaves,
        fan_in=context.express.fan_in,
        spec=task_spec(context.run, Step.EXPRESS, context.express.layout),
        limit_s=context.limit_s,
    )
    return job, work


_JobAndWork = tuple[Job, ChunkWork]


@dataclass(frozen=True)
class StateFile:
    """Where the state of one run lies, and which units of it are still open (packed, from this one on)."""

    path: str
    lineage: str
    since: int = 0
    under: Held = ()
    """of a calibration that iterates, the payloads of its own kind that the events were processed under"""
    without: tuple[int, ...] = ()
    """units (packed) that are left out"""


@dataclass(frozen=True)
class FinalizeWork(InReceipts):
    """Intervals and finalize of one calibration over the states of one or more runs (`jobs.reduction.Work`)."""

    calibration: Calibration
    conditions_root: str
    previous: str | None
    flush: bool
    gates: tuple[Gate, ...] = ()
    """where finalize looks at the payload before: they tell which of those it makes the next interval may see"""
    probe: Callable[[str], None] = field(default=nothing)

    def leaf(self, item: Sequence[StateFile], attempt: str) -> tuple[Receipt, None]:
        """Payloads go to the store by content; the receipt says what came of each interval."""
        state = self.calibration.empty()
        for file in item:
            found = unpack_state(file.path, self.calibration.kind)
            if found is not None:
                state = self.calibration.merge(state, _asked_of(found, file))
        store = open_store(self.conditions_root)
        if isinstance(self.calibration, Iterated):
            conclusions = conclude_pass(self.calibration, state, partial(_under, store, item), self.flush)
        else:
            previous = store.get(self.previous) if self.previous else None
            conclusions = conclude(self.calibration, state, previous, self.flush, self.gates, store.find)
        for conclusion in conclusions:
            if conclusion.payload is not None:
                store.put(conclusion.payload, self.probe)
        return Receipt((), {"conclusions": [conclusion_note(conclusion) for conclusion in conclusions]}), None

    def absent(self, item: Sequence[StateFile], reason: str) -> tuple[Receipt, None]:
        """A finalization that cannot be done concludes nothing; the handshake then goes by its deadline."""
        return Receipt((), {"conclusions": [], "failed": reason}), None


def _asked_of(state: State, file: StateFile) -> State:
    units = state.units()
    asked = units[(units >= file.since) & ~np.isin(units, file.without)]
    return state.select(asked) if len(asked) < len(units) else state


def _under(store: PayloadStore, files: Sequence[StateFile], unit: int) -> Payload | None:
    """The payload of its own kind that the events of a unit were processed under."""
    held = [payload for file in files for since, payload in file.under if since <= unit]
    return store.get(held[-1]) if held else None


def conclusion_note(conclusion: Conclusion) -> dict[str, Any]:
    """A conclusion as JSON: first and last unit, their number, how it ended, the payload id; of a calibration that
    iterates also how far it moved."""
    units = np.array(conclusion.interval.units, np.int64)
    return {
        "first": int(units[0]),
        "last": int(units[-1]),
        "units": len(units),
        "outcome": conclusion.outcome.value,
        "payload": conclusion.payload.id if conclusion.payload else None,
        "message": conclusion.message,
        "vetoed": list(conclusion.interval.vetoed),
        "unconfirmed": conclusion.interval.unconfirmed,
        **({} if conclusion.moved is None else {"moved": conclusion.moved}),
    }


def finalize_ingredients(work: FinalizeWork, states: Sequence[StateFile]) -> dict[str, Any]:
    """What the conclusions of a finalization depend on."""
    return {
        "finalize": work.calibration.finalize_settings(),
        "states": [[file.lineage, file.since, *([list(file.without)] if file.without else [])] for file in states],
        "previous": work.previous,
        "flush": work.flush,
        "gates": [[gate.name, asdict(gate)] for gate in work.gates],
    }


def finalize_job(run: int, work: FinalizeWork, states: Sequence[StateFile], limit_s: float | None = None) -> Job:
    """The conditions future of one calibration: a job of one leaf, named by what it depends on."""
    name = lineage(**finalize_ingredients(work, states))
    group = f"conditions-{work.calibration.kind}-{run}"
    return Job(name=name, group=group, lane=Lane.CONDITIONS, leaves=1, fan_in=2, limit_s=limit_s)
