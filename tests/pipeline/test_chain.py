"""The whole chain over a tiny experiment: what comes out, what is said of it, and that nothing is done twice."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from jobs.lease import Holder
from jobs.ledger import SecondDriver, drop_lease, take_lease
from pipeline import accounting
from pipeline.cli import main
from pipeline.content import content_hash
from pipeline.events import read_tier
from pipeline.model import Counts, Stream
from pipeline.settings import settings_from
from pipeline.tier0 import NoFiles, Tier0
from pipeline.toml_text import toml_text
from pipeline.way import Stage
from pipeline.world import open_world
from tests.pipeline.tiny import Tiny, write_file, write_units
from tests.pipeline.traces import done_again, headers, results, starts_and_commits, work


@pytest.fixture
def files(tmp_path):
    return [write_file(tmp_path / "a.root", 7), write_file(tmp_path / "b.root", 8, lumis=3, mean=1.6)]


def run(plain, *files, **more):
    with Tier0(plain, **more) as tier0:
        return tier0.run(*files, progress=False)


def test_every_run_goes_all_the_way(house, files):
    summary = run(house(), *files)
    assert [(row.run, row.stage, row.units) for row in summary.rows] == [
        (7, Stage.CERTIFIED, 4),
        (8, Stage.CERTIFIED, 3),
    ]
    assert summary[7].express == summary[7].prompt == Counts(20, 17, {"no hit": 3}, 0)
    assert summary[8].prompt == Counts(15, 13, {"no hit": 2}, 0)
    assert summary.states == {"offset": {"fresh": 2}}
    assert (summary[7].good, summary.exit_code) == (4, 0)
    said = summary.text()
    assert "offset: 2 fresh, 0 carried, 0 fallback" in said
    assert "20 = 17 + 3 + 0" in said
    assert "filtered: 5 no hit (prompt)" in said


def test_every_event_is_in_one_output_with_the_conditions_of_its_run(house, files):
    plain = house()
    run(plain, *files)
    with Tier0(plain) as tier0:
        means = {found.iov.since.run: float(found.payload["mean"]) for found in tier0.conditions.intervals("offset")}
    assert means[7] == pytest.approx(1.5, abs=0.05)
    assert means[8] == pytest.approx(1.6, abs=0.05)
    world = open_world(settings_from(plain))
    with world.database.read() as connection:
        job = world.books.document(7, "certification")["prompt"]
        found = list(accounting.outputs_of(connection, job, "PROMPT"))
    events = [event for file in found for event in read_tier(file.path)["event"].tolist()]
    assert sorted(events) == [n for n in range(1, 21) if (n - 1) % 7 != 3]
    assert sum(file.events for file in found) == 17
    hits = [hit for file in found for hits in read_tier(file.path)["hit"].tolist() for hit in hits]
    assert abs(sum(hits) / len(hits)) < 1e-3
    assert content_hash([file.path for file in found]) == results(plain).outputs[7, "PROMPT"]


def test_headers_say_how_an_output_was_made(house, files):
    plain = house()
    run(plain, *files)
    found = headers(plain, "prompt")
    assert len(found) == 7  # one a lumisection
    for header in found:
        assert header["step"] == "prompt"
        assert header["absent"] == {"extra": "the file has no column extra"}
        [stretch] = header["manifest"]["kinds"]["offset"]
        assert stretch["state"] == "fresh"
        assert stretch["first"] == f"{header['run']}:1"
        assert stretch["why"] == "made from these data"
    payloads = {header["manifest"]["kinds"]["offset"][0]["payload"] for header in found}
    assert payloads == {payload for _, _, payload in results(plain).payloads[1:]}
    assert {header["lineage"] for header in found if header["run"] == 7}.isdisjoint(
        {header["lineage"] for header in found if header["run"] == 8}
    )
    assert all(header["conditions"] for header in headers(plain, "express"))


def test_second_run_starts_nothing(house, files):
    plain = house()
    first = run(plain, *files)
    before, made = work(plain), results(plain)
    assert before == {"express": 7, "conditions": 2, "prompt": 7, "closure": 2}
    begun, committed = starts_and_commits(plain)
    assert begun == committed
    second = run(plain, *files)
    assert (work(plain), results(plain), done_again(plain)) == (before, made, 0)
    assert all(0 <= spent < 60 for row in second.rows for spent in row.seconds.values())
    assert [row.prompt for row in second.rows] == [row.prompt for row in first.rows]
    assert second.exit_code == 0


def test_new_file_is_all_that_is_worked_on(house, files):
    plain = house()
    run(plain, files[0])
    summary = run(plain, *files)
    assert [row.stage for row in summary.rows] == [Stage.CERTIFIED] * 2
    assert work(plain) == {"express": 7, "conditions": 2, "prompt": 7, "closure": 2}


def test_other_files_alone_see_the_conditions_before_them(house, files):
    plain = house(calibration={"offset": {"min_hits": 30}})
    run(plain, files[0])
    small = write_file(files[0].parent / "c.root", 9, lumis=1)
    summary = run(plain, small)
    assert summary.states == {"offset": {"carried": 1}}
    first, second = (results(plain).manifests[run][0][1][0] for run in (7, 9))
    assert (first[2], second[2]) == ("fresh", "carried")
    assert first[3] == second[3]


def test_cutting_settings_may_change_between_runs(house, files):
    plain = house()
    run(plain, *files)
    other = house(splitting={"events": 10, "block_events": 2, "fan_in": 5})
    assert run(other, *files).exit_code == 0
    assert work(plain) == {"express": 7, "conditions": 2, "prompt": 7, "closure": 2}


def test_late_lumisections_are_made_under_the_settled_conditions(house, tmp_path):
    plain = house()
    early = write_units(tmp_path / "early.root", 7, [3, 4])
    run(plain, early)
    settled = results(plain).manifests[7]
    late = write_units(tmp_path / "late.root", 7, [1, 2, 6], first_event=100)
    summary = run(plain, early, late)
    assert (summary[7].stage, summary[7].prompt.bad) == (Stage.CERTIFIED, 0)
    assert (summary[7].units, summary[7].prompt.read) == (5, 25)
    assert results(plain).manifests[7] == settled


def test_good_runs_have_the_form_of_a_certification_file(house, files):
    plain = house()
    run(plain, *files)
    with Tier0(plain) as tier0:
        assert tier0.results.good_runs() == {"7": [[1, 4]], "8": [[1, 3]]}


def test_files_of_a_certified_run_are_told_and_what_is_not_there_is_said(house, files):
    plain = house()
    with Tier0(plain) as tier0:
        with pytest.raises(LookupError, match="run 7 is not certified: `tier0 why 7` says where it stands"):
            tier0.results.files(7, "PROMPT")
        tier0.run(*files, progress=False)
        found = tier0.results.files(7, "PROMPT")
        assert content_hash(list(map(str, found))) == results(plain).outputs[7, "PROMPT"]
        assert found == tier0.results.files(7, "PROMPT", "")
        with pytest.raises(LookupError, match="run 7 has no files of tier 'MINI'; its tiers: PROMPT"):
            tier0.results.files(7, "MINI")
        with pytest.raises(LookupError, match="run 7 has no dataset 'Muon'; its datasets: none"):
            tier0.results.files(7, "PROMPT", "Muon")


def test_a_given_certification_file_counts_and_so_does_its_change(house, files, tmp_path):
    """What it leaves out is not good, and says so; another one needs no event again."""
    run(house(), *files)
    for good, others in (({"7": [[2, 3]]}, "7:1, 7:4, 8:1"), ({"7": [[1, 4]], "8": [[1, 1]]}, "8:2, 8:3")):
        mask = tmp_path / "golden.json"
        mask.write_text(json.dumps(good))
        plain = house(certify={"mask": str(mask)})
        assert run(plain, *files).exit_code == 3
        assert work(plain) == {"express": 7, "conditions": 2, "prompt": 7, "closure": 2}
        with Tier0(plain) as tier0:
            assert tier0.results.good_runs() == good
            said = tier0.why(7) + tier0.why(8)
        for unit in others.split(", "):
            assert f"{unit} is not good: not in the given certification file" in said


def test_a_file_of_several_runs(house, tmp_path):
    numbers = np.repeat([7, 8], 10).astype(np.uint32)
    file = write_file(tmp_path / "both.root", 7, run=numbers)
    summary = run(house(), file)
    assert [(row.run, row.prompt.read) for row in summary.rows] == [(7, 10), (8, 10)]


# exit codes


@pytest.fixture
def command(house, tmp_path):
    """The command line over settings in a file; gives exit code and output."""

    def call(*arguments, plain=None):
        settings = tmp_path / "tiny.toml"
        settings.write_text(toml_text(plain or house()))
        filled = [str(settings) if argument == "SETTINGS" else str(argument) for argument in arguments]
        done = CliRunner().invoke(main, filled)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.output

    return call


def test_pattern_without_files_is_exit_code_1(command, tmp_path, house):
    code, said = command("run", "SETTINGS", tmp_path / "*.nothing", "--quiet")
    assert code == 1
    assert "no file matches" in said
    with pytest.raises(NoFiles), Tier0(house()) as tier0:
        tier0.run(str(tmp_path / "*.nothing"), progress=False)


def test_held_run_is_exit_code_4(command, files, house):
    plain = house(conditions={"initial": False}, calibration={"offset": {"min_hits": 1000}})
    code, said = command("run", "SETTINGS", *files, "--quiet", plain=plain)
    assert code == 4
    assert "no payload of kind offset" in said


def test_second_driver_is_refused_by_name(command, house, files, tmp_path):
    plain = house()
    world = open_world(settings_from(plain))
    other = Holder("another-host", 4321, 0.0)
    with world.database.begin() as connection:
        epoch = take_lease(connection, other)
    code, said = command("run", "SETTINGS", *files, "--quiet", plain=plain)
    assert code == 5
    assert "pid 4321 on host another-host" in said
    with pytest.raises(SecondDriver):
        run(plain, *files)
    with world.database.begin() as connection:
        drop_lease(connection, epoch)
    assert run(plain, *files).exit_code == 0


# another database


def test_the_same_in_postgresql(house, files, postgres_url):
    server = create_engine(postgres_url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with server.connect() as connection:
        connection.execute(text("CREATE DATABASE chain"))
    plain = house(storage={"database": postgres_url.replace("/postgres?", "/chain?")})
    here = house("sqlite")
    with Tier0(plain) as tier0, Tier0(here) as other:
        assert "first sight of the run" in str(tier0.plan(*files))
        assert tier0.run(*files, progress=False).exit_code == 0
        other.run(*files, progress=False)
        assert str(tier0.plan(*files)).startswith("nothing to do: all 2 runs")
        before = work(plain)
        assert tier0.run(*files, progress=False).exit_code == 0
        tier0._world.database.close()
    assert work(plain) == before
    assert results(plain) == results(here)


# an express stream beside the physics stream


class Streams(Tiny):
    """Files in a folder `express` have copies of some events, for express alone."""

    def stream(self, path):
        return Stream.EXPRESS if path.parent.name == "express" else Stream.PHYSICS


def test_express_reads_its_stream_and_prompt_all_events(house, tmp_path):
    plain = house(express={"fraction": "1/2"})
    physics = write_file(tmp_path / "physics" / "7.root", 7, lumis=4)
    express = write_file(tmp_path / "express" / "7.root", 7, lumis=2, mean=2.0)
    with Tier0(plain, Streams()) as tier0:
        summary = tier0.run(express, physics, progress=False)
        [found] = [i for i in tier0.conditions.intervals("offset") if i.iov.since.run]
    # No copy is taken for a second event, and no share is taken of what was picked already.
    assert summary.exit_code == 0
    assert (summary[7].express.read, summary[7].express.filtered.get("not express"), summary[7].duplicates) == (
        10,
        None,
        0,
    )
    assert (summary[7].prompt.read, summary[7].units) == (20, 4)
    assert float(found.payload["mean"]) == pytest.approx(2.0, abs=0.1)
    assert work(plain) == {"express": 2, "conditions": 1, "prompt": 4, "closure": 1}


def test_a_run_of_which_only_the_express_stream_is_here_waits_and_says_for_what(house, tmp_path):
    plain = house()
    express = write_file(tmp_path / "express" / "7.root", 7, lumis=2)
    with Tier0(plain, Streams()) as tier0:
        summary = tier0.run(express, progress=False)
        assert (summary.exit_code, summary[7].units) == (4, 0)
        assert "only files of its express stream are here: give those of its physics stream too" in tier0.why(7)
    physics = write_file(tmp_path / "7.root", 7, lumis=4)
    with Tier0(plain, Streams()) as tier0:
        assert tier0.run(express, physics, progress=False).exit_code == 0
