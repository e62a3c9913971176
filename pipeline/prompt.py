"""Prompt: the pass over every event of a run, or of each of its datasets, under its frozen manifest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jobs.job import Job, Lane
from pipeline.booking import task_spec
from pipeline.datasets import Dataset, group_of
from pipeline.express import RunContext, folder_of_run
from pipeline.lineage import lineage
from pipeline.manifest import Manifest
from pipeline.model import Step
from pipeline.processing import ChunkWork, nothing
from pipeline.restarts import tier_names


def prompt_group(run: int, dataset: str = "") -> str:
    """How the tasks of a run's prompt are called, in the dashboard and in the ledger."""
    return group_of(Step.PROMPT, run, dataset)


def prompt_name(context: RunContext, dataset: Dataset, manifest: Manifest, tiers: tuple[str, ...] | None) -> str:
    """The lineage of a dataset's prompt: its events, the step, and the content and state of its conditions."""
    return lineage(tiers=tiers, conditions=manifest.content(), **_ingredients(context, dataset))


def prompt_tiers(context: RunContext, dataset: Dataset, manifest: Manifest) -> dict[str, str]:
    """The tiers that prompt can be started from, and the name their files have (`pipeline.restarts.tier_names`)."""
    return tier_names(context.experiment, Step.PROMPT, _ingredients(context, dataset), manifest.segments())


def _ingredients(context: RunContext, dataset: Dataset) -> dict[str, Any]:
    """What prompt depends on beside its conditions."""
    return {
        "step": Step.PROMPT,
        "experiment": context.experiment.name,
        "version": context.experiment.versions[Step.PROMPT],
        "settings": context.experiment.step_settings(),
        "inputs": context.prompt.inputs,
        **dataset.ingredients,
    }


def prompt_job(
    context: RunContext,
    dataset: Dataset,
    manifest: Manifest,
    tiers: tuple[str, ...] | None,
    probe: Callable[[str], None] = nothing,
) -> tuple[Job, ChunkWork]:
    """The pass that reconstructs the events of a dataset. Every output carries the manifest: which conditions, and in
    what state."""
    name, group = prompt_name(context, dataset, manifest, tiers), prompt_group(context.run, dataset.name)
    header = {
        "name": group,
        "step": Step.PROMPT.value,
        "run": context.run,
        "lineage": name,
        "experiment": context.experiment.name,
        "environment": dict(context.environment),
        "manifest": manifest.to_document(),
        **({"dataset": dataset.name} if dataset.name else {}),
    }
    folder = "-".join(filter(None, ("prompt", dataset.name, name[:12])))
    work = ChunkWork(
        experiment=context.experiment,
        step=Step.PROMPT,
        calibrations=(),
        segments=manifest.segments(),
        conditions_root=context.conditions_root,
        folder=f"{folder_of_run(context.area, context.run)}/{folder}",
        header=header,
        tiers=tiers,
        dataset=dataset,
        closes=tuple(c for c in context.calibrations if c.kind in manifest.kinds),
        largest_state=context.largest_state,
        probe=probe,
    )
    job = Job(
        name=name,
        group=group,
        lane=Lane.PROMPT,
        leaves=context.prompt.leaves,
        fan_in=context.prompt.fan_in,
        spec=task_spec(context.run, Step.PROMPT, context.prompt.layout),
        limit_s=context.limit_s,
    )
    return job, work
