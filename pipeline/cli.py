"""The command `tier0`: every subcommand is one call of `Tier0`."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli_conditions import conditions
from pipeline.cli_database import commands as of_database
from pipeline.cli_operator import commands as orders
from pipeline.cli_refit import calibrate, certify
from pipeline.cli_settings import MOST_RUN, RUN, opened, settings_option
from pipeline.cli_shadow import shadow

if TYPE_CHECKING:
    from pipeline.tier0 import Tier0

EXIT_CODES = """
\b
Exit codes: 0 all well; 1 cannot be done as asked (a wrong setting, an unknown run);
2 wrong use of the command, and, where its own help says so (`conditions judge`, `calibrate again`, `certify refit`),
something could not be judged or made;
3 done, but something was set aside, is missing, is not good, differs, or had to fall back;
4 some run is held or waits for its deadline; 5 stopped by the site (a full disk, another driver), or nothing may be
submitted (`tier0 hold --all --stop-submitting`); 130 stopped by Ctrl-C.
"""
INTERRUPTED = 130
"""as shells say it: 128 and the number of the signal"""
MOST_RUNS = 100_000
"""runs that one command may name: they are held in memory"""


class _Refusals(click.Group):
    """Turns errors that have a clear word, and Ctrl-C, into that word and an exit code; lets all others through."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise  # a help that was shown, a wrong use: no library is read for these
        except KeyboardInterrupt:  # click would make an error of it
            click.echo("stopped", err=True)
            sys.exit(INTERRUPTED)
        except Exception as problem:
            code = _code_of(problem)
            if code is None:
                raise
            click.echo(f"tier0: {problem}", err=True)
            sys.exit(code)


@contextmanager
def _stopped_by_hand() -> Iterator[None]:
    """Ctrl-C within the block is told in a line and ends the command; the cluster that is closed behind it is quiet."""
    before = signal.signal(signal.SIGINT, _hush)
    try:
        yield
    except KeyboardInterrupt:
        click.echo("stopped; the same command goes on from here", err=True)
        sys.exit(INTERRUPTED)
    finally:
        signal.signal(signal.SIGINT, before)


def _hush(*_: Any) -> None:
    # As it comes: the cluster is closed before anybody can catch what is raised here.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    raise KeyboardInterrupt


def _code_of(problem: Exception) -> int | None:
    from pipeline.refusals import SITE, refused

    if isinstance(problem, SITE):
        return 5
    return 1 if refused(problem) else None


@click.group(cls=_Refusals, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dask-tier0")
def main() -> None:
    """A Tier-0 for experiments, on Dask.

    \b
    tier0 run cms.toml data/*.root        the whole chain over the runs in these files
    tier0 run cms.toml data/*.root --dry-run
    tier0 why 190456                      where a run stands, and why
    tier0 hold 190456 --reason "magnet"   keep it from prompt; lift, holds, waive
    tier0 conditions show beamspot
    tier0 certify -o golden.json          the good-run list; certify refit, certify accept
    tier0 calibrate again 190456 --set beamspot.min_tracks=500
    tier0 database backup tier0.backup    with runs in flight; check, migrate, restore
    tier0 simulate ref10.toml data --runs 7-9
    tier0 demo                            all of it on simulated runs

    Commands that look or change take the settings with -s; without it they use tier0.toml, or the one settings file
    in this folder.
    """


@main.command()
@click.argument("settings", type=click.Path(path_type=Path))
@click.argument("files", metavar="FILES...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Say what would be done, and why, and do nothing.")
@click.option("--wait", is_flag=True, help="Stay until the deadlines of waiting and held runs have passed.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
def run(settings: Path, files: tuple[Path, ...], dry_run: bool, wait: bool, quiet: bool) -> None:
    """Take the runs in FILES through express, conditions, prompt and certification.

    What is done already is not done again: call it again after an end of any kind, with more files, or with other
    settings. Ends with a table, one line a run.

    \b
    tier0 run cms.toml /data/run190*.root
    tier0 run cms.toml /data/*.root --dry-run
    """
    _settings_first(settings, files)
    if dry_run:
        click.echo(opened(settings).plan(*files))
        return
    with _stopped_by_hand(), opened(settings) as tier0:
        summary = tier0.run(*files, wait=wait, progress=not quiet, begun=lambda _: _tell_begun(tier0))
    click.echo(summary.text())
    sys.exit(summary.exit_code)


def _settings_first(settings: Path, files: Sequence[Path]) -> None:
    """Say it to who gave event files alone, before they are read as settings. Raises click.UsageError."""
    try:
        with settings.open("rb") as file:
            is_data = b"\0" in file.read(1024)
    except OSError:
        is_data = settings.suffix == ".root"
    if is_data:
        meant = next((file for file in files if file.suffix == ".toml"), "tier0.toml")
        raise click.UsageError(
            f"{settings} is no settings file, and that comes first: tier0 run SETTINGS FILES..., "
            f"such as `tier0 run {meant} {settings}`"
        )
    if not files:
        raise click.UsageError(f"no event files are named: tier0 run {settings} FILES...")


def _tell_begun(tier0: Tier0) -> None:
    click.echo(f"Dask dashboard: {tier0.dashboard}")
    for mismatch in tier0.mismatches:
        click.echo(f"not as it should be: {mismatch}", err=True)


@main.command()
@click.argument("settings", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--runs", required=True, help="Run numbers, such as 101-103 or 101,105.")
@click.option("--lumis", type=click.IntRange(1), default=12, show_default=True, help="Lumisections of a run.")
@click.option("--events", type=click.IntRange(0), default=500, show_default=True, help="Events of a lumisection.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="The same gives the same events.")
@click.option("--format", "form", default="", help="How files are written; for ref10 ttree or rntuple.")
@click.option(
    "--scenario",
    type=click.Path(dir_okay=False, path_type=Path),
    help="JSON: beam, physics, detector of the experiment.",
)
@click.option("--quiet", is_flag=True, help="Show no progress.")
def simulate(settings: Path, folder: Path, runs: str, scenario: Path | None, quiet: bool, **numbers: Any) -> None:
    """Have the experiment play its detector, and write its data to FOLDER as its data acquisition would.

    The truth goes to FOLDER/truth, which no reconstruction opens. What is made already is not made again.

    \b
    tier0 simulate ref10.toml data --runs 101-103 --lumis 20 --events 1000
    tier0 run ref10.toml "data/run*/*/*.root"
    """
    from pipeline.experiments.simulated import Order, simulation_of
    from pipeline.settings import load_settings, make_experiment

    numbered = _runs(runs)
    try:
        given = scenario.read_text(encoding="utf-8") if scenario else ""
    except (OSError, UnicodeDecodeError) as problem:
        raise click.UsageError(f"the scenario {scenario} cannot be read: {problem}") from None
    order = Order(scenario=given, **numbers)
    # Before a cluster is started for an order that cannot be.
    simulation_of(make_experiment(load_settings(settings)), order)
    with _stopped_by_hand(), opened(settings) as tier0:
        files = tier0.simulate(folder, numbered, order, progress=not quiet, begun=lambda _: _tell_begun(tier0))
    click.echo(f"{len(files)} event files of {len(numbered)} runs in {folder}")


def _runs(text: str) -> list[int]:
    """The runs that a text such as `101-103,107` names, each once. Raises click.UsageError."""
    found: dict[int, None] = {}
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise click.UsageError(f"--runs {text}: write run numbers such as 101-103 or 101,105")
        begin, end = int(first), int(last or first)
        if not 1 <= begin <= end <= MOST_RUN:
            why = f"{part.strip()} ends before it begins" if begin > end else f"a run is one of 1 to {MOST_RUN}"
            raise click.UsageError(f"--runs {text}: {why}")
        if len(found) + end - begin >= MOST_RUNS:
            raise click.UsageError(f"--runs {text}: more than {MOST_RUNS} runs at once; name fewer, and call it again")
        found |= dict.fromkeys(range(begin, end + 1))
    return list(found)


@main.command()
@settings_option
def status(settings: Path | None) -> None:
    """Where every run stands: the table that `run` ends with."""
    click.echo(opened(settings).status().text())


@main.command()
@click.argument("number", metavar="RUN", type=RUN)
@settings_option
def why(number: int, settings: Path | None) -> None:
    """Why a run stands where it stands: what it waits for, what was set aside, which conditions it has.

    \b
    tier0 why 190456
    """
    click.echo(opened(settings).why(number))


@main.command()
@click.option("--folder", type=click.Path(path_type=Path), default=Path("tier0-demo"), help="Where to work.")
def demo(folder: Path) -> None:
    """Simulate runs of the bundled detector, take them through the chain, and compare what was put in and found."""
    from pipeline.demo import demonstrate

    sys.exit(demonstrate(folder, click.echo))


@main.group("settings")
def settings_group() -> None:
    """Look at settings."""


@settings_group.command("check")
@click.argument("settings", type=click.Path(path_type=Path))
def settings_check(settings: Path) -> None:
    """Read a settings file, say everything that is wrong with it, and print what is in force.

    Names the kinds of conditions that have no payload to start from. It only looks: no folder and no database is made.
    """
    from pipeline.tier0 import checked

    click.echo(checked(settings))


main.add_command(conditions)
for command in (shadow, calibrate, certify, *orders, *of_database):
    main.add_command(command)
