"""A plain table for a terminal."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any


def as_text(heads: Sequence[str], rows: Sequence[Sequence[Any]], title: str = "", width: int = 200) -> str:
    """Rows under heads, as text without colours."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*heads, title=title or None, title_justify="left")
    for row in rows:
        table.add_row(*map(str, row))
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None).print(table)
    return stream.getvalue().rstrip("\n")
