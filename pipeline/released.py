"""What is settled of a run: the manifests of those of its datasets that are released."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.manifest import Manifest


@dataclass(frozen=True)
class Released:
    """Dataset to manifest, in the order of their release; one without a name where the run is one.

    Kinds that two of them name are settled once: both say the same of them.
    """

    manifests: Mapping[str, Manifest]

    @property
    def settled(self) -> Manifest:
        """All that is settled of the run, as if it were one manifest; that of the run where it is one."""
        first, *others = self.manifests.values()
        if not others:
            return first
        every = tuple(self.manifests.values())
        return Manifest(
            first.run,
            first.version,
            max(one.snapshot for one in every),
            {kind: stretches for one in every for kind, stretches in one.kinds.items()},
            {kind: units for one in every for kind, units in one.vetoed.items()},
            {kind: waiver for one in every for kind, waiver in one.waivers.items()},
        )

    def whole(self, datasets: Collection[str]) -> bool:
        """Whether all of these datasets are released."""
        return self.manifests.keys() >= set(datasets)

    def adding(self, manifest: Manifest) -> Released:
        """With one more."""
        return Released({**self.manifests, manifest.dataset: manifest})

    def to_document(self) -> dict[str, Any]:
        """As JSON: the manifest alone where the run is one."""
        if not any(self.manifests):
            return self.manifests[""].to_document()
        return {"datasets": {name: manifest.to_document() for name, manifest in self.manifests.items()}}

    @classmethod
    def from_document(cls, document: Mapping[str, Any] | None) -> Released:
        """Read it back; of None, nothing is released. Raises ValueError for a manifest that was altered."""
        if document is None:
            return cls({})
        found = document.get("datasets", {"": document})
        return cls({name: Manifest.from_document(one) for name, one in found.items()})
