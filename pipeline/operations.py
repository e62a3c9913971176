"""What an operator orders: holds and waivers. Written to the database, where a running service sees them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from calib.verdict import meant
from jobs.lease import driver, fence
from pipeline import catalog, journal
from pipeline.authority import Act, Rules, demand
from pipeline.canary import CANARY, ways_on
from pipeline.certifying import doubts_of
from pipeline.doubts import Doubt
from pipeline.forgetting import forget, set_aside
from pipeline.holds import STOPS, hold_text, holds_in_force, holds_of, lift_command, place_text
from pipeline.in_charge import rules_in_force
from pipeline.orders import Order, What, add_order, list_orders, moment
from pipeline.preparation import required_of_run
from pipeline.released import Released
from pipeline.tables import as_text
from pipeline.waivers import PAYLOADS, VERSION, waiver_text, waivers_given
from pipeline.world import World


class NoEffect(ValueError):
    """What is ordered would change nothing; the message says why, and what would."""


@dataclass(frozen=True)
class Operator:
    """Orders of one person to one Tier-0. Every call gives what became of it, in words.

    A running service obeys within its next step, and looks for orders every two seconds at least. Raises NotAllowed
    for who may not (`[authority]`), and ValueError for an order without a reason.
    """

    world: World

    def hold(self, run: int | None, reason: str, dataset: str = "", *, stop_submitting: bool = False) -> str:
        """Keep a run, or one dataset of it, from prompt until the hold is lifted; None: all runs (the big red button).
        Raises LookupError for a dataset that the settings do not have.

        What is released goes on, and so do express and calibrations. With `stop_submitting`, for all runs, no task
        is given to the cluster either: what is running there comes to its end and is kept, nothing else begins.
        """
        if stop_submitting and (run is not None or dataset):
            raise ValueError("submitting is stopped for all runs or for none: hold all, without a dataset")
        self._known_dataset(dataset)
        terms = {STOPS: True} if stop_submitting else {}
        order = self._order(What.HOLD, run, reason, dataset=dataset, terms=terms)
        with self._ordering(Act.HOLD) as (connection, _):
            same = [hold for hold in holds_in_force(list_orders(connection)) if _same(hold, order)]
            if not same:
                add_order(connection, order)
            words = [f"{'held already' if same else 'held'}: {hold_text(same[0] if same else order)}"]
            return "\n".join([*words, *self._beside_hold(connection, order), _obeyed(connection)])

    def lift(self, run: int | None, reason: str = "", dataset: str = "") -> str:
        """Take back all holds put at this place, whoever put them; None: those of all runs. Raises NoEffect."""
        with self._ordering(Act.RELEASE) as (connection, _):
            known = holds_in_force(list_orders(connection))
            order = self._order(What.LIFT, run, reason or "lifted", dataset=dataset)
            lifted = [hold for hold in known if hold.place == order.place]
            if not lifted:
                others = known if run is None else holds_of(known, run)
                there = "; ".join(map(hold_text, others or known)) or "nothing is"
                raise NoEffect(f"no hold was put on {place_text(order)}; what is held: {there}")
            add_order(connection, order)
            left = [hold for hold in holds_in_force(list_orders(connection)) if run is None or hold.run in (None, run)]
            words = [f"lifted: {place_text(hold)}, held by {hold.signed}" for hold in lifted]
            return "\n".join([*words, *(f"still held: {hold_text(hold)}" for hold in left), _obeyed(connection)])

    def holds(self, *, history: bool = False) -> str:
        """The holds in force as a table; with `history`, all that were ever put, and who lifted them."""
        with self.world.database.read() as connection:
            orders = list_orders(connection)
        if not history:
            rows = [[place_text(o), o.who, moment(o.at), _words(o), lift_command(o)] for o in holds_in_force(orders)]
            return as_text(["held", "by", "since", "why", "lifted by"], rows) if rows else "nothing is held"
        told = [order for order in orders if order.what in (What.HOLD, What.LIFT)]
        rows = [[moment(o.at), o.what.value, place_text(o), o.who, _words(o)] for o in told]
        return as_text(["when", "what", "where", "by", "why"], rows) if rows else "nothing was ever held"

    def waive(self, run: int, kind: str, reason: str, *, publish: bool = False) -> str:
        """Accept that a run goes on where a rule stops a kind of its conditions: with the payload in force, now.

        With `publish`, with the very payloads that a rule is against at this moment (rejected by a gate, or of a fit
        that did not converge), which are marked where they are published. Raises LookupError for a run or kind that
        is not known, and NoEffect where no rule can be waived.
        """
        with self._ordering(Act.WAIVE) as (connection, rules):
            stopped = self._stopped(connection, run, kind)
            payloads = stopped["offered"].get(kind, []) if publish else []
            canary = _canary_holds(run, kind, stopped)
            if publish and not payloads:
                said = "; ".join([stopped["reasons"].get(kind, "no rule stops it now"), *canary])
                raise NoEffect(f"run {run} has no payload of kind {kind} that waits to be accepted: {said}")
            terms = {VERSION: self.world.books.version, PAYLOADS: payloads}
            add_order(connection, self._order(What.WAIVE, run, reason, kind=kind, terms=terms))
            given = waivers_given(list_orders(connection), run, self.world.books.version)[kind][-1]
            missing = rules.waivers_need - len(given.signed)
            words = [waiver_text(run, kind, given, rules.waivers_need), *self._other_rules(rules)]
            if kind not in stopped["reasons"]:
                words.append(f"no rule stops {kind} of run {run} now: the waiver counts if one does")
            return "\n".join([*words, *canary, *([_obeyed(connection)] if missing <= 0 else [])])

    def withdraw(self, run: int, kind: str, reason: str) -> str:
        """Take back all waivers of a run's kind, before they were used. Raises NoEffect where there is none."""
        with self._ordering(Act.WAIVE) as (connection, _):
            self._stopped(connection, run, kind)
            given = waivers_given(list_orders(connection), run, self.world.books.version).get(kind)
            if not given:
                raise NoEffect(f"{kind} of run {run} is not waived")
            terms = {VERSION: self.world.books.version}
            add_order(connection, self._order(What.WITHDRAW, run, reason, kind=kind, terms=terms))
            names = ", ".join(one.who for waiver in given for one in waiver.signed)
            return f"{kind} of run {run} is no longer waived (by {names})"

    def doubts(self) -> list[Doubt]:
        """What closure leaves in doubt and nobody has accepted."""
        return [doubt for found in doubts_of(self.world).values() for doubt in found if not doubt.accepted]

    def accept(self, run: int, kind: str, reason: str) -> str:
        """Let units of a run into the good-run list whose conditions of a kind do not close, by name.

        Counts for the payloads that are in doubt now. Raises LookupError for a run that is not certified and a kind
        that is none of its own, and NoEffect where none is in doubt.
        """
        self._closed(run, kind)
        found = [doubt for doubt in doubts_of(self.world, [run]).get(run, ()) if doubt.closed.kind == kind]
        left = [doubt for doubt in found if not doubt.accepted]
        if not left:
            said = "; ".join(map(str, found)) or f"closure leaves no {kind} of run {run} in doubt"
            raise NoEffect(said)
        payloads = [doubt.closed.payload for doubt in left]
        terms = {VERSION: self.world.books.version, PAYLOADS: payloads}
        with self._ordering(Act.WAIVE) as (connection, _):
            add_order(connection, self._order(What.ACCEPT, run, reason, kind=kind, terms=terms))
        return "\n".join(f"accepted: {doubt.closed}" for doubt in left)

    def forget(self, names: Sequence[str], reason: str) -> str:
        """Have files (paths or patterns) that were set aside and never taken in be told of no more.

        Given to a run again, they are looked at again. Raises NoEffect where nothing is set aside under any of them, or
        where events were taken in of all that is.
        """
        with self._ordering(Act.DELETE) as (connection, _):
            paths, unknown = set_aside(connection, names)
            orders = {path: self._order(What.FORGET, None, reason, terms={"file": path}) for path in paths}
            kept = {path: why for path, order in orders.items() if (why := forget(connection, order, path))}
            words = [*kept.values(), *(f"nothing is set aside under {name}" for name in unknown)]
            if len(kept) == len(paths):
                raise NoEffect("; ".join(words))
            return "\n".join([*(f"forgotten: {path}" for path in paths if path not in kept), *words])

    @contextmanager
    def _ordering(self, act: Act) -> Iterator[tuple[Connection, Rules]]:
        """A transaction that sees all the driver has released, with the rules in force."""
        world = self.world
        with world.database.begin() as connection:
            fence(connection)
            rules = rules_in_force(connection, world.settings.authority, world.author)
            demand(world.author, act, (), rules)
            yield connection, rules

    def _order(self, what: What, run: int | None, reason: str, **more: Any) -> Order:
        return Order(what, run, reason, self.world.author, self.world.now(), **more)

    def _beside_hold(self, connection: Connection, order: Order) -> list[str]:
        """What a hold does not do."""
        run, dataset, place = order.run, order.dataset, place_text(order)
        books = self.world.books
        kept = journal.list_documents(connection, books.key("manifest"))
        wanted = [dataset] if dataset in books.datasets else books.datasets
        released = {one for one, found in kept.items() if _is_released(found, wanted)}
        if run is None:
            return [f"{len(released)} runs are released already: what was settled stays, and their prompt goes on"]
        if run in released:
            return [f"{place} is released already: what was settled stays, and its prompt goes on"]
        known = catalog.runs(connection)
        unseen = f"run {run} was never seen: the hold waits for it; the runs are {catalog.listed(known)}"
        some = sorted(kept[run].get("datasets", {})) if run in kept and not dataset else []
        gone = [f"datasets {', '.join(some)} of run {run} are released already: their prompt goes on"] if some else []
        return gone if run in known else [unseen]

    def _known_dataset(self, dataset: str) -> None:
        """Raise LookupError where no dataset goes by its name under these settings: its hold would hold nothing, or all
        of a run that is one, and nobody would look for it there."""
        names = [name for name in self.world.books.datasets if name]
        if dataset and dataset not in names:
            hint = meant(dataset, names) if names else ": a run is one, and is held without"
            raise LookupError(f"under these settings there is no dataset {dataset}{hint}")

    def _other_rules(self, rules: Rules) -> list[str]:
        """Whose rule it is how many names a waiver needs, where a run under these settings would go by another."""
        own = self.world.settings.authority.waivers_need
        if own == rules.waivers_need:
            return []
        last = f"that is by the rules of the service as it was last started (`waivers_need` = {rules.waivers_need})"
        return [f"{last}; a `tier0 run` under these settings goes by theirs ({own})"]

    def _closed(self, run: int, kind: str) -> None:
        """Raise where closure can have said nothing of a kind of a run."""
        certified = self.world.books.documents("certification")
        if run not in certified:
            with self.world.database.read() as connection:
                known = catalog.runs(connection)
            is_what = "not certified yet" if run in known else "not known"
            raise LookupError(f"run {run} is {is_what}; certified runs are {catalog.listed(sorted(certified))}")
        kinds = sorted({calibration.kind for calibration in self.world.experiment.calibrations()})
        if kind not in kinds:
            raise LookupError(f"there is no calibration {kind!r}; there are {', '.join(kinds) or 'none'}")

    def _stopped(self, connection: Connection, run: int, kind: str) -> Mapping[str, Any]:
        """Where a run stands that may be waited for; raises where nothing can be waived."""
        world = self.world
        known = catalog.runs(connection)
        if run not in known:
            raise LookupError(catalog.never_seen(run, known))
        released = Released.from_document(journal.get_document(connection, run, world.books.key("manifest")))
        if released.whole(world.books.datasets):
            ids = ", ".join(manifest.id[:12] for manifest in released.manifests.values())
            under = f"under manifest{'s' if len(released.manifests) > 1 else ''} {ids}"
            raise NoEffect(f"run {run} is released already, {under}: nothing is left to waive")
        status = journal.get_document(connection, run, world.books.key("status")) or {}
        stopped = {"reasons": status.get("reasons", {}), "offered": status.get("offered", {})}
        if kind in stopped["offered"]:  # its canary too, which is no kind
            return stopped
        if kind == CANARY:
            raise NoEffect(f"no canary holds run {run} now: there is nothing of it to waive")
        if settled := [name for name, manifest in released.manifests.items() if kind in manifest.kinds]:
            raise NoEffect(f"{kind} of run {run} is settled already, with its dataset {settled[0]}")
        required = required_of_run(world, world.settings_of(run))
        if kind not in required:
            raise LookupError(f"run {run} needs no kind {kind!r}; it needs {', '.join(required)}")
        if kind not in {calibration.kind for calibration in world.experiment.calibrations()}:
            raise NoEffect(f"{kind} is not calibrated here: no rule stops it")
        return stopped


def _canary_holds(run: int, kind: str, stopped: Mapping[str, Any]) -> list[str]:
    """What to say where the canary holds the run, which no waiver of another kind moves."""
    elsewhere = kind != CANARY and CANARY in stopped["offered"]
    return [f"it is the canary that holds run {run}: {ways_on(run)}"] if elsewhere else []


def _is_released(document: Mapping[str, Any], datasets: Iterable[str]) -> bool:
    return set(document.get("datasets", {"": document})) >= set(datasets)


def _same(hold: Order, order: Order) -> bool:
    return (hold.place, hold.who, hold.reason, hold.terms) == (order.place, order.who, order.reason, order.terms)


def _words(order: Order) -> str:
    return order.reason + (" (nothing is submitted)" if order.terms.get(STOPS) else "")


def _obeyed(connection: Connection) -> str:
    # By the clock of the wall, as the lease is renewed.
    running = driver(connection, time.time())
    return f"obeyed by the service: {running}" if running else "no service is running: the next `tier0 run` obeys"
