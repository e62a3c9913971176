"""Three runs out of order, each in trouble of its own: none holds up another beyond its rule; `why` explains all."""

import pytest

from pipeline.tier0 import Tier0
from pipeline.way import Stage
from tests.pipeline.tiny import write_file
from tests.pipeline.traces import headers

DEADLINE = 3600.0


class Watch:
    now = 1.7e9

    def __call__(self):
        return self.now


@pytest.fixture
def plain(house):
    """Run 1 has too little data, run 2 gets a wrong payload, the calibration of run 3 hangs; run 4 is well."""
    return house(
        experiment={"name": "tests.pipeline.judging:Judged"},
        cluster={"longest_task": "2 seconds"},
        canary={"units": 1},
        handshake={"deadline": DEADLINE},
        calibration={"offset": {"wrong_by": 4.0, "in_run": 2}},
        **{
            "for": [
                {"runs": "1", "calibration": {"offset": {"min_hits": 10**6}}},
                {"runs": "3", "calibration": {"offset": {"hangs_s": 60.0}}},
            ]
        },
    )


def test_each_gets_what_its_rule_says_and_none_waits_for_another(plain, tmp_path):
    watch = Watch()
    files = {run: write_file(tmp_path / f"{run}.root", run, lumis=4, events=10) for run in (1, 2, 3, 4)}
    with Tier0(plain, clock=watch) as tier0:
        tier0.run(files[4], files[3], progress=False)
        summary = tier0.run(files[2], files[1], files[3], files[4], progress=False)
        stages = {row.run: row.stage for row in summary.rows}
        assert stages == {1: Stage.CERTIFIED, 2: Stage.CONDITIONS, 3: Stage.CONDITIONS, 4: Stage.CERTIFIED}
        assert summary[1].conditions == {"offset": {"carried": 1}} and summary[4].conditions == {"offset": {"fresh": 1}}
        why = {run: tier0.why(run) for run in files}
        assert "too little data" in why[1] and "made from these data" in why[4]
        assert "the new conditions are worse on its first events" in why[2] and ".png" in why[2]
        assert "it ran for" in why[3]
        watch.now += DEADLINE
        summary = tier0.run(*files.values(), progress=False)
        # The deadline ends the wait for the one that hangs, never the hold of what was seen to be worse.
        assert (summary[3].stage, summary[3].conditions) == (Stage.CERTIFIED, {"offset": {"fallback": 1}})
        assert summary[2].stage is Stage.CONDITIONS
        held = tier0.conditions.intervals("offset")
        assert [interval.iov.since.run for interval in held] == [0, 4]
        design, made = (interval.payload.id for interval in held)
    manifests = {header["run"]: header["manifest"]["kinds"]["offset"] for header in headers(plain, "prompt")}
    # Each is of one piece over all its lumisections, and says what it has and why; the payload is the one in force.
    told = {run: [(s["state"], s["first"], s["last"]) for s in found] for run, found in manifests.items()}
    states = {1: "carried", 3: "fallback", 4: "fresh"}
    assert told == {run: [(state, f"{run}:1", f"{run}:4")] for run, state in states.items()}
    payloads = {run: found[0]["payload"] for run, found in manifests.items()}
    assert payloads[1] == payloads[3] == design and payloads[4] == made and design != made
    assert "too little data" in manifests[1][0]["why"] and "it ran for" in manifests[3][0]["why"]
