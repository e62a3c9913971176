from __future__ import annotations

from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest

from calib.algorithms.channel_status import KIND, Status, all_good
from calib.calibration import conclude
from calib.iov import RunLumi
from calib.payload import Payload
from pipeline.certify import Quality, judge
from pipeline.events import SourceFile
from pipeline.experiments.icecube_sndaq import HIGH_EFFICIENCY, IceCubeSndaq
from pipeline.experiments.interface import Experiment, MissingBranch
from pipeline.experiments.testing import ExperimentLaws, MemorySource, measured, read
from pipeline.model import Step
from pipeline.processing import fill
from tests.pipeline.experiments.sndaq_files import two_faults, write_copy

DEAD_BY_CONFIGURATION = {45, *range(396, 402), 403, 404, 1308, 1925, 2278, 3594, 4061, 4734, 4735}
"""`BadChannelIDSet` of the file, as places in `ChannelID`"""


def status_payload(dead: Any = (), noisy: Any = ()) -> Payload:
    status = all_good(5160)["status"].copy()
    status[np.asarray(dead, int)], status[np.asarray(noisy, int)] = Status.DEAD, Status.NOISY
    return Payload(KIND, {"status": status})


@pytest.fixture
def recorded(data_dir: Path) -> SourceFile:
    return SourceFile.open(data_dir / "icecube_sndaq_131738.root")


class TestIceCube(ExperimentLaws):
    @pytest.fixture
    def experiment(self) -> Experiment:
        return IceCubeSndaq()

    @pytest.fixture
    def source(self, data_dir: Path) -> MemorySource:
        """Ten bins and one of a wrong length."""
        file = SourceFile.open(data_dir / "icecube_sndaq_131738.root")
        columns = dict(file.arrays("sn_all", ("data", "buf_pos", "buf_loop"), 0, 11))
        columns["data"] = ak.concatenate([columns["data"][:10], columns["data"][10:, :5000]])
        return MemorySource(file.path, {"sn_all": columns})

    @pytest.fixture
    def conditions(self) -> dict[str, Payload]:
        return {"channel_status": status_payload([0, 45, 4800], [7])}


def test_run_and_bins(recorded: SourceFile) -> None:
    keys = IceCubeSndaq().identify(recorded, 0, 371)
    assert set(keys.run.tolist()) == {131738}
    assert keys.lumi.tolist() == keys.event.tolist() == list(range(371))


def test_a_second_turn_of_the_buffer_is_another_bin() -> None:
    columns = {"buf_pos": np.array([5, 5], np.uint64), "buf_loop": np.array([0, 1], np.uint64)}
    keys = IceCubeSndaq({"run": 1}).identify(MemorySource(Path("x.root"), {"sn_all": columns}), 0, 2)
    assert keys.lumi[0] == 5
    assert keys.lumi[1] > 5


@pytest.mark.parametrize(("name", "run"), [("sndata_131738_000.root", 131738), ("icecube_sndaq_120001.root", 120001)])
def test_run_is_in_the_name(name: str, run: int) -> None:
    columns = {"buf_pos": np.zeros(1, np.uint64), "buf_loop": np.zeros(1, np.uint64)}
    source = MemorySource(Path(name), {"sn_all": columns})
    assert IceCubeSndaq().identify(source, 0, 1).run.tolist() == [run]
    assert IceCubeSndaq({"run": 3}).identify(source, 0, 1).run.tolist() == [3]


def test_a_name_without_run_is_said() -> None:
    columns = {"buf_pos": np.zeros(1, np.uint64), "buf_loop": np.zeros(1, np.uint64)}
    with pytest.raises(MissingBranch, match=r"set `run` in \[experiment.settings\]"):
        IceCubeSndaq().identify(MemorySource(Path("data_1.root"), {"sn_all": columns}), 0, 1)


def test_groups_are_those_of_the_configuration() -> None:
    group = IceCubeSndaq().groups()
    assert len(group) == 5160
    assert (group == HIGH_EFFICIENCY).sum() == 401


def test_rates_of_good_modules(recorded: SourceFile) -> None:
    experiment = IceCubeSndaq()
    events = read(experiment, recorded, Step.PROMPT)
    counts = ak.to_numpy(events["data"]).astype(np.int64)
    dead = np.flatnonzero(counts.sum(axis=0) == 0)
    rates = experiment.process(Step.PROMPT, events, {"channel_status": status_payload(dead=dead)}).tiers["RATES"]
    assert set(rates["good_modules"].tolist()) == {5077}
    assert not np.isin(dead, ak.to_numpy(rates["Module_id"][0])).any()
    np.testing.assert_allclose(rates["total_rate"], 2.0 * counts.sum(axis=1))
    standard, high = ak.to_numpy(rates["Group_rate"]).mean(axis=0)
    assert standard == pytest.approx(287.3, abs=0.1)
    assert high == pytest.approx(373.8, abs=0.1)


def test_a_group_with_nobody_good_is_left_out(recorded: SourceFile) -> None:
    experiment = IceCubeSndaq()
    events = read(experiment, recorded, Step.PROMPT)
    standard = np.flatnonzero(experiment.groups() != HIGH_EFFICIENCY)
    for dead, groups in [(standard, [HIGH_EFFICIENCY]), (np.arange(5160), [])]:
        rates = experiment.process(Step.PROMPT, events, {"channel_status": status_payload(dead=dead)}).tiers["RATES"]
        assert rates["Group_id"][0].tolist() == groups


def calibrate(source: SourceFile) -> list[tuple[int, int, Payload]]:
    """First and last bin and the payload of every interval."""
    experiment = IceCubeSndaq()
    events = read(experiment, source, Step.EXPRESS)
    columns = measured(experiment.process(Step.EXPRESS, events, {}), events)
    (calibration,) = experiment.calibrations()
    found = conclude(calibration, calibration.accumulate(columns, {}), None, True)
    assert all(conclusion.payload is not None for conclusion in found)
    return [
        (RunLumi.unpack(c.interval.units[0]).lumi, RunLumi.unpack(c.interval.units[-1]).lumi, c.payload)
        for c in found
        if c.payload is not None
    ]


def test_all_dead_modules_are_found_and_no_other(recorded: SourceFile) -> None:
    ((first, last, payload),) = calibrate(recorded)
    assert (first, last) == (0, 370)
    dead = np.flatnonzero(payload["status"] == Status.DEAD)
    assert len(dead) == 83
    assert set(dead.tolist()) >= DEAD_BY_CONFIGURATION
    assert not (payload["status"] == Status.NOISY).any()


def test_faults_are_found_where_they_are(data_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "sndaq_131738_two_faults.root"
    write_copy(data_dir / "icecube_sndaq_131738.root", path, two_faults)
    found = [
        (first, last, int(payload["status"][100]), int(payload["status"][3000]))
        for first, last, payload in calibrate(SourceFile.open(path))
    ]
    assert found == [
        (0, 99, Status.GOOD, Status.GOOD),
        (100, 149, Status.DEAD, Status.GOOD),
        (150, 199, Status.GOOD, Status.GOOD),
        (200, 370, Status.GOOD, Status.NOISY),
    ]


def test_the_first_bin_is_not_whole_and_is_found_bad(recorded: SourceFile) -> None:
    """The run began within it: its counts are those of 0.3 s."""
    experiment = IceCubeSndaq()
    events = read(experiment, recorded, Step.PROMPT)
    processed = experiment.process(Step.PROMPT, events, experiment.initial_conditions())
    quality = fill(experiment.histograms(Step.PROMPT), measured(processed, events))
    bad = {
        (RunLumi.unpack(found.unit).lumi, found.test)
        for test in experiment.quality_tests()
        for found in judge(test, quality[test.histogram])
        if found.quality is Quality.BAD
    }
    assert bad == {(0, "standard rate")}
