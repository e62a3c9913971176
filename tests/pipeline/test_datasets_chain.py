"""Datasets in whole chains: each waits for its own conditions, and none for another's."""

import json
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from jobs.tables import jobs
from pipeline.events import read_header, read_tier
from pipeline.settings import settings_from
from pipeline.shadow_view import Shadows
from pipeline.tier0 import Tier0
from pipeline.way import Stage
from pipeline.world import open_world
from tests.pipeline.tiny import write_file
from tests.pipeline.triggered import BEAM, MUON, Dies, DiesAt, Watch, bits, made, outputs, stages, write_triggered

DEADLINE = 3600.0
EVENTS = 24
BROKEN = {"spread": {"breaks": True}}
DATASETS = {
    "Muon": {"triggers": ["muon"], "required": ["offset"]},
    "Beam": {"triggers": ["beam"], "required": ["offset"]},
    "Other": {},
}


@pytest.fixture
def watch():
    return Watch()


@pytest.fixture
def plain(house):
    def make(**sections):
        found = {
            "experiment": {"name": "tests.pipeline.triggered:Triggered"},
            "handshake": {"deadline": DEADLINE},
            "splitting": {"events": 12},
            "datasets": DATASETS,
        }
        return house(**(found | sections))

    return make


@pytest.fixture
def files(tmp_path):
    return [write_triggered(tmp_path / f"{run}.root", run) for run in (7, 8)]


def numbers(paths):
    return sorted(int(event) for path in paths for event in read_tier(path)["event"])


def test_a_dataset_that_needs_less_goes_first_and_the_other_at_its_deadline(plain, files, watch):
    calibration = {"calibration": BROKEN}
    with Tier0(plain(**calibration), clock=watch) as tier0:
        summary = tier0.run(files[0], progress=False)
        assert stages(summary) == {"Muon": Stage.DONE, "Beam": Stage.DONE, "Other": Stage.CONDITIONS}
        assert (summary[7].stage, summary.exit_code) == (Stage.CONDITIONS, 4)
        said, why = summary.text(), tier0.why(7)
        assert (
            "dataset Muon: done, released under manifest" in said and "dataset Other: conditions, not released" in said
        )
        assert "Other: spread: finalize failed: RuntimeError" in said and "until 2023-11-14 23:13:20 UTC" in said
        assert "Muon, offset 7:1 to 7:2: fresh" in why and "Other, offset" not in why
        before = made(plain(**calibration))
        assert "publish, release of dataset Other" in str(tier0.plan(files[0]))
        assert "dataset Muon" not in str(tier0.plan(files[0]))
        watch.now += DEADLINE
        summary = tier0.run(files[0], progress=False)
        assert set(stages(summary).values()) == {Stage.CERTIFIED} and summary[7].stage is Stage.CERTIFIED
    after = made(plain(**calibration))
    assert before[0].items() <= after[0].items() and before[1].items() <= after[1].items()
    offset = {key: dict(content)["offset"] for key, content in after[0].items()}
    assert offset[7, "Muon"] == offset[7, "Beam"] == offset[7, "Other"]
    assert [row[2] for row in dict(after[0][7, "Other"])["spread"]] == ["fallback"]
    assert [list(dict(after[0][7, name])) for name in ("Muon", "Beam")] == [["offset"]] * 2
    with Tier0(plain(**calibration), clock=watch) as tier0:
        assert str(tier0.plan(files[0])).startswith("nothing to do")


def test_every_event_is_where_its_triggers_say_and_every_file_says_it(plain, files):
    with Tier0(plain()) as tier0:
        summary = tier0.run(*files, progress=False)
        assert summary.exit_code == 0
        # Released before Other, the others have not settled what they do not need.
        assert [interval.iov.since.run for interval in tier0.conditions.intervals("spread")] == [0, 7, 8]
        told = {name: list(map(str, tier0.results.files(7, "PROMPT", name))) for name in DATASETS}
        every = map(str, tier0.results.files(7, "PROMPT"))
        assert sorted(every) == sorted(path for paths in told.values() for path in paths)
    found = outputs(plain())
    assert told == {name: found[7, name] for name in DATASETS}
    every = np.arange(1, EVENTS + 1)
    kept = every[(every - 1) % 7 != 3]
    trig = bits(EVENTS)[kept - 1]
    wanted = {"Muon": trig & MUON != 0, "Beam": trig & BEAM != 0, "Other": trig == 0}
    for name, mask in wanted.items():
        assert numbers(found[7, name]) == kept[mask].tolist()
        for path in found[7, name]:
            header = read_header(path)
            assert header["dataset"] == header["manifest"]["dataset"] == name
            assert f"prompt-{name}-" in path and f"prompt-7-{name}-" in Path(path).name
    rows = {row.name: row for row in summary[7].datasets}
    for name, row in rows.items():
        taken = {"Muon": EVENTS // 3, "Beam": EVENTS // 4, "Other": EVENTS // 2}[name]
        assert row.prompt.read == taken and row.prompt.balanced and row.elsewhere == EVENTS - taken
    assert summary[7].prompt.read == sum(row.prompt.read for row in rows.values()) == EVENTS + EVENTS // 12
    assert "Muon: 8 = " in summary.text(400)
    # However it is cut.
    whole = plain(area="whole", splitting={"events": 5, "block_events": 3})
    with Tier0(whole) as tier0:
        tier0.run(*files, progress=False)
    assert made(whole) == made(plain())


def test_one_dataset_is_held_and_the_others_go_on(plain, files):
    with Tier0(plain()) as tier0:
        with pytest.raises(LookupError, match="there is no dataset Muons; did you mean `Muon`"):
            tier0.operator.hold(7, "a slip", "Muons")
        tier0.operator.hold(7, "look at it first", "Muon")
        summary = tier0.run(files[0], progress=False)
        assert stages(summary) == {"Muon": Stage.CONDITIONS, "Beam": Stage.DONE, "Other": Stage.DONE}
        assert "run 7, dataset Muon: held by" in tier0.why(7) and summary.exit_code == 4
        assert "datasets Beam, Other of run 7 are released already" in tier0.operator.hold(7, "all of it")
        assert "run 7, dataset Beam is released already" in tier0.operator.hold(7, "too late", "Beam")
        for name in ("", "Beam", "Muon"):
            tier0.operator.lift(7, dataset=name)
        summary = tier0.run(files[0], progress=False)
        assert summary[7].stage is Stage.CERTIFIED
        assert len({str(dict(c)["offset"]) for c in made(plain())[0].values()}) == 1


@pytest.mark.parametrize(
    ("point", "hit"),
    [
        ("released", 1),
        pytest.param("settle", 2, marks=pytest.mark.verify),
        pytest.param("ledger-committed", 6, marks=pytest.mark.verify),
        pytest.param("ledger-committed", 9, marks=pytest.mark.verify),
    ],
)
def test_a_driver_that_dies_between_two_datasets_goes_on(plain, files, point, hit):
    with Tier0(plain(area="undisturbed")) as tier0:
        tier0.run(files[0], progress=False)
    with Tier0(plain(), probe=DiesAt(point, hit)) as tier0, pytest.raises(Dies):
        tier0.run(files[0], progress=False)
    with Tier0(plain()) as tier0:
        assert tier0.run(files[0], progress=False)[7].stage is Stage.CERTIFIED
    assert made(plain()) == made(plain(area="undisturbed"))


def test_what_one_dataset_waits_for_is_waived_and_what_is_settled_is_not(plain, files):
    with Tier0(plain(calibration=BROKEN)) as tier0:
        tier0.run(files[0], progress=False)
        with pytest.raises(ValueError, match="offset of run 7 is settled already, with its dataset"):
            tier0.operator.waive(7, "offset", "no reason")
        tier0.operator.waive(7, "spread", "it is not used")
        assert tier0.run(files[0], progress=False)[7].stage is Stage.CERTIFIED
        assert "spread was released under a waiver by" in tier0.why(7)


def test_runs_wait_for_the_kind_and_not_for_the_dataset_of_another(plain, files):
    """Run 8 carries its offset on: that of run 7 is settled with Muon, though the rest of run 7 is not."""
    rules = [{"runs": "8", "calibration": {"offset": {"min_hits": 10**6}}}, {"runs": "7", "calibration": BROKEN}]
    with Tier0(plain(**{"for": rules})) as tier0:
        summary = tier0.run(*files, progress=False)
        assert stages(summary, 7) == {"Muon": Stage.DONE, "Beam": Stage.DONE, "Other": Stage.CONDITIONS}
        assert stages(summary, 8)["Muon"] is Stage.CERTIFIED
    with Tier0(plain(area="apart", **{"for": rules})) as tier0:
        tier0.run(files[0], progress=False)
        assert tier0.run(files[1], progress=False)[8].stage is Stage.CERTIFIED


def test_canaries_of_datasets_try_what_each_would_publish(plain, files):
    with Tier0(plain(canary={"units": 1}, handshake={"feeds_express": ["offset"]})) as tier0:
        assert tier0.run(files[0], progress=False)[7].stage is Stage.CERTIFIED
        fed = tier0.conditions.intervals("offset", tier0._world.tag_of("offset", "express"))
        assert [interval.iov.since.run for interval in fed] == [0, 8]
    world = open_world(settings_from(plain(canary={"units": 1}, handshake={"feeds_express": ["offset"]})))
    first, second = world.books.document(7, "canary Beam"), world.books.document(7, "canary Other")
    with world.database.read() as connection:
        groups = set(connection.scalars(select(jobs.c.task_group)))
    world.database.close()
    # Beam tries the offset, which then is settled for Muon too; Other has the spread still to try, which moves nothing.
    assert first["changed"] == first["events"] > 0 == second["changed"] < second["events"]
    assert {"canary-7-Beam", "canary-7-Other"} <= groups and "canary-7-Muon" not in groups


def test_what_if_counts_the_datasets_that_a_kind_touches(plain, files, tmp_path):
    with Tier0(plain()) as tier0:
        tier0.run(files[0], progress=False)
        file = tmp_path / "payload.npz"
        np.savez(file, units=json.dumps({"mean": "cm"}), mean=np.float64(2.0), hits=np.int64(9))
        spread, offset = (tier0.conditions.what_if(kind, file, "7", sample=8).found for kind in ("spread", "offset"))
    sizes = {name: sum(Path(path).stat().st_size for path in outputs(plain())[7, name]) for name in DATASETS}
    assert [touched.size for touched in spread.touched] == [sizes["Other"]]
    assert [touched.size for touched in offset.touched] == [sum(sizes.values())]
    assert spread.found.differences.changed == 0 < offset.found.differences.changed


def test_files_without_what_tells_datasets_apart_are_set_aside(plain, tmp_path):
    with Tier0(plain()) as tier0:
        summary = tier0.run(write_file(tmp_path / "7.root", 7, lumis=2), progress=False)
        assert "no trig, by which datasets are told apart" in tier0.why(7)
    assert {row.prompt.bad for row in summary[7].datasets} == {10} and summary.exit_code == 3


def test_what_other_datasets_have_left_is_no_leftover(plain, files, watch):
    """Another version without datasets clears the folder of the run: what the first has made stays."""
    with Tier0(plain(), clock=watch) as tier0:
        tier0.run(files[0], progress=False)
    before = outputs(plain())
    watch.now += 1e9
    with Tier0(plain(datasets={}), clock=watch) as tier0:
        assert tier0.run(files[0], progress=False)[7].stage is Stage.CERTIFIED
    assert all(Path(path).exists() for paths in before.values() for path in paths)


def test_events_that_got_lost_between_datasets_stop_the_run(plain, files, tmp_path):
    fickle = {"name": "tests.pipeline.triggered:Fickle", "settings": {"folder": str(tmp_path)}}
    with Tier0(plain(experiment=fickle, datasets={"Muon": {"triggers": ["muon"]}})) as tier0:
        summary = tier0.run(files[0], progress=False)
        assert summary[7].stage is Stage.STOPPED and summary.exit_code == 3
        assert "of 12 events in its files" in tier0.why(7)
        assert "`fired` of the experiment must say the same of an event whenever it is asked" in tier0.why(7)


def test_a_shadow_runs_beside_what_is_released(plain, files):
    with Tier0(plain(calibration=BROKEN, shadow={"strict": {"kind": "offset", "gates": []}})) as tier0:
        tier0.run(files[0], progress=False)
        [beside] = Shadows(tier0._world).compare("strict")
        assert beside.same and beside.production_says.startswith("fresh")
