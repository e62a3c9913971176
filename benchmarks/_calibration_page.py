"""The report as one page of HTML that needs nothing beside it: a section a calibration, tables and figures in it."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from benchmarks._calibration_toys import LEAST, MOST, ONE_SIGMA, Quantity, Result, Share, Toys, digits_of, width_of_all
from benchmarks._ref10_claims import Limits
from pipeline.drawing import Drawing

INK, SEEN, BOUND, EXPECTED, BEFORE = "#1c2430", "#1f5fa8", "#1c2430", "#c2571a", "#9aa5b1"
BAND = "#dbe8f5"
SORTS = ("#1f5fa8", "#c2571a", "#3b8a4e", "#7b4fa3")
DPI = 120
STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; color: #1c2430;
  margin: 0 auto; max-width: 1280px; padding: 24px 32px 64px; background: #fff; }
h1 { font-size: 26px; font-weight: 600; margin: 0 0 4px; }
h2 { font-size: 20px; font-weight: 600; margin: 48px 0 6px; padding-top: 14px; border-top: 2px solid #1c2430; }
h3 { font-size: 15px; font-weight: 600; margin: 22px 0 4px; }
p { max-width: 880px; margin: 6px 0; }
.faint { color: #5b6673; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 1px 16px; margin: 10px 0; font-size: 13.5px; }
dt { color: #5b6673; } dd { margin: 0; }
table { border-collapse: collapse; font-size: 12px; margin: 8px 0; font-variant-numeric: tabular-nums; }
th { text-align: right; font-weight: 600; color: #5b6673; border-bottom: 1px solid #1c2430; padding: 3px 6px;
  vertical-align: bottom; }
td { text-align: right; padding: 2px 6px; border-bottom: 1px solid #e6e9ed; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
td.left { text-align: left; }
tr:nth-child(even) td { background: #f8f9fb; }
.good { color: #2d7a3f; } .missed { color: #b3261e; font-weight: 700; } .shown { color: #5b6673; }
img { display: block; margin: 4px 0 8px; }
nav a { color: #1f5fa8; text-decoration: none; }
@media print { h2 { break-before: page; } }
"""


def page(title: str, words: Sequence[str], sections: Iterable[str]) -> str:
    """The whole of it."""
    head = f'<head><meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style></head>'
    intro = "".join(f"<p>{html.escape(line)}</p>" for line in words)
    body = f"<h1>{html.escape(title)}</h1>{intro}\n" + "\n".join(sections)
    return f'<!DOCTYPE html>\n<html lang="en">{head}\n<body>{body}</body></html>\n'


def overview(
    results: Sequence[Result], claims: Sequence[Limits], more: Mapping[str, Sequence[Limits]], *, judged: bool
) -> str:
    """How many figures of each are judged and missed, of `more` sections too, and the tests of all together."""
    every = {result.subject.name: result.claims() for result in results} | more
    flags = {result.subject.name: f"{len(result.shares)} shares" for result in results if result.shares}
    rows = []
    for name, own in every.items():
        link = f'<nav><a href="#{anchor(name)}">{html.escape(name)}</a></nav>'
        told = verdict(own) if judged and own else shown("shown")
        rows.append([link, str(len(own) if judged else 0), flags.get(name, ""), told])
    found = table(["calibration", "figures judged", "flags", ""], rows)
    if not judged:
        return found
    return found + table(["all together", "p", "wanted", ""], [row_of(claim) for claim in claims])


def row_of(claim: Limits) -> list[str]:
    """Of a claim about a chance."""
    return [html.escape(claim.name), f"{claim.seen:.3g}", f"&gt; {claim.low:g}", verdict([claim])]


def verdict(claims: Sequence[Limits]) -> str:
    """Of some claims."""
    missed = sum(claim.missed for claim in claims)
    if not missed:
        return '<span class="good">met</span>'
    return f'<span class="missed">MISSED{f": {missed}" if len(claims) > 1 else ""}</span>'


def shown(words: str) -> str:
    return f'<span class="shown">{html.escape(words)}</span>'


def anchor(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def section(result: Result, *, most: int = 100, judged: bool = True) -> str:
    """Of a calibration, with figures of so many quantities at most."""
    subject = result.subject
    parts = [f'<h2 id="{anchor(subject.name)}">{html.escape(subject.name)}</h2>', f"<p>{html.escape(subject.says)}</p>"]
    parts.append(settings(subject.settings.items()))
    if subject.quantities:
        parts.append(figures(result, judged=judged))
    for quantity in subject.quantities[:most]:
        parts.append(f"<h3>{html.escape(quantity.name)} [{html.escape(quantity.unit)}]</h3>")
        sources = f"Cramér-Rao bound: {quantity.bound}. Expectation: {quantity.expected}."
        parts.append(f'<p class="faint">{html.escape(sources)}</p>')
        parts.append(picture(of_quantity(quantity, result.of(quantity)), f"{subject.name}: {quantity.name}"))
    if result.shares:
        parts.append("<h3>flags</h3>")
        parts.append(picture(of_shares(result.shares, subject.counted), f"{subject.name}: flags"))
        parts.append(share_table(result.shares, subject.counted))
    return "\n".join(parts)


def settings(items: Iterable[tuple[str, str]]) -> str:
    rows = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(words)}</dd>" for name, words in items)
    return f"<dl>{rows}</dl>"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are HTML."""
    head = "".join(f"<th>{name}</th>" for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


HEADS = [
    "quantity",
    "values (worth)",
    "kept old",
    "RMS",
    "Cramér-Rao",
    "expected",
    "RMS / bound",
    "RMS / expected",
    "bias before",
    "bias after",
    "mean pull",
    "width",
    "coverage",
    "allowed",
]


def figures(result: Result, *, judged: bool) -> str:
    """The table of a calibration."""
    rows = []
    those = {id(toys) for _, toys in result.judged() if judged}
    for quantity in result.subject.quantities:
        for toys in result.of(quantity):
            rows.append(figure_row(quantity, toys, judged=id(toys) in those))
    counted = " or ".join(dict.fromkeys(quantity.counted for quantity in result.subject.quantities))
    return table([HEADS[0], html.escape(counted), *HEADS[1:]], rows)


def figure_row(quantity: Quantity, toys: Toys, *, judged: bool) -> list[str]:
    """Of one size."""
    digits = digits_of(toys.bound)
    rms, error = toys.rms
    claim = Limits("", rms, error, LEAST * toys.bound, MOST * toys.expected)
    before = "" if toys.before is None else measured(*toys.bias(toys.before), digits)
    mean = float(toys.pulls.mean())
    return [
        f"{html.escape(quantity.name)} [{html.escape(quantity.unit)}]",
        f"{toys.size:,}".replace(",", " "),
        str(toys.number) if toys.alone is None else f"{toys.number} ({toys.alone:.0f})",
        str(toys.kept),
        measured(rms, error, digits),
        f"{toys.bound:.{digits}f}",
        f"{toys.expected:.{digits}f}",
        f"{rms / toys.bound:.3f}",
        f"{rms / toys.expected:.3f}",
        before,
        measured(*toys.bias(toys.off), digits),
        f"{mean:+.3f} ({toys.sigmas:+.1f} &sigma;)",
        measured(*toys.width, 3),
        "{:.1f} &plusmn; {:.1f} %".format(*(100 * part for part in toys.coverage)),
        verdict([claim]) if judged else shown("shown"),
    ]


def measured(value: float, error: float, digits: int) -> str:
    """With its error."""
    return f"{value:.{digits}f} &plusmn; {error:.{digits}f}"


def share_table(shares: Sequence[Share], counted: str) -> str:
    rows = [
        [
            html.escape(share.sort),
            f"{share.size:g}",
            f"{share.found} of {share.of}",
            f"{100 * share.found / max(share.of, 1):.2f} %",
            f"{100 * share.predicted:.3g} %",
            f"{share.chance:.2g}",
        ]
        for share in shares
    ]
    return table(["sort", html.escape(counted), "flagged", "share", "predicted", "p"], rows)


# Figures. -------------------------------------------------------------------------------------------------------------


def picture(figure: Drawing, words: str) -> str:
    """Embedded."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    data = base64.b64encode(buffer.getvalue()).decode()
    wide = round(100 * figure.get_figwidth() / 13)
    return f'<img style="width: {wide}%" alt="{html.escape(words)}" src="data:image/png;base64,{data}">'


def of_quantity(quantity: Quantity, every: Sequence[Toys]) -> Drawing:
    """RMS, pulls, bias and coverage, side by side."""
    figure, axes = row_of_axes(4)
    for draw, axis in zip((rms_panel, pull_panel, bias_panel, coverage_panel), axes, strict=True):
        draw(axis, quantity, every)
        plain(axis)
    return figure


def row_of_axes(number: int) -> tuple[Drawing, Any]:
    """A figure with so many panels, each as large as those of any other; placed by hand, which takes half the time."""
    wide = 3.25 * max(number, 3)
    figure = Drawing(figsize=(wide, 3.0))
    figure.subplots_adjust(left=0.6 / wide, right=1 - 0.1 / wide, bottom=0.165, top=0.9, wspace=0.28)
    return figure, np.atleast_1d(figure.subplots(1, number))


def plain(axis: Any) -> None:
    """The look of all axes."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8, colors=INK)
    axis.title.set(fontsize=9.5, color=INK)
    axis.title.set_fontweight("bold")
    for label in (axis.xaxis.label, axis.yaxis.label):
        label.set(fontsize=8.5, color=INK)
    axis.grid(alpha=0.2, linewidth=0.6)
    if (legend := axis.get_legend()) is not None:
        legend.set_frame_on(False)
        for text in legend.get_texts():
            text.set_fontsize(7.5)


def sizes_along(axis: Any, sizes: Sequence[float], counted: str) -> None:
    """A logarithmic axis with a mark at each size."""
    axis.set_xscale("log")
    axis.set_xlim(min(sizes) / 1.35, max(sizes) * 1.35)
    axis.xaxis.set_major_locator(FixedLocator(list(sizes)))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_xlabel(counted)


def rms_panel(axis: Any, quantity: Quantity, every: Sequence[Toys]) -> None:
    """Against the number, with the bound and what is allowed."""
    sizes = [toys.size for toys in every]
    bound, expected = (np.array([getattr(toys, name) for toys in every]) for name in ("bound", "expected"))
    rms, error = np.array([toys.rms for toys in every]).T
    axis.fill_between(sizes, LEAST * bound, MOST * expected, color=BAND, label="allowed")
    axis.plot(sizes, bound, color=BOUND, linewidth=1.3, label="Cramér-Rao")
    axis.plot(sizes, expected, color=EXPECTED, linewidth=1.3, linestyle="--", label="expected")
    axis.errorbar(sizes, rms, error, fmt="o", color=SEEN, markersize=4, elinewidth=1, label="RMS of toys")
    sizes_along(axis, sizes, f"number of {quantity.counted}")
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set(title="precision", ylabel=f"RMS [{quantity.unit}]")
    axis.legend(loc="best")


def pull_panel(axis: Any, quantity: Quantity, every: Sequence[Toys]) -> None:
    """Of all sizes together, over the Gaussian of width 1."""
    pulls = np.concatenate([toys.pulls for toys in every])
    edges = np.linspace(-4, 4, 33)
    counts = np.histogram(pulls, edges)[0] / len(pulls) / np.diff(edges)
    middle = (edges[1:] + edges[:-1]) / 2
    error = np.sqrt(np.maximum(counts, 1 / len(pulls) / np.diff(edges)) / len(pulls) / np.diff(edges))
    axis.errorbar(middle, counts, error, fmt="o", color=SEEN, markersize=3, elinewidth=0.8, label="toys")
    line = np.linspace(-4, 4, 200)
    axis.plot(line, np.exp(-(line**2) / 2) / np.sqrt(2 * np.pi), color=INK, linewidth=1.2, label="Gaussian, width 1")
    axis.set(
        xlim=(-4, 4), ylim=(0, max(0.55, 1.3 * counts.max())), xlabel="(found - true) / error", ylabel="share / unit"
    )
    axis.set_title("pulls: mean {:+.3f}, width {:.3f} ± {:.3f}".format(pulls.mean(), *width_of_all(every)))
    axis.legend(loc="upper right")


def bias_panel(axis: Any, quantity: Quantity, every: Sequence[Toys]) -> None:
    """Mean of found less true, in units of the bound so that all sizes can be seen."""
    sizes = np.array([toys.size for toys in every])

    def draw(which: str, x: Any, style: dict[str, Any]) -> None:
        values = [toys.bias(getattr(toys, which)) for toys in every]
        mean, error = np.array(values).T / [toys.bound for toys in every]
        axis.errorbar(x, mean, error, markersize=4, elinewidth=1, **style)

    axis.axhline(0, color=INK, linewidth=1)
    corrected = all(toys.before is not None for toys in every)
    if corrected:
        draw("before", sizes / 1.06, {"fmt": "s", "color": BEFORE, "label": "before correction"})
    after = {"fmt": "o", "color": SEEN, "label": "after, error of correction included" if corrected else "as found"}
    draw("off", sizes * (1.06 if corrected else 1), after)
    sizes_along(axis, sizes.tolist(), f"number of {quantity.counted}")
    low, high = axis.get_ylim()
    reach = max(abs(low), abs(high), 0.2)
    axis.set(title="bias", ylabel="mean (found - true) / bound", ylim=(-1.1 * reach, 1.5 * reach))
    axis.legend(loc="upper right")


def coverage_panel(axis: Any, quantity: Quantity, every: Sequence[Toys]) -> None:
    """Share within one claimed error."""
    sizes = [toys.size for toys in every]
    share, error = 100 * np.array([toys.coverage for toys in every]).T
    axis.axhline(100 * ONE_SIGMA, color=INK, linewidth=1, label=f"{100 * ONE_SIGMA:.2f} %")
    axis.errorbar(sizes, share, error, fmt="o", color=SEEN, markersize=4, elinewidth=1)
    sizes_along(axis, sizes, f"number of {quantity.counted}")
    low, high = min(58, *(share - error)), max(78, *(share + error))
    axis.set(title="coverage", ylabel="within one claimed error [%]", ylim=(low - 1, high + 1))
    axis.legend(loc="upper right")


def of_shares(shares: Sequence[Share], counted: str) -> Drawing:
    """A panel a kind of flag: what is flagged of it and what is predicted; of false ones how many there are."""
    kinds = list(dict.fromkeys(share.sort.split(":")[0] for share in shares))
    figure, axes = row_of_axes(len(kinds))
    for axis, kind in zip(axes, kinds, strict=True):
        own = [share for share in shares if share.sort.split(":")[0] == kind]
        for place, sort in enumerate(dict.fromkeys(share.sort for share in own)):
            some = [share for share in own if share.sort == sort]
            draw_share(axis, some, SORTS[place], numbers=kind == "false")
        told = "false flags, in number" if kind == "false" else f"{kind}: share that is flagged"
        axis.set(title=told, ylabel="flags" if kind == "false" else "flagged [%]", xlabel=counted)
        axis.legend(loc="upper left" if kind == "dead" else "best")
        plain(axis)
    return figure


def draw_share(axis: Any, some: Sequence[Share], colour: str, *, numbers: bool) -> None:
    """A line for what is predicted, points for what is found."""
    size, found, of, predicted = (
        np.array([getattr(share, name) for share in some], float) for name in ("size", "found", "of", "predicted")
    )
    scale = np.ones(len(some)) if numbers else 100 / of
    spread = np.sqrt(np.maximum(of * predicted * (1 - predicted), 0.0 if numbers else 0.25))
    name = some[0].sort.split(":")[1].strip()
    axis.plot(size, of * predicted * scale, color=colour, linewidth=1.2, label="predicted")
    axis.errorbar(size, found * scale, spread * scale, fmt="o", color=colour, markersize=4, elinewidth=1, label=name)
    if numbers:
        axis.set_ylim(-0.4, max(4.0, found.max() + 1))
    else:
        axis.set_ylim(-4, 108)
