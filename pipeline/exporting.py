"""Conditions for those who do not have this program: tags with their payloads as a folder, or as one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection

from calib.payload import Payload, PayloadStore, write_group
from calib.tags import Entry, Validity
from pipeline.archive import FORMAT, VERSION, Probe, Span, TagContent, index_bytes, write_archive
from pipeline.conditions_words import Refused, Source, source_of, sources_of
from pipeline.declarations import kinds_of
from pipeline.payload_files import npz_of
from pipeline.whole import write_whole
from pipeline.world import World

Format = Literal["npz", "zarr"]
"""what the payloads of a folder are written as"""


def contents(
    world: World, connection: Connection, kinds: Sequence[str] = (), tags: Sequence[str] = ()
) -> list[TagContent]:
    """What these tags or global tags answer, of these kinds or all; with none named, what prompt uses.

    They may be named with `@` and an entry number or time. Raises UnknownTag, and Refused for an unknown kind.
    """
    db = world.conditions(connection)
    if tags:
        sources = [found for name in tags for found in _named(world, connection, kinds, name)]
    else:
        sources = [source_of(world, connection, kind, None) for kind in kinds or kinds_of(world.experiment)]
    names = [source.tag.name for source in sources]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise Refused(f"tag {twice[0]} is asked for twice")
    return [content_of(source, source.intervals(db)) for source in sources]


def _named(world: World, connection: Connection, kinds: Sequence[str], name: str) -> list[Source]:
    of_kind = sources_of(world, connection, name)
    if missing := [kind for kind in kinds if kind not in of_kind]:
        raise Refused(f"{name} has nothing of kind {missing[0]!r}; it has {', '.join(of_kind)}")
    return [source for kind, source in of_kind.items() if not kinds or kind in kinds]


def content_of(source: Source, validities: Sequence[Validity]) -> TagContent:
    """The intervals of a tag with what is known of how they came about."""
    tag = source.tag
    spans = (Span(v.since, v.until, v.payload_id, made_of(v.entry)) for v in validities)
    return TagContent(tag.name, tag.kind, tag.clock, tag.sync, tuple(spans))


def made_of(entry: Entry) -> dict[str, Any]:
    """Who entered a payload, when and why. Of an imported or copied one: who first did."""
    if isinstance(made := entry.info.get("made"), dict):
        return made
    words = {"author": entry.author, "recorded": entry.recorded.isoformat(), "reason": entry.reason}
    return {**words, "info": dict(entry.info)}


def export_folder(
    folder: Path, tags: Sequence[TagContent], store: PayloadStore, form: Format, probe: Probe
) -> list[Path]:
    """Write one npz file or zarr folder a payload, and `TAG.json` for each tag, last; gives these.

    A zarr folder that is there is not written again. Raises Refused for a tag whose name no file can have.
    """
    return [_export_tag(folder, tag, store, form, probe) for tag in tags]


def _export_tag(folder: Path, tag: TagContent, store: PayloadStore, form: Format, probe: Probe) -> Path:
    if "/" in tag.name + tag.kind:
        raise Refused(f"{tag.name} of kind {tag.kind} cannot be the name of a file: export it to one zip file")
    files = {payload_id: f"{tag.kind}-{payload_id[:16]}.{form}" for payload_id in tag.payload_ids}
    payloads: dict[str, Any] = {}
    for payload_id, file in files.items():
        payload = store.get(payload_id)
        _write_payload(folder / file, payload, form, probe)
        payloads[payload_id] = {"file": file, "units": dict(payload.units)}
    index = folder / f"{tag.name}.json"
    meaning = "half open: since belongs to it, until does not; null is open"
    content = {"format": FORMAT, "version": VERSION, **tag.plain(files), "payloads": payloads, "meaning": meaning}
    write_whole(index, index_bytes(content), probe)
    return index


def _write_payload(path: Path, payload: Payload, form: Format, probe: Probe) -> None:
    if form == "zarr":
        write_group(path, payload, probe)
    else:
        write_whole(path, npz_of(payload), probe)


def export_file(path: Path, tags: Sequence[TagContent], store: PayloadStore, probe: Probe) -> Path:
    """Write all into one zip file; the same content gives the same bytes."""
    return write_archive(path, tags, store.get, probe)
