"""Pedestal and noise of every strip from one run through the whole chain, against what was put in.

The full detector, 1 428 480 strips, is for `make verify`; the few modules of the mini one are always looked at. Bounds
are 4 sigma of what the number of strips, chips and samples allows.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
from numpy.typing import NDArray

from calib.algorithms.pedestal import Status
from calib.iov import RunLumi
from calib.payload import Payload, PayloadStore
from pipeline.events import read_tier
from pipeline.experiments.ref10 import daq
from pipeline.experiments.ref10.constants import STRIP_STATUS
from pipeline.experiments.ref10.geometry import GEOMETRIES, Geometry, geometry_of
from pipeline.experiments.ref10.layers import CHIP, STRIPS
from pipeline.experiments.ref10.simulate.particles import NZS_GROUPS
from pipeline.experiments.ref10.simulate.scenario import DEAD, HOT, Scenario
from pipeline.experiments.ref10.simulation import TRUTH, truth_of
from pipeline.experiments.simulated import Order
from pipeline.tier0 import Tier0
from tests.pipeline.tiny import settings

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

RUN, SEED = 7, 5
LUMIS = {"mini": 2, "full": 17}
EVENTS = 1768
"""each with a sixteenth of the strips: 110 samples a strip, of which hits may take ten"""
SAMPLES = EVENTS // NZS_GROUPS
SCENARIO = {"first_run": RUN, "physics": {"nzs": 1.0, "z": 0.0, "jpsi": 0.0}}
COMMON_MODE = Scenario.from_json(json.dumps(SCENARIO)).electronics.common_mode
MARGIN = 2
"""strips beside the way of a particle that its charge may still get to"""
DISK = 1_800_000_000
"""of which two thirds are the states of seven calibrations, in pools that a refit can leave out"""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What was put in, what the DAQ believed, what was found; by strip if not said otherwise."""

    online: Payload
    true: Payload
    dead: Mask
    hot: Mask
    touched: Mask
    """by a particle, in an event in which the strip was read out in full"""
    found: Payload
    states: dict[str, int]
    events: int
    """read in prompt"""
    disk: int
    """bytes of data, truth, and all that the chain wrote"""

    @property
    def clean(self) -> Mask:
        return ~(self.dead | self.hot | self.touched)

    @property
    def beside(self) -> Mask:
        """Clean strips next to a dead or hot one of their module."""
        bad = (self.dead | self.hot).reshape(-1, STRIPS)
        near = np.zeros_like(bad)
        near[:, 1:] |= bad[:, :-1]
        near[:, :-1] |= bad[:, 1:]
        return near.reshape(-1) & self.clean

    @property
    def moved(self) -> Mask:
        """Chips whose pedestals moved since the DAQ's tables were made, by a sigma or about 4 ADC."""
        return by_chip(self.true["mean"] - self.online["mean"], ~self.dead) > 2

    def pulls(self, name: str) -> Floats:
        """Found less put in, over the error that the true widths give: errors found go with the widths found."""
        off = self.found[name].astype(np.float64) - self.true[name]
        samples = np.maximum(self.found["entries"], 2).astype(np.float64)
        if name == "mean":
            return off * np.sqrt(samples) / self.width()
        noise, times = self.true["noise"].astype(np.float64), samples - 1
        # The root of a variance spreads by 1/8n more than its differential says. A median of M that the strip is one of
        # costs pi/2M: what is left of a Gaussian has variance 1 - (2 - pi/2)/M and kurtosis 4/M, and is scaled back.
        known = (1 + 1 / (8 * times)) * (1 + np.pi / (2 * CHIP))
        return off / ((noise**2 + 1 / 12) / (noise * np.sqrt(2 * times)) * known)

    def width(self) -> Floats:
        """Of single samples: noise, common mode and digitisation."""
        return np.sqrt(self.true["noise"].astype(np.float64) ** 2 + COMMON_MODE**2 + 1 / 12)

    def spoiled(self, name: str, factor: float, shift: float) -> Outcome:
        """As if `name` had been found that many times as far off, and further by `shift` of its error."""
        off = self.found[name].astype(np.float64) - self.true[name]
        error = np.divide(off, self.pulls(name), out=np.zeros_like(off), where=off != 0)
        arrays = dict(self.found.arrays) | {name: self.true[name] + factor * off + shift * error}
        return replace(self, found=Payload(self.found.kind, arrays, self.found.units))


def by_chip(values: Floats, of: Mask) -> Floats:
    """The mean of some strips of each chip; 0 of none."""
    total, number = (x.reshape(-1, CHIP).sum(axis=1) for x in (np.where(of, values, 0.0).astype(np.float64), of))
    return total / np.maximum(number, 1)


@pytest.fixture(
    scope="module", params=["mini", pytest.param("full", marks=[pytest.mark.verify, pytest.mark.timeout(1200)])]
)
def outcome(
    request: pytest.FixtureRequest, joined: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Outcome]:
    """One run, simulated and taken through the chain."""
    folder = tmp_path_factory.mktemp(request.param)
    yield taken(folder, request.param, joined)
    shutil.rmtree(folder)


def taken(folder: Path, name: str, cluster: dict[str, Any]) -> Outcome:
    data, geometry = folder / "data", geometry_of(GEOMETRIES[name]())
    sections = {
        "cluster": cluster,
        "experiment": {"name": "ref10", "settings": {"geometry": name}},
        "splitting": {"events": 221},
        # What the samples of this run say, and nothing of what was before.
        "calibration": {"pedestal": {"steady": 0.0, "steady_noise": 0.0}},
    }
    order = Order(seed=SEED, lumis=LUMIS[name], events=EVENTS // LUMIS[name], scenario=json.dumps(SCENARIO))
    with Tier0(settings(folder / "area", **sections)) as tier0:
        files = tier0.simulate(data, [RUN], order, progress=False)
        tier0.conditions.upload("pedestal", data / daq.TABLES, "0", "the DAQ's")
        summary = tier0.run(*files, progress=False)
        first, last = tier0.conditions.intervals("pedestal")
    assert not first.iov.contains(RunLumi(RUN, 1)) and last.iov.contains(RunLumi(RUN, 1))
    ids, store = truth_of(data, RUN, 1), PayloadStore(data / TRUTH / "conditions")
    status = store.get(ids[STRIP_STATUS])["status"]
    return Outcome(
        online=first.payload,
        true=store.get(ids["pedestal"]),
        dead=status == DEAD,
        hot=status == HOT,
        touched=touched_strips(data, geometry),
        found=last.payload,
        states=dict(summary[RUN].conditions["pedestal"]),
        events=summary[RUN].prompt.read,
        disk=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
    )


def touched_strips(data: Path, geometry: Geometry) -> Mask:
    """Strips that a particle may have left charge in, in an event in which their module was read out in full."""
    tangent = Scenario.from_json(json.dumps(SCENARIO)).tangents[1]
    edges = np.zeros(len(geometry.strip_rows) * STRIPS + 1, np.int64)
    for path in sorted(daq.folder_of(data / TRUTH, RUN).glob("lumi*.root")):
        made = read_tier(path)
        event = np.repeat(made["event"], ak.num(made["Crossing_u"]))
        row = geometry.rows_of(np.asarray(ak.flatten(made["Crossing_module"])))
        read = (geometry.strip_block[row] >= 0) & (geometry.strip_block[row] % NZS_GROUPS == event % NZS_GROUPS)
        u, slope = (np.asarray(ak.flatten(made[f"Crossing_{part}"]))[read] for part in ("u", "dudw"))
        row = row[read]
        half = geometry.thickness[row] / 2
        middle = (u + half * tangent) / geometry.pitch_u[row] + STRIPS / 2
        reach = half * np.abs(slope - tangent) / geometry.pitch_u[row] + MARGIN
        begin, end = (np.clip(np.floor(middle + side * reach), 0, STRIPS - 1).astype(np.int64) for side in (-1, 1))
        np.add.at(edges, geometry.strip_block[row] * STRIPS + begin, 1)
        np.add.at(edges, geometry.strip_block[row] * STRIPS + end + 1, -1)
    return np.cumsum(edges)[:-1] > 0


def assert_as_predicted(outcome: Outcome, name: str, which: Mask) -> None:
    """Pulls of some strips have mean 0 and width 1.

    The common mode of a chip moves the means of all its strips together: their pulls are correlated by its part of the
    variance, which both bounds take into account.
    """
    pulls = outcome.pulls(name)[which]
    n, in_chips = len(pulls), np.sum(which.reshape(-1, CHIP).sum(axis=1) ** 2)
    shared = COMMON_MODE**2 / np.mean(outcome.width()[which] ** 2) if name == "mean" else 0.0
    assert abs(pulls.mean()) < 4 * np.sqrt((1 - shared) * n + shared * in_chips) / n
    assert abs(pulls.std() - 1) < 4 * np.sqrt(((1 - shared**2) * n + shared**2 * in_chips) / 2) / n


def test_one_run_is_enough_and_small(outcome: Outcome) -> None:
    assert outcome.events == EVENTS
    assert outcome.states == {"fresh": 1}
    entries = outcome.found["entries"][~outcome.dead]
    assert entries.min() >= 100 and entries.max() <= SAMPLES + 1
    assert outcome.disk < DISK


@pytest.mark.parametrize("name", ["mean", "noise"])
def test_pulls_are_those_of_statistics(outcome: Outcome, name: str) -> None:
    assert outcome.clean.mean() > 0.85
    assert_as_predicted(outcome, name, outcome.clean)


@pytest.mark.parametrize("name", ["mean", "noise"])
@pytest.mark.parametrize(("factor", "shift"), [(1.05, 0.0), (1.0, 0.2)])
def test_constants_off_by_a_little_would_be_seen(outcome: Outcome, name: str, factor: float, shift: float) -> None:
    with pytest.raises(AssertionError):
        assert_as_predicted(outcome.spoiled(name, factor, shift), name, outcome.clean)


@pytest.mark.parametrize("name", ["mean", "noise"])
def test_hits_and_pulses_move_constants_by_less_than_a_tenth_of_their_error(outcome: Outcome, name: str) -> None:
    """Most of a hit lies beyond the window, and few samples have one."""
    for which in (outcome.touched & ~outcome.dead & ~outcome.hot, outcome.hot):
        pulls = outcome.pulls(name)[which]
        assert abs(pulls.mean()) < 0.1 + 4 / np.sqrt(len(pulls))
        assert abs(pulls.std() - 1) < 0.05 + 4 / np.sqrt(2 * len(pulls))


def test_dead_strips_are_flagged_and_keep_what_they_had(outcome: Outcome) -> None:
    assert outcome.dead.sum() > 2 * CHIP
    np.testing.assert_array_equal(outcome.found["status"], np.where(outcome.dead, Status.DEAD, Status.NEW))
    for name in ("mean", "mean_error", "noise", "noise_error"):
        np.testing.assert_array_equal(outcome.found[name][outcome.dead], outcome.online[name][outcome.dead])


@pytest.mark.parametrize("name", ["mean", "noise"])
def test_strips_beside_dead_or_hot_ones_are_as_good_as_others(outcome: Outcome, name: str) -> None:
    assert outcome.beside.sum() > 300
    assert_as_predicted(outcome, name, outcome.beside)


def test_chips_that_moved_are_found(outcome: Outcome) -> None:
    moved, alive = outcome.moved, ~outcome.dead
    assert 0.03 < moved.mean() < 0.08
    np.testing.assert_array_equal(by_chip(outcome.found["mean"] - outcome.online["mean"], alive) > 2, moved)
    # By how much: the common mode of their samples is all that is left, and a little noise.
    off = by_chip(outcome.found["mean"] - outcome.true["mean"], alive)[moved]
    noise = np.median(outcome.true["noise"])
    pulls = off / np.sqrt((COMMON_MODE**2 + noise**2 / CHIP) / SAMPLES)
    assert abs(pulls.mean()) < 4 / np.sqrt(len(pulls))
    assert abs(pulls.std() - 1) < 4 / np.sqrt(2 * len(pulls))
