"""One more leaf costs the driver and the scheduler next to nothing."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.bounded import Figures, judge, measure, report


@pytest.mark.verify
def test_driver_and_scheduler_do_not_grow_with_the_leaves() -> None:
    figures = measure(10_000)
    said = report(figures)
    # Caches and logs of fixed length are still filling at the beginning; `benchmarks/bounded.py` sees them full.
    late = Figures(figures.leaves, [sample for sample in figures.samples if sample[0] >= 4_000])
    assert sum(late.slopes()) < 1_500, said
    assert figures.tasks <= 3 * figures.window, said
    assert figures.cpu_ms < 4, said


def leaking_by(driver: float, scheduler: float, leaves: int, **more: Any) -> Figures:
    steps = range(0, leaves, leaves // 50)
    return Figures(leaves, [(step, 5e6 + driver * step, 7e6 + scheduler * step) for step in steps], **more)


def test_growth_is_seen() -> None:
    leaking = leaking_by(100.0, 200.0, 1000)
    driver, scheduler = leaking.slopes()
    assert round(driver) == 100
    assert round(scheduler) == 200


@pytest.mark.parametrize(
    ("figures", "word"),
    [
        (leaking_by(700, 700, 100_000, tasks=96, window=32, cpu_s=(300, 90)), ""),
        (leaking_by(800, 800, 100_000, tasks=96, window=32, cpu_s=(300, 90)), "1.600 kB of memory a leaf, at most 1.5"),
        (
            leaking_by(700, 700, 100_000, tasks=97, window=32, cpu_s=(300, 90)),
            "97 tasks in the scheduler, at most 3",
        ),
        (leaking_by(700, 700, 100_000, tasks=96, window=32, cpu_s=(300, 110)), "4.10 ms of CPU a leaf, at most 4"),
        (leaking_by(800, 800, 50_000, tasks=97, window=32, cpu_s=(300, 110)), ""),
    ],
)
def test_a_bound_that_is_missed_is_said_by_the_exit_code(
    figures: Figures, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert judge(figures) == (1 if word else 0)
    assert (f"missed: {word}" in capsys.readouterr().err) == bool(word)
