"""What a run would do, and why: worked out on a copy of the database, so that nothing is changed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jobs.flight import Items
from jobs.job import Job
from jobs.reduction import Work
from pipeline import catalog, journal
from pipeline.chain import Chain
from pipeline.express import (
    INGREDIENTS,
    express_ingredients,
    express_products,
    express_starts,
    finalize_ingredients,
    finalize_job,
    ingredients_of,
    state_product,
)
from pipeline.foretelling import foretell
from pipeline.ingest import ingest
from pipeline.journal import list_setbacks
from pipeline.links import Ask
from pipeline.minutes import Minutes
from pipeline.passes import Passes
from pipeline.preparation import prepare
from pipeline.processing import ChunkWork
from pipeline.prompt import prompt_name, prompt_tiers
from pipeline.rehearsal import rehearsal
from pipeline.released import Released
from pipeline.restarts import Earlier
from pipeline.summary import beside, placed
from pipeline.views import Views
from pipeline.way import Ends, Part, Way
from pipeline.world import World


@dataclass(frozen=True)
class Todo:
    """One thing that would be done to a run."""

    run: int
    what: str
    why: str
    events: int = 0
    """events it would read"""
    start: Earlier | None = None
    """what it would read instead of RAW"""


@dataclass(frozen=True)
class Plan:
    """What would be done, in order; and where."""

    todos: tuple[Todo, ...]
    runs: int
    cluster: str
    remarks: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"run {todo.run}: {todo.what}: {todo.why}{_events(todo)}" for todo in self.todos]
        if not self.runs:
            lines = ["nothing to do: no run has events in these files"]
        elif not lines:
            lines = [f"nothing to do: all {self.runs} runs are done under these settings"]
        return "\n".join([*lines, *self.remarks, "", "on this cluster:", self.cluster])


def _events(todo: Todo) -> str:
    instead = f" from {todo.start}" if todo.start else ""
    return f" (reads {todo.events} events{instead})" if todo.events else ""


def plan(world: World, files: Sequence[Path], cluster: str) -> Plan:
    """Work out what `run` would do with these files."""
    with rehearsal(world) as copied:
        ingest(copied.database.begin, copied.experiment, files, copied.now())
        with copied.database.read() as connection:
            runs = catalog.runs_in(connection, [str(path) for path in files])
            aside = beside(list_setbacks(connection), runs, files)
            setbacks = [placed(setback) for setback in aside]
        ways, chains = prepare(copied, runs)
        todos = [todo for way in ways for todo in _express(copied, way)]
        foresight = _Foresight(copied, chains)
        todos += [todo for way in ways for todo in _rest(copied, way, chains, foresight)]
    return Plan(tuple(sorted(todos, key=lambda todo: todo.run)), len(runs), cluster, tuple(setbacks))


def _express(world: World, way: Way) -> list[Todo]:
    wanted = express_products(way.context)
    made = world.products.made(list(wanted.values()))
    missing = [name for name, lineage in wanted.items() if lineage not in made]
    if not missing:
        return []
    why = "; ".join(_differences(world, way, missing)) or "never made"
    start = world.products.earlier(express_starts(way.context, missing))
    return [Todo(way.run, f"express ({', '.join(missing)})", why, _run_events(world, way.run), start)]


def _run_events(world: World, run: int) -> int:
    with world.database.read() as connection:
        return int(catalog.units(connection, run)[1].sum())


def _differences(world: World, way: Way, missing: Sequence[str]) -> list[str]:
    """What differs from the last time, named down to the setting."""
    with world.database.read() as connection:
        before = journal.get_document(connection, way.run, INGREDIENTS)
    if before is None:
        return ["first sight of the run"]
    now = _as_kept(express_ingredients(way.context))
    return [words for name in missing for words in _compare(name, before.get(name), now[name])]


def _as_kept(ingredients: Mapping[str, Any]) -> dict[str, Any]:
    """What is made of them by being kept as JSON."""
    kept: dict[str, Any] = json.loads(json.dumps(ingredients))
    return kept


def _compare(name: str, before: Any, now: Any) -> list[str]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        keys = sorted({*before, *now})
        return [words for key in keys for words in _compare(f"{name} {key}", before.get(key), now.get(key))]
    return [] if before == now else [f"{name}: {_short(before)} -> {_short(now)}"]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) < 40 else f"{text[:37]}..."


def _rest(world: World, way: Way, chains: Sequence[Chain], foresight: _Foresight) -> list[Todo]:
    """Finalize, handshake and prompt, as far as they can be foretold."""
    todos = foresight.of(way)
    for part in way.parts:
        todos += _prompt(world, way, part, chains)
    return todos


def _prompt(world: World, way: Way, part: Part, chains: Sequence[Chain]) -> list[Todo]:
    """Handshake and prompt of a run, or of a dataset of it."""
    todos = []
    of_it = f" of dataset {part.dataset.name}" if part.dataset.name else ""
    manifest = world.books.released().get(way.run, Released({})).manifests.get(part.dataset.name)
    why = "not complete"
    if manifest is None:
        manifest, why = foretell(world, way, part, chains), "its conditions differ, or it was never made"
        then = "" if manifest else f", then prompt{of_it} where its conditions differ"
        no_manifest = f"no manifest{of_it} in processing version {world.books.version}"
        todos.append(Todo(way.run, f"publish, release{of_it}{then}", no_manifest))
    if manifest is None:
        return todos
    released = world.books.released()[way.run]
    for chain in chains:
        if chain.kind in released.settled.kinds or released.whole(world.books.datasets):
            chain.settle(way.run, released.settled.at_end(chain.kind))
    if world.products.find(prompt_name(way.context, part.dataset, manifest, world.tiers)) is None:
        start = world.products.earlier(prompt_tiers(way.context, part.dataset, manifest))
        todos.append(Todo(way.run, f"prompt{of_it}", why, _run_events(world, way.run), start))
    return todos


class _Foresight:
    """What would be finalized, and which later passes made: what is done already is taken from the ledger."""

    def __init__(self, world: World, chains: Sequence[Chain]) -> None:
        self._world, self._chains = world, chains
        beside = world.undecided_beside({run for chain in chains for run in chain.runs})
        views = Views(chains, world.books.released(), beside, world.standing(), world.books.datasets)
        self._passes = Passes(world, self._would_start, Minutes(world.books), chains, views)
        self._ways: dict[int, Way] = {}
        self._todos: list[Todo] = []
        self._missing: set[str] = set()

    def of(self, way: Way) -> list[Todo]:
        """Of a run, as far as it can be foretold."""
        wanted = {c.kind: way.products[state_product(c.kind)] for c in way.context.calibrations}
        made = self._world.products.made(list(wanted.values()))
        files = {name: self._world.products.result(job).state.files[0].path for name, job in made.items()}
        mine = [chain for chain in self._chains if way.run in chain.links and way.run not in chain.settled]
        self._missing = set(wanted.values()) - made.keys()
        for chain in (chain for chain in mine if wanted[chain.kind] not in made):
            self._todos.append(Todo(way.run, f"finalize {chain.kind}", "its state is to be made"))
        if mine:
            self._ways[way.run] = way
            self._passes.begin(way, {wanted[kind]: files[wanted[kind]] for kind in wanted if wanted[kind] in files})
            while self._passes.look(way, -math.inf).ready or self._ask():
                pass
        todos, self._todos = self._todos, []
        return todos

    def _ask(self) -> bool:
        """Ask for what may be finalized; whether something of it was concluded before."""
        found = False
        asks = [(chain, ask) for chain in self._chains for ask in chain.asks()]
        for chain, ask in asks:
            root = self._world.products.find(finalize_job(ask.run, ask.work, ask.states).name)
            if root is None:
                self._todos.append(Todo(ask.run, f"finalize {chain.kind}", _why_finalize(self._world, ask)))
            elif failed := root.leaves[0].note.get("failed"):
                chain.broken(ask.run, f"finalize failed: {failed}")
                found = True
            else:
                notes = self._passes.weigh(
                    self._ways[ask.run], chain, ask, root.leaves[0].note["conclusions"], -math.inf
                )
                if notes is not None:
                    chain.concluded(ask.run, notes, self._world.store)
                found = True
        return found

    def _would_start(self, way: Way, job: Job, work: Work, items: Items, ends: Ends) -> None:
        if not isinstance(work, ChunkWork):
            return
        context = replace(way.context, segments=work.segments)
        products, kinds = express_products(context), [calibration.kind for calibration in work.calibrations]
        names = [state_product(kind) for kind in kinds]
        if {products[name] for name in names} <= self._missing:
            return
        start = self._world.products.earlier(express_starts(context, names))
        why = "it is to be measured under what was found since express"
        events = _run_events(self._world, way.run)
        self._todos.append(Todo(way.run, f"pass for {', '.join(kinds)}", why, events, start))


def _why_finalize(world: World, ask: Ask) -> str:
    with world.database.read() as connection:
        before = journal.get_document(connection, ask.run, ingredients_of(ask.work.calibration.kind))
    if before is None:
        return "not done yet"
    now = _as_kept(finalize_ingredients(ask.work, ask.states))
    return "; ".join(words for name in now for words in _compare(name, before.get(name), now[name])) or "not complete"
