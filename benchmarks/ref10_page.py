"""The simulated detector at one look: what was put in or is predicted, as lines, against what is seen of it, as points.

    python benchmarks/ref10_page.py                  the full detector; build/ref10_page.png and .html
    python benchmarks/ref10_page.py --folder WHERE   elsewhere
    python benchmarks/ref10_page.py --small          the mini detector and few events, only that it works

Minimum bias of 20 lumisections is simulated and reconstructed under the true conditions. In further samples strips are
read out without zero suppression; zero suppression itself is looked at with many dead strips, beside which weak signals
stand alone; and pixels are looked at in three times the field, where tracks come steep enough.

Predictions are closed forms or integrals, not the simulation again: the truth enters with the number, the angles and
the charges of tracks. Every comparison is given as chi2; where a prediction is not exact, what it is good to is said.
The page fails where chi2 is too large to be chance.
"""

from __future__ import annotations

import argparse
import base64
import html
import io
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.image import imsave
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks._ref10_panels import (  # noqa: E402
    alone,
    beam_panels,
    charge_panels,
    efficiency_panel,
    occupancy_panels,
    position_panels,
    readout_panels,
    scattering_panel,
    size_panels,
    where,
)
from benchmarks._ref10_seen import (  # noqa: E402
    SMALL,
    Ints,
    Plan,
    Table,
    before,
    calibration,
    collisions,
    full_readout,
    joined,
    steep,
    weak_signals,
)
from benchmarks._ref10_series import Panel  # noqa: E402
from calib.payload import Payload  # noqa: E402
from pipeline.drawing import Drawing  # noqa: E402
from pipeline.experiments.ref10.simulate.particles import NZS_GROUPS  # noqa: E402

Image = NDArray[np.uint8]

DPI = 100
CHI2 = "chi2 / points of each comparison, and how exact the prediction is"


@dataclass(frozen=True, eq=False)
class Observed:
    """All that the page is made of."""

    collisions: dict[str, Table]
    steep: Table
    weak: Table
    pedestal: Payload


def observed(plan: Plan, processes: int) -> Observed:
    """Simulate and reconstruct; the work is cut into tasks of some seconds."""

    def cut(events: int, parts: int) -> list[Ints]:
        return np.array_split(np.arange(1, events + 1), min(parts, events))

    with ProcessPoolExecutor(processes) as pool:
        states = pool.map(partial(full_readout, plan), cut(plan.full * NZS_GROUPS, 8))
        weak = pool.map(partial(weak_signals, plan), cut(plan.weak, 3))
        bent = pool.map(partial(steep, plan), cut(plan.steep, 4))
        parts = list(pool.map(partial(collisions, plan), range(1, plan.lumis + 1)))
        pedestal = calibration(plan)
        found = pedestal.finalize(reduce(pedestal.merge, states), before(plan))
        tables = {name: joined(part[name] for part in parts) for name in parts[0]}
        return Observed(tables, joined(bent), joined(weak), found)


def panels_of(plan: Plan, seen: Observed) -> list[Panel]:
    """All of the page."""
    crossings, detector = seen.collisions["crossings"], plan.detector
    return [
        *beam_panels(seen.collisions["vertices"]),
        *occupancy_panels(seen.collisions["events"], crossings, detector),
        *size_panels(where(crossings, alone(crossings)), where(seen.steep, alone(seen.steep))),
        *charge_panels(crossings),
        scattering_panel(seen.collisions["kicks"]),
        *readout_panels(seen.pedestal, plan, seen.weak),
        efficiency_panel(crossings),
        *position_panels(crossings, detector),
    ]


def compared(panels: Sequence[Panel]) -> list[str]:
    """A line for each comparison."""
    return [f"{panel.title}; {one.label}: {one.told}" for panel in panels for one in panel.series]


def drawn(draw: Callable[[Any], None], inches: tuple[float, float] = (5.2, 4.6)) -> Image:
    """A picture of what a function draws on axes, uint8[height, width, 4]."""
    figure = Drawing(figsize=inches, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)
    draw(figure.subplots())
    buffer = io.BytesIO()
    figure.savefig(buffer, format="rgba", dpi=DPI)
    return np.frombuffer(buffer.getvalue(), np.uint8).reshape(round(DPI * inches[1]), -1, 4)


def text(lines: str, size: float) -> Callable[[Any], None]:
    """Draws lines of text and nothing else."""

    def draw(axis: Any) -> None:
        axis.axis("off")
        axis.text(0, 1, lines, va="top", fontsize=size)

    return draw


def page(pictures: Sequence[Image], title: str) -> Image:
    """Pictures of one size four abreast, the title above."""
    blank = np.full_like(pictures[0], 255)
    every = [*pictures, *[blank] * (-len(pictures) % 4)]
    rows = [np.hstack(every[start : start + 4]) for start in range(0, len(every), 4)]
    return np.vstack([drawn(text(title, 14), (rows[0].shape[1] / DPI, 0.5)), *rows])


def as_html(panels: Sequence[Panel], pictures: Sequence[Image], title: str) -> str:
    """The same as HTML that needs nothing beside it."""
    figures = []
    for panel, picture in zip(panels, pictures, strict=True):
        buffer = io.BytesIO()
        imsave(buffer, picture, format="png")
        data = base64.b64encode(buffer.getvalue()).decode()
        figures.append(f'<img alt="{html.escape(panel.title)}" src="data:image/png;base64,{data}">')
    told = "".join(f"<li>{html.escape(line)}</li>" for line in compared(panels))
    head = f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title></head>'
    body = f"<h1>{html.escape(title)}</h1>\n" + "\n".join(figures) + f"\n<p>{CHI2}:</p>\n<ul>{told}</ul>"
    return f"{head}\n<body>{body}</body></html>\n"


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "build", help="where the page is written")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--small", action="store_true", help="the mini detector and few events; nothing is judged")
    return parser.parse_args()


def main() -> int:
    options, begun = parsed(), time.monotonic()
    plan = SMALL if options.small else Plan()
    panels = panels_of(plan, observed(plan, options.processes))
    title = (
        f"REF10, {plan.geometry} detector, {plan.lumis} x {plan.events} events: lines put in or predicted, points seen"
    )
    pictures = [drawn(panel.draw) for panel in panels]
    options.folder.mkdir(parents=True, exist_ok=True)
    path = options.folder / "ref10_page.png"
    imsave(path, page(pictures, f"{title}; {CHI2}"))
    path.with_suffix(".html").write_text(as_html(panels, pictures, title), encoding="utf-8")
    print(f"{path} and .html, {time.monotonic() - begun:.0f} s")
    print("\n".join([CHI2, *compared(panels)]))
    if options.small:
        print("too few events of a part of the detector: nothing is judged")
        return 0
    return int(not all(one.agrees for panel in panels for one in panel.series))


if __name__ == "__main__":
    sys.exit(main())
