"""What is made again as people look at it: side by side with what was published, as a table, a picture, an offer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calib.iov import RunLumi
from calib.payload import PayloadStore
from pipeline import catalog
from pipeline.certify import contains
from pipeline.conditions_words import Refused, known_kind
from pipeline.declarations import kinds_of
from pipeline.fates import Fates
from pipeline.finalizing import Hands
from pipeline.mistakes import SettingsError, unknown
from pipeline.refit import Refit, against, offer, refit
from pipeline.shadow_view import largest_differences
from pipeline.tables import as_text, columns
from pipeline.world import World

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOTE = "sigma is that of both errors in quadrature; made of events they share, payloads differ by less than that"


@dataclass(frozen=True)
class Made:
    """Kinds that were made again. Its text is a table for each, beside what was published."""

    refits: tuple[Refit, ...]
    store: PayloadStore
    unit_name: str

    @property
    def exit_code(self) -> int:
        """0 all as it was published, 2 something could not be made, 3 something differs."""
        codes = [one.exit_code for one in self.refits]
        return 2 if 2 in codes else max(codes, default=0)

    def text(self, width: int | None = None) -> str:
        """The tables, and what to do with it."""
        return "\n".join([*(self._table(one, width or columns(180)) for one in self.refits), NOTE])

    def __str__(self) -> str:
        return self.text()

    __repr__ = __str__

    def plot(self, path: Path | None = None) -> Figure | Path:
        """What was published and what was made again, and how far they are apart in sigma; to a file where one is
        given. Raises NothingToPlot."""
        from pipeline.plots import save
        from pipeline.refit_plot import draw

        figure = draw(self.refits, self.store)
        return save(figure, path) if path else figure

    def _table(self, found: Refit, width: int) -> str:
        heads = ["units", "published", "says", "made again", "says", "largest differences"]
        rows = [
            [
                f"{RunLumi.unpack(row.first)} to {RunLumi.unpack(row.last)}",
                (row.production or "none")[:12],
                row.production_says,
                "the same" if row.same else (row.shadow or "none")[:12],
                row.shadow_says,
                "\n".join(largest_differences(self.store, row)),
            ]
            for row in found.rows
        ]
        published, made = {row.production for row in found.rows}, {row.shadow for row in found.rows if row.shadow}
        words = [f"{found.kind}: {len(found.differing)} of {len(rows)} intervals have another payload"]
        words += [f"{len(published)} payloads published, {len(made)} with what is made again"]
        lines = [as_text(heads, rows, self._title(found), width), "; ".join(words)]
        lines += [f"run {run}: {one.failed}" for run, one in found.found.items() if one.failed]
        return "\n".join([*lines, *(f"not to be offered: {why}" for why in against(found))])

    def _title(self, found: Refit) -> str:
        changed = [f"{found.kind}.{name} = {value}" for name, value in found.changes.items()]
        out, along = (sum(map(len, units.values())) for units in (found.without, found.along))
        units = f"{self.unit_name} that is" if out == 1 else f"{self.unit_name}s that are"
        left = [f"without {out} {units} not certified good"] if out else []
        left += [f"nor {along} whose sums are kept together with theirs"] if along else []
        return f"{found.kind}, made again from kept states: {', '.join(changed + left) or 'as it was'}"


@dataclass(frozen=True)
class Refits:
    """Makes payloads again from the states that express has kept; reads no event, publishes nothing."""

    world: World
    hands: Hands

    def again(self, changes: Mapping[str, Any], runs: Sequence[int] = ()) -> Made:
        """Under changed settings, `KIND.KEY` to value, of runs that were released; of all by default.

        Raises SettingsError for a setting that is none, or that goes into the state; Refused for runs.
        """
        by_kind: dict[str, dict[str, Any]] = {}
        for name, value in changes.items():
            kind, dot, key = name.partition(".")
            if not dot:
                raise Refused(f"{name!r} is no setting of a calibration, such as beamspot.min_tracks")
            by_kind.setdefault(known_kind(self.world, kind), {})[key] = value
        if not by_kind:
            raise Refused("say what to set, such as beamspot.min_tracks=500")
        self._calibrated(by_kind)
        made = [refit(self.world, k, runs or self._released(k), self.hands, given) for k, given in by_kind.items()]
        return Made(tuple(made), self.world.store, self.world.experiment.unit_name)

    def certified(self, run: int, kinds: Sequence[str] = ()) -> Made:
        """Of a certified run, without what is not certified good; of these kinds, or of all that are calibrated.

        Raises Refused for a run that is not certified, or was never seen.
        """
        found = self.world.books.document(run, "certification")
        if found is None:
            raise self._not_certified(run)
        good = {int(number): ranges for number, ranges in found["good"].items()}
        with self.world.database.read() as connection:
            units = catalog.units(connection, run)[0].tolist()
        bad = {run: [unit for unit in units if not contains(good, RunLumi.unpack(unit))]}
        wanted = kinds or [calibration.kind for calibration in self.world.experiment.calibrations()]
        self._calibrated(wanted)
        made = [refit(self.world, kind, [run], self.hands, without=bad) for kind in wanted]
        return Made(tuple(made), self.world.store, self.world.experiment.unit_name)

    def _not_certified(self, run: int) -> Refused:
        with self.world.database.read() as connection:
            known = catalog.runs(connection)
        if run in known or self.world.books.document(run, "status") is not None:
            return Refused(f"run {run} is not certified yet: see `tier0 why {run}`")
        return Refused(catalog.never_seen(run, known))

    def offer(self, made: Made, tags: Sequence[str], reason: str) -> list[Fates]:
        """Enter what was made into offline tags, each of one of its kinds; gives what became of it."""
        by_kind = {one.kind: one for one in made.refits}
        fates = []
        for tag in tags:
            with self.world.database.read() as connection:
                kind = self.world.conditions(connection).tag(tag).kind
            if kind not in by_kind:
                raise Refused(f"tag {tag} holds {kind!r}; made again are {', '.join(by_kind)}")
            fates.append(offer(self.world, by_kind[kind], tag, reason))
        return fates

    def _released(self, kind: str) -> list[int]:
        return [run for run, one in sorted(self.world.books.released().items()) if kind in one.settled.kinds]

    def _calibrated(self, kinds: Sequence[str] | Mapping[str, Any]) -> None:
        calibrated = [calibration.kind for calibration in self.world.experiment.calibrations()]
        known = kinds_of(self.world.experiment)
        for kind in kinds:
            if kind in known and kind not in calibrated:
                raise Refused(f"{kind} is not calibrated here; calibrated are {', '.join(calibrated)}")
            if kind not in calibrated:
                raise SettingsError([unknown(kind, calibrated, "")])
