"""How people name moments, tags as they were, and global tags."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from sqlalchemy import Connection

from calib.inventory import entry_as_of
from calib.iov import Clock, RunLumi
from calib.reading import ConditionsReader
from calib.tags import Moment, Sync, Tag, UnknownTag, Validity
from pipeline.declarations import kinds_of
from pipeline.world import World

_SERVED = (Sync.PROMPT, Sync.EXPRESS)
"""whom a processing version has a tag of each kind for"""


class Refused(ValueError):
    """A payload is not fit to go in, or a request does not say what it must."""


@dataclass(frozen=True)
class Source:
    """A tag as it is now, or as it was after the entry `as_of`."""

    tag: Tag
    as_of: int | None = None

    def __str__(self) -> str:
        return self.tag.name if self.as_of is None else f"{self.tag.name}@{self.as_of}"

    def intervals(self, db: ConditionsReader) -> list[Validity]:
        """Where each payload holds, in order."""
        return db.intervals(self.tag.name, self.as_of)


def source_of(world: World, connection: Connection, kind: str, tag: str | None) -> Source:
    """The tag that is meant: a name, `prompt` or `express`, with `@` and an entry number or time as it was then.

    None is the one that prompt uses. Raises Refused for a kind or moment that does not exist, and UnknownTag.
    """
    db = world.conditions(connection)
    if tag is None:
        known_kind(world, kind)
    name, as_of = _apart(connection, tag or Sync.PROMPT)
    there = {tag.name for tag in db.tags()}
    if name in _SERVED and name not in there:
        name = world.tag_of(kind, Sync(name))
        if name not in there:
            raise UnknownTag(f"nothing of kind {kind} yet: `tier0 run` makes it, or `tier0 conditions upload`")
    found = db.tag(name)
    if found.kind != kind:
        raise Refused(f"tag {name} holds {found.kind!r}, not {kind!r}")
    return Source(found, as_of)


def source_named(world: World, connection: Connection, name: str, tag: str | None) -> Source:
    """The tag that is meant by a kind and perhaps a tag, as `source_of` has it; or, without a tag, by a tag's own name.

    Raises Refused for a name that is neither, and UnknownTag.
    """
    kinds = kinds_of(world.experiment)
    if tag is not None or name in kinds:
        return source_of(world, connection, name, tag)
    found, as_of = _apart(connection, name)
    tags = {one.name: one for one in world.conditions(connection).tags()}
    if found not in tags:
        hint = UnknownTag.named(found, [*kinds, *tags], "kind or tag")
        raise Refused(f"{hint}; this experiment has the kinds {', '.join(kinds)}")
    return Source(tags[found], as_of)


def known_kind(world: World, kind: str) -> str:
    """The kind itself. Raises Refused, with those there are, when the experiment has no such kind."""
    known = kinds_of(world.experiment)
    if kind not in known:
        raise Refused(f"there is no kind {kind!r}; this experiment has {', '.join(known)}")
    return kind


def sources_of(world: World, connection: Connection, words: str) -> dict[str, Source]:
    """By kind, what a tag or global tag names; `prompt` and `express` are the global tags of this processing version.

    Raises Refused where a name means both, and UnknownTag.
    """
    db = world.conditions(connection)
    name, as_of = _apart(connection, words)
    tags, global_tags = {tag.name for tag in db.tags()}, db.global_tags()
    if name in tags and name in global_tags:
        raise Refused(f"{name!r} is a tag and a global tag; name the tags one by one")
    if name in tags:
        found = db.tag(name)
        return {found.kind: Source(found, as_of)}
    if name in _SERVED and name not in global_tags:
        name = world.global_tag(Sync(name))
    if name not in global_tags:
        raise UnknownTag.named(name, [*tags, *global_tags], "tag or global tag")
    return {kind: Source(tag, as_of) for kind, tag in sorted(db.global_tag(name).items())}


def _apart(connection: Connection, words: str) -> tuple[str, int | None]:
    name, at, moment = words.partition("@")
    return name, entry_of(connection, moment) if at else None


def entry_of(connection: Connection, words: str) -> int:
    """The entry number that a number or a time such as 2026-05-01T12:00 (UTC) stands for. Raises Refused."""
    try:
        return entry_as_of(connection, int(words) if words.isdecimal() else _time(words))
    except ValueError as problem:
        raise Refused(f"{words!r} is no entry number and no time such as 2026-05-01T12:00: {problem}") from None


def moment_from(clock: Clock, words: str) -> Moment:
    """A moment on a clock: `run` or `run:lumi`; by time an ISO time (UTC) or ns since 1970. Raises Refused."""
    try:
        if clock is Clock.TIME:
            return int(words) if words.isdecimal() else int(np.datetime64(_time(words).replace(tzinfo=None), "ns"))
        found = RunLumi.parse(words)
        clock.since(found)  # whether it is in range
        return found
    except ValueError as problem:
        asked = "a time such as 2026-05-01T12:00" if clock is Clock.TIME else "run or run:lumisection"
        raise Refused(f"{words!r} is not {asked}: {problem}") from None


def spoken(moment: Moment | None) -> str:
    """A moment as people read it, and `moment_from` reads it back; None is open.

    >>> spoken(RunLumi(7, 3)), spoken(1_777_636_800_500_000_000), spoken(None)
    ('7:3', '2026-05-01T12:00:00.500000', 'open')
    """
    if moment is None:
        return "open"
    if isinstance(moment, RunLumi):
        return str(moment)
    # Finer than a microsecond, only the number says it.
    return str(moment) if moment % 1000 else str(np.datetime64(moment // 1000, "us"))


def _time(words: str) -> datetime:
    moment = datetime.fromisoformat(words)
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
