"""What of one job may run next, given what is committed and what has failed. Pure."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from jobs.reduction import NOTHING, Aside, Join, Node, Partial, Tree
from jobs.retry import Again, Failure, GiveUp, Limits, SetAside, Stop, Verdict, alike, verdicts


@dataclass(frozen=True, slots=True)
class Launch:
    """One submission: an upper node, or those leaves of a branch that are still to be done, and their merge."""

    node: Node
    attempt: int = 1
    leaves: tuple[int, ...] = ()
    absent: Mapping[int, Aside] = field(default_factory=dict)
    """leaves of `leaves` that are set aside"""
    prior: Partial = NOTHING
    """what earlier attempts have done"""
    alone: bool = False
    """nothing else may be in flight"""

    @property
    def width(self) -> int:
        """How many tasks it can keep busy."""
        return max(1, len(self.leaves))

    def alone_for(self, leaf: int | None) -> bool:
        """Whether the loss of this leaf (None: of the merge) can only be its own fault."""
        return self.alone and (leaf is None or self.leaves == (leaf,))


@dataclass(frozen=True, slots=True)
class _Trouble:
    """A node that has failed: everything that follows is derived from what happened to it."""

    history: tuple[Failure, ...] = ()
    prior: Partial = NOTHING
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Past:
    """What earlier starts of a job have left."""

    tallies: Mapping[Node, int] = field(default_factory=dict)
    """number of committed children of every upper node that is not committed but has some"""
    partials: Mapping[Node, Partial] = field(default_factory=dict)
    """what is done of branches that are not committed"""
    losses: Mapping[Node, Sequence[Failure]] = field(default_factory=dict)
    """losses of nodes that are not committed"""
    good: bool = False
    """whether a leaf has succeeded"""
    attempts: int = 0
    """the last number given to an attempt under this epoch: none is given twice"""


class Frontier:
    """The open edge of one job. Holds no more than what is in flight or in trouble, however many leaves there are.

    A node of which something is given up is not committed, and so nothing above it; all the rest of the job goes on.
    `branches` gives the indexes of the branches not committed, in order.
    """

    def __init__(self, job: str, tree: Tree, limits: Limits, branches: Iterator[int], past: Past | None = None) -> None:
        past = past or Past()
        self._job, self._tree, self._limits = job, tree, limits
        self._branches = branches
        self._first_attempt = past.attempts + 1
        self._ready: deque[Node] = deque()
        self._delayed: list[tuple[float, Node]] = []
        self._parked: deque[Node] = deque()
        self._flying = 0
        self._troubles = {
            node: _Trouble(tuple(past.losses.get(node, ())), past.partials.get(node, NOTHING))
            for node in {*past.losses, *past.partials}
        }
        self._tallies: dict[Node, int] = {}
        self._hopeless: dict[int, Failure] = {}
        self._good = past.good or any(map(_has_good, past.partials.values()))
        self._given_up, self._why = 0, ""
        self._head: Launch | None = None
        for node, count in sorted(past.tallies.items()):
            self._tally(node, count)

    def peek(self, now: float) -> Launch | None:
        """Give what should run next, or None while there is nothing: ready merges, repeats, then new branches."""
        if self._head is None:
            node = self._pop(now)
            self._head = None if node is None else self._launch(node)
        return self._head

    def take(self) -> None:
        """Say that what `peek` gave is in flight."""
        self._head = None
        self._flying += 1

    def wake_at(self, after: float) -> float | None:
        """Give the next moment later than `after` at which a delayed repeat becomes due."""
        return min((due for due, _ in self._delayed if due > after), default=None)

    def commit(self, node: Node, *, good: bool = True) -> bool:
        """Take in that a node is committed; True when it was the root. `good`: not all its leaves are set aside."""
        self._flying -= 1
        self._good = self._good or good
        self._troubles.pop(node, None)
        if node == self._tree.root(self._job):
            return True
        self._tally(self._tree.parent(node), 1)
        return False

    def fail(self, launch: Launch, result: Partial, now: float) -> Stop | None:
        """Take in that a launch ended without its node being complete; a Stop ends the job."""
        self._flying -= 1
        old = self._troubles.pop(launch.node, _Trouble())
        prior = replace(result, failures=()) if result.done else launch.prior
        trouble = _Trouble((*old.history, *result.failures), prior, old.attempts + 1)
        self._good = self._good or _has_good(prior)
        found = verdicts(trouble.history, self._limits)
        pause = 0.0
        for failure in result.failures:
            verdict = found[failure.leaf]
            if isinstance(verdict, Stop):
                return verdict
            if isinstance(verdict, Again):
                pause = max(pause, verdict.after)
            elif failure.leaf is not None and not self._good:
                self._hopeless[failure.leaf] = failure
        if why := self._why_not(launch, result, found, prior):
            self._give_up(why)
        else:
            self._troubles[launch.node] = trouble
            heapq.heappush(self._delayed, (now + pause, launch.node))
        stop = None if self._good else alike(self._hopeless, self._limits)
        return stop or self.end(now)

    def end(self, now: float) -> Stop | None:
        """Say why the job ends, once something of it is given up and nothing else of it can run."""
        if self.peek(now) is not None or self._flying or self._delayed or not self._given_up:
            return None
        others = f" (and {self._given_up - 1} more)" if self._given_up > 1 else ""
        return Stop(f"{self._why}{others}; the next start tries again what is left")

    def join(self, launch: Launch) -> Join:
        """Give what the merge of a branch must know."""
        return Join(launch.node, tuple(self._tree.children(launch.node)), tuple(launch.absent.values()), launch.prior)

    def _tally(self, node: Node, more: int) -> None:
        count = self._tallies.pop(node, 0) + more
        if count == len(self._tree.children(node)):
            self._ready.append(node)
        else:
            self._tallies[node] = count

    def _pop(self, now: float) -> Node | None:
        if self._ready:
            return self._ready.popleft()
        while (node := self._next(now)) is not None:
            if self._good or not self._aside(node):
                return node
            # Committed, its leaves would be bad for ever; if the others fail too, it is the code that must be mended.
            self._parked.append(node)
        if self._parked and self._good:
            return self._parked.popleft()
        while self._parked and not (self._flying or self._delayed):
            leaf, verdict = next(iter(self._aside(self._parked.popleft()).items()))
            self._give_up(f"no leaf has succeeded; leaf {leaf}: {verdict.reason}")
        return None

    def _next(self, now: float) -> Node | None:
        if self._delayed and self._delayed[0][0] <= now:
            return heapq.heappop(self._delayed)[1]
        index = next(self._branches, None)
        return None if index is None else Node(self._job, 1, index)

    def _aside(self, node: Node) -> dict[int, SetAside]:
        """Why each leaf that is left of a branch is set aside, if all of them are."""
        trouble = self._troubles.get(node)
        if trouble is None:
            return {}
        found = verdicts(trouble.history, self._limits)
        left = {leaf: found.get(leaf) for leaf in self._leaves(node) if leaf not in trouble.prior.done}
        aside = {leaf: verdict for leaf, verdict in left.items() if isinstance(verdict, SetAside)}
        return aside if len(aside) == len(left) else {}

    def _why_not(
        self, launch: Launch, result: Partial, found: Mapping[int | None, Verdict], prior: Partial
    ) -> str | None:
        """Why a node cannot be completed in this start; None while something of it is still to be tried."""
        for failure in result.failures:
            verdict = found[failure.leaf]
            if isinstance(verdict, SetAside | GiveUp) and (failure.leaf is None or failure.leaf in launch.absent):
                what = "a merge" if failure.leaf is None else f"what should stand for leaf {failure.leaf}"
                return f"{what} cannot be done: {verdict.reason}"
        left = {leaf: found.get(leaf) for leaf in self._leaves(launch.node) if leaf not in prior.done}
        given_up = [(leaf, verdict.reason) for leaf, verdict in left.items() if isinstance(verdict, GiveUp)]
        if given_up and all(isinstance(verdict, GiveUp | SetAside) for verdict in left.values()):
            leaf, reason = given_up[0]
            return reason if self._tree.leaves == 1 else f"leaf {leaf} cannot be done: {reason}"
        return None

    def _give_up(self, why: str) -> None:
        self._why = self._why or why
        self._given_up += 1

    def _leaves(self, node: Node) -> tuple[int, ...]:
        return tuple(self._tree.children(node)) if node.level == 1 else ()

    def _launch(self, node: Node) -> Launch:
        trouble = self._troubles.get(node)
        leaves = self._leaves(node)
        if trouble is None:
            return Launch(node, self._first_attempt, leaves)
        found = verdicts(trouble.history, self._limits)
        left = tuple(
            leaf for leaf in leaves if leaf not in trouble.prior.done and not isinstance(found.get(leaf), GiveUp)
        )
        alone = {leaf for leaf, verdict in found.items() if isinstance(verdict, Again) and verdict.alone}
        suspects = [leaf for leaf in left if leaf in alone]
        run = (suspects[0],) if suspects else left
        last = {failure.leaf: failure for failure in trouble.history}
        absent = {
            leaf: Aside(leaf, last[leaf].cause, verdict.reason, last[leaf].traceback)
            for leaf in run
            if isinstance(verdict := found.get(leaf), SetAside)
        }
        lonely = bool(suspects) or None in alone
        return Launch(node, self._first_attempt + trouble.attempts, run, absent, trouble.prior, lonely)


def _has_good(partial: Partial) -> bool:
    return len(partial.done) > len(partial.aside)
