"""The aligned reduction tree, what its nodes give, and the functions that run on workers.

Node (level, i) covers the leaves i*k^level to (i+1)*k^level. A branch, a node of level 1, is one Dask graph: its
leaves and their merge, whose values flow between workers; only its receipt comes to the driver.
"""

from __future__ import annotations

import faulthandler
import json
import multiprocessing
import os
import pickle
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import Any, Protocol

from jobs.retry import Cause, Failure, classify

Value = Any
"""What leaves give and merges join; whatever `Work` makes of it."""

# On a worker nothing may escape: Dask would judge it, and only the driver knows what follows a failure.
_ANYTHING = (Exception, SystemExit)


@dataclass(frozen=True, slots=True, order=True)
class Node:
    """A place in the tree of a job; level 1 is a branch."""

    job: str
    level: int
    index: int


@dataclass(frozen=True, slots=True)
class Tree:
    """The shape of a reduction of `leaves` leaves, `fan_in` to a node. Raises ValueError for an impossible one.

    >>> tree = Tree(leaves=10, fan_in=4)
    >>> tree.depth, tree.width(1), tree.leaves_of(Node("job", 1, 2))
    (2, 3, range(8, 10))
    """

    leaves: int
    fan_in: int

    def __post_init__(self) -> None:
        if self.leaves < 1:
            raise ValueError(f"a job needs at least one leaf, not {self.leaves}: leave out jobs with nothing to do")
        if self.fan_in < 2:
            raise ValueError(f"fan_in must be 2 or more, not {self.fan_in}: a smaller one never reaches a root")

    @property
    def depth(self) -> int:
        """Level of the root: at least 1, so that a single leaf has a branch too."""
        level = 1
        while self.width(level) > 1:
            level += 1
        return level

    def width(self, level: int) -> int:
        """Number of nodes at `level`; level 0 are the leaves."""
        return -(-self.leaves // int(self.fan_in**level))

    def root(self, job: str) -> Node:
        """The one node that covers all leaves."""
        return Node(job, self.depth, 0)

    def parent(self, node: Node) -> Node:
        """The node one level up that covers `node`."""
        return Node(node.job, node.level + 1, node.index // self.fan_in)

    def children(self, node: Node) -> range:
        """Indexes, one level down, of what `node` joins; of a branch, its leaves."""
        first = node.index * self.fan_in
        return range(first, min(first + self.fan_in, self.width(node.level - 1)))

    def leaves_of(self, node: Node) -> range:
        """All leaves below `node`."""
        span = int(self.fan_in**node.level)
        return range(node.index * span, min((node.index + 1) * span, self.leaves))


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file (or a directory written whole) as it was when it was written."""

    path: str
    size: int
    checksum: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What one leaf or one merge wrote; `note` is anything JSON can carry."""

    files: tuple[FileRecord, ...] = ()
    note: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Aside:
    """A leaf that was set aside, and why."""

    leaf: int
    cause: Cause
    reason: str
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class NodeReceipt:
    """What a committed node holds: the receipts of its leaves in order (of a branch), and its stored state."""

    leaves: tuple[Receipt, ...]
    state: Receipt
    aside: tuple[Aside, ...] = ()
    seconds: float = 0.0
    """Time spent on workers for what is in here."""

    def to_json(self) -> str:
        """Give the text the ledger keeps."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> NodeReceipt:
        """Read what `to_json` gave."""
        raw = json.loads(text)
        return cls(tuple(map(_receipt, raw["leaves"])), _receipt(raw["state"]), _asides(raw["aside"]), raw["seconds"])


def _receipt(raw: Mapping[str, Any]) -> Receipt:
    return Receipt(tuple(FileRecord(**entry) for entry in raw["files"]), raw["note"])


def _asides(raw: Sequence[Mapping[str, Any]]) -> tuple[Aside, ...]:
    return tuple(Aside(**{**entry, "cause": Cause(entry["cause"])}) for entry in raw)


class Work(Protocol):
    """What a job does; supplied by the caller, pickled once a job.

    `attempt` is unique to one execution: a task may run twice, so whatever is written bears it in its name and is
    written whole. `merge` is associative and commutative to the last bit.
    """

    def leaf(self, item: Any, attempt: str) -> tuple[Receipt, Value]:
        """Do one leaf; an exception is judged by `jobs.retry.classify`."""

    def absent(self, item: Any, reason: str) -> tuple[Receipt, Value]:
        """Give what stands for a leaf that is set aside."""

    def merge(self, values: Sequence[Value]) -> Value:
        """Join one or more values."""

    def store(self, value: Value, node: Node, attempt: str) -> Receipt:
        """Write a merged value whole."""

    def load(self, receipt: Receipt) -> Value:
        """Read back what `store` wrote."""


class InReceipts:
    """The part of a `Work` whose leaves leave nothing but their receipts: nothing is joined, stored or read back."""

    def merge(self, values: Sequence[None]) -> None:
        """What was found is in the receipts."""
        return None

    def store(self, value: None, node: Node, attempt: str) -> Receipt:
        """What was found is in the receipts."""
        return Receipt((), {})

    def load(self, receipt: Receipt) -> None:
        """Nothing is kept beside the receipts."""
        return None


@dataclass(frozen=True, slots=True)
class Partial:
    """A branch that is not complete: what is done, kept as one stored state, and what failed."""

    done: Mapping[int, Receipt] = field(default_factory=dict)
    state: Receipt | None = None
    aside: tuple[Aside, ...] = ()
    failures: tuple[Failure, ...] = ()
    seconds: float = 0.0

    @property
    def files(self) -> Iterator[FileRecord]:
        """Every file of what is done."""
        for part in (*self.done.values(), *([self.state] if self.state else [])):
            yield from part.files

    def to_json(self) -> str:
        """Give what is done as the text the ledger keeps; what failed is kept apart."""
        return json.dumps(asdict(replace(self, failures=())), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Partial:
        """Read what `to_json` gave."""
        raw = json.loads(text)
        done = {int(leaf): _receipt(receipt) for leaf, receipt in raw["done"].items()}
        state = None if raw["state"] is None else _receipt(raw["state"])
        return cls(done, state, _asides(raw["aside"]), (), raw["seconds"])


NOTHING = Partial()
"""what there is of a branch before anything is done"""


@dataclass(frozen=True, slots=True)
class LeafDone:
    """A finished leaf on its way to the merge."""

    leaf: int
    receipt: Receipt
    value: Value
    aside: Aside | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Join:
    """What a merge must know; of a branch: its leaves, and what is done of them; of an upper node: what to load."""

    node: Node
    leaves: tuple[int, ...] = ()
    absent: tuple[Aside, ...] = ()
    prior: Partial = NOTHING
    states: tuple[Receipt, ...] = ()


@lru_cache(maxsize=32)
def _work(pickled: bytes) -> Work:
    work: Work = pickle.loads(pickled)
    return work


def _execution(attempt: str) -> str:
    # Dask may run the same key twice: the submission alone does not make a name unique.
    return f"{attempt}-{os.urandom(6).hex()}"


def _for_ledger(receipt: Receipt) -> Receipt:
    # Here it is one leaf's fault; in the driver it would stop everything.
    json.dumps(receipt.note)
    return receipt


def _failure(error: BaseException, leaf: int | None) -> Failure:
    message = f"{type(error).__name__}: {error}"
    return Failure(classify(error), message, leaf, traceback="".join(traceback.format_exception(error)))


@contextmanager
def _backstop(limit_s: float | None) -> Iterator[None]:
    """End this worker process if what runs in here takes twice its limit.

    The driver stops what it sees running for too long. It does not see what Dask has given up but cannot stop, nor
    what holds the interpreter's lock from its first moment; this watch needs neither Dask nor that lock.
    """
    # Only a process of its own may end itself: a worker can also be a thread in the driver.
    if limit_s is None or multiprocessing.parent_process() is None:
        yield
        return
    faulthandler.dump_traceback_later(2 * limit_s, exit=True, file=sys.__stderr__ or 2)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def run_leaf(
    work: bytes, item: bytes, leaf: int, attempt: str, absent: str | None, limit_s: float | None = None
) -> LeafDone | Failure:
    """Run on a worker: do one leaf, or, where `absent` gives a reason, what stands for it. Never raises."""
    with _backstop(limit_s):
        return _run_leaf(work, item, leaf, attempt, absent)


def _run_leaf(work: bytes, item: bytes, leaf: int, attempt: str, absent: str | None) -> LeafDone | Failure:
    started = time.perf_counter()
    try:
        doing, unpickled = _work(work), pickle.loads(item)
        aside = None
        if absent is None:
            try:
                receipt, value = doing.leaf(unpickled, _execution(attempt))
            except Exception as error:
                if classify(error) is not Cause.BAD_DATA:
                    raise
                bad = _failure(error, leaf)
                aside = Aside(leaf, bad.cause, bad.message, bad.traceback)
                absent = bad.message
        if absent is not None:
            receipt, value = doing.absent(unpickled, absent)
        return LeafDone(leaf, _for_ledger(receipt), value, aside, time.perf_counter() - started)
    except _ANYTHING as error:
        return _failure(error, leaf)


def merge_branch(
    work: bytes, join: bytes, attempt: str, results: Sequence[LeafDone | Failure], limit_s: float | None = None
) -> NodeReceipt | Partial:
    """Run on a worker: join the leaves of a branch and store the state. Never raises.

    Where a leaf failed or was not among `results`, what succeeded is stored all the same and given as `Partial`.
    """
    with _backstop(limit_s):
        return _merge_branch(work, pickle.loads(join), attempt, results)


def _merge_branch(
    work: bytes, plan: Join, attempt: str, results: Sequence[LeafDone | Failure]
) -> NodeReceipt | Partial:
    started = time.perf_counter()
    prior = plan.prior
    done = {result.leaf: result for result in results if isinstance(result, LeafDone)}
    failures = tuple(result for result in results if isinstance(result, Failure))
    state = prior.state
    if done:
        try:
            state = _store_merged(_work(work), [leaf.value for leaf in done.values()], plan, attempt)
        except _ANYTHING as error:
            return replace(prior, failures=(*failures, _failure(error, None)))
    receipts = {**prior.done, **{leaf: result.receipt for leaf, result in done.items()}}
    found = tuple(result.aside for result in done.values() if result.aside)
    aside = (*prior.aside, *found, *(entry for entry in plan.absent if entry.leaf in done))
    seconds = prior.seconds + sum(leaf.seconds for leaf in done.values()) + time.perf_counter() - started
    if state is None or failures or len(receipts) < len(plan.leaves):
        return Partial(receipts, state, aside, failures, seconds)
    return NodeReceipt(tuple(receipts[leaf] for leaf in plan.leaves), state, aside, seconds)


def _store_merged(work: Work, values: list[Value], plan: Join, attempt: str) -> Receipt:
    if plan.prior.state is not None:
        values = [work.load(plan.prior.state), *values]
    return _for_ledger(work.store(work.merge(values), plan.node, _execution(attempt)))


def merge_node(work: bytes, join: bytes, attempt: str, limit_s: float | None = None) -> NodeReceipt | Partial:
    """Run on a worker: load the states of the children of an upper node, join and store them. Never raises."""
    with _backstop(limit_s):
        return _merge_node(work, pickle.loads(join), attempt)


def _merge_node(work: bytes, plan: Join, attempt: str) -> NodeReceipt | Partial:
    started = time.perf_counter()
    try:
        doing = _work(work)
        # One after the other: all at once they need not fit into memory.
        merged = doing.load(plan.states[0])
        for receipt in plan.states[1:]:
            merged = doing.merge([merged, doing.load(receipt)])
        state = _for_ledger(doing.store(merged, plan.node, _execution(attempt)))
    except _ANYTHING as error:
        return Partial(failures=(_failure(error, None),))
    return NodeReceipt((), state, seconds=time.perf_counter() - started)
