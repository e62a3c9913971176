"""Which tiers prompt writes: those that the settings name, or those that are the experiment's own choice. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipeline.datasets import not_among

if TYPE_CHECKING:
    from pipeline.experiments.interface import Experiment

Tiers = tuple[str, ...] | None
"""None for all"""


def tiers_of(named: Tiers, experiment: Experiment) -> Tiers:
    """The tiers that prompt writes where the settings name these, or None."""
    return experiment.default_tiers if named is None else named


def wrong_tiers(named: Tiers, experiment: Experiment) -> Iterator[str]:
    """What is wrong with `prompt.tiers` for an experiment, in words; nothing where it does not say what it makes."""
    if experiment.tiers is not None:
        yield from not_among(named or (), experiment.tiers, "prompt.tiers", "tier")
