"""How fast conditions are looked up in a store of ten million intervals of validity.

    python benchmarks/conditions.py                SQLite, then PostgreSQL if installed; 1 when a bound is missed
    python benchmarks/conditions.py --only sqlite
    python benchmarks/conditions.py --small        only that it works

Half of the intervals are those of one tag, a payload for every lumisection of runs of 4000; the other half those of 20
tags, a payload for every 20 lumisections, no two at the same: a run has 8000 entries, and its 20 kinds change at every
lumisection. Entries lie in the order of the runs, every payload is another one, and one entry in a thousand of the
first tag is withdrawn. They are put in by SQL, as `append` would have entered them.

Every answer is compared with the rule by which the store was filled. Uncached, each look-up asks the database.
The bounds are for SQLite; PostgreSQL answers from another process and is reported apart.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil
from sqlalchemy import text

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from calib.answers import AnswerCache, LookUp  # noqa: E402
from calib.conditions import ConditionsDB  # noqa: E402
from calib.iov import Clock, RunLumi  # noqa: E402
from calib.payload import PayloadStore  # noqa: E402
from calib.reading import ConditionsReader, look_up  # noqa: E402
from calib.schema import conditions_metadata, entries  # noqa: E402
from calib.tags import Snapshot, Sync  # noqa: E402
from pipeline.database import Database, open_database  # noqa: E402
from tests import postgres  # noqa: E402

LUMIS = 4000
KINDS = 20
EACH = LUMIS // KINDS
OF_RUN = LUMIS + KINDS * EACH
FIRST_RUN = 100_000
WITHDRAWN_EVERY = 1000

UNCACHED_KHZ, CACHED_KHZ, RESOLVE_MS = 10.0, 100.0, 50.0

FILL = """
    INSERT INTO conditions_entries
        (sequence, tag_id, since, asked, payload_id, origin, author, recorded_us, reason, info)
    WITH RECURSIVE n(i) AS (SELECT CAST(0 AS BIGINT) UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :count),
    placed(i, run, tag, lumi) AS (
        SELECT i, :first_run + i / :of_run,
            CASE WHEN i % :of_run < :lumis THEN :dense ELSE :sparse + (i % :of_run - :lumis) / :each END,
            CASE WHEN i % :of_run < :lumis THEN i % :of_run + 1
                ELSE 1 + (i % :of_run - :lumis) % :each * :kinds + (i % :of_run - :lumis) / :each END
        FROM n)
    SELECT i + 1, tag, run * 4294967296 + lumi, run * 4294967296 + lumi, {payload}, i + 1,
        'loop', 1767225600000000 + i, 'calibration loop', '{{}}' FROM placed
"""
WITHDRAW = """
    INSERT INTO conditions_entries
        (sequence, tag_id, since, asked, origin, withdraws, recalls, author, recorded_us, reason, info)
    SELECT :count + row_number() OVER (ORDER BY sequence), tag_id, since, since,
        :count + row_number() OVER (ORDER BY sequence), sequence, sequence, 'expert', recorded_us, 'wrong', '{}'
    FROM conditions_entries WHERE tag_id = :dense AND sequence % :every = 0
"""
PAYLOAD = {"sqlite": "printf('%064x', i + 1)", "postgresql": "lpad(to_hex(i + 1), 64, '0')"}
SIZE = {
    "sqlite": "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size",
    "postgresql": "SELECT pg_database_size(current_database())",
}
ALL_KINDS = ["dense", *(f"sparse{n:02}" for n in range(KINDS))]


@dataclass(frozen=True)
class Filled:
    """A database with the conditions of so many runs, and what they say."""

    database: Database
    runs: int

    def expected(self, kind: str, at: RunLumi) -> str | None:
        """The payload id by the rule of the store."""
        place, lumi = at.run - FIRST_RUN, at.lumi
        if kind == "dense":
            slot = place * OF_RUN + lumi - 1
            # A payload that is withdrawn gives way to the one of the lumisection before.
            return f"{slot + 1 if (slot + 1) % WITHDRAWN_EVERY else self._before(slot):064x}"
        n = int(kind[-2:])
        step = (lumi - 1 - n) // KINDS
        place, step = (place, step) if step >= 0 else (place - 1, EACH - 1)
        return None if place < 0 else f"{place * OF_RUN + LUMIS + n * EACH + step + 1:064x}"

    @staticmethod
    def _before(slot: int) -> int:
        return slot if slot % OF_RUN else slot - OF_RUN + LUMIS

    def units(self, chance: random.Random, count: int) -> list[tuple[str, RunLumi]]:
        """Kinds and lumisections, wherever."""
        runs = range(FIRST_RUN, FIRST_RUN + self.runs)
        return [
            (chance.choice(ALL_KINDS), RunLumi(chance.choice(runs), chance.randint(1, LUMIS))) for _ in range(count)
        ]


@contextmanager
def opened(name: str) -> Iterator[Database]:
    """An empty database."""
    with tempfile.TemporaryDirectory() as folder:
        if name == "sqlite":
            database = open_database(Path(folder) / "conditions.sqlite")
            yield database
            database.close()
        else:
            with postgres.running() as url:
                database = open_database(url)
                yield database
                database.close()


def fill(database: Database, runs: int) -> Filled:
    """Tags, global tag and entries; indexes are made when all are in."""
    database.create(conditions_metadata)
    kind_of = database.engine.dialect.name
    count = runs * OF_RUN
    with database.begin() as connection:
        db = ConditionsDB(connection, PayloadStore("payloads"))
        numbers = [db.create_tag(kind, kind, Clock.LUMI, Sync.PROMPT).number for kind in ALL_KINDS]
        db.define_global_tag("all", {kind: kind for kind in ALL_KINDS})
        slow = [index for index in entries.indexes if not index.unique]
        for index in slow:
            index.drop(connection)
        layout = {"first_run": FIRST_RUN, "of_run": OF_RUN, "lumis": LUMIS, "each": EACH, "kinds": KINDS}
        numbered = {"dense": numbers[0], "sparse": numbers[1], "count": count}
        connection.execute(text(FILL.format(payload=PAYLOAD[kind_of])), layout | numbered)
        withdrawn = {"dense": numbers[0], "count": count, "every": WITHDRAWN_EVERY}
        connection.execute(text(WITHDRAW), withdrawn)
        for index in slow:
            index.create(connection)
        connection.execute(text("UPDATE conditions_sequence SET last = (SELECT max(sequence) FROM conditions_entries)"))
        if kind_of == "postgresql":
            connection.execute(text("ANALYZE"))
    if kind_of == "sqlite":
        raw = database.engine.raw_connection()
        raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
        raw.close()
    return Filled(database, runs)


def rate(ask: LookUp, filled: Filled, asked: Sequence[tuple[str, RunLumi]]) -> float:
    """Look-ups in kHz; the answers are compared afterwards."""
    start = time.perf_counter()
    answers = [ask.payload_id(kind, at) for kind, at in asked]
    taken = time.perf_counter() - start
    assert answers == [filled.expected(kind, at) for kind, at in asked]
    return len(asked) / taken / 1e3


def resolving(reader: ConditionsReader, filled: Filled, chance: random.Random, kinds: Sequence[str]) -> float:
    """Milliseconds to resolve a run, whichever."""
    run = chance.randrange(FIRST_RUN, FIRST_RUN + filled.runs)
    units = [RunLumi(run, lumi).packed for lumi in range(1, LUMIS + 1)]
    snapshot = reader.snapshot("all")
    start = time.perf_counter()
    segments = reader.resolve_run(snapshot, units, kinds)
    taken = 1e3 * (time.perf_counter() - start)
    assert len(segments) == LUMIS
    for segment in chance.sample(segments, 20):
        found = {kind: filled.expected(kind, segment.since) for kind in kinds}
        assert segment.ids == {kind: payload for kind, payload in found.items() if payload is not None}
    return taken


def rss_mb() -> float:
    return psutil.Process().memory_info().rss / 1e6


class Series(NamedTuple):
    """The same measured many times. The bounds are for the best: what else runs on the machine only slows it down."""

    best: float
    median: float

    @classmethod
    def of(cls, times: int, measured: Callable[[], float], best: Callable[[Iterable[float]], float] = max) -> Series:
        found = [measured() for _ in range(times)]
        return cls(best(found), statistics.median(found))


@dataclass(frozen=True)
class Figures:
    """Rates in kHz, times in ms, memory in MB."""

    uncached: Series
    first: Series
    cached: Series
    resolve: Series
    resolve_dense: Series
    all_kinds: Series
    kept: int
    cache_mb: float
    rss: float

    @property
    def missed(self) -> list[str]:
        """The bounds that are missed."""
        bounds = {
            f"uncached look-ups below {UNCACHED_KHZ:g} kHz": self.uncached.best < UNCACHED_KHZ,
            f"cached look-ups below {CACHED_KHZ:g} kHz": self.cached.best < CACHED_KHZ,
            f"resolving a run takes more than {RESOLVE_MS:g} ms": self.resolve.best > RESOLVE_MS,
        }
        return [what for what, is_missed in bounds.items() if is_missed]


def measure(filled: Filled, count: int, times: int) -> Figures:
    """Ask `count` questions a time, `times` times."""
    chance = random.Random(1)
    with filled.database.read() as connection:
        reader = ConditionsReader(connection, PayloadStore("payloads"))
        snapshot = reader.snapshot("all")
        plain = look_up(reader, snapshot)
        uncached = Series.of(times, lambda: rate(plain, filled, filled.units(chance, count)))
        before, cache, known = rss_mb(), AnswerCache(), list[tuple[str, RunLumi]]()
        keeping = look_up(reader, snapshot, cache)

        def first() -> float:
            asked = filled.units(chance, count)
            known.extend(asked)
            return rate(keeping, filled, asked)

        kept_first = Series.of(times, first)
        cached = Series.of(times, lambda: rate(keeping, filled, chance.choices(known, k=5 * count)))
        cache_mb = rss_mb() - before
        return Figures(
            uncached,
            kept_first,
            cached,
            Series.of(times, lambda: resolving(reader, filled, chance, ALL_KINDS[1:]), min),
            Series.of(times, lambda: resolving(reader, filled, chance, ALL_KINDS), min),
            Series.of(times, lambda: one_unit(reader, snapshot, filled.units(chance, 1)[0][1]), min),
            len(cache),
            cache_mb,
            rss_mb(),
        )


def one_unit(reader: ConditionsReader, snapshot: Snapshot, at: RunLumi) -> float:
    """Milliseconds to resolve all kinds at one lumisection."""
    start = time.perf_counter()
    reader.resolve(snapshot, at, ALL_KINDS)
    return 1e3 * (time.perf_counter() - start)


def report(figures: Figures) -> str:
    rows = [
        ("look-ups uncached, kHz", figures.uncached, f"at least {UNCACHED_KHZ:g}"),
        ("look-ups cached, asked for the first time, kHz", figures.first, ""),
        ("look-ups cached, kHz", figures.cached, f"at least {CACHED_KHZ:g}"),
        (f"a run of {LUMIS} lumisections, {KINDS} kinds, ms", figures.resolve, f"at most {RESOLVE_MS:g}"),
        ("the same and a kind that changes at each, ms", figures.resolve_dense, ""),
        (f"{KINDS + 1} kinds at one lumisection, ms", figures.all_kinds, ""),
    ]
    lines = [f"{'':<50}      best    median"]
    lines += [f"{what:<50}{series.best:10.2f}{series.median:10.2f}  {goal}".rstrip() for what, series, goal in rows]
    cache = f"{figures.cache_mb:.1f} MB of it the cache, which keeps {figures.kept} intervals"
    return "\n".join([*lines, f"{figures.rss:.0f} MB resident, {cache}"])


def run(name: str, options: argparse.Namespace) -> list[str]:
    """Fill and measure one database; the bounds it misses."""
    with opened(name) as database:
        start = time.perf_counter()
        filled = fill(database, options.runs)
        taken = time.perf_counter() - start
        with database.read() as connection:
            size = connection.execute(text(SIZE[name])).scalar_one() / 1e9
        intervals = options.runs * OF_RUN
        print(f"{name}: {intervals} intervals in {KINDS + 1} tags, {size:.2f} GB, filled in {taken:.0f} s", flush=True)
        figures = measure(filled, options.lookups, options.times)
        print(report(figures), flush=True)
        return figures.missed


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1250, help=f"of {OF_RUN} intervals each")
    parser.add_argument("--lookups", type=int, default=2000, help="at a time")
    parser.add_argument("--times", type=int, default=40, help="each figure is measured so often")
    parser.add_argument("--only", choices=sorted(PAYLOAD))
    parser.add_argument("--small", action="store_true", help="two runs in SQLite; nothing is judged")
    options = parser.parse_args()
    if options.small:
        options.runs, options.lookups, options.times, options.only = 2, 100, 1, options.only or "sqlite"
    return options


def main() -> int:
    options = parsed()
    missed = []
    for name in [options.only] if options.only else ["sqlite", "postgresql"]:
        if name == "postgresql" and postgres.installed() is None:
            print("postgresql: not installed")
            continue
        found = run(name, options)
        missed += found if name == "sqlite" and not options.small else []
    for what in missed:
        print(f"MISSED: {what}")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
