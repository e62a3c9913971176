"""One run's way through the house: where it is, and what it goes by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jobs.job import Job
from jobs.reduction import NodeReceipt
from pipeline.datasets import WHOLE, Dataset
from pipeline.express import EVENTS, RunContext, StateFile, express_products
from pipeline.handshake import Rules
from pipeline.manifest import Manifest


class Stage(StrEnum):
    """Where a run is."""

    SIMULATION = "simulation"
    """its data are being made"""
    EXPRESS = "express"
    CONDITIONS = "conditions"
    """its calibrations are finalized, judged, or waited for"""
    PROMPT = "prompt"
    DONE = "done"
    """of a dataset: its prompt is, and the run is certified when that of the others is too"""
    CERTIFIED = "certified"
    """all done"""
    STOPPED = "stopped"
    """a step could not be completed; the reason says what to do"""


Ends = tuple[Callable[[NodeReceipt], None], Callable[[str], None]]
"""what follows a job: where it is done, from its root; where it has failed, from the reason"""


ORDER = (Stage.EXPRESS, Stage.CONDITIONS, Stage.PROMPT, Stage.STOPPED, Stage.DONE, Stage.CERTIFIED)
"""the stages of datasets: a run is where the first of them is that one of its datasets is in"""


@dataclass
class Part:
    """What goes through the handshake and prompt on its own: a dataset of a run, or the run where it is one."""

    rules: Rules
    required: tuple[str, ...]
    deadline_at: float
    dataset: Dataset = WHOLE
    canary: int | Fraction | None = None
    """how much of it tries the new conditions first: so many units, or a share; None for no canary"""
    stage: Stage = Stage.EXPRESS
    manifest: Manifest | None = None
    prompt: str = ""
    """the job of its prompt, once released"""
    done: Done | None = None
    """its prompt, once that is done"""
    reasons: Mapping[str, str] = field(default_factory=dict)
    offered: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """by kind, payloads that a rule is against and that people may have published all the same"""
    wake_at: float | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it by itself."""
        return self.stage in (Stage.DONE, Stage.CERTIFIED, Stage.STOPPED)

    def status(self) -> dict[str, Any]:
        """Where it stands, as JSON."""
        return {
            "stage": self.stage.value,
            "reasons": dict(self.reasons),
            "offered": {kind: list(payloads) for kind, payloads in self.offered.items()},
            "wake_at": self.wake_at,
            "prompt": self.prompt,
        }


class Done(NamedTuple):
    """A job that is completed, and its root."""

    job: Job
    root: NodeReceipt


@dataclass
class Way:
    """One run's way through the house."""

    context: RunContext
    units: NDArray[np.int64]
    """packed, sorted"""
    parts: tuple[Part, ...]
    """in the order in which they are looked at"""
    began_at: float = 0.0
    seconds: dict[Stage, float] = field(default_factory=dict)
    """wall time spent in each stage"""
    states: dict[str, StateFile] = field(default_factory=dict)
    """by kind that may need a later pass, the state that its conditions are made from"""

    @property
    def run(self) -> int:
        """Its run number."""
        return self.context.run

    @cached_property
    def products(self) -> dict[str, str]:
        """Everything express makes of it, by name, and the lineage each has."""
        return express_products(self.context)

    @property
    def stage(self) -> Stage:
        """Where it is: where the hindmost of its datasets is."""
        return min((part.stage for part in self.parts), key=ORDER.index)

    @property
    def undecided(self) -> list[Part]:
        """What is not released."""
        return [part for part in self.parts if part.manifest is None]

    def waited_for(self, kind: str) -> float:
        """Until when others wait for a kind of it: to the last deadline of those that require it."""
        return max(part.deadline_at for part in self.parts if kind in part.required or self._nobody_needs(kind))

    def _nobody_needs(self, kind: str) -> bool:
        return not any(kind in part.required for part in self.parts)

    @property
    def reasons(self) -> dict[str, str]:
        """Why it stands where it stands, by kind; said of which of its datasets where it has several."""
        return together({part.dataset.name: part.reasons for part in self.parts})

    @property
    def wake_at(self) -> float | None:
        """When to look at it again though nothing happens; None for never."""
        return min((part.wake_at for part in self.parts if part.wake_at is not None), default=None)

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it by itself."""
        return all(part.ended for part in self.parts)

    def status(self) -> dict[str, Any]:
        """Where it stands, as it is kept in the books: with where each of its datasets stands, if it has several."""
        rows = {part.dataset.name: part.status() for part in self.parts}
        several = len(self.parts) > 1
        offered: dict[str, dict[str, None]] = {}
        for row in rows.values():
            for kind, payloads in row["offered"].items():
                offered.setdefault(kind, {}).update(dict.fromkeys(payloads))
        return {
            "stage": self.stage.value,
            "reasons": self.reasons,
            "offered": {kind: list(payloads) for kind, payloads in offered.items()},
            "wake_at": self.wake_at,
            "seconds": {stage.value: spent for stage, spent in self.seconds.items()},
            "express": self.products[EVENTS],
            "prompt": "" if several else self.parts[0].prompt,
            **({"datasets": rows} if several else {}),
        }


def together(reasons: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Reasons of datasets in one, by what they are about: with the names of those that give each, if there are several.

    >>> together({"Muon": {"beamspot": "too few"}, "Rest": {"beamspot": "too few", "pedestal": "open"}})
    {'beamspot': 'Muon, Rest: too few', 'pedestal': 'Rest: open'}
    """
    if len(reasons) == 1:
        return dict(*reasons.values())
    given: dict[str, dict[str, list[str]]] = {}
    for name, found in reasons.items():
        for what, reason in found.items():
            given.setdefault(what, {}).setdefault(reason, []).append(name)
    return {
        what: "; ".join(f"{', '.join(names)}: {reason}" for reason, names in said.items())
        for what, said in given.items()
    }


@dataclass(frozen=True)
class News:
    """Something happened to a run, for whoever shows progress. `done` of `total` leaves of the stage."""

    run: int
    stage: Stage
    done: int = 0
    total: int = 0
    text: str = ""
