"""Events that no reconstruction likes, through the whole of it: flagged, spoiling no other, and all columns numbers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import awkward as ak
import numpy as np
import pytest

from calib.payload import Payload
from pipeline.columns import take
from pipeline.experiments.collisions import MUON_MASS
from pipeline.experiments.interface import Processed
from pipeline.experiments.ref10.experiment import Ref10
from pipeline.experiments.ref10.geometry import full_geometry, geometry_of
from pipeline.experiments.ref10.layers import LAYERS
from pipeline.experiments.ref10.reconstruct.flags import EventFlag
from pipeline.experiments.ref10.reconstruct.thresholds import DEFAULT
from pipeline.experiments.ref10.reconstruct.vertex_flags import VertexFlag
from pipeline.experiments.ref10.simulate.events import simulate
from pipeline.experiments.ref10.simulate.scenario import Physics, Scenario, truth
from pipeline.experiments.testing import differences, layers
from pipeline.model import Columns, Step
from tests.pipeline.experiments.ref10.reconstruct.hits_by_hand import CONDITIONS as DISPLACED
from tests.pipeline.experiments.ref10.reconstruct.hits_by_hand import Hit, track, tracks
from tests.pipeline.experiments.ref10.reconstruct.raw import PLAN, Event, pixel, plain, raw_columns

EXPERIMENT = Ref10({"geometry": "mini"})
CONDITIONS: dict[str, Payload] = plain(alignment=DISPLACED["alignment"])

STRIP_ADC, PIXEL_ADC = 220, 80
"""30 sigma of the noise; 12 000 electrons"""
BESIDE = 0.05
"""cm from one parallel track to the next, so that they share no channel"""


def digi(hit: Hit, shift: float = 0.0) -> tuple[int, int, int]:
    """The channel of RAW that a hit lies in, moved sideways by so much [cm]."""
    at = hit.row
    side = -1 if PLAN.flipped[at] else 1
    row = round((hit.u + side * shift) / PLAN.pitch_u[at] + (PLAN.rows[at] - 1) / 2)
    assert 0 <= row < PLAN.rows[at]
    if not PLAN.pixel[at]:
        return int(PLAN.module[at]), row, STRIP_ADC
    column = round(hit.v / PLAN.pitch_v[at] + (PLAN.columns[at] - 1) / 2)
    return int(PLAN.module[at]), pixel(row, column), PIXEL_ADC


def event(*tracks: Sequence[Hit], shift: float = 0.0) -> Event:
    return Event.of([digi(hit, shift * place) for place, hits in enumerate(tracks) for hit in hits])


def dense(number: int) -> Event:
    """In the first two layers of pixels, where a track goes, every second pixel of every second line: no two touch."""
    digis = []
    for hit in track(5, 3.0)[:2]:
        module, channel, adc = digi(hit)
        middles, ends = (channel & 0xFFFF, channel >> 16), (PLAN.rows[hit.row], PLAN.columns[hit.row])
        firsts = [min(max(middle - number, 0), end - 2 * number) for middle, end in zip(middles, ends, strict=True)]
        rows, columns = (range(first, first + 2 * number, 2) for first in firsts)
        digis += [(module, pixel(row, column), adc) for row in rows for column in columns]
    return Event.of(digis)


def of_one_point() -> list[list[Hit]]:
    """Four tracks through all layers from one point."""
    return [hits for hits in tracks(3.0, beam=0.0, length=0.0) if len({hit.row for hit in hits}) == len(LAYERS)][:4]


GOOD = "four tracks"
EVENTS = {
    "no hits": Event(),
    GOOD: event(*of_one_point()),
    "one track": event(track(5, 3.0)),
    "parallel tracks": event(*[track(5, 50.0)] * 3, shift=BESIDE),
    "half a track": event(track(5, 3.0)[:7]),
    "too much to combine": dense(40),
}
NAMES = list(EVENTS)


def columns_of(events: Sequence[Event], bits: int = 3) -> dict[str, Any]:
    """RAW as `process` gets it; of dimuon triggers, so that muons are looked for."""
    number = np.arange(1, len(events) + 1)
    keys = {"run": np.full(len(events), 7), "lumi": np.ones_like(number), "event": number}
    head = {"bx": number.astype(np.uint16), "orbit": number.astype(np.uint32)}
    return {**raw_columns(events), **keys, **head, "trig": np.full(len(events), bits, np.uint32)}


RAW = columns_of(list(EVENTS.values()))


@cache
def made(step: Step) -> Processed:
    return EXPERIMENT.process(step, RAW, CONDITIONS)


@cache
def copied(times: int) -> Processed:
    """Had stored events each cluster so many times: tracks are identical."""
    stored = {**made(Step.PROMPT).tiers["RECO"], **{name: RAW[name] for name in ("run", "lumi", "event")}}
    which = [NAMES.index(GOOD), NAMES.index("one track")]
    few = take(stored, np.array(which))
    clusters = {name: values for name, values in few.items() if name.startswith("Cluster_")}
    more = {
        name: ak.unflatten(np.repeat(np.asarray(ak.flatten(values)), times), times * np.asarray(ak.num(values)))
        for name, values in clusters.items()
    }
    [restart] = EXPERIMENT.restarts(Step.PROMPT)
    return restart.again({**few, **more}, CONDITIONS)


def of(name: str, columns: Columns) -> dict[str, Any]:
    return {column: values[NAMES.index(name)] for column, values in columns.items()}


def no_numbers(found: Processed) -> list[str]:
    """Columns that hold what is no number."""
    parts = {**found.tiers, "measured": found.measured}
    return [
        f"{part} {name}"
        for part, columns in parts.items()
        for name, values in columns.items()
        if not np.isfinite(list(layers(values))[-1].astype(np.float64)).all()
    ]


@pytest.mark.parametrize("step", Step)
def test_every_column_of_every_tier_holds_numbers(step: Step) -> None:
    found = made(step)
    assert set(found.tiers) == {"RECO", "AOD", "NANO"}
    assert no_numbers(found) == []


def test_what_is_no_number_would_be_seen() -> None:
    found = made(Step.PROMPT)
    nano = {**found.tiers["NANO"], "PV_x": np.full(len(EVENTS), np.nan, np.float32)}
    assert no_numbers(Processed({**found.tiers, "NANO": nano}, found.measured)) == ["NANO PV_x"]


@pytest.mark.parametrize("name", ["no hits", "half a track"])
def test_where_there_is_no_track_there_is_nothing(name: str) -> None:
    nano = of(name, made(Step.PROMPT).tiers["NANO"])
    assert len(nano["Track_pt"]) == nano["PV_npvs"] == len(nano["Muon_pt"]) == len(nano["Dimuon_mass"]) == 0
    assert nano["PV_x"] == nano["PV_z"] == nano["PVBS_x"] == 0
    assert of(name, made(Step.PROMPT).tiers["AOD"])["reco_flags"] == 0


def test_a_vertex_of_one_track_says_so() -> None:
    aod, nano = (of("one track", made(Step.PROMPT).tiers[tier]) for tier in ("AOD", "NANO"))
    assert len(aod["Track_pt"]) == nano["PV_npvs"] == 1
    assert aod["Vertex_flags"][0] & VertexFlag.SINGLE
    assert nano["PV_npvsGood"] == 0
    measured = of("one track", made(Step.PROMPT).measured)
    assert len(measured["vertex_x"]) == 0
    assert measured["track_vertex"].tolist() == [-1]


def test_parallel_tracks_leave_their_vertex_open() -> None:
    aod = of("parallel tracks", made(Step.PROMPT).tiers["AOD"])
    assert len(aod["Track_pt"]) == 3
    assert all(flags & (VertexFlag.SINGLE | VertexFlag.UNFIXED) for flags in aod["Vertex_flags"])
    assert len(of("parallel tracks", made(Step.PROMPT).measured)["vertex_x"]) == 0


def test_identical_tracks_leave_their_vertex_open() -> None:
    found = copied(2)
    assert no_numbers(found) == []
    aod, nano = found.tiers["AOD"], found.tiers["NANO"]
    assert ak.num(aod["Track_pt"]).tolist() == [8, 2]
    for name in ("pt", "d0", "phi", "z0"):
        first, second = aod[f"Track_{name}"][1]
        assert first == second
    # Two of one direction do not fix a point; those of several directions do.
    assert aod["Vertex_flags"].tolist() == [[0], [VertexFlag.UNFIXED]]
    assert nano["PV_npvsGood"].tolist() == [1, 0]
    assert ak.num(found.measured["vertex_x"]).tolist() == [1, 0]
    # A muon and its copy are at rest to one another.
    assert nano["Dimuon_mass"][1].tolist() == pytest.approx([2 * MUON_MASS], rel=1e-3)


def test_identical_clusters_without_number_are_given_up_and_flagged() -> None:
    found = copied(50)
    assert no_numbers(found) == []
    for tier in ("RECO", "AOD"):
        assert (found.tiers[tier]["reco_flags"] & EventFlag.UNCOMBINED > 0).all()
    assert ak.num(found.tiers["NANO"]["Track_pt"]).tolist() == [0, 0]


def test_an_event_with_too_much_to_combine_says_so_in_every_tier_with_flags() -> None:
    for step in Step:
        for tier in ("RECO", "AOD"):
            flags = made(step).tiers[tier]["reco_flags"]
            assert [name for name, flag in zip(NAMES, flags, strict=True) if flag & EventFlag.UNCOMBINED] == NAMES[-1:]
    reco = of(NAMES[-1], made(Step.PROMPT).tiers["RECO"])
    assert len(reco["Cluster_module"]) == 3200
    assert len(reco["Track_pt"]) == len(reco["TrackHit_cluster"]) == len(reco["Vertex_x"]) == 0


def test_none_of_them_spoils_another() -> None:
    """Alone each is the same, to the last bit."""
    step = Step.EXPRESS
    whole = made(step)
    for place in range(len(EVENTS)):
        one = EXPERIMENT.process(step, take(RAW, np.array([place])), CONDITIONS)
        for tier, columns in whole.tiers.items():
            assert differences(one.tiers[tier], take(columns, np.array([place]))) == []
        assert differences(one.measured, take(whole.measured, np.array([place]))) == []


@cache
def five_hundred() -> tuple[Processed, int]:
    """One event of the full detector, and how many tracks there are to be found."""
    scenario, geometry = Scenario(physics=Physics(pile_up=50.0)), geometry_of(full_geometry())
    simulated = simulate(scenario, geometry, 11, 7, 1, np.array([2]))
    events = {**simulated.raw, **{name: np.asarray(simulated.raw[name]) for name in ("run", "lumi", "event")}}
    found = Ref10().process(Step.PROMPT, events, truth(scenario, geometry, 11, 7, 1))
    return found, len(simulated.truth["Particle_pt"][0])


def test_an_event_of_five_hundred_tracks_is_reconstructed_whole() -> None:
    found, particles = five_hundred()
    assert particles > 400
    assert no_numbers(found) == []
    reco, nano = (take(found.tiers[tier], np.array([0])) for tier in ("RECO", "NANO"))
    assert len(reco["Track_pt"][0]) > 0.7 * particles
    assert nano["PV_npvsGood"][0] > 25
    crowded = len(reco["Cluster_module"][0]) > DEFAULT.clusters
    assert reco["reco_flags"][0] == (EventFlag.CROWDED if crowded else 0)
