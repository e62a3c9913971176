"""The kernels of calibrations with data to run them on, beside what one would write without them.

One entry a kernel: a function of `small` that draws its data. A new calibration adds one to KERNELS, and one to FITS
for a fit that a library could do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import awkward as ak
import boost_histogram as bh
import numpy as np
from iminuit import Minuit
from numpy.typing import NDArray

from benchmarks import _toys_gain, _toys_lorentz
from benchmarks._kernel_ways import Drawn, Fit
from benchmarks._kernels_alignment import alignment, places_of_ladders
from benchmarks._toys_beamspot import Beam, Detector, collisions
from benchmarks.pedestal import BLOCK, GROUP
from benchmarks.pedestal import MODULES as STRIP_MODULES
from benchmarks.pedestal import draw as draw_pedestals
from calib.algorithms.beamspot import BeamSpot
from calib.algorithms.beamspot_pairs import Members, fit_pairs, vertex_of
from calib.algorithms.beamspot_tracks import Tracks, fit_lines
from calib.algorithms.beamspot_vertices import Vertices, fit_region
from calib.algorithms.channel_status import ChannelStatus
from calib.algorithms.gain import Gain
from calib.algorithms.gain import nominal as nominal_gain
from calib.algorithms.lorentz_angle import LorentzAngle
from calib.algorithms.lorentz_fit import Sums
from calib.algorithms.lorentz_fit import fit as fit_hyperbolas
from calib.algorithms.occupancy_status import OccupancyStatus
from calib.algorithms.pedestal import Pedestal
from calib.calibration import Columns

Floats = NDArray[np.float64]

STRIPS = STRIP_MODULES * BLOCK


def pedestal(small: bool) -> Drawn:
    """Samples of strips; of a channel the sums, its window, and the common mode of its chip."""
    modules, events = (20, 40) if small else (STRIP_MODULES, 160)
    columns, reference, _ = draw_pedestals(modules, events)
    channels = modules * BLOCK
    block = np.asarray(ak.flatten(columns["pedestal_block"])).astype(np.int64)
    channel = (block[:, None] * BLOCK + np.arange(BLOCK)).reshape(-1)
    adc = np.asarray(ak.flatten(columns["pedestal_adc"]))

    def obvious() -> None:
        sums = np.zeros((3, channels), np.int64)
        for row, values in zip(sums, (1, adc, adc.astype(np.int64) ** 2), strict=True):
            np.add.at(row, channel, values)

    def library() -> None:
        profile = bh.Histogram(bh.axis.Integer(0, channels, underflow=False, overflow=False), storage=bh.storage.Mean())
        profile.fill(channel, sample=adc)

    return Drawn(
        Pedestal(channels=channels, block=BLOCK, group=GROUP),
        columns,
        {"pedestal": reference},
        obvious,
        library,
        "sorting each chip's samples for its common mode, which the others leave in",
    )


def occupancy_status(small: bool) -> Drawn:
    """Hits of strips, 250 an event."""
    channels, events = (20 * BLOCK, 50) if small else (STRIPS, 2000)
    rng = np.random.default_rng(1)
    hits = rng.poisson(250, events)
    channel = rng.integers(0, channels, hits.sum()).astype(np.uint32)
    wide = channel.astype(np.int64)

    def obvious() -> None:
        np.add.at(np.zeros(channels, np.int64), wide, 1)

    def library() -> None:
        axis = bh.axis.Integer(0, channels, underflow=False, overflow=False)
        bh.Histogram(axis, storage=bh.storage.Int64()).fill(wide)

    return Drawn(
        OccupancyStatus(channels=channels, group=GROUP),
        _events(events) | {"channel": ak.unflatten(channel, hits)},
        {},
        obvious,
        library,
        "counting at random places of a table beyond the cache, whose size each chunk pays once",
    )


def channel_status(small: bool) -> Drawn:
    """Counts of all channels in each event, a hundred events a unit."""
    channels, events = (500, 50) if small else (5160, 2000)
    counts = np.random.default_rng(1).poisson(140, (events, channels)).astype(np.int64)
    units = np.arange(events) // 100
    flat = (units[:, None] * channels + np.arange(channels)).reshape(-1)

    def obvious() -> None:
        np.add.at(np.zeros((units[-1] + 1, channels), np.int64), units, counts)

    def library() -> None:
        axis = bh.axis.Integer(0, int(flat[-1]) + 1, underflow=False, overflow=False)
        bh.Histogram(axis, storage=bh.storage.Double()).fill(flat, weight=counts.reshape(-1))

    return Drawn(
        ChannelStatus(channels=channels),
        _events(events) | {"lumi": units, "counts": counts},
        {},
        obvious,
        library,
        "memory: each count is read once",
    )


def beamspot(small: bool) -> Drawn:
    """Rows of tracks and vertices of one lumisection."""
    columns = _collisions(100 if small else 2000)
    flat = [np.asarray(ak.flatten(values)) for values in columns.values() if isinstance(values, ak.Array)]
    keys = np.repeat(np.asarray(columns["event"]), np.asarray(ak.num(columns["track_pt"])))
    pt = np.asarray(ak.flatten(columns["track_pt"]))
    keep = BeamSpot().keep_tracks

    def obvious() -> None:
        best = np.argsort(-pt, kind="stable")[:keep]
        for values in (keys, *flat):
            values[best] if len(values) == len(pt) else values.copy()

    def library() -> None:
        # Sums about the axis, which is what a histogram could keep of the tracks: no cut can be moved later.
        phi, d0 = (np.asarray(ak.flatten(columns[f"track_{name}"])) for name in ("phi", "d0"))
        bins = bh.axis.Regular(100, -np.pi, np.pi), bh.axis.Regular(200, -0.2, 0.2)
        bh.Histogram(*bins, storage=bh.storage.Int64()).fill(phi, d0)

    return Drawn(
        BeamSpot(),
        columns,
        {},
        obvious,
        library,
        "fifteen passes over rows: masks, keys, the best by pT, in order",
    )


def gain(small: bool) -> Drawn:
    """Clusters of REF10's strips, 37 an event, of which one in eleven is saturated."""
    groups, events = (50, 100) if small else (11_160, 4000)
    rng = np.random.default_rng(4)
    sensor = _toys_gain.Sensor(_toys_gain.SMEARED, thickness=400.0, saturation=67_000.0)
    made = _toys_gain.clusters(rng, np.ones(groups), 37 * events // groups, sensor)
    columns = _single(made.of_events(events))
    low, high, bins = 25.0, 280.0, 80

    def obvious() -> None:
        place = np.clip(np.floor(np.log(made.charge / made.path / low) / np.log(high / low) * bins), -1, bins) + 1
        counts = np.zeros((2, groups, bins + 2), np.int64)
        np.add.at(counts, (made.saturated.astype(np.int64), made.group, place.astype(np.int64)), 1)

    def library() -> None:
        axes = bh.axis.Integer(0, 2), bh.axis.Integer(0, groups), bh.axis.Regular(bins, np.log(low), np.log(high))
        counts = bh.Histogram(*axes, storage=bh.storage.Int64())
        counts.fill(made.saturated, made.group, np.log(made.charge / made.path))

    calibration = Gain(groups=groups, low=low, high=high, bins=bins)
    start = {"gain": nominal_gain(groups)}
    return Drawn(
        calibration, columns, start, obvious, library, "counting at random places of a table that a chunk fills thinly"
    )


def lorentz_angle(small: bool) -> Drawn:
    """Clusters of REF10's tracks, 65 an event."""
    groups, events = 20, 100 if small else 2000
    made = _toys_lorentz.clusters(np.random.default_rng(5), np.full(groups, 0.4), 65 * events // groups)
    columns = _single(made.of_events(events))

    def obvious() -> None:
        place = np.clip((made.slope + 0.8) / 1.6 * 40, 0, 39).astype(np.int64)
        sums = np.zeros((4, groups, 40))
        for row, values in zip(sums, (1, made.size, made.size**2, made.slope), strict=True):
            np.add.at(row, (made.group, place), values)

    def library() -> None:
        axes = bh.axis.Integer(0, groups), bh.axis.Regular(40, -0.8, 0.8)
        bh.Histogram(*axes, storage=bh.storage.Mean()).fill(made.group, made.slope, sample=made.size)

    return Drawn(LorentzAngle(groups=groups, together=2), columns, {}, obvious, library, "four sums, each a pass")


KERNELS: Mapping[str, Callable[[bool], Drawn]] = {
    each.__name__: each
    for each in (pedestal, channel_status, occupancy_status, gain, lorentz_angle, alignment, beamspot)
}
"""by the name of the module in `calib.algorithms`"""


def line_of_tracks(small: bool) -> Fit:
    """The line of the beam and the width about it: ours cuts outliers as it goes, Minuit has the same tracks whole."""
    calibration = BeamSpot()
    state = calibration.accumulate(_collisions(100 if small else 1000, Detector(displaced=0.0)), {})
    rows = state["tracks"]
    tracks = Tracks.of(rows)
    column = {name: values.astype(np.float64) for name, values in rows.columns.items()}
    sine, cosine, z = np.sin(column["phi"]), np.cos(column["phi"]), column["z0"]

    def ours() -> tuple[Floats, Floats]:
        lines = fit_lines(tracks, np.zeros(1, np.intp))
        return lines.line[0, :2], np.sqrt(np.diag(lines.covariance[0]))[:2]

    def cost(x: float, y: float, dx: float, dy: float, width: float) -> float:
        residual = column["d0"] - (x + dx * z) * sine + (y + dy * z) * cosine
        variance = column["d0_error"] ** 2 + width**2
        return float(np.sum(residual**2 / variance + np.log(variance)))

    def library() -> Floats:
        fit = Minuit(cost, x=0.0, y=0.0, dx=0.0, dy=0.0, width=2e-3)
        fit.errordef = 1.0
        fit.errors = (1e-3, 1e-3, 1e-4, 1e-4, 1e-4)
        fit.migrad()
        # Ours gives the place at the mean z of its tracks.
        middle = fit_lines(tracks, np.zeros(1, np.intp)).z[0]
        return np.array([fit.values["x"] + fit.values["dx"] * middle, fit.values["y"] + fit.values["dy"] * middle])

    return Fit(f"beamspot: line, {len(rows.keys)} tracks", ours, library, "iminuit")


def region_of_vertices(small: bool) -> Fit:
    """The luminous region by Fisher scoring, and by Minuit from the same start, with the same likelihood."""
    calibration = BeamSpot()
    state = calibration.accumulate(_collisions(150 if small else 1100), {})
    vertices = Vertices.of(state["vertices"], 10_000)

    def ours() -> tuple[Floats, Floats]:
        region = fit_region(vertices)
        return region.values, np.sqrt(np.diag(region.covariance))

    def cost(*values: float) -> float:
        x, y, z, vx, vy, c, dx, dy, vz = values
        along = np.array([dx, dy, 1.0])
        spread = vz * np.outer(along, along)
        spread[:2, :2] += [[vx, c], [c, vy]]
        both = vertices.covariance + spread
        pulls = vertices.position - [x, y, z]
        sign, log = np.linalg.slogdet(both)
        if (sign <= 0).any():
            return 1e12
        return float(np.einsum("ni,ni->", pulls, np.linalg.solve(both, pulls[..., None])[..., 0]) + log.sum())

    def library() -> Floats:
        place = np.median(vertices.position, axis=0)
        length = float(vertices.position[:, 2].var())
        fit = Minuit(cost, *place, 4e-6, 4e-6, 0.0, 0.0, 0.0, length)
        fit.errordef = 1.0
        fit.errors = (1e-4, 1e-4, 0.1, 1e-6, 1e-6, 1e-6, 1e-4, 1e-4, 0.5)
        fit.limits = [*[(None, None)] * 3, (1e-8, None), (1e-8, None), *[(None, None)] * 3, (1e-2, None)]
        fit.migrad()
        return np.array(fit.values)

    return Fit(f"beamspot: region, {len(vertices)} vertices", ours, library, "iminuit")


def widths_of_pairs(small: bool) -> Fit:
    """Widths from pairs of tracks of a vertex; no library has it."""
    columns = _collisions(150 if small else 1000)
    columns["track_vertex"] = ak.zeros_like(columns["track_pt"], dtype=np.int32) - 1 + ak.num(columns["vertex_x"])
    calibration = BeamSpot()
    state = calibration.accumulate(columns, {})
    tracks = Tracks.of(state["tracks"])
    lines = fit_lines(tracks, np.zeros(1, np.intp))
    vertex = vertex_of(state["tracks"], state["vertex_of_track"])

    def ours() -> tuple[Floats, Floats]:
        fit_pairs(Members.of(tracks, vertex, lines), calibration.min_vertices)
        return np.zeros(0), np.zeros(0)

    return Fit(f"beamspot: pairs of {len(state['tracks'].keys)} tracks", ours, None, "")


def peaks_of_gain(small: bool) -> Fit:
    """Peaks of all groups at once; Minuit has the same likelihood, a group at a time, of which it is given ten."""
    groups, given = (20, 2) if small else (10_000, 10)
    made = _toys_gain.clusters(np.random.default_rng(6), np.ones(groups), 100)
    calibration = Gain(groups=groups)
    start = nominal_gain(groups)
    state = calibration.accumulate(_single(made.of_events(100)), {"gain": start})
    first = Gain(groups=given)
    some = made.group < given
    ours_too = first.accumulate(
        _single(_toys_gain.Clusters(*(getattr(made, name)[some] for name in vars(made))).of_events(100)),
        {"gain": nominal_gain(given)},
    )

    def ours() -> tuple[Floats, Floats]:
        found = calibration.finalize(state, start)
        return found["gain"][:given].astype(np.float64), found["gain_error"][:given].astype(np.float64)

    def library() -> Floats:
        return np.array([_peak(row) for row in ours_too["clusters"].total("clear", given)])

    def _peak(row: NDArray[Any]) -> float:
        edges = np.linspace(np.log(first.low), np.log(first.high), first.bins + 1)

        def cost(d: float) -> float:
            below = _toys_gain.NOTE.cumulative(np.exp(edges - d))
            chance = np.append(np.diff(below), 1 - below[-1]) / (1 - below[0])
            even = first.stray / len(chance)
            return float(-2 * np.sum(row[1:] * np.log((1 - first.stray) * chance + even)))

        fit = Minuit(cost, d=np.log(80.0))
        fit.errordef, fit.errors = 1.0, (0.01,)
        fit.migrad()
        return float(79.5 / np.exp(fit.values["d"]))

    return Fit(f"gain: {groups} groups", ours, library, f"iminuit, {given} of them")


def bottoms_of_sizes(small: bool) -> Fit:
    """Hyperbolas of 20 groups at once, and by Minuit one after the other."""
    groups = 4 if small else 20
    made = _toys_lorentz.clusters(np.random.default_rng(7), np.full(groups, 0.4), 4000)
    calibration = LorentzAngle(groups=groups)
    state = calibration.accumulate(made.of_events(100), {})
    total = state["sizes"].total()
    sums = Sums(total[..., 0], total[..., 1], total[..., 2], total[..., 3] * 1e-6)
    begin = np.tile([0.36, 0.9, 2.5, 0.1], (groups, 1))

    def ours() -> tuple[Floats, Floats]:
        found = fit_hyperbolas(sums, begin, np.ones(begin.shape, np.bool_))
        return found.parameters[:, 0], found.error

    def library() -> Floats:
        slope, size, weight = sums.points()
        return np.array([_bottom(*points) for points in zip(slope, size, weight, begin, strict=True)])

    def _bottom(slope: Floats, size: Floats, weight: Floats, start: Floats) -> float:
        def cost(x0: float, p0: float, k: float, w: float) -> float:
            return float(np.sum(weight * (size - p0 - k * np.hypot(slope - x0, w)) ** 2))

        fit = Minuit(cost, *start)
        fit.errordef, fit.errors = 1.0, (0.01, 0.01, 0.01, 0.01)
        fit.migrad()
        return float(fit.values["x0"])

    return Fit(f"lorentz_angle: {groups} groups", ours, library, "iminuit")


FITS: tuple[Callable[[bool], Fit], ...] = (
    line_of_tracks,
    region_of_vertices,
    widths_of_pairs,
    peaks_of_gain,
    bottoms_of_sizes,
    places_of_ladders,
)


def _collisions(events: int, detector: Detector | None = None) -> dict[str, Any]:
    return _single(collisions(np.random.default_rng(2), [(1, 1)], [Beam()], events, detector))


def _single(columns: Columns) -> dict[str, Any]:
    """Numbers with a fraction in single precision, as measured columns come."""
    return {
        name: ak.values_astype(values, np.float32) if _broken(values) else values for name, values in columns.items()
    }


def _broken(values: Any) -> bool:
    return isinstance(values, ak.Array) and np.asarray(ak.flatten(values)).dtype.kind == "f"


def _events(events: int) -> dict[str, Any]:
    one = np.ones(events, np.int64)
    return {"run": one, "lumi": one, "event": np.arange(events)}
