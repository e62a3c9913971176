"""Beam spot: position and slopes from tracks, widths and length from primary vertices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from calib.accumulators import UnitRows, UnitSums
from calib.algorithms import beamspot_payload
from calib.algorithms.beamspot_as_cms import seen_by_cms
from calib.algorithms.beamspot_pairs import VERTEX_OF_TRACK, Members, agreement, fit_pairs, vertex_numbers, vertex_of
from calib.algorithms.beamspot_payload import Measured, about_line, combine, together
from calib.algorithms.beamspot_tracks import Lines, Tracks, fit_lines
from calib.algorithms.beamspot_vertices import Region, Vertices, fit_region, influence_of
from calib.boundaries import Block, Interval, Trend, merge_until_enough, run_of, running_mean
from calib.calibration import (
    Calibration,
    Columns,
    Granularity,
    NotConverged,
    NotEnoughData,
    at_finalize,
    packed_units,
    row_keys,
)
from calib.collapsing import Rule, collapse
from calib.form import Leeway
from calib.jagged import counts_of, flat_of
from calib.payload import Payload
from calib.state import State

Floats = NDArray[np.float64]

TRACK_ROWS = dict.fromkeys(("d0", "phi", "z0", "d0_error", "inverse_pt"), np.float32)
VERTEX_ROWS = dict.fromkeys(("x", "y", "z", "x_error", "y_error", "z_error", "xy_covariance"), np.float32) | {
    "determinant": np.float64
}

MOST_TRACKS, MOST_VERTICES = 200_000, 10_000
"""a payload is made from so many at most, the best of them: its errors are then 0.1 um, and 0.3 um on the widths"""


@dataclass(frozen=True, kw_only=True)
class BeamSpot(Calibration):
    """The luminous region by interval of validity.

    Columns, jagged: `track_d0` [cm] about the origin, with the sign of d0 = x sin(phi) - y cos(phi); `track_phi` [rad];
    `track_pt` [GeV]; where a file has them `track_z0`, `track_d0_error` [cm]; `vertex_x`, `vertex_y`, `vertex_z`,
    `vertex_x_error` and so on [cm], `vertex_xy_covariance` [cm^2]. Select tracks and vertices before. Without z0 there
    are no slopes: those of the payload before are carried, and `slopes_measured` is False. Without d0 errors the
    resolution is fitted from the data.

    Where a file has `track_vertex`, the index of a track's vertex among those of its event that the columns `vertex_`
    have (-1: none), pairs of tracks measure the widths as well, and `widths_disagree` says where the vertices are at
    odds with them: an error of the vertices that is wrong goes into their widths, but not into those of pairs.

    Intervals: units are merged until there are `min_tracks`, and end where x, y or z leave the mean of the open
    interval (`calib.boundaries.running_mean`; physics note 11), or drift along it. Inside a run a move in x or y counts
    from `least_move` and half the width, one in z from half the length; the width is that of tracks with known errors,
    else of vertices.

    From run to run the note has 10 um, `least_move_between_runs` is 5: with 10, run 166784 of the 2011A muons shares a
    payload with four others and lies 9.0 um, 4.8 errors, from it; with 5 no run is over 3.0 (12 intervals; 11 with 10).

    `rule = "cms"` cuts a run by the rule that CMS has, as coded (`calib.collapsing`), to compare with: it waits for the
    end of the run, fits the tracks and the vertices of every lumisection, and cuts where any of the eight numbers moves
    (`calib.algorithms.beamspot_as_cms`); `significance`, `least_move` and what is between runs have no say. As in CMS a
    lumisection without both fits is left out: one with fewer than `min_vertices`, where another of the run has more.
    Unlike CMS's the payload is fitted to all of an interval, not averaged from those of its lumisections.
    """

    kind: ClassVar[str] = beamspot_payload.KIND
    version: ClassVar[int] = 2
    reads: ClassVar[tuple[str, ...]] = ("track_d0", "track_phi", "track_pt")
    reads_if_there: ClassVar[tuple[str, ...]] = (
        "track_z0",
        "track_d0_error",
        *(f"vertex_{axis}{part}" for axis in "xyz" for part in ("", "_error")),
        "vertex_xy_covariance",
        "track_vertex",
    )
    after: ClassVar[tuple[str, ...]] = ("lorentz_angle", "alignment")
    looks_at_previous: ClassVar[bool] = True
    leeway: ClassVar[Leeway] = beamspot_payload.LEEWAY
    tolerated: ClassVar[Mapping[str, float]] = dict.fromkeys(("x", "y", "width_x", "width_y"), 0.5e-4)

    max_d0: float = 1.0
    """cm; a track further off is not looked at"""
    keep_tracks: int = 5000
    """so many of a unit are kept, those of largest pT"""
    keep_vertices: int = 1000
    """so many of a unit are kept, those best measured in x and y"""
    min_tracks: int = at_finalize(100)
    """fewer make no payload; and the units of one point of the trend have at least so many"""
    min_vertices: int = at_finalize(100)
    """with fewer, widths and length are carried: their fit would be biased, and mostly fail; nor are pairs fitted"""
    significance: float = at_finalize(4.0)
    """a move counts from so many errors"""
    least_move: float = at_finalize(10e-4)
    """cm; inside a run a smaller move in x or y never counts, nor one of less than half the width"""
    least_move_between_runs: float = at_finalize(5e-4)
    """cm; from one run to the next a smaller move in x or y never counts"""
    rule: Rule = at_finalize(Rule.RUNNING_MEAN)
    """by which intervals of lumisections end"""

    def __post_init__(self) -> None:
        if self.rule is Rule.CMS and self.granularity is Granularity.SPAN:
            raise ValueError("`rule` = 'cms' cuts run by run: `granularity` 'span' needs 'running_mean'")
        if min(self.keep_tracks, self.keep_vertices, self.min_tracks, self.min_vertices) < 1:
            raise ValueError("`keep_tracks`, `keep_vertices`, `min_tracks` and `min_vertices` are at least 1")
        if min(self.max_d0, self.significance) <= 0 or min(self.least_move, self.least_move_between_runs) < 0:
            raise ValueError("`max_d0` and `significance` are above 0, and least moves not below")

    def accumulate(self, columns: Columns, conditions: Mapping[str, Payload]) -> State:
        """Rows of tracks and vertices, and the number of events, by unit."""
        units = packed_units(columns)
        tracks, vertex_of_track = self._tracks(columns)
        return State(
            {
                "events": UnitSums.of_rows(units, np.ones(len(units), np.int64)),
                "tracks": tracks,
                "vertices": self._vertices(columns),
                "vertex_of_track": vertex_of_track,
            }
        )

    def corrected(self, columns: Columns, conditions: Mapping[str, Payload]) -> Columns:
        """Tracks and vertices about the line of the beam in force. A track without z is taken about it at its own z."""
        return about_line(columns, conditions[self.kind]) if self.kind in conditions else columns

    def left_by(self, in_force: Payload) -> Payload:
        """The beam on the axis, as wide and long as it was."""
        return beamspot_payload.on_axis(in_force)

    def empty(self) -> State:
        """No event."""
        none = {"tracks": self._no_tracks(), "vertices": self._no_vertices(), "vertex_of_track": self._no_numbers()}
        return State({"events": UnitSums.empty(), **none})

    def finalize(self, state: State, previous: Payload | None) -> Payload:
        """Fit the interval. Raises NotEnoughData below `min_tracks`, NotConverged when the line of the beam has no fit.

        Vertices whose fit fails leave widths and length to be carried.
        """
        rows: UnitRows = state["tracks"]
        given = len(rows.keys)
        if given < self.min_tracks:
            raise NotEnoughData(f"{given} tracks; a beam spot needs {self.min_tracks}")
        if given > MOST_TRACKS:
            rows = rows.best(max(1, MOST_TRACKS // len(rows.units())))
        lines = fit_lines(Tracks.of(rows), np.zeros(1, np.intp))
        if not lines.settled[0]:
            raise NotConverged(f"no line of the beam through {given} tracks of {lines.vertices[0]} vertices was found")
        region = self._region(state["vertices"])
        vertices = Measured.nothing() if region is None else Measured.from_region(region)
        extra = {
            "events": int(state["events"].total()),
            "tracks": given,
            "tracks_used": int(lines.used[0]),
            "vertices": len(state["vertices"].keys),
            "vertices_used": 0 if region is None else region.used,
            **_resolution(lines, vertices),
            **self._pairs(state, rows, lines, region),
        }
        return combine(Measured.from_lines(lines), vertices, extra, previous)

    def cut(self, state: State, flush: bool) -> list[Interval]:
        """Points of the trend with enough tracks each, cut where they move."""
        if self.rule is Rule.CMS:
            return self._cut_as_cms(state, flush)
        blocks, rest = self._blocks(state, flush)
        return running_mean(self._follow(state, blocks), self.significance, flush, rest)

    def _cut_as_cms(self, state: State, flush: bool) -> list[Interval]:
        """Nothing before the run is over: where an interval ends depends on what follows."""
        if not flush:
            return [Interval(tuple(state.units().tolist()), closed=False)]
        blocks = self._blocks(state, flush=True)[0]
        return collapse(*seen_by_cms(blocks, self._alone(state, blocks)))

    def _alone(self, state: State, blocks: Sequence[Block]) -> list[Measured]:
        """What each block says by itself; nothing, where it has too few tracks."""
        found = [Measured.nothing()] * len(blocks)
        lines = self._lines(state, blocks)
        if lines is None:
            return found
        for i in range(len(lines.line)):
            region = self._region(state["vertices"].select(np.array(blocks[i], np.int64)))
            vertices = Measured.nothing() if region is None else Measured.from_region(region)
            found[i] = together(Measured.from_lines(lines, i), vertices)
        return found

    def trend(self, state: State) -> Trend:
        """x, y, z [cm] along the units of a state, merged until there is enough. z is NaN where no track has any."""
        return self._follow(state, self._blocks(state, flush=True)[0])

    def _blocks(self, state: State, flush: bool) -> tuple[list[Block], Block]:
        units = state["events"].units()
        edges = np.searchsorted(state["tracks"].keys[:, 0], np.append(units, np.iinfo(np.int64).max))
        return merge_until_enough(units, np.diff(edges), self.min_tracks, flush)

    def _lines(self, state: State, blocks: Sequence[Block]) -> Lines | None:
        """A line through the tracks of each block. Only the last block can have too few, and then has none."""
        unit = state["tracks"].keys[:, 0]
        edges = np.searchsorted(unit, [*(block[0] for block in blocks), blocks[-1][-1] + 1] if blocks else [0])
        full = int(np.count_nonzero(np.diff(edges) >= self.min_tracks))
        return fit_lines(Tracks.of(state["tracks"])[: edges[full]], edges[:full]) if full else None

    def _follow(self, state: State, blocks: Sequence[Block]) -> Trend:
        values, errors, floors = np.full((3, len(blocks), 3), np.nan)
        lines = self._lines(state, blocks)
        if lines is not None:
            full = len(lines.line)
            place = np.einsum("mii->mi", lines.covariance)[:, :2]
            values[:full] = np.column_stack([lines.line[:, :2], lines.z])
            errors[:full] = np.column_stack([np.sqrt(place), lines.z_error])
            floors[:full] = self._floors(state, blocks[:full], lines)
        return Trend(blocks, values, errors, floors)

    def _floors(self, state: State, blocks: Sequence[Block], lines: Lines) -> Floats:
        """The moves that count: half the width inside a run, where it is known; half the length in z."""
        ends = [run_of(block[-1]) for block in blocks]
        new_run = np.diff(ends, prepend=ends[0]) != 0
        inside = np.maximum(self.least_move, self._widths(state["vertices"], blocks, lines) / 2)
        across = np.where(new_run, self.least_move_between_runs, inside)
        return np.column_stack([across, across, lines.z_spread / 2])

    def _widths(self, rows: UnitRows, blocks: Sequence[Block], lines: Lines) -> Floats:
        """The width of the beam in each block [cm], and 0 where it is not known.

        From the tracks where their errors are known; else from vertices, where there are enough.
        """
        widths = np.where(lines.errors_known, lines.scatter[:, 0], 0.0)
        edges = np.searchsorted(rows.keys[:, 0], [*(block[0] for block in blocks), blocks[-1][-1] + 1])
        asked = np.flatnonzero(~lines.errors_known & (np.diff(edges) >= self.min_vertices))
        if len(asked):
            parts = [np.arange(edges[i], edges[i + 1]) for i in asked]
            starts = np.cumsum([0, *(len(part) for part in parts[:-1])])
            found = fit_lines(Tracks.through(rows, np.concatenate(parts)), 2 * starts)
            widths[asked] = np.where(found.settled, found.scatter[:, 0], 0.0)
        return widths

    def _region(self, rows: UnitRows) -> Region | None:
        if len(rows.keys) < self.min_vertices:
            return None
        try:
            return fit_region(Vertices.of(rows, MOST_VERTICES))
        except NotConverged:
            return None

    def _pairs(self, state: State, rows: UnitRows, lines: Lines, region: Region | None) -> dict[str, Any]:
        """What pairs of these tracks say; nothing where no file told their vertices."""
        numbers = state.get("vertex_of_track", self._no_numbers())
        if not len(numbers.keys):
            return {}
        pairs = fit_pairs(Members.of(Tracks.of(rows), vertex_of(rows, numbers), lines), self.min_vertices)
        if region is None:
            return beamspot_payload.of_pairs(pairs, np.nan)
        influence = influence_of(state["vertices"], MOST_VERTICES, region)
        return beamspot_payload.of_pairs(pairs, agreement(pairs, region.values, influence))

    def _no_tracks(self) -> UnitRows:
        return UnitRows.empty(TRACK_ROWS, self.keep_tracks, "inverse_pt")

    def _no_vertices(self) -> UnitRows:
        return UnitRows.empty(VERTEX_ROWS, self.keep_vertices, "determinant")

    def _no_numbers(self) -> UnitRows:
        return UnitRows.empty(VERTEX_OF_TRACK, self.keep_tracks, "inverse_pt")

    def _tracks(self, columns: Columns) -> tuple[UnitRows, UnitRows]:
        """The tracks, and by the same keys the vertices they are of; cut by the same rank, so the same are kept."""
        pt, counts = _flat(columns["track_pt"])
        rows: dict[str, NDArray[Any]] = {"d0": _flat(columns["track_d0"])[0], "phi": _flat(columns["track_phi"])[0]}
        for name in ("z0", "d0_error"):
            given = columns.get(f"track_{name}")
            rows[name] = np.full(len(pt), np.nan, np.float32) if given is None else _flat(given)[0]
        good = (np.abs(rows["d0"]) < self.max_d0) & np.isfinite(rows["phi"]) & (pt > 0)
        rows["inverse_pt"] = 1 / np.where(good, pt, np.float32(1))
        tracks = _select(columns, counts, rows, good, self._no_tracks())
        if "track_vertex" not in columns:
            return tracks, self._no_numbers()
        rows["vertex"] = vertex_numbers(columns["track_vertex"], counts)
        numbers = {name: rows[name] for name in VERTEX_OF_TRACK}
        return tracks, _select(columns, counts, numbers, good, self._no_numbers())

    def _vertices(self, columns: Columns) -> UnitRows:
        if "vertex_x" not in columns:
            return self._no_vertices()
        names = [f"{axis}{part}" for part in ("", "_error") for axis in "xyz"]
        counts = _flat(columns["vertex_x"])[1]
        rows: dict[str, NDArray[Any]] = {name: _flat(columns[f"vertex_{name}"])[0] for name in names}
        shared = columns.get("vertex_xy_covariance")
        rows["xy_covariance"] = np.zeros_like(rows["x"]) if shared is None else _flat(shared)[0]
        x, y, xy = (rows[name].astype(np.float64) for name in ("x_error", "y_error", "xy_covariance"))
        rows["determinant"] = (x * y) ** 2 - xy**2
        good = (rows["determinant"] > 0) & (rows["z_error"] > 0)
        for values in rows.values():
            good &= np.isfinite(values)
        return _select(columns, counts, rows, good, self._no_vertices())


def _flat(jagged: Any) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The entries of a jagged column in line, and how many each event has."""
    return flat_of(jagged).astype(np.float32, copy=False), counts_of(jagged)


def _select(
    columns: Columns, counts: NDArray[np.int64], rows: Mapping[str, Any], good: NDArray[np.bool_], none: UnitRows
) -> UnitRows:
    chosen = {name: values[good] for name, values in rows.items()}
    return UnitRows.of(row_keys(columns, counts)[good], chosen, none.keep, none.rank)


def _resolution(lines: Lines, vertices: Measured) -> dict[str, float | bool]:
    """How far tracks scatter about the line, beside their given errors [cm, cm GeV]; and their resolution where none is
    given: the scatter with the width of the beam taken off, where that is known.
    """
    constant, over_pt = lines.scatter[0].tolist()
    found = {"scatter_constant": constant, "scatter_over_pt": over_pt}
    widths = vertices.values[beamspot_payload.WIDTHS]
    beam = float(np.mean(widths**2))
    if lines.errors_known[0]:
        return found
    return found | {
        "resolution_constant": np.sqrt(max(constant**2 - beam, 0.0)) if np.isfinite(beam) else constant,
        "resolution_over_pt": over_pt,
        "resolution_has_width": not np.isfinite(beam),
    }
