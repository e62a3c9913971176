"""Closure through the chain: faults show in the first run, and what follows is what the settings say."""

import numpy as np
import pytest
from click.testing import CliRunner

from calib.closure import Closes
from calib.iov import RunLumi
from calib.state import state_names, unpack_state
from pipeline.again import MARK
from pipeline.cli import main
from pipeline.doubts import closures
from pipeline.experiments.toy_generator import Scenario, generate
from pipeline.mistakes import SettingsError
from pipeline.operations import NoEffect
from pipeline.tier0 import Tier0
from pipeline.toml_text import toml_text
from tests.pipeline.closing_toys import AppliesTwice, AppliesWrongly, Closing, DoubledToy, FlippedToy, Silent
from tests.pipeline.tiny import write_file
from tests.pipeline.traces import work
from tests.pipeline.triggered import BEAM, MUON

# One chunk a run: what is tested here does not depend on how runs are cut, and that is tested elsewhere.
HALF = {"express": {"fraction": "1/2"}, "splitting": {"events": 1000}}
HOUSE = HALF | {"experiment": {"name": "tests.pipeline.closing_toys:Closing"}}
WRONG = {"calibration": {"offset": {"times": 1.1}}}
"""some ten sigma off"""


@pytest.fixture
def files(tmp_path):
    return [write_file(tmp_path / f"{run}.root", run, lumis=4, events=10) for run in (7, 8)]


def answers(tier0, run):
    document = tier0._world.books.document(run, "certification")
    return [(RunLumi.unpack(c.first).lumi, RunLumi.unpack(c.last).lumi, c.closure.answer) for c in closures(document)]


def test_what_is_right_closes_interval_by_interval_and_says_so(house, files):
    with Tier0(house(**HOUSE, calibration={"offset": {"together": 2, "min_hits": 4}})) as tier0:
        summary = tier0.run(files[0], progress=False)
        assert summary.exit_code == 0 and summary[7].closure == {"offset": {"closes": 2}}
        assert answers(tier0, 7) == [(1, 2, Closes.YES), (3, 4, Closes.YES)]
        assert "offset: 2 of 2 close" in summary.text()
        assert "offset 7:1 to 7:2 closes: made again it differs" in tier0.why(7)
        assert tier0.results.good_runs() == {"7": [[1, 4]]} and tier0.operator.doubts() == []


@pytest.mark.parametrize(
    ("experiment", "times"),
    [(Closing, -1.0), (Closing, 2.0), (AppliesTwice, 1.0), (AppliesWrongly, 1.0)],
    ids=["made with the wrong sign", "made twice", "applied twice", "applied with the wrong sign"],
)
def test_a_fault_shows_in_the_first_run(house, files, experiment, times):
    with Tier0(house(**HALF, calibration={"offset": {"times": times}}), experiment()) as tier0:
        summary = tier0.run(files[0], progress=False)
        assert summary.exit_code == 3 and summary[7].closure == {"offset": {"does not close": 1}}
        assert tier0.results.good_runs() == {} and summary[7].good == 0 and len(tier0.operator.doubts()) == 1


@pytest.mark.parametrize("experiment", [FlippedToy, DoubledToy])
def test_so_does_one_in_a_beam_spot(house, tmp_path, experiment):
    truth = generate(tmp_path, runs=[1], lumis=2, events=100, scenario=Scenario())
    with Tier0(house(**HALF), experiment()) as tier0:
        summary = tier0.run(*truth.files, progress=False)
        assert summary[1].closure == {"beamspot": {"does not close": 1}} and "beamspot 1:1 to 1:2" in summary.text()


def test_a_sound_beam_spot_closes(house, tmp_path):
    truth = generate(tmp_path, runs=[1], lumis=2, events=100, scenario=Scenario())
    with Tier0(house(**HALF, experiment={"name": "toy_collider"})) as tier0:
        assert tier0.run(*truth.files, progress=False)[1].closure == {"beamspot": {"closes": 1}}
        with pytest.raises(NoEffect, match="closure leaves no beamspot of run 1 in doubt"):
            tier0.operator.accept(1, "beamspot", "why not")


def test_a_person_lets_into_the_good_run_list_what_is_in_doubt(house, files, tmp_path):
    plain = house(**HOUSE, **WRONG)
    with Tier0(plain) as tier0:
        tier0.run(*files, progress=False)
        operator = tier0.operator
        with pytest.raises(LookupError, match="there is no calibration 'beamspot'; there are offset"):
            operator.accept(7, "beamspot", "why not")
        with pytest.raises(LookupError, match="run 9 is not known; certified runs are 7"):
            operator.accept(9, "offset", "why not")
        with pytest.raises(ValueError, match="say why"):
            operator.accept(7, "offset", " ")
    path = tmp_path / "t.toml"
    path.write_text(toml_text({k: {n: v for n, v in t.items() if v is not None} for k, t in plain.items()}))

    def certify(*words):
        return CliRunner().invoke(main, ["certify", *words, "-s", str(path)])

    assert certify().stdout == "{}\n" and "run 7: offset 7:1 to 7:4 does not close" in certify().stderr
    done = certify("accept", "7", "offset", "--reason", "it is a test")
    assert done.exit_code == 0 and done.output.startswith("accepted: offset 7:1 to 7:4 does not close")
    assert certify().stdout == '{"7": [[1, 4]]}\n' and "run 7" not in certify().stderr
    assert "accepted by" in certify("accept", "7", "offset", "--reason", "again").output
    wrong = CliRunner().invoke(main, ["certify", "-s", str(path), "accept", "7", "offset", "--reason", "x"])
    assert wrong.exit_code == 2 and "options go behind `accept`" in wrong.output
    # A restart finds it accepted still: it is about the payload.
    with Tier0(plain) as tier0:
        summary = tier0.run(*files, progress=False)
        assert (summary[7].good, summary[8].good) == (4, 0) and not summary[7].in_order
        assert "`tier0 certify accept 8 offset --reason ...`" in summary.text()


def test_what_follows_is_what_the_settings_say_and_reads_no_event(house, files):
    with Tier0(house(**HOUSE, **WRONG)) as tier0:
        assert tier0.run(files[0], progress=False)[7].good == 0
    for closure, good, word in (
        ({"then": "bad"}, 0, "7:1 is not good: offset 7:1 to 7:4 does not close"),
        ({"then": "note"}, 4, "offset 7:1 to 7:4 does not close"),
        ({"least": {"offset": {"mean": 0.3}}}, 4, "offset 7:1 to 7:4 closes"),
        ({"sigmas": 30.0}, 4, "offset 7:1 to 7:4 closes"),
    ):
        with Tier0(house(**HOUSE, **WRONG, closure=closure)) as tier0:
            assert not tier0.plan(files[0]).todos
            summary = tier0.run(files[0], progress=False)
            assert summary[7].good == good and word in tier0.why(7) and summary.version == 1
            assert summary.exit_code == (3 if "does not" in word else 0)
            assert sum(last - first + 1 for first, last in tier0.results.good_runs().get("7", [])) == good


def test_a_tolerance_of_a_kind_that_is_none_is_refused(house):
    with pytest.raises(SettingsError, match=r"`closure.least`: there is no kind .* 'ofset'; did you mean 'offset'\?"):
        Tier0(house(**HOUSE, closure={"least": {"ofset": {"mean": 0.3}}}))


def test_an_event_in_two_datasets_counts_once(house, tmp_path):
    rng = np.random.default_rng(3)
    trig = rng.choice([0, MUON, BEAM, MUON | BEAM], 40).astype(np.uint32)
    file = write_file(tmp_path / "7.root", 7, lumis=4, events=10, trig=trig)
    datasets = {"Muon": {"triggers": ["muon"]}, "Beam": {"triggers": ["beam"]}}
    hits = {}
    for area, more in (("one", {}), ("three", {"datasets": datasets})):
        with Tier0(house(area, **HOUSE, **more)) as tier0:
            assert tier0.run(file, progress=False)[7].closure == {"offset": {"closes": 1}}
            found = tier0._world.books.document(7, "certification")
            jobs = [row["prompt"] for row in found.get("datasets", {"": found}).values()]
            paths = [tier0._world.products.result(job).state.files[0].path for job in jobs]
            states = [unpack_state(p, name) for p in paths for name in state_names(p) if name.startswith(MARK)]
            hits[area] = [int(state["hits"].total()[0]) for state in states]
    assert len(hits["three"]) == 3 and sum(hits["three"]) == sum(hits["one"]) > 0


def test_what_is_not_measured_is_not_judged_and_what_gives_no_answer_does_not_close(house, files):
    with Tier0(house("silent", **HALF), Silent()) as tier0:
        summary = tier0.run(files[0], progress=False)
        assert summary.exit_code == 0 and summary[7].closure == {"offset": {"not judged": 1}}
        assert "it measures not what the calibration reads" in tier0.why(7)
    with Tier0(house("lost", **HOUSE, calibration={"offset": {"lost": True}})) as tier0:
        tier0.run(files[0], progress=False)
        assert answers(tier0, 7) == [(1, 4, Closes.NO)] and "no answer: nothing is there" in tier0.why(7)


def test_what_fails_of_one_kind_is_tried_again_and_no_matter_of_the_others(house, files, tmp_path):
    stone = tmp_path / "stone"
    stone.touch()
    name = "tests.pipeline.closing_toys:OneStumbles"
    plain = house(**HALF, experiment={"name": name}, calibration={"stumbling": {"over": str(stone)}})
    with Tier0(plain) as tier0:
        summary = tier0.run(files[0], progress=False)
        assert summary[7].closure == {"offset": {"closes": 1}, "stumbling": {"not judged": 1}}
        assert "closure failed: " in tier0.why(7) and "an index is out of bounds" in tier0.why(7)
    before = work(plain)["closure"]
    stone.unlink()
    with Tier0(plain) as tier0:
        assert tier0.run(files[0], progress=False)[7].closure == {"offset": {"closes": 1}, "stumbling": {"closes": 1}}
    # Of the one that stood nothing was done again.
    assert work(plain)["closure"] == before + 1
