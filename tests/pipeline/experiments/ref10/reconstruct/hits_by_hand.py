"""Placed clusters made by hand on the mini geometry, and the naive way to make them: tracks, stray hits, copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from hypothesis import strategies as st

from pipeline.experiments.collisions import Collection
from pipeline.experiments.ref10.alignment import frames
from pipeline.experiments.ref10.layers import LAYERS
from pipeline.experiments.ref10.reconstruct.placed import placed
from pipeline.experiments.ref10.simulate.helix import CURVATURE_GEV, launched
from pipeline.experiments.ref10.simulate.propagate import SCATTERERS, propagate
from tests.pipeline.experiments.ref10.reconstruct.raw import PLAN, uneven

CONDITIONS = uneven()
FRAMES = frames(PLAN, CONDITIONS["alignment"])
FIELD = 3.8

PIXEL_ERRORS, STRIP_ERROR = (10e-4, 30e-4), 25e-4


@dataclass(frozen=True)
class Hit:
    """A cluster: the row of its module, place on it and errors [cm]."""

    row: int
    u: float
    v: float
    u_error: float
    v_error: float
    flags: int = 0


def hit_at(row: int, u: float, v: float, flags: int = 0) -> Hit:
    """As clusters have it: along strips nothing is measured."""
    if PLAN.pixel[row]:
        return Hit(row, u, v, *PIXEL_ERRORS, flags)
    return Hit(row, u, 0.0, STRIP_ERROR, float(PLAN.length[row]) / 12**0.5, flags)


def clusters(events: Sequence[Sequence[Hit]]) -> Collection:
    """Placed clusters, in the order of the modules, as `stages` makes them."""
    flat = [hit for event in events for hit in sorted(event, key=lambda hit: hit.row)]
    columns = {name: np.array([getattr(hit, name) for hit in flat], np.float32) for name in Hit.__dataclass_fields__}
    row = columns.pop("row").astype(np.int64)
    columns |= {"module": PLAN.module[row], "flags": columns["flags"].astype(np.uint8)}
    return placed(Collection(np.array([len(event) for event in events], np.int64), columns), CONDITIONS)


@cache
def tracks(pt: float, number: int = 60, beam: float = 0.05, length: float = 0.5) -> list[list[Hit]]:
    """The hits of particles that go through the middle of the wedge, measured with their errors."""
    rng = np.random.default_rng([number, int(1000 * pt)])
    place = tuple(width * rng.normal(size=number) for width in (beam, beam, length))
    bending = FIELD * rng.choice([-1.0, 1.0], number)
    # Halfway out they are in the middle of the wedge, the softest too.
    turn = np.arcsin(CURVATURE_GEV * bending / pt * LAYERS[-1].radius / 2) / 2
    eta, phi = rng.uniform(-0.1, 0.1, number), np.pi / 2 + turn + rng.uniform(-0.15, 0.15, number)
    flight = launched(place, np.full(number, pt), eta, phi, bending)
    crossed = propagate(PLAN, FRAMES, flight, rng.standard_normal((2, SCATTERERS, number)))
    found: list[list[Hit]] = [[] for _ in range(number)]
    for which, row, u, v in zip(crossed.track, crossed.row.tolist(), crossed.u, crossed.v, strict=True):
        exact = hit_at(row, float(u), float(v))
        along = rng.normal(0, exact.v_error) * PLAN.pixel[row]
        found[which].append(replace(exact, u=exact.u + rng.normal(0, exact.u_error), v=exact.v + along))
    return found


def track(which: int, pt: float) -> list[Hit]:
    """One of them, and one with a hit in each layer."""
    complete = [hits for hits in tracks(pt) if [PLAN.layer[hit.row] for hit in hits] == list(range(1, 11))]
    return complete[which % len(complete)]


def stray(seed: int, number: int) -> list[Hit]:
    """Hits anywhere."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, len(PLAN), number)
    return [
        hit_at(int(row), *(rng.uniform(-0.5, 0.5) * size[row] for size in (PLAN.width, PLAN.length))) for row in rows
    ]


@st.composite
def events(draw: st.DrawFn) -> list[Hit]:
    """A few tracks, some close together or twice the same, with hits lost, and stray ones."""
    seeds = draw(st.lists(st.integers(0, 40), max_size=5))
    hits = [hit for seed in seeds for hit in track(seed, draw(st.sampled_from([0.42, 0.6, 1.0, 3.0, 50.0])))]
    lost = draw(st.sets(st.integers(0, max(len(hits) - 1, 0)), max_size=3))
    hits = [hit for place, hit in enumerate(hits) if place not in lost]
    return hits + stray(draw(st.integers(0, 1000)), draw(st.integers(0, 12)))


chunks = st.lists(events(), max_size=4)
