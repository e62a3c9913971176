"""Bring in conditions from elsewhere: payloads through the gates into tags in use, or whole histories as new tags."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import Connection

from calib.gates import Decision, judge
from calib.inventory import held_at
from calib.iov import RunLumi
from calib.reading import ConditionsReader
from calib.tags import Moment, Sync, Tag, TagExists
from pipeline.archive import Archive, TagContent, open_archive
from pipeline.conditions_words import Refused, Source, known_kind, moment_from, spoken
from pipeline.exporting import content_of
from pipeline.fates import Fates
from pipeline.forms import Forms, misfit_words
from pipeline.payload_files import read_payload
from pipeline.preparation import gates_of
from pipeline.retagging import create, tags_meant, told_of
from pipeline.world import World, set_up


@dataclass(frozen=True)
class Offer:
    """A payload in the store, from where on it is to hold, and where it came from."""

    since: Moment
    payload_id: str
    source: str


@dataclass(frozen=True)
class Intake:
    """Takes payloads of one kind into a tag in use, by default those of prompt and express, through its gates."""

    world: World
    kind: str
    reason: str
    tag: str | None = None

    def one(self, path: Path, since: str) -> Fates:
        """The payload of a file. Raises Refused when a gate is against it."""
        known_kind(self.world, self.kind)
        if path.suffix == ".zip" or (path.is_dir() and path.suffix != ".zarr"):
            with open_archive(path):  # or it is said that it is no export
                raise Refused(f"{path} says itself from where on its payloads hold: leave --since out")
        payload = read_payload(self.kind, path)
        world, forms = set_up(self.world), Forms.of(self.world)
        with world.database.begin() as connection:
            tags = tags_meant(world, connection, self.kind, self.tag)
            at = moment_from(tags[0].tag.clock, since)
            # Held to its form before it is stored, too: what is no payload of its kind leaves nothing behind.
            forms.hold(payload, held_in(connection, tags[0].tag, at), path)
            offer = Offer(at, world.store.put(payload), str(path))
            found = self._enter(world, connection, tags, [offer], forms)
            if found.rejected:
                raise Refused(f"{path}: {found.rejected[0]}")
        return found

    def many(self, path: Path, only: Sequence[str] = ()) -> Fates:
        """The payloads of a tag that was exported, each from where it begins there; where that is, its name or `only`.

        They go in in their order, in one transaction; those that a gate is against stay out. Where the exported tag has
        a gap, what holds there goes on.
        """
        known_kind(self.world, self.kind)
        if path.suffix in (".npz", ".zarr"):
            raise Refused(f"{path} is one payload: say from which run or moment on it is to hold, with --since")
        with open_archive(path) as archive:
            contents = archive.only(only, self.kind)
            if len(contents) != 1:
                names = ", ".join(content.name for content in contents) or "none"
                raise Refused(f"{path} has not one tag of kind {self.kind}: {names}; say which with --only")
            _store(self.world, archive, contents)
        offers = [Offer(span.since, span.payload_id, str(path)) for span in contents[0].spans]
        world, forms = set_up(self.world), Forms.of(self.world)
        with world.database.begin() as connection:
            tags = tags_meant(world, connection, self.kind, self.tag)
            return self._enter(world, connection, tags, offers, forms)

    def _enter(
        self, world: World, connection: Connection, tags: Sequence[Source], offers: Iterable[Offer], forms: Forms
    ) -> Fates:
        fates, there, rejected = [], [], []
        db = world.conditions(connection)
        notes: tuple[str, ...] = ()
        for offer in offers:
            what = f"{spoken(offer.since)}, payload {offer.payload_id[:12]}"
            held = {source.tag.name: held_in(connection, source.tag, offer.since) for source in tags}
            there += [f"{name}: {what}: it holds there already" for name in held if held[name] == offer.payload_id]
            lacking = [name for name in held if held[name] != offer.payload_id]
            in_force = held[tags[0].tag.name]
            if lacking and (against := self._against(world, forms, offer, in_force)):
                rejected.append(f"{what}: {against}")
                continue
            notes = notes or (forms.unknown(self.kind, in_force) if lacking else ())
            stamp, note = world.stamp(self.reason), {"file": offer.source}
            fates += [db.append(name, offer.since, offer.payload_id, stamp, note) for name in lacking]
        return Fates(tuple(fates), tuple(there), tuple(rejected), notes)

    def _against(self, world: World, forms: Forms, offer: Offer, held: str | None) -> str:
        """Why a payload must stay out, by its form or by the gates of its run, held to what holds there now."""
        at, payload = offer.since, world.store.get(offer.payload_id)
        if wrong := forms.misfits(payload, held):
            return misfit_words(self.kind, wrong)
        settings = world.settings_of(at.run) if isinstance(at, RunLumi) else world.settings
        in_force = world.store.get(held) if held else None
        verdict = judge(payload, in_force, gates_of(settings, self.kind), world.store.find)
        return f"the gates are against it: {'; '.join(verdict.reasons)}" if verdict.decision is Decision.REJECT else ""


def held_in(connection: Connection, tag: Tag, at: Moment) -> str | None:
    """The id of the payload that holds in a tag at a moment, None for nothing. Raises Refused for a wrong moment."""
    try:
        return held_at(connection, tag, at)
    except ValueError as problem:
        raise Refused(str(problem)) from None


def import_tags(world: World, path: Path, only: Sequence[str], new: str | None, serves: Sync | None) -> list[str]:
    """Enter tags that were exported as new tags, all or none; gives what was done, in words.

    Each payload is held to its content id. A tag that is there with the same content is left alone. Raises Refused,
    and TagExists when the name has another content; `new` is another name, for a single tag.
    """
    with open_archive(path) as archive:
        found = archive.only(only)
        if new and len(found) != 1:
            raise Refused(f"{path} has {len(found)} tags, so one new name will not do; choose one with --only")
        _store(world, archive, found)
    forms = Forms.of(world)
    contents = [replace(tag, name=new or tag.name, serves=serves or tag.serves) for tag in found]
    with world.database.begin() as connection:
        return [_import(world, connection, content, path, forms) for content in contents]


def _import(world: World, connection: Connection, content: TagContent, path: Path, forms: Forms) -> str:
    db = world.conditions(connection)
    there = {tag.name: tag for tag in db.tags()}.get(content.name)
    if there is not None and db.history(there.name):
        if content_of(Source(there), db.intervals(there.name)) == content:
            return f"{told_of(content)}, there already"
        raise TagExists(f"tag {content.name!r} is there with another content; give a new name with --as")
    notes: tuple[str, ...] = ()
    if content.name in _in_use(db):
        for payload_id in content.payload_ids:
            forms.hold(world.store.get(payload_id), None, f"{path}, payload {payload_id[:12]}")
        notes = forms.unknown(content.kind, None)
    create(world, connection, content, f"imported from {path.name}", {"file": str(path)})
    return "; ".join([f"{told_of(content)}, imported from {path}", *notes])


def _in_use(db: ConditionsReader) -> set[str]:
    """The names of the tags that a global tag uses."""
    return {tag.name for name in db.global_tags() for tag in db.global_tag(name).values()}


def _store(world: World, archive: Archive, contents: Sequence[TagContent]) -> None:
    # Before the transaction, which others would wait for; what no entry names does no harm.
    for payload_id in sorted({payload_id for content in contents for payload_id in content.payload_ids}):
        world.store.put(archive.payload(payload_id))
