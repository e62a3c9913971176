"""Constants over their intervals, drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calib.iov import IOV, RunLumi
from calib.payload import Payload
from pipeline.plots import Interval, NothingToPlot, measured, plot, save


def interval(run: int, **arrays: Any) -> Interval:
    values = {name: np.float64(value) for name, value in arrays.items()}
    return Interval(IOV(RunLumi(run), RunLumi(run + 1)), Payload("beamspot", values, {"x": "cm"}))


def test_a_line_for_each_interval_with_units_and_runs(tmp_path: Path) -> None:
    figure = plot([interval(1, x=0.1, x_error=0.01), interval(2, x=0.2, x_error=0.01)], ["x"], "title")
    axis = figure.axes[0]
    assert axis.get_ylabel() == "x [cm]" and figure.get_suptitle() == "title"
    assert [label.get_text() for label in axis.get_xticklabels()] == ["1:0", "2:0"]
    segments = axis.collections[0].get_segments()
    assert np.allclose(segments, [[[0, 0.1], [1, 0.1]], [[1, 0.2], [2, 0.2]]])
    assert save(figure, tmp_path / "deep" / "plot.png").stat().st_size > 1000


def test_what_was_not_measured_does_not_set_the_scale() -> None:
    design, found = interval(1, x=0.0, x_error=np.nan), interval(2, x=0.2, x_error=0.01)
    assert measured([design, found], ["x"]) == [found]
    assert measured([design], ["x"]) == [design]


def test_an_unknown_number_is_refused_with_those_there_are() -> None:
    with pytest.raises(NothingToPlot, match=r"no single number 'q'; it has x"):
        plot([interval(1, x=0.1)], ["q"])


def test_nothing_made_yet_is_said() -> None:
    with pytest.raises(NothingToPlot, match="no payload yet"):
        plot([], ["x"])
