"""Which settings a command of `tier0` works under."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pipeline.tier0 import Tier0

MOST_RUN = (1 << 31) - 1
"""the largest run number that files and tags may have"""
RUN = click.IntRange(0, MOST_RUN)

settings_option = click.option(
    "-s", "--settings", type=click.Path(path_type=Path), envvar="TIER0_SETTINGS", help="Settings file (TOML)."
)


def opened(settings: Path | None) -> Tier0:
    """The Tier-0 of a settings file; without one, of `tier0.toml` or the one settings file in this folder."""
    from pipeline.tier0 import Tier0

    return Tier0(settings or nearby())


def nearby() -> Path:
    """The settings file of this folder: `tier0.toml`, or the only one there is."""
    here = Path("tier0.toml")
    if here.exists():
        return here
    found = [path for path in sorted(Path().glob("*.toml")) if "[experiment]" in path.read_text(errors="replace")]
    if len(found) != 1:
        what = "no settings file" if not found else f"{len(found)} settings files"
        raise click.UsageError(f"{what} in this folder: say which with -s FILE")
    return found[0]


def changes_of(words: tuple[str, ...], form: str) -> dict[str, Any]:
    """`name=value` as a mapping; a value is read as in a settings file, and else taken as a text."""
    found: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise click.UsageError(f"--set {word!r}: write {form}")
        try:
            found[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            found[key.strip()] = value.strip()
    return found
