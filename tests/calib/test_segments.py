"""Segments of a run against a loop over its units."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib.iov import Clock, RunLumi
from calib.segments import RunUnits, Steps, constant_parts

LUMIS = st.sets(st.integers(1, 40), min_size=1).map(sorted)
PAYLOADS = st.none() | st.sampled_from(["a", "b", "c"])
CHANGES = st.dictionaries(st.integers(1, 45), PAYLOADS, max_size=6)


@given(lumis=LUMIS, firsts=st.lists(PAYLOADS, min_size=1, max_size=3), data=st.data())
def test_parts_say_what_each_unit_has(lumis: list[int], firsts: list[str | None], data: st.DataObject) -> None:
    # Tags by time change at ten times the lumisection, where each of them begins.
    units = RunUnits.of([RunLumi(7, lumi).packed for lumi in lumis], [10 * lumi for lumi in lumis])
    steps, plain = [], []
    for n, first in enumerate(firsts):
        clock = data.draw(st.sampled_from([Clock.LUMI, Clock.TIME]))
        drawn = data.draw(CHANGES)
        changes = {lumi: drawn[lumi] for lumi in sorted(drawn) if lumi > lumis[0]}
        at = {RunLumi(7, lumi).packed if clock is Clock.LUMI else 10 * lumi: held for lumi, held in changes.items()}
        steps.append(Steps(f"k{n}", clock, first, at))
        plain.append((f"k{n}", first, changes))

    def expected(lumi: int) -> dict[str, str]:
        held = {}
        for kind, first, changes in plain:
            payload = ([first] + [changes[begin] for begin in sorted(changes) if begin <= lumi])[-1]
            if payload is not None:
                held[kind] = payload
        return held

    parts = list(constant_parts(units, steps))
    for lumi in lumis:
        assert [part.ids for part in parts if part.since <= RunLumi(7, lumi) < part.until] == [expected(lumi)]
    assert (parts[0].since, parts[-1].until) == (RunLumi(7, lumis[0]), RunLumi(7, lumis[-1] + 1))
    for left, right in pairwise(parts):
        assert left.until == right.since
        assert left.ids != right.ids


@pytest.mark.parametrize(
    ("units", "times", "message"),
    [
        ([RunLumi(1, 1).packed, RunLumi(2, 1).packed], None, "units of several runs"),
        ([RunLumi(1, 2).packed, RunLumi(1, 1).packed], None, "must be sorted, each once"),
        ([RunLumi(1, 1).packed, RunLumi(1, 1).packed], None, "must be sorted, each once"),
        ([RunLumi(1, 1).packed], [1, 2], "one time a unit, not 2 for 1 units"),
        ([RunLumi(1, 1).packed, RunLumi(1, 2).packed], [2, 1], "must not go back"),
    ],
)
def test_units_that_cannot_be_resolved(units: list[int], times: list[int] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RunUnits.of(np.array(units), times)
