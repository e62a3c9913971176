"""What a run would be released under, as far as it can be said beforehand: the release itself, tried in a rehearsal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pipeline.canary import fresh_payloads
from pipeline.chain import Chain
from pipeline.handshake import Release, decide
from pipeline.manifest import Manifest
from pipeline.release import NoConditions, release
from pipeline.views import Views
from pipeline.way import Part, Way
from pipeline.world import World


def foretell(rehearsal: World, way: Way, part: Part, chains: Sequence[Chain]) -> Manifest | None:
    """The manifest that a run, or a dataset of it, would have, were it decided now; None while something of it is still
    to be concluded.

    Publishes and settles, so `rehearsal` must be one. Runs are asked for in their order: one that cannot be foretold
    leaves open what holds for those after it.
    """
    mine, released, now = [c for c in chains if way.run in c.links], rehearsal.books.released(), rehearsal.now()
    here, names = {run for chain in mine for run in chain.runs}, rehearsal.books.datasets
    if any(run < way.run and not (run in released and released[run].whole(names)) for run in here):
        return None
    views = Views(mine, released, rehearsal.undecided_beside(here), rehearsal.standing(), names)
    view = views.of(way, part, now)
    # What is still to be concluded will be, whatever the deadline says.
    view = replace(view, kinds=tuple(replace(kind, running=not kind.broken) for kind in view.kinds))
    found = decide(view, part.rules, now)
    if not isinstance(found, Release) or (part.canary is not None and fresh_payloads(found)):
        return None  # what a canary says is not known before
    return _released(rehearsal, way, found)


def _released(rehearsal: World, way: Way, found: Release) -> Manifest | None:
    try:
        with rehearsal.database.begin() as connection:
            db = rehearsal.conditions(connection)
            manifest = release(db, way.run, way.units, found, rehearsal.publication(), rehearsal.probe)
            rehearsal.books.add_manifest(connection, manifest)
    except NoConditions:
        return None
    return manifest
