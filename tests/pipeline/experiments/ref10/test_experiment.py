"""REF10 keeps the laws of an experiment, on simulated events and on those that a detector should not send."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest

from calib.payload import Payload
from pipeline.columns import join, take
from pipeline.experiments.interface import Experiment
from pipeline.experiments.ref10.experiment import Ref10
from pipeline.experiments.ref10.reconstruct.flags import ClusterFlag, EventFlag
from pipeline.experiments.ref10.simulate.events import simulate
from pipeline.experiments.ref10.simulate.scenario import Physics, Scenario, truth
from pipeline.experiments.testing import ExperimentLaws, MemorySource, read
from pipeline.model import Step
from tests.pipeline.experiments.ref10.reconstruct.raw import (
    PLAN,
    Event,
    pixel,
    pixel_module,
    plain,
    raw_columns,
    strip_module,
    uneven,
)

RUN = 7

EVERY_STRIP = [(strip_module(3), strip, 354) for strip in range(768)]
EVERY_PIXEL = [(pixel_module(2), pixel(row, column), 255) for row in range(160) for column in range(432)]
MANY_HITS = [(strip_module(place), strip, 180) for place in range(60) for strip in range(0, 767, 9)][:5000]

STRANGE = {
    "empty": Event(),
    "one hit": Event.of([(strip_module(5), 40, 190)]),
    "saturated": Event.of(
        [(strip_module(5), 40, 354), (strip_module(5), 41, 354), (pixel_module(1), pixel(9, 9), 255)]
    ),
    "every strip": Event.of(EVERY_STRIP),
    "every pixel": Event.of(EVERY_PIXEL),
    "every strip, in full": Event.of([], [(strip_module(3), [1023] * 768)]),
    "5000 hits": Event.of(MANY_HITS),
    "spoilt": Event.of([(1, 2, 3), (strip_module(5), 40, 2000)], [(strip_module(4), [5000] * 768)]),
}


def numbered(raw: Mapping[str, Any], lumi: int, first: int) -> dict[str, Any]:
    """RAW of an event builder: with keys and header."""
    n = len(raw["digi_module"])
    keys = {"run": np.full(n, RUN, np.uint32), "lumi": np.full(n, lumi, np.uint32)}
    head = {name: np.arange(n, dtype=kind) for name, kind in (("bx", "u2"), ("orbit", "u4"))}
    return {**keys, "event": np.arange(first, first + n, dtype=np.uint64), **head, "trig": np.ones(n, np.uint32), **raw}


SCENARIO = Scenario(physics=Physics(nzs=0.4, pile_up=3.0, tracks=20.0, z=0.3, jpsi=0.3))
SEED = 3
LOOKED_AT = {1: [1, 5, 8], 2: [3, 39]}
"""by lumisection, simulated events with what laws have to look at: pairs of muons, good vertices, strips in full"""


@cache
def source_of(*strange: str) -> MemorySource:
    """Two lumisections simulated, and one of strange events."""
    good = [simulate(SCENARIO, PLAN, SEED, RUN, lumi, np.array(events)).raw for lumi, events in LOOKED_AT.items()]
    others = numbered(raw_columns([STRANGE[name] for name in strange]), 3, 2**33)
    return MemorySource(Path(f"physics/run{RUN}.root"), {"Events": join([*good, others])})


class TestRef10(ExperimentLaws):
    @pytest.fixture
    def experiment(self) -> Experiment:
        return Ref10({"geometry": "mini"})

    @pytest.fixture
    def source(self) -> MemorySource:
        # The larger ones are no other case for the laws, and take their time.
        return source_of("one hit", "spoilt")

    @pytest.fixture
    def conditions(self) -> Mapping[str, Payload]:
        return truth(SCENARIO, PLAN, SEED, RUN, 1)

    @pytest.fixture
    def other_conditions(self) -> Mapping[str, Payload]:
        return uneven(seed=9)

    @pytest.mark.verify
    def test_judging_names_what_only_quality_tests_look_at(self, experiment, source, conditions):
        # Each value of a setting makes all anew, and these two events have all there is to see.
        columns = source.trees[experiment.tree]
        two = MemorySource(source.path, {experiment.tree: take(columns, np.asarray(columns["lumi"]) == 2)})
        super().test_judging_names_what_only_quality_tests_look_at(experiment, two, conditions)

    def test_there_is_something_of_everything(self, experiment, source, conditions):
        events = read(experiment, source, Step.EXPRESS)
        made = experiment.process(Step.EXPRESS, events, conditions)
        assert all(ak.any(ak.num(events["nzs_module"][events["lumi"] == lumi]) > 0) for lumi in LOOKED_AT)
        columns = {**made.tiers["AOD"], **made.measured}
        for name in ("Track_pt", "Vertex_x", "Muon_pt", "Dimuon_mass", "stiff_d0_um", "vertex_x", "pedestal_block"):
            assert ak.any(ak.num(columns[name]) > 0), name
        assert ak.any(columns["track_vertex"] >= 0)


@pytest.fixture(scope="module", params=Step)
def strange(request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    """By name the columns of RECO of each strange event, under conditions with nothing masked."""
    experiment = Ref10({"geometry": "mini"})
    events = read(experiment, source_of(*STRANGE), request.param)
    tiers = experiment.process(request.param, events, plain()).tiers
    tier = {**tiers["RECO"], "flags of AOD": tiers["AOD"]["reco_flags"]}
    first = len(events["event"]) - len(STRANGE)
    return {
        name: {column: values[first + place] for column, values in tier.items()} for place, name in enumerate(STRANGE)
    }


@pytest.mark.parametrize(
    ("name", "clusters", "flags"),
    [
        ("empty", 0, 0),
        ("one hit", 1, 0),
        ("saturated", 2, 0),
        ("every strip", 1, 0),
        ("every pixel", 1, 0),
        # All strips of a chip as high as one another are taken for its common mode.
        ("every strip, in full", 0, 0),
        ("5000 hits", 5000, EventFlag.CROWDED),
        ("spoilt", 0, EventFlag.BAD_DIGIS | EventFlag.BAD_NZS),
    ],
)
def test_strange_events_go_through_and_are_flagged(strange, name, clusters, flags):
    found = strange[name]
    assert len(found["Cluster_module"]) == clusters
    assert found["reco_flags"] == found["flags of AOD"] == flags


def test_clusters_of_whole_modules_and_saturated_ones_say_so(strange):
    assert all(flag & ClusterFlag.SATURATED for flag in strange["saturated"]["Cluster_flags"])
    for name, size in (("every strip", 768), ("every pixel", 160 * 432)):
        found = strange[name]
        assert found["Cluster_size"].tolist() == [size]
        whole = ClusterFlag.SATURATED | ClusterFlag.LARGE | ClusterFlag.EDGE
        assert found["Cluster_flags"][0] & whole == whole
