"""What stages of REF10 cost: both benchmarks run, a goal that is missed is told, and causes are told apart."""

import math
import os
import re
import subprocess
import sys
from dataclasses import dataclass

import awkward as ak
import numpy as np
import pytest

from benchmarks._ref10_bounds import Bounds, Sampled, Study, nbytes, sampled, sentences, table, taken_apart
from benchmarks._ref10_costs import JUDGED, READ, Case, Goal, Line, costs, kinds, least, line_through, scenario
from benchmarks.ref10_simulation import whole
from jobs.cluster_settings import ALLOCATOR, ONE_THREAD
from pipeline.experiments.ref10.geometry import geometry_of, mini_geometry
from pipeline.experiments.ref10.simulate.events import block_size, simulate
from pipeline.experiments.ref10.simulate.stages import Simulation
from pipeline.experiments.ref10.simulate.streams import Purpose, Streams
from tests.benchmarks.test_benchmarks_run import ROOT

CAUSES = (
    "calls of Python",
    "random numbers",
    "memory traffic",
    "whatever its size",
    *("tracks", "crossings", "digis", "full strips", "clusters"),
)
SIMULATION = ["collide", "trace", "ionize", "respond", "columns", "simulate"]
RECONSTRUCTION = ["unpack", "clusters", "positions", "placed", "reconstruct"]


@pytest.mark.parametrize(
    ("name", "stages", "goal", "end"),
    [
        ("ref10_simulation.py", SIMULATION, 1e-3, "MISSED: to simulate an event of"),
        ("ref10_reconstruction.py", RECONSTRUCTION, 1e6, "unpack to clusters of an event of"),
    ],
)
def test_both_run_and_fail_where_the_goal_is_missed(name: str, stages: list[str], goal: float, end: str) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / name), "--small", "--pile-up", "2", "--goal", str(goal)]
    # With these settings it need not start afresh.
    worker = {**os.environ, **ALLOCATOR, **ONE_THREAD}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=worker)
    assert done.returncode == end.startswith("MISSED"), done.stderr
    told = done.stdout.splitlines()
    start = next(number for number, line in enumerate(told) if line.startswith("ms of a core an event"))
    assert re.split("  +", told[start])[1:] == ["pile-up 0.5", "pile-up 2", "pile-up 0.5, no NZS"]
    rows = [line.split("  ")[0] for line in told[start + 1 :] if not line.startswith("  of which")]
    assert rows[: len(stages) + 2] == [READ, *stages, "tracks"]
    bounds = next(number for number, line in enumerate(told) if line.startswith("stage "))
    judged = told[bounds + 1 : bounds + len(stages)]
    assert [line.split()[0] for line in judged] == stages[:-1]
    assert all(line.endswith(CAUSES) for line in judged)
    assert told[-1].startswith(end)


def test_what_is_measured_is_what_simulate_does() -> None:
    settings, geometry, numbers = scenario(30.0), geometry_of(mini_geometry()), np.arange(1, 31)
    wanted = simulate(settings, geometry, 1, 1, 1, numbers)
    found = whole(Simulation(settings, geometry, 1, 1, 1), numbers)
    assert block_size(settings.physics) < len(numbers)
    for columns, others in ((found.raw, wanted.raw), (found.truth, wanted.truth)):
        assert columns.keys() == others.keys()
        assert all(ak.array_equal(columns[name], others[name]) for name in columns)


def case(stages: dict[str, float], **sizes: float) -> Case:
    return Case(JUDGED, 0.02, sizes, stages)


def test_a_goal_is_for_the_sum_of_its_stages() -> None:
    goal = Goal(("unpack", "clusters"), "unpack to clusters of an event", 1.0)
    within, beyond = (case({"unpack": 0.6, "clusters": rest, "placed": 5.0}, tracks=15.0) for rest in (0.4, 0.41))
    assert not goal.missed(within) and goal.missed(beyond)
    assert goal.judgement(within).endswith("of 15.0 tracks takes 1.000 ms, 1.0 times less than the 1 ms it may take")
    assert goal.judgement(beyond).startswith("MISSED: unpack to clusters")
    assert Goal(("unpack",), "to unpack", math.inf).judgement(beyond).endswith("nothing is judged")


def test_what_is_judged_is_always_measured() -> None:
    assert kinds([3.0, 0.5, 3.0]) == [(0.5, 0.02), (3.0, 0.02), (0.5, 0.0)]


def test_the_least_of_the_rounds_but_the_first() -> None:
    """By a clock that says how long each call takes: the first ones least, the third of a and the second of b then."""
    turns: list[str] = []
    spent = [1, 1, 7, 4, 5, 6]
    ticks = iter(np.cumsum([step for one in spent for step in (0, one)]).tolist())
    found = least({name: lambda name=name: turns.append(name) for name in "ab"}, 2, lambda: next(ticks))
    assert turns == ["a", "b"] * 3
    assert found == {"a": 5000, "b": 4000}


def test_a_line_is_found_and_how_far_it_is_off() -> None:
    every = [
        case({"unpack": 0.05 + 2e-3 * digis + 1e-5 * full}, digis=digis, full=full)
        for digis, full in ((100.0, 2000.0), (200.0, 2000.0), (400.0, 2000.0), (100.0, 0.0))
    ]
    found = line_through(every, "unpack", ("digis", "full"))
    assert found.a == pytest.approx(0.05) and found.b == pytest.approx({"digis": 2.0, "full": 0.01})
    assert found.off < 1e-9
    bent = [case({"unpack": digis**2}, digis=digis) for digis in (1.0, 2.0, 4.0)]
    assert line_through(bent, "unpack", ("digis",)).off > 0.1


def test_costs_are_told_over_reading() -> None:
    told = costs([case({READ: 0.5, "unpack": 1.0, "sort": 0.25}, digis=3.0)], frozenset({"sort"})).splitlines()
    assert [line.split() for line in told[1:]] == [
        ["read", "RAW", "0.500", "(", "1.00)"],
        ["unpack", "1.000", "(", "2.00)"],
        ["of", "which", "sort", "0.250", "(", "0.50)"],
        ["digis", "3.0"],
    ]


def test_a_cost_is_taken_apart() -> None:
    """An event of 0.3 ms, calls of 2 ms, and 0.1 ms more where blocks outgrow the caches."""
    cost = {1: 2.3, 10: 0.5, 100: 0.42}
    found = taken_apart(cost, random=0.5, kilobytes=1.0, copy=1e7)
    assert (found.cost, found.alone) == (0.42, 2.3)
    assert found.call == pytest.approx(2.0) and found.calls == pytest.approx(0.02)
    assert found.memory == pytest.approx(0.1) and found.random == pytest.approx(0.21)
    assert sum(found.shares().values()) == pytest.approx(1)
    # A copy of all that goes in and out may take longer than that.
    assert taken_apart(cost, 0.0, kilobytes=2000.0, copy=1e7).memory == pytest.approx(0.2)


def test_noise_of_small_costs_gives_no_share_below_zero() -> None:
    for cost in ({1: 0.1, 10: 0.11, 100: 0.09}, {1: 5.0, 10: 0.01, 100: 0.01}):
        shares = taken_apart(cost, random=1.0, kilobytes=1e6, copy=1e6).shares()
        assert sum(shares.values()) == pytest.approx(1) and min(shares.values()) >= 0


ROWS = {
    "calls of Python": Bounds(1.0, 50.0, 49.0, 0.6, 0.1, 0.1, 1.0),
    "random numbers": Bounds(1.0, 1.0, 0.0, 0.1, 0.6, 0.1, 1.0),
    "memory traffic": Bounds(1.0, 1.0, 0.0, 0.1, 0.1, 0.6, 1.0),
    "number of digis and full strips": Bounds(1.0, 1.0, 0.0, 0.1, 0.1, 0.1, 1.0),
}


@pytest.mark.parametrize(("cause", "bounds"), ROWS.items(), ids=ROWS.keys())
def test_the_largest_share_is_the_cause(cause: str, bounds: Bounds) -> None:
    assert bounds.bound_by(Line(0.1, {"digis": 1.0, "full strips": 0.1}, 0.0)) == cause


def test_work_that_does_not_go_with_the_size_is_told() -> None:
    assert Bounds(1.0, 1.0, 0.0, 0.1, 0.1, 0.1, 1.0).bound_by(Line(0.6, {"digis": 1.0}, 0.0)).startswith("what every")


def test_random_numbers_are_seen_where_they_are_drawn() -> None:
    streams, events, counts = Streams(1, 1, 1), np.arange(20), np.full(20, 10_000)
    found = sampled(lambda: streams.normal(Purpose.CHARGE, events, counts), 0.2)
    assert found.random > 0.8 and sum(found.own.values()) == pytest.approx(1)
    assert max(found.own, key=lambda name: found.own[name]) == "streams.Streams.normal"
    other = sampled(lambda: np.sort(np.arange(100_000)[::-1]), 0.1)
    assert other.random == 0 and list(other.own) == ["elsewhere"]


def test_all_columns_are_counted() -> None:
    @dataclass
    class Table:
        x: np.ndarray
        more: dict[str, object]

    eight = np.zeros(1)
    value = ([Table(eight, {"y": (eight, eight), "n": 3})], ak.Array(eight))
    assert nbytes(value) == 4 * 8


def test_the_figures_are_those_that_are_told() -> None:
    line = Line(0.1, {"digis": 1.0}, 0.02)
    every = {
        "unpack": Bounds(3.0, 9.0, 6.0, 0.06, 0.0, 0.3, 20.0),
        "clusters": Bounds(1.0, 3.0, 2.0, 0.02, 0.9, 0.0, 20.0),
    }
    samples = {"unpack": Sampled({"unpack._pixels": 1.0}, 0.0), "clusters": Sampled({"streams._Place.go": 0.45}, 0.9)}
    found = Study(case({}, tracks=15.0), 100, 1e6, every, dict.fromkeys(every, line), samples)
    told = sentences(found)
    assert told[0] == "Of 4.000 ms an event of 15 tracks, unpack 75 %, clusters 25 %."
    assert told[1] == "Most time goes to unpack._pixels 75 %, streams._Place.go 11 %."
    assert "takes 8.00 ms whatever it is given: 67 % of an event alone, 2 % in blocks of 100." in told[2]
    assert told[3].startswith("Random numbers take 22 %") and told[3].endswith("takes 50 %.")
    assert "moves 1.0 GB/s" in told[4] and "40 kB an event, is 0.01 GB/s" in told[4]
    assert "would take 1 % of the time" in told[4] and told[4].endswith("memory is 8 %.")
    assert told[5] == "unpack: bound by number of digis; clusters: bound by random numbers."
    assert [row.split()[0] for row in table(found).splitlines()] == ["stage", "unpack", "clusters"]
