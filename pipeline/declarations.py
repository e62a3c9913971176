"""The kinds that an experiment declares, and what it and the settings have wrong, held together. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from calib.graph import wrong_order
from pipeline.datasets import not_among, wrong_datasets
from pipeline.model import Step
from pipeline.tiers import wrong_tiers

if TYPE_CHECKING:
    from pipeline.experiments.interface import Experiment
    from pipeline.settings import Settings


def wrong_declarations(settings: Settings, experiment: Experiment) -> Iterator[str]:
    """What is wrong with these settings for an experiment, and with the experiment, in words."""
    yield from wrong_datasets(settings.datasets, experiment)
    yield from wrong_tiers(settings.prompt.tiers, experiment)
    yield from wrong_histograms(experiment)
    yield from wrong_calibrations(experiment)
    calibrated = [calibration.kind for calibration in experiment.calibrations()]
    yield from not_among(settings.closure.least, calibrated, "closure.least", "kind that is calibrated")
    yield from wrong_tolerances(settings, experiment)


def wrong_tolerances(settings: Settings, experiment: Experiment) -> Iterator[str]:
    """Which arrays that are to be tolerated something no payload of their kind can have, in words."""
    asked = {kind: table for kind, table in settings.closure.least.items() if table}
    start = experiment.initial_conditions() if asked else {}
    for calibration in experiment.calibrations():
        kind = calibration.kind
        if kind in asked and kind in start:
            there = dict.fromkeys(["status", *sorted({*start[kind].arrays, *calibration.leeway.more})])
            yield from not_among(asked[kind], there, f"closure.least.{kind}", "array")


def wrong_calibrations(experiment: Experiment) -> Iterator[str]:
    """What is wrong with an experiment's calibrations together, in words: their kinds and their order."""
    made = experiment.calibrations()
    for kind, times in Counter(calibration.kind for calibration in made).items():
        if times > 1:
            yield (
                f"`experiment.name`: {experiment.name} has {times} calibrations of {kind}, of which only the last "
                "would be made: give each a kind of its own, or try one as a [shadow]"
            )
    known = {kind for step in Step for kind in experiment.needs(step)}.union(
        experiment.initial_conditions(), *(calibration.uses for calibration in made)
    )
    wrong = wrong_order({calibration.kind: calibration.after for calibration in made}, known)
    yield from (f"`experiment.name`: of {experiment.name}, {words}" for words in wrong)


def wrong_histograms(experiment: Experiment) -> Iterator[str]:
    """What is wrong with the names of an experiment's histograms, in words: each is told once, at the first step."""
    told: set[str] = set()
    for step in Step:
        counts = Counter(histogram.name for histogram in experiment.histograms(step))
        for name, times in counts.items():
            if name in told:
                continue
            if not name or "/" in name:
                told.add(name)
                yield (
                    f"`experiment.name`: {experiment.name} has a histogram named {name!r}; what is stored of it goes "
                    "by its name with a / behind: take a name without one (titles and units may have it)"
                )
            elif times > 1:
                told.add(name)
                yield (
                    f"`experiment.name`: {experiment.name} has {times} histograms named {name!r} in {step.value}, of "
                    "which only the last would be filled: give each a name of its own"
                )


def kinds_of(experiment: Experiment) -> list[str]:
    """Every kind of conditions that an experiment makes, needs or starts from."""
    made = [calibration.kind for calibration in experiment.calibrations()]
    needed = [kind for step in Step for kind in experiment.needs(step)]
    return sorted({*made, *needed, *experiment.initial_conditions()})
