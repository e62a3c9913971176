"""Mistakes in settings, in words: which setting, what is wrong with it, what may have been meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "a text",
    "bool_type": "true or false",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "dataclass_type": "a table",
    "tuple_type": "a list",
    "list_type": "a list",
}
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")

ANY = "*"
"""stands for a name that the user gives a table"""

Known = Mapping[str, Any]
"""names of settings; of a table, what is in it; None where anything may be"""


class SettingsError(Exception):
    """Settings that cannot be used. `mistakes` has all of them, each naming its setting and what to write instead."""

    def __init__(self, mistakes: Sequence[str], source: str = "") -> None:
        self.mistakes = tuple(mistakes)
        self.source = source
        head = f"{source}: " if source else ""
        many = "\n".join([f"{head}{len(self.mistakes)} mistakes", *(f"  - {mistake}" for mistake in self.mistakes)])
        super().__init__(head + self.mistakes[0] if len(self.mistakes) == 1 else many)


def in_words(problem: ValidationError, known: Known, prefix: str = "") -> list[str]:
    """Each mistake that pydantic found as a sentence; `prefix` is put before every name."""
    return [_one(error, known, prefix) for error in problem.errors()]


def unknown(name: str, siblings: Iterable[str], prefix: str = "", everything: Iterable[str] = ()) -> str:
    """The sentence for a setting that does not exist. `siblings` are the names that do, `everything` those elsewhere.

    >>> unknown("fracton", ["fraction"], "express.")
    'unknown setting `express.fracton`: did you mean `fraction`?'
    """
    there = sorted(siblings)
    # The right name in the wrong table is as common as a slip of the finger.
    found = sorted(everything, key=lambda full: (ANY in full, full))
    elsewhere = [full for full in found if full.endswith(f".{name}")]
    near = elsewhere[:1] or difflib.get_close_matches(name, there, n=1)
    if near:
        return f"unknown setting `{prefix}{name}`: did you mean `{near[0]}`?"
    can_be = f"there are {', '.join(there)}" if there else "nothing can be set here"
    return f"unknown setting `{prefix}{name}`: {can_be}"


def _one(error: Mapping[str, Any], known: Known, prefix: str) -> str:
    place, kind = list(error["loc"]), error["type"]
    name = prefix + dotted(place)
    if kind in _UNKNOWN:
        parent = dotted(place[:-1])
        siblings = _below(known, place[:-1])
        return unknown(str(place[-1]), siblings, f"{prefix}{parent}{'.' if parent else ''}", _all(known))
    if kind == "missing":
        return f"missing setting `{name}`"
    if kind in _EXPECTED:
        return f"`{name}` is {_shown(error['input'])}: {_EXPECTED[kind]} is expected"
    if kind in ("enum", "literal_error"):
        return f"`{name}` is {_shown(error['input'])}: say {error['ctx']['expected']}"
    word = str(error["msg"]).removeprefix("Value error, ")
    if kind == "value_error":
        return f"`{name}`: {word}"
    return f"`{name}` is {_shown(error['input'])}: {word.replace('Input should', 'it should')}"


def dotted(place: Iterable[str | int]) -> str:
    """The name of a setting as it is spoken of: `gates.beamspot[0].limit`."""
    name = ""
    for part in place:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else part
    return name


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _below(known: Known, place: Sequence[str | int]) -> list[str]:
    found: Any = known
    for part in place:
        if not isinstance(part, int):
            found = found.get(part, found.get(ANY)) if isinstance(found, Mapping) else None
    return list(found) if isinstance(found, Mapping) else []


def _all(known: Known, prefix: str = "") -> Iterator[str]:
    for name, below in known.items():
        yield f"{prefix}{name}"
        if isinstance(below, Mapping):
            yield from _all(below, f"{prefix}{name}.")
