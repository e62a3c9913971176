"""Shadows: a candidate for production runs on the same states beside it, publishes nothing, and is compared with it.

A candidate differs in what comes after the states: settings of finalize, the calibration's version of it, or gates. So
it reads no event, and can be tried on every run whose states are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from calib.calibration import Calibration
from calib.gates import Decision, gate_from_settings
from calib.iov import RunLumi
from jobs.runner import JobDone, JobFailed, Runner
from pipeline import verdicts
from pipeline.chain import Chain
from pipeline.express import StateFile, finalize_job
from pipeline.finalizing import Note, finalize_again, only, other_states
from pipeline.handshake import Judged
from pipeline.links import Ask, Link
from pipeline.manifest import Stretch
from pipeline.mistakes import SettingsError, unknown
from pipeline.passes import states_of
from pipeline.sections import ShadowSection
from pipeline.settings import Settings, apply_calibration_settings
from pipeline.way import Way
from pipeline.world import World


def shadow_record(name: str) -> str:
    """The name of the record of what a shadow has concluded for a run."""
    return f"shadow {name}"


def candidate(experiment_calibrations: Sequence[Calibration], settings: Settings, name: str) -> Link:
    """The calibration and gates of a shadow, over those of production for a run.

    Raises SettingsError where it would need other states, for those are made from events.
    """
    shadow = settings.shadow[name]
    produced = {c.kind: c for c in apply_calibration_settings(experiment_calibrations, settings.calibration)}
    if shadow.kind not in produced:
        raise SettingsError([unknown(shadow.kind, produced, f"shadow.{name}.kind = ")])
    production = produced[shadow.kind]
    tables = {shadow.kind: {**settings.calibration.get(shadow.kind, {}), **shadow.calibration}}
    [tried] = apply_calibration_settings([_algorithm(shadow) or _plain(experiment_calibrations, shadow.kind)], tables)
    if differing := other_states(production, tried):
        wrong = f"`shadow.{name}` would need other states ({', '.join(differing)}), and these are made from events"
        raise SettingsError([f"{wrong}: give it settings of finalize, or gates"])
    gates = settings.gates.get(shadow.kind, ()) if shadow.gates is None else shadow.gates
    return Link(tried, tuple(gate_from_settings(table) for table in gates))


def _plain(calibrations: Sequence[Calibration], kind: str) -> Calibration:
    return next(calibration for calibration in calibrations if calibration.kind == kind)


def _algorithm(shadow: ShadowSection) -> Calibration | None:
    if not shadow.algorithm:
        return None
    from pipeline.experiments.registry import find_object

    made: Calibration = find_object(shadow.algorithm)()
    if made.kind != shadow.kind:
        raise SettingsError([f"{shadow.algorithm} makes {made.kind!r}, not {shadow.kind!r}"])
    return made


@dataclass(frozen=True)
class Shadowed:
    """What a shadow has concluded for a run: its payloads by unit, as they would be in force, and why."""

    run: int
    judged: tuple[Judged, ...]
    failed: str = ""

    def to_document(self) -> dict[str, Any]:
        """As JSON."""
        return {"judged": list(map(verdicts.to_document, self.judged)), "failed": self.failed}

    @classmethod
    def from_document(cls, run: int, found: Mapping[str, Any]) -> Shadowed:
        """Read what `to_document` gave."""
        return cls(run, tuple(map(verdicts.from_document, found["judged"])), found["failed"])


def run_shadows(world: World, runner: Runner, ways: Sequence[Way]) -> None:
    """Run every shadow over the runs whose states are there, and record what it concludes."""
    for name, shadow in world.settings.shadow.items():
        links = {way.run: candidate(world.experiment.calibrations(), world.settings_of(way.run), name) for way in ways}
        if links:
            _Shadow(world, runner, name, Chain(shadow.kind, links, None, str(world.store.root))).work_off(ways)


class _Shadow:
    """One candidate over all runs, as its own chain of conditions: what it asks for goes through the ledger."""

    def __init__(self, world: World, runner: Runner, name: str, chain: Chain) -> None:
        self._world, self._runner, self._name, self._chain = world, runner, name, chain
        self._asked: dict[str, Ask] = {}

    def work_off(self, ways: Sequence[Way]) -> None:
        """Until nothing is left to ask."""
        states = {way.run: self._state(way) for way in ways}
        finalize_again(self._chain, states, self, self._world.store)
        for way in ways:
            found = shadowed(self._chain, way.run)
            self._world.books.record(way.run, shadow_record(self._name), found.to_document())

    def _state(self, way: Way) -> StateFile | str:
        return states_of(self._world, way).get(self._chain.kind, "its state is not made yet")

    def start(self, ask: Ask) -> None:
        """Have a finalization done, under a name of this shadow's own."""
        job = finalize_job(ask.run, ask.work, ask.states)
        job = replace(job, name=f"shadow-{job.name}", group=f"shadow-{self._name}-{ask.run}")
        self._asked[job.name] = ask
        self._runner.start(job, ask.work, partial(only, ask.states))

    def finished(self) -> Iterator[tuple[Ask, Note]]:
        """What has come to its end by now."""
        for event in self._runner.step():
            if isinstance(event, JobDone | JobFailed) and event.job.name in self._asked:
                ask = self._asked.pop(event.job.name)
                yield ask, event.root.leaves[0].note if isinstance(event, JobDone) else {"failed": event.reason}


def shadowed(chain: Chain, run: int) -> Shadowed:
    """What a chain has concluded for a run."""
    view = chain.view(run)
    return Shadowed(run, view.judged or (), view.waits_for if view.broken else "")


# beside production ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Beside:
    """Closed units of a run for which production and shadow each have one answer; None: nothing new published."""

    run: int
    first: int
    last: int
    production: str | None
    shadow: str | None
    production_says: str
    shadow_says: str

    @property
    def same(self) -> bool:
        """Whether both have the same payload."""
        return self.production == self.shadow


def beside(run: int, production: Iterable[Stretch], shadow: Shadowed, start: str | None) -> tuple[Beside, ...]:
    """Unit by unit what production settled and what the shadow would have; `start` is in force before it. Pure."""
    stretches = sorted(production, key=lambda stretch: stretch.first)
    if not stretches:
        return ()
    cuts = {stretch.first for stretch in stretches} | {
        one.first for one in shadow.judged if stretches[0].first < one.first <= stretches[-1].last
    }
    begins = sorted(cuts)
    ends = [begin - 1 for begin in begins[1:]] + [stretches[-1].last]
    found = []
    for first, last in zip(begins, ends, strict=True):
        settled = [stretch for stretch in stretches if stretch.first <= first][-1]
        payload, says = _at(shadow, first, start)
        found.append(Beside(run, first, last, settled.payload, payload, f"{settled.condition}: {settled.why}", says))
    return tuple(found)


def _at(shadow: Shadowed, unit: int, start: str | None) -> tuple[str | None, str]:
    published = [one for one in shadow.judged if one.decision is Decision.PUBLISH and one.first <= unit]
    payload = max(published, key=lambda one: one.first).payload if published else start
    spoken = [one for one in shadow.judged if one.first <= unit <= one.last]
    if not spoken:
        return payload, shadow.failed or "nothing concluded"
    says = spoken[-1].decision or spoken[-1].outcome
    return payload, f"{says}{': ' if spoken[-1].why else ''}{spoken[-1].why}"


def end_of(shadow: Shadowed, start: str | None) -> str | None:
    """The payload a shadow leaves in force at the end of a run. Pure."""
    return _at(shadow, RunLumi(shadow.run + 1).packed - 1, start)[0]
