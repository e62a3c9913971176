"""What an experiment says of itself is looked at before anything is run."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.declarations import wrong_declarations, wrong_histograms
from pipeline.experiments.interface import QualityHistogram
from pipeline.experiments.ref10.experiment import Ref10
from pipeline.experiments.toy_collider import ToyCollider
from pipeline.mistakes import SettingsError
from pipeline.model import Step
from pipeline.settings import settings_from
from pipeline.world import open_world


class Named(ToyCollider):
    """Histograms of given names."""

    names: tuple[str, ...] = ()

    def histograms(self, step: Step) -> tuple[QualityHistogram, ...]:
        return tuple(QualityHistogram(name, "vertices", (0.0, 1.0), "") for name in self.names)


def named(*names: str) -> Named:
    found = Named()
    found.names = names
    return found


def test_a_name_that_cannot_be_stored_is_told_once() -> None:
    assert list(wrong_histograms(named("mass of J/psi", "Jpsi"))) == [
        "`experiment.name`: toy_collider has a histogram named 'mass of J/psi'; what is stored of it goes by its name "
        "with a / behind: take a name without one (titles and units may have it)"
    ]
    assert len(list(wrong_histograms(named("")))) == 1


def test_one_name_for_two_is_told_once() -> None:
    [told] = wrong_histograms(named("mass", "pt", "mass"))
    assert "has 2 histograms named 'mass' in express" in told


@pytest.mark.parametrize("experiment", [ToyCollider(), Ref10(), named("Jpsi", "J psi|mass, 3.1")])
def test_others_are_fine(experiment: ToyCollider) -> None:
    assert list(wrong_histograms(experiment)) == []


def test_a_tolerance_of_an_array_that_is_none_is_told() -> None:
    def told(array: str) -> list[str]:
        return list(
            wrong_declarations(settings_from({**plain, "closure": {"least": {"beamspot": {array: 1e-4}}}}), spot)
        )

    plain, spot = {"experiment": {"name": "toy_collider"}}, ToyCollider()
    assert told("width_x") == []
    assert told("widht_x") == ["`closure.least.beamspot`: there is no array 'widht_x'; did you mean 'width_x'?"]


def test_such_an_experiment_is_refused_before_anything_is_made(tmp_path: Any) -> None:
    area = tmp_path / "area"
    plain = {"experiment": {"name": "toy_collider"}, "storage": {"area": str(area)}, "prompt": {"tiers": ["NANOO"]}}
    settings = settings_from(plain)
    assert len(list(wrong_declarations(settings, named("a/b")))) == 2
    with pytest.raises(SettingsError, match="named 'a/b'") as refused:
        open_world(settings, named("a/b"))
    assert len(refused.value.mistakes) == 2
    assert not (area / "tier0.db").exists()
