"""Finalize again from kept states: under other settings, or without some units. No event is read.

What production does about the states of runs is done here by the same chain, beside it, and nothing is published: for
shadows (`pipeline.shadow`), for settings that are tried, and for runs that are certified (`pipeline.refit`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from calib.calibration import Calibration, Outcome
from calib.channel_sums import PartOfAPool
from calib.iteration import Iterated
from calib.payload import PayloadStore
from pipeline.chain import Chain
from pipeline.express import StateFile
from pipeline.links import Ask

if TYPE_CHECKING:
    from distributed import Client

Note = Mapping[str, Any]


class Hands(Protocol):
    """Who does the finalizations that a chain asks for."""

    def start(self, ask: Ask) -> None:
        """Have one done."""

    def finished(self) -> Iterator[tuple[Ask, Note]]:
        """Those that are done by now, each once; waits where none is. A note `failed` says why there is nothing."""


def finalize_again(chain: Chain, states: Mapping[int, StateFile | str], hands: Hands, store: PayloadStore) -> None:
    """Have a chain conclude and judge all its runs, from their states; or the word why a run has none."""
    for run, state in states.items():
        if isinstance(state, StateFile):
            chain.ready(run, state)
        else:
            chain.broken(run, state)
    at_work = 0
    while True:
        for ask in chain.asks():
            hands.start(ask)
            at_work += 1
        if not at_work:
            return
        for ask, note in hands.finished():
            at_work -= 1
            if note.get("failed"):
                chain.broken(ask.run, str(note["failed"]))
            else:
                chain.concluded(ask.run, list(map(as_last, note["conclusions"])), store)


class Hired:
    """Has each finalization done at once, one after the other: on a worker of a cluster, whose numbers are those of
    production to the last bit, or here where there is none."""

    def __init__(self, client: Callable[[], Client] | None = None) -> None:
        self._client = client
        self._asked: list[Ask] = []

    def start(self, ask: Ask) -> None:
        """It is done when it is asked for."""
        self._asked.append(ask)

    def finished(self) -> Iterator[tuple[Ask, Note]]:
        """All that were asked for."""
        asked, self._asked = self._asked, []
        for ask in asked:
            if self._client is None:
                yield ask, finalize_here(ask)
            else:
                yield ask, self._client().submit(finalize_here, ask, pure=False).result()


def finalize_here(ask: Ask) -> Note:
    """One finalization, in this process."""
    try:
        return ask.work.leaf(ask.states, "again")[0].note
    except PartOfAPool as problem:
        return {"failed": f"{ask.work.calibration.kind}: {problem}"}


def as_last(conclusion: Note) -> Note:
    """A conclusion over a kept state, which no further pass follows: an iteration that still moves has not converged.

    >>> as_last({"outcome": "made", "message": "", "moved": 1.32})["message"]
    'the last pass moved by 1.32 (small is 1)'
    """
    moved = float(conclusion.get("moved", 0.0))
    if moved <= 1.0:
        return conclusion
    words = filter(None, [conclusion["message"], f"the last pass moved by {moved:.3g} (small is 1)"])
    return {**conclusion, "outcome": Outcome.NOT_CONVERGED.value, "message": "; ".join(words)}


def other_states(production: Calibration, tried: Calibration) -> list[str]:
    """The settings for which two calibrations need different states, which are made from events: each pass of an
    iteration is.

    Another version may well read the same states; that it does is for those to say who name it.
    """
    before, now = (
        one.accumulate_settings() | ({"iterations": one.iterations} if isinstance(one, Iterated) else {})
        for one in (production, tried)
    )
    return sorted(key for key in {*before, *now} - {"version"} if before.get(key) != now.get(key))


def only(states: Sequence[StateFile], leaves: range) -> list[Sequence[StateFile]]:
    """The items of a job that finalizes: one."""
    return [states]
