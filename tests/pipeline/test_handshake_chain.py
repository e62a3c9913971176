"""The handshake in whole chains: what a run gets when its conditions cannot be made, and that every output says it."""

import numpy as np
import pytest

from pipeline.service import Stage
from pipeline.tier0 import Tier0
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


def test_no_payload_at_all_holds_the_run_until_there_is_one(run, tmp_path, watch):
    nothing = {"conditions": {"initial": False}, "calibration": FEW}
    summary = run(7, **nothing)
    assert (summary[7].stage, summary.exit_code) == (Stage.CONDITIONS, 4)
    assert "no payload of kind offset (too little data: " in summary.text()
    assert "upload one with `tier0 conditions upload`" in run.tier0.why(7)
    watch.now += DEADLINE
    assert run(7, **nothing)[7].stage is Stage.CONDITIONS
    assert not headers(run.plain, "prompt")
    np.savez(tmp_path / "survey.npz", mean=np.float64(1.25), hits=np.int64(1))
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
        tier0.hold(7, "look at the magnet first")
    summary = run(7, 8)
    assert [row.stage for row in summary.rows] == [Stage.CONDITIONS, Stage.CERTIFIED]
    assert summary.exit_code == 4
    assert "look at the magnet first" in run.tier0.why(7)
    with Tier0(plain) as tier0:
        tier0.let_go(7)
    assert run(7, 8)[7].stage is Stage.CERTIFIED
