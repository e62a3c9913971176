"""The same data give the same constants and the same output, to the last bit, however a run is cut and by how many."""

import pytest

from pipeline.tier0 import Tier0
from tests.pipeline.tiny import settings, write_file, write_units
from tests.pipeline.traces import results

CUTS = {
    "one event": {"events": 1, "block_events": 1, "fan_in": 8},
    "one lumisection": {"units": 1, "fan_in": 2},
    "seven lumisections": {"units": 7, "fan_in": 2},
    "all": {"events": 10**9},
    "blocks of an uneven size": {"events": 5, "block_events": 3, "fan_in": 3},
    "few bytes": {"bytes": 2000},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two runs; the first lies in two files that share a lumisection, the later events first."""
    folder = tmp_path_factory.mktemp("bits")
    return [
        write_units(folder / "b.root", 7, range(1, 9), events=3, first_event=100),
        write_units(folder / "a.root", 7, range(8, 12), events=3),
        write_file(folder / "c.root", 8, lumis=9, events=2, mean=1.7),
    ]


@pytest.fixture(scope="module")
def whole(crew, files, tmp_path_factory):
    """What one worker makes of it all in one chunk a run."""
    plain = settings(tmp_path_factory.mktemp("whole"), cluster={"workers": 1, "tls": False}, splitting=CUTS["all"])
    with Tier0(plain) as tier0:
        assert tier0.run(*files, progress=False).exit_code == 0
    return results(plain)


@pytest.mark.parametrize("cut", CUTS)
def test_the_cut_never_shows(house, files, whole, cut):
    plain = house(splitting=CUTS[cut])
    with Tier0(plain) as tier0:
        assert tier0.run(*files, progress=False).exit_code == 0
    assert results(plain) == whole


def test_the_cuts_are_what_they_say(house, files):
    ...
