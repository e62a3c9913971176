"""A payload: constants of one kind, known by the hash of their content and kept in zarr."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.iov import RunLumi

Array = NDArray[Any]

PARTIAL = ".partial"
"""how a payload is called that is being written, behind a name of its writer's own"""


class PayloadMissing(LookupError):
    """The store holds no payload of that id."""


class PayloadDamaged(ValueError):
    """What the store holds under an id no longer has that content."""


def is_payload_id(text: str) -> bool:
    """Whether a text can be the id of a payload: 64 hexadecimal digits.

    >>> is_payload_id("beamspot")
    False
    """
    return re.fullmatch("[0-9a-f]{64}", text) is not None


@dataclass(frozen=True, eq=False)
class Payload:
    """Named read-only arrays of one kind with their units.

    The id is the SHA-256 of kind, names, units, shapes, types and bytes: equal content, equal id.

    >>> a = Payload("pedestal", {"mean": np.zeros(3)}, {"mean": "ADC"})
    >>> a.id == Payload("pedestal", {"mean": np.zeros(3)}, {"mean": "ADC"}).id
    True
    """

    kind: str
    arrays: Mapping[str, Array]
    units: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = set(self.units) - set(self.arrays)
        if unknown:
            raise ValueError(f"payload {self.kind}: units given for arrays it has not: {sorted(unknown)}")
        frozen = {name: _frozen(self.kind, name, self.arrays[name]) for name in sorted(self.arrays)}
        object.__setattr__(self, "arrays", MappingProxyType(frozen))
        object.__setattr__(self, "units", MappingProxyType(dict(sorted(self.units.items()))))

    def __getitem__(self, name: str) -> Array:
        return self.arrays[name]

    def __reduce__(self) -> tuple[Any, ...]:
        return Payload, (self.kind, dict(self.arrays), dict(self.units))

    @property
    def flags(self) -> dict[str, bool]:
        """Its single booleans: what was measured and what carried, say. For the record of what was made with it.

        >>> Payload("beamspot", {"x": np.array(0.1), "slopes_measured": np.array(False)}).flags
        {'slopes_measured': False}
        """
        return {name: bool(array) for name, array in self.arrays.items() if array.dtype == np.bool_ and not array.shape}

    @cached_property
    def id(self) -> str:
        """SHA-256 of the content, hexadecimal."""
        digest = hashlib.sha256()
        for name, array in self.arrays.items():
            head = [self.kind, name, self.units.get(name, ""), array.dtype.str, array.shape]
            digest.update(json.dumps(head).encode() + b"\0")
            digest.update(array.tobytes())
        return digest.hexdigest()


def _frozen(kind: str, name: str, values: Any) -> Array:
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"payload {kind}: array {name!r} has type {array.dtype}; use booleans, integers or floats")
    # One byte order and one layout, so that the same numbers always have the same id.
    array = np.array(array, dtype=array.dtype.newbyteorder("<"), order="C", copy=True)
    array.flags.writeable = False
    return array


def _no_point(point: str) -> None:
    """Nothing is killed here."""


class PayloadStore:
    """Payloads by content id in a folder: one zarr v3 group each, there whole or not at all.

    `get` keeps the last `keep_bytes` of arrays in this process.
    """

    def __init__(self, root: Path | str, keep_bytes: int = 256 << 20) -> None:
        self.root = Path(root)
        self._keep_bytes = keep_bytes
        self._kept: OrderedDict[str, Payload] = OrderedDict()
        self._kept_bytes = 0

    def path(self, payload_id: str) -> Path:
        """Where the payload of that id lies."""
        return self.root / payload_id[:2] / f"{payload_id}.zarr"

    def has(self, payload_id: str) -> bool:
        """Whether the store holds that id."""
        return self.path(payload_id).is_dir()

    def put(self, payload: Payload, probe: Callable[[str], None] = _no_point) -> str:
        """Write a payload whole and give its id; a payload that is there already is left alone.

        `probe` is told when it is written and not yet in place: a test may kill the process there.
        """
        write_group(self.path(payload.id), payload, probe)
        return payload.id

    def kind_of(self, payload_id: str) -> str:
        """The kind of a payload, without reading its arrays. Raises PayloadMissing."""
        try:
            # The attributes of a zarr v3 group are JSON in this file; to open the group takes ten times as long.
            document = json.loads((self.path(payload_id) / "zarr.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise PayloadMissing(f"no payload {payload_id} in {self.root}") from None
        return str(document["attributes"]["kind"])

    def partials(self, grace_s: float, now: float) -> list[Path]:
        """What killed writers have left: folders not in place, to which nothing was written for `grace_s` seconds.

        The grace must be longer than any task may write. Nothing is deleted here.
        """
        found = sorted(self.root.glob(f"*/*{PARTIAL}"))
        return [path for path in found if now - _last_written(path) > grace_s]

    def ids(self) -> list[str]:
        """The ids of all payloads that are there, in order."""
        return sorted(path.stem for path in self.root.glob("*/*.zarr"))

    def delete(self, payload_id: str, probe: Callable[[str], None] = _no_point) -> None:
        """Take a payload away at once, whole; that nothing refers to it is for the caller to see to.

        `probe` is told when it is out of its place and its files are still there: `partials` finds them.
        """
        there = self.path(payload_id)
        aside = _beside(there)
        there.rename(aside)
        _sync(there.parent)
        if (dropped := self._kept.pop(payload_id, None)) is not None:
            self._kept_bytes -= _nbytes(dropped)
        probe("delete")
        shutil.rmtree(aside, ignore_errors=True)

    def find(self, payload_id: str) -> Payload | None:
        """The payload of that id, None where there is none. Raises PayloadDamaged when its content has changed."""
        return self.get(payload_id) if self.has(payload_id) else None

    def get(self, payload_id: str) -> Payload:
        """The payload of that id. Raises PayloadMissing, or PayloadDamaged when its content has changed."""
        if payload_id in self._kept:
            self._kept.move_to_end(payload_id)
            return self._kept[payload_id]
        if not self.has(payload_id):
            raise PayloadMissing(f"no payload {payload_id} in {self.root}")
        try:
            payload = self.read(self.path(payload_id))
        except (ValueError, RuntimeError, LookupError) as problem:
            raise self._damaged(payload_id) from problem
        if payload.id != payload_id:
            raise self._damaged(payload_id)
        self._keep(payload)
        return payload

    def _damaged(self, payload_id: str) -> PayloadDamaged:
        return PayloadDamaged(f"{self.path(payload_id)} has changed since it was written; restore it from a copy")

    @staticmethod
    def read(path: Path) -> Payload:
        """The payload of one zarr group, wherever it lies. Raises OSError or ValueError when there is none."""
        return _read_zarr(path)

    def _keep(self, payload: Payload) -> None:
        self._kept[payload.id] = payload
        self._kept_bytes += _nbytes(payload)
        while self._kept_bytes > self._keep_bytes and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self._kept_bytes -= _nbytes(dropped)


def write_group(target: Path, payload: Payload, probe: Callable[[str], None] = _no_point) -> None:
    """Write a payload as one zarr v3 group, there whole or not at all; one that is there already is left alone."""
    if target.is_dir():
        return
    partial = _beside(target)
    try:
        _write_zarr(partial, payload)
        probe("payload")
        _rename_whole(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _beside(target: Path) -> Path:
    """Where something lies that is not yet, or no more, in its place: under a name of this writer's own."""
    return target.with_name(f"{target.name}.{uuid.uuid4().hex}{PARTIAL}")


def _last_written(folder: Path) -> float:
    """When anything in a folder was last written to; infinite when it goes meanwhile, to its place or for good."""
    try:
        return max(path.lstat().st_mtime for path in (folder, *folder.rglob("*")))
    except FileNotFoundError:
        return float("inf")


def _nbytes(payload: Payload) -> int:
    return sum(array.nbytes for array in payload.arrays.values())


def _write_zarr(path: Path, payload: Payload) -> None:
    import zarr

    path.parent.mkdir(parents=True, exist_ok=True)
    group = zarr.create_group(
        store=str(path), zarr_format=3, attributes={"kind": payload.kind, "units": dict(payload.units)}
    )
    for name, array in payload.arrays.items():
        # zarr takes no chunk of length zero; an empty array is one chunk of its would-be shape.
        chunks = tuple(max(1, size) for size in array.shape)
        stored = group.create_array(name, shape=array.shape, dtype=array.dtype, chunks=chunks)
        if array.size:
            stored[...] = array


def _rename_whole(partial: Path, target: Path) -> None:
    for file in sorted(partial.rglob("*")):
        _sync(file)
    _sync(partial)
    try:
        partial.rename(target)
    except OSError:
        # Another process wrote the same content first; anything else is a real failure.
        if not target.is_dir():
            raise
    _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_zarr(path: Path) -> Payload:
    import zarr

    group = zarr.open_group(store=str(path), mode="r", zarr_format=3)
    arrays = {name: np.asarray(array[...]) for name, array in group.arrays()}
    attributes: Mapping[str, Any] = group.attrs
    return Payload(str(attributes["kind"]), arrays, dict(attributes["units"]))


_STORES: dict[str, PayloadStore] = {}


def open_store(root: Path | str) -> PayloadStore:
    """The one store of this process for a folder, so that all tasks of a worker share its cache."""
    return _STORES.setdefault(str(root), PayloadStore(root))


@dataclass(frozen=True)
class Conditions(Mapping[str, Payload]):
    """The payloads that hold at one unit. Travels as ids; the arrays are read where they are used."""

    at: RunLumi
    ids: Mapping[str, str]
    root: str

    def __getitem__(self, kind: str) -> Payload:
        if kind not in self.ids:
            raise KeyError(f"no conditions of kind {kind!r} at {self.at}; there are {sorted(self.ids)}")
        return open_store(self.root).get(self.ids[kind])

    def __contains__(self, kind: object) -> bool:
        return kind in self.ids

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self.ids)
