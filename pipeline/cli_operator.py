"""What an operator orders: every command is one call of `Tier0.operator`."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli_settings import RUN, opened, settings_option

_run = click.argument("run", metavar="[RUN]", type=RUN, required=False)
_all = click.option("--all", "every", is_flag=True, help="All runs.")
_dataset = click.option("--dataset", default="", help="Only this dataset of them.")
_reason = click.option("--reason", required=True, help="Why; kept with your name.")


@click.command()
@_run
@_all
@_dataset
@_reason
@click.option("--stop-submitting", is_flag=True, help="With --all: give the cluster no task either.")
@settings_option
def hold(run: int | None, every: bool, dataset: str, reason: str, stop_submitting: bool, settings: Path | None) -> None:
    """Keep a run from prompt, or all runs (the big red button), until the hold is lifted.

    A running service obeys at its next step. What is released already stays so and goes on, and so do express and
    calibrations; with --stop-submitting nothing new goes to the cluster, and what runs there comes to its end. The
    deadlines of held runs go on.

    \b
    tier0 hold 190456 --reason "look at the magnet first"
    tier0 hold --all --reason "beam spot wrong since noon"
    tier0 hold --all --stop-submitting --reason "storage fails"
    """
    where = _where(run, every)
    if stop_submitting and (where is not None or dataset):
        raise click.UsageError("--stop-submitting is for all runs: give it with --all and without --dataset")
    click.echo(opened(settings).operator.hold(where, reason, dataset, stop_submitting=stop_submitting))


@click.command()
@_run
@_all
@_dataset
@click.option("--reason", default="", help="Why it may go; kept with your name.")
@settings_option
def lift(run: int | None, every: bool, dataset: str, reason: str, settings: Path | None) -> None:
    """Take back the holds put on a run, or on all runs, whoever put them.

    \b
    tier0 lift 190456 --reason "the magnet was on"
    tier0 lift --all
    """
    click.echo(opened(settings).operator.lift(_where(run, every), reason, dataset))


@click.command()
@click.option("--history", is_flag=True, help="All that were ever put, and who lifted them.")
@settings_option
def holds(history: bool, settings: Path | None) -> None:
    """Who holds what, since when and why.

    \b
    tier0 holds
    tier0 holds --history
    """
    click.echo(opened(settings).operator.holds(history=history))


@click.command()
@click.argument("run", type=RUN)
@click.argument("kind")
@_reason
@click.option("--publish", is_flag=True, help="Publish the very payload that a rule is against, marked.")
@click.option("--withdraw", is_flag=True, help="Take the waivers of this run and kind back.")
@settings_option
def waive(run: int, kind: str, reason: str, publish: bool, withdraw: bool, settings: Path | None) -> None:
    """Accept, by name, that a run goes on where a rule stops a KIND of its conditions.

    A payload that a gate rejects, a fit that did not converge or broke, or too little data for too long then falls
    back to the payload in force now, and not at the deadline. With --publish it is published instead. What is still
    being made is waited for. The manifest says who accepted it and why. It may need several names (`[authority]
    waivers_need`): each of them gives the same command.

    Where the canary holds a run, KIND is `canary`: with --publish the new payloads go out all the same, without it
    the run goes on with those in force.

    \b
    tier0 waive 190456 beamspot --reason "no beam, the old one will do"
    tier0 waive 190456 beamspot --publish --reason "the move is real, see the survey"
    tier0 waive 190456 canary --publish --reason "the old one was wrong, see the plot"
    tier0 waive 190456 beamspot --withdraw --reason "the survey was of last year"
    """
    if publish and withdraw:
        raise click.UsageError("--publish and --withdraw exclude each other")
    operator = opened(settings).operator
    if withdraw:
        click.echo(operator.withdraw(run, kind, reason))
    else:
        click.echo(operator.waive(run, kind, reason, publish=publish))


@click.command()
@click.argument("files", nargs=-1, required=True)
@_reason
@settings_option
def forget(files: tuple[str, ...], reason: str, settings: Path | None) -> None:
    """Have FILES that were set aside and never taken in, such as mistyped names, be told of no more.

    Who had them forgotten, when and why is kept. A file of which events were taken in stays: they are accounted for.

    \b
    tier0 forget data/run190465.rot --reason "mistyped"
    tier0 forget "/data/old/*.root" --reason "that disk is gone"
    """
    click.echo(opened(settings).operator.forget(files, reason))


def _where(run: int | None, every: bool) -> int | None:
    if run is None and not every:
        raise click.UsageError("say which RUN, or --all for all of them")
    if run is not None and every:
        raise click.UsageError("a RUN and --all exclude each other: say one of them")
    return run


commands = (hold, lift, holds, waive, forget)
