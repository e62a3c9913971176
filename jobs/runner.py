"""Carries what may run to Dask and what came of it to the ledger, with a bounded window in flight.

Only the driver commits, and only one driver holds the current epoch: a task that Dask runs twice, or that the
workers of a dead driver still finish, writes files nobody knows. All decisions are taken by `Frontier`, `Window`
and `jobs.retry`; this shell obeys.
"""

from __future__ import annotations

import asyncio
import bisect
import concurrent.futures
import logging
import queue
import time
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from distributed import KilledWorker
from sqlalchemy import Connection

from jobs.events import Event, JobDone, JobFailed, NodeCommitted, Refused
from jobs.flight import Active, Flight, Items, Turn, items_of, join_of
from jobs.frontier import Frontier, Launch
from jobs.graph import build_graph, executing, failure_of, overdue, to_bytes
from jobs.job import Job
from jobs.ledger import JobState, Ledger, renew_lease
from jobs.reduction import Join, Node, NodeReceipt, Partial, Work
from jobs.retry import Limits, Stop
from jobs.window import Window

if TYPE_CHECKING:
    from distributed import Client, Future

__all__ = ["JobDone", "JobFailed", "NodeCommitted", "Options", "Refused", "Runner", "SchedulerLost"]

logger = logging.getLogger(__name__)

_CANCELLED = (asyncio.CancelledError, concurrent.futures.CancelledError)
_LOST = "the Dask scheduler is gone ({}); start again: nothing that is committed is done twice"
_ANY_END = (Exception, asyncio.CancelledError)

Begin = Callable[[], AbstractContextManager[Connection]]
OnCommit = Callable[[Connection, Job, Node, NodeReceipt], None]


class SchedulerLost(Exception):
    """The Dask scheduler is gone, with all that was in flight; what is committed is safe."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a runner may be told; the clocks are here for tests."""

    limits: Limits = field(default_factory=Limits)
    reserve: int = 0
    """threads that only the highest lane may occupy (`cluster.reserve`)"""
    capacity_s: float = 5.0
    """how often to look for new workers while there is more to do than fits the window"""
    renew_s: float = 15.0
    """how often to say that this driver lives"""
    clock: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time


def _ignore(*_: Any) -> None:
    pass


class Runner:
    """Runs jobs on one Dask client under one epoch. Use it from one thread.

    `begin` opens a transaction of the database that holds the ledger. `on_commit` is called in the transaction that
    commits a node, and may write to it, or raise Refused: the job of that node then ends. `probe` is called with a name
    at every point where a kill is worth a test.
    An exception out of `start` or `step` ends this runner: start again from the ledger.
    """

    def __init__(
        self,
        client: Client,
        begin: Begin,
        epoch: int,
        on_commit: OnCommit = _ignore,
        options: Options | None = None,
        probe: Callable[[str], None] = _ignore,
    ) -> None:
        self._client: Any = client
        self._begin, self._epoch = begin, epoch
        self._on_commit, self._probe = on_commit, probe
        self._options = options or Options()
        self._clock = self._options.clock
        self._window = Window(reserve=self._options.reserve)
        self._jobs: list[Active] = []
        self._added: set[str] = set()
        self._flights: dict[int, Flight] = {}
        self._token = 0
        self._arrived: queue.SimpleQueue[tuple[int, Any, float]] = queue.SimpleQueue()
        self._events: list[Event] = []
        self._ended_workers: set[str] = set()
        self._full = False
        self.paused = False
        """whether nothing new is submitted; what is at work comes to its end and is committed"""
        self._chosen_at = self._capacity_at = self._clock()
        self._renew_at = self._clock() + self._options.renew_s

    @property
    def active(self) -> int:
        """How many jobs are not finished."""
        return len(self._jobs)

    def add(self, connection: Connection, job: Job) -> None:
        """Enter a job in the caller's transaction, so that it is there with what called for it; `start` follows."""
        if Ledger(connection, self._epoch, self._options.wall).add(job):
            self._added.add(job.name)

    def start(self, job: Job, work: Work, items: Items) -> None:
        """Begin a job, or go on with it where the ledger says it is; what may run is submitted before this returns.

        `items(leaves)` gives what `work.leaf` needs for a range of leaves; it is called for one branch at a time.
        """
        if any(active.job.name == job.name for active in self._jobs):
            raise ValueError(f"job {job.name} runs already")
        found = self._look_up(job)
        if isinstance(found, JobDone):
            self._events.append(found)
            return
        active = Active(job, to_bytes(work), items, found)
        bisect.insort(self._jobs, active, key=lambda other: -other.job.lane)
        self._turn([])

    def step(self, timeout: float | None = None) -> list[Event]:
        """Wait until something happened, at most `timeout` seconds, and give it; nothing at once when there is no job.

        Everything that has arrived is committed in one transaction, and what may follow is submitted right after.
        """
        until = None if timeout is None else self._clock() + timeout
        waiting = True
        while waiting:
            self._turn(self._receive(self._pause(until)))
            late = until is not None and self._clock() >= until
            waiting = bool(self._jobs) and not (self._events or late)
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        """Let go of everything in flight and wait for nothing; the ledger knows where to go on."""
        for token in list(self._flights):
            self._drop(token)
        self._jobs.clear()

    def _look_up(self, job: Job) -> Frontier | JobDone:
        limits = self._options.limits
        if job.name in self._added:
            self._added.remove(job.name)
            return Frontier(job.name, job.tree, limits, iter(range(job.tree.width(1))))
        with self._begin() as connection:
            ledger = Ledger(connection, self._epoch, self._options.wall)
            if ledger.add(job):
                return Frontier(job.name, job.tree, limits, iter(range(job.tree.width(1))))
            root = ledger.root(job)
            if root is not None:
                return JobDone(job, root)
            ledger.mark(job.name, JobState.OPEN)
            past = ledger.past(job)
        return Frontier(job.name, job.tree, limits, self._open_branches(job), past)

    # waiting

    def _pause(self, until: float | None) -> float | None:
        if self._events or not self._jobs:
            return 0.0
        moments = [self._renew_at, *(flight.check_at for flight in self._flights.values())]
        # What was due when launches were last chosen waits for room, and so for an arrival.
        wakes = [active.frontier.wake_at(self._chosen_at) for active in self._jobs]
        moments += [due for due in wakes if due is not None]
        moments += [self._capacity_at] if self._full else []
        moments += [] if until is None else [until]
        return max(0.0, min(moments) - self._clock())

    def _receive(self, pause: float | None) -> list[tuple[int, Any, float]]:
        arrivals = []
        try:
            arrivals.append(self._arrived.get(timeout=pause))
            while True:
                arrivals.append(self._arrived.get_nowait())
        except queue.Empty:
            return arrivals

    async def _collect(self, token: int, future: Future[Any]) -> None:
        # Runs in the client's event loop: one await covers the end of the task and the way of its small result.
        try:
            value = await future
        except _ANY_END as error:
            value = error
        self._arrived.put((token, value, self._options.wall()))

    # one turn: take in what arrived, choose what follows, write it all down, submit

    def _turn(self, arrivals: Sequence[tuple[int, Any, float]]) -> None:
        if self._client.status != "running":
            raise SchedulerLost(_LOST.format(self._client.status))
        turn = Turn()
        for token, value, arrived_at in arrivals:
            flight = self._drop(token)
            if flight is not None:
                self._take_in(turn, flight, self._outcome(flight, value), arrived_at)
        self._look_for_overdue(turn)
        self._look_for_ends(turn)
        self._let_go(turn.ended)
        self._look_at_capacity()
        self._choose(turn)
        if turn:
            joins = self._write(turn)
            self._let_go(turn.ended)
            for (active, launch, items), join in zip(turn.launches, joins, strict=True):
                self._submit(active, launch, join, items)
        elif self._clock() >= self._renew_at:
            with self._begin() as connection:
                self._renew(connection)

    def _let_go(self, ended: Container[str]) -> None:
        self._jobs = [active for active in self._jobs if active.job.name not in ended]
        for token in [t for t, flight in self._flights.items() if flight.active.job.name in ended]:
            self._drop(token)

    def _outcome(self, flight: Flight, value: Any) -> NodeReceipt | Partial:
        if isinstance(value, NodeReceipt | Partial):
            return value
        if isinstance(value, _CANCELLED):
            raise SchedulerLost(_LOST.format(value))
        if isinstance(value, KilledWorker) and value.last_worker.address in self._ended_workers:
            return Partial()  # it was this driver that ended the worker: nobody's fault
        return Partial(failures=(failure_of(value, flight.active.job, flight.launch),))

    def _take_in(self, turn: Turn, flight: Flight, outcome: NodeReceipt | Partial, arrived_at: float) -> None:
        active, launch = flight.active, flight.launch
        job, node = active.job, launch.node
        if isinstance(outcome, NodeReceipt):
            good = node.level > 1 or len(outcome.aside) < len(outcome.leaves)
            turn.commits.append(NodeCommitted(job, node, outcome, flight.submitted_at, arrived_at))
            turn.attempts[node] = launch.attempt
            if active.frontier.commit(node, good=good):
                turn.ended[job.name] = JobDone(job, outcome)
            return
        for failure in outcome.failures:
            who = "merge" if failure.leaf is None else f"leaf {failure.leaf}"
            logger.warning("%s, %s: %s (%s)", job.group, who, failure.message, failure.cause)
        turn.failed.append((launch, outcome))
        stop = active.frontier.fail(launch, outcome, self._clock())
        if isinstance(stop, Stop):
            turn.ended.setdefault(job.name, JobFailed(job, stop.reason, stop.held))

    def _look_for_ends(self, turn: Turn) -> None:
        """Jobs of which something is given up end once all the rest is done."""
        for active in self._jobs:
            stop = None if active.job.name in turn.ended else active.frontier.end(self._clock())
            if stop is not None:
                turn.ended[active.job.name] = JobFailed(active.job, stop.reason)

    def _choose(self, turn: Turn) -> None:
        now = self._chosen_at = self._clock()
        self._full = False
        if self.paused:
            return
        for active in self._jobs:
            job, frontier = active.job, active.frontier
            while (launch := frontier.peek(now)) and self._window.admits(launch, job.lane, job.fan_in):
                frontier.take()
                self._window.add(launch, job.lane)
                turn.launches.append((active, launch, items_of(active, launch)))
            self._full = self._full or launch is not None
            if self._window.closed or (launch is not None and launch.alone):
                return  # a suspect runs, or waits for the others to end

    def _write(self, turn: Turn) -> list[Join]:
        with self._begin() as connection:
            ledger = Ledger(connection, self._epoch, self._options.wall)
            for event in turn.commits:
                if event.job.name not in turn.refused:
                    self._commit(connection, ledger, turn, event)
            for launch, partial in turn.failed:
                ledger.failed(launch, partial)
            for name, end in turn.ended.items():
                ledger.mark(name, *_state(end))
                self._events.append(end)
            self._call_off(turn)
            ledger.started([launch for _, launch, _ in turn.launches])
            joins = [join_of(ledger, active, launch) for active, launch, _ in turn.launches]
            self._renew(connection)
            self._probe("ledger-commit")
        self._probe("ledger-committed")
        return joins

    def _commit(self, connection: Connection, ledger: Ledger, turn: Turn, event: NodeCommitted) -> None:
        try:
            with connection.begin_nested():
                if not ledger.commit(event.node, event.receipt, turn.attempts[event.node]):
                    return
                self._on_commit(connection, event.job, event.node, event.receipt)
        except Refused as refusal:
            logger.warning("%s is not committed: %s", event.job.group, refusal)
            turn.refused.add(event.job.name)
            turn.ended[event.job.name] = JobFailed(event.job, str(refusal))
        else:
            self._events.append(event)

    def _call_off(self, turn: Turn) -> None:
        """What was chosen to run next of a job that has ended since does not run."""
        for active, launch, _ in turn.launches:
            if active.job.name in turn.refused:
                self._window.remove(launch, active.job.lane)
        turn.launches = [chosen for chosen in turn.launches if chosen[0].job.name not in turn.refused]

    def _renew(self, connection: Connection) -> None:
        if self._clock() >= self._renew_at:
            renew_lease(connection, self._epoch, self._options.wall())
            self._renew_at = self._clock() + self._options.renew_s

    def _submit(self, active: Active, launch: Launch, join: Join, items: dict[int, Any]) -> None:
        job = active.job
        graph, key = build_graph(job, launch, self._epoch, active.work, join, items)
        self._probe("submit")
        # Each graph its own generation: Dask then finishes branches in order instead of all at once.
        future = self._client.get(graph, key, sync=False, priority=int(job.lane), fifo_timeout="0s")
        check_at = float("inf") if job.limit_s is None else self._clock() + job.limit_s
        self._token += 1
        self._flights[self._token] = Flight(active, launch, key, future, self._options.wall(), check_at)
        self._client.loop.add_callback(self._collect, self._token, future)

    def _drop(self, token: int) -> Flight | None:
        flight = self._flights.pop(token, None)
        if flight is not None:
            flight.future.release()  # type: ignore[no-untyped-call]
            self._window.remove(flight.launch, flight.active.job.lane)
        return flight

    # what only Dask knows

    def _look_at_capacity(self) -> None:
        if self._clock() >= self._capacity_at:
            self._window.threads = max(1, sum(self._client.nthreads().values()))
            self._capacity_at = self._clock() + self._options.capacity_s

    def _look_for_overdue(self, turn: Turn) -> None:
        late = {token: flight for token, flight in self._flights.items() if flight.check_at <= self._clock()}
        if not late:
            return
        tasks = self._client.run_on_scheduler(executing)
        for token, flight in late.items():
            job = flight.active.job
            failures, workers = overdue(tasks, job, flight.launch, flight.key)
            flight.check_at = self._clock() + (job.limit_s or 0.0) / 4
            if failures:
                self._drop(token)
                self._take_in(turn, flight, Partial(failures=tuple(failures)), self._options.wall())
                self._ended_workers |= workers
                self._client.loop.add_callback(self._restart, list(workers))

    async def _restart(self, workers: list[str]) -> None:
        # Dask cannot stop a running task: its worker must go.
        try:
            await self._client.restart_workers(workers, raise_for_error=False)
        except Exception:
            logger.exception("workers %s run over their time limit and could not be restarted", workers)

    def _open_branches(self, job: Job) -> Iterator[int]:
        page, after = 1000, -1
        while after < job.tree.width(1) - 1:
            with self._begin() as connection:
                found = Ledger(connection, self._epoch).open_branches(job, after, page)
            yield from found
            after += page


def _state(end: JobDone | JobFailed) -> tuple[JobState, str]:
    if isinstance(end, JobDone):
        return JobState.DONE, ""
    return (JobState.HELD if end.stop else JobState.FAILED), end.reason
