"""What a promotion changes, for which runs. Pure, and kept in the database."""

import pytest

from pipeline.promotion import Promotion, add_promotion, algorithm_of, begins, in_force, promotions
from pipeline.sections import ShadowSection
from pipeline.settings import settings_from

SECTION = ShadowSection(kind="beamspot", calibration={"min_tracks": 300}, gates=({"gate": "finite"},))


def promoted(section=SECTION, since=10, name="tighter", reason="better"):
    return Promotion.of(name, section, since, "eve", 1.7e9, reason)


@pytest.fixture
def settings():
    return settings_from(
        {
            "experiment": {"name": "toy_collider"},
            "calibration": {"beamspot": {"min_tracks": 100, "min_vertices": 7}},
            "gates": {"beamspot": [{"gate": "min_entries", "array": "tracks", "minimum": 5}]},
            "for": [{"runs": "12", "calibration": {"beamspot": {"min_tracks": 50}}}],
        }
    )


def test_it_holds_from_its_run_on(settings):
    before, after = (in_force(settings, [promoted()], run) for run in (9, 10))
    assert before == settings.for_run(9)
    assert after.calibration["beamspot"] == {"min_tracks": 300, "min_vertices": 7}
    assert after.gates["beamspot"] == ({"gate": "finite"},)


def test_it_is_over_a_table_for_some_runs(settings):
    assert in_force(settings, [promoted()], 12).calibration["beamspot"]["min_tracks"] == 300
    assert in_force(settings, [], 12).calibration["beamspot"]["min_tracks"] == 50


def test_the_later_one_is_over_the_earlier(settings):
    later = promoted(ShadowSection(kind="beamspot", calibration={"min_tracks": 400}), since=11)
    found = in_force(settings, [promoted(), later], 11)
    # It says nothing of gates: those promoted before stay.
    assert found.calibration["beamspot"]["min_tracks"] == 400 and found.gates["beamspot"] == ({"gate": "finite"},)


def test_the_algorithm_that_was_promoted():
    own = promoted(ShadowSection(kind="beamspot", algorithm="mine:Better"))
    assert algorithm_of([own], "beamspot", 10) == "mine:Better"
    assert algorithm_of([own], "beamspot", 9) == algorithm_of([own], "gain", 10) == ""
    assert algorithm_of([own, promoted(since=12)], "beamspot", 12) == "mine:Better"


def test_it_begins_behind_every_released_run():
    assert begins({3: None, 7: None}) == 8 and begins({}) == 0


def test_it_needs_a_reason():
    with pytest.raises(ValueError, match="needs a reason"):
        promoted(reason=" ")


def test_it_is_kept(catalogue):
    with catalogue.begin() as connection:
        add_promotion(connection, promoted(), 1.0)
        add_promotion(connection, promoted(since=11), 2.0)
    with catalogue.read() as connection:
        assert promotions(connection) == (promoted(), promoted(since=11))
    assert str(promoted()) == "beamspot as in shadow tighter from run 10 on (eve, 2023-11-14 22:13 UTC: better)"
