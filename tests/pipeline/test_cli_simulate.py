"""`tier0 simulate` with an order that cannot be: a word, and nothing is begun."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipeline.cli import main
from pipeline.toml_text import toml_text


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    """Settings of REF10; nothing is there yet."""
    path = tmp_path / "ref10.toml"
    experiment = {"name": "ref10", "settings": {"geometry": "mini"}}
    path.write_text(toml_text({"experiment": experiment, "storage": {"area": str(tmp_path / "area")}}))
    return path


def simulate(toml: Path, *words: str, runs: str = "7") -> Result:
    folder = toml.parent / "raw"
    return CliRunner().invoke(main, ["simulate", str(toml), str(folder), "--runs", runs, "--quiet", *words])


def begun(toml: Path) -> bool:
    return (toml.parent / "raw").exists() or (toml.parent / "area").exists()


@pytest.mark.parametrize(
    ("scenario", "said"),
    [
        ('{"physics": {"pileup": 2}}', "unknown setting `physics.pileup`: did you mean `pile_up`?"),
        ('{"physics": {"tracks": "many"}}', "`physics.tracks` is 'many'"),
        ('{"faults": {"dead_strips": 3}}', "dead_strips is a share, between 0 and 1"),
        ("[physics]\npile_up = 2", "it is not written in JSON"),
    ],
)
def test_a_wrong_scenario_is_refused_in_a_line(toml: Path, scenario: str, said: str) -> None:
    (toml.parent / "wrong.json").write_text(scenario)
    done = simulate(toml, "--scenario", str(toml.parent / "wrong.json"))
    assert done.exit_code == 1 and said in done.output
    assert done.output.startswith("tier0: this is no scenario of REF10") and done.output.count("\n") == 1
    assert not begun(toml)


def test_a_scenario_that_cannot_be_read_is_said(toml: Path) -> None:
    (toml.parent / "latin.json").write_bytes(b"\xe9")
    for name in ("none.json", "latin.json"):
        done = simulate(toml, "--scenario", str(toml.parent / name))
        assert done.exit_code == 2 and f"{name} cannot be read" in done.output
    assert not begun(toml)


@pytest.mark.parametrize(
    ("scenario", "said"),
    [
        ('{"faults": {"dead_chips": 100000}}', "dead_chips is 100000, and this detector has "),
        ('{"faults": {"dead_rocs": 100000}}', "dead_rocs is 100000, and this detector has "),
    ],
)
def test_more_dead_chips_than_there_are_are_refused_in_a_line(toml: Path, scenario: str, said: str) -> None:
    (toml.parent / "wrong.json").write_text(scenario)
    done = simulate(toml, "--scenario", str(toml.parent / "wrong.json"))
    assert done.exit_code == 1 and done.output.startswith(f"tier0: {said}") and done.output.count("\n") == 1
    assert not begun(toml)


def test_a_format_that_is_not_known_is_refused(toml: Path) -> None:
    done = simulate(toml, "--format", "parquet")
    assert done.exit_code == 1 and "tier0: RAW is written as ttree or rntuple, not as 'parquet'" in done.output
    assert not begun(toml)


@pytest.mark.parametrize(
    ("words", "said"),
    [(("--lumis", "0"), "x>=1"), (("--seed", "-1"), "x>=0"), (("--events", "-1"), "x>=0")],
)
def test_numbers_that_cannot_be_are_wrong_use(toml: Path, words: tuple[str, str], said: str) -> None:
    done = simulate(toml, *words)
    assert done.exit_code == 2 and f"Invalid value for '{words[0]}'" in done.output and said in done.output
    assert not begun(toml)


def test_a_seed_has_64_bits(toml: Path) -> None:
    done = simulate(toml, "--seed", str(2**64))
    assert done.exit_code == 1 and "tier0: a seed is a whole number from 0 to" in done.output


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ("0", "a run is one of 1 to 2147483647"),
        ("7-5", "7-5 ends before it begins"),
        ("4294967296", "a run is one of 1 to"),
        ("seven", "write run numbers such as 101-103"),
        ("1-2000000000", "more than 100000 runs at once"),
        ("1-60000,100001-150000", "more than 100000 runs at once"),
    ],
)
def test_runs_that_cannot_be_are_wrong_use(toml: Path, runs: str, said: str) -> None:
    done = simulate(toml, runs=runs)
    assert done.exit_code == 2 and said in done.output and not begun(toml)


def test_a_file_is_no_folder(toml: Path) -> None:
    (toml.parent / "raw").write_text("a file")
    done = simulate(toml)
    assert done.exit_code == 2 and "is a file" in done.output and not (toml.parent / "area").exists()
