"""What may be taken out of the conditions: a tag that was never used. Everything that was entered stays for ever."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Column, Connection, Table, delete, func, select, update

from calib.reading import ConditionsReader
from calib.schema import entries, fates, global_tags, last_sequence, members, settled, tags
from calib.tags import ConditionsError, Tag


class InUse(ConditionsError):
    """Something refers to what is to be deleted; the message lists what."""


def take_turn(connection: Connection) -> None:
    """Wait for all that others are about to write to the conditions, and have them wait for this transaction."""
    connection.execute(update(last_sequence).values(last=last_sequence.c.last))


def uses_of(connection: Connection, tag: Tag) -> list[str]:
    """What keeps a tag from being deleted, in words; empty for a tag in which nothing was, and which nothing uses."""
    return list(_uses(connection, tag))


def delete_tag(conditions: ConditionsReader, connection: Connection, name: str) -> Tag:
    """Delete a tag that was never used, and give what it was; its name is free again.

    Raises UnknownTag, and InUse with all that keeps it.
    """
    take_turn(connection)
    tag = conditions.tag(name)
    if uses := uses_of(connection, tag):
        raise InUse(f"tag {name} is not deleted: {'; '.join(uses)}")
    connection.execute(delete(tags).where(tags.c.id == tag.number))
    return tag


def _uses(connection: Connection, tag: Tag) -> Iterator[str]:
    numbers: tuple[tuple[Table, Column[int], str], ...] = (
        (entries, entries.c.tag_id, "entries"),
        (settled, settled.c.tag_id, "settled runs"),
        (fates, fates.c.tag_id, "payloads that came late"),
    )
    for table, column, words in numbers:
        if number := connection.execute(select(func.count()).select_from(table).where(column == tag.number)).scalar():
            yield f"it has {number} {words}"
    joined = select(global_tags.c.name).join(members, members.c.global_tag_id == global_tags.c.id)
    for name in connection.scalars(joined.where(members.c.tag_id == tag.number).order_by(global_tags.c.name)):
        yield f"global tag {name} uses it"
