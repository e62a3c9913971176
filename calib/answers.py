"""Look-ups one at a time and many a second in a pinned snapshot, and a bounded cache of what they found."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Mapping
from threading import Lock
from typing import Any, NamedTuple

from sqlalchemy import Connection

from calib import lookup
from calib.iov import Clock, RunLumi
from calib.lookup import Spelled
from calib.tags import ENDLESS, Tag, WrongKind

KEPT = 100_000
"""How many intervals a cache keeps: about 450 bytes each, 45 MB in all."""


class Held(NamedTuple):
    """A payload id (None: nothing) over the whole of `[since, until)` on the clock of a tag."""

    since: int
    until: int
    payload_id: str | None


class AnswerCache:
    """What tags held over whole intervals as of numbered entries: the `keep` intervals used last.

    It never goes out of date: committed entries do not change, so neither does what held as of one of them. May be
    used by several threads, and over many transactions on one database.
    """

    def __init__(self, keep: int = KEPT) -> None:
        if keep < 1:
            raise ValueError(f"a cache must keep one interval at least, not {keep}")
        self._keep = keep
        self._lock = Lock()
        self._held: OrderedDict[tuple[int, int, int], Held] = OrderedDict()
        # Where the intervals of a tag as of an entry begin, in order.
        self._begins: dict[tuple[int, int], list[int]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def get(self, tag: int, as_of: int, at: int) -> Held | None:
        """The interval of the tag of that number that contains `at` as of an entry; None when it is not kept."""
        with self._lock:
            begins = self._begins.get((tag, as_of), ())
            place = bisect_right(begins, at)
            if not place:
                return None
            key = tag, as_of, begins[place - 1]
            held = self._held[key]
            if at >= held.until:
                return None
            self._held.move_to_end(key)
            return held

    def put(self, tag: int, as_of: int, held: Held) -> None:
        """Keep an interval; of more than `keep` the one not used for longest goes."""
        with self._lock:
            key = tag, as_of, held.since
            if key not in self._held:
                begins = self._begins.setdefault((tag, as_of), [])
                begins.insert(bisect_left(begins, held.since), held.since)
            self._held[key] = held
            if len(self._held) > self._keep:
                self._drop()

    def _drop(self) -> None:
        (tag, as_of, since), _ = self._held.popitem(last=False)
        begins = self._begins[tag, as_of]
        del begins[bisect_left(begins, since)]
        if not begins:
            del self._begins[tag, as_of]


class LookUp:
    """One kind at a time of a snapshot, in the transaction it was opened in.

    Without a cache every answer is asked of the database. It speaks to the driver itself, whose errors are passed on.
    """

    def __init__(
        self, connection: Connection, tags: Mapping[str, Tag], as_of: int, cache: AnswerCache | None = None
    ) -> None:
        self._connection, self._transaction = connection, connection.get_transaction()
        self._cursor: Any = connection.connection.cursor()
        # To ask the enumeration each time would take longer than a cached answer.
        self._tags = {kind: (tag.number, tag.clock is Clock.TIME) for kind, tag in tags.items()}
        self._as_of, self._cache = as_of, cache
        self._in_force = Spelled.of(lookup.PAYLOAD, connection.dialect)
        self._following = Spelled.of(lookup.FOLLOWING, connection.dialect)

    def payload_id(self, kind: str, at: RunLumi, time: int | None = None) -> str | None:
        """The id of the payload that holds at a unit; None: nothing does.

        `time` (ns since 1970) is where a tag by time is looked up; ValueError when it is missing. Raises WrongKind
        for a kind the global tag does not have, and ValueError for a moment out of range, or when the transaction is
        over.
        """
        if kind not in self._tags:
            raise WrongKind(f"the snapshot has no kind {kind!r}; there are {', '.join(self._tags) or 'none'}")
        number, by_time = self._tags[kind]
        position = time if by_time else at.packed
        if position is None:
            raise ValueError(f"kind {kind!r} goes by time; give the time, ns since 1970")
        if not 0 <= position < ENDLESS:
            raise ValueError(f"kind {kind!r}: {time if by_time else at} is out of range")
        if self._cache is None:
            return self._found(number, position)[1]
        held = self._cache.get(number, self._as_of, position)
        if held is None:
            held = self._interval(number, position)
            self._cache.put(number, self._as_of, held)
        return held.payload_id

    def _found(self, number: int, position: int) -> tuple[int, str | None]:
        row = self._in_force.first(self._open(), tag=number, at=position, as_of=self._as_of)
        return (0, None) if row is None else (row[0], row[1])

    def _interval(self, number: int, position: int) -> Held:
        since, payload_id = self._found(number, position)
        row = self._following.first(self._cursor, tag=number, at=position, as_of=self._as_of)
        return Held(since, ENDLESS if row is None else row[0], payload_id)

    def _open(self) -> Any:
        if self._connection.get_transaction() is not self._transaction:
            raise ValueError("the transaction of this look-up is over; open another one in the new transaction")
        return self._cursor
