"""Payloads made again from kept states: nothing is read, nothing is published, and what comes out can be offered."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from calib.channel_sums import PartOfAPool
from calib.iov import RunLumi
from calib.state import unpack_state
from pipeline.certify import ranges_of
from pipeline.cli import main
from pipeline.conditions_words import Refused
from pipeline.finalizing import Hired, finalize_here
from pipeline.links import Ask
from pipeline.mistakes import SettingsError
from pipeline.passes import states_of
from pipeline.plots import NothingToPlot
from pipeline.preparation import prepare
from pipeline.refit_view import Refits
from pipeline.tier0 import Tier0
from pipeline.toml_text import toml_text
from tests.pipeline.tiny import write_file

SURE = {"experiment": {"name": "tests.pipeline.closing_toys:Closing"}, "splitting": {"events": 1000}}
PAIRS = {"calibration": {"offset": {"together": 2, "min_hits": 4}}}


@pytest.fixture
def files(tmp_path):
    return [write_file(tmp_path / f"{run}.root", run, lumis=4, events=10, mean=run / 10) for run in (7, 8)]


def run_and_lose(house, files, **more):
    """A Tier-0 that has made these runs, whose files are gone by now."""
    tier0 = Tier0(house(**SURE, **more))
    tier0.run(*files, progress=False)
    for file in files:
        file.unlink()
    return tier0


def as_file(path, plain):
    path.write_text(toml_text({k: {n: v for n, v in t.items() if v is not None} for k, t in plain.items()}))
    return path


def bad(world, run, *lumis):
    """Certify some lumisections of a run bad."""
    found = world.books.document(run, "certification")
    good = [RunLumi(run, lumi).packed for lumi in range(1, 5) if lumi not in lumis]
    world.books.record(run, "certification", {**found, "good": ranges_of(good)})


def dump(tier0):
    """All that the database says of conditions and of jobs."""
    world = tier0._world
    tags = {tag: tier0.conditions.history(tag) for tag in ("offset_prompt_v1", "offset_express_v1")}
    status = {run: world.books.document(run, "status") for run in (7, 8)}
    manifests = {run: world.books.manifest(run) for run in (7, 8)}
    return tags, status, manifests, world.books.documents("verdicts offset")


def test_as_it_was_it_is_the_same_and_nothing_changes(house, files):
    with run_and_lose(house, files, **PAIRS) as tier0:
        before = dump(tier0)
        made = tier0.conditions.refits.again({"offset.min_hits": 4})
        assert made.exit_code == 0 and dump(tier0) == before
        [found] = made.refits
        assert [row.same for row in found.rows] == [True] * 4
        assert "offset: 0 of 4 intervals have another payload" in str(made)
        with pytest.raises(NothingToPlot, match="nothing that has an error differs"):
            made.plot()


def test_a_boundary_moved_reads_no_event(house, files, tmp_path):
    """The files are gone, and the intervals are others."""
    with run_and_lose(house, files, **PAIRS) as tier0:
        before = dump(tier0)
        made = tier0.conditions.refits.again({"offset.together": 4})
        assert made.exit_code == 3 and dump(tier0) == before
        [found] = made.refits
        assert [one.first & 0xFFFFFFFF for one in found.made] == [1, 1] and len(found.rows) == 4
        assert {(row.first & 0xFFFFFFFF, row.last & 0xFFFFFFFF) for row in found.rows} == {(1, 2), (3, 4)}
        text = str(made)
        assert "offset.together = 4" in text and "4 payloads published, 2 with what is made again" in text
        assert "sigma)" in text
        assert made.plot(tmp_path / "moved.png").stat().st_size > 1000
        # Of one run alone it is the same as of it among others: the tiny offset does not look back.
        assert tier0.conditions.refits.again({"offset.together": 4}, [8]).refits[0].made == found.made[1:]


def test_a_threshold_moved_says_what_is_lost(house, files):
    with run_and_lose(house, files, **PAIRS) as tier0:
        made = tier0.conditions.refits.again({"offset.min_hits": 10**6}, [7])
        assert made.exit_code == 3 and made.refits[0].made == ()
        assert "not to be offered: 7:1 to 7:2: not enough data" in str(made)


def test_what_cannot_be_made_again_is_refused(house, files):
    with Tier0(house(**SURE)) as tier0:
        refits = tier0.conditions.refits
        with pytest.raises(Refused, match="run 7 was never seen; the runs are none yet"):
            refits.certified(7)
        tier0.run(files[0], progress=False)
        for changes, error, word in (
            ({"offset.scale": 10}, SettingsError, "`offset.scale` goes into the state, which is made from events"),
            ({"offset.min_hit": 3}, SettingsError, "did you mean `min_hits`"),
            ({"offset.min_hits": "x"}, SettingsError, "min_hits"),
            ({"ofset.min_hits": 3}, Refused, "there is no kind 'ofset'"),
            ({"min_hits": 3}, Refused, "is no setting of a calibration, such as"),
            ({}, Refused, "say what to set"),
        ):
            with pytest.raises(error, match=word):
                refits.again(changes)
        with pytest.raises(Refused, match=r"runs 8: offset was not released .* released are 7"):
            refits.again({"offset.min_hits": 4}, [7, 8])
        with pytest.raises(SettingsError, match="did you mean `offset`"):
            refits.certified(7, ["ofset"])


class Failing(Hired):
    """Whatever is asked for fails."""

    def finished(self):
        return ((ask, {"failed": "it was not to be"}) for ask, _ in super().finished())


def test_without_what_is_not_certified_good(house, files, tmp_path):
    plain = house(**SURE, calibration={"offset": {"min_hits": 4}})
    with run_and_lose(house, files, calibration={"offset": {"min_hits": 4}}) as tier0:
        same = tier0.conditions.refits.certified(7, ["offset"])
        assert same.exit_code == 0 and "as it was" in str(same)
        world = tier0._world
        bad(world, 7, 2, 3)
        before = dump(tier0)
        made = tier0.conditions.refits.certified(7, ["offset"])
        assert made.exit_code == 3 and dump(tier0) == before
        [found] = made.refits
        [one] = found.made
        old, new = (world.store.get(name) for name in (found.rows[0].production, one.payload))
        assert 0 < int(new["hits"]) < int(old["hits"])
        # By hand: the same hits, without those of the two lumisections.
        [way], _ = prepare(world, [7])
        state = unpack_state(states_of(world, way)["offset"].path, "offset")
        left = [unit for unit in state.units().tolist() if unit & 0xFFFFFFFF not in (2, 3)]
        assert new.id == way.context.calibrations[0].finalize(state.select(np.array(left)), None).id
        assert "without 2 spills that are not certified good" in str(made)
        assert made.plot(tmp_path / "refit.png").stat().st_size > 1000
        # Of what cannot be made again nothing is held beside what was published.
        failed = Refits(world, Failing()).certified(7, ["offset"])
        assert failed.exit_code == 2 and failed.refits[0].rows[0].shadow is None
        assert "run 7: offset: it was not to be" in str(failed) and "0 of 1 intervals have another" in str(failed)
    offered_to_an_offline_tag(as_file(tmp_path / "t.toml", plain), one.payload)


def offered_to_an_offline_tag(path, payload):
    def tier0(*words):
        return CliRunner().invoke(main, [*words, "-s", str(path)])

    refit = ("certify", "refit", "7", "--kind", "offset")
    plain = tier0(*refit)
    assert plain.exit_code == 3 and "offset: 1 of 1 intervals have another payload" in plain.output
    no_tag = tier0(*refit, "--upload", "nowhere", "--reason", "a test")
    assert no_tag.exit_code == 1 and "nowhere" in no_tag.output
    wrong = tier0(*refit, "--upload", "offset_prompt_v1", "--reason", "a test")
    assert wrong.exit_code == 1 and "serves prompt; what is made again is offered to an offline tag" in wrong.output
    made = tier0("conditions", "tag", "create", "offset_offline", "--kind", "offset", "--kind-of-tag", "offline")
    assert made.exit_code == 0, made.output
    assert "say why" in tier0(*refit, "--upload", "offset_offline").output
    done = tier0(*refit, "--upload", "offset_offline", "--reason", "without two bad spills")
    assert done.exit_code == 3 and f"offset_offline: accepted from 7:0 on, payload {payload[:12]}" in done.output
    again = tier0(*refit, "--upload", "offset_offline", "--reason", "without two bad spills")
    assert "it holds there already" in again.output
    history = tier0("conditions", "history", "offset_offline").output
    assert "without two bad spills" in history


def test_again_by_the_command(house, files, tmp_path):
    plain = house(**SURE, **PAIRS)
    with run_and_lose(house, files, **PAIRS):
        pass
    path = as_file(tmp_path / "t.toml", plain)
    picture = tmp_path / "p.png"
    found = CliRunner().invoke(
        main,
        ["calibrate", "again", "7", "8", "--set", "offset.together=4", "--plot", str(picture), "-s", str(path)],
    )
    assert found.exit_code == 3 and "4 of 4 intervals have another payload" in found.output and picture.exists()
    wrong = CliRunner().invoke(main, ["calibrate", "again", "--set", "offset.scale=7", "-s", str(path)])
    assert wrong.exit_code == 1 and "goes into the state" in wrong.output
    unclear = CliRunner().invoke(main, ["calibrate", "again", "--set", "offset.scale", "-s", str(path)])
    assert unclear.exit_code == 2 and "write KIND.KEY=VALUE" in unclear.output


def test_intervals_over_runs_are_made_again_whole(house, tmp_path):
    files = [write_file(tmp_path / f"{run}.root", run, lumis=3, events=10) for run in (1, 2, 3)]
    with Tier0(house(experiment={"name": "tests.pipeline.judging:Gathering"})) as tier0:
        tier0.run(*files, progress=False)
        refits = tier0.conditions.refits
        [alone] = refits.again({"offset.min_hits": 11}, [2]).refits
        assert sorted(alone.found) == [1, 2] and {row.run for row in alone.rows} == {2} and not alone.differing
        [other] = refits.again({"offset.enough": 4}, [1, 2, 3]).refits
        spans = [(RunLumi.unpack(one.first), RunLumi.unpack(one.last)) for one in other.made]
        assert spans == [((1, 1), (2, 1)), ((2, 2), (3, 2)), ((3, 3), (3, 3))]


def test_what_cuts_sums_that_are_kept_together_fails_with_the_reason():
    class Pooled:
        class calibration:
            kind = "pedestal"

        def leaf(self, states, attempt):
            raise PartOfAPool("1 of 2 units were asked for")

    assert finalize_here(Ask(7, Pooled(), ()))["failed"] == "pedestal: 1 of 2 units were asked for"


def test_what_is_kept_of_certification_has_its_units(house, files):
    """What the refit leaves out follows from the good ranges, whatever reasons are listed."""
    with Tier0(house(**SURE)) as tier0:
        tier0.run(files[0], progress=False)
        bad(tier0._world, 7, 1, 2, 3, 4)
        made = tier0.conditions.refits.certified(7, ["offset"])
        [found] = made.refits
        assert found.made == () and json.dumps(found.without[7])
        assert [(row.shadow, row.shadow_says) for row in found.rows] == [(None, "left out")] * len(found.rows)
        assert made.exit_code == 2 and not found.differing
        bad(tier0._world, 7, 1)
        [found] = tier0.conditions.refits.certified(7, ["offset"]).refits
        assert found.rows[0].shadow_says == "left out" and found.rows[-1] in found.differing
        assert found.exit_code == 3 and found.rows[0] not in found.differing
