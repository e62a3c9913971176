"""The tiers of REF10, as columns.

    RECO    all there is: clusters, tracks with their hits, vertices, muons and pairs of them, as they were made
    AOD     the same without clusters and hits, in single precision
    NANO    flat, named as in CMS's NanoAOD where that has the same

Collections are `Cluster_`, `Track_` (with `TrackHit_cluster`, the places in the event of the clusters of its tracks,
one track after the other), `Vertex_`, `Muon_` and `Dimuon_`; their columns are told in `reconstruct.cluster_columns`,
`.tracks`, `.vertices` and `.dimuons`.

In NANO, with lengths in cm: `PV_*` is the first vertex and `PVBS_*` the same fitted with the beam, 0 where there is
none (`PV_npvs` 0); `OtherPV_*` the others. dxy and dz are about PV, or the origin, and dxy has the sign of CMS, that of
-d0; `dxybs` is about the beam spot. Errors of them are those of the track. Failed tracks are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.experiments.collisions import MUON_MASS, BeamLine, Collection
from pipeline.experiments.ref10 import daq
from pipeline.experiments.ref10.reconstruct.objects import Objects
from pipeline.experiments.ref10.reconstruct.perigees import about
from pipeline.experiments.ref10.reconstruct.track_flags import FAILED
from pipeline.experiments.ref10.reconstruct.vertex_flags import UNRELIABLE
from pipeline.model import Columns

RECO, AOD, NANO = "RECO", "AOD", "NANO"

HEADER = ("bx", "orbit", "trig")
GOOD_NDF = 4.0
"""of a good vertex, NanoAOD's `npvsGood`: above it"""

Mask = NDArray[np.bool_]


def renumbered(place: NDArray[np.integer], keep: Mask, counts: NDArray[np.int64], event: NDArray[Any]) -> NDArray[Any]:
    """Places in collections of `counts` entries an event as they are when only those of the mask stay: -1 for others,
    and where they were -1; `event` is that of each place."""
    after: NDArray[np.int64] = np.cumsum(keep) - keep
    starts = np.cumsum(counts) - counts
    first = np.append(after, keep.sum())[starts]
    told = place >= 0
    at = starts[event[told]] + place[told]
    found = np.full(len(place), -1, np.int32)
    found[told] = np.where(keep[at], after[at] - first[event[told]], -1)
    return found


def reco(header: Columns, clusters: Mapping[str, Any], found: Objects) -> dict[str, Any]:
    """`clusters` are the columns of clusters and of what was wrong with an event."""
    return {**header, **clusters, **_collections(found), "TrackHit_cluster": found.hits.jagged(found.hits.flat["hit"])}


def aod(header: Columns, flags: NDArray[np.uint8], found: Objects) -> dict[str, Any]:
    """`flags` are the events' (`EventFlag`)."""
    return {**header, "reco_flags": flags, **_collections(found, single=True)}


def nano(header: Columns, lumi: NDArray[Any], found: Objects, beam: BeamLine) -> dict[str, Any]:
    """Flat and short, for analysis; `lumi` is the lumisection of each event."""
    tracks, first = found.tracks, _first(found.vertices)
    event = tracks.event
    near = about(tracks, first["x"][event], first["y"][event])
    kinematics = tracks.adding(eta=np.arcsinh(tracks["cot_theta"]))
    flat = {
        **{name: kinematics.flat[name] for name in ("pt", "eta", "phi", "charge", "chi2")},
        "ndof": tracks.flat["ndf"],
        "nHits": tracks.flat["hits"],
        "nPixelHits": tracks.flat["pixel_hits"],
        "dxy": -near.d0,
        "dxyErr": np.sqrt(near.d0_variance),
        "dz": near.z0 - first["z"][event],
        "dzErr": np.sqrt(near.z0_variance),
        "dxybs": -beam.d0(tracks),
        "vtxIdx": tracks.flat["vertex"],
        "flags": tracks.flat["flags"],
    }
    sound = (tracks.flat["flags"] & np.uint8(FAILED)) == 0
    kept = Collection(tracks.counts, flat).where(sound)
    columns = _narrow(kept).columns("Track") | _muons(found, flat, sound) | _pairs(found.pairs)
    columns |= _vertices(found.vertices, first)
    plain = {"bunchCrossing": header["bx"], "orbitNumber": header["orbit"], "luminosityBlock": lumi.astype(np.uint32)}
    plain |= {f"L1_{name}": which for name, which in daq.fired(header).items()}
    return {**plain, **columns}


def _muons(found: Objects, tracks: Mapping[str, NDArray[Any]], sound: Mask) -> dict[str, Any]:
    muons, counts = found.muons, found.tracks.counts
    at = (np.cumsum(counts) - counts)[muons.event] + muons.flat["track"]
    flat = {name: muons.flat[name] for name in ("pt", "eta", "phi", "charge")}
    flat |= {name: tracks[name][at] for name in ("dxy", "dxyErr", "dz", "dzErr", "dxybs")}
    flat |= {
        "ptErr": muons.flat["pt_error"],
        "mass": np.full(len(at), MUON_MASS),
        "trackIdx": renumbered(muons.flat["track"], sound, counts, muons.event),
    }
    return _narrow(Collection(muons.counts, flat)).columns("Muon")


def _pairs(pairs: Collection) -> dict[str, Any]:
    flat = {name: pairs.flat[name] for name in ("mass", "pt", "rapidity", "phi", "charge", "flags")}
    flat |= {"massErr": pairs.flat["mass_error"], "mu1Idx": pairs.flat["first"], "mu2Idx": pairs.flat["second"]}
    return _narrow(Collection(pairs.counts, flat)).columns("Dimuon")


def _first(vertices: Collection) -> dict[str, NDArray[Any]]:
    """The columns of the first vertex of each event; 0 where there is none."""
    there = vertices.counts > 0
    at = (np.cumsum(vertices.counts) - vertices.counts)[there]
    found = {}
    for name, values in vertices.flat.items():
        found[name] = np.zeros(len(there), values.dtype)
        found[name][there] = values[at]
    return found


def _vertices(vertices: Collection, first: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    reliable = (vertices.flat["flags"] & np.uint8(UNRELIABLE)) == 0
    good = vertices.where(reliable & (vertices["ndf"] > GOOD_NDF)).counts
    names = {"x": "x", "y": "y", "z": "z", "chi2": "chi2", "ndof": "ndf", "score": "sum_pt2"}
    columns: dict[str, Any] = {f"PV_{name}": first[of] for name, of in names.items()}
    columns |= {"PV_npvs": vertices.counts.astype(np.int32), "PV_npvsGood": good.astype(np.int32)}
    columns |= {f"PVBS_{axis}": first[f"constrained_{axis}"] for axis in "xyz"}
    columns |= {f"PVBS_{axis}Err": np.sqrt(first[f"constrained_cov_{axis}_{axis}"]) for axis in "xyz"}
    others = np.arange(len(vertices.event)) > (np.cumsum(vertices.counts) - vertices.counts)[vertices.event]
    left = _narrow(vertices.where(others))
    columns = {name: _single(values) for name, values in columns.items()}
    return columns | {f"OtherPV_{name}": left.jagged(left.flat[names[name]]) for name in ("z", "score")}


def _collections(found: Objects, *, single: bool = False) -> dict[str, Any]:
    named = {"Track": found.tracks, "Vertex": found.vertices, "Muon": found.muons, "Dimuon": found.pairs}
    if single:
        named = {prefix: _narrow(of) for prefix, of in named.items()}
    return {name: values for prefix, of in named.items() for name, values in of.columns(prefix).items()}


def _narrow(of: Collection) -> Collection:
    """In single precision, where it is in double."""
    return Collection(of.counts, {name: _single(values) for name, values in of.flat.items()})


def _single(values: NDArray[Any]) -> NDArray[Any]:
    return values.astype(np.float32) if values.dtype == np.float64 else values
