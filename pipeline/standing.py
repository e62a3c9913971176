"""What people have ordered, as the service sees it: read again when something new is there."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from sqlalchemy import Connection

from pipeline.authority import Rules
from pipeline.holds import hold_text, holds_in_force, place_text, why_held, why_stopped
from pipeline.orders import Order, What, count_orders, list_orders, moment
from pipeline.waivers import Waiver, waiver_text, waivers_given, waivers_in_force

LOOK_S = 2.0
"""how long a service that has nothing else to do waits before it looks for new orders"""


class NewOrders(Exception):
    """Something was ordered since a decision was taken: it is to be taken anew."""


@dataclass
class Standing:
    """The orders at the last look, and what follows from them for one processing version."""

    read: Callable[[], AbstractContextManager[Connection]]
    version: int
    waivers_need: int = 1
    _orders: Sequence[Order] = ()
    _holds: Sequence[Order] = ()
    _waivers: dict[int, dict[str, Waiver]] = field(default_factory=dict)

    def look(self, connection: Connection | None = None) -> bool:
        """Whether there are orders that were not known, which now are. In a transaction of the caller where given."""
        if connection is None:
            with self.read() as connection:
                return self.look(connection)
        if count_orders(connection) == len(self._orders):
            return False
        self._orders = list_orders(connection)
        self._holds = holds_in_force(self._orders)
        self._waivers.clear()
        return True

    def confirm(self, connection: Connection) -> None:
        """Make sure, in the transaction that settles, that what was decided by still stands. Raises NewOrders."""
        if self.look(connection):
            raise NewOrders

    def held(self, run: int, dataset: str = "") -> str:
        """Who keeps a run, or a dataset of it, from being released, and why; empty if nobody does."""
        return why_held(self._holds, run, dataset)

    @property
    def stopped(self) -> str:
        """Who has stopped all submitting, and why; empty if nobody has."""
        return why_stopped(self._holds)

    def waivers(self, run: int) -> dict[str, Waiver]:
        """What is waived of a run, by kind."""
        if run not in self._waivers:
            given = waivers_given(self._orders, run, self.version)
            self._waivers[run] = waivers_in_force(given, self.waivers_need)
        return self._waivers[run]


def standing_orders(orders: Sequence[Order], runs: Container[int], rules: Rules, version: int) -> list[str]:
    """What holds now of what was ordered, in words: holds of all runs or of these, and waivers of these."""
    holds = [hold for hold in holds_in_force(orders) if hold.run is None or hold.run in runs]
    lines = [hold_text(hold) for hold in holds]
    waived = dict.fromkeys(order.run for order in orders if order.what is What.WAIVE)
    for run in (run for run in waived if run is not None and run in runs):
        given = waivers_given(orders, run, version)
        lines += [waiver_text(run, kind, waiver, rules.waivers_need) for kind, all_ in given.items() for waiver in all_]
    return lines


def orders_about(orders: Sequence[Order], run: int) -> list[str]:
    """All that was ever ordered for a run by its number, in words."""
    mine = (order for order in orders if order.run == run)
    return [f"{moment(o.at)}, {o.who}: {' '.join([o.what, o.kind]).strip()}, {place_text(o)}: {o.reason}" for o in mine]
