"""Which tiers are written: those of the settings, or the experiment's own choice."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.experiments.toy_collider import ToyCollider
from pipeline.settings import SettingsError, settings_from
from pipeline.tiers import tiers_of, wrong_tiers
from pipeline.world import open_world


class Choosy(ToyCollider):
    """Would make a large tier beside."""

    tiers = ("RECO", "NANO")
    default_tiers = ("NANO",)


class Silent(ToyCollider):
    """Does not say what it makes."""

    tiers = None


def test_settings_come_before_the_choice_of_the_experiment() -> None:
    assert tiers_of(None, ToyCollider()) is None
    assert tiers_of(None, Choosy()) == ("NANO",)
    assert tiers_of(("RECO",), Choosy()) == ("RECO",)
    assert tiers_of((), Choosy()) == ()


def test_a_tier_that_is_not_made_is_told_where_it_is_known() -> None:
    assert list(wrong_tiers(("RECO", "NAN"), Choosy())) == [
        "`prompt.tiers`: there is no tier 'NAN'; did you mean 'NANO'?"
    ]
    assert list(wrong_tiers(("AOD",), Silent())) == list(wrong_tiers(None, Choosy())) == []


def test_settings_with_an_unknown_tier_are_refused(tmp_path: Any) -> None:
    plain = {"experiment": {"name": "toy_collider"}, "storage": {"area": str(tmp_path / "area")}}
    wrong = settings_from({**plain, "prompt": {"tiers": ["NANOO"]}})
    with pytest.raises(SettingsError, match="there is no tier 'NANOO'; did you mean 'NANO'"):
        open_world(wrong)
    world = open_world(settings_from(plain), Choosy())
    assert world.tiers == ("NANO",)
    world.database.close()
