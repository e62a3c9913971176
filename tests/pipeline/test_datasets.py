"""Datasets: which events each has, what settings may say of them, and what is settled with each."""

import numpy as np
import pytest

from calib.calibration import Outcome
from calib.gates import Decision
from calib.iov import RunLumi
from pipeline import accounting, catalog
from pipeline.accounting import Task
from pipeline.canary import fresh_payloads, in_force
from pipeline.certify import Certification, Judgement, Quality, of_datasets
from pipeline.datasets import REST, Dataset, canary_of, datasets_of, handshake_of, last_deadline_s
from pipeline.handshake import Hold, Judged, KindView, Release, Rules, RunView, Settled, Wait, decide
from pipeline.manifest import Condition, Manifest, Stretch
from pipeline.mistakes import SettingsError
from pipeline.model import Chunk, Counts, FileIndex, Piece, Step
from pipeline.released import Released
from pipeline.settings import load_settings, settings_from
from pipeline.tally import ELSEWHERE
from pipeline.way import together
from pipeline.world import open_world, settings_lineage
from tests.pipeline.tiny import settings
from tests.pipeline.triggered import Triggered

RUN = 7
FIRST, LAST = RunLumi(RUN, 1).packed, RunLumi(RUN, 2).packed
DEADLINE = 100.0
RULES = Rules(max_carried_runs=2, failed="wait")
TRIGGERED = {"name": "tests.pipeline.triggered:Triggered"}


# events ---------------------------------------------------------------------------------------------------------------


def naive(triggers, fired, at):
    return any(fired[name][at] for name in triggers)


def test_every_event_is_in_a_dataset_and_one_that_fires_two_in_both():
    rng = np.random.default_rng(3)
    fired = {name: rng.random(200) < 0.3 for name in ("muon", "beam", "jet")}
    tables = {"Muon": {"triggers": ["muon"]}, "Mixed": {"triggers": ["muon", "beam"]}, "Other": {}}
    found = datasets_of(settings_from({"experiment": {"name": "x"}, "datasets": tables}).datasets)
    taken = {one.name: one.takes(fired, 200) for one in found}
    for at in range(200):
        assert taken["Muon"][at] == naive(["muon"], fired, at)
        assert taken["Mixed"][at] == naive(["muon", "beam"], fired, at)
        assert taken["Other"][at] == (not naive(["muon", "beam"], fired, at))
    assert np.sum(list(taken.values()), axis=0).min() == 1 and (taken["Muon"] & taken["Mixed"]).any()
    assert Dataset().takes({}, 3).tolist() == [True] * 3


def test_what_no_trigger_takes_is_not_lost():
    sections = settings_from({"experiment": {"name": "x"}, "datasets": {"Muon": {"triggers": ["muon"]}}}).datasets
    assert [(one.name, one.triggers, one.others) for one in datasets_of(sections)] == [
        ("Muon", ("muon",), ()),
        (REST, (), ("muon",)),
    ]


# settings -------------------------------------------------------------------------------------------------------------


def test_what_a_dataset_does_not_set_is_as_in_the_run():
    tables = {"Muon": {"triggers": ["muon"], "deadline": "1 h", "canary": {"units": 2}}, "Other": {}}
    sections = {"handshake": {"deadline": "2 h", "failed": "fallback"}, "canary": {"units": 1}}
    found = settings_from({"experiment": {"name": "x"}, "datasets": tables} | sections)
    muon, other = (handshake_of(found, name) for name in ("Muon", "Other"))
    assert (muon.deadline_s, muon.failed, other.deadline_s) == (3600.0, "fallback", 7200.0)
    assert (canary_of(found, "Muon").part, canary_of(found, "Other").part) == (2, 1)
    assert last_deadline_s(found) == 7200.0 == handshake_of(found, "").deadline_s


def test_a_file_of_settings_with_datasets_is_written_and_read_again(tmp_path):
    text = """
[experiment]
name = "tests.pipeline.triggered:Triggered"
[datasets.Muon]
triggers = ["muon"]
required = ["offset"]
deadline = "1 h"
[datasets.Muon.canary]
share = "1/100"
[datasets.Other]
"""
    path = tmp_path / "t.toml"
    path.write_text(text)
    found = load_settings(path)
    path.write_text(found.as_text())
    assert load_settings(path).datasets == found.datasets
    assert found.for_run(7).datasets == found.datasets


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"Muon": {"triggers": ["mun"]}}, "`datasets.Muon.triggers`: there is no trigger 'mun'; did you mean 'muon'?"),
        ({"Muon": {"triggers": ["x"]}}, "there is no trigger 'x'; there are muon, beam"),
        (
            {"Muon": {"required": ["ofset", "offset"]}},
            "`datasets.Muon.required`: there is no kind 'ofset'; did you mean 'offset'?",
        ),
        (
            {"Muon": {"required": ["spread"]}},
            "`datasets.Muon.required` lacks 'offset', which is calibrated here and which prompt needs: add it",
        ),
        ({"Mu-on": {}}, "`datasets.Mu-on`: call it by letters, digits and _, a letter first"),
        ({"A": {}, "B": {}}, "`datasets`: A and B have no triggers; only one can have what no other takes"),
        ({"Rest": {"triggers": ["muon"]}}, "`datasets.Rest` is the name of what no other takes"),
        ({"Muon": {"triger": []}}, "unknown setting `datasets.Muon.triger`: did you mean `triggers`?"),
        ({"Muon": {"canary": {"unit": 1}}}, "unknown setting `datasets.Muon.canary.unit`: did you mean `units`?"),
        ({"Muon": {"deadline": "soon"}}, "`datasets.Muon.deadline`"),
    ],
)
def test_what_is_wrong_with_datasets_is_said(tmp_path, tables, words):
    with pytest.raises(SettingsError) as problem:
        open_world(settings_from(settings(tmp_path / "area", experiment=TRIGGERED, datasets=tables)))
    assert words in str(problem.value)


def test_datasets_need_triggers_and_are_told_with_all_other_mistakes(tmp_path):
    plain = settings(tmp_path / "area", datasets={"Muon": {}}, handshake={"required": ["ofset"]})
    with pytest.raises(SettingsError) as problem:
        open_world(settings_from(plain))
    assert len(problem.value.mistakes) == 2
    assert "tiny names no triggers to tell datasets by; leave these tables out" in str(problem.value)


def test_datasets_open_a_version_and_their_canaries_do_not():
    def version(**tables):
        plain = {"experiment": TRIGGERED} | ({"datasets": tables} if tables else {})
        return settings_lineage(settings_from(plain), Triggered())

    muon = {"triggers": ["muon"]}
    assert version() != version(Muon=muon) != version(Muon=muon | {"deadline": "1 h"})
    assert version(Muon=muon) == version(Muon=muon | {"canary": {"units": 2}})


# the handshake --------------------------------------------------------------------------------------------------------


def fresh(payload="p"):
    return (Judged(FIRST, LAST, Outcome.MADE, payload, Decision.PUBLISH),)


def stretch(condition, payload, why="as it was then"):
    return Stretch(FIRST, LAST, condition, payload, why)


def view(*kinds, **more):
    return RunView(RUN, (FIRST, LAST), kinds, DEADLINE, **more)


def test_a_settled_kind_is_taken_as_it_was_settled_whatever_is_known_by_now():
    settled = Settled((stretch(Condition.FALLBACK, "old"),), (FIRST,))
    found = decide(
        view(KindView("offset", fresh("new"), settled=settled), KindView("spread", fresh()), dataset="Other"),
        RULES,
        0.0,
    )
    assert isinstance(found, Release)
    assert list(found.stretches) == ["offset", "spread"] and found.stretches["offset"] == settled.stretches
    assert found.vetoed == {"offset": (FIRST,)} and found.intervals == {"p": (FIRST, LAST)}
    assert (found.dataset, found.settled, found.is_last) == ("Other", frozenset({"offset"}), True)


def test_a_settled_kind_is_not_waited_for_and_the_others_are():
    settled = Settled((stretch(Condition.FRESH, "p"),))
    offset, spread = KindView("offset", None, settled=settled), KindView("spread", None, waits_for="finalize")
    assert decide(view(offset, spread), RULES, 0.0) == Wait({"spread": "finalize"}, DEADLINE)
    assert isinstance(decide(view(offset), RULES, 0.0), Release)
    assert isinstance(decide(view(offset, held="by ann"), RULES, 0.0), Hold)


def test_a_canary_looks_at_what_is_new_and_undoes_nothing_that_is_settled():
    settled = Settled((stretch(Condition.FRESH, "p"),))
    found = decide(view(KindView("offset", None, settled=settled), KindView("spread", fresh("q"))), RULES, 0.0)
    assert fresh_payloads(found) == ("q",)
    held = in_force(found, "worse")
    assert held.stretches["offset"] == settled.stretches and held.settled == found.settled
    assert [s.condition for s in held.stretches["spread"]] == [Condition.FALLBACK]


# what is released -----------------------------------------------------------------------------------------------------


def manifest(dataset="", **kinds):
    return Manifest(
        RUN, 1, 5, {kind: (stretch(Condition.FRESH, payload),) for kind, payload in kinds.items()}, {}, {}, dataset
    )


def test_a_manifest_says_its_dataset_and_one_without_is_as_before():
    plain = manifest(offset="p")
    assert "dataset" not in plain.to_document()
    assert plain.id == Manifest(RUN, 1, 5, plain.kinds).id != manifest("Muon", offset="p").id
    document = manifest("Muon", offset="p").to_document()
    assert Manifest.from_document(document).dataset == "Muon"
    with pytest.raises(ValueError, match="was altered"):
        Manifest.from_document(document | {"dataset": "Other"})


def test_what_is_settled_of_a_run_is_that_of_its_datasets_together():
    one = Released({}).adding(manifest("Muon", offset="p"))
    assert not one.whole(["Muon", "Other"]) and list(one.settled.kinds) == ["offset"]
    both = one.adding(manifest("Other", offset="p", spread="q"))
    assert both.whole(["Muon", "Other"]) and both.settled.at_end("spread") == "q"
    assert Released.from_document(both.to_document()) == both
    alone = Released({"": manifest(offset="p")})
    assert alone.to_document() == manifest(offset="p").to_document()
    assert Released.from_document(alone.to_document()) == alone and alone.settled.dataset == ""
    assert not Released.from_document(None).manifests


def test_reasons_of_several_datasets_name_them():
    assert together({"": {"offset": "few"}}) == {"offset": "few"}
    found = together({"Muon": {"offset": "few"}, "Other": {"offset": "many"}})
    assert found == {"offset": "Muon: few; Other: many"}


# accounts and quality -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("muons", "bad", "words"),
    [
        (4, 1, ""),
        (4, 0, ""),
        (3, 0, "lumisection 1: of 10 events in its files the datasets have 9"),
        (3, 1, "lumisection 1: of 10 events in its files the datasets have 9"),
        (5, 0, "lumisection 1: of 10 events in its files two datasets that exclude each other have more"),
    ],
)
def test_events_that_no_dataset_has_are_found(catalogue, muons, bad, words):
    """Of ten events four are of muons; said to be three or five when the muons were looked for, some are lost."""
    pieces = (Piece("a", 0, 10, FIRST),)
    with catalogue.begin() as connection:
        catalog.register_file(connection, FileIndex("a", 1, "c", pieces, (), 10, 1), 1.0)
        catalog.save_layout(connection, RUN, "layout", (Chunk(RUN, 0, pieces),))
        muon = Counts(10, muons - bad, {ELSEWHERE: 10 - muons}, bad)
        rows = {"muon": muon, "rest": Counts(10, 5, {ELSEWHERE: 4, "no hit": 1})}
        for job, counts in rows.items():
            accounting.book(connection, Task(job, RUN, Step.PROMPT, "layout"), {0: {FIRST: counts}})
        found = accounting.astray(connection, RUN, ["muon"], "rest", ELSEWHERE)
    assert words in found and bool(words) == bool(found)


def test_a_unit_is_good_where_it_is_good_in_every_dataset_and_the_reason_says_in_which():
    unit = [RunLumi(RUN, lumi).packed for lumi in (1, 2, 3)]
    seen = (Judgement(unit[0], "mass", Quality.BAD, 3.0, 9),)
    muon = Certification(RUN, (unit[1], unit[2]), {unit[0]: ("mass: 3 on 9 entries",)}, seen)
    rest = Certification(RUN, (unit[0], unit[2]), {unit[1]: ("gone",)})
    found = of_datasets({"Muon": muon, "Rest": rest})
    assert found.good == (unit[2],)
    assert found.bad == {unit[0]: ("Muon, mass: 3 on 9 entries",), unit[1]: ("Rest, gone",)}
    assert [one.test for one in found.judgements] == ["Muon, mass"]
