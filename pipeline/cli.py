"""The command `tier0`: every subcommand is one call of `Tier0`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pipeline.tier0 import Tier0

EXIT_CODES = """
\b
Exit codes: 0 all well; 1 cannot be done as asked (a wrong setting, an unknown run);
2 wrong use of the command; 3 done, but something was set aside, is missing, is not good, or had to fall back;
4 some run is held or waits for its deadline; 5 stopped by the site (a full disk, another driver).
"""


class _Refusals(click.Group):
    """Turns errors that have a clear word into that word and an exit code; lets all others through."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except Exception as problem:
            code = _code_of(problem)
            if code is None:
                raise
            click.echo(f"tier0: {problem}", err=True)
            sys.exit(code)


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
    tier0 conditions show beamspot
    tier0 simulate ref10.toml data --runs 7-9
    tier0 demo                            all of it on simulated runs

    Commands that look or change take the settings with -s; without it they use tier0.toml, or the one settings file
    in this folder.
    """


_settings_option = click.option(
    "-s", "--settings", type=click.Path(path_type=Path), envvar="TIER0_SETTINGS", help="Settings file (TOML)."
)


def _open(settings: Path | None) -> Tier0:
    from pipeline.tier0 import Tier0

    return Tier0(settings or _nearby())


def _nearby() -> Path:
    here = Path("tier0.toml")
    if here.exists():
        return here
    found = [path for path in sorted(Path().glob("*.toml")) if "[experiment]" in path.read_text(errors="replace")]
    if len(found) != 1:
        what = "no settings file" if not found else f"{len(found)} settings files"
        raise click.UsageError(f"{what} in this folder: say which with -s FILE")
    return found[0]


@main.command()
@click.argument("settings", type=click.Path(path_type=Path))
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Say what would be done, and why, and do nothing.")
@click.option("--wait", is_flag=True, help="Stay until the deadlines of waiting runs have passed.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
def run(settings: Path, files: tuple[Path, ...], dry_run: bool, wait: bool, quiet: bool) -> None:
    """Take the runs in FILES through express, conditions, prompt and certification.

    What is done already is not done again: call it again after an end of any kind, with more files, or with other
    settings. Ends with a table, one line a run.

    \b
    tier0 run cms.toml /data/run190*.root
    tier0 run cms.toml /data/*.root --dry-run
    """
    tier0 = _open(settings)
    if dry_run:
        click.echo(tier0.plan(*files))
        return
    with tier0:
        click.echo(f"Dask dashboard: {tier0.dashboard}")
        for mismatch in tier0.mismatches:
            click.echo(f"not as it should be: {mismatch}", err=True)
        summary = tier0.run(*files, wait=wait, progress=not quiet)
    click.echo(summary.text())
    sys.exit(summary.exit_code)


@main.command()
@click.argument("settings", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--runs", required=True, help="Run numbers, such as 101-103 or 101,105.")
@click.option("--lumis", default=12, show_default=True, help="Lumisections of a run.")
@click.option("--events", default=500, show_default=True, help="Events of a lumisection.")
@click.option("--seed", default=1, show_default=True, help="The same seed gives the same events.")
@click.option("--format", "form", default="", help="How files are written; for ref10 ttree or rntuple.")
@click.option("--scenario", type=click.Path(path_type=Path), help="JSON: beam, physics, detector of the experiment.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
def simulate(settings: Path, folder: Path, runs: str, scenario: Path | None, quiet: bool, **numbers: Any) -> None:
    """Have the experiment play its detector, and write its data to FOLDER as its data acquisition would.

    The truth goes to FOLDER/truth, which no reconstruction opens. What is made already is not made again.

    \b
    tier0 simulate ref10.toml data --runs 101-103 --lumis 20 --events 1000
    tier0 run ref10.toml "data/run*/*/*.root"
    """
    from pipeline.experiments.simulated import Order

    try:
        order = Order(scenario=scenario.read_text() if scenario else "", **numbers)
        numbered = _runs(runs)
    except (OSError, ValueError) as problem:
        raise click.UsageError(str(problem)) from None
    with _open(settings) as tier0:
        click.echo(f"Dask dashboard: {tier0.dashboard}")
        files = tier0.simulate(folder, numbered, order, progress=not quiet)
    click.echo(f"{len(files)} event files of {len(numbered)} runs in {folder}")


def _runs(text: str) -> list[int]:
    """The runs that a text such as `101-103,107` names. Raises ValueError."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f"--runs {text!r}: write run numbers such as 101-103 or 101,105")
        found += range(int(first), int(last or first) + 1)
    return found


@main.command()
@_settings_option
def status(settings: Path | None) -> None:
    """Where every run stands: the table that `run` ends with."""
    click.echo(_open(settings).status().text())


@main.command()
@click.argument("number", metavar="RUN", type=int)
@_settings_option
def why(number: int, settings: Path | None) -> None:
    """Why a run stands where it stands: what it waits for, what was set aside, which conditions it has.

    \b
    tier0 why 190456
    """
    click.echo(_open(settings).why(number))


@main.command()
@click.option("--folder", type=click.Path(path_type=Path), default=Path("tier0-demo"), help="Where to work.")
def demo(folder: Path) -> None:
    """Simulate runs of the bundled detector, take them through the chain, and compare what was put in and found."""
    from pipeline.demo import demonstrate

    sys.exit(demonstrate(folder, click.echo))


@main.command()
@click.option("--mask", type=click.Path(path_type=Path), help="Keep only what this certification file has.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Write the good-run list here, not to the screen."
)
@_settings_option
def certify(mask: Path | None, output: Path | None, settings: Path | None) -> None:
    """The good-run list of all certified runs, as CMS's JSON.

    \b
    tier0 certify -o golden.json
    tier0 certify --mask Cert_2012.json
    """

    text = json.dumps(_open(settings).good_runs(mask)) + "\n"
    if output:
        output.write_text(text)
    else:
        click.echo(text, nl=False)


@main.group("settings")
def settings_group() -> None:
    """Look at settings."""


@settings_group.command("check")
@click.argument("settings", type=click.Path(path_type=Path))
def settings_check(settings: Path) -> None:
    """Read a settings file, say everything that is wrong with it, and print what is in force.

    Names the kinds of conditions that have no payload to start from.
    """
    click.echo(_open(settings).check())


@main.group()
def conditions() -> None:
    """Look at the conditions, bring in payloads made elsewhere, take copies out."""


def _conditions_command(name: str, *parameters: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def decorate(function: Any) -> Any:
        for parameter in reversed((*parameters, _settings_option)):
            function = parameter(function)
        return conditions.command(name)(function)

    return decorate


@_conditions_command("list")
def conditions_list(settings: Path | None) -> None:
    """All tags: kind, clock, number of entries, where they are safe to grow."""
    click.echo(_open(settings).conditions.tags())


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
    view = _open(settings).conditions
    click.echo(view.show(kind, tag))
    if plot:
        click.echo(f"drawn to {view.plot(kind, tag=tag, path=plot)}")


@_conditions_command("history", _kind, _tag, click.option("--as-of", help="Entry number, or time such as 2026-05-01."))
def conditions_history(kind: str, tag: str | None, as_of: str | None, settings: Path | None) -> None:
    """Every entry of a tag: who, when, from where on, and why; withdrawals too."""
    click.echo(_open(settings).conditions.history(kind, tag, as_of))


@_conditions_command(
    "export", _kind, _tag, click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("conditions"))
)
def conditions_export(kind: str, tag: str | None, output: Path, settings: Path | None) -> None:
    """Write the payloads of a kind and their intervals to a folder (npz and JSON), readable without this program."""
    click.echo(f"written to {_open(settings).conditions.export(kind, output, tag)}")


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
    click.echo(_open(settings).conditions.upload(kind, file, since, reason, tag))
