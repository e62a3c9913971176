"""What is calibrated of REF10, and with how much: by settings that one run of 20 000 express events carries.

    pedestal ──► strip_status ──► gain ──► lorentz_angle ──► alignment ──► beamspot
                          pixel_status ──►

An arrow is an `after`; what has none between goes side by side. All come after what comes before that.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from calib.algorithms.beamspot import BeamSpot
from calib.algorithms.pedestal import Pedestal
from calib.calibration import Calibration, Granularity
from pipeline.experiments.ref10.constants import PIXEL_STATUS, STRIP_STATUS
from pipeline.experiments.ref10.geometry import Geometry
from pipeline.experiments.ref10.layers import CHIP, STRIPS
from pipeline.experiments.ref10.measured_alignment import TrackerAlignment, alignment_calibration
from pipeline.experiments.ref10.measured_charge import charge_calibrations
from pipeline.experiments.ref10.measured_status import status_calibrations

LEAST_SAMPLES = 25
"""of a strip: where one event in fifty is read out without zero suppression, a sixteenth of the strips in each, there
are 50, and three strips in a thousand have fewer than 30"""

STEADY_ADC, STEADY_NOISE = 0.2, 0.01
"""by how much pedestals and, relative, their noise drift from run to run, rms; chips that jump, jump by more"""

_MOVED: dict[str, Any] = {"gate": "moved_share", "share": 0.01, "group": CHIP}
_MEAN, _NOISE = (
    _MOVED | {"array": name, "floor": Pedestal.tolerated[name], "unit": "ADC"} for name in ("mean", "noise")
)
PEDESTAL_GATES: tuple[dict[str, Any], ...] = (
    _MEAN,
    _NOISE | {"n_sigma": 5.0},
    _MEAN | {"group": 0, "n_sigma": 6.0, "share": Pedestal.may_stray},
    _MOVED | {"array": "status"},
)
"""Of 50 samples a pedestal is good to 0.65 ADC and noise to 0.4, that of 4: one that jumped by two ADC is hidden among
the 0.3 % that chance has, and a chip of them is not. Noise of so few samples has a tail, and is held to five errors.
Single pedestals count from six errors on, where they are more than closure lets go by; floors are those of closure
too, so that what is no change here is none there"""

SETTLED_ERRORS, SETTLED = 0.5, 1.0
"""of a step, statistical ones: hundreds of numbers jitter with the tracks that a pass finds, and none by more than that
matters"""

OF_RAW = (Pedestal.kind, STRIP_STATUS, PIXEL_STATUS)
"""kinds that are measured of what no tier holds"""


def calibrations(geometry: Geometry) -> tuple[Calibration, ...]:
    """All of them, what others go after first."""
    channels = len(geometry.strip_rows) * STRIPS
    pedestals = Pedestal(
        channels=channels,
        block=STRIPS,
        group=CHIP,
        min_entries=LEAST_SAMPLES,
        steady=STEADY_ADC,
        steady_noise=STEADY_NOISE,
    )
    return (
        pedestals,
        *status_calibrations(geometry),
        *charge_calibrations(geometry),
        _aligned(geometry),
        BeamSpot(granularity=Granularity.LUMI),
    )


def _aligned(geometry: Geometry) -> TrackerAlignment:
    """The half barrels of the pixels and all ladders; the strips' half barrels hold the rest.

    Upright strips do not tell z. Turned ones do, and where the pixels are along z hangs on them: were they taken to be
    right there, their 50 um would be in what is found and not in its error. What a survey knows is how well a detector
    is put together (physics note, 9.2). Single tracks follow moves of whole sectors that go as 1, r and r^2 with the
    distance from the beam, so that of those it is all that is known, but for what the mass of the Z says.
    """
    free, survey = ["half_barrel 0-1: all"], ["half_barrel: all 100"]
    for layer in np.unique(geometry.layer):
        own = geometry.layer == layer
        rows, pixel = geometry.ladder_row[own], bool(geometry.pixel[own].all())
        ladders = f"ladder {rows.min()}-{rows.max()}"
        shifts = "x y z" if pixel or np.abs(geometry.u[own, 2]).any() else "x y"
        free.append(f"{ladders}: {shifts} rx ry rz")
        survey += [f"{ladders}: {shifts} {20 if pixel else 50}", f"{ladders}: rx ry rz 20"]
    return replace(
        alignment_calibration(geometry),
        free=tuple(free),
        survey=tuple(survey),
        settled_errors=SETTLED_ERRORS,
        settled=SETTLED,
    )
