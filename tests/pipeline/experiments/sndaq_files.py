"""Copies of a supernova acquisition file with some counts changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot
from numpy.typing import NDArray


def write_copy(source: Path, target: Path, edit: Callable[[NDArray[Any]], None]) -> None:
    """Write tree `sn_all` again; `edit` changes its counts, uint16[bins, modules], in place.

    The run number is taken from the name: let `target` have it.
    """
    with uproot.open(source) as file:
        tree = file["sn_all"]
        counts = ak.to_numpy(tree["sn_all_data/data"].array()).copy()
        columns = {
            name: tree[f"sn_all_data/SN_Streaming_t/{name}"].array(library="np") for name in ("buf_pos", "buf_loop")
        }
    edit(counts)
    jagged = ak.from_regular(ak.Array(counts))
    with uproot.recreate(target) as file:
        types = {name: np.dtype(np.uint64) for name in columns}
        file.mktree("sn_all", {"data": jagged.type.content, **types}).extend({"data": jagged, **columns})


def two_faults(counts: NDArray[Any], silent: int = 100, loud: int = 3000) -> None:
    """One module silent in bins 100 to 149, one at five times its rate from bin 200."""
    counts[100:150, silent] = 0
    counts[200:, loud] *= 5
