"""One run's way through the house: where it is, and what it goes by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.reduction import NodeReceipt
from pipeline.express import EVENTS, RunContext, express_products
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
    CERTIFIED = "certified"
    """all done"""
    STOPPED = "stopped"
    """a step could not be completed; the reason says what to do"""


Ends = tuple[Callable[[NodeReceipt], None], Callable[[str], None]]
"""what follows a job: where it is done, from its root; where it has failed, from the reason"""


@dataclass
class Way:
    """One run's way through the house."""

    context: RunContext
    units: NDArray[np.int64]
    """packed, sorted"""
    rules: Rules
    required: tuple[str, ...]
    deadline_at: float
    stage: Stage = Stage.EXPRESS
    manifest: Manifest | None = None
    prompt: str = ""
    """the job of its prompt, once released"""
    reasons: Mapping[str, str] = field(default_factory=dict)
    offered: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """by kind, payloads that a rule is against and that people may have published all the same"""
    canary: int | Fraction | None = None
    """how much of it tries the new conditions first: so many units, or a share; None for no canary"""
    wake_at: float | None = None
    began_at: float = 0.0
    seconds: dict[Stage, float] = field(default_factory=dict)
    """wall time spent in each stage"""

    @property
    def run(self) -> int:
        """Its run number."""
        return self.context.run

    @cached_property
    def products(self) -> dict[str, str]:
        """Everything express makes of it, by name, and the lineage each has."""
        return express_products(self.context)

    def status(self) -> dict[str, Any]:
        """Where it stands, as it is kept in the books."""
        return {
            "stage": self.stage.value,
            "reasons": dict(self.reasons),
            "offered": {kind: list(payloads) for kind, payloads in self.offered.items()},
            "wake_at": self.wake_at,
            "seconds": {stage.value: spent for stage, spent in self.seconds.items()},
            "express": self.products[EVENTS],
            "prompt": self.prompt,
        }

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it by itself."""
        return self.stage in (Stage.CERTIFIED, Stage.STOPPED)


@dataclass(frozen=True)
class News:
    """Something happened to a run, for whoever shows progress. `done` of `total` leaves of the stage."""

    run: int
    stage: Stage
    done: int = 0
    total: int = 0
    text: str = ""
