"""The search for tracks in plain loops, one event and one hit at a time, with matrices; to compare with."""

from __future__ import annotations

from itertools import product

import numpy as np

from pipeline.experiments.collisions import Collection
from pipeline.experiments.ref10.reconstruct.flags import ClusterFlag
from pipeline.experiments.ref10.reconstruct.search import Search
from tests.pipeline.experiments.ref10.reconstruct.hits_by_hand import FRAMES
from tests.pipeline.experiments.ref10.reconstruct.raw import PLAN

ROUNDS = (((1, 2, 3),), ((1, 2, 3), (2, 3, 4), (1, 3, 4), (1, 2, 4)))
LAYERS = range(1, 11)


def half_turn(angle: float) -> float:
    return float((angle + np.pi) % (2 * np.pi) - np.pi)


class NaiveHit:
    """One hit of an event, by its place among the event's clusters."""

    def __init__(self, clusters: Collection, place: int, start: int) -> None:
        values = {name: float(clusters.flat[name][place]) for name in ("x", "y", "z", "u_error", "v_error")}
        self.x, self.y, self.z, self.u_error, self.v_error = values.values()
        row = int(PLAN.index(clusters.flat["module"][place : place + 1])[0])
        self.place, self.layer, self.pixel = place - start, int(PLAN.layer[row]), bool(PLAN.pixel[row])
        self.half_length = float(PLAN.length[row]) / 2
        v = FRAMES.v[row]
        self.lean = np.zeros(2) if self.pixel else v[:2] / v[2]
        self.r, self.phi = float(np.hypot(self.x, self.y)), float(np.arctan2(self.y, self.x))


class NaiveTrack:
    """Parameters (phi, curvature, d0) and (z0, cot_theta) with covariance matrices."""

    def __init__(self, hits: list[NaiveHit], search: Search) -> None:
        self.search, self.hits, self.chi2 = search, {}, 0.0
        points = [np.array([hit.x, hit.y]) for hit in hits]
        self.circle = circle_through(*points)
        way = [self.way(hit.r) for hit in hits]
        cot = (hits[2].z - hits[0].z) / (way[2] - way[0])
        self.line = np.array([hits[0].z - cot * way[0], cot])
        self.cov, self.line_cov = np.diag([1.0, 1e-2, 1.0]), np.diag([1e4, 1e2])

    def sine(self, r: float) -> float:
        _, rho, d = self.circle
        return float((rho * r * r / 2 + rho * d * d / 2 + d) / ((1 + rho * d) * r))

    def azimuth(self, r: float) -> tuple[float, np.ndarray]:
        """And its gradient, by differences from one side and the other."""
        gradient, here = [], self.circle
        for step in np.diag([1e-6, 1e-7, 1e-6]):
            sides = []
            for side in (here + step, here - step):
                self.circle = side
                sides.append(side[0] - np.arcsin(self.sine(r)))
            gradient.append((sides[0] - sides[1]) / (2 * step.sum()))
        self.circle = here
        return float(here[0] - np.arcsin(self.sine(r))), np.array(gradient)

    def way(self, r: float) -> float:
        """Along the circle, from its centre."""
        _, rho, d = self.circle
        if abs(rho) < 1e-7:
            return float(np.sqrt(r * r - d * d))
        cosine = ((1 / rho) ** 2 + (1 / rho + d) ** 2 - r * r) / (2 / rho * (1 / rho + d))
        return float(np.arccos(np.clip(cosine, -1, 1)) / abs(rho))

    def against(self, hit: NaiveHit) -> dict:
        """Residuals of a hit and what goes with them."""
        way = self.way(hit.r)
        z, slope = self.line[0] + self.line[1] * way, np.array([1.0, way])
        z_variance = slope @ self.line_cov @ slope
        point = np.array([hit.x, hit.y]) + hit.lean * (z - hit.z)
        r = float(np.hypot(*point))
        azimuth, gradient = self.azimuth(r)
        variance = (
            gradient @ self.cov @ gradient
            + (hit.u_error**2 + self.search.placed**2 + hit.lean @ hit.lean * z_variance) / r**2
        )
        turn, off = half_turn(np.arctan2(point[1], point[0]) - azimuth), hit.z - z
        found = {"r": r, "turn": turn, "gradient": gradient, "variance": variance, "off": off, "slope": slope}
        if hit.pixel:
            found |= {"z_variance": z_variance + hit.v_error**2 + self.search.placed**2}
            return found | {"beyond": abs(off) / np.sqrt(found["z_variance"])}
        return found | {"beyond": max(abs(off) - hit.half_length, 0) / np.sqrt(z_variance)}

    def fits(self, found: dict, *, seed: bool = False) -> bool:
        near = seed or found["turn"] ** 2 <= self.search.sigmas**2 * found["variance"]
        return near and found["beyond"] <= self.search.sigmas

    def chi2_of(self, hit: NaiveHit, found: dict) -> float:
        along = found["off"] ** 2 / found["z_variance"] if hit.pixel else 0.0
        return found["turn"] ** 2 / found["variance"] + along

    def take(self, hit: NaiveHit, found: dict) -> None:
        self.hits[hit.layer] = hit
        self.chi2 += self.chi2_of(hit, found)
        gain = self.cov @ found["gradient"] / found["variance"]
        self.circle = self.circle + gain * found["turn"]
        self.cov = self.cov - np.outer(gain, found["gradient"] @ self.cov)
        if hit.pixel:
            gain = self.line_cov @ found["slope"] / found["z_variance"]
            self.line = self.line + gain * found["off"]
            self.line_cov = self.line_cov - np.outer(gain, found["slope"] @ self.line_cov)

    def scatter(self, layer: int, r: float, way: float) -> None:
        _, rho, d = self.circle
        sine = np.clip(self.sine(r), -1, 1)
        cosine = max(np.sqrt(1 - sine**2), 0.05)
        across = 1 + self.line[1] ** 2
        material = float(PLAN.x0[PLAN.layer == layer].max()) * np.sqrt(across) / cosine
        angle = 0.0136 * rho / self.search.stiffness * np.sqrt(material) * (1 + 0.038 * np.log(material))
        by_d0 = r * cosine / (1 + rho * d)
        # Such that the azimuth at r stays; its gradient there by d0, written out.
        by_phi = by_d0 * (1 + rho * d - rho * self.sine(r) * r) / ((1 + rho * d) * r * cosine)
        turned = np.array([by_phi, 0.0, by_d0])
        self.cov = self.cov + angle**2 * np.outer(turned, turned)
        lifted = np.array([-way, 1.0])
        self.line_cov = self.line_cov + angle**2 * across * np.outer(lifted, lifted)


def circle_through(first: np.ndarray, second: np.ndarray, third: np.ndarray) -> np.ndarray:
    """(phi, curvature, d0) of the circle through three points, from its centre."""
    matrix = 2 * np.array([second - first, third - first])
    centre = np.linalg.solve(matrix, [second @ second - first @ first, third @ third - first @ first])
    side = np.sign((second - first)[1] * (third - second)[0] - (second - first)[0] * (third - second)[1])
    rho = side / np.hypot(*(first - centre))
    # Clockwise the centre lies to the right: centre = (d + 1/rho) (sin phi, -cos phi).
    away = side * centre
    return np.array([np.arctan2(away[0], -away[1]), rho, side * np.hypot(*centre) - 1 / rho])


class NaiveSearch:
    """Of one event."""

    def __init__(self, clusters: Collection, event: int, search: Search) -> None:
        self.search = search
        start = int(clusters.counts[:event].sum())
        places = range(start, start + int(clusters.counts[event]))
        usable = [place for place in places if not clusters.flat["flags"][place] & ClusterFlag.LARGE]
        self.hits = [NaiveHit(clusters, place, start) for place in usable]

    def tracks(self) -> list[list[int]]:
        """The hits of each track by layer, -1 for none, the best track first."""
        kept = []
        for triplets in ROUNDS:
            seeds = [(seed, layers) for layers in triplets for seed in self.seeds(layers)]
            found = [track for seed in seeds if (track := self.follow(*seed))]
            kept += self.shared_out(found)
            used = {place for hits, _ in kept for place in hits}
            self.hits = [hit for hit in self.hits if hit.place not in used]
        return [hits for hits, _ in sorted(kept, key=rank)]

    def of(self, layer: int) -> list[NaiveHit]:
        return [hit for hit in self.hits if hit.layer == layer]

    def seeds(self, layers: tuple[int, int, int]) -> list[list[NaiveHit]]:
        return [list(seed) for seed in product(*map(self.of, layers)) if self.is_seed(*seed)]

    def is_seed(self, first: NaiveHit, second: NaiveHit, third: NaiveHit) -> bool:
        """A helix goes through; the windows before that throw away nothing that this would keep and follow."""
        search = self.search
        cot = (second.z - first.z) / (second.r - first.r)
        if abs(first.z - cot * first.r) > search.z0:
            return False
        if abs(half_turn(second.phi - first.phi)) > 0.5 or abs(half_turn(third.phi - second.phi)) > 0.5:
            return False
        try:
            _, rho, d = circle_through(*(np.array([hit.x, hit.y]) for hit in (first, second, third)))
        except np.linalg.LinAlgError:
            return False
        return abs(rho) <= search.curvature and abs(d) <= search.d0

    def follow(self, seed: list[NaiveHit], layers: tuple[int, int, int]) -> tuple[list[int], float] | None:
        track = NaiveTrack(seed, self.search)
        for layer in LAYERS:
            given = [hit for hit in seed if hit.layer == layer]
            hit = given[0] if given else self.nearest(track, layer) if layer > layers[-1] else None
            if hit:
                found = track.against(hit)
                if not track.fits(found, seed=True):
                    return None
                track.take(hit, found)
            middle = self.middle(layer)
            track.scatter(layer, *((found["r"], found["slope"][1]) if hit else (middle, track.way(middle))))
            if layer - len(track.hits) > 10 - self.search.hits:
                return None
        return [track.hits[layer].place if layer in track.hits else -1 for layer in LAYERS], track.chi2

    def middle(self, layer: int) -> float:
        own = PLAN.layer == layer
        height = np.abs((FRAMES.centre[own] * FRAMES.w[own]).sum(axis=1))
        along = np.hypot(FRAMES.v[own, 0], FRAMES.v[own, 1]) * PLAN.length[own] / 2
        return float(height.min() + np.hypot(height, PLAN.width[own] / 2 + along).max()) / 2

    def nearest(self, track: NaiveTrack, layer: int) -> NaiveHit | None:
        inner = min(np.abs((FRAMES.centre * FRAMES.w).sum(axis=1))[PLAN.layer == layer])
        if abs(track.sine(inner)) >= 1 - 0.5 * 0.05**2:
            return None
        near = []
        for hit in self.of(layer):
            found = track.against(hit)
            if abs(found["turn"]) < 0.5 and track.fits(found):
                near.append((track.chi2_of(hit, found), hit.phi % (2 * np.pi), hit.place, hit))
        return min(near)[-1] if near else None

    def shared_out(self, found: list[tuple[list[int], float]]) -> list[tuple[list[int], float]]:
        used, kept = set(), []
        for hits, chi2 in sorted(found, key=rank):
            left = [-1 if place in used else place for place in hits]
            pixels = sum(place >= 0 for place in left[:4])
            if sum(place >= 0 for place in left) >= self.search.hits and pixels >= self.search.pixel_hits:
                kept.append((left, chi2))
                used |= set(left) - {-1}
        return kept


def rank(track: tuple[list[int], float]) -> tuple:
    hits, chi2 = track
    return -sum(place >= 0 for place in hits), chi2, hits
