"""What prompt leaves for closure: under which names, of which events, and where nothing can be left."""

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar

import awkward as ak
import numpy as np

from calib.iov import RunLumi
from calib.payload import Conditions
from pipeline.again import accumulate_again, counted_here, stem, under
from pipeline.datasets import WHOLE, Dataset
from pipeline.experiments.interface import Triggers
from tests.pipeline.tiny import Offset


@dataclass(frozen=True, kw_only=True)
class Costly(Offset):
    closes_on: ClassVar[Fraction] = Fraction(1, 3)


@dataclass(frozen=True, kw_only=True)
class Uses(Offset):
    uses: ClassVar[tuple[str, ...]] = ("field",)


COLUMNS = {
    "run": np.full(9, 7),
    "lumi": np.repeat([1, 2, 3], 3),
    "event": np.arange(9),
    "hit": ak.Array([[1.0]] * 9),
    "other": np.zeros(9),
}
HELD = Conditions(RunLumi(7, 1), {"offset": "a" * 64, "field": "b" * 64}, "nowhere")


def hits(found):
    [state] = found.values()
    return int(state["hits"].total()[0])


def test_a_state_has_the_payload_it_was_measured_under_in_its_name():
    [name] = accumulate_again(Offset(), WHOLE, COLUMNS, HELD)
    assert name == under(stem(Offset(), WHOLE), "a" * 64) and name.startswith("closure offset ")
    [other] = accumulate_again(Offset(), WHOLE, COLUMNS, replace(HELD, ids={"offset": "c" * 64}))
    assert other != name and other.rpartition(" ")[0] == name.rpartition(" ")[0]
    [used] = accumulate_again(Uses(), WHOLE, COLUMNS, HELD)
    assert used.startswith(f"{under(stem(Uses(), WHOLE), 'a' * 64)} ")


def test_another_way_to_accumulate_and_another_order_of_datasets_have_other_names():
    stems = {
        stem(Offset(), WHOLE),
        stem(Offset(scale=10), WHOLE),
        stem(Offset(), Dataset("Muon", ("muon",), earlier=("beam",))),
        stem(Costly(), WHOLE),
    }
    assert len(stems) == 4 and stem(Offset(min_hits=1), WHOLE) == stem(Offset(), WHOLE)


def test_nothing_is_left_where_something_lacks():
    assert accumulate_again(Offset(), WHOLE, {"run": COLUMNS["run"]}, HELD) == {}
    assert accumulate_again(Offset(), WHOLE, COLUMNS, replace(HELD, ids={"field": "b" * 64})) == {}
    assert accumulate_again(Uses(), WHOLE, COLUMNS, replace(HELD, ids={"offset": "a" * 64})) == {}


def test_what_costs_much_looks_at_a_share_of_the_events():
    assert hits(accumulate_again(Offset(), WHOLE, COLUMNS, HELD)) == 9
    assert hits(accumulate_again(Costly(), WHOLE, COLUMNS, HELD)) == 3


def test_an_event_counts_in_the_first_dataset_that_has_it():
    def fired(events):
        return {"muon": events["trig"] & 1 != 0, "beam": events["trig"] & 2 != 0}

    triggers, events = Triggers(("muon", "beam"), ("trig",), fired), {"event": np.arange(4), "trig": np.arange(4)}
    beam = Dataset("Beam", ("beam",), earlier=("muon",))
    assert counted_here(triggers, beam, events).tolist() == [False, False, True, False]
    assert counted_here(triggers, Dataset("Muon", ("muon",)), events).all()
    assert counted_here(triggers, Dataset("Rest", (), ("muon", "beam"), ("muon", "beam")), events).all()
    # Of a tier that has not kept what events fired it cannot be told.
    assert not counted_here(triggers, beam, {"event": np.arange(4)}).any()
