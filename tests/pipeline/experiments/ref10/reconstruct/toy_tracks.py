"""Tracks as a fit would give them, drawn from the errors of the physics note's table; no detector, no search.

Vertices lie about a beam like that of the note's 9.2. Errors of d0, z0 and momentum are those of the table; of
direction, those of scattering in the beam pipe and the first layer, of which d0 and z0 know.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.experiments.collisions import Collection
from pipeline.experiments.ref10.reconstruct.helix import CURVATURE_GEV, PARAMETERS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

UM = 1e-4
TESLA = 3.8
BEAM = np.array([0.08, -0.04, 0.5])
SLOPES = np.array([2e-4, -1e-4])
WIDTHS = np.array([15 * UM, 15 * UM, 4.0])

PT = np.array([0.5, 1, 2, 5, 10, 20, 45, 100])
D0_UM = np.array([106, 55, 31, 17.7, 13.3, 11.0, 10.1, 9.9])
Z0_UM = np.array([115, 70, 48, 36, 33, 33, 32.5, 32.5])
PT_PERCENT = np.array([0.63, 0.63, 0.64, 0.67, 0.71, 0.85, 1.36, 2.71])
DIRECTION = 2.1e-3
"""rad GeV: scattering in 2.4 % of a radiation length"""
CORRELATED = -0.5
"""of d0 with phi and of z0 with cot_theta"""


def of_table(values: Floats, pt: Floats) -> Floats:
    """Between the table's rows, in the logarithms."""
    return np.exp(np.interp(np.log(pt), np.log(PT), np.log(values)))


def covariances(pt: Floats, curvature: Floats) -> Floats:
    """[n, 5, 5], in the order of PARAMETERS."""
    rho = np.abs(curvature) * 0.01 * of_table(PT_PERCENT, pt)
    angle = np.hypot(DIRECTION / pt, 1e-4)
    d0, z0 = of_table(D0_UM, pt) * UM, of_table(Z0_UM, pt) * UM
    found = np.zeros((len(pt), 5, 5))
    for a, error in enumerate((rho, angle, d0, z0, angle)):
        found[:, a, a] = error**2
    for a, b, errors in ((1, 2, angle * d0), (3, 4, angle * z0)):
        found[:, a, b] = found[:, b, a] = CORRELATED * errors
    return found


def helices(place: Floats, pt: Floats, phi: Floats, cot: Floats, charge: Floats) -> Floats:
    """Parameters [n, 5] about the z axis of tracks from places [n, 3], exact, by the circle's centre."""
    rho = charge * CURVATURE_GEV * TESLA / pt
    centre = place[:, :2] + np.stack([np.sin(phi), -np.cos(phi)], axis=1) / rho[:, None]
    far = np.hypot(*centre.T)
    # The direction at the closest approach is across the line to the centre.
    sign = np.sign(rho)
    begun = np.arctan2(sign * centre[:, 0], -sign * centre[:, 1])
    d0 = sign * far - 1 / rho
    way = -((phi - begun + np.pi) % (2 * np.pi) - np.pi) / rho
    return np.stack([rho, begun, d0, place[:, 2] - cot * way, cot], axis=1)


def measured(counts: Ints, truth: Floats, pt: Floats, rng: np.random.Generator) -> Collection:
    """Tracks with errors drawn."""
    spread = covariances(pt, truth[:, 0])
    found = truth + np.einsum("nab,nb->na", np.linalg.cholesky(spread), rng.normal(size=truth.shape))
    return collection(counts, found, spread)


def collection(counts: Ints, found: Floats, spread: Floats) -> Collection:
    """Tracks of these parameters [n, 5] and covariances [n, 5, 5], as `tracks.fit_tracks` has them."""
    flat = {name: found[:, a] for a, name in enumerate(PARAMETERS)}
    flat |= {f"cov_{PARAMETERS[a]}_{PARAMETERS[b]}": spread[:, a, b] for a in range(5) for b in range(a, 5)}
    flat["pt"] = np.minimum(CURVATURE_GEV * TESLA / np.maximum(np.abs(found[:, 0]), 1e-12), 1e4)
    flat["charge"] = np.sign(found[:, 0]).astype(np.int8)
    flat["flags"] = np.zeros(len(found), np.uint8)
    return Collection(np.asarray(counts, np.int64), flat)


def soft(rng: np.random.Generator, number: int, least: float = 0.4) -> Floats:
    """pT of minimum bias above something."""
    found = np.empty(0)
    while len(found) < number:
        scale = np.where(rng.random(2 * number) < 0.05, 2.0, 0.5)
        pt = 0.3 + rng.exponential(scale)
        found = np.append(found, pt[pt > least])
    return found[:number]


def places(rng: np.random.Generator, number: int) -> Floats:
    """Of vertices, [n, 3]."""
    found = BEAM + WIDTHS * rng.normal(size=(number, 3))
    found[:, :2] += SLOPES * (found[:, 2:] - BEAM[2])
    return found


def from_places(rng: np.random.Generator, counts: Ints, place: Floats, pt: Floats) -> Collection:
    """Tracks in all directions, from a place [n, 3] each."""
    number = len(place)
    phi, eta = rng.uniform(-np.pi, np.pi, number), rng.uniform(-1, 1, number)
    charge = rng.choice([-1.0, 1.0], number)
    return measured(counts, helices(place, pt, phi, np.sinh(eta), charge), pt, rng)


@dataclass(frozen=True, eq=False)
class PiledUp:
    """Events of several vertices."""

    tracks: Collection
    vertex: Ints
    """that each track is of, among all"""
    event: Ints
    """of each vertex"""
    place: Floats
    """of each vertex, [n, 3]"""


def piled_up(rng: np.random.Generator, events: int, pile_up: float) -> PiledUp:
    """1 + Poisson(pile_up) vertices of 10 tracks on average (negative binomial, k = 2), those above 0.4 GeV found."""
    vertices = 1 + rng.poisson(pile_up, events)
    event = np.repeat(np.arange(events), vertices)
    of = rng.poisson(rng.gamma(2.0, 10 * 0.81 / 2.0, len(event)))
    vertex = np.repeat(np.arange(len(event)), of)
    # Pattern recognition leaves tracks in no order.
    vertex = vertex[np.lexsort((rng.random(len(vertex)), event[vertex]))]
    place = places(rng, len(event))
    counts = np.bincount(event[vertex], minlength=events)
    return PiledUp(from_places(rng, counts, place[vertex], soft(rng, len(vertex))), vertex, event, place)


def single(rng: np.random.Generator, vertices: int, each: int, least: float = 1.0) -> tuple[Collection, Floats]:
    """An event for each vertex; and the places."""
    place = places(rng, vertices)
    counts = np.full(vertices, each)
    return from_places(rng, counts, np.repeat(place, each, axis=0), soft(rng, vertices * each, least)), place
