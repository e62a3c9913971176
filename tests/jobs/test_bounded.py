"""One more leaf costs the driver and the scheduler next to nothing."""

from __future__ import annotations

from benchmarks.bounded import Figures, measure, report


def test_driver_and_scheduler_do_not_grow_with_the_leaves() -> None:
    figures = measure(10_000)
    said = report(figures)
    # Caches and logs of fixed length are still filling at the beginning; `benchmarks/bounded.py` sees them full.
    late = Figures(figures.leaves, [sample for sample in figures.samples if sample[0] >= 4_000])
    assert sum(late.slopes()) < 1_500, said
    assert figures.tasks <= 3 * figures.window, said
    assert figures.cpu_ms < 4, said


def test_growth_is_seen() -> None:
    leaking = Figures(1000, [(leaves, 5e6 + 100.0 * leaves, 7e6 + 200.0 * leaves) for leaves in range(0, 1000, 20)])
    driver, scheduler = leaking.slopes()
    assert round(driver) == 100
    assert round(scheduler) == 200
