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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from calib.calibration import packed_units
from calib.payload import Payload
from jobs.retry import BadData
from pipeline.columns import IDENTITY, length, take
from pipeline.declarations import wrong_histograms
from pipeline.events import read_tier, write_tier
from pipeline.experiments.comparing import (
    Index,
    MemorySource,
    compare,
    cuts,
    differences,
    hold,
    kept,
    layers,
    measured,
    picked,
    read,
)
from pipeline.experiments.interface import Experiment, MissingBranch, Processed, Restart
from pipeline.experiments.variations import variations
from pipeline.model import Columns, EventSource, Step

__all__ = ["DeclarationLaws", "ExperimentLaws", "MemorySource", "differences", "kept", "measured", "read"]


def _no_kill_point(point: str) -> None:
    """Nothing is killed here."""


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


def _changed(
    conditions: Mapping[str, Payload], others: Mapping[str, Payload], kinds: Sequence[str]
) -> Mapping[str, Payload]:
    for kind in kinds:
        hold(kind in others, f"override the fixture `other_conditions`: it has no payload of {kind}")
        hold(others[kind].id != conditions[kind].id, f"`other_conditions` has the same {kind} as `conditions`")
    return {**conditions, **{kind: others[kind] for kind in kinds}}


def _in_parts(
    restart: Restart, stored: Columns, conditions: Mapping[str, Payload], kinds: Sequence[str]
) -> Iterator[tuple[Index, list[Processed]]]:
    """Stored events all at once and, where all of the kinds are other ones, in all kinds of cuts: which they are, and
    what is made of each part."""
    events = length(stored)
    for cut in ([np.arange(events)], *(cuts(events) if kinds == restart.kinds else ())):
        yield np.concatenate(cut), [restart.again(take(stored, part), conditions) for part in cut]


def _left_out(experiment: Experiment, step: Step, restart: Restart) -> set[str]:
    """The measured columns that a tier may do without: what is read only by calibrations that it lacks."""
    reads = {c.kind: {*c.reads, *c.reads_if_there} for c in experiment.calibrations()}
    unknown = sorted(set(restart.lacks) - reads.keys())
    hold(not unknown, f"{restart.tier} lacks {unknown}, which are not calibrated")
    read = {histogram.column for histogram in experiment.histograms(step)}
    read.update(*(columns for kind, columns in reads.items() if kind not in restart.lacks))
    return set[str]().union(*(reads[kind] for kind in restart.lacks)) - read


def _hold_parts(which: str, cut: Iterable[tuple[Index, list[Processed]]], anew: Processed, left_out: set[str]) -> None:
    """Hold that what was made of parts is what was made anew of all events that are kept."""
    measured = {name: column for name, column in anew.measured.items() if name not in left_out}
    for chosen, parts in cut:
        for part in parts:
            hold(set(part.tiers) == set(anew.tiers), f"{which}: the tiers are others")
            hold(not any(mask.any() for mask in part.filtered.values()), f"{which}: some are filtered only now")
        for tier, columns in anew.tiers.items():
            compare(f"{which}: {tier}", [part.tiers[tier] for part in parts], take(columns, chosen))
        found: list[Columns] = [
            {name: part.measured[name] for name in part.measured if name not in left_out} for part in parts
        ]
        compare(f"{which}: measured", found, take(measured, chosen))


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
        hold(bool(experiment.name and experiment.unit_name and experiment.tree), "name, unit_name or tree is empty")
        for step in Step:
            hold(experiment.versions.get(step, 0) >= 1, f"versions has no number of 1 or more for {step}")

    def test_it_travels(self, experiment: Experiment) -> None:
        there = pickle.loads(pickle.dumps(experiment))
        hold(type(there) is type(experiment), "it comes out of pickle as something else")
        hold(there.settings == experiment.settings, "its settings change in pickle, on the way to a worker")

    def test_histograms_have_names_that_can_be_stored(self, experiment: Experiment) -> None:
        wrong = list(wrong_histograms(experiment))
        hold(not wrong, "; ".join(wrong))

    def test_unknown_setting_is_refused(self, experiment: Experiment) -> None:
        with pytest.raises(ValidationError, match="no_such_setting"):
            type(experiment)({"no_such_setting": 1})

    def test_identify_does_not_depend_on_the_cut(self, experiment: Experiment, source: EventSource) -> None:
        n = source.entries(experiment.tree)
        whole = experiment.identify(source, 0, n)
        for start, stop in [(0, 0), (0, 1), (n // 3, n // 2), (n // 2, n)]:
            part = experiment.identify(source, start, stop)
            for name, all_keys, keys in zip(whole._fields, whole, part, strict=True):
                hold(keys.dtype == np.int64, f"{name} is {keys.dtype}, not int64")
                hold(np.array_equal(keys, all_keys[start:stop]), f"{name} of entries {start} to {stop} differs")

    @pytest.mark.parametrize("step", Step)
    def test_it_wants_what_is_there(self, experiment: Experiment, source: EventSource, step: Step) -> None:
        branches = source.branches(experiment.tree)
        wanted = experiment.wanted(step, branches)
        hold(len(set(wanted.columns)) == len(wanted.columns), "it wants a column twice")
        hold(set(wanted.columns) <= branches, f"the file has no {sorted(set(wanted.columns) - branches)}")
        for name, reason in wanted.absent.items():
            hold(bool(reason.strip()), f"{name} is absent without a reason")

    @pytest.mark.parametrize("step", Step)
    def test_an_empty_file_is_refused(self, experiment: Experiment, step: Step) -> None:
        with pytest.raises(MissingBranch):
            experiment.wanted(step, frozenset())

    @pytest.mark.parametrize("step", Step)
    def test_needed_conditions_can_come(self, experiment: Experiment, step: Step) -> None:
        made = {calibration.kind for calibration in experiment.calibrations()}
        missing = set(experiment.needs(step)) - made - set(experiment.initial_conditions())
        hold(not missing, f"{step} needs {sorted(missing)}: neither a calibration nor initial_conditions gives them")
        for kind, payload in experiment.initial_conditions().items():
            hold(payload.kind == kind, f"the initial payload of {kind!r} says it is {payload.kind!r}")


class ExperimentLaws(DeclarationLaws):
    """What must hold of every experiment. Override the fixtures `experiment` and `source`, `conditions` if
    `initial_conditions` are too plain to tell anything, and `other_conditions` if a step `restarts`.
    """

    @pytest.mark.parametrize("step", Step)
    def test_an_event_does_not_depend_on_its_neighbours(
        self, experiment: Experiment, source: EventSource, conditions: Mapping[str, Payload], step: Step
    ) -> None:
        events = read(experiment, source, step)
        n = length(events)
        whole = experiment.process(step, events, conditions)
        for cut in cuts(n):
            parts = [experiment.process(step, take(events, chosen), conditions) for chosen in cut]
            every = np.concatenate(cut)
            which = f"of events {every.tolist()} in {len(cut)} parts"
            for part in parts:
                hold(set(part.tiers) == set(whole.tiers), f"the tiers {which} are others")
            masks = {reason: mask[every] for reason, mask in whole.filtered.items()}
            compare(f"filtered {which}", [part.filtered for part in parts], masks)
            for tier, columns in whole.tiers.items():
                compare(f"{tier} {which}", [part.tiers[tier] for part in parts], picked(whole, columns, every, n))
            found = [part.measured for part in parts]
            compare(f"measured {which}", found, picked(whole, whole.measured, every, n))

    def test_triggers_do_not_depend_on_the_cut(self, experiment: Experiment, source: EventSource) -> None:
        n, triggers = source.entries(experiment.tree), experiment.triggers
        lacking = sorted(set(triggers.columns) - source.branches(experiment.tree))
        hold(not lacking, f"the columns of triggers name {lacking}, which the file has not")
        keys = experiment.identify(source, 0, n)._asdict()
        events = {**source.arrays(experiment.tree, triggers.columns, 0, n), **keys}
        whole = triggers.fired(events)
        odd = sorted(set(whole) ^ set(triggers.names))
        hold(not odd, f"triggers and what `fired` gives differ in {odd}")
        for name, mask in whole.items():
            right = mask.dtype == np.bool_ and mask.shape == (n,)
            hold(right, f"fired[{name!r}] is {mask.dtype}{mask.shape}, not bool({n})")
        for cut in cuts(n) if whole else ():
            parts = [triggers.fired(take(events, chosen)) for chosen in cut]
            every = np.concatenate(cut)
            compare("triggers of events cut apart", parts, {name: mask[every] for name, mask in whole.items()})

    @pytest.mark.parametrize("step", Step)
    def test_every_event_is_accounted_for(
        self, experiment: Experiment, source: EventSource, conditions: Mapping[str, Payload], step: Step
    ) -> None:
        events = read(experiment, source, step)
        processed = experiment.process(step, events, conditions)
        for reason, mask in processed.filtered.items():
            right = mask.dtype == np.bool_ and mask.shape == (length(events),)
            hold(right, f"filtered[{reason!r}] is {mask.dtype}{mask.shape}, not bool({length(events)})")
        out = int(kept(processed, length(events)).sum())
        hold(bool(processed.tiers), f"{step} writes no tier")
        for tier, columns in {**processed.tiers, "measured": processed.measured}.items():
            for name, values in columns.items():
                hold(len(values) == out, f"{tier} {name} has {len(values)} entries for {out} events kept")

    def test_prompt_makes_the_tiers_that_are_named(
        self, experiment: Experiment, source: EventSource, conditions: Mapping[str, Payload]
    ) -> None:
        made = set(experiment.process(Step.PROMPT, read(experiment, source, Step.PROMPT), conditions).tiers)
        if experiment.tiers is not None:
            twice = sorted({tier for tier in experiment.tiers if experiment.tiers.count(tier) > 1})
            hold(not twice, f"tiers names {twice} more than once")
            odd = sorted(made ^ set(experiment.tiers))
            hold(not odd, f"tiers and what prompt makes differ in {odd}")
        left = sorted(set(experiment.default_tiers or ()) - made)
        hold(not left, f"default_tiers names {left}, which prompt does not make")

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
            hold(not taken, f"{tier} has {taken} of its own; the pipeline adds them")
            write_tier(tmp_path / f"{tier}.root", {**keys, **columns}, {}, _no_kill_point)
            wrong = differences(read_tier(tmp_path / f"{tier}.root"), {**keys, **columns})
            hold(not wrong, f"{tier} comes back from its file with other {wrong}")

    @pytest.fixture
    def other_conditions(self) -> Mapping[str, Payload]:
        """Other payloads of the kinds that `restarts` names, of every step."""
        return {}

    @pytest.mark.parametrize("step", Step)
    def test_started_from_a_tier_a_step_makes_what_it_makes_from_raw(
        self,
        experiment: Experiment,
        source: EventSource,
        conditions: Mapping[str, Payload],
        other_conditions: Mapping[str, Payload],
        step: Step,
        tmp_path: Path,
    ) -> None:
        events = read(experiment, source, step)
        before = experiment.process(step, events, conditions)
        keys = take({name: events[name] for name in IDENTITY}, kept(before, length(events)))
        for restart in experiment.restarts(step):
            hold(restart.tier in before.tiers, f"{step} cannot start from {restart.tier}, a tier that it does not make")
            file = tmp_path / f"{restart.tier}.root"
            write_tier(file, {**keys, **before.tiers[restart.tier]}, {}, _no_kill_point)
            stored = read_tier(file)
            for kinds in (*((kind,) for kind in restart.kinds), restart.kinds):
                which = f"{step} from {restart.tier} with other {', '.join(kinds)}"
                changed = _changed(conditions, other_conditions, kinds)
                anew = experiment.process(step, events, changed)
                compare(f"{which}: filtered", [anew.filtered], before.filtered)
                same = not differences(before.measured, anew.measured) and all(
                    not differences(before.tiers[tier], columns) for tier, columns in anew.tiers.items()
                )
                hold(not same, f"{which}: nothing depends on the change; take payloads that differ more")
                _hold_parts(
                    which, _in_parts(restart, stored, changed, kinds), anew, _left_out(experiment, step, restart)
                )

    @pytest.mark.parametrize("step", Step)
    def test_what_is_missing_is_absent(
        self, experiment: Experiment, source: EventSource, conditions: Mapping[str, Payload], step: Step
    ) -> None:
        absent = experiment.wanted(step, source.branches(experiment.tree)).absent
        processed = experiment.process(step, read(experiment, source, step), conditions)
        for tier, columns in {**processed.tiers, "measured": processed.measured}.items():
            both = sorted(set(absent) & set(columns))
            hold(not both, f"{tier} has columns that are said to be absent: {both}")
            for name, values in columns.items():
                numbers = list(layers(values))[-1]
                finite = numbers.dtype.kind in "biu" or bool(np.isfinite(numbers).all())
                hold(finite, f"{tier} {name} has entries that are no number; leave them out and name the absence")

    def test_quality_is_judged_on_what_is_filled(
        self, experiment: Experiment, source: EventSource, conditions: Mapping[str, Payload]
    ) -> None:
        for step in Step:
            absent = experiment.wanted(step, source.branches(experiment.tree)).absent
            processed = experiment.process(step, read(experiment, source, step), conditions)
            for histogram in experiment.histograms(step):
                there = histogram.column in processed.measured or histogram.column in absent
                hold(there, f"histogram {histogram.name}: no measured column {histogram.column!r}, nor is it absent")
                rising = len(histogram.edges) > 1 and bool(np.all(np.diff(histogram.edges) > 0))
                hold(rising, f"histogram {histogram.name}: its edges do not rise")
        filled = {histogram.name for histogram in experiment.histograms(Step.PROMPT)}
        for test in experiment.quality_tests():
            hold(test.histogram in filled, f"test {test.name}: prompt fills no histogram {test.histogram!r}")
            hold(test.low < test.high, f"test {test.name}: nothing lies between {test.low} and {test.high}")

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
            hold(whole.same(joined), f"{calibration.kind}: units one by one give another state than all at once")

    def test_judging_names_what_only_quality_tests_look_at(
        self, experiment: Experiment, source: EventSource, conditions: Mapping[str, Payload]
    ) -> None:
        settings = type(experiment.settings).model_fields
        unknown = sorted(experiment.judging - set(settings))
        hold(not unknown, f"judging names {unknown}, which are no settings")
        made, tests = _Made(experiment, source, conditions), experiment.quality_tests()
        for name in settings:
            others = [other for other in variations(experiment, name) if other.quality_tests() != tests]
            changed = (made.differences(_Made(other, source, conditions)) for other in others)
            if name in experiment.judging:
                hold(bool(others), f"judging names {name}, but no quality test looks at it")
                seen = sorted({what for found in changed for what in found})
                hold(not seen, f"judging names {name}, but {seen} depend on it and must be redone")
            elif others:
                hold(any(changed), f"only quality tests look at {name}: name it in judging, or it redoes every event")
