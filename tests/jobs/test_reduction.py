"""The tree covers every leaf once, and what runs on workers never raises."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.reduction import (
    NOTHING,
    Aside,
    FileRecord,
    Join,
    LeafDone,
    Node,
    NodeReceipt,
    Partial,
    Receipt,
    Tree,
    merge_branch,
    merge_node,
    run_leaf,
)
from jobs.retry import Cause, Failure
from tests.jobs.toy import Sum

trees = st.builds(Tree, leaves=st.integers(1, 300), fan_in=st.integers(2, 9))


@given(trees)
def test_every_level_covers_every_leaf_once(tree: Tree) -> None:
    for level in range(1, tree.depth + 1):
        nodes = [Node("j", level, index) for index in range(tree.width(level))]
        assert [leaf for node in nodes for leaf in tree.leaves_of(node)] == list(range(tree.leaves))
        below = [index for node in nodes for index in tree.children(node)]
        assert below == list(range(tree.width(level - 1)))
        assert all(1 <= len(tree.children(node)) <= tree.fan_in for node in nodes)


@given(trees)
def test_parent_and_children_agree(tree: Tree) -> None:
    for level in range(2, tree.depth + 1):
        for index in range(tree.width(level)):
            node = Node("j", level, index)
            assert {tree.parent(Node("j", level - 1, child)) for child in tree.children(node)} == {node}
    assert tree.leaves_of(tree.root("j")) == range(tree.leaves)


def test_one_leaf_has_a_branch_which_is_the_root() -> None:
    tree = Tree(1, 16)
    assert tree.root("j") == Node("j", 1, 0)
    assert tree.children(tree.root("j")) == range(1)


@pytest.mark.parametrize(("leaves", "fan_in", "word"), [(0, 2, "at least one leaf"), (3, 1, "fan_in must be 2")])
def test_impossible_trees_are_refused(leaves: int, fan_in: int, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Tree(leaves, fan_in)


def test_receipt_survives_json() -> None:
    record = FileRecord("/a", 3, "sha256:00")
    aside = Aside(7, Cause.BUG, "oops", "Traceback")
    receipt = NodeReceipt((Receipt((record,), {"n": [1, 2.5]}), Receipt()), Receipt((record,)), (aside,), 1.25)
    assert NodeReceipt.from_json(receipt.to_json()) == receipt


def leaf(work: Sum, index: int, absent: str | None = None) -> Any:
    return run_leaf(pickle.dumps(work), pickle.dumps(index), index, "e1-1", absent)


def branch(work: Sum, join: Join, results: list[Any]) -> NodeReceipt | Partial:
    return merge_branch(pickle.dumps(work), pickle.dumps(join), "e1-1", results)


BRANCH = Join(Node("sum", 1, 0), (0, 1, 2))


def test_branch_joins_its_leaves(tmp_path: Path) -> None:
    work = Sum(str(tmp_path))
    found = branch(work, BRANCH, [leaf(work, index) for index in (0, 1, 2)])
    assert isinstance(found, NodeReceipt)
    assert [receipt.note["value"] for receipt in found.leaves] == [0, 1, 2]
    assert work.load(found.state) == 3
    assert found.seconds > 0


def test_files_of_two_executions_of_one_submission_differ(tmp_path: Path) -> None:
    work = Sum(str(tmp_path))
    first, second = leaf(work, 1), leaf(work, 1)
    assert first.receipt.files[0].path != second.receipt.files[0].path
    assert "e1-1" in first.receipt.files[0].path


def test_failures_come_back_as_values(tmp_path: Path) -> None:
    work = Sum(str(tmp_path), failing={1: "disk_full", 2: "bug"})
    full, bug = leaf(work, 1), leaf(work, 2)
    assert (full.cause, full.leaf) == (Cause.SITE, 1)
    assert bug.cause is Cause.BUG
    assert bug.message == "ZeroDivisionError: a bug"
    assert "toy.py" in bug.traceback


def test_what_cannot_be_unpickled_is_a_failure() -> None:
    broken = run_leaf(b"rubbish", pickle.dumps(0), 0, "e1-1", None)
    assert isinstance(broken, Failure)
    assert broken.cause is Cause.BUG


class Unspeakable(Sum):
    """Its notes are no JSON."""

    def leaf(self, item: int, attempt: str) -> tuple[Receipt, int]:
        return Receipt((), {"value": {item}}), item


def test_note_that_is_no_json_is_the_fault_of_its_leaf(tmp_path: Path) -> None:
    found = leaf(Unspeakable(str(tmp_path)), 1)
    assert isinstance(found, Failure)
    assert "not JSON serializable" in found.message


def test_bad_data_are_set_aside_on_the_spot(tmp_path: Path) -> None:
    work = Sum(str(tmp_path), failing={1: "bad_data"})
    found = branch(work, BRANCH, [leaf(work, index) for index in (0, 1, 2)])
    assert isinstance(found, NodeReceipt)
    assert [(aside.leaf, aside.cause) for aside in found.aside] == [(1, Cause.BAD_DATA)]
    assert "item 1 is unreadable" in found.aside[0].reason
    assert found.leaves[1].note["absent"] == found.aside[0].reason
    assert work.load(found.state) == 2


def test_what_succeeded_is_kept_and_not_done_again(tmp_path: Path) -> None:
    work = Sum(str(tmp_path), failing={1: "bug"})
    partial = branch(work, BRANCH, [leaf(work, index) for index in (0, 1, 2)])
    assert isinstance(partial, Partial)
    assert sorted(partial.done) == [0, 2]
    assert [failure.leaf for failure in partial.failures] == [1]
    why = Aside(1, Cause.BUG, "a bug")
    rest = replace(BRANCH, absent=(why,), prior=replace(partial, failures=()))
    found = branch(work, rest, [leaf(work, 1, "a bug")])
    assert isinstance(found, NodeReceipt)
    assert work.load(found.state) == 2
    assert found.aside == (why,)
    assert [receipt.note for receipt in found.leaves] == [{"value": 0}, {"absent": "a bug"}, {"value": 2}]


def test_nothing_done_is_nothing_stored(tmp_path: Path) -> None:
    work = Sum(str(tmp_path), failing={1: "bug"})
    partial = branch(work, BRANCH, [leaf(work, 1)])
    assert isinstance(partial, Partial)
    assert partial.state is None
    assert not partial.done


class Failing(Sum):
    """Its states cannot be written."""

    def store(self, value: int, node: Node, attempt: str) -> Receipt:
        raise OSError(28, "No space left on device")


def test_failed_merge_keeps_what_was_there_before(tmp_path: Path) -> None:
    work = Failing(str(tmp_path))
    before = Partial({0: Receipt()}, Receipt((FileRecord("x", 1, ""),)))
    (tmp_path / "x").write_text("5")
    for prior in (NOTHING, replace(before, state=Receipt((FileRecord(str(tmp_path / "x"), 1, ""),)))):
        found = branch(work, replace(BRANCH, prior=prior), [leaf(work, 1), leaf(work, 2)])
        assert isinstance(found, Partial)
        assert (found.failures[0].leaf, found.failures[0].cause) == (None, Cause.SITE)
        assert found.done == prior.done


def test_upper_node_joins_states(tmp_path: Path) -> None:
    work = Sum(str(tmp_path))
    states = tuple(work.store(value, Node("sum", 1, value), f"a{value}") for value in (3, 4))
    join = Join(Node("sum", 2, 0), states=states)
    found = merge_node(pickle.dumps(work), pickle.dumps(join), "e1-1")
    assert isinstance(found, NodeReceipt)
    assert work.load(found.state) == 7
    Path(states[0].files[0].path).unlink()
    lost = merge_node(pickle.dumps(work), pickle.dumps(join), "e1-1")
    assert isinstance(lost, Partial)
    assert lost.failures[0].cause is Cause.MISSING


class Watched(Sum):
    """Tells of loads and merges too."""

    def load(self, receipt: Receipt) -> int:
        self._log("load", 0)
        return super().load(receipt)

    def merge(self, values: Sequence[int]) -> int:
        self._log("merge", len(values))
        return super().merge(values)


def test_states_of_a_node_are_read_one_after_the_other(tmp_path: Path) -> None:
    """Of a million channels all of them at once need not fit into memory."""
    work = Watched(str(tmp_path))
    states = tuple(work.store(value, Node("sum", 1, value), f"a{value}") for value in (3, 4, 5))
    found = merge_node(pickle.dumps(work), pickle.dumps(Join(Node("sum", 2, 0), states=states)), "e1-1")
    assert isinstance(found, NodeReceipt) and Sum(str(tmp_path)).load(found.state) == 12
    steps = [json.loads(line)[:2] for line in (tmp_path / "log").read_text().splitlines()]
    read = [step for step in steps if step[0] in ("load", "merge")]
    assert read == [["load", 0], ["load", 0], ["merge", 2], ["load", 0], ["merge", 2]]


def test_order_of_results_is_the_order_of_leaves(tmp_path: Path) -> None:
    work = Sum(str(tmp_path))
    found = branch(work, BRANCH, [leaf(work, index) for index in (2, 0, 1)])
    assert isinstance(found, NodeReceipt)
    assert [receipt.note["value"] for receipt in found.leaves] == [0, 1, 2]


def test_leaf_time_is_measured(tmp_path: Path) -> None:
    done = leaf(Sum(str(tmp_path), seconds=0.02), 0)
    assert isinstance(done, LeafDone)
    assert done.seconds >= 0.02


def test_process_that_hangs_ends_itself(tmp_path: Path) -> None:
    work = pickle.dumps(Sum(str(tmp_path), seconds=600))
    worker = get_context("spawn").Process(target=run_leaf, args=(work, pickle.dumps(1), 1, "e1-1", None, 0.2))
    worker.start()
    worker.join(60)
    assert worker.exitcode == 1


def test_a_thread_of_the_driver_is_not_ended(tmp_path: Path) -> None:
    work = pickle.dumps(Sum(str(tmp_path), seconds=0.3))
    assert isinstance(run_leaf(work, pickle.dumps(1), 1, "e1-1", None, 0.1), LeafDone)
