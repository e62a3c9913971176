"""Holds: what people keep from prompt, whatever its conditions say and whatever the settings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipeline.orders import Order, What, moment

STOPS = "stop_submitting"
"""the term of a hold under which no task is given to the cluster either"""


class Stopped(Exception):
    """A person has stopped all submitting: the message says who, why, and how to lift it."""


def holds_in_force(orders: Iterable[Order]) -> list[Order]:
    """The holds that nobody has lifted, oldest first. Lifting takes away all that were put at the same place."""
    held: list[Order] = []
    for order in orders:
        if order.what is What.HOLD:
            held.append(order)
        elif order.what is What.LIFT:
            held = [hold for hold in held if hold.place != order.place]
    return held


def holds_of(holds: Iterable[Order], run: int, dataset: str = "") -> list[Order]:
    """Those that keep a run, or one dataset of it. Without a dataset the run goes as a whole: each of them keeps it."""
    return [hold for hold in holds if hold.run in (None, run) and (not dataset or hold.dataset in ("", dataset))]


def why_held(holds: Sequence[Order], run: int, dataset: str = "") -> str:
    """Who keeps a run, and why; empty if nobody does."""
    return "; ".join(hold_text(hold) for hold in holds_of(holds, run, dataset))


def why_stopped(holds: Iterable[Order]) -> str:
    """Who has stopped all submitting, and why; empty if nobody has."""
    return "; ".join(hold_text(hold) for hold in holds if hold.terms.get(STOPS))


def refuse_while_stopped(orders: Iterable[Order]) -> None:
    """Raise Stopped while nothing may be submitted."""
    if stopped := why_stopped(holds_in_force(orders)):
        raise Stopped(f"nothing may be submitted: {stopped}")


def hold_text(hold: Order) -> str:
    """A hold in words, with the command that lifts it."""
    what = place_text(hold) + (", nothing is submitted" if hold.terms.get(STOPS) else "")
    return f"{what}: held by {hold.who} since {moment(hold.at)}: {hold.reason} ({lift_command(hold)})"


def place_text(order: Order) -> str:
    """Where an order counts, in words."""
    runs = "all runs" if order.run is None else f"run {order.run}"
    return f"{runs}, dataset {order.dataset}" if order.dataset else runs


def lift_command(hold: Order) -> str:
    """The command that lifts a hold."""
    place = "--all" if hold.run is None else str(hold.run)
    return f"tier0 lift {place}" + (f" --dataset {hold.dataset}" if hold.dataset else "")
