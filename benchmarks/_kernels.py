"""The kernels of calibrations with data to run them on, beside what one would write without them.

One entry a kernel: a function of `small` that draws its data. A new calibration adds one to KERNELS, and one to FITS
for a fit that a library could do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import awkward as ak
import boost_histogram as bh
import numpy as np
from iminuit import Minuit
from numpy.typing import NDArray

from benchmarks._toys_beamspot import Beam, Detector, collisions
from benchmarks.pedestal import BLOCK, GROUP
from benchmarks.pedestal import MODULES as STRIP_MODULES
from benchmarks.pedestal import draw as draw_pedestals
from calib.algorithms.beamspot import BeamSpot
from calib.algorithms.beamspot_pairs import Members, fit_pairs, vertex_of
from calib.algorithms.beamspot_tracks import Tracks, fit_lines
from calib.algorithms.beamspot_vertices import Vertices, fit_region
from calib.algorithms.channel_status import ChannelStatus
from calib.algorithms.occupancy_status import OccupancyStatus
from calib.algorithms.pedestal import Pedestal
from calib.calibration import Calibration, Columns
from calib.payload import Payload

Floats = NDArray[np.float64]
Work = Callable[[], Any]

STRIPS = STRIP_MODULES * BLOCK


@dataclass(frozen=True)
class Drawn:
    """A calibration with events for it, and other ways to sum them up."""

    calibration: Calibration
    columns: Columns
    conditions: Mapping[str, Payload]
    obvious: Work
    """in plain NumPy"""
    library: Work
    """by boost-histogram"""
    bound: str
    """what the kernel waits for"""

    @property
    def bytes(self) -> int:
        """Of input: what the columns hold, and where events begin in jagged ones."""
        wanted = ("run", "lumi", "event", *self.calibration.reads, *self.calibration.reads_if_there)
        return sum(_bytes(self.columns[name]) for name in wanted if name in self.columns)


def _bytes(column: Any) -> int:
    if not isinstance(column, ak.Array):
        return np.asarray(column).nbytes
    return np.asarray(ak.flatten(column)).nbytes + 8 * (len(column) + 1)


@dataclass(frozen=True)
class Fit:
    """A fit, ours and a library's, of the same data; both give values, ours errors too."""

    what: str
    ours: Callable[[], tuple[Floats, Floats]]
    library: Callable[[], Floats] | None
    told: str
    """which"""


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


KERNELS: Mapping[str, Callable[[bool], Drawn]] = {
    each.__name__: each for each in (pedestal, channel_status, occupancy_status, beamspot)
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


FITS: tuple[Callable[[bool], Fit], ...] = (line_of_tracks, region_of_vertices, widths_of_pairs)


def _collisions(events: int, detector: Detector | None = None) -> dict[str, Any]:
    columns = collisions(np.random.default_rng(2), [(1, 1)], [Beam()], events, detector)
    # As measured columns come, in single precision.
    return {
        name: ak.values_astype(values, np.float32) if isinstance(values, ak.Array) else values
        for name, values in columns.items()
    }


def _events(events: int) -> dict[str, Any]:
    one = np.ones(events, np.int64)
    return {"run": one, "lumi": one, "event": np.arange(events)}
