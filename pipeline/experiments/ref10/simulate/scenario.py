"""What is simulated: beam, physics and detector as settings, and the conditions that are true under them.

`truth` is what a perfect calibration would find in a lumisection, as payloads; `online` is what the DAQ believes.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from typing import Any, get_args, get_type_hints

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter, ValidationError

from calib.algorithms import beamspot_payload
from calib.iov import RunLumi
from calib.payload import Payload
from pipeline.experiments.ref10 import constants
from pipeline.experiments.ref10 import geometry as geometries
from pipeline.experiments.ref10.geometry import Geometry
from pipeline.experiments.ref10.layers import CHIP, LAYERS
from pipeline.experiments.ref10.running import Running
from pipeline.experiments.ref10.simulate.faults import Faults, Misalignment, When
from pipeline.experiments.ref10.simulate.spells import Spell, running
from pipeline.experiments.ref10.simulate.tables import Electronics, Tables, detector
from pipeline.mistakes import in_words

FIELD = constants.FIELD

DEAD, HOT = 1, 2
"""values of the true strip and pixel status, beside constants.GOOD"""


FARTHEST = 1.0
"""cm from the axis at which collisions may be: well inside the beam pipe"""


@dataclass(frozen=True)
class Region:
    """The luminous region of one lumisection: centre and widths [cm], slopes [rad]; x and y at z, widths at fixed z."""

    x: float
    y: float
    z: float
    width_x: float
    width_y: float
    sigma_z: float
    dxdz: float
    dydz: float

    def __post_init__(self) -> None:
        if not max(abs(self.x), abs(self.y)) <= FARTHEST or not min(self.width_x, self.width_y, self.sigma_z) >= 0:
            raise ValueError(f"beams meet within {FARTHEST:g} cm of the axis, with widths not negative: not at {self}")


@dataclass(frozen=True)
class Beam:
    """The luminous region and how it moves: x by `drift_um` each lumisection of a run, and `step_um` while `step`."""

    start: Region = Region(0.08, -0.04, 0.5, 15e-4, 15e-4, 4.0, 2e-4, -1e-4)
    drift_um: float = 1.5
    step_um: float = 40.0
    step: When = field(default_factory=lambda: When(from_lumi=12))

    def at(self, place: RunLumi) -> Region:
        """The luminous region of a lumisection."""
        moved = self.drift_um * place.lumi + self.step_um * self.step.holds(place)
        return replace(self.start, x=self.start.x + 1e-4 * moved)


@dataclass(frozen=True)
class Physics:
    """What collides: shares of the events, and numbers of vertices and tracks."""

    pile_up: float = 0.5
    """mean number of vertices beside the first"""
    tracks: float = 10.0
    """mean number of a minimum-bias vertex (negative binomial)"""
    z: float = 0.08
    """share of events with a Z to mu mu at the first vertex"""
    jpsi: float = 0.08
    nzs: float = 0.02
    """share of the minimum-bias events in which a part of the strips is read out without zero suppression"""

    def __post_init__(self) -> None:
        if min(self.pile_up, self.tracks, self.z, self.jpsi, self.nzs) < 0 or self.z + self.jpsi > 1 or self.nzs > 1:
            raise ValueError(f"shares must lie between 0 and 1 and numbers not be negative: {self}")


@dataclass(frozen=True)
class Scenario:
    """All settings of a simulation."""

    beam: Beam = field(default_factory=Beam)
    physics: Physics = field(default_factory=Physics)
    electronics: Electronics = field(default_factory=Electronics)
    faults: Faults = field(default_factory=Faults)
    misalignment: Misalignment = field(default_factory=Misalignment)
    tangents: tuple[float, float] = (0.40, 0.10)
    """tangent of the Lorentz angle in `field_tesla`, pixels and strips"""
    field_tesla: float = 3.8038
    spells: tuple[Spell, ...] = ()
    """times in which the detector is run otherwise"""
    first_run: int | None = None
    """the run from which pedestals drift; None: they do not"""

    @cached_property
    def by_layer(self) -> NDArray[np.float64]:
        """Tangent of the Lorentz angle of each layer in `field_tesla`."""
        return np.array([self.tangents[0 if layer.pixel else 1] for layer in LAYERS])

    def running(self, at: RunLumi) -> Running:
        """How the detector is run in a lumisection."""
        return running(self.spells, self.field_tesla, at)

    def lorentz(self, at: RunLumi) -> NDArray[np.float64]:
        """Tangent of the Lorentz angle of each layer in a lumisection: it goes with the field."""
        field = self.running(at).field_tesla
        return self.by_layer * (field / self.field_tesla) if field else np.zeros(len(LAYERS))

    def to_json(self) -> str:
        """As text that `from_json` reads."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str | bytes) -> Scenario:
        """What is not given has its default. Raises ValueError for a setting that does not exist or cannot be."""
        try:
            return _READER.validate_json(text)
        except ValidationError as fault:
            told = _not_json(fault) or "; ".join(in_words(fault, _names_in(cls) or {}))
            raise ValueError(f"this is no scenario of REF10: {told}") from fault


def _not_json(fault: ValidationError) -> str:
    """What is said of a text that is no JSON, or no table; empty for another fault."""
    first = fault.errors()[0]
    if first["type"] == "json_invalid":
        where = first["msg"].removeprefix("Invalid JSON: ")
        return f'it is not written in JSON, such as {{"physics": {{"pile_up": 2}}}}: {where}'
    return "" if first["loc"] else 'it is a table of tables, such as {"physics": {"pile_up": 2}}'


def _names_in(kind: Any) -> dict[str, Any] | None:
    """The settings that a dataclass, or what holds such ones, has below it; None for a plain value."""
    if is_dataclass(kind):
        return {name: _names_in(below) for name, below in get_type_hints(kind).items()}
    return next((found for one in get_args(kind) if (found := _names_in(one))), None)


def _strict(*kinds: type) -> None:
    """Let pydantic refuse what a dataclass does not know."""
    for kind in kinds:
        kind.__pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)  # type: ignore[attr-defined]


_strict(Scenario, Beam, Region, Physics, Electronics, Faults, Misalignment, Spell, When)
_READER = TypeAdapter(Scenario)


def tables_of(scenario: Scenario, geometry: Geometry, seed: int) -> Tables:
    """The detector of a seed as it was built; kept, so that asking again costs nothing."""
    return detector(scenario.electronics, scenario.faults, scenario.misalignment, geometry, seed)


def truth(scenario: Scenario, geometry: Geometry, seed: int, run: int, lumi: int) -> dict[str, Payload]:
    """The true conditions of a lumisection by kind: what a perfect calibration would find.

    Kinds: geometry, alignment, pedestal (mean and noise), gain, lorentz_angle, strip_status, pixel_status, field
    [tesla] and beamspot.
    """
    at = RunLumi(run, lumi)
    tables = tables_of(scenario, geometry, seed)
    faults = scenario.faults
    strips = np.zeros(len(tables.dead), np.int8)
    if faults.dead.holds(at):
        strips[tables.dead] = DEAD
    if faults.hot.holds(at):
        strips[tables.hot] = HOT
    payloads = (
        _geometry(geometry),
        tables.alignment,
        constants.pedestal(true_pedestal(scenario, tables, at), tables.noise),
        constants.gain(tables.gain),
        constants.lorentz_angle(scenario.lorentz(at), scenario.running(at).field_tesla),
        constants.strip_status(strips),
        constants.pixel_status(np.where(tables.dead_roc & faults.dead_roc.holds(at), DEAD, constants.GOOD)),
        constants.field(scenario.running(at).field_tesla),
        beamspot_payload.nominal(**asdict(scenario.beam.at(at))),
    )
    return {payload.kind: payload for payload in payloads}


def online(scenario: Scenario, geometry: Geometry, seed: int) -> Payload:
    """Pedestals and noise as the DAQ has them: from before pedestals moved."""
    tables = tables_of(scenario, geometry, seed)
    return constants.pedestal(tables.pedestal, tables.noise)


def true_pedestal(scenario: Scenario, tables: Tables, at: RunLumi) -> NDArray[np.float64]:
    """The pedestal of each strip in a lumisection [ADC]: as built, drifted since the first run, and shifted."""
    runs = 0 if scenario.first_run is None else at.run - scenario.first_run
    moved = runs * tables.drift.astype(np.float64)
    if scenario.faults.shifted.holds(at):
        moved += np.repeat(tables.shifted, CHIP) * scenario.faults.pedestal_shift * tables.noise
    return np.asarray(tables.pedestal + moved, np.float64)


def _geometry(geometry: Geometry) -> Payload:
    arrays: dict[str, Any] = {part.name: getattr(geometry, part.name) for part in fields(Geometry)}
    return Payload(geometries.KIND, {name: np.asarray(values) for name, values in arrays.items()}, geometries.UNITS)
