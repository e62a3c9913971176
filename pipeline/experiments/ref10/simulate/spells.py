"""Times in which the simulated detector is run otherwise: beams or voltages off, no field, runs of another class."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from calib.iov import RunLumi
from pipeline.experiments.ref10.running import RunClass, Running, Status
from pipeline.experiments.ref10.simulate.faults import When


@dataclass(frozen=True)
class Spell:
    """What is otherwise while `when` holds; None: as before. Of two at a time the later in the list prevails.

    Without stable beams nothing collides; sensors without high voltage collect no charge, so that of pixels nothing is
    left and of strips their noise, hot ones included; without magnet tracks are straight and charge does not drift
    sideways. The class of a run changes its record and nothing else: cosmic rays are not simulated. Raises ValueError
    for a class that is not one of whole runs.
    """

    when: When
    off: tuple[Status, ...] = ()
    run_class: RunClass | None = None
    field_tesla: float | None = None

    def __post_init__(self) -> None:
        if self.run_class is not None and not self.when.of_whole_runs:
            raise ValueError(f"a run has one class: {self.run_class} must begin and end with a run, not at {self.when}")


def running(spells: Iterable[Spell], field_tesla: float, at: RunLumi) -> Running:
    """How the detector is run in a lumisection, in `field_tesla` if no spell says otherwise."""
    now = [spell for spell in spells if spell.when.holds(at)]
    run_class, field = RunClass.COLLISIONS, field_tesla
    for spell in now:
        run_class = spell.run_class or run_class
        field = field if spell.field_tesla is None else spell.field_tesla
    off = {bit for spell in now for bit in spell.off}
    if Status.MAGNET_ON in off or field == 0:
        off, field = off | {Status.MAGNET_ON}, 0.0
    return Running(run_class, field, frozenset(Status) - off)
