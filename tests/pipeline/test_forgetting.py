"""Files that were set aside and never taken in are forgotten on order; what was taken in is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.authority import NotAllowed, Rules
from pipeline.in_charge import take_charge
from pipeline.ingest import ingest
from pipeline.operations import NoEffect, Operator
from pipeline.orders import NoReason, list_orders
from pipeline.settings import settings_from
from pipeline.summary import summarize
from pipeline.world import open_world, set_up
from tests.pipeline.tiny import settings, write_file


@pytest.fixture
def world(tmp_path):
    """A Tier-0 that was given run 7 and three names under which nothing can be read."""
    yield from opened(tmp_path, str(tmp_path / "t.db"))


@pytest.fixture
def either(where, tmp_path):
    """The same, on SQLite and on PostgreSQL."""
    yield from opened(tmp_path, where)


def opened(tmp_path, where):
    storage = {"area": str(tmp_path / "area"), "database": where}
    found = set_up(open_world(settings_from(settings(tmp_path, storage=storage))))
    take_in(found, write_file(tmp_path / "a.root", 7, lumis=1), *(tmp_path / f"{name}.rot" for name in "bcd"))
    yield found
    found.database.close()


def take_in(world, *files):
    ingest(world.database.begin, world.experiment, files, world.now())


def aside(world):
    return [setback.place for setback in summarize(world).setbacks]


def test_a_mistyped_name_is_forgotten_with_name_reason_and_time(either, tmp_path):
    assert len(aside(either)) == 3
    said = Operator(replace(either, author="bob")).forget([str(tmp_path / "b.rot")], "mistyped")
    assert said == f"forgotten: {tmp_path / 'b.rot'}"
    assert aside(either) == [str(tmp_path / "c.rot"), str(tmp_path / "d.rot")]
    with either.database.read() as connection:
        [order] = list_orders(connection)
    assert (order.what, order.who, order.reason) == ("forget", "bob", "mistyped")
    assert order.terms == {"file": str(tmp_path / "b.rot")}
    # Given again, it is looked at again.
    take_in(either, tmp_path / "b.rot")
    assert str(tmp_path / "b.rot") in aside(either)


def test_a_pattern_forgets_all_that_it_names(world, tmp_path):
    said = Operator(world).forget([str(tmp_path / "*.rot"), "nowhere.root"], "that disk is gone")
    assert said.count("forgotten: ") == 3 and said.endswith("nothing is set aside under nowhere.root")
    assert aside(world) == []


def test_a_file_of_which_events_were_taken_in_is_not_forgotten(world, tmp_path):
    broken = tmp_path / "a.root"
    broken.write_bytes(b"no longer what it was")
    take_in(world, broken)
    with pytest.raises(NoEffect, match="events of it were taken in, and are accounted for"):
        Operator(world).forget([str(broken)], "it is in the way")
    assert str(broken) in aside(world)
    assert "accounted for" in Operator(world).forget([str(tmp_path / "*")], "all")
    assert aside(world) == [str(broken)]


def test_what_cannot_be_forgotten_is_said(world, tmp_path):
    with pytest.raises(NoEffect, match=r"nothing is set aside under e\.rot"):
        Operator(world).forget(["e.rot"], "mistyped")
    with pytest.raises(NoReason):
        Operator(world).forget([str(tmp_path / "b.rot")], " ")
    with world.database.begin() as connection:
        take_charge(connection, "ops", Rules(delete=("dave",)), world.now())
    with pytest.raises(NotAllowed, match="eve may not delete; who may: ops, dave"):
        Operator(replace(world, author="eve")).forget([str(tmp_path / "b.rot")], "mistyped")
    assert len(aside(world)) == 3
    assert "forgotten" in Operator(replace(world, author="dave")).forget([str(tmp_path / "b.rot")], "mistyped")
