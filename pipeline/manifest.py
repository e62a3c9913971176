"""The manifest: the conditions a run, or a dataset of it, was released under, unit by unit, signed by its hash."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from calib.iov import RunLumi
from pipeline.lineage import lineage
from pipeline.processing import Segment
from pipeline.waivers import Waiver


class Condition(StrEnum):
    """In what state a kind of conditions is for some units of a run."""

    FRESH = "fresh"
    """made from this run (or from a span that holds it)"""
    CARRIED = "carried"
    """a verdict lets the payload in force go on: no significant change, or too little data within the limit"""
    FALLBACK = "fallback"
    """no verdict at the deadline, or one against the new payload: the payload in force, marked"""
    ABSENT = "absent"
    """no payload at all: the run is held"""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive units for which a kind is in one state. `payload` is filled in when the run is released."""

    first: int
    last: int
    condition: Condition
    payload: str | None
    why: str


@dataclass(frozen=True)
class Manifest:
    """The conditions of a run or dataset, settled: for every kind and unit a state and a payload id.

    Its id is its hash.
    """

    run: int
    version: int
    """processing version whose tags it was taken from"""
    snapshot: int
    kinds: Mapping[str, tuple[Stretch, ...]]
    vetoed: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """kind to packed units that were off, left out of the payload that covers them, and so are not certified"""
    waivers: Mapping[str, Waiver] = field(default_factory=dict)
    """kind to the waiver it was released under, where a rule was against it"""
    dataset: str = ""
    """the primary dataset it is for; empty where the run is one"""

    @property
    def id(self) -> str:
        """SHA-256 of all it says."""
        return lineage(manifest=self._plain())

    @property
    def missing(self) -> dict[str, str]:
        """Kinds without a payload somewhere, with the reason."""
        return {
            kind: stretch.why
            for kind, stretches in self.kinds.items()
            for stretch in stretches
            if stretch.condition is Condition.ABSENT
        }

    def content(self) -> list[Any]:
        """What outputs made under it depend on: payload and state by unit."""
        return [[kind, [[s.first, s.last, s.condition, s.payload] for s in found]] for kind, found in self._sorted()]

    def segments(self) -> tuple[Segment, ...]:
        """Payload ids by unit, cut wherever any kind changes; the first holds from the beginning of the run.

        Units that come late, outside the stretches, get what the nearest had.
        """
        starts = sorted({stretch.first for stretches in self.kinds.values() for stretch in stretches})
        begins = [RunLumi(self.run).packed, *starts[1:]]
        return tuple(Segment(begin, self._ids_at(start)) for begin, start in zip(begins, starts, strict=False))

    def _ids_at(self, unit: int) -> dict[str, str]:
        found = {kind: [s for s in stretches if s.first <= unit][-1] for kind, stretches in self._sorted()}
        return {kind: stretch.payload for kind, stretch in found.items() if stretch.payload}

    def _sorted(self) -> list[tuple[str, tuple[Stretch, ...]]]:
        return sorted(self.kinds.items())

    def _plain(self) -> dict[str, Any]:
        kinds = {
            kind: [
                {
                    "first": str(RunLumi.unpack(s.first)),
                    "last": str(RunLumi.unpack(s.last)),
                    "state": s.condition.value,
                    "payload": s.payload,
                    "why": s.why,
                }
                for s in stretches
            ]
            for kind, stretches in self._sorted()
        }
        head = {"run": self.run, "version": self.version, "snapshot": self.snapshot}
        vetoed = {kind: [str(RunLumi.unpack(unit)) for unit in found] for kind, found in self.vetoed.items()}
        # Left out where there is none: so the id of a manifest from before there were such things is what it was.
        waivers = {kind: waiver.to_document() for kind, waiver in sorted(self.waivers.items())}
        more = {"waivers": waivers, "dataset": self.dataset}
        return {**head, "kinds": kinds, "vetoed": vetoed, **{name: said for name, said in more.items() if said}}

    def to_document(self) -> dict[str, Any]:
        """As JSON, with its id."""
        return {**self._plain(), "id": self.id}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Manifest:
        """Read it back. Raises ValueError when the content does not match the id it carries."""
        kinds = {
            kind: tuple(
                Stretch(
                    RunLumi.parse(row["first"]).packed,
                    RunLumi.parse(row["last"]).packed,
                    Condition(row["state"]),
                    row["payload"],
                    row["why"],
                )
                for row in rows
            )
            for kind, rows in document["kinds"].items()
        }
        vetoed = {kind: tuple(RunLumi.parse(at).packed for at in found) for kind, found in document["vetoed"].items()}
        waivers = {kind: Waiver.from_document(found) for kind, found in document.get("waivers", {}).items()}
        head = (document["run"], document["version"], document["snapshot"])
        manifest = cls(*head, kinds, vetoed, waivers, document.get("dataset", ""))
        if manifest.id != document["id"]:
            raise ValueError(f"the manifest of run {manifest.run} was altered: {json.dumps(document)[:200]}")
        return manifest

    def at_end(self, kind: str) -> str | None:
        """The payload id of a kind that holds at the end of the run; None where there is none."""
        stretches = self.kinds.get(kind)
        return stretches[-1].payload if stretches else None

    def lines(self) -> list[str]:
        """Every stretch in words."""
        return [
            f"{kind} {RunLumi.unpack(s.first)} to {RunLumi.unpack(s.last)}: "
            f"{s.condition.value}, {(s.payload or 'none')[:12]}: {s.why}"
            for kind, stretches in self._sorted()
            for s in stretches
        ]

    def states(self) -> dict[str, dict[str, int]]:
        """How many stretches of each kind are in each state."""
        counted: dict[str, dict[str, int]] = {}
        for kind, stretches in self._sorted():
            for stretch in stretches:
                found = counted.setdefault(kind, {})
                found[stretch.condition] = found.get(stretch.condition, 0) + 1
        return counted
