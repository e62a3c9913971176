"""The laws of an experiment hold for a good one, and each finds the fault it is there for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import awkward as ak
import numpy as np
import pytest
from pydantic import Field

from calib.accumulators import UnitSums
from calib.calibration import Calibration, packed_units
from calib.payload import Payload
from calib.state import State
from pipeline.experiments.interface import (
    Experiment,
    ExperimentSettings,
    MissingBranch,
    Processed,
    QualityHistogram,
    QualityTest,
    Restart,
    Triggers,
    Wanted,
)
from pipeline.experiments.testing import ExperimentLaws, MemorySource, differences, kept, measured, read
from pipeline.experiments.variations import variations
from pipeline.model import Columns, EventSource, Keys, Step


class HitCounter(Calibration):
    kind = "hits"
    version = 1
    reads = ("hits",)

    def accumulate(self, columns: Columns, conditions: Mapping[str, Payload]) -> State:
        return State({"hits": UnitSums.of_rows(packed_units(columns), columns["hits"])})

    def empty(self) -> State:
        return State({"hits": UnitSums.empty()})

    def finalize(self, state: State, previous: Payload | None) -> Payload:
        return Payload("hits", {"sum": state["hits"].values.sum()})


class GreedyCounter(HitCounter):
    """Breaks the law of calibrations: it counts calls."""

    def accumulate(self, columns: Columns, conditions: Mapping[str, Payload]) -> State:
        units = np.unique(packed_units(columns))
        return State({"hits": UnitSums.of_rows(units[:1], np.ones(len(units[:1]), np.int64))})


class WireSettings(ExperimentSettings):
    threshold: int = 2
    colour: int = 5
    """nothing looks at it"""
    most_hits: tuple[float, float] = (0.0, 2.0)
    """how many a spill may have on average"""


class Wires(Experiment):
    """A test beam: hits on wires, with a pedestal taken off."""

    name = "wires"
    tree = "Events"
    tiers: ClassVar[tuple[str, ...] | None] = ("HITS",)
    versions: ClassVar[Mapping[Step, int]] = {Step.EXPRESS: 1, Step.PROMPT: 1}
    settings_model = WireSettings
    judging: ClassVar[frozenset[str]] = frozenset({"most_hits"})
    settings: WireSettings

    def identify(self, source: EventSource, start: int, stop: int) -> Keys:
        event = np.asarray(source.arrays(self.tree, ("event",), start, stop)["event"]).astype(np.int64)
        return Keys(np.full_like(event, 7), event // 5, event)

    def wanted(self, step: Step, branches: frozenset[str]) -> Wanted:
        if "Hit_adc" not in branches:
            raise MissingBranch("the file has no Hit_adc")
        return Wanted(("Hit_adc",), {"Hit_time": "the chambers have no clock"})

    def process(self, step: Step, events: Columns, conditions: Mapping[str, Payload]) -> Processed:
        adc = ak.values_astype(events["Hit_adc"], np.float64)
        noisy = np.asarray(ak.num(adc)) > 3
        good = adc[~noisy]
        return self.hits(good[good > self.settings.threshold], conditions, {"noise": noisy})

    def hits(self, adc: Any, conditions: Mapping[str, Payload], filtered: Mapping[str, Any]) -> Processed:
        columns = {"Hit_adc": adc, "Hit_charge": adc - float(conditions["pedestal"]["mean"])}
        return Processed({"HITS": columns}, {"hits": np.asarray(ak.num(adc), np.int64)}, filtered)

    def restarts(self, step: Step) -> tuple[Restart, ...]:
        return (Restart("HITS", ("pedestal",), self.again),)

    def again(self, stored: Columns, conditions: Mapping[str, Payload]) -> Processed:
        return self.hits(stored["Hit_adc"], conditions, {})

    def calibrations(self) -> tuple[Calibration, ...]:
        return (HitCounter(),)

    def needs(self, step: Step) -> tuple[str, ...]:
        return ("pedestal",)

    def initial_conditions(self) -> Mapping[str, Payload]:
        return {"pedestal": pedestal(0.5)}

    def histograms(self, step: Step) -> tuple[QualityHistogram, ...]:
        return (QualityHistogram("hits", "hits", (0.0, 1.0, 2.0), ""),)

    def quality_tests(self) -> tuple[QualityTest, ...]:
        return (QualityTest("hits", "hits", *self.settings.most_hits),)


def pedestal(mean: float) -> Payload:
    return Payload("pedestal", {"mean": np.array(mean)})


def source() -> MemorySource:
    adc = ak.Array([[1, 5], [3], [], [9, 9, 9, 9], [4, 4, 2]] * 4)
    return MemorySource(Path("run_7.root"), {"Events": {"event": np.arange(20), "Hit_adc": adc}})


def test_other_values_of_a_setting_are_tried() -> None:
    class Settings(ExperimentSettings):
        count: int = Field(4, ge=2)
        share: float = Field(0.5, ge=0.0, le=1.0)
        window: tuple[float, float] = (1.0, 3.0)
        sign: bool = True
        label: str = "x"

    experiment = declaring(settings_model=Settings)()
    tried = {name: [getattr(v.settings, name) for v in variations(experiment, name)] for name in Settings.model_fields}
    assert tried["count"] == [2, 3, 5, 8]
    assert tried["share"] == pytest.approx([0.0, 0.05, 0.5 / 1.1, 0.55])
    assert tried["sign"] == [False]
    assert tried["label"] == []
    assert all((window[0] == 1.0) != (window[1] == 3.0) for window in tried["window"])
    assert (
        {window[0] < 1.0 for window in tried["window"]}
        == {window[1] < 3.0 for window in tried["window"]}
        == {True, False}
    )


class TestWires(ExperimentLaws):
    @pytest.fixture
    def experiment(self) -> Experiment:
        return Wires({"threshold": 2})

    @pytest.fixture
    def source(self) -> MemorySource:
        return source()

    @pytest.fixture
    def other_conditions(self) -> Mapping[str, Payload]:
        return {"pedestal": pedestal(0.75)}


def altered(**columns: Any) -> type[Wires]:
    """Wires that change what process gives by functions `measured`, `tiers`, `filtered` of it and the events."""

    class Altered(Wires):
        def process(self, step: Step, events: Columns, conditions: Mapping[str, Payload]) -> Processed:
            found = super().process(step, events, conditions)
            return dataclasses.replace(found, **{part: change(found, events) for part, change in columns.items()})

    return Altered


def declaring(**attributes: Any) -> type[Wires]:
    return type("Declaring", (Wires,), attributes)


class Unpicklable(Wires):
    def __reduce__(self) -> tuple[Any, ...]:
        return Wires, ({"threshold": 3},)


class Forgiving(Wires):
    class Settings(ExperimentSettings, extra="ignore"):
        threshold: int = 2

    settings_model = Settings


class CutsWhereItJudges(Wires):
    """A setting said to be for judging changes what a step writes."""

    def process(self, step: Step, events: Columns, conditions: Mapping[str, Payload]) -> Processed:
        found = super().process(step, events, conditions)
        few = found.tiers["HITS"]["Hit_adc"] < 3 * self.settings.most_hits[1]
        return dataclasses.replace(found, tiers={"HITS": {"Hit_adc": found.tiers["HITS"]["Hit_adc"][few]}})


class DrawsWhereItJudges(Wires):
    """... or what is filled."""

    def histograms(self, step: Step) -> tuple[QualityHistogram, ...]:
        return (QualityHistogram("hits", "hits", (0.0, 1.0, 2.0 + abs(self.settings.most_hits[1])), ""),)


class Relative(Wires):
    """Numbers events from where the reading begins."""

    def identify(self, source: EventSource, start: int, stop: int) -> Keys:
        event = np.arange(stop - start)
        return Keys(event * 0 + 7, event, event)


class LacksWhatItDoesNotStore(Wires):
    """Of a tier only part of the measured columns can be made, and it says so."""

    def process(self, step: Step, events: Columns, conditions: Mapping[str, Payload]) -> Processed:
        found = super().process(step, events, conditions)
        return dataclasses.replace(found, measured={"raw": found.measured["hits"] + 1, **found.measured})

    def calibrations(self) -> tuple[Calibration, ...]:
        return (type("RawCounter", (HitCounter,), {"kind": "raw", "reads": ("raw", "hits")})(), HitCounter())

    def restarts(self, step: Step) -> tuple[Restart, ...]:
        return (Restart("HITS", ("pedestal",), self.again, ("raw",)),)


def test_what_a_tier_lacks_need_not_be_made_from_it(tmp_path: Path) -> None:
    experiment, law = LacksWhatItDoesNotStore(), "test_started_from_a_tier_a_step_makes_what_it_makes_from_raw"
    conditions, others = {"pedestal": pedestal(0.5)}, {"pedestal": pedestal(0.7)}
    getattr(ExperimentLaws(), law)(experiment, source(), conditions, others, Step.EXPRESS, tmp_path)


def again(change: Any) -> type[Wires]:
    """Wires that change what is made of stored events by a function of it and of them."""

    class Again(Wires):
        def again(self, stored: Columns, conditions: Mapping[str, Payload]) -> Processed:
            return dataclasses.replace(found := super().again(stored, conditions), **change(found, stored))

    return Again


class FromWhatIsMadeAlready(Wires):
    """Takes the pedestal off a second time."""

    def again(self, stored: Columns, conditions: Mapping[str, Payload]) -> Processed:
        return self.hits(stored["Hit_charge"], conditions, {})


class FiltersByThePedestal(Wires):
    """Which events are filtered depends on a kind that is said to act behind the tier."""

    def process(self, step: Step, events: Columns, conditions: Mapping[str, Payload]) -> Processed:
        found = super().process(step, events, conditions)
        return dataclasses.replace(
            found, filtered={"noise": found.filtered["noise"] ^ (conditions["pedestal"]["mean"] > 0.6)}
        )


class RoundsWhatItStores(Wires):
    """What was left out of the tier is missing when it is read back."""

    def hits(self, adc: Any, conditions: Mapping[str, Payload], filtered: Mapping[str, Any]) -> Processed:
        found = super().hits(adc, conditions, filtered)
        tier = found.tiers["HITS"]
        return dataclasses.replace(found, tiers={"HITS": {**tier, "Hit_adc": ak.values_astype(adc - 0.1, np.float32)}})


def hits_with(first: Any) -> Any:
    def change(found: Processed, events: Columns) -> dict[str, Any]:
        values = found.measured["hits"].astype(np.float64)
        if len(values):
            values[0] = first
        return {"hits": values}

    return change


PROCESS_FAULTS = {
    "test_an_event_does_not_depend_on_its_neighbours": [
        altered(measured=lambda found, events: {"hits": found.measured["hits"] - found.measured["hits"].sum()}),
        altered(tiers=lambda found, events: {"HITS": {"share": found.measured["hits"] / len(events["event"])}}),
        altered(tiers=lambda found, events: found.tiers if len(events["event"]) > 1 else {}),
        altered(filtered=lambda found, events: {"noise": np.arange(len(events["event"])) == 0}),
    ],
    "test_every_event_is_accounted_for": [
        altered(measured=lambda found, events: {"hits": found.measured["hits"][1:]}),
        altered(filtered=lambda found, events: {"noise": found.filtered["noise"][1:]}),
        altered(filtered=lambda found, events: {"noise": found.filtered["noise"].astype(int)}),
        altered(tiers=lambda found, events: {}),
    ],
    "test_prompt_makes_the_tiers_that_are_named": [
        declaring(tiers=("HITS", "AOD")),
        declaring(tiers=()),
        declaring(tiers=("HITS", "HITS")),
        declaring(tiers=("HITS",), default_tiers=("HITS", "AOD")),
        declaring(tiers=None, default_tiers=("AOD",)),
    ],
    "test_tiers_come_back_from_a_file": [
        altered(tiers=lambda found, events: {"HITS": {"Hit_adc": ak.Array([[True, True]] * 16)[:, :, None]}}),
        altered(
            tiers=lambda found, events: {"HITS": {"T_a": found.tiers["HITS"]["Hit_adc"], "T_b": ak.Array([[1]] * 16)}}
        ),
        altered(tiers=lambda found, events: {"HITS": {"run": found.measured["hits"]}}),
        altered(tiers=lambda found, events: {"HITS": {"big_endian": found.measured["hits"].astype(">i8")}}),
    ],
    "test_started_from_a_tier_a_step_makes_what_it_makes_from_raw": [
        again(lambda found, stored: {"measured": {}}),
        again(lambda found, stored: {"measured": {"hits": found.measured["hits"].astype(np.int32)}}),
        again(lambda found, stored: {"tiers": {}}),
        again(lambda found, stored: {"filtered": {"late": stored["event"] == 1}}),
        again(lambda found, stored: {"measured": {"hits": found.measured["hits"] * (1 + (len(stored["event"]) == 1))}}),
        FromWhatIsMadeAlready,
        FiltersByThePedestal,
        RoundsWhatItStores,
        declaring(restarts=lambda self, step: (Restart("TRACKS", ("pedestal",), self.again),)),
        declaring(restarts=lambda self, step: (Restart("HITS", ("pedestal", "gain"), self.again),)),
        declaring(restarts=lambda self, step: (Restart("HITS", ("unused",), self.again),)),
        declaring(restarts=lambda self, step: (Restart("HITS", ("same",), self.again),)),
        declaring(restarts=lambda self, step: (Restart("HITS", ("pedestal",), self.again, ("gain",)),)),
        # A histogram looks at it too.
        type(
            "Lacks",
            (again(lambda found, stored: {"measured": {}}),),
            {"restarts": lambda self, step: (Restart("HITS", ("pedestal",), self.again, ("hits",)),)},
        ),
    ],
    "test_what_is_missing_is_absent": [
        altered(measured=hits_with(np.nan)),
        altered(measured=hits_with(np.inf)),
        altered(tiers=lambda found, events: {"HITS": {"Hit_time": found.measured["hits"]}}),
        altered(tiers=lambda found, events: {"HITS": {"x": ak.Array([[np.nan]] * 16)}}),
    ],
    "test_quality_is_judged_on_what_is_filled": [
        altered(measured=lambda found, events: {}),
        declaring(histograms=lambda self, step: (QualityHistogram("hits", "hits", (1.0, 1.0), ""),)),
        declaring(quality_tests=lambda self: (QualityTest("t", "no such histogram", 0.0, 1.0),)),
        declaring(quality_tests=lambda self: (QualityTest("t", "hits", 1.0, 1.0),)),
    ],
    "test_judging_names_what_only_quality_tests_look_at": [
        declaring(judging=frozenset()),
        declaring(judging=frozenset({"most_hits", "threshold"})),
        declaring(judging=frozenset({"most_hits", "colour"})),
        declaring(judging=frozenset({"most_hits", "no_such_setting"})),
        declaring(calibrations=lambda self: (HitCounter(granularity=self.settings.most_hits[1]),)),
        CutsWhereItJudges,
        DrawsWhereItJudges,
    ],
    "test_calibrations_see_no_cut": [declaring(calibrations=lambda self: (GreedyCounter(),))],
}


def triggered(fired: Any, columns: tuple[str, ...] = ("event",)) -> type[Wires]:
    """Wires with one trigger."""
    return declaring(triggers=Triggers(("high",), columns, fired))


DECLARATION_FAULTS = {
    "test_triggers_do_not_depend_on_the_cut": [
        triggered(lambda events: {"high": events["event"] > events["event"].mean()} if len(events["event"]) else {}),
        triggered(lambda events: {"high": events["event"] > (3 if len(events["event"]) > 1 else 30)}),
        triggered(lambda events: {"high": (events["event"] > 3).astype(int)}),
        triggered(lambda events: {"high": events["event"][1:] > 3}),
        triggered(lambda events: {"low": events["event"] > 3}),
        triggered(lambda events: {"high": events["Hit_adc"][:, 0] > 3}),
        triggered(lambda events: {"high": events["event"] > 3}, ("trigger_bits",)),
    ],
    "test_histograms_have_names_that_can_be_stored": [
        declaring(histograms=lambda self, step: (QualityHistogram("J/psi", "hits", (0.0, 1.0), ""),)),
        declaring(histograms=lambda self, step: (QualityHistogram("", "hits", (0.0, 1.0), ""),)),
        declaring(histograms=lambda self, step: (QualityHistogram("hits", "hits", (0.0, 1.0), ""),) * 2),
    ],
    "test_it_says_what_it_is": [declaring(name=""), declaring(versions={Step.EXPRESS: 1})],
    "test_it_travels": [Unpicklable],
    "test_unknown_setting_is_refused": [Forgiving],
    "test_an_empty_file_is_refused": [declaring(wanted=lambda self, step, branches: Wanted(()))],
    "test_needed_conditions_can_come": [
        declaring(needs=lambda self, step: ("gain",)),
        declaring(initial_conditions=lambda self: {"pedestal": Payload("gain", {"mean": np.array(1.0)})}),
    ],
    "test_identify_does_not_depend_on_the_cut": [Relative],
    "test_it_wants_what_is_there": [
        declaring(wanted=lambda self, step, branches: Wanted(("Hit_adc", "Hit_adc"))),
        declaring(wanted=lambda self, step, branches: Wanted(("Hit_time",))),
        declaring(wanted=lambda self, step, branches: Wanted((), {"Hit_time": " "})),
    ],
}


@pytest.mark.parametrize(
    ("law", "faulty"),
    [(law, faulty) for law, found in {**PROCESS_FAULTS, **DECLARATION_FAULTS}.items() for faulty in found],
)
def test_every_law_finds_its_fault(law: str, faulty: type[Wires], tmp_path: Path) -> None:
    experiment = faulty()
    offered = {
        "experiment": experiment,
        "source": source(),
        "conditions": {"pedestal": pedestal(0.5), "unused": pedestal(1.0), "same": pedestal(2.0)},
        "other_conditions": {"pedestal": pedestal(0.75), "unused": pedestal(1.5), "same": pedestal(2.0)},
        "step": Step.PROMPT,
        "tmp_path": tmp_path,
    }
    method = getattr(ExperimentLaws(), law)
    taken = method.__code__.co_varnames[1 : method.__code__.co_argcount]
    # pytest.raises inside a law fails with pytest's own outcome, which is no AssertionError; what cannot be written
    # is said by the writer.
    with pytest.raises((AssertionError, pytest.fail.Exception, KeyError, TypeError, ValueError)):
        method(**{name: offered[name] for name in taken})


def test_every_law_is_tried() -> None:
    laws = {name for name in dir(ExperimentLaws) if name.startswith("test_")}
    assert laws == {*PROCESS_FAULTS, *DECLARATION_FAULTS}


def test_triggers_that_look_at_their_columns_alone_are_fine() -> None:
    experiment = triggered(lambda events: {"high": events["event"] > 3})()
    ExperimentLaws().test_triggers_do_not_depend_on_the_cut(experiment, source())


def test_fixtures_must_be_given() -> None:
    class Lazy(ExperimentLaws):
        pass

    for name in ("experiment", "source"):
        with pytest.raises(NotImplementedError, match=name):
            getattr(Lazy, name).__wrapped__(Lazy())


def test_what_a_step_reads_and_keeps() -> None:
    experiment = Wires()
    events = read(experiment, source(), Step.EXPRESS)
    assert set(events) == {"run", "lumi", "event", "Hit_adc"}
    processed = experiment.process(Step.EXPRESS, events, experiment.initial_conditions())
    assert kept(processed, 20).tolist() == [True, True, True, False, True] * 4
    assert measured(processed, events)["event"].tolist() == [e for e in range(20) if e % 5 != 3]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (np.array([1, 2]), np.array([1, 3])),
        (np.array([1, 2]), np.array([1.0, 2.0])),
        (np.array([1, 2]), np.array([1, 2, 3])),
        (np.array([0.0]), np.array([-0.0])),
        (ak.Array([[1], [2]]), ak.Array([[1, 2], []])),
        (ak.Array([[1], [2]]), np.array([1, 2])),
    ],
)
def test_columns_that_differ_are_named(left: Any, right: Any) -> None:
    assert differences({"a": left, "b": left}, {"a": right, "b": left}) == ["a"]
    assert differences({"a": left}, {"b": left}) == ["a", "b"]
    assert differences({"a": left}, {"a": left}) == []


def test_a_source_can_lose_a_column() -> None:
    less = source().without("Events", "Hit_adc")
    assert less.branches("Events") == {"event"}
    assert less.entries("Events") == 20
