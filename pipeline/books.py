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
from pipeline.released import Released

NO_RUN = 0
VERSIONS = "processing versions"


@dataclass(frozen=True)
class Books:
    """The records of one processing version. Every call is one transaction unless it is given a connection."""

    database: Database
    version: int
    now: Callable[[], float]
    datasets: tuple[str, ...] = ("",)
    """the names of those that a run has; one without a name where it is one"""
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
        """The manifest a run was released under, or None; of several datasets, what is settled by any."""
        found = Released.from_document(self.document(run, "manifest"))
        return found.settled if found.manifests else None

    def add_manifest(self, connection: Connection, manifest: Manifest) -> None:
        """Enter the manifest of a run or dataset, in the transaction that publishes and settles."""
        before = Released.from_document(journal.get_document(connection, manifest.run, self.key("manifest")))
        document = before.adding(manifest).to_document()
        journal.set_document(connection, manifest.run, self.key("manifest"), document, self.now())

    def released(self) -> dict[int, Released]:
        """The manifests of all runs of which something was released."""
        return {run: Released.from_document(found) for run, found in self.documents("manifest").items()}

    def undecided(self) -> dict[int, float]:
        """Runs that have events, but not all their manifests yet, and were not stopped; and when each was first
        seen."""
        with self.database.read() as connection:
            seen = journal.list_documents(connection, self.key("first seen"))
            status = journal.list_documents(connection, self.key("status"))
            found = journal.list_documents(connection, self.key("manifest")).items()
            whole = {run for run, kept in found if set(kept.get("datasets", {"": kept})) >= set(self.datasets)}
            known = set(catalog.runs(connection))
        stopped = {run for run, found in status.items() if found["stage"] == "stopped"}
        return {run: float(found["at"]) for run, found in seen.items() if run in known - whole - stopped}

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
