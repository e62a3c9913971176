"""Jobs run to their end on two real worker processes, whatever goes wrong on the way."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, LocalCluster
from sqlalchemy import Connection, Engine, text

from jobs.job import Job, Lane
from jobs.ledger import JobState, Ledger, StaleEpoch, take_lease
from jobs.reduction import Node, NodeReceipt, Receipt
from jobs.retry import Cause, Limits
from jobs.runner import Event, JobDone, JobFailed, NodeCommitted, Options, Refused, Runner, SchedulerLost
from tests.jobs.ledgers import recorded
from tests.jobs.record import Record
from tests.jobs.toy import Sum, kill_myself, make_job, numbers, read_log, total

QUICK = Options(limits=Limits(passing=(0.05, 0.05), missing=0.05), capacity_s=0.5)


@dataclass
class House:
    """A ledger and a cluster, and runners on them."""

    client: Client
    engine: Engine
    root: Path
    epoch: int = 0
    runners: list[Runner] = field(default_factory=list)

    def runner(self, **more: Any) -> Runner:
        with self.engine.begin() as connection:
            self.epoch = take_lease(connection)
        runner = Runner(self.client, self.engine.begin, self.epoch, **({"options": QUICK} | more))
        self.runners.append(runner)
        return runner

    def work(self, **more: Any) -> Sum:
        return Sum(str(self.root), **more)

    def record(self) -> AbstractContextManager[Record]:
        return recorded(self.engine.begin)


@pytest.fixture
def house(client: Client, sqlite: Engine, tmp_path: Path) -> Any:
    house = House(client, sqlite, tmp_path)
    yield house
    for runner in house.runners:
        runner.close()


def finish(runner: Runner, timeout: float = 60.0) -> list[Event]:
    """Everything that happens until no job is left."""
    events: list[Event] = []
    end = time.monotonic() + timeout
    while runner.active or not events:
        events += runner.step(timeout)
        assert time.monotonic() < end, "the jobs do not come to an end"
    return events + runner.step(0)


def run(
    house: House, leaves: int, work: Any = None, *, runner: Runner | None = None, **more: Any
) -> JobDone | JobFailed:
    runner = runner or house.runner()
    runner.start(make_job(leaves, **more), work or house.work(), numbers)
    [end] = [event for event in finish(runner) if not isinstance(event, NodeCommitted)]
    return end


def root(end: JobDone | JobFailed) -> int:
    assert isinstance(end, JobDone), end
    return total(end.root)


@pytest.mark.parametrize("leaves", [1, 2, 4, 5, 16, 17, 70])
def test_every_leaf_once_for_any_shape(house: House, leaves: int) -> None:
    assert root(run(house, leaves)) == leaves * (leaves - 1) // 2
    begun = Counter(index for what, index, _, _ in read_log(house.root) if what == "leaf")
    assert begun == Counter(range(leaves))
    with house.record() as record:
        standing = record.standing(make_job(leaves))
        assert (standing.state, standing.leaves_committed) == (JobState.DONE, leaves)
        assert standing.starts == standing.commits


def test_single_leaf_job_shows_its_leaf(house: House) -> None:
    end = run(house, 1)
    assert isinstance(end, JobDone)
    assert [receipt.note for receipt in end.root.leaves] == [{"value": 0}]


def test_every_node_is_told_once_with_its_times(house: House) -> None:
    runner, before = house.runner(), time.time()
    runner.start(make_job(20), house.work(), numbers)
    told = [event for event in finish(runner) if isinstance(event, NodeCommitted)]
    assert Counter(event.node for event in told) == Counter(
        Node("sum", level, index) for level, width in ((1, 5), (2, 2), (3, 1)) for index in range(width)
    )
    for event in told:
        assert before <= event.submitted_at <= event.arrived_at <= time.time()
    with house.record() as record:
        assert [index for index, _ in record.branches(make_job(20))] == list(range(5))


def test_complete_job_is_done_at_once(house: House) -> None:
    run(house, 9)
    runner = house.runner()
    runner.start(make_job(9), house.work(failing={0: "poison"}), numbers)
    assert runner.active == 0
    [end] = runner.step()
    assert root(end) == 36  # type: ignore[arg-type]
    assert runner.step() == []


def test_job_entered_in_the_transaction_of_the_caller(house: House) -> None:
    runner = house.runner()
    with house.engine.begin() as connection:
        runner.add(connection, make_job(9))
        runner.add(connection, make_job(9))
    assert root(run(house, 9, runner=runner)) == 36
    with house.engine.begin() as connection:
        runner.add(connection, make_job(9))
    assert root(run(house, 9, runner=runner)) == 36
    assert begun(house) == Counter(range(9))


def test_restart_repeats_no_committed_work(house: House) -> None:
    runner = house.runner()
    runner.start(make_job(200), house.work(seconds=0.005), numbers)
    committed: set[int] = set()
    while len(committed) < 10:
        committed |= {e.node.index for e in runner.step() if isinstance(e, NodeCommitted) and e.node.level == 1}
    runner.close()
    halted = time.time()
    with house.record() as record:
        committed = {index for index, _ in record.branches(make_job(200))}
    assert root(run(house, 200)) == 19900
    again = {index // 4 for what, index, at, _ in read_log(house.root) if what == "leaf" and at > halted + 0.5}
    assert not again & committed


def test_items_are_asked_for_branch_by_branch(house: House) -> None:
    asked: list[range] = []

    def items(leaves: range) -> Sequence[int]:
        asked.append(leaves)
        return list(leaves)

    runner = house.runner()
    runner.start(make_job(50), house.work(), items)
    assert len(asked) < 13
    finish(runner)
    assert asked == [range(first, min(first + 4, 50)) for first in range(0, 50, 4)]


def test_wrong_number_of_items_is_refused(house: House) -> None:
    with pytest.raises(ValueError, match="3 items were given for 4 leaves"):
        house.runner().start(make_job(8), house.work(), lambda leaves: [1, 2, 3])


def test_same_job_twice_is_refused(house: House) -> None:
    runner = house.runner()
    runner.start(make_job(8), house.work(), numbers)
    with pytest.raises(ValueError, match="runs already"):
        runner.start(make_job(8), house.work(), numbers)


def test_caller_writes_in_the_same_transaction(house: House) -> None:
    with house.engine.begin() as connection:
        connection.execute(text("CREATE TABLE outputs (level INTEGER, place INTEGER, PRIMARY KEY (level, place))"))

    def record(connection: Connection, job: Job, node: Node, receipt: NodeReceipt) -> None:
        connection.execute(text("INSERT INTO outputs VALUES (:l, :p)"), {"l": node.level, "p": node.index})
        if node.level == 2:
            raise RuntimeError("the catalogue refuses")

    runner = house.runner(on_commit=record)
    runner.start(make_job(4 * 4), house.work(), numbers)
    with pytest.raises(RuntimeError, match="the catalogue refuses"):
        finish(runner)
    with house.engine.begin() as connection:
        rows = connection.execute(text("SELECT level, place FROM outputs ORDER BY place")).all()
    assert rows == [(1, 0), (1, 1), (1, 2), (1, 3)]
    with house.record() as record:
        assert [index for index, _ in record.branches(make_job(16))] == [0, 1, 2, 3]
        assert record.standing(make_job(16)).commits == 4


@pytest.mark.parametrize("level", [1, 2])
def test_what_the_caller_refuses_ends_just_its_job(house: House, level: int) -> None:
    """Nothing of that node is entered; the next start tries it again, and nothing else."""
    with house.engine.begin() as connection:
        connection.execute(text("CREATE TABLE outputs (job TEXT, level INTEGER, place INTEGER)"))
    wrong = Node("sum", level, 3 if level == 1 else 0)

    def enter(connection: Connection, job: Job, node: Node, receipt: NodeReceipt) -> None:
        connection.execute(text("INSERT INTO outputs VALUES (:j, :l, :p)"), {"j": job.name, "l": node.level, "p": 0})
        if node == wrong and not (house.root / "mended").exists():
            raise Refused("an event is missing")

    runner = house.runner(on_commit=enter)
    runner.start(make_job(16), house.work(), numbers)
    runner.start(make_job(30, name="other", group="other"), house.work(), numbers)
    ends = {event.job.name: event for event in finish(runner) if not isinstance(event, NodeCommitted)}
    assert ends["sum"] == JobFailed(make_job(16), "an event is missing")
    assert root(ends["other"]) == 435
    (house.root / "mended").touch()
    end = run(house, 16, runner=house.runner(on_commit=enter))
    assert root(end) == 120
    with house.engine.begin() as connection:
        entered = connection.scalar(text("SELECT COUNT(*) FROM outputs WHERE job = 'sum'"))
    assert entered == 5
    with house.record() as record:
        assert record.standing(make_job(16)).commits == 5


def test_node_committed_by_someone_else_is_not_told_again(house: House) -> None:
    foreign = NodeReceipt((), Receipt(house.work().store(0, Node("sum", 1, 0), "x").files))

    def meddle(point: str) -> None:
        if point == "submit":
            with house.engine.begin() as connection:
                Ledger(connection, house.epoch).commit(Node("sum", 1, 0), foreign)

    runner = house.runner(probe=meddle)
    runner.start(make_job(8), house.work(), numbers)
    events = finish(runner)
    assert Node("sum", 1, 0) not in [event.node for event in events if isinstance(event, NodeCommitted)]
    assert root(events[-1]) == 4 + 5 + 6 + 7  # type: ignore[arg-type]


def test_probes_are_called_in_order(house: House) -> None:
    points: list[str] = []
    runner = house.runner(probe=points.append)
    runner.start(make_job(1), house.work(), numbers)
    finish(runner)
    write = ["ledger-commit", "ledger-committed"]
    assert points == [*write, "submit", *write]


def test_driver_that_was_followed_commits_nothing(house: House) -> None:
    old = house.runner()
    old.start(make_job(8), house.work(seconds=0.05), numbers)
    house.runner()
    with pytest.raises(StaleEpoch):
        finish(old)
    with house.record() as record:
        assert record.standing(make_job(8)).commits == 0


def test_lease_is_renewed_while_waiting(house: House) -> None:
    runner = house.runner(options=Options(renew_s=0.05))
    runner.start(make_job(4), house.work(seconds=0.1), numbers)
    house.runner()
    with pytest.raises(StaleEpoch):
        runner.step(0.09)


def test_step_ends_at_its_timeout_and_at_once_without_jobs(house: House) -> None:
    runner = house.runner()
    assert runner.step() == []
    runner.start(make_job(1), house.work(seconds=1.0), numbers)
    begun = time.monotonic()
    assert runner.step(0.1) == []
    assert 0.1 <= time.monotonic() - begun < 0.9


def test_higher_lane_overtakes(house: House) -> None:
    runner = house.runner()
    runner.start(make_job(80, name="long", group="long"), house.work(seconds=0.02), numbers)
    runner.start(make_job(2, name="short", group="short", lane=Lane.CONDITIONS), house.work(), numbers)
    ends = [event for event in finish(runner) if isinstance(event, JobDone)]
    assert [end.job.name for end in ends] == ["short", "long"]


@pytest.mark.parametrize(("reserve", "most"), [(0, 4), (2, 2)])
def test_other_lanes_leave_the_reserve_free(sqlite: Engine, tmp_path: Path, reserve: int, most: int) -> None:
    """Conditions find a thread at once, where otherwise they wait for a leaf to end."""
    with (
        LocalCluster(n_workers=1, threads_per_worker=4, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        house = House(client, sqlite, tmp_path)
        runner = house.runner(options=Options(reserve=reserve))
        slow = house.work(seconds=1.0)
        runner.start(make_job(6, name="slow", group="slow", fan_in=2), slow, numbers)
        time.sleep(0.25)
        begun = time.time()
        (tmp_path / "quick").mkdir()
        quick = Sum(str(tmp_path / "quick"))
        runner.start(make_job(1, name="quick", group="quick", lane=Lane.CONDITIONS), quick, numbers)
        finish(runner)
        times = sorted(at for what, _, at, _ in read_log(house.root) if what == "leaf")
        together = max(sum(at <= other < at + 1.0 for at in times) for other in times)
        assert together == most
        waited = read_log(tmp_path / "quick")[0][2] - begun
        assert (waited < 0.5) == (reserve > 0), waited
        runner.close()


def test_waiting_takes_no_time_of_the_processor(house: House) -> None:
    # Repeats become due while slow branches fill the window: they wait for room, and nobody asks again and again.
    runner = house.runner()
    failing = dict.fromkeys((0, 4), "network_once")
    runner.start(make_job(8, name="failing", group="failing"), house.work(failing=failing), numbers)
    runner.start(make_job(16, name="slow", group="slow", lane=Lane.EXPRESS), house.work(seconds=0.3), numbers)
    used = -time.thread_time()
    finish(runner)
    assert used + time.thread_time() < 1.0


# what goes wrong


def asides(house: House) -> dict[int, tuple[Cause, str]]:
    with house.record() as record:
        return {aside.leaf: (aside.cause, aside.reason) for aside in record.asides("sum")}


def begun(house: House) -> Counter[int]:
    return Counter(index for what, index, _, _ in read_log(house.root) if what == "leaf")


def test_bad_data_are_set_aside_and_nothing_is_done_twice(house: House) -> None:
    assert root(run(house, 12, house.work(failing={5: "bad_data"}))) == 66 - 5
    assert asides(house) == {5: (Cause.BAD_DATA, "BadData: item 5 is unreadable")}
    assert begun(house) == Counter(range(12))


def left_behind(end: JobDone | JobFailed) -> str:
    """Why a job failed of which a leaf was given up."""
    assert isinstance(end, JobFailed), end
    assert not end.stop
    assert "the next start tries again what is left" in end.reason
    return end.reason


@pytest.mark.parametrize(("leaves", "bad", "committed"), [(1, 0, 0), (12, 5, 8)])
def test_bug_is_tried_twice_then_given_up_and_tried_again_by_the_next_start(
    house: House, leaves: int, bad: int, committed: int
) -> None:
    reason = left_behind(run(house, leaves, house.work(failing={bad: "bug"})))
    assert "ZeroDivisionError: a bug; the next" in reason
    assert asides(house) == {}
    assert begun(house) == Counter([*range(leaves), bad])
    with house.record() as record:
        standing = record.standing(make_job(leaves))
        assert (standing.state, standing.reason) == (JobState.FAILED, reason)
        assert standing.leaves_committed == committed
        found = record.history(Node("sum", 1, bad // 4))
        assert ["toy.py" in failure.traceback for failure in found] == [True, True]
    # The code is mended: good leaves are not repeated, those of the same branch among them.
    assert root(run(house, leaves)) == leaves * (leaves - 1) // 2
    assert begun(house) == Counter([*range(leaves), bad, bad])


def test_what_passes_leaves_no_trace_in_the_result(house: House) -> None:
    assert root(run(house, 12, house.work(failing={5: "bug_once", 6: "network_once"}))) == 66
    assert asides(house) == {}
    assert begun(house) == Counter([*range(12), 5, 6])


def test_network_is_given_its_pauses(house: House) -> None:
    reason = left_behind(run(house, 12, house.work(failing={5: "network"})))
    assert "leaf 5 cannot be done: TimeoutError: no answer" in reason
    assert (asides(house), begun(house)[5]) == ({}, 3)
    # The file server answers again.
    assert root(run(house, 12)) == 66
    assert begun(house) == Counter([*range(12), 5, 5, 5])


def test_vanished_file_is_looked_for_once_more(house: House) -> None:
    assert root(run(house, 12, house.work(failing={5: "vanished"}))) == 66 - 5
    assert asides(house)[5][0] is Cause.MISSING
    assert begun(house)[5] == 2


def test_full_disk_holds_the_job_and_the_next_start_goes_on(house: House) -> None:
    end = run(house, 12, house.work(failing={5: "disk_full"}))
    assert isinstance(end, JobFailed)
    assert end.stop
    assert "No space left" in end.reason
    with house.record() as record:
        standing = record.standing(make_job(12))
        assert (standing.state, standing.reason) == (JobState.HELD, end.reason)
    assert asides(house) == {}
    assert root(run(house, 12)) == 66


def test_failed_job_may_be_started_again_by_the_same_driver(house: House) -> None:
    runner = house.runner()
    assert isinstance(run(house, 12, house.work(failing={5: "disk_full"}), runner=runner), JobFailed)
    assert root(run(house, 12, runner=runner)) == 66


def test_every_leaf_failing_is_the_code(house: House) -> None:
    end = run(house, 4000, house.work(failing=dict.fromkeys(range(4000), "bug")))
    assert isinstance(end, JobFailed)
    assert not end.stop
    assert "every leaf fails the same way" in end.reason
    assert "a bug" in end.reason
    assert sum(begun(house).values()) < 50
    with house.record() as record:
        assert record.standing(make_job(4000)).state is JobState.FAILED


def test_leaf_that_kills_its_worker_is_set_aside(house: House) -> None:
    assert root(run(house, 40, house.work(failing={13: "poison"}, seconds=0.01))) == 780 - 13
    found = asides(house)
    assert list(found) == [13]
    assert found[13][0] is Cause.LOST
    assert "3 times while it ran alone" in found[13][1]
    with house.record() as record:
        assert record.standing(make_job(40)).leaves_committed == 40


def test_only_leaf_that_kills_its_worker_fails_the_job(house: House) -> None:
    """Nothing shows that other data would not do the same: the code may be at fault, and is tried again."""
    runner = house.runner(options=Options(limits=Limits(alone=1)))
    reason = left_behind(run(house, 1, house.work(failing={0: "poison"}), runner=runner))
    assert "no leaf has succeeded; leaf 0: its worker died 1 times while it ran alone" in reason
    assert asides(house) == {}
    assert root(run(house, 1)) == 0


def test_worker_lost_once_costs_nothing_but_time(house: House) -> None:
    for point, index in (("write", 3), ("rename", 9), ("store1", 5), ("store2", 0)):
        house.root.joinpath(point).mkdir()
        work = Sum(str(house.root / point), kill_at={point: index})
        assert root(run(house, 40, work, name=point)) == 780
        assert (house.root / point / f"killed-{point}").exists()


def test_merge_that_kills_its_worker_ends_the_job(house: House) -> None:
    runner = house.runner(options=Options(limits=Limits(alone=2)))
    end = run(house, 8, Deadly(str(house.root)), runner=runner)
    assert isinstance(end, JobFailed)
    assert "a merge cannot be done" in end.reason
    assert "2 times while it ran alone" in end.reason


class Deadly(Sum):
    """Its second branch cannot be stored by any worker."""

    def store(self, value: int, node: Node, attempt: str) -> Receipt:
        if node == Node("sum", 1, 1):
            kill_myself()
        return super().store(value, node, attempt)


def test_hanging_leaf_is_stopped_at_its_limit(house: House) -> None:
    reason = left_behind(run(house, 12, house.work(failing={5: "hang"}), limit_s=2.0))
    assert "leaf 5 cannot be done: it ran for" in reason
    assert "the limit is 2 s" in reason
    assert asides(house) == {}
    assert root(run(house, 12, limit_s=2.0)) == 66


def test_unpicklable_and_unimportable_work_is_a_clear_failure(house: House) -> None:
    with pytest.raises(Exception, match="pickle"):
        house.runner().start(make_job(4), house.work(failing=threading.Lock()), numbers)  # type: ignore[arg-type]


def test_lost_scheduler_is_said(house: House) -> None:
    with Client(house.client.scheduler.address, set_as_default=False) as other:
        house.runner()
        runner = Runner(other, house.engine.begin, house.epoch)
        runner.start(make_job(4), house.work(seconds=5.0), numbers)
        threading.Timer(0.2, other.close).start()
        with pytest.raises(SchedulerLost, match="start again"):
            runner.step(30)
        with pytest.raises(SchedulerLost, match="closed"):
            runner.start(make_job(4, name="later"), house.work(), numbers)
        runner.close()


def test_ledger_works_with_the_runner_on_postgres(client: Client, engine: Engine, tmp_path: Path) -> None:
    house = House(client, engine, tmp_path)
    try:
        assert root(run(house, 30, house.work(failing={5: "bad_data", 6: "bug_once"}))) == 435 - 5
        assert list(asides(house)) == [5]
    finally:
        for runner in house.runners:
            runner.close()
