"""Who acts, under which rules, and how they are kept to.

Rules are kept in the database as the last driver had them in its settings, so that they cannot be left behind by
naming another settings file. They keep colleagues from mistakes. Whoever can write the database by other means can
write anything there: that is for the permissions of the file, or of the server, to prevent.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from fnmatch import fnmatchcase
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from calib.conditions import ConditionsDB
from calib.iov import Clock
from calib.late import Fate
from calib.payload import Payload, PayloadStore
from calib.schema import tags
from calib.tags import Beginning, Moment, Stamp, Sync, Tag
from pipeline import journal
from pipeline.authority import DOES, Act, Rules, demand, who_may
from pipeline.books import NO_RUN
from pipeline.database import Database

RULES = "authority"
"""the document that has the rules in force"""


def rules_in_force(connection: Connection, own: Rules, who: str) -> Rules:
    """The rules of the last driver. Before there was one, one's `own`, as if `who` were to be the first."""
    kept = journal.get_document(connection, NO_RUN, RULES)
    return _with_service(own, who) if kept is None else Rules(**_as_tuples(kept))


def take_charge(connection: Connection, who: str, own: Rules, now: float) -> None:
    """Put one's own rules in force, as the driver who begins. Raises NotAllowed for who may not run the service."""
    demand(who, Act.SERVICE, (), rules_in_force(connection, own, who))
    after = _with_service(own, who)
    demand(who, Act.SERVICE, (), after)
    kept = journal.get_document(connection, NO_RUN, RULES)
    if after != (Rules() if kept is None else Rules(**_as_tuples(kept))):
        journal.set_document(connection, NO_RUN, RULES, asdict(after), now)


def _with_service(own: Rules, who: str) -> Rules:
    """Rules that keep anything to anybody name who runs the service."""
    return replace(own, service=own.service or (who,)) if own.restrict else own


def _as_tuples(kept: Mapping[str, Any]) -> dict[str, Any]:
    write = {key: tuple(names) for key, names in kept["write"].items()}
    found = {name: tuple(value) if isinstance(value, list) else value for name, value in kept.items()}
    return found | {"write": write}


def rules_text(connection: Connection, own: Rules, who: str) -> str:
    """Who may do what, for the settings check: by the settings, and by what is in force where that differs."""
    kept = journal.get_document(connection, NO_RUN, RULES)
    lines = [f"you act as {who}", *_listing(_with_service(own, who))]
    unknown = sorted(key for key in own.write if not _matches_any(connection, key))
    lines += [f"`authority.write`: no tag is named {key!r} yet, and no tag serves that" for key in unknown]
    if kept is not None and Rules(**_as_tuples(kept)) != _with_service(own, who):
        lines += ["in force, as the service was last started:", *_listing(Rules(**_as_tuples(kept)))]
    return "\n".join(lines)


def _listing(rules: Rules) -> list[str]:
    if not rules.restrict:
        lines = ["everybody who can open the database may do everything: `[authority]` keeps nothing to anybody"]
    else:
        places = [((key, key), f"write {key}") for key in rules.write] + [((), "write any other tag")]
        acts: list[tuple[Act, tuple[str, ...], str]] = [(Act.WRITE, where, words) for where, words in places]
        acts += [(act, (), DOES[act]) for act in Act if act is not Act.WRITE]
        lines = [f"may {words}: {', '.join(who_may(act, where, rules) or ())}" for act, where, words in acts]
    return [*lines, f"names a waiver needs: {rules.waivers_need}"]


def _matches_any(connection: Connection, key: str) -> bool:
    return key in set(Sync) or any(fnmatchcase(name, key) for name in connection.scalars(sa.select(tags.c.name)))


def may_write(who: str, rules: Rules, tag: str, serves: Sync) -> None:
    """Raise NotAllowed unless somebody may write a tag."""
    demand(who, Act.WRITE, (tag, serves.value), rules)


class GuardedConditions(ConditionsDB):
    """The conditions as somebody writes them who may not write every tag: `allow` raises for the others."""

    def __init__(self, connection: Connection, store: PayloadStore, allow: Callable[[str, Sync], None]) -> None:
        super().__init__(connection, store)
        self._allow = allow

    def create_tag(self, name: str, kind: str, clock: Clock, sync: Sync) -> Tag:
        self._allow(name, Sync(sync))
        return super().create_tag(name, kind, clock, sync)

    def define_global_tag(self, name: str, tag_of_kind: Mapping[str, str]) -> None:
        for tag in tag_of_kind.values():
            self._allow(tag, self.tag(tag).sync)
        super().define_global_tag(name, tag_of_kind)

    def append(
        self, tag: str, since: Moment, payload: Payload | str, stamp: Stamp, info: Mapping[str, Any] | None = None
    ) -> Fate:
        self._allow(tag, self.tag(tag).sync)
        return super().append(tag, since, payload, stamp, info)

    def fill(self, tag: str, history: Sequence[Beginning], stamp: Stamp) -> None:
        self._allow(tag, self.tag(tag).sync)
        super().fill(tag, history, stamp)

    def withdraw(self, tag: str, since: Moment, stamp: Stamp) -> Fate:
        self._allow(tag, self.tag(tag).sync)
        return super().withdraw(tag, since, stamp)


def acting(database: Database) -> str:
    """The name under which one acts on a database.

    For PostgreSQL by a URL with a user it is that of the session, which the server has checked as its rules for
    logging in say (`trust` checks nothing). Else it is the user of the operating system that owns this process: this
    host vouches for it. Neither proves which person sits there: an account that several share is one name. No
    argument and no variable of the environment changes it.
    """
    if database.is_sqlite or not database.engine.url.username:
        return system_user()
    with database.read() as connection:
        return str(connection.execute(sa.text("SELECT session_user")).scalar_one())


def system_user() -> str:
    """The name of the user this process belongs to; `uid 1234` where the host knows none."""
    number = os.getuid()
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"uid {number}"
