"""Charge gathered by channel, against a dictionary."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.experiments.ref10.simulate.cells import NOBODY, gather

LEFT = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.integers(0, 2),
        st.sampled_from([0, 1, 767, 3 | 431 << 16]),
        st.integers(1, 20),
        st.integers(NOBODY, 5),
    ),
    max_size=40,
)


@given(LEFT)
def test_charges_of_a_channel_add_up_and_the_largest_owns_it(left):
    event, row, channel, charge, particle = np.array(left, np.int64).reshape(-1, 5).T
    cells = gather(3, event, (row, channel), charge.astype(float), particle)
    groups = {}
    for e, r, c, q, p in left:
        groups.setdefault((e, r, c), []).append((q, p))
    assert list(zip(cells.event, cells.row, cells.channel, strict=True)) == sorted(groups)
    for i, key in enumerate(sorted(groups)):
        largest = max(q for q, _ in groups[key])
        assert cells.charge[i] == sum(q for q, _ in groups[key])
        assert cells.particle[i] == next(p for q, p in groups[key] if q == largest)
