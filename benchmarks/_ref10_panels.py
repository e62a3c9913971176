"""The panels of the page: what is predicted of the simulated detector against what is seen of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import chi2

from benchmarks._ref10_predicted import (
    PEAK,
    PIXEL,
    SEEDS,
    STRIP,
    UM,
    Cut,
    along,
    cover,
    digis_a_track,
    digis_by_noise,
    landau_cdf,
    reaching,
)
from benchmarks._ref10_seen import (
    COLLISIONS,
    FULL_READOUT,
    RUN,
    SEED,
    Floats,
    Plan,
    Table,
    channels_by_layer,
)
from benchmarks._ref10_series import Panel, Series
from calib.algorithms.pedestal import Status
from calib.iov import RunLumi
from calib.payload import Payload
from pipeline.experiments.ref10.constants import GOOD, PIXEL_THRESHOLD
from pipeline.experiments.ref10.geometry import Geometry
from pipeline.experiments.ref10.layers import CHIP, LAYERS, STRIPS, Layer
from pipeline.experiments.ref10.reconstruct.flags import ClusterFlag
from pipeline.experiments.ref10.reconstruct.thresholds import Thresholds
from pipeline.experiments.ref10.simulate.channels import channels
from pipeline.experiments.ref10.simulate.scenario import truth


def beam_panels(vertices: Table) -> list[Panel]:
    """The luminous region by lumisection, from the true vertices."""
    lumis = np.unique(vertices["lumi"])
    rows = [of_lumi(int(lumi), where(vertices, vertices["lumi"] == lumi)) for lumi in lumis]

    def series(name: str, label: str, scale: float = 1.0, origin: float = 0.0) -> Series:
        seen, error, line = np.array([row[name] for row in rows]).T * scale
        return Series(label, lumis, seen - origin * scale, error, line - origin * scale)

    start = COLLISIONS.beam.start
    place = [
        series(name, f"{name} {'+' if of < 0 else '-'} {abs(of):g} cm", 1e4, of)
        for name, of in (("x", start.x), ("y", start.y))
    ]
    width = [series(f"width_{name}", f"sigma {name}", 1e4) for name in "xy"]
    tilt = [series(f"d{name}dz", f"d{name}/dz", 1e6) for name in "xy"]
    along_z = [series("z", "mean z"), series("sigma_z", "sigma z")]
    return [
        Panel("luminous region: position", "lumisection", f"position at z = {start.z:g} cm [um]", place, steps=True),
        Panel("luminous region: widths", "lumisection", "width at fixed z [um]", width, steps=True),
        Panel("luminous region: tilt", "lumisection", "slope [urad]", tilt, steps=True),
        Panel("luminous region: along z", "lumisection", "mean, width [cm]", along_z, steps=True),
    ]


def of_lumi(lumi: int, vertices: Table) -> dict[str, tuple[float, float, float]]:
    """What is seen of the luminous region, its error, and what was put in; from straight lines x(z) and y(z)."""
    region, z = COLLISIONS.beam.at(RunLumi(RUN, lumi)), vertices["z"]
    n, root = len(z), np.sqrt(len(z))
    row = {"z": (z.mean(), region.sigma_z / root, region.z)}
    row["sigma_z"] = (z.std(ddof=1), region.sigma_z / np.sqrt(2 * n), region.sigma_z)
    for name in "xy":
        values, width = vertices[name], getattr(region, f"width_{name}")
        slope = np.cov(values, z)[0, 1] / z.var(ddof=1)
        middle = values.mean() - slope * (z.mean() - region.z)
        left = values - middle - slope * (z - region.z)
        row[name] = (middle, width / root, getattr(region, name))
        row[f"width_{name}"] = (np.sqrt(np.sum(left**2) / (n - 2)), width / np.sqrt(2 * n), width)
        row[f"d{name}dz"] = (slope, width / (z.std() * root), getattr(region, f"d{name}dz"))
    return row


def occupancy_panels(events: Table, crossings: Table, geometry: Geometry) -> list[Panel]:
    """How often layers are hit."""
    number, tracks = np.arange(1, len(LAYERS) + 1), events["tracks"]
    hits = np.bincount(crossings["layer"], minlength=len(LAYERS) + 1)[1:] / tracks.sum()
    hit = np.array([cover(layer) * reaching(layer)[0].sum() for layer in LAYERS])
    error = np.sqrt(np.maximum(hit * (1 - hit), 0.02) / tracks.sum())
    channel = channels_by_layer(geometry)
    # What the number of tracks does to the number of digis is known, as that number is.
    slope = np.array([np.cov(one, tracks)[0, 1] for one in events["digis"].T]) / tracks.var(ddof=1)
    rest = events["digis"] - slope * (tracks - tracks.mean())[:, None]
    moved, dead, hot = put_in(geometry)
    left = np.array([digis_a_track(layer, moved[layer.number - 1]) for layer in LAYERS]) / channel
    noise = np.array([digis_by_noise(layer, *of) for layer, *of in zip(LAYERS, moved, hot, strict=True)])
    share = (1 - dead) * (tracks.mean() * left + noise)
    digis = (events["digis"].mean(axis=0) / channel, rest.std(axis=0) / np.sqrt(len(tracks)) / channel, share)
    hits_seen, sent = Series("true crossings", number, hits, error, hit, 0.01), Series("digis", number, *digis, 0.02)
    y = "share of channels sent, an event"
    return [
        Panel("hits of a track: spectrum, field and cover", "layer", "crossings a track", [hits_seen], steps=True),
        Panel("occupancy: tracks x channels of a track, and noise", "layer", y, [sent], steps=True, log=True),
    ]


def put_in(geometry: Geometry) -> tuple[Floats, Floats, Floats]:
    """By layer: shares of the strips that moved and that are dead, and how often a strip sends a pulse of its own."""
    strips = channels(COLLISIONS, geometry, SEED, RUN, 1)
    pulses = np.diff(strips.pulse_rate, prepend=0)
    layer = np.repeat(geometry.layer[geometry.strip_rows], STRIPS) - 1
    number = np.maximum(np.bincount(layer, minlength=len(LAYERS)), 1)
    of_strips = (strips.pedestal - strips.online > 2, strips.dead, pulses)
    moved, dead, hot = (np.bincount(layer, values, len(LAYERS)) / number for values in of_strips)
    return moved, dead, hot


def of_layers(crossings: Table, function: Callable[[Layer, Table], Floats]) -> Floats:
    """One number for each crossing, by a function that takes those of one layer."""
    found = np.zeros(len(crossings["layer"]))
    for layer in LAYERS:
        own = crossings["layer"] == layer.number
        found[own] = function(layer, where(crossings, own))
    return found


def where(table: Table, chosen: NDArray[np.bool_]) -> Table:
    return {name: values[chosen] for name, values in table.items()}


PIXELS, THIN, THICK = ("pixels", (1, 2, 3, 4)), ("strips of 320 um", (5, 6, 7)), ("strips of 500 um", (8, 9, 10))
"""by what they are called"""


def alone(crossings: Table, allowed: int = 0) -> NDArray[np.bool_]:
    """Which crossings and their clusters are the only ones in their module, with no flag but those allowed."""
    found: NDArray[np.bool_] = (
        crossings["alone"] & crossings["found"] & (crossings["cluster_flags"] | allowed == allowed)
    )
    return found


def of_kind(crossings: Table, kind: tuple[str, tuple[int, ...]]) -> Table:
    return where(crossings, np.isin(crossings["layer"], kind[1]))


def size_panels(single: Table, steep: Table) -> list[Panel]:
    """Cluster size along u against angle, of clusters alone in their module and without a flag."""

    def series(label: str, some: Table, cut: Cut) -> Series:
        some = where(some, np.abs(some["dudw"]) < 2)
        expected = of_layers(some, lambda layer, own: along(layer, "u", own["dudw"], own["charge"], cut)[0])
        place = np.floor((some["dudw"] + 2) / 0.05).astype(np.int64)
        return Series.of_means(label, place, (some["dudw"], some["cluster_size_u"], expected), 0.02)

    pixels = [
        series(label, where(of, np.abs(of["dvdw"]) < 0.2), PIXEL)
        for label, of in (("3.8 T", of_kind(single, PIXELS)), ("11.4 T, for steep tracks", of_kind(steep, PIXELS)))
    ]
    strips = [series(kind[0], of_kind(single, kind), STRIP) for kind in (THIN, THICK)]
    return [
        Panel("pixel cluster size: least at tan(theta_L) = 0.40", "du/dw (|dv/dw| < 0.2)", "rows of a cluster", pixels),
        Panel("strip cluster size: least at tan(theta_L) = 0.10", "du/dw", "strips of a cluster", strips),
    ]


def charge_panels(crossings: Table) -> list[Panel]:
    """Charge over path, as it was made, and as clusters have it that are alone in their module; the path is true."""
    edges = np.arange(60, 141, 2.0)
    single = where(crossings, alone(crossings, ClusterFlag.SATURATED))
    series, layers = [], []
    for kind in (PIXELS, THIN, THICK):
        every, some = of_kind(crossings, kind), of_kind(single, kind)
        made, seen = every["charge"] / every["path"] * UM, some["cluster_charge"] / some["path"] * UM
        series.append(Series.of_histogram(f"{kind[0]}, made", made, edges, landau_cdf))
        series.append(Series.of_histogram(f"{kind[0]}, clusters", seen, edges, seen_charge(some), np.inf))
    for number in np.unique(single["layer"]):
        some = where(single, single["layer"] == number)
        seen = some["cluster_charge"] / some["path"] * UM
        expected = np.diff(seen_charge(some)(edges))
        layers.append((number, *peak(np.histogram(seen, edges)[0], edges), peak(expected, edges)[0]))
    x, y = "charge / path [electrons / um]", "share / (electrons / um)"
    peaks = [Series("clusters", *np.array(layers).T, 0.01)]
    return [
        Panel("charge over path: pixels, Landau with peak 79.5", x, y, series[:2]),
        Panel("charge over path: strips, Landau with peak 79.5", x, y, series[2:]),
        Panel("peak of the charge of clusters", "layer", "peak [electrons / um]", peaks, steps=True),
    ]


def seen_charge(some: Table) -> Callable[[Floats], Floats]:
    """Distribution of the charge of clusters over path: Landau's, less what thresholds cut off, blurred by noise.

    The charge is taken to lie evenly along its way, which it does not: it is good for the peak, not for the tail below.
    """
    few = where(some, np.arange(len(some["u"])) % max(len(some["u"]) // 200, 1) == 0)
    factors = []
    for layer in LAYERS:
        own = where(few, few["layer"] == layer.number)
        cut, of_path = PIXEL if layer.pixel else STRIP, PEAK / UM * own["path"]
        noise = cut.noise * np.sqrt(own["cluster_size"]) / of_path
        blur = noise[:, None, None, None] * ndtri((np.arange(9) + 0.5) / 9)
        kept_u = along(layer, "u", own["dudw"], own["charge"], cut)[1]
        kept_v = along(layer, "v", own["dvdw"], own["charge"], cut)[1] if layer.pixel else np.ones((len(kept_u), 1))
        factors.append((kept_u[:, :, None, None] * kept_v[:, None, :, None] + blur).ravel())
    # The noise is that of the most probable charge, so that it can be taken as a factor.
    factor = np.sort(np.concatenate(factors))
    factor = np.maximum(factor[:: max(len(factor) // 500, 1)], 0.05)
    return lambda by_um: landau_cdf(np.asarray(by_um)[:, None] / factor).mean(axis=1)


def peak(counts: Floats, edges: Floats) -> tuple[float, float]:
    """Where a parabola through the bins over 0.7 of the largest has its top, and its error if these are counts."""
    top = counts > 0.7 * counts.max()
    middle = (edges[1:] + edges[:-1])[top] / 2 - PEAK
    if len(middle) < 4:
        return float(middle.mean() + PEAK), float(np.ptp(edges))
    (square, line, _), spread = np.polyfit(middle, counts[top], 2, w=1 / np.sqrt(counts[top]), cov="unscaled")
    of = np.array([line / (2 * square**2), -1 / (2 * square), 0.0])
    return float(PEAK - line / square / 2), float(np.sqrt(of @ spread @ of))


def readout_panels(found: Payload, plan: Plan, weak: Table) -> list[Panel]:
    """Noise and common mode of the strips as they are calibrated, and zero suppression."""
    true = truth(FULL_READOUT, plan.detector, SEED, RUN, 1)
    good = (found["status"] == Status.NEW) & (true["strip_status"]["status"] == GOOD)
    put, seen = true["pedestal"]["noise"][good].astype(np.float64), found["noise"][good].astype(np.float64)
    place = np.floor((np.clip(put, 3.0, 4.99) - 3.0) / 0.1).astype(np.int64)
    some = slice(None, None, max(len(put) // 30_000, 1))
    weak = where(weak, weak["height"] < 8)
    height, beside = weak["height"], weak["beside"]
    # Rounding, and the error of the common mode; each strip over the threshold lifts the median.
    wide = np.sqrt(1 + 1 / 12 / COLLISIONS.electronics.noise**2 + np.pi / 2 / CHIP)
    lift, step = np.sqrt(np.pi / 2) / CHIP, np.floor(height / 0.25).astype(np.int64)
    cases = (("no signal beside", beside < 1, 4 + lift), ("signal over 7 sigma beside", beside > 7, 2 + 2 * lift))
    sent = [
        Series.of_means(name, step[own], (height[own], weak["sent"][own] * 1.0, ndtr((height[own] - level) / wide)))
        for name, own, level in cases
    ]
    noise = [Series.of_means(f"mean of {len(put)} strips", place, (put, seen, put), 0.003)]
    cloud = (put[some], seen[some])
    return [
        Panel("noise of strips, from full readout", "put in [ADC]", "found [ADC]", noise, cloud=cloud),
        common_mode_panel(found, good),
        Panel("zero suppression: over 4 sigma, or 2 beside such", "signal / noise", "share sent", sent),
    ]


def common_mode_panel(found: Payload, good: NDArray[np.bool_]) -> Panel:
    """Common mode by chip: the root of a chi2 of nearly as many degrees as there were events.

    It is the median over the strips of what their variance has more with it than without: products with their own
    noise s add 4 s^2 c^2 (pi/2) / 128 to the 2 c^4 that a variance c^2 spreads with anyway.
    """
    c, s = COLLISIONS.electronics.common_mode, COLLISIONS.electronics.noise
    chips = good.reshape(-1, CHIP).mean(axis=1) > 0.5
    values = found["common_mode"][chips].astype(np.float64)
    events = np.median(found["entries"][good])
    degrees = max(events * 2 * c**4 / (2 * c**4 + 4 * s**2 * c**2 * np.pi / 2 / CHIP), 1)
    edges = np.linspace(1.4, 2.6, 25)
    name = f"{len(values)} chips, mean {values.mean():.3f}"
    series = Series.of_histogram(name, values, edges, lambda x: chi2.cdf(degrees * (x / c) ** 2, degrees), 0.05)
    x = "common mode of a chip, rms [ADC]"
    return Panel(f"common mode, from full readout: {c:g} ADC put in", x, "share / ADC", [series])


def scattering_panel(kicks: Table) -> Panel:
    """Angles between one layer and the next."""
    layer, width = kicks["layer"], 1e3 * kicks["width"]
    parts = [
        Series.of_widths(name, layer, (layer, 1e3 * kicks[name], width), 0.005) for name in ("upwards", "sideways")
    ]
    y = "angle x momentum, rms [mrad GeV]"
    return Panel("multiple scattering: Highland's formula", "beam pipe (0) and layer", y, parts, steps=True)


def position_panels(crossings: Table, geometry: Geometry) -> list[Panel]:
    """Cluster less truth: by cluster size against the error assigned, by angle, and over the error."""
    single = where(crossings, alone(crossings))
    by_size, by_way, pulls = [], [], []
    for place, (kind, axis) in enumerate(((PIXELS, "u"), (PIXELS, "v"), (THIN, "u"), (THICK, "u"))):
        name, some = f"{kind[0]}, {axis}", of_kind(single, kind)
        some["pitch"] = (geometry.pitch_u if axis == "u" else geometry.pitch_v)[some["row"]]
        # Others are another track's, a few in ten thousand.
        some = where(some, np.abs(some[f"cluster_{axis}"] - some[axis]) < 5 * some["pitch"])
        off = (some[f"cluster_{axis}"] - some[axis]) / UM
        error = some[f"cluster_{axis}_error"].astype(np.float64) / UM
        size = np.minimum(some[f"cluster_size_{axis}"].astype(np.int64), LONG)
        by_size.append(Series.of_widths(name, size, (size + 0.1 * (place - 1.5), off, error), 0.06))
        pull, edges = off / error, np.linspace(-4, 4, 41)
        pulls.append(Series.of_histogram(f"{name}: rms {pull.std():.3f}", pull, edges, ndtr, np.inf))
        if axis == "u":
            across = np.abs(some["dudw"] - COLLISIONS.by_layer[some["layer"] - 1])
            way = across * geometry.thickness[some["row"]] / some["pitch"]
            near = way < 5
            parts = (way[near], off[near], error[near])
            found = Series.of_widths(name, np.floor(way[near] / 0.2).astype(np.int64), parts, np.inf)
            by_way.append(replace(found, style=place))
    size, y = f"channels along the axis ({LONG}: and more)", "rms of cluster - truth [um]"
    return [
        Panel("position: by size; line: error assigned", size, y, by_size),
        Panel("position: by width of sharing; line: error assigned", "width / pitch", y, by_way, marks=NOTE),
        Panel("pulls of positions; line: Gaussian of width 1", "(cluster - truth) / error", "share / unit", pulls),
    ]


LONG = 7
"""channels; longer clusters are taken together"""
NOTE = (np.array([0.0, 0.94, 1.71]), np.array([25.0, 6.6, 12.0]), "pixels, physics note 9.4.2")
"""At tan - tan(theta_L) = 0, 0.33 and 0.6, where mean sizes are 1.1, 1.8 and 2.4; the last by the centre of charge"""


def efficiency_panel(crossings: Table) -> Panel:
    """Crossings with a cluster within five pitches.

    Lost are those in chips that are masked altogether, those of which every strip that a cluster could begin with is
    masked, and those so near an edge that less than the threshold's share f of the charge drifts to a channel: along u
    within du t/2 + f t (tan(theta_L) - du) of it.
    """

    def expected(layer: Layer, own: Table) -> Floats:
        threshold = SEEDS.alone if not layer.pixel else PIXEL_THRESHOLD if layer.number == 1 else Thresholds().pixels
        f, du, tangent = threshold / own["charge"], own["dudw"], COLLISIONS.by_layer[layer.number - 1]
        edge = np.maximum(layer.thickness * (du / 2 + f * (tangent - du)), 0) / layer.width
        seeds = 1.0 if layer.pixel else along(layer, "u", du, own["charge"], SEEDS)[0]
        return 1 - edge - own["lost"] - own["masked"] * np.clip(2 - seeds, 0, 1)

    values = crossings["layer"].astype(np.float64), crossings["found"] * 1.0, of_layers(crossings, expected)
    series = Series.of_means("true crossings", crossings["layer"], values, 5e-4)
    return Panel("efficiency of clusters", "layer", "share of crossings with a cluster", [series], steps=True)
