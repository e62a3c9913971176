"""How often rules for intervals of validity are right: the beam along 20 lumisections of a run, in toys.

    python benchmarks/iov_rules.py                   1000 toys of each case, errors of 1, 3, 8 and 14 um a lumisection
    python benchmarks/iov_rules.py --small           40 toys; nothing is judged

Rules: `running_mean`, by which calibrations cut (4 errors, 10 um); `one by one`, the same without the line through all
blocks; `cms`, CMSSW's as coded, which settings can name to compare with; and `cms, fabs`, the same with the sign of
moves left out, as it was meant. x alone moves; floors are of a
beam 15 um wide: 10 um, and 25 um for CMS.

Right is: at rest, no cut; a step of 40 um at lumisection 12, one cut, there; a spike of 60 um in lumisection 8, no cut;
a drift of 1.5 um a lumisection (28 um in all), one cut, at 10 to 16; one of 5 um, no interval longer than 5. Beside it,
in um, how far the worst lumisection's truth lies from its payload, the mean over toys; a spike's own is left out.

Judged: the figures that the physics note (11) has of 1 um, and of a step at 14 um, which is one by one, within 4 sigma
of the toys of both; and that with the line no figure is worse than one by one.
Seeds are drawn afresh and told; `--seed` repeats one.
"""

from __future__ import annotations

import argparse
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # found from here, however this file was started

from calib.boundaries import Interval, Trend, running_mean  # noqa: E402
from calib.collapsing import CMS_MOVES, collapse  # noqa: E402
from calib.iov import RunLumi  # noqa: E402

Floats = NDArray[np.float64]
Cuts = tuple[int, ...]
"""lumisections where an interval begins, but for the first"""

LUMIS = 20
LUMI = np.arange(1, LUMIS + 1)
BLOCKS = [(RunLumi(1, int(lumi)).packed,) for lumi in LUMI]
ERRORS = (1.0, 3.0, 8.0, 14.0)
FLOOR, CMS_FLOOR = 10.0, 25.0
"""um"""
SIGNIFICANCE = 4.0
NOTE_TOYS = 1000
SPIKE_AT, STEP_AT = 8, 12


@dataclass(frozen=True)
class Case:
    """How the beam moves, and which cuts are right."""

    name: str
    truth: Floats
    """um, of each lumisection"""
    right: Callable[[Cuts], bool]
    stays: NDArray[np.bool_]
    """lumisections whose payload should fit them"""


def case(name: str, truth: Floats, right: Callable[[Cuts], bool]) -> Case:
    stays = LUMI != SPIKE_AT if "spike" in name else np.ones(LUMIS, np.bool_)
    return Case(name, truth, right, stays)


def longest(cuts: Cuts) -> int:
    """Lumisections of the longest interval."""
    return int(np.diff([1, *cuts, LUMIS + 1]).max())


CASES = (
    case("at rest", np.zeros(LUMIS), lambda cuts: not cuts),
    case("step up", np.where(LUMI >= STEP_AT, 40.0, 0.0), lambda cuts: cuts == (STEP_AT,)),
    case("step down", np.where(LUMI >= STEP_AT, -40.0, 0.0), lambda cuts: cuts == (STEP_AT,)),
    case("spike up", np.where(LUMI == SPIKE_AT, 60.0, 0.0), lambda cuts: not cuts),
    case("spike down", np.where(LUMI == SPIKE_AT, -60.0, 0.0), lambda cuts: not cuts),
    case("slow drift", 1.5 * LUMI, lambda cuts: len(cuts) == 1 and 10 <= cuts[0] <= 16),
    case("fast drift", 5.0 * LUMI, lambda cuts: longest(cuts) <= 5),
)

AS_CODED = CMS_MOVES["x"]


def trend(values: Floats, error: float, floor: float) -> Trend:
    column = values[:, None]
    return Trend(BLOCKS, column, np.full(column.shape, error), np.full(column.shape, floor))


RULES: Mapping[str, Callable[[Floats, float], Sequence[Interval]]] = {
    "running_mean": lambda values, error: running_mean(trend(values, error, FLOOR), SIGNIFICANCE, flush=True),
    "one by one": lambda values, error: running_mean(
        trend(values, error, FLOOR), SIGNIFICANCE, flush=True, drifts=False
    ),
    "cms": lambda values, error: collapse(trend(values, error, CMS_FLOOR), [AS_CODED]),
    "cms, fabs": lambda values, error: collapse(trend(values, error, CMS_FLOOR), [replace(AS_CODED, falls_only=False)]),
}


@dataclass(frozen=True)
class Found:
    """What a rule did in all toys of a case at an error."""

    cuts: Sequence[Cuts]
    right: float
    worst: float
    """um, mean over the toys"""

    def share(self, holds: Callable[[Cuts], bool]) -> float:
        return sum(map(holds, self.cuts)) / len(self.cuts)


def payloads(intervals: Sequence[Interval], values: Floats) -> Floats:
    """What each lumisection would be given: the mean over its interval, without what was vetoed."""
    given = np.empty(LUMIS)
    for interval in intervals:
        used, units = ([RunLumi.unpack(unit).lumi - 1 for unit in of] for of in (interval.used, interval.units))
        given[units] = values[used].mean()
    return given


def play(one: Case, rule: str, error: float, toys: int, seed: Sequence[int]) -> Found:
    """A rule over the toys of a case; those of one seed are the same for every rule."""
    rng = np.random.default_rng(list(seed))
    cuts, worst = [], []
    for values in one.truth + error * rng.standard_normal((toys, LUMIS)):
        intervals = RULES[rule](values, error)
        cuts.append(tuple(RunLumi.unpack(interval.units[0]).lumi for interval in intervals[1:]))
        worst.append(np.abs(payloads(intervals, values) - one.truth)[one.stays].max())
    return Found(cuts, sum(map(one.right, cuts)) / toys, float(np.mean(worst)))


@dataclass(frozen=True)
class Claim:
    """A figure of the note."""

    case: str
    error: float
    rule: str
    says: str
    rate: float
    holds: Callable[[Cuts], bool]

    def off(self, found: Found) -> float:
        """By how many sigma of the toys of both; a rate of 0 or 1 by the chance that none of them differed."""
        rate = min(max(self.rate, 1 / NOTE_TOYS), 1 - 1 / NOTE_TOYS)
        sigma = np.sqrt(rate * (1 - rate) * (1 / NOTE_TOYS + 1 / len(found.cuts)))
        return float(abs(found.share(self.holds) - self.rate) / sigma)


def exactly(*cuts: int) -> Callable[[Cuts], bool]:
    return lambda found: found == cuts


CLAIMS = (
    *(Claim("at rest", 1.0, rule, "none", 1.0, exactly()) for rule in RULES),
    *(Claim(f"step {way}", 1.0, "running_mean", "{12}", 1.0, exactly(12)) for way in ("up", "down")),
    Claim("step up", 1.0, "cms", "none", 0.26, exactly()),
    Claim("step up", 1.0, "cms", "{12}", 0.24, exactly(12)),
    Claim("step up", 1.0, "cms", "{11, 12}", 0.26, exactly(11, 12)),
    Claim("step up", 1.0, "cms", "{11}", 0.24, exactly(11)),
    *(
        Claim(name, 1.0, rule, says, 0.5, exactly(*cuts))
        for name, rule in (("step down", "cms"), ("step up", "cms, fabs"), ("step down", "cms, fabs"))
        for says, cuts in (("{12}", (12,)), ("{11, 12}", (11, 12)))
    ),
    *(Claim(f"spike {way}", 1.0, "running_mean", "none", 1.0, exactly()) for way in ("up", "down")),
    Claim("spike up", 1.0, "cms", "some", 1.0, bool),
    Claim("spike down", 1.0, "cms", "some", 0.73, bool),
    *(Claim(f"spike {way}", 1.0, "cms, fabs", "some", 1.0, bool) for way in ("up", "down")),
    *(
        Claim(f"{pace} drift", 1.0, rule, "none", 1.0, exactly())
        for pace in ("slow", "fast")
        for rule in ("cms", "cms, fabs")
    ),
    Claim("slow drift", 1.0, "running_mean", "one", 1.0, lambda cuts: len(cuts) == 1),
    Claim("fast drift", 1.0, "running_mean", "at most 5 long", 1.0, lambda cuts: longest(cuts) <= 5),
    Claim("step up", 14.0, "one by one", "not {12}", 0.97, lambda cuts: STEP_AT not in cuts),
)
MOST_SIGMA = 4.0

Outcome = Mapping[tuple[str, float, str], Found]


def worse_by_the_line(outcome: Outcome) -> list[str]:
    """Where the line through all blocks does harm: a lower share of right cuts than one by one, by 4 sigma of the toys;
    or at a drift a worst lumisection that is further off."""
    found = []
    for one in CASES:
        for error in ERRORS:
            ours, theirs = (outcome[one.name, error, rule] for rule in ("running_mean", "one by one"))
            rate = np.clip((ours.right + theirs.right) / 2, 1 / NOTE_TOYS, 1 - 1 / NOTE_TOYS)
            sigma = np.sqrt(2 * rate * (1 - rate) / len(ours.cuts))
            if theirs.right - ours.right > MOST_SIGMA * sigma:
                found.append(f"{one.name} at {error:g} um: right in {ours.right:.3f}, one by one in {theirs.right:.3f}")
            if "drift" in one.name and ours.worst > 1.05 * theirs.worst:
                found.append(f"{one.name} at {error:g} um: {ours.worst:.1f} um off, one by one {theirs.worst:.1f}")
    return found


def measure(toys: int, seed: int) -> Outcome:
    return {
        (one.name, error, rule): play(one, rule, error, toys, (seed, number, int(error)))
        for number, one in enumerate(CASES)
        for error in ERRORS
        for rule in RULES
    }


def report(outcome: Outcome, toys: int, seed: int) -> str:
    """The table, and the figures of the note beside what was found."""
    lines = [f"right in % of {toys} toys, and how far the worst lumisection is from its payload, um (seed {seed})"]
    lines.append(f"{'':12}{'rule':14}" + "".join(f"{f'{error:g} um a unit':>18}" for error in ERRORS))
    for one in CASES:
        for rule in RULES:
            found = [outcome[one.name, error, rule] for error in ERRORS]
            cells = "".join(f"{100 * each.right:11.1f}{each.worst:7.1f}" for each in found)
            lines.append(f"{one.name:12}{rule:14}{cells}")
    lines.append("of the physics note")
    lines.append(f"{'':12}{'rule':14}{'um':>4}  {'cuts':16}{'note':>6}{'found':>8}{'sigma':>7}")
    for claim in CLAIMS:
        found = outcome[claim.case, claim.error, claim.rule]
        rates = f"{claim.rate:6.2f}{found.share(claim.holds):8.3f}{claim.off(found):7.1f}"
        lines.append(f"{claim.case:12}{claim.rule:14}{claim.error:4g}  {claim.says:16}{rates}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toys", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--small", action="store_true", help="few toys; nothing is judged")
    options = parser.parse_args()
    toys = 40 if options.small else options.toys
    seed = secrets.randbits(31) if options.seed is None else options.seed
    outcome = measure(toys, seed)
    print(report(outcome, toys, seed))
    missed = (
        []
        if options.small
        else [claim for claim in CLAIMS if claim.off(outcome[claim.case, claim.error, claim.rule]) > MOST_SIGMA]
    )
    for claim in missed:
        print(
            f"MISSED: {claim.case}, {claim.rule} at {claim.error:g} um: {claim.says} in another share than the note's"
        )
    harm = [] if options.small else worse_by_the_line(outcome)
    for line in harm:
        print(f"MISSED: the line through all blocks does harm: {line}")
    return int(bool(missed or harm))


if __name__ == "__main__":
    sys.exit(main())
