"""From the name of an experiment in the settings to its class, imported only when it is asked for."""

from __future__ import annotations

import difflib
import importlib
from typing import Any

from pipeline.experiments.interface import Experiment

EXPERIMENTS = {
    "cms_opendata": "pipeline.experiments.cms_opendata:CmsOpenData",
    "icecube_sndaq": "pipeline.experiments.icecube_sndaq:IceCubeSndaq",
    "ref10": "pipeline.experiments.ref10.experiment:Ref10",
    "toy_collider": "pipeline.experiments.toy_collider:ToyCollider",
}
"""The experiments that come with the program."""


class UnknownExperiment(LookupError):
    """No experiment goes by that name."""


def find_experiment(name: str) -> type[Experiment]:
    """The class of an experiment that comes with the program, or of a user's own given as `module:Class`.

    Raises UnknownExperiment saying what is wrong and, for a mistyped name, which one may be meant.

    >>> find_experiment("toy_colider")
    Traceback (most recent call last):
    pipeline.experiments.registry.UnknownExperiment: no experiment 'toy_colider'; did you mean 'toy_collider'?
    """
    module, colon, attribute = EXPERIMENTS.get(name, name).partition(":")
    if not colon:
        raise UnknownExperiment(f"no experiment {name!r}; {_instead(name)}")
    found = _load(name, module, attribute)
    if not (isinstance(found, type) and issubclass(found, Experiment)):
        wanted = "pipeline.experiments.interface.Experiment"
        raise UnknownExperiment(f"{name!r} is not an experiment: derive the class from {wanted}")
    return found


def find_object(name: str) -> Any:
    """What a user's module holds under a name given as `module:Name`. Raises UnknownExperiment saying what is wrong."""
    module, colon, attribute = name.partition(":")
    if not colon:
        raise UnknownExperiment(f"{name!r} is not of the form 'module:Name'")
    return _load(name, module, attribute)


def _load(name: str, module: str, attribute: str) -> object:
    try:
        holder = importlib.import_module(module)
    except ModuleNotFoundError as missing:
        # A module that is there but imports something that is not: that error says more than ours.
        if missing.name is None or not f"{module}.".startswith(f"{missing.name}."):
            raise
        message = f"{name!r}: no module {missing.name!r} to import; install it or put its folder on PYTHONPATH"
        raise UnknownExperiment(message) from None
    if not hasattr(holder, attribute):
        near = difflib.get_close_matches(attribute, vars(holder), n=1)
        hint = f"; did you mean {module}:{near[0]}?" if near else ""
        raise UnknownExperiment(f"module {module!r} has no {attribute!r}{hint}")
    return getattr(holder, attribute)


def _instead(name: str) -> str:
    near = difflib.get_close_matches(name, EXPERIMENTS, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"there are {', '.join(sorted(EXPERIMENTS))}, and your own as 'module:Class'"
