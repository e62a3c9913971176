"""Clusters of pixels: what touches, against the labels of an image; borders, masks and thresholds, case by case."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import label

from pipeline.experiments.ref10.constants import ROCS, pixel_status
from pipeline.experiments.ref10.reconstruct.flags import ClusterFlag
from pipeline.experiments.ref10.reconstruct.pixel_clusters import components
from pipeline.experiments.ref10.reconstruct.stages import reconstruct
from tests.pipeline.experiments.ref10.reconstruct.raw import (
    PLAN,
    Event,
    pixel,
    pixel_module,
    plain,
    raw_columns,
)

INNER = pixel_module(0)
ONE, NEXT = (int(PLAN.module[np.flatnonzero(PLAN.layer == 2)[place]]) for place in (0, 1))
ROWS = 224


def of(places, module=ONE, adc=40):
    return Event.of([(module, pixel(row, column), adc) for row, column in places])


def found(events, conditions=None):
    return reconstruct(raw_columns(events), conditions or plain()).clusters


def masking(module, *chips):
    status = np.zeros((int(PLAN.pixel.sum()), ROCS), np.int8)
    status[int(np.flatnonzero(PLAN.module == module)[0]), list(chips)] = 1
    return plain(pixel_status=pixel_status(status))


@pytest.mark.parametrize("filled", [0.02, 0.2, 0.4, 0.6])
def test_what_touches_is_what_an_image_would_say(filled):
    rng = np.random.default_rng(1)
    image = rng.random((60, 50)) < filled
    wanted = label(image, np.ones((3, 3)))[0]
    column, row = np.nonzero(image.T)
    clusters, first = components((column.astype(np.int64) << 10) + row)
    names = wanted[row, column]
    assert len(np.unique(np.stack([clusters, names]), axis=1).T) == names.max() == len(first)
    assert (np.unique(clusters, return_index=True)[1] == first).all()


def test_corners_touch_and_the_shape_does_not_matter():
    # A spiral: its first and last columns are joined only through the others.
    ring = [(0, 5), (1, 4), (2, 3), (3, 2), (4, 3), (5, 4), (4, 5), (3, 6), (9, 9)]
    clusters = found([of([(row + 20, column) for row, column in ring])])
    assert clusters.flat["size"].tolist() == [8, 1]
    assert clusters.flat["size_u"].tolist() == [6, 1]
    assert clusters.flat["size_v"].tolist() == [5, 1]
    assert clusters.flat["first_row"].tolist() == [20, 29]
    assert clusters.flat["first_column"].tolist() == [2, 9]


def test_projections_and_skews():
    event = Event.of([(ONE, pixel(10, 7), 60), (ONE, pixel(11, 7), 20), (ONE, pixel(11, 8), 40)])
    clusters = found([event])
    assert clusters.flat["charge"].tolist() == [120 * 150]
    assert clusters.flat["row"][0] == pytest.approx(10.5)
    assert clusters.flat["column"][0] == pytest.approx(7 + 1 / 3)
    assert clusters.flat["skew_u"][0] == 0
    assert clusters.flat["skew_v"][0] == pytest.approx((40 - 80) / 120)


def test_no_cluster_reaches_over_lines_modules_or_events():
    wrapped = of([(ROWS - 1, 3), (0, 4)])
    beyond = Event.of([(ONE, pixel(5, 431), 40), (NEXT, pixel(5, 0), 40)])
    clusters = found([wrapped, beyond, of([(7, 7)]), of([(7, 8)])])
    assert clusters.counts.tolist() == [2, 2, 1, 1]
    assert clusters.flat["size"].tolist() == [1] * 6
    assert clusters.flat["flags"].tolist() == [ClusterFlag.EDGE] * 4 + [0, 0]


@pytest.mark.parametrize(("module", "adc", "clusters"), [(ONE, 26, 0), (ONE, 27, 1), (INNER, 13, 0), (INNER, 14, 1)])
def test_thresholds_are_those_of_the_layer(module, adc, clusters):
    assert len(found([of([(20, 20)], module, adc)]).flat["row"]) == clusters


@pytest.mark.parametrize(("adc", "flag"), [(254, 0), (255, ClusterFlag.SATURATED)])
def test_saturated_pixels_are_flagged(adc, flag):
    assert found([of([(20, 20)], adc=adc)]).flat["flags"].tolist() == [flag]


def test_masked_chips_take_no_part_and_their_neighbours_are_flagged():
    places = [(79, 10), (80, 10), (78, 51), (79, 53), (77, 60), (30, 30)]
    # Chip 9 is rows 80 to 159, columns 0 to 51; chip 1 rows 0 to 79, columns 52 to 103.
    clusters = found([of(places)], masking(ONE, 9, 1))
    assert clusters.flat["first_row"].tolist() == [79, 30, 78]
    assert clusters.flat["flags"].tolist() == [ClusterFlag.NEAR_MASKED, 0, ClusterFlag.NEAR_MASKED]
    # Across the corner where four chips meet.
    clusters = found([of([(79, 51), (78, 40)])], masking(ONE, 10))
    assert clusters.flat["flags"].tolist() == [0, ClusterFlag.NEAR_MASKED]
    # The same chip of another module is nothing to this one.
    assert found([of([(79, 10)])], masking(NEXT, 9)).flat["flags"].tolist() == [0]


@pytest.mark.parametrize("row", [78, 79, 100, 160, 161])
@pytest.mark.parametrize("column", [50, 51, 70, 104, 105])
def test_all_around_a_masked_chip_neighbours_are_flagged(row, column):
    """Chip 10 is rows 80 to 159, columns 52 to 103."""
    if 80 <= row < 160 and 52 <= column < 104:
        assert found([of([(row, column)])], masking(ONE, 10)).counts.tolist() == [0]
        return
    near = 79 <= row <= 160 and 51 <= column <= 104
    flags = found([of([(row, column)])], masking(ONE, 10)).flat["flags"].tolist()
    assert flags == [ClusterFlag.NEAR_MASKED if near else 0]


def test_a_module_with_every_pixel_firing_is_one_large_cluster():
    places = [(row, column) for column in range(432) for row in range(ROWS)]
    clusters = found([of(places), of([(5, 5)])])
    assert clusters.counts.tolist() == [1, 1]
    assert clusters.flat["size"].tolist() == [ROWS * 432, 1]
    assert clusters.flat["flags"].tolist() == [ClusterFlag.LARGE | ClusterFlag.EDGE, 0]
    assert clusters.flat["v_error"][0] == pytest.approx(432 / np.sqrt(12) * 0.015)
