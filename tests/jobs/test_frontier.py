"""Every node exactly once, in whatever order tasks end and whatever happens to them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.frontier import Frontier, Launch, Past
from jobs.job import Lane
from jobs.reduction import Node, NodeReceipt, Partial, Receipt, Tree
from jobs.retry import Cause, Failure, Limits, Stop
from jobs.window import Window

LIMITS = Limits(passing=(1.0, 4.0), missing=0.5)


def make(leaves: int, fan_in: int = 4, past: Past | None = None) -> Frontier:
    tree = Tree(leaves, fan_in)
    return Frontier("j", tree, LIMITS, iter(range(tree.width(1))), past)


def take(frontier: Frontier, now: float = 0.0) -> Launch:
    launch = frontier.peek(now)
    assert launch is not None
    frontier.take()
    return launch


def lost(leaf: int | None, **more: bool) -> Failure:
    return Failure(Cause.LOST, "died", leaf, **more)


def bug(leaf: int | None) -> Failure:
    return Failure(Cause.BUG, "oops", leaf)


def gone(leaf: int) -> Failure:
    return Failure(Cause.MISSING, "no file", leaf)


def done(*leaves: int, failures: tuple[Failure, ...] = ()) -> Partial:
    return Partial({leaf: Receipt() for leaf in leaves}, Receipt(), (), failures)


def test_peek_gives_the_same_until_taken() -> None:
    frontier = make(9)
    assert frontier.peek(0) == frontier.peek(0) == Launch(Node("j", 1, 0), 1, (0, 1, 2, 3))
    frontier.take()
    assert take(frontier).leaves == (4, 5, 6, 7)
    assert take(frontier).leaves == (8,)
    assert frontier.peek(0) is None


def test_upper_nodes_follow_their_children() -> None:
    frontier = make(9, 2)
    branches = [take(frontier) for _ in range(5)]
    assert not frontier.commit(branches[0].node)
    assert frontier.peek(0) is None
    assert not frontier.commit(branches[1].node)
    assert take(frontier).node == Node("j", 2, 0)
    assert not frontier.commit(branches[4].node)
    assert take(frontier).node == Node("j", 2, 2)


def test_single_leaf_is_its_own_root() -> None:
    frontier = make(1)
    assert frontier.commit(take(frontier).node)


def test_recovery_goes_on_where_it_was() -> None:
    tree = Tree(16, 2)
    tallies = {Node("j", 2, 0): 2, Node("j", 2, 1): 1, Node("j", 3, 1): 1}
    frontier = Frontier("j", tree, LIMITS, iter([3, 4, 5]), Past(tallies, attempts=7))
    first = take(frontier)
    assert (first.node, first.attempt) == (Node("j", 2, 0), 8)
    assert [take(frontier).node.index for _ in range(3)] == [3, 4, 5]
    frontier.commit(Node("j", 1, 3))
    assert take(frontier).node == Node("j", 2, 1)


def test_pause_before_a_repeat() -> None:
    frontier = make(4)
    launch = take(frontier)
    failure = Failure(Cause.PASSING, "net", 1)
    assert frontier.fail(launch, done(0, 2, 3, failures=(failure,)), now=10.0) is None
    assert frontier.peek(10.9) is None
    assert frontier.wake_at(10.9) == 11.0
    assert frontier.wake_at(11.0) is None
    again = take(frontier, 11.0)
    assert (again.leaves, again.attempt, again.alone) == ((1,), 2, False)
    assert sorted(again.prior.done) == [0, 2, 3]
    assert again.prior.failures == ()
    assert frontier.wake_at(0.0) is None


def test_loss_in_company_is_run_again_in_company_then_alone() -> None:
    frontier = make(8)
    first, second = take(frontier), take(frontier)
    frontier.fail(first, Partial(failures=(lost(2),)), 0)
    again = take(frontier)
    assert (again.leaves, again.alone) == ((0, 1, 2, 3), False)
    frontier.fail(again, Partial(failures=(lost(2),)), 0)
    suspect = take(frontier)
    assert (suspect.leaves, suspect.alone) == ((2,), True)
    assert suspect.alone_for(2)
    frontier.fail(suspect, done(2), 0)
    rest = take(frontier)
    assert (rest.leaves, rest.alone, sorted(rest.prior.done)) == ((0, 1, 3), False, [2])
    assert not frontier.commit(rest.node)
    frontier.commit(second.node)


def test_three_losses_alone_set_a_leaf_aside() -> None:
    frontier = make(4)
    launch = take(frontier)
    frontier.fail(launch, Partial(failures=(lost(2, seen=True),)), 0)
    for _ in range(3):
        launch = take(frontier)
        assert launch.alone
        frontier.fail(launch, Partial(failures=(lost(2, alone=True),)), 0)
    launch = take(frontier)
    assert (launch.leaves, launch.alone) == ((0, 1, 2, 3), False)
    assert launch.absent[2].cause is Cause.LOST
    assert "died 3 times" in launch.absent[2].reason


def test_losses_survive_a_restart() -> None:
    node = Node("j", 1, 0)
    past = Past(losses={node: [lost(1, seen=True), lost(1, alone=True), lost(1, alone=True)]}, attempts=2)
    frontier = make(8, past=past)
    launch = take(frontier)
    assert (launch.leaves, launch.alone, launch.attempt) == ((1,), True, 3)
    frontier.fail(launch, Partial(failures=(lost(1, alone=True),)), 0)
    launch = take(frontier)
    assert (list(launch.absent), launch.attempt) == ([1], 4)


def test_lost_merge_is_run_alone_and_ends_the_job_at_the_limit() -> None:
    frontier = make(4)
    launch = take(frontier)
    frontier.fail(launch, Partial(failures=(lost(None, seen=True),)), 0)
    stop = None
    for _ in range(3):
        assert stop is None
        launch = take(frontier)
        assert (launch.leaves, launch.alone) == ((0, 1, 2, 3), True)
        assert launch.alone_for(None)
        assert not launch.alone_for(2)
        stop = frontier.fail(launch, Partial(failures=(lost(None, alone=True),)), 0)
    assert isinstance(stop, Stop)
    assert "a merge cannot be done" in stop.reason
    assert not stop.held


def test_site_failure_stops_and_is_held() -> None:
    frontier = make(4)
    stop = frontier.fail(take(frontier), done(0, failures=(Failure(Cause.SITE, "disk full", 1),)), 0)
    assert stop == Stop("disk full", held=True)


def test_absent_that_fails_ends_the_job() -> None:
    frontier = make(4)
    frontier.fail(take(frontier), done(0, 1, 2, failures=(gone(3),)), 0)
    frontier.fail(take(frontier, 1), done(0, 1, 2, failures=(gone(3),)), 0)
    launch = take(frontier)
    assert list(launch.absent) == [3]
    stop = frontier.fail(launch, done(0, 1, 2, failures=(gone(3),)), 0)
    assert isinstance(stop, Stop)
    assert "stand for leaf 3" in stop.reason


def test_first_leaves_all_failing_end_the_job_but_not_after_a_success() -> None:
    failures = tuple(bug(leaf) for leaf in range(3))
    hopeless = make(8)
    first, _ = take(hopeless), take(hopeless)
    assert hopeless.fail(first, Partial(failures=failures), 0) is None
    stop = hopeless.fail(take(hopeless), Partial(failures=failures), 0)
    assert isinstance(stop, Stop)
    assert "every leaf fails the same way" in stop.reason
    hopeful = make(12)
    first, second, third = take(hopeful), take(hopeful), take(hopeful)
    hopeful.commit(second.node)
    hopeful.fail(first, Partial(failures=failures), 0)
    assert hopeful.fail(take(hopeful), done(3, failures=failures), 0) is None
    hopeful.commit(third.node)
    assert hopeful.end(0) == Stop("leaf 0 cannot be done: oops; the next start tries again what is left")


def fail_on(frontier: Frontier, launch: Launch, outcome: Partial) -> float:
    """Let every repeat of a launch end like the first, until there is none; what time it is then."""
    now = 0.0
    while True:
        frontier.fail(launch, outcome, now)
        now += 10
        again = frontier.peek(now)
        if again is None or again.node != launch.node:
            return now
        frontier.take()
        launch = again
        assert launch.attempt < 5
        assert not launch.absent


@pytest.mark.parametrize("cause", [Cause.PASSING, Cause.TIMEOUT, Cause.BUG])
def test_what_may_pass_is_given_up_but_never_set_aside(cause: Cause) -> None:
    """All the rest of the job is done, of that branch too; nothing above it is, and the next start goes on there."""
    frontier = make(8, fan_in=2)
    branches = [take(frontier) for _ in range(4)]
    now = fail_on(frontier, branches[1], done(2, failures=(Failure(cause, "trouble", 3),)))
    for place in (0, 2, 3):
        assert frontier.end(now) is None
        frontier.commit(branches[place].node)
    assert take(frontier).node == Node("j", 2, 1)
    assert frontier.end(now) is None
    frontier.commit(Node("j", 2, 1))
    assert frontier.end(now) == Stop("leaf 3 cannot be done: trouble; the next start tries again what is left")
    past = Past({Node("j", 2, 0): 1, Node("j", 3, 0): 1}, {branches[1].node: done(2)}, good=True)
    launch = take(Frontier("j", Tree(8, 2), LIMITS, iter([1]), past))
    assert (launch.leaves, sorted(launch.prior.done), dict(launch.absent)) == ((3,), [2], {})


def test_leaves_beside_one_that_is_given_up_are_tried_on() -> None:
    frontier = make(4)
    slow = Failure(Cause.PASSING, "net", 2)
    assert frontier.fail(take(frontier), done(0, 3, failures=(bug(1), slow)), 0) is None
    assert frontier.fail(take(frontier, 1), done(0, 3, failures=(bug(1), slow)), 1) is None
    launch = take(frontier, 5)
    assert launch.leaves == (2,)
    stop = frontier.fail(launch, done(0, 2, 3), 5)
    assert stop == Stop("leaf 1 cannot be done: oops; the next start tries again what is left")


def test_a_killer_beside_one_that_is_given_up_is_not_set_aside_for_that() -> None:
    """Its branch is not committed, so nothing needs to stand for it."""
    frontier = make(2, past=Past(losses={Node("j", 1, 0): [lost(1, alone=True)] * 2}, good=True))
    assert frontier.fail(take(frontier), Partial(failures=(lost(1, alone=True),)), 0) is None
    launch = take(frontier)
    assert (launch.leaves, list(launch.absent)) == ((0, 1), [1])
    frontier.fail(launch, Partial(failures=(bug(0),)), 0)
    stop = frontier.fail(take(frontier), Partial(failures=(bug(0),)), 0)
    assert stop == Stop("leaf 0 cannot be done: oops; the next start tries again what is left")


@pytest.mark.parametrize("level", [1, 2])
def test_a_merge_that_fails_stops_what_is_above_it_alone(level: int) -> None:
    frontier = make(8, fan_in=2)
    branches = [take(frontier) for _ in range(4)]
    if level == 2:
        for branch in branches[:2]:
            frontier.commit(branch.node)
    launch = branches[0] if level == 1 else take(frontier)
    assert launch.node == Node("j", level, 0)
    for _ in range(2):
        assert frontier.fail(launch, Partial(failures=(bug(None),)), 0) is None
        launch = frontier.peek(0) and take(frontier)
    assert launch is None
    for branch in branches[level:]:
        frontier.commit(branch.node)
    assert take(frontier).node == Node("j", 2, 1)
    frontier.commit(Node("j", 2, 1))
    assert frontier.end(0) == Stop("a merge cannot be done: oops; the next start tries again what is left")


def test_all_that_is_given_up_is_counted() -> None:
    frontier = make(6, fan_in=2)
    branches = [take(frontier) for _ in range(3)]
    for branch in branches[:2]:
        first, second = branch.leaves
        fail_on(frontier, branch, done(second, failures=(bug(first),)))
    frontier.commit(branches[2].node)
    frontier.commit(take(frontier).node)
    stop = frontier.end(0)
    assert stop == Stop("leaf 0 cannot be done: oops (and 1 more); the next start tries again what is left")


def test_a_branch_of_leaves_set_aside_is_no_success() -> None:
    frontier = make(6, fan_in=2)
    branches = [take(frontier) for _ in range(3)]
    frontier.commit(branches[0].node, good=False)
    both = [Partial(failures=(bug(leaf), bug(leaf + 1))) for leaf in (2, 4)]
    for branch, failed in zip(branches[1:], both, strict=True):
        frontier.fail(branch, failed, 0)
    assert frontier.fail(take(frontier), both[0], 0) is None
    assert isinstance(frontier.fail(take(frontier), both[1], 0), Stop)


def test_nothing_is_set_aside_for_good_before_something_succeeded() -> None:
    """The branch of the first two waits for what becomes of the others: were the code at fault, it must run again."""
    frontier = make(6, fan_in=2)
    branches = [take(frontier) for _ in range(3)]
    failed = Partial(failures=(gone(0), gone(1)))
    frontier.fail(branches[0], failed, 0)
    frontier.fail(take(frontier, 1), failed, 0)
    assert frontier.peek(1) is None
    frontier.commit(branches[1].node)
    assert sorted(take(frontier, 1).absent) == [0, 1]


def test_few_leaves_that_all_are_set_aside_are_tried_again_by_the_next_start() -> None:
    frontier = make(4, fan_in=2)
    branches = [take(frontier) for _ in range(2)]
    failed = Partial(failures=(gone(0), gone(1)))
    frontier.fail(branches[0], failed, 0)
    frontier.fail(take(frontier, 1), failed, 0)
    assert frontier.end(1) is None
    frontier.commit(branches[1].node, good=False)
    stop = frontier.end(1)
    assert stop == Stop("no leaf has succeeded; leaf 0: no file; the next start tries again what is left")


@pytest.mark.parametrize("leaves", [1, 2])
def test_few_leaves_that_all_fail_end_the_job(leaves: int) -> None:
    frontier = make(leaves)
    failed = Partial(failures=tuple(bug(leaf) for leaf in range(leaves)))
    assert frontier.fail(take(frontier), failed, 0) is None
    stop = frontier.fail(take(frontier), failed, 0)
    which = "" if leaves == 1 else "leaf 0 cannot be done: "
    assert stop == Stop(f"{which}oops; the next start tries again what is left")


@pytest.mark.parametrize("good", [False, True])
def test_a_leaf_that_kills_is_set_aside_only_where_others_do_not(good: bool) -> None:
    frontier = make(4, fan_in=2, past=Past(losses={Node("j", 1, 1): [lost(leaf, alone=True) for leaf in (2, 3)] * 3}))
    first = take(frontier)
    assert frontier.peek(0) is None
    frontier.commit(first.node, good=good)
    if good:
        assert sorted(take(frontier).absent) == [2, 3]
        return
    stop = frontier.end(0)
    assert stop is not None
    assert "no leaf has succeeded; leaf 2: its worker died 3 times while it ran alone" in stop.reason


# all of it at once

fates = st.lists(st.sampled_from([Cause.PASSING, Cause.MISSING, Cause.LOST, Cause.TIMEOUT, Cause.BUG]), max_size=4)


@given(
    leaves=st.integers(1, 40),
    fan_in=st.integers(2, 5),
    threads=st.integers(1, 6),
    troubles=st.dictionaries(st.integers(0, 39), fates, max_size=6),
    data=st.data(),
)
def test_any_order_any_trouble_every_node_once(
    leaves: int, fan_in: int, threads: int, troubles: dict[int, list[Cause]], data: st.DataObject
) -> None:
    """Over as many starts as it takes: what is given up in one is tried again in the next, and nothing else is."""
    tree = Tree(leaves, fan_in)
    left = {leaf: list(fate) for leaf, fate in troubles.items() if leaf < leaves}
    committed: Counter[Node] = Counter()
    partials: dict[Node, Partial] = {}
    for _ in range(sum(map(len, left.values())) + 1):
        if one_start(tree, threads, left, committed, partials, data):
            break
    expected = [Node("j", level, i) for level in range(1, tree.depth + 1) for i in range(tree.width(level))]
    assert committed == Counter(expected)


def one_start(
    tree: Tree,
    threads: int,
    left: dict[int, list[Cause]],
    committed: Counter[Node],
    partials: dict[Node, Partial],
    data: st.DataObject,
) -> bool:
    """Work off a job until it is done (True) or what is left of it is given up; `left` are mishaps still to come."""
    open_branches = [i for i in range(tree.width(1)) if Node("j", 1, i) not in committed]
    above = Counter(tree.parent(node) for node in committed if node.level < tree.depth)
    tallies = {node: count for node, count in above.items() if node not in committed}
    past = Past(tallies, dict(partials), good=bool(committed))
    # As if none were hopeless: how a job ends early has its own tests.
    frontier = Frontier("j", tree, replace(LIMITS, alike=99), iter(open_branches), past)
    window = Window(threads)
    flying: list[Launch] = []
    now = 0.0
    while True:
        while (launch := frontier.peek(now)) and window.admits(launch, Lane.PROMPT, tree.fan_in):
            frontier.take()
            window.add(launch, Lane.PROMPT)
            flying.append(launch)
            check_launch(launch, flying, committed, partials)
        assert sum(launch.width for launch in flying) <= 2 * max(threads, tree.fan_in)
        assert len(flying) == 1 or not any(launch.alone for launch in flying)
        if not flying:
            wake = frontier.wake_at(now)
            if wake is None:
                assert frontier.end(now) is not None
                return False
            assert frontier.end(now) is None
            now = max(now, wake)
            continue
        launch = flying.pop(data.draw(st.integers(0, len(flying) - 1)))
        window.remove(launch, Lane.PROMPT)
        outcome = simulate(tree, launch, left)
        if isinstance(outcome, NodeReceipt):
            committed[launch.node] += 1
            partials.pop(launch.node, None)
            if frontier.commit(launch.node):
                return True
        else:
            if outcome.done:
                partials[launch.node] = replace(outcome, failures=())
            stop = frontier.fail(launch, outcome, now)
            assert stop is None or not flying
            assert stop == frontier.end(now)


def check_launch(launch: Launch, flying: list[Launch], committed: Counter[Node], partials: dict[Node, Partial]) -> None:
    assert launch.node not in committed
    assert [other.node for other in flying].count(launch.node) == 1
    done = partials.get(launch.node, Partial()).done
    assert launch.prior.done == done
    assert not set(launch.leaves) & set(done), "what is done is done again"
    assert {aside.cause for aside in launch.absent.values()} <= {Cause.MISSING, Cause.LOST}


def simulate(tree: Tree, launch: Launch, left: dict[int, list[Cause]]) -> NodeReceipt | Partial:
    """What a launch gives when each leaf still has these mishaps before it; a loss takes the branch with it."""
    if launch.node.level > 1:
        return NodeReceipt((), Receipt())
    failures = []
    for leaf in launch.leaves:
        if leaf not in launch.absent and left.get(leaf):
            cause = left[leaf].pop(0)
            alone = cause is Cause.LOST and launch.alone_for(leaf)
            failures.append(Failure(cause, "trouble", leaf, alone=alone))
    gone = [failure for failure in failures if failure.cause in (Cause.LOST, Cause.TIMEOUT)]
    if gone:
        return Partial(failures=(gone[0],))
    failed = {failure.leaf for failure in failures}
    receipts = {**launch.prior.done, **{leaf: Receipt() for leaf in launch.leaves if leaf not in failed}}
    whole = tree.children(launch.node)
    if len(receipts) == len(whole):
        return NodeReceipt(tuple(receipts[leaf] for leaf in whole), Receipt())
    return Partial(receipts, Receipt(), (), tuple(failures))


@pytest.mark.parametrize("level", [1, 2])
def test_width_is_what_can_run(level: int) -> None:
    assert Launch(Node("j", level, 0), leaves=(1, 2) if level == 1 else ()).width == (2 if level == 1 else 1)
