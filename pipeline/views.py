"""What is known of a run when its conditions are to be decided: put together from chains, manifests and other runs."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice, takewhile

from pipeline.chain import Chain
from pipeline.handshake import TOO_LITTLE, Hold, KindView, Rules, RunView, Settled, Wait
from pipeline.manifest import Condition, Manifest
from pipeline.released import Released
from pipeline.standing import Standing
from pipeline.way import Part, Way


class Views:
    """The views of runs. What one costs does not grow with the number of runs.

    `released` are the manifests of all runs of which something is released; `elsewhere` are undecided runs that
    are not worked on here, and until when each is waited for; `standing` is what people have ordered; `datasets` are
    the names of those that a run has.
    """

    def __init__(
        self,
        chains: Sequence[Chain],
        released: Mapping[int, Released],
        elsewhere: Mapping[int, float],
        standing: Standing,
        datasets: Sequence[str] = ("",),
    ) -> None:
        self._chain_of = {(chain.kind, run): chain for chain in chains for run in chain.runs}
        self._released = dict(released)
        self._settled = {run: found.settled for run, found in released.items()}
        self._runs = sorted(self._released)
        self._elsewhere = sorted(elsewhere.items())
        self._standing = standing
        self._datasets = datasets

    def released(self, manifest: Manifest) -> None:
        """A run, or a dataset of it, is released under this manifest."""
        run = manifest.run
        if run not in self._released:
            insort(self._runs, run)
        self._released[run] = self._released.get(run, Released({})).adding(manifest)
        self._settled[run] = self._released[run].settled

    def manifest(self, run: int, dataset: str = "") -> Manifest | None:
        """What a run, or a dataset of it, was released under."""
        return self._released[run].manifests.get(dataset) if run in self._released else None

    def settled(self, run: int) -> Manifest | None:
        """What was settled of a run, with any of its datasets."""
        return self._settled.get(run)

    def of(self, way: Way, part: Part, now: float) -> RunView:
        """What is known now of a run, or of a dataset of it."""
        first, last = int(way.units[0]), int(way.units[-1])
        kinds = tuple(self._of_kind(kind, way, part, now) for kind in part.required)
        name = part.dataset.name
        others = {other.dataset.name for other in way.parts if other is not part}
        is_last = self._released.get(way.run, Released({})).whole(others)
        held = self._standing.held(way.run, name)
        return RunView(way.run, (first, last), kinds, part.deadline_at, held, name, is_last)

    def of_kind(self, kind: str, way: Way, now: float) -> tuple[KindView, Rules]:
        """What is known of one kind for a run, and the rules of the dataset that needs it first, if one does."""
        part = next((part for part in way.parts if kind in part.required), way.parts[0])
        return self._of_kind(kind, way, part, now), part.rules

    def _of_kind(self, kind: str, way: Way, part: Part, now: float) -> KindView:
        before = self._settled.get(way.run)
        if before is not None and kind in before.kinds:
            settled = Settled(before.kinds[kind], tuple(before.vetoed.get(kind, ())), before.waivers.get(kind))
            return KindView(kind, judged=None, settled=settled)
        chain = self._chain_of.get((kind, way.run))
        if chain is None:
            return KindView(kind, judged=None, calibrated=False)
        view = replace(chain.view(way.run), waiver=self._standing.waivers(way.run).get(kind))
        if view.judged is None and not view.goes_on:
            return view
        carried = carried_in_a_row(self._before(way.run, kind), kind, part.rules.max_carried_runs)
        view = replace(view, carried_before=carried)
        if view.earlier_undecided is None and (beside := self._beside(way.run, kind, now)) is not None:
            view = replace(view, earlier_undecided=beside[0], earlier_until=beside[1])
        return view

    def _before(self, run: int, kind: str) -> Iterator[Manifest]:
        """What is settled of runs before one, the last first: of those that are released, in full or for a kind."""
        place = bisect_left(self._runs, run)
        found = (self._settled[self._runs[at]] for at in range(place - 1, -1, -1))
        return (one for one in found if kind in one.kinds or self._released[one.run].whole(self._datasets))

    def _beside(self, run: int, kind: str, now: float) -> tuple[int, float] | None:
        """An earlier run that is not worked on here and whose kind is undecided, and until when it is waited for."""
        if self._elsewhere and self._elsewhere[0][1] <= now:
            self._elsewhere = [found for found in self._elsewhere if now < found[1]]
        earlier = takewhile(lambda found: found[0] < run, self._elsewhere)
        return next((found for found in earlier if not self._is_settled(found[0], kind)), None)

    def _is_settled(self, run: int, kind: str) -> bool:
        return run in self._settled and kind in self._settled[run].kinds

    def watched(self, view: RunView, found: Wait | Hold) -> Iterator[int]:
        """The runs of which one must change before a kind that is judged, and waits all the same, waits no more."""
        for kind in view.kinds:
            if (kind.judged is not None or kind.goes_on) and kind.kind in found.reasons:
                before = kind.earlier_undecided
                if before is None:
                    before = self._chain_of[kind.kind, view.run].unsettled_before(view.run)
                if before is not None:
                    yield before


def carried_in_a_row(earlier: Iterable[Manifest], kind: str, limit: int) -> int:
    """How many of the released runs before one, the last first, carried a kind for want of data, in a row.

    Counts no further than to `limit`.
    """
    count = 0
    for manifest in islice(earlier, limit):
        stretches = manifest.kinds.get(kind, ())
        carried = (s.condition is Condition.CARRIED and s.why.startswith(TOO_LITTLE) for s in stretches)
        if not stretches or not all(carried):
            break
        count += 1
    return count
