"""What else is wrong with settings that cannot be read whole: what can be read is held to the experiment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from pipeline.mistakes import SettingsError
from pipeline.settings import Settings, check_settings, make_experiment


def further_mistakes(plain: Mapping[str, Any]) -> list[str]:
    """The mistakes that an experiment finds in the tables that can be read; none where its own table cannot be.

    A table with a mistake in it is left out whole, so of such a one not all may be said.
    """
    from calib.gates import gate_from_settings
    from pipeline.declarations import kinds_of, wrong_declarations
    from pipeline.experiments.registry import UnknownExperiment

    settings = _readable(plain)
    if settings is None:
        return []
    try:
        experiment = make_experiment(settings)
        wrong = wrong_declarations(settings, experiment)
        check_settings(settings, experiment.calibrations(), kinds_of(experiment), gate_from_settings, wrong)
    except SettingsError as problem:
        return list(problem.mistakes)
    except UnknownExperiment as problem:
        return [str(problem)]
    return []


def _readable(plain: Mapping[str, Any]) -> Settings | None:
    """The settings without the tables that cannot be read."""
    rest = dict(plain)
    while "experiment" in rest:
        try:
            return Settings.model_validate_json(json.dumps(rest, default=str))
        except ValidationError as problem:
            wrong = {str(error["loc"][0]) for error in problem.errors() if error["loc"]}
        left = {name: table for name, table in rest.items() if name not in wrong}
        if len(left) == len(rest):
            return None
        rest = left
    return None
