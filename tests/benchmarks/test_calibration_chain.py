"""What the report makes of runs through the chain: found against true, of what was measured, and judged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks._calibration_chain import (
    COMPARED,
    GOOD,
    SCENARIO,
    UM,
    URAD,
    Compared,
    Flagged,
    OneRun,
    claims_of_chain,
    flags,
    of_angles,
    of_beam,
    of_gains,
    of_pedestals,
    of_places,
    together,
)
from benchmarks._calibration_chain_page import chain_section, settings_of
from benchmarks._calibration_frame import frame_of
from calib.algorithms import pedestal
from calib.algorithms.occupancy_status import Status as HitStatus
from calib.payload import Payload
from pipeline.experiments.ref10.alignment import no_displacement
from pipeline.experiments.ref10.geometry import GEOMETRIES, geometry_of
from pipeline.experiments.ref10.simulate.scenario import DEAD, HOT, truth

DETECTOR, FULL = (geometry_of(GEOMETRIES[name]()) for name in ("mini", "full"))
TRUE = truth(SCENARIO, DETECTOR, 3, 1, 1)


def but(kind: str, **arrays: object) -> Payload:
    """The truth, some arrays of it otherwise, or more of them."""
    true = TRUE[kind]
    more = {name: np.asarray(values) for name, values in arrays.items()}
    return Payload(kind, {**true.arrays, **more}, {**true.units})


def test_pedestals_are_compared_where_they_are_new() -> None:
    channels = len(TRUE["pedestal"]["mean"])
    status = np.zeros(channels, np.int8)
    status[:10] = pedestal.Status.DEAD
    status[10:15] = pedestal.Status.NOISY
    error = np.full(channels, 0.5, np.float32)
    found = but(
        "pedestal",
        mean=TRUE["pedestal"]["mean"] + np.float32(0.25),
        mean_error=error,
        noise_error=error,
        entries=np.full(channels, 100, np.int32),
        status=status,
    )
    mean, noise = of_pedestals({"pedestal": found}, TRUE, DETECTOR)
    good = np.count_nonzero((TRUE["strip_status"]["status"] == 0) & (status == 0))
    assert len(mean.off) == good
    assert mean.kept == 10
    assert mean.off == pytest.approx(0.25, abs=1e-4)
    noisy = TRUE["pedestal"]["noise"][(TRUE["strip_status"]["status"] == 0) & (status == 0)].astype(float)
    assert mean.expected == pytest.approx(np.sqrt(noisy**2 + 4 + 1 / 12) / 10)
    assert noise.off == pytest.approx(0.0)
    assert noise.expected == pytest.approx((noisy**2 + 1 / 12) / noisy / np.sqrt(200))


def test_gains_and_angles_have_the_error_of_their_scale_too() -> None:
    gain = TRUE["gain"]["gain"]
    found = but(
        "gain",
        gain=1.02 * gain,
        gain_error=0.03 * gain,
        scale_error=np.array([0.04, 0.0]),
        entries=np.where(np.arange(len(gain)) < 7, 0, 1600),
        status=(np.arange(len(gain)) < 7).astype(np.int8),
    )
    [one] = of_gains({"gain": found}, TRUE, DETECTOR)
    assert (len(one.off), one.kept) == (len(gain) - 7, 7)
    assert one.off == pytest.approx(2.0, rel=1e-4)
    assert one.error == pytest.approx(5.0, rel=1e-4)
    assert one.expected == pytest.approx(100 * np.hypot(0.115 / 40, 0.04))
    tangents = TRUE["lorentz_angle"]["tan"]
    angles = but(
        "lorentz_angle",
        tan=tangents - 0.004,
        tan_error=np.full(10, 0.003),
        scale_error=np.full(10, 0.004),
        entries=np.array([0, *[10_000] * 9]),
        status=np.array([1, 16, *[0] * 8], np.int8),
    )
    [one] = of_angles({"lorentz_angle": angles}, TRUE, DETECTOR)
    assert (len(one.off), one.kept) == (9, 1)
    assert one.off == pytest.approx(-4.0)
    assert one.error == pytest.approx(5.0)
    assert one.expected == pytest.approx(5.0)


def test_places_are_compared_as_far_as_they_are_known() -> None:
    more = {}
    for name in ("half_barrel", "ladder"):
        size = TRUE["alignment"][name].shape
        error, flag = np.full(size, 2 * UM), np.zeros(size, np.int8)
        error[0, 0], flag[1, 1] = np.nan, 8
        more |= {name: TRUE["alignment"][name] + 3 * UM, f"{name}_error": error, f"{name}_flags": flag}
    halves, ladders = of_places({"alignment": but("alignment", **more)}, TRUE, DETECTOR)
    assert (len(halves.off), halves.kept, ladders.kept) == (2, 2, 2)
    for one in (halves, ladders):
        assert one.off == pytest.approx(3.0)
        assert one.ratio == pytest.approx(1.5)


def test_the_beam_is_looked_for_in_the_frame_that_was_found() -> None:
    error = dict.fromkeys(
        (f"{name}_error" for name in ("x", "y", "sigma_z", "dxdz", "dydz", "width_x", "width_y")), 1 * UM
    )
    drawn = no_displacement(DETECTOR)
    frame = frame_of(SCENARIO, DETECTOR, drawn, TRUE["alignment"])
    true = TRUE["beamspot"]
    # Half a centimetre further on, along the slopes; and where sensors that are thought at their drawn place see it.
    found = but(
        "beamspot",
        **error,
        x=true["x"] + 0.5 * true["dxdz"] + frame.shift[0] + frame.tilt[0] * true["z"],
        y=true["y"] + 0.5 * true["dydz"] + frame.shift[1] + frame.tilt[1] * true["z"],
        dxdz=true["dxdz"] + frame.tilt[0],
        z=true["z"] + 0.5,
        width_x=np.hypot(true["width_x"], frame.spread[0]) + 2 * UM,
        width_y=np.hypot(true["width_y"], frame.spread[1]),
    )
    place, widths, _, slopes = of_beam({"beamspot": found, "alignment": drawn}, TRUE, DETECTOR)
    assert np.abs(frame.shift).max() > 5 * UM
    assert slopes.off == pytest.approx([0.0, -frame.tilt[1] / URAD], abs=1e-6)
    assert place.off == pytest.approx(0.0, abs=1e-6)
    assert widths.off == pytest.approx([2.0, 0.0], abs=1e-6)
    [there, *_] = of_beam({"beamspot": found, "alignment": TRUE["alignment"]}, TRUE, DETECTOR)
    assert there.off == pytest.approx((frame.shift + frame.tilt * true["z"]) / UM)


def test_a_detector_that_is_shifted_and_tilted_as_a_whole_takes_the_beam_with_it() -> None:
    drawn = no_displacement(DETECTOR)
    # About the origin by 40 urad around y: what is at z is 40 urad x z further along x.
    whole = np.array([30 * UM, -20 * UM, 50 * UM, 0, 40 * URAD, 0])
    moved = {**drawn.arrays, "half_barrel": drawn["half_barrel"] + whole}
    frame = frame_of(SCENARIO, DETECTOR, Payload(drawn.kind, moved, drawn.units), drawn)
    assert frame.shift == pytest.approx([30 * UM, -20 * UM], rel=1e-3)
    assert frame.tilt == pytest.approx([40 * URAD, 0.0], rel=1e-2, abs=URAD / 10)
    assert frame.spread.max() < 0.1 * UM


def test_sensors_that_are_each_elsewhere_scatter_vertices() -> None:
    drawn, spreads = no_displacement(FULL), []
    off = np.random.default_rng(3).standard_normal(drawn["ladder"].shape) * [1, 1, 0, 0, 0, 0]
    for size in (0, 10, 20):
        ladder = size * UM * off
        moved = Payload(drawn.kind, {**drawn.arrays, "ladder": ladder}, drawn.units)
        spreads.append(frame_of(SCENARIO, FULL, moved, drawn).spread / UM)
    nothing, some, more = spreads
    assert nothing.max() < 0.01
    # A track's d0 is off by some 1.3 times what its first sensors are, a vertex by that over the root of its tracks.
    assert 2 < some.mean() < 10
    assert more.mean() == pytest.approx(2 * some.mean(), rel=0.02)


def test_flags_are_counted_by_what_strips_are() -> None:
    real = TRUE["strip_status"]["status"]
    status = np.where(real == HOT, HitStatus.HOT, HitStatus.GOOD).astype(np.int8)
    status[np.flatnonzero(real == DEAD)[:5]] = HitStatus.DEAD
    status[np.flatnonzero(real == 0)[:2]] = HitStatus.HOT
    still = np.where(real == DEAD, pedestal.Status.DEAD, pedestal.Status.NEW).astype(np.int8)
    found = {"strip_status": but("strip_status", status=status), "pedestal": but("pedestal", status=still)}
    hot, by_hits, by_noise, good = flags(found, TRUE)
    assert hot.flagged == hot.of == np.count_nonzero(real == HOT) > 0
    assert (by_hits.flagged, by_noise.flagged, good.flagged) == (5, by_noise.of, 2)


def run(scale: float = 1.0, stale: tuple[str, ...] = (), false: int = 1) -> OneRun:
    values = np.array([-1.0, 1.0, -1.0, 1.0])
    own = tuple(
        Compared(kind, "values", "um", scale * values, np.ones(4), np.ones(4), 1, "said")
        for kind in COMPARED
        if kind not in stale
    )
    return OneRun(5, own, (Flagged("hot", 3, 4), Flagged(GOOD, false, 10_000)), "told <so>", stale)


def test_a_run_that_is_too_far_off_or_has_not_found_all_is_missed() -> None:
    def missed(*runs: OneRun) -> list[str]:
        return [claim.name.removeprefix("chain, ") for claim in claims_of_chain(runs) if claim.missed]

    # Of eight values chance has up to 1.81 times the RMS, of 400 up to 1.11 times.
    assert missed(run(), run(1.3)) == missed(run(2.4), run(2.4)) == []
    assert len(missed(run(2.5), run(2.5))) == len(COMPARED)
    assert missed(*[run(1.48)] * 100) == []
    # What moves together is worth fewer values, and chance has more of it.
    waves = replace(run(1.6), compared=tuple(replace(one, worth=0.25) for one in run(1.6).compared))
    assert missed(*[waves] * 100) == []
    assert len(missed(*[run(1.52)] * 100)) == len(COMPARED)
    assert missed(run(), run(false=2)) == [f"{GOOD}, share"]
    assert missed(run(), run(stale=("gain",))) == [f"kinds not found of {2 * len(COMPARED)}"]
    assert missed(replace(run(), compared=(), stale=tuple(COMPARED))) == [f"kinds not found of {len(COMPARED)}"]


def test_the_section_says_it_all() -> None:
    runs = [run(), run(1.2), replace(run(), seed=6, compared=(), stale=tuple(COMPARED))]
    [first, *_] = together(runs)
    assert first.ratio[0] == pytest.approx(np.sqrt((1 + 1.44) / 2))
    section = chain_section(runs, settings_of(runs, (4, 100)))
    assert section.count("<img") == 2
    for words in (
        "3 of 4 lumisections of 100 events",
        "3 of 4",
        "told &lt;so&gt;",
        "Nothing was found of seed 6: pedestal",
    ):
        assert words in section
