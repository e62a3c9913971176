"""Which events a sample and a first part consist of."""

from fractions import Fraction

import pytest

from calib.iov import RunLumi
from pipeline.model import Piece
from pipeline.sampling import first_part, sample

PIECES = [Piece("a.root", 100 * place, 100 * place + 100, RunLumi(7, place + 1).packed) for place in range(10)]


def events(chunks):
    return sum(chunk.events for chunk in chunks)


def lumis(chunks):
    return [RunLumi.unpack(unit).lumi for chunk in chunks for unit in chunk.units]


def test_a_sample_is_spread_evenly():
    chunks = sample(7, PIECES, 50, most_units=5)
    assert lumis(chunks) == [1, 3, 5, 7, 9] and [chunk.events for chunk in chunks] == [10] * 5
    assert all(chunk.run == 7 and chunk.index == place for place, chunk in enumerate(chunks))


def test_the_order_of_the_pieces_does_not_matter():
    assert sample(7, PIECES[::-1], 50) == sample(7, PIECES, 50)


def test_a_sample_larger_than_the_run_is_the_run():
    assert events(sample(7, PIECES, 10**6)) == 1000


def test_a_sample_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one event"):
        sample(7, PIECES, 0)
    assert sample(7, [], 5) == []


def test_the_first_part_in_units():
    assert lumis(first_part(7, PIECES, 2)) == [1, 2]
    assert events(first_part(7, PIECES, 2)) == 200


@pytest.mark.parametrize(("share", "taken"), [("1/100", [10]), ("15/100", [100, 50]), ("1", [100] * 10)])
def test_the_first_part_as_a_share(share, taken):
    chunks = first_part(7, PIECES, Fraction(share))
    assert [chunk.events for chunk in chunks] == taken
    assert lumis(chunks) == list(range(1, len(taken) + 1))


def test_a_unit_in_two_files_is_one_chunk():
    unit = RunLumi(7, 1).packed
    chunks = first_part(7, [Piece("b.root", 0, 5, unit), Piece("a.root", 0, 5, unit)], 1)
    assert [piece.path for piece in chunks[0].pieces] == ["a.root", "b.root"]
