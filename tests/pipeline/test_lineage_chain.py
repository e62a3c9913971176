"""What is done again when something changes, and what is not; and that a plan says so beforehand and does nothing."""

import sqlite3
from pathlib import Path

import pytest

from pipeline.model import Step
from pipeline.settings import settings_from
from pipeline.tier0 import Tier0
from pipeline.world import open_world
from tests.pipeline.tiny import Tiny, write_file, write_units
from tests.pipeline.traces import done_again, headers, results, work

ONCE = {"express": 7, "conditions": 2, "prompt": 7, "closure": 2}


@pytest.fixture
def files(tmp_path):
    return [write_file(tmp_path / "a.root", 7), write_file(tmp_path / "b.root", 8, lumis=3, mean=1.6)]


@pytest.fixture
def done(house, files):
    """Settings under which both runs have gone all the way."""
    plain = house()
    run(plain, *files)
    assert work(plain) == ONCE
    return plain


def run(plain, *files, **more):
    with Tier0(plain, **more) as tier0:
        return tier0.run(*files, progress=False)


def plan(plain, *files, **more):
    return str(Tier0(plain, **more).plan(*files))


def dump(plain) -> list[str]:
    with sqlite3.connect(Path(plain["storage"]["area"]) / "tier0.db") as connection:
        content = list(connection.iterdump())
    connection.close()
    return content


def listing(plain) -> set[Path]:
    return {path for path in Path(plain["storage"]["area"]).rglob("*") if not path.name.startswith("tier0.db")}


def test_nothing_changed(house, files, done):
    before = dump(done), listing(done)
    assert plan(done, *files).startswith("nothing to do: all 2 runs are done under these settings")
    assert (dump(done), listing(done)) == before
    assert run(done, *files).exit_code == 0
    assert (work(done), done_again(done)) == (ONCE, 0)


def test_plan_of_the_first_run_does_nothing(house, files):
    plain = house()
    open_world(settings_from(plain)).database.close()
    before = dump(plain), listing(plain)
    said = plan(plain, *files)
    assert (dump(plain), listing(plain)) == before
    for number, events in ((7, 20), (8, 15)):
        express = f"run {number}: express (events, state:offset): first sight of the run (reads {events} events)"
        assert express in said
        assert f"run {number}: finalize offset: its state is to be made" in said
        assert f"run {number}: publish, release, then prompt" in said
    assert "join the scheduler at tcp://" in said


def test_changed_threshold_reads_no_events(house, files, done):
    """The payloads come out as before, so the prompt made with them stands as well."""
    made = results(done)
    other = house(calibration={"offset": {"min_hits": 12}})
    said = plan(other, *files)
    assert "express" not in said
    assert "run 7: finalize offset" in said
    assert "run 7: finalize offset: finalize min_hits: 10 -> 12" in said
    assert run(other, *files).exit_code == 0
    assert work(done) == ONCE | {"conditions": 4, "closure": 4}
    again = results(other)
    assert (again.outputs, again.counts, again.manifests) == (made.outputs, made.counts, made.manifests)
    assert plan(other, *files).startswith("nothing to do")
    # The older version is as it was.
    assert plan(done, *files).startswith("nothing to do")
    assert results(done) == made


def test_changed_threshold_that_changes_payloads_redoes_prompt(house, files, done):
    other = house(calibration={"offset": {"min_hits": 10**6}})
    summary = run(other, *files)
    assert summary.states == {"offset": {"carried": 2}}
    assert work(done) == ONCE | {"conditions": 4, "prompt": 14, "closure": 4}
    assert summary.version == 2
    assert not set(results(other).outputs.values()) & set(results(done).outputs.values())


def test_changed_accumulation_redoes_express_and_what_follows(house, files, done):
    other = house(calibration={"offset": {"scale": 100}})
    said = plan(other, *files)
    assert "run 7: express (state:offset): state:offset accumulate scale: 1000 -> 100 (reads 20 events)" in said
    run(other, *files)
    assert work(done) == {"express": 14, "conditions": 4, "prompt": 14, "closure": 4}
    # Its output files are those of before: only the state was made again.
    assert len(headers(other, "express")) == 7


def test_changed_selection_redoes_what_depends_on_it(house, files, done):
    other = house(experiment={"settings": {"cut": 1.6}})
    said = plan(other, *files)
    assert "run 7: express (events, state:offset): events settings cut: 100.0 -> 1.6 (reads 20 events)" in said
    run(other, *files)
    assert work(done) == {key: 2 * number for key, number in ONCE.items()}
    new, old = results(other), results(done)
    assert not set(new.outputs.values()) & set(old.outputs.values())
    # Back again, nothing is to be done: what was made under the old settings is still there.
    run(done, *files)
    assert work(done) == {key: 2 * number for key, number in ONCE.items()}
    assert results(done) == old


def test_changed_fraction_redoes_express(house, files, done):
    other = house(express={"fraction": "1/2"})
    said = plan(other, *files)
    assert "events fraction: 1 -> 1/2" in said
    summary = run(other, *files)
    assert summary[7].express.filtered["not express"] == 10
    assert summary[7].prompt.read == 20
    assert work(done)["express"] == 14


def test_where_and_how_it_runs_does_not_matter(house, files, done):
    other = house(splitting={"events": 7, "fan_in": 9})
    assert plan(other, *files).startswith("nothing to do")
    run(other, *files)
    assert work(done) == ONCE


class TinyTwo(Tiny):
    """Its prompt would give another result."""

    versions = {Step.EXPRESS: 1, Step.PROMPT: 2}  # noqa: RUF012


def test_raised_version_of_prompt_redoes_prompt_alone(house, files, done):
    experiment = TinyTwo()
    said = plan(done, *files, experiment=experiment)
    assert "express" not in said
    assert "prompt" in said
    run(done, *files, experiment=experiment)
    assert work(done) == ONCE | {"prompt": 14, "closure": 4}


def test_more_events_of_a_run_redo_that_run(house, files, done, tmp_path):
    more = write_units(tmp_path / "c.root", 7, [5], first_event=500)
    said = plan(done, *files, more)
    assert "run 7: express (events, state:offset): events inputs" in said
    assert "run 8" not in said
    run(done, *files, more)
    assert work(done)["express"] == 7 + 5
    assert results(done).counts[7, Step.PROMPT].keys() == {(7 << 32) + n for n in range(1, 6)}
