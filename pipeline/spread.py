"""One function for each of many items: one after the other, or on the workers of a cluster."""

from __future__ import annotations

import asyncio
import concurrent.futures
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from jobs.job import Lane

if TYPE_CHECKING:
    from distributed import Client, Future

Item = TypeVar("Item")
Result = TypeVar("Result")

ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Lost:
    """There is no result for an item, and why."""

    reason: str


class Spread(Protocol):
    """Calls a function for every item; results come in the order of the items."""

    def __call__(self, what: str, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result | Lost]:
        """`what` is how the calls are named to whoever watches."""


def in_turn(what: str, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result | Lost]:
    """Here, one after the other."""
    return map(function, items)


class OnWorkers:
    """On the workers of a cluster, at most twice as many calls at a time as there are threads.

    An item whose worker dies is tried again with nothing beside it, and is Lost when that fails too. What the function
    raises is raised here. Raises SchedulerLost.
    """

    def __init__(self, client: Client) -> None:
        self._client: Any = client

    def __call__(self, what: str, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result | Lost]:
        """Results in the order of the items; `what` names the group of tasks."""
        flying: deque[tuple[Item, Future[Any]]] = deque()
        try:
            for item in items:
                flying.append((item, self._submit(what, function, item)))
                if len(flying) >= 2 * max(1, sum(self._client.nthreads().values())):
                    yield self._result(what, function, flying)
            while flying:
                yield self._result(what, function, flying)
        finally:
            for _, future in flying:
                future.release()  # type: ignore[no-untyped-call]

    def _submit(self, what: str, function: Callable[[Item], Result], item: Item) -> Future[Any]:
        name = PurePath(item).name if isinstance(item, str) else ""
        # A name of its own for each attempt: an erred key is never met again.
        key = (what, uuid.uuid4().hex[:12], name)
        future: Future[Any] = self._client.submit(function, item, key=key, retries=0, priority=int(Lane.EXPRESS))
        return future

    def _result(
        self, what: str, function: Callable[[Item], Result], flying: deque[tuple[Item, Future[Any]]]
    ) -> Result | Lost:
        from distributed import KilledWorker

        from jobs.runner import SchedulerLost

        item, future = flying.popleft()
        for attempt in range(ATTEMPTS):
            if attempt:
                # Whose fault it was shows when nothing else runs.
                for _, other in flying:
                    other.exception()  # type: ignore[no-untyped-call]
                future = self._submit(what, function, item)
            try:
                result: Result = future.result()
                return result
            except KilledWorker:
                continue
            except (asyncio.CancelledError, concurrent.futures.CancelledError) as end:
                raise SchedulerLost(f"the Dask scheduler is gone ({end}); start again: nothing is lost") from None
        return Lost(f"its worker died {ATTEMPTS} times while it was read")
