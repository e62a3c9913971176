"""An experiment with one of its settings otherwise: for the law that tells what looks at it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from pipeline.experiments.interface import Experiment


def variations(experiment: Experiment, name: str) -> Iterator[Experiment]:
    """The experiment with other values of one setting, as far as its settings take them.

    Numbers, and those at either end of a tuple, are made larger, smaller and zero; of other types nothing is tried.
    """
    given = experiment.settings.model_dump()
    for value in _others(given[name]):
        try:
            yield type(experiment)({**given, name: value})
        except ValidationError:
            continue


def _others(value: Any) -> Iterator[Any]:
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from sorted({value + 1, value - 1, 2 * value, value // 2, 0} - {value})
    elif isinstance(value, float):
        yield from sorted({1.1 * value, value / 1.1, 10 * value, value / 10, value + 1, value - 1, 0.0} - {value})
    elif isinstance(value, tuple) and value:
        for place in sorted({0, len(value) - 1}):
            for other in _others(value[place]):
                yield (*value[:place], other, *value[place + 1 :])
