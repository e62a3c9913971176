"""One payload in one file: npz, or a folder of zarr."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from calib.payload import Array, Payload, PayloadStore
from pipeline.conditions_words import Refused

UNITS = "units"
"""the entry of an npz file that has the units, as JSON text"""


def read_payload(kind: str, file: Path) -> Payload:
    """A payload from an npz file (arrays, and `units` as JSON text) or from an exported zarr folder. Raises Refused."""
    try:
        if file.suffix == ".zarr":
            found = PayloadStore.read(file)
            if found.kind != kind:
                raise Refused(f"{file} holds a payload of kind {found.kind!r}, not {kind!r}")
            return found
        arrays = _arrays(file)
        return Payload(kind, arrays, _units(arrays))
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as problem:
        if isinstance(problem, Refused):
            raise
        raise Refused(f"{file} cannot be read as a payload ({problem}): give an npz file or a zarr folder") from None


def _arrays(file: Path) -> dict[str, Any]:
    with file.open("rb") as opened:
        # Asked first: what is no zip NumPy would take for a pickle.
        if not zipfile.is_zipfile(opened):
            raise ValueError("it is no npz file")
    found = {}
    with np.load(file, allow_pickle=False) as stored:
        for name in stored.files:
            try:
                found[name] = stored[name]
            except ValueError:
                raise ValueError(f"array {name!r} is damaged, or of Python objects instead of numbers") from None
    return found


def _units(arrays: dict[str, Any]) -> Mapping[str, str]:
    """Take the units out of what an npz file has. An array of numbers may have that name too."""
    found = arrays.get(UNITS)
    if found is None or found.dtype.kind != "U":
        return {}
    units = json.loads(str(arrays.pop(UNITS)))
    if not isinstance(units, dict):
        raise ValueError(f'`{UNITS}` must be a JSON object such as {{"x": "cm"}}')
    return {str(name): str(unit) for name, unit in units.items()}


def npz_of(payload: Payload) -> bytes:
    """A payload as an npz file; the same payload, the same bytes. Raises Refused where a name cannot be kept."""
    if UNITS in payload.arrays and payload.units:
        raise Refused(f"payload {payload.id[:12]} has an array `{UNITS}`, which npz cannot hold: export to zarr")
    arrays = dict(payload.arrays)
    if payload.units:
        arrays[UNITS] = np.array(json.dumps(dict(payload.units)))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, array in sorted(arrays.items()):
            add_member(file, f"{name}.npy", npy_of(array))
    return buffer.getvalue()


def npy_of(array: Array) -> bytes:
    """An array as an npy file."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def add_member(file: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Add a file to an archive: not compressed, and without a time, so that the bytes are the same everywhere."""
    member = zipfile.ZipInfo(name)
    member.create_system, member.external_attr = 3, 0o644 << 16
    file.writestr(member, content)
