"""Payloads are held to the form of a reference, mistake by mistake."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from calib.algorithms import beamspot_payload, channel_status
from calib.algorithms.beamspot import BeamSpot
from calib.form import Leeway, misfits
from calib.payload import Payload

DESIGN = {
    "x": np.array(0.1),
    "error": np.array([np.nan, 1.0]),
    "status": np.zeros(3, np.int8),
    "sound": np.array(True),
}


def payload(drop: str = "", unit: str = "cm", **values: Any) -> Payload:
    arrays = {name: np.asarray(array) for name, array in {**DESIGN, **values}.items() if name != drop}
    return Payload("spot", arrays, {"x": unit} if "x" in arrays else {})


@pytest.mark.parametrize(
    "found",
    [
        payload(),
        payload(x=np.float32(3.0)),
        payload(status=np.ones(3, np.uint16)),
        payload(error=[np.nan, 2.0]),
        payload(error=[2.0, 2.0]),
    ],
    ids=["as it is", "other bits", "unsigned", "none where none was", "a number where none was"],
)
def test_what_fits(found: Payload) -> None:
    assert misfits(found, payload()) == ()


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (payload("x"), "it has no `x`: floats of shape () in cm"),
        (payload(width=1.0), "`width` is foreign to kind spot"),
        (payload(erorr=1.0), "`erorr` is foreign to kind spot; did you mean `error`?"),
        (payload(unit="mm"), "`x` is in mm, expected is cm"),
        (payload(unit=""), "`x` is in no unit, expected is cm"),
        (payload(x=[1.0, 2.0, 3.0]), "`x` has shape (3,), expected is ()"),
        (payload(status=np.zeros(4, np.int8)), "`status` has shape (4,), expected is (3,)"),
        (payload(x=1), "`x` is of integers, expected are floats such as float64"),
        (payload(sound=1), "`sound` is of integers, expected are booleans such as bool"),
        (payload(x=np.nan), "`x` is nan, expected is a finite number"),
        (
            payload(error=[0.0, np.inf]),
            "`error`: 1 of 2 values are no finite numbers, expected are such; the first is error[1]",
        ),
    ],
)
def test_every_mistake_is_named_with_what_was_expected(found: Payload, said: str) -> None:
    assert misfits(found, payload()) == (said,)


def test_all_mistakes_are_told_at_once() -> None:
    found = misfits(payload("status", "mm", x=np.nan, more=1), payload())
    assert len(found) == 4
    assert sorted(wrong.split("`")[1] for wrong in found) == ["more", "status", "x", "x"]


def test_what_a_kind_may_have_beside_is_said() -> None:
    more = Leeway(more={"tracks": ""}, not_finite=("x",), any_length=("error",))
    assert misfits(payload(tracks=5, x=np.nan, error=[1.0, 2.0, np.inf]), payload(), more) == ()
    assert misfits(payload(error=[[1.0]]), payload(), more) == ("`error` has shape (1, 1), expected is (2,)",)
    in_metres = Payload("spot", {**payload().arrays, "tracks": np.array(5)}, {"x": "cm", "tracks": "m"})
    assert misfits(in_metres, payload(), more) == ("`tracks` is in m, expected is no unit",)
    # Where lengths differ no value stands for another: all must be numbers once those of the reference are.
    long = Leeway(any_length=("status", "y"))
    assert misfits(payload(y=[1.0, np.nan]), payload(y=[1.0]), long) == (
        "`y`: 1 of 2 values are no finite numbers, expected are such; the first is y[1]",
    )


def test_what_a_payload_in_use_has_may_be_there() -> None:
    used = payload(hits=7)
    assert misfits(payload(hits=8), payload()) and not misfits(payload(hits=8), payload(), Leeway().knowing(used))


def test_a_fitted_beam_spot_has_the_form_of_the_design() -> None:
    design = beamspot_payload.nominal(x=0.1)
    nothing = beamspot_payload.Measured.nothing()
    place = beamspot_payload.Measured(np.where(np.arange(8) < 2, 0.1, np.nan), np.diag(np.full(8, np.nan)))
    extra = {"events": 4, "scatter_constant": 0.1}
    fitted = beamspot_payload.combine(place, nothing, extra, None)
    assert np.isnan(fitted["width_x"]) and misfits(fitted, design, BeamSpot.leeway) == ()
    assert misfits(channel_status.all_good(4), design, BeamSpot.leeway)
