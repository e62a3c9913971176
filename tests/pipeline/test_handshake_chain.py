"""The handshake in whole chains: what a run gets when its conditions cannot be made, and that every output says it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pipeline.tier0 import Tier0
from pipeline.way import Stage
from tests.pipeline.probes import Once
from tests.pipeline.tiny import write_file
from tests.pipeline.traces import headers, work

START = 1.7e9
DEADLINE = 3600.0
FEW = {"min_hits": 10**6}


class Watch:
    """A clock that shows what it is set to."""

    def __init__(self):
        self.now = START

    def __call__(self):
        return self.now


@pytest.fixture
def watch():
    return Watch()


@pytest.fixture
def run(house, tmp_path, watch):
    """Takes runs of these numbers through the chain under some settings; gives the summary."""

    def call(*numbers, calibration=None, wait=False, **sections):
        handshake = {"deadline": DEADLINE} | sections.pop("handshake", {})
        call.plain = house(handshake=handshake, calibration={"offset": calibration or {}}, **sections)
        files = [tmp_path / f"{number}.root" for number in numbers]
        for number, file in zip(numbers, files, strict=True):
            if not file.exists():
                write_file(file, number, lumis=2, mean=0.5)
        with Tier0(call.plain, clock=watch) as tier0:
            call.tier0 = tier0
            return tier0.run(*files, wait=wait, progress=False)

    return call


def said(run, number):
    """State, payload and reason of the offset in the header of every output of a run; the same in all."""
    found = [header for header in headers(run.plain, "prompt") if header["run"] == number]
    kinds = [header["manifest"]["kinds"]["offset"] for header in found]
    assert kinds
    assert all(kind == kinds[0] for kind in kinds)
    return [(stretch["state"], stretch["why"]) for stretch in kinds[0]]


def test_too_little_data_is_carried(run):
    summary = run(7, calibration=FEW)
    assert (summary[7].stage, summary[7].conditions) == (Stage.CERTIFIED, {"offset": {"carried": 1}})
    [(state, why)] = said(run, 7)
    assert state == "carried"
    assert why.startswith("too little data: ")
    assert why.endswith(" hits of 1000000")
    assert summary.exit_code == 0
    assert "0 fresh, 1 carried, 0 fallback" in summary.text()
    assert "offset 7:1 to 7:2: carried" in run.tier0.why(7)


def test_too_little_data_over_the_limit_waits_for_the_deadline_and_falls_back(run, watch):
    sections = {"calibration": FEW, "handshake": {"max_carried_runs": 2}}
    summary = run(7, 8, 9, **sections)
    assert [row.stage for row in summary.rows] == [Stage.CERTIFIED, Stage.CERTIFIED, Stage.CONDITIONS]
    assert summary.exit_code == 4
    said_of_it = summary.text()
    assert "carried over 2 runs already, the limit; falls back to the payload in force at the deadline" in said_of_it
    assert "until 2023-11-14 23:13:20 UTC" in said_of_it
    watch.now = START + DEADLINE - 1
    assert run(7, 8, 9, **sections)[9].stage is Stage.CONDITIONS
    watch.now = START + DEADLINE
    summary = run(7, 8, 9, **sections)
    assert (summary[9].stage, summary[9].conditions) == (Stage.CERTIFIED, {"offset": {"fallback": 1}})
    [(state, why)] = said(run, 9)
    assert state == "fallback"
    assert "carried over 2 runs already" in why
    assert [said(run, number)[0][0] for number in (7, 8)] == ["carried", "carried"]
    assert work(run.plain)["express"] == 6


def test_no_convergence_waits_then_falls_back(run, watch):
    diverging = {"diverges": True}
    summary = run(7, calibration=diverging)
    assert (summary[7].stage, summary.exit_code) == (Stage.CONDITIONS, 4)
    assert "it was told to diverge; falls back to the payload in force at the deadline" in run.tier0.why(7)
    assert not headers(run.plain, "prompt")
    watch.now += DEADLINE
    assert run(7, calibration=diverging)[7].conditions == {"offset": {"fallback": 1}}
    assert said(run, 7) == [("fallback", "it was told to diverge")]


def test_no_convergence_falls_back_at_once_where_that_is_the_rule(run):
    summary = run(7, calibration={"diverges": True}, handshake={"failed": "fallback"})
    assert (summary[7].stage, summary[7].conditions) == (Stage.CERTIFIED, {"offset": {"fallback": 1}})
    assert said(run, 7) == [("fallback", "it was told to diverge")]


def test_broken_calibration_is_a_named_state(run, watch):
    summary = run(7, calibration={"breaks": True})
    assert (summary[7].stage, summary.exit_code) == (Stage.CONDITIONS, 4)
    assert "finalize failed: RuntimeError: the calibration has a fault" in run.tier0.why(7)
    watch.now += DEADLINE
    summary = run(7, calibration={"breaks": True})
    assert (summary[7].stage, summary.exit_code) == (Stage.CERTIFIED, 3)
    [(state, why)] = said(run, 7)
    assert state == "fallback"
    assert "RuntimeError: the calibration has a fault" in why


def test_broken_calibration_falls_back_at_once_where_that_is_the_rule(run):
    summary = run(7, calibration={"breaks": True}, handshake={"failed": "fallback"})
    assert (summary[7].stage, summary[7].conditions) == (Stage.CERTIFIED, {"offset": {"fallback": 1}})


def test_a_run_that_cannot_be_decided_stops_no_other(run):
    """Run 8 diverges; 7 and 9 have payloads of their own and do not wait for it."""
    only = [{"runs": "8", "calibration": {"offset": {"diverges": True}}}]
    summary = run(7, 8, 9, **{"for": only})
    assert [row.stage for row in summary.rows] == [Stage.CERTIFIED, Stage.CONDITIONS, Stage.CERTIFIED]
    assert [said(run, number)[0][0] for number in (7, 9)] == ["fresh", "fresh"]


def test_carried_waits_for_an_earlier_run_that_is_undecided(run, watch):
    """What holds for run 8 would hold for 9 as well, and is not known yet: also when 9 comes by itself."""
    rules = [
        {"runs": "8", "calibration": {"offset": {"diverges": True}}},
        {"runs": "9", "calibration": {"offset": FEW}},
    ]
    run(8, **{"for": rules})
    summary = run(9, **{"for": rules})
    assert summary[9].stage is Stage.CONDITIONS
    assert "run 8 is not decided yet, and what holds for it could hold here" in run.tier0.why(9)
    watch.now += DEADLINE
    summary = run(8, 9, **{"for": rules})
    assert [said(run, number)[0][0] for number in (8, 9)] == ["fallback", "carried"]


def test_told_to_wait_it_stays_until_the_deadline(house, tmp_path):
    """On the clock of the wall; the deadline is two seconds after first sight."""
    plain = house(handshake={"deadline": 2.0}, calibration={"offset": {"diverges": True}})
    file = write_file(tmp_path / "7.root", 7, lumis=1, mean=0.5)
    with Tier0(plain) as tier0:
        summary = tier0.run(file, wait=True, progress=False)
    assert summary[7].conditions == {"offset": {"fallback": 1}}
    assert summary[7].seconds["express"] + summary[7].seconds["conditions"] >= 1.5


def test_a_unit_that_was_off_is_left_out_of_the_payload_and_not_certified(run):
    summary = run(7, calibration={"granularity": "lumi", "veto": 2})
    assert (summary[7].stage, summary[7].good, summary.exit_code) == (Stage.CERTIFIED, 1, 3)
    with Tier0(run.plain) as tier0:
        assert tier0.results.good_runs() == {"7": [[1, 1]]}
    reason = "7:2 is not good: its offset is off and was left out of the payload that covers it"
    assert reason in run.tier0.why(7)
    assert [header["manifest"]["vetoed"] for header in headers(run.plain, "prompt")] == [{"offset": ["7:2"]}] * 2


@dataclass(frozen=True)
class JumpsAt:
    """A clock that jumps over the deadline when a kill point has been passed."""

    mark: Path

    def __call__(self):
        return START + (2 * DEADLINE if self.mark.exists() else 0.0)


def test_at_the_deadline_a_run_whose_express_is_not_complete_is_released(house, tmp_path):
    plain = house(handshake={"deadline": DEADLINE}, experiment={"settings": {"pause_s": 0.1}})
    files = [write_file(tmp_path / f"{number}.root", number, lumis=12, mean=0.5) for number in (7, 8)]
    first = Once(tmp_path / "probe", "ledger-committed", int)
    with Tier0(plain, clock=JumpsAt(tmp_path / "probe" / "ledger-committed-1"), probe=first) as tier0:
        summary = tier0.run(*files, progress=False)
        said = tier0.why(7)
    assert [row.stage for row in summary.rows] == [Stage.CERTIFIED] * 2
    assert summary.exit_code == 3
    assert summary[7].conditions == {"offset": {"fallback": 1}}
    assert "fallback" in said and "no verdict at the deadline: offset: express is running" in said
    # Nothing is lost by it: express has come to its end, and all events are in both.
    assert [(row.express.read, row.prompt.read) for row in summary.rows] == [(60, 60)] * 2


def test_a_finalization_that_hangs_is_ended_by_its_time_limit(house, tmp_path):
    # Longer than a worker takes to start where others work, too.
    plain = house(cluster={"longest_task": "2 seconds"}, calibration={"offset": {"hangs_s": 60.0}})
    with Tier0(plain) as tier0:
        summary = tier0.run(write_file(tmp_path / "7.root", 7, lumis=1), progress=False)
        assert summary[7].stage is Stage.CONDITIONS
        assert "it ran for" in tier0.why(7)


def test_no_payload_at_all_holds_the_run_until_there_is_one(run, tmp_path, watch):
    nothing = {"conditions": {"initial": False}, "calibration": FEW}
    summary = run(7, **nothing)
    assert (summary[7].stage, summary.exit_code) == (Stage.CONDITIONS, 4)
    assert "no payload of kind offset (too little data: " in summary.text()
    assert "upload one with `tier0 conditions upload`" in run.tier0.why(7)
    watch.now += DEADLINE
    assert run(7, **nothing)[7].stage is Stage.CONDITIONS
    assert not headers(run.plain, "prompt")
    np.savez(tmp_path / "survey.npz", mean=np.float64(1.25), hits=np.int64(1), units='{"mean": "cm"}')
    with Tier0(run.plain) as tier0:
        tier0.conditions.upload("offset", tmp_path / "survey.npz", "0", "a survey")
    summary = run(7, **nothing)
    assert (summary[7].stage, summary[7].conditions) == (Stage.CERTIFIED, {"offset": {"carried": 1}})
    assert work(run.plain)["express"] == 2


def test_fresh_conditions_need_none_before_them(run):
    summary = run(7, conditions={"initial": False})
    assert (summary[7].stage, said(run, 7)) == (Stage.CERTIFIED, [("fresh", "made from these data")])


def test_operator_holds_and_lets_go(run, house):
    plain = house(handshake={"deadline": DEADLINE}, calibration={"offset": {}})
    with Tier0(plain) as tier0:
        tier0.operator.hold(7, "look at the magnet first")
    summary = run(7, 8)
    assert [row.stage for row in summary.rows] == [Stage.CONDITIONS, Stage.CERTIFIED]
    assert summary.exit_code == 4
    assert "look at the magnet first" in run.tier0.why(7)
    # Other settings are no reason to forget it.
    assert run(7, calibration={"min_hits": 5})[7].stage is Stage.CONDITIONS
    with Tier0(plain) as tier0:
        tier0.operator.lift(7)
    assert run(7, 8)[7].stage is Stage.CERTIFIED
