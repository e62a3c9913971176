"""Which payloads hold over the units of a run, where some are replaced by others. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pipeline.manifest import Stretch
from pipeline.processing import Segment

Held = tuple[tuple[int, str], ...]
"""the packed units from which on payloads of one kind hold, in order, and their ids"""


def with_held(segments: Sequence[Segment], held: Mapping[str, Held]) -> tuple[Segment, ...]:
    """Segments in which the payloads of some kinds are these instead.

    Where that changes nothing, they are given back as they came.
    """
    cuts = sorted({segment.since for segment in segments} | {since for found in held.values() for since, _ in found})
    found: list[Segment] = []
    for cut in cuts:
        ids = dict(at(segments, cut))
        for kind, payloads in held.items():
            ids.update((kind, payload) for since, payload in payloads if since <= cut)
        found.append(Segment(cut, ids))
    plain = joined(found)
    return tuple(segments) if plain == joined(segments) else tuple(plain)


def at(segments: Sequence[Segment], unit: int) -> Mapping[str, str]:
    """The payload ids that hold at a packed unit."""
    return next((segment.ids for segment in reversed(segments) if segment.since <= unit), {})


def of_kind(segments: Sequence[Segment], kind: str) -> Held:
    """What holds of one kind."""
    alone = [Segment(segment.since, {kind: segment.ids[kind]}) for segment in segments if kind in segment.ids]
    return tuple((segment.since, segment.ids[kind]) for segment in joined(alone))


def held_by(stretches: Iterable[Stretch], start: int, in_force: str | None, entered: Held = ()) -> Held:
    """What holds over a run that begins with a packed unit, under these stretches: the payload that one names, until
    another does; before it, what was in force, or what people have `entered` for units of the run. What is first holds
    from the beginning of the run on."""
    found = {start: in_force} if in_force is not None else {}
    found.update(entered)
    for place, stretch in enumerate(stretches):
        if stretch.payload is not None:
            found[stretch.first if place else start] = stretch.payload
    return tuple(sorted(found.items()))


def joined(segments: Iterable[Segment]) -> list[Segment]:
    """Neighbours under the same payloads become one."""
    found: list[Segment] = []
    for segment in segments:
        if not found or dict(found[-1].ids) != dict(segment.ids):
            found.append(segment)
    return found
