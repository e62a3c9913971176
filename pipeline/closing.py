"""Closure of a run whose prompt is done: a job for each kind, over the states that prompt has left, so that what fails
of one kind is tried again with the next start, and is no matter of the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial, reduce
from typing import Any

from calib.accumulators import StatesDiffer
from calib.calibration import Calibration
from calib.closure import Closes, Closure, Demand, close, part_of
from calib.iov import RunLumi
from calib.payload import open_store
from calib.state import State, state_names, unpack_state
from jobs.flight import Items
from jobs.job import Job, Lane
from jobs.reduction import InReceipts, NodeReceipt, Receipt, Work
from pipeline.again import MARK, stem, under
from pipeline.lineage import lineage
from pipeline.manifest import Manifest
from pipeline.sections import ClosureSection
from pipeline.way import Ends, Part, Way
from pipeline.world import World

RULES = 1
"""raised by hand when the same input would be judged otherwise"""
NOTHING_KEPT = "prompt has kept nothing of it: it measures not what the calibration reads, or was made before"


@dataclass(frozen=True)
class Held:
    """A payload that was in force for some units of a run (packed), without those that were off and left out of it."""

    payload: str
    units: tuple[int, ...]


@dataclass(frozen=True)
class Item:
    """One kind: what it was made with, its payloads, and the files of prompt with how its states begin in each."""

    calibration: Calibration
    held: tuple[Held, ...]
    states: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Closed:
    """What closure says of one payload; units packed, both ends belong to it."""

    kind: str
    first: int
    last: int
    payload: str
    closure: Closure

    def __str__(self) -> str:
        where = f"{RunLumi.unpack(self.first)} to {RunLumi.unpack(self.last)}"
        return f"{self.kind} {where} {self.closure.answer}: {self.closure.why}"

    def to_document(self) -> dict[str, Any]:
        """As JSON."""
        plain = {"kind": self.kind, "first": self.first, "last": self.last, "payload": self.payload}
        return plain | asdict(self.closure)

    @classmethod
    def from_document(cls, found: Mapping[str, Any]) -> Closed:
        """Read what `to_document` gave."""
        told = {name: found[name] for name in ("why", "sigmas", "limit")}
        closure = Closure(Closes(found["answer"]), **told)
        return cls(found["kind"], found["first"], found["last"], found["payload"], closure)


@dataclass(frozen=True)
class ClosureWork(InReceipts):
    """Makes a calibration of a run again and holds it to what is in force (`jobs.reduction.Work`)."""

    conditions_root: str
    demand: Demand

    def leaf(self, item: Item, attempt: str) -> tuple[Receipt, None]:
        """The receipt says what came of each of its payloads."""
        found = [self._closed(item, held) for held in item.held]
        return Receipt((), {"closed": [closed.to_document() for closed in found]}), None

    def _closed(self, item: Item, held: Held) -> Closed:
        try:
            closure = self._close(item, held)
        except StatesDiffer as problem:
            closure = Closure(Closes.NOT_JUDGED, f"what prompt has kept of it does not go together: {problem}")
        return Closed(item.calibration.kind, held.units[0], held.units[-1], held.payload, closure)

    def _close(self, item: Item, held: Held) -> Closure:
        parts = list(_states(item.states, held.payload))
        if not parts:
            return Closure(Closes.NOT_JUDGED, NOTHING_KEPT)
        state = reduce(item.calibration.merge, parts)
        if not set(state.units().tolist()) <= set(held.units):
            part = part_of(state, held.units)
            if part is None:
                return Closure(Closes.NOT_JUDGED, "its sums are pooled over units that were left out of the payload")
            state = part
        return close(item.calibration, state, open_store(self.conditions_root).get(held.payload), self.demand)

    def absent(self, item: Item, reason: str) -> tuple[Receipt, None]:
        """A closure that cannot be had is not judged; nothing waits for it."""
        found = not_judged([item], f"closure failed: {reason}")
        return Receipt((), {"closed": [closed.to_document() for closed in found]}), None


def _states(files: Sequence[tuple[str, str]], payload: str) -> list[State]:
    found = [
        unpack_state(path, name)
        for path, begin in files
        for name in state_names(path)
        if name == under(begin, payload) or name.startswith(f"{under(begin, payload)} ")
    ]
    return [state for state in found if state is not None]


def items_of(way: Way) -> list[Item]:
    """What is to be closed of a run: every kind that is calibrated and that some dataset was released with."""
    items = []
    for calibration in way.context.calibrations:
        parts = [part for part in way.parts if part.manifest and calibration.kind in part.manifest.kinds]
        manifests = [part.manifest for part in parts if part.manifest]
        if manifests:
            files = tuple((_file(part), stem(calibration, part.dataset)) for part in parts)
            items.append(Item(calibration, held_of(manifests[0], calibration.kind, way.units.tolist()), files))
    return items


def _file(part: Part) -> str:
    if part.done is None:
        raise ValueError(f"dataset {part.dataset.name} is not done yet")
    return part.done.root.state.files[0].path


def held_of(manifest: Manifest, kind: str, units: Sequence[int]) -> tuple[Held, ...]:
    """The payloads of a kind over the units of a run, in the order in which they come into force. Pure."""
    vetoed = set(manifest.vetoed.get(kind, ()))
    covered: dict[str, list[int]] = {}
    for stretch in manifest.kinds[kind]:
        if stretch.payload:
            inside = [unit for unit in units if stretch.first <= unit <= stretch.last and unit not in vetoed]
            covered.setdefault(stretch.payload, []).extend(inside)
    return tuple(Held(payload, tuple(inside)) for payload, inside in covered.items() if inside)


def kept_by_prompt(items: Sequence[Item]) -> bool:
    """Whether prompt has left anything to close."""
    paths = {path for item in items for path, _ in item.states}
    return any(name.startswith(f"{MARK} ") for path in paths for name in state_names(path))


def not_judged(items: Iterable[Item], why: str) -> list[Closed]:
    """What is said of every payload where closure is not to be had."""
    closure = Closure(Closes.NOT_JUDGED, why)
    return [
        Closed(item.calibration.kind, held.units[0], held.units[-1], held.payload, closure)
        for item in items
        for held in item.held
    ]


def closure_job(way: Way, item: Item, section: ClosureSection, conditions_root: str) -> tuple[Job, ClosureWork]:
    """The job of one kind of a run: named by its prompts, the payloads, and how the calibration is made and held."""
    one = item.calibration
    demand = Demand(section.sigmas, {**one.tolerated, **section.least.get(one.kind, {})})
    name = lineage(
        closure=[one.finalize_settings(), [begin for _, begin in item.states], [asdict(held) for held in item.held]],
        prompts=[part.prompt for part in way.parts],
        rules=[RULES, list(one.errors_shared), one.may_stray],
        demand=asdict(demand),
    )
    group = f"{MARK}-{one.kind}-{way.run}"
    job = Job(name=name, group=group, lane=Lane.CONDITIONS, leaves=1, fan_in=2, limit_s=way.context.limit_s)
    return job, ClosureWork(conditions_root, demand)


class Closures:
    """Has runs closed whose prompt is done. `start` enters and starts a job, as the desk of the service does."""

    def __init__(self, world: World, start: Callable[[Way, Job, Work, Items, Ends], None]) -> None:
        self._world, self._start = world, start

    def after(self, way: Way, then: Callable[[Sequence[Closed]], None]) -> None:
        """Close a run; then go on with what was found. It goes on without where closure cannot be had."""
        items = items_of(way)
        if not items or not kept_by_prompt(items):
            then(not_judged(items, NOTHING_KEPT))
            return
        found: dict[str, Sequence[Closed]] = {}

        def ended(item: Item, closed: Sequence[Closed]) -> None:
            found[item.calibration.kind] = closed
            if len(found) == len(items):
                self._world.probe("closed")
                then([closed for item in items for closed in found[item.calibration.kind]])

        self._world.probe("closure")
        for item in items:
            self._begin(way, item, partial(ended, item))

    def _begin(self, way: Way, item: Item, ended: Callable[[Sequence[Closed]], None]) -> None:
        job, work = closure_job(way, item, self._world.settings.closure, str(self._world.store.root))

        def done(root: NodeReceipt) -> None:
            ended([Closed.from_document(row) for row in root.leaves[0].note["closed"]])

        def failed(reason: str) -> None:
            ended(not_judged([item], f"closure failed: {reason}"))

        self._start(way, job, work, lambda leaves: [item], (done, failed))
