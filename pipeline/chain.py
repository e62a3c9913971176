"""The conditions of one kind over several runs: which finalization may start, and what has been concluded."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any

from calib.calibration import Calibration, Granularity, Outcome
from calib.gates import Decision, Gate, judge
from calib.iov import RunLumi
from calib.payload import PayloadStore
from pipeline.express import FinalizeWork, StateFile
from pipeline.handshake import Judged


@dataclass(frozen=True)
class Ask:
    """A finalization that may start now: on behalf of `run`, over these states."""

    run: int
    work: FinalizeWork
    states: tuple[StateFile, ...]


@dataclass(frozen=True)
class Link:
    """How the conditions of a run are made and judged."""

    calibration: Calibration
    gates: tuple[Gate, ...] = ()

    @property
    def spans(self) -> bool:
        """Whether an interval may go on into the next run."""
        return self.calibration.granularity is Granularity.SPAN

    @property
    def relative(self) -> bool:
        """Whether some gate compares with the payload in force."""
        return any(gate.relative for gate in self.gates)

    @property
    def ordered(self) -> bool:
        """Whether a run must wait for what becomes of the runs before it."""
        return self.spans or self.calibration.looks_at_previous or self.relative


@dataclass
class Chain:
    """One kind of conditions over runs in order, each with settings of its own.

    A run whose calibration looks neither back nor across runs is finalized at once. Otherwise it waits until the runs
    before it are decided: it sees the payload they leave in force, and for a span the units that are still open. A span
    ends where the settings change. Settled runs take no part: what they left in force is all that is known of them.
    """

    kind: str
    links: Mapping[int, Link]
    """by run, in order"""
    in_force: str | None
    """payload id in force before the first run"""
    conditions_root: str
    settled: dict[int, str | None] = field(default_factory=dict)
    """runs released already, and the payload id in force at the end of each"""
    _states: dict[int, StateFile] = field(default_factory=dict)
    _broken: dict[int, str] = field(default_factory=dict)
    _asked: dict[int, bool] = field(default_factory=dict)
    """runs asked for, and whether everything open was to be closed then (flushed)"""
    _concluded: set[int] = field(default_factory=set)
    _outdated: set[int] = field(default_factory=set)
    """runs whose finalization is at work on what no longer holds"""
    _judged: dict[int, list[Judged]] = field(default_factory=dict)
    _place: dict[int, int] = field(init=False)
    _stretch: list[int] = field(init=False)
    """for each run, in order, the number of the stretch of runs with equal settings that it is in"""

    def __post_init__(self) -> None:
        links = list(self.links.values())
        differs = [one != other for one, other in pairwise(links)]
        self._place = {run: place for place, run in enumerate(self.links)}
        self._stretch = list(accumulate([0, *differs])) if links else []

    @cached_property
    def runs(self) -> tuple[int, ...]:
        """Its runs, in order."""
        return tuple(self.links)

    def settle(self, run: int, in_force: str | None) -> bool:
        """The run is released, and this payload is in force at its end.

        Whether that is another than its verdict let expect (people had one published): then the runs after it that
        look back are asked and judged anew, as they would be after a restart.
        """
        if run not in self.links:
            return False
        expected = self._in_force_before(RunLumi(run + 1).packed)
        self.settled[run] = in_force
        if in_force == expected:
            return False
        for later in (r for r, link in self.links.items() if r > run and link.ordered and r not in self.settled):
            if self.is_running(later):
                self._outdated.add(later)
            elif later not in self._broken:
                self._forget(later)
        return True

    def _forget(self, run: int) -> None:
        self._concluded.discard(run)
        self._outdated.discard(run)
        self._asked.pop(run, None)
        self._judged.pop(run, None)

    def ready(self, run: int, state: StateFile) -> None:
        """The run's state is complete."""
        self._states[run] = state

    def broken(self, run: int, reason: str) -> None:
        """The run will give no state, or its finalization has failed; the others go on without it."""
        self._broken[run] = reason
        self._concluded.add(run)

    def is_broken(self, run: int) -> bool:
        """Whether nothing will be concluded for a run."""
        return run in self._broken

    def is_running(self, run: int) -> bool:
        """Whether the run's finalization has been asked for and has not spoken yet."""
        return run in self._asked and run not in self._concluded

    def asks(self, late: Collection[int] = ()) -> list[Ask]:
        """The finalizations that may start now; nobody waits any more for the runs in `late`."""
        asks = []
        waiting = False
        for run, link in self.links.items():
            if run in self.settled:
                continue
            if self._may_be_asked(run) and not (waiting and link.ordered):
                ask = self._ask(run)
                self._asked[run] = ask.work.flush
                self._concluded.discard(run)
                asks.append(ask)
            given_up = run in late and not self.is_running(run)
            waiting = waiting or not (run in self._concluded or given_up)
        return asks

    def _may_be_asked(self, run: int) -> bool:
        if run not in self._states or run in self._broken:
            return False
        # A second time, where what should have followed and closed what it left open will not come.
        again = run in self._concluded and not self._asked[run] and self._is_last(run) and self._open(run)
        return run not in self._asked or again

    def _segment(self, run: int) -> list[int]:
        """The runs around this one under the same settings, with nothing settled between: how far a span may reach."""
        runs, place = self.runs, self._place[run]
        first = last = place
        while first and self._together(first - 1, place):
            first -= 1
        while last + 1 < len(runs) and self._together(last + 1, place):
            last += 1
        return list(runs[first : last + 1])

    def _together(self, other: int, place: int) -> bool:
        return self._stretch[other] == self._stretch[place] and self.runs[other] not in self.settled

    def _is_last(self, run: int) -> bool:
        """Whether no later run can add to its span."""
        return all(after in self._broken for after in self._segment(run) if after > run)

    def _ask(self, run: int) -> Ask:
        link = self.links[run]
        runs, since = [run], 0
        if link.spans:
            since = self._open_since(run)
            first = RunLumi.unpack(since).run
            runs = [r for r in self._segment(run) if first <= r <= run and r in self._states]
        looks_back = link.calibration.looks_at_previous
        work = FinalizeWork(
            link.calibration,
            self.conditions_root,
            previous=self._in_force_before(since or RunLumi(run).packed) if looks_back else None,
            flush=not link.spans or self._is_last(run),
            gates=link.gates if looks_back else (),
        )
        return Ask(run, work, tuple(replace(self._states[r], since=since) for r in runs))

    def _open_since(self, run: int) -> int:
        """The first packed unit of the run's segment that is in no interval yet."""
        segment = self._segment(run)
        closed = [judged.last + 1 for r in segment for judged in self._judged.get(r, [])]
        return max(closed, default=RunLumi(segment[0]).packed)

    def _in_force_before(self, unit: int) -> str | None:
        """The payload id that earlier runs and intervals leave in force at a packed unit."""
        left = {RunLumi(run + 1).packed - 1: payload for run, payload in self.settled.items()}
        published = (j for found in self._judged.values() for j in found if j.decision is Decision.PUBLISH)
        left |= {judged.first: judged.payload for judged in published}
        before = [since for since in left if since < unit]
        return left[max(before)] if before else self.in_force

    def concluded(self, run: int, notes: Sequence[Mapping[str, Any]], store: PayloadStore) -> None:
        """Take in what the finalization asked for `run` concluded, and judge it by the gates."""
        if run in self._outdated:
            self._forget(run)
            return
        self._concluded.add(run)
        for note in notes:
            judged = self._judge(self.links[run], note, store)
            first, last = RunLumi.unpack(judged.first).run, RunLumi.unpack(judged.last).run
            for covered in (r for r in self.links if first <= r <= last and r in self._states):
                self._judged.setdefault(covered, []).append(judged)
                self._broken.pop(covered, None)

    def _judge(self, link: Link, note: Mapping[str, Any], store: PayloadStore) -> Judged:
        first, last, outcome = int(note["first"]), int(note["last"]), Outcome(note["outcome"])
        vetoed = tuple(note["vetoed"])
        if outcome is not Outcome.MADE:
            return Judged(first, last, outcome, note["payload"], why=note["message"], vetoed=vetoed)
        payload_id = str(note["payload"])
        in_force = self._in_force_before(first) if link.relative else None
        verdict = judge(store.get(payload_id), store.get(in_force) if in_force else None, link.gates)
        why = "; ".join(verdict.reasons)
        judged = Judged(first, last, outcome, payload_id, verdict.decision, why, bool(note["unconfirmed"]), vetoed)
        return replace(judged, measures=verdict.measures, held_to=(in_force or "") if link.relative else None)

    def found(self, run: int) -> tuple[Judged, ...]:
        """What was concluded for units of a run so far."""
        return tuple(self._judged.get(run, ()))

    def judged(self, run: int) -> tuple[Judged, ...] | None:
        """What was concluded for all units of a run; None while something of it is open, or will stay so."""
        if run not in self._concluded or run in self._broken or self._open(run):
            return None
        return tuple(self._judged.get(run, []))

    def _open(self, run: int) -> bool:
        """Whether units of the run may still belong to a span that is not closed."""
        if not self.links[run].spans:
            return False
        segment = self._segment(run)
        flushed = any(self._asked.get(r) and self._has_spoken(r) for r in segment if r >= run)
        return not flushed and RunLumi.unpack(self._open_since(run)).run <= run

    def _has_spoken(self, run: int) -> bool:
        return run in self._concluded and run not in self._broken

    def waits_for(self, run: int) -> str:
        """What keeps a run undecided, in words."""
        if run in self._broken:
            return f"{self.kind}: {self._broken[run]}"
        if run not in self._states:
            return f"{self.kind}: express is running"
        if self.is_running(run):
            return f"{self.kind}: finalize is running"
        if run not in self._concluded:
            return f"{self.kind}: finalize waits for the runs before it"
        return f"{self.kind}: its span is still open for more data"

    def publishes(self, run: int) -> bool:
        """Whether the run has, or may still get, a payload of its own that later runs could lean on."""
        judged = self.judged(run)
        return (judged is None and run not in self._broken) or any(j.decision is Decision.PUBLISH for j in judged or ())
