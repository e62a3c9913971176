"""`tier0 shadow`: candidates that run beside production."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli_settings import RUN, opened, settings_option


@click.group()
def shadow() -> None:
    """Candidates that run on the same states beside production and publish nothing.

    A candidate is a table of the settings; what it does not set is as in production:

    \b
    [shadow.strict]
    kind = "beamspot"
    calibration = { min_tracks = 500 }

    \b
    tier0 run cms.toml data/*.root        runs it, too, on all runs whose states are kept
    tier0 shadow show strict
    tier0 shadow promote strict --reason "fewer false intervals over 200 runs"
    """


@shadow.command("list")
@settings_option
def list_(settings: Path | None) -> None:
    """The candidates of the settings, and what was promoted."""
    click.echo(opened(settings).conditions.shadows.overview())


@shadow.command()
@click.argument("name")
@click.option("--run", "runs", type=RUN, multiple=True, help="Only this run; may be repeated.")
@settings_option
def show(name: str, runs: tuple[int, ...], settings: Path | None) -> None:
    """Side by side with production: payloads, verdicts, and how far they are apart in units and in sigma.

    \b
    tier0 shadow show strict
    tier0 shadow show strict --run 190456 --run 190459
    """
    click.echo(opened(settings).conditions.shadows.show(name, runs or None))


@shadow.command()
@click.argument("name")
@click.option("--reason", required=True, help="Why; kept with your name.")
@settings_option
def promote(name: str, reason: str, settings: Path | None) -> None:
    """Make a candidate's settings those of production, from behind the last released run on.

    What was released stays as it was. It holds with the next `tier0 run`, whatever the settings file says of its kind.

    \b
    tier0 shadow promote strict --reason "fewer false intervals over 200 runs"
    """
    click.echo(f"promoted: {opened(settings).conditions.shadows.promote(name, reason)}")
