"""What there is of certified runs: which of their units are good, and the files that prompt has written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline import accounting, certify
from pipeline.certifying import good_run_list, prompts_of
from pipeline.world import World


@dataclass(frozen=True)
class Results:
    """Of one processing version, that of the settings in force."""

    world: World

    def good_runs(self, mask: Path | None = None) -> dict[str, list[list[int]]]:
        """The good-run list of all certified runs in CMS's form, cut down to a mask where one is given; without units
        that closure leaves in doubt, until somebody accepts them (`operator.accept`)."""
        found = good_run_list(self.world)
        return certify.cut_down(found, certify.read_mask(mask)) if mask else found

    def files(self, run: int, tier: str, dataset: str | None = None) -> list[Path]:
        """The files of a tier that prompt wrote of a run, in the order of its events; of one dataset, or of each, where
        an event may be in several. `pipeline.events.read_tier` reads one.

        Raises LookupError for a run that is not certified, and for a dataset or tier that it does not have.
        """
        prompts = prompts_of(self.world.books.document(run, "certification") or {}, {})
        if not prompts:
            raise LookupError(f"run {run} is not certified: `tier0 why {run}` says where it stands")
        if dataset is not None and dataset not in prompts:
            raise LookupError(f"run {run} has no dataset {dataset!r}; its datasets: {_listed(prompts)}")
        jobs = [job for name, job in prompts.items() if dataset is None or name == dataset]
        with self.world.database.read() as connection:
            found = [Path(output.path) for job in jobs for output in accounting.outputs_of(connection, job, tier)]
            if not found:
                tiers = {output.tier for job in jobs for output in accounting.outputs_of(connection, job)}
                raise LookupError(f"run {run} has no files of tier {tier!r}; its tiers: {_listed(sorted(tiers))}")
        return found


def _listed(names: Iterable[str]) -> str:
    return ", ".join(filter(None, names)) or "none"
