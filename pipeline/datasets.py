"""Primary datasets: which events of a run each one has, by the triggers that they fired. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.model import Step
from pipeline.sections import CanarySection, DatasetSection, HandshakeSection

if TYPE_CHECKING:
    from pipeline.experiments.interface import Experiment
    from pipeline.settings import Settings

OWN = ("required", "deadline", "max_carried_runs", "failed")
"""what of the handshake a dataset may have otherwise than the run"""

REST = "Rest"
"""the dataset that is added where each of the settings' has triggers: what fired none of them is in it"""


@dataclass(frozen=True)
class Dataset:
    """The events of a run that fired one of `triggers`: one that fired those of two datasets is in both.

    One without triggers has what fired none of `others`, those of all the rest. The one without a name has every event:
    it is the only one where the settings name none.
    """

    name: str = ""
    triggers: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    earlier: tuple[str, ...] = field(default=(), repr=False)
    """the triggers of the datasets before it in the settings"""

    def takes(self, fired: Mapping[str, NDArray[np.bool_]], events: int) -> NDArray[np.bool_]:
        """Which of the events it has: bool[events], from trigger to bool[events].

        >>> fired = {"muon": np.array([True, False, True]), "beam": np.array([False, True, True])}
        >>> Dataset("Muon", ("muon",)).takes(fired, 3).tolist(), Dataset("Rest", (), ("muon",)).takes(fired, 3).tolist()
        ([True, False, True], [False, True, False])
        """
        found: NDArray[np.bool_] = np.zeros(events, np.bool_)
        for trigger in self.triggers or self.others:
            found = found | np.asarray(fired[trigger], np.bool_)
        return found if self.triggers else ~found

    def counts(self, fired: Mapping[str, NDArray[np.bool_]], events: int) -> NDArray[np.bool_]:
        """Which of its events count with it where each may count once: those that no dataset before it has too.

        >>> fired = {"muon": np.array([True, False]), "beam": np.array([True, True])}
        >>> Dataset("Beam", ("beam",), earlier=("muon",)).counts(fired, 2).tolist()
        [False, True]
        """
        found = self.takes(fired, events)
        for trigger in self.earlier if self.triggers else ():
            found = found & ~np.asarray(fired[trigger], np.bool_)
        return found

    @property
    def ingredients(self) -> dict[str, Any]:
        """What outputs of it depend on beside those of the whole run."""
        return {"dataset": [self.name, list(self.triggers), list(self.others)]} if self.name else {}

    def of(self, what: str) -> str:
        """What something is called that each dataset has of its own, such as a record: as ever where it has no name."""
        return f"{what} {self.name}" if self.name else what


WHOLE = Dataset()
"""the run as one"""


def datasets_of(sections: Mapping[str, DatasetSection]) -> tuple[Dataset, ...]:
    """The datasets of the settings, in their order: every event is in one of them at least.

    >>> datasets_of({}), [one.name for one in datasets_of({"Muon": DatasetSection(triggers=("muon",))})]
    ((Dataset(name='', triggers=(), others=()),), ['Muon', 'Rest'])
    """
    if not sections:
        return (WHOLE,)
    taken = tuple(dict.fromkeys(trigger for section in sections.values() for trigger in section.triggers))
    found: list[Dataset] = []
    for name, one in sections.items():
        earlier = tuple(dict.fromkeys(trigger for before in found for trigger in before.triggers))
        found.append(Dataset(name, one.triggers, () if one.triggers else taken, earlier))
    return tuple(found if any(not one.triggers for one in found) else [*found, Dataset(REST, (), taken)])


def dataset_named(sections: Mapping[str, DatasetSection], name: str) -> Dataset:
    """One of the datasets of the settings. Raises LookupError."""
    for dataset in datasets_of(sections):
        if dataset.name == name:
            return dataset
    raise LookupError(f"no dataset {name!r}; there are {', '.join(one.name for one in datasets_of(sections))}")


def handshake_of(settings: Settings, dataset: str) -> HandshakeSection:
    """The handshake of a dataset of a run with these settings."""
    section = settings.datasets.get(dataset, DatasetSection())
    own = {name: value for name in OWN if (value := getattr(section, name)) is not None}
    return settings.handshake.model_copy(update=own)


def canary_of(settings: Settings, dataset: str) -> CanarySection:
    """The canary of a dataset of a run with these settings."""
    return settings.datasets.get(dataset, DatasetSection()).canary or settings.canary


def last_deadline_s(settings: Settings) -> float:
    """The latest deadline of a run's datasets, in seconds after its first sight."""
    return max(handshake_of(settings, one.name).deadline_s for one in datasets_of(settings.datasets))


def group_of(what: str, run: int, dataset: str) -> str:
    """How the tasks of a run's dataset are called, in the dashboard and in the ledger.

    >>> group_of("prompt", 7, ""), group_of("prompt", 7, "Muon")
    ('prompt-7', 'prompt-7-Muon')
    """
    return f"{what}-{run}-{dataset}" if dataset else f"{what}-{run}"


def place_text(run: int, dataset: str) -> str:
    """A run, or a dataset of it, as people are told of it.

    >>> place_text(7, ""), place_text(7, "Muon")
    ('run 7', 'run 7, dataset Muon')
    """
    return f"run {run}, dataset {dataset}" if dataset else f"run {run}"


def wrong_datasets(sections: Mapping[str, DatasetSection], experiment: Experiment) -> Iterator[str]:
    """What is wrong with the tables `[datasets.NAME]` for an experiment, in words."""
    if sections and not experiment.triggers.names:
        yield f"`datasets`: {experiment.name} names no triggers to tell datasets by; leave these tables out"
        return
    made = {calibration.kind for calibration in experiment.calibrations()}
    needed = experiment.needs(Step.PROMPT)
    known = sorted({*made, *needed, *experiment.initial_conditions()})
    for name, section in sections.items():
        here = f"datasets.{name}"
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
            yield f"`{here}`: call it by letters, digits and _, a letter first"
        yield from not_among(section.triggers, experiment.triggers.names, f"{here}.triggers", "trigger")
        if section.required is not None:
            yield from not_among(section.required, known, f"{here}.required", "kind")
            for kind in sorted(made.intersection(needed) - set(section.required)):
                yield f"`{here}.required` lacks {kind!r}, which is calibrated here and which prompt needs: add it"
    everything = [name for name, section in sections.items() if not section.triggers]
    if len(everything) > 1:
        yield f"`datasets`: {' and '.join(everything)} have no triggers; only one can have what no other takes"
    elif not everything and REST in sections:
        yield f"`datasets.{REST}` is the name of what no other takes: give it no triggers, or call it otherwise"


def not_among(names: Iterable[str], known: Iterable[str], place: str, what: str) -> Iterator[str]:
    """In words, which of the names of a setting are not known, and what may be meant."""
    there = list(known)
    for name in (name for name in names if name not in there):
        near = difflib.get_close_matches(name, there, n=1)
        instead = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(there)}"
        yield f"`{place}`: there is no {what} {name!r}; {instead}"
