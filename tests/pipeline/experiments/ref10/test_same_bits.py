"""REF10 through the whole chain: the same constants and the same tiers, to the last bit, however a run is cut."""

import json

import pytest

from calib.iov import RunLumi
from pipeline import catalog
from pipeline.experiments.ref10 import daq
from pipeline.experiments.ref10.constants import PIXEL_STATUS
from pipeline.experiments.ref10.simulation import Ref10Simulation
from pipeline.experiments.simulated import Order
from pipeline.processing import nothing
from pipeline.settings import settings_from
from pipeline.tier0 import Tier0
from pipeline.world import open_world
from tests.pipeline.tiny import settings
from tests.pipeline.traces import results

RUN, LUMIS, EVENTS = 7, 4, 64
SCENARIO = {
    "first_run": 1,
    "physics": {"nzs": 1.0},
    "faults": {"dead_roc": {"from_lumi": 3}},
    "spells": [{"when": {"since": "7:2", "until": "7:3"}, "off": ["strips_on"]}],
}
MINI = {"name": "ref10", "settings": {"geometry": "mini"}}
FEW = {"pedestal": {"min_entries": 4, "pools": 4}, "beamspot": {"min_tracks": 20}, "pixel_status": {"pools": 3}}
WHOLE = 10**9

# Settings of the splitting, and into how many chunks prompt then cuts the run.
CUTS = {
    "one lumisection": ({"units": 1, "events": WHOLE, "block_events": WHOLE, "fan_in": 2}, 4),
    "three lumisections": ({"units": 3, "events": WHOLE, "block_events": WHOLE, "fan_in": 3}, 2),
    "blocks of events": ({"events": 23, "block_events": 23, "fan_in": 4}, 12),
}


def taken(plain, folder):
    """What the chain makes of the run."""
    with Tier0(plain) as tier0:
        tier0.conditions.upload("pedestal", folder / daq.TABLES, "0", "the DAQ's")
        summary = tier0.run(str(folder / "run*/*/*.root"), progress=False)
        why = tier0.why(RUN).splitlines()
        refitted = made_again(tier0)
    # Where strips had no voltage there are no tracks, and all else is well.
    assert summary.exit_code == 3 and summary[RUN].prompt.read == LUMIS * EVENTS
    assert [line for line in why if "not good" in line] == [f"7:2 is not good: tracks: 0 on {EVENTS} entries"]
    assert summary[RUN].conditions["pedestal"] == {"fresh": 1}
    assert summary[RUN].conditions["beamspot"]["fresh"] >= 1
    return results(plain), refitted


def made_again(tier0):
    """The payloads of all kinds without the lumisection that is not good, from what is kept of the others."""
    made = tier0.conditions.refits.certified(RUN)
    assert not [one.found[RUN].failed for one in made.refits if one.found[RUN].failed]
    assert {one.without[RUN] for one in made.refits} == {(RunLumi(RUN, 2).packed,)}
    by_kind = {one.kind: one for one in made.refits}
    # Four lumisections in three pools: the second is with the third.
    assert {kind: one.along for kind, one in by_kind.items() if one.along} == {
        PIXEL_STATUS: {RUN: (RunLumi(RUN, 3).packed,)}
    }
    assert "1 lumisection that is not certified good, nor 1 whose sums are kept together with theirs" in str(made)
    assert len(by_kind) == 7
    [pedestals], store = by_kind["pedestal"].rows, tier0._world.store
    before, after = (store.get(name)["entries"].sum() for name in (pedestals.production, pedestals.shadow))
    # Each lumisection has the same number of events, all of which are of some strips.
    assert after / before == pytest.approx(1 - 1 / LUMIS, abs=0.02)
    return {kind: [judged.payload for judged in one.made] for kind, one in by_kind.items()}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """RAW of the run in both streams; one lumisection of it without high voltage at the strips."""
    folder = tmp_path_factory.mktemp("raw")
    simulation = Ref10Simulation(Order(seed=5, events=EVENTS, scenario=json.dumps(SCENARIO)), "mini")
    simulation.begin(folder, nothing)
    for lumi in range(1, LUMIS + 1):
        simulation.write(RunLumi(RUN, lumi), folder, nothing)
    return folder


@pytest.fixture(scope="module")
def whole(joined, data, tmp_path_factory):
    """With one chunk for the run."""
    splitting = {"events": WHOLE, "block_events": WHOLE}
    area = tmp_path_factory.mktemp("whole")
    return taken(settings(area, cluster=joined, experiment=MINI, calibration=FEW, splitting=splitting), data)


def chunks_of(plain):
    world = open_world(settings_from(plain))
    with world.database.read() as connection:
        found = catalog.find_layout(connection, RUN, catalog.inputs(connection, RUN))
    world.database.close()
    return found.chunks


@pytest.mark.parametrize(
    "cut",
    [
        "three lumisections",
        *(pytest.param(cut, marks=pytest.mark.verify) for cut in ("one lumisection", "blocks of events")),
    ],
)
def test_the_cut_does_not_show(house, data, whole, cut):
    splitting, chunks = CUTS[cut]
    plain = house(experiment=MINI, calibration=FEW, splitting=splitting)
    assert taken(plain, data) == whole
    assert chunks_of(plain) == chunks
    assert set(whole[0].outputs) == {(RUN, "AOD"), (RUN, "NANO")}
