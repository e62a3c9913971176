"""The settings files in examples/ are right, and say what their comments say."""

from __future__ import annotations

from pathlib import Path

import pytest

from calib.gates import gate_from_settings
from pipeline.experiments.interface import Experiment
from pipeline.experiments.registry import find_experiment
from pipeline.settings import Settings, apply_calibration_settings, check_settings, load_settings

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
FILES = sorted(EXAMPLES.glob("*.toml"))


def experiment_of(settings: Settings) -> Experiment:
    return find_experiment(settings.experiment.name)(settings.experiment.settings)


def test_there_are_examples() -> None:
    assert {"cms_2011A", "cms_2012", "icecube"} <= {path.stem for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_example_is_right(path: Path) -> None:
    settings = load_settings(path)
    experiment = experiment_of(settings)
    calibrations = experiment.calibrations()
    kinds = {calibration.kind for calibration in calibrations} | set(experiment.initial_conditions())
    check_settings(settings, calibrations, kinds, gate_from_settings)
    changed = apply_calibration_settings(calibrations, settings.calibration)
    assert {calibration.kind for calibration in changed} == set(settings.gates)
