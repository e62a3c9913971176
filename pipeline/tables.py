"""A plain table for a terminal."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import Any


def columns(usual: int) -> int:
    """How wide a table is: as the variable COLUMNS of the environment says, in a pipe too, else as usual."""
    asked = os.environ.get("COLUMNS", "")
    return int(asked) if asked.isdecimal() and int(asked) else usual


def as_text(heads: Sequence[str], rows: Sequence[Sequence[Any]], title: str = "", width: int | None = None) -> str:
    """Rows under heads, as text without colours; where no width is given, that of COLUMNS, or 200."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # As Text: units in brackets would be taken for markup.
    table = Table(title=title or None, title_justify="left")
    for place, head in enumerate(heads):
        words = [head, *(str(row[place]) for row in rows)]
        # A table that is too wide breaks between words, and not the one word of a cell.
        table.add_column(Text(head), no_wrap=not any(" " in word or len(word) > 20 for word in words))
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    stream = io.StringIO()
    Console(file=stream, width=width or columns(200), color_system=None).print(table)
    return stream.getvalue().rstrip("\n")
