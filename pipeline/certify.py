"""Certification: quality tests by unit, flags, the good-run list in CMS's JSON format, masks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from calib.accumulators import UnitHistogram
from calib.iov import RunLumi
from calib.state import State
from pipeline.experiments.interface import QualityTest

Ranges = dict[int, list[list[int]]]
"""run to closed ranges [first, last] of lumisections, sorted, neighbours joined"""

OPEN_END = 0xFFFFFFFF
OUTSIDE = "not in the given certification file"


class BadMask(ValueError):
    """A certification file cannot be read."""


class Quality(StrEnum):
    """What a test says of one unit."""

    GOOD = "good"
    BAD = "bad"
    SILENT = "too few entries to judge"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one test found in one unit."""

    unit: int
    test: str
    quality: Quality
    value: float
    entries: int


@dataclass(frozen=True)
class Certification:
    """The flags of one run and what they follow from."""

    run: int
    good: tuple[int, ...]
    """packed units certified good, sorted"""
    bad: Mapping[int, tuple[str, ...]]
    """packed unit to the reasons against it"""
    judgements: tuple[Judgement, ...] = ()

    @property
    def share(self) -> float:
        """Good units as a share of all."""
        return len(self.good) / max(1, len(self.good) + len(self.bad))

    def to_document(self, manifest: str = "", limit: int = 200) -> dict[str, Any]:
        """As JSON; the manifest, if there is one for all, says under which conditions the run was judged. Lists at most
        `limit` reasons."""
        reasons = {str(RunLumi.unpack(unit)): list(why) for unit, why in list(self.bad.items())[:limit]}
        summary: dict[str, dict[str, int]] = {}
        for judgement in self.judgements:
            found = summary.setdefault(judgement.test, {})
            found[judgement.quality] = found.get(judgement.quality, 0) + 1
        return {
            "run": self.run,
            **({"manifest": manifest} if manifest else {}),
            "good": ranges_of(self.good),
            "units": len(self.good) + len(self.bad),
            "bad": reasons,
            "tests": summary,
        }


def judge(test: QualityTest, histogram: UnitHistogram) -> list[Judgement]:
    """Apply one test to every unit of a histogram."""
    centres = (histogram.edges[1:] + histogram.edges[:-1]) / 2
    inside = (centres >= test.low) & (centres <= test.high)
    judgements = []
    for unit, counts in zip(histogram.sums.keys.tolist(), histogram.sums.values, strict=True):
        body, entries = counts[1:-1], int(counts.sum())
        if test.share_inside:
            value = float(body[inside].sum() / entries) if entries else float("nan")
            good = value >= test.share_inside
        else:
            seen = int(body.sum())
            value = float((body * centres).sum() / seen) if seen else float("nan")
            good = test.low <= value <= test.high
        quality = Quality.SILENT if entries < test.entries else Quality.GOOD if good else Quality.BAD
        judgements.append(Judgement(unit, test.name, quality, value, entries))
    return judgements


def certify(
    run: int,
    units: Iterable[int],
    quality: State,
    tests: Sequence[QualityTest],
    set_aside: Mapping[int, str],
    mask: Ranges | None = None,
) -> Certification:
    """Flag every unit of a run: good unless a test, a unit set aside, or the mask speaks against it."""
    judgements = [found for test in tests for found in judge(test, quality[test.histogram])]
    against: dict[int, list[str]] = {}
    for found in judgements:
        if found.quality is Quality.BAD:
            against.setdefault(found.unit, []).append(f"{found.test}: {found.value:.4g} on {found.entries} entries")
    for unit, reason in set_aside.items():
        against.setdefault(unit, []).append(reason)
    good = tuple(unit for unit in sorted(units) if unit not in against)
    bad = {unit: tuple(why) for unit, why in sorted(against.items())}
    return within(Certification(run, good, bad, tuple(judgements)), mask)


def within(found: Certification, mask: Ranges | None) -> Certification:
    """The same, with units that a mask has not flagged bad; None for no mask."""
    units = [] if mask is None else [*found.good, *found.bad]
    outside = {unit for unit in units if mask is not None and not contains(mask, RunLumi.unpack(unit))}
    return with_reasons(found, dict.fromkeys(outside, (OUTSIDE,)))


def with_reasons(found: Certification, against: Mapping[int, Sequence[str]]) -> Certification:
    """The same, with units flagged bad that something else speaks against: packed unit to why."""
    bad = {**found.bad, **{unit: (*found.bad.get(unit, ()), *reasons) for unit, reasons in against.items()}}
    good = tuple(unit for unit in found.good if unit not in against)
    return replace(found, good=good, bad=dict(sorted(bad.items())))


def of_datasets(found: Mapping[str, Certification]) -> Certification:
    """The certification of a run from those of its datasets, by name: a unit is good where it is good in each."""
    first, *_ = found.values()
    against: dict[int, list[str]] = {}
    for name, one in found.items():
        for unit, reasons in one.bad.items():
            against.setdefault(unit, []).extend(f"{name}, {reason}" for reason in reasons)
    good = tuple(unit for unit in first.good if unit not in against)
    named = (replace(j, test=f"{name}, {j.test}") for name, one in found.items() for j in one.judgements)
    return Certification(first.run, good, {unit: tuple(why) for unit, why in sorted(against.items())}, tuple(named))


def spoken_against(unread: Mapping[int, int], vetoed: Mapping[str, Sequence[int]]) -> dict[int, str]:
    """What speaks against units before any test: events that could not be read (unit to number), or that a kind of
    conditions was off there and left out of the payload that covers it.

    >>> spoken_against({7: 2}, {"beamspot": [7]})
    {7: '2 events could not be read; its beamspot is off and was left out of the payload that covers it'}
    """
    reasons = {unit: [f"{events} events could not be read"] for unit, events in unread.items()}
    for kind, units in vetoed.items():
        for unit in units:
            reasons.setdefault(unit, []).append(f"its {kind} is off and was left out of the payload that covers it")
    return {unit: "; ".join(found) for unit, found in reasons.items()}


def ranges_of(units: Iterable[int]) -> dict[str, list[list[int]]]:
    """Packed units as CMS's JSON: run as text to closed ranges of lumisections.

    >>> ranges_of([RunLumi(5, 1).packed, RunLumi(5, 2).packed, RunLumi(5, 4).packed])
    {'5': [[1, 2], [4, 4]]}
    """
    packed = np.unique(np.fromiter(units, np.int64))
    result: dict[str, list[list[int]]] = {}
    for group in np.split(packed, np.flatnonzero(np.diff(packed) != 1) + 1) if len(packed) else []:
        first, last = RunLumi.unpack(int(group[0])), RunLumi.unpack(int(group[-1]))
        result.setdefault(str(first.run), []).append([first.lumi, last.lumi])
    return result


def read_mask(path: Path) -> Ranges:
    """A certification file. Raises BadMask naming what is wrong with it."""
    try:
        found = json.loads(path.read_text())
        return {int(run): _checked(path, run, ranges) for run, ranges in found.items()}
    except (OSError, ValueError, AttributeError, TypeError) as problem:
        if isinstance(problem, BadMask):
            raise
        message = f'{path} is not a certification file ({problem}); it must look like {{"190456": [[1, 50], [53, 60]]}}'
        raise BadMask(message) from None


def _checked(path: Path, run: str, ranges: Any) -> list[list[int]]:
    pairs = [[int(first), int(last)] for first, last in ranges]
    for first, last in pairs:
        if last and last < first:
            raise BadMask(f"{path}: run {run} has the range [{first}, {last}], which ends before it begins")
    return sorted(pairs)


def contains(mask: Ranges, at: RunLumi) -> bool:
    """Whether a unit is in a mask; a last lumisection of 0 means to the end of the run, as in CMS's files.

    >>> contains({5: [[1, 3], [7, 0]]}, RunLumi(5, 9)), contains({5: [[1, 3]]}, RunLumi(5, 4))
    (True, False)
    """
    return any(first <= at.lumi and (last == 0 or at.lumi <= last) for first, last in mask.get(at.run, []))


def good_runs(documents: Iterable[Mapping[str, Any]], doubtful: Iterable[int] = ()) -> dict[str, list[list[int]]]:
    """The good-run list of several certified runs, sorted by run, without units (packed) that are in doubt."""
    merged: dict[str, list[list[int]]] = {}
    for document in documents:
        merged.update(document["good"])
    aside = ranges_of(doubtful)
    left = {run: without(ranges, aside.get(run, [])) for run, ranges in merged.items()}
    return dict(sorted(((run, ranges) for run, ranges in left.items() if ranges), key=lambda item: int(item[0])))


def without(ranges: Sequence[Sequence[int]], aside: Sequence[Sequence[int]]) -> list[list[int]]:
    """Closed ranges with others taken out.

    >>> without([[1, 9], [12, 14]], [[3, 4], [9, 12]])
    [[1, 2], [5, 8], [13, 14]]
    """
    left = [list(one) for one in ranges]
    for low, high in aside:
        parts = [([first, min(last, low - 1)], [max(first, high + 1), last]) for first, last in left]
        left = [[first, last] for pair in parts for first, last in pair if first <= last]
    return left


def cut_down(found: Mapping[str, Sequence[Sequence[int]]], mask: Ranges) -> dict[str, list[list[int]]]:
    """What a good-run list and a mask have in common.

    >>> cut_down({"5": [[1, 9]]}, {5: [[3, 4], [8, 0]]})
    {'5': [[3, 4], [8, 9]]}
    """
    common: dict[str, list[list[int]]] = {}
    for run, ranges in found.items():
        both = [
            [max(first, low), min(last, high or OPEN_END)]
            for first, last in ranges
            for low, high in mask.get(int(run), [])
        ]
        kept = [[first, last] for first, last in both if first <= last]
        if kept:
            common[run] = kept
    return common
