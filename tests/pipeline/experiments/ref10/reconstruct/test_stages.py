"""The stages together: cutting changes nothing, clusters are read back, and a flood of digis costs no memory."""

from __future__ import annotations

import ast
import tracemalloc
from itertools import pairwise
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.events import read_tier, write_tier
from pipeline.experiments.ref10 import reconstruct as package
from pipeline.experiments.ref10.reconstruct.digis import READS, Raw
from pipeline.experiments.ref10.reconstruct.flags import ClusterFlag, EventFlag
from pipeline.experiments.ref10.reconstruct.placed import placed
from pipeline.experiments.ref10.reconstruct.positions import positions
from pipeline.experiments.ref10.reconstruct.stages import (
    BEHIND_CLUSTERS,
    BLOCK,
    CLUSTER,
    STORED,
    USES,
    again,
    clustered,
    reconstruct,
)
from pipeline.experiments.ref10.reconstruct.thresholds import Thresholds
from pipeline.experiments.ref10.reconstruct.unpack import unpack
from tests.pipeline.experiments.ref10.reconstruct import toy
from tests.pipeline.experiments.ref10.reconstruct.adversary import counts_of
from tests.pipeline.experiments.ref10.reconstruct.raw import (
    PLAN,
    Event,
    pixel,
    pixel_module,
    plain,
    raw_columns,
    strip_module,
    uneven,
)

TANGENTS = np.array([0.4] * 4 + [0.1] * 6)
EVENTS = 60
MADE = (*STORED, "u", "v", "u_error", "v_error", "x", "y", "z")


def some_raw(seed=1, events=EVENTS, each=12):
    """Events with tracks everywhere, of which every seventh has strip modules read out in full and some are spoilt."""
    rng = np.random.default_rng(seed)
    columns = toy.digitized(PLAN, toy.scattered(PLAN, rng, events, each), TANGENTS, rng, events)
    full = [
        Event.of([], [(strip_module(place), counts_of(100 * event + place)) for place in (1, 2, 7)])
        if event % 7 == 3
        else Event()
        for event in range(events)
    ]
    columns |= {name: values for name, values in raw_columns(full).items() if name.startswith("nzs")}
    adc = ak.to_numpy(ak.flatten(columns["digi_adc"])).copy()
    adc[:: len(adc) // 5] = 2000
    return columns | {"digi_adc": ak.unflatten(adc, ak.num(columns["digi_adc"]))}


RAW = some_raw()
CONDITIONS = uneven(masked=0.01)
WHOLE = reconstruct(RAW, CONDITIONS)


def cut(columns, start, stop):
    return {name: values[start:stop] for name, values in columns.items()}


def same(one, other):
    assert one.keys() == other.keys()
    for name, values in one.items():
        if isinstance(values, np.ndarray):
            assert values.dtype == other[name].dtype
            assert values.tobytes() == other[name].tobytes(), name
        else:
            assert values.type.content == other[name].type.content, name
            assert ak.num(values).tolist() == ak.num(other[name]).tolist()
            # Bytes, so that -0 and 0 differ.
            flat = [ak.to_numpy(ak.flatten(part)).tobytes() for part in (values, other[name])]
            assert flat[0] == flat[1], name


def joined(parts):
    columns = [part.columns() for part in parts]
    return {
        name: np.concatenate([part[name] for part in columns])
        if isinstance(columns[0][name], np.ndarray)
        else ak.concatenate([part[name] for part in columns])
        for name in columns[0]
    }


def test_there_is_something_to_compare():
    clusters, tally = WHOLE.clusters, WHOLE.tally
    assert clusters.counts.sum() > 500
    assert PLAN.pixel[PLAN.rows_of(clusters.flat["module"])].mean() > 0.1
    assert (tally.flags & EventFlag.BAD_DIGIS).any()
    seen = np.bitwise_or.reduce(clusters.flat["flags"])
    assert seen & (ClusterFlag.SATURATED | ClusterFlag.NEAR_MASKED | ClusterFlag.BRIDGED)
    assert set(WHOLE.columns()) == {f"Cluster_{name}" for name in MADE} | {"reco_flags", "bad_digis", "bad_nzs"}


@given(st.lists(st.integers(0, EVENTS), max_size=6))
@settings(max_examples=12)
def test_cutting_changes_no_bit(cuts):
    bounds = [0, *sorted(cuts), EVENTS]
    parts = [reconstruct(cut(RAW, *pair), CONDITIONS) for pair in pairwise(bounds)]
    same(joined(parts), WHOLE.columns())


def test_alone_an_event_is_the_same():
    alone = [reconstruct(cut(RAW, event, event + 1), CONDITIONS) for event in range(0, EVENTS, 3)]
    same(joined(alone), {name: values[::3] for name, values in WHOLE.columns().items()})


@pytest.mark.parametrize("channels", [1, 700, 5000, BLOCK])
def test_blocks_are_whole_events_in_their_order(channels):
    raw = Raw.of(RAW)
    parts = list(raw.parts(channels))
    for name in READS:
        assert np.concatenate([part.counts[name] for part in parts]).tolist() == raw.counts[name].tolist()
        assert np.concatenate([part.flat[name] for part in parts]).tolist() == raw.flat[name].tolist()
    largest = raw.channels.max()
    assert all(part.channels.sum() <= channels + largest for part in parts)
    assert len(parts) >= min(EVENTS, raw.channels.sum() // (channels + largest))


# read back ------------------------------------------------------------------------------------------------------------


def test_clusters_read_back_are_placed_as_if_made_again(tmp_path):
    keys = {name: np.arange(EVENTS, dtype=np.int64) for name in ("run", "lumi", "event")}
    first = reconstruct(RAW, CONDITIONS).columns()
    stored = {name: first[name] for name in [f"Cluster_{name}" for name in STORED]}
    write_tier(tmp_path / "clusters.root", keys | stored, {}, lambda _: None)
    back = read_tier(tmp_path / "clusters.root")
    for kinds in (("alignment",), ("lorentz_angle", "alignment")):
        changed = CONDITIONS | {kind: uneven(seed=9)[kind] for kind in kinds}
        redone, anew = (found.columns(CLUSTER) for found in (again(back, changed), reconstruct(RAW, changed).clusters))
        same(redone, anew)
        assert not np.array_equal(ak.flatten(redone["Cluster_x"]), ak.flatten(first["Cluster_x"]))


def test_what_acts_behind_clusters_alone():
    assert BEHIND_CLUSTERS == ("lorentz_angle", "field", "alignment")
    of_clusters = {*USES["unpack"], *USES["clusters"]}
    assert {"pedestal", "gain", "strip_status", "pixel_status", "geometry"} <= of_clusters
    assert not of_clusters & set(BEHIND_CLUSTERS)


def done(stage, given, hits, clusters, located):
    """One stage on what the one before it made."""
    if stage == "unpack":
        return unpack(RAW, given)
    if stage == "clusters":
        return clustered(hits, given)
    return positions(clusters, given) if stage == "positions" else placed(located, given)


@pytest.mark.parametrize("stage", USES)
def test_a_stage_uses_what_it_says(stage):
    hits = unpack(RAW, CONDITIONS)
    clusters = clustered(hits, CONDITIONS)
    made = (hits, clusters, positions(clusters, CONDITIONS))
    given = {kind: CONDITIONS[kind] for kind in USES[stage]}
    done(stage, given, *made)
    for kind in USES[stage]:
        with pytest.raises(KeyError, match=kind):
            done(stage, {name: payload for name, payload in given.items() if name != kind}, *made)


# extremes -------------------------------------------------------------------------------------------------------------


def test_no_event_and_empty_events():
    for events in (0, 1, 3):
        found = reconstruct(raw_columns([Event()] * events), plain())
        assert found.clusters.counts.tolist() == [0] * events
        assert found.tally.flags.tolist() == [0] * events
        columns, wanted = found.columns(), WHOLE.columns()
        assert columns.keys() == wanted.keys()
        for name, values in columns.items():
            of_one = [
                part.dtype if isinstance(part, np.ndarray) else part.type.content for part in (values, wanted[name])
            ]
            assert of_one[0] == of_one[1], name


def test_one_hit():
    found = reconstruct(raw_columns([Event(), Event.of([(strip_module(3), 5, 200)]), Event()]), plain())
    assert found.clusters.counts.tolist() == [0, 1, 0]


def spread(hits, rng):
    """So many digis all over the detector; single channels, so every one is a cluster."""
    pixels = [
        (pixel_module(place), pixel(r, c), 90) for place in range(40) for r in range(1, 150, 9) for c in (9, 99, 299)
    ]
    strips = [(strip_module(place), strip, 180) for place in range(70) for strip in range(1, 767, 9)]
    digis = [*pixels, *strips]
    return [digis[place] for place in rng.permutation(len(digis))[:hits]]


def test_5000_hits_in_an_event():
    digis = spread(5000, np.random.default_rng(1))
    columns = raw_columns([Event(), Event.of(digis), Event.of(digis[:4000])])
    found, peak = peak_bytes(lambda: reconstruct(columns, plain()))
    assert found.clusters.counts.tolist() == [0, 5000, 4000]
    assert found.tally.flags.tolist() == [0, EventFlag.CROWDED, 0]
    # What single channels cost, as below, and what is made once, whatever the event.
    assert peak < 400 * 9000 + 1_000_000


def flood(digis):
    """A detector of which so many channels fire at once, module by module."""
    module, channel = [], []
    for row in range(len(PLAN)):
        r, c = np.meshgrid(np.arange(PLAN.rows[row]), np.arange(PLAN.columns[row]))
        channel.append((r | c << 16).ravel())
        module.append(np.full(r.size, PLAN.module[row]))
    flat = {"digi_module": np.concatenate(module)[:digis], "digi_chan": np.concatenate(channel)[:digis]}
    flat["digi_adc"] = np.full(digis, 200)
    columns = {name: ak.unflatten(values.astype(np.uint32), [digis]) for name, values in flat.items()}
    return raw_columns([Event()]) | columns | {"digi_adc": ak.values_astype(columns["digi_adc"], np.uint16)}


def peak_bytes(do):
    tracemalloc.start()
    try:
        result = do()
        return result, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_whole_detector_firing_is_flagged_and_costs_no_memory():
    columns = flood(2_000_000)
    reconstruct(RAW, CONDITIONS)
    found, peak = peak_bytes(lambda: reconstruct(columns, CONDITIONS))
    assert found.tally.flags.tolist() == [EventFlag.TOO_MANY_DIGIS]
    assert found.clusters.counts.tolist() == [0]
    # Its columns alone have 20 MB; of them only a mask is made.
    assert peak < 2_000_000 + 100_000


def test_modules_with_every_channel_firing_are_flagged_in_bounded_memory():
    columns = flood(190_000)
    several = {name: ak.concatenate([values] * 5) for name, values in columns.items()}
    _, one = peak_bytes(lambda: reconstruct(columns, plain()))
    found, peak = peak_bytes(lambda: reconstruct(several, plain()))
    assert found.clusters.counts.tolist() == [3] * 5
    assert (found.clusters.flat["flags"] & ClusterFlag.LARGE > 0).all()
    # 240 bytes a channel, of as many as are worked on at a time.
    assert one < 300 * 190_000
    assert peak < 300 * (190_000 + BLOCK)


def test_clusters_of_single_strips_take_most_memory_and_that_is_bounded():
    digis = [(strip_module(place), strip, 200) for place in range(90) for strip in range(0, 768, 2)]
    found, peak = peak_bytes(lambda: reconstruct(raw_columns([Event.of(digis)]), plain()))
    assert found.clusters.counts.tolist() == [len(digis)]
    assert peak < 400 * len(digis)


def test_sums_of_long_clusters_do_not_depend_on_where_they_lie_in_memory():
    rng = np.random.default_rng(6)
    long = Event.of([(strip_module(5), strip, int(adc)) for strip, adc in enumerate(rng.integers(130, 340, 768))])
    single = Event.of([(strip_module(3), 7, 170)])
    wanted = reconstruct(raw_columns([long]), CONDITIONS).columns()
    for before in range(9):
        found = reconstruct(raw_columns([*[single] * before, long, single]), CONDITIONS).columns()
        same(cut(found, before, before + 1), wanted)


def test_the_limit_is_a_setting():
    columns = raw_columns([Event.of([(strip_module(3), strip, 150) for strip in range(0, 40, 2)])])
    found = [reconstruct(columns, plain(), Thresholds(digis=limit)).clusters.counts[0] for limit in (19, 20)]
    assert found == [0, 20]


def test_reconstruction_knows_no_simulation():
    for path in Path(next(iter(package.__path__))).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            assert not any("simulat" in name or "truth" in name for name in names), path
