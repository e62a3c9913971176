"""Conditions for those who do not have this program: a folder of npz files and one JSON index."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from calib.payload import PayloadStore
from calib.tags import Validity
from pipeline.processing import nothing
from pipeline.whole import write_whole


def export_folder(folder: Path, tag: str, validities: Sequence[Validity], store: PayloadStore) -> Path:
    """Write `TAG.json` (intervals, half open, with payload ids and units) and one npz a payload; the index last.

    Gives the path of the index.
    """
    rows = []
    for validity in validities:
        payload = store.get(validity.payload_id)
        buffer = io.BytesIO()
        np.savez(buffer, units=json.dumps(dict(payload.units)), **payload.arrays)  # type: ignore[arg-type]
        file = f"{payload.kind}-{payload.id[:16]}.npz"
        write_whole(folder / file, buffer.getvalue(), nothing)
        until = None if validity.until is None else str(validity.until)
        rows.append({"since": str(validity.since), "until": until, "payload": payload.id, "file": file})
    index = folder / f"{tag}.json"
    content = {"tag": tag, "intervals": rows, "meaning": "half open: since belongs to it, until does not; null is open"}
    write_whole(index, json.dumps(content, indent=1).encode(), nothing)
    return index
