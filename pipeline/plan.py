"""What a run would do, and why: worked out on a copy of the database, so that nothing is changed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import catalog, journal
from pipeline.chain import Chain
from pipeline.express import (
    INGREDIENTS,
    StateFile,
    express_ingredients,
    express_products,
    express_tiers,
    finalize_ingredients,
    finalize_job,
    ingredients_of,
    state_product,
)
from pipeline.foretelling import foretell
from pipeline.ingest import ingest
from pipeline.journal import list_setbacks
from pipeline.links import Ask
from pipeline.preparation import prepare
from pipeline.prompt import prompt_name, prompt_tiers
from pipeline.rehearsal import rehearsal
from pipeline.released import Released
from pipeline.restarts import Earlier
from pipeline.summary import beside, placed
from pipeline.way import Part, Way
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
        todos += [todo for way in ways for todo in _rest(copied, way, chains)]
    return Plan(tuple(sorted(todos, key=lambda todo: todo.run)), len(runs), cluster, tuple(setbacks))


def _express(world: World, way: Way) -> list[Todo]:
    wanted = express_products(way.context)
    made = world.products.made(list(wanted.values()))
    missing = [name for name, lineage in wanted.items() if lineage not in made]
    if not missing:
        return []
    why = "; ".join(_differences(world, way, missing)) or "never made"
    start = world.products.earlier(express_tiers(way.context))
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


def _rest(world: World, way: Way, chains: Sequence[Chain]) -> list[Todo]:
    """Finalize, handshake and prompt, as far as they can be foretold."""
    todos = _finalize(world, way, chains)
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


def _finalize(world: World, way: Way, chains: Sequence[Chain]) -> list[Todo]:
    wanted = express_products(way.context)
    made = world.products.made(list(wanted.values()))
    todos = []
    for chain in chains:
        kind = chain.kind
        product = wanted.get(state_product(kind))
        if way.run not in chain.runs or way.run in chain.settled or product is None:
            continue
        if product not in made:
            todos.append(Todo(way.run, f"finalize {kind}", "its state is to be made"))
            continue
        state = world.products.result(made[product]).state.files[0].path
        chain.ready(way.run, StateFile(state, product))
        todos += [Todo(ask.run, f"finalize {kind}", why) for ask, why in _open_asks(world, chain)]
    return todos


def _open_asks(world: World, chain: Chain) -> list[tuple[Ask, str]]:
    """Finalizations that would run; those done before are taken from the ledger, so that the next can be asked."""
    todo = []
    while asks := chain.asks():
        for ask in asks:
            root = world.products.find(finalize_job(ask.run, ask.work, ask.states).name)
            if root is None:
                todo.append((ask, _why_finalize(world, ask)))
            elif failed := root.leaves[0].note.get("failed"):
                chain.broken(ask.run, f"finalize failed: {failed}")
            else:
                chain.concluded(ask.run, root.leaves[0].note["conclusions"], world.store)
    return todo


def _why_finalize(world: World, ask: Ask) -> str:
    with world.database.read() as connection:
        before = journal.get_document(connection, ask.run, ingredients_of(ask.work.calibration.kind))
    if before is None:
        return "not done yet"
    now = _as_kept(finalize_ingredients(ask.work, ask.states))
    return "; ".join(words for name in now for words in _compare(name, before.get(name), now[name])) or "not complete"
