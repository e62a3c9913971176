"""The benchmark of the simulated detector runs and prints its table; nothing is judged at this size."""

from tests.benchmarks.test_benchmarks_run import run


def test_ref10_simulation() -> None:
    told = run("ref10_simulation.py", "--small").splitlines()
    assert told[0].startswith("tables of a seed")
    assert told[1].split()[:6] == ["vertices", "collide", "trace", "ionize", "respond", "columns"]
    assert [line.split()[0] for line in told[2:]] == ["1", "1.5", "3"]
    assert all(float(cell) >= 0 for line in told[2:] for cell in line.split()[1:5])
