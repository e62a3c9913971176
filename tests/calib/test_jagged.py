from __future__ import annotations

from typing import Any

import awkward as ak
import numpy as np
import pytest

from calib.jagged import counts_of, flat_of

WHOLE = ak.Array([[1, 2], [], [3], [4, 5, 6]])


@pytest.mark.parametrize(
    "jagged",
    [
        WHOLE,
        WHOLE[1:],
        WHOLE[2:3],
        WHOLE[[3, 0]],
        WHOLE[np.array([True, False, True, False])],
        WHOLE[[2, 2, 1]],
        WHOLE[np.array([2, 3])],
        WHOLE[np.zeros(0, np.int64)],
        WHOLE[:0],
        ak.Array([[], []]),
        ak.to_regular(ak.Array([[1, 2], [3, 4]])),
        ak.concatenate([WHOLE, WHOLE[1:]]),
        ak.values_astype(WHOLE, np.uint16),
        np.array([[1, 2], [3, 4]]),
        [[1, 2], [3]],
        ak.unflatten(np.arange(3, dtype=np.uint32), [0, 3]),
        ak.Array(WHOLE.layout.to_ListOffsetArray64(False)[2:]),
    ],
    ids=repr,
)
def test_it_is_what_awkward_says(jagged: Any) -> None:
    flat, counts = flat_of(jagged), counts_of(jagged)
    expected = np.asarray(ak.to_numpy(ak.flatten(jagged)))
    assert flat.tolist() == expected.tolist() and flat.dtype == expected.dtype
    assert counts.tolist() == ak.to_list(ak.num(jagged)) and counts.dtype == np.int64
