"""What calibrations and quality histograms read of REF10's events; never written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.jagged import jagged_of
from calib.payload import Payload
from pipeline.experiments.collisions import Collection
from pipeline.experiments.ref10 import geometry as geometries
from pipeline.experiments.ref10.layers import STRIPS
from pipeline.experiments.ref10.reconstruct.digis import Raw, Tally
from pipeline.experiments.ref10.reconstruct.nzs import sound_blocks
from pipeline.experiments.ref10.reconstruct.objects import Objects
from pipeline.experiments.ref10.reconstruct.vertices import HALF, usable
from pipeline.experiments.ref10.tiers import renumbered
from pipeline.experiments.tracking import (
    TrackingSettings,
    about_beam,
    beam_columns,
    closure_columns,
    good_tracks,
    good_vertices,
    line_of,
)
from pipeline.model import Columns

STIFF = 5.0
"""GeV, above which d0 tells more of the sensors and the beam than of scattering"""
Z_WINDOW, JPSI_WINDOW = (70.0, 110.0), (2.8, 3.4)
"""GeV"""


def pedestal_columns(events: Columns, conditions: Mapping[str, Payload]) -> dict[str, Any]:
    """What `calib.algorithms.pedestal` reads, of the sound blocks without zero suppression: `pedestal_block`, the place
    among strip modules, and `pedestal_adc`, 768 counts for each."""
    geometry = geometries.geometry_of(conditions[geometries.KIND])
    raw = Raw.of(events)
    every: NDArray[np.bool_] = np.ones(len(raw), np.bool_)
    blocks = sound_blocks(raw, geometry, every, Tally.of(len(raw)))
    place = geometry.strip_block[blocks.flat["row"]].astype(np.uint32)
    adc = blocks.flat["adc"].astype(np.uint16).reshape(-1)
    return {
        "pedestal_block": jagged_of(place, blocks.counts),
        "pedestal_adc": jagged_of(adc, blocks.counts * STRIPS),
    }


def of_clusters(clusters: Collection, conditions: Mapping[str, Payload]) -> dict[str, Any]:
    """`strip_clusters` and `pixel_clusters` an event, and `strip_charge_ke` of each."""
    geometry = geometries.geometry_of(conditions[geometries.KIND])
    strips = clusters.where(~geometry.pixel[geometry.rows_of(clusters.flat["module"])])
    return {
        "strip_clusters": strips.counts,
        "pixel_clusters": clusters.counts - strips.counts,
        "strip_charge_ke": strips.jagged(strips.flat["charge"] * np.float32(1e-3)),
    }


def of_tracks(found: Objects, cuts: TrackingSettings, conditions: Mapping[str, Payload]) -> dict[str, Any]:
    """What `calib.algorithms.beamspot` reads, of good tracks and vertices; `track_chi2_ndf`; about the beam spot of the
    conditions `beam_dx`, `beam_dy` and, of stiff tracks, `stiff_d0_um`."""
    vertices, keep = _vertices(found.vertices, cuts)
    tracks = about_beam(good_tracks(_tracks(found, keep), cuts), line_of(conditions))
    stiff = tracks.where(tracks["pt"] > STIFF)
    return {
        **beam_columns(tracks, vertices),
        "track_vertex": tracks.jagged(tracks.flat["vertex"]),
        "vertex_xy_covariance": vertices.jagged(vertices["cov_x_y"]),
        "tracks": found.tracks.counts,
        "track_chi2_ndf": tracks.jagged(tracks["chi2"] / tracks["ndof"]),
        **closure_columns(tracks),
        "stiff_d0_um": stiff.jagged(-1e4 * stiff["dxy"]),
    }


def of_pairs(pairs: Collection) -> dict[str, Any]:
    """`z_mass` and `jpsi_mass` [GeV] of pairs of opposite charge, in windows about each."""
    masses = pairs["mass"]
    columns = {}
    for name, (low, high) in (("z_mass", Z_WINDOW), ("jpsi_mass", JPSI_WINDOW)):
        near = pairs.where((pairs.flat["charge"] == 0) & (low < masses) & (masses < high))
        columns[name] = near.jagged(near["mass"])
    return columns


def _tracks(found: Objects, keep: NDArray[np.bool_]) -> Collection:
    """The tracks that are fit for use, named as `pipeline.experiments.tracking` has them; `vertex` among those kept."""
    tracks, vertices = found.tracks, found.vertices
    belongs = np.where(tracks["vertex_weight"] > HALF, tracks.flat["vertex"], -1)
    flat = {name: tracks.flat[name] for name in ("pt", "phi", "d0", "z0", "chi2")}
    flat |= {
        "eta": np.arcsinh(tracks["cot_theta"]),
        "d0Error": np.sqrt(tracks["cov_d0_d0"]),
        "ndof": tracks.flat["ndf"],
        "vertex": renumbered(belongs, keep, vertices.counts, tracks.event),
    }
    return Collection(tracks.counts, flat).where(usable(tracks) & (tracks.flat["ndf"] > 0))


def _vertices(vertices: Collection, cuts: TrackingSettings) -> tuple[Collection, NDArray[np.bool_]]:
    """The good ones with their errors, and which they are."""
    place = np.arange(len(vertices.flat["x"]))
    flat = {name: vertices.flat[name] for name in ("x", "y", "z", "cov_x_y")}
    flat |= {f"{axis}Err": np.sqrt(vertices[f"cov_{axis}_{axis}"]) for axis in "xyz"}
    # Without the beam, whose measurement they are for.
    flat |= {"isFake": (vertices.flat["flags"] != 0).astype(np.int8), "ndof": vertices.flat["ndf"], "place": place}
    good = good_vertices(Collection(vertices.counts, flat), cuts)
    return good, np.isin(place, good.flat["place"])
