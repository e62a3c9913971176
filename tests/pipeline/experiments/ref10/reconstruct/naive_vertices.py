"""Vertices and pairs of muons in plain loops, an event and a track at a time, with matrices; to compare with."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from pipeline.experiments.collisions import Collection
from pipeline.experiments.ref10.reconstruct.helix import PARAMETERS
from pipeline.experiments.ref10.reconstruct.vertex_clusters import Separation

MUON = 0.105658
PIPE = np.diag([1.0, 1.0, 1e-4])


class NaiveTrack:
    """One track of an event, about a point when told."""

    def __init__(self, tracks: Collection, place: int) -> None:
        self.rho, self.phi, self.d0, self.z0, self.cot = (float(tracks.flat[name][place]) for name in PARAMETERS)
        self.pt, self.flags = float(tracks.flat["pt"][place]), int(tracks.flat["flags"][place])
        self.charge = int(tracks.flat["charge"][place])
        self.cov = np.empty((5, 5))
        for a in range(5):
            for b in range(a, 5):
                value = tracks.flat[f"cov_{PARAMETERS[a]}_{PARAMETERS[b]}"][place]
                self.cov[a, b] = self.cov[b, a] = value

    def move(self, x: float, y: float) -> None:
        t, n = np.array([np.cos(self.phi), np.sin(self.phi)]), np.array([np.sin(self.phi), -np.cos(self.phi)])
        along, across = float(t @ [x, y]), float(n @ [x, y])
        self.near = np.array([self.d0 - across + self.rho * along**2 / 2, self.z0 + self.cot * along])
        self.turned = self.phi - self.rho * along
        slopes = np.array([[along**2 / 2, -along, 1, 0, 0], [0, -self.cot * across, 0, 1, along]])
        self.spread = slopes @ self.cov @ slopes.T
        # ln pT, direction and cot of the polar angle there.
        turn = np.array([[-1 / self.rho, 0, 0, 0, 0], [-along, 1, 0, 0, 0], [0, 0, 0, 0, 1]])
        self.momentum_spread = turn @ self.cov @ turn.T
        sine, cosine = np.sin(self.turned), np.cos(self.turned)
        self.rows = np.array([[sine, -cosine, 0], [-cosine * self.cot, -sine * self.cot, 1]])

    def chi2(self, place: np.ndarray) -> float:
        off = self.near - self.rows @ place
        return float(off @ np.linalg.inv(self.spread) @ off)


def centre_of(tracks: list[NaiveTrack]) -> tuple[float, float]:
    found = np.zeros(2)
    for turn in range(4):
        matrix, right = np.diag([100.0, 100.0]), np.zeros(2)
        for track in tracks:
            row, weight = np.array([np.sin(track.phi), -np.cos(track.phi)]), 1 / (track.cov[2, 2] + 1e-4)
            if turn:
                weight /= 1 + weight * (track.d0 - row @ found) ** 2
            matrix += weight * np.outer(row, row)
            right += weight * row * track.d0
        found = np.linalg.solve(matrix, right)
    return float(found[0]), float(found[1])


def clusters_of(z: list[float], error: list[float], separation: Separation) -> list[list[int]]:
    """Lists of places, along the beam."""
    order = sorted(range(len(z)), key=lambda i: (z[i], i))
    parts: list[list[int]] = []
    for i in order:
        gap = separation.gap
        if parts:
            gap = max(gap, separation.sigmas * max(error[i], error[parts[-1][-1]]))
        if not parts or z[i] - z[parts[-1][-1]] > gap:
            parts.append([])
        parts[-1].append(i)
    return [piece for part in parts for piece in split(part, z, error, separation)]


def split(part: list[int], z: list[float], error: list[float], separation: Separation) -> list[list[int]]:
    """By the best cut that is good enough, and each half again."""
    weight = [round((1000 / max(error[i] / 1e-4, 20.0)) ** 2) for i in part]
    place = [round((z[i] - z[part[0]]) / 1e-4) for i in part]
    whole = spread_of(weight, place)
    best, where = -1.0, 0
    for cut in range(1, len(part)):
        left, right = spread_of(weight[:cut], place[:cut]), spread_of(weight[cut:], place[cut:])
        gain = float(whole - left - right) / 1e6
        if gain > best * (1 + 1e-12):
            best, where = gain, cut
    if not where or best <= separation.gain + separation.gain_per_track * len(part):
        return [part]
    return [*split(part[:where], z, error, separation), *split(part[where:], z, error, separation)]


def spread_of(weight: list[int], place: list[int]) -> Fraction:
    """Sum of w (z - mean)^2, exactly."""
    total, moment, square = (sum(w * z**power for w, z in zip(weight, place, strict=True)) for power in range(3))
    return Fraction(total * square - moment**2, total) if total else Fraction(0)


def adaptive(tracks: list[NaiveTrack], information: np.ndarray, middle: np.ndarray):
    """Place, covariance, weights and chi2 of one vertex; the prior is N(middle, information^-1)."""
    weights = [1.0] * len(tracks)
    place, cov = least_squares(tracks, weights, information, middle)
    temperature, steps = 256.0, 0
    while steps < 12:
        weights = []
        for track in tracks:
            with np.errstate(over="ignore"):
                weights.append(float(1 / (1 + np.exp(np.float64(track.chi2(place) - 9) / 2 / temperature))))
        place, cov = least_squares(tracks, weights, information, middle)
        temperature = 1 + (temperature - 1) / 4 if temperature > 1.02 else temperature
        steps += 1
    return place, cov, weights, sum(w * track.chi2(place) for w, track in zip(weights, tracks, strict=True))


def least_squares(tracks: list[NaiveTrack], weights: list[float], information: np.ndarray, middle: np.ndarray):
    matrix, right = information.copy(), information @ middle
    for track, weight in zip(tracks, weights, strict=True):
        inverse = weight * np.linalg.inv(track.spread)
        matrix += track.rows.T @ inverse @ track.rows
        right += track.rows.T @ inverse @ track.near
    return np.linalg.solve(matrix, right), np.linalg.inv(matrix)


def naive_vertices(tracks: list[NaiveTrack], beam: dict[str, float] | None, separation: Separation) -> list[dict]:
    """Of one event, the best first: place, covariance, chi2, ndf, members and weights, with and without the beam."""
    used = [i for i, track in enumerate(tracks) if not track.flags & (1 | 2 | 4 | 8)]
    x, y = centre_of([tracks[i] for i in used])
    for track in tracks:
        track.move(x, y)
    z, error = [float(tracks[i].near[1]) for i in used], [float(np.sqrt(tracks[i].spread[1, 1])) for i in used]
    found = []
    for cluster in clusters_of(z, error, separation):
        # In the order of the event.
        members = sorted(used[i] for i in cluster)
        own, origin = [tracks[i] for i in members], np.array([x, y, 0.0])
        place, cov, weights, chi2 = adaptive(own, PIPE, -origin)
        vertex = {"place": place + origin, "cov": cov, "chi2": chi2, "ndf": 2 * sum(weights) - 3}
        vertex |= {"members": members, "weights": weights}
        vertex["loose"] = sum(w > 1e-3 for w in weights) < 2 or cov[0, 0] + cov[1, 1] > 0.01
        vertex["sum_pt2"] = sum(min(t.pt, 100.0) ** 2 for t, w in zip(own, weights, strict=True) if w > 0.5)
        if beam is not None:
            slopes = np.array([[1, 0, -beam["dxdz"]], [0, 1, -beam["dydz"]], [0, 0, 1]])
            widths = np.diag([beam["width_x"], beam["width_y"], beam["sigma_z"]]) ** 2
            # N(0, widths) along the line, turned into space.
            turned = np.linalg.inv(slopes)
            information = np.linalg.inv(turned @ widths @ turned.T)
            middle = np.array([beam["x"], beam["y"], beam["z"]])
            both = np.linalg.solve(PIPE + information, information @ middle)
            place, cov, weights, chi2 = adaptive(own, PIPE + information, both - origin)
            off = place + origin - middle
            vertex["constrained"] = {"place": place + origin, "cov": cov, "chi2": chi2 + off @ information @ off}
            vertex["constrained"]["ndf"] = 2 * sum(weights)
        found.append(vertex)
    return sorted(found, key=lambda vertex: (vertex["loose"], -vertex["sum_pt2"], vertex["place"][2]))


def momentum(track: NaiveTrack, shift: np.ndarray) -> np.ndarray:
    """Energy and momentum with (ln pT, phi, cot_theta) shifted."""
    pt, phi, cot = track.pt * np.exp(shift[0]), track.turned + shift[1], track.cot + shift[2]
    p = np.array([pt * np.cos(phi), pt * np.sin(phi), pt * cot])
    return np.array([np.sqrt(p @ p + MUON**2), *p])


def mass(one: np.ndarray, other: np.ndarray) -> float:
    total = one + other
    return float(np.sqrt(total[0] ** 2 - total[1:] @ total[1:]))


def mass_and_error(one: NaiveTrack, other: NaiveTrack) -> tuple[float, float]:
    """Of tracks moved to their vertex; the error from differences."""
    still, variance = np.zeros(3), 0.0
    central = mass(momentum(one, still), momentum(other, still))
    for track, partner in ((one, other), (other, one)):
        slopes = np.empty(3)
        for i, step in enumerate(np.eye(3) * 1e-5):
            sides = [mass(momentum(track, sign * step), momentum(partner, still)) for sign in (1, -1)]
            slopes[i] = (sides[0] - sides[1]) / 2e-5
        variance += float(slopes @ track.momentum_spread @ slopes)
    return central, float(np.sqrt(variance))
