"""Tracks, vertices and muons of collision events as flat arrays, and impact parameters about a line of beam."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from calib.jagged import with_offsets
from pipeline.experiments.interface import MissingBranch
from pipeline.model import Columns

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

MUON_MASS = 0.105658
"""GeV"""


@dataclass(frozen=True, eq=False)
class Collection:
    """The tracks (or vertices, muons) of n events: `counts` int64[n], and `flat` the values of all events in line."""

    counts: NDArray[np.int64]
    flat: Mapping[str, NDArray[Any]]

    @classmethod
    def read(cls, events: Columns, prefix: str, names: Iterable[str]) -> Collection:
        """The jagged columns `<prefix>_<name>` of some events; those they have not are left out."""
        found = {name: events[f"{prefix}_{name}"] for name in names if f"{prefix}_{name}" in events}
        counts = np.asarray(ak.num(next(iter(found.values()))), np.int64)
        return cls(counts, {name: np.asarray(ak.flatten(values)) for name, values in found.items()})

    def __getitem__(self, name: str) -> Floats:
        return self.flat[name].astype(np.float64)

    def __contains__(self, name: object) -> bool:
        return name in self.flat

    @property
    def event(self) -> NDArray[np.intp]:
        """To which of the n events each entry belongs."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def where(self, mask: Mask) -> Collection:
        """The entries of the mask; every event stays, if with none."""
        return self.at(np.flatnonzero(mask))

    def at(self, places: NDArray[np.intp]) -> Collection:
        """The entries at such places in the flat arrays, which rise; every event stays, if with none."""
        counts = np.diff(np.searchsorted(places, self._offsets)).astype(np.int64)
        return Collection(counts, {name: values[places] for name, values in self.flat.items()})

    def of_events(self, mask: Mask) -> Collection:
        """The entries of the events of the mask, of length n."""
        entries = np.repeat(mask, self.counts)
        return Collection(self.counts[mask], {name: values[entries] for name, values in self.flat.items()})

    def adding(self, **columns: NDArray[Any]) -> Collection:
        """With further columns, one value an entry."""
        return Collection(self.counts, {**self.flat, **columns})

    def columns(self, prefix: str, names: Iterable[str] = ()) -> dict[str, ak.Array]:
        """Jagged columns `<prefix>_<name>` of these names, or of all."""
        return {f"{prefix}_{name}": self.jagged(self.flat[name]) for name in names or self.flat}

    def jagged(self, values: NDArray[Any]) -> ak.Array:
        """One value an entry as a jagged column."""
        if len(values) != self._offsets[-1]:
            raise ValueError(f"{len(values)} values for {self._offsets[-1]} entries")
        return with_offsets(np.ascontiguousarray(values), self._offsets)

    @cached_property
    def _offsets(self) -> NDArray[np.int64]:
        found: NDArray[np.int64] = np.append(0, np.cumsum(self.counts)).astype(np.int64)
        return found


def require(branches: frozenset[str], names: Iterable[str]) -> tuple[str, ...]:
    """The names, if the file has them all. Raises MissingBranch naming those it lacks."""
    wanted = tuple(names)
    missing = sorted(set(wanted) - branches)
    if missing:
        raise MissingBranch(f"the file has no {', '.join(missing)}; this step cannot do without")
    return wanted


def about_origin(x: Floats, y: Floats, z: Floats, phi: Floats, eta: Floats) -> tuple[Floats, Floats]:
    """d0 = x sin(phi) - y cos(phi) and z where a straight track through (x, y, z) is nearest to the z axis [cm].

    The point given must be near the axis: over 1 mm a track of 1 GeV in 3.8 T leaves its tangent by 0.6 um.

    >>> d0, z0 = about_origin(*(np.array([v]) for v in (0.3, 0.1, 5.0, 0.0, 0.0)))
    >>> d0.tolist(), z0.tolist()
    ([-0.1], [5.0])
    """
    along = x * np.cos(phi) + y * np.sin(phi)
    return x * np.sin(phi) - y * np.cos(phi), z - along * np.sinh(eta)


@dataclass(frozen=True, slots=True)
class BeamLine:
    """The line of the beam: (x, y) [cm] at z [cm] and its slopes."""

    x: float
    y: float
    z: float
    dxdz: float = 0.0
    dydz: float = 0.0

    def d0(self, tracks: Collection) -> Floats:
        """d0 of tracks about this line [cm], from `d0` and `phi` about the origin and, if they have it, `z0`.

        A track without z is taken about (x, y): there the slopes do not enter.
        """
        x, y = self._at(tracks)
        moved: Floats = tracks["d0"] - (x * np.sin(tracks["phi"]) - y * np.cos(tracks["phi"]))
        return moved

    def dz(self, tracks: Collection) -> Floats:
        """z of tracks where they are nearest to this line, from its z [cm]; needs `z0` and `eta`."""
        x, y = self._at(tracks)
        along = x * np.cos(tracks["phi"]) + y * np.sin(tracks["phi"])
        offset: Floats = tracks["z0"] + along * np.sinh(tracks["eta"]) - self.z
        return offset

    def _at(self, tracks: Collection) -> tuple[Any, Any]:
        if "z0" not in tracks:
            return self.x, self.y
        path = tracks["z0"] - self.z
        return self.x + self.dxdz * path, self.y + self.dydz * path


def offsets_um(d0: Floats, phi: Floats) -> tuple[Floats, Floats]:
    """What each track says of how far the beam lies from the line that d0 [cm] is about, in x and y [um].

    2 d0 sin(phi) and -2 d0 cos(phi): for tracks spread evenly in phi their means are the offset. (The mean of d0
    itself is zero wherever the beam is.)
    """
    return 2e4 * d0 * np.sin(phi), -2e4 * d0 * np.cos(phi)


def opposite_pairs(muons: Collection) -> Collection:
    """All pairs of opposite charge with their invariant `mass` [GeV]; an event without one has no entry."""
    table = ak.zip({"index": muons.jagged(np.arange(len(muons.flat["pt"]))), "charge": muons.jagged(muons["charge"])})
    first, second = ak.unzip(ak.combinations(table, 2))
    opposite = first.charge * second.charge < 0
    first, second = first[opposite], second[opposite]
    counts = np.asarray(ak.num(first), np.int64)
    left, right = (np.asarray(ak.flatten(side.index), np.int64) for side in (first, second))
    return Collection(counts, {"mass": _mass(muons, left, right)})


def _mass(muons: Collection, left: NDArray[np.int64], right: NDArray[np.int64]) -> Floats:
    pt, eta, phi = muons["pt"], muons["eta"], muons["phi"]
    momentum = np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)])
    energy = np.sqrt(momentum[0] ** 2 + momentum[1] ** 2 + momentum[2] ** 2 + MUON_MASS**2)
    x, y, z = momentum[:, left] + momentum[:, right]
    squared = (energy[left] + energy[right]) ** 2 - x**2 - y**2 - z**2
    mass: Floats = np.sqrt(np.maximum(squared, 0.0))
    return mass


def peak(values: Floats, start: tuple[float, float], reach: float = 1.5) -> tuple[float, float]:
    """Mean and width of a peak over `reach` sigma either side, iterated from `start` = (mean, sigma) until it stands.

    The spread inside the window is corrected for the tails that the window cuts off a Gaussian.
    Raises ValueError when fewer than 10 values are left in the window, or it does not settle.
    """
    from scipy.stats import truncnorm

    cut = float(truncnorm.std(-reach, reach))
    mean, sigma = start
    for _ in range(200):
        inside = values[np.abs(values - mean) < reach * sigma]
        if len(inside) < 10:
            raise ValueError(f"{len(inside)} values near {mean:.4g}; a peak needs 10")
        before, mean, sigma = mean, float(inside.mean()), float(inside.std()) / cut
        if abs(mean - before) < 1e-6 * sigma:
            return mean, sigma
    raise ValueError(f"no peak settled near {mean:.4g}")
