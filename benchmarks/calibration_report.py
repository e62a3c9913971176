"""How well every calibration finds what toys were made with: precision, errors, bias and flags, as a page to look at.

    python benchmarks/calibration_report.py                    toys of a new seed; benchmarks/calibration_report.html
    python benchmarks/calibration_report.py --seed 12345       those of that seed
    python benchmarks/calibration_report.py --only gain        calibrations whose names begin so, again and again
    python benchmarks/calibration_report.py --output FILE      elsewhere
    python benchmarks/calibration_report.py --runs 0           no runs through the chain
    python benchmarks/calibration_report.py --small            few toys and no run, only that it works

Wanted of each kernel, of values that are measured (those that keep what they had are left out): an RMS about the truth
of 0.85 x Cramer and Rao's bound to 1.15 x what the physics note (10) expects; pulls of a width of 0.9 to 1.1; mean
pulls that are chance, all by one test (p > 1e-3); flags as often as predicted, all by one test. Known biases (widths
and length of the beam spot, Lorentz angle, gain) are taken off, and how well they are known counts as an error.

Five runs of REF10 go through the whole chain, from seeds that follow that of the toys. There the RMS may be 1.35 x what
is expected, and every kind must have been found.

The exit code is 1 where a figure is missed. The page says what toys are like and where each bound is from.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from zlib import crc32

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import _subjects_alignment, _subjects_beamspot, _subjects_channels  # noqa: E402
from benchmarks._calibration_chain import OneRun, claims_of_chain, run_of  # noqa: E402
from benchmarks._calibration_chain_page import NAME, chain_section, settings_of  # noqa: E402
from benchmarks._calibration_page import overview, page, section  # noqa: E402
from benchmarks._calibration_toys import LEAST, MOST, PULLS, Found, Result, Subject, of_means, of_shares  # noqa: E402
from benchmarks._ref10_claims import FIGURES, Limits, new_seed, told, verdict  # noqa: E402
from benchmarks.pedestal import as_a_worker  # noqa: E402

SUBJECTS = {
    subject.name: subject
    for module in (_subjects_channels, _subjects_alignment, _subjects_beamspot)
    for subject in module.SUBJECTS
}
"""by name, in the order in which calibrations follow one another"""
RUNS, SIZE = 5, (4, 1500)
"""through the chain: how many, of how many lumisections of how many events"""
TITLE = "Calibrations against truth and the statistical limit"


def toys_of(name: str, size: int, seed: int, small: bool) -> Found:
    """Of one calibration at one size; by the seed alone, whatever else is made."""
    rng = np.random.default_rng([seed, crc32(name.encode()), size])
    return SUBJECTS[name].toys(rng, size, small)


def results(subjects: Sequence[Subject], seed: int, processes: int, *, small: bool) -> Iterator[Result]:
    """Of each calibration, all sizes; progress is told as it comes."""
    begun = time.monotonic()
    with ProcessPoolExecutor(processes) as pool:
        work = {
            pool.submit(toys_of, subject.name, size, seed, small): (subject.name, size)
            for subject in subjects
            # The longest first, so that no processor is idle at the end.
            for size in reversed(subject.small if small else subject.sizes)
        }
        found = {}
        for done, future in enumerate(as_completed(work), start=1):
            name, size = work[future]
            if future.exception() is not None:
                pool.shutdown(cancel_futures=True)
            found[name, size] = future.result()
            spent = time.monotonic() - begun
            print(f"{done:3} of {len(work)}, {spent:5.0f} s: {name}, {size}", file=sys.stderr, flush=True)
    for subject in subjects:
        yield Result(subject, tuple(found[subject.name, size] for size in (subject.small if small else subject.sizes)))


def runs(options: argparse.Namespace) -> Iterator[OneRun]:
    """Through the chain, one after the other; those in a folder that is kept are not worked through again."""
    with tempfile.TemporaryDirectory() as thrown_away:
        for seed in range(options.seed + 1, options.seed + 1 + options.runs):
            begun = time.monotonic()
            yield run_of(seed, (options.folder or Path(thrown_away)) / str(seed), SIZE, options.processes)
            print(f"run of seed {seed} through the chain, {time.monotonic() - begun:.0f} s", file=sys.stderr)


def claims_of(found: Sequence[Result]) -> tuple[list[Limits], list[Limits]]:
    """Those of one calibration each, and those of all together."""
    own = [claim for result in found for claim in result.claims()]
    together = [of_means(found)] if any(result.judged() for result in found) else []
    return own, [*together, *([of_shares(found)] if any(result.shares for result in found) else [])]


def chosen(names: Sequence[str]) -> list[Subject]:
    """Those whose names begin so. Raises ValueError where there is none."""
    found = [subject for subject in SUBJECTS.values() if subject.name.startswith(tuple(names))]
    if not found:
        raise ValueError(f"no calibration's name begins with {', '.join(names)}: there are {'; '.join(SUBJECTS)}")
    return found


def words(options: argparse.Namespace, line: str) -> list[str]:
    """What the page begins with."""
    only = "" if options.only == [""] else f" --only {shlex.join(options.only)}"
    command = f"--seed {options.seed}{only} --runs {options.runs}{' --small' * options.small}"
    return [
        f"{line[0].upper()}{line[1:]}. Made by python benchmarks/calibration_report.py {command}.",
        "Each calibration's own code makes a payload of each toy, by accumulate and finalize. RMS is that of found "
        "less true. It is set against Cramér and Rao's bound, which no unbiased estimate can beat, and against what "
        "the physics note (10) expects. A pull is found less true over the error that the payload claims; coverage the "
        "share of values within one such error. Channels that keep what they had are left out and counted.",
        "Where values have errors in common, brackets say how many independent ones would tell the RMS as well; its "
        f"error is by that. Allowed are {LEAST:g} x the bound to {MOST:g} x what is expected, and pulls of a width of "
        f"{PULLS[0]:g} to {PULLS[1]:g}, of all sizes together.",
    ]


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=new_seed(), help="of the toys; else a new one")
    parser.add_argument("--only", nargs="+", default=[""], metavar="NAME", help="calibrations whose names begin so")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".html"), help="the page")
    parser.add_argument("--runs", type=int, help=f"through the chain; {RUNS}, of --only none")
    parser.add_argument("--folder", type=Path, help="where these are kept; else they are thrown away")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--small", action="store_true", help="few toys; nothing is judged")
    options = parser.parse_args()
    try:
        options.subjects = chosen(options.only)
    except ValueError as wrong:
        parser.error(str(wrong))
    if options.runs is None:
        options.runs = 0 if options.small or options.only != [""] else RUNS
    return options


def main() -> int:
    options, begun = parsed(), time.monotonic()
    as_a_worker()
    print(f"seed {options.seed}")
    found = list(results(options.subjects, options.seed, options.processes, small=options.small))
    chain = list(runs(options))
    own, together = claims_of(found)
    of_chain = {NAME: claims_of_chain(chain)} if chain else {}
    claims = [*own, *together, *(claim for more in of_chain.values() for claim in more)]
    print(told(claims, FIGURES))
    line, missed = verdict(claims, judged=not options.small)
    if options.small:
        line = "few toys: nothing is judged"
    print(line)
    with ProcessPoolExecutor(options.processes) as pool:
        draw = partial(section, most=1 if options.small else 100, judged=not options.small)
        sections = [overview(found, together, of_chain, judged=not options.small), *pool.map(draw, found)]
    if chain:
        sections.append(chain_section(chain, settings_of(chain, SIZE), judged=not options.small))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(page(TITLE, words(options, line), sections), encoding="utf-8")
    print(f"{options.output}, {time.monotonic() - begun:.0f} s")
    return missed


if __name__ == "__main__":
    sys.exit(main())
