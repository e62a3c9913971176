"""One driver at a time: a lease on the database, and an epoch that rises with every start.

A driver that was given up for dead but lives on holds an old epoch, and nothing it commits is taken.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import psutil
from sqlalchemy import Connection, Row, select, update
from sqlalchemy.exc import DBAPIError

from jobs.tables import insert_new, leases

logger = logging.getLogger(__name__)

Begin = Callable[[], AbstractContextManager[Connection]]


class SecondDriver(Exception):
    """Another driver holds this database; the message names its host and pid."""


class StaleEpoch(Exception):
    """A later driver has taken over: nothing more may be committed here."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that may hold the lease; `born` tells it from a later one with the same pid."""

    host: str
    pid: int
    born: float

    @classmethod
    def here(cls) -> Holder:
        """This process."""
        return cls(socket.gethostname(), os.getpid(), psutil.Process().create_time())


def lives(holder: Holder) -> bool:
    """Say whether a process of this host still runs."""
    try:
        process = psutil.Process(holder.pid)
        return abs(process.create_time() - holder.born) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def take_lease(
    connection: Connection,
    holder: Holder | None = None,
    *,
    now: float | None = None,
    patience_s: float = 60.0,
    alive: Callable[[Holder], bool] = lives,
) -> int:
    """Become the one driver and give the new epoch.

    A holder on this host is followed when its process is gone, one elsewhere when it has not renewed its lease for
    `patience_s` seconds. Raises SecondDriver while it lives.
    """
    holder = holder or Holder.here()
    now = time.time() if now is None else now
    insert_new(connection, leases, {"id": 1, "epoch": 0, "renewed_at": 0.0})
    row = connection.execute(select(leases).where(leases.c.id == 1).with_for_update()).one()
    if row.host is not None and (row.host, row.pid) != (holder.host, holder.pid):
        _refuse_if_alive(row, holder, now - row.renewed_at < patience_s, alive)
    epoch = int(row.epoch) + 1
    values = {"epoch": epoch, "host": holder.host, "pid": holder.pid, "born": holder.born, "renewed_at": now}
    connection.execute(update(leases).where(leases.c.id == 1).values(values))
    return epoch


def _refuse_if_alive(row: Row[Any], holder: Holder, fresh: bool, alive: Callable[[Holder], bool]) -> None:
    here = row.host == holder.host
    if alive(Holder(row.host, row.pid, row.born)) if here else fresh:
        raise SecondDriver(
            f"another driver works on this database: pid {row.pid} on host {row.host}; "
            "stop it first, or let it finish and look at its progress from here"
        )


def check_epoch(connection: Connection, epoch: int) -> None:
    """Raise StaleEpoch unless `epoch` is the current one, and keep it current to the end of the transaction."""
    found = connection.scalar(select(leases.c.epoch).where(leases.c.id == 1).with_for_update(read=True))
    if found != epoch:
        raise StaleEpoch(f"epoch {epoch} is over, {found} is current: another driver has taken over; end this one")


def fence(connection: Connection) -> None:
    """Wait for what the driver is about to commit, and have it wait for the end of this transaction."""
    connection.execute(select(leases.c.epoch).where(leases.c.id == 1).with_for_update()).all()


def driver(
    connection: Connection, now: float, *, patience_s: float = 60.0, alive: Callable[[Holder], bool] = lives
) -> str:
    """The pid and host of the driver, by the same tests as a start makes; empty if there is none that lives."""
    row = connection.execute(select(leases).where(leases.c.id == 1)).one_or_none()
    if row is None or row.host is None:
        return ""
    here = row.host == socket.gethostname()
    living = alive(Holder(row.host, row.pid, row.born)) if here else now - row.renewed_at < patience_s
    return f"pid {row.pid} on host {row.host}" if living else ""


def renew_lease(connection: Connection, epoch: int, now: float) -> None:
    """Say that this driver lives. Raises StaleEpoch when another has taken over."""
    check_epoch(connection, epoch)
    connection.execute(update(leases).where(leases.c.id == 1).values(renewed_at=now))


def drop_lease(connection: Connection, epoch: int) -> None:
    """Give the lease back, if it is still ours; the epoch stays."""
    mine = (leases.c.id == 1) & (leases.c.epoch == epoch)
    connection.execute(update(leases).where(mine).values(host=None, pid=None, born=None))


@contextmanager
def kept_alive(begin: Begin, epoch: int, every_s: float = 15.0) -> Iterator[None]:
    """Renew the lease from a thread of its own within the block, whatever the driver is busy with.

    It ends when another driver has taken over: the next commit then says so. A database that does not answer now is
    asked again.
    """
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(every_s):
            try:
                with begin() as connection:
                    renew_lease(connection, epoch, time.time())
            except StaleEpoch:
                return
            except DBAPIError as problem:
                logger.warning("the lease could not be renewed: %s", problem)

    thread = threading.Thread(target=renew, name="tier0-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
