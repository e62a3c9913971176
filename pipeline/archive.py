"""Tags with their payloads for those who do not have this program: one zip file, or a folder.

The file holds nothing but zip, JSON and npy, and the same content gives the same bytes; `READ_ME`, which lies in it,
says how to read it.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from calib.iov import Clock
from calib.payload import Payload
from calib.tags import Moment, Sync
from pipeline.conditions_words import Refused, moment_from
from pipeline.payload_files import add_member, npy_of, read_payload
from pipeline.whole import whole

Probe = Callable[[str], None]

FORMAT = "conditions"
VERSION = 1
INDEX = "index.json"

READ_ME = '''Constants of an experiment and where they hold. Only zip, JSON and npy are needed to read them, in Python:

    import json, zipfile
    import numpy

    archive = zipfile.ZipFile("conditions.zip")
    index = json.loads(archive.read("index.json"))

    def moment(text):  # "run:lumisection"
        return tuple(map(int, text.split(":")))

    def holding(tag, run, lumi):
        """The arrays that hold at a lumisection, by name; None where nothing does."""
        [found] = [t for t in index["tags"] if t["tag"] == tag]
        for interval in found["intervals"]:
            begun = moment(interval["since"]) <= (run, lumi)
            ended = interval["until"] is not None and moment(interval["until"]) <= (run, lumi)
            if begun and not ended:
                files = index["payloads"][interval["payload"]]["arrays"]
                return {name: numpy.load(archive.open(file)) for name, file in files.items()}

index.json has:
  tags       tag, kind, clock (run, lumi, time), serves, and its intervals in order. An interval is half open: `since`
             belongs to it, `until` does not, null is open. By run and lumi a moment is run:lumisection, by time
             nanoseconds since 1970 UTC. `made` says who entered the payload, when, why, and what is known of it.
  payloads   by content id: kind, units of the arrays, and the npy file of each array.
'''


@dataclass(frozen=True)
class Span:
    """A payload over a half-open interval; `until` None is open. `made`: who entered it, when and why, as JSON."""

    since: Moment
    until: Moment | None
    payload_id: str
    made: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TagContent:
    """What a tag answers."""

    name: str
    kind: str
    clock: Clock
    serves: Sync
    spans: tuple[Span, ...]

    @property
    def payload_ids(self) -> list[str]:
        """Each payload once, sorted."""
        return sorted({span.payload_id for span in self.spans})

    def plain(self, files: Mapping[str, str] | None = None) -> dict[str, Any]:
        """As JSON; with the `files` of the payloads where each has one."""
        rows = []
        for span in self.spans:
            row = {"since": _text(span.since), "until": None if span.until is None else _text(span.until)}
            row |= {"payload": span.payload_id} | ({"file": files[span.payload_id]} if files else {})
            rows.append(row | {"made": dict(span.made)})
        words = {"tag": self.name, "kind": self.kind, "clock": self.clock.value, "serves": self.serves.value}
        return {**words, "intervals": rows}


def write_archive(path: Path, tags: Sequence[TagContent], get: Callable[[str], Payload], probe: Probe) -> Path:
    """Write one zip file, whole or not at all; `get` gives the payload of an id."""
    payloads: dict[str, Any] = {}
    with whole(path, probe) as partial, zipfile.ZipFile(partial, "w") as file:
        add_member(file, "README.txt", READ_ME.encode())
        for payload_id in sorted({payload_id for tag in tags for payload_id in tag.payload_ids}):
            payload = get(payload_id)
            names = {name: f"payloads/{payload_id}/{name}.npy" for name in payload.arrays}
            payloads[payload_id] = {"kind": payload.kind, "units": dict(payload.units), "arrays": names}
            for name, member in names.items():
                add_member(file, member, npy_of(payload[name]))
        plain = [tag.plain() for tag in sorted(tags, key=lambda tag: tag.name)]
        index = {"format": FORMAT, "version": VERSION, "tags": plain, "payloads": payloads}
        add_member(file, INDEX, index_bytes(index))
    return path


def index_bytes(index: Mapping[str, Any]) -> bytes:
    """An index as it is written."""
    return json.dumps(index, indent=1, sort_keys=True, allow_nan=False).encode()


@dataclass(frozen=True)
class Archive:
    """Tags as they lie in a file or folder, and how to get their payloads, each held to its id."""

    path: Path
    tags: tuple[TagContent, ...]
    _read: Callable[[str], Payload]

    def payload(self, payload_id: str) -> Payload:
        """The payload of an id. Raises Refused when it is not there, or has other content than its id says."""
        found = self._read(payload_id)
        if found.id != payload_id:
            raise Refused(f"{self.path}: payload {payload_id[:12]} has changed since it was written; get another copy")
        return found

    def only(self, names: Sequence[str] = (), kind: str | None = None) -> list[TagContent]:
        """The tags of these names, or all; of a kind, if given. Raises Refused, with those there are, for others."""
        there = {tag.name: tag for tag in self.tags if kind in (None, tag.kind)}
        if missing := [name for name in names if name not in there]:
            of_kind = f" of kind {kind}" if kind else ""
            raise Refused(f"{self.path} has no tag {missing[0]}{of_kind}; it has {', '.join(there) or 'none'}")
        return [there[name] for name in names] if names else list(there.values())


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """What was exported to a zip file or a folder. Raises Refused, in words, for anything else."""
    if path.is_dir():
        yield _folder(path)
        return
    try:
        with zipfile.ZipFile(path) as file:
            yield _file(path, file)
    except (OSError, zipfile.BadZipFile) as problem:
        raise Refused(f"{path} cannot be read as exported conditions: {problem}") from None


def _file(path: Path, file: zipfile.ZipFile) -> Archive:
    if INDEX not in file.namelist():
        raise Refused(f"{path} has no {INDEX}: it is no file of `tier0 conditions export`")
    index = _index(path, file.read(INDEX))
    with _in_words(path):
        tags = tuple(_content(plain) for plain in index["tags"])
        payloads = dict(index["payloads"])

    def read(payload_id: str) -> Payload:
        with _in_words(path):
            of = payloads[payload_id]
            arrays = {name: np.load(io.BytesIO(file.read(member))) for name, member in of["arrays"].items()}
            return Payload(of["kind"], arrays, of["units"])

    return Archive(path, tags, read)


def _folder(path: Path) -> Archive:
    tags: list[TagContent] = []
    files: dict[str, tuple[str, str]] = {}
    for found in sorted(path.glob("*.json")):
        index = _index(found, found.read_bytes())
        with _in_words(found):
            tags.append(_content(index))
            files |= {row["payload"]: (index["kind"], row["file"]) for row in index["intervals"]}
    if not tags:
        raise Refused(f"{path} has no TAG.json: it is no folder of `tier0 conditions export`")

    def read(payload_id: str) -> Payload:
        kind, name = files[payload_id]
        return read_payload(kind, path / name)

    return Archive(path, tuple(tags), read)


def _index(path: Path, content: bytes) -> dict[str, Any]:
    try:
        index = json.loads(content)
    except ValueError as problem:
        raise Refused(f"the index of {path} is no JSON: {problem}") from None
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise Refused(f"{path} is no file of `tier0 conditions export`")
    if index.get("version") != VERSION:
        raise Refused(f"{path} is of version {index.get('version')}, this program reads {VERSION}: export it anew")
    return index


def _content(plain: Mapping[str, Any]) -> TagContent:
    clock = Clock(plain["clock"])
    spans = tuple(_spans(clock, plain))
    for before, after in pairwise(spans):
        if before.until is None or before.until > after.since:  # type: ignore[operator]
            raise Refused(f"tag {plain['tag']}: the interval from {after.since} begins before the one before it ends")
    return TagContent(plain["tag"], plain["kind"], clock, Sync(plain["serves"]), spans)


def _spans(clock: Clock, plain: Mapping[str, Any]) -> Iterable[Span]:
    for row in plain["intervals"]:
        until = None if row["until"] is None else moment_from(clock, row["until"])
        yield Span(moment_from(clock, row["since"]), until, row["payload"], row["made"])


@contextmanager
def _in_words(path: Path) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, EOFError, zipfile.BadZipFile) as problem:
        if isinstance(problem, Refused):
            raise
        word = f"{problem.args[0]!r} is missing" if isinstance(problem, KeyError) else str(problem)
        raise Refused(f"{path} is damaged, or was not written by this program: {word}") from None


def _text(moment: Moment) -> str:
    return str(moment)
