"""A figure that a notebook shows by itself, whatever the plotting backend."""

from __future__ import annotations

import io

from matplotlib.figure import Figure


class Drawing(Figure):
    """A Matplotlib figure; the last line of a notebook cell shows it."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=100)
        return buffer.getvalue()
