"""A plan tells what a run would be released under, and so whether its prompt would be done again; or that it cannot."""

import time

from pipeline.settings import settings_from
from pipeline.tier0 import Tier0
from pipeline.world import open_world, set_up
from tests.pipeline.tiny import write_file, write_units
from tests.pipeline.traces import results, work

RELEASED = "publish, release: no manifest in processing version 2"
UNKNOWN = "publish, release, then prompt where its conditions differ: no manifest in processing version 2"


def plan(plain, *files):
    return str(Tier0(plain).plan(*files)).partition("\n\n")[0].splitlines()


def test_what_a_run_would_be_released_under_is_told_where_it_can_be(house, tmp_path):
    files = [write_file(tmp_path / "a.root", 7), write_file(tmp_path / "b.root", 8, lumis=3)]
    # Too little data: what is carried leans on what the runs before leave in force.
    carried = {"calibration": {"offset": {"min_hits": 10**6}}}
    plain, later = house(**carried), house(**carried, handshake={"max_carried_runs": 9})
    with Tier0(plain) as tier0:
        tier0.run(*files, progress=False)
    done = work(plain)
    assert plan(later, *files) == [f"run 7: {RELEASED}", f"run 8: {RELEASED}"]
    # A run that is not told holds up those after it,
    more = write_units(tmp_path / "c.root", 7, [5], first_event=500)
    said = plan(later, *files, more)
    assert said[0].startswith("run 7: express")
    assert f"run 7: {UNKNOWN}" in said
    assert f"run 8: {UNKNOWN}" in said
    # ... and so does one that is not looked at here, as long as it is waited for.
    assert plan(later, files[1]) == [f"run 8: {RELEASED}"]
    world = set_up(open_world(settings_from(later)))
    world.books.record(7, "first seen", {"at": time.time()})
    assert plan(later, files[1]) == [f"run 8: {UNKNOWN}"]
    world.books.record(7, "first seen", {"at": time.time() - 10**7})
    assert plan(later, files[1]) == [f"run 8: {RELEASED}"]
    world.books.record(7, "first seen", {"at": time.time()})
    world.database.close()
    # Nor is one told that people hold.
    with Tier0(later) as tier0:
        tier0.operator.hold(8, "look at the magnet first")
        assert plan(later, *files) == [f"run 7: {RELEASED}", f"run 8: {UNKNOWN}"]
        tier0.operator.lift(8)
        tier0.run(*files, progress=False)
    assert work(later) == done
    assert results(later).manifests.keys() == {7, 8}
