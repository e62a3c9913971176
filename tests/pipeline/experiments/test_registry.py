from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipeline.experiments.interface import Experiment
from pipeline.experiments.registry import EXPERIMENTS, UnknownExperiment, find_experiment


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_is_found_under_its_own_name(name: str) -> None:
    found = find_experiment(name)
    assert issubclass(found, Experiment)
    assert found.name == name


def test_a_user_gives_module_and_class() -> None:
    assert find_experiment(EXPERIMENTS["toy_collider"]) is find_experiment("toy_collider")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cms_open_data", "did you mean 'cms_opendata'"),
        ("nothing like it", "there are cms_opendata, icecube_sndaq, ref10, toy_collider, and your own"),
        ("no_such_module:Mine", "no module 'no_such_module' to import"),
        ("pipeline.no_such:Mine", "no module 'pipeline.no_such' to import"),
        ("pipeline.experiments.toy_collider:ToyColider", "did you mean pipeline.experiments.toy_collider:ToyCollider"),
        ("pipeline.model:Step", "is not an experiment"),
        ("pipeline.experiments.registry:find_experiment", "is not an experiment"),
    ],
)
def test_a_wrong_name_says_what_to_do(name: str, message: str) -> None:
    with pytest.raises(UnknownExperiment, match=message):
        find_experiment(name)


def test_a_fault_inside_a_users_module_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "users_own_experiment.py").write_text("import a_library_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_library_that_is_not_there"):
        find_experiment("users_own_experiment:Mine")
    assert "users_own_experiment" not in sys.modules
