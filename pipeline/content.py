"""What output files hold, as one hash: their bytes differ from writing to writing, their content does not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from pipeline.columns import IDENTITY, join
from pipeline.events import TREE, SourceFile, tier_columns


def content_hash(paths: Sequence[Path | str]) -> str:
    """SHA-256 over the columns, types and values of tier files taken together, events in the order of run, lumisection
    and number: the same however the events are cut into files. Raises ValueError where files differ in columns.

    Holds one column at a time.
    """
    sources = [source for source in map(SourceFile.open, sorted(map(str, paths))) if source.entries(TREE)]
    digest = hashlib.sha256()
    if not sources:
        return digest.hexdigest()
    names = sorted(tier_columns(sources[0]))
    for source in sources:
        if sorted(tier_columns(source)) != names:
            raise ValueError(f"{source.path} and {sources[0].path} have different columns; hash one tier at a time")
    order: NDArray[np.intp] = np.lexsort([_column(sources, name) for name in reversed(IDENTITY)])
    for name in names:
        values = _column(sources, name)[order]
        flat = values if isinstance(values, np.ndarray) else ak.to_numpy(ak.flatten(values))
        digest.update(json.dumps([name, flat.dtype.str, flat.shape]).encode())
        if flat is not values:
            digest.update(ak.to_numpy(ak.num(values)).astype(np.int64).tobytes())
        digest.update(np.ascontiguousarray(flat).tobytes())
    return digest.hexdigest()


def _column(sources: Sequence[SourceFile], name: str) -> Any:
    parts = [source.arrays(TREE, (name,), 0, source.entries(TREE)) for source in sources]
    types = {str(part[name].dtype if isinstance(part[name], np.ndarray) else part[name].type.content) for part in parts}
    if len(types) > 1:
        raise ValueError(f"column {name!r} has different types in different files: {', '.join(sorted(types))}")
    return join(parts)[name]
