"""How a benchmark of REF10 is asked for: with which seed, in how many processes, or small."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

from benchmarks._ref10_claims import new_seed


def parser(about: str | None) -> argparse.ArgumentParser:
    """`--seed`, `--processes` and `--small`, which have the same names and meanings everywhere."""
    made = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--seed", type=int, default=new_seed(), help="of the simulation; else a new one")
    made.add_argument("--processes", type=int, default=2)
    made.add_argument("--small", action="store_true", help="few events of the mini detector; nothing is judged")
    return made


@contextmanager
def each_of(options: argparse.Namespace) -> Iterator[Callable[..., Any]]:
    """What does chunks side by side, as `map`; it is `map` itself where little is to be done."""
    if options.small:
        yield map
        return
    with ProcessPoolExecutor(options.processes) as pool:
        yield pool.map
