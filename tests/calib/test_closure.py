"""Closure: what is made again is held to what is in force, alone and among many."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from calib.calibration import Calibration, NotConverged, NotEnoughData
from calib.closure import Closes, Demand, close, part_of
from calib.payload import Payload
from calib.pulls import apart, furthest, limit_among, of_measured
from calib.state import State


def payload(values, errors, unit="cm", **more):
    return Payload("mine", {"a": np.asarray(values), "a_error": np.asarray(errors), **more}, {"a": unit})


@dataclass(frozen=True, kw_only=True)
class Again(Calibration):
    """Gives what it is told."""

    kind: ClassVar[str] = "mine"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ()
    looks_at_previous: ClassVar[bool] = True
    found: object = None

    def accumulate(self, columns, conditions):
        return State({})

    def empty(self):
        return State({})

    def finalize(self, state, previous):
        if isinstance(self.found, Exception):
            raise self.found
        return previous if self.found is None else self.found


def closed(found, in_force, **demand):
    return close(Again(found=found), State({}), in_force, Demand(**demand))


@pytest.mark.parametrize(("off", "answer"), [(2.9, Closes.YES), (3.1, Closes.NO), (-3.1, Closes.NO)])
def test_one_number_may_be_three_sigma_off(off, answer):
    # 3 and 4 in quadrature.
    found = closed(payload(1.0 + 5 * off, 3.0), payload(1.0, 4.0))
    assert found.answer is answer and found.sigmas == pytest.approx(abs(off)) and found.limit == pytest.approx(3)


def test_the_largest_of_many_may_be_further_off_than_one_alone():
    rng = np.random.default_rng(1)
    limit = limit_among(10_001, 3.0)
    base = np.clip(rng.normal(size=10_000), -3.5, 3.5)
    for size, answer in ((limit - 0.01, Closes.YES), (limit + 0.01, Closes.NO)):
        values = base.copy()
        values[4321] = size
        found = closed(payload(values, np.ones(10_000)), payload(np.zeros(10_000), 0.0))
        assert found.answer is answer and "a[4321]" in found.why


def test_chance_is_held_to_what_is_asked():
    """Of 2000 toys of 50 numbers each about 0.0027 are beyond: 5.4 expected, more than 15 come once in 3000 times."""
    rng = np.random.default_rng(2)
    zero, beyond = payload(np.zeros(50), np.zeros(50)), 0
    for values in rng.normal(size=(2000, 50)):
        most = furthest(apart(payload(values, np.ones(50)), zero), 3.0, {})
        beyond += most.beyond
    assert 0 < beyond <= 15


def test_what_all_share_is_seen():
    """0.2 sigma in each of 10^4 channels: none is off alone, all together by 20."""
    values = np.random.default_rng(3).normal(0.2, 1.0, 10_000)
    found = closed(payload(values, np.ones(10_000)), payload(np.zeros(10_000), 0.0))
    assert found.answer is Closes.NO and "all 10000 of a" in found.why and found.sigmas == pytest.approx(20, abs=4)
    shared = Again(found=payload(values, np.ones(10_000)))
    assert furthest(shared.apart(shared.found, payload(values * 0, 0.0)), 3.0, {}, alone=("a",)).beyond is False


def test_what_was_carried_does_not_thin_out_what_moved():
    values = np.zeros(10_000)
    values[:100] = 1.0
    found = closed(payload(values, np.ones(10_000)), payload(np.zeros(10_000), 0.0))
    assert found.answer is Closes.NO and "all 100 of a" in found.why


def test_an_error_that_goes_with_its_value_does_not_skew_the_mean():
    """Widths of 50 samples each: where one comes out small, so does its error, and pulls are a tenth low on average."""
    rng = np.random.default_rng(4)
    widths = rng.normal(1.0, 0.1, 50_000)
    found, zero = payload(widths, widths / 10), payload(np.ones(50_000), 0.0)
    assert abs(apart(found, zero)["a"].pulls().mean() + 0.1) < 5 / np.sqrt(50_000)
    most = furthest(apart(found, zero), 3.0, {})
    assert "all" not in most.what


def test_what_is_known_badly_does_not_hide_what_all_others_share():
    values, errors = np.random.default_rng(5).normal(0.3, 1.0, 1000), np.ones(1000)
    values[0], errors[0] = 50.0, 1e4
    found = closed(payload(values, errors), payload(np.zeros(1000), 0.0))
    assert found.answer is Closes.NO and "all 999 of a" in found.why


def test_a_few_of_very_many_may_stray_where_tails_are_long():
    values = np.zeros(100_000)
    values[:3] = 50.0
    found = apart(payload(values, np.ones(100_000)), payload(np.zeros(100_000), 0.0))
    assert [furthest(found, 3.0, {}, strays=share).beyond for share in (0.0, 2e-5, 3e-5)] == [True, True, False]


def test_what_never_counts_is_taken_off():
    assert closed(payload(1.0, 0.1), payload(0.0, 0.0), least={"a": 0.8}).answer is Closes.YES
    assert closed(payload(1.0, 0.1), payload(0.0, 0.0), least={"a": 0.6}).answer is Closes.NO
    assert closed(payload(-1.0, 0.1), payload(0.0, 0.0), least={"a": 0.6}).answer is Closes.NO


def test_what_a_kind_tolerates_is_taken_off_unless_the_settings_say_otherwise():
    class Tolerant(Again):
        tolerated: ClassVar[dict[str, float]] = {"a": 0.8}

    for least, answer in (({}, Closes.YES), ({"a": 0.0}, Closes.NO), ({"b": 0.0}, Closes.YES)):
        found = close(Tolerant(found=payload(1.0, 0.1)), State({}), payload(0.0, 0.0), Demand(least=least))
        assert found.answer is answer


def test_what_cannot_be_held_to_anything_is_not_judged():
    assert closed(NotEnoughData("3 tracks"), payload(0.0, 1.0)).answer is Closes.NOT_JUDGED
    bare = Payload("mine", {"a": np.float64(1)}), Payload("mine", {"a": np.float64(2)})
    assert closed(*bare).answer is Closes.NOT_JUDGED
    assert closed(payload(np.nan, 1.0), payload(0.0, 1.0)).answer is Closes.NOT_JUDGED
    assert closed(payload(0.5, np.nan), payload(0.0, 0.0)).answer is Closes.NOT_JUDGED


def test_what_gives_no_answer_or_another_form_does_not_close():
    for found, word in (
        (NotConverged("too far"), "too far"),
        (payload([1.0, 2.0], [1.0, 1.0]), "another: a is of shape \\(2,\\)"),
        (payload(1.0, 1.0, "mm"), "in mm and of shape \\(\\) in cm"),
    ):
        answer = closed(found, payload(1.0, 1.0))
        assert answer.answer is Closes.NO
        with pytest.raises(AssertionError, match=word):
            raise AssertionError(answer.why)


def test_the_same_closes_and_says_so():
    assert closed(None, payload(1.0, 1.0)).answer is Closes.YES


def test_without_an_error_in_one_that_of_the_other_counts():
    bare = Payload("mine", {"a": np.float64(0)}, {"a": "cm"})
    for values in ((payload(4.0, 1.0), bare), (payload(4.0, 0.0), payload(0.0, 1.0))):
        assert closed(*values).sigmas == pytest.approx(4)


def test_what_was_in_force_without_being_measured_is_not_held_to_what_is():
    """A design value says nothing of its error; what was measured beside it is judged."""
    assert closed(payload(4.0, 1.0), payload(0.0, np.nan)).answer is Closes.NOT_JUDGED
    found = closed(payload([4.0, 1.0], [1.0, 1.0]), payload([0.0, 0.0], [np.nan, 0.0]))
    assert found.answer is Closes.YES and found.sigmas == pytest.approx(1)


FEW, MOVED = 1, 2


def flagged(values, status):
    one = np.ones(len(values))
    return Payload("mine", {"a": np.asarray(values), "a_error": one, "status": np.asarray(status, np.int8)})


def test_what_kept_its_value_has_no_distance_and_what_went_too_far_is_counted():
    """Else a move beyond belief, which keeps what was in force, would look like none."""
    in_force = flagged([0.0, 0.0, 0.0, 0.0], [0, FEW, 0, MOVED])
    found = of_measured(flagged([1.0, 9.0, 0.0, 9.0], [0, 0, MOVED, MOVED]), in_force, FEW | MOVED, MOVED)
    assert np.array_equal(found["a"].move, [1.0, np.nan, np.nan, np.nan], equal_nan=True)
    assert (float(found["status"].move), float(found["status"].sigma)) == (1.0, pytest.approx(np.sqrt(2)))
    many = of_measured(flagged(np.zeros(50), [MOVED] * 50), flagged(np.zeros(50), [0] * 50), FEW | MOVED, MOVED)
    assert furthest(many, 3.0, {}).beyond and furthest(many, 3.0, {}).what == "status"


def test_a_part_of_pooled_sums_is_not_to_be_had():
    from calib.channel_sums import ChannelSums
    from calib.pools import Pools

    units = np.array([1 << 32, (1 << 32) + 1])
    sums = ChannelSums.of(Pools.of(units, 1), 7, np.array([0]), {"entries": np.ones((1, 2), np.int64)})
    state = State({"sums": sums})
    assert part_of(state, tuple(units.tolist())).same(state)
    assert part_of(state, (int(units[0]),)) is None
