"""What has been made and decided for every run, by processing version: products, manifests, where it stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from jobs.lease import check_epoch
from pipeline import catalog, journal
from pipeline.database import Database
from pipeline.manifest import Manifest

NO_RUN = 0
VERSIONS = "processing versions"


@dataclass(frozen=True)
class Books:
    """The records of one processing version. Every call is one transaction unless it is given a connection."""

    database: Database
    version: int
    now: Callable[[], float]
    epoch: int | None = None
    """of the driver that writes; None for those who do not drive"""

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A transaction that writes. Raises StaleEpoch when a later driver has taken over from this one."""
        with self.database.begin() as connection:
            if self.epoch is not None:
                check_epoch(connection, self.epoch)
            yield connection

    def manifest(self, run: int) -> Manifest | None:
        """The manifest a run was released under, or None."""
        found = self.document(run, "manifest")
        return Manifest.from_document(found) if found else None

    def add_manifest(self, connection: Connection, manifest: Manifest) -> None:
        """Enter a run's manifest, in the transaction that publishes and settles."""
        journal.set_document(connection, manifest.run, self.key("manifest"), manifest.to_document(), self.now())

    def manifests(self) -> dict[int, Manifest]:
        """The manifests of all runs that were released."""
        return {run: Manifest.from_document(found) for run, found in self.documents("manifest").items()}

    def undecided(self) -> dict[int, float]:
        """Runs that have events, but no manifest yet, and were not stopped; and when each was first seen."""
        with self.database.read() as connection:
            seen = journal.list_documents(connection, self.key("first seen"))
            status = journal.list_documents(connection, self.key("status"))
            released = journal.list_documents(connection, self.key("manifest"))
            known = set(catalog.runs(connection))
        stopped = {run for run, found in status.items() if found["stage"] == "stopped"}
        return {run: float(found["at"]) for run, found in seen.items() if run in known - released.keys() - stopped}

    def document(self, run: int, what: str) -> Any:
        """One record of a run (`manifest`, `status`, `certification`, ...), or None."""
        with self.database.read() as connection:
            return journal.get_document(connection, run, self.key(what))

    def documents(self, what: str) -> dict[int, Any]:
        """That record of every run that has one."""
        with self.database.read() as connection:
            return journal.list_documents(connection, self.key(what))

    def record(self, run: int, what: str, document: Mapping[str, Any]) -> None:
        """Write one record of a run."""
        with self.begin() as connection:
            self.enter(connection, run, what, document)

    def enter(self, connection: Connection, run: int, what: str, document: Mapping[str, Any]) -> None:
        """Write one record of a run."""
        self.enter_for_ever(connection, run, self.key(what), document)

    def enter_for_ever(self, connection: Connection, run: int, what: str, document: Mapping[str, Any]) -> None:
        """Write a record of a run that holds over all processing versions."""
        journal.set_document(connection, run, what, dict(document), self.now())

    def mended(self, connection: Connection, run: int, kind: str, place: str | None = None) -> None:
        """What was set aside of a run is in order again: at one place, or all of a kind."""
        journal.resolve_setbacks(connection, kind, place, self.now(), run)

    def key(self, what: str) -> str:
        """The name a record has in this processing version."""
        return f"{what}/v{self.version}"


def processing_version(connection: Connection, lineage: str, now: float) -> tuple[int, bool]:
    """The number of the processing version with this lineage of settings, and whether it is new.

    A change of anything that can change conditions or outputs opens a new version with tags of its own: what was
    settled under the old one stays as it was.
    """
    known = known_versions(connection)
    if lineage in known:
        return known.index(lineage) + 1, False
    journal.set_document(connection, NO_RUN, VERSIONS, {"lineages": [*known, lineage]}, now)
    return len(known) + 1, True


def version_of(connection: Connection, lineage: str) -> int:
    """The processing version with this lineage, or, if there is none, the number it would get."""
    known = known_versions(connection)
    return known.index(lineage) + 1 if lineage in known else len(known) + 1


def known_versions(connection: Connection) -> list[str]:
    """The lineages of all processing versions, the first first."""
    return list((journal.get_document(connection, NO_RUN, VERSIONS) or {}).get("lineages", []))
