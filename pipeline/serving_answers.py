"""What the conditions answer to a question put as a path and its parameters; nothing of HTTP is known here.

An answer that names the snapshot or entry it is asked at never changes. One that does not says at which it was given.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Lock
from typing import Any
from urllib.parse import unquote

import sqlalchemy as sa

from calib import lookup
from calib.iov import RunLumi
from calib.payload import PayloadStore
from calib.reading import ConditionsReader
from calib.schema import last_sequence, settled
from calib.tags import Moment, Snapshot, Tag
from pipeline.database import Database
from pipeline.payload_files import npz_of

PATHS = {
    "/": "this list",
    "/tags": "all tags",
    "/tags/TAG/intervals?as_of=ENTRY&first=RUN:LUMI&limit=N": "where each payload of a tag holds",
    "/global-tags": "all global tags with the tag they use for each kind",
    "/snapshots?global_tag=NAME": "the snapshots that runs were released under, with these runs",
    "/snapshots/GLOBAL_TAG?as_of=ENTRY_OR_TIME": "a snapshot of now, or of then",
    "/resolve?snapshot=GLOBAL_TAG@ENTRY&run=N&lumi=N&kinds=A,B&time=NS": "payload ids in force at a unit",
    "/resolve?global_tag=NAME&run=N&lumi=N": "the same at a snapshot taken now",
    "/payloads/ID": "a payload: npz, its arrays by name, and `units` (JSON)",
}
"""what can be asked for"""

PAGE = 10_000
"""most intervals in one answer"""


class BadQuestion(ValueError):
    """The parameters of a question are not what they must be."""


class NotHere(LookupError):
    """There is nothing of that name."""


@dataclass(frozen=True)
class Answer:
    """Bytes to send: JSON, or of a payload npz. `tag` is an entity tag, in quotes."""

    content: bytes
    tag: str
    never_changes: bool
    is_payload: bool = False


@dataclass
class Packed:
    """Payloads as npz bytes, by id; the last that were asked for are kept, up to `limit` bytes. For many threads."""

    store: PayloadStore
    limit: int = 256 << 20
    kept_bytes: int = 0
    _kept: OrderedDict[str, bytes] = field(default_factory=OrderedDict)
    _lock: Lock = field(default_factory=Lock)

    def get(self, payload_id: str) -> bytes:
        """The npz of a payload. Raises PayloadMissing and PayloadDamaged."""
        with self._lock:
            if payload_id in self._kept:
                self._kept.move_to_end(payload_id)
                return self._kept[payload_id]
        # A store of its own: one that keeps payloads is not for many threads.
        packed = npz_of(PayloadStore(self.store.root, keep_bytes=0).get(payload_id))
        with self._lock:
            if len(packed) <= self.limit and payload_id not in self._kept:
                self._kept[payload_id] = packed
                self.kept_bytes += len(packed)
            while self.kept_bytes > self.limit:
                self.kept_bytes -= len(self._kept.popitem(last=False)[1])
        return packed


@dataclass(frozen=True)
class Shelf:
    """The conditions to answer from: a database that is only read, and the payloads."""

    database: Database
    packed: Packed


def answer(shelf: Shelf, path: str, query: Mapping[str, str]) -> Answer:
    """Answer a question.

    Raises NotHere, UnknownTag and PayloadMissing for what is not there, BadQuestion and ValueError for parameters
    that are wrong, PayloadDamaged.
    """
    for pattern, (known, respond) in _ROUTES.items():
        if found := re.fullmatch(pattern, path):
            _check_names(query, known)
            return respond(shelf, *map(unquote, found.groups()), query=query)
    raise NotHere(f"there is nothing at {path}; see / for what there is")


def _check_names(query: Mapping[str, str], known: Collection[str]) -> None:
    for name in query:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean `{near[0]}`?" if near else f"; there are {', '.join(known)}" if known else ""
            raise BadQuestion(f"unknown parameter `{name}`{hint}")


def _json(content: Mapping[str, Any], *, never_changes: bool = False) -> Answer:
    text = (json.dumps(content, indent=1) + "\n").encode()
    # Weak: compressed or not, it is the same answer.
    return Answer(text, f'W/"{hashlib.sha256(text).hexdigest()}"', never_changes)


def _index(shelf: Shelf, *, query: Mapping[str, str]) -> Answer:
    return _json({"paths": PATHS, "intervals": "half open: since belongs to it, until does not; null is open"})


def _tags(shelf: Shelf, *, query: Mapping[str, str]) -> Answer:
    with shelf.database.read() as connection:
        found, as_of = ConditionsReader(connection, shelf.packed.store).tags(), _newest(connection)
    return _json({"as_of": as_of, "tags": [_tag(tag) for tag in found]})


def _global_tags(shelf: Shelf, *, query: Mapping[str, str]) -> Answer:
    with shelf.database.read() as connection:
        reader = ConditionsReader(connection, shelf.packed.store)
        found, as_of = {name: reader.global_tag(name) for name in reader.global_tags()}, _newest(connection)
    kinds = {name: {kind: tag.name for kind, tag in members.items()} for name, members in found.items()}
    return _json({"as_of": as_of, "global_tags": kinds})


def _snapshots(shelf: Shelf, *, query: Mapping[str, str]) -> Answer:
    chosen = sa.select(settled.c.global_tag, settled.c.sequence, settled.c.run).distinct()
    if "global_tag" in query:
        chosen = chosen.where(settled.c.global_tag == query["global_tag"])
    runs: dict[str, list[int]] = {}
    with shelf.database.read() as connection:
        if "global_tag" in query:
            ConditionsReader(connection, shelf.packed.store).global_tag(query["global_tag"])
        order = (settled.c.global_tag, settled.c.sequence, settled.c.run)
        for global_tag, sequence, run in connection.execute(chosen.order_by(*order)):
            runs.setdefault(str(Snapshot(global_tag, sequence)), []).append(run)
        as_of = _newest(connection)
    return _json({"as_of": as_of, "snapshots": [{"snapshot": name, "runs": found} for name, found in runs.items()]})


def _snapshot(shelf: Shelf, global_tag: str, *, query: Mapping[str, str]) -> Answer:
    with shelf.database.read() as connection:
        reader = ConditionsReader(connection, shelf.packed.store)
        taken = reader.snapshot(global_tag, _entry_or_time(query.get("as_of")))
        tags = {kind: tag.name for kind, tag in reader.global_tag(global_tag).items()}
    pinned = query.get("as_of", "").isdecimal()
    return _json({"snapshot": str(taken), "tags": tags}, never_changes=pinned)


def _resolve(shelf: Shelf, *, query: Mapping[str, str]) -> Answer:
    if ("snapshot" in query) == ("global_tag" in query):
        raise BadQuestion("give either `snapshot`, such as prompt@41, or `global_tag`, to have one taken now")
    at = RunLumi(_number(query, "run"), _number(query, "lumi", 0))
    kinds = [kind for kind in query["kinds"].split(",") if kind] if "kinds" in query else None
    time = _number(query, "time") if "time" in query else None
    with shelf.database.read() as connection:
        reader = ConditionsReader(connection, shelf.packed.store)
        asked = Snapshot.parse(query["snapshot"]) if "snapshot" in query else reader.snapshot(query["global_tag"])
        # An entry still to come would be answered otherwise later on: it is refused here.
        pinned = reader.snapshot(*asked)
        if unknown := sorted(set(kinds or ()) - reader.global_tag(pinned.global_tag).keys()):
            raise NotHere(f"global tag {pinned.global_tag!r} has no kind {', '.join(unknown)}")
        held = reader.resolve(pinned, at, kinds, time)
    content = {"snapshot": str(pinned), "at": str(at), "time": time, "payloads": dict(held.ids)}
    return _json(content, never_changes="snapshot" in query)


def _intervals(shelf: Shelf, name: str, *, query: Mapping[str, str]) -> Answer:
    limit = _number(query, "limit", PAGE)
    if not 1 <= limit <= PAGE:
        raise BadQuestion(f"`limit` must lie in 1 .. {PAGE}, not {limit}")
    with shelf.database.read() as connection:
        reader = ConditionsReader(connection, shelf.packed.store)
        tag = reader.tag(name)
        newest = _newest(connection)
        as_of = _number(query, "as_of", newest)
        if as_of > newest:
            raise NotHere(f"there is no entry {as_of} yet; the newest is {newest}")
        first = _position(tag, query["first"]) if "first" in query else 0
        begins = _begins(connection, tag, as_of, first, limit + 1)
    rows = [
        {"since": since, "until": until, "payload": payload}
        for (since, payload), (until, _) in zip(begins[:limit], [*begins[1:], (None, None)], strict=False)
        if payload is not None
    ]
    content = {"tag": _tag(tag), "as_of": as_of, "intervals": rows}
    return _json(content | {"next": begins[limit][0] if len(begins) > limit else None}, never_changes="as_of" in query)


def _begins(
    connection: sa.Connection, tag: Tag, as_of: int, first: int, limit: int
) -> list[tuple[str | int, str | None]]:
    """Where the answer of a tag changes, from position `first` on, and the payload from there; `limit` of them."""
    columns = lookup.LIVE.selected_columns
    asked = {"tag": tag.number, "as_of": as_of, "first": first}
    query = lookup.LIVE.where(columns.since >= sa.bindparam("first", type_=sa.BigInteger))
    found: dict[int, str | None] = {}
    with connection.execution_options(yield_per=1000).execute(query, asked) as rows:
        for row in rows:
            if row.since not in found and len(found) == limit:
                break
            found[row.since] = row.payload_id
    return [(_moment(tag.moment(since)), payload) for since, payload in found.items()]


def _payload(shelf: Shelf, payload_id: str, *, query: Mapping[str, str]) -> Answer:
    return Answer(shelf.packed.get(payload_id), f'"{payload_id}"', never_changes=True, is_payload=True)


_ROUTES: Mapping[str, tuple[tuple[str, ...], Callable[..., Answer]]] = {
    "/": ((), _index),
    "/tags": ((), _tags),
    "/tags/([^/]+)/intervals": (("as_of", "first", "limit"), _intervals),
    "/global-tags": ((), _global_tags),
    "/snapshots": (("global_tag",), _snapshots),
    "/snapshots/([^/]+)": (("as_of",), _snapshot),
    "/resolve": (("snapshot", "global_tag", "run", "lumi", "kinds", "time"), _resolve),
    "/payloads/([0-9a-f]{64})": ((), _payload),
}
"""pattern of the path to the parameters it takes and who answers"""


def _newest(connection: sa.Connection) -> int:
    return int(connection.scalars(sa.select(last_sequence.c.last)).one())


def _tag(tag: Tag) -> dict[str, str]:
    return {"tag": tag.name, "kind": tag.kind, "clock": tag.clock.value, "serves": tag.sync.value}


def _moment(moment: Moment) -> str | int:
    return str(moment) if isinstance(moment, RunLumi) else moment


def _position(tag: Tag, text: str) -> int:
    return tag.position(int(text) if text.isdecimal() and tag.clock == "time" else RunLumi.parse(text))


def _number(query: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = query.get(name)
    if text is None and default is not None:
        return default
    if text is None or not (text.isascii() and text.isdecimal()) or len(text) > 19:
        raise BadQuestion(f"`{name}` must be a whole number" + (f", not {text!r}" if text is not None else ""))
    return int(text)


def _entry_or_time(text: str | None) -> int | datetime | None:
    if text is None or text.isdecimal():
        return None if text is None else _number({"as_of": text}, "as_of")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadQuestion(
            f"`as_of` must be the number of an entry or a time such as 2026-05-01T12:00Z, not {text!r}"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
