"""The conditions database in closed form, on SQLite and PostgreSQL."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from sqlalchemy import create_engine

from calib.conditions import ConditionsDB
from calib.iov import IOV, Clock, RunLumi
from calib.late import FateKind
from calib.payload import Payload, PayloadMissing, PayloadStore
from calib.schema import conditions_metadata, last_sequence
from calib.tags import Snapshot, SnapshotOutdated, Stamp, Sync, Tag, TagExists, UnknownTag, WrongKind

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
ANN = Stamp("ann", NOON, "test")
SHIFTING = [Sync.PROMPT, Sync.EXPRESS, Sync.HLT]


def payload(value: float, kind: str = "beamspot") -> Payload:
    return Payload(kind, {"x": np.array([value])}, {"x": "cm"})


def tag(db: ConditionsDB, sync: Sync = Sync.PROMPT, clock: Clock = Clock.LUMI, kind: str = "beamspot") -> str:
    """A tag alone in a global tag of the same name."""
    name = f"{kind}_{sync}_{clock}"
    db.create_tag(name, kind, clock, sync)
    db.define_global_tag(name, {kind: name})
    return name


def begin(db: ConditionsDB, name: str, **values: int) -> None:
    """Append payload `value` at run `rN`: begin(db, t, r10=1, r20=2)."""
    for run, value in values.items():
        assert db.append(name, RunLumi(int(run[1:])), payload(value), ANN).kind is FateKind.ACCEPTED


def settle(db: ConditionsDB, name: str, *runs: int) -> None:
    for run in runs:
        db.settle(run, db.snapshot(name), NOON)


def value_at(db: ConditionsDB, snapshot: Snapshot | str, at: RunLumi, kind: str = "beamspot") -> float | None:
    snapshot = db.snapshot(snapshot) if isinstance(snapshot, str) else snapshot
    found = db.resolve(snapshot, at, [kind])
    return float(found[kind]["x"][0]) if kind in found else None


def by_run(db: ConditionsDB, snapshot: Snapshot | str, *runs: int) -> list[float | None]:
    return [value_at(db, snapshot, RunLumi(run, 1)) for run in runs]


# --- tags and global tags


def test_tag_is_made_once_and_stays_what_it_is(db: ConditionsDB) -> None:
    made = db.create_tag("bs", "beamspot", Clock.LUMI, Sync.PCL)
    assert made == Tag("bs", "beamspot", Clock.LUMI, Sync.PCL, made.number)
    assert db.create_tag("bs", "beamspot", Clock.LUMI, Sync.PCL) == made
    with pytest.raises(TagExists, match="of kind beamspot, by lumi, for pcl; take another name"):
        db.create_tag("bs", "beamspot", Clock.RUN, Sync.PCL)
    assert db.tags() == [made]


@pytest.mark.parametrize("name", ["", " bs", "bs@1"])
def test_name_that_cannot_be_read_back_is_refused(db: ConditionsDB, name: str) -> None:
    with pytest.raises(ValueError, match="is no name for a tag"):
        db.create_tag(name, "beamspot", Clock.LUMI, Sync.PCL)


def test_unknown_names_come_with_a_suggestion(db: ConditionsDB) -> None:
    name = tag(db)
    with pytest.raises(UnknownTag, match=r"no tag 'beamspot_promt_lumi'; did you mean 'beamspot_prompt_lumi'\?"):
        db.history("beamspot_promt_lumi")
    with pytest.raises(UnknownTag, match=r"no global tag 'zzz'$"):
        db.snapshot("zzz")
    with pytest.raises(UnknownTag, match="no global tag 'zzz'"):
        db.resolve(Snapshot("zzz", 0), RunLumi(1), ["beamspot"])
    with pytest.raises(UnknownTag, match="no tag 'nothing'"):
        db.define_global_tag("g", {"beamspot": "nothing"})
    assert db.global_tags() == [name]


def test_global_tag_never_changes(db: ConditionsDB) -> None:
    db.create_tag("a", "beamspot", Clock.RUN, Sync.PROMPT)
    db.create_tag("b", "beamspot", Clock.RUN, Sync.PROMPT)
    db.define_global_tag("prompt", {"beamspot": "a"})
    db.define_global_tag("prompt", {"beamspot": "a"})
    with pytest.raises(TagExists, match="never changes"):
        db.define_global_tag("prompt", {"beamspot": "b"})
    with pytest.raises(WrongKind, match="tag a holds 'beamspot', not 'pedestal'"):
        db.define_global_tag("other", {"pedestal": "a"})
    assert {kind: tag.name for kind, tag in db.global_tag("prompt").items()} == {"beamspot": "a"}


def test_empty_global_tag_answers_nothing(db: ConditionsDB) -> None:
    db.define_global_tag("none", {})
    assert dict(db.resolve(db.snapshot("none"), RunLumi(1))) == {}
    assert db.settle(1, db.snapshot("none"), NOON) == []


def test_payload_of_another_kind_is_refused(db: ConditionsDB) -> None:
    name = tag(db)
    with pytest.raises(WrongKind, match="holds 'beamspot'; this payload is of kind 'pedestal'"):
        db.append(name, RunLumi(1), payload(1, "pedestal"), ANN)
    with pytest.raises(PayloadMissing):
        db.append(name, RunLumi(1), "0" * 64, ANN)
    assert db.history(name) == []


def test_payload_goes_in_by_id_too(db: ConditionsDB) -> None:
    name = tag(db)
    fate = db.append(name, RunLumi(1), db.store.put(payload(5)), ANN)
    assert (fate.payload_id, value_at(db, name, RunLumi(1))) == (payload(5).id, 5)


# --- clocks


def test_run_clock_begins_with_the_first_unit(db: ConditionsDB) -> None:
    name = tag(db, clock=Clock.RUN)
    fate = db.append(name, RunLumi(10, 7), payload(1), ANN)
    assert (fate.kind, fate.given) == (FateKind.ACCEPTED, RunLumi(10))
    assert [value_at(db, name, RunLumi(*at)) for at in [(9, 99), (10, 0), (10, 1)]] == [None, 1, 1]


def test_lumi_clock_begins_with_its_unit(db: ConditionsDB) -> None:
    name = tag(db)
    db.append(name, RunLumi(10, 7), payload(1), ANN)
    assert [value_at(db, name, RunLumi(*at)) for at in [(10, 6), (10, 7), (11, 1)]] == [None, 1, 1]


def test_time_clock_needs_the_time(db: ConditionsDB) -> None:
    name = tag(db, clock=Clock.TIME)
    db.append(name, 1_000, payload(1), ANN)
    snapshot = db.snapshot(name)
    assert "beamspot" not in db.resolve(snapshot, RunLumi(1), time=999)
    assert db.resolve(snapshot, RunLumi(1), time=1_000)["beamspot"]["x"] == 1
    with pytest.raises(ValueError, match=f"tag {name} of kind 'beamspot' goes by time; give the time"):
        db.resolve(snapshot, RunLumi(1))
    with pytest.raises(ValueError, match="begins at nanoseconds"):
        db.append(name, RunLumi(1), payload(1), ANN)
    with pytest.raises(ValueError, match="out of range"):
        db.append(name, -1, payload(1), ANN)
    with pytest.raises(ValueError, match="goes by time; use since and until"):
        _ = db.intervals(name)[0].iov


def test_time_clock_is_settled_over_the_times_of_the_run(db: ConditionsDB) -> None:
    name = tag(db, clock=Clock.TIME)
    db.append(name, 0, payload(1), ANN)
    snapshot = db.snapshot(name)
    with pytest.raises(ValueError, match="goes by time; give `times`"):
        db.settle(7, snapshot, NOON)
    with pytest.raises(ValueError, match="run 7 must end after it begins"):
        db.settle(7, snapshot, NOON, times=(200, 200))
    assert db.first_safe(name) == 0
    assert db.settle(7, snapshot, NOON, times=(100, 200)) == [name]
    assert db.first_safe(name) == 200
    fate = db.append(name, 150, payload(2), ANN)
    assert (fate.kind, fate.given, fate.runs) == (FateKind.SHIFTED, 200, (7,))
    with pytest.raises(ValueError, match="settled with other times, 100 to 200"):
        db.settle(7, db.snapshot(name), NOON, times=(100, 201))


@pytest.mark.parametrize("clock", [Clock.RUN, Clock.LUMI])
def test_unit_clock_takes_no_time(db: ConditionsDB, clock: Clock) -> None:
    with pytest.raises(ValueError, match="begins at a run or unit"):
        db.append(tag(db, clock=clock), 5, payload(1), ANN)
    with pytest.raises(ValueError, match="out of range"):
        db.append(tag(db, clock=clock), RunLumi(1 << 31), payload(1), ANN)


# --- where payloads hold: the faults of other databases, one by one


def test_append_behind_between_and_before_all_others(db: ConditionsDB) -> None:
    name = tag(db)
    begin(db, name, r20=1, r30=2, r10=3, r25=4)
    assert by_run(db, name, 9, 10, 19, 20, 24, 25, 29, 30, 999) == [None, 3, 3, 1, 1, 4, 4, 2, 2]
    assert [(v.iov, v.payload_id) for v in db.intervals(name)] == [
        (IOV(RunLumi(10), RunLumi(20)), payload(3).id),
        (IOV(RunLumi(20), RunLumi(25)), payload(1).id),
        (IOV(RunLumi(25), RunLumi(30)), payload(4).id),
        (IOV(RunLumi(30)), payload(2).id),
    ]


def test_lumisections_of_one_run_are_ordered(db: ConditionsDB) -> None:
    name = tag(db)
    for lumi, value in [(1, 1), (50, 2), (20, 3)]:
        db.append(name, RunLumi(10, lumi), payload(value), ANN)
    assert [value_at(db, name, RunLumi(10, lumi)) for lumi in (1, 19, 20, 49, 50)] == [1, 1, 3, 3, 2]


def test_newer_entry_of_the_same_moment_rules(db: ConditionsDB) -> None:
    name = tag(db)
    begin(db, name, r10=1, r20=2)
    begin(db, name, r10=3)
    assert by_run(db, name, 10, 20) == [3, 2]
    assert len(db.intervals(name)) == 2


def test_yesterdays_answer_can_be_asked_again(db: ConditionsDB) -> None:
    name = tag(db)
    begin(db, name, r10=1)
    before = db.snapshot(name)
    begin(db, name, r5=2, r10=3, r20=4)
    db.withdraw(name, RunLumi(10), ANN)
    db.withdraw(name, RunLumi(10), ANN)
    assert by_run(db, before, 5, 10, 20) == [None, 1, 1]
    assert by_run(db, db.snapshot(name, before.sequence), 5, 10, 20) == [None, 1, 1]
    assert by_run(db, name, 5, 10, 20) == [2, 2, 4]
    assert [v.payload_id for v in db.intervals(name, before.sequence)] == [payload(1).id]


def test_snapshot_at_a_time(db: ConditionsDB) -> None:
    name = tag(db)
    for minute in (0, 1, 2):
        db.append(name, RunLumi(10), payload(minute), Stamp("ann", NOON + timedelta(minutes=minute)))
    moments = [timedelta(seconds=s) for s in (-1, 0, 59, 60, 999)]
    assert [value_at(db, db.snapshot(name, NOON + m), RunLumi(10)) for m in moments] == [None, 0, 0, 1, 2]
    with pytest.raises(ValueError, match="no time zone"):
        db.snapshot(name, datetime(2026, 1, 1))


def test_snapshot_of_what_is_to_come_is_refused(db: ConditionsDB) -> None:
    name = tag(db)
    newest = db.snapshot(name).sequence
    with pytest.raises(ValueError, match=f"the newest is {newest}"):
        db.snapshot(name, newest + 1)
    with pytest.raises(ValueError, match="of another database"):
        db.settle(1, Snapshot(name, newest + 1), NOON)


def test_history_in_the_order_made(db: ConditionsDB) -> None:
    name = tag(db)
    db.append(name, RunLumi(20), payload(1), ANN, {"run": 20, "lineage": "ab"})
    db.append(name, RunLumi(10), payload(2), Stamp("bob", NOON, "earlier"))
    half = db.snapshot(name).sequence
    db.withdraw(name, RunLumi(20), Stamp("eve", NOON, "wrong sign"))
    first, second, third = db.history(name)
    assert (first.author, first.reason, first.info, first.recorded) == (
        "ann",
        "test",
        {"run": 20, "lineage": "ab"},
        NOON,
    )
    assert (second.author, second.since, second.payload_id) == ("bob", RunLumi(10), payload(2).id)
    assert (third.author, third.reason, third.payload_id, third.withdraws) == (
        "eve",
        "wrong sign",
        None,
        first.sequence,
    )
    assert db.history(name, half) == [first, second]


# --- settling


def test_settled_run_is_fixed_and_first_safe_follows(db: ConditionsDB) -> None:
    name = tag(db)
    assert db.first_safe(name) == RunLumi(0)
    begin(db, name, r10=1)
    settle(db, name, 12, 11)
    assert (db.first_safe(name), db.settled_runs(name)) == (RunLumi(13), [11, 12])
    assert db.settle(12, db.snapshot(name), NOON) == []


def test_settling_an_outdated_snapshot_is_refused_whole(db: ConditionsDB) -> None:
    name, other = tag(db), tag(db, kind="pedestal")
    db.define_global_tag("both", {"beamspot": name, "pedestal": other})
    begin(db, name, r10=1)
    old = db.snapshot("both")
    db.append(name, RunLumi(12, 3), payload(2), ANN)
    with pytest.raises(SnapshotOutdated, match=f"tag {name} has a newer answer for run 12 than both@{old.sequence}"):
        db.settle(12, old, NOON)
    assert db.settled_runs(other) == []
    assert sorted(db.settle(11, old, NOON)) == sorted([name, other])


def test_kinds_are_settled_by_themselves(db: ConditionsDB) -> None:
    """What one dataset has used is fixed; what another still waits for is open, and settled later as it is then."""
    name, other = tag(db), tag(db, kind="pedestal")
    db.define_global_tag("both", {"beamspot": name, "pedestal": other})
    begin(db, name, r10=1)
    assert db.settle(12, db.snapshot("both"), NOON, kinds=["beamspot"]) == [name]
    assert (db.settled_runs(name), db.settled_runs(other)) == ([12], [])
    late = db.append(other, RunLumi(12), payload(3, "pedestal"), ANN)
    assert (late.kind, late.runs) == (FateKind.ACCEPTED, ())
    assert db.append(name, RunLumi(12), payload(2), ANN).kind is FateKind.SHIFTED
    assert db.settle(12, db.snapshot("both"), NOON) == [other]
    assert value_at(db, "both", RunLumi(12, 1), "pedestal") == 3
    assert value_at(db, "both", RunLumi(12, 1)) == 1
    with pytest.raises(ValueError, match="global tag 'both' has no kind gain"):
        db.settle(13, db.snapshot("both"), NOON, kinds=["gain"])


def test_an_outdated_answer_of_another_kind_is_no_hindrance(db: ConditionsDB) -> None:
    name, other = tag(db), tag(db, kind="pedestal")
    db.define_global_tag("both", {"beamspot": name, "pedestal": other})
    old = db.snapshot("both")
    db.append(name, RunLumi(12, 3), payload(2), ANN)
    assert db.settle(12, old, NOON, kinds=["pedestal"]) == [other]
    with pytest.raises(SnapshotOutdated):
        db.settle(12, old, NOON, kinds=["beamspot"])


def test_entry_that_changes_no_answer_does_not_outdate_a_snapshot(db: ConditionsDB) -> None:
    name = tag(db)
    begin(db, name, r10=1)
    old = db.snapshot(name)
    begin(db, name, r12=1)
    assert db.settle(12, old, NOON) == [name]


@pytest.mark.parametrize("sync", SHIFTING)
def test_late_payload_shifts_to_the_first_safe_moment(db: ConditionsDB, sync: Sync) -> None:
    name = tag(db, sync)
    begin(db, name, r10=1)
    settle(db, name, 10, 11, 14)
    fate = db.append(name, RunLumi(11, 5), payload(2), ANN)
    assert (fate.kind, fate.asked, fate.given, fate.runs) == (FateKind.SHIFTED, RunLumi(11, 5), RunLumi(15), (11, 14))
    assert by_run(db, name, 11, 12, 14, 15) == [1, 1, 1, 2]
    assert db.fates(name) == [fate]
    assert "11:5 lies in a settled run; begins at 15:0" in fate.explanation


def test_late_payload_does_not_take_the_place_of_a_newer_one(db: ConditionsDB) -> None:
    name = tag(db)
    begin(db, name, r10=1)
    settle(db, name, 10, 11)
    begin(db, name, r12=2)
    fate = db.append(name, RunLumi(10), payload(3), ANN)
    assert (fate.kind, fate.given, fate.sequence) == (FateKind.REFUSED, None, None)
    assert "the newer one of 12:0 holds" in fate.explanation
    assert by_run(db, name, 10, 12) == [1, 2]


def test_of_two_late_payloads_the_newer_wins_whatever_the_order(db: ConditionsDB) -> None:
    name = tag(db)
    begin(db, name, r10=1)
    settle(db, name, 10, 11)
    assert db.append(name, RunLumi(11), payload(3), ANN).kind is FateKind.SHIFTED
    assert db.append(name, RunLumi(10), payload(2), ANN).kind is FateKind.REFUSED
    assert db.append(name, RunLumi(11), payload(4), ANN).kind is FateKind.SHIFTED
    assert by_run(db, name, 12) == [4]


@pytest.mark.parametrize(
    ("sync", "kind", "word"),
    [
        (Sync.PCL, FateKind.REFUSED, "a pcl tag takes no late payload"),
        (Sync.VALIDATION, FateKind.REFUSED, "copy the validation tag"),
        (Sync.OFFLINE, FateKind.QUEUED, "queued for re-reconstruction of run 11$"),
    ],
)
def test_late_payload_that_changes_nothing(db: ConditionsDB, sync: Sync, kind: FateKind, word: str) -> None:
    name = tag(db, sync)
    begin(db, name, r10=1)
    settle(db, name, 11)
    fate = db.append(name, RunLumi(11), payload(2), ANN)
    assert (fate.kind, fate.given, fate.runs) == (kind, None, (11,))
    assert re.search(word, fate.explanation)
    assert by_run(db, name, 11, 12) == [1, 1]
    assert db.fates(name) == [fate]
    assert len(db.history(name)) == 1


def test_offline_goes_in_where_no_settled_run_uses_the_tag(db: ConditionsDB) -> None:
    name, offline = tag(db), tag(db, Sync.OFFLINE)
    begin(db, name, r10=1)
    begin(db, offline, r10=1)
    settle(db, name, 11)
    assert db.append(offline, RunLumi(11), payload(2), ANN).kind is FateKind.ACCEPTED


@pytest.mark.parametrize("sync", Sync)
def test_old_payload_goes_on_at_the_next_settled_run(db: ConditionsDB, sync: Sync) -> None:
    name = tag(db, sync)
    begin(db, name, r10=1)
    settle(db, name, 14, 16)
    fate = db.append(name, RunLumi(12, 2), payload(2), ANN)
    assert (fate.kind, fate.given, fate.until) == (FateKind.ACCEPTED, RunLumi(12, 2), RunLumi(14))
    assert fate.runs == (14, 16)
    assert by_run(db, name, 12, 13, 14, 15, 16, 17) == [1, 2, 1, 1, 1, 1]
    again = db.history(name)[-1]
    assert (again.since, again.payload_id, again.asked) == (RunLumi(14), payload(1).id, RunLumi(10))
    assert again.origin == db.history(name)[0].sequence
    assert again.info["because_of"] == fate.sequence


def test_where_nothing_held_in_a_settled_run_nothing_holds_afterwards(db: ConditionsDB) -> None:
    name = tag(db)
    settle(db, name, 14)
    begin(db, name, r12=2)
    assert by_run(db, name, 12, 13, 14, 15) == [2, 2, None, None]
    assert [str(v.iov) for v in db.intervals(name)] == ["[12:0, 14:0)"]


def test_interval_that_ends_before_the_settled_run_is_not_late(db: ConditionsDB) -> None:
    name = tag(db)
    begin(db, name, r10=1, r14=3)
    settle(db, name, 14)
    fate = db.append(name, RunLumi(12), payload(2), ANN)
    assert (fate.kind, fate.until, fate.runs) == (FateKind.ACCEPTED, None, ())
    assert db.fates(name) == []


# --- withdrawal


def test_withdrawn_payload_gives_way_to_what_was_before_it(db: ConditionsDB) -> None:
    name = tag(db)
    begin(db, name, r10=1, r20=2)
    begin(db, name, r20=3)
    assert db.withdraw(name, RunLumi(20), ANN).kind is FateKind.ACCEPTED
    assert by_run(db, name, 19, 20) == [1, 2]
    db.withdraw(name, RunLumi(20), ANN)
    assert by_run(db, name, 19, 20) == [1, 1]
    db.withdraw(name, RunLumi(10), ANN)
    assert by_run(db, name, 10, 20) == [None, None]
    assert db.intervals(name) == []


def test_withdrawal_that_means_nothing_is_refused(db: ConditionsDB) -> None:
    name = tag(db)
    begin(db, name, r10=1)
    with pytest.raises(ValueError, match=r"no payload of .* begins at 12:0; the entry that holds there begins at 10:0"):
        db.withdraw(name, RunLumi(12), ANN)
    with pytest.raises(ValueError, match="begins at none"):
        db.withdraw(name, RunLumi(9), ANN)
    with pytest.raises(ValueError, match="needs a reason"):
        db.withdraw(name, RunLumi(10), Stamp("ann", NOON))


def test_withdrawn_payload_stays_in_settled_runs_only(db: ConditionsDB) -> None:
    name = tag(db, Sync.PCL)
    begin(db, name, r10=1, r12=2)
    settle(db, name, 12, 13, 15)
    fate = db.withdraw(name, RunLumi(12), ANN)
    assert (fate.kind, fate.given, fate.runs) == (FateKind.SHIFTED, RunLumi(14), (12, 13, 15))
    assert by_run(db, name, 11, 12, 13, 14, 15, 16) == [1, 2, 2, 1, 2, 1]
    again = db.withdraw(name, RunLumi(12), ANN)
    assert (again.kind, again.given, again.sequence) == (FateKind.REFUSED, None, None)
    assert db.fates(name) == [fate, again]


def test_withdrawal_of_the_only_payload_leaves_nothing_behind_the_settled_run(db: ConditionsDB) -> None:
    name = tag(db)
    begin(db, name, r10=1)
    settle(db, name, 10)
    db.withdraw(name, RunLumi(10), ANN)
    assert by_run(db, name, 10, 11) == [1, None]


def test_withdrawal_takes_the_copies_for_settled_runs_along(db: ConditionsDB) -> None:
    name = tag(db)
    begin(db, name, r8=1, r10=2)
    settle(db, name, 14)
    db.append(name, RunLumi(12), payload(3), ANN)
    assert by_run(db, name, 8, 10, 12, 14, 15) == [1, 2, 3, 2, 2]
    fate = db.withdraw(name, RunLumi(10), ANN)
    assert (fate.kind, fate.given, fate.runs) == (FateKind.ACCEPTED, RunLumi(10), (14,))
    assert by_run(db, name, 8, 10, 12, 14, 15) == [1, 1, 3, 2, 3]


def test_withdrawn_payload_does_not_come_back_when_what_hid_it_is_withdrawn(db: ConditionsDB) -> None:
    name = tag(db)
    begin(db, name, r10=1, r12=2)
    settle(db, name, 14)
    begin(db, name, r12=3)  # hides 2 at 12, and 2 is entered again at 14
    db.withdraw(name, RunLumi(14), ANN)
    assert by_run(db, name, 11, 12, 14, 15) == [1, 3, 2, 3]
    db.withdraw(name, RunLumi(12), ANN)
    assert by_run(db, name, 11, 12, 14, 15) == [1, 1, 2, 1]


def test_withdrawn_payload_does_not_outlive_the_next_entry(db: ConditionsDB) -> None:
    name = tag(db)
    begin(db, name, r10=1, r12=2, r14=3)
    settle(db, name, 12, 13)
    fate = db.withdraw(name, RunLumi(12), ANN)
    assert (fate.kind, fate.given) == (FateKind.SHIFTED, RunLumi(14))
    assert by_run(db, name, 11, 12, 13, 14) == [1, 2, 2, 3]
    db.withdraw(name, RunLumi(14), ANN)
    assert by_run(db, name, 11, 12, 13, 14) == [1, 2, 2, 1]


def test_withdrawn_payload_that_was_hidden_leaves_the_settled_run_alone(db: ConditionsDB) -> None:
    name = tag(db)
    begin(db, name, r10=1, r12=2)
    begin(db, name, r12=3)
    settle(db, name, 12)
    db.withdraw(name, RunLumi(12), ANN)
    assert by_run(db, name, 11, 12, 13) == [1, 3, 2]
    db.withdraw(name, RunLumi(13), ANN)
    assert by_run(db, name, 11, 12, 13) == [1, 3, 1]


# --- resolving a run


def test_resolve_run_cuts_where_conditions_change(db: ConditionsDB) -> None:
    names = {clock: db.create_tag(f"t-{clock}", clock, clock, Sync.PROMPT).name for clock in Clock}
    db.define_global_tag("g", dict(names))
    db.append("t-run", RunLumi(9), payload(1, "run"), ANN)
    db.append("t-lumi", RunLumi(10, 3), payload(2, "lumi"), ANN)
    db.append("t-lumi", RunLumi(10, 5), payload(2, "lumi"), ANN)  # the same content is no change
    db.append("t-lumi", RunLumi(10, 90), payload(4, "lumi"), ANN)  # behind the run
    db.append("t-time", 6_500, payload(3, "time"), ANN)
    units = [RunLumi(10, lumi).packed for lumi in (1, 2, 3, 5, 6, 7, 8)]
    times = [1_000 * (unit & 0xFF) for unit in units]
    found = db.resolve_run(db.snapshot("g"), units, times=times)
    assert [(s.since.lumi, s.until.lumi, sorted(s.ids)) for s in found] == [
        (1, 3, ["run"]),
        (3, 7, ["lumi", "run"]),
        (7, 9, ["lumi", "run", "time"]),
    ]
    assert found[2].conditions == db.resolve(db.snapshot("g"), RunLumi(10, 7), time=7_000)
    assert [s.ids for s in db.resolve_run(db.snapshot("g"), units, ["run", "nothing"])] == [
        {"run": payload(1, "run").id}
    ]
    with pytest.raises(ValueError, match="tag t-time of kind 'time' goes by time"):
        db.resolve_run(db.snapshot("g"), units)
    assert db.resolve_run(db.snapshot("g"), []) == []


def test_conditions_are_read_where_they_are_used(db: ConditionsDB) -> None:
    name = tag(db)
    begin(db, name, r10=4)
    (segment,) = db.resolve_run(db.snapshot(name), [RunLumi(10, 1).packed])
    assert (segment.since, segment.until) == (RunLumi(10, 1), RunLumi(10, 2))
    assert segment.conditions["beamspot"]["x"] == 4
    assert segment.conditions.root == str(db.store.root)


def test_resolve_run_of_4000_lumisections_and_20_kinds(store: PayloadStore) -> None:
    engine = create_engine("sqlite://")
    conditions_metadata.create_all(engine)
    with engine.begin() as connection:
        db = ConditionsDB(connection, store)
        kinds = [f"kind{i}" for i in range(20)]
        for kind in kinds:
            db.create_tag(kind, kind, Clock.LUMI, Sync.PROMPT)
            for step in range(18):
                db.append(kind, RunLumi(90 + step // 3, 400 * (step % 3)), payload(step % 2, kind), ANN)
        db.define_global_tag("g", {kind: kind for kind in kinds})
        snapshot, units = db.snapshot("g"), [RunLumi(95, lumi).packed for lumi in range(1, 4001)]
        db.resolve_run(snapshot, units, kinds)
        start = time.perf_counter()
        segments = db.resolve_run(snapshot, units, kinds)
        print(f"resolve_run of 4000 lumisections x 20 kinds: {1e3 * (time.perf_counter() - start):.1f} ms")
        start = time.perf_counter()
        for _ in range(200):
            db.resolve(snapshot, RunLumi(95, 500), ["kind3"])
        print(f"resolve of one kind: {200 / (time.perf_counter() - start):.0f} Hz")
    assert [(s.since.lumi, s.until.lumi) for s in segments] == [(1, 400), (400, 800), (800, 4001)]


# --- guards


def test_tables_must_be_set_up(store: PayloadStore) -> None:
    engine = create_engine("sqlite://")
    conditions_metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(last_sequence.delete())
        with pytest.raises(RuntimeError, match="not set up; create conditions_metadata"):
            ConditionsDB(connection, store).create_tag("a", "a", Clock.RUN, Sync.PCL)


def test_stamp_names_someone() -> None:
    with pytest.raises(ValueError, match="name of its author"):
        Stamp(" ", NOON)
    with pytest.raises(ValueError, match="no time zone"):
        Stamp("ann", datetime(2026, 1, 1))


@pytest.mark.parametrize("text", ["prompt", "@3", "prompt@", "prompt@x"])
def test_snapshot_is_read_back(text: str) -> None:
    assert Snapshot.parse("a@b@12") == ("a@b", 12)
    with pytest.raises(ValueError, match="is not a snapshot"):
        Snapshot.parse(text)
