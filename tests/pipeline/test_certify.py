"""Flags, masks and the good-run list."""

import json

import numpy as np
import pytest

from calib.accumulators import UnitHistogram
from calib.iov import RunLumi
from calib.state import State
from pipeline.certify import BadMask, Quality, certify, contains, good_runs, judge, ranges_of, read_mask
from pipeline.experiments.interface import QualityTest

EDGES = np.linspace(-1.0, 1.0, 21)


def histogram(values_by_unit):
    units = np.repeat(list(values_by_unit), [len(v) for v in values_by_unit.values()])
    return UnitHistogram.fill(EDGES, units, np.concatenate(list(values_by_unit.values())))


def unit(lumi, run=7):
    return RunLumi(run, lumi).packed


def test_mean_test_tells_good_bad_and_silent():
    found = histogram({unit(1): [0.05] * 50, unit(2): [0.65] * 50, unit(3): [0.65] * 3})
    test = QualityTest("mean", "h", low=-0.2, high=0.2, entries=10)
    assert [j.quality for j in judge(test, found)] == [Quality.GOOD, Quality.BAD, Quality.SILENT]


def test_share_test_counts_what_lies_outside_the_histogram():
    found = histogram({unit(1): [0.05] * 60 + [9.0] * 40, unit(2): [0.05] * 95 + [9.0] * 5})
    test = QualityTest("core", "h", low=-0.2, high=0.2, entries=10, share_inside=0.9)
    assert [j.quality for j in judge(test, found)] == [Quality.BAD, Quality.GOOD]


def test_reasons_of_test_mask_and_setback_add_up():
    units = [unit(1), unit(2), unit(3)]
    quality = State({"h": histogram({unit(1): [0.65] * 50, unit(2): [0.0] * 50})})
    tests = [QualityTest("mean", "h", low=-0.2, high=0.2, entries=10)]
    found = certify(7, units, quality, tests, {unit(3): "file vanished"}, mask={7: [[1, 2]]})
    assert found.good == (unit(2),)
    assert list(found.bad) == [unit(1), unit(3)]
    assert found.bad[unit(1)][0].startswith("mean: 0.65 on 50 entries")
    assert found.bad[unit(3)] == ("file vanished", "not in the given certification file")
    document = found.to_document("abc")
    assert document["good"] == {"7": [[2, 2]]} and document["manifest"] == "abc"
    assert document["tests"] == {"mean": {"bad": 1, "good": 1}}


def test_good_run_list_is_cms_json():
    documents = [{"good": ranges_of([unit(1, 9), unit(2, 9)])}, {"good": ranges_of([unit(4, 8)])}]
    assert json.dumps(good_runs(documents)) == '{"8": [[4, 4]], "9": [[1, 2]]}'


def test_real_masks_are_read(data_dir):
    mask = read_mask(data_dir / "Cert_190456-208686_8TeV_22Jan2013ReReco_Collisions12_JSON.txt")
    assert contains(mask, RunLumi(190645, 10)) and not contains(mask, RunLumi(190645, 9))


@pytest.mark.parametrize("text", ["{", "[1]", '{"a": [[1, 2]]}', '{"1": [[5, 2]]}', '{"1": [3]}'])
def test_a_broken_mask_is_refused_with_its_name(tmp_path, text):
    path = tmp_path / "mask.json"
    path.write_text(text)
    with pytest.raises(BadMask, match=r"mask\.json"):
        read_mask(path)


def test_a_missing_mask_is_refused(tmp_path):
    with pytest.raises(BadMask, match="nowhere"):
        read_mask(tmp_path / "nowhere.json")
