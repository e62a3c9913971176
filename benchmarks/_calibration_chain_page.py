"""The section of the report about runs through the whole chain."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks._calibration_chain import COMPARED, FRAME, GEOMETRY, MOST, OneRun, Together, together
from benchmarks._calibration_page import (
    BAND,
    EXPECTED,
    INK,
    SEEN,
    anchor,
    measured,
    picture,
    plain,
    settings,
    shown,
    table,
    verdict,
)
from benchmarks._calibration_toys import digits_of
from pipeline.drawing import Drawing

NAME = "full chain"
SAYS = (
    "Runs of REF10 are simulated, worked through by a Tier-0 on a local cluster, and what their express has calibrated "
    "is set against what was put in. Each begins with the detector as designed and the tables of the DAQ, everything "
    "being wrong at once."
)
HEADS = ("quantity", "runs", "values", "kept old", "RMS", "expected", "expectation", "RMS / expected", "width of pulls")
ACROSS = 5
"""pulls in a row"""


def chain_section(runs: Sequence[OneRun], told: Mapping[str, str], *, judged: bool = True) -> str:
    """Settings, table and figures."""
    every = together(runs)
    parts = [f'<h2 id="{anchor(NAME)}">{NAME}</h2>', f"<p>{html.escape(SAYS)}</p>", settings(told.items())]
    if stale := [f"seed {run.seed}: {', '.join(run.stale)}" for run in runs if run.stale]:
        parts.append(f'<p class="missed">Nothing was found of {html.escape("; ".join(stale))}.</p>')
    rows = [row_of(one, judged=judged) for one in every]
    parts.append(table([*HEADS, f"at most {MOST:g}, beyond chance"], rows))
    parts.append(picture(of_ratios(every), "RMS over expectation"))
    parts.append(picture(of_pulls(every), "pulls in the full chain"))
    parts += ["<h3>flags of strips</h3>", flag_table(runs)]
    for run in runs:
        parts.append(f'<details><summary class="faint">seed {run.seed}</summary>')
        parts.append(f"<pre>{html.escape(run.told)}</pre></details>")
    return "\n".join(parts)


def row_of(one: Together, *, judged: bool) -> list[str]:
    """Of a quantity in all runs."""
    unit, digits = one.runs[0].unit, digits_of(one.expected)
    return [
        f"{html.escape(one.name)} [{html.escape(unit)}]",
        str(len(one.runs)),
        str(len(one.pulls)),
        str(sum(run.kept for run in one.runs)),
        f"{one.rms:.{digits}f}",
        f"{one.expected:.{digits}f}",
        html.escape(one.runs[0].said),
        measured(*one.ratio, 3),
        measured(*one.width, 3),
        verdict([one.claim]) if judged else shown("shown"),
    ]


def flag_table(runs: Sequence[OneRun]) -> str:
    """By run and all together; no prediction is known, so nothing is judged."""
    sorts = dict.fromkeys(flag.sort for run in runs for flag in run.flagged)
    rows = []
    for sort in sorts:
        own = [flag for run in runs for flag in run.flagged if flag.sort == sort]
        flagged, of = sum(flag.flagged for flag in own), sum(flag.of for flag in own)
        by_run = ", ".join(str(flag.flagged) for flag in own)
        rows.append([html.escape(sort), f"{flagged} of {of}", f"{100 * flagged / max(of, 1):.3g} %", by_run])
    return table(["sort", "flagged", "share", "by run"], rows)


def of_ratios(every: Sequence[Together]) -> Drawing:
    """RMS over expectation of each quantity, of runs alone and together."""
    tall = 0.9 + 0.28 * len(every)
    figure = Drawing(figsize=(9.0, tall))
    figure.subplots_adjust(left=0.26, right=0.98, top=1 - 0.3 / tall, bottom=0.5 / tall)
    axis = figure.subplots()
    rows = np.arange(len(every))[::-1]
    axis.axvspan(0, MOST, color=BAND)
    axis.axvline(1, color=INK, linewidth=1)
    axis.axvline(MOST, color=EXPECTED, linewidth=1.3, linestyle="--", label=f"at most {MOST:g}")
    for row, one in zip(rows.tolist(), every, strict=True):
        alone = [run.ratio for run in one.runs]
        label = "runs alone" if row == rows[0] else None
        axis.plot(alone, [row] * len(alone), "|", color=SEEN, markersize=9, alpha=0.7, label=label)
        value, error = one.ratio
        label = "together" if row == rows[0] else None
        axis.errorbar(value, row, xerr=error, fmt="o", color=SEEN, markersize=5, elinewidth=1.3, label=label)
    axis.set(yticks=rows, yticklabels=[f"{one.name} [{one.runs[0].unit}]" for one in every], xlabel="RMS / expected")
    axis.set(xlim=(0, None), ylim=(-0.6, len(every) - 0.4), title="precision in the full chain")
    axis.legend(loc="upper right")
    plain(axis)
    return figure


def of_pulls(every: Sequence[Together]) -> Drawing:
    """A panel a quantity."""
    down = -(-len(every) // ACROSS)
    figure = Drawing(figsize=(13.0, 2.6 * down))
    figure.subplots_adjust(left=0.045, right=0.99, top=1 - 0.17 / down, bottom=0.19 / down, wspace=0.25, hspace=0.6)
    axes = np.atleast_1d(figure.subplots(down, ACROSS)).reshape(-1)
    for axis, one in zip(axes, every, strict=False):
        draw_pulls(axis, one)
        plain(axis)
    for axis in axes[len(every) :]:
        axis.set_axis_off()
    return figure


def draw_pulls(axis: Any, one: Together) -> None:
    """Of all runs, over the Gaussian of width 1; those beyond the edges are counted in the last bins."""
    edges = np.linspace(-5, 5, 41 if len(one.pulls) > 200 else 21)
    pulls = np.clip(one.pulls, -4.999, 4.999)
    counts = np.histogram(pulls, edges)[0] / len(pulls) / np.diff(edges)
    axis.stairs(counts, edges, color=SEEN, fill=True, alpha=0.25)
    axis.stairs(counts, edges, color=SEEN, linewidth=1.2)
    line = np.linspace(-5, 5, 200)
    axis.plot(line, np.exp(-(line**2) / 2) / np.sqrt(2 * np.pi), color=INK, linewidth=1.2)
    axis.set(xlim=(-5, 5), ylim=(0, max(0.5, 1.1 * counts.max())), xlabel="(found - true) / error")
    told = f"width {one.width[0]:.2f}" if len(one.pulls) > 1 else "one value"
    axis.set_title(f"{one.runs[0].kind}: {told}\n{one.runs[0].name}")


def settings_of(runs: Sequence[OneRun], size: tuple[int, int]) -> dict[str, str]:
    """What the section tells of the runs."""
    seeds = ", ".join(str(run.seed) for run in runs)
    return {
        "runs": f"{len(runs)} of {size[0]} lumisections of {size[1]} events, seeds {seeds}",
        "detector": f"the {GEOMETRY} one of REF10, with all its faults: misalignment at three levels, "
        "pedestals of 5 % of the chips, gains by 10 %, Lorentz angle by a tenth, beam by 0.9 mm, 0.3 % dead, 0.1 % hot",
        "events": "two vertices on average, of 25 tracks; Z in 30 %, J/psi in 50 %, strips without zero suppression in "
        "the others, so that all are in express",
        "kinds": ", ".join(COMPARED),
        "beamspot": "place and slopes are looked for where sensors that are thought off their places see the beam, "
        f"which is known to {FRAME:.0%}: no track tells where all of them are; widths with what these scatter "
        "vertices by",
        "alignment": "errors hold what a survey leaves open where tracks do not tell: half barrels and ladders share "
        "moves out between them",
        "judged": f"at most {MOST:g} x the expectation, beyond what chance has with so few values (p = 0.001)",
    }
