"""The conditions of one kind over several runs: which finalization may start, and what has been concluded."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from operator import itemgetter
from typing import Any

from calib.gates import Decision
from calib.iov import RunLumi
from calib.payload import PayloadStore
from pipeline.express import FinalizeWork, StateFile
from pipeline.handshake import Judged, KindView
from pipeline.links import Ask, Link


@dataclass
class Chain:
    """One kind of conditions over runs in order, each with settings of its own.

    A run whose calibration looks neither back nor across runs is finalized at once. Otherwise it waits until the runs
    before it are decided: it sees the payload they leave in force, and for a span the units that are still open. A span
    ends where the settings change. Settled runs take no part: what they left in force is all that is known of them. But
    one that was released while its span was open stays in it, where the settings let runs go on so.

    What a call costs does not grow with the number of runs: whoever asks is told by `changed` what to ask about.
    """

    kind: str
    links: Mapping[int, Link]
    """by run, in order"""
    in_force: str | None
    """payload id in force before the first run"""
    conditions_root: str
    settled: dict[int, str | None] = field(default_factory=dict)
    """runs released already, and the payload id in force at the end of each"""
    left_open: frozenset[int] = frozenset()
    """of these, those whose span was open"""
    intervals: tuple[tuple[int, int], ...] = ()
    """first and last unit of what was concluded of these, packed"""
    runs: tuple[int, ...] = field(init=False)
    """its runs, in order"""
    _states: dict[int, StateFile] = field(default_factory=dict)
    _words: dict[int, str] = field(default_factory=dict)
    """what runs wait for whose state is not complete, where that is not express"""
    _broken: dict[int, str] = field(default_factory=dict)
    _asked: dict[int, bool] = field(default_factory=dict)
    """runs asked for, and whether everything open was to be closed then (flushed)"""
    _concluded: set[int] = field(default_factory=set)
    _outdated: set[int] = field(default_factory=set)
    """runs whose finalization is at work on what no longer holds"""
    _judged: dict[int, list[Judged]] = field(default_factory=dict)
    _closed: list[tuple[int, int]] = field(default_factory=list)
    """first and last unit of every interval, in order"""
    _left: list[tuple[int, str | None]] = field(default_factory=list)
    """from which unit on which payload is in force, in order"""
    _place: dict[int, int] = field(init=False)
    _walls: list[int] = field(init=False)
    """places before which a stretch of runs with equal settings ends, and of settled runs with the place after each"""
    _front: int = 0
    """the place of the first run that may still hold up those after it"""
    _new: set[int] = field(default_factory=set)
    """runs whose state has come since `asks` was last called"""
    _undecided: list[int] = field(init=False)
    """runs whose conditions later ones may have to wait for, in order"""
    _changed: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.runs = tuple(self.links)
        self._place = {run: place for place, run in enumerate(self.runs)}
        differs = [place for place, (one, other) in enumerate(pairwise(self.links.values()), 1) if one != other]
        self._walls = [0, *differs, len(self.runs)]
        self._undecided = [run for run in self.runs if run not in self.settled]
        self._closed = sorted(self.intervals)
        for run, in_force in self.settled.items():
            self._wall_in(run, in_force)

    def settle(self, run: int, in_force: str | None) -> None:
        """The run is released, and this payload is in force at its end.

        Where that is another than its verdict let expect (people had one published), the runs after it that look back
        are asked and judged anew, as they would be after a restart.
        """
        if run not in self.links or run in self.settled:
            return
        expected = self._in_force_before(RunLumi(run + 1).packed)
        if self.links[run].goes_on and self._open(run):
            self.left_open |= {run}
        self.settled[run] = in_force
        self._wall_in(run, in_force)
        self._look_back_from(run)
        self._note([run])
        if in_force != expected:
            self._lean_again(run)

    def _lean_again(self, run: int) -> None:
        """The runs after this one that look back are to be asked again."""
        later = self.runs[self._place[run] + 1 :]
        leaning = [r for r in later if self.links[r].ordered and r not in self.settled and r not in self._broken]
        self._outdated.update(filter(self._is_running, leaning))
        self._forget([r for r in leaning if not self._is_running(r)])

    def _wall_in(self, run: int, in_force: str | None) -> None:
        if run not in self.left_open:
            insort(self._walls, self._place[run])
            insort(self._walls, self._place[run] + 1)
        self._leaves(RunLumi(run + 1).packed - 1, in_force)

    def _leaves(self, unit: int, payload: str | None) -> None:
        insort(self._left, (unit, payload), key=itemgetter(0))

    def _forget(self, runs: Sequence[int]) -> None:
        """These are to be asked again, as if nothing had been concluded for them."""
        for run in runs:
            self._concluded.discard(run)
            self._outdated.discard(run)
            self._asked.pop(run, None)
            self._front = min(self._front, self._place[run])
        self._new.update(run for run in runs if run in self._states)
        judged = [self._judged.pop(run) for run in runs if run in self._judged]
        if judged:
            self._judge_as_left()
        self._note(runs)

    def _judge_as_left(self) -> None:
        """What is closed, and what is in force, by what is still concluded."""
        found = [(run, judged) for run, of_run in self._judged.items() for judged in of_run]
        self._closed = sorted((j.first, j.last) for run, j in found if RunLumi.unpack(j.last).run == run)
        left = {RunLumi(run + 1).packed - 1: payload for run, payload in self.settled.items()}
        left |= {judged.first: judged.payload for _, judged in found if judged.decision is Decision.PUBLISH}
        self._left = sorted(left.items(), key=itemgetter(0))

    def expects(self, run: int, words: str) -> None:
        """The run's state is still to be made, and this is what it waits for."""
        if self._words.get(run) != words:
            self._words[run] = words
            self._note([run])

    def again(self, run: int, words: str, *, spoken: bool = False) -> None:
        """The run is to have another state: what is concluded of the one before, or is being concluded, does not count.

        `spoken`: the finalization asked for it has just given what is not its last word.
        """
        self._states.pop(run, None)
        self._broken.pop(run, None)
        self.expects(run, words)
        if self._is_running(run) and not spoken:
            self._outdated.add(run)
            return
        spoke = run in self._judged
        self._forget([run, *self._in_spans_with(run)])
        if spoke:
            self._lean_again(run)

    def _in_spans_with(self, run: int) -> list[int]:
        """Other runs that are not settled and have an interval in common with one."""
        first = min((RunLumi.unpack(judged.first).run for judged in self.found(run)), default=run)
        last = max((RunLumi.unpack(judged.last).run for judged in self.found(run)), default=run)
        return [r for r in self._between(self.runs, first, last) if r != run and r not in self.settled]

    def ready(self, run: int, state: StateFile) -> None:
        """The run's state is complete."""
        self._states[run] = state
        self._words.pop(run, None)
        self._new.add(run)
        self._front = min(self._front, self._place[run])
        self._note([run])

    def broken(self, run: int, reason: str) -> None:
        """The run will give no state, or its finalization has failed; the others go on without it."""
        self._broken[run] = reason
        self._concluded.add(run)
        self._look_back_from(run)
        self._note([run])

    def _look_back_from(self, run: int) -> None:
        """What should have followed the run before and closed what it left open will not come."""
        before = (other for other in reversed(self.runs[: self._place[run]]) if other not in self._broken)
        last = next(before, None)
        if last is not None and last not in self.settled and self._asked.get(last) is False:
            self._front = min(self._front, self._place[last])
            self._note([last])

    def asks(self, late: Collection[int] = ()) -> list[Ask]:
        """The finalizations that may start now; nobody waits any more for the runs in `late`."""
        asks = [self._ask(run) for run in sorted(self._new) if not self.links[run].ordered and self._may_be_asked(run)]
        self._new.clear()
        while self._front < len(self.runs):
            run = self.runs[self._front]
            if self.links[run].ordered and self._may_be_asked(run):
                asks.append(self._ask(run))
            given_up = run in late and run not in self._asked
            if not (run in self._concluded or run in self.settled or given_up):
                break
            self._front += 1
        return sorted(asks, key=lambda ask: ask.run)

    def _may_be_asked(self, run: int) -> bool:
        if run not in self._states or run in self._broken or run in self.settled:
            return False
        # A second time, where what should have followed and closed what it left open will not come.
        again = run in self._concluded and not self._asked[run] and self._closes(run) and self._open(run)
        return run not in self._asked or again

    def _segment(self, run: int) -> Sequence[int]:
        """The runs around this one under the same settings, with nothing settled between: how far a span may reach."""
        at = bisect_right(self._walls, self._place[run])
        return self.runs[self._walls[at - 1] : self._walls[at]]

    def _closes(self, run: int) -> bool:
        """Whether what is open is closed with a run: no later one can add to its span. Where runs go on one always may:
        it may come with the next files."""
        if self.links[run].goes_on:
            return False
        segment = self._segment(run)
        return all(after in self._broken for after in segment[bisect_right(segment, run) :])

    def _ask(self, run: int) -> Ask:
        link = self.links[run]
        runs, since = [run], 0
        if link.spans:
            since = self._open_since(run)
            first = RunLumi.unpack(since).run
            runs = [r for r in self._segment(run) if first <= r <= run and r in self._states]
        work = FinalizeWork(
            link.calibration,
            self.conditions_root,
            previous=self._in_force_before(since or RunLumi(run).packed) if link.looks_back else None,
            flush=not link.spans or self._closes(run),
            gates=link.gates if link.looks_back else (),
        )
        self._asked[run] = work.flush
        self._concluded.discard(run)
        self._note([run])
        return Ask(run, work, tuple(replace(self._states[r], since=since) for r in runs))

    def _open_since(self, run: int) -> int:
        """The first packed unit of the run's segment that is in no interval yet."""
        segment = self._segment(run)
        at = bisect_left(self._closed, (RunLumi(segment[-1] + 1).packed,))
        last = self._closed[at - 1][1] if at else -1
        return max(last + 1, RunLumi(segment[0]).packed)

    def _in_force_before(self, unit: int) -> str | None:
        """The payload id that earlier runs and intervals leave in force at a packed unit."""
        at = bisect_left(self._left, unit, key=itemgetter(0))
        return self._left[at - 1][1] if at else self.in_force

    def concluded(self, run: int, notes: Sequence[Mapping[str, Any]], store: PayloadStore) -> None:
        """Take in what the finalization asked for `run` concluded, and judge it by the gates."""
        if run in self._outdated:
            self._forget([run])
            return
        spans = self.links[run].spans
        since = self._open_since(run) if spans else 0
        self._concluded.add(run)
        touched = {run}
        for note in notes:
            in_force = self._in_force_before(int(note["first"])) if self.links[run].relative else None
            judged = self.links[run].judge(note, in_force, store)
            insort(self._closed, (judged.first, judged.last))
            if judged.decision is Decision.PUBLISH:
                # In runs that are settled nothing of it holds.
                late = RunLumi.unpack(judged.first).run in self.settled
                self._leaves(RunLumi(run).packed if late else judged.first, judged.payload)
            first, last = RunLumi.unpack(judged.first).run, RunLumi.unpack(judged.last).run
            for covered in (r for r in self._between(self.runs, first, last) if r in self._states):
                self._judged.setdefault(covered, []).append(judged)
                self._broken.pop(covered, None)
                touched.add(covered)
        self._note(touched.union(self._closed_since(run, since) if spans else ()))

    def _closed_since(self, run: int, since: int) -> Sequence[int]:
        """The runs that the last finalization of a span may have closed."""
        segment, until = self._segment(run), self._open_since(run)
        if self._asked.get(run):
            return self._between(segment, RunLumi.unpack(since).run, segment[-1])
        return self._between(segment, RunLumi.unpack(since).run, RunLumi.unpack(until).run) if until > since else ()

    @staticmethod
    def _between(runs: Sequence[int], first: int, last: int) -> Sequence[int]:
        return runs[bisect_left(runs, first) : bisect_right(runs, last)]

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
        if not self.links[run].spans or RunLumi.unpack(self._open_since(run)).run > run:
            return False
        # Only the last run of a segment closes what is open, and only once it has spoken.
        last = next((other for other in reversed(self._segment(run)) if other not in self._broken), run)
        return not (last >= run and self._asked.get(last) and last in self._concluded)

    def view(self, run: int) -> KindView:
        """What is known of a run here; what was carried before it is for others to say."""
        judged = self.judged(run)
        goes_on = judged is None and self.links[run].goes_on and self._has_spoken(run)
        return KindView(
            self.kind,
            judged,
            waits_for=self._waits_for(run),
            broken=run in self._broken,
            running=self._is_running(run),
            relative=self.links[run].relative,
            earlier_undecided=None if judged is None and not goes_on else self._undecided_before(run),
            span=self.links[run].span,
            goes_on=goes_on,
            found=self.found(run) if goes_on else (),
            closed=self._closed_before(run) if goes_on else None,
            in_force=self._in_force_before(RunLumi(run).packed),
        )

    def _closed_before(self, run: int) -> Judged | None:
        """What was made of settled runs alone, and is to be in force from this run on."""
        holds = self._in_force_before(RunLumi(run).packed + 1)
        last = next((r for r in reversed(self.runs[: self._place[run]]) if r in self.settled), None)
        if last is None or self.settled[last] == holds:
            return None
        earlier = (j for j in self._judged.get(last, ()) if RunLumi.unpack(j.last).run < run)
        return next((judged for judged in earlier if judged.payload == holds), None)

    def _waits_for(self, run: int) -> str:
        if run in self._broken:
            return f"{self.kind}: {self._broken[run]}"
        if run not in self._states:
            return f"{self.kind}: {self._words.get(run, 'express is running')}"
        if self._is_running(run):
            return f"{self.kind}: finalize is running"
        if run not in self._concluded:
            return f"{self.kind}: finalize waits for the runs before it"
        return f"{self.kind}: its span is still open for more data"

    def _has_spoken(self, run: int) -> bool:
        return run in self._concluded and run not in self._broken

    def _is_running(self, run: int) -> bool:
        return run in self._asked and run not in self._concluded

    def _undecided_before(self, run: int) -> int | None:
        """The last earlier run that has, or may still get, a payload of its own that this one could lean on."""
        at = bisect_left(self._undecided, run)
        return self._undecided[at - 1] if at else None

    def unsettled_before(self, run: int) -> int | None:
        """The last earlier run that is not released."""
        return next((r for r in reversed(self.runs[: self._place[run]]) if r not in self.settled), None)

    def changed(self) -> set[int]:
        """The runs of which something else is known than when this was last called."""
        changed, self._changed = self._changed, set()
        return changed

    def _note(self, runs: Iterable[int]) -> None:
        for run in runs:
            self._changed.add(run)
            at = bisect_left(self._undecided, run)
            known = self._undecided[at : at + 1] == [run]
            if known and not self._may_publish(run):
                del self._undecided[at]
            elif not known and self._may_publish(run):
                self._undecided.insert(at, run)

    def _may_publish(self, run: int) -> bool:
        if run in self.settled or run in self._broken:
            return False
        judged = self.judged(run)
        return judged is None or any(one.decision is Decision.PUBLISH for one in judged)
