"""What an operator orders, on both databases, without a cluster."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.lease import check_epoch, drop_lease, take_lease
from pipeline.authority import NotAllowed, Rules
from pipeline.holds import Stopped
from pipeline.in_charge import take_charge
from pipeline.ingest import ingest
from pipeline.manifest import Condition, Manifest, Stretch
from pipeline.operations import NoEffect, Operator
from pipeline.orders import NoReason
from pipeline.settings import settings_from
from pipeline.standing import NewOrders
from pipeline.tier0 import Tier0
from pipeline.world import World, open_world, set_up
from tests.pipeline.test_authority import role
from tests.pipeline.tiny import settings, write_file
from tests.pipeline.triggered import bits

STANDS = {"stage": "conditions", "wake_at": None, "seconds": {}, "express": ""}

DATASETS = ("Jets", "Muons")


@pytest.fixture
def world(tmp_path):
    """A Tier-0 that has seen runs 7 and 8; run 7 is stopped by a gate."""
    yield from opened(tmp_path, str(tmp_path / "t.db"))


@pytest.fixture
def either(where, tmp_path):
    """The same, on SQLite and on PostgreSQL."""
    yield from opened(tmp_path, where)


def opened(tmp_path: Path, where: str, **sections) -> Iterator[World]:
    plain = settings(tmp_path / "area", storage={"area": str(tmp_path / "area"), "database": where}, **sections)
    found = set_up(open_world(settings_from(plain)))
    files = [write_file(tmp_path / f"{run}.root", run, lumis=1, trig=bits(5)) for run in (7, 8)]
    ingest(found.database.begin, found.experiment, files, found.now())
    found.books.record(7, "status", STANDS | {"reasons": {"offset": "it moved"}, "offered": {"offset": ["p" * 64]}})
    found.books.record(8, "status", STANDS | {"reasons": {}, "offered": {}})
    yield found
    found.database.close()


def operator(world: World, who: str = "alice") -> Operator:
    return Operator(replace(world, author=who))


def release(world: World, run: int) -> None:
    unit = run << 32 | 1
    manifest = Manifest(run, 1, 1, {"offset": (Stretch(unit, unit, Condition.FRESH, "p", "made"),)})
    with world.books.begin() as connection:
        world.books.add_manifest(connection, manifest)


def put_in_charge(world: World, rules: Rules) -> None:
    with world.database.begin() as connection:
        take_charge(connection, "ops", rules, world.now())


def test_a_hold_is_kept_with_name_reason_and_time_and_its_history_stays(either):
    said = operator(either).hold(7, "magnet")
    assert "held: run 7: held by alice" in said and "the next `tier0 run` obeys" in said
    assert "alice" in either.standing().held(7) and not either.standing().held(8)
    lifted = operator(either, "bob").lift(7, "it was on")
    assert "lifted: run 7, held by alice" in lifted
    assert not either.standing().held(7)
    assert operator(either).holds() == "nothing is held"
    history = operator(either).holds(history=True)
    assert all(word in history for word in ("alice", "magnet", "bob", "it was on"))


def test_the_big_red_button_holds_all_and_one_hold_does_not_hide_another(world):
    operator(world).hold(7, "magnet")
    assert "0 runs are released already" in operator(world, "bob").hold(None, "beam spot wrong")
    assert "all runs" in world.standing().held(8)
    said = operator(world).lift(7)
    assert "still held: all runs: held by bob" in said
    assert "bob" in world.standing().held(7)
    operator(world).lift(None)
    assert not world.standing().held(7)


def test_a_hold_put_twice_is_one(world):
    operator(world).hold(7, "magnet")
    assert "held already" in operator(world).hold(7, "magnet")
    assert len(world.standing()._holds) == 1
    operator(world).hold(7, "and the field map")
    assert len(world.standing()._holds) == 2


def test_a_hold_of_a_dataset_keeps_a_run_that_goes_as_a_whole(world):
    """One put while the settings had datasets, and a run that is one under those of now."""
    parted = operator(replace(world, books=replace(world.books, datasets=DATASETS)))
    parted.hold(7, "jets are odd", "Jets")
    assert "dataset Jets" in world.standing().held(7)
    with pytest.raises(NoEffect, match=r"no hold was put on run 7; what is held: run 7, dataset Jets.*--dataset Jets"):
        operator(world).lift(7)
    operator(world).lift(7, dataset="Jets")
    assert not world.standing().held(7)


@pytest.mark.parametrize("run", [7, None])
def test_a_dataset_that_the_settings_do_not_have_is_not_held(world, run):
    parted = operator(replace(world, books=replace(world.books, datasets=DATASETS)))
    with pytest.raises(LookupError, match="there is no dataset Jetts; did you mean `Jets`"):
        parted.hold(run, "odd", "Jetts")
    with pytest.raises(LookupError, match="there is no dataset Jets: a run is one, and is held without"):
        operator(world).hold(run, "odd", "Jets")
    assert operator(world).holds(history=True) == "nothing was ever held"


def test_a_hold_says_what_it_does_not_do(world):
    assert "run 9 was never seen: the hold waits for it; the runs are 7, 8" in operator(world).hold(9, "soon")
    release(world, 8)
    assert "released already: what was settled stays, and its prompt goes on" in operator(world).hold(8, "late")
    assert "1 runs are released already" in operator(world).hold(None, "all")


def test_what_is_not_held_cannot_be_lifted(world):
    with pytest.raises(NoEffect, match="no hold was put on run 7; what is held: nothing is"):
        operator(world).lift(7)
    operator(world).hold(8, "magnet")
    with pytest.raises(NoEffect, match="no hold was put on all runs; what is held: run 8: held by alice"):
        operator(world).lift(None)


def test_an_order_needs_a_reason(world):
    with pytest.raises(NoReason, match="a hold needs a reason"):
        operator(world).hold(7, "  ")
    with pytest.raises(NoReason, match="a waive needs a reason"):
        operator(world).waive(7, "offset", "")
    with pytest.raises(ValueError, match="for all runs or for none"):
        operator(world).hold(7, "storage", stop_submitting=True)


def test_a_waiver_counts_at_once_or_when_two_have_signed(either):
    said = operator(either).waive(7, "offset", "no beam")
    assert "offset may go on under a waiver by alice" in said and "more name" not in said
    assert either.standing().waivers(7)["offset"].payloads == ()
    two = replace(either, settings=either.settings.model_copy(update={"authority": Rules(waivers_need=2)}))
    assert two.standing().waivers(7) == {}
    put_in_charge(two, Rules(waivers_need=2, waive=("alice", "bob")))
    said = operator(two).waive(7, "offset", "no beam, still")
    assert "needs 1 more name" in said and "rules of the service" not in said
    # `either` has settings by which one name is enough.
    said = operator(either).waive(7, "offset", "no beam, still")
    assert "needs 1 more name" in said and "as it was last started (`waivers_need` = 2)" in said
    assert "a `tier0 run` under these settings goes by theirs (1)" in said
    assert "more name" not in operator(two, "bob").waive(7, "offset", "agreed")
    assert [one.who for one in two.standing().waivers(7)["offset"].signed] == ["alice", "bob"]


def test_publishing_names_the_payload_that_is_there(world):
    operator(world).waive(7, "offset", "the move is real", publish=True)
    assert world.standing().waivers(7)["offset"].payloads == ("p" * 64,)
    with pytest.raises(NoEffect, match="run 8 has no payload of kind offset that waits to be accepted: no rule stops"):
        operator(world).waive(8, "offset", "any", publish=True)
    assert "no rule stops offset of run 8 now" in operator(world).waive(8, "offset", "in case")


def test_whatever_a_rule_stops_with_a_payload_at_hand_can_be_waived(world):
    """The canary of a run is no kind of its conditions."""
    world.books.record(8, "status", STANDS | {"reasons": {"canary": "worse"}, "offered": {"canary": ["p"]}})
    operator(world).waive(8, "canary", "looked at the plot", publish=True)
    assert world.standing().waivers(8)["canary"].payloads == ("p",)


def test_a_waiver_of_a_kind_says_that_it_is_the_canary_that_holds(world):
    world.books.record(8, "status", STANDS | {"reasons": {"canary": "worse"}, "offered": {"canary": ["p"]}})
    ways_on = "it is the canary that holds run 8: `tier0 waive 8 canary --publish --reason ...`"
    assert ways_on in operator(world).waive(8, "offset", "no beam")
    with pytest.raises(NoEffect, match=f"no rule stops it now; {ways_on}"):
        operator(world).waive(8, "offset", "the move is real", publish=True)
    with pytest.raises(NoEffect, match="no canary holds run 7 now"):
        operator(world).waive(7, "canary", "any")
    assert "the canary that holds" not in operator(world).waive(8, "canary", "any")


def test_a_decision_is_confirmed_in_the_transaction_that_settles_unless_something_was_ordered_since(world):
    standing = world.standing()
    with world.database.begin() as connection:
        standing.confirm(connection)
    operator(world).hold(7, "magnet")
    with world.database.begin() as connection, pytest.raises(NewOrders):
        standing.confirm(connection)
    assert standing.held(7)
    with world.database.begin() as connection:
        standing.confirm(connection)


def test_a_waiver_can_be_taken_back_until_it_is_used(world):
    with pytest.raises(NoEffect, match="is not waived"):
        operator(world).withdraw(7, "offset", "no")
    operator(world).waive(7, "offset", "no beam")
    assert "no longer waived (by alice)" in operator(world, "bob").withdraw(7, "offset", "there was")
    assert world.standing().waivers(7) == {}


def test_what_cannot_be_waived_is_said(world):
    with pytest.raises(LookupError, match="run 9 was never seen; the runs are 7, 8"):
        operator(world).waive(9, "offset", "any")
    with pytest.raises(LookupError, match="run 7 needs no kind 'ofset'; it needs offset"):
        operator(world).waive(7, "ofset", "any")
    release(world, 7)
    with pytest.raises(NoEffect, match=r"released already, under manifest [0-9a-f]{12}: nothing is left to waive"):
        operator(world).waive(7, "offset", "any")


def test_who_may_not_is_refused_and_nothing_is_written(either):
    put_in_charge(either, Rules(hold=("shift-*",), waive=("eve",)))
    operator(either, "shift-1").hold(7, "magnet")
    for order, may in (
        (lambda: operator(either, "eve").hold(7, "any"), "eve may not hold; who may: ops, shift-"),
        (lambda: operator(either, "shift-1").lift(7), "shift-1 may not lift holds; who may: ops"),
        (lambda: operator(either, "shift-1").waive(7, "offset", "any"), "may not waive; who may: ops, eve"),
        (lambda: operator(either, "shift-1").withdraw(7, "offset", "any"), "may not waive; who may: ops, eve"),
    ):
        with pytest.raises(NotAllowed, match=may):
            order()
    assert operator(either).holds(history=True).count("magnet") == 1
    assert either.standing().waivers(7) == {}


def test_while_all_is_stopped_no_driver_starts(world, tmp_path):
    operator(world).hold(None, "storage", stop_submitting=True)
    assert "storage" in world.standing().stopped
    plain = world.settings.model_dump(mode="json", exclude={"overrides"})
    with Tier0(plain) as tier0, pytest.raises(Stopped, match=r"all runs, nothing is submitted: held by alice.*lift"):
        tier0.run(tmp_path / "7.root", progress=False)
    operator(world).lift(None)
    assert not world.standing().stopped
    with world.database.begin() as connection:
        assert take_lease(connection) == 1, "and it left no lease"


def test_where_no_driver_lives_a_run_that_is_not_done_says_so(either):
    tier0 = Tier0(either.settings.model_dump(mode="json", exclude={"overrides"}))
    idle = "nothing is at work now, whatever is said to run: the next `tier0 run` goes on"
    assert idle in tier0.status().text() and idle in tier0.why(7)
    with either.database.begin() as connection:
        take_lease(connection)
    assert idle not in tier0.status().text() and idle not in tier0.why(7)
    tier0._world.database.close()


def test_a_hold_waits_for_a_release_that_is_being_committed_and_then_knows_of_it(either):
    """Or it would say that it holds what has just gone."""
    with either.database.begin() as connection:
        epoch = take_lease(connection)
    said = []
    hold = threading.Thread(target=lambda: said.append(operator(either).hold(8, "wait")))
    with either.database.begin() as connection:
        check_epoch(connection, epoch)
        hold.start()
        hold.join(0.5)
        assert hold.is_alive()
        unit = 8 << 32 | 1
        manifest = Manifest(8, 1, 1, {"offset": (Stretch(unit, unit, Condition.FRESH, "p", "made"),)})
        either.books.add_manifest(connection, manifest)
    hold.join(30)
    assert "released already" in said[0] and "obeyed by the service: pid" in said[0]
    with either.database.begin() as connection:
        drop_lease(connection, epoch)
    assert "no service is running" in operator(either).hold(8, "again")


def test_on_postgresql_two_users_of_the_server_are_two_people(new_postgres, tmp_path):
    plain = settings(tmp_path / "area", authority={"waivers_need": 2})
    plain["storage"]["database"] = new_postgres
    world = set_up(open_world(settings_from(plain)))
    ingest(world.database.begin, world.experiment, [write_file(tmp_path / "7.root", 7, lumis=1)], world.now())
    for who, more in (("alice", True), ("alice", True), ("bob", False)):
        plain["storage"]["database"] = role(new_postgres, who)
        with Tier0(plain) as tier0:
            assert ("needs 1 more name" in tier0.operator.waive(7, "offset", "no beam")) is more
            tier0._world.database.close()
    assert [one.who for one in world.standing().waivers(7)["offset"].signed] == ["alice", "bob"]
    world.database.close()
