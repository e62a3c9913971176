"""Payloads made again from kept states: every command is one call of `Tier0.conditions.refits`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli_settings import RUN, changes_of, opened, settings_option

if TYPE_CHECKING:
    from pipeline.refit_view import Made
    from pipeline.tier0 import Tier0

_path = click.Path(path_type=Path)
_upload = click.option(
    "--upload",
    "tags",
    metavar="TAG",
    multiple=True,
    help="Offer it to this offline tag. Into one that is empty: the last payload then holds for all later runs too.",
)
_reason = click.option("--reason", default="", help="With --upload: why; kept in the history.")
_plot = click.option("--plot", type=_path, help="Draw the differences to this file.")


@click.group()
def calibrate() -> None:
    """Make constants again from the states that express has kept."""


@calibrate.command()
@click.argument("runs", metavar="[RUN]...", nargs=-1, type=RUN)
@click.option("--set", "words", metavar="KIND.KEY=VALUE", multiple=True, help="A setting; may be repeated.")
@_upload
@_reason
@_plot
@settings_option
def again(
    runs: tuple[int, ...],
    words: tuple[str, ...],
    tags: tuple[str, ...],
    reason: str,
    plot: Path | None,
    settings: Path | None,
) -> None:
    """Finalize RUNs again with boundaries or thresholds moved: their intervals and payloads beside those published.

    Of all released runs if none is named. No event is read, and nothing is published; with --upload what the gates let
    pass goes into an offline tag. A setting that goes into the states is refused: these are made from events.
    Exit code 0: all as it was; 2: something could not be made; 3: something differs.

    \b
    tier0 calibrate again 190456 --set beamspot.min_tracks=500
    tier0 calibrate again --set beamspot.least_move=5e-4 --set beamspot.significance=5 --plot moved.png
    tier0 calibrate again 190456 --set beamspot.min_tracks=500 --upload beamspot_offline --reason "finer intervals"
    """
    changes = changes_of(words, "KIND.KEY=VALUE, such as beamspot.min_tracks=500")
    with opened(settings) as tier0:
        _show(tier0, tier0.conditions.refits.again(changes, runs), tags, reason, plot)


@click.group(invoke_without_command=True)
@click.option("--mask", type=_path, help="Keep only what this certification file has.")
@click.option("-o", "--output", type=_path, help="Write the good-run list here, not to the screen.")
@settings_option
@click.pass_context
def certify(context: click.Context, mask: Path | None, output: Path | None, settings: Path | None) -> None:
    """The good-run list of all certified runs, as CMS's JSON; and what follows from it.

    Units whose conditions do not close after prompt are not in it until somebody accepts them, if the settings do not
    say otherwise (`[closure] then`); which these are is told beside it.

    \b
    tier0 certify -o golden.json
    tier0 certify --mask Cert_2012.json
    tier0 certify accept 190456 beamspot --reason "3.1 sigma of a tenth of a micrometre"
    tier0 certify refit 190456
    """
    if context.invoked_subcommand is None:
        _list(opened(settings), mask, output)
    elif mask or output or settings:
        raise click.UsageError(f"options go behind `{context.invoked_subcommand}`, where it has them")


def _list(tier0: Tier0, mask: Path | None, output: Path | None) -> None:
    from pipeline.whole import write_whole

    found = tier0.results.good_runs(mask)
    text = json.dumps(found) + "\n"
    for doubt in tier0.operator.doubts():
        click.echo(f"run {doubt.run}: {doubt}", err=True)
    if output:
        write_whole(output.resolve(), text.encode(), lambda _: None)  # resolved: a link stays, and so does a device
        click.echo(f"written to {output}: {len(found)} runs in the good-run list")
    else:
        click.echo(text, nl=False)


@certify.command("refit")
@click.argument("run", type=RUN)
@click.option("--kind", "kinds", multiple=True, help="Only this kind; may be repeated.")
@_upload
@_reason
@_plot
@settings_option
def refit(
    run: int, kinds: tuple[str, ...], tags: tuple[str, ...], reason: str, plot: Path | None, settings: Path | None
) -> None:
    """Finalize a certified RUN again without what is not certified good, and hold it beside what was published.

    No event is read, and nothing is published; with --upload it goes into an offline tag, and its fate there is told.
    Exit code 0: all as it was; 2: something could not be made; 3: something differs.

    \b
    tier0 certify refit 190456 --plot refit.png
    tier0 certify refit 190456 --kind beamspot --upload beamspot_offline --reason "without the unstable minutes"
    """
    with opened(settings) as tier0:
        _show(tier0, tier0.conditions.refits.certified(run, kinds), tags, reason, plot)


@certify.command("accept")
@click.argument("run", type=RUN)
@click.argument("kind")
@click.option("--reason", required=True, help="Why; kept with your name.")
@settings_option
def accept(run: int, kind: str, reason: str, settings: Path | None) -> None:
    """Let units of a RUN into the good-run list whose conditions of a KIND do not close.

    \b
    tier0 certify accept 190456 beamspot --reason "3.1 sigma of a tenth of a micrometre"
    """
    click.echo(opened(settings).operator.accept(run, kind, reason))


def _show(tier0: Tier0, made: Made, tags: tuple[str, ...], reason: str, plot: Path | None) -> Any:
    click.echo(made)
    if plot:
        click.echo(f"drawn to {made.plot(plot)}")
    for fates in tier0.conditions.refits.offer(made, tags, reason):
        click.echo(fates)
    sys.exit(made.exit_code)
