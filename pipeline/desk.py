"""The desk of a service: the jobs it has begun and what follows from each, and what a turn of it has brought."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from jobs.flight import Items
from jobs.job import Job
from jobs.reduction import Work
from jobs.runner import JobDone, JobFailed, NodeCommitted, Runner
from pipeline.books import Books
from pipeline.minutes import Minutes
from pipeline.way import Ends, News, Stage, Way


@dataclass(frozen=True)
class Start:
    """A job that is to be entered and started."""

    job: Job
    work: Work
    items: Items


class Desk:
    """What a turn brings is written down together, jobs that follow from it among it; only then are these started.

    `site_stops` is called with the reason where nothing can run any more.
    """

    def __init__(
        self, books: Books, runner: Runner, listen: Callable[[News], None], site_stops: Callable[[str], NoReturn]
    ) -> None:
        self.minutes = Minutes(books)
        self._books, self._runner, self._listen, self._site_stops = books, runner, listen, site_stops
        self._next: dict[str, Ends] = {}
        self._leaves: dict[str, tuple[int, Stage, int, int]] = {}
        self._starts: list[Start] = []

    @property
    def busy(self) -> bool:
        """Whether a job is to come to its end."""
        return bool(self._next)

    @property
    def waiting(self) -> int:
        """How many jobs are to be entered with what else is written down."""
        return len(self._starts)

    def start(self, way: Way, job: Job, work: Work, items: Items, ends: Ends) -> None:
        """Have a job entered and started at the end of the turn."""
        self.expect(way, way.stage, job, ends)
        self._starts.append(Start(job, work, items))

    def expect(self, way: Way, stage: Stage, job: Job, ends: Ends) -> None:
        """Say what follows a job."""
        self._next[job.name] = ends
        self._leaves[job.name] = (way.run, stage, 0, job.leaves)

    def take(self, event: JobDone | JobFailed | NodeCommitted) -> None:
        """Do what follows."""
        if isinstance(event, NodeCommitted):
            self._count(event)
            return
        then, otherwise = self._next.pop(event.job.name)
        if isinstance(event, JobDone):
            then(event.root)
        elif event.stop:
            self._site_stops(event.reason)
        else:
            otherwise(event.reason)

    def _count(self, event: NodeCommitted) -> None:
        if event.node.level == 1 and event.node.job in self._leaves:
            run, stage, done, total = self._leaves[event.node.job]
            done += len(event.receipt.leaves)
            self._leaves[event.node.job] = (run, stage, done, total)
            self._listen(News(run, stage, done, total))

    def tell(self, way: Way) -> None:
        """Have it written down, and shown, where a run stands."""
        self.minutes.tell(way)
        self._listen(News(way.run, way.stage, text="; ".join(way.reasons.values())))

    def write_down(self) -> None:
        """Enter what this turn has brought, with the jobs that follow from it; then start these."""
        starts, self._starts = self._starts, []
        if self.minutes or starts:
            with self._books.begin() as connection:
                self.minutes.write(connection)
                for start in starts:
                    self._runner.add(connection, start.job)
            self.minutes.done()
        for start in starts:
            self._runner.start(start.job, start.work, start.items)

    def start_nothing(self) -> None:
        """Forget the jobs that were to be started."""
        self._starts.clear()
