"""New tags from what there is, and payloads taken back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any

from sqlalchemy import Connection

from calib.tags import Beginning, Moment, Sync
from pipeline.archive import Span, TagContent
from pipeline.conditions_words import Refused, Source, moment_from, source_of, sources_of, spoken
from pipeline.exporting import content_of
from pipeline.fates import Fates
from pipeline.world import World


def tags_meant(world: World, connection: Connection, kind: str, tag: str | None) -> list[Source]:
    """The tag named, or both of a kind: that of prompt and that of express. Raises Refused and UnknownTag."""
    names = [tag] if tag else [Sync.PROMPT.value, Sync.EXPRESS.value]
    found = [source_of(world, connection, kind, name) for name in names]
    for source in found:
        if source.as_of is not None:
            raise Refused(f"{source} is past and cannot be changed; name the tag without @")
    return found


def withdraw(world: World, kind: str, since: str, reason: str, tag: str | None = None) -> Fates:
    """Take back the payload that begins at `since`: in the tag named, or in those of prompt and express that have it.

    Raises Refused, saying what holds there, when none begins at that moment.
    """
    if not reason.strip():
        raise Refused("a withdrawal needs a reason")
    fates, against = [], []
    with world.database.begin() as connection:
        db = world.conditions(connection)
        for source in tags_meant(world, connection, kind, tag):
            at = moment_from(source.tag.clock, since)
            try:
                fates.append(db.withdraw(source.tag.name, at, world.stamp(reason)))
            except ValueError as problem:
                against.append(str(problem))
    if not fates:
        raise Refused("; ".join(against))
    return Fates(tuple(fates))


def copy_tag(world: World, words: str, new: str, part: tuple[str | None, str | None], serves: Sync | None) -> str:
    """A new tag with what another answers, or did after an entry, from the first moment of `part` up to the second.

    Only ids are copied, no payload. Behind the part nothing holds. Gives what was done, in words. Raises Refused,
    UnknownTag, and TagExists when the new name is taken.
    """
    with world.database.begin() as connection:
        of_kind = list(sources_of(world, connection, words).values())
        if len(of_kind) != 1:
            raise Refused(f"{words} names {len(of_kind)} tags; copy them one by one")
        source = of_kind[0]
        first, last = (None if at is None else moment_from(source.tag.clock, at) for at in part)
        db = world.conditions(connection)
        whole = content_of(source, source.intervals(db))
        copied = replace(whole, name=new, serves=serves or whole.serves, spans=cut(whole.spans, first, last))
        create(world, connection, copied, f"copied from {source}", {"copied": str(source)})
    return f"{told_of(copied)}, copied from {source}"


def create(world: World, connection: Connection, content: TagContent, reason: str, info: Mapping[str, Any]) -> None:
    """Make a tag with this content, of payloads that are in the store. Raises TagExists."""
    db = world.conditions(connection)
    db.create_tag(content.name, content.kind, content.clock, content.serves)
    db.fill(content.name, beginnings(content.spans, info), world.stamp(reason))


def told_of(content: TagContent) -> str:
    """A tag in a few words."""
    spans, ids = content.spans, content.payload_ids
    what = f"tag {content.name} ({content.kind}, by {content.clock}, for {content.serves})"
    if not spans:
        return f"{what}: empty"
    return f"{what}: {len(spans)} intervals, {len(ids)} payloads, [{spoken(spans[0].since)}, {spoken(spans[-1].until)})"


def cut(spans: Sequence[Span], first: Moment | None, last: Moment | None) -> tuple[Span, ...]:
    """The parts of intervals that lie in `[first, last)`; None is open. Raises Refused when that is empty.

    >>> [(span.since, span.until) for span in cut([Span(1, 5, "a"), Span(5, None, "b")], 3, 8)]
    [(3, 5), (5, 8)]
    """
    if first is not None and last is not None and first >= last:  # type: ignore[operator]
        raise Refused(f"from {spoken(first)} up to {spoken(last)} is nothing; the second moment is the first left out")
    found = []
    for span in spans:
        since = span.since if first is None else max(span.since, first)
        ends = [end for end in (span.until, last) if end is not None]
        until: Any = min(ends) if ends else None
        if until is None or since < until:
            found.append(replace(span, since=since, until=until))
    return tuple(found)


def beginnings(spans: Sequence[Span], info: Mapping[str, Any]) -> list[Beginning]:
    """Intervals as entries of a tag: each payload from where it begins, and nothing from where a gap does.

    >>> [(b.since, b.payload_id) for b in beginnings([Span(1, 3, "a"), Span(5, None, "b")], {})]
    [(1, 'a'), (3, None), (5, 'b')]
    """
    entries = []
    for span, following in zip_longest(spans, spans[1:]):
        entries.append(Beginning(span.since, span.payload_id, {"made": dict(span.made), **info}))
        if span.until is not None and (following is None or following.since != span.until):
            entries.append(Beginning(span.until, None, dict(info)))
    return entries
