"""Alignment: derivatives, elimination, sums, solution, weak modes and what is said of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import reduce
from itertools import pairwise
from typing import Any

import awkward as ak
import numpy as np
import pytest

from benchmarks._toys_alignment import LADDERS, LEVELS, Play, played
from calib.algorithms.alignment import Alignment
from calib.algorithms.alignment_equations import Totals, by_class
from calib.algorithms.alignment_geometry import DEFORMATIONS, deformed, direction, slopes
from calib.algorithms.alignment_payload import Flag, nominal, weak_modes
from calib.algorithms.alignment_structures import TO_UM, Structures
from calib.algorithms.alignment_sums import SLOPE, most_chi2
from calib.calibration import Columns, NotConverged, NotEnoughData
from calib.channel_sums import ChannelSums, PartOfAPool
from calib.form import misfits
from calib.gates import Decision, MinEntries, Moves, judge
from calib.iteration import Ending, ended
from calib.payload import Payload
from calib.state import State
from calib.testing import CalibrationLaws, take
from pipeline.settings import SettingsError, apply_calibration_settings

STRUCTURES = sum(count for _, count in LEVELS)
DRAWN = nominal(dict(LEVELS))
HALVES = ("half_barrel 0-1: x y z",)
STEREO = Play(1000, stereo=0.1)


def alignment(free: tuple[str, ...] = HALVES, **settings: Any) -> Alignment:
    return Alignment(levels=LEVELS, free=free, **{"min_records": 100, "min_entries": 10, **settings})


def moved_halves(scale: float = 1.0) -> np.ndarray:
    truth = np.zeros((STRUCTURES, 6))
    truth[:2, :3] = scale * np.array([(50, -30, 40), (-20, 60, -80)])
    return truth


def displaced(values: np.ndarray) -> Payload:
    """An alignment of values [structures, 6] in um and urad."""
    first = np.cumsum([0, *(count for _, count in LEVELS)])
    arrays = {name: values[low:high] / TO_UM for (name, _), low, high in zip(LEVELS, first, first[1:], strict=False)}
    return Payload("alignment", arrays, dict.fromkeys(arrays, "cm, rad"))


def aligned(calibration: Alignment, columns: Columns, under: Payload = DRAWN) -> Payload:
    return calibration.finalize(calibration.accumulate(columns, {"alignment": under}), under)


def of_halves(payload: Payload) -> tuple[np.ndarray, np.ndarray]:
    """Shifts of the pixels' half barrels and their errors, [2, 3] in um."""
    return payload["half_barrel"][:2, :3] * 1e4, payload["half_barrel_error"][:2, :3] * 1e4


class TestLaws(CalibrationLaws):
    @pytest.fixture
    def calibration(self) -> Alignment:
        return alignment(("half_barrel 0-1: x y", "ladder 0-11: x rz"), min_records=40, min_entries=3, weak_error=1e3)

    @pytest.fixture
    def columns(self) -> Columns:
        columns = played(5, Play(90, missing=0.01), moved_halves())
        events = len(columns["event"])
        run = 1 + np.arange(events) * 2 // events
        # The last event has no record, and a unit of its own.
        last = {
            name: values[:1] if name in ("run", "lumi", "event") else values[:1, :0] for name, values in columns.items()
        }
        joined = {name: ak.concatenate([columns[name], values]) for name, values in last.items()}
        joined |= {"run": np.append(run, 3), "event": np.arange(events + 1), "lumi": 7 + np.arange(events + 1) % 2}
        return joined

    @pytest.fixture
    def conditions(self) -> Mapping[str, Payload]:
        return {"alignment": DRAWN}


class TestLawsOfRunsOfManyUnits:
    def test_of_a_pool_a_part_cannot_be_had(self) -> None:
        calibration, columns = alignment(pools=2), played(6, Play(200))
        state = calibration.accumulate(columns, {"alignment": DRAWN})
        assert state.units().tolist() == [1 << 32 | lumi for lumi in (1, 2, 3, 4)]
        with pytest.raises(PartOfAPool):
            state.select(state.units()[:2])
        assert state.together(state.units()[:1]).tolist() == state.units()[:3].tolist()

    def test_parts_of_a_run_add_up(self) -> None:
        calibration, columns = alignment(("module: all",)), played(6, Play(150))
        whole = calibration.accumulate(columns, {"alignment": DRAWN})
        parts = [take(columns, columns["lumi"] == lumi) for lumi in (1, 2, 3, 4)]
        joined = calibration.empty()
        for part in reversed(parts):
            joined = calibration.merge(calibration.accumulate(part, {"alignment": DRAWN}), joined)
        assert joined.same(whole)


def turned(omega: np.ndarray) -> np.ndarray:
    """The rotation by a rotation vector (Rodrigues)."""
    angle = np.linalg.norm(omega)
    x, y, z = omega / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def test_derivatives_are_those_of_displaced_planes() -> None:
    rng = np.random.default_rng(11)
    for _ in range(2000):
        u, v, w = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        track = rng.normal(size=3)
        track *= 1 / np.linalg.norm(track)
        if abs(w @ track) < 0.2:
            continue
        point, centre = rng.normal(0, 10, 3), rng.normal(0, 10, 3)
        shift, omega = rng.normal(0, 1e-4, 3), rng.normal(0, 1e-5, 3)
        middle = point + 3 * (rng.normal() * u + rng.normal() * v)
        # Where the sensor really is, and where the track crosses it; measured along its own axes.
        matrix = turned(omega)
        there, along, normal = centre + shift + matrix @ (middle - centre), matrix @ u, matrix @ w
        hit = point + track * (normal @ (there - point)) / (normal @ track)
        residual = along @ (hit - there) - u @ (point - middle)
        told = slopes(direction(u, w, track), point - centre) @ np.concatenate([shift, omega])
        size = np.linalg.norm(np.concatenate([shift, omega * np.linalg.norm(point - centre)]))
        assert abs(residual - told) < 5e-4 * size / (w @ track) ** 2


def test_slopes_in_own_axes_are_those_of_displacements_along_them() -> None:
    rng = np.random.default_rng(12)
    axes = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    q, arm, own = rng.normal(size=3), rng.normal(size=3), rng.normal(size=6)
    inside = slopes(axes @ q, axes @ arm) @ own * np.linalg.det(axes) ** np.array(0)
    whole = np.concatenate([own[:3] @ axes, own[3:] @ axes * np.linalg.det(axes)])
    assert inside == pytest.approx(slopes(q, arm) @ whole)


def test_deformations_move_measurements_as_displacements_do() -> None:
    rng = np.random.default_rng(13)
    q, points = rng.normal(size=(50, 3)), rng.normal(0, 10, (50, 3))
    found = dict(zip(DEFORMATIONS, deformed(q, points).T, strict=True))
    rigid = slopes(q, points) / [1, 1, 1, 10, 10, 10]
    names = [f"common {axis}" for axis in "xyz"] + [f"common rotation about {axis}" for axis in "xyz"]
    for name, expected in zip(names, rigid.T, strict=True):
        assert found[name] == pytest.approx(expected)
    r = np.hypot(*points.T[:2])
    out = points / r[:, None] * [1, 1, 0]
    around = np.cross([0, 0, 1.0], out)
    phi = np.arctan2(points[:, 1], points[:, 0])
    fields = {
        "radial expansion": out * r[:, None] / 10,
        "elliptical expansion, along x": out * (r / 10 * np.cos(2 * phi))[:, None],
        "elliptical expansion, along x = y": out * (r / 10 * np.sin(2 * phi))[:, None],
        "bowing": out * (points[:, 2:] / 10) ** 2,
        "curl": around * (r[:, None] / 10) ** 2,
        "twist": around * (r * points[:, 2] / 100)[:, None],
        "clamshell, about x": around * np.cos(phi)[:, None],
        "clamshell, about y": around * np.sin(phi)[:, None],
        "z expansion": points * [0, 0, 0.1],
        "telescope": r[:, None] * [0, 0, 0.1],
        "skew, along x": np.cos(phi)[:, None] * [0, 0, 1.0],
        "skew, along y": np.sin(phi)[:, None] * [0, 0, 1.0],
        "shear, along x": (r[:, None] / 10) * [1.0, 0, 0],
        "shear, along y": (r[:, None] / 10) * [0, 1.0, 0],
        "sagitta, along x": (r[:, None] / 10) ** 2 * [1.0, 0, 0],
        "sagitta, along y": (r[:, None] / 10) ** 2 * [0, 1.0, 0],
    }
    assert fields.keys() | set(names) == DEFORMATIONS.keys()
    for name, field in fields.items():
        assert found[name] == pytest.approx(-np.sum(q * field, axis=1)), name


def one_by_one(columns: Columns) -> Any:
    """Records in a loop, in cm and rad: residuals, derivatives, covariance, labels, slopes."""
    for event in range(len(columns["event"])):
        of = {name: columns[f"alignment_{name}"][event].to_list() for name in ("measurements", "parameters")}
        flat = {
            name: np.array(columns[f"alignment_{name}"][event].to_list(), float)
            for name in ("residuals", "derivatives", "covariance", "labels", "slopes")
        }
        for m, k in zip(of["measurements"], of["parameters"], strict=True):
            size = {
                "residuals": m,
                "derivatives": m * k,
                "covariance": m * (m + 1) // 2,
                "labels": 3 * m,
                "slopes": 18 * m,
            }
            part = {name: values[: size[name]] for name, values in flat.items()}
            flat = {name: values[size[name] :] for name, values in flat.items()}
            covariance = np.zeros((m, m))
            covariance[np.tril_indices(m)] = part["covariance"]
            covariance = np.where(np.tri(m) > 0, covariance, covariance.T)
            labels, given = part["labels"].reshape(m, 3).astype(int), part["slopes"].reshape(m, 3, 6)
            yield part["residuals"], part["derivatives"].reshape(m, k), covariance, labels, given


def local_slopes(structures: Structures, labels: np.ndarray, given: np.ndarray) -> np.ndarray:
    """G over all numbers of all structures, [m, structures * 6], in cm a um and urad."""
    g = np.zeros((len(labels), len(structures), 6))
    for row, of in enumerate(labels.tolist()):
        for level, label in enumerate(of):
            number = structures.first[level] + label
            if label >= 0:
                g[row, number] = np.where(structures.is_free[number], given[row, level], 0.0) / TO_UM
    return g.reshape(len(labels), -1)


def naive(calibration: Alignment, columns: Columns) -> dict[str, Any]:
    """Matrix, right-hand side and chi2 as the physics note, 5.4, writes them; in um and urad, without any cut."""
    structures, size = calibration.structures, 6 * len(calibration.structures)
    free = np.flatnonzero(structures.is_free.reshape(-1))
    found: dict[str, Any] = {
        "matrix": np.zeros((len(free), len(free))),
        "right": np.zeros(len(free)),
        "chi2": 0.0,
        "n": 0,
    }
    for r, a, v, labels, given in one_by_one(columns):
        g = local_slopes(structures, labels, given)[:, free]
        w = np.linalg.inv(v)
        p = w - w @ a @ np.linalg.inv(a.T @ w @ a) @ a.T @ w
        if not np.any(g):
            continue
        found["matrix"] += g.T @ p @ g
        found["right"] += g.T @ p @ r
        found["chi2"] += r @ p @ r
        found["n"] += 1
    assert size
    return found


FREE = ("half_barrel 0-1: x y z rz", "ladder 0-11: x rz", "module 0-40: y")


def test_sums_are_those_of_a_loop() -> None:
    calibration = alignment(FREE, cuts=(1e9,))
    columns = played(21, Play(25, stereo=0.1, missing=0.2), moved_halves())
    state = calibration.accumulate(columns, {"alignment": DRAWN})
    expected = naive(calibration, columns)
    structures = calibration.structures
    totals = Totals.of(state, structures, 1)
    system = totals.system(structures, structures.values(DRAWN), structures.is_free)
    # Slopes are rounded, to half a step at the most, of 1 for a shift: by so much of what goes in each sum is off.
    scale = np.sqrt(np.diag(expected["matrix"]))
    assert np.abs(system.matrix - expected["matrix"]).max() < SLOPE * scale.max() ** 2
    assert np.abs(system.right - expected["right"]).max() < SLOPE * scale.max() * np.sqrt(expected["chi2"])
    counted = by_class(state, 1)
    assert counted["records"].tolist() == [expected["n"], 0, 0]
    assert counted["chi2"][0] * 2.0**-20 == pytest.approx(expected["chi2"], abs=1e-3)


def test_elimination_is_the_solution_with_the_parameters_of_all_tracks() -> None:
    calibration = alignment(
        ("half_barrel 0-1: x y", "ladder 0-11: z"), cuts=(1e9,), min_records=1, min_entries=1, weak_error=1e6
    )
    columns = played(22, Play(60, stereo=0.1), moved_halves())
    payload = aligned(calibration, columns)
    structures = calibration.structures
    free = np.flatnonzero(structures.is_free.reshape(-1))
    seen = [
        (r, a, np.linalg.inv(v), local_slopes(structures, labels, given)[:, free])
        for r, a, v, labels, given in one_by_one(columns)
    ]
    size = len(free) + 5 * len(seen)
    matrix, right = np.zeros((size, size)), np.zeros(size)
    own_scale = np.array([1e-6, 1e-4, 1e-3, 1e-3, 1e-4])
    for number, (r, a, w, g) in enumerate(seen):
        own = slice(len(free) + 5 * number, len(free) + 5 * number + 5)
        a = a * own_scale
        matrix[: len(free), : len(free)] += g.T @ w @ g
        matrix[own, own] = a.T @ w @ a
        matrix[: len(free), own] = g.T @ w @ a
        matrix[own, : len(free)] = matrix[: len(free), own].T
        right[: len(free)] += g.T @ w @ r
        right[own] = a.T @ w @ r
    whole = np.linalg.solve(matrix, right)[: len(free)]
    errors = np.sqrt(np.diag(np.linalg.inv(matrix)))[: len(free)]
    found = structures.values(payload).reshape(-1)[free]
    assert np.abs(found - whole).max() < 1e-4 * errors.min()
    assert structures.errors(payload).reshape(-1)[free] == pytest.approx(errors, rel=1e-5)


def iterated(calibration: Alignment, seed: int, play: Play, truth: np.ndarray, passes: int = 3) -> Payload:
    """Passes over the same tracks, each under the alignment of the one before."""
    structures, under = calibration.structures, DRAWN
    for _ in range(passes):
        columns = played(seed, play, truth - structures.values(under))
        under = aligned(calibration, columns, under)
    return under


def test_half_barrels_are_found_as_well_as_the_tracks_tell() -> None:
    truth, pulls, errors = moved_halves(), [], []
    for seed in range(10):
        shift, error = of_halves(iterated(alignment(), 100 + seed, Play(600, stereo=0.1), truth, 2))
        pulls.append((shift - truth[:2, :3]) / error)
        errors.append(error)
    # Physics note, 10: 70-90 um / sqrt(N) in x and y.
    assert 60 < np.sqrt(600) * np.mean(errors, axis=0)[:, :2].mean() < 95
    # 60 pulls: 4 sigma of the width is 0.37, of a mean of 10 is 1.26.
    assert np.abs(np.mean(pulls, axis=0)).max() < 1.26
    assert 0.63 < np.std(pulls) < 1.37


def test_a_detector_far_out_of_place_needs_the_widest_cut_once() -> None:
    truth, calibration = moved_halves(3.0), alignment()
    first = aligned(calibration, played(31, STEREO, truth))
    second = iterated(calibration, 31, STEREO, truth, 2)
    third = iterated(calibration, 31, STEREO, truth, 3)
    assert [float(payload["cut"]) for payload in (first, second, third)] == [30.0, 1.0, 1.0]
    steps = [calibration.moved(*pair) for pair in ((first, DRAWN), (second, first), (third, second))]
    # The toy is linear: the second pass moves by what the cut takes away, the third by rounding alone.
    assert steps[0] > 100 > 1 > steps[1] > 1e-3 > steps[2]
    assert ended(steps[:1], 10) is None and ended(steps[:2], 10) is Ending.CONVERGED


def test_payload_is_about_no_displacement_whatever_the_tracks_were_fitted_under() -> None:
    calibration, truth = alignment(cuts=(30.0,)), moved_halves()
    halfway = displaced(0.5 * truth)
    columns = {"far": played(41, STEREO, truth), "near": played(41, STEREO, 0.5 * truth)}
    states = {
        name: calibration.accumulate(columns[name], {"alignment": under})
        for name, under in (("far", DRAWN), ("near", halfway))
    }
    found = [of_halves(calibration.finalize(state, under)) for state in states.values() for under in (DRAWN, halfway)]
    for shift, error in found[1:]:
        assert np.abs(shift - found[0][0]).max() < 1e-4
        assert error == pytest.approx(found[0][1], rel=1e-6)
    # One run, half of it processed under each.
    near = take(columns["near"], columns["near"]["lumi"] > 2)
    both = calibration.accumulate(take(columns["far"], columns["far"]["lumi"] <= 2), {"alignment": DRAWN})
    both = both.merge(calibration.accumulate(near, {"alignment": halfway}))
    assert of_halves(calibration.finalize(both, DRAWN))[0] == pytest.approx(found[0][0], abs=1e-4)


def test_what_stays_must_be_where_it_was() -> None:
    calibration = alignment()
    other = moved_halves()
    other[3] = 5.0
    state = calibration.accumulate(played(42, STEREO), {"alignment": DRAWN})
    with pytest.raises(NotConverged, match="elsewhere"):
        calibration.finalize(state, displaced(other))
    kept = calibration.finalize(
        calibration.accumulate(played(42, STEREO), {"alignment": displaced(other)}), displaced(other)
    )
    assert kept["half_barrel"][3] == pytest.approx(np.full(6, 5.0) / TO_UM)


def test_a_common_shift_along_z_is_named_and_fixed() -> None:
    truth = moved_halves()
    upright = replace(STEREO, stereo=0.0)
    calibration = alignment()
    payload = iterated(calibration, 51, upright, truth)
    assert payload["weak_deformation"].tolist() == [2]
    assert payload["weak_overlap"][0] > 0.99
    (words,) = weak_modes(payload, calibration.structures)
    assert (
        words.startswith("common z (100% of it): tracks do not tell it to better than") and "half_barrel 1 z" in words
    )
    # Fixed: what they do in common is 0; what they do apart is measured.
    shift, error = of_halves(payload)
    assert abs(shift[:, 2].sum()) < 5.0
    assert abs(shift[0, 2] - shift[1, 2] - 120) < 4 * 2 * error[0, 2]
    assert payload["half_barrel_flags"][:2].tolist() == [[0, 0, Flag.WEAK, *[Flag.STAYS] * 3]] * 2
    assert np.isnan(payload["half_barrel_error"][:2, 3:]).all()


def test_strips_that_lean_tell_the_common_shift() -> None:
    payload = iterated(alignment(), 51, STEREO, moved_halves())
    shift, error = of_halves(payload)
    assert len(payload["weak_deformation"]) == 0
    assert np.abs((shift - moved_halves()[:2, :3]) / error).max() < 4


def test_a_mode_that_is_left_free_runs_where_it_likes() -> None:
    """The reason to fix it: with the limit taken off, the same tracks put the pixels hundreds of um off."""
    hardly = replace(STEREO, stereo=1e-3)
    free = iterated(alignment(weak_error=1e9), 52, hardly, moved_halves())
    fixed = iterated(alignment(), 52, hardly, moved_halves())
    assert of_halves(free)[1][0, 2] > 100
    assert abs(of_halves(fixed)[0][:, 2].sum()) < 5.0


def test_everything_free_has_the_modes_of_everything() -> None:
    calibration = alignment(("half_barrel: all",))
    payload = aligned(calibration, played(53, Play(2000, stereo=0.0)))
    names = {list(DEFORMATIONS)[place] for place in payload["weak_deformation"]}
    assert {f"common {axis}" for axis in "xyz"} | {f"common rotation about {axis}" for axis in "xyz"} == names
    # Strips alone do not know z.
    assert (payload["half_barrel_flags"][2:, 2] == Flag.UNSEEN).all()


def test_ladders_do_not_go_along_with_their_half_barrel() -> None:
    calibration = alignment(("half_barrel 0-1: x y", "ladder 0-101: x y"), min_entries=5)
    truth = moved_halves() * [1, 1, 0, 0, 0, 0]
    payload = iterated(calibration, 54, Play(900, stereo=0.1), truth, 2)
    alone = iterated(alignment(("half_barrel 0-1: x y",)), 54, Play(900, stereo=0.1), truth, 2)
    shift = payload["half_barrel"][:2, :2] * 1e4
    error = alone["half_barrel_error"][:2, :2] * 1e4
    assert len(payload["weak_deformation"]) == 0
    assert np.abs(shift - alone["half_barrel"][:2, :2] * 1e4).max() < 8 * error.max()
    assert np.abs((payload["ladder"][:102, :2] * 1e4).mean(axis=0)).max() < 3.0


@pytest.mark.verify
def test_a_survey_holds_what_tracks_do_not_tell_and_nothing_else() -> None:
    """Ladders of strips too: whole sectors can then bend as tracks do, and without a survey they run."""
    free = ("half_barrel 0-1: x y", "ladder: x y")
    rng = np.random.default_rng(56)
    truth = moved_halves() * [1, 1, 0, 0, 0, 0]
    ladders = slice(4, 4 + 288)
    size = np.repeat([20.0, 50.0], [102, 186])[:, None]
    truth[ladders, :2] = size * rng.standard_normal((288, 2))
    survey = ("half_barrel: x y 100", "ladder 0-101: x y 20", "ladder 102-287: x y 50")
    off = {}
    for given in ((), survey):
        payload = iterated(alignment(free, min_entries=5, survey=given), 57, Play(700, stereo=0.1), truth, 1)
        off[given] = np.abs(payload["ladder"][:, :2] * 1e4 - truth[ladders, :2]).mean()
    assert off[survey] < 0.8 * size.mean() * np.sqrt(2 / np.pi) < off[()]


def test_a_survey_that_knows_all_or_nothing() -> None:
    columns = {stereo: played(58, Play(600, stereo=stereo), moved_halves()) for stereo in (0.1, 0.0)}

    def found(stereo: float, *survey: str) -> tuple[np.ndarray, np.ndarray]:
        return of_halves(aligned(alignment(survey=survey), columns[stereo]))

    surveys = (["half_barrel: all 0.001"], ["half_barrel: all 1000000"], [])
    exact, vague, none = (found(0.1, *survey)[0] for survey in surveys)
    assert np.abs(exact).max() < 0.01
    assert np.abs(vague - none).max() < 1e-3 * np.abs(none).max()
    # What tracks do not tell is wherever the survey lets it be, and has an error that says so.
    shift, error = found(0.0, "half_barrel: all 1000")
    assert error[:, 2] == pytest.approx(1000 / np.sqrt(2), rel=0.05)
    assert np.abs(shift[:, 2] - moved_halves()[:2, 2]).max() < 4 * error[0, 2]


def test_errors_that_a_survey_gives_have_all_in_them_that_tracks_leave_open() -> None:
    """What half barrels and their ladders share out between them, how strips that lean take a turn for a shift along z,
    and what whole sectors do that tracks follow: each found value is off by its error."""
    rng = np.random.default_rng(60)
    pixels, strips = (f"ladder {first}-{last}: x y z" for first, last in ((0, 101), (102, 287)))
    survey = ("half_barrel: x y z 100", f"{pixels} 20", f"{strips} 50")
    calibration = alignment(("half_barrel 0-1: x y z", pixels, strips), min_entries=5, cuts=(1e9,), survey=survey)
    size = calibration.structures.within(survey)
    moving = calibration.structures.is_free
    pulls = []
    for seed in (61, 62):
        truth = np.where(moving, size * rng.standard_normal(moving.shape), 0.0)
        payload = aligned(calibration, played(seed, Play(500, stereo=0.1), truth))
        pulls.append((calibration.structures.values(payload) - truth) / calibration.structures.errors(payload))
    every = np.array(pulls)[:, :, :3]
    assert np.abs(every[:, :2]).max() < 3.5
    ladders = every[:, 4 : 4 + 288]
    known = np.isfinite(ladders)
    # Of strips that do not lean, z stays.
    assert known[:, : LADDERS[:5].sum()].all() and not known[:, LADDERS[:7].sum() :, 2].all()
    first = np.cumsum([0, *LADDERS])
    for low, high in pairwise(first):
        pull = ladders[:, low:high][known[:, low:high]]
        # 48 values or more, of the numbers that tracks hardly tell a few.
        assert 0.7 < np.sqrt((pull**2).mean()) < 1.3
    assert 0.9 < np.sqrt((ladders[known] ** 2).mean()) < 1.1


def test_statistical_errors_are_what_other_tracks_change() -> None:
    rng = np.random.default_rng(63)
    free = ("half_barrel 0-1: x y z", "ladder 0-31: x y z")
    calibration = alignment(free, min_entries=5, cuts=(1e9,), survey=tuple(f"{which} 20" for which in free))
    structures = calibration.structures
    truth = np.where(structures.is_free, 20 * rng.standard_normal(structures.is_free.shape), 0.0)
    every = [aligned(calibration, played(seed, Play(400, stereo=0.1), truth)) for seed in range(70, 82)]
    own, whole = (
        np.sqrt(np.mean([structures.errors(one, part) ** 2 for one in every], axis=0))[structures.is_free]
        for part in ("statistical", "error")
    )
    spread = np.std([structures.values(one) for one in every], axis=0, ddof=1)[structures.is_free]
    assert np.sqrt(np.mean((spread / own) ** 2)) == pytest.approx(1.0, abs=0.15)
    assert (own <= whole).all() and (own < 0.75 * whole).any()
    # Without a survey there is nothing else.
    alone = aligned(replace(calibration, free=free[:1], survey=()), played(70, Play(400, stereo=0.1), truth))
    assert structures.errors(alone, "statistical")[:2, :3] == pytest.approx(structures.errors(alone)[:2, :3])


def test_modes_that_a_survey_holds_are_named_all_the_same() -> None:
    columns = played(59, replace(STEREO, stereo=0.0), moved_halves())
    held, fixed = (aligned(alignment(survey=given), columns) for given in (("half_barrel: all 10",), ()))
    for payload in (held, fixed):
        assert payload["weak_deformation"].tolist() == [2]
        assert weak_modes(payload, alignment().structures)[0].startswith("common z (100% of it)")
    # Held, the mean of both is known to 10 um over the root of 2; fixed, it has no error.
    flags = [payload["half_barrel_flags"][:2, 2].tolist() for payload in (held, fixed)]
    assert flags == [[Flag.NEW] * 2, [Flag.WEAK] * 2]
    assert (held["half_barrel_error"][:2, 2] > np.hypot(fixed["half_barrel_error"][:2, 2], 6e-4)).all()


def test_words_for_a_mode_without_a_name() -> None:
    calibration = alignment()
    payload = aligned(calibration, played(53, replace(STEREO, stereo=0.0)))
    arrays = dict(payload.arrays) | {"weak_deformation": np.array([-1], np.int16)}
    (words,) = weak_modes(Payload("alignment", arrays, payload.units), calibration.structures)
    assert words.startswith("a mode without a name: tracks do not tell it to better than")


def test_too_few_records() -> None:
    columns = played(61, Play(150))
    with pytest.raises(NotEnoughData, match=r"1\d\d records of 150 can be used; an alignment needs 1000"):
        aligned(alignment(min_records=1000), columns)
    with pytest.raises(NotEnoughData, match="the structure with the most records has"):
        aligned(alignment(min_entries=1000), columns)


def test_a_structure_with_few_records_stays() -> None:
    calibration = alignment(("ladder 10-13: x",), min_entries=100)
    start = np.zeros((STRUCTURES, 6))
    start[14:18, 0] = 7.0
    payload = aligned(calibration, played(62, Play(1500)), displaced(start))
    few = payload["ladder_records"][10:14] < 100
    assert few.tolist() == [False, False, True, True]  # 12 ladders on the first layer, 20 on the second
    assert (payload["ladder_flags"][10:14, 0] == np.where(few, Flag.FEW, Flag.NEW)).all()
    assert ((payload["ladder"][10:14, 0] == 7e-4) == few).all()
    assert (np.isnan(payload["ladder_error"][10:14, 0]) == few).all()


def test_too_many_outliers() -> None:
    columns = played(63, Play(1000, stereo=0.1), 20 * moved_halves())
    with pytest.raises(NotConverged, match="of 1000 records have too large a chi2 for any cut") as raised:
        aligned(alignment(cuts=(1.0,), passed=0.9, min_records=1), columns)
    assert raised.value.payload is not None and raised.value.payload.kind == "alignment"


def test_records_without_meaning_are_left_out() -> None:
    columns = played(64, Play(400))
    spoilt = {name: ak.to_numpy(ak.flatten(columns[name])).copy() for name in columns if name.startswith("alignment")}
    size = spoilt["alignment_measurements"]
    first = np.cumsum(size) - size
    triangle = np.cumsum(size * (size + 1) // 2) - size * (size + 1) // 2
    spoilt["alignment_covariance"][triangle[3]] = -1.0
    spoilt["alignment_residuals"][first[7]] = np.nan
    spoilt["alignment_slopes"][18 * first[11] + 2] = np.inf
    spoilt["alignment_derivatives"][5 * first[20] : 5 * first[21]] = 0.0
    spoilt["alignment_residuals"][first[30]] = 10.0
    spoilt["alignment_covariance"][triangle[40] : triangle[41]] *= 1e-300
    counts = {name: ak.num(columns[name]) for name in spoilt}
    events = {name: columns[name] for name in ("run", "lumi", "event")}
    given = events | {name: ak.unflatten(values, counts[name]) for name, values in spoilt.items()}
    calibration = alignment()
    state = calibration.accumulate(given, {"alignment": DRAWN})
    records = by_class(state, 3)["records"]
    assert records.sum() == 400 and records[3:].tolist() == [1, 5]
    assert np.abs(of_halves(calibration.finalize(state, DRAWN))[0]).max() < 30


def test_what_is_beyond_the_room_of_sums_is_left_out_and_its_neighbours_do_not_notice() -> None:
    """Sensors that know a hit to 1 nm: one weight would fill the sums of thousands of records."""
    columns, calibration = played(69, Play(60, missing=0.0)), alignment(cuts=(1e12,))
    exact = dict(columns)
    for name, scale in (("residuals", 1e-4), ("derivatives", 1.0), ("covariance", 1e-8)):
        values = columns[f"alignment_{name}"]
        exact[f"alignment_{name}"] = ak.where(np.arange(len(values)) == 7, values * scale, values)
    state = calibration.accumulate(exact, {"alignment": DRAWN})
    without = calibration.accumulate(take(columns, np.arange(len(columns["event"])) != 7), {"alignment": DRAWN})
    own = int(ak.num(columns["alignment_measurements"])[7])
    assert own > 0 and by_class(state, 1)["records"].tolist() == [60 - own, 0, own]
    for name in ("matrix", "metric", "structures"):
        assert all((state[name].columns[of] == values).all() for of, values in without[name].columns.items())


def filled(part: ChannelSums) -> ChannelSums:
    """With sums that each leave no room for another of their size; records are counted as they were."""
    room = {name: (1 << 62) // max(int(np.abs(values).max()), 1) for name, values in part.columns.items()}
    room["records"] = 1
    return replace(part, columns={name: room[name] * values.astype(np.int64) for name, values in part.columns.items()})


def test_runs_whose_sums_have_no_room_together_are_added_up_all_the_same() -> None:
    calibration, columns = alignment(), played(70, Play(40))
    runs = []
    for run in (1, 2, 3, 4):
        state = calibration.accumulate({**columns, "run": np.full_like(columns["run"], run)}, {"alignment": DRAWN})
        runs.append(State({**state, **{name: filled(state[name]) for name in ("matrix", "metric", "structures")}}))
    one, every = (Totals.of(state, calibration.structures, 3) for state in (runs[0], reduce(State.merge, runs)))
    assert np.abs(one.right).max() > 0
    for name in ("matrix", "metric"):
        assert np.array_equal(getattr(every, name).blocks, 4 * getattr(one, name).blocks)
    assert np.array_equal(every.right, 4 * one.right) and np.array_equal(every.deformed, 4 * one.deformed)


def test_columns_that_do_not_go_together() -> None:
    columns = played(65, Play(20))
    calibration = alignment()
    short = columns | {"alignment_derivatives": columns["alignment_derivatives"][:, :-1]}
    with pytest.raises(ValueError, match=r"event \d+ has \d+ values in `alignment_derivatives`.* there are \d+"):
        calibration.accumulate(short, {"alignment": DRAWN})
    none = columns | {"alignment_parameters": columns["alignment_parameters"] * 0}
    with pytest.raises(ValueError, match="at least 1 for each record"):
        calibration.accumulate(none, {"alignment": DRAWN})
    strange = columns | {"alignment_labels": columns["alignment_labels"] + 3}
    with pytest.raises(ValueError, match="a hit lies on half_barrel 4; there are 4 of them"):
        calibration.accumulate(strange, {"alignment": DRAWN})
    with pytest.raises(ValueError, match="an alignment of these structures has"):
        calibration.accumulate(columns, {"alignment": nominal({"half_barrel": 4})})


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ({"free": ["quarter: x"]}, "names a level (half_barrel, ladder, module)"),
        ({"free": ["ladder 0-300: x"]}, "there are 288 of ladder, from 0 on"),
        ({"free": ["ladder 5-3: x"]}, "there are 288 of ladder"),
        ({"free": ["ladder: u"]}, "numbers are x, y, z, rx, ry, rz, or all"),
        ({"free": []}, "nothing would be aligned"),
        ({"survey": ["ladder: x"]}, "it names structures and an rms"),
        ({"survey": ["ladder: x 0"]}, "it names structures and an rms"),
        ({"survey": ["half_barrel 0: all 5"]}, "`survey` says nothing of x of half_barrel 1, which is free"),
        ({"survey": ["quarter: x 5"]}, "`survey` says 'quarter: x'; it names a level"),
        ({"cuts": [4.5, 1.0]}, "`cuts` are above 0 and rise"),
        ({"cuts": [0.1 * n for n in range(1, 3000)]}, "too many structures"),
        ({"min_entries": 0}, "at least 1"),
        ({"granularity": "span"}, "cannot be 'span'"),
    ],
)
def test_settings_that_cannot_be(table: Mapping[str, Any], complaint: str) -> None:
    with pytest.raises(SettingsError) as raised:
        apply_calibration_settings([alignment()], {"alignment": table})
    assert complaint in str(raised.value)


def test_settings_can_be_set() -> None:
    table = {"free": ["half_barrel 0-1: all", "ladder 7: x rz"], "min_records": 5000}
    (found,) = apply_calibration_settings([alignment()], {"alignment": table})
    free = found.structures.is_free
    assert free[:2].all() and free.sum() == 14 and np.flatnonzero(free[11]).tolist() == [0, 5]
    assert found.min_records == 5000
    with pytest.raises(ValueError, match="at most 32768"):
        Structures((("pixel", 40_000),), ("pixel: x",))


def test_payload_has_the_form_of_its_kind() -> None:
    calibration = alignment(("half_barrel 0-1: x", "ladder 0-101: x"))
    payload = aligned(calibration, played(66, Play(2000)))
    assert misfits(payload, DRAWN, calibration.leeway) == ()
    assert payload.units["ladder_error"] == "cm, rad" and payload.units["weak_error"] == "um"
    assert "module_error" not in payload.arrays
    worse = Payload("alignment", dict(payload.arrays), dict(payload.units) | {"weak_error": "cm"})
    assert misfits(worse, DRAWN, calibration.leeway) == ("`weak_error` is in cm, expected is um",)


THRESHOLDS = Moves(
    "half_barrel",
    (5e-4, 10e-4, 15e-4, 30e-6, 30e-6, 30e-6),
    "cm, rad",
    most=(200e-4, 200e-4, 200e-4, 200e-6, 200e-6, 200e-6),
    most_error=(10e-4, 10e-4, 10e-4, 10e-6, 10e-6, 10e-6),
)
"""of CMS's low granularity (physics note, 5.2)"""


@pytest.mark.parametrize(
    ("scale", "tracks", "decision", "reason"),
    [
        (0.0, 1500, Decision.NO_CHANGE, "0 of 4 half_barrel moved"),
        (1.0, 1500, Decision.PUBLISH, ""),
        (5.0, 1500, Decision.REJECT, "half_barrel[1, 2] moved by 0.03"),
        (1.0, 60, Decision.REJECT, "has an error of"),
    ],
)
def test_thresholds_and_vetoes(scale: float, tracks: int, decision: Decision, reason: str) -> None:
    calibration = alignment(min_records=20, min_entries=10, weak_error=100.0)
    payload = iterated(calibration, 68, Play(tracks, stereo=0.1), moved_halves(scale), 2)
    verdict = judge(payload, DRAWN, [THRESHOLDS])
    assert verdict.decision is decision and reason in "; ".join(verdict.reasons)
    assert judge(payload, DRAWN, [MinEntries("records", 25_000)]).decision is Decision.REJECT


def test_most_chi2_is_that_of_three_sigma() -> None:
    rng = np.random.default_rng(7)
    for ndf in (1, 9):
        beyond = np.mean((rng.normal(size=(200_000, ndf)) ** 2).sum(axis=1) > most_chi2(ndf))
        assert abs(beyond - 0.0027) < 4 * np.sqrt(0.0027 / 200_000)
    assert most_chi2(0) < 0


def test_states_of_other_cuts_or_numbers_do_not_merge() -> None:
    columns = played(67, Play(20))
    one = alignment().accumulate(columns, {"alignment": DRAWN})
    other = alignment(("half_barrel 0-1: x",)).accumulate(columns, {"alignment": DRAWN})
    with pytest.raises(ValueError, match="do not merge"):
        State.merge(one, other)
