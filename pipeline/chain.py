"""The conditions of one kind over several runs: which finalization may start, and what has been concluded."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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


@dataclass
class Chain:
    """One calibration over runs in order.

    Runs of a calibration that looks neither back nor across runs are finalized at once, each alone. Otherwise one
    at a time, in the order of the runs: each sees the payload left in force before it, and for a span the units
    that are still open.
    """

    calibration: Calibration
    gates: Sequence[Gate]
    runs: tuple[int, ...]
    """in order"""
    in_force: str | None
    """payload id in force before the first run"""
    conditions_root: str
    _states: dict[int, StateFile] = field(default_factory=dict)
    _broken: dict[int, str] = field(default_factory=dict)
    _asked: set[int] = field(default_factory=set)
    _concluded: set[int] = field(default_factory=set)
    _judged: dict[int, list[Judged]] = field(default_factory=dict)
    _open_since: int = 0

    @property
    def ordered(self) -> bool:
        """Whether runs must be finalized one after the other."""
        spans = self.calibration.granularity is Granularity.SPAN
        return spans or self.calibration.looks_at_previous or self.relative

    @property
    def relative(self) -> bool:
        """Whether some gate compares with the payload in force."""
        return any(gate.relative for gate in self.gates)

    def ready(self, run: int, state: StateFile) -> None:
        """The run's state is complete."""
        self._states[run] = state

    def broken(self, run: int, reason: str) -> None:
        """The run will give no state; the others go on without it."""
        self._broken[run] = reason
        self._concluded.add(run)

    def is_broken(self, run: int) -> bool:
        """Whether nothing will be concluded for a run."""
        return run in self._broken

    def asks(self) -> list[Ask]:
        """The finalizations that may start now and were not asked for before."""
        asks = []
        for place, run in enumerate(self.runs):
            if run in self._states and run not in self._asked:
                self._asked.add(run)
                asks.append(self._ask(place, run))
            if self.ordered and run not in self._concluded:
                break
        return asks

    def _ask(self, place: int, run: int) -> Ask:
        spans = self.calibration.granularity is Granularity.SPAN
        states = [self._states[run]]
        if spans:
            first = RunLumi.unpack(self._open_since).run
            states = [self._states[r] for r in self.runs[: place + 1] if r >= first and r in self._states]
        files = tuple(StateFile(file.path, file.lineage, self._open_since if spans else 0) for file in states)
        last = all(after in self._broken for after in self.runs[place + 1 :])
        previous = self.in_force if self.calibration.looks_at_previous else None
        work = FinalizeWork(self.calibration, self.conditions_root, previous, flush=last or not spans)
        return Ask(run, work, files)

    def concluded(self, run: int, notes: Sequence[Mapping[str, Any]], store: PayloadStore) -> None:
        """Take in what the finalization asked for `run` concluded, and judge it by the gates."""
        self._concluded.add(run)
        for note in notes:
            judged = self._judge(note, store)
            self._open_since = judged.last + 1
            first, last = RunLumi.unpack(judged.first).run, RunLumi.unpack(judged.last).run
            for covered in self.runs[bisect_left(self.runs, first) : bisect_right(self.runs, last)]:
                self._judged.setdefault(covered, []).append(judged)

    def _judge(self, note: Mapping[str, Any], store: PayloadStore) -> Judged:
        first, last, outcome = int(note["first"]), int(note["last"]), Outcome(note["outcome"])
        if outcome is not Outcome.MADE:
            return Judged(first, last, outcome, why=note["message"])
        payload_id = str(note["payload"])
        in_force = store.get(self.in_force) if self.in_force and self.relative else None
        verdict = judge(store.get(payload_id), in_force, self.gates)
        if verdict.decision is Decision.PUBLISH and self.ordered:
            self.in_force = payload_id
        why = "; ".join(verdict.reasons)
        return Judged(first, last, outcome, payload_id, verdict.decision, why, bool(note["unconfirmed"]))

    def judged(self, run: int) -> tuple[Judged, ...] | None:
        """What was concluded for all units of a run; None while something of it is open."""
        if run not in self._concluded or run in self._broken:
            return None
        found = self._judged.get(run, [])
        spans = self.calibration.granularity is Granularity.SPAN
        return None if spans and self._open(run, found) else tuple(found)

    def _open(self, run: int, found: Sequence[Judged]) -> bool:
        """Whether units of the run may still belong to a span that is not closed."""
        complete = len(self._concluded) == len(self.runs)
        goes_on = any(RunLumi.unpack(judged.last).run > run for judged in found)
        return not (complete or goes_on or RunLumi.unpack(self._open_since).run > run)

    def waits_for(self, run: int) -> str:
        """What keeps a run undecided, in words."""
        kind = self.calibration.kind
        if run in self._broken:
            return f"{kind}: {self._broken[run]}"
        if run not in self._states:
            return f"{kind}: express is running"
        if run not in self._concluded:
            return f"{kind}: finalize is running or waits for the run before it"
        return f"{kind}: its span is still open for more data"

    def publishes(self, run: int) -> bool:
        """Whether the run has, or may still get, a payload of its own that later runs could lean on."""
        judged = self.judged(run)
        return (judged is None and run not in self._broken) or any(j.decision is Decision.PUBLISH for j in judged or ())
