"""Every stage against the naive one, on events meant to break it."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.experiments.ref10.reconstruct.cluster_columns import MADE
from pipeline.experiments.ref10.reconstruct.placed import placed
from pipeline.experiments.ref10.reconstruct.positions import positions
from pipeline.experiments.ref10.reconstruct.stages import clustered
from pipeline.experiments.ref10.reconstruct.thresholds import Thresholds
from pipeline.experiments.ref10.reconstruct.unpack import unpack
from tests.pipeline.experiments.ref10.reconstruct.adversary import chunks
from tests.pipeline.experiments.ref10.reconstruct.naive import Naive
from tests.pipeline.experiments.ref10.reconstruct.raw import PLAN, raw_columns, uneven

CONDITIONS = uneven()
LIMITS = st.sampled_from([Thresholds(), Thresholds(digis=20, large_strips=3, large_pixels=4)])


@given(chunks, LIMITS)
@settings(max_examples=50)
def test_hits_are_the_naive_ones(chunk, limits):
    found = unpack(raw_columns(chunk), CONDITIONS, limits)
    seen = [Naive(CONDITIONS, limits).unpack(event) for event in chunk]
    assert found.tally.flags.tolist() == [int(event.flags) for event in seen]
    assert found.tally.bad_digis.tolist() == [event.bad_digis for event in seen]
    assert found.tally.bad_nzs.tolist() == [event.bad_nzs for event in seen]
    for kind in ("pixels", "strips"):
        hits, wanted = getattr(found, kind), [getattr(event, kind) for event in seen]
        assert hits.counts.tolist() == [len(event) for event in wanted]
        flat = [hit for event in wanted for hit in event]
        assert PLAN.module[hits.flat["row"]].tolist() == [hit.module for hit in flat]
        assert hits.flat["channel"].tolist() == [hit.row | hit.column << 16 for hit in flat]
        assert hits.flat["saturated"].tolist() == [hit.saturated for hit in flat]
        assert hits.flat["charge"].tolist() == [float(hit.charge) for hit in flat]
    assert found.strips.flat["noise"].tolist() == [float(hit.noise) for event in seen for hit in event.strips]


@given(chunks, LIMITS)
@settings(max_examples=50)
def test_clusters_are_the_naive_ones_and_lie_where_those_do(chunk, limits):
    naive = Naive(CONDITIONS, limits)
    wanted = [naive.clusters(naive.unpack(event)) for event in chunk]
    found = clustered(unpack(raw_columns(chunk), CONDITIONS, limits), CONDITIONS, limits)
    assert found.counts.tolist() == [len(event) for event in wanted]
    assert tuple(found.flat) == MADE
    flat = [cluster for event in wanted for cluster in event]
    for name, values in found.flat.items():
        if values.dtype.kind == "f":
            np.testing.assert_allclose(values, [cluster[name] for cluster in flat], rtol=2e-7, atol=1e-6)
        else:
            assert values.tolist() == [cluster[name] for cluster in flat], name
    where = placed(positions(found, CONDITIONS), CONDITIONS)
    expected = [naive.placed(cluster) for cluster in flat]
    for name in ("u", "v", "u_error", "v_error", "x", "y", "z"):
        values = [one[name] for one in expected]
        np.testing.assert_allclose(where.flat[name], values, rtol=2e-7, atol=1e-6, err_msg=name)
