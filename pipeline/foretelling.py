"""What a run would be released under, as far as it can be said beforehand: the release itself, tried in a rehearsal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pipeline.canary import fresh_payloads
from pipeline.chain import Chain
from pipeline.handshake import KindView, Manifest, Release, RunView, carried_in_a_row, decide
from pipeline.release import NoConditions, release
from pipeline.way import Way
from pipeline.world import World


def foretell(rehearsal: World, way: Way, chains: Sequence[Chain]) -> Manifest | None:
    """The manifest that a run would have, were it decided now; None while something of it is still to be concluded.

    Publishes and settles, so `rehearsal` must be one. Runs are asked for in their order: one that cannot be foretold
    leaves open what holds for those after it.
    """
    of_run = {chain.kind: chain for chain in chains if way.run in chain.runs}
    here = {run for chain in of_run.values() for run in chain.runs}
    manifests, now = rehearsal.books.manifests(), rehearsal.now()
    if any(run < way.run and run not in manifests for run in here):
        return None
    elsewhere = (run for run, until in rehearsal.undecided_beside(here).items() if run < way.run and now < until)
    first, standing = min(elsewhere, default=None), rehearsal.standing()
    kinds = tuple(
        replace(
            _kind_view(kind, of_run.get(kind), way.run),
            carried_before=carried_in_a_row(manifests, kind, way.run),
            earlier_undecided=first,
            waiver=standing.waivers(way.run).get(kind),
        )
        for kind in way.required
    )
    view = RunView(way.run, (int(way.units[0]), int(way.units[-1])), kinds, way.deadline_at, standing.held(way.run))
    found = decide(view, way.rules, now)
    if not isinstance(found, Release) or (way.canary is not None and fresh_payloads(found)):
        return None  # what a canary says is not known before
    return _released(rehearsal, way, found)


def _kind_view(kind: str, chain: Chain | None, run: int) -> KindView:
    if chain is None:
        return KindView(kind, judged=None, calibrated=False)
    return KindView(
        kind,
        chain.judged(run),
        chain.waits_for(run),
        broken=chain.is_broken(run),
        # What is still to be concluded will be, whatever the deadline says.
        running=not chain.is_broken(run),
        relative=chain.links[run].relative,
    )


def _released(rehearsal: World, way: Way, found: Release) -> Manifest | None:
    try:
        with rehearsal.database.begin() as connection:
            db = rehearsal.conditions(connection)
            manifest = release(db, way.run, way.units, found, rehearsal.publication(), rehearsal.probe)
            rehearsal.books.add_manifest(connection, manifest)
    except NoConditions:
        return None
    return manifest
