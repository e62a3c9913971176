"""The conditions as people change them: payloads brought in and taken back, new tags, copies out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from calib.iov import Clock, RunLumi
from calib.tags import Sync, TagExists
from pipeline.archive import TagContent
from pipeline.conditions_view import ConditionsView
from pipeline.conditions_words import Refused, known_kind, moment_from, source_of
from pipeline.deleting import delete, deletions_text, unused_text
from pipeline.exporting import Format, contents, export_file, export_folder
from pipeline.fates import Fates
from pipeline.forms import Forms
from pipeline.importing import Intake, held_in, import_tags
from pipeline.payload_files import read_payload
from pipeline.retagging import copy_tag, told_of, withdraw
from pipeline.shadow_view import Shadows
from pipeline.what_if import consequences, try_out
from pipeline.what_if_text import WhatIf
from pipeline.world import set_up


class ConditionsEditor(ConditionsView):
    """Reads and writes the conditions of one Tier-0. Nothing settled changes, and nothing in use is taken away."""

    def upload(
        self,
        kind: str,
        file: Path,
        since: str | None,
        reason: str,
        tag: str | None = None,
        only: Sequence[str] = (),
    ) -> Fates:
        """Enter payloads through the gates of their kind; says what became of each, and which runs it touches.

        `file` is one payload (npz, or a zarr folder) that is to hold from `since` on, or what was exported (a folder or
        a zip file), whose payloads hold from where they did; `only` names the tag of several. Without a tag they
        go to both of their kind, that of express and that of prompt. Raises Refused when a gate is against a single
        payload; of several, those stay out.
        """
        intake = Intake(self.world, kind, reason, tag)
        return intake.many(file, only) if since is None else intake.one(file, since)

    def what_if(self, kind: str, file: Path, since: str, tag: str | None = None, sample: int = 0) -> WhatIf:
        """What would change if this payload went in, by default where prompt looks; nothing is entered.

        With `sample`, about so many events of the runs it touches are done both ways here and now. Raises Refused when
        it has not the form of its kind.
        """
        world = set_up(self.world)
        payload = read_payload(known_kind(world, kind), file)
        name, moment = tag or world.tag_of(kind, Sync.PROMPT), _unit(since)
        with world.database.read() as connection:
            source = source_of(world, connection, kind, name)
            held = held_in(connection, source.tag, moment)
        forms = Forms.of(world)
        forms.hold(payload, held, file)
        found = consequences(world, name, payload, moment)
        if sample and found.touched:
            found = try_out(world, found, sample)
        return WhatIf(found, world.experiment.unit_name, forms.unknown(kind, held))

    @property
    def shadows(self) -> Shadows:
        """The candidates that run beside production."""
        return Shadows(self.world)

    def withdraw(self, kind: str, since: str, reason: str, tag: str | None = None) -> Fates:
        """Take back the payload that begins at `since`; what was there before holds again where no run is settled.

        Without a tag it is taken from those of prompt and express that have it. Raises Refused when none does.
        """
        return withdraw(self.world, kind, since, reason, tag)

    def create_tag(self, name: str, kind: str, clock: str = Clock.LUMI, serves: str = Sync.OFFLINE) -> str:
        """A new empty tag. Raises TagExists when the name is taken by another, or by one that is not empty."""
        content = TagContent(name, known_kind(self.world, kind), Clock(clock), Sync(serves), ())
        with self.world.database.begin() as connection:
            db = self.world.conditions(connection)
            db.create_tag(name, kind, content.clock, content.serves)
            if db.history(name):
                raise TagExists(f"tag {name!r} exists and has entries")
        return told_of(content)

    def define_global_tag(self, name: str, tags: Sequence[str]) -> str:
        """Name a set of tags, one a kind, for ever. Raises UnknownTag, Refused, and TagExists for another set."""
        with self.world.database.begin() as connection:
            db = self.world.conditions(connection)
            of_kind = {tag.kind: tag.name for tag in map(db.tag, tags)}
            if len(of_kind) < len(set(tags)):
                raise Refused(f"a global tag has one tag of a kind, and {', '.join(tags)} have some twice")
            db.define_global_tag(name, of_kind)
        return f"global tag {name}: {', '.join(f'{kind}: {tag}' for kind, tag in sorted(of_kind.items()))}"

    def delete(self, name: str, reason: str) -> str:
        """Delete a payload (by its id) that nothing names, or a tag that was never used.

        Raises InUse with all that refers to it, Refused while the service is at work, NotAllowed, NoReason.
        """
        return delete(self.world, name, reason)

    def unused(self, *, history: bool = False) -> str:
        """What may be deleted, as a table; with `history` what was: when, by whom and why."""
        return deletions_text(self.world) if history else unused_text(self.world)

    def copy(
        self, tag: str, new: str, *, first: str | None = None, last: str | None = None, serves: str | None = None
    ) -> str:
        """A new tag with what another answers from `first` up to `last`, which is left out; only ids are copied."""
        return copy_tag(self.world, tag, new, (first, last), Sync(serves) if serves else None)

    def export(
        self, kinds: str | Sequence[str], folder: Path, tag: str | Sequence[str] | None = None, form: Format = "npz"
    ) -> list[Path]:
        """Write payloads and intervals to a folder (npz files or zarr folders, and `TAG.json`); gives the latter.

        Tags or global tags, else those that prompt uses for these kinds; without kinds, for all.
        """
        return export_folder(folder, self._contents(kinds, tag), self.world.store, form, self.world.probe)

    def export_file(
        self, kinds: str | Sequence[str], file: Path, tag: str | Sequence[str] | None = None, *, force: bool = False
    ) -> Path:
        """Write payloads and intervals to one zip file for other programs; the same content gives the same bytes.

        Raises Refused where the file exists, unless `force` says to write it anew.
        """
        if file.is_file() and not force:
            raise Refused(f"{file} exists already: give another name, or --force to write it anew")
        return export_file(file, self._contents(kinds, tag), self.world.store, self.world.probe)

    def import_tags(
        self, path: Path, only: Sequence[str] = (), *, new: str | None = None, serves: str | None = None
    ) -> list[str]:
        """Enter exported tags as new tags, each payload held to its content id; says what was done.

        To put payloads into a tag in use, see `upload`.
        """
        return import_tags(self.world, path, only, new, Sync(serves) if serves else None)

    def _contents(self, kinds: str | Sequence[str], tag: str | Sequence[str] | None) -> list[TagContent]:
        with self.world.database.read() as connection:
            return contents(self.world, connection, _several(kinds), _several(tag))


def _several(words: str | Sequence[str] | None) -> Sequence[str]:
    return [words] if isinstance(words, str) else words or ()


def _unit(words: str) -> RunLumi:
    return cast(RunLumi, moment_from(Clock.LUMI, words))
