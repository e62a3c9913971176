"""The content of output files: one hash for one content, however it lies in files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.columns import take
from pipeline.content import content_hash
from tests.pipeline.tiers import Columns, closed, some_events, write

__all__ = ["closed"]


@settings(max_examples=settings().max_examples // 5)
@given(st.lists(st.integers(0, 40), max_size=4), st.permutations(range(40)))
def test_content_does_not_depend_on_files_or_their_order(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], order: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("content")
    columns = some_events(40)
    whole_of_it = content_hash([write(folder / "whole.root", columns)])
    edges = [0, *sorted(cuts), 40]
    shuffled = take(columns, np.array(order))
    parts = [
        write(folder / f"{place}.root", take(shuffled, slice(start, stop)), place=place)
        for place, (start, stop) in enumerate(pairwise(edges))
    ]
    assert content_hash(parts) == whole_of_it
    shutil.rmtree(folder)


def changed(columns: Columns) -> Iterator[Columns]:
    yield {**columns, "mass": columns["mass"] + np.float32(1e-6)}
    yield {**columns, "mass": columns["mass"].astype(np.float64)}
    yield {"weight" if name == "mass" else name: values for name, values in columns.items()}
    yield {name: values for name, values in columns.items() if name != "mass"}
    yield take(columns, slice(1, None))
    first, rest = columns["rates"][:1], columns["rates"][1:]
    yield {**columns, "rates": ak.concatenate([ak.unflatten(ak.flatten(first), [1, 1])[:1], rest])}
    # The same flat numbers, cut into lists otherwise.
    flat = ak.flatten(columns["rates"])
    yield {**columns, "rates": ak.unflatten(flat, np.array([1, 3, *[2] * (len(columns["event"]) - 2)]))}


def test_any_other_content_has_another_hash(tmp_path: Path) -> None:
    columns = some_events(20)
    hashes = [
        content_hash([write(tmp_path / f"{place}.root", one)]) for place, one in enumerate([columns, *changed(columns)])
    ]
    assert len(set(hashes)) == len(hashes)


def test_no_file_has_the_content_of_an_empty_one(tmp_path: Path) -> None:
    assert content_hash([]) == content_hash([write(tmp_path / "t.root", take(some_events(3), slice(0, 0)))])


@pytest.mark.parametrize(
    ("more", "word"), [({"extra": np.zeros(3)}, "different columns"), ({"mass": np.zeros(3)}, "'mass' has different")]
)
def test_files_that_do_not_fit_together_have_no_common_content(tmp_path: Path, more: Columns, word: str) -> None:
    paths = [write(tmp_path / "a.root", some_events(3)), write(tmp_path / "b.root", some_events(3) | more)]
    with pytest.raises(ValueError, match=word):
        content_hash(paths)


def test_bytes_differ_and_content_does_not(tmp_path: Path) -> None:
    left, right = (write(tmp_path / f"{name}.root", some_events(30)) for name in "ab")
    assert content_hash([left]) == content_hash([right])
    assert os.path.getsize(left) == os.path.getsize(right)
