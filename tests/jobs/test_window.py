"""The window is bounded, lanes have their room, and a suspect is alone."""

from __future__ import annotations

from jobs.frontier import Launch
from jobs.job import Lane
from jobs.reduction import Node
from jobs.window import Window


def branch(leaves: int = 4, *, alone: bool = False) -> Launch:
    return Launch(Node("j", 1, 0), leaves=tuple(range(leaves)), alone=alone)


def fill(window: Window, lane: Lane, fan_in: int = 4) -> int:
    """Add branches until no more are admitted; how many leaves that were."""
    leaves = 0
    while window.admits(branch(fan_in), lane, fan_in):
        window.add(branch(fan_in), lane)
        leaves += fan_in
    return leaves


def test_twice_the_threads_but_two_branches_at_least() -> None:
    assert fill(Window(threads=10), Lane.PROMPT) == 20
    assert fill(Window(threads=1), Lane.PROMPT) == 8


def test_what_ends_makes_room() -> None:
    window = Window(threads=4)
    fill(window, Lane.PROMPT)
    window.remove(branch(), Lane.PROMPT)
    assert window.admits(branch(), Lane.PROMPT, 4)


def test_lower_lanes_do_not_keep_higher_ones_out_but_the_reverse() -> None:
    window = Window(threads=4)
    assert fill(window, Lane.EXPRESS) == 8
    assert not window.admits(branch(1), Lane.PROMPT, 4)
    assert fill(window, Lane.CONDITIONS) == 8
    assert not window.admits(branch(1), Lane.CONDITIONS, 4)


def test_reserve_is_for_the_highest_lane() -> None:
    window = Window(threads=12, reserve=4)
    assert fill(window, Lane.EXPRESS) == 8
    assert not window.admits(branch(1), Lane.PROMPT, 4)
    assert not window.admits(branch(1), Lane.EXPRESS, 4)
    assert fill(window, Lane.CONDITIONS) == 24
    assert fill(Window(threads=12, reserve=4), Lane.PROMPT) == 8
    one = Window(threads=1, reserve=1)
    assert fill(one, Lane.PROMPT) == 4


def test_suspect_waits_for_all_and_all_wait_for_it() -> None:
    window = Window(threads=4)
    window.add(branch(), Lane.PROMPT)
    suspect = branch(1, alone=True)
    assert not window.admits(suspect, Lane.CONDITIONS, 4)
    window.remove(branch(), Lane.PROMPT)
    assert window.admits(suspect, Lane.CONDITIONS, 4)
    window.add(suspect, Lane.CONDITIONS)
    assert window.closed
    assert not window.admits(branch(), Lane.CONDITIONS, 4)
    window.remove(suspect, Lane.CONDITIONS)
    assert not window.closed
    assert window.admits(branch(), Lane.CONDITIONS, 4)
