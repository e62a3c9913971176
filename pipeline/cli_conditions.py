"""`tier0 conditions`: every command is one call of `Tier0.conditions`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pipeline.cli_settings import changes_of, opened, settings_option
from pipeline.cli_tags import SERVES, global_tag_group, tag_group


@click.group()
def conditions() -> None:
    """Look at the conditions, bring in payloads made elsewhere, take copies out.

    \b
    tier0 conditions show beamspot
    tier0 conditions diff prompt express --values
    tier0 conditions judge beamspot --set max_move.x.limit=0.02
    tier0 conditions export --file conditions.zip

    A TAG is a name, or `prompt` or `express` for what these use. With `@` and an entry number or a time it is the tag
    as it was then: beamspot_prompt_v1@41, prompt@2026-05-01T12:00.
    """


def _command(name: str, *parameters: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def decorate(function: Any) -> Any:
        for parameter in reversed((*parameters, settings_option)):
            function = parameter(function)
        return conditions.command(name)(function)

    return decorate


_kind = click.argument("kind")
_kind_or_tag = click.argument("kind", metavar="KIND|TAG")
_kinds = click.argument("kinds", metavar="[KIND]...", nargs=-1)
_tag = click.option("--tag", help="A tag by name instead of the one that prompt uses.")
_tags = click.option("--tag", "tags", multiple=True, help="A tag by name; may be given several times.")
_path = click.Path(path_type=Path)
_reason = click.option("--reason", required=True, help="Why; kept in the history.")
_only = click.option("--only", multiple=True, metavar="TAG", help="Only this tag of the file; may be repeated.")
_serves = click.option(
    "--kind-of-tag", "serves", type=click.Choice(SERVES), help="Whom the new tag serves; as the other if not given."
)


@_command("list")
def list_(settings: Path | None) -> None:
    """All tags: kind, clock, whom they serve, number of entries, where they are safe to grow."""
    click.echo(opened(settings).conditions.tags())


@_command("global-tags")
def global_tags(settings: Path | None) -> None:
    """All global tags, and the tag each uses for a kind."""
    click.echo(opened(settings).conditions.global_tags())


@_command("snapshots")
def snapshots(settings: Path | None) -> None:
    """The snapshots under which runs were settled: what each run's conditions are taken from, for ever.

    \b
    tier0 conditions snapshots
    tier0 conditions diff prompt_v1@41 prompt_v1@57
    """
    click.echo(opened(settings).conditions.snapshots())


@_command("show", _kind_or_tag, _tag, click.option("--plot", type=_path, help="Draw it to this file as well."))
def show(kind: str, tag: str | None, plot: Path | None, settings: Path | None) -> None:
    """The intervals of a kind, or of a tag, with their constants.

    \b
    tier0 conditions show beamspot --plot beamspot.png
    tier0 conditions show beamspot --tag beamspot_prompt_v1@2026-05-01T12:00
    """
    view = opened(settings).conditions
    click.echo(view.show(kind, tag))
    if plot:
        click.echo(f"drawn to {view.plot(kind, tag=tag, path=plot)}")


@_command(
    "plot",
    _kind,
    click.argument("names", metavar="[ARRAY]...", nargs=-1),
    _tags,
    click.option("-o", "--output", type=_path, help="Where to draw; KIND.png if not given."),
)
def plot(kind: str, names: tuple[str, ...], tags: tuple[str, ...], output: Path | None, settings: Path | None) -> None:
    """Draw constants over their intervals, of one tag or several over one another.

    Numbers with the band of their error; of large arrays the median, and the bands that hold 68 % and 95 % of their
    elements; of a status the share of each value. By default what has an error.

    \b
    tier0 conditions plot beamspot x y
    tier0 conditions plot pedestal mean noise -o pedestal.pdf
    tier0 conditions plot beamspot x --tag beamspot_prompt_v1 --tag beamspot_prompt_v2
    """
    path = output or Path(f"{kind}.png")
    click.echo(f"drawn to {opened(settings).conditions.plot(kind, *names, tag=tags or None, path=path)}")


@_command("history", _kind_or_tag, _tag, click.option("--as-of", help="Entry number, or time such as 2026-05-01."))
def history(kind: str, tag: str | None, as_of: str | None, settings: Path | None) -> None:
    """Every entry of a tag: who, when, from where on, and why; withdrawals too.

    \b
    tier0 conditions history beamspot
    tier0 conditions history beamspot_prompt_v1
    """
    click.echo(opened(settings).conditions.history(kind, tag, as_of))


@_command(
    "diff",
    click.argument("one", metavar="A"),
    click.argument("other", metavar="B"),
    click.option("--values", is_flag=True, help="Say how far the payloads are apart, in units and in sigma."),
)
def diff(one: str, other: str, values: bool, settings: Path | None) -> None:
    """The intervals over which two tags, or two global tags, answer differently.

    Exit code 0: nowhere; 3: somewhere.

    \b
    tier0 conditions diff beamspot_prompt_v1 beamspot_prompt_v2 --values
    tier0 conditions diff prompt express
    tier0 conditions diff prompt@41 prompt@57
    tier0 conditions diff beamspot_prompt_v1@2026-05-01 beamspot_prompt_v1
    """
    found = opened(settings).conditions.diff(one, other, values=values)
    click.echo(found)
    sys.exit(found.exit_code)


@_command(
    "judge",
    _kind,
    click.option(
        "--set", "changes", metavar="GATE[.ARRAY[.PLACE]].KEY=VALUE", multiple=True, help="A setting; may be repeated."
    ),
    click.option("--gates", type=_path, help="A TOML file with [[gates.KIND]] instead of those in force."),
    click.option("--runs", help="Runs such as 1-99; all if not given."),
    click.option("--version", type=int, help="Processing version whose payloads are judged."),
)
def judge(
    kind: str,
    changes: tuple[str, ...],
    gates: Path | None,
    runs: str | None,
    version: int | None,
    settings: Path | None,
) -> None:
    """Try gates on past runs: what was said of every payload the loop has made, and what would be.

    No event is read, and nothing is changed. A payload is held to the one that would be in force under these gates.
    Without --set and --gates the ones of the settings file are tried. Exit code 0: all as it was; 2: no payload was
    judged in these runs; 3: some verdict would be another.

    A setting is named by its gate, and by the array too where several gates are of a kind. Of several with the same
    array each is named by its place among them, counted from 1 in their order in the settings.

    \b
    tier0 conditions judge beamspot --set max_move.x.limit=0.02 --runs 190456-190500
    tier0 conditions judge beamspot --set significance.n_sigma=5
    tier0 conditions judge pedestal --set moved_share.mean.2.share=0.002
    tier0 conditions judge beamspot --gates candidate.toml
    """
    found = opened(settings).conditions.judge(
        kind,
        changes_of(changes, "GATE.KEY=VALUE, such as max_move.limit=0.02"),
        gates=gates,
        runs=runs,
        version=version,
    )
    click.echo(found)
    sys.exit(found.exit_code)


@_command(
    "export",
    _kinds,
    _tags,
    click.option("-o", "--output", type=_path, default=Path("conditions"), show_default=True, help="A folder."),
    click.option("--format", "form", type=click.Choice(["npz", "zarr"]), default="npz", show_default=True),
    click.option("--file", type=_path, help="One zip file instead of a folder."),
    click.option("--force", is_flag=True, help="With --file: write it anew where it exists."),
)
def export(kinds: tuple[str, ...], tags: tuple[str, ...], settings: Path | None, **where: Any) -> None:
    """Write payloads and their intervals so that they can be read without this program.

    A folder has one npz file or zarr folder a payload, and TAG.json with the intervals. The one file is a zip of JSON
    and npy, says in its README.txt how it is read, and the same content gives the same bytes. Of the kinds named, or
    all; what prompt uses, or the tags named.

    \b
    tier0 conditions export beamspot -o beamspot
    tier0 conditions export --format zarr
    tier0 conditions export --file conditions.zip
    tier0 conditions export --tag prompt@41 --file as-it-was.zip
    """
    file, force = where["file"], where["force"]
    if force and not file:
        raise click.UsageError("--force is for one file: give it with --file")
    view = opened(settings).conditions
    if file:
        click.echo(f"written to {view.export_file(kinds, file, tags, force=force)}")
        return
    for index in view.export(kinds, where["output"], tags, where["form"]):
        click.echo(f"written to {index}")


@_command(
    "import",
    click.argument("file", type=_path),
    _only,
    click.option("--as", "new", metavar="NAME", help="Another name for the tag."),
    _serves,
)
def import_(file: Path, only: tuple[str, ...], new: str | None, serves: str | None, settings: Path | None) -> None:
    """Enter exported conditions, a zip file or a folder, as new tags; each payload is held to its content id.

    What is there already is left alone. To put payloads into a tag in use, through the gates, see `upload`.

    \b
    tier0 conditions import conditions.zip
    tier0 conditions import conditions.zip --only beamspot_prompt_v1 --as beamspot_of_may --kind-of-tag validation
    """
    for line in opened(settings).conditions.import_tags(file, only, new=new, serves=serves):
        click.echo(line)


@_command(
    "upload",
    _kind,
    click.argument("file", type=_path),
    click.option("--since", help="Run or run:lumisection a single payload holds from; 0 for the very beginning."),
    _reason,
    _tag,
    _only,
)
def upload(kind: str, file: Path, since: str | None, reason: str, settings: Path | None, **where: Any) -> None:
    """Enter payloads made elsewhere, through the gates of their kind.

    One payload: an npz file with its arrays, or an exported zarr folder, and --since. Many: a folder or zip file as
    `export` writes it; each holds from where it did. You are told what became of every payload, and which settled runs
    it touches; those keep what they have. A payload must have the arrays, shapes, types and units of its kind, and
    numbers where they must be. Exit code 1: nothing went in; 3: some stay out, or a tag refused some.

    \b
    tier0 conditions upload beamspot survey.npz --since 190000 --reason "survey of May"
    tier0 conditions upload beamspot conditions.zip --reason "from the other site"
    """
    found = opened(settings).conditions.upload(kind, file, since, reason, **where)
    click.echo(found)
    sys.exit(found.exit_code)


@_command(
    "withdraw",
    _kind,
    click.option("--since", required=True, help="Run or run:lumisection at which the payload begins."),
    _reason,
    _tag,
)
def withdraw(kind: str, since: str, reason: str, tag: str | None, settings: Path | None) -> None:
    """Take back the payload that begins at a moment: what was there before it holds again.

    Settled runs keep it, and you are told which. Without --tag it is taken from the tags of prompt and express that
    have it.

    \b
    tier0 conditions withdraw beamspot --since 190456 --reason "wrong sign of the tilt"
    """
    click.echo(opened(settings).conditions.withdraw(kind, since, reason, tag))


@_command(
    "copy",
    click.argument("tag"),
    click.argument("new", metavar="NEWTAG"),
    click.option("--from", "first", help="From this run or run:lumisection on."),
    click.option("--to", "last", help="Up to this one, which is left out: nothing holds from there on."),
    _serves,
)
def copy(tag: str, new: str, settings: Path | None, **part: str | None) -> None:
    """A new tag with what another answers, or did at a moment. Only ids are copied, no payload.

    \b
    tier0 conditions copy beamspot_prompt_v1 beamspot_rereco --kind-of-tag offline
    tier0 conditions copy beamspot_prompt_v1@41 beamspot_of_may --from 190000 --to 191000
    """
    click.echo(opened(settings).conditions.copy(tag, new, **part))


@_command("delete", click.argument("name", metavar="PAYLOAD|TAG"), _reason)
def delete(name: str, reason: str, settings: Path | None) -> None:
    """Delete a payload that nothing names, by its id, or a tag that was never used. What is in use is refused.

    Who deleted what, when and why stays: `tier0 conditions unused --history`.

    \b
    tier0 conditions delete 3f9c2a1b77d0 --reason "of a test"
    tier0 conditions delete beamspot_tset --reason "mistyped"
    """
    click.echo(opened(settings).conditions.delete(name, reason))


@_command("unused", click.option("--history", is_flag=True, help="What was deleted, by whom and why."))
def unused(history: bool, settings: Path | None) -> None:
    """What may be deleted: payloads that nothing names, and tags that were never used.

    \b
    tier0 conditions unused
    tier0 conditions unused --history
    """
    click.echo(opened(settings).conditions.unused(history=history))


@_command("late", click.argument("tag", required=False))
def late(tag: str | None, settings: Path | None) -> None:
    """What became of all payloads and withdrawals that touched settled runs, of one TAG or all; and what is queued.

    \b
    tier0 conditions late
    tier0 conditions late beamspot_offline
    """
    click.echo(opened(settings).conditions.late(tag))


@_command(
    "what-if",
    _kind,
    click.argument("file", type=_path),
    click.option("--since", required=True, help="Run or run:lumisection it would hold from."),
    _tag,
    click.option("--sample", default=0, metavar="N", help="Do about N events of the touched runs both ways."),
)
def what_if(kind: str, file: Path, since: str, tag: str | None, sample: int, settings: Path | None) -> None:
    """Which runs, lumisections and outputs would change if this payload went in, and what redoing them would cost.

    Nothing is entered. With --sample, events are done under the conditions in force and the new ones, and the figures
    of merit of the experiment say whether it is better; exit code 3 when one is worse.

    \b
    tier0 conditions what-if beamspot survey.npz --since 190456
    tier0 conditions what-if beamspot survey.npz --since 190456:20 --sample 500
    """
    found = opened(settings).conditions.what_if(kind, file, since, tag, sample)
    click.echo(found)
    sys.exit(3 if found.found.worse else 0)


for group in (tag_group, global_tag_group):
    conditions.add_command(group)
