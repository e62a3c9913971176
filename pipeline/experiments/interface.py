"""What a user writes to run an experiment: how to read, process, calibrate and judge its events."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from calib.calibration import Calibration
from calib.payload import Payload
from jobs.retry import BadData
from pipeline.model import Columns, EventSource, Keys, Step, Stream


class MissingBranch(BadData):
    """A file lacks a column that a step cannot do without."""


class ExperimentSettings(BaseModel):
    """Settings of an experiment's own, section `[experiment.settings]`; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Wanted:
    """The columns a step reads from a file, and what it would have liked but the file has not (name to reason)."""

    columns: tuple[str, ...]
    absent: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Processed:
    """What a step makes of some events.

    `filtered`: reason to bool[n] over the events given; an event counts under the first reason that has it.
    `tiers`: tier to output columns of the events kept, in their order; `run`, `lumi`, `event` are added to each.
    `measured`: columns of the events kept that calibrations and quality histograms read (never written).
    """

    tiers: Mapping[str, Columns]
    measured: Columns
    filtered: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)


@dataclass(frozen=True)
class Restart:
    """A tier that a step can start from again where no conditions have changed but those that act behind it: files of
    it that an earlier pass has left are then read instead of RAW.

    Not for a step that measures what no tier holds, unless it is for calibrations that it says it `lacks`; nor where
    one of the kinds decides which events are filtered or bad: a tier has nothing of those.
    """

    tier: str
    kinds: tuple[str, ...]
    """the kinds of conditions that act only behind the tier"""
    again: Callable[[Columns, Mapping[str, Payload]], Processed]
    """what is left to do, on events of the tier as they come back from its files, `run`, `lumi` and `event` among the
    columns: it makes to the last bit the tiers and measured columns that `process` makes, and filters nothing"""
    lacks: tuple[str, ...] = ()
    """calibrations of which the tier has not all that they read: only passes for others start from it, and of measured
    columns it may leave out those of these"""


@dataclass(frozen=True)
class QualityHistogram:
    """A histogram filled for each unit from a measured column (flattened where jagged)."""

    name: str
    """of its own in a step, and without a "/": by it what was filled is stored"""
    column: str
    edges: tuple[float, ...]
    """bin edges, rising"""
    unit: str
    """of the column: cm, GeV, Hz, ..."""
    title: str = ""


@dataclass(frozen=True)
class QualityTest:
    """A judgement on a histogram of one unit: its mean must lie within [low, high], on at least `entries` entries.

    `share_inside` > 0 asks instead that this share of the entries lies within [low, high]. With fewer entries the
    test says nothing.
    """

    name: str
    histogram: str
    low: float
    high: float
    entries: int = 1
    share_inside: float = 0.0


class Measure(StrEnum):
    """What a figure of merit takes from a histogram; the smaller it is, the better."""

    OFFSET = "offset"
    """how far the mean is from `target`"""
    WIDTH = "width"
    """half of the range that holds the central 68 %"""
    LOSS = "loss"
    """the share of the entries that is gone"""


@dataclass(frozen=True)
class Merit:
    """What tells better conditions from worse ones: a figure of a histogram of prompt, over the same events.

    `tolerance` is how much worse may pass for the same, in the unit of the histogram (of a loss: a share). With fewer
    than `entries` entries it says nothing.
    """

    name: str
    histogram: str
    measure: Measure
    tolerance: float
    target: float = 0.0
    entries: int = 100


def _none_fired(_: Columns) -> Mapping[str, NDArray[np.bool_]]:
    return {}


@dataclass(frozen=True)
class Triggers:
    """The triggers that events are put into datasets by; as it is, none."""

    names: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    """what `fired` reads"""
    fired: Callable[[Columns], Mapping[str, NDArray[np.bool_]]] = _none_fired
    """which of the events fired each of them, bool[n]; whether an event did must not depend on its neighbours"""


class Experiment(ABC):
    """The plug-in. Pure: it reads only through the source it is given and keeps nothing between calls."""

    name: ClassVar[str]
    unit_name: ClassVar[str] = "lumisection"
    """what the experiment calls the unit below the run"""
    tree: ClassVar[str]
    """the tree that holds the events"""
    versions: ClassVar[Mapping[Step, int]]
    """raised by hand when a step would give another result on the same input"""
    settings_model: ClassVar[type[ExperimentSettings]] = ExperimentSettings
    triggers: ClassVar[Triggers] = Triggers()
    """none if it has no such thing"""
    tiers: ClassVar[tuple[str, ...] | None] = None
    """the tiers that prompt makes; settings that ask for another are refused. None if it does not say"""
    default_tiers: ClassVar[tuple[str, ...] | None] = None
    """the tiers that express writes, and prompt where the settings name none; None for all"""
    default_gates: ClassVar[Mapping[str, tuple[dict[str, Any], ...]]] = {}
    """kind to the gates of its payloads, as tables of the settings, where these name none for it"""
    judging: ClassVar[frozenset[str]] = frozenset()
    """names of settings that only the quality tests look at: changing them redoes no event"""

    def __init__(self, settings: Any = None) -> None:
        """Raises pydantic's ValidationError, naming the key, for settings it does not know."""
        given = settings.model_dump() if isinstance(settings, BaseModel) else dict(settings or {})
        self.settings = self.settings_model.model_validate(given)

    def step_settings(self) -> dict[str, Any]:
        """The settings that what a step makes depends on, as JSON."""
        return self.settings.model_dump(mode="json", exclude=set(self.judging))

    @abstractmethod
    def identify(self, source: EventSource, start: int, stop: int) -> Keys:
        """Run, unit and event number of these entries. Raises MissingBranch."""

    @abstractmethod
    def wanted(self, step: Step, branches: frozenset[str]) -> Wanted:
        """The columns a step needs of a file with these branches. Raises MissingBranch naming what it must have."""

    @abstractmethod
    def process(self, step: Step, events: Columns, conditions: Mapping[str, Payload]) -> Processed:
        """Do one step on events that share their conditions. An event's result must not depend on its neighbours."""

    def restarts(self, step: Step) -> tuple[Restart, ...]:
        """The tiers that a step can start from, the one with the least left to do first."""
        return ()

    @abstractmethod
    def calibrations(self) -> tuple[Calibration, ...]:
        """The calibrations of the experiment, with its default settings."""

    def stream(self, path: Path) -> Stream:
        """Which stream a file is of, by its name or folder; of an experiment without an express stream all are
        physics."""
        return Stream.PHYSICS

    def needs(self, step: Step) -> tuple[str, ...]:
        """Kinds of conditions without which a step must not run."""
        return ()

    def initial_conditions(self) -> Mapping[str, Payload]:
        """Payloads to start from, uploaded before the first run if their tags are empty."""
        return {}

    def histograms(self, step: Step) -> tuple[QualityHistogram, ...]:
        """What certification looks at."""
        return ()

    def quality_tests(self) -> tuple[QualityTest, ...]:
        """How the histograms of prompt are judged, unit by unit."""
        return ()

    def merits(self) -> tuple[Merit, ...]:
        """What tells better conditions from worse ones, for a canary and for what-if."""
        return ()
