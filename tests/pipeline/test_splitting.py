"""Cutting a run: every entry once, units whole unless too large, and blocks that depend on the unit alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib.iov import RunLumi
from pipeline.model import Chunk, Piece
from pipeline.splitting import Limits, split

RUN = 190456


def unit(lumi: int, run: int = RUN) -> int:
    return RunLumi(run, lumi).packed


def run_of(sizes: list[list[int]]) -> list[Piece]:
    """A run whose lumisection i has pieces of these sizes, each in a file of its own, some way into it."""
    return [
        Piece(f"file{place}", 1000 * lumi, 1000 * lumi + size, unit(lumi))
        for lumi, pieces in enumerate(sizes)
        for place, size in enumerate(pieces)
    ]


runs = st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=4), min_size=1, max_size=25).map(run_of)
limits = st.builds(
    Limits,
    events=st.integers(1, 100),
    bytes=st.none() | st.integers(1, 300),
    block_events=st.integers(1, 30),
    units=st.none() | st.integers(1, 8),
)


def three_bytes(path: str) -> float:
    return 3.0


def entries(pieces: Iterator[Piece]) -> Counter[tuple[str, int]]:
    return Counter((piece.path, entry) for piece in pieces for entry in range(piece.start, piece.stop))


def events_by_unit(chunk: Chunk) -> Counter[int]:
    found: Counter[int] = Counter()
    for piece in chunk.pieces:
        found[piece.unit] += piece.events
    return found


@given(runs, limits)
def test_every_entry_is_in_just_one_chunk_and_of_its_unit(pieces: list[Piece], limits: Limits) -> None:
    chunks = list(split(pieces, limits, three_bytes))
    cut = [piece for chunk in chunks for piece in chunk.pieces]
    assert entries(iter(cut)) == entries(iter(pieces))
    assert max(entries(iter(cut)).values()) == 1
    of = {(piece.path, entry): piece.unit for piece in pieces for entry in range(piece.start, piece.stop)}
    assert all(of[piece.path, entry] == piece.unit for piece in cut for entry in range(piece.start, piece.stop))


@given(runs, limits)
def test_chunks_are_numbered_in_the_order_of_their_units(pieces: list[Piece], limits: Limits) -> None:
    chunks = list(split(pieces, limits, three_bytes))
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
    assert {chunk.run for chunk in chunks} == {RUN}
    order = [piece.unit for chunk in chunks for piece in chunk.pieces]
    assert order == sorted(order)


@given(runs, limits)
def test_chunks_keep_the_limits_and_only_units_too_large_are_cut(pieces: list[Piece], limits: Limits) -> None:
    whole: Counter[int] = Counter()
    for piece in pieces:
        whole[piece.unit] += piece.events
    for chunk in split(pieces, limits, three_bytes):
        found = events_by_unit(chunk)
        cut = [one for one, events in found.items() if events < whole[one]]
        fits = chunk.events <= limits.events and (limits.bytes is None or 3 * chunk.events <= limits.bytes)
        if any(events > limits.events or 3 * events > (limits.bytes or 10**9) for events in map(whole.get, found)):  # type: ignore[operator]
            # A unit too large shares its chunks with no other; a block is the least that can be cut off.
            assert len(found) == 1
            assert fits or chunk.events <= limits.block_events
        else:
            assert cut == []
            assert fits
            assert limits.units is None or len(found) <= limits.units


@given(runs, limits)
def test_no_chunk_is_smaller_than_it_must_be(pieces: list[Piece], limits: Limits) -> None:
    chunks = list(split(pieces, limits, three_bytes))
    for chunk, following in pairwise(chunks):
        if chunk.pieces[-1].unit == following.pieces[0].unit:
            continue
        first = following.pieces[0].unit
        events = sum(piece.events for piece in pieces if piece.unit == first)
        together = chunk.events + events
        assert (
            together > limits.events
            or 3 * together > (limits.bytes or 10**9)
            or len(chunk.units) + 1 > (limits.units or 10**9)
            # What is left of a unit too large stays alone.
            or sum(piece.events for piece in pieces if piece.unit == chunk.pieces[0].unit) > limits.events
            or 3 * sum(piece.events for piece in pieces if piece.unit == chunk.pieces[0].unit) > (limits.bytes or 10**9)
        )


@pytest.mark.parametrize("events", [250, 399, 999])
def test_blocks_end_where_the_unit_says_whatever_the_chunks(events: int) -> None:
    pieces = [Piece("a", 5, 705, unit(1)), Piece("b", 0, 400, unit(1))]
    ends = [
        sum(chunk.events for chunk in found)
        for chunks in [list(split(pieces, Limits(events, None, 200)))]
        for found in [chunks[: n + 1] for n in range(len(chunks))]
    ]
    assert ends[-1] == 1100
    assert all(end % 200 == 0 for end in ends[:-1])


def test_four_ways_of_the_same_run() -> None:
    pieces = run_of([[4], [3, 2], [6], [1]])
    assert [chunk.events for chunk in split(pieces, Limits(1, None, 1))] == [1] * 16
    assert [chunk.events for chunk in split(pieces, Limits(10**6, None, 1000, units=1))] == [4, 5, 6, 1]
    assert [chunk.events for chunk in split(pieces, Limits(10**6, None, 1000, units=3))] == [15, 1]
    assert [chunk.events for chunk in split(pieces, Limits(10**6, None, 1000))] == [16]


def test_bytes_count_by_file() -> None:
    pieces = [Piece("small", 0, 10, unit(1)), Piece("large", 0, 10, unit(2)), Piece("small", 10, 20, unit(3))]
    sizes = {"small": 1.0, "large": 100.0}
    found = [chunk.events for chunk in split(pieces, Limits(100, 500, 2), sizes.__getitem__)]
    # The large one has 1000 bytes: two blocks of 2 events fit into 500.
    assert found == [10, 4, 4, 2, 10]


def test_no_pieces_no_chunks() -> None:
    assert list(split([], Limits(10, None, 1))) == []


def test_a_run_streams() -> None:
    def endless() -> Iterator[Piece]:
        for lumi in range(1 << 30):
            yield Piece("a", lumi, lumi + 1, unit(lumi))

    chunks = split(endless(), Limits(10, None, 1))
    assert next(chunks).events == 10
    assert next(chunks).pieces[0].start == 10


@pytest.mark.parametrize(
    "pieces",
    [
        [Piece("a", 0, 1, unit(2)), Piece("a", 1, 2, unit(1))],
        [Piece("a", 0, 1, unit(1)), Piece("a", 1, 2, unit(2)), Piece("b", 0, 1, unit(1))],
        [Piece("a", 0, 1, unit(1)), Piece("a", 1, 2, unit(1, RUN + 1))],
    ],
)
def test_units_out_of_order_or_of_two_runs_are_refused(pieces: list[Piece]) -> None:
    with pytest.raises(ValueError, match="of one run, in the order of their units, not 1904"):
        list(split(pieces, Limits(10, None, 1)))


@pytest.mark.parametrize("name", ["events", "bytes", "block_events", "units"])
def test_a_limit_below_one_is_refused(name: str) -> None:
    given_limits = {"events": 5, "bytes": 5, "block_events": 5, "units": 5, name: 0}
    with pytest.raises(ValueError, match=f"at least 1 for {name}, not 0"):
        Limits(**given_limits)
