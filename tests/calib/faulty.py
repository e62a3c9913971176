"""Calibrations with a fault in them: a sign the wrong way round, and a constant applied twice.

A class for each kind and fault is two words: `class FlippedGain(Flipped, Gain)`, with `SPOILS` below saying which
arrays are constants, and what they are corrections of.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from calib.algorithms.alignment import Alignment
from calib.algorithms.beamspot import BeamSpot
from calib.algorithms.channel_status import ChannelStatus
from calib.algorithms.gain import Gain
from calib.algorithms.lorentz_angle import LorentzAngle
from calib.algorithms.occupancy_flags import Status
from calib.algorithms.occupancy_status import OccupancyStatus
from calib.algorithms.pedestal import Pedestal
from calib.payload import Payload


@dataclass(frozen=True)
class Spoils:
    """The arrays of a payload that a fault goes into. They are counted from the payload before (a correction of it) or
    from `zero`."""

    arrays: tuple[str, ...]
    from_before: bool = False
    zero: float = 0.0


SPOILS: Mapping[str, Spoils] = {
    "beamspot": Spoils(("x", "y", "z", "dxdz", "dydz")),
    "pedestal": Spoils(("mean",), from_before=True),
    "gain": Spoils(("gain",), zero=1.0),
    "lorentz_angle": Spoils(("tan",)),
    "alignment": Spoils(("half_barrel", "ladder", "module"), from_before=True),
    **dict.fromkeys(("channel_status", "strip_status", "pixel_status"), Spoils(("status",))),
}


NOISE = Spoils(("noise",), from_before=True)


def spoiled(payload: Payload, before: Payload | None, times: float, how: Spoils | None = None) -> Payload:
    """The payload with so many times what it says, counted from where its kind counts from."""
    how = how or SPOILS[payload.kind]
    arrays = dict(payload.arrays)
    for name in how.arrays:
        start = np.float64(how.zero) if not how.from_before or before is None else before[name].astype(np.float64)
        arrays[name] = (start + times * (payload[name].astype(np.float64) - start)).astype(payload[name].dtype)
    return Payload(payload.kind, arrays, payload.units)


class Flipped:
    """Every constant has the wrong sign."""

    def finalize(self, state, previous):
        return spoiled(super().finalize(state, previous), previous, -1.0)


class Doubled:
    """Every constant is there twice."""

    def finalize(self, state, previous):
        return spoiled(super().finalize(state, previous), previous, 2.0)


class FlippedBeamSpot(Flipped, BeamSpot):
    """A beam spot with a fault."""


class DoubledBeamSpot(Doubled, BeamSpot):
    """A beam spot with a fault."""


class FlippedPedestal(Flipped, Pedestal):
    """Pedestals with a fault."""


class DoubledPedestal(Doubled, Pedestal):
    """Pedestals with a fault."""


class FlippedNoise(Pedestal):
    """Pedestals whose noise has gone the wrong way; their means are right."""

    def finalize(self, state, previous):
        return spoiled(super().finalize(state, previous), previous, -1.0, NOISE)


class DoubledNoise(Pedestal):
    """Pedestals whose noise has gone twice as far; their means are right."""

    def finalize(self, state, previous):
        return spoiled(super().finalize(state, previous), previous, 2.0, NOISE)


class FlippedGain(Flipped, Gain):
    """Gains with a fault."""


class DoubledGain(Doubled, Gain):
    """Gains with a fault."""


class FlippedLorentzAngle(Flipped, LorentzAngle):
    """Lorentz angles with a fault."""


class DoubledLorentzAngle(Doubled, LorentzAngle):
    """Lorentz angles with a fault."""


class FlippedAlignment(Flipped, Alignment):
    """An alignment with a fault."""


class DoubledAlignment(Doubled, Alignment):
    """An alignment with a fault."""


class FlippedCodes:
    """What is good is called dead, and what is bad is called good."""

    def finalize(self, state, previous):
        found = super().finalize(state, previous)
        return Payload(found.kind, {**found.arrays, "status": (found["status"] == 0).astype(np.int8)}, found.units)


class OneDeadGroup:
    """The group of channels with most hits is called dead."""

    def finalize(self, state, previous):
        found = super().finalize(state, previous)
        status = found["status"].copy()
        most = int(np.argmax(found["counts"].reshape(-1, self.group).sum(axis=1)))
        status.reshape(-1, self.group)[most] = Status.DEAD_GROUP
        return Payload(found.kind, {**found.arrays, "status": status}, found.units)


class FlippedStatus(FlippedCodes, OccupancyStatus):
    """Status with a fault."""


class DoubledStatus(Doubled, OccupancyStatus):
    """Every flag is that of another fault."""


class FlippedCounting(FlippedCodes, ChannelStatus):
    """Status, by channels that count often, with a fault."""


class DoubledCounting(Doubled, ChannelStatus):
    """What is dead is called noisy, and what is noisy has a code that there is not."""


FAULTS: Mapping[str, Callable[..., object]] = {
    "flipped beamspot": FlippedBeamSpot,
    "doubled beamspot": DoubledBeamSpot,
    "flipped pedestal": FlippedPedestal,
    "doubled pedestal": DoubledPedestal,
    "flipped noise": FlippedNoise,
    "doubled noise": DoubledNoise,
    "flipped gain": FlippedGain,
    "doubled gain": DoubledGain,
    "flipped lorentz_angle": FlippedLorentzAngle,
    "doubled lorentz_angle": DoubledLorentzAngle,
    "flipped alignment": FlippedAlignment,
    "doubled alignment": DoubledAlignment,
    "flipped surveyed_alignment": FlippedAlignment,
    "doubled surveyed_alignment": DoubledAlignment,
    "flipped channel_status": FlippedStatus,
    "doubled channel_status": DoubledStatus,
    "flipped counting_channels": FlippedCounting,
    "doubled counting_channels": DoubledCounting,
}
