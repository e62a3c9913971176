"""The name of a result: the hash of all it depends on."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def lineage(**parts: Any) -> str:
    """SHA-256 over the named parts as canonical JSON. Raises TypeError for what JSON cannot hold.

    >>> lineage(step="express", settings={"b": 1, "a": 2}) == lineage(settings={"a": 2, "b": 1}, step="express")
    True
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    # NumPy scalars know their Python value; nothing else is let through in silence.
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        return value.item()
    raise TypeError(f"{value!r} cannot be part of a lineage; give numbers, text, lists or mappings")
