"""Carry out a release: publish, complete the manifest and settle, in the transaction of the caller."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from calib.conditions import ConditionsDB
from calib.iov import RunLumi
from calib.tags import Snapshot, Stamp
from pipeline.handshake import Release
from pipeline.manifest import Condition, Manifest, Stretch
from pipeline.waivers import Waiver


class NoConditions(Exception):
    """Some units of a run would have no payload of a kind they need: the run is held."""


@dataclass(frozen=True)
class Publication:
    """Where the conditions of a processing version go."""

    version: int
    global_tag: str
    tag_of_kind: dict[str, str]
    stamp: Stamp


def release(
    db: ConditionsDB,
    run: int,
    units: NDArray[np.int64],
    found: Release,
    publication: Publication,
    probe: Callable[[str], None],
) -> Manifest:
    """Append the fresh payloads, complete the manifest from what the tags now answer, and settle that.

    Of a dataset only the kinds that it names are settled, with the last one of the run all others too. `units` are the
    packed units of the run, sorted. Raises NoConditions when a kind has no payload somewhere; the caller then rolls
    back, and nothing of it was done.
    """
    probe("publish")
    for kind, stretches in found.stretches.items():
        if kind in found.settled:
            continue
        for place, stretch in enumerate(stretches):
            if stretch.condition is Condition.FRESH and stretch.payload is not None:
                since = RunLumi(run) if place == 0 else RunLumi.unpack(stretch.first)
                signed = _signed(publication, found.waivers.get(kind), stretch.payload)
                made = found.intervals[stretch.payload]
                if stretch.payload in found.late:
                    # Its fate says which runs have gone on without it.
                    _append(db, signed, RunLumi.unpack(made[0]), stretch, made, kind)
                _append(db, signed, since, stretch, made, kind)
    snapshot = db.snapshot(publication.global_tag)
    manifest = complete(db, snapshot, run, units, found, publication.version)
    if manifest.missing:
        reasons = "; ".join(f"no payload of kind {kind} ({why})" for kind, why in manifest.missing.items())
        raise NoConditions(f"{reasons}: upload one with `tier0 conditions upload`")
    probe("settle")
    db.settle(run, snapshot, publication.stamp.now, kinds=None if found.is_last else list(found.stretches))
    return manifest


def _signed(publication: Publication, waiver: Waiver | None, payload: str) -> Publication:
    """What people had published in spite of a rule goes into the history with their names."""
    if waiver is None or payload not in waiver.payloads:
        return publication
    return replace(publication, stamp=replace(publication.stamp, reason=f"published {waiver}"))


def _append(
    db: ConditionsDB,
    publication: Publication,
    since: RunLumi,
    stretch: Stretch,
    interval: tuple[int, int],
    kind: str,
) -> None:
    snapshot = db.snapshot(publication.global_tag)
    in_force = db.resolve(snapshot, RunLumi.unpack(stretch.first), [kind]).ids.get(kind)
    if in_force == stretch.payload or stretch.payload is None:
        return  # the run that holds the beginning of the span has published it
    made_first, made_last = interval
    info = {"run": since.run, "first": stretch.first, "last": stretch.last, "loop": True}
    info |= {"made_first": made_first, "made_last": made_last}
    db.append(publication.tag_of_kind[kind], since, stretch.payload, publication.stamp, info)


def complete(
    db: ConditionsDB, snapshot: Snapshot, run: int, units: NDArray[np.int64], found: Release, version: int
) -> Manifest:
    """The manifest that a snapshot gives: stretches cut where payloads change, and absent where there is none."""
    segments = db.resolve_run(snapshot, units, list(found.stretches))
    kinds: dict[str, tuple[Stretch, ...]] = {}
    for kind, stretches in found.stretches.items():
        answers = [(segment.since.packed, segment.ids.get(kind)) for segment in segments]
        kinds[kind] = tuple(_joined([part for stretch in stretches for part in _cut(stretch, answers)]))
    return Manifest(run, version, snapshot.sequence, kinds, found.vetoed, found.waivers, found.dataset)


def _cut(stretch: Stretch, answers: Sequence[tuple[int, str | None]]) -> list[Stretch]:
    """A stretch with the payloads that hold over it."""
    ends = [since for since, _ in answers[1:]] + [stretch.last + 1]
    parts = []
    for (since, payload), end in zip(answers, ends, strict=True):
        first, last = max(stretch.first, since), min(stretch.last, end - 1)
        if first <= last:
            condition = stretch.condition if payload else Condition.ABSENT
            parts.append(Stretch(first, last, condition, payload, stretch.why))
    return parts


def _joined(parts: Sequence[Stretch]) -> list[Stretch]:
    """Neighbours that say the same become one."""
    joined: list[Stretch] = []
    for part in parts:
        if joined and replace(joined[-1], first=part.first, last=part.last) == part:
            joined[-1] = replace(joined[-1], last=part.last)
        else:
            joined.append(part)
    return joined
