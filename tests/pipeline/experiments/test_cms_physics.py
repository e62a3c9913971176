"""Real collisions: what conditions by interval do to the data, against figures that do not depend on this program."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import awkward as ak
import numpy as np
import pytest

from calib.algorithms.beamspot import BeamSpot
from calib.calibration import Granularity, conclude, packed_units
from calib.payload import Payload
from pipeline.columns import take
from pipeline.events import SourceFile
from pipeline.experiments.cms_opendata import CmsOpenData
from pipeline.experiments.testing import measured, read
from pipeline.model import Columns, Step

CM_TO_UM = 1e4


def express(path: Path) -> tuple[Columns, Columns]:
    """The events of a file, and what calibrations read of them."""
    experiment = CmsOpenData()
    events = read(experiment, SourceFile.open(path), Step.EXPRESS)
    return events, measured(experiment.process(Step.EXPRESS, events, {}), events)


def payloads(calibration: BeamSpot, columns: Columns) -> dict[int, Payload]:
    """The payload of every unit that has one."""
    found = conclude(calibration, calibration.accumulate(columns, {}), None, True)
    return {unit: c.payload for c in found for unit in c.interval.units if c.payload is not None}


def robust_width(events: Columns, payload_of: Mapping[int, Payload]) -> float:
    """1.4826 x median absolute deviation of dxy of prompt's muons [um], every unit under its payload."""
    experiment, dxy = CmsOpenData(), []
    units = packed_units(events)
    for unit in np.unique(units).tolist():
        part = take(events, units == unit)
        nano = experiment.process(Step.PROMPT, part, {"beamspot": payload_of[unit]}).tiers["NANO"]
        dxy.append(ak.to_numpy(ak.flatten(nano["Muon_dxy"])))
    values = np.concatenate(dxy)
    return float(CM_TO_UM * 1.4826 * np.median(np.abs(values - np.median(values))))


def test_conditions_by_interval_sharpen_2011(data_dir: Path) -> None:
    events, columns = express(data_dir / "cms_2011A_zmumu.root")
    fit, test = take(columns, columns["event"] % 2 == 0), take(events, events["event"] % 2 == 1)
    one = BeamSpot().finalize(BeamSpot().accumulate(fit, {}), None)
    units = np.unique(packed_units(events)).tolist()
    assert robust_width(test, dict.fromkeys(units, one)) == pytest.approx(47.5, abs=1.0)
    # Three runs have too few muons in half of their events; there the one constant stands in.
    by_run = dict.fromkeys(units, one) | payloads(BeamSpot(granularity=Granularity.RUN), fit)
    assert robust_width(test, by_run) == pytest.approx(28.8, abs=0.7)
    by_span = payloads(BeamSpot(granularity=Granularity.SPAN), fit)
    assert set(by_span) == set(units)
    assert robust_width(test, by_span) <= 29.5


def test_the_beam_of_2012_is_where_it_was(data_dir: Path) -> None:
    _, columns = express(data_dir / "cms_2012_collisions.root")
    run = columns["run"]
    for first, last, x, y in [
        (190_000, 196_000, 0.0721, 0.0616),
        (196_000, 198_600, 0.0722, 0.0620),
        (198_600, 200_500, 0.0711, 0.0606),
    ]:
        part = take(columns, (run >= first) & (run < last))
        found = BeamSpot().finalize(BeamSpot().accumulate(part, {}), None)
        for name, expected in (("x", x), ("y", y)):
            allowed = 3 * np.hypot(found[f"{name}_error"], 2e-4) + 3e-4
            assert found[name] == pytest.approx(expected, abs=allowed)
        assert 12e-4 < found["width_x"] < 19e-4
        assert 14e-4 < found["width_y"] < 20e-4
        assert 4.7 < found["sigma_z"] < 5.0
        assert found["slopes_measured"]
