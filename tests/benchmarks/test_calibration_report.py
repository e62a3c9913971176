"""The report of all calibrations runs; and what it judges by finds what is wrong."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks._calibration_page import overview, section
from benchmarks._calibration_toys import (
    Found,
    Quantity,
    Result,
    Share,
    Subject,
    Toys,
    alike,
    in_family,
    independent,
    of_means,
    of_shares,
    width_of_all,
)
from benchmarks._ref10_claims import Limits
from benchmarks._subjects_beamspot import BEAM, DOZEN, drawn, flat, pair_errors
from benchmarks._toys_beamspot import UM
from benchmarks._toys_occupancy import found_dead, found_hot
from benchmarks.calibration_report import SUBJECTS, chosen, claims_of, toys_of
from calib.algorithms.beamspot_tracks import REACH

ROOT = Path(__file__).resolve().parents[2]


def test_it_runs(tmp_path: Path) -> None:
    output = tmp_path / "report.html"
    command = [sys.executable, str(ROOT / "benchmarks" / "calibration_report.py"), "--small", "--seed", "7"]
    done = subprocess.run([*command, "--output", str(output)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    assert told[0] == "seed 7"
    assert told[-2] == "few toys: nothing is judged"
    page = output.read_text(encoding="utf-8")
    assert page.count("<h2") == len(SUBJECTS)
    for name in SUBJECTS:
        assert re.search(rf"<h2[^>]*>{name}</h2>", page), name
    assert page.count("<img") >= len(SUBJECTS)
    assert "MISSED" not in page


def test_a_calibration_that_there_is_not_is_told() -> None:
    with pytest.raises(ValueError, match="begins with magnet, or: there are pedestal;"):
        chosen(["magnet", "or"])
    assert [subject.name for subject in chosen(["gain", "lo"])] == ["gain", "lorentz_angle"]


def test_toys_are_those_of_the_seed() -> None:
    one, same, other = (toys_of("gain", 30, seed, True).toys["smeared by 5 %"].off for seed in (1, 1, 2))
    assert one.tolist() == same.tolist() != other.tolist()


# What is judged. ------------------------------------------------------------------------------------------------------

QUANTITY = Quantity("x", "um", "tracks", "formula", "formula", judged_from=50)


def result(off: float = 0.0, spread: float = 1.0, claimed: float = 1.0, **more: float) -> Result:
    """A thousand toys of an RMS of 1 of which the bound and the expectation are 1, off by so much."""
    values = np.random.default_rng(3).standard_normal(1000)
    values = (values - values.mean()) / values.std()
    toys = Toys(100, off + spread * values, np.full(1000, claimed), 1.0, 1.0, **more)
    few = Toys(10, values * 9, np.ones(1000), 1.0, 1.0)
    subject = Subject("toy", "", {}, (QUANTITY,), (10, 100), (), lambda rng, size, small: Found())
    return Result(subject, (Found({"x": few}), Found({"x": toys})))


def missed(claims: list[Limits]) -> list[str]:
    return [
        claim.name.rsplit(", ", 1)[1] if "mean pulls" not in claim.name else "mean" for claim in claims if claim.missed
    ]


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({}, []),
        ({"spread": 1.2, "claimed": 1.2}, ["RMS"]),
        ({"spread": 0.8, "claimed": 0.8}, ["RMS"]),
        ({"claimed": 1.2}, ["width of pulls"]),
        ({"claimed": 0.85}, ["width of pulls"]),
        ({"off": 0.15}, ["mean"]),
        ({"off": 0.15, "correction_error": 0.1}, []),
        ({"off": 0.15, "of_mean": 0.01}, []),
    ],
)
def test_what_is_wrong_is_missed(wrong: dict[str, float], expected: list[str]) -> None:
    own, together = claims_of([result(**wrong)])
    assert len(own) == 2
    assert missed([*own, *together]) == expected


def test_the_page_says_what_is_missed() -> None:
    found = [result(spread=1.2, claimed=1.2)]
    page = overview(found, [of_means(found)], {"full chain": [Limits("", 2.0, 0.0, 0.0, 1.0)]}, judged=True)
    assert [row.count("MISSED") for row in page.split("</tr>")[1:4]] == [1, 1, 0]
    assert 'href="#full-chain"' in page
    assert section(result(spread=1.2, claimed=1.2)).count("MISSED") == 1
    assert "MISSED" not in section(found[0], judged=False) + overview(found, [], {}, judged=False)


def test_what_is_off_together_says_little() -> None:
    """Twenty toys of fifty values that share nine tenths of their variance: the spread of a hundred such RMS is the
    error that is told, by what values are worth; pulls along axes are all independent."""
    rng = np.random.default_rng(4)
    shared = 0.9 + 0.1 * np.eye(50)
    root = np.linalg.cholesky(shared)

    def together(**more: object) -> Toys:
        off = rng.standard_normal((20, 50)) @ root.T
        return Toys(1, off.ravel(), np.ones(1000), 1.0, 1.0, **more)  # type: ignore[arg-type]

    alone = 20 * independent(shared)
    assert alone == pytest.approx(20 / (0.81 + 0.19 / 50), rel=1e-9)
    seen, told = np.array([together(alone=alone).rms for _ in range(100)]).T
    assert seen.std() == pytest.approx(told.mean(), rel=0.25)
    assert seen.std() > 4 * together().rms[1]
    pulls = rng.standard_normal(1000)
    toys = together(alone=alone, of_mean=0.045, along_axes=pulls)
    assert toys.width == width_of_all([toys]) == pytest.approx((pulls.std(), 1 / np.sqrt(2000)), rel=0.1)
    assert toys.sigmas == pytest.approx(pulls.mean() * np.sqrt(1000))
    assert width_of_all([toys, together(alone=alone)])[1] > 3 * toys.width[1]


def test_the_largest_of_many_means_may_be_larger() -> None:
    alone, among = (of_means([result(off=0.12), *[result()] * more]).seen for more in (0, 30))
    assert among > 20 * alone
    assert in_family([0.5]) == pytest.approx(0.5)
    assert in_family([1e-20] * 3) == pytest.approx(3e-20)


def test_flags_that_are_not_as_predicted_are_missed() -> None:
    def of(found: int, predicted: float) -> bool:
        subject = Subject("toy", "", {}, (), (1,), (), lambda rng, size, small: Found())
        return of_shares([Result(subject, (Found(shares=[Share("hot: x", 1, found, 1000, predicted)]),))]).missed

    assert [of(960, 0.96), of(930, 0.96), of(0, 1e-7), of(3, 1e-7), of(1000, 1.0), of(990, 1.0)] == [
        False,
        True,
        False,
        True,
        False,
        True,
    ]


def test_errors_that_go_with_their_values_are_taken_alike() -> None:
    assert alike(np.array([3.0, 4.0, 5.0])).tolist() == [np.sqrt(50 / 3)] * 3


def test_coverage_and_bias() -> None:
    toys = Toys(1, np.array([0.5, -0.5, 1.5, 2.5]), np.ones(4), 1.0, 1.0, correction_error=3.0)
    assert toys.coverage[0] == 0.5
    mean, error = toys.bias(toys.off)
    assert mean == 1.0
    assert error == pytest.approx(np.hypot(toys.off.std() / 2, 3.0))
    assert toys.rms[0] == pytest.approx(np.sqrt(9 / 4))


def test_predictions_of_flags_are_those_of_the_physics_note() -> None:
    """3.1 and 10: ten times hot at a mean of 2, 96 %; 4e-7 false; dead from 16.1 hits on."""
    assert found_hot(2.0, 10.0, 128, 1e-7) == pytest.approx(0.961, abs=0.005)
    assert 1e-8 < found_hot(2.0, 1.0, 128, 1e-7) < 1e-6
    assert found_dead(15.0, 128, 1e-7) < 0.01
    assert found_dead(17.5, 128, 1e-7) > 0.99


def test_what_pairs_are_expected_to_do_is_what_they_do() -> None:
    """Weighted least squares over all pairs of tracks of a vertex, written out, for 500 samples of 60 vertices."""
    samples, size, n = 500, 60, DOZEN.tracks
    columns = drawn(np.random.default_rng(6), 1, samples * size, DOZEN)
    names = ("d0", "phi", "d0_error", "z0")
    d0, phi, error, z0 = (flat(columns, f"track_{name}").reshape(-1, n) for name in names)
    lever, beam = z0 - BEAM.z, BEAM.width**2
    d0 = d0 - np.sin(phi) * (BEAM.x + BEAM.dxdz * lever) + np.cos(phi) * (BEAM.y + BEAM.dydz * lever)
    weight = (np.abs(d0) < REACH * np.hypot(error, BEAM.width)) / (error**2 + beam)
    of_vertex = (1 + beam * weight.sum(axis=1) / 2) ** -2
    one, other = np.triu_indices(n, 1)
    s1, s2, c1, c2 = (wave(phi[:, place]) for wave in (np.sin, np.cos) for place in (one, other))
    rows = np.stack([s1 * s2, c1 * c2, -(s1 * c2 + c1 * s2)], axis=-1)
    scaled = rows * (weight[:, one] * weight[:, other] * of_vertex[:, None])[..., None]
    normal = np.einsum("npk,npl->nkl", scaled, rows).reshape(samples, size, 3, 3).sum(axis=1)
    right = np.einsum("npk,np->nk", scaled, d0[:, one] * d0[:, other]).reshape(samples, size, 3).sum(axis=1)
    found = np.linalg.solve(normal, right[..., None])[..., 0] / UM**2
    seen = [np.sqrt(found[:, :2].var(axis=0).mean()), found[:, 2].std()]
    assert pair_errors(columns, size) == pytest.approx(seen, rel=0.1)
