"""Vertices against plain loops, toys, the physics note and what is no vertex."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calib.algorithms.beamspot_payload import KIND, nominal
from pipeline.experiments.collisions import Collection
from pipeline.experiments.ref10.reconstruct.adaptive import temperatures, weights
from pipeline.experiments.ref10.reconstruct.perigees import about
from pipeline.experiments.ref10.reconstruct.track_flags import TrackFlag
from pipeline.experiments.ref10.reconstruct.vertex_clusters import Separation
from pipeline.experiments.ref10.reconstruct.vertex_flags import UNRELIABLE, VertexFlag
from pipeline.experiments.ref10.reconstruct.vertices import fit_vertices
from tests.pipeline.experiments.ref10.reconstruct import toy_tracks as toy
from tests.pipeline.experiments.ref10.reconstruct.naive_vertices import NaiveTrack, naive_vertices

UM = toy.UM
WIDTHS = dict(zip(("width_x", "width_y", "sigma_z"), toy.WIDTHS.tolist(), strict=True))
BEAM = {"x": 0.08, "y": -0.04, "z": 0.5, "dxdz": 2e-4, "dydz": -1e-4, **WIDTHS}
KNOWN = {KIND: nominal(**BEAM)}


def taken(tracks: Collection, events: slice) -> Collection:
    start = np.append(0, np.cumsum(tracks.counts))
    some = slice(start[events.start], start[min(events.stop, len(tracks.counts))])
    return Collection(tracks.counts[events], {name: values[some] for name, values in tracks.flat.items()})


def same(one: Collection, other: Collection) -> bool:
    return (one.counts == other.counts).all() and all(
        one.flat[name].dtype == values.dtype and one.flat[name].tobytes() == values.tobytes()
        for name, values in other.flat.items()
    )


def central(values: np.ndarray) -> float:
    """Half the width of what holds 68.27 %."""
    low, high = np.quantile(values, [0.15865, 0.84135])
    return float(high - low) / 2


def first_of_each(vertices: Collection) -> np.ndarray:
    return (np.cumsum(vertices.counts) - vertices.counts)[vertices.counts > 0]


# Tracks about another point than the origin.


def test_a_track_about_its_vertex_goes_through_it():
    """As far as the exact circle says; over 1 mm, down to 0.4 GeV."""
    rng = np.random.default_rng(1)
    place = rng.uniform(-0.1, 0.1, (500, 3))
    pt, phi, cot = 0.4 + rng.exponential(1.0, 500), rng.uniform(-3, 3, 500), rng.uniform(-1.2, 1.2, 500)
    truth = toy.helices(place, pt, phi, cot, rng.choice([-1.0, 1.0], 500))
    near = about(toy.collection([500], truth, np.zeros((500, 5, 5))), place[:, 0], place[:, 1])
    assert np.abs(near.d0).max() < 0.1 * UM
    assert np.abs(near.z0 - place[:, 2]).max() < 5 * UM
    assert np.abs(np.sin(near.phi - phi)).max() < 1e-5


def test_its_errors_are_those_of_drawn_tracks():
    rng = np.random.default_rng(2)
    n = 40_000
    pt = np.full(n, 0.8)
    place = np.tile([0.3, -0.2, 0.0], (n, 1))
    truth = toy.helices(place, pt, np.full(n, 0.4), np.full(n, 1.0), np.ones(n))
    near = about(toy.measured(np.array([n]), truth, pt, rng), place[:, 0], place[:, 1])
    errors = np.sqrt([near.d0_variance[0], near.z0_variance[0]])
    assert (near.d0.std(), near.z0.std()) == pytest.approx(errors, rel=4 / np.sqrt(2 * n))
    both = np.mean(near.d0 * (near.z0 - near.z0.mean()))
    assert both == pytest.approx(near.covariance[0], abs=4 * errors[0] * errors[1] / np.sqrt(n))
    # 3.6 mm away it is another error than at the axis.
    assert errors[0] != pytest.approx(toy.of_table(toy.D0_UM, pt[:1])[0] * UM, rel=0.02)


# The fit.


def test_cooling_and_weights_are_those_of_the_physics_note():
    assert temperatures()[:4] == [256, 64.75, 16.9375, 4.984375]
    assert len([t for t in temperatures() if t > 1.02]) == 7
    assert weights(np.array([9.0, 0.0, 1e9]), 1.0) == pytest.approx([0.5, 1 / (1 + np.exp(-4.5)), 0.0], abs=1e-300)
    assert weights(np.array([100.0]), 256.0)[0] > 0.45


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 9), min_size=1, max_size=4), st.booleans())
def test_as_in_plain_loops(seed, sizes, twins):
    """Vertices of some sizes in a few events; tracks that are displaced, flagged or there twice among them."""
    rng = np.random.default_rng(seed)
    event = np.sort(rng.integers(0, 3, len(sizes)))
    counts = np.bincount(np.repeat(event, sizes), minlength=3)
    place = np.repeat(toy.places(rng, len(sizes)), sizes, axis=0)
    place[:, :2] += np.where(rng.random((len(place), 1)) < 0.2, 0.05, 0.0)
    if twins and len(place) > 1:
        tracks = toy.from_places(rng, counts, place, toy.soft(rng, len(place)))
        for values in tracks.flat.values():
            values[1] = values[0]
    else:
        tracks = toy.from_places(rng, counts, place, toy.soft(rng, len(place)))
    tracks.flat["flags"][rng.random(len(place)) < 0.1] = TrackFlag.UNSETTLED
    vertices, linked = fit_vertices(tracks, KNOWN)
    start, first = np.cumsum(counts) - counts, np.cumsum(vertices.counts) - vertices.counts
    for event_number in range(3):
        members = [NaiveTrack(tracks, start[event_number] + i) for i in range(counts[event_number])]
        wanted = naive_vertices(members, BEAM, Separation())
        assert vertices.counts[event_number] == len(wanted)
        whose = np.full(counts[event_number], -1)
        share = np.zeros(counts[event_number])
        for i, vertex in enumerate(wanted):
            whose[vertex["members"]], share[vertex["members"]] = i, vertex["weights"]
            compare(vertices, first[event_number] + i, "", vertex)
            compare(vertices, first[event_number] + i, "constrained_", vertex["constrained"])
            assert vertices["sum_pt2"][first[event_number] + i] == pytest.approx(vertex["sum_pt2"], rel=1e-9, abs=1e-9)
        mine = slice(start[event_number], start[event_number] + counts[event_number])
        assert linked.flat["vertex"][mine].tolist() == whose.tolist()
        np.testing.assert_allclose(linked["vertex_weight"][mine], share, rtol=1e-3, atol=1e-6)


def compare(vertices: Collection, at: int, prefix: str, wanted: dict) -> None:
    error = np.sqrt(np.diag(wanted["cov"]))
    place = np.array([vertices[prefix + name][at] for name in "xyz"])
    assert np.abs((place - wanted["place"]) / error).max() < 1e-4
    for a in range(3):
        for b in range(a, 3):
            found = vertices[f"{prefix}cov_{'xyz'[a]}_{'xyz'[b]}"][at]
            assert found == pytest.approx(wanted["cov"][a, b], rel=1e-4, abs=1e-4 * error[a] * error[b])
    assert vertices[prefix + "chi2"][at] == pytest.approx(wanted["chi2"], rel=1e-4, abs=1e-4)
    assert vertices[prefix + "ndf"][at] == pytest.approx(wanted["ndf"], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("conditions", [{}, KNOWN], ids=["without the beam", "with it"])
def test_an_event_has_the_same_bits_alone_and_among_others(conditions):
    made = toy.piled_up(np.random.default_rng(4), 40, 4.0)
    vertices, tracks = fit_vertices(made.tracks, conditions)
    for events in (slice(0, 1), slice(7, 8), slice(11, 30), slice(39, 40)):
        alone, own = fit_vertices(taken(made.tracks, events), conditions)
        assert same(alone, taken(vertices, events))
        assert same(own, taken(tracks, events))


def test_blocks_do_not_show():
    """More tracks than are worked on at a time."""
    made = toy.piled_up(np.random.default_rng(5), 140, 20.0)
    assert made.tracks.counts.sum() > 21_000
    vertices, _ = fit_vertices(made.tracks, {})
    assert same(fit_vertices(taken(made.tracks, slice(100, 140)), {})[0], taken(vertices, slice(100, 140)))


def test_what_is_measured_without_the_beam_does_not_depend_on_it():
    made = toy.piled_up(np.random.default_rng(6), 50, 2.0)
    without, _ = fit_vertices(made.tracks, {})
    with_it, _ = fit_vertices(made.tracks, {KIND: nominal(**{**BEAM, "x": 0.2})})
    assert same(with_it, without)
    assert not any(name.startswith("constrained") for name in without.flat)


def test_the_first_of_an_event_has_the_hardest_tracks():
    vertices, tracks = fit_vertices(toy.piled_up(np.random.default_rng(7), 50, 5.0).tracks, {})
    first = (np.cumsum(vertices.counts) - vertices.counts)[tracks.event]
    belongs = tracks["vertex_weight"] > 0.5
    place = first + tracks.flat["vertex"]
    total = np.bincount(place[belongs], tracks["pt"][belongs] ** 2, len(vertices.flat["x"]))
    np.testing.assert_allclose(vertices["sum_pt2"], total, rtol=1e-12)
    loose = (vertices.flat["flags"] & np.uint8(UNRELIABLE)) > 0
    inside = vertices.event[1:] == vertices.event[:-1]
    assert (np.diff(vertices["sum_pt2"])[inside & (loose[1:] == loose[:-1])] <= 0).all()
    assert not (loose[:-1] & ~loose[1:] & inside).any()
    assert (loose[1:] & ~loose[:-1] & inside).any()
    assert (vertices.flat["tracks"] == np.bincount(place[belongs], minlength=len(total))).all()


# Figures of the physics note, 9.4.7 and 11.


@pytest.mark.parametrize(("each", "x", "z"), [(5, 22.0, 26.0), (10, 14.6, 18.0), (20, 10.0, 12.0), (40, 6.9, 8.6)])
def test_resolutions_and_pulls_are_those_of_the_physics_note(each, x, z):
    """Within 20 %: the note's own table gives x to 50 um / sqrt(n), not 46. Widths are known to 2 %."""
    tracks, place = toy.single(np.random.default_rng(each), 2000, each)
    vertices, _ = fit_vertices(tracks, KNOWN)
    first = first_of_each(vertices)
    for axis, wanted in (("x", x), ("y", x), ("z", z)):
        off = vertices[axis][first] - place[:, "xyz".index(axis)]
        assert central(off) / UM == pytest.approx(wanted, rel=0.2)
        pull = off / np.sqrt(vertices[f"cov_{axis}_{axis}"][first])
        assert 0.9 < central(pull) < 1.1
        assert abs(np.median(pull)) < 4 * 1.25 / np.sqrt(2000)
        held = vertices[f"constrained_{axis}"][first] - place[:, "xyz".index(axis)]
        assert 0.9 < central(held / np.sqrt(vertices[f"constrained_cov_{axis}_{axis}"][first])) < 1.1
        assert axis == "z" or central(held) == pytest.approx((central(off) ** -2 + (15 * UM) ** -2) ** -0.5, rel=0.07)
    assert not (vertices.flat["flags"][first] & np.uint8(UNRELIABLE)).any()


def test_displaced_tracks_make_it_worse_by_a_sixth_and_not_wrong():
    """One in five from 0.3 mm away in each of x and y, on average: 16 to 20 % by the note; their loss alone is 12."""
    rng = np.random.default_rng(8)
    place = toy.places(rng, 3000)
    start = np.repeat(place, 20, axis=0)
    pt = toy.soft(rng, len(start), 1.0)
    counts, phi, eta = np.full(3000, 20), rng.uniform(-np.pi, np.pi, len(pt)), rng.uniform(-1, 1, len(pt))
    charge, off = (
        rng.choice([-1.0, 1.0], len(pt)),
        rng.exponential(0.03, (len(pt), 2)) * rng.choice([-1, 1], (len(pt), 2)),
    )
    displaced = start.copy()
    displaced[:, :2] += np.where(np.arange(len(pt))[:, None] % 5 == 0, off, 0.0)
    width = []
    for begin in (start, displaced):
        tracks = toy.measured(counts, toy.helices(begin, pt, phi, np.sinh(eta), charge), pt, np.random.default_rng(9))
        vertices, _ = fit_vertices(tracks, {})
        first = first_of_each(vertices)
        off_x = vertices["x"][first] - place[:, 0]
        width.append(central(off_x))
        assert 0.9 < central(off_x / np.sqrt(vertices["cov_x_x"][first])) < 1.15
    assert 1.12 < width[1] / width[0] < 1.24


def test_a_wrong_beam_pulls_vertices_as_predicted():
    """By delta sv^2 / (sv^2 + sb^2)."""
    tracks, place = toy.single(np.random.default_rng(10), 2000, 5)
    vertices, _ = fit_vertices(tracks, {KIND: nominal(**{**BEAM, "x": BEAM["x"] + 30 * UM})})
    first = first_of_each(vertices)
    variance = vertices["cov_x_x"][first]
    predicted = 30 * UM * np.median(variance / (variance + (15 * UM) ** 2))
    seen = np.median(vertices["constrained_x"][first] - place[:, 0])
    assert seen == pytest.approx(predicted, rel=0.1)
    assert predicted / (30 * UM) == pytest.approx(0.68, abs=0.08)


# What is no vertex, or hardly one.


def lone(parameters: list[list[float]], pt: float = 1.0) -> Collection:
    """One event of tracks with these parameters."""
    found = np.array(parameters, float).reshape(-1, 5)
    return toy.collection([len(found)], found, toy.covariances(np.full(len(found), pt), found[:, 0]))


def finite(vertices: Collection) -> bool:
    return all(np.isfinite(values).all() for values in vertices.flat.values())


def test_a_vertex_of_one_track_lies_on_it_and_says_so():
    vertices, tracks = fit_vertices(lone([[0.01, 0.5, 0.0735, 3.0, 0.3]]), KNOWN)
    assert finite(vertices)
    assert vertices.flat["flags"].tolist() == [VertexFlag.SINGLE | VertexFlag.UNFIXED]
    assert np.sqrt(vertices["cov_x_x"][0]) > 0.5
    x, y = vertices["x"][0], vertices["y"][0]
    assert x * np.sin(0.5) - y * np.cos(0.5) == pytest.approx(0.0735, abs=1 * UM)
    assert tracks.flat["vertex"].tolist() == [0]
    # With the beam it is one: across the track as the track, along it as the beam.
    assert vertices.flat["constrained_flags"].tolist() == [VertexFlag.SINGLE]
    assert np.sqrt(vertices["constrained_cov_x_x"][0]) < 15.5 * UM
    assert vertices["constrained_z"][0] == pytest.approx(3.0 + 0.3 * 0.05, abs=0.02)


def test_tracks_that_are_identical_or_parallel_leave_it_open():
    for step in (0.0, 10 * UM):
        vertices, _ = fit_vertices(lone([[0.01, 0.5, 0.0735 + i * step, 3.0, 0.3] for i in range(3)]), KNOWN)
        assert finite(vertices)
        assert vertices.flat["flags"].tolist() == [VertexFlag.UNFIXED]
        assert vertices.flat["tracks"].tolist() == [3]
        assert not vertices.flat["constrained_flags"].any()


def test_two_tracks_far_from_where_the_beam_can_be_are_noted():
    """1 mm from the axis it may be, by all tracks together; these cross 5 mm from it."""
    tracks, _ = toy.single(np.random.default_rng(0), 1, 12)
    far = toy.helices(np.tile([0.5, 0.0, 9.0], (2, 1)), np.ones(2), np.array([1.0, 2.0]), np.zeros(2), np.ones(2))
    other = lone(far.tolist())
    both = Collection(
        tracks.counts + 2, {name: np.append(values, other.flat[name]) for name, values in tracks.flat.items()}
    )
    vertices, linked = fit_vertices(both, {})
    assert vertices.flat["flags"][linked.flat["vertex"][-1]] == VertexFlag.FAR
    assert vertices["x"][linked.flat["vertex"][-1]] == pytest.approx(0.5, abs=0.05)


def test_no_events_and_events_without_tracks():
    for counts in ([], [0], [0, 0, 0]):
        vertices, tracks = fit_vertices(toy.collection(counts, np.zeros((0, 5)), np.zeros((0, 5, 5))), KNOWN)
        assert vertices.counts.tolist() == counts
        assert tracks.counts.tolist() == counts
        full, linked = fit_vertices(toy.single(np.random.default_rng(0), 1, 5)[0], KNOWN)
        assert {name: v.dtype for name, v in full.flat.items()} == {name: v.dtype for name, v in vertices.flat.items()}
        assert {name: v.dtype for name, v in linked.flat.items()} == {name: v.dtype for name, v in tracks.flat.items()}


def test_five_hundred_tracks():
    """Of one vertex, and of everywhere."""
    one, place = toy.single(np.random.default_rng(11), 1, 500, 0.4)
    vertices, _ = fit_vertices(one, KNOWN)
    assert vertices.flat["tracks"][0] > 480
    assert np.abs(vertices["x"][0] - place[0, 0]) < 5 * np.sqrt(vertices["cov_x_x"][0]) < 5 * 4 * UM
    rng = np.random.default_rng(12)
    vertices, tracks = fit_vertices(toy.from_places(rng, np.array([500]), toy.places(rng, 500), toy.soft(rng, 500)), {})
    assert finite(vertices)
    assert (tracks.flat["vertex"] >= 0).all()
    assert 100 < len(vertices.flat["x"]) <= 500


@pytest.mark.parametrize("flag", [TrackFlag.TOO_FEW, TrackFlag.SINGULAR, TrackFlag.UNREACHED, TrackFlag.UNSETTLED])
def test_tracks_that_are_not_well_fitted_take_no_part(flag):
    tracks, _ = toy.single(np.random.default_rng(13), 1, 6)
    tracks.flat["flags"][2] = flag
    vertices, linked = fit_vertices(tracks, {})
    assert linked.flat["vertex"].tolist() == [0, 0, -1, 0, 0, 0]
    assert linked["vertex_weight"][2] == 0
    rest = tracks.where(tracks.flat["flags"] == 0)
    assert same(fit_vertices(rest, {})[0], vertices)


@pytest.mark.parametrize(
    ("column", "value"), [("cov_d0_d0", 0.0), ("cov_z0_z0", -1.0), ("cov_d0_z0", 1.0), ("phi", np.nan), ("z0", np.inf)]
)
def test_neither_do_those_whose_numbers_are_none(column, value):
    tracks, _ = toy.single(np.random.default_rng(14), 1, 6)
    tracks.flat[column][4] = value
    vertices, linked = fit_vertices(tracks, KNOWN)
    assert linked.flat["vertex"].tolist() == [0, 0, 0, 0, -1, 0]
    assert finite(vertices)


def test_straight_tracks_do():
    tracks, place = toy.single(np.random.default_rng(15), 1, 8)
    tracks.flat["curvature"][:] = 0.0
    vertices, _ = fit_vertices(tracks, {})
    assert vertices.flat["flags"].tolist() == [0]
    assert vertices["x"][0] == pytest.approx(place[0, 0], abs=5 * np.sqrt(vertices["cov_x_x"][0]))


@pytest.mark.parametrize("unknown", [{"width_x": np.nan}, {"width_y": 0.0, "sigma_z": np.nan}])
def test_a_width_that_the_beam_spot_does_not_tell_does_not_constrain(unknown):
    tracks, _ = toy.single(np.random.default_rng(16), 20, 8)
    vertices, _ = fit_vertices(tracks, {KIND: nominal(**{**BEAM, **unknown})})
    assert finite(vertices)
    first = first_of_each(vertices)
    assert (vertices.flat["constrained_flags"] & VertexFlag.NO_WIDTHS).all()
    known, _ = fit_vertices(tracks, KNOWN)
    assert vertices["constrained_ndf"][first] == pytest.approx(known["constrained_ndf"][first] - len(unknown), abs=0.5)
    free, held = ("x", "y") if "width_x" in unknown else ("y", "x")
    gained = [vertices[f"constrained_cov_{a}_{a}"][first] / vertices[f"cov_{a}_{a}"][first] for a in (free, held)]
    assert (gained[0] > 0.8).all()
    assert (gained[1] < 0.8).all()
