"""A plain table for a terminal."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any


def as_text(heads: Sequence[str], rows: Sequence[Sequence[Any]], title: str = "", width: int = 200) -> str:
    """Rows under heads, as text without colours."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # As Text: units in brackets would be taken for markup.
    table = Table(title=title or None, title_justify="left")
    for head in heads:
        table.add_column(Text(head))
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None).print(table)
    return stream.getvalue().rstrip("\n")
