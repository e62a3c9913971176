"""Plain values as TOML, which the standard library can only read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any


def toml_text(tables: Mapping[str, Any]) -> str:
    """A mapping of tables, lists of tables, texts, numbers, truth values and lists as TOML. None is left out.

    >>> print(toml_text({"express": {"fraction": "1/10"}, "gates": {"b": [{"limit": 3.0}]}}))
    [express]
    fraction = "1/10"
    <BLANKLINE>
    [[gates.b]]
    limit = 3.0
    """
    return re.sub(r"\n{3,}", "\n\n", "\n".join(_table(tables, ""))).strip("\n")


def _table(table: Mapping[str, Any], name: str) -> Iterator[str]:
    inner = {key: value for key, value in table.items() if _is_table(value) or _is_tables(value)}
    for key, value in table.items():
        if key not in inner and value is not None:
            yield f"{_key(key)} = {_value(value)}"
    for key, value in inner.items():
        full = f"{name}.{_key(key)}" if name else _key(key)
        for one in value if _is_tables(value) else [value]:
            yield ""
            if _is_tables(value):
                yield f"[[{full}]]"
            elif not one or any(not (v is None or _is_table(v) or _is_tables(v)) for v in one.values()):
                yield f"[{full}]"
            yield from _table(one, full)


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_tables(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(map(_is_table, value))


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _text(key)


def _text(value: str) -> str:
    # As JSON, but for the one control character that JSON lets through and TOML does not.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{_key(key)} = {_value(found)}" for key, found in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    return repr(value)
