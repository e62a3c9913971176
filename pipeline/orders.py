"""What people have ordered: a list that only grows, over all processing versions. What holds is worked out from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from pipeline.schema import orders

_COLUMNS = ("what", "run", "reason", "who", "at", "dataset", "kind", "terms")


class What(StrEnum):
    """What can be ordered."""

    HOLD = "hold"
    LIFT = "lift"
    WAIVE = "waive"
    WITHDRAW = "withdraw"
    """take a waiver back"""
    DELETE = "delete"
    """a payload or tag that nothing refers to"""
    FORGET = "forget"
    """that a file was set aside which was never taken in"""
    ACCEPT = "accept"
    """conditions that do not close"""


class NoReason(ValueError):
    """An order says nothing of why."""


@dataclass(frozen=True, slots=True)
class Order:
    """What somebody has ordered, and why. `run` None is for all runs, `dataset` empty for all datasets of them.

    `at` is in seconds since 1970. `terms` are those of what is ordered, as JSON.
    """

    what: What
    run: int | None
    reason: str
    who: str
    at: float
    dataset: str = ""
    kind: str = ""
    terms: Mapping[str, Any] = field(default_factory=dict)

    @property
    def place(self) -> tuple[int | None, str]:
        """Where it counts: run and dataset."""
        return self.run, self.dataset

    @property
    def signed(self) -> str:
        """Who ordered it, when and why."""
        return f"{self.who}, {moment(self.at)}: {self.reason}"


def add_order(connection: Connection, order: Order) -> None:
    """Write an order down. Raises NoReason."""
    if not order.reason.strip():
        raise NoReason(f"say why: a {order.what} needs a reason")
    row = {name: getattr(order, name) for name in _COLUMNS}
    connection.execute(sa.insert(orders), row | {"what": order.what.value, "terms": json.dumps(dict(order.terms))})


def list_orders(connection: Connection) -> list[Order]:
    """All orders, the first first."""
    rows = connection.execute(sa.select(*(orders.c[name] for name in _COLUMNS)).order_by(orders.c.id))
    found = (dict(zip(_COLUMNS, row, strict=True)) for row in rows)
    return [Order(**row | {"what": What(row["what"]), "terms": json.loads(row["terms"])}) for row in found]


def count_orders(connection: Connection) -> int:
    """How many there are: whether there are new ones."""
    return int(connection.execute(sa.select(sa.func.count()).select_from(orders)).scalar_one())


def moment(seconds: float) -> str:
    """A time as people are told it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
