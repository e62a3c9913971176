"""Files that were set aside and never taken in, such as mistyped names: a person may have them forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from sqlalchemy import Connection

from pipeline import catalog
from pipeline.ingest import FILE, path_name
from pipeline.journal import list_setbacks, resolve_setbacks
from pipeline.orders import Order, add_order


def set_aside(connection: Connection, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """What is set aside under these paths or patterns, in order; and those of the names under which nothing is."""
    aside = sorted({setback.place for setback in list_setbacks(connection) if setback.kind == FILE})
    wanted = {name: [path for path in aside if _is(path, name)] for name in dict.fromkeys(names)}
    return sorted({path for found in wanted.values() for path in found}), [name for name in wanted if not wanted[name]]


def _is(path: str, name: str) -> bool:
    return path == path_name(name) or fnmatchcase(path, path_name(name))


def forget(connection: Connection, order: Order, path: str) -> str:
    """Have what is set aside under a path count no more; gives why not where events of it were ever taken in."""
    if catalog.ever_held_events(connection, path):
        return f"{path} is not forgotten: events of it were taken in, and are accounted for"
    add_order(connection, order)
    resolve_setbacks(connection, FILE, path, order.at)
    return ""
