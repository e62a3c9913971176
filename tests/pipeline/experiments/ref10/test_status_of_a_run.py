"""Dead and hot channels of REF10 through the chain: found in express, masked in prompt, found again when masked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest

from calib.algorithms.occupancy_status import Status
from calib.iov import RunLumi
from calib.payload import PayloadStore
from pipeline.events import read_tier
from pipeline.experiments.ref10 import daq
from pipeline.experiments.ref10.constants import PIXEL_STATUS, STRIP_STATUS
from pipeline.experiments.ref10.layers import CHIP, STRIPS
from pipeline.experiments.ref10.simulate.scenario import DEAD, HOT
from pipeline.experiments.ref10.simulation import TRUTH, truth_of
from pipeline.experiments.simulated import Order
from pipeline.tier0 import Tier0
from tests.pipeline.experiments.ref10.reconstruct.raw import PLAN
from tests.pipeline.tiny import settings

pytestmark = pytest.mark.verify

RUNS = [7, 8]
SCENARIO = {
    "physics": {"pile_up": 3.0, "z": 0.0, "jpsi": 0.0, "nzs": 0.0},
    "faults": {"dead_strips": 0.002, "hot_strips": 0.004, "hot_factor": 60.0, "pedestal_shift_chips": 0.0},
}


@dataclass(frozen=True)
class Played:
    """How runs ended; the strips' status, true and of each run; and what prompt has written."""

    summary: Any
    true: Any
    status: Mapping[int, Any]
    reco: Mapping[int, list[Path]]


@pytest.fixture(scope="module")
def played(joined: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Played:
    """Two runs, simulated and taken through the chain."""
    folder = tmp_path_factory.mktemp("status")
    sections = {
        "cluster": joined,
        "experiment": {"name": "ref10", "settings": {"geometry": "mini"}},
        "prompt": {"tiers": ["RECO"]},
        "splitting": {"events": 500},
    }
    order = Order(seed=5, lumis=2, events=1000, scenario=json.dumps(SCENARIO))
    with Tier0(settings(folder / "area", **sections)) as tier0:
        files = tier0.simulate(folder / "data", RUNS, order, progress=False)
        tier0.conditions.upload("pedestal", folder / "data" / daq.TABLES, "0", "the DAQ's")
        summary = tier0.run(*files, progress=False)
        intervals = tier0.conditions.intervals(STRIP_STATUS)
        reco = {run: tier0.results.files(run, "RECO") for run in RUNS}
    status = {run: next(i.payload for i in intervals if i.iov.contains(RunLumi(run, 1))) for run in RUNS}
    true = PayloadStore(folder / "data" / TRUTH / "conditions").get(truth_of(folder / "data", RUNS[0], 1)[STRIP_STATUS])
    return Played(summary, true["status"], {run: payload["status"] for run, payload in status.items()}, reco)


def test_both_kinds_are_published_and_close(played: Played) -> None:
    for run in RUNS:
        assert played.summary[run].certified
        for kind in (STRIP_STATUS, PIXEL_STATUS):
            assert played.summary[run].conditions[kind] == {"fresh": 1}


def test_hot_strips_are_found_and_stay_found_when_masked(played: Played) -> None:
    for run, least in zip(RUNS, (0.9, 0.98), strict=True):
        found = (played.status[run] & Status.HOT) != 0
        assert found[played.true == HOT].mean() > least
        assert not found[played.true != HOT].any()


def test_dead_chips_are_found_with_what_the_run_before_has_seen(played: Played) -> None:
    dead = (played.true == DEAD).reshape(-1, CHIP).all(axis=1)
    found = [((played.status[run] & Status.DEAD_GROUP) != 0).reshape(-1, CHIP).any(axis=1) for run in RUNS]
    # 500 events in express are too few for one run.
    assert dead.sum() == 2 and not found[0].any() and found[1].tolist() == dead.tolist()


def test_prompt_makes_no_cluster_of_what_is_masked(played: Played) -> None:
    for run in RUNS:
        made = [read_tier(path) for path in played.reco[run]]
        module, first, size = (
            np.concatenate([np.asarray(ak.flatten(part[f"Cluster_{name}"])) for part in made])
            for name in ("module", "first_row", "size_u")
        )
        row = PLAN.rows_of(module)
        single = (PLAN.strip_block[row] >= 0) & (size == 1)
        strips = PLAN.strip_block[row[single]] * STRIPS + first[single]
        assert len(strips) > 1000
        assert not played.status[run][strips].any()
