"""One area, one database: files of runs and payloads in an area are those of the database that it is marked with.

Every database has a list of identities: a new one is added with each restore. An area goes over to a database that
was restored from its own, and never back. Both are of one experiment, that of what was made there first: another would
take its kinds, tags and runs for its own wherever the names are the same.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from sqlalchemy import Connection

from pipeline import journal
from pipeline.books import NO_RUN
from pipeline.database import Database, DatabaseRefused
from pipeline.processing import nothing
from pipeline.sections import StorageSection
from pipeline.whole import write_first, write_whole

MARK = "database.json"
"""the file of an area that names its database"""
IDENTITY = "identity"
"""the document of a database that tells it from others"""
EXPERIMENT = "experiment"
"""the document of a database that says whose runs are in it"""


class OtherExperiment(DatabaseRefused):
    """An area, with its database, is that of another experiment."""


def claim(area: Path, database: Database, now: float) -> None:
    """Mark an area as that of a database, if it is not yet. Raises DatabaseRefused where it is that of another."""
    own, name, mark = _identities(database, now), database.name, area / MARK
    ours = {"identity": own[-1], "database": name}
    found = _marked(mark)
    if found is None:
        write_first(mark, _content(ours))
        found = _marked(mark) or ours
    if is_what := _foreign(found, own, name):
        raise DatabaseRefused(
            f"{area} is the area of the database {found['database']}, and {name} is {is_what}: name that one as "
            f"`database` under [storage], or set another `area`; if that one is gone for good, delete {mark}"
        )
    if found["identity"] != own[-1] or (database.is_sqlite and found["database"] != name):
        write_whole(mark, _content(ours), nothing)


def refuse_other(connection: Connection, experiment: str, storage: StorageSection) -> None:
    """Raise OtherExperiment where something was made in this database for an experiment of another name."""
    its = journal.get_document(connection, NO_RUN, EXPERIMENT)
    if its not in (None, experiment):
        another = "another `area` and another `database`" if storage.database else "another `area`"
        raise OtherExperiment(
            f"{storage.area} is the area of the experiment {its}, and these settings are of {experiment}: "
            f"set {another} under [storage]"
        )


def take_for(connection: Connection, experiment: str, storage: StorageSection, now: float) -> None:
    """Write down whose area this is, as something is made in it: who only looks takes none. One from before this was
    written down goes to the first that comes. Raises OtherExperiment."""
    refuse_other(connection, experiment, storage)
    if journal.get_document(connection, NO_RUN, EXPERIMENT) is None:
        journal.set_document(connection, NO_RUN, EXPERIMENT, experiment, now)


def _foreign(marked: Mapping[str, str], own: Sequence[str], name: str) -> str:
    """What a database is to the one that an area is marked with, where it may not use the area; empty where it may.

    The same may have several names. It was restored from it; or that one is no more, and it was made in its place.
    """
    its = marked["database"]
    gone = its == name or ("://" not in its and not os.path.exists(its))
    if marked["identity"] in own[:-1] or gone:
        return ""
    if marked["identity"] != own[-1]:
        return "another"
    copied = "://" not in its + name and not os.path.samefile(its, name)
    return "a copy of it" if copied else ""


def renew_identity(connection: Connection, now: float) -> None:
    """Make of a restored database one of its own: the area follows it, and is refused to the one of before."""
    before = journal.get_document(connection, NO_RUN, IDENTITY) or []
    journal.set_document(connection, NO_RUN, IDENTITY, [*before, uuid.uuid4().hex], now)


def _identities(database: Database, now: float) -> list[str]:
    with database.read() as connection:
        found = journal.get_document(connection, NO_RUN, IDENTITY)
    if found is None:
        with database.begin() as connection:
            database.take_turn(connection)  # of two at once the second finds what the first has made
            found = journal.get_document(connection, NO_RUN, IDENTITY)
            if found is None:
                renew_identity(connection, now)
                found = journal.get_document(connection, NO_RUN, IDENTITY)
    return list(found)


def _marked(mark: Path) -> dict[str, str] | None:
    try:
        found = json.loads(mark.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        raise DatabaseRefused(f"{mark} is not as it was written: delete it if the area is this database's") from None
    return {"identity": str(found["identity"]), "database": str(found["database"])}


def _content(ours: Mapping[str, str]) -> bytes:
    return json.dumps(ours, indent=1).encode()
