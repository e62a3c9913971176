"""What follows from a list of orders: holds and waivers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.authority import Rules
from pipeline.holds import STOPS, holds_in_force, holds_of, why_held, why_stopped
from pipeline.orders import Order, What
from pipeline.standing import orders_about, standing_orders
from pipeline.waivers import PAYLOADS, VERSION, Signature, Waiver, waivers_given, waivers_in_force


def order(what, run=7, who="alice", at=0.0, **more):
    return Order(what, run, more.pop("reason", "why"), who, at, **more)


def waive(who="alice", at=0.0, payloads=(), version=1, **more):
    terms = {VERSION: version, PAYLOADS: list(payloads)}
    return order(What.WAIVE, who=who, at=at, kind=more.pop("kind", "offset"), terms=terms, **more)


ORDERS = st.lists(
    st.builds(
        order,
        st.sampled_from([What.HOLD, What.LIFT]),
        st.sampled_from([None, 7, 8]),
        st.sampled_from(["alice", "bob"]),
        dataset=st.sampled_from(["", "Jets"]),
    ),
    max_size=12,
)


@given(ORDERS, st.sampled_from([7, 8, 9]), st.sampled_from(["", "Jets", "Muons"]))
def test_holds_are_as_a_naive_reader_of_the_list_finds_them(orders, run, dataset):
    """A hold counts if no lift of just its place comes after it, and if its place has the run and the dataset."""
    wanted = []
    for number, hold in enumerate(orders):
        if hold.what is not What.HOLD:
            continue
        if any(o.what is What.LIFT and o.place == hold.place for o in orders[number:]):
            continue
        of_dataset = dataset == "" or hold.dataset == "" or hold.dataset == dataset
        if (hold.run is None or hold.run == run) and of_dataset:
            wanted.append(hold)
    assert holds_of(holds_in_force(orders), run, dataset) == wanted
    assert bool(why_held(holds_in_force(orders), run, dataset)) == bool(wanted)


def test_a_hold_says_who_when_why_and_how_it_is_lifted():
    held = holds_in_force([order(What.HOLD, reason="magnet", dataset="Jets", at=1.7e9)])
    assert why_held(held, 7) == (
        "run 7, dataset Jets: held by alice since 2023-11-14 22:13:20 UTC: magnet (tier0 lift 7 --dataset Jets)"
    )
    assert why_held(held, 8) == ""


def test_only_a_hold_of_that_sort_stops_submitting():
    assert not why_stopped(holds_in_force([order(What.HOLD, None)]))
    stop = order(What.HOLD, None, terms={STOPS: True})
    assert "all runs, nothing is submitted: held by alice" in why_stopped(holds_in_force([stop]))
    assert not why_stopped(holds_in_force([stop, order(What.LIFT, None)]))


def in_force(*orders, need=1, run=7, version=1):
    return waivers_in_force(waivers_given(orders, run, version), need)


def test_a_waiver_is_for_one_run_kind_and_processing_version():
    given_ = waive()
    assert in_force(given_) == {"offset": Waiver((Signature("alice", 0.0, "why"),))}
    assert in_force(given_, run=8) == {} == in_force(given_, version=2)


def test_two_names_are_two_people_who_agree_on_the_same_terms():
    assert in_force(waive(), need=2) == {}
    assert in_force(waive(at=1.0), waive(at=2.0), need=2) == {}, "one person twice is one"
    both = in_force(waive(at=1.0), waive("bob", at=2.0), need=2)["offset"]
    assert [(one.who, one.at) for one in both.signed] == [("alice", 1.0), ("bob", 2.0)]
    assert in_force(waive(payloads=["p"]), waive("bob"), need=2) == {}
    assert in_force(waive(payloads=["p"]), waive("bob", payloads=["q"]), need=2) == {}
    # Who thinks better of it agrees with the other.
    agreed = in_force(waive(payloads=["p"]), waive("bob"), waive("bob", payloads=["p"]), need=2)["offset"]
    assert (agreed.payloads, [one.who for one in agreed.signed]) == (("p",), ["alice", "bob"])


def test_of_several_waivers_the_latest_counts_and_withdrawing_takes_all():
    assert in_force(waive(payloads=["p"]), waive("bob"))["offset"].payloads == ()
    assert in_force(waive("bob"), waive(payloads=["p"]))["offset"].payloads == ("p",)
    gone = order(What.WITHDRAW, kind="offset", terms={VERSION: 1})
    assert in_force(waive(), waive("bob"), gone) == {}
    assert [one.who for one in in_force(waive(), gone, waive("bob"))["offset"].signed] == ["bob"]
    assert "offset" in in_force(waive(), order(What.WITHDRAW, kind="offset", terms={VERSION: 2}))


def test_a_waiver_is_read_back():
    waiver = in_force(waive(payloads=["p"], at=5.0), waive("bob", payloads=["p"]))["offset"]
    assert Waiver.from_document(waiver.to_document()) == waiver


def test_what_stands_is_told_with_what_is_still_needed():
    orders = [order(What.HOLD, None), order(What.HOLD, 9), order(What.HOLD, 8), waive(), waive(run=9)]
    told = standing_orders(orders, {7, 8}, Rules(waivers_need=2), 1)
    assert [line.partition(":")[0] for line in told] == ["all runs", "run 8", "run 7"]
    assert told[-1].endswith("it needs 1 more name, other than these, on the same terms")
    assert "more name" not in standing_orders(orders, {7}, Rules(), 1)[-1]
    assert orders_about([*orders, order(What.LIFT, 8, "bob", reason="all well")], 8)[-1].endswith(
        "bob: lift, run 8: all well"
    )
