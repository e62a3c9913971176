"""The same data give the same constants and the same output, to the last bit, however a run is cut and by how many."""

import pytest

from pipeline import catalog
from pipeline.settings import settings_from
from pipeline.tier0 import Tier0
from pipeline.world import open_world
from tests.pipeline import colliding
from tests.pipeline.tiny import settings, write_file, write_units
from tests.pipeline.traces import results

# Settings of the splitting, and into how many chunks run 7, of 11 lumisections of 2 events and one of 4, is then cut.
CUTS = {
    "one event": ({"events": 1, "block_events": 1, "fan_in": 8}, 26),
    "one lumisection": ({"units": 1, "fan_in": 2}, 12),
    "seven lumisections": ({"units": 7, "events": 1000, "fan_in": 2}, 2),
    "all": ({"events": 10**9}, 1),
    "blocks across files": ({"events": 3, "block_events": 3, "fan_in": 3}, 13),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two runs; the first lies in two files that share a lumisection, the one with higher event numbers first."""
    folder = tmp_path_factory.mktemp("bits")
    return [
        write_units(folder / "b.root", 7, range(1, 9), events=2, first_event=100),
        write_units(folder / "a.root", 7, range(8, 13), events=2),
        write_file(folder / "c.root", 8, lumis=3, events=2, mean=1.7),
    ]


@pytest.fixture(scope="module")
def whole(files, tmp_path_factory):
    """What one worker makes of it all, with one chunk a run."""
    cluster = {"workers": 1, "tls": False}
    plain = settings(tmp_path_factory.mktemp("whole"), cluster=cluster, splitting=CUTS["all"][0])
    with Tier0(plain) as tier0:
        assert len(tier0.client.scheduler_info()["workers"]) == 1
        assert tier0.run(*files, progress=False).exit_code == 0
    return results(plain)


@pytest.mark.parametrize("cut", CUTS)
def test_neither_the_cut_nor_the_number_of_workers_shows(house, files, whole, cut):
    splitting, chunks = CUTS[cut]
    plain = house(splitting=splitting)
    with Tier0(plain) as tier0:
        assert len(tier0.client.scheduler_info()["workers"]) == 2
        assert tier0.run(*files, progress=False).exit_code == 0
    assert results(plain) == whole
    assert layout(plain, 7).chunks == chunks


def test_results_tell_one_payload_and_one_hit_from_another(house, files, whole):
    """What is compared above would show a difference."""
    plain = house(experiment={"settings": {"cut": 1.6}})
    with Tier0(plain) as tier0:
        tier0.run(*files, progress=False)
    other = results(plain)
    assert other.payloads[0] == whole.payloads[0]  # what the experiment starts from
    assert not {payload for *_, payload in other.payloads[1:]} & {payload for *_, payload in whole.payloads}
    assert other.outputs.keys() == whole.outputs.keys()
    assert not set(other.outputs.values()) & set(whole.outputs.values())


def layout(plain, run):
    world = open_world(settings_from(plain))
    with world.database.read() as connection:
        found = catalog.find_layout(connection, run, catalog.inputs(connection, run))
    world.database.close()
    return found


@pytest.fixture(scope="module")
def collisions(tmp_path_factory):
    return colliding.collider_files(tmp_path_factory.mktemp("collisions"))


@pytest.fixture(scope="module")
def collided(collisions, tmp_path_factory):
    """What one worker makes of the collisions, with one chunk a run."""
    cluster = {"workers": 1, "tls": False}
    plain = settings(
        tmp_path_factory.mktemp("collided"), cluster=cluster, splitting=CUTS["all"][0], **colliding.SECTIONS
    )
    with Tier0(plain) as tier0:
        assert tier0.run(*collisions, progress=False).exit_code == 0
        colliding.made(tier0)
    return results(plain)


# Of two runs of 4 lumisections of 4 events; "all" is what they are compared with.
COLLIDER_CUTS = {
    "one event": {"events": 1, "block_events": 1, "fan_in": 8},
    "one lumisection": {"units": 1, "events": 1000, "fan_in": 2},
    "three lumisections": {"units": 3, "events": 1000, "fan_in": 2},
    "blocks": {"events": 3, "block_events": 3, "fan_in": 3},
}


@pytest.mark.parametrize("splitting", COLLIDER_CUTS.values(), ids=COLLIDER_CUTS)
def test_nor_do_they_show_in_fits_of_the_best_tracks_over_two_runs(house, collisions, collided, splitting):
    """Floating-point fits, cuts on the best of a lumisection, a span over runs, and what is carried from before."""
    plain = house(splitting=splitting, **colliding.SECTIONS)
    with Tier0(plain) as tier0:
        assert tier0.run(*collisions, progress=False).exit_code == 0
        colliding.made(tier0)
    found = results(plain)
    assert found == collided
    assert len(found.outputs) == 2
