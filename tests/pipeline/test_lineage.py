"""Names of results: what changes them and what does not."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.lineage import lineage

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.text(min_size=1, max_size=5), plain, min_size=1, max_size=4))
def test_order_of_keys_does_not_matter(parts: dict[str, object]) -> None:
    backwards = dict(reversed(list(parts.items())))
    assert lineage(**parts) == lineage(**backwards)


@given(plain, plain)
def test_another_value_is_another_name(left: object, right: object) -> None:
    same = json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)
    assert (lineage(part=left) == lineage(part=right)) is same


def test_names_of_parts_count() -> None:
    assert lineage(a=1) != lineage(b=1)
    assert lineage(a=[1, 2]) != lineage(a=[2, 1])
    assert lineage(a=1) != lineage(a="1")


def test_numpy_scalars_are_their_values() -> None:
    assert lineage(a=np.int64(3), b=np.float64(0.1), c=np.bool_(True)) == lineage(a=3, b=0.1, c=True)


def test_tuples_are_lists() -> None:
    assert lineage(a=(1, (2,))) == lineage(a=[1, [2]])


def test_name_is_the_same_in_every_process() -> None:
    code = "from pipeline.lineage import lineage; print(lineage(b={'x': [1, 2.5, 'ä']}, a=None))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert found == lineage(a=None, b={"x": [1, 2.5, "ä"]})


@pytest.mark.parametrize("value", [{1, 2}, object(), np.zeros(3), b"bytes"])
def test_what_json_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="cannot be part of a lineage"):
        lineage(part=value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        lineage(part=value)
