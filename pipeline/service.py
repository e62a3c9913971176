"""The thin loop: it asks the rules what may happen next, has it done, and writes down where every run stands."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import NoReturn

from jobs.flight import Items
from jobs.job import Job
from jobs.reduction import NodeReceipt, Work
from jobs.runner import JobDone, JobFailed, NodeCommitted, Runner
from pipeline import accounting
from pipeline.canaries import Canaries
from pipeline.canary import CANARY
from pipeline.certifying import certification
from pipeline.chain import Ask, Chain
from pipeline.express import (
    EVENTS,
    INGREDIENTS,
    Cut,
    StateFile,
    express_ingredients,
    express_job,
    express_products,
    express_tiers,
    finalize_ingredients,
    finalize_job,
    ingredients_of,
    state_product,
)
from pipeline.handshake import Hold, KindView, Manifest, Release, RunView, Wait, carried_in_a_row, decide, offered
from pipeline.journal import Setback
from pipeline.model import Chunk
from pipeline.prompt import prompt_job, prompt_tiers
from pipeline.release import NoConditions, release
from pipeline.restarts import written
from pipeline.site import REMEDY, SiteStopped
from pipeline.standing import LOOK_S, NewOrders
from pipeline.verdicts import keep_verdicts
from pipeline.way import Ends, News, Stage, Way
from pipeline.world import World


class Service:
    """Takes runs from express to certification. Everything it knows can be read back from the database."""

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
        self._chain_of = {(chain.kind, run): chain for chain in chains for run in chain.runs}
        self._listen = listen
        self._canaries = Canaries(world, self._start_job, self._try_release)
        self._standing = world.standing()
        self._manifests = world.books.manifests()
        self._elsewhere = world.undecided_beside(self._ways)
        self._caught_up = False
        self._next: dict[str, Ends] = {}
        self._leaves: dict[str, tuple[int, Stage, int, int]] = {}

    def work_off(self, wait: bool = False) -> None:
        """Go on until every run has ended or waits for a time still to come; with `wait`, for that time too.

        Raises SiteStopped when nothing can run.
        """
        for way in self._ways.values():
            way.began_at, way.wake_at = self._world.now(), way.deadline_at
        self._obey()
        for way in self._ways.values():
            self._begin(way)
        self._catch_up()
        while self._next or (wait and self._wakes()):
            if self._next:
                events = self._runner.step(self._patience())
            else:
                events = []
                time.sleep(min(self._patience(), 1.0))
            for event in events:
                self._take(event)
            self._look_again()

    def _catch_up(self) -> None:
        """Take in all that the ledger has already: no deadline counts against what is concluded."""
        while events := self._runner.step(0.0):
            for event in events:
                self._take(event)
        self._caught_up = True
        self._look_again()

    def _now(self) -> float:
        return self._world.now() if self._caught_up else -math.inf

    def _wakes(self) -> list[float]:
        return [way.wake_at for way in self._ways.values() if way.wake_at is not None and not way.ended]

    def _patience(self) -> float:
        """Seconds until a deadline passes, or until it is time to look for orders."""
        return max(0.0, min([LOOK_S, *(wake - self._world.now() for wake in self._wakes())]))

    def _obey(self) -> bool:
        """Whether people have ordered anything new, which counts from now on."""
        new = self._standing.look()
        self._runner.paused = bool(self._standing.stopped)
        return new

    def _take(self, event: JobDone | JobFailed | NodeCommitted) -> None:
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

    def _site_stops(self, reason: str) -> NoReturn:
        for way in self._ways.values():
            if not way.ended:
                way.reasons = {"site": reason}
                self._tell(way)
        raise SiteStopped(f"{reason}; {REMEDY}")

    def _start(
        self,
        job: Job,
        work: Work,
        items: Items,
        then: Callable[[NodeReceipt], None],
        way: Way,
        stops: Callable[[Way, str, str], None],
    ) -> None:
        self._start_job(way, job, work, items, (then, partial(stops, way, job.group)))

    def _start_job(self, way: Way, job: Job, work: Work, items: Items, ends: Ends) -> None:
        self._next[job.name] = ends
        self._leaves[job.name] = (way.run, way.stage, 0, job.leaves)
        self._runner.start(job, work, items)

    def _count(self, event: NodeCommitted) -> None:
        if event.node.level == 1 and event.node.job in self._leaves:
            run, stage, done, total = self._leaves[event.node.job]
            done += len(event.receipt.leaves)
            self._leaves[event.node.job] = (run, stage, done, total)
            self._listen(News(run, stage, done, total))

    # express ----------------------------------------------------------------------------------------------------

    def _begin(self, way: Way) -> None:
        wanted = express_products(way.context)
        made = self._world.products.made(list(wanted.values()))
        missing = {name: value for name, value in wanted.items() if value not in made}
        if not missing:
            self._express_done(way, wanted)
            return
        job, work = express_job(way.context, missing, self._world.probe)
        chunks = self._chunks(way.run, way.context.express, express_tiers(way.context))
        self._start(job, work, chunks, partial(self._express_ran, way, wanted, missing, job), way, self._express_stops)
        if way.manifest is None:
            self._enter(way, Stage.EXPRESS)
            self._try_release(way)

    def _chunks(self, run: int, cut: Cut, tiers: Mapping[str, str]) -> Callable[[range], Sequence[Chunk]]:
        return partial(self._world.chunks, run, cut.layout, earlier=self._world.products.earlier(tiers))

    def _express_ran(
        self, way: Way, wanted: Mapping[str, str], missing: Mapping[str, str], job: Job, root: NodeReceipt
    ) -> None:
        problem = self._unbalanced(way.run, job, way.context.express)
        if problem:
            self._express_stops(way, job.group, problem)
            return
        left = express_tiers(way.context).values() if EVENTS in missing else ()
        self._world.products.add([*missing.values(), *left], job.name)
        self._world.books.record_for_ever(way.run, INGREDIENTS, express_ingredients(way.context))
        self._express_done(way, wanted)

    def _express_done(self, way: Way, wanted: Mapping[str, str]) -> None:
        if way.manifest is None:
            self._enter(way, Stage.CONDITIONS)
        made = self._world.products.made(list(wanted.values()))
        for calibration in way.context.calibrations:
            product = wanted[state_product(calibration.kind)]
            root = self._world.products.result(made[product])
            chain = self._chain_of[calibration.kind, way.run]
            chain.ready(way.run, StateFile(root.state.files[0].path, product))
        # Before anything is decided: a finalization that is at work is waited for, whatever the deadline says.
        self._ask()
        self._try_release(way)
        if way.manifest is not None:
            self._after_verdict()

    def _express_stops(self, way: Way, group: str, reason: str) -> None:
        if way.manifest is None:
            self._stop(way, group, reason)
            return
        # It was released at its deadline, and prompt goes on.
        self._set_aside(way.run, "step", group, reason)
        self._break(way.run, group, reason)

    # conditions -------------------------------------------------------------------------------------------------

    def _ask(self) -> None:
        late = {run for run, way in self._ways.items() if self._now() >= way.deadline_at}
        for chain in self._chains:
            for ask in chain.asks(late):
                self._finalize(chain, ask)

    def _finalize(self, chain: Chain, ask: Ask) -> None:
        way = self._ways[ask.run]
        job = finalize_job(ask.run, ask.work, ask.states, way.context.limit_s)
        work = replace(ask.work, probe=self._world.probe)
        ends = (partial(self._concluded, chain, ask), partial(self._failed, chain, ask.run))
        self._start_job(way, job, work, lambda leaves: [ask.states], ends)

    def _concluded(self, chain: Chain, ask: Ask, root: NodeReceipt) -> None:
        note = root.leaves[0].note
        if note.get("failed"):
            self._failed(chain, ask.run, str(note["failed"]))
            return
        chain.concluded(ask.run, note["conclusions"], self._world.store)
        keep_verdicts(self._world.books, chain, ask.run)
        self._after_verdict()
        made_of = finalize_ingredients(ask.work, ask.states)
        self._world.books.record_for_ever(ask.run, ingredients_of(chain.kind), made_of)
        self._world.books.mended(ask.run, "conditions", chain.kind)

    def _failed(self, chain: Chain, run: int, reason: str) -> None:
        chain.broken(run, f"finalize failed: {reason}")
        self._set_aside(run, "conditions", chain.kind, reason)
        self._after_verdict()

    def _after_verdict(self) -> None:
        # Releases first: a run whose manifest is complete must not wait for the bookkeeping of others.
        for way in self._ways.values():
            self._try_release(way)
        self._ask()

    def _look_again(self) -> None:
        new, now = self._obey(), self._now()
        due = [way for way in self._ways.values() if new or (way.wake_at is not None and way.wake_at <= now)]
        for way in due:
            self._try_release(way)
        if due:
            self._ask()

    def _try_release(self, way: Way) -> None:
        # The deadline does not wait for express either.
        ripe = way.run in self._manifests or self._now() >= way.deadline_at
        if way.stage is not Stage.CONDITIONS and not (way.stage is Stage.EXPRESS and ripe):
            return
        settled = self._manifests.get(way.run)
        if settled is not None:
            self._prompt(way, settled)
            return
        view = self._view(way)
        way.offered = offered(view)
        found = decide(view, way.rules, self._now())
        if isinstance(found, Release):
            found = self._canaries.after(way, found, self._standing.waivers(way.run).get(CANARY))
        if isinstance(found, Release):
            self._release(way, found)
        else:
            self._wait(way, found)

    def _view(self, way: Way) -> RunView:
        first, last = int(way.units[0]), int(way.units[-1])
        kinds = tuple(self._kind_view(kind, way.run) for kind in way.required)
        return RunView(way.run, (first, last), kinds, way.deadline_at, self._standing.held(way.run))

    def _kind_view(self, kind: str, run: int) -> KindView:
        chain = self._chain_of.get((kind, run))
        if chain is None:
            return KindView(kind, judged=None, calibrated=False)
        judged = chain.judged(run)
        undecided = (r for r in chain.runs if r < run and self._is_undecided(chain, r))
        elsewhere = (r for r, deadline in self._elsewhere.items() if r < run and self._now() < deadline)
        first = min((*islice(undecided, 1), *elsewhere), default=None)
        before = carried_in_a_row(self._manifests, kind, run) if judged is not None else 0
        return KindView(
            kind,
            judged,
            waits_for=chain.waits_for(run),
            broken=chain.is_broken(run),
            running=chain.is_running(run),
            relative=chain.links[run].relative,
            carried_before=before,
            earlier_undecided=first,
            waiver=self._standing.waivers(run).get(kind),
        )

    def _is_undecided(self, chain: Chain, run: int) -> bool:
        way = self._ways[run]
        return way.manifest is None and not way.ended and chain.publishes(run)

    def _wait(self, way: Way, found: Wait | Hold) -> None:
        way.wake_at = found.wake_at
        if dict(found.reasons) != dict(way.reasons):
            way.reasons = found.reasons
            self._tell(way)

    def _release(self, way: Way, found: Release) -> None:
        world = self._world
        try:
            with world.books.begin() as connection:
                self._standing.confirm(connection)
                db = world.conditions(connection)
                manifest = release(db, way.run, way.units, found, world.publication(), world.probe)
                job, _ = prompt_job(way.context, manifest, world.tiers, world.probe)
                world.books.add_manifest(connection, manifest)
                self._runner.add(connection, job)
        except NoConditions as lack:
            self._wait(way, Hold({"conditions": str(lack)}))
            return
        except NewOrders:
            self._obey()
            self._after_verdict()
            return
        self._prompt(way, manifest)

    # prompt and certification -----------------------------------------------------------------------------------

    def _prompt(self, way: Way, manifest: Manifest) -> None:
        way.manifest, way.reasons, way.wake_at = manifest, {}, None
        self._manifests[way.run] = manifest
        otherwise = [chain for chain in self._chains if chain.settle(way.run, manifest.at_end(chain.kind))]
        if otherwise:
            self._ask()
        job, work = prompt_job(way.context, manifest, self._world.tiers, self._world.probe)
        way.prompt = job.name
        self._world.probe("released")
        self._enter(way, Stage.PROMPT, write=False)
        chunks = self._chunks(way.run, way.context.prompt, prompt_tiers(way.context, manifest))
        self._start(job, work, chunks, partial(self._prompt_done, way, job, manifest), way, self._stop)
        self._tell(way)

    def _prompt_done(self, way: Way, job: Job, manifest: Manifest, root: NodeReceipt) -> None:
        problem = self._unbalanced(way.run, job, way.context.prompt)
        if problem:
            self._stop(way, job.group, problem)
            return
        self._world.products.add(written(prompt_tiers(way.context, manifest), self._world.tiers), job.name)
        self._world.books.record(way.run, "certification", certification(self._world, way, manifest, job, root))
        self._world.books.mended(way.run, "step")
        self._enter(way, Stage.CERTIFIED)

    def _unbalanced(self, run: int, job: Job, cut: Cut) -> str:
        with self._world.database.read() as connection:
            return accounting.unbalanced(connection, run, job.name, cut.stream)

    # where every run stands -------------------------------------------------------------------------------------

    def _stop(self, way: Way, group: str, reason: str) -> None:
        self._set_aside(way.run, "step", group, reason)
        way.reasons, way.wake_at = {group: reason}, None
        self._enter(way, Stage.STOPPED)
        self._break(way.run, group, reason)

    def _break(self, run: int, group: str, reason: str) -> None:
        for chain in self._chains:
            if run in chain.links:
                chain.broken(run, f"{group} stopped: {reason}")
        self._after_verdict()

    def _set_aside(self, run: int, kind: str, place: str, reason: str) -> None:
        self._world.books.set_aside(Setback(kind, place, reason, run))

    def _enter(self, way: Way, stage: Stage, *, write: bool = True) -> None:
        now = self._world.now()
        way.seconds[way.stage] = way.seconds.get(way.stage, 0.0) + now - way.began_at
        way.stage, way.began_at = stage, now
        if write:
            self._tell(way)

    def _tell(self, way: Way) -> None:
        status = {
            "stage": way.stage.value,
            "reasons": dict(way.reasons),
            "offered": {kind: list(payloads) for kind, payloads in way.offered.items()},
            "wake_at": way.wake_at,
            "seconds": {stage.value: spent for stage, spent in way.seconds.items()},
            "express": express_products(way.context)[EVENTS],
            "prompt": way.prompt,
        }
        self._world.books.record(way.run, "status", status)
        self._listen(News(way.run, way.stage, text="; ".join(way.reasons.values())))
