"""When only conditions that act behind a tier have changed, a pass starts from files of the tier; and it is said."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from calib.iov import RunLumi
from pipeline import accounting
from pipeline.events import read_header
from pipeline.model import Counts, Output, Step, Stored
from pipeline.processing import Segment
from pipeline.products import Products
from pipeline.restarts import Earlier, Start, book_start, start_of, tier_names, written
from pipeline.settings import settings_from
from pipeline.tier0 import Tier0
from pipeline.world import open_world
from tests.pipeline.drivers import KILLED, Driver
from tests.pipeline.probes import KillAt
from tests.pipeline.staged import Staged
from tests.pipeline.tiny import Tiny, write_file
from tests.pipeline.traces import done_again, results

ONE, TWO, THREE = (RunLumi(7, lumi).packed for lumi in (1, 2, 3))
INGREDIENTS = {"step": "prompt", "inputs": "abc", "version": 1}


def names(segments, experiment=None, **others):
    return tier_names(experiment or Staged(), Step.PROMPT, INGREDIENTS | others, segments)


def segments(*values):
    """Segments from these lumisections on, with these payloads of scale, shift and offset."""
    return [Segment(since, dict(zip(("scale", "shift", "offset"), ids, strict=True))) for since, ids in values]


def test_files_of_a_tier_are_named_by_all_but_what_acts_behind_it():
    plain = names(segments((ONE, "axm")))
    assert plain.keys() == {"PROMPT"}
    assert names(segments((ONE, "ayn"))) == plain
    # Where only what acts behind changes within the run, nothing is cut either.
    assert names(segments((ONE, "axm"), (TWO, "ayn"))) == plain
    others = [
        names(segments((ONE, "bxm"))),
        names(segments((ONE, "axm"), (TWO, "bxm"))),
        names(segments((ONE, "axm"), (THREE, "bxm"))),
        names(segments((ONE, "axm")), version=2),
        names(segments((ONE, "axm")), inputs="abd"),
        {"PROMPT": plain["PROMPT"]},
    ]
    assert len({found["PROMPT"] for found in others}) == len(others)
    assert names(segments((ONE, "axm")), Tiny()) == {}


def test_only_tiers_that_are_written_are_left():
    found = {"HITS": "h", "TRACKS": "t"}
    assert written(found, None) == ["h", "t"]
    assert written(found, ("TRACKS", "NANO")) == ["t"]
    assert written(found, ()) == []


def test_the_first_tier_that_is_there_is_taken(catalogue):
    products = Products(catalogue.begin, catalogue.read)
    products.add(["h"], "one")
    assert products.earlier({"TRACKS": "t", "HITS": "h"}) == Earlier("HITS", "one")
    products.add(["t"], "two")
    assert products.earlier({"TRACKS": "t", "HITS": "h"}) == Earlier("TRACKS", "two")
    assert products.earlier({"NANO": "n"}) is None
    assert products.earlier({}) is None


def test_what_a_job_has_left_of_its_chunks(catalogue):
    filtered = Counts(5, 3, {"no hit": 1, "late": 1})
    files = [Output("HITS", 2, "/b", 5, "y", 3), Output("HITS", 2, "/a", 5, "x", 1), Output("NANO", 2, "/n", 5, "z", 4)]
    keys = {"job": "job", "run": 7, "step": "prompt"}
    rows = [(2, ONE, filtered), (2, TWO, Counts(1, 1)), (3, TWO, Counts(4, 0, {}, 4)), (5, THREE, Counts(9, 9))]
    with catalogue.begin() as connection:
        for leaf, unit, count in rows:
            row = {"unit": unit, "leaf": leaf, "read": count.read, "out": count.out, "bad": count.bad}
            connection.execute(accounting.counts.insert(), keys | row)
            for reason, events in count.filtered.items():
                row = {"job": "job", "unit": unit, "leaf": leaf, "reason": reason, "events": events}
                connection.execute(accounting.filtered.insert(), row)
        for file in files:
            row = {name: getattr(file, name) for name in ("tier", "leaf", "path", "size", "checksum", "events")}
            connection.execute(accounting.outputs.insert(), keys | row)
    with catalogue.read() as connection:
        found = accounting.stored_of(connection, "job", "HITS", range(2, 5))
        assert found == {
            2: Stored("HITS", "job", (files[1], files[0]), {ONE: filtered, TWO: Counts(1, 1)}),
            3: Stored("HITS", "job", (), {TWO: Counts(4, 0, {}, 4)}),
            4: Stored("HITS", "job", (), {}),
        }
        assert found[2].left_out == {ONE: Counts(2, 0, {"no hit": 1, "late": 1})}
        assert accounting.stored_of(connection, "other", "HITS", range(2, 3)) == {2: Stored("HITS", "other", (), {})}


def test_where_chunks_were_started_is_added_up(catalogue):
    from_tier, from_raw = ({"tier": "HITS", "job": "j", "instead": why} for why in ("", "/a is gone"))
    with catalogue.begin() as connection:
        assert start_of(connection, 7, "job") is None
        book_start(connection, 7, "job", [], 1.0)
        assert start_of(connection, 7, "job") is None
        book_start(connection, 7, "job", [from_tier, from_tier], 1.0)
        assert str(start_of(connection, 7, "job")) == "reads HITS of the earlier pass, not RAW"
        book_start(connection, 7, "job", [from_tier, from_raw], 2.0)
        book_start(connection, 7, "job", [{**from_raw, "instead": "/b is gone"}], 3.0)
        assert start_of(connection, 7, "job") == Start("HITS", 5, 2, "/a is gone")
        assert start_of(connection, 8, "job") is start_of(connection, 7, "other") is None
    assert str(Start("HITS", 5, 2, "/a is gone")) == (
        "reads HITS of the earlier pass, not RAW, but for 2 of 5 chunks: /a is gone"
    )


# whole chains ---------------------------------------------------------------------------------------------------------


def number_file(folder: Path, kind: str, value: float) -> Path:
    path = folder / f"{kind}.npz"
    np.savez(path, value=np.float64(value))
    return path


def outputs(plain, step: str):
    """The output files of a step by job, run and chunk."""
    world = open_world(settings_from(plain))
    with world.database.read() as connection:
        table = accounting.outputs
        found = connection.execute(table.select().where(table.c.step == step)).all()
    world.database.close()
    return {(row.job, row.run, row.leaf): Path(row.path) for row in found}


def reads(log: Path) -> Counter[str]:
    return Counter(log.read_text().splitlines()) if log.exists() else Counter()


@pytest.fixture
def files(tmp_path):
    return [write_file(tmp_path / "a.root", 7), write_file(tmp_path / "b.root", 8, lumis=3, mean=1.6)]


def test_a_payload_that_acts_behind_a_tier_redoes_a_run_without_its_raw(house, files, tmp_path):
    """Both steps, both runs; the one run has lost some of what the earlier pass has left."""
    shift = number_file(tmp_path, "shift", 0.25)
    from_raw = house("raw")
    with Tier0(from_raw, Staged()) as tier0:
        tier0.conditions.upload("shift", shift, "0", "from the beginning")
        assert tier0.run(*files, progress=False).exit_code == 0
        assert "earlier pass" not in str(tier0.status())
    plain = house()
    with Tier0(plain, Staged()) as tier0:
        assert tier0.run(*files, progress=False).exit_code == 0
    before = outputs(plain, "prompt")
    gone, damaged = (path for (_, run, leaf), path in sorted(before.items()) if run == 7 and leaf in (1, 3))
    gone.unlink()
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    for path in Path(plain["storage"]["area"], "runs").rglob("*.root"):
        os.utime(path, (0, 0))
    log = tmp_path / "log"
    later = house(handshake={"max_carried_runs": 9}, cluster=plain["cluster"] | {"longest_task": "10 seconds"})
    with Tier0(later, Staged(log=log)) as tier0:
        tier0.conditions.upload("shift", shift, "0", "measured")
        said = str(tier0.plan(*files))
        assert "run 8: express (events, state:offset): " in said
        assert "(reads 15 events from EXPRESS of the earlier pass, not RAW)" in said
        assert not reads(log)
        summary = tier0.run(*files, progress=False)
        assert summary.exit_code == 0
        why = {run: tier0.why(run).splitlines() for run in (7, 8)}
    said = str(Tier0(house(calibration={"offset": {"scale": 100}}), Staged()).plan(*files))
    assert (
        "run 8: express (state:offset): state:offset accumulate scale: 1000 -> 100 (reads 15 events from EXPRESS"
        in said
    )
    assert results(later).outputs == results(from_raw).outputs
    assert results(later).counts == results(from_raw).counts
    assert summary[8].starts == {"express": Start("EXPRESS", 3), "prompt": Start("PROMPT", 3)}
    assert (summary[7].starts["prompt"].chunks, summary[7].starts["prompt"].raw) == (4, 2)
    for step in ("express", "prompt"):
        assert f"run 8: {step} reads {step.upper()} of the earlier pass, not RAW" in why[8]
        assert f"run 8: {step} reads {step.upper()} of the earlier pass, not RAW" in str(summary).splitlines()
    (line,) = (line for line in why[7] if "prompt reads" in line)
    assert line.startswith("run 7: prompt reads PROMPT of the earlier pass, not RAW, but for 2 of 4 chunks: /")
    # Of run 7 two chunks are read from RAW, of run 8 nothing is.
    assert reads(log) == {"RAW a.root": 2, "again express": 7, "again prompt": 5}
    assert all(path.exists() for path in {*before.values(), *outputs(plain, "express").values()} - {gone})
    made = [read_header(path) for key, path in outputs(plain, "prompt").items() if key not in before]
    assert sorted(found["start"]["tier"] for found in made if not found["start"]["instead"]) == ["PROMPT"] * 5
    assert {found["start"]["job"] for found in made} == {job for job, _, _ in before}


def test_a_payload_that_acts_before_the_tier_redoes_it_from_raw(house, files, tmp_path):
    plain, log = house(), tmp_path / "log"
    with Tier0(plain, Staged()) as tier0:
        tier0.run(files[1], progress=False)
    later = house(handshake={"max_carried_runs": 9})
    with Tier0(later, Staged(log=log)) as tier0:
        tier0.conditions.upload("scale", number_file(tmp_path, "scale", 1.5), "0", "measured", tag="scale_prompt_v2")
        said = str(tier0.plan(files[1]))
        # Express and its conditions stay as they are, so what prompt is made under can be told beforehand.
        assert "express" not in said
        assert "run 8: publish, release: no manifest in processing version 2" in said
        assert "run 8: prompt: its conditions differ, or it was never made (reads 15 events)" in said
        canary = str(Tier0(later | {"canary": {"units": 2}}, Staged()).plan(files[1]))
        assert "run 8: publish, release, then prompt where its conditions differ" in canary
        summary = tier0.run(files[1], progress=False)
    assert summary[8].starts == {}
    assert reads(log) == {"RAW b.root": 3}
    assert not set(results(later).outputs.values()) & set(results(plain).outputs.values())


def test_a_tier_that_is_not_written_cannot_be_started_from(house, files, tmp_path):
    plain, log = house(prompt={"tiers": ["NONE"]}), tmp_path / "log"
    with Tier0(plain, Staged()) as tier0:
        tier0.run(files[1], progress=False)
    later = house()
    with Tier0(later, Staged(log=log)) as tier0:
        assert "run 8: prompt: its conditions differ, or it was never made (reads 15 events)" in str(
            tier0.plan(files[1])
        )
        assert tier0.run(files[1], progress=False)[8].starts == {}
    assert reads(log) == {"RAW b.root": 3}


@pytest.mark.verify
def test_a_pass_that_starts_from_a_tier_goes_on_where_it_was_killed(house, files, tmp_path):
    shift, points = number_file(tmp_path, "shift", 0.25), ("ledger-commit", "ledger-committed", "submit", "released")
    staged = {"name": "tests.pipeline.staged:Staged"}

    def second_version(area):
        """Settings under which a run has gone all the way, and with others that start from what it has left."""
        plain = house(area, experiment=staged)
        later = house(area, experiment=staged, handshake={"max_carried_runs": 9})
        with Tier0(plain) as tier0:
            assert tier0.run(*files, progress=False).exit_code == 0
        Tier0(later).conditions.upload("shift", shift, "0", "measured")
        return later

    undisturbed, killed = second_version("undisturbed"), second_version("killed")
    assert Driver(undisturbed, files).end() == 0
    probe = KillAt(tmp_path / "kills", (*points, "write"), 2)
    lives = 1
    while (end := Driver(killed, files, probe).end()) == KILLED:
        lives += 1
    assert end == 0
    assert probe.killed() == set(probe.points)
    assert lives == 1 + len(points)
    assert results(killed) == results(undisturbed)
    assert done_again(killed) == 0
    starts = {row.run: dict(row.starts) for row in Tier0(killed).status().rows}
    assert starts == {
        run: {step: Start(step.upper(), chunks) for step in ("express", "prompt")} for run, chunks in ((7, 4), (8, 3))
    }
