"""`tier0 conditions`: every command is one call of `Tier0.conditions`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pipeline.cli_settings import opened, settings_option


@click.group()
def conditions() -> None:
    """Look at the conditions, bring in payloads made elsewhere, take copies out."""


def _conditions_command(name: str, *parameters: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def decorate(function: Any) -> Any:
        for parameter in reversed((*parameters, settings_option)):
            function = parameter(function)
        return conditions.command(name)(function)

    return decorate


@_conditions_command("list")
def conditions_list(settings: Path | None) -> None:
    """All tags: kind, clock, number of entries, where they are safe to grow."""
    click.echo(opened(settings).conditions.tags())


_kind = click.argument("kind")
_tag = click.option("--tag", help="A tag by name instead of the one that prompt uses.")


@_conditions_command(
    "show", _kind, _tag, click.option("--plot", type=click.Path(path_type=Path), help="Draw it to this file as well.")
)
def conditions_show(kind: str, tag: str | None, plot: Path | None, settings: Path | None) -> None:
    """The intervals of a kind with their constants.

    \b
    tier0 conditions show beamspot --plot beamspot.png
    """
    view = opened(settings).conditions
    click.echo(view.show(kind, tag))
    if plot:
        click.echo(f"drawn to {view.plot(kind, tag=tag, path=plot)}")


@_conditions_command("history", _kind, _tag, click.option("--as-of", help="Entry number, or time such as 2026-05-01."))
def conditions_history(kind: str, tag: str | None, as_of: str | None, settings: Path | None) -> None:
    """Every entry of a tag: who, when, from where on, and why; withdrawals too."""
    click.echo(opened(settings).conditions.history(kind, tag, as_of))


@_conditions_command(
    "export", _kind, _tag, click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("conditions"))
)
def conditions_export(kind: str, tag: str | None, output: Path, settings: Path | None) -> None:
    """Write the payloads of a kind and their intervals to a folder (npz and JSON), readable without this program."""
    click.echo(f"written to {opened(settings).conditions.export(kind, output, tag)}")


@_conditions_command(
    "upload",
    _kind,
    click.argument("file", type=click.Path(path_type=Path)),
    click.option("--since", required=True, help="Run or run:lumisection it holds from; 0 for the very beginning."),
    click.option("--reason", required=True, help="Why; kept in the history."),
    _tag,
)
def conditions_upload(kind: str, file: Path, since: str, reason: str, tag: str | None, settings: Path | None) -> None:
    """Enter a payload made elsewhere: an npz file with its arrays, or an exported zarr folder.

    It goes through the gates of its kind, and you are told what became of it.

    \b
    tier0 conditions upload beamspot survey.npz --since 190000 --reason "survey of May"
    """
    click.echo(opened(settings).conditions.upload(kind, file, since, reason, tag))
