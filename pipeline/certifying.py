"""Certification of a run whose prompt is done: from its quality histograms and accounts to the document kept of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from calib.state import State, unpack_states
from pipeline import accounting
from pipeline.certify import Certification, certify, good_runs, of_datasets, spoken_against, with_reasons, within
from pipeline.closing import Closed
from pipeline.doubts import CLOSURE, Doubt, Then, closure_document, doubts, in_doubt, open_units
from pipeline.orders import list_orders
from pipeline.processing import QUALITY
from pipeline.tally import ELSEWHERE
from pipeline.way import Part, Way
from pipeline.world import World


def certification(world: World, way: Way, closed: Sequence[Closed] = ()) -> dict[str, Any]:
    """What is kept of a run's certification, as JSON; it names the manifest and the job of its prompt, those of each
    dataset where there are several; and has what closure found, with what becomes of that."""
    found = {part.dataset.name: _certify(world, way, part) for part in way.parts}
    then = Then(world.settings.closure.then)
    whole = within(next(iter(found.values())) if len(found) == 1 else of_datasets(found), world.certified)
    if then is Then.BAD:
        whole = with_reasons(whole, open_units(closed, way.units.tolist()))
    said = {CLOSURE: closure_document(closed, then)} if closed else {}
    manifests = {part.dataset.name: part.manifest.id for part in way.parts if part.manifest}
    if len(found) == 1:
        [manifest] = manifests.values()
        return whole.to_document(manifest) | {"prompt": way.parts[0].prompt} | said
    datasets = {
        part.dataset.name: {"manifest": manifests[part.dataset.name], "prompt": part.prompt} for part in way.parts
    }
    return whole.to_document() | {"datasets": datasets} | said


def good_run_list(world: World) -> dict[str, list[list[int]]]:
    """The good-run list of all certified runs, without the units that are in doubt."""
    documents, found = world.books.documents("certification"), doubts_of(world)
    doubtful = [unit for run, doubted in found.items() for unit in in_doubt(doubted, documents[run])]
    return good_runs(documents.values(), doubtful)


def doubts_of(world: World, runs: Sequence[int] | None = None) -> dict[int, list[Doubt]]:
    """What closure leaves in doubt of certified runs (of all by default), those that were accepted too; run to at least
    one."""
    documents = world.books.documents("certification")
    with world.database.read() as connection:
        orders = list_orders(connection)
    found = {run: doubts(kept, orders, world.books.version) for run, kept in documents.items()}
    return {run: some for run, some in found.items() if some and (runs is None or run in runs)}


def prompts_of(certified: Mapping[str, Any], status: Mapping[str, Any]) -> dict[str, str]:
    """Dataset to the job of its prompt, as far as one is known, from what is kept of a run; one without a name where it
    is one."""
    rows = certified.get("datasets") or status.get("datasets")
    if rows:
        return {name: row["prompt"] for name, row in sorted(rows.items()) if row["prompt"]}
    found = certified.get("prompt", "") or status.get("prompt", "")
    return {"": found} if found else {}


def astray(world: World, way: Way) -> str:
    """What is wrong where events of a run came into none of its datasets; empty if nothing is."""
    [rest] = [part.prompt for part in way.parts if not part.dataset.triggers]
    jobs = [part.prompt for part in way.parts if part.dataset.triggers]
    if not jobs:
        return ""
    with world.database.read() as connection:
        said = accounting.astray(connection, way.run, jobs, rest, ELSEWHERE)
    remedy = "`fired` of the experiment must say the same of an event whenever it is asked"
    return f"{said}; {remedy}" if said else ""


def _certify(world: World, way: Way, part: Part) -> Certification:
    """What speaks for and against the units of a run in one dataset."""
    if part.done is None or part.manifest is None:
        raise ValueError(f"run {way.run} is not done yet")
    quality = unpack_states(part.done.root.state.files[0].path).get(QUALITY)
    tests = world.experiment.quality_tests() if quality is not None else ()
    with world.database.read() as connection:
        bad = accounting.bad_units(connection, part.done.job.name)
    set_aside = spoken_against(bad, part.manifest.vetoed)
    return certify(way.run, way.units.tolist(), quality or State({}), tests, set_aside)
