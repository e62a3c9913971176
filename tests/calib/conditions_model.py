"""What the conditions database must answer: tags as lists that are searched from end to end, by brute force."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from calib.iov import Clock, RunLumi
from calib.late import FateKind
from calib.payload import Payload, PayloadStore
from calib.tags import Moment, Sync

GRID = 3
"""Moments of a run, counted through: 3 * run, and two more. For tags by time the third lies between the runs."""

TICK_NS = 1000
FAR = 1 << 20
SHIFTS = {Sync.PROMPT, Sync.EXPRESS, Sync.HLT}


@dataclass(frozen=True)
class Told:
    """A fate as the model sees it."""

    kind: FateKind
    given: int | None
    runs: tuple[int, ...]
    until: int | None = None
    into: str | None = None


@dataclass
class Line:
    """An entry. `payload` None: nothing holds from here."""

    since: int
    asked: int
    payload: str | None
    counts: bool = True


@dataclass
class ModelTag:
    kind: str
    clock: Clock
    sync: Sync
    lines: list[Line] = field(default_factory=list)
    settled: dict[int, range] = field(default_factory=dict)
    withdrawn: set[str] = field(default_factory=set)

    def moment(self, at: int) -> Moment:
        return at * TICK_NS if self.clock is Clock.TIME else RunLumi(*divmod(at, GRID))

    def place(self, moment: Moment | None) -> int | None:
        if isinstance(moment, RunLumi):
            return GRID * moment.run + moment.lumi
        return None if moment is None else moment // TICK_NS

    def begin(self, at: int) -> int:
        return at - at % GRID if self.clock is Clock.RUN else at

    def settle(self, run: int) -> None:
        length = GRID - 1 if self.clock is Clock.TIME else GRID
        self.settled[run] = range(GRID * run, GRID * run + length)

    def is_settled(self, at: int) -> bool:
        return at in self.settled.get(at // GRID, ())

    def holder(self, at: int, without: Iterable[str] = ()) -> Line | None:
        best = None
        for line in self.lines:
            holds = line.counts and line.since <= at and line.payload not in without
            if holds and (best is None or line.since >= best.since):
                best = line
        return best

    def answer(self, at: int) -> str | None:
        line = self.holder(at)
        return line.payload if line else None

    def end(self, since: int) -> int:
        return min((line.since for line in self.lines if line.counts and line.since > since), default=FAR)

    def touched(self, since: int) -> tuple[int, ...]:
        end = self.end(since)
        return tuple(sorted(run for run, held in self.settled.items() if held.start < end and since < held.stop))

    @property
    def first_safe(self) -> int:
        return max((held.stop for held in self.settled.values()), default=0)

    def append(self, since: int, payload: str, unused: str | None = None) -> Told:
        """Enter a payload; `unused` names a tag for one that is late in an offline tag: the caller enters it there."""
        runs = self.touched(since)
        if self.is_settled(since):
            return self._late(since, payload, runs, unused)
        until = self.settled[runs[0]].start if runs else None
        if until is not None:
            self._copy(until, self.holder(until))
        self.lines.append(Line(since, since, payload))
        return Told(FateKind.ACCEPTED, since, runs, until)

    def _late(self, since: int, payload: str, runs: tuple[int, ...], unused: str | None) -> Told:
        if self.sync is Sync.OFFLINE:
            return Told(FateKind.ACCEPTED, since, runs, into=unused) if unused else Told(FateKind.QUEUED, None, runs)
        holder = self.holder(self.first_safe)
        newer_there = holder is not None and holder.payload is not None and holder.asked > since
        if self.sync not in SHIFTS or newer_there:
            return Told(FateKind.REFUSED, None, runs)
        self.lines.append(Line(self.first_safe, since, payload))
        return Told(FateKind.SHIFTED, self.first_safe, runs)

    def withdraw(self, since: int) -> Told:
        """Settled moments keep their answer; every other one gets the best that is not withdrawn."""
        payload = self.answer(since)
        assert payload is not None
        if payload in self.withdrawn:
            return Told(FateKind.REFUSED, None, self.touched(since))
        end = self.end(since)
        last = max(self.first_safe, *(line.since for line in self.lines)) + 1
        open_before = [at for at in range(last) if self.answer(at) == payload and not self.is_settled(at)]
        runs = [run for run, held in self.settled.items() if any(self.answer(at) == payload for at in held)]
        self._take_away(payload)
        # It may hold in settled runs only, up to the next entry.
        given = open_before[0] if open_before else end
        kind = FateKind.ACCEPTED if given <= since else FateKind.SHIFTED
        return Told(kind, given, tuple(sorted(runs)))

    def _take_away(self, payload: str) -> None:
        kept = {at: self.holder(at) for held in self.settled.values() for at in held}
        family = [line for line in self.lines if line.payload == payload]
        tops = [line for line in family if line.counts and self.holder(line.since) is line]
        spans = [(line.since, self.end(line.since)) for line in tops]
        self.withdrawn.add(payload)
        for line in family:
            if not (line in tops and self.is_settled(line.since)):
                line.counts = False
        for since, end in sorted(spans):
            settled_before = self.is_settled(since)
            for at in range(since, min(end, max(since, self.first_safe) + 1)):
                settled_here = self.is_settled(at)
                if settled_here and not settled_before:
                    self._copy(at, kept[at])
                elif not settled_here and (settled_before or self._is_gone(at)):
                    self._copy(at, self.holder(at, self.withdrawn))
                settled_before = settled_here

    def _copy(self, at: int, line: Line | None) -> None:
        self.lines.append(Line(at, line.asked if line else at, line.payload if line else None))

    def _is_gone(self, at: int) -> bool:
        holder = self.holder(at)
        return holder is not None and holder.payload in self.withdrawn


@dataclass
class Model:
    """Tags in the order made, and the tags of global tags."""

    tags: dict[str, ModelTag]
    global_tags: dict[str, tuple[str, ...]]

    def unused(self, name: str) -> str | None:
        """The tag a late payload of an offline tag goes to."""
        asked = self.tags[name]
        in_use = {tag for tags in self.global_tags.values() for tag in tags}
        fits = [
            other
            for other, tag in self.tags.items()
            if (tag.kind, tag.clock, tag.sync) == (asked.kind, asked.clock, Sync.OFFLINE)
            and other in in_use
            and not tag.settled
        ]
        return fits[-1] if fits else None

    def append(self, name: str, since: int, payload: str) -> Told:
        told = self.tags[name].append(since, payload, self.unused(name))
        if told.into:
            self.tags[told.into].append(since, payload)
        return told


class PayloadsInMemory(PayloadStore):
    """A store without files: thousands of payloads are written here."""

    def __init__(self) -> None:
        super().__init__("memory")
        self.held: dict[str, Payload] = {}

    def put(self, payload: Payload) -> str:
        self.held[payload.id] = payload
        return payload.id

    def get(self, payload_id: str) -> Payload:
        return self.held[payload_id]
