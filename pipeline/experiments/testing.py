"""The laws of an experiment as a test class. A user's own inherits it:

    class TestMine(ExperimentLaws):
        @pytest.fixture
        def experiment(self):
            return MyExperiment({"threshold": 3})

        @pytest.fixture
        def source(self):
            return MemorySource(Path("run_1.root"), {"Events": {"run": ..., "event": ..., "Hit_adc": ...}})

Some twenty events are enough, among them one of each kind that is filtered and one with nothing in it.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from calib.calibration import packed_units
from calib.payload import Payload
from jobs.retry import BadData
from pipeline.columns import IDENTITY, join, length, take
from pipeline.events import read_tier, write_tier
from pipeline.experiments.interface import Experiment, MissingBranch, Processed
from pipeline.experiments.variations import variations
from pipeline.model import Columns, EventSource, Step

Index = NDArray[np.int64]

MOST_SINGLES = 40
"""a law that takes events one by one stops after so many"""


@dataclass(frozen=True)
class MemorySource:
    """An event file that is none: trees of columns held in memory (`pipeline.model.EventSource`)."""

    path: Path
    trees: Mapping[str, Columns]

    def branches(self, tree: str) -> frozenset[str]:
        """The columns a tree has."""
        return frozenset(self.trees[tree])

    def entries(self, tree: str) -> int:
        """How many entries a tree has."""
        return len(next(iter(self.trees[tree].values())))

    def arrays(self, tree: str, columns: tuple[str, ...], start: int, stop: int) -> Columns:
        """These columns of entries `start` to `stop`."""
        return {name: self.trees[tree][name][start:stop] for name in columns}

    def without(self, tree: str, column: str) -> MemorySource:
        """The same file, had it not this column."""
        kept = {name: values for name, values in self.trees[tree].items() if name != column}
        return MemorySource(self.path, {**self.trees, tree: kept})


def read(experiment: Experiment, source: EventSource, step: Step) -> Columns:
    """All events of a source as the pipeline hands them to `process`: what the step wants, and their keys."""
    stop = source.entries(experiment.tree)
    wanted = experiment.wanted(step, source.branches(experiment.tree))
    keys = experiment.identify(source, 0, stop)
    columns = source.arrays(experiment.tree, wanted.columns, 0, stop)
    return {**columns, "run": keys.run, "lumi": keys.lumi, "event": keys.event}


def kept(processed: Processed, events: int) -> NDArray[np.bool_]:
    """Which of the events given are in the output: bool[events]."""
    mask = np.ones(events, np.bool_)
    for reason in processed.filtered.values():
        mask &= ~np.asarray(reason)
    return mask


def measured(processed: Processed, events: Columns) -> Columns:
    """What calibrations read: the measured columns and the keys of the events kept."""
    mask = kept(processed, length(events))
    return {**take({name: events[name] for name in IDENTITY}, mask), **processed.measured}


def differences(left: Columns, right: Columns) -> list[str]:
    """The columns that are not the same to the last bit, type and shape included."""
    if set(left) != set(right):
        return sorted(set(left) ^ set(right))
    return [name for name in sorted(left) if not _same(left[name], right[name])]


def _same(left: Any, right: Any) -> bool:
    ours, theirs = list(_layers(left)), list(_layers(right))
    return len(ours) == len(theirs) and all(
        a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        for a, b in zip(ours, theirs, strict=True)
    )


def _layers(values: Any) -> Iterator[NDArray[Any]]:
    """Counts of every level of a jagged column, then its numbers."""
    while isinstance(values, ak.Array) and values.ndim > 1:
        yield np.asarray(ak.num(values), np.int64)
        values = ak.flatten(values)
    yield np.ascontiguousarray(values)


def _hold(truth: bool, otherwise: str) -> None:
    # No assert statement: pytest does not rewrite it in an installed package, so it would say nothing.
    if not truth:
        raise AssertionError(otherwise)


def _no_kill_point(point: str) -> None:
    """Nothing is killed here."""


def _cuts(n: int) -> Iterator[list[Index]]:
    """Ways to hand over some of n events, part by part: none, one by one, in pieces, every second, backwards."""
    every = np.arange(n)
    yield [every[:0]]
    yield [every[i : i + 1] for i in range(min(n, MOST_SINGLES))]
    yield [every[: n // 3], every[n // 3 : n // 2], every[n // 2 :]]
    yield [every[::2]]
    yield [every[::-1]]


def _picked(whole: Processed, columns: Columns, chosen: Index, events: int) -> dict[str, Any]:
    """The output rows of the chosen events, of an output of all."""
    mask = kept(whole, events)
    for name, values in columns.items():
        _hold(len(values) == mask.sum(), f"{name} has {len(values)} entries for {mask.sum()} events kept")
    row = np.cumsum(mask) - 1
    return take(columns, row[chosen[mask[chosen]]])


def _compare(what: str, parts: list[Columns], expected: Columns) -> None:
    for part in parts:
        _hold(set(part) == set(expected), f"{what}: there is {sorted(set(part) ^ set(expected))} for some events only")
        for name, values in part.items():
            found, wanted = _kind(values), _kind(expected[name])
            _hold(found == wanted, f"{what}: {name} is {found} for some events, {wanted} for others")
    wrong = differences(join(parts), expected)
    _hold(not wrong, f"{what} differs in {wrong}")


def _kind(values: Any) -> str:
    return str(values.type.content if isinstance(values, ak.Array) else values.dtype)


class _Made:
    """What an experiment makes of some events, quality tests left aside."""

    def __init__(self, experiment: Experiment, source: EventSource, conditions: Mapping[str, Payload]) -> None:
        self._calibrations = experiment.calibrations()
        self._histograms = {step: experiment.histograms(step) for step in Step}
        self._columns = {step: _columns(experiment, step, source, conditions) for step in Step}

    def differences(self, other: _Made) -> list[str]:
        """What the other makes otherwise."""
        found = [f"{step} {name}" for step in Step for name in differences(self._columns[step], other._columns[step])]
        found += [f"histograms of {step}" for step in Step if self._histograms[step] != other._histograms[step]]
        return found + ["calibrations"] * (self._calibrations != other._calibrations)


def _columns(experiment: Experiment, step: Step, source: EventSource, conditions: Mapping[str, Payload]) -> Columns:
    """All columns of a step, by a name that says of what; none if it refuses the events."""
    try:
        events = read(experiment, source, step)
        processed = experiment.process(step, events, conditions)
    except (ArithmeticError, LookupError, TypeError, ValueError, BadData):
        return {}
    parts = {"keys": {name: events[name] for name in IDENTITY}, "measured": processed.measured, **processed.tiers}
    parts["filtered"] = processed.filtered
    return {f"{part} {name}": values for part, columns in parts.items() for name, values in columns.items()}


class DeclarationLaws:
    """What an experiment says of itself and of its files."""

    @pytest.fixture
    def experiment(self) -> Experiment:
        """The experiment with settings to try."""
        raise NotImplementedError("override the fixture `experiment`")

    @pytest.fixture
    def source(self) -> EventSource:
        """Some twenty events."""
        raise NotImplementedError("override the fixture `source`")

    @pytest.fixture
    def conditions(self, experiment: Experiment) -> Mapping[str, Payload]:
        """The conditions the events are processed with."""
        return experiment.initial_conditions()

    def test_it_says_what_it_is(self, experiment: Experiment) -> None:
        _hold(bool(experiment.name and experiment.unit_name and experiment.tree), "name, unit_name or tree is empty")
        for step in Step:
            _hold(experiment.versions.get(step, 0) >= 1, f"versions has no number of 1 or more for {step}")

    def test_it_travels(self, experiment: Experiment) -> None:
        there = pickle.loads(pickle.dumps(experiment))
        _hold(type(there) is type(experiment), "it comes out of pickle as something else")
        _hold(there.settings == experiment.settings, "its settings change in pickle, on the way to a worker")

    def test_unknown_setting_is_refused(self, experiment: Experiment) -> None:
        with pytest.raises(ValidationError, match="no_such_setting"):
            type(experiment)({"no_such_setting": 1})

    def test_identify_does_not_depend_on_the_cut(self, experiment: Experiment, source: EventSource) -> None:
        n = source.entries(experiment.tree)
        whole = experiment.identify(source, 0, n)
        for start, stop in [(0, 0), (0, 1), (n // 3, n // 2), (n // 2, n)]:
            part = experiment.identify(source, start, stop)
            for name, all_keys, keys in zip(whole._fields, whole, part, strict=True):
                _hold(keys.dtype == np.int64, f"{name} is {keys.dtype}, not int64")
                _hold(np.array_equal(keys, all_keys[start:stop]), f"{name} of entries {start} to {stop} differs")

    @pytest.mark.parametrize("step", Step)
    def test_it_wants_what_is_there(self, experiment: Experiment, source: EventSource, step: Step) -> None:
        branches = source.branches(experiment.tree)
        wanted = experiment.wanted(step, branches)
        _hold(len(set(wanted.columns)) == len(wanted.columns), "it wants a column twice")
        _hold(set(wanted.columns) <= branches, f"the file has no {sorted(set(wanted.columns) - branches)}")
        for name, reason in wanted.absent.items():
            _hold(bool(reason.strip()), f"{name} is absent without a reason")

    @pytest.mark.parametrize("step", Step)
    def test_an_empty_file_is_refused(self, experiment: Experiment, step: Step) -> None:
        with pytest.raises(MissingBranch):
            experiment.wanted(step, frozenset())

    @pytest.mark.parametrize("step", Step)
    def test_needed_conditions_can_come(self, experiment: Experiment, step: Step) -> None:
        made = {calibration.kind for calibration in experiment.calibrations()}
        missing = set(experiment.needs(step)) - made - set(experiment.initial_conditions())
        _hold(not missing, f"{step} needs {sorted(missing)}: neither a calibration nor initial_conditions gives them")
        for kind, payload in experiment.initial_conditions().items():
            _hold(payload.kind == kind, f"the initial payload of {kind!r} says it is {payload.kind!r}")


class ExperimentLaws(DeclarationLaws):
    """What must hold of every experiment. Override the fixtures `experiment` and `source`, and `conditions` if
    `initial_conditions` are too plain to tell anything.
    """

    @pytest.mark.parametrize("step", Step)
    def test_an_event_does_not_depend_on_its_neighbours(
        self, experiment: Experiment, source: EventSource, conditions: Mapping[str, Payload], step: Step
    ) -> None:
        events = read(experiment, source, step)
        n = length(events)
        whole = experiment.process(step, events, conditions)
        for cut in _cuts(n):
            parts = [experiment.process(step, take(events, chosen), conditions) for chosen in cut]
            every = np.concatenate(cut)
            which = f"of events {every.tolist()} in {len(cut)} parts"
            for part in parts:
                _hold(set(part.tiers) == set(whole.tiers), f"the tiers {which} are others")
            masks = {reason: mask[every] for reason, mask in whole.filtered.items()}
            _compare(f"filtered {which}", [part.filtered for part in parts], masks)
            for tier, columns in whole.tiers.items():
                _compare(f"{tier} {which}", [part.tiers[tier] for part in parts], _picked(whole, columns, every, n))
            found = [part.measured for part in parts]
            _compare(f"measured {which}", found, _picked(whole, whole.measured, every, n))

    @pytest.mark.parametrize("step", Step)
    def test_every_event_is_accounted_for(
        self, experiment: Experiment, source: EventSource, conditions: Mapping[str, Payload], step: Step
    ) -> None:
        events = read(experiment, source, step)
        processed = experiment.process(step, events, conditions)
        for reason, mask in processed.filtered.items():
            right = mask.dtype == np.bool_ and mask.shape == (length(events),)
            _hold(right, f"filtered[{reason!r}] is {mask.dtype}{mask.shape}, not bool({length(events)})")
        out = int(kept(processed, length(events)).sum())
        _hold(bool(processed.tiers), f"{step} writes no tier")
        for tier, columns in {**processed.tiers, "measured": processed.measured}.items():
            for name, values in columns.items():
                _hold(len(values) == out, f"{tier} {name} has {len(values)} entries for {out} events kept")

    @pytest.mark.parametrize("step", Step)
    def test_tiers_come_back_from_a_file(
        self,
        experiment: Experiment,
        source: EventSource,
        conditions: Mapping[str, Payload],
        step: Step,
        tmp_path: Path,
    ) -> None:
        events = read(experiment, source, step)
        processed = experiment.process(step, events, conditions)
        keys = take({name: events[name] for name in IDENTITY}, kept(processed, length(events)))
        for tier, columns in processed.tiers.items():
            taken = sorted(set(keys) & set(columns))
            _hold(not taken, f"{tier} has {taken} of its own; the pipeline adds them")
            write_tier(tmp_path / f"{tier}.root", {**keys, **columns}, {}, _no_kill_point)
            wrong = differences(read_tier(tmp_path / f"{tier}.root"), {**keys, **columns})
            _hold(not wrong, f"{tier} comes back from its file with other {wrong}")

    @pytest.mark.parametrize("step", Step)
    def test_what_is_missing_is_absent(
        self, experiment: Experiment, source: EventSource, conditions: Mapping[str, Payload], step: Step
    ) -> None:
        absent = experiment.wanted(step, source.branches(experiment.tree)).absent
        processed = experiment.process(step, read(experiment, source, step), conditions)
        for tier, columns in {**processed.tiers, "measured": processed.measured}.items():
            both = sorted(set(absent) & set(columns))
            _hold(not both, f"{tier} has columns that are said to be absent: {both}")
            for name, values in columns.items():
                numbers = list(_layers(values))[-1]
                finite = numbers.dtype.kind in "biu" or bool(np.isfinite(numbers).all())
                _hold(finite, f"{tier} {name} has entries that are no number; leave them out and name the absence")

    def test_quality_is_judged_on_what_is_filled(
        self, experiment: Experiment, source: EventSource, conditions: Mapping[str, Payload]
    ) -> None:
        for step in Step:
            absent = experiment.wanted(step, source.branches(experiment.tree)).absent
            processed = experiment.process(step, read(experiment, source, step), conditions)
            for histogram in experiment.histograms(step):
                there = histogram.column in processed.measured or histogram.column in absent
                _hold(there, f"histogram {histogram.name}: no measured column {histogram.column!r}, nor is it absent")
                rising = len(histogram.edges) > 1 and bool(np.all(np.diff(histogram.edges) > 0))
                _hold(rising, f"histogram {histogram.name}: its edges do not rise")
        filled = {histogram.name for histogram in experiment.histograms(Step.PROMPT)}
        for test in experiment.quality_tests():
            _hold(test.histogram in filled, f"test {test.name}: prompt fills no histogram {test.histogram!r}")
            _hold(test.low < test.high, f"test {test.name}: nothing lies between {test.low} and {test.high}")

    def test_calibrations_see_no_cut(
        self, experiment: Experiment, source: EventSource, conditions: Mapping[str, Payload]
    ) -> None:
        step = Step.EXPRESS
        events = read(experiment, source, step)
        columns = measured(experiment.process(step, events, conditions), events)
        for calibration in experiment.calibrations():
            whole, joined = calibration.accumulate(columns, conditions), calibration.empty()
            unit = packed_units(events)
            for one in np.unique(unit):
                part = take(events, unit == one)
                seen = measured(experiment.process(step, part, conditions), part)
                joined = calibration.merge(joined, calibration.accumulate(seen, conditions))
            _hold(whole.same(joined), f"{calibration.kind}: units one by one give another state than all at once")

    def test_judging_names_what_only_quality_tests_look_at(
        self, experiment: Experiment, source: EventSource, conditions: Mapping[str, Payload]
    ) -> None:
        settings = type(experiment.settings).model_fields
        unknown = sorted(experiment.judging - set(settings))
        _hold(not unknown, f"judging names {unknown}, which are no settings")
        made, tests = _Made(experiment, source, conditions), experiment.quality_tests()
        for name in settings:
            others = [other for other in variations(experiment, name) if other.quality_tests() != tests]
            changed = (made.differences(_Made(other, source, conditions)) for other in others)
            if name in experiment.judging:
                _hold(bool(others), f"judging names {name}, but no quality test looks at it")
                seen = sorted({what for found in changed for what in found})
                _hold(not seen, f"judging names {name}, but {seen} depend on it and must be redone")
            elif others:
                _hold(any(changed), f"only quality tests look at {name}: name it in judging, or it redoes every event")
