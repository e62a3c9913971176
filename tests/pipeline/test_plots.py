"""Constants over their intervals, drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calib.iov import RunLumi
from calib.payload import Payload
from calib.tags import Moment
from pipeline.plots import QUANTILES, Interval, NothingToPlot, drawable, plot, save
from tests.pipeline.conditions_shelf import editor, enter, offset


def payload(**arrays: Any) -> Payload:
    units = {name: "cm" for name in arrays if name.startswith("x")}
    return Payload("beamspot", {name: np.asarray(value) for name, value in arrays.items()}, units)


def interval(run: int, until: int | None = -1, **arrays: Any) -> Interval:
    """Up to the next run, or to another; None: open."""
    end = run + 1 if until == -1 else until
    return Interval(RunLumi(run), None if end is None else RunLumi(end), payload(**arrays))


def lines(axis: Any) -> list[tuple[list[float], list[float]]]:
    """The steps drawn, without the lines that mark runs."""
    return [
        (np.asarray(line.get_xdata(), float).tolist(), np.asarray(line.get_ydata(), float).tolist())
        for line in axis.get_lines()
        if line.get_linestyle() == "-"
    ]


def bands(axis: Any) -> list[Any]:
    return [collection.get_paths()[0].get_extents() for collection in axis.collections]


def test_a_step_for_each_interval_with_units_and_runs(tmp_path: Path) -> None:
    history = [interval(1, x=0.1, x_error=0.01), interval(2, None, x=0.2, x_error=0.01)]
    figure = plot({"tag": history}, ["x"], "title")
    axis = figure.axes[0]
    assert axis.get_ylabel() == "x [cm]" and figure.get_suptitle() == "title"
    assert "run:lumisection" in axis.get_xlabel()
    assert [label.get_text() for label in axis.get_xticklabels()] == ["1:0", "2:0"]
    assert lines(axis) == [([0, 1, 1, 2], [0.1, 0.1, 0.2, 0.2])]
    [band] = bands(axis)
    assert (band.y0, band.y1) == pytest.approx((0.09, 0.21))
    assert save(figure, tmp_path / "deep" / "plot.png").stat().st_size > 1000


def test_where_nothing_holds_nothing_is_drawn() -> None:
    [(x, y)] = lines(plot({"tag": [interval(1, 3, x=0.1), interval(5, 6, x=0.2)]}, ["x"]).axes[0])
    assert plot({"tag": [interval(1, 3, x=0.1)]}, ["x"]).axes[0].get_xlim() == (0, 1)
    assert np.isnan(x).tolist() == np.isnan(y).tolist() == [False, False, True, False, False]


def test_runs_are_marked_where_they_begin() -> None:
    moments = [RunLumi(1, 1), RunLumi(1, 5), RunLumi(2, 0), RunLumi(2, 7)]
    history = [
        Interval(since, until, payload(x=0.1)) for since, until in zip(moments, [*moments[1:], None], strict=True)
    ]
    axis = plot({"tag": history}, ["x"]).axes[0]
    assert [line.get_xdata()[0] for line in axis.get_lines() if line.get_linestyle() == ":"] == [2]
    [top] = axis.child_axes
    assert [label.get_text() for label in top.get_xticklabels()] == ["1", "2"]


def test_several_tags_have_one_axis() -> None:
    one = [interval(1, 3, x=0.1), interval(3, None, x=0.3)]
    other = [interval(2, None, x=0.2)]
    axis = plot({"one": one, "other": other}, ["x"]).axes[0]
    assert lines(axis) == [([0, 2, 2, 3], [0.1, 0.1, 0.3, 0.3]), ([1, 3], [0.2, 0.2])]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["one", "other"]
    assert len({line.get_color() for line in axis.get_lines() if line.get_linestyle() == "-"}) == 2


def test_of_a_large_array_the_median_and_the_bands_are_drawn() -> None:
    values = np.random.default_rng(1).normal(5.0, 2.0, 10_001)
    values[:100] = np.nan
    axis = plot({"tag": [interval(1, None, x=values)]}, ["x"]).axes[0]
    assert axis.get_ylabel() == "x [cm]\nmedian of 10,001, 68 %, 95 %"
    low, lower, middle, upper, high = np.quantile(values[100:], QUANTILES)
    assert lines(axis) == [([0, 1], [middle] * 2)]
    assert [(band.y0, band.y1) for band in bands(axis)] == [(low, high), (lower, upper)]


def test_of_a_status_the_shares_are_drawn() -> None:
    history = [interval(1, status=np.array([0, 0, 0, 2], np.int8)), interval(2, None, status=np.array([0, 0, 2, 3]))]
    axis = plot({"tag": history}, ["status"]).axes[0]
    assert axis.get_ylabel() == "status\nshare of 4 by value"
    assert [y[::2] for _, y in lines(axis)] == [[0.75, 0.5], [0.25, 0.25], [0.0, 0.25]]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["0", "2", "3"]


def test_counts_of_many_values_are_no_status() -> None:
    axis = plot({"tag": [interval(1, None, entries=np.arange(100))]}, ["entries"]).axes[0]
    assert axis.get_ylabel() == "entries\nmedian of 100, 68 %, 95 %"


def test_what_was_not_measured_does_not_set_the_scale() -> None:
    design, found = interval(1, x=0.0, x_error=np.nan), interval(2, x=0.2, x_error=0.01)
    assert lines(plot({"tag": [design, found]}, ["x"]).axes[0]) == [([0, 1], [0.2, 0.2])]
    assert lines(plot({"tag": [design]}, ["x"]).axes[0]) == [([0, 1], [0.0, 0.0])]


def test_what_is_drawn_when_nothing_is_named() -> None:
    assert drawable(payload(x=1.0, x_error=0.1, entries=5)) == ("x",)
    assert drawable(payload(x=np.zeros(3), x_error=np.ones(3), entries=5)) == ("x",)
    assert drawable(payload(status=np.zeros(3), entries=5)) == ("entries", "status")


def test_an_unknown_number_is_refused_with_those_there_are() -> None:
    with pytest.raises(NothingToPlot, match=r"no array 'q'; it has x"):
        plot({"tag": [interval(1, x=0.1)]}, ["q"])


def test_nothing_made_yet_is_said() -> None:
    with pytest.raises(NothingToPlot, match="no payload yet"):
        plot({"tag": []}, ["x"])
    with pytest.raises(NothingToPlot, match="name at least one"):
        plot({"tag": [interval(1, x=0.1)]}, [])


def test_what_has_no_axis_in_common_is_refused() -> None:
    other: Moment = 1_000
    timed = Interval(other, None, payload(x=0.1))
    with pytest.raises(NothingToPlot, match="one tag goes by run, another by time"):
        plot({"one": [interval(1, x=0.1)], "other": [timed]}, ["x"])
    assert "time (UTC)" in plot({"other": [timed]}, ["x"]).axes[0].get_xlabel()
    inches = Interval(RunLumi(1), None, Payload("beamspot", {"x": np.array(0.1)}, {"x": "inch"}))
    with pytest.raises(NothingToPlot, match="x is in cm and in inch: draw them apart"):
        plot({"one": [interval(1, x=0.1)], "other": [inches]}, ["x"])


def test_a_file_must_say_how_to_draw(tmp_path: Path) -> None:
    figure = plot({"tag": [interval(1, x=0.1)]}, ["x"])
    with pytest.raises(NothingToPlot, match=r"has no ending that says how to draw; there are .*png"):
        save(figure, tmp_path / "plot")


def test_a_picture_keeps_no_payload() -> None:
    class Watched:
        """Intervals of large payloads, of which no two may be there at a time."""

        alive = 0

        def __iter__(self) -> Any:
            import weakref

            for run in range(1, 5):
                one = interval(run, x=np.zeros(1000))
                weakref.finalize(one.payload.arrays["x"], self._gone)
                self.alive += 1
                assert self.alive <= 2
                yield one
                del one

        def _gone(self) -> None:
            self.alive -= 1

    watched = Watched()
    figure = plot({"tag": watched}, ["x"])  # type: ignore[dict-item]
    assert watched.alive == 0 and len(figure.axes) == 1


def test_a_notebook_draws_tags_by_their_names(tmp_path: Path) -> None:
    found = editor(tmp_path / "area")
    enter(found, RunLumi(7), offset(1.5))
    axis = found.plot("offset", "mean", tag=["prompt", "express"]).axes[0]  # type: ignore[union-attr]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["offset_prompt_v1", "offset_express_v1"]
    assert found.plot("offset").axes[0].get_ylabel() == "mean [cm]"  # type: ignore[union-attr]
    assert found.plot("offset", path=tmp_path / "a.pdf") == tmp_path / "a.pdf"
    found.world.database.close()
