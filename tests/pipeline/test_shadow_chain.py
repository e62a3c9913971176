"""Shadows beside production: on the same states, publishing nothing, compared, and promoted by name."""

import pytest

from pipeline.mistakes import SettingsError
from pipeline.settings import settings_from
from pipeline.shadow import Shadowed, beside, candidate
from pipeline.shadow_view import NoShadow, PromotedAlready
from pipeline.tier0 import Tier0
from tests.pipeline.judging import Skewed
from tests.pipeline.tiny import settings as plain_settings
from tests.pipeline.tiny import write_file

JUDGED = {"experiment": {"name": "tests.pipeline.judging:Judged"}}
SHADOW = {"strict": {"kind": "offset", "calibration": {"min_hits": 10**6}}, "same": {"kind": "offset"}}


@pytest.fixture
def files(tmp_path):
    return [write_file(tmp_path / f"{run}.root", run, lumis=3, events=10) for run in (1, 2, 3)]


def link(**shadow):
    plain = plain_settings("area", **JUDGED, shadow={"x": {"kind": "offset", **shadow}})
    return candidate([Skewed()], settings_from(plain), "x")


def test_a_candidate_takes_what_it_does_not_set_from_production():
    assert link().calibration == Skewed() and link(calibration={"min_hits": 3}).calibration.min_hits == 3
    assert [gate.name for gate in link(gates=[{"gate": "finite"}]).gates] == ["finite"]


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"calibration": {"scale": 10}}, "would need other states \\(scale\\)"),
        ({"calibration": {"min_hit": 3}}, "did you mean `min_hits`"),
        ({"kind": "ofset"}, "did you mean `offset`"),
        ({"algorithm": "tests.pipeline.judging:Skewd"}, "did you mean tests.pipeline.judging:Skewed"),
    ],
)
def test_what_cannot_be_a_shadow_is_refused(wrong, word):
    with pytest.raises((SettingsError, LookupError), match=word):
        link(**wrong)


def test_production_is_not_touched_and_both_are_compared(house, tmp_path, files):
    with Tier0(house(**JUDGED)) as tier0:
        tier0.run(*files[:2], progress=False)
        alone = tier0.conditions.history("offset")
    with Tier0(house(**JUDGED, shadow=SHADOW)) as tier0:
        assert not tier0.plan(*files[:2]).todos
        tier0.run(*files[:2], progress=False)
        assert tier0.conditions.history("offset") == alone
        shadows = tier0.conditions.shadows
        assert "strict: offset" in shadows.overview()
        assert all(one.same for one in shadows.compare("same")) and len(shadows.compare("same")) == 2
        strict = shadows.compare("strict")
        assert [one.same for one in strict] == [False, False] and "hits of 1000000" in strict[0].shadow_says
        assert "strict: of 999 there is nothing released that was shadowed; it has runs 1, 2" in shadows.show(
            "strict", [999]
        )
        with pytest.raises(NoShadow, match="no shadow `stirct`: did you mean `strict`"):
            shadows.show("stirct")
        text = shadows.show("strict")
        assert "2 runs, 2 intervals, the same payload in 0" in text and "mean" in text


def test_a_promoted_shadow_holds_from_the_next_run_on(house, tmp_path, files):
    with Tier0(house(**JUDGED, shadow=SHADOW)) as tier0:
        tier0.run(*files[:2], progress=False)
        promotion = tier0.conditions.shadows.promote("strict", "too few hits made it jump")
        assert promotion.since == 3
        with pytest.raises(PromotedAlready, match="strict is promoted already, with these settings: offset as in"):
            tier0.conditions.shadows.promote("strict", "again")
    with Tier0(house(**JUDGED, shadow=SHADOW)) as tier0:
        summary = tier0.run(*files, progress=False)
        states = [row.conditions["offset"] for row in summary.rows]
        assert "promoted: offset as in shadow strict from run 3 on" in tier0.conditions.shadows.overview()
        assert str(promotion) in tier0.check()
    assert states == [{"fresh": 1}, {"fresh": 1}, {"carried": 1}] and summary.version == 1


def test_another_version_runs_beside_production_and_is_promoted(house, tmp_path, files):
    def means(tier0, *runs):
        world = tier0.conditions.world
        held = (world.books.manifest(run).at_end("offset") for run in runs)
        return [float(world.store.get(payload_id)["mean"]) for payload_id in held]

    with Tier0(house(**JUDGED, storage={"area": str(tmp_path / "without")})) as tier0:
        tier0.run(*files, progress=False)
        plain = means(tier0, 1, 2, 3)
    later = {"later": {"kind": "offset", "algorithm": "tests.pipeline.judging:Later"}}
    with Tier0(house(**JUDGED, shadow=later)) as tier0:
        tier0.run(*files[:2], progress=False)
        shadows = tier0.conditions.shadows
        assert means(tier0, 1, 2) == plain[:2] and [one.same for one in shadows.compare("later")] == [False, False]
        assert shadows.promote("later", "half a centimetre was missing").since == 3
    with Tier0(house(**JUDGED, shadow=later)) as tier0:
        tier0.run(*files, progress=False)
        assert means(tier0, 1, 2, 3) == [*plain[:2], plain[2] + 0.5]


def test_a_run_without_states_says_so():
    from pipeline.manifest import Condition, Stretch

    stretches = [Stretch(1, 9, Condition.FRESH, "a", "")]
    [found] = beside(1, stretches, Shadowed(1, (), "its state is not made yet"), "start")
    assert (found.shadow, found.shadow_says) == ("start", "its state is not made yet")
