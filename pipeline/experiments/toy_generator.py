"""Collisions with a known, drifting beam spot, for demonstrations and tests: one ROOT file a run, the truth apart.

Every block of events draws its own random numbers (Philox keyed by seed, run and lumisection, its counter by block), so
no event depends on which others are made, in which order, or in how many processes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot
from numpy.typing import NDArray

from calib.iov import RunLumi
from pipeline.experiments.collisions import Collection, about_origin
from pipeline.whole import whole, write_whole

Floats = NDArray[np.float64]
Arrays = dict[str, NDArray[Any]]

BLOCK = 64
"""events that share a stream of random numbers"""

TRUTH_FILE = "truth.json"


@dataclass(frozen=True, slots=True)
class Beam:
    """The luminous region of one lumisection: centre and widths [cm], slopes [rad]."""

    x: float
    y: float
    z: float
    width_x: float
    width_y: float
    sigma_z: float
    dxdz: float
    dydz: float


@dataclass(frozen=True)
class Scenario:
    """How the beam moves, and how well tracks and vertices are seen.

    Runs follow one another: lumisection l of run i is number i * lumis + l - 1 in time. x grows by `drift_um` each,
    and jumps by `step_um` at `step_at`.
    """

    start: Beam = Beam(0.08, -0.04, 0.5, 15e-4, 15e-4, 4.0, 2e-4, -1e-4)
    drift_um: float = 0.5
    step_um: float = 40.0
    step_at: RunLumi | None = None
    tracks: float = 12.0
    """mean number of tracks an event"""
    vertex_error_um: float = 25.0
    d0_error_um: tuple[float, float] = (10.0, 40.0)
    """a and b of sqrt(a^2 + (b / pT)^2), pT in GeV"""
    displaced: float = 0.02
    """share of tracks that come from somewhere else, 1 mm off"""
    empty: float = 0.03
    """share of events with nothing in them"""

    def beam(self, at: RunLumi, place: int) -> Beam:
        """The luminous region of a unit that is number `place` in time."""
        stepped = self.step_at is not None and at >= self.step_at
        moved = self.drift_um * place + self.step_um * stepped
        return dataclasses.replace(self.start, x=self.start.x + moved * 1e-4)


@dataclass(frozen=True)
class Truth:
    """What was put in: the beam of every unit, and where it jumps."""

    beams: Mapping[RunLumi, Beam]
    step_at: RunLumi | None
    events: int
    files: tuple[str, ...]

    def to_json(self) -> str:
        """As text; units as `run:lumi`."""
        document = {
            "units": "cm, rad",
            "step_at": None if self.step_at is None else str(self.step_at),
            "events": self.events,
            "files": list(self.files),
            "beams": {str(at): dataclasses.asdict(beam) for at, beam in self.beams.items()},
        }
        return json.dumps(document, indent=1)

    @classmethod
    def read(cls, folder: Path) -> Truth:
        """The truth that `generate` left in a folder."""
        found = json.loads((folder / TRUTH_FILE).read_text())
        beams = {RunLumi.parse(at): Beam(**beam) for at, beam in found["beams"].items()}
        step_at = None if found["step_at"] is None else RunLumi.parse(found["step_at"])
        return cls(beams, step_at, found["events"], tuple(found["files"]))


def generate(
    folder: Path,
    runs: Sequence[int] = (101, 102, 103),
    lumis: int = 12,
    events: int = 280,
    seed: int = 1,
    scenario: Scenario | None = None,
) -> Truth:
    """Write `run_<number>.root` for every run, `events` in each lumisection 1 to `lumis`, and truth.json; each whole.

    Without a scenario the beam jumps in the middle of the second run (of the first, if there is but one).
    """
    if scenario is None:
        scenario = Scenario(step_at=RunLumi(runs[min(1, len(runs) - 1)], lumis // 2 + 1))
    beams: dict[RunLumi, Beam] = {}
    files = []
    for i, run in enumerate(runs):
        units = [RunLumi(run, lumi) for lumi in range(1, lumis + 1)]
        beams |= {at: scenario.beam(at, i * lumis + place) for place, at in enumerate(units)}
        path = folder / f"run_{run}.root"
        _write_run(path, [simulate(scenario, beams[at], at, events, seed) for at in units])
        files.append(str(path))
    truth = Truth(beams, scenario.step_at, len(runs) * lumis * events, tuple(files))
    write_whole(folder / TRUTH_FILE, truth.to_json().encode(), _nothing)
    return truth


def simulate(scenario: Scenario, beam: Beam, at: RunLumi, events: int, seed: int) -> dict[str, Any]:
    """The columns of the first `events` collisions of one unit, as they stand in a file."""
    blocks = [_block(scenario, beam, (seed, at.packed, block)) for block in range(-(-events // BLOCK))]
    tracks, vertices = (
        Collection(
            np.concatenate([block[part].counts for block in blocks]),
            {name: np.concatenate([block[part].flat[name] for block in blocks]) for name in blocks[0][part].flat},
        ).of_events(np.arange(len(blocks) * BLOCK) < events)
        for part in (0, 1)
    )
    return {
        "run": np.full(events, at.run, np.uint32),
        "luminosityBlock": np.full(events, at.lumi, np.uint32),
        "event": np.arange((at.lumi - 1) * events, at.lumi * events, dtype=np.uint64) + np.uint64(1),
        **tracks.columns("Track"),
        **vertices.columns("PV"),
    }


def _block(scenario: Scenario, beam: Beam, key: tuple[int, int, int]) -> tuple[Collection, Collection]:
    """Tracks and vertices of one block of events, always the whole block, so that none depends on how many are kept."""
    seed, unit, block = key
    # The block is the highest word of the counter: blocks are 2^192 draws apart.
    rng = np.random.Generator(np.random.Philox(key=[seed, unit], counter=[0, 0, 0, block]))
    z = beam.z + beam.sigma_z * rng.standard_normal(BLOCK)
    x = beam.x + beam.dxdz * (z - beam.z) + beam.width_x * rng.standard_normal(BLOCK)
    y = beam.y + beam.dydz * (z - beam.z) + beam.width_y * rng.standard_normal(BLOCK)
    counts = rng.poisson(scenario.tracks, BLOCK) * (rng.random(BLOCK) >= scenario.empty)
    tracks = _tracks(scenario, rng, np.stack([x, y, z]), counts)
    return tracks, _vertices(scenario, rng, np.stack([x, y, z]), counts)


def _tracks(scenario: Scenario, rng: np.random.Generator, vertex: Floats, counts: NDArray[np.int64]) -> Collection:
    n = int(counts.sum())
    x, y, z = np.repeat(vertex, counts, axis=1)
    pt, eta = 0.5 + rng.exponential(1.0, n), rng.uniform(-1.5, 1.5, n)
    phi = rng.uniform(-np.pi, np.pi, n)
    floor, scatter = scenario.d0_error_um
    d0_error = 1e-4 * np.hypot(floor, scatter / pt)
    z0_error = 2.0 * d0_error * np.cosh(eta)
    d0, z0 = about_origin(x, y, z, phi, eta)
    displaced = rng.random(n) < scenario.displaced
    d0 = d0 + d0_error * rng.standard_normal(n) + displaced * rng.laplace(0.0, 0.1, n)
    columns: Arrays = {"pt": pt, "eta": eta, "phi": phi, "d0Error": d0_error, "z0Error": z0_error}
    columns = {name: values.astype(np.float32) for name, values in columns.items()}
    columns["d0"], columns["z0"] = d0, z0 + z0_error * rng.standard_normal(n)
    columns["charge"] = (2 * rng.integers(0, 2, n) - 1).astype(np.int8)
    columns["ndof"] = np.full(n, 15, np.float32)
    columns["chi2"] = rng.chisquare(15, n).astype(np.float32)
    return Collection(counts, columns)


def _vertices(scenario: Scenario, rng: np.random.Generator, vertex: Floats, counts: NDArray[np.int64]) -> Collection:
    """One vertex for each event of at least three tracks, seen the better the more there are."""
    scale = 1e-4 * scenario.vertex_error_um * np.sqrt(scenario.tracks / np.maximum(counts, 1))
    errors = scale * np.array([[1.0], [1.0], [1.4]]) * rng.lognormal(0.0, 0.2, (3, BLOCK))
    seen = vertex + errors * rng.standard_normal((3, BLOCK))
    columns: Arrays = {name: seen[i] for i, name in enumerate("xyz")}
    columns |= {f"{name}Err": errors[i].astype(np.float32) for i, name in enumerate("xyz")}
    ndof = np.maximum(2 * counts - 3, 1)
    columns["ndof"], columns["chi2"] = ndof.astype(np.float32), rng.chisquare(ndof).astype(np.float32)
    columns["isFake"] = np.zeros(BLOCK, np.int8)
    return Collection(np.ones(BLOCK, np.int64), columns).where(counts >= 3)


def _write_run(path: Path, units: Sequence[Mapping[str, Any]]) -> None:
    with whole(path, _nothing) as partial, uproot.recreate(partial) as file:
        tree: Any = None
        # One basket a lumisection, as a detector writes them.
        for unit in units:
            columns = {name: values for name, values in unit.items() if isinstance(values, np.ndarray)}
            for prefix in ("Track", "PV"):
                named = {name.removeprefix(f"{prefix}_"): unit[name] for name in unit if name.startswith(prefix)}
                columns[prefix] = ak.zip(named)
            tree = tree or file.mktree("Events", {name: _type(values) for name, values in columns.items()})
            tree.extend(columns)


def _type(values: Any) -> Any:
    return values.dtype if isinstance(values, np.ndarray) else values.type.content


def _nothing(point: str) -> None:
    """No kill point of the program lies here."""
