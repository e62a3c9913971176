"""Figures of tracking and of wrong conditions: both benchmarks run, what is missed is told, predictions are right."""

import math

import numpy as np
import pytest

from benchmarks._ref10_beliefs import Curl, HalfBarrels, Ladders
from benchmarks._ref10_claims import Damage, Limits, about, verdict
from benchmarks._ref10_damaged import curl_by_bin, paired, spread_of
from benchmarks._ref10_formulas import UM, beyond, fit, momentum_error, width_of_mixture
from benchmarks._ref10_played import Sample, as_it_is, played, tables, width
from benchmarks.ref10_tracking import recognized
from pipeline.experiments.ref10.alignment import KIND as ALIGNMENT
from pipeline.experiments.ref10.alignment import frames
from pipeline.experiments.ref10.geometry import geometry_of, mini_geometry
from pipeline.experiments.ref10.reconstruct.candidates import Candidates
from pipeline.experiments.ref10.simulate.scenario import Scenario, truth
from tests.benchmarks.test_benchmarks_run import run

PLAN = geometry_of(mini_geometry())
TRUTH = truth(Scenario(), PLAN, 5, 1, 1)


def test_tracking_runs() -> None:
    told = run("ref10_tracking.py", "--small", "--seed", "5", "--no-speed").splitlines()
    assert told[0] == "seed 5"
    assert any(line.startswith("pT 20 GeV, sigma of d0") for line in told)
    assert told[-1] == "too few events of a part of the detector: nothing is judged"


@pytest.mark.verify
def test_costs_of_tracking_are_told() -> None:
    told = run("ref10_tracking.py", "--small", "--seed", "5", "--pile-up", "1", "3").splitlines()
    assert told[-1].endswith("nothing is judged")
    assert any(line.startswith("Pile-up 1 to 3: ") for line in told)


def test_damage_runs() -> None:
    told = run("ref10_damage.py", "--small", "--seed", "7").splitlines()
    assert told[0] == "seed 7"
    conditions = {line.split(": ")[0] for line in told[2:-1]}
    assert len(conditions) == 13, conditions
    assert told[-1].endswith("nothing is judged")


@pytest.mark.parametrize(
    ("pt", "d0", "momentum"),
    [
        (0.5, 106, 0.63),
        (1, 55, 0.63),
        (2, 31, 0.64),
        (5, 17.7, 0.67),
        (10, 13.3, 0.71),
        (20, 11.0, 0.85),
        (45, 10.1, 1.36),
    ],
)
def test_the_formula_has_the_figures_of_the_physics_note(pt, d0, momentum):
    """9.1."""
    assert fit(pt).d0 / UM == pytest.approx(d0, rel=0.01)
    assert 100 * momentum_error(pt, 3.8) == pytest.approx(momentum, rel=0.01)


def test_a_fit_follows_what_is_a_track():
    """Hits that all move along a circle move the parameters of it and no others."""
    radii = np.array([3, 7, 11, 16, 25, 34, 43, 52, 61, 70.0])
    for row, shape in enumerate((radii**0, radii, radii**2 / 2)):
        np.testing.assert_allclose(fit(20.0).gain @ shape, np.eye(3)[row], atol=1e-9)


def test_mixtures():
    assert width_of_mixture(np.zeros(3), 2.0) == pytest.approx(2.0, rel=1e-3)
    assert width_of_mixture(np.array([-50.0, 50.0]), 1.0) == pytest.approx(50.5, abs=0.5)
    assert beyond(np.zeros(1), 1.0, 3.0) == pytest.approx(0.0027, rel=1e-2)


@pytest.mark.parametrize(("seen", "missed"), [(0.98, False), (0.96, True), (math.nan, True)])
def test_limits(seen, missed):
    claim = Limits("found", seen, 0.01, low=0.97)
    assert claim.missed == missed
    assert claim.row()[-1] == ("MISSED" if missed else "")
    assert verdict([claim])[1] == missed
    assert verdict([claim], judged=False)[1] == 0


def test_nothing_judged_is_not_nothing_missed():
    assert verdict([Limits("shown", math.nan, 0.0)]) == ("MISSED: 0 of 0", 1)
    assert not about("width", (12.9, 0.1), 10.0, 0.3).missed
    assert about("width", (13.1, 0.1), 10.0, 0.3).missed


@pytest.mark.parametrize(
    ("seen", "note", "formula", "missed"),
    [
        ((12.0, 0.1), 10.0, 11.5, False),
        ((14.0, 0.1), 10.0, None, True),
        ((14.0, 0.4), 10.0, None, False),
        ((12.0, 0.1), 10.0, 20.0, True),
        ((math.nan, 0.1), 10.0, None, True),
        ((99.0, 0.1), None, None, False),
    ],
)
def test_damages(seen, note, formula, missed):
    assert Damage("wrong", "width", "um", seen, note, formula, 0.1).missed == missed


def test_half_barrels_are_believed_off_by_what_is_said():
    belief = HalfBarrels(2.0)
    before, after = (frames(PLAN, change(TRUTH)[ALIGNMENT]) for change in (as_it_is, belief))
    wanted = np.where(PLAN.pixel, belief.shift(PLAN.phi), 0.0)
    np.testing.assert_allclose((after.centre - before.centre)[:, :2].T, wanted, atol=1e-9)


def test_ladders_move_as_drawn():
    moved = Ladders(20.0, 0.0, 3)(TRUTH)[ALIGNMENT]["ladder"] - TRUTH[ALIGNMENT]["ladder"]
    pixels = np.unique(PLAN.ladder_row[PLAN.pixel])
    assert moved[pixels, :3].std() / UM == pytest.approx(20.0, rel=0.3)
    assert not np.delete(moved, pixels, axis=0).any() and not moved[:, 3:].any()


def test_a_curl_turns_every_layer_by_its_radius():
    before, after = (frames(PLAN, change(TRUTH)[ALIGNMENT]) for change in (as_it_is, Curl(50.0)))
    moved = np.hypot(*(after.centre - before.centre)[:, :2].T) / UM
    np.testing.assert_allclose(moved, 50 * (PLAN.radius / 70) ** 2, rtol=0.01)
    assert Curl(-50.0).curvature == pytest.approx(2.04e-6, rel=1e-2)


def test_a_curl_is_found_in_masses():
    rng = np.random.default_rng(1)
    pairs = {f"eta_{sign}": rng.uniform(-1, 1, 2000) for sign in ("plus", "minus")}
    pairs |= {f"phi_vertex_{sign}": rng.uniform(-np.pi, np.pi, 2000) for sign in ("plus", "minus")}
    pairs |= {f"pt_{sign}": rng.uniform(20, 60, 2000) for sign in ("plus", "minus")}
    change = -1.8e-4 / 2 * (pairs["pt_plus"] - pairs["pt_minus"])
    found, errors = curl_by_bin(pairs, change, np.full(2000, 0.01))
    np.testing.assert_allclose(found, 1.8, rtol=1e-6)
    assert len(found) == 12 and (errors > 0).all()


def test_rows_are_paired_by_their_keys():
    one, other = ({"key": np.array(keys), "x": np.array(keys) * 10.0} for keys in ([3, 1, 2], [2, 5, 3]))
    left, right = paired(one, other)
    assert left["key"].tolist() == right["key"].tolist() == [2, 3]


def test_draws_are_told_apart():
    value, error = spread_of([(3.0, 0.1), (4.0, 0.1)])
    assert value == pytest.approx(math.sqrt(12.5)) and error == pytest.approx(0.5)
    assert np.isnan(width(np.zeros(0))[0])


def test_tracks_of_mixed_hits_are_fakes_and_lost_ones_are_missed():
    sample = Sample(11, 30, Scenario(), geometry="mini")
    made = sample.made(np.arange(1, 31))
    one = played(made.raw, sample.truth)
    assert not any(claim.missed for claim in recognized("", tables(made, sample.truth, one)))
    hit = one.found.hit.copy()
    hit[::2] = -1
    hit[::2, :3] = np.roll(one.found.hit, 1, axis=0)[::2, :3]
    hit[::2, 3:] = one.found.hit[::2, 3:]
    hit[::2, 3:5] = -1
    spoiled = type(one)(
        one.clusters, Candidates(one.found.counts, hit, one.found.flags), one.tracks, one.vertices, one.both
    )
    missed = [claim.name for claim in recognized("", tables(made, sample.truth, spoiled)) if claim.missed]
    assert len(missed) == 2, missed
