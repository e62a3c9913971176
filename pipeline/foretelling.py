"""What a run would be released under, as far as it can be said beforehand: the release itself, tried in a rehearsal."""

from __future__ import annotations

from collections.abc import Sequence

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
    manifests = rehearsal.books.manifests()
    if any(run < way.run and run not in manifests for chain in of_run.values() for run in chain.runs):
        return None
    kinds = tuple(
        KindView(
            kind,
            of_run[kind].judged(way.run),
            of_run[kind].waits_for(way.run),
            running=True,
            relative=of_run[kind].links[way.run].relative,
            carried_before=carried_in_a_row(manifests, kind, way.run),
        )
        if kind in of_run
        else KindView(kind, judged=None, calibrated=False)
        for kind in way.required
    )
    units = (int(way.units[0]), int(way.units[-1]))
    view = RunView(way.run, units, kinds, way.deadline_at, rehearsal.standing().held(way.run))
    found = decide(view, way.rules, rehearsal.now())
    return _released(rehearsal, way, found) if isinstance(found, Release) else None


def _released(rehearsal: World, way: Way, found: Release) -> Manifest | None:
    try:
        with rehearsal.database.begin() as connection:
            db = rehearsal.conditions(connection)
            manifest = release(db, way.run, way.units, found, rehearsal.publication(), rehearsal.probe)
            rehearsal.books.add_manifest(connection, manifest)
    except NoConditions:
        return None
    return manifest
