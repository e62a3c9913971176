"""The order of calibrations."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib.graph import before, in_order, levels, wrong_order

CHAIN = {
    "beamspot": ("alignment",),
    "alignment": ("lorentz_angle",),
    "lorentz_angle": ("gain",),
    "gain": ("channel_status", "pedestal"),
    "channel_status": ("pedestal",),
    "pedestal": (),
}


def test_the_chain_of_a_tracker():
    names = ["pedestal", "channel_status", "gain", "lorentz_angle", "alignment", "beamspot"]
    assert levels(CHAIN) == {name: level for level, name in enumerate(names)}
    assert in_order(CHAIN) == names
    assert before(CHAIN)["lorentz_angle"] == {"pedestal", "channel_status", "gain"}


def test_what_is_not_calibrated_goes_before_nothing():
    some = {kind: after for kind, after in CHAIN.items() if kind in ("beamspot", "gain", "pedestal")}
    assert levels(some) == {"beamspot": 0, "pedestal": 0, "gain": 1}
    assert not list(wrong_order(some, set()))


def test_cycles_are_spelled_out():
    turned = CHAIN | {"pedestal": ("lorentz_angle",)}
    cycle = "lorentz_angle -> pedestal -> channel_status -> gain -> lorentz_angle"
    assert list(wrong_order(turned, set())) == [f"calibrations go after each other: {cycle}"]
    for ask in (before, levels, in_order):
        with pytest.raises(ValueError, match=cycle):
            ask(turned)
    assert list(wrong_order({"a": ("a",)}, set())) == ["calibrations go after each other: a -> a"]


def test_a_name_that_is_all_but_one_that_there_is_is_refused():
    wrong = {"gain": ("pedestel", "magnet"), "pedestal": (), "beamspot": ("aligment",)}
    assert list(wrong_order(wrong, {"alignment"})) == [
        "beamspot goes after 'aligment', which is no kind: did you mean 'alignment'?",
        "gain goes after 'pedestel', which is no kind: did you mean 'pedestal'?",
    ]


@given(st.lists(st.sets(st.integers(0, 7)), min_size=8, max_size=8))
def test_it_is_what_a_walk_finds(found):
    after = {str(n): tuple(map(str, sorted(first))) for n, first in enumerate(found)}

    def walk(kind):
        seen, todo = set(), list(after[kind])
        while todo:
            one = todo.pop()
            if one not in seen:
                seen.add(one)
                todo += after[one]
        return seen

    if any(kind in walk(kind) for kind in after):
        with pytest.raises(ValueError, match="after each other"):
            before(after)
        return
    assert before(after) == {kind: walk(kind) for kind in after}
    assert list(before(after)) == in_order(after)
    depth = levels(after)
    assert all(depth[kind] == max((depth[one] + 1 for one in after[kind]), default=0) for kind in after)
