"""What may be deleted of the conditions, by whom, and what of it is kept; on both databases."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from calib.conditions import ConditionsDB
from calib.deletion import InUse, take_turn
from calib.iov import RunLumi
from calib.payload import Payload, PayloadMissing, PayloadStore
from calib.schema import conditions_metadata, fates
from calib.tags import Stamp, Sync
from jobs.lease import drop_lease, take_lease
from jobs.tables import ledger_metadata
from pipeline.authority import NotAllowed, Rules
from pipeline.cli import main
from pipeline.conditions_editor import ConditionsEditor
from pipeline.conditions_words import Refused
from pipeline.in_charge import take_charge
from pipeline.mentions import mentions, unmentioned
from pipeline.orders import NoReason, Order, What, add_order
from pipeline.schema import catalog_metadata
from pipeline.toml_text import toml_text
from tests.pipeline.conditions_shelf import ANN, editor, enter, offset
from tests.pipeline.tiny import settings


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[ConditionsEditor]:
    """Design values, and a payload from run 7 on."""
    yield from _shelf(tmp_path, str(tmp_path / "t.db"))


@pytest.fixture
def either(tmp_path: Path, where: str) -> Iterator[ConditionsEditor]:
    """The same, on SQLite and on PostgreSQL."""
    yield from _shelf(tmp_path, where)


def _shelf(tmp_path: Path, where: str) -> Iterator[ConditionsEditor]:
    found = editor(tmp_path / "area", storage={"area": str(tmp_path / "area"), "database": where})
    enter(found, RunLumi(7), offset(1.5), loop=True)
    yield found
    found.world.database.close()


def stray(shelf: ConditionsEditor, mean: float = 9.5) -> str:
    """A payload that nothing names, as an upload that was killed leaves it."""
    return shelf.world.store.put(offset(mean))


def test_a_payload_that_nothing_names_is_deleted_and_it_is_kept_who_did(either):
    payload_id = stray(either)
    assert payload_id[:16] in either.unused()
    assert "is deleted" in either.delete(payload_id[:12], "of a test")
    assert not either.world.store.has(payload_id)
    assert not either.world.store.partials(-1, either.world.now())
    assert either.unused() == "nothing is unused"
    history = either.unused(history=True)
    assert all(word in history for word in (payload_id[:16], "offset", either.world.author, "of a test"))
    with pytest.raises(PayloadMissing):
        either.world.store.get(payload_id)
    with pytest.raises(Refused, match="no payload whose id begins so"):
        either.delete(payload_id, "again")


def test_what_an_entry_names_is_kept_withdrawn_or_not(either):
    payload_id = offset(1.5).id
    with pytest.raises(InUse, match=r"is kept, it is named by: entry \d+ of tag offset_prompt_v1"):
        either.delete(payload_id, "of a test")
    either.withdraw("offset", "7", "wrong")
    with pytest.raises(InUse, match=r"entry \d+ of tag offset_prompt_v1"):
        either.delete(payload_id, "of a test")
    assert either.world.store.has(payload_id) and payload_id[:16] not in either.unused()
    assert either.unused(history=True) == "nothing was ever deleted"


@pytest.mark.parametrize(
    ("key", "document", "said"),
    [
        ("manifest 1", {"kinds": {"offset": [{"payload": "ID"}]}}, "the manifest 1 of run 7"),
        ("verdicts offset 1", {"intervals": [{"payload": "ID"}]}, "the verdicts offset 1 of run 7"),
        ("shadow tight 1", {"judged": [{"payload": "ID"}]}, "the shadow tight 1 of run 7"),
    ],
)
def test_what_a_document_names_is_kept(shelf, key, document, said):
    payload_id = stray(shelf)
    text = json.dumps(document).replace("ID", payload_id)
    row = {"run": 7, "key": key, "content": text, "at": 0.0}
    with shelf.world.database.begin() as connection:
        connection.execute(sa.insert(catalog_metadata.tables["catalog_documents"]), row)
    with pytest.raises(InUse, match=said):
        shelf.delete(payload_id, "of a test")
    assert "nothing is unused" in shelf.unused()


def test_what_the_settings_name_is_kept(shelf):
    payload_id = stray(shelf)
    table = {"gate": "max_move", "array": "mean", "limit": 1.0, "unit": "cm", "of": payload_id}
    named = replace(shelf.world, settings=shelf.world.settings.model_copy(update={"gates": {"offset": (table,)}}))
    with pytest.raises(InUse, match="is kept, a gate of the settings holds to it"):
        ConditionsEditor(named).delete(payload_id, "of a test")
    assert ConditionsEditor(named).unused() == "nothing is unused"


def test_what_a_waiver_names_is_kept(shelf):
    payload_id, world = stray(shelf), shelf.world
    with world.database.begin() as connection:
        add_order(connection, Order(What.WAIVE, 7, "real", "bob", 0.0, kind="offset", terms={"payloads": [payload_id]}))
    with pytest.raises(InUse, match="a waive for run 7 by bob"):
        shelf.delete(payload_id, "of a test")


@pytest.mark.parametrize("serves", [Sync.OFFLINE, Sync.PCL])
def test_what_waits_for_re_reconstruction_is_kept_and_what_was_refused_is_not(shelf, serves):
    payload_id, world = stray(shelf), shelf.world
    with world.database.begin() as connection:
        db = world.conditions(connection)
        db.create_tag("late", "offset", "lumi", serves)
        db.define_global_tag("late", {"offset": "late"})
        db.settle(7, db.snapshot("late"), ANN.now)
        fate = db.append("late", RunLumi(7, 2), payload_id, ANN)
        assert connection.execute(sa.select(fates.c.payload_id)).scalar_one() == payload_id
    if serves is Sync.PCL:
        assert fate.kind == "refused" and "is deleted" in shelf.delete(payload_id, "refused anyway")
    else:
        assert fate.kind == "queued"
        with pytest.raises(InUse, match="what came late for tag late"):
            shelf.delete(payload_id, "of a test")


TABLES = conditions_metadata.tables | ledger_metadata.tables | catalog_metadata.tables


def test_no_text_of_the_database_is_forgotten():
    """Any text that comes to name a payload keeps it, told in words or not: each here names one of its own."""
    bare, named = sa.MetaData(), {}
    for one in TABLES.values():  # without keys: of a row only one text is right
        sa.Table(one.name, bare, *(sa.Column(column.name, sa.Text) for column in one.columns))
    engine = sa.create_engine("sqlite://")
    with engine.begin() as connection:
        bare.create_all(connection)
        for table in TABLES.values():
            texts = [column.name for column in table.columns if isinstance(column.type, sa.String | sa.JSON)]
            for name in texts:
                payload_id = f"{len(named):064x}"
                named[payload_id] = f"{table.name}.{name}"
                row = dict.fromkeys(texts, "x") | {name: f'["{payload_id}"]'}
                connection.execute(sa.insert(bare.tables[table.name]), row)
        assert len(named) > 60
        other = offset(9.5).id
        assert unmentioned(connection, [*named, other]) == {other}
        once = {where.partition(".")[0]: payload_id for payload_id, where in named.items()}
        assert [where for where, payload_id in once.items() if len(mentions(connection, payload_id)) != 1] == []
        assert mentions(connection, other) == []
    engine.dispose()


def test_a_tag_that_was_never_used_is_deleted_and_its_name_is_free(either):
    either.create_tag("offset_tset", "offset", serves="validation")
    assert "offset_tset" in either.unused()
    assert "is deleted" in either.delete("offset_tset", "mistyped")
    assert "offset_tset" not in either.tags()
    assert "mistyped" in either.unused(history=True)
    either.create_tag("offset_tset", "offset", clock="run")
    assert "by run" not in either.unused() and "offset_tset" in either.tags()


def test_a_tag_that_is_used_is_kept(shelf):
    shelf.create_tag("offset_other", "offset", serves="offline")
    enter(shelf, RunLumi(3), offset(2.5), "offset_other")
    with pytest.raises(InUse, match="offset_other is not deleted: it has 1 entries"):
        shelf.delete("offset_other", "of a test")
    with pytest.raises(InUse, match=r"it has 2 entries; global tag prompt_v1 uses it"):
        shelf.delete("offset_prompt_v1", "of a test")
    shelf.create_tag("offset_empty", "offset")
    with shelf.world.database.begin() as connection:
        shelf.world.conditions(connection).define_global_tag("mine", {"offset": "offset_empty"})
    with pytest.raises(InUse, match="offset_empty is not deleted: global tag mine uses it"):
        shelf.delete("offset_empty", "of a test")


def test_who_may_not_delete_is_refused_and_nothing_is_gone(shelf):
    payload_id = stray(shelf)
    shelf.create_tag("offset_tset", "offset")
    with shelf.world.database.begin() as connection:
        take_charge(connection, "ops", Rules(hold=("*",), delete=("data-manager",)), shelf.world.now())
    eve = ConditionsEditor(replace(shelf.world, author="eve"))
    for name in (payload_id, "offset_tset"):
        with pytest.raises(NotAllowed, match="eve may not delete; who may: ops, data-manager"):
            eve.delete(name, "tidying")
    assert shelf.world.store.has(payload_id) and "offset_tset" in shelf.tags()
    assert "is deleted" in ConditionsEditor(replace(shelf.world, author="data-manager")).delete(payload_id, "tidying")


def test_a_deletion_says_why_and_what_it_means(shelf):
    one, other = stray(shelf), stray(shelf, 8.5)
    with pytest.raises(NoReason, match="a delete needs a reason"):
        shelf.delete(one, " ")
    assert shelf.world.store.has(one)
    for name in ("offset_tset", one[:5], ""):
        with pytest.raises(Refused, match="there is no tag"):
            shelf.delete(name, "x")
    twin = shelf.world.store.path(one[:8] + other[8:])
    twin.mkdir(parents=True)
    with pytest.raises(Refused, match="2 payloads begin with"):
        shelf.delete(one[:8], "x")


def test_while_the_service_works_no_payload_is_deleted(shelf):
    payload_id, database = stray(shelf), shelf.world.database
    with database.begin() as connection:
        epoch = take_lease(connection)
    with pytest.raises(Refused, match="the service is at work"):
        shelf.delete(payload_id, "of a test")
    with database.begin() as connection:
        drop_lease(connection, epoch)
    assert "is deleted" in shelf.delete(payload_id, "of a test")


class Killed(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize(("hit", "there"), [(1, True), (2, False)])
def test_killed_on_the_way_it_is_whole_or_gone_and_the_order_is_kept(shelf, hit, there):
    """Before the payload is touched, and when it is out of its place: never half of one in its place."""
    payload_id, reached = stray(shelf), []

    def probe(point: str) -> None:
        reached.append(point)
        if len(reached) == hit:
            raise Killed

    with pytest.raises(Killed):
        ConditionsEditor(replace(shelf.world, probe=probe)).delete(payload_id, "of a test")
    assert reached == ["delete"] * hit
    assert shelf.world.store.has(payload_id) is there
    assert ("(it is there)" in shelf.unused(history=True)) is there
    if there:
        assert shelf.world.store.get(payload_id).id == payload_id
        assert "is deleted" in shelf.delete(payload_id, "of a test")
    else:
        assert len(shelf.world.store.partials(-1, shelf.world.now())) == 1  # the next run sweeps it


@pytest.mark.parametrize("by_id", [True, False])
def test_a_payload_that_is_entered_meanwhile_is_never_lost(either, by_id):
    """Somebody has written it, and waits for the turn; it is deleted; then it is entered, and is there."""
    world, payload = either.world, offset(9.5)
    payload_id = stray(either)
    own = PayloadStore(world.store.root)
    own.get(payload_id)  # as it is held to the gates before
    entered: list[str] = []

    def enter_it() -> None:
        with world.database.begin() as connection:
            db = ConditionsDB(connection, own)
            db.append("offset_prompt_v1", RunLumi(8), payload_id if by_id else payload, ANN)
        entered.append(payload_id)

    with world.database.begin() as connection:
        take_turn(connection)
        writer = threading.Thread(target=enter_it)
        writer.start()
        writer.join(0.3)
        assert not entered  # it waits
        world.store.delete(payload_id)
    writer.join(30)
    assert entered and world.store.read(world.store.path(payload_id)).id == payload_id
    with pytest.raises(InUse):
        either.delete(payload_id, "of a test")


def test_one_that_is_gone_before_it_is_named_is_refused_and_nothing_is_entered(shelf):
    payload_id = stray(shelf)
    shelf.delete(payload_id, "of a test")
    with pytest.raises(PayloadMissing):
        enter(shelf, RunLumi(8), payload_id)
    assert payload_id[:12] not in shelf.history("offset")


def test_deletions_and_appends_at_once_leave_no_entry_without_its_payload(either):
    """One deletes and one enters the same payload, eight times: whoever is first, no entry points nowhere."""
    world, done = either.world, []

    def delete_it(payload_id: str) -> None:
        try:
            done.append(either.delete(payload_id, "race"))
        except (InUse, Refused) as kept:
            done.append(str(kept))

    for number in range(8):
        payload: Payload = offset(float(number), hits=number + 1)
        world.store.put(payload)
        deleter = threading.Thread(target=delete_it, args=(payload.id,))
        deleter.start()
        with world.database.begin() as connection:
            stamp = Stamp("ann", ANN.now, "race")
            ConditionsDB(connection, world.store).append("offset_prompt_v1", RunLumi(10 + number), payload, stamp)
        deleter.join(30)
        assert np.array_equal(world.store.read(world.store.path(payload.id))["hits"], payload["hits"])
    assert len(done) == 8


def test_from_the_command_line(shelf, tmp_path):
    payload_id = stray(shelf)
    plain = settings(tmp_path, storage=shelf.world.settings.storage.model_dump())
    (tmp_path / "tiny.toml").write_text(toml_text(plain))

    def tier0(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(main, ["conditions", *words, "-s", str(tmp_path / "tiny.toml")])
        return done.exit_code, done.output

    assert payload_id[:16] in tier0("unused")[1]
    assert tier0("delete", payload_id)[0] == 2  # no reason
    assert tier0("delete", offset(1.5).id, "--reason", "x")[0] == 1
    code, said = tier0("delete", payload_id[:12], "--reason", "of a test")
    assert code == 0 and f"payload {payload_id[:12]} of kind offset is deleted" in said
    assert "of a test" in tier0("unused", "--history")[1]
