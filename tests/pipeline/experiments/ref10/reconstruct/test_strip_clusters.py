"""Clusters of strips, case by case. Pedestal 100, noise 4, gain 1: 109 is above 2 sigma, 121 a seed."""

from __future__ import annotations

import numpy as np
import pytest

from calib.payload import Payload
from pipeline.experiments.ref10.constants import strip_status
from pipeline.experiments.ref10.reconstruct.flags import ClusterFlag
from pipeline.experiments.ref10.reconstruct.stages import reconstruct
from pipeline.experiments.ref10.reconstruct.thresholds import Thresholds
from tests.pipeline.experiments.ref10.reconstruct.raw import PLAN, Event, plain, raw_columns, strip_module

ONE, NEXT = strip_module(4), strip_module(5)
CHANNELS = len(PLAN.strip_rows) * 768


def masking(*strips: int):
    status = np.zeros(CHANNELS, np.int8)
    status[[4 * 768 + strip for strip in strips]] = 1
    return plain(strip_status=strip_status(status))


def found(events, conditions=None):
    return reconstruct(raw_columns(events), conditions or plain()).clusters


def of(counts, module=ONE):
    """An event with these counts by strip."""
    return Event.of([(module, strip, adc) for strip, adc in counts.items()])


def shapes(clusters):
    """First strip and size of each."""
    return list(zip(clusters.flat["first_row"].tolist(), clusters.flat["size"].tolist(), strict=True))


def test_neighbours_join_a_seed():
    clusters = found([of({10: 109, 11: 121, 12: 140, 13: 108})])
    assert shapes(clusters) == [(10, 3)]
    assert clusters.flat["charge"].tolist() == [265 * (9 + 21 + 40)]
    assert clusters.flat["row"][0] == pytest.approx((9 * 10 + 21 * 11 + 40 * 12) / 70)
    assert clusters.flat["skew_u"][0] == pytest.approx((40 - 9) / 49)
    assert clusters.flat["flags"].tolist() == [0]


@pytest.mark.parametrize(("adc", "clusters"), [(120, 0), (121, 1)])
def test_without_a_seed_there_is_none(adc, clusters):
    assert len(shapes(found([of({20: adc, 21: 110})]))) == clusters


def test_many_weak_strips_are_not_enough():
    # Five strips have sqrt(5) 4 = 8.9 counts of noise: 57 counts are 6.4 of it.
    assert shapes(found([of({30: 121})])) == [(30, 1)]
    weak = {31: 109, 32: 109, 33: 109, 34: 109}
    assert len(shapes(found([of({30: 121} | weak)]))) == 1
    strict = reconstruct(raw_columns([of({30: 121} | weak)]), plain(), Thresholds(cluster=6.4)).clusters
    assert len(shapes(strict)) == 0


def test_a_silent_strip_ends_a_cluster():
    assert shapes(found([of({40: 150, 42: 150})])) == [(40, 1), (42, 1)]


def test_one_masked_strip_is_bridged():
    clusters = found([of({50: 150, 52: 130})], masking(51))
    assert shapes(clusters) == [(50, 2)]
    assert clusters.flat["size_u"].tolist() == [3]
    assert clusters.flat["flags"].tolist() == [ClusterFlag.BRIDGED]


def test_a_masked_strip_with_counts_does_not_take_part():
    clusters = found([of({50: 150, 51: 350, 52: 130})], masking(51))
    assert clusters.flat["charge"].tolist() == [265 * 80]
    assert shapes(found([of({51: 350, 52: 112})], masking(51))) == []


def test_two_masked_strips_are_not_bridged():
    clusters = found([of({50: 150, 53: 130})], masking(51, 52))
    assert shapes(clusters) == [(50, 1), (53, 1)]
    assert clusters.flat["flags"].tolist() == [ClusterFlag.NEAR_MASKED] * 2


def test_nothing_is_bridged_where_nothing_is_beyond():
    clusters = found([of({50: 150})], masking(51))
    assert shapes(clusters) == [(50, 1)]
    assert clusters.flat["flags"].tolist() == [ClusterFlag.NEAR_MASKED]


def test_no_cluster_reaches_over_modules_or_events():
    last_and_first = [(ONE, 767, 150), (NEXT, 0, 150)]
    clusters = found([Event.of(last_and_first), Event.of([(ONE, 0, 150)]), Event.of([(ONE, 1, 150)])])
    assert clusters.counts.tolist() == [2, 1, 1]
    assert shapes(clusters) == [(767, 1), (0, 1), (0, 1), (1, 1)]
    assert clusters.flat["flags"].tolist() == [ClusterFlag.EDGE] * 3 + [0]


def test_a_masked_strip_at_the_border_is_not_bridged_to_the_next_module():
    status = np.zeros(CHANNELS, np.int8)
    status[[5 * 768 - 1, 5 * 768]] = 1
    conditions = plain(strip_status=strip_status(status))
    clusters = found([Event.of([(ONE, 766, 150), (NEXT, 1, 150)])], conditions)
    assert shapes(clusters) == [(766, 1), (1, 1)]


def test_chips_are_no_border():
    assert shapes(found([of({127: 150, 128: 150})])) == [(127, 2)]


@pytest.mark.parametrize(("adc", "flag"), [(345, 0), (346, ClusterFlag.SATURATED), (354, ClusterFlag.SATURATED)])
def test_saturated_strips_are_flagged(adc, flag):
    clusters = found([of({60: adc, 61: 120})])
    assert clusters.flat["flags"].tolist() == [flag]


def test_a_module_with_every_strip_firing_is_one_large_cluster():
    clusters = found([of(dict.fromkeys(range(768), 200)), of({5: 150})])
    assert shapes(clusters) == [(0, 768), (5, 1)]
    assert clusters.flat["flags"].tolist() == [ClusterFlag.LARGE | ClusterFlag.EDGE, 0]
    assert clusters.flat["row"][0] == 383.5
    assert clusters.flat["u_error"][0] == pytest.approx(768 / np.sqrt(12) * 0.0130)


@pytest.mark.parametrize(
    ("mean", "noise"), [(np.nan, 4.0), (np.inf, 4.0), (100.0, 0.0), (100.0, -1.0), (100.0, np.nan)]
)
def test_a_strip_whose_constants_cannot_be_used_counts_as_masked(mean, noise):
    means, noises = np.full(CHANNELS, 100.0), np.full(CHANNELS, 4.0)
    means[4 * 768 + 51], noises[4 * 768 + 51] = mean, noise
    spoilt = Payload("pedestal", {"mean": means.astype(np.float32), "noise": noises.astype(np.float32)})
    clusters = found([of({50: 150, 51: 150, 52: 130})], plain(pedestal=spoilt))
    assert clusters.flat["flags"].tolist() == [ClusterFlag.BRIDGED]
    assert clusters.flat["charge"].tolist() == [265 * 80]
    assert all(np.isfinite(values).all() for values in clusters.flat.values())
