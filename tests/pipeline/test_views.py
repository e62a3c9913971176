"""What a run is told of others: what was carried before it, and whom it waits for."""

import numpy as np
import pytest

from calib.calibration import Outcome
from calib.iov import RunLumi
from pipeline.chain import Chain
from pipeline.express import Cut, RunContext, StateFile
from pipeline.handshake import TOO_LITTLE, Rules, decide
from pipeline.links import Link
from pipeline.manifest import Condition, Manifest, Stretch
from pipeline.model import Stream
from pipeline.released import Released
from pipeline.standing import Standing
from pipeline.views import Views, carried_in_a_row
from pipeline.way import Part, Way
from tests.pipeline.tiny import Offset, Tiny

RULES = Rules(max_carried_runs=2, failed="wait")
DEADLINE = 1000.0
LITTLE = f"{TOO_LITTLE}: 2 hits of 10"


def manifest(run, why=LITTLE, condition=Condition.CARRIED):
    first, last = RunLumi(run, 1).packed, RunLumi(run, 9).packed
    return Manifest(run, 1, 1, {"offset": (Stretch(first, last, condition, "p", why),)})


def way(run):
    cut = Cut(Stream.PHYSICS, "events", "events", leaves=1, fan_in=2)
    context = RunContext(run, cut, cut, Tiny(), (Offset(),), None, (), conditions_root="", area="")
    return Way(context, np.array([RunLumi(run, 1).packed]), (Part(RULES, ("offset",), DEADLINE),))


@pytest.fixture
def chain():
    return Chain("offset", {run: Link(Offset()) for run in (7, 8, 9)}, None, "")


def too_little(chain, run):
    """Express of a run has ended, and its finalization has found too little."""
    chain.ready(run, StateFile("", ""))
    assert [ask.run for ask in chain.asks()] == [run]
    unit = RunLumi(run, 1).packed
    note = {"first": unit, "last": unit, "vetoed": [], "unconfirmed": False, "payload": None}
    chain.concluded(run, [note | {"outcome": Outcome.NOT_ENOUGH_DATA.value, "message": "few"}], None)


def views(chain, released=(), elsewhere=None):
    settled = {one.run: Released({"": one}) for one in released}
    return Views([chain], settled, elsewhere or {}, Standing(lambda: None, 1))


def view_of(found, run, now):
    one = way(run)
    return found.of(one, one.parts[0], now)


def test_only_what_was_carried_for_want_of_data_counts_and_only_in_a_row():
    row = [manifest(5), manifest(4), manifest(3, "no change"), manifest(2)]
    assert carried_in_a_row(row, "offset", 10) == 2
    assert carried_in_a_row(row, "pedestal", 10) == 0
    assert carried_in_a_row(iter(row), "offset", 1) == 1
    assert carried_in_a_row([manifest(5, condition=Condition.FALLBACK)], "offset", 10) == 0


def test_released_runs_right_before_a_run_are_counted_as_they_are_released(chain):
    too_little(chain, 7)
    found = views(chain, [manifest(5)])
    assert view_of(found, 7, 0.0).kinds[0].carried_before == 1
    found.released(manifest(6))
    found.released(manifest(8))
    assert view_of(found, 7, 0.0).kinds[0].carried_before == 2


def test_a_run_elsewhere_is_waited_for_until_its_deadline(chain):
    too_little(chain, 7)
    found = views(chain, elsewhere={5: 100.0, 6: 50.0, 8: 900.0})
    for now, earlier, until in ((0.0, 5, 100.0), (60.0, 5, 100.0), (100.0, None, np.inf)):
        kind = view_of(found, 7, now).kinds[0]
        assert (kind.earlier_undecided, kind.earlier_until) == (earlier, until)


def test_a_run_watches_the_one_before_it_that_is_undecided_or_could_free_it_from_the_limit(chain):
    too_little(chain, 9)
    found = views(chain)
    view = view_of(found, 9, 0.0)
    assert view.kinds[0].earlier_undecided == 8
    assert list(found.watched(view, decide(view, RULES, 0.0))) == [8]
    too_little(chain, 8)
    too_little(chain, 7)
    over = views(chain, [manifest(5), manifest(6)])
    view = view_of(over, 9, 0.0)
    waits = decide(view, RULES, 0.0)
    assert view.kinds[0].earlier_undecided is None and "the limit" in waits.reasons["offset"]
    # A release of run 8 with a payload, or by fallback, is what ends the row.
    assert list(over.watched(view, waits)) == [8]
