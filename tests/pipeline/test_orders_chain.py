"""Orders in whole chains: a running service obeys them, and the next start does."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pipeline.operations import Operator
from pipeline.settings import settings_from
from pipeline.tier0 import Tier0
from pipeline.way import Stage
from pipeline.world import open_world
from tests.pipeline.probes import Once
from tests.pipeline.tiny import write_file
from tests.pipeline.traces import headers

GATES = {"offset": [{"gate": "max_move", "array": "mean", "limit": 0.2, "unit": "cm"}]}
"""the design value is 0, the data have 0.5: rejected"""
PATIENCE_S = 120.0


def order(plain, act, who="alice"):
    """Give an order from outside: by another connection, as the command line does."""
    world = open_world(settings_from(plain))
    try:
        return act(Operator(replace(world, author=who)))
    finally:
        world.database.close()


def press(plain):
    order(plain, lambda operator: operator.hold(None, "storage fails", stop_submitting=True))


def hold_seven(plain):
    order(plain, lambda operator: operator.hold(7, "magnet"))


class Beside(threading.Thread):
    """Someone at another terminal: once `when` is so, does something; `said` is what came of it."""

    def __init__(self, plain, when, act):
        super().__init__()
        self._plain, self._when, self._act = plain, when, act
        self.said = "it never came to it"

    def run(self):
        end = time.monotonic() + PATIENCE_S
        with Tier0(self._plain) as tier0:
            while time.monotonic() < end:
                if self._when(tier0):
                    self.said = self._act(tier0.operator)
                    return
                time.sleep(0.2)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.join()


def stopped(what, words, *runs):
    """Whether the service has written down that runs are stopped: what it is filed under, and how it begins."""

    def look(tier0):
        rows = {row.run: row.reasons for row in tier0.status().rows}
        return all(rows.get(run, {}).get(what, "").startswith(words) for run in runs)

    return look


def files_of(tmp_path, *runs):
    return [write_file(tmp_path / f"{run}.root", run, lumis=2, mean=0.5) for run in runs]


def test_a_hold_put_while_the_service_works_is_obeyed_and_one_lifted_lets_go(house, tmp_path):
    plain = house(handshake={"deadline": PATIENCE_S})
    # On the worker, as it has the payload: the driver hears of the hold when it is about to release.
    probe = Once(tmp_path / "probe", "payload", partial(hold_seven, plain))
    lift = Beside(plain, stopped("operator", "run 7: held", 7), lambda operator: operator.lift(7, "it was on"))
    with Tier0(plain, probe=probe) as tier0, lift:
        summary = tier0.run(*files_of(tmp_path, 7), wait=True, progress=False)
        why = tier0.why(7)
    assert summary[7].stage is Stage.CERTIFIED
    assert "lifted: run 7" in lift.said and "obeyed by the service: pid" in lift.said
    assert "alice: hold, run 7: magnet" in why and "lift, run 7: it was on" in why


def test_a_hold_before_the_run_is_seen_and_over_a_restart_and_other_settings(house, tmp_path):
    plain = house()
    order(plain, lambda operator: operator.hold(None, "beam spot wrong"))
    with Tier0(plain) as tier0:
        summary = tier0.run(*files_of(tmp_path, 7), progress=False)
        assert (summary[7].stage, summary.exit_code) == (Stage.CONDITIONS, 4)
        assert "all runs: held by alice" in summary.text() and "all runs: held by alice" in tier0.why(7)
    with Tier0(house(calibration={"offset": {"min_hits": 5}})) as tier0:
        assert tier0.run(*files_of(tmp_path, 7), progress=False)[7].stage is Stage.CONDITIONS
    order(plain, lambda operator: operator.lift(None))
    with Tier0(plain) as tier0:
        assert "run 7: no longer held: the next `tier0 run` goes on" in tier0.status().text()
        assert tier0.run(*files_of(tmp_path, 7), progress=False)[7].stage is Stage.CERTIFIED


@dataclass(frozen=True)
class Submissions:
    """Presses the big red button after the first commit, and writes down when something is submitted."""

    folder: Path
    plain: dict

    def __call__(self, point):
        if point == "submit":
            (self.folder / f"{time.time()}").touch()
        Once(self.folder / "once", "ledger-committed", partial(press, self.plain))(point)

    def between(self, begin, end):
        times = [float(path.name) for path in self.folder.iterdir() if path.name[0].isdigit()]
        return sum(begin <= at < end for at in times), sum(end <= at for at in times)


def test_all_submitting_stops_while_the_service_stays_and_goes_on_when_lifted(house, tmp_path):
    plain = house(splitting={"fan_in": 2, "events": 5})
    probe = Submissions(tmp_path / "probe", plain)
    probe.folder.mkdir()
    moments = []

    def pressed(tier0):
        return "nothing is submitted" in tier0.status().text()

    def lift(operator):
        time.sleep(2.2)  # a step of the service is two seconds at most
        begin = time.time()
        time.sleep(0.8)
        moments.extend([begin, time.time()])
        return operator.lift(None)

    file = write_file(tmp_path / "7.root", 7, lumis=12, mean=0.5)
    with Tier0(plain, probe=probe) as tier0, Beside(plain, pressed, lift):
        summary = tier0.run(file, progress=False)
    assert summary[7].stage is Stage.CERTIFIED
    stopped, after = probe.between(*moments)
    assert stopped == 0 and after >= 4
    assert summary[7].express.read == summary[7].prompt.read == 60


def manifests(plain, run):
    return [header["manifest"] for header in headers(plain, "prompt") if header["run"] == run]


def test_a_payload_published_by_two_names_is_marked_and_the_runs_after_it_are_judged_by_it(house, tmp_path):
    """Run 8 has moved as far as run 7: once people say that the move is true, it is no move any more."""
    plain = house(gates=GATES, handshake={"deadline": PATIENCE_S}, authority={"waivers_need": 2})

    def sign(operator):
        bob = Operator(replace(operator.world, author="bob"))
        return [one.waive(7, "offset", "survey of May", publish=True) for one in (operator, bob)]

    beside = Beside(plain, stopped("offset", "mean moved", 7, 8), sign)
    with Tier0(plain) as tier0, beside:
        summary = tier0.run(*files_of(tmp_path, 7, 8), wait=True, progress=False)
        why, history = tier0.why(7), tier0.conditions.history("offset")
    assert ["needs 1 more name" in said for said in beside.said] == [True, False]
    # No gate watches for a change, so run 8 publishes too; by itself, and nobody had to sign.
    assert [row.conditions for row in summary.rows] == [{"offset": {"fresh": 1}}] * 2
    assert (summary[7].in_order, summary.exit_code) == (False, 3)
    assert "offset" in summary[7].waivers and not summary[8].waivers
    [first, *rest] = manifests(plain, 7)
    assert all(one == first for one in rest)
    assert [one["reason"] for one in first["waivers"]["offset"]["signed"]] == ["survey of May"] * 2
    assert "published under a waiver by" in first["kinds"]["offset"][0]["why"]
    assert all("waivers" not in one for one in manifests(plain, 8))
    assert "survey of May" in history and "bob: waive offset, run 7: survey of May" in why


def test_what_did_not_converge_goes_on_or_is_published_by_name_after_a_restart(house, tmp_path):
    plain = house(calibration={"offset": {"diverges": True}})
    files = files_of(tmp_path, 7, 8)
    with Tier0(plain) as tier0:
        assert [row.stage for row in tier0.run(*files, progress=False).rows] == [Stage.CONDITIONS] * 2
    order(plain, lambda operator: operator.waive(7, "offset", "no beam"))
    said = order(plain, lambda operator: operator.waive(8, "offset", "looked at it", publish=True))
    assert "no service is running" in said
    with Tier0(plain) as tier0:
        assert "run 8: offset may be published under a waiver by alice" in tier0.status().text()
        summary = tier0.run(*files, progress=False)
        made = [interval.payload for interval in tier0.conditions.intervals("offset")]
    assert [row.stage for row in summary.rows] == [Stage.CERTIFIED] * 2
    assert [row.conditions for row in summary.rows] == [{"offset": {"fallback": 1}}, {"offset": {"fresh": 1}}]
    assert [round(float(payload["mean"]), 1) for payload in made] == [0.0, 0.5]
    signed = [{one["waivers"]["offset"]["signed"][0]["reason"] for one in manifests(plain, run)} for run in (7, 8)]
    assert signed == [{"no beam"}, {"looked at it"}]
