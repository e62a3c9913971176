"""How the detector was run in a lumisection, as the DAQ records it: class of the run, field, status bits."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class RunClass(StrEnum):
    """What a run was taken for."""

    COLLISIONS = "collisions"
    COSMICS = "cosmics"
    COMMISSIONING = "commissioning"


class Status(StrEnum):
    """What must be so for a lumisection to count, in the order of its status bits."""

    STABLE_BEAMS = "stable_beams"
    MAGNET_ON = "magnet_on"
    PIXELS_ON = "pixels_on"
    """the high voltage of their sensors"""
    STRIPS_ON = "strips_on"


@dataclass(frozen=True)
class Running:
    """One lumisection."""

    run_class: RunClass
    field_tesla: float
    """along +z; 0 when the magnet is off"""
    on: frozenset[Status]

    @property
    def status(self) -> dict[str, bool]:
        """The status bits by name."""
        return {bit.value: bit in self.on for bit in Status}
