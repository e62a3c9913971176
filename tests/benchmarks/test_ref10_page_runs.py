"""The page of the simulated detector is drawn, and its comparisons tell what agrees from what does not."""

import base64
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from scipy.special import ndtr

from benchmarks._ref10_predicted import PIXEL, UM, along, landau_cdf
from benchmarks._ref10_series import Series
from pipeline.experiments.ref10.layers import LAYERS
from tests.benchmarks.test_benchmarks_run import run


@pytest.mark.verify  # where the page is drawn whole, too
def test_ref10_page(tmp_path: Path) -> None:
    told = run("ref10_page.py", "--small", "--folder", str(tmp_path)).splitlines()
    assert told[0].startswith(f"{tmp_path}/ref10_page.png and .html")
    comparisons = told[2:-1]
    assert len(comparisons) > 30 and all(": shown only" in line or " / " in line for line in comparisons)
    page = imread(tmp_path / "ref10_page.png")
    assert page.shape[0] > 2000 and page.shape[1] > 2000 and page.std() > 0.05
    html = (tmp_path / "ref10_page.html").read_text(encoding="utf-8")
    figures = re.findall(r'<img alt="([^"]+)" src="data:image/png;base64,([^"]+)">', html)
    assert len(figures) == html.count("<img") == len({line.split("; ")[0] for line in comparisons})
    assert all(base64.b64decode(data).startswith(b"\x89PNG") for _, data in figures)
    assert html.count("<li>") == len(comparisons) and "http" not in html


@pytest.fixture
def entries():
    """Ten places of a thousand entries: place, and Gaussian numbers of width 2 about it."""
    rng = np.random.default_rng(1)
    place = np.repeat(np.arange(10), 1000)
    return place, place + rng.normal(0, 2, len(place))


@pytest.mark.parametrize(("off", "agrees"), [(0.0, True), (0.3, False)])
def test_means_that_are_off_are_told(entries, off, agrees):
    place, values = entries
    series = Series.of_means("", place, (place, values, place + off))
    assert series.agrees == agrees and series.told.endswith("DISAGREES") != agrees
    np.testing.assert_allclose(series.error, 2 / np.sqrt(1000), rtol=0.1)
    # Unless the prediction is said to be no better.
    shown = Series.of_means("", place, (place, values, place + off), good_to=np.inf)
    assert shown.agrees and shown.told == "shown only"


@pytest.mark.parametrize(("width", "agrees"), [(2.0, True), (2.2, False)])
def test_widths_that_are_off_are_told(entries, width, agrees):
    place, values = entries
    series = Series.of_widths("", place, (place, values - place, np.full(len(place), width)))
    assert series.agrees == agrees
    np.testing.assert_allclose(series.error, 2 / np.sqrt(2000), rtol=0.15)


@pytest.mark.parametrize(("width", "agrees"), [(2.0, True), (2.2, False)])
def test_shapes_that_are_off_are_told(entries, width, agrees):
    place, values = entries
    edges = np.linspace(-6, 6, 25)
    series = Series.of_histogram("", values - place, edges, lambda x: ndtr(x / width))
    assert series.agrees == agrees
    assert np.sum(series.seen * 0.5) == pytest.approx(1, abs=0.01)


def test_too_few_entries_are_no_point_and_no_point_is_no_agreement():
    place = np.repeat([0, 2], [29, 30])
    found = Series.of_means("", place, (place, place, place))
    assert found.x.tolist() == [2]
    nothing = Series.of_means("", place[:10], (place[:10],) * 3)
    assert len(nothing.x) == 0 and not nothing.agrees


def test_none_of_many_has_an_error():
    place = np.zeros(50, np.int64)
    found = Series.of_means("", place, (place, place, place + 0.01))
    assert found.seen == 0 and found.error == pytest.approx(1 / 50) and found.agrees


def test_channels_over_threshold_are_those_of_an_even_charge():
    """1 + W (1 - 2 T / Q): either end is lost below the threshold T of the charge Q; diffusion rounds what is left."""
    layer, charge = LAYERS[1], np.full(3, 22_650.0)
    way = np.array([1.0, 1.5, 2.0])
    number, kept = along(layer, "u", 0.40 + way * layer.pitch_u / layer.thickness, charge, PIXEL)
    np.testing.assert_allclose(number, 1 + way * (1 - 2 * 3000 / charge), rtol=0.02)
    # What is lost is either end with the probability that it is so short, half a threshold on average.
    lost = 2 * (way * 3000 / charge) * 0.5 * 3000 / charge
    np.testing.assert_allclose(1 - kept.mean(axis=1), lost, atol=0.008)
    none, _ = along(layer, "u", np.array([0.40]), charge[:1], PIXEL)
    assert 1 < none < 1 + 2 * 2 * 7 * UM / layer.pitch_u


def test_landau_has_its_peak_and_its_width():
    """Most probable -0.22278 and full width at half maximum 4.018, in units of the scale."""
    at = np.arange(60.0, 140.0, 0.05)
    density = np.diff(landau_cdf(at))
    assert at[density.argmax()] == pytest.approx(79.5, abs=0.15)
    assert np.ptp(at[:-1][density > density.max() / 2]) == pytest.approx(5.0 * 4.018, abs=0.15)
