"""The tables of a settings file, each with its defaults. What is not known is refused."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.quantities import Seconds, Share, Size

Table = dict[str, Any]
Positive = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A table: frozen, strict, and closed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ExperimentSection(Section):
    """Which experiment; `settings` are its own."""

    name: str
    settings: Table = {}


class StorageSection(Section):
    """Where everything is kept. Paths in a file count from the folder of the file."""

    area: str = "tier0-area"
    database: str | None = None
    """a path on a local disk, or a PostgreSQL URL; `tier0.db` in the area if not set"""


class ExpressSection(Section):
    """What express takes."""

    fraction: Share = Fraction(1)
    """event e of a run is express if `e * p mod q < p`, for the share p/q"""
    largest_state: Size = 1_000_000_000
    """bytes that the joined state of one calibration may have: one that grows with the units is refused beyond"""


class SplittingSection(Section):
    """How much one task takes: whole units up to a size. Never shows in a result."""

    events: Positive = 5000
    bytes: Size | None = None
    units: Positive | None = None
    block_events: Positive = 1000
    """a unit larger than a chunk may be is cut into blocks of so many events"""
    fan_in: Annotated[int, Field(ge=2)] = 16
    """how many chunks one branch joins"""


class HandshakeSection(Section):
    """When a run's prompt is released."""

    required: tuple[str, ...] | None = None
    """kinds the manifest must have; if not set, all that the experiment calibrates or prompt needs"""
    deadline: Seconds = 172800.0
    """after first sight of the run"""
    span: Literal["wait", "carry", "later"] = "wait"
    """what a run does while an interval that spans runs is open: `wait`, to the deadline; `carry`, go on with the
    payload in force, and what is made later comes too late for it; `later`, the same, and what is made is for runs to
    come only"""
    feeds_express: tuple[str, ...] = ()
    """kinds whose payloads go on to express, from the next run that has not started"""
    max_carried_runs: Annotated[int, Field(ge=0)] = 10
    failed: Literal["wait", "fallback"] = "wait"
    """whether a kind whose fit failed or was rejected waits for the deadline"""

    @property
    def deadline_s(self) -> float:
        """The deadline in seconds after the first sight of the run."""
        return self.deadline


class ConditionsSection(Section):
    """How conditions begin."""

    initial: bool = True
    """enter the experiment's design values where a tag is empty"""


class CertifySection(Section):
    """How runs are certified."""

    mask: str | None = None
    """a certification file in CMS's format; what it has not is not good"""


class ClosureSection(Section):
    """After prompt, calibrations are made again of what it measured, and must find no change."""

    sigmas: Annotated[float, Field(gt=0, le=30)] = 3.0
    """a change beyond is one; of many numbers, what is as rare for the largest of them"""
    least: dict[str, dict[str, Annotated[float, Field(ge=0)]]] = {}
    """kind to array to what never counts, in the unit of the payload, instead of what its calibration tolerates"""
    then: Literal["ask", "bad", "note"] = "ask"
    """what becomes of units whose conditions do not close: a person is asked, and until then they are not in the
    good-run list; they are bad; or it is noted, no more"""


class PromptSection(Section):
    """What prompt writes."""

    tiers: tuple[str, ...] | None = None
    """those of the experiment's own choice if not set: all, or its `default_tiers`"""


class CanarySection(Section):
    """The first part of a run, done in prompt under the conditions in force and the new ones before it is released;
    neither set: there is none."""

    units: Positive | None = None
    """so many units, the first of those whose conditions change"""
    share: Share | None = None
    """or such a share of the run's events"""

    @model_validator(mode="after")
    def _one(self) -> CanarySection:
        if self.units is not None and self.share is not None:
            raise ValueError("say `units` or `share`, not both")
        return self

    @property
    def part(self) -> int | Fraction | None:
        """How much of a run; None for no canary."""
        return self.share if self.units is None else self.units


class DatasetSection(Section):
    """A primary dataset `[datasets.NAME]`: which events, and when their prompt is released. What is not set is as in
    [handshake] and [canary]."""

    triggers: tuple[str, ...] = ()
    """an event that fired one of them is in it; one without triggers takes what no other takes"""
    required: tuple[str, ...] | None = None
    """kinds its manifest must have; all that prompt needs are among them"""
    deadline: Seconds | None = None
    """after first sight of the run"""
    max_carried_runs: Annotated[int, Field(ge=0)] | None = None
    failed: Literal["wait", "fallback"] | None = None
    canary: CanarySection | None = None


class ShadowSection(Section):
    """A candidate that runs beside production and publishes nothing, `[shadow.NAME]`."""

    kind: str
    calibration: Table = {}
    """settings of its finalize that differ from production's"""
    gates: tuple[Table, ...] | None = None
    """its gates; those of production if not set"""
    algorithm: str = ""
    """another class for the calibration, `module:Class`, that reads the same states"""


class Override(Section):
    """Other values for some runs, a table `[[for]]`: `runs`, or `era` as named in `[eras]`, and what differs."""

    runs: str | None = None
    era: str | None = None
    express: Table = {}
    splitting: Table = {}
    calibration: Table = {}
    gates: Table = {}
    handshake: Table = {}
    canary: Table = {}

    def changes(self) -> Table:
        """The values that differ, by section."""
        return {name: table for name, table in self.model_dump(exclude={"runs", "era"}).items() if table}
