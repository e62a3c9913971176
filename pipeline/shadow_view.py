"""Shadows as people look at them: side by side with production, and promoted by name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from calib.differences import distances
from calib.iov import RunLumi
from calib.payload import PayloadStore
from calib.tags import Sync
from pipeline.in_charge import may_write, rules_in_force
from pipeline.promotion import Promotion, add_promotion, begins, promotions
from pipeline.sections import ShadowSection
from pipeline.shadow import Beside, Shadowed, beside, candidate, end_of, shadow_record
from pipeline.tables import as_text
from pipeline.world import World, set_up


class NoShadow(LookupError):
    """No candidate of this name is in the settings."""


class PromotedAlready(LookupError):
    """What a shadow sets is what production has by a promotion, from the next run on at the latest."""


@dataclass(frozen=True)
class Shadows:
    """The candidates `[shadow.NAME]` of one Tier-0."""

    world: World

    @property
    def names(self) -> tuple[str, ...]:
        """The shadows of the settings."""
        return tuple(self.world.settings.shadow)

    def overview(self) -> str:
        """What runs beside production, and what was promoted."""
        lines = [
            f"{name}: {section.kind}, calibration {dict(section.calibration) or 'as in production'}, "
            f"gates {'as in production' if section.gates is None else list(section.gates)}"
            for name, section in self.world.settings.shadow.items()
        ]
        lines += [f"promoted: {promotion}" for promotion in self.world.promoted]
        return "\n".join(lines) or "no shadows: give the settings a table such as [shadow.strict]"

    def compare(self, name: str, runs: Sequence[int] | None = None) -> list[Beside]:
        """Unit by unit, what production settled and what the shadow would have: of released runs, all by default.

        The shadow starts from what production started from, and goes on from what itself left in force. Raises
        NoShadow for a name that is not there.
        """
        kind = self._section(name).kind
        world = self.world
        manifests = {run: released.settled for run, released in world.books.released().items()}
        known = {
            run: Shadowed.from_document(run, found)
            for run, found in sorted(world.books.documents(shadow_record(name)).items())
        }
        both = [run for run in known if run in manifests and kind in manifests[run].kinds]
        start = self._start(kind, both[0]) if both else None
        found: list[Beside] = []
        for run in both:
            if runs is None or run in runs:
                found += beside(run, manifests[run].kinds[kind], known[run], start)
            start = end_of(known[run], start)
        return found

    def show(self, name: str, runs: Sequence[int] | None = None) -> str:
        """The comparison as a table, and how often both agree."""
        compared = self.compare(name, runs)
        section = self._section(name)
        if not compared and runs:
            return self._not_shadowed(name, runs)
        if not compared:
            return f"{name}: no released run has been shadowed yet; it is with the next `tier0 run` over them"
        rows = [
            [
                f"{RunLumi.unpack(one.first)} to {RunLumi.unpack(one.last)}",
                (one.production or "none")[:12],
                one.production_says,
                "the same" if one.same else (one.shadow or "none")[:12],
                one.shadow_says,
                self._apart(one),
            ]
            for one in compared
        ]
        heads = ["units", "production", "says", f"shadow {name}", "says", "largest differences"]
        same = sum(one.same for one in compared)
        many = len({one.run for one in compared})
        words = f"{section.kind}: {many} runs, {len(compared)} intervals, the same payload in {same}"
        return "\n".join([as_text(heads, rows), words])

    def promote(self, name: str, reason: str) -> Promotion:
        """Make the shadow's settings those of production, from behind the last released run on; gives what holds.

        Raises NoShadow for a name that is not there, SettingsError for a candidate that cannot run, NotAllowed for who
        may not write the tag it would go to, and PromotedAlready where it would change nothing.
        """
        world = set_up(self.world)
        section = self._section(name)
        candidate(world.experiment.calibrations(), world.settings, name)
        with world.database.begin() as connection:
            rules = rules_in_force(connection, world.settings.authority, world.author)
            may_write(world.author, rules, world.tag_of(section.kind, Sync.PROMPT), Sync.PROMPT)
            since = begins(world.books.released())
            promotion = Promotion.of(name, section, since, world.author, world.now(), reason)
            last = [one for one in promotions(connection) if one.kind == section.kind][-1:]
            if last and last[0].sets_the_same(promotion):
                raise PromotedAlready(f"{name} is promoted already, with these settings: {last[0]}")
            add_promotion(connection, promotion, world.now())
        return promotion

    def _section(self, name: str) -> ShadowSection:
        sections = self.world.settings.shadow
        if name in sections:
            return sections[name]
        near = difflib.get_close_matches(name, sections, n=1)
        there = f"there are {', '.join(sections)}" if sections else "the settings have none"
        raise NoShadow(f"no shadow `{name}`: {f'did you mean `{near[0]}`?' if near else there}")

    def _not_shadowed(self, name: str, runs: Sequence[int]) -> str:
        known = sorted(self.world.books.documents(shadow_record(name)))
        there = f"it has runs {', '.join(map(str, known))}" if known else "it has no run yet"
        some = ", ".join(map(str, runs))
        return f"{name}: of {some} there is nothing released that was shadowed; {there}"

    def _start(self, kind: str, run: int) -> str | None:
        with self.world.database.read() as connection:
            db = self.world.conditions(connection)
            snapshot = db.snapshot(self.world.global_tag(Sync.PROMPT))
            before = RunLumi.unpack(RunLumi(run).packed - 1)
            return db.resolve(snapshot, before, [kind]).ids.get(kind)

    def _apart(self, one: Beside) -> str:
        return "\n".join(largest_differences(self.world.store, one))


MOST_DIFFERENCES = 3


def largest_differences(store: PayloadStore, one: Beside, most: int = MOST_DIFFERENCES) -> list[str]:
    """The arrays in which production and what is beside it differ most, in units and in sigma."""
    if one.same or one.production is None or one.shadow is None:
        return []
    found = distances(store.get(one.production), store.get(one.shadow))
    found.sort(key=lambda distance: -(distance.sigma or 0.0))
    return [
        distance.why
        or f"{distance.array} {distance.far}" + (f" ({distance.sigma:.1f} sigma)" if distance.sigma is not None else "")
        for distance in found[:most]
    ]
