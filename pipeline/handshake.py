"""The handshake: when are a run's conditions complete, and what exactly do they say.

Pure rules over values and `now`. `pipeline.release` carries a decision out in one transaction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypeGuard

from calib.calibration import Outcome
from calib.gates import Decision, Measure
from calib.iov import RunLumi
from pipeline.manifest import Condition, Stretch
from pipeline.waivers import Waiver

TOO_LITTLE = "too little data"
"""how the reason begins of what is carried for want of data"""
OPERATOR = "operator"
"""what the reason of a hold is filed under, beside the kinds"""


OPEN_SPAN = "its span is open"
"""how the reason begins of what is carried while data for its span are still to come"""


class OpenSpan(StrEnum):
    """What a run does while an interval that spans runs is open."""

    WAIT = "wait"
    """to the deadline"""
    CARRY = "carry"
    """it goes on with the payload in force; what is made of its data later comes too late for it, and it is told so"""
    LATER = "later"
    """the same, but what is made is for the runs to come only: nobody misses it"""


@dataclass(frozen=True)
class Judged:
    """One interval's conclusion with the gates' verdict on it. Units are packed; both ends belong to it."""

    first: int
    last: int
    outcome: Outcome
    payload: str | None = None
    decision: Decision | None = None
    why: str = ""
    unconfirmed: bool = False
    vetoed: tuple[int, ...] = ()
    """units inside it whose own value was off, and which the payload is not made from"""
    measures: tuple[Measure, ...] = ()
    """what the gates looked at"""
    held_to: str | None = None
    """the payload id they compared it with; empty where there was none, None where no gate compares"""


@dataclass(frozen=True)
class Settled:
    """What another dataset of the run was released under of a kind: the answer for this one too, whatever is known by
    now."""

    stretches: tuple[Stretch, ...]
    vetoed: tuple[int, ...] = ()
    waiver: Waiver | None = None


@dataclass(frozen=True)
class KindView:
    """What is known of one kind for one run. `judged` is None until its finalization has spoken for every unit."""

    kind: str
    judged: tuple[Judged, ...] | None
    waits_for: str = ""
    """what an undecided kind is waiting for, in words"""
    broken: bool = False
    """whether there will be no verdict: its finalization has failed"""
    running: bool = False
    """whether its finalization is at work; that has a time limit of its own, so the deadline lets it finish"""
    calibrated: bool = True
    """whether this loop makes payloads of the kind; if not, the one in force is what the run needs"""
    relative: bool = False
    """whether a gate compares with the payload in force"""
    carried_before: int = 0
    """how many preceding runs of the chain were carried for want of data, in a row"""
    earlier_undecided: int | None = None
    """an earlier run of the chain whose conditions of this kind are not decided yet"""
    earlier_until: float = math.inf
    """from when on that run need not be waited for"""
    waiver: Waiver | None = None
    """named people's consent that the run goes on where a rule stops this kind"""
    span: OpenSpan = OpenSpan.WAIT
    goes_on: bool = False
    """whether its finalization has spoken, its span is open, and the run need not wait for it"""
    found: tuple[Judged, ...] = ()
    """of a run that goes on so, what is concluded of its first units"""
    closed: Judged | None = None
    """what earlier runs that went on so have given: it is in force from this run on"""
    settled: Settled | None = None
    """what was settled of it when another dataset of the run was released"""
    in_force: str | None = None
    """the payload id that the runs before leave in force"""


@dataclass(frozen=True)
class Rules:
    """The settings of the handshake."""

    max_carried_runs: int
    failed: str
    """`wait`: what did not converge or was rejected waits for the deadline; `fallback`: it does not"""


@dataclass(frozen=True)
class RunView:
    """What is known of one run, or one dataset of it. Times in seconds since 1970."""

    run: int
    units: tuple[int, int]
    """first and last packed unit"""
    kinds: tuple[KindView, ...]
    deadline_at: float
    held: str = ""
    """why an operator holds the run; empty if nobody does"""
    dataset: str = ""
    is_last: bool = True
    """whether all other datasets of the run are released"""


@dataclass(frozen=True)
class Release:
    """The manifest can be completed: stretches by kind, with payloads where there are new ones."""

    stretches: Mapping[str, tuple[Stretch, ...]]
    intervals: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """payload id to the first and last unit it was made from, which may lie in other runs"""
    vetoed: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """kind to units of the run that were off and left out"""
    waivers: Mapping[str, Waiver] = field(default_factory=dict)
    """kind to the waiver it could not have gone without"""
    late: frozenset[str] = frozenset()
    """ids of payloads that earlier runs have gone on without, and that come too late for them"""
    dataset: str = ""
    settled: frozenset[str] = frozenset()
    """kinds that were settled before, with another dataset of the run: nothing is published of them"""
    is_last: bool = True
    """whether the run is released in full with it: kinds that no dataset needs are then settled too"""


@dataclass(frozen=True)
class Wait:
    """Not yet; reasons by kind, and when to look again though nothing happens (None: something will)."""

    reasons: Mapping[str, str]
    wake_at: float | None


@dataclass(frozen=True)
class Hold:
    """Not before somebody does something. At the deadline it is looked at again: what is undecided then is decided."""

    reasons: Mapping[str, str]
    wake_at: float | None = None


def decide(view: RunView, rules: Rules, now: float) -> Release | Wait | Hold:
    """Whether a run's prompt reconstruction may start: by proof, and by the clock only at the deadline."""
    late = now >= view.deadline_at
    stretches: dict[str, tuple[Stretch, ...]] = {}
    waiting: dict[str, str] = {}
    waivers: dict[str, Waiver] = {}
    open_kinds = [kind for kind in view.kinds if kind.settled is None]
    for kind in open_kinds:
        plain = found = _kind(replace(kind, waiver=None), view, rules, late)
        if _counts(kind.waiver, kind) and (isinstance(plain, str) or kind.waiver.payloads):
            found = _kind(kind, view, rules, late)
        if isinstance(found, str):
            waiting[kind.kind] = found
            continue
        stretches[kind.kind] = found
        if kind.waiver and found != plain:
            waivers[kind.kind] = kind.waiver
    until = (kind.earlier_until for kind in view.kinds if kind.kind in waiting)
    wake_at = None if late else min([view.deadline_at, *until])
    if view.held:
        return Hold({OPERATOR: view.held} | waiting, wake_at)
    if waiting:
        return Wait(waiting, wake_at)
    judged = {kind.kind: kind.judged or _so_far(kind) for kind in open_kinds}
    intervals = {j.payload: (j.first, j.last) for found in judged.values() for j in found if j.payload}
    vetoed = {kind: units for kind, found in judged.items() if (units := _vetoed(found, view))}
    carrying = (judged[kind.kind] for kind in open_kinds if kind.span is OpenSpan.CARRY)
    late_for = (j.payload for found in carrying for j in found if RunLumi.unpack(j.first).run < view.run)
    late_ids = frozenset(payload for payload in late_for if payload)
    return _with_settled(Release(stretches, intervals, vetoed, waivers, late_ids), view)


def foreseen(kind: KindView, run: int, units: tuple[int, int], rules: Rules) -> tuple[Stretch, ...] | str:
    """What will hold of a kind in a run unless people step in, or what that waits for: of what is refused now, what is
    in force. By it the calibrations begin that go after the kind."""
    if kind.settled is not None:
        return kind.settled.stretches
    known = kind.broken or kind.goes_on or kind.judged is not None
    if kind.calibrated and not known:
        return kind.waits_for
    if kind.earlier_undecided is not None and (kind.goes_on or _needs_order(kind)):
        return f"run {kind.earlier_undecided} is not decided yet, and what holds for it could hold here"
    counted = kind if _counts(kind.waiver, kind) else replace(kind, waiver=None)
    return _kind(counted, RunView(run, units, (kind,), -math.inf), replace(rules, failed="fallback"), late=True)


def _with_settled(release: Release, view: RunView) -> Release:
    """The release of a view's dataset, with what was settled when others were released, as it was settled."""
    known = {kind.kind: kind.settled for kind in view.kinds if kind.settled is not None}
    return replace(
        release,
        stretches={
            kind.kind: known[kind.kind].stretches if kind.kind in known else release.stretches[kind.kind]
            for kind in view.kinds
        },
        vetoed={**release.vetoed, **{kind: settled.vetoed for kind, settled in known.items() if settled.vetoed}},
        waivers={**release.waivers, **{kind: settled.waiver for kind, settled in known.items() if settled.waiver}},
        dataset=view.dataset,
        settled=frozenset(known),
        is_last=view.is_last,
    )


def offered(view: RunView) -> dict[str, tuple[str, ...]]:
    """By kind, the payloads that a rule is against, and that people may have published all the same."""
    return {kind.kind: payloads for kind in view.kinds if (payloads := _refused(kind))}


def _so_far(kind: KindView) -> tuple[Judged, ...]:
    return kind.found if kind.closed is None else (*kind.found, kind.closed)


def _refused(kind: KindView) -> tuple[str, ...]:
    against = (j for j in kind.judged or () if j.decision is Decision.REJECT or j.outcome is Outcome.NOT_CONVERGED)
    return tuple(dict.fromkeys(judged.payload for judged in against if judged.payload))


def _counts(waiver: Waiver | None, kind: KindView) -> TypeGuard[Waiver]:
    """Whether a waiver is for what is there: people who accept a payload do not accept the next one."""
    return waiver is not None and (not waiver.payloads or set(waiver.payloads) == set(_refused(kind)))


def _vetoed(judged: Sequence[Judged], view: RunView) -> tuple[int, ...]:
    first, last = view.units
    return tuple(unit for interval in judged for unit in interval.vetoed if first <= unit <= last)


def _kind(kind: KindView, view: RunView, rules: Rules, late: bool) -> tuple[Stretch, ...] | str:
    """The stretches of one kind, or what it waits for."""
    first, last = view.units
    if not kind.calibrated:
        return (Stretch(first, last, Condition.CARRIED, None, "not calibrated in this loop"),)
    if kind.goes_on:
        return _going_on(kind, view, rules, late)
    if kind.judged is None:
        if kind.broken and (rules.failed == "fallback" or kind.waiver):
            return (Stretch(first, last, Condition.FALLBACK, None, _excused(kind.waits_for, kind)),)
        if late and not kind.running:
            return (Stretch(first, last, Condition.FALLBACK, None, f"no verdict at the deadline: {kind.waits_for}"),)
        return kind.waits_for
    if not late and kind.earlier_undecided is not None and _needs_order(kind):
        return f"run {kind.earlier_undecided} is not decided yet, and what holds for it could hold here"
    if not kind.judged:
        return _one(_too_little(kind, rules, late, "no data for this kind"), first, last)
    stretches = _intervals(kind.judged, kind, rules, late)
    return stretches if isinstance(stretches, str) else _cover(stretches, first, last)


def _going_on(kind: KindView, view: RunView, rules: Rules, late: bool) -> tuple[Stretch, ...] | str:
    """The stretches of a run whose span is open at its end: what is made, then the payload in force."""
    if not late and kind.earlier_undecided is not None:
        return f"run {kind.earlier_undecided} is not decided yet, and what holds for it could hold here"
    first, last = view.units
    if kind.closed is not None:
        why = f"{OPEN_SPAN}; what runs before it have given is in force from here on"
        return (Stretch(first, last, Condition.FRESH, kind.closed.payload, why),)
    stretches = _intervals(kind.found, kind, rules, late)
    if isinstance(stretches, str):
        return stretches
    made = _cover(stretches, first, max(stretch.last for stretch in stretches)) if stretches else ()
    rest = made[-1].last + 1 if made else first
    if rest > last:
        return made
    why = f"{OPEN_SPAN}, more data may come; the payload in force goes on"
    return (*made, Stretch(rest, last, Condition.CARRIED, None, why))


def _needs_order(kind: KindView) -> bool:
    """Fresh payloads stand on their own; everything else leans on what earlier runs left in force."""
    fresh = kind.judged and all(judged.decision is Decision.PUBLISH for judged in kind.judged)
    return kind.relative or not fresh


def _intervals(judged: Sequence[Judged], kind: KindView, rules: Rules, late: bool) -> list[Stretch] | str:
    """The stretches of these intervals, or what the first of them that is not decided waits for."""
    stretches: list[Stretch] = []
    for one in judged:
        state = _interval(one, kind, rules, late)
        if isinstance(state, str):
            return state
        stretches.append(state)
    return stretches


def _interval(judged: Judged, kind: KindView, rules: Rules, late: bool) -> Stretch | str:
    if judged.outcome is Outcome.NOT_ENOUGH_DATA:
        state = _too_little(kind, rules, late, judged.why)
        return state if isinstance(state, str) else Stretch(judged.first, judged.last, *state)
    if judged.decision is Decision.PUBLISH:
        why = judged.why or (
            "made from these data" + (", move seen in the last unit only" if judged.unconfirmed else "")
        )
        return Stretch(judged.first, judged.last, Condition.FRESH, judged.payload, why)
    if judged.decision is Decision.NO_CHANGE:
        return Stretch(judged.first, judged.last, Condition.CARRIED, None, judged.why)
    if kind.waiver and judged.payload in kind.waiver.payloads:
        why = f"{judged.why}; published {kind.waiver}"
        return Stretch(judged.first, judged.last, Condition.FRESH, judged.payload, why)
    if late or rules.failed == "fallback" or kind.waiver:
        return Stretch(judged.first, judged.last, Condition.FALLBACK, None, _excused(judged.why, kind))
    return f"{judged.why}; falls back to the payload in force at the deadline"


def _too_little(kind: KindView, rules: Rules, late: bool, why: str) -> tuple[Condition, None, str] | str:
    if kind.carried_before < rules.max_carried_runs:
        return Condition.CARRIED, None, f"{TOO_LITTLE}: {why}"
    limit = f"{why}; carried over {kind.carried_before} runs already, the limit"
    if late or kind.waiver:
        return Condition.FALLBACK, None, _excused(limit, kind)
    return f"{limit}; falls back to the payload in force at the deadline"


def _excused(why: str, kind: KindView) -> str:
    return f"{why}; {kind.waiver}" if kind.waiver else why


def _one(state: tuple[Condition, None, str] | str, first: int, last: int) -> tuple[Stretch, ...] | str:
    return state if isinstance(state, str) else (Stretch(first, last, *state),)


def _cover(stretches: Sequence[Stretch], first: int, last: int) -> tuple[Stretch, ...]:
    """Stretches over all units of the run: each goes on until the next begins, the first from the run's beginning."""
    inside = [stretch for stretch in stretches if stretch.last >= first and stretch.first <= last]
    starts = [max(first, stretch.first) for stretch in inside]
    starts[0] = first
    ends = [start - 1 for start in starts[1:]] + [last]
    return tuple(
        Stretch(start, end, stretch.condition, stretch.payload, stretch.why)
        for start, end, stretch in zip(starts, ends, inside, strict=True)
    )
