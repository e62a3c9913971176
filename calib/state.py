"""The state of a calibration: named mergeable parts, and how it lies on storage."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.accumulators import PARTS, Part, StatesDiffer
from calib.channel_sums import ChannelSums
from calib.pools import Pools

Array = NDArray[Any]

FORMS: dict[str, type[Part]] = {**PARTS, ChannelSums.form: ChannelSums}
"""every mergeable part by the name it is stored under"""


class State(Mapping[str, Any]):
    """Named mergeable parts. Merging is associative and commutative, with a calibration's empty state as identity."""

    __slots__ = ("_parts",)

    def __init__(self, parts: Mapping[str, Part]) -> None:
        self._parts = dict(sorted(parts.items()))

    def __getitem__(self, name: str) -> Any:
        return self._parts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def merge(self, other: State) -> State:
        """Both states together. Raises StatesDiffer where their parts do not match.

        One may lack parts of the other: it was kept when its calibration had not come to look at them.
        """
        shared = self.keys() & other.keys()
        nested = len(shared) == min(len(self), len(other))
        if not nested or any(type(self[name]) is not type(other[name]) for name in shared):
            raise StatesDiffer(f"states of {list(self)} and {list(other)} do not merge")
        one_has = {**self, **other}
        return State(one_has | {name: self[name].merge(other[name]) for name in shared})

    def select(self, units: NDArray[np.int64]) -> State:
        """The state these packed units alone would have given."""
        return State({name: part.select(units) for name, part in self._parts.items()})

    def together(self, units: NDArray[np.int64]) -> NDArray[np.int64]:
        """All that must be left out with these packed units, they among it: some parts keep the sums of several units
        in one. Sorted."""
        pooled = [part.together(units) for part in self._parts.values() if isinstance(part, ChannelSums)]
        return np.unique(np.concatenate([self.units()[np.isin(self.units(), units)], *pooled]))

    def units(self) -> NDArray[np.int64]:
        """The packed units that left anything in the state, sorted."""
        found = [part.units() for part in self._parts.values()]
        return np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)

    @property
    def nbytes(self) -> int:
        """Its size in memory, in bytes."""
        return sum(array.nbytes for array in self.to_arrays().values())

    def to_arrays(self) -> dict[str, Array]:
        """Flat names (`part/form/array`) to arrays, for storage and comparison."""
        return {
            f"{name}/{part.form}/{key}": array
            for name, part in self._parts.items()
            for key, array in part.to_arrays().items()
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> State:
        """The state of such arrays."""
        grouped: dict[tuple[str, str], dict[str, Array]] = {}
        for flat, array in arrays.items():
            name, form, key = flat.split("/", 2)
            grouped.setdefault((name, form), {})[key] = array
        return cls({name: FORMS[form].from_arrays(found) for (name, form), found in grouped.items()})

    def same(self, other: State) -> bool:
        """Whether both hold the same numbers to the last bit, with the same types."""
        left, right = self.to_arrays(), other.to_arrays()
        return left.keys() == right.keys() and all(_same_bits(left[key], right[key]) for key in left)


def _same_bits(left: Array, right: Array) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


def pack_states(states: Mapping[str, State]) -> bytes:
    """Several named states as the bytes of one npz file (uncompressed; `name|part/form/array`)."""
    buffer = io.BytesIO()
    arrays = {f"{name}|{flat}": array for name, state in states.items() for flat, array in state.to_arrays().items()}
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def unpack_state(path: str, name: str) -> State | None:
    """Read one named state of a packed file, and only its arrays; None if the file has none of that name."""
    with np.load(path, allow_pickle=False) as stored:
        mine = {key.split("|", 1)[1]: stored[key] for key in stored.files if key.split("|", 1)[0] == name}
    return State.from_arrays(mine) if mine else None


def unpack_together(path: str, name: str, units: NDArray[np.int64]) -> NDArray[np.int64]:
    """These packed units, and all that a named state of a packed file must be left without if it is without these
    (`State.together`), sorted; no sum is read."""
    mark = f"/{ChannelSums.form}/"
    with np.load(path, allow_pickle=False) as stored:
        parts = {key.rpartition("/")[0] for key in stored.files if key.startswith(f"{name}|") and mark in key}
        told = [{of: stored[f"{part}/{of}"] for of in Pools.ARRAYS if f"{part}/{of}" in stored.files} for part in parts]
    return np.unique(np.concatenate([units, *(Pools.from_arrays(arrays).together(units) for arrays in told)]))


def state_names(path: str) -> tuple[str, ...]:
    """The names of the states of a packed file; no array is read."""
    with np.load(path, allow_pickle=False) as stored:
        return tuple(dict.fromkeys(key.split("|", 1)[0] for key in stored.files))


def unpack_states(path: str) -> dict[str, State]:
    """Read all states of a packed file."""
    grouped: dict[str, dict[str, Array]] = {}
    with np.load(path, allow_pickle=False) as stored:
        for key in stored.files:
            name, flat = key.split("|", 1)
            grouped.setdefault(name, {})[flat] = stored[key]
    return {name: State.from_arrays(arrays) for name, arrays in grouped.items()}
