"""What an experiment gives that can play its own detector: data of runs, file by file, and the truth beside them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from calib.iov import IOV, RunLumi
from calib.payload import Payload
from jobs.reduction import FileRecord
from pipeline.experiments.interface import Experiment

Probe = Callable[[str], None]


class NotSimulated(LookupError):
    """The experiment has no simulation."""


class BadOrder(ValueError):
    """An order that cannot be carried out; the message says what is wrong with it."""


class OtherData(ValueError):
    """A folder holds data of another order."""


SEEDS = 2**64


@dataclass(frozen=True)
class Order:
    """What is to be simulated. Raises BadOrder for numbers that cannot be."""

    seed: int = 1
    lumis: int = 12
    """lumisections of a run"""
    events: int = 500
    """of a lumisection"""
    form: str = ""
    """how files are written, where the experiment has a choice; its first one unless said"""
    scenario: str = ""
    """JSON of the experiment's own: beam, physics, detector; its own standard unless said"""

    def __post_init__(self) -> None:
        if self.lumis < 1:
            raise BadOrder(f"a run has at least one lumisection, not {self.lumis}")
        if self.events < 0:
            raise BadOrder(f"a lumisection has no negative number of events, as {self.events} is")
        if not 0 <= self.seed < SEEDS:
            raise BadOrder(f"a seed is a whole number from 0 to {SEEDS - 1}, not {self.seed}")


@dataclass(frozen=True)
class Written:
    """What was written of one lumisection: event files and others, its end-of-lumi record, and its events."""

    events: tuple[FileRecord, ...]
    others: tuple[FileRecord, ...]
    record: Mapping[str, Any]


class Simulation(ABC):
    """A detector at work. Pure but for the files it writes: the same order gives the same data, whoever asks."""

    order: Order

    @abstractmethod
    def depends_on(self) -> Mapping[str, Any]:
        """All that the data depend on, beside run and lumisection; as JSON."""

    @abstractmethod
    def begin(self, folder: Path, probe: Probe) -> None:
        """Write what is there before the first run: how the detector is set up, what the truth is."""

    @abstractmethod
    def write(self, at: RunLumi, folder: Path, probe: Probe) -> Written:
        """Write one lumisection, every file whole."""

    @abstractmethod
    def end_run(self, run: int, folder: Path, records: Sequence[Mapping[str, Any]], probe: Probe) -> None:
        """Close a run of which all lumisections are written; `records` are theirs, in order."""


@dataclass(frozen=True)
class Upload:
    """A payload that is brought in by hand, as `tier0 conditions upload` would, before any run is processed."""

    kind: str
    file: Path
    reason: str
    since: str = "0"
    """run or run:lumisection from which on it holds"""


@dataclass(frozen=True)
class Found:
    """What the chain made of the runs of a demonstration."""

    conditions: Mapping[str, Sequence[tuple[IOV, Payload]]]
    """the intervals of each of the `kinds`, in order"""
    outputs: Mapping[int, Sequence[Path]]
    """of each run the files of the `tier` that prompt wrote"""

    def at(self, kind: str, moment: RunLumi) -> Payload:
        """The payload in force. Raises LookupError where there is none."""
        for interval, payload in self.conditions[kind]:
            if interval.contains(moment):
                return payload
        raise LookupError(f"no payload of kind {kind} holds at {moment}")


@dataclass(frozen=True)
class Comparison:
    """What was put in and what was found."""

    text: str
    """as a table"""
    wrong: tuple[str, ...]
    """what does not agree, in words"""
    draw: Callable[[Path], None]
    """writes a picture of it"""


class Demonstration(ABC):
    """A small example of the whole chain whose truth is known."""

    title: ClassVar[str]
    """one line: what is simulated, and what is to be found"""
    settings: ClassVar[Mapping[str, Any]]
    """sections of the settings beside storage and cluster"""
    runs: ClassVar[tuple[int, ...]]
    order: ClassVar[Order]
    kinds: ClassVar[tuple[str, ...]]
    """of the conditions that are compared"""
    tier: ClassVar[str]
    """of the output that is compared"""

    def uploads(self, data: Path) -> tuple[Upload, ...]:
        """What is known beside what is found, once the runs are simulated to `data`."""
        return ()

    @abstractmethod
    def compared(self, data: Path, found: Found) -> Comparison:
        """What was put in, by the truth in `data`, against what was found."""


class Simulated(Experiment):
    """An experiment that can play its own detector."""

    @abstractmethod
    def simulation(self, order: Order) -> Simulation:
        """Its detector, played. Raises ValueError for an order that cannot be."""

    @classmethod
    @abstractmethod
    def demonstration(cls) -> Demonstration:
        """A small example of the whole chain."""


def simulation_of(experiment: Experiment, order: Order) -> Simulation:
    """The detector of an experiment, played. Raises NotSimulated, and BadOrder for an order that cannot be."""
    if not isinstance(experiment, Simulated):
        raise NotSimulated(f"{experiment.name} has no simulation: its data come from its own detector")
    try:
        return experiment.simulation(order)
    except ValueError as problem:
        raise BadOrder(str(problem)) from problem


def demonstration_of(experiment: type[Experiment]) -> Demonstration:
    """The small example of an experiment. Raises NotSimulated."""
    if not issubclass(experiment, Simulated):
        raise NotSimulated(f"{experiment.name} has no demonstration; `tier0 demo` without a name has")
    return experiment.demonstration()
