"""What is committed is committed once, by the current driver, and all of it can be asked for again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, create_engine, func, select

from jobs.frontier import Launch
from jobs.job import Lane
from jobs.ledger import JobChanged, JobState, Ledger, StaleEpoch, ledger_metadata, take_lease
from jobs.reduction import Aside, FileRecord, Node, NodeReceipt, Partial, Receipt
from jobs.retry import Cause, Failure
from jobs.tables import jobs, nodes
from tests.jobs.record import Record
from tests.jobs.toy import make_job


class Open(Ledger):
    """A ledger, and what it holds in the same transaction."""

    def __init__(self, connection: Connection, epoch: int) -> None:
        super().__init__(connection, epoch, clock=lambda: 100.0)
        self.connection, self.epoch = connection, epoch
        self.record = Record(connection)


@contextmanager
def opened(engine: Engine, epoch: int | None = None) -> Iterator[Open]:
    with engine.begin() as connection:
        yield Open(connection, take_lease(connection) if epoch is None else epoch)


def receipt(name: str = "state", *leaves: str, aside: tuple[Aside, ...] = ()) -> NodeReceipt:
    made = [Receipt((FileRecord(path, 1, "c"),), {"name": path}) for path in (*leaves, name)]
    return NodeReceipt(tuple(made[:-1]), made[-1], aside)


def failed(*failures: Failure) -> Partial:
    return Partial(failures=failures)


def test_job_is_one_row_and_found_again(engine: Engine) -> None:
    job = make_job(100_000, spec='{"a": 1}', limit_s=2.5, lane=Lane.CONDITIONS)
    with opened(engine) as ledger:
        assert ledger.add(job)
        assert not ledger.add(job)
        assert not ledger.add(replace(job, lane=Lane.BULK, group="other"))
        assert ledger.job("sum") == job
        assert ledger.job("other") is None
        assert ledger.record.open_jobs() == [job]
    with engine.begin() as connection:
        assert connection.scalar(select(func.count()).select_from(jobs)) == 1
        assert connection.scalar(select(func.count()).select_from(nodes)) == 0


def test_same_name_with_another_shape_is_refused(engine: Engine) -> None:
    with opened(engine) as ledger:
        ledger.add(make_job(10))
        with pytest.raises(JobChanged, match="give the new shape a new name"):
            ledger.add(make_job(11))


def test_node_is_committed_once(engine: Engine) -> None:
    node = Node("sum", 1, 0)
    with opened(engine) as ledger:
        ledger.add(make_job(10))
        assert ledger.commit(node, receipt("first"))
        assert not ledger.commit(node, receipt("second"))
        assert ledger.committed("sum", 1, range(3)) == {0: receipt("first")}


def test_older_driver_writes_nothing(engine: Engine) -> None:
    job = make_job(10)
    with opened(engine) as ledger:
        ledger.add(job)
    with opened(engine):
        pass
    writes = [
        lambda ledger: ledger.add(job),
        lambda ledger: ledger.commit(Node("sum", 1, 0), receipt()),
        lambda ledger: ledger.started([Launch(Node("sum", 1, 0))]),
        lambda ledger: ledger.failed(Launch(Node("sum", 1, 0)), failed(Failure(Cause.BUG, ""))),
        lambda ledger: ledger.mark("sum", JobState.DONE),
    ]
    for write in writes:
        with pytest.raises(StaleEpoch), opened(engine, epoch=1) as ledger:
            write(ledger)
    with opened(engine) as ledger:
        assert ledger.record.standing(job).starts == 0
        assert ledger.record.standing(job).commits == 0


def test_open_branches_page_by_page(engine: Engine) -> None:
    job = make_job(39, fan_in=4)
    with opened(engine) as ledger:
        ledger.add(job)
        for index in (0, 2, 3, 9):
            ledger.commit(Node("sum", 1, index), receipt())
        ledger.commit(Node("sum", 2, 1), receipt())
        assert ledger.open_branches(job) == [1, 4, 5, 6, 7, 8]
        assert ledger.open_branches(job, after=-1, limit=4) == [1]
        assert ledger.open_branches(job, after=3, limit=4) == [4, 5, 6, 7]
        assert ledger.open_branches(job, after=7, limit=4) == [8]
        assert ledger.open_branches(job, after=9, limit=4) == []


def test_tallies_count_children_of_open_nodes_only(engine: Engine) -> None:
    job = make_job(64, fan_in=4)
    with opened(engine) as ledger:
        ledger.add(job)
        for index in (0, 1, 2, 3, 4, 5, 12):
            ledger.commit(Node("sum", 1, index), receipt())
        assert ledger.past(job).tallies == {Node("sum", 2, 0): 4, Node("sum", 2, 1): 2, Node("sum", 2, 3): 1}
        ledger.commit(Node("sum", 2, 0), receipt())
        assert ledger.past(job).tallies == {Node("sum", 2, 1): 2, Node("sum", 2, 3): 1, Node("sum", 3, 0): 1}


def test_root_and_branches_of_a_job(engine: Engine) -> None:
    job = make_job(5, fan_in=4)
    with opened(engine) as ledger:
        ledger.add(job)
        ledger.commit(Node("sum", 1, 1), receipt("b", "leaf4"))
        assert ledger.root(job) is None
        ledger.commit(Node("sum", 1, 0), receipt("a", "leaf0"))
        ledger.commit(Node("sum", 2, 0), receipt("root"))
        assert ledger.root(job) == receipt("root")
        assert [(index, found.state.note["name"]) for index, found in ledger.record.branches(job)] == [
            (0, "a"),
            (1, "b"),
        ]
        assert sorted(ledger.record.files("sum")) == ["a", "b", "leaf0", "leaf4", "root"]


@pytest.mark.parametrize(("places", "leaves"), [((), 0), ((0,), 4), ((2,), 1), ((0, 1, 2), 9)])
def test_standing_counts_leaves_of_a_short_last_branch(engine: Engine, places: tuple[int, ...], leaves: int) -> None:
    job = make_job(9, fan_in=4)
    with opened(engine) as ledger:
        ledger.add(job)
        for place in places:
            ledger.commit(Node("sum", 1, place), receipt())
        assert ledger.record.standing(job).leaves_committed == leaves
        assert ledger.record.standing(job).commits == len(places)


def test_states_and_reasons(engine: Engine) -> None:
    job = make_job(9)
    with opened(engine) as ledger:
        ledger.add(job)
        assert ledger.record.standing(job).state is JobState.OPEN
        ledger.mark("sum", JobState.HELD, "disk full")
        assert (ledger.record.standing(job).state, ledger.record.standing(job).reason) == (JobState.HELD, "disk full")
        assert ledger.record.open_jobs() == [job]
        ledger.mark("sum", JobState.DONE)
        assert ledger.record.open_jobs() == []


def test_starts_failures_and_what_is_set_aside(engine: Engine) -> None:
    node = Node("sum", 1, 0)
    launch = Launch(node, attempt=1, leaves=(0, 1, 2, 3))
    oops = Failure(Cause.BUG, "ZeroDivisionError: oops", 2, traceback="Traceback ...")
    died = Failure(Cause.LOST, "died", 1, alone=True, seen=True)
    with opened(engine) as ledger:
        ledger.add(make_job(10))
        ledger.started([launch, replace(launch, attempt=2, alone=True)])
        ledger.started([])
        ledger.failed(launch, failed(oops, died))
        ledger.failed(launch, failed())
        assert ledger.record.attempts(node) == 2
        assert ledger.record.history(node) == [oops, died]
        aside = Aside(2, Cause.BUG, "oops", "Traceback ...")
        ledger.commit(node, receipt("s", aside=(aside,)))
        assert ledger.record.asides("sum") == [aside]
        assert ledger.record.standing(make_job(10)).starts == 2
        assert ledger.past(make_job(10)).attempts == 2
    with opened(engine) as ledger:
        assert ledger.past(make_job(10)).attempts == 0


def test_losses_of_open_nodes_outlive_the_driver(engine: Engine) -> None:
    job = make_job(16)
    died, gone = Failure(Cause.LOST, "died", 1, alone=True), Failure(Cause.LOST, "died", 5)
    late = Failure(Cause.TIMEOUT, "late", 2)
    with opened(engine) as ledger:
        ledger.add(job)
        ledger.failed(Launch(Node("sum", 1, 0)), failed(died, Failure(Cause.BUG, "oops", 2), late))
        ledger.failed(Launch(Node("sum", 1, 0)), failed(died))
        ledger.failed(Launch(Node("sum", 1, 1)), failed(gone))
        ledger.commit(Node("sum", 1, 1), receipt())
    with opened(engine) as ledger:
        assert ledger.past(job).losses == {Node("sum", 1, 0): [died, died]}


def test_losses_of_a_job_that_failed_are_forgiven(engine: Engine) -> None:
    job, node = make_job(16), Node("sum", 1, 0)
    died = Failure(Cause.LOST, "died", 1, alone=True)
    with opened(engine) as ledger:
        ledger.add(job)
        ledger.failed(Launch(node), failed(died))
        ledger.mark("sum", JobState.HELD)
        ledger.mark("sum", JobState.OPEN)
        assert ledger.past(job).losses == {node: [died]}
        ledger.mark("sum", JobState.FAILED)
        ledger.mark("sum", JobState.OPEN)
        assert ledger.past(job).losses == {}
        Ledger(ledger.connection, ledger.epoch, clock=lambda: 200.0).failed(Launch(node), failed(died, died))
        assert ledger.past(job).losses == {node: [died, died]}


def test_what_is_done_of_an_open_branch_outlives_the_driver(engine: Engine) -> None:
    job, node = make_job(16), Node("sum", 1, 2)
    made = [Receipt((FileRecord(path, 1, "c"),), {"name": path}) for path in ("leaf8", "leaf9", "first", "second")]
    oops, aside = Failure(Cause.BUG, "oops", 10), Aside(8, Cause.BAD_DATA, "unreadable")
    first = Partial({8: made[0]}, made[2], (aside,), (oops,), 1.5)
    second = Partial({8: made[0], 9: made[1]}, made[3], (aside,), (oops, oops), 2.5)
    with opened(engine) as ledger:
        ledger.add(job)
        ledger.failed(Launch(node, 1, (8, 9, 10, 11)), first)
        ledger.failed(Launch(node, 2, (9, 10, 11), prior=first), second)
        ledger.failed(Launch(node, 3, (10, 11), prior=second), failed(oops))
    with opened(engine) as ledger:
        assert ledger.past(job).partials == {node: replace(second, failures=())}
        assert [file.path for file in ledger.files([job.group])] == ["leaf8", "leaf9", "second"]
        assert list(ledger.files(["another"])) == []
        ledger.commit(node, receipt("state", "leaf8"))
        assert ledger.past(job).partials == {}
        assert sorted(file.path for file in ledger.files([job.group])) == ["leaf8", "state"]


def test_a_leaf_that_is_not_set_aside_is_a_good_one(engine: Engine) -> None:
    job = make_job(9, fan_in=4)

    def branch(place: int, *aside: int) -> None:
        found = tuple(Aside(leaf, Cause.BAD_DATA, "unreadable") for leaf in aside)
        ledger.commit(Node("sum", 1, place), receipt(aside=found))

    with opened(engine) as ledger:
        ledger.add(job)
        assert not ledger.past(job).good
        branch(2, 8)
        branch(0, 0, 1, 2, 3)
        assert not ledger.past(job).good
        branch(1, 4, 5, 7)
        assert ledger.past(job).good


@settings(max_examples=25)
@given(done=st.sets(st.integers(0, 24)), fan_in=st.integers(2, 5), page=st.integers(1, 9))
def test_open_and_committed_branches_are_all_branches(done: set[int], fan_in: int, page: int) -> None:
    engine = create_engine("sqlite://")
    ledger_metadata.create_all(engine)
    job = make_job(25 * fan_in - 1, fan_in=fan_in)
    with opened(engine) as ledger:
        ledger.add(job)
        for index in done:
            ledger.commit(Node("sum", 1, index), receipt())
        found = [i for after in range(-1, 24, page) for i in ledger.open_branches(job, after, page)]
        assert sorted([*found, *done]) == list(range(25))
        assert sum(ledger.past(job).tallies.values()) == len(done)
    engine.dispose()
