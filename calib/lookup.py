"""The questions put to the conditions tables, as statements with named parameters, built once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Dialect,
    FromClause,
    Select,
    and_,
    bindparam,
    case,
    exists,
    literal_column,
    select,
)

from calib.schema import entries, fates, global_tags, last_sequence, members, settled, tags
from calib.tags import Sync

# As a parameter it would keep PostgreSQL from planning a statement once for all: what it costs would be unknown.
_ONE: ColumnElement[int] = literal_column("1")


def _at(name: str) -> ColumnElement[int]:
    return bindparam(name, type_=BigInteger)


def _live(entry: FromClause) -> ColumnElement[bool]:
    """Whether an entry counts as of the parameter `as_of`: made by then, and by then not withdrawn."""
    withdrawal = entries.alias("withdrawal")
    withdrawn = exists().where(withdrawal.c.withdraws == entry.c.sequence, withdrawal.c.sequence <= _at("as_of"))
    holds = and_(entry.c.withdraws.is_(None), entry.c.recalls.is_(None))
    return and_(entry.c.sequence <= _at("as_of"), holds, ~withdrawn)


def _moment() -> ColumnElement[int]:
    return case((tags.c.clock == "time", _at("time")), else_=_at("unit"))


def _newest_first(statement: Select[Any], entry: FromClause) -> Select[Any]:
    return statement.order_by(entry.c.since.desc(), entry.c.sequence.desc()).limit(_ONE)


_of_global_tag = members.join(tags, members.c.tag_id == tags.c.id).join(
    global_tags, members.c.global_tag_id == global_tags.c.id
)
_these_kinds = and_(
    global_tags.c.name == bindparam("global_tag"), members.c.kind.in_(bindparam("kinds", expanding=True))
)
_held = entries.alias("held")

ANSWERS = (
    select(
        members.c.kind,
        tags.c.id.label("number"),
        tags.c.name,
        tags.c.clock,
        select(last_sequence.c.last).where(last_sequence.c.id == 1).scalar_subquery().label("newest"),
        _newest_first(
            select(_held.c.payload_id).where(_held.c.tag_id == tags.c.id, _held.c.since <= _moment(), _live(_held)),
            _held,
        )
        .correlate(tags)
        .scalar_subquery()
        .label("payload_id"),
    )
    .select_from(_of_global_tag)
    .where(_these_kinds)
)
"""Kind, tag and payload id (NULL: nothing) in force at `unit` or `time`, for `kinds` of `global_tag`; newest entry."""

CHANGES = (
    select(entries.c.tag_id, entries.c.since, entries.c.payload_id)
    .where(
        entries.c.tag_id.in_(bindparam("tags", expanding=True)),
        entries.c.since > _at("first"),
        entries.c.since <= _at("last"),
        _live(entries),
    )
    .order_by(entries.c.tag_id, entries.c.since, entries.c.sequence)
)
"""The entries of `tags`, all of one clock, that begin behind `first` up to `last`, tag by tag in order."""

_before = and_(entries.c.tag_id == bindparam("tag"), entries.c.since <= _at("at"), _live(entries))

IN_FORCE = _newest_first(select(entries).where(_before), entries)
"""The entry of `tag` in force at `at` as of `as_of`."""

PAYLOAD = _newest_first(select(entries.c.since, entries.c.payload_id).where(_before), entries)
"""Of the same only where it begins and the payload id."""

_recall = entries.alias("recall")
RECALLED = exists().where(_recall.c.recalls == entries.c.origin).correlate(entries)
"""Whether the payload of an entry is withdrawn by now."""

SOUND = IN_FORCE.where(~RECALLED)
"""The same, entries of withdrawn payloads left out."""

IS_RECALLED = select(RECALLED).select_from(entries).where(entries.c.sequence == _at("sequence"))
"""Whether the payload of the entry `sequence` is withdrawn."""

FOLLOWING = (
    select(entries.c.since)
    .where(entries.c.tag_id == bindparam("tag"), entries.c.since > _at("at"), _live(entries))
    .order_by(entries.c.since)
    .limit(_ONE)
)
"""Where the next entry of `tag` behind `at` begins."""

FAMILY = (
    select(entries)
    .where(entries.c.origin == _at("origin"), _live(entries))
    .order_by(entries.c.since, entries.c.sequence)
)
"""All entries that count and hold the payload of the entry `origin` in its name."""

LIVE = (
    select(entries)
    .where(entries.c.tag_id == bindparam("tag"), _live(entries))
    .order_by(entries.c.since, entries.c.sequence)
)
"""All entries of `tag` that count as of `as_of`; of those with one `since` the last rules."""

STEPS = (
    select(entries.c.since, entries.c.payload_id)
    .where(
        entries.c.tag_id == bindparam("tag"),
        entries.c.since > _at("at"),
        entries.c.since < _at("until"),
        _live(entries),
    )
    .order_by(entries.c.since, entries.c.sequence)
)
"""The entries of `tag` that begin in `(at, until)`."""

SETTLED = (
    select(settled.c.run, settled.c.since, settled.c.until)
    .where(settled.c.tag_id == bindparam("tag"), settled.c.until > _at("since"), settled.c.since < _at("until"))
    .order_by(settled.c.since)
)
"""The settled runs of `tag` that touch `[since, until)`."""

FATES = (
    select(fates, tags.c.name.label("into"))
    .outerjoin(entries, entries.c.sequence == fates.c.sequence)
    .outerjoin(tags, and_(tags.c.id == entries.c.tag_id, tags.c.id != fates.c.tag_id))
    .where(fates.c.tag_id == bindparam("tag"))
    .order_by(fates.c.id)
)
"""The fates of `tag`, with the name of the tag the payload went `into` where that is another one."""

UNUSED = (
    select(tags)
    .where(
        tags.c.kind == bindparam("kind"),
        tags.c.clock == bindparam("clock"),
        tags.c.sync == Sync.OFFLINE.value,
        exists().where(members.c.tag_id == tags.c.id),
        ~exists().where(settled.c.tag_id == tags.c.id),
    )
    .order_by(tags.c.id.desc())
    .limit(_ONE)
)
"""The offline tag of `kind` and `clock` made last that a global tag has and no settled run uses."""

MEMBERS = (
    select(members.c.kind.label("member_kind"), tags)
    .select_from(_of_global_tag)
    .where(global_tags.c.name == bindparam("global_tag"))
    .order_by(members.c.kind)
)
"""Kind and tag of every member of `global_tag`."""


@dataclass(frozen=True)
class Spelled:
    """A statement in the words of one database, for its driver: the way through SQLAlchemy takes longer than most
    answers. For statements whose parameters and columns need no conversion."""

    text: str
    order: tuple[str, ...] | None
    """the names of the parameters by place; None: the driver takes them by name"""
    constants: Mapping[str, Any]

    @classmethod
    @lru_cache(maxsize=64)
    def of(cls, statement: Select[Any], dialect: Dialect) -> Spelled:
        """Spell it for a dialect."""
        spelled = statement.compile(dialect=dialect)
        constants = {name: value for name, value in spelled.params.items() if value is not None}
        return cls(str(spelled), tuple(spelled.positiontup or ()) if spelled.positional else None, constants)

    def first(self, cursor: Any, **values: Any) -> Any:
        """The first row, a tuple, or None."""
        return cursor.execute(self.text, self._given(values)).fetchone()

    def _given(self, values: dict[str, Any]) -> Any:
        values |= self.constants
        return values if self.order is None else [values[name] for name in self.order]
