"""Toys of the beam spot: from tracks, from vertices, and from pairs of tracks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import awkward as ak
import numpy as np

from benchmarks._calibration_toys import Floats, Found, Quantity, Subject, Toys, alike
from benchmarks._toys_beamspot import DISPLACED, UM, Beam, Detector, collisions
from calib.algorithms.beamspot import BeamSpot
from calib.algorithms.beamspot_pairs import BASIS
from calib.algorithms.beamspot_payload import PARAMETERS
from calib.algorithms.beamspot_tracks import REACH
from calib.payload import Payload

BEAM = Beam()
NOTED = Detector(tracks=1, alike=True, constant=11 * UM, over_pt=54 * UM)
"""sigma of d0 as REF10 has it (physics note, 9.1): with pT = 1 + Exp(1) GeV the effective width of its 10"""
NO_TRACKS = Detector(tracks=2, alike=True, displaced=0.0)
DOZEN = Detector(tracks=12, alike=True)
URAD = 1e-6
AT = (100, 1000, 10_000)
LOOKED_AT = 5000
"""vertices that tell what pairs are expected to do"""
NOTE_VERTEX, NOTE_WIDTH = (2.8, 1.0, 0.29), (4.2, 1.04, 0.31)
"""um, at these numbers of vertices"""


def payloads(calibration: BeamSpot, columns: dict[str, Any]) -> Iterator[Payload]:
    """Of each lumisection."""
    state = calibration.accumulate(columns, {})
    for unit in state.units():
        yield calibration.finalize(state.select(np.array([unit])), None)


def drawn(rng: np.random.Generator, toys: int, events: int, detector: Detector) -> dict[str, Any]:
    """A lumisection a toy."""
    return collisions(rng, [(1, lumi) for lumi in range(1, toys + 1)], [BEAM] * toys, events, detector)


def without(columns: dict[str, Any], start: str) -> dict[str, Any]:
    return {name: values for name, values in columns.items() if not name.startswith(start)}


def flat(columns: dict[str, Any], name: str) -> Floats:
    return np.asarray(ak.flatten(columns[name]), np.float64)


# Tracks. --------------------------------------------------------------------------------------------------------------


def tracks(rng: np.random.Generator, size: int, small: bool) -> Found:
    """So many tracks, each of a vertex of its own."""
    toys = 4 if small else 300
    columns = without(drawn(rng, toys, size, NOTED), "vertex_")
    rows = []
    for payload in payloads(BeamSpot(keep_tracks=2 * size, min_tracks=size // 2), columns):
        value, error = ({name: float(payload[f"{name}{of}"]) for name in PARAMETERS} for of in ("", "_error"))
        lever = value["z"] - BEAM.z
        off = [value["x"] - BEAM.x - BEAM.dxdz * lever, value["y"] - BEAM.y - BEAM.dydz * lever]
        off += [value["dxdz"] - BEAM.dxdz, value["dydz"] - BEAM.dydz]
        rows.append((off, [error[name] for name in ("x", "y", "dxdz", "dydz")]))
    off, error = np.array(rows).swapaxes(0, 1) / [UM, UM, URAD, URAD]
    bound = line_bound(columns, size) / [UM, URAD]
    # sqrt(2 / N) times the effective 37 um, and that over the length of the beam.
    expected = np.sqrt(2 / size) * 37 * np.array([1, UM / BEAM.sigma_z / URAD])
    return Found(
        {
            name: Toys(size, off[:, part].ravel(), error[:, part].ravel(), bound[place], expected[place])
            for place, (name, part) in enumerate((("x, y", slice(2)), ("dx/dz, dy/dz", slice(2, 4))))
        }
    )


def line_bound(columns: dict[str, Any], size: int) -> Floats:
    """Of a place and of a slope, from the information that tracks have of the line; displaced ones have none."""
    phi, error = flat(columns, "track_phi"), flat(columns, "track_d0_error")
    lever = flat(columns, "track_z0") - BEAM.z
    across = np.stack([np.sin(phi), -np.cos(phi)])
    rows = np.concatenate([across, across * lever]) / np.hypot(error, BEAM.width)
    information = rows @ rows.T / len(phi) * size * (1 - NOTED.displaced)
    variance = np.diag(np.linalg.inv(information))
    return np.sqrt([variance[:2].mean(), variance[2:].mean()])


# Vertices. ------------------------------------------------------------------------------------------------------------


def region_off(rng: np.random.Generator, size: int, toys: int) -> tuple[Floats, Floats, Floats]:
    """Found less true, and errors, of what vertices say [toys, 8] (by PARAMETERS); and bounds [8]."""
    columns = drawn(rng, toys, round(size / 0.9), NO_TRACKS)
    truth = np.array([getattr(BEAM, name) for name in PARAMETERS[:6]] + [BEAM.width] * 2)
    calibration = BeamSpot(keep_vertices=2 * size, keep_tracks=200, min_vertices=30)
    rows = []
    for payload in payloads(calibration, columns):
        off = payload["vertex_values"] - truth
        lever = off[2]
        off[:2] -= truth[4:6] * lever
        rows.append((off, np.sqrt(np.diag(payload["vertex_covariance"]))))
    off, error = np.array(rows).swapaxes(0, 1)
    return off, error, region_bound(columns, size)


def region_bound(columns: dict[str, Any], size: int) -> Floats:
    """By PARAMETERS, from Fisher's information (physics note, 1.8) at the truth."""
    variance = np.stack([flat(columns, f"vertex_{axis}_error") for axis in "xyz"], axis=1) ** 2
    along = np.array([BEAM.dxdz, BEAM.dydz, 1.0])
    region = BEAM.sigma_z**2 * np.outer(along, along) + np.diag([BEAM.width**2, BEAM.width**2, 0.0])
    weight = np.linalg.inv(variance[:, :, None] * np.eye(3) + region)
    change = np.zeros((6, 3, 3))
    change[0] = 2 * BEAM.sigma_z * np.outer(along, along)
    for axis in range(2):
        change[1 + axis, axis, :] += BEAM.sigma_z**2 * along
        change[1 + axis, :, axis] += BEAM.sigma_z**2 * along
        change[3 + axis, axis, axis] = 2 * BEAM.width
    change[5, 0, 1] = change[5, 1, 0] = 1
    turned = np.einsum("nij,ajk->naik", weight, change)
    spread = 0.5 * np.einsum("naij,nbji->ab", turned, turned) / len(weight)
    place = np.linalg.inv(weight.mean(axis=0))
    # At the z that is found: what a move in z does to x and y along the slope is no error.
    place = np.linalg.inv(np.linalg.inv(place)[:2, :2])
    every = np.concatenate([np.diag(place), [BEAM.sigma_z**2], np.diag(np.linalg.inv(spread))[:5]])
    return np.sqrt(every / size)


def vertices(rng: np.random.Generator, size: int, small: bool) -> Found:
    """So many vertices, on average."""
    toys = 3 if small else 300
    off, error, bound = region_off(rng, size, toys)
    known = np.isfinite(off).all(axis=1)
    again = off if small else region_off(rng, size, toys)[0]
    again = again[np.isfinite(again).all(axis=1)]

    def one(part: slice, unit: float, expected: float, *, corrected: bool = False) -> Toys:
        seen, claimed = (values[known][:, part].ravel() / unit for values in (off, error))
        own = float(np.sqrt(np.mean(bound[part] ** 2))) / unit
        before, bias_error, bias = None, 0.0, 0.0
        if corrected:
            simulated, before = again[:, part].ravel() / unit, seen
            bias, bias_error = simulated.mean(), float(simulated.std() / np.sqrt(len(simulated)))
        kept = int(np.count_nonzero(~known))
        return Toys(size, seen - bias, alike(claimed), own, expected, before, bias_error, kept)

    note = [float(np.exp(np.interp(np.log(size), np.log(AT), np.log(of)))) for of in (NOTE_VERTEX, NOTE_WIDTH)]
    root = np.sqrt(size)
    return Found(
        {
            "x, y": one(slice(2), UM, note[0]),
            "widths": one(slice(6, 8), UM, note[1], corrected=True),
            "length": one(slice(3, 4), 0.1, 10 * BEAM.sigma_z / np.sqrt(2) / root, corrected=True),
            "slopes": one(slice(4, 6), URAD, np.hypot(15, 25) * UM / BEAM.sigma_z / URAD / root),
        }
    )


# Pairs. ---------------------------------------------------------------------------------------------------------------


def pairs(rng: np.random.Generator, size: int, small: bool) -> Found:
    """So many vertices of twelve tracks."""
    toys = 3 if small else 300
    off, error, (bound, expected) = pairs_off(rng, size, toys)
    again = off if small else pairs_off(rng, size, toys)[0]

    def one(place: int, part: slice, *, corrected: bool) -> Toys:
        seen, simulated = (values[:, part].ravel() for values in (off, again))
        before, bias, bias_error = None, 0.0, 0.0
        if corrected:
            before, bias, bias_error = seen, simulated.mean(), float(simulated.std() / np.sqrt(len(simulated)))
        claimed = alike(error[:, part].ravel())
        return Toys(size, seen - bias, claimed, bound[place], expected[place], before, bias_error)

    return Found({"variances": one(0, slice(2), corrected=True), "covariance": one(1, slice(2, 3), corrected=False)})


def pairs_off(rng: np.random.Generator, size: int, toys: int) -> tuple[Floats, Floats, tuple[Floats, Floats]]:
    """Found less true, and errors, of both variances and the covariance [toys, 3 in um^2]; of a variance and of the
    covariance the bounds, and what is expected."""
    columns = without(drawn(rng, toys, size, DOZEN), "vertex_")
    columns["track_vertex"] = ak.values_astype(ak.zeros_like(columns["track_pt"]), np.int32)
    names, rows = ("pair_variance_x", "pair_variance_y", "pair_xy"), []
    for payload in payloads(BeamSpot(keep_tracks=13 * size, min_vertices=30), columns):
        rows.append([[float(payload[f"{name}{of}"]) for name in names] for of in ("", "_error")])
    found, error = np.array(rows).swapaxes(0, 1) / UM**2
    both = pair_bound(columns, size), pair_errors(columns, size)
    return found - np.array([BEAM.width**2, BEAM.width**2, 0.0]) / UM**2, error, both


def pair_bound(columns: dict[str, Any], size: int) -> Floats:
    """Of a variance and of the covariance [um^2], from the information that vertices of these tracks have of them were
    the resolution known."""
    phi, error = (flat(columns, f"track_{name}").reshape(-1, DOZEN.tracks) for name in ("phi", "d0_error"))
    across = np.stack([np.sin(phi), -np.cos(phi)], axis=-1)
    place = np.einsum("nta,ntb,nt->nab", across, across, (1 - DOZEN.displaced) / error**2)
    variance = np.linalg.inv(place)
    weight = np.linalg.inv(variance + BEAM.width**2 * np.eye(2))
    turned = np.einsum("nij,ajk->naik", weight, BASIS)
    information = 0.5 * np.einsum("naij,nbji->ab", turned, turned) / len(weight) * size
    found = np.diag(np.linalg.inv(information))
    return np.sqrt([found[:2].mean(), found[2]]) / UM**2


def pair_errors(columns: dict[str, Any], size: int) -> Floats:
    """Of a variance and of the covariance [um^2], what an estimate by pairs has, worked out for these tracks.

    d = g.u + e of the tracks of a vertex; V is fitted to the products d_i d_j, i < j, of which each has the weights of
    its tracks and of its vertex. A sum Q_k = sum_ij A_ij d_i d_j with A_ii = 0, A = w_i w_j g_i B_k g_j, has

        cov(Q_k, Q_l) = 2 tr(A_k S A_l S),  S = <d d^T> = g V g^T + diag <e^2>

    exactly, whatever is the distribution of e: fourth moments would come with A_ii only. With normal matrices H the
    covariance is then H^-1 (sum w_v^2 cov) H^-1. In e^2 are displaced tracks that pass by within the cut of the kernel:
    as Laplace's density is even over it, their share is cut over 1 mm, and their variance a third of the cut's square.
    """
    names = ("d0", "phi", "d0_error", "z0")
    d0, phi, error, z0 = (flat(columns, f"track_{name}").reshape(-1, DOZEN.tracks)[:LOOKED_AT] for name in names)
    across, lever = np.stack([np.sin(phi), -np.cos(phi)], axis=-1), z0 - BEAM.z
    about = d0 - across[..., 0] * (BEAM.x + BEAM.dxdz * lever) - across[..., 1] * (BEAM.y + BEAM.dydz * lever)
    cut = REACH * np.hypot(error, BEAM.width)
    weight = (np.abs(about) < cut) / (error**2 + BEAM.width**2)
    passing = DOZEN.displaced * cut / DISPLACED
    noise = ((1 - DOZEN.displaced) * error**2 + passing * cut**2 / 3) / (1 - DOZEN.displaced + passing)
    others = weight[:, :, None] * weight[:, None, :] * (1 - np.eye(DOZEN.tracks))
    turned = np.einsum("nta,kab,nub->kntu", across, BASIS, across)
    own = BEAM.width**2 * (turned[0] + turned[1]) + noise[:, :, None] * np.eye(DOZEN.tracks)
    of_vertex = (1 + BEAM.width**2 * weight.sum(axis=1) / 2) ** -2
    moved = np.matmul(others * turned, own)
    spread = 2 * np.einsum("kntu,lnut,n->kl", moved, moved, of_vertex**2)
    inverse = np.linalg.inv(np.einsum("kntu,ntu,lntu,n->kl", turned, others, turned, of_vertex))
    found = np.diag(inverse @ spread @ inverse) * len(d0) / size
    return np.sqrt([found[:2].mean(), found[2]]) / UM**2


WIDTH_10 = "physics note, 10"
PAIRS_NOTE = (
    "the variance of pairs of these tracks, worked out: cov = 2 tr(A S A S), S = <d d^T>, A the weights, A_ii = 0. "
    f"{WIDTH_10} has (sb^2 + sv^2) sqrt(2/N), as of a likelihood with the resolution known. For a dozen tracks it is "
    "5 % more without the squares of single tracks, and 2 % more with displaced tracks that pass by chance. The "
    "kernel's own claim is not used"
)
SUBJECTS = (
    Subject(
        "beamspot, tracks",
        "The line of the beam from impact parameters: position and slopes, and how far tracks scatter about it. A "
        "straight line through d0 against phi and z0, in which tracks far off lose their weight (Tukey's biweight).",
        {
            "beam": "at (800, -400) um, 15 um wide, 4 cm long, slopes 200 and -100 urad",
            "tracks": "pT = 1 + Exp(1) GeV, one a vertex, sigma(d0) = 11 um and 54 um GeV / pT, 3 % displaced by 1 mm",
            "calibration": "as it comes, but for keep_tracks = 2 N and min_tracks = N / 2",
        },
        (
            Quantity("x, y", "um", "tracks", "information of the toy's tracks", f"{WIDTH_10}: sqrt(2/N) x 37 um"),
            Quantity(
                "dx/dz, dy/dz", "urad", "tracks", "information of the toy's tracks", f"{WIDTH_10}: the same over 4 cm"
            ),
        ),
        (100, 300, 1000, 3000),
        (100, 200),
        tracks,
    ),
    Subject(
        "beamspot, vertices",
        "The luminous region from primary vertices: place, widths, length and tilt, with the resolution of each vertex "
        "unfolded. A likelihood in three dimensions, maximised by Fisher scoring.",
        {
            "beam": "15 um wide, 4 cm long, slopes 200 and -100 urad",
            "vertices": "sigma = 25 um x lognormal(0.4) in x and y, 1.4 times that in z",
            "calibration": "min_vertices = 30, so that the bias of few is seen",
            "bias": "of widths and length: taken off as found by as many toys drawn independently",
        },
        (
            Quantity("x, y", "um", "vertices", "Fisher's information at the truth", f"{WIDTH_10}: toys"),
            Quantity("widths", "um", "vertices", "Fisher's information at the truth", f"{WIDTH_10}: toys"),
            Quantity("length", "mm", "vertices", "Fisher's information at the truth", f"{WIDTH_10}: 4 cm / sqrt(2N)"),
            Quantity(
                "slopes", "urad", "vertices", "Fisher's information at the truth", f"{WIDTH_10}: 29 um / (4 cm sqrt(N))"
            ),
        ),
        (100, 300, 1000, 2000),
        (100, 200),
        vertices,
    ),
    Subject(
        "beamspot, pairs of tracks",
        "The widths again, from pairs of tracks of a vertex, whose resolutions are independent: so no model of them is "
        "needed. A linear fit to products of impact parameters.",
        {
            "beam": "15 um wide: variances of 225 um^2, no covariance",
            "tracks": "twelve a vertex, pT = 1 + Exp(1) GeV, sigma(d0) = 10 um and 40 um GeV / pT, 3 % displaced",
            "calibration": "as it comes, but for min_vertices = 30",
            "pulls": "by the root mean square of the errors, which go with the variances",
            "bias": "of variances, nearly one per cent: a displaced track that passes near the beam by chance has "
            "nothing to do with its vertex; taken off as found by as many toys drawn independently",
        },
        (
            Quantity(
                "variances",
                "um^2",
                "vertices",
                "information of vertices of these tracks, were their resolution known",
                PAIRS_NOTE,
                300,
            ),
            Quantity(
                "covariance",
                "um^2",
                "vertices",
                "information of vertices of these tracks, were their resolution known",
                "worked out in the same way",
                300,
            ),
        ),
        (100, 300, 1000),
        (40, 100),
        pairs,
    ),
)
