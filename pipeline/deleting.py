"""What people may delete: a payload that nothing names, and a tag that was never used. Who did, when and why stays."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection

from calib.deletion import InUse, delete_tag, take_turn, uses_of
from calib.payload import PayloadMissing
from jobs.lease import driver, fence
from pipeline.authority import Act, demand
from pipeline.conditions_words import Refused
from pipeline.in_charge import rules_in_force
from pipeline.mentions import mentions, unmentioned
from pipeline.orders import Order, What, add_order, list_orders, moment
from pipeline.tables import as_text
from pipeline.world import World

_SHORT = 6
"""digits of an id that must be given at least"""


def delete(world: World, name: str, reason: str) -> str:
    """Delete a tag by its name, or a payload by its id or the beginning of one; says what was deleted.

    Raises InUse with what refers to it, Refused where there is no such thing or the service is at work, NotAllowed,
    and NoReason.
    """
    with world.database.read() as connection:
        tags = {tag.name for tag in world.conditions(connection).tags()}
    return _delete_tag(world, name, reason) if name in tags else _delete_payload(world, _payload(world, name), reason)


def _delete_tag(world: World, name: str, reason: str) -> str:
    with _deleting(world) as connection:
        tag = delete_tag(world.conditions(connection), connection, name)
        terms = {"tag": tag.name, "clock": tag.clock.value, "serves": tag.sync.value}
        add_order(connection, Order(What.DELETE, None, reason, world.author, world.now(), kind=tag.kind, terms=terms))
    return f"tag {name}, in which nothing was, is deleted; the name is free again"


def _delete_payload(world: World, payload_id: str, reason: str) -> str:
    kind = _kind_of(world, payload_id)
    with _deleting(world) as connection:
        _demand_unused(world, connection, payload_id)
        terms = {"payload": payload_id}
        add_order(connection, Order(What.DELETE, None, reason, world.author, world.now(), kind=kind, terms=terms))
    # Whoever is killed here leaves an order and the payload, and the same command again deletes it.
    world.probe("delete")
    with _deleting(world) as connection:
        _demand_unused(world, connection, payload_id)
        world.store.delete(payload_id, world.probe)
    return f"payload {payload_id[:12]} of kind {kind or 'unknown'} is deleted"


@contextmanager
def _deleting(world: World) -> Iterator[Connection]:
    """A transaction of somebody who may delete; all that could refer to something more wait for its end."""
    with world.database.begin() as connection:
        fence(connection)
        rules = rules_in_force(connection, world.settings.authority, world.author)
        demand(world.author, Act.DELETE, (), rules)
        take_turn(connection)
        yield connection


def _demand_unused(world: World, connection: Connection, payload_id: str) -> None:
    # A worker that has made it finds it in its place, and what it reports names it only later.
    if working := driver(connection, time.time()):
        raise Refused(f"the service is at work ({working}), and may be making this payload: delete it afterwards")
    if _in_settings(world, [payload_id]):
        raise InUse(f"payload {payload_id[:12]} is kept, a gate of the settings holds to it")
    if found := mentions(connection, payload_id):
        raise InUse(f"payload {payload_id[:12]} is kept, it is named by: {'; '.join(found)}")


def _in_settings(world: World, payload_ids: Iterable[str]) -> set[str]:
    """Those of some payloads that the settings name."""
    own = world.settings.model_dump_json()
    return {payload_id for payload_id in payload_ids if payload_id in own}


def _payload(world: World, name: str) -> str:
    """The one payload whose id begins so. Raises Refused."""
    found = [one for one in world.store.ids() if one.startswith(name)]
    if not re.fullmatch(f"[0-9a-f]{{{_SHORT},64}}", name) or not found:
        raise Refused(f"there is no tag {name!r}, and no payload whose id begins so ({_SHORT} digits at least)")
    if len(found) > 1:
        raise Refused(f"{len(found)} payloads begin with {name}: {', '.join(one[:16] for one in found)}")
    return found[0]


def _kind_of(world: World, payload_id: str) -> str:
    try:
        return world.store.kind_of(payload_id)
    except (PayloadMissing, ValueError, KeyError):  # damaged: it may go all the same
        return ""


def unused_text(world: World) -> str:
    """Payloads that nothing names and tags that were never used, as a table: what may be deleted."""
    with world.database.read() as connection:
        tags = [tag for tag in world.conditions(connection).tags() if not uses_of(connection, tag)]
        unnamed = unmentioned(connection, world.store.ids())
        payloads = sorted(unnamed - _in_settings(world, unnamed))
    rows = [[tag.name, tag.kind, f"a tag for {tag.sync}, in which nothing was"] for tag in tags]
    rows += [[one[:16], _kind_of(world, one) or "unknown", "a payload that nothing names"] for one in payloads]
    return as_text(["name", "kind", "what"], rows) if rows else "nothing is unused"


def deletions_text(world: World) -> str:
    """All that was ever deleted: what, when, by whom and why."""
    with world.database.read() as connection:
        orders = [order for order in list_orders(connection) if order.what is What.DELETE]
    rows = [[moment(one.at), _what(world, one), one.kind or "unknown", one.who, one.reason] for one in orders]
    return as_text(["when", "deleted", "kind", "by", "why"], rows) if rows else "nothing was ever deleted"


def _what(world: World, order: Order) -> str:
    if "tag" in order.terms:
        return f"tag {order.terms['tag']}"
    payload_id = str(order.terms["payload"])
    # It was put in again later, or whoever deleted it was killed.
    return f"payload {payload_id[:16]}" + (" (it is there)" if world.store.has(payload_id) else "")
