"""Datasets of the bundled detector by its trigger bits: each with its own manifest, deadline and prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from calib.calibration import Calibration
from calib.iov import RunLumi
from calib.payload import Payload
from pipeline.datasets import wrong_datasets
from pipeline.events import read_tier
from pipeline.experiments.ref10 import daq
from pipeline.experiments.ref10.daq import TRIGGERS
from pipeline.experiments.ref10.experiment import Ref10
from pipeline.experiments.ref10.simulate.events import simulate
from pipeline.experiments.ref10.simulate.scenario import Physics, Scenario
from pipeline.model import Columns, Step, Stream
from pipeline.processing import nothing
from pipeline.settings import settings_from
from pipeline.tier0 import Tier0
from pipeline.way import Stage
from tests.pipeline.experiments.ref10.reconstruct.raw import PLAN, uneven
from tests.pipeline.experiments.ref10.test_realigned import MINI, saved
from tests.pipeline.tiny import Offset
from tests.pipeline.triggered import Dies, DiesAt, Watch, made, outputs, stages

LUMIS, EVENTS, HOUR = 2, 8, 3600.0
SCENARIO = Scenario(physics=Physics(z=0.3, nzs=0.3))
PLAIN = Ref10({"geometry": "mini"})
USED = sorted({calibration.kind for calibration in PLAIN.calibrations()}.intersection(PLAIN.needs(Step.PROMPT)))
"""what is calibrated and used in prompt: pedestals, the beam spot, ...; no dataset may go without"""
DATASETS = {
    "Dimuon": {"triggers": ["dimuon"], "required": USED},
    "MinBias": {"triggers": ["minimum_bias"], "required": [*USED, "strip_rate"], "deadline": "1 h"},
    "Nzs": {"triggers": ["nzs"], "required": [*USED, "pixel_rate"], "deadline": "2 h"},
}


def test_the_beam_spot_is_required() -> None:
    assert {"pedestal", "beamspot"} <= set(USED)
    without = settings_from(
        {"experiment": MINI, "datasets": {"Muons": {"triggers": ["dimuon"], "required": ["pedestal"]}}}
    )
    assert any(
        told.startswith("`datasets.Muons.required` lacks 'beamspot'")
        for told in wrong_datasets(without.datasets, PLAIN)
    )


SLOW = {"strip_rate": {"breaks": True}, "pixel_rate": {"breaks": True}}


@dataclass(frozen=True, kw_only=True)
class Rate(Offset):
    """The mean number of clusters an event; prompt does not use it."""

    column: ClassVar[str]

    def accumulate(self, columns: Columns, conditions: Mapping[str, Payload]) -> Any:
        return super().accumulate({**columns, "hit": columns[self.column]}, conditions)  # type: ignore[no-untyped-call]

    def finalize(self, state: Any, previous: Payload | None) -> Payload:
        made = super().finalize(state, previous)  # type: ignore[no-untyped-call]
        return Payload(self.kind, made.arrays, {"mean": "clusters"})


class StripRate(Rate):
    kind: ClassVar[str] = "strip_rate"
    column: ClassVar[str] = "strip_clusters"


class PixelRate(Rate):
    kind: ClassVar[str] = "pixel_rate"
    column: ClassVar[str] = "pixel_clusters"


class Rated(Ref10):
    """REF10 with two calibrations more, so that its datasets have something of their own to wait for."""

    def calibrations(self) -> tuple[Calibration, ...]:
        return (*super().calibrations(), StripRate(), PixelRate())

    def initial_conditions(self) -> Mapping[str, Payload]:
        start = {"mean": np.float64(0), "hits": np.int64(0)}
        rates = {kind: Payload(kind, start, {"mean": "clusters"}) for kind in ("strip_rate", "pixel_rate")}
        return {**super().initial_conditions(), **rates}


@pytest.fixture
def raw(tmp_path: Path) -> tuple[list[Path], dict[tuple[int, int], int]]:
    """Two lumisections of run 7 in both streams; and the trigger bits by lumisection and event number."""
    files: list[Path] = []
    bits: dict[tuple[int, int], int] = {}
    for lumi in range(1, LUMIS + 1):
        found = simulate(SCENARIO, PLAN, 3, 7, lumi, np.arange(EVENTS)).raw
        bits |= {
            (lumi, event): trig for event, trig in zip(found["event"].tolist(), found["trig"].tolist(), strict=True)
        }
        for stream in Stream:
            files.append(daq.raw_path(tmp_path, stream, RunLumi(7, lumi)))
            daq.write_raw(files[-1], found, daq.Format.TTREE, nothing)
    return files, bits


@pytest.fixture
def plain(house: Any) -> Any:
    def make(area: str = "area", **more: Any) -> dict[str, Any]:
        name = "tests.pipeline.experiments.ref10.test_datasets:Rated"
        sections = {
            "experiment": {"name": name, "settings": {"geometry": "mini"}},
            "splitting": {"events": EVENTS},
            "datasets": DATASETS,
            "prompt": {"tiers": ["RECO"]},
            "calibration": SLOW,
        }
        found: dict[str, Any] = house(area=area, **(sections | more))
        return found

    return make


def keys(path: str) -> list[tuple[int, int]]:
    """Lumisection and number of the events in a file."""
    columns = read_tier(path)
    return list(zip(columns["lumi"].tolist(), columns["event"].tolist(), strict=True))


def states(plain: dict[str, Any]) -> dict[str, list[str]]:
    """The states of each dataset's rates in its manifest."""
    released, _, _ = made(plain)
    return {
        name: [row[2] for kind, rows in content if kind.endswith("_rate") for row in rows]
        for (_, name), content in released.items()
    }


@pytest.mark.verify  # the rules are held by the small experiment in seconds
def test_datasets_are_released_each_by_its_own_conditions_and_deadline(plain: Any, raw: Any, tmp_path: Path) -> None:
    files, bits = raw
    watch = Watch()
    with Tier0(plain(), clock=watch) as tier0:
        tier0.operator.hold(7, "muons first", "MinBias")
        found = stages(tier0.run(*files, progress=False))
        assert found == {"Dimuon": Stage.DONE, **dict.fromkeys(("MinBias", "Nzs", "Rest"), Stage.CONDITIONS)}
        tier0.operator.lift(7, dataset="MinBias")
        watch.now += HOUR
        found = stages(tier0.run(*files, progress=False))
        assert found == {"Dimuon": Stage.DONE, "MinBias": Stage.DONE, "Nzs": Stage.CONDITIONS, "Rest": Stage.CONDITIONS}
        watch.now += HOUR
        summary = tier0.run(*files, progress=False)
        assert summary[7].certified
    assert states(plain()) == {"Dimuon": [], "MinBias": ["fallback"], "Nzs": ["fallback"], "Rest": ["fallback"] * 2}
    numbers = {name: {key for path in paths for key in keys(path)} for (_, name), paths in outputs(plain()).items()}
    for name, section in DATASETS.items():
        [trigger] = section["triggers"]
        assert numbers[name] == {event for event, trig in bits.items() if trig & TRIGGERS[trigger]} != set()
    assert set.union(*numbers.values()) == set(bits) and numbers["Rest"] == set()
    # As the driver of another area does it that dies between two releases and starts again.
    again = Watch()
    for probe in (DiesAt("released", 1), DiesAt("ledger-committed", 3)):
        with Tier0(plain("other"), clock=again, probe=probe) as tier0, pytest.raises(Dies):
            tier0.run(*files, progress=False)
    for _ in range(3):
        with Tier0(plain("other"), clock=again) as tier0:
            summary = tier0.run(*files, progress=False)
        again.now += HOUR
    assert summary[7].certified and made(plain("other")) == made(plain())


@pytest.mark.verify  # the rules are held by the small experiment in seconds
def test_a_new_alignment_starts_each_dataset_from_its_own_clusters(plain: Any, raw: Any, tmp_path: Path) -> None:
    files, _ = raw
    with Tier0(plain(calibration={})) as tier0:
        assert tier0.run(*files, progress=False)[7].certified
    later = plain(calibration={}, handshake={"max_carried_runs": 9})
    aligned = saved(uneven(seed=9)["alignment"], tmp_path)
    with Tier0(later) as tier0:
        tier0.conditions.upload("alignment", aligned, "0", "aligned", tag="alignment_prompt_v2")
        summary = tier0.run(*files, progress=False)
        assert "run 7: prompt of dataset Dimuon reads RECO of the earlier pass, not RAW" in tier0.why(7)
    assert set(summary[7].starts) == {f"prompt of dataset {name}" for name in (*DATASETS, "Rest")}
    fresh = plain("fresh", calibration={}, handshake={"max_carried_runs": 9})
    with Tier0(fresh) as tier0:
        tier0.conditions.upload("alignment", aligned, "0", "aligned", tag="alignment_prompt_v1")
        tier0.run(*files, progress=False)
    assert made(later)[1] == made(fresh)[1]
