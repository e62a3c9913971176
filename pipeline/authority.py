"""Who may do what: the settings `[authority]`, and pure rules over names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import Field

Names = tuple[str, ...]


class Act(StrEnum):
    """What may be kept to some people."""

    SERVICE = "service"
    """drive the Tier-0: `tier0 run`"""
    WRITE = "write"
    """put a payload into a tag, or withdraw one"""
    HOLD = "hold"
    RELEASE = "release"
    """lift a hold"""
    WAIVE = "waive"
    DELETE = "delete"


DOES = {
    Act.SERVICE: "run the service",
    Act.HOLD: "hold",
    Act.RELEASE: "lift holds",
    Act.WAIVE: "waive",
    Act.DELETE: "delete",
}


class NotAllowed(Exception):
    """The one who asks may not do this; the message names who may."""


@dataclass(frozen=True)
class Rules:
    """The settings `[authority]`. A name may be a pattern: `shift-*`, or `*` for everybody.

    With none of the lists set, everybody who can open the database may do everything. With any of them set, what is
    in none is for those alone who run the service.
    """

    service: Names = ()
    """who may run the service, and so do all; if not set, the one who runs it"""
    write: dict[str, Names] = field(default_factory=dict)
    """who may write a tag: by its name or a pattern of names, or by what it serves (hlt, express, prompt, pcl,
    offline, validation); a rule by name goes before one by what it serves"""
    hold: Names | None = None
    release: Names | None = None
    waive: Names | None = None
    delete: Names | None = None
    waivers_need: Annotated[int, Field(ge=1)] = 1
    """how many different people a waiver needs"""

    @property
    def restrict(self) -> bool:
        """Whether anything is kept to anybody."""
        lists = (self.hold, self.release, self.waive, self.delete)
        return bool(self.service or self.write) or any(names is not None for names in lists)


def who_may(what: Act, where: Sequence[str], rules: Rules) -> Names | None:
    """The names that may do something, None for everybody. `where` is the place: for a tag its name and what it serves.

    >>> who_may(Act.WRITE, ("bs_v1", "prompt"), Rules(("ops",), {"prompt": ("eve",), "bs_*": ("bob",)}))
    ('ops', 'bob')
    """
    if not rules.restrict:
        return None
    return (*rules.service, *(name for name in _listed(what, where, rules) if name not in rules.service))


def _listed(what: Act, where: Sequence[str], rules: Rules) -> Names:
    if what is Act.SERVICE:
        return ()
    if what is not Act.WRITE:
        return getattr(rules, what.value) or ()
    by_name = [names for key, names in rules.write.items() if where and fnmatchcase(where[0], key)]
    by_service = [names for key, names in rules.write.items() if key in where[1:]]
    return tuple(dict.fromkeys(name for names in by_name or by_service for name in names))


def may(who: str, what: Act, where: Sequence[str], rules: Rules) -> bool:
    """Whether somebody may do something there.

    >>> may("eve", Act.HOLD, (), Rules(hold=("shift-*",))), may("eve", Act.HOLD, (), Rules())
    (False, True)
    """
    names = who_may(what, where, rules)
    return names is None or any(fnmatchcase(who, name) for name in names)


def demand(who: str, what: Act, where: Sequence[str], rules: Rules) -> None:
    """Raise NotAllowed, naming who may, unless somebody may do something there."""
    if not may(who, what, where, rules):
        names = ", ".join(who_may(what, where, rules) or ()) or "only whoever runs the service"
        does = f"write tag {where[0]}" if what is Act.WRITE else DOES[what]
        raise NotAllowed(f"{who} may not {does}; who may: {names} (`[authority]` of the settings in force)")
