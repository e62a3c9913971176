"""`tier0 conditions tag` and `tier0 conditions global-tag`: tags and sets of tags themselves."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli_settings import opened, settings_option

SERVES = ("hlt", "express", "prompt", "pcl", "offline", "validation")


@click.group("tag")
def tag_group() -> None:
    """Tags themselves."""


@tag_group.command("create")
@click.argument("name")
@click.option("--kind", required=True, help="What its payloads are, such as beamspot.")
@click.option("--clock", type=click.Choice(["run", "lumi", "time"]), default="lumi", show_default=True)
@click.option("--kind-of-tag", "serves", type=click.Choice(SERVES), default="offline", show_default=True)
@settings_option
def tag_create(name: str, kind: str, clock: str, serves: str, settings: Path | None) -> None:
    """A new empty tag. Whom it serves decides what becomes of a late payload.

    hlt, express and prompt shift it to the first safe moment; pcl and validation refuse it; offline queues it for
    re-reconstruction.

    \b
    tier0 conditions tag create beamspot_test --kind beamspot --kind-of-tag validation
    tier0 conditions upload beamspot survey.npz --since 0 --reason "a test" --tag beamspot_test
    """
    click.echo(opened(settings).conditions.create_tag(name, kind, clock, serves))


@click.group("global-tag")
def global_tag_group() -> None:
    """Sets of tags, one a kind."""


@global_tag_group.command("create")
@click.argument("name")
@click.argument("tags", metavar="TAG...", nargs=-1, required=True)
@settings_option
def global_tag_create(name: str, tags: tuple[str, ...], settings: Path | None) -> None:
    """Name a set of tags, one a kind, for ever: for `diff`, `export`, other programs, and late payloads.

    A payload that comes too late for an offline tag goes to one of its kind in another global tag that no settled run
    uses, where there is one.

    \b
    tier0 conditions global-tag create rereco_2026 beamspot_rereco pedestal_rereco
    tier0 conditions diff prompt rereco_2026 --values
    """
    click.echo(opened(settings).conditions.define_global_tag(name, tags))
