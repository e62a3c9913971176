"""The later passes over a run's express events: for calibrations that go after others, and for those that iterate.

Express makes the states of all. Where what a calibration goes after changes nothing, its state holds; else it is made
once more, under what was found. What a state is made under follows from what was concluded alone, never from when it
was: so each start comes to the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

from calib.calibration import Calibration
from calib.iov import RunLumi
from calib.iteration import Iterated, ended
from calib.tags import Sync
from jobs.flight import Items
from jobs.job import Job
from jobs.reduction import NodeReceipt, Work
from pipeline import accounting
from pipeline.chain import Chain
from pipeline.express import (
    EVENTS,
    RunContext,
    StateFile,
    express_products,
    express_starts,
    express_tiers,
    pass_job,
    pass_writes,
    state_product,
)
from pipeline.handshake import foreseen
from pipeline.iterating import Note, found_by, step_of, told
from pipeline.links import Ask
from pipeline.manifest import Condition, Stretch
from pipeline.minutes import Minutes
from pipeline.pass_rows import PASSES
from pipeline.preparation import in_force_before
from pipeline.processing import Segment
from pipeline.restarts import written
from pipeline.segments import Held, held_by, of_kind, with_held
from pipeline.views import Views
from pipeline.way import Ends, Way
from pipeline.world import World

STATES = "states"
"""the record of the states that the conditions of a run are made from, by kind, where these may not be express's own"""

Start = Callable[[Way, Job, Work, Items, Ends], None]
Row = dict[str, Any]


class Looked(NamedTuple):
    """What came of looking at a run."""

    ready: bool
    """whether a state is complete by it"""
    watched: frozenset[int]
    """runs of which one must change before more comes of it"""


@dataclass
class Making:
    """The state of one kind of one run: what it goes after, and what it is made under."""

    calibration: Calibration
    first: frozenset[str]
    """the kinds it goes after"""
    base: tuple[Segment, ...] | None = None
    """what express was made under, with what came of the kinds before it; None while that is not known"""
    segments: tuple[Segment, ...] = ()
    """the same, with what an iteration has found so far"""
    lineage: str = ""
    remark: str = ""
    """what is to be said of all that is made from it"""
    steps: list[tuple[str, float]] = field(default_factory=list)
    """of an iteration, the lineage of each state and how far it moved"""

    @property
    def kind(self) -> str:
        """What it is a state for."""
        return self.calibration.kind


class _Waits(NamedTuple):
    """What a state waits for that cannot be begun."""

    words: str
    watched: frozenset[int]


class Passes:
    """Gives chains the states of calibrations that may need a later pass, and has these passes made.

    Kinds that become ready together, and need the same conditions, share one; kinds that do not go after each other
    do not wait for each other. `start` has a job entered and started at the end of the turn, as `minutes` are written.
    """

    def __init__(self, world: World, start: Start, minutes: Minutes, chains: Sequence[Chain], views: Views) -> None:
        self._world, self._start, self._minutes, self._views = world, start, minutes, views
        self._chain_of = {(chain.kind, run): chain for chain in chains for run in chain.runs}
        self._makings: dict[int, dict[str, Making]] = {}
        self._rows: dict[int, list[Row]] = {}
        self._paths: dict[str, str] = {}
        """lineage of a state to its file, of those that this start knows of"""
        self._in_flight: set[str] = set()

    def begin(self, way: Way, made: Mapping[str, str]) -> None:
        """Express of a run is done: these states are made (lineage to file)."""
        later = way.context.later
        for calibration in way.context.calibrations:
            product = way.products[state_product(calibration.kind)]
            if calibration.kind not in later and product in made:
                self._chain_of[calibration.kind, way.run].ready(way.run, StateFile(made[product], product))
        if later:
            self._paths |= made
            kept = self._world.books.document(way.run, PASSES) or {"passes": []}
            self._rows[way.run] = [dict(row) for row in kept["passes"]]
            makings = (Making(c, way.context.before[c.kind]) for c in way.context.calibrations if c.kind in later)
            self._makings[way.run] = {making.kind: making for making in makings}

    def look(self, way: Way, now: float) -> Looked:
        """Begin what can be begun."""
        wanted: list[Making] = []
        watched: set[int] = set()
        for making in self._makings.get(way.run, {}).values():
            chain = self._chain_of[making.kind, way.run]
            if way.run in chain.settled:
                continue
            base = self._base(way, making, now)
            if isinstance(base, _Waits):
                watched |= base.watched
                if making.base is None:
                    chain.expects(way.run, base.words)
            elif making.base != base:
                if making.base is not None:
                    chain.again(way.run, "what it goes after is another now: its state is made anew")
                making.base = making.segments = base
                making.steps = []
                wanted.append(making)
        return Looked(self._make(way, wanted, now), frozenset(watched))

    def weigh(self, way: Way, chain: Chain, ask: Ask, notes: Sequence[Note], now: float) -> Sequence[Note] | None:
        """What a finalization has concluded, as it counts; None where an iteration goes on with another pass."""
        making = self._makings.get(way.run, {}).get(chain.kind)
        if making is None or ask.states[-1].lineage != making.lineage or way.run in chain.settled:
            return notes
        step, ending = step_of(notes), None
        if isinstance(making.calibration, Iterated) and step is not None:
            if not making.steps or making.steps[-1][0] != making.lineage:
                making.steps.append((making.lineage, step))
            ending = ended([size for _, size in making.steps], making.calibration.iterations)
            if ending is None:
                making.segments = with_held(making.base or (), {making.kind: found_by(notes, RunLumi(way.run).packed)})
                number = len(making.steps) + 1
                words = f"iteration {number} is at work, the one before moved by {step:.3g} (small is 1)"
                chain.again(way.run, words, spoken=True)
                self._make(way, [making], now, words)
                return None
        return told(notes, ending, [size for _, size in making.steps], making.remark)

    def _base(self, way: Way, making: Making, now: float) -> tuple[Segment, ...] | _Waits:
        """The conditions of the first pass for a kind: those of express, but for the kinds before it what holds now."""
        late = now >= way.waited_for(making.kind)
        before: dict[str, tuple[Sequence[Stretch], str | None]] = {}
        remarks = []
        for name in sorted(making.first):
            view, rules = self._views.of_kind(name, way, now)
            found = foreseen(view, way.run, (int(way.units[0]), int(way.units[-1])), rules)
            # At the deadline too: what is being finalized then may still be published, and would be gone without.
            if isinstance(found, str) and (not late or view.running):
                words = found if found.startswith(name) else f"{name}: {found}"
                return _Waits(f"waits for {words}", frozenset(filter(None, [view.earlier_undecided])))
            stretches = () if isinstance(found, str) else found
            undecided = [found] if isinstance(found, str) else []
            reasons = undecided or [s.why for s in stretches if s.condition is Condition.FALLBACK]
            if reasons:
                remarks.append(f"made under the {name} in force, for there is no other ({reasons[0]})")
            before[name] = stretches, view.in_force
        making.remark = "; ".join(remarks)
        start, entered = RunLumi(way.run).packed, self._entered(way, list(before))
        held = {kind: held_by(found, start, in_force, entered[kind]) for kind, (found, in_force) in before.items()}
        return with_held(way.context.segments, held)

    def _entered(self, way: Way, kinds: Sequence[str]) -> dict[str, Held]:
        """By kind, what the tags answer in a run otherwise than at the end of the one before it: people have entered
        that."""
        entered = {}
        with self._world.database.read() as connection:
            db = self._world.conditions(connection)
            snapshot = db.snapshot(self._world.global_tag(Sync.PROMPT))
            resolved = db.resolve_run(snapshot, way.units, kinds)
            segments = [Segment(found.since.packed, found.ids) for found in resolved]
            for kind in kinds:
                runs = [run + 1 for run in self._chain_of[kind, way.run].runs if run < way.run]
                before = in_force_before(self._world, connection, kind, runs[-1] if runs else way.run)
                answers = of_kind(segments, kind)
                begins = (RunLumi(way.run).packed, *(since for since, _ in answers[1:]))
                held = zip(begins, (payload for _, payload in answers), strict=False)
                entered[kind] = tuple((since, payload) for since, payload in held if payload != before)
        return entered

    def _make(self, way: Way, wanted: Sequence[Making], now: float, words: str = "") -> bool:
        """Have these states made, those that need the same conditions together; whether one is there already."""
        ready = False
        together: dict[str, list[Making]] = {}
        for making in wanted:
            products = express_products(replace(way.context, segments=making.segments))
            making.lineage = products[state_product(making.kind)]
            path = self._path(making.lineage)
            if path:
                self._ready(way, making, path)
                ready = True
            elif now >= way.waited_for(making.kind):
                said = "the pass for it could not begin before the deadline"
                self._chain_of[making.kind, way.run].expects(way.run, said)
            else:
                said = words or f"its pass under another {', '.join(self._changed(way, making))} is at work"
                self._chain_of[making.kind, way.run].expects(way.run, said)
                together.setdefault(products[EVENTS], []).append(making)
        for makings in together.values():
            self._begin(way, makings)
        return ready

    @staticmethod
    def _changed(way: Way, making: Making) -> list[str]:
        """The kinds of which a state is made under another payload than express was."""
        kinds = sorted(making.first | {making.kind})
        return [kind for kind in kinds if of_kind(making.segments, kind) != of_kind(way.context.segments, kind)]

    def _path(self, lineage: str) -> str | None:
        """The file of a state, if it is made."""
        if lineage not in self._paths:
            for job in self._world.products.made([lineage]).values():
                self._paths[lineage] = self._world.products.result(job).state.files[0].path
        return self._paths.get(lineage)

    def _begin(self, way: Way, makings: Sequence[Making]) -> None:
        """Have states under the same conditions made: in passes that an earlier start has begun, else in one."""
        rows = self._rows[way.run]
        context = replace(way.context, segments=makings[0].segments)
        begun = {lineage: row for row in rows for lineage in row["wanted"].values()}
        new = {state_product(making.kind): making.lineage for making in makings if making.lineage not in begun}
        if new:
            rows.append(self._row(context, new))
        for row in [begun[m.lineage] for m in makings if m.lineage in begun] + (rows[-1:] if new else []):
            job, work = pass_job(context, row["wanted"], tuple(row["tiers"]), self._world.probe)
            if job.name in self._in_flight:
                continue
            self._in_flight.add(job.name)
            tiers = express_starts(context, row["wanted"])
            earlier = self._world.products.earlier(tiers)
            chunks = partial(self._world.chunks, way.run, way.context.express.layout, earlier=earlier)
            began = self._world.now()
            ends = (partial(self._ran, way, context, row, job, began), partial(self._stops, way, row, job))
            self._write(way)
            self._world.probe("pass")
            self._start(way, job, work, chunks, ends)

    def _row(self, context: RunContext, wanted: Mapping[str, str]) -> Row:
        """The record of a pass that begins. Where there is no tier to start from, it leaves one for those after it."""
        kinds = [c.kind for c in context.calibrations if state_product(c.kind) in wanted]
        start = self._world.products.earlier(express_starts(context, wanted))
        tiers = () if start else pass_writes(context, kinds)
        return {"kinds": kinds, "wanted": dict(wanted), "tiers": list(tiers), "job": "", "seconds": None}

    def _ran(self, way: Way, context: RunContext, row: Row, job: Job, began: float, root: NodeReceipt) -> None:
        self._in_flight.discard(job.name)
        with self._world.database.read() as connection:
            problem = accounting.unbalanced(connection, way.run, job.name, way.context.express.stream)
        if problem:
            self._stops(way, row, job, problem)
            return
        self._world.probe("pass-done")
        left = written(express_tiers(context), row["tiers"])
        self._minutes.add(accounting.add_products, [*row["wanted"].values(), *left], job.name)
        row |= {"job": job.name, "seconds": self._world.now() - began}
        self._write(way)
        self._paths |= dict.fromkeys(row["wanted"].values(), root.state.files[0].path)
        for making in self._makings[way.run].values():
            if making.lineage in row["wanted"].values():
                self._ready(way, making, self._paths[making.lineage])

    def _stops(self, way: Way, row: Row, job: Job, reason: str) -> None:
        self._in_flight.discard(job.name)
        for making in self._makings[way.run].values():
            if making.lineage in row["wanted"].values():
                self._chain_of[making.kind, way.run].broken(way.run, f"{job.group} stopped: {reason}")
                self._minutes.set_aside(way.run, "conditions", making.kind, reason)

    def _ready(self, way: Way, making: Making, path: str) -> None:
        own = of_kind(making.segments, making.kind) if isinstance(making.calibration, Iterated) else ()
        way.states[making.kind] = StateFile(path, making.lineage, under=own)
        states = {kind: asdict(state) for kind, state in way.states.items()}
        self._minutes.add(self._world.books.enter, way.run, STATES, states)
        self._chain_of[making.kind, way.run].ready(way.run, way.states[making.kind])

    def _write(self, way: Way) -> None:
        self._minutes.add(self._world.books.enter, way.run, PASSES, {"passes": [dict(r) for r in self._rows[way.run]]})


def states_of(world: World, way: Way) -> dict[str, StateFile]:
    """By kind, the state that the conditions of a run were last made from, of those that are made and kept."""
    products = {c.kind: way.products[state_product(c.kind)] for c in way.context.calibrations}
    made = world.products.made(list(products.values()))
    found = {
        kind: StateFile(world.products.result(made[product]).state.files[0].path, product)
        for kind, product in products.items()
        if product in made and kind not in way.context.later
    }
    return found | {kind: _kept(row) for kind, row in (world.books.document(way.run, STATES) or {}).items()}


def _kept(row: Mapping[str, Any]) -> StateFile:
    return StateFile(**{**row, "under": tuple((since, payload) for since, payload in row["under"])})
