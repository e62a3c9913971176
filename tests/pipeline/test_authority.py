"""Who acts, and who may do what."""

from __future__ import annotations

import os
import pwd
from dataclasses import replace

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from calib.payload import Payload
from calib.tags import Sync
from jobs.lease import take_lease
from pipeline.authority import Act, NotAllowed, Rules, demand, may, who_may
from pipeline.database import open_database
from pipeline.in_charge import acting, rules_in_force, rules_text, system_user, take_charge
from pipeline.rehearsal import rehearsal
from pipeline.sections import ShadowSection
from pipeline.settings import SettingsError, settings_from
from pipeline.shadow_view import Shadows
from pipeline.tier0 import Tier0
from pipeline.world import World, open_world, set_up
from tests.pipeline.tiny import settings

TAG = ("offset_prompt_v1", "prompt")
NAMES = st.lists(st.sampled_from(["ops", "eve", "bob", "shift-*", "*"]), max_size=3).map(tuple)
RULES = st.builds(
    Rules,
    service=NAMES,
    write=st.dictionaries(st.sampled_from(["prompt", "express", "offset_*", "*_v1"]), NAMES, max_size=3),
    hold=st.none() | NAMES,
    release=st.none() | NAMES,
    waive=st.none() | NAMES,
    delete=st.none() | NAMES,
)


def test_with_nothing_set_everybody_may_do_everything():
    assert all(may("anybody", act, TAG, Rules(waivers_need=2)) for act in Act)
    assert who_may(Act.HOLD, (), Rules()) is None


def test_with_anything_set_the_rest_is_for_those_who_run_the_service():
    rules = Rules(("ops",), hold=("shift-*",))
    assert [may(who, Act.HOLD, (), rules) for who in ("ops", "shift-3", "eve")] == [True, True, False]
    assert [may(who, Act.RELEASE, (), rules) for who in ("ops", "shift-3")] == [True, False]
    assert [may(who, Act.WRITE, TAG, rules) for who in ("ops", "eve")] == [True, False]


def test_a_rule_by_the_name_of_a_tag_goes_before_one_by_what_it_serves():
    rules = Rules(("ops",), {"prompt": ("eve",), "offset_*": ("bob",)})
    assert [may(who, Act.WRITE, TAG, rules) for who in ("ops", "bob", "eve")] == [True, True, False]
    assert may("eve", Act.WRITE, ("gain_prompt_v1", "prompt"), rules)
    assert not may("eve", Act.WRITE, ("gain_express_v1", "express"), rules)
    # A tag that is called as what others serve is no way round.
    assert not may("eve", Act.WRITE, ("gain_v1", "express"), rules)


def test_a_refusal_names_who_may():
    rules = Rules(("ops",), {"prompt": ("eve",)}, hold=())
    with pytest.raises(NotAllowed, match=r"bob may not write tag offset_prompt_v1; who may: ops, eve"):
        demand("bob", Act.WRITE, TAG, rules)
    with pytest.raises(NotAllowed, match="bob may not lift holds; who may: ops"):
        demand("bob", Act.RELEASE, (), rules)
    with pytest.raises(NotAllowed, match="only whoever runs the service"):
        demand("bob", Act.HOLD, (), Rules(hold=()))


@given(RULES, st.sampled_from(list(Act)), st.sampled_from(["ops", "eve", "shift-1"]))
def test_what_is_said_and_what_is_done_agree(rules, act, who):
    """Who is named may; who runs the service may all; the rules of one act open no other."""
    names = who_may(act, TAG, rules)
    assert (names is None) == (not rules.restrict)
    if names is not None:
        assert all(may(name, act, TAG, rules) for name in names)
        assert set(rules.service) <= set(names)
    if act is not Act.HOLD and rules.restrict and rules.hold is not None:
        others = replace(rules, hold=(*rules.hold, who))
        assert may(who, act, TAG, others) == may(who, act, TAG, rules)


def test_the_name_is_that_of_the_process_and_no_variable_changes_it(monkeypatch, tmp_path):
    for name in ("USER", "LOGNAME", "LNAME", "USERNAME", "SUDO_USER", "PGUSER"):
        monkeypatch.setenv(name, "mallory")
    assert system_user() == pwd.getpwuid(os.getuid()).pw_name != "mallory"
    database = open_database(tmp_path / "t.db")
    assert acting(database) == system_user()
    database.close()


def role(url: str, name: str) -> str:
    """The URL under which a new user of the server comes to a database with all rights in it."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        if not connection.scalar(sa.text("SELECT count(*) FROM pg_roles WHERE rolname = :name"), {"name": name}):
            connection.exec_driver_sql(f"CREATE ROLE {name} LOGIN")
        connection.exec_driver_sql(f"GRANT ALL ON SCHEMA public TO {name}")
        connection.exec_driver_sql(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {name}")
        connection.exec_driver_sql(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {name}")
    engine.dispose()
    return sa.make_url(url).set(username=name).render_as_string(hide_password=False)


def test_on_postgresql_the_name_is_that_of_the_session(new_postgres):
    database = open_database(role(new_postgres, "alice"))
    assert acting(database) == "alice"
    with database.begin() as connection:
        connection.exec_driver_sql("SET application_name = 'mallory'")
    assert acting(database) == "alice"
    database.close()


@pytest.fixture
def world(tmp_path):
    """A Tier-0 that nobody has run yet."""
    yield from opened(tmp_path, str(tmp_path / "t.db"))


@pytest.fixture
def either(where, tmp_path):
    """The same, on SQLite and on PostgreSQL."""
    yield from opened(tmp_path, where)


def opened(tmp_path, where):
    plain = settings(tmp_path / "area", storage={"area": str(tmp_path / "area"), "database": where})
    found = set_up(open_world(settings_from(plain)))
    yield found
    found.database.close()


def started(world: World, who: str, rules: Rules) -> None:
    with world.database.begin() as connection:
        take_charge(connection, who, rules, world.now())


def in_force(world: World, own: Rules, who: str) -> Rules:
    with world.database.read() as connection:
        return rules_in_force(connection, own, who)


def test_rules_are_those_of_the_last_driver_whatever_the_own_settings_say(either):
    strict = Rules(hold=("eve",), write={"prompt": ("eve",)}, waivers_need=2)
    assert in_force(either, strict, "bob").service == ("bob",)
    started(either, "ops", strict)
    assert in_force(either, Rules(), "bob") == replace(strict, service=("ops",))
    # Settings without rules do not open the house to who may not run it.
    with pytest.raises(NotAllowed, match="bob may not run the service; who may: ops"):
        started(either, "bob", Rules())
    assert in_force(either, Rules(), "bob").restrict
    started(either, "ops", Rules())
    assert not in_force(either, strict, "bob").restrict


def test_how_many_names_a_waiver_needs_is_what_the_driver_says_though_nothing_is_kept_to_anybody(world):
    started(world, "ops", Rules(waivers_need=2))
    assert in_force(world, Rules(), "bob") == Rules(waivers_need=2)
    started(world, "bob", Rules())
    assert in_force(world, Rules(waivers_need=3), "bob") == Rules()


def test_who_runs_the_service_may_hand_it_on_but_not_lock_himself_out(world):
    with pytest.raises(NotAllowed, match="ops may not run the service; who may: bob"):
        started(world, "ops", Rules(service=("bob",)))
    started(world, "ops", Rules(service=("ops", "bob")))
    started(world, "bob", Rules(service=("bob",)))
    with pytest.raises(NotAllowed, match="who may: bob"):
        started(world, "ops", Rules(service=("ops",)))


def test_the_conditions_are_guarded_tag_by_tag(either):
    started(either, "ops", Rules(write={"express": ("eve",)}))
    payload = Payload("offset", {"mean": np.float64(1.0), "hits": np.int64(1)}, {"mean": "cm"})
    eve = replace(either, author="eve")
    with eve.database.begin() as connection:
        db = eve.conditions(connection)
        db.append("offset_express_v1", db.first_safe("offset_express_v1"), payload, eve.stamp())
        for forbidden in (
            lambda: db.append("offset_prompt_v1", db.first_safe("offset_prompt_v1"), payload, eve.stamp()),
            lambda: db.withdraw("offset_prompt_v1", db.history("offset_prompt_v1")[0].since, eve.stamp("gone")),
            lambda: db.fill("offset_prompt_v1", (), eve.stamp()),
            lambda: db.create_tag("mine", "offset", db.tag("offset_prompt_v1").clock, Sync.PROMPT),
            lambda: db.define_global_tag("ours", {"offset": "offset_prompt_v1"}),
        ):
            with pytest.raises(NotAllowed, match="who may: ops"):
                forbidden()
        with pytest.raises(NotAllowed, match="eve may not write tag mine; who may: ops"):
            db.create_tag("mine", "offset", db.tag("offset_prompt_v1").clock, Sync.OFFLINE)
    with rehearsal(eve) as copied, copied.database.begin() as connection:
        db = copied.conditions(connection)
        db.append("offset_prompt_v1", db.first_safe("offset_prompt_v1"), payload, eve.stamp())


def test_who_may_not_write_a_tag_promotes_nothing_into_it(world):
    started(world, "ops", Rules(write={"prompt": ("eve",)}))
    shadow = {"wide": ShadowSection(kind="offset", calibration={"min_hits": 5})}
    trying = replace(world, settings=world.settings.model_copy(update={"shadow": shadow}))
    with pytest.raises(NotAllowed, match="bob may not write tag offset_prompt_v1; who may: ops, eve"):
        Shadows(replace(trying, author="bob")).promote("wide", "looks better")
    assert Shadows(replace(trying, author="eve")).promote("wide", "looks better").author == "eve"


def test_the_driver_that_may_not_is_refused_and_leaves_no_lease(world, tmp_path):
    started(world, "ops", Rules(service=("ops",)))
    world.database.close()
    plain = world.settings.model_dump(mode="json", exclude={"overrides"})
    (tmp_path / "7.root").write_bytes(b"")
    with Tier0(plain) as tier0, pytest.raises(NotAllowed, match="may not run the service; who may: ops"):
        tier0.run(tmp_path / "7.root", progress=False)
    with world.database.begin() as connection:
        assert take_lease(connection) == 1


def test_the_check_says_who_may_what_and_which_rule_is_for_no_tag(world):
    def text(rules, who="bob"):
        with world.database.read() as connection:
            return rules_text(connection, rules, who)

    assert "everybody who can open the database may do everything" in text(Rules())
    said = text(Rules(("ops",), {"promt": ("eve",), "offset_*": ("eve",), "prompt": ("bob",)}, hold=("*",)))
    assert "you act as bob" in said
    assert (
        "may write prompt: ops, bob" in said and "may write any other tag: ops" in said and "may hold: ops, *" in said
    )
    assert [line for line in said.splitlines() if "no tag is named" in line] == [
        "`authority.write`: no tag is named 'promt' yet, and no tag serves that"
    ]
    started(world, "ops", Rules(hold=("eve",)))
    assert "in force, as the service was last started" in text(Rules())


def test_settings_of_authority_are_checked():
    plain = {"experiment": {"name": "toy_collider"}, "authority": {"hold": ["eve"], "waivers_need": 2}}
    found = settings_from(plain)
    assert found.authority == Rules(hold=("eve",), waivers_need=2)
    assert settings_from(found.model_dump(mode="json", exclude={"overrides"})).authority == found.authority
    for wrong, said in (
        ({"holds": ["eve"]}, "did you mean `hold`"),
        ({"hold": "eve"}, "authority.hold"),
        ({"waivers_need": 0}, "authority.waivers_need"),
    ):
        with pytest.raises(SettingsError, match=said):
            settings_from({"experiment": {"name": "toy_collider"}, "authority": wrong})
