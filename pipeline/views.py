"""What is known of a run when its conditions are to be decided: put together from chains, manifests and other runs."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice

from pipeline.chain import Chain
from pipeline.handshake import TOO_LITTLE, Hold, KindView, RunView, Wait
from pipeline.manifest import Condition, Manifest
from pipeline.standing import Standing
from pipeline.way import Way


class Views:
    """The views of runs. What one costs does not grow with the number of runs.

    `manifests` are those of all released runs; `elsewhere` are undecided runs that are not worked on here, and until
    when each is waited for; `standing` is what people have ordered.
    """

    def __init__(
        self,
        chains: Sequence[Chain],
        manifests: Mapping[int, Manifest],
        elsewhere: Mapping[int, float],
        standing: Standing,
    ) -> None:
        self._chain_of = {(chain.kind, run): chain for chain in chains for run in chain.runs}
        self._manifests = dict(manifests)
        self._released = sorted(self._manifests)
        self._elsewhere = sorted(elsewhere.items())
        self._standing = standing

    def released(self, manifest: Manifest) -> None:
        """A run is released under this manifest."""
        self._manifests[manifest.run] = manifest
        insort(self._released, manifest.run)

    def manifest(self, run: int) -> Manifest | None:
        """What a run was released under."""
        return self._manifests.get(run)

    def of(self, way: Way, now: float) -> RunView:
        """What is known of a run now."""
        first, last = int(way.units[0]), int(way.units[-1])
        kinds = tuple(self._of_kind(kind, way, now) for kind in way.required)
        return RunView(way.run, (first, last), kinds, way.deadline_at, self._standing.held(way.run))

    def _of_kind(self, kind: str, way: Way, now: float) -> KindView:
        chain = self._chain_of.get((kind, way.run))
        if chain is None:
            return KindView(kind, judged=None, calibrated=False)
        view = replace(chain.view(way.run), waiver=self._standing.waivers(way.run).get(kind))
        if view.judged is None and not view.goes_on:
            return view
        carried = carried_in_a_row(self._before(way.run), kind, way.rules.max_carried_runs)
        view = replace(view, carried_before=carried)
        if view.earlier_undecided is None and (beside := self._beside(way.run, now)) is not None:
            view = replace(view, earlier_undecided=beside[0], earlier_until=beside[1])
        return view

    def _before(self, run: int) -> Iterator[Manifest]:
        """The manifests of released runs before one, the last first."""
        place = bisect_left(self._released, run)
        return (self._manifests[self._released[at]] for at in range(place - 1, -1, -1))

    def _beside(self, run: int, now: float) -> tuple[int, float] | None:
        """An earlier undecided run that is not worked on here, and until when it is waited for."""
        if self._elsewhere and self._elsewhere[0][1] <= now:
            self._elsewhere = [found for found in self._elsewhere if now < found[1]]
        return next((found for found in self._elsewhere[:1] if found[0] < run), None)

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
