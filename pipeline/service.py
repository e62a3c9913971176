"""The thin loop: it asks the rules what may happen next, has it done, and writes down where every run stands."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NoReturn

from jobs.flight import Items
from jobs.job import Job
from jobs.reduction import NodeReceipt
from jobs.runner import JobDone, JobFailed, NodeCommitted, Runner
from pipeline import accounting
from pipeline.agenda import Agenda
from pipeline.canaries import Canaries
from pipeline.canary import CANARY
from pipeline.certifying import astray, certification
from pipeline.chain import Chain
from pipeline.closing import Closed, Closures
from pipeline.desk import Desk
from pipeline.express import (
    INGREDIENTS,
    Cut,
    express_ingredients,
    express_job,
    express_starts,
    express_tiers,
    express_writes,
    finalize_ingredients,
    finalize_job,
    ingredients_of,
)
from pipeline.feeding import feed_express
from pipeline.handshake import Hold, Release, Wait, decide, offered
from pipeline.links import Ask
from pipeline.manifest import Manifest
from pipeline.passes import Passes
from pipeline.prompt import prompt_job, prompt_tiers
from pipeline.release import NoConditions, release
from pipeline.restarts import written
from pipeline.site import REMEDY, SiteStopped
from pipeline.standing import LOOK_S, NewOrders
from pipeline.verdicts import keep_verdicts
from pipeline.views import Views
from pipeline.way import Done, News, Part, Stage, Way
from pipeline.world import World

PAGE = 100
"""jobs entered at a time when all begins: the first can start while others are prepared"""


class Service:
    """Takes runs from express to certification. Everything it knows can be read back from the database.

    A run is looked at when something happened to it or to a run it waits for, and when its time has come. What a turn
    brings is written down together: with the release that follows from it, else at the end of the turn. A start that
    was killed before finds it in the ledger again.
    """

    def __init__(
        self,
        world: World,
        runner: Runner,
        ways: Sequence[Way],
        chains: Sequence[Chain],
        listen: Callable[[News], None],
    ) -> None:
        self._world = world
        self._runner = runner
        self._ways = {way.run: way for way in ways}
        self._chains = list(chains)
        self._standing = world.standing()
        self._desk = Desk(world.books, runner, listen, self._site_stops)
        self._canaries = Canaries(world, self._desk.start, self._mark)
        beside = world.undecided_beside(self._ways)
        self._closures = Closures(world, self._desk.start)
        self._views = Views(chains, world.books.released(), beside, self._standing, world.books.datasets)
        self._passes = Passes(world, self._desk.start, self._desk.minutes, chains, self._views)
        self._caught_up = False
        self._agenda = Agenda()
        self._late: dict[str, set[int]] = {chain.kind: set() for chain in chains}

    def work_off(self, wait: bool = False) -> None:
        """Go on until every run has ended or waits for a time still to come; with `wait`, for that time too.

        Raises SiteStopped when nothing can run.
        """
        for way in self._ways.values():
            way.began_at = self._world.now()
            for part in way.parts:
                part.wake_at = part.deadline_at
            self._agenda.wait(way.run, way.wake_at)
        self._runner.paused = bool(self._standing.stopped)
        for way in self._ways.values():
            self._begin(way)
            self._go_on()
            if self._desk.waiting >= PAGE:
                self._desk.write_down()
        self._catch_up()
        while self._desk.busy or (wait and self._agenda.next_at() is not None):
            if self._desk.busy:
                events = self._runner.step(self._patience())
            else:
                events = []
                time.sleep(min(self._patience(), 1.0))
            self._turn(events)

    def _catch_up(self) -> None:
        """Take in all that the ledger has already: no deadline counts against what is concluded."""
        self._desk.write_down()
        while events := self._runner.step(0.0):
            self._turn(events)
        self._caught_up = True
        self._turn([])

    def _now(self) -> float:
        return self._world.now() if self._caught_up else -math.inf

    def _patience(self) -> float:
        """Seconds until a deadline passes, or until it is time to look for orders."""
        wake_at = self._agenda.next_at()
        return LOOK_S if wake_at is None else max(0.0, min(LOOK_S, wake_at - self._world.now()))

    def _obey(self, new: bool) -> None:
        """Orders of people, where there are new ones, count from now on and for every run."""
        if new:
            self._runner.paused = bool(self._standing.stopped)
            for run in self._ways:
                self._agenda.mark(run)

    def _turn(self, events: Sequence[JobDone | JobFailed | NodeCommitted]) -> None:
        for event in events:
            self._desk.take(event)
            self._go_on()
        self._obey(self._standing.look())
        self._go_on()
        self._desk.write_down()

    def _site_stops(self, reason: str) -> NoReturn:
        for way in self._ways.values():
            if not way.ended:
                for part in (part for part in way.parts if not part.ended):
                    part.reasons = {"site": reason}
                self._desk.tell(way)
        self._desk.start_nothing()
        self._desk.write_down()
        raise SiteStopped(f"{reason}; {REMEDY}")

    def _go_on(self) -> None:
        """Look at every run that must be looked at, then ask for the finalizations that may follow."""
        while True:
            for changed in sorted({run for chain in self._chains for run in chain.changed()}):
                self._agenda.mark(changed)
                self._agenda.changed(changed)
            run = self._agenda.pop(self._now())
            # Releases first: what they settle, a finalization must see, as it would after a restart.
            if run is not None:
                self._look_at(self._ways[run])
            elif not self._ask():
                return

    def _mark(self, way: Way) -> None:
        self._agenda.mark(way.run)

    # express ----------------------------------------------------------------------------------------------------

    def _begin(self, way: Way) -> None:
        made = self._world.products.made(list(way.products.values()))
        missing = {name: value for name, value in way.products.items() if value not in made}
        if not missing:
            self._express_done(way, made)
            return
        job, work = express_job(way.context, missing, self._world.probe)
        made |= dict.fromkeys(missing.values(), job.name)
        chunks = self._chunks(way.run, way.context.express, express_starts(way.context, missing))
        ends = (partial(self._express_ran, way, made, job), partial(self._express_stops, way, job.group))
        self._desk.start(way, job, work, chunks, ends)
        if way.undecided:
            self._enter(way, Stage.EXPRESS, way.undecided)
            self._agenda.mark(way.run)

    def _chunks(self, run: int, cut: Cut, tiers: Mapping[str, str]) -> Items:
        return partial(self._world.chunks, run, cut.layout, earlier=self._world.products.earlier(tiers))

    def _express_ran(self, way: Way, made: Mapping[str, str], job: Job, root: NodeReceipt) -> None:
        problem = self._unbalanced(way.run, job, way.context.express)
        if problem:
            self._express_stops(way, job.group, problem)
            return
        new = [name for name, by in made.items() if by == job.name]
        wanted = [name for name, product in way.products.items() if product in new]
        left = written(express_tiers(way.context), express_writes(way.context, wanted))
        self._desk.minutes.add(accounting.add_products, [*new, *left], job.name)
        self._desk.minutes.add(self._world.books.enter_for_ever, way.run, INGREDIENTS, express_ingredients(way.context))
        self._express_done(way, made)

    def _express_done(self, way: Way, made: Mapping[str, str]) -> None:
        if way.undecided:
            self._enter(way, Stage.CONDITIONS, way.undecided)
        files = {job: self._world.products.result(job).state.files[0].path for job in set(made.values())}
        self._passes.begin(way, {product: files[job] for product, job in made.items()})
        # Before anything is decided: a finalization that is at work is waited for, whatever the deadline says.
        self._ask()
        self._agenda.mark(way.run)

    def _express_stops(self, way: Way, group: str, reason: str) -> None:
        # What was released at its deadline is in prompt, which goes on.
        if way.undecided:
            self._stop(way, way.undecided, group, reason)
        else:
            self._desk.minutes.set_aside(way.run, "step", group, reason)
        self._break(way.run, group, reason)

    # conditions -------------------------------------------------------------------------------------------------

    def _ask(self) -> bool:
        asks = [(chain, ask) for chain in self._chains for ask in chain.asks(self._late[chain.kind])]
        for chain, ask in asks:
            self._finalize(chain, ask)
        return bool(asks)

    def _finalize(self, chain: Chain, ask: Ask) -> None:
        way = self._ways[ask.run]
        job = finalize_job(ask.run, ask.work, ask.states, way.context.limit_s)
        work = replace(ask.work, probe=self._world.probe)
        ends = (partial(self._concluded, chain, ask), partial(self._failed, chain, ask.run))
        self._desk.start(way, job, work, lambda leaves: [ask.states], ends)

    def _concluded(self, chain: Chain, ask: Ask, root: NodeReceipt) -> None:
        note = root.leaves[0].note
        if note.get("failed"):
            self._failed(chain, ask.run, str(note["failed"]))
            return
        conclusions = self._passes.weigh(self._ways[ask.run], chain, ask, note["conclusions"], self._now())
        if conclusions is None:
            return
        chain.concluded(ask.run, conclusions, self._world.store)
        self._desk.minutes.add(keep_verdicts, self._world.books, chain, ask.run)
        made_of = finalize_ingredients(ask.work, ask.states)
        self._desk.minutes.add(self._world.books.enter_for_ever, ask.run, ingredients_of(chain.kind), made_of)
        self._desk.minutes.add(self._world.books.mended, ask.run, "conditions", chain.kind)

    def _failed(self, chain: Chain, run: int, reason: str) -> None:
        chain.broken(run, f"finalize failed: {reason}")
        self._desk.minutes.set_aside(run, "conditions", chain.kind, reason)

    def _look_at(self, way: Way) -> None:
        now = self._now()
        for kind, late in self._late.items():
            if now >= way.waited_for(kind):
                late.add(way.run)
        if not way.undecided:
            return
        looked = self._passes.look(way, now)
        if looked.ready:
            self._ask()
        for part in way.undecided:
            self._decide(way, part, now)
        self._agenda.wait(way.run, way.wake_at, looked.watched)

    def _decide(self, way: Way, part: Part, now: float) -> None:
        settled = self._views.manifest(way.run, part.dataset.name)
        # The deadline does not wait for express either.
        ripe = part.stage is Stage.EXPRESS and (now >= part.deadline_at or settled is not None)
        if part.stage is not Stage.CONDITIONS and not ripe:
            return
        if settled is not None:
            self._prompt(way, part, settled)
            return
        view = self._views.of(way, part, now)
        part.offered = offered(view)
        found = decide(view, part.rules, now)
        if isinstance(found, Release):
            found = self._canaries.after(way, part, found, self._standing.waivers(way.run).get(CANARY))
        if isinstance(found, Release):
            self._release(way, part, found)
        else:
            self._wait(way, part, found, list(self._views.watched(view, found)))

    def _wait(self, way: Way, part: Part, found: Wait | Hold, watched: Sequence[int] = ()) -> None:
        part.wake_at = found.wake_at
        self._agenda.wait(way.run, way.wake_at, watched)
        if dict(found.reasons) != dict(part.reasons):
            part.reasons = found.reasons
            self._agenda.changed(way.run)
            self._desk.tell(way)

    def _release(self, way: Way, part: Part, found: Release) -> None:
        world = self._world
        try:
            with world.books.begin() as connection:
                self._standing.confirm(connection)
                self._desk.minutes.write(connection)
                db = world.conditions(connection)
                manifest = release(db, way.run, way.units, found, world.publication(), world.probe)
                job, _ = prompt_job(way.context, part.dataset, manifest, world.tiers, world.probe)
                world.books.add_manifest(connection, manifest)
                feed_express(world, connection, manifest, found.settled)
                self._runner.add(connection, job)
        except NoConditions as lack:
            self._wait(way, part, Hold({"conditions": str(lack)}))
            return
        except NewOrders:
            self._obey(new=True)
            return
        self._desk.minutes.done()
        self._views.released(manifest)
        self._prompt(way, part, manifest)

    # prompt and certification -----------------------------------------------------------------------------------

    def _prompt(self, way: Way, part: Part, manifest: Manifest) -> None:
        part.manifest, part.reasons, part.wake_at = manifest, {}, None
        self._agenda.wait(way.run, way.wake_at)
        settled = self._views.settled(way.run) or manifest
        for chain in self._chains:
            if chain.kind in settled.kinds or not way.undecided:
                chain.settle(way.run, settled.at_end(chain.kind))
        job, work = prompt_job(way.context, part.dataset, manifest, self._world.tiers, self._world.probe)
        part.prompt = job.name
        self._world.probe("released")
        self._enter(way, Stage.PROMPT, [part])
        tiers = prompt_tiers(way.context, part.dataset, manifest)
        left = written(tiers, self._world.tiers)
        ends = (partial(self._prompt_done, way, part, job, left), partial(self._prompt_stops, way, part, job.group))
        self._desk.expect(way, Stage.PROMPT, job, ends)
        self._runner.start(job, work, self._chunks(way.run, way.context.prompt, tiers))

    def _prompt_done(self, way: Way, part: Part, job: Job, left: Sequence[str], root: NodeReceipt) -> None:
        problem = self._unbalanced(way.run, job, way.context.prompt)
        if problem:
            self._prompt_stops(way, part, job.group, problem)
            return
        self._desk.minutes.add(accounting.add_products, left, job.name)
        part.done = Done(job, root)
        if any(other.done is None for other in way.parts):
            self._enter(way, Stage.DONE, [part])
        elif problem := astray(self._world, way):
            self._stop(way, way.parts, job.group, problem)
        else:
            self._closures.after(way, partial(self._certify, way))

    def _prompt_stops(self, way: Way, part: Part, group: str, reason: str) -> None:
        self._stop(way, [part], group, reason)
        if not way.undecided:
            self._break(way.run, group, reason)

    def _certify(self, way: Way, closed: Sequence[Closed]) -> None:
        found = certification(self._world, way, closed)
        self._desk.minutes.add(self._world.books.enter, way.run, "certification", found)
        self._desk.minutes.add(self._world.books.mended, way.run, "step")
        self._enter(way, Stage.CERTIFIED, way.parts)

    def _unbalanced(self, run: int, job: Job, cut: Cut) -> str:
        with self._world.database.read() as connection:
            return accounting.unbalanced(connection, run, job.name, cut.stream)

    # where every run stands -------------------------------------------------------------------------------------

    def _stop(self, way: Way, parts: Iterable[Part], group: str, reason: str) -> None:
        stopped = list(parts)
        self._desk.minutes.set_aside(way.run, "step", group, reason)
        for part in stopped:
            part.reasons, part.wake_at = {group: reason}, None
        self._agenda.wait(way.run, way.wake_at)
        self._enter(way, Stage.STOPPED, stopped)

    def _break(self, run: int, group: str, reason: str) -> None:
        for chain in self._chains:
            if run in chain.links:
                chain.broken(run, f"{group} stopped: {reason}")

    def _enter(self, way: Way, stage: Stage, parts: Iterable[Part]) -> None:
        now, before = self._world.now(), way.stage
        way.seconds[before] = way.seconds.get(before, 0.0) + now - way.began_at
        way.began_at = now
        for part in parts:
            part.stage = stage
        self._desk.tell(way)
