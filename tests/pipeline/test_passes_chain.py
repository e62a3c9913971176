"""Calibrations that go after others, and one that iterates, in whole chains."""

import threading
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from jobs.tables import jobs
from pipeline.leftovers import clear_leftovers
from pipeline.manifest import Condition
from pipeline.mistakes import SettingsError
from pipeline.processing import nothing
from pipeline.settings import settings_from
from pipeline.tier0 import Tier0
from pipeline.way import Stage
from pipeline.world import open_world
from tests.pipeline.drivers import KILLED, Driver
from tests.pipeline.levels import Levels
from tests.pipeline.probes import PASSES, KillAt
from tests.pipeline.tiny import settings, write_file
from tests.pipeline.traces import done_again, results, work
from tests.pipeline.triggered import write_triggered

LEVELS = {"experiment": {"name": "tests.pipeline.levels:Levels"}}


@pytest.fixture
def file(tmp_path):
    return write_file(tmp_path / "a.root", 7)


def released(plain, run=7):
    """By kind, what the run was released under: condition, value, reason."""
    world = open_world(settings_from(plain))
    try:
        kinds = world.books.manifest(run).kinds
        return {
            k: (s.condition, round(float(world.store.get(s.payload)["mean"]), 2), s.why) for k, (s,) in kinds.items()
        }
    finally:
        world.database.close()


def passes(plain):
    """The kinds of each later pass of the ledger, in the order they were entered, and how many chunks each has."""
    world = open_world(settings_from(plain))
    query = sa.select(jobs.c.task_group, jobs.c.leaves).where(jobs.c.task_group.startswith("calibrate-"))
    try:
        with world.database.read() as connection:
            found = connection.execute(query.order_by(jobs.c.added_at, jobs.c.task_group)).all()
    finally:
        world.database.close()
    return [(group.split("-", 2)[2], leaves) for group, leaves in found]


def lines(path):
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_each_is_measured_under_what_those_before_it_found(house, file, tmp_path):
    log = tmp_path / "log"
    # It could not end, if what goes after `first` waited for it.
    turned = {"waits_for": f"{log}.HITS"}
    shadow = {"same": {"kind": "last", "calibration": {"min_hits": 5}}}
    plain = house(**LEVELS, calibration={"turned": turned}, shadow=shadow)
    with Tier0(plain, Levels(log=log)) as tier0:
        summary = tier0.run(file, progress=False)
        said = tier0.why(7)
        [beside] = tier0._world.books.document(7, "shadow same")["judged"]
        assert beside["payload"] == tier0._world.books.manifest(7).at_end("last")
    assert summary[7].stage is Stage.CERTIFIED
    found = released(plain)
    assert {condition for condition, _, _ in found.values()} == {Condition.FRESH}
    # Under one pass `second` would be 2.47, `third` 4.47 and `last` 3.47.
    values = {kind: value for kind, (_, value, _) in found.items()}
    assert values == {"first": 1.47, "second": 1.0, "other": 1.0, "third": 2.0, "turned": 1.45, "last": 2.02}
    assert found["turned"][2] == "converged in 3 iterations (steps 11, 2.76, 0.69, small is 1)"
    assert Counter(passes(plain)) == {("second+other", 4): 1, ("third", 4): 1, ("turned", 4): 2, ("last", 4): 1}
    # Only express and prompt have read RAW.
    assert (lines(Path(f"{log}.RAW")), lines(Path(f"{log}.HITS"))) == (8, 20)
    assert "run 7: pass for second, other reads HITS of the earlier pass, not RAW (" in said
    assert "run 7: pass 2 for turned reads HITS of the earlier pass, not RAW (" in said
    done = work(plain)
    world = open_world(settings_from(plain))
    # What the passes have left belongs to somebody, however old it is.
    assert clear_leftovers(replace(world, now=lambda: time.time() + 1e7), [7]) == 0
    world.database.close()
    with Tier0(plain, Levels(log=log)) as tier0:
        assert tier0.run(file, progress=False).exit_code == 0
        assert "nothing to do" in str(tier0.plan(file))
    assert work(plain) == done


def test_what_does_not_converge_is_published_by_name_alone_and_what_goes_after_it_is_made_again(house, file):
    # Each step goes as far beyond as the one before: it stalls.
    shadow = {"beside": {"kind": "turned", "calibration": {"min_hits": 5}}}
    plain = house(**LEVELS, calibration={"turned": {"part": 2.0}, "first": {"min_hits": 10**6}}, shadow=shadow)
    with Tier0(plain) as tier0:
        summary = tier0.run(file, progress=False)
        assert summary[7].stage is Stage.CONDITIONS
        said = "stalled after 3 iterations (steps 29.4, 29.4, 29.4, small is 1)"
        assert said in summary[7].reasons["turned"]
        assert "last" not in summary[7].reasons
        # Nothing came of `first`, so what express made for those right after it stands.
        assert Counter(passes(plain)) == {("turned", 4): 2, ("third", 4): 1}
        assert "pass for" not in str(tier0.plan(file))
        tier0.operator.waive(7, "turned", "as good as it gets", publish=True)
        why = "it is to be measured under what was found since express"
        reads = "(reads 20 events from HITS of the earlier pass, not RAW)"
        assert f"run 7: pass for last: {why} {reads}" in str(tier0.plan(file)).splitlines()
        summary = tier0.run(file, progress=False)
        assert summary[7].stage is Stage.CERTIFIED
        # Nor does what is made again of the state of the last pass, which others could be offered.
        [judged] = tier0._world.books.document(7, "shadow beside")["judged"]
        assert (judged["outcome"], judged["decision"]) == ("not converged", None)
        again = tier0.conditions.refits.again({"turned.min_hits": 4}, [7])
        assert again.refits[0].made == () and "the last pass moved by 29.4 (small is 1)" in str(again)
        with pytest.raises(SettingsError, match=r"`turned\.iterations` goes into the state"):
            tier0.conditions.refits.again({"turned.iterations": 1}, [7])
    found = released(plain)
    assert Counter(passes(plain)) == {("turned", 4): 2, ("third", 4): 1, ("last", 4): 1}
    assert found["turned"][:2] == (Condition.FRESH, 2.94)
    assert said in found["turned"][2] and "published under a waiver by" in found["turned"][2]
    assert found["last"] == (Condition.FRESH, 0.53, "made from these data")
    assert found["first"][0] is Condition.CARRIED
    assert found["second"] == (Condition.FRESH, 2.47, "made from these data")


@pytest.mark.verify
def test_at_the_deadline_or_where_there_is_none_what_is_in_force_stands_in_and_it_is_said(house, file):
    plain = house(**LEVELS, calibration={"turned": {"part": 0.1, "iterations": 2}, "first": {"breaks": True}})
    clock = [1.7e9]
    with Tier0(plain, clock=lambda: clock[0]) as tier0:
        assert tier0.run(file, progress=False)[7].stage is Stage.CONDITIONS
        clock[0] += 10**6
        assert tier0.run(file, progress=False)[7].stage is Stage.CERTIFIED
    found = released(plain)
    assert found["turned"][0] is Condition.FALLBACK
    assert found["turned"][2].endswith("out of iterations after 2 iterations (steps 1.47, 1.32, small is 1)")
    assert found["last"][1] == 3.47
    assert found["last"][2].startswith("made under the turned in force, for there is no other (out of iterations")
    assert found["second"][1] == 2.47
    assert "made under the first in force, for there is no other (first: finalize failed" in found["second"][2]


@pytest.mark.verify
def test_what_is_published_after_all_is_not_gone_without(house, file, tmp_path):
    """The deadline passes while `turned` is finalized; that is let finish, and `last` would need a pass under it."""
    late, written = tmp_path / "late", tmp_path / "written"

    def probe(point):
        if point == "pass-done" and not late.exists():
            late.touch()
            threading.Timer(3.0, written.touch).start()

    plain = house(**LEVELS, calibration={"turned": {"waits_for": str(written), "small": 100.0}})
    with Tier0(plain, clock=lambda: 1.7e9 + 1e6 * late.exists(), probe=OfDriver(probe)) as tier0:
        assert tier0.run(file, progress=False)[7].stage is Stage.CERTIFIED
    found = released(plain)
    assert (found["turned"][0], found["last"][0]) == (Condition.FRESH, Condition.FALLBACK)
    assert found["last"][2] == ("no verdict at the deadline: last: the pass for it could not begin before the deadline")


@dataclass(frozen=True)
class OfDriver:
    """A probe that does nothing in workers."""

    probe: Any

    def __call__(self, point):
        self.probe(point)

    def __reduce__(self):
        return OfDriver, (nothing,)


@pytest.mark.verify
@pytest.mark.parametrize("hit", [1, 2, 3])
@pytest.mark.parametrize("point", PASSES)
def test_a_pass_goes_on_where_it_was_killed(house, file, tmp_path, undisturbed, point, hit):
    plain, probe = house(**LEVELS), KillAt(tmp_path / "kills", (point,), hit)
    assert Driver(plain, [file], probe).end() == KILLED
    if (point, hit) == ("pass-done", 1):
        world = open_world(settings_from(plain))
        reasons = world.books.document(7, "status")["reasons"]
        world.database.close()
        assert reasons["last"].startswith("last: waits for turned: ")
        assert reasons["third"].startswith("third: waits for ")
    assert Driver(plain, [file], probe).end() == 0
    assert results(plain) == undisturbed[0]
    assert sorted(passes(plain)) == undisturbed[1]
    assert done_again(plain) == 0


@pytest.fixture(scope="module")
def undisturbed(joined, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    plain = settings(folder, cluster=joined, **LEVELS)
    assert Driver(plain, [write_file(folder / "a.root", 7)]).end() == 0
    return results(plain), sorted(passes(plain))


@pytest.mark.verify
def test_what_carries_on_what_the_run_before_found_is_what_the_next_kind_is_measured_under(house, file, tmp_path):
    # Express of both knows nothing of what is found: its tag is fed by nobody.
    gate = {"gate": "significance", "array": "mean", "error": "mean", "n_sigma": 0.0, "floor": 0.5, "unit": "cm"}
    plain = house(**LEVELS, gates={"turned": [gate]})
    files = [file, write_file(tmp_path / "b.root", 8, lumis=3)]
    with Tier0(plain) as tier0:
        assert tier0.run(*files, progress=False).exit_code in (0, 3)
    seven, eight = released(plain), released(plain, 8)
    assert (seven["turned"][0], eight["turned"][0]) == (Condition.FRESH, Condition.CARRIED)
    assert eight["turned"][1] == seven["turned"][1]
    assert eight["last"][0] is Condition.FRESH
    assert abs(eight["last"][1] - 2.0) < 0.1


@pytest.mark.verify
@pytest.mark.parametrize("point", ["", "released", "pass-done"])
def test_what_one_dataset_has_settled_another_goes_on_from(house, tmp_path, point):
    file = write_triggered(tmp_path / "a.root", 7)
    experiment = {"name": "tests.pipeline.levels:Sorted"}
    whole = house("whole", experiment=experiment)
    assert Driver(whole, [file]).end() in (0, 3)
    datasets = {"Muon": {"triggers": ["muon"], "required": ["first", "second", "turned"]}, "Other": {}}
    plain = house(experiment=experiment, datasets=datasets)
    if point:
        assert Driver(plain, [file], KillAt(tmp_path / "kills", (point,))).end() == KILLED
    assert Driver(plain, [file]).end() in (0, 3)
    world = open_world(settings_from(plain))
    manifests = world.books.released()[7].manifests
    world.database.close()
    assert set(manifests["Other"].kinds) == {"first", "second", "other", "third", "turned", "last"}
    assert set(manifests["Muon"].kinds) == {"first", "second", "turned"}
    one = open_world(settings_from(whole))
    undivided = one.books.manifest(7)
    one.database.close()
    assert {kind: manifests["Other"].at_end(kind) for kind in manifests["Other"].kinds} == {
        kind: undivided.at_end(kind) for kind in undivided.kinds
    }
    assert sorted(passes(plain)) == sorted(passes(whole))
    assert done_again(plain) == 0
