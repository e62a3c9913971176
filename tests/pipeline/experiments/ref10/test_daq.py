"""What the detector writes: RAW by stream and lumisection, its records, and the truth apart."""

import json

import awkward as ak
import numpy as np
import pytest

from calib.iov import RunLumi
from calib.payload import PayloadStore
from pipeline.events import SourceFile, read_tier
from pipeline.experiments.ref10 import daq
from pipeline.experiments.ref10.daq import Format, express_events
from pipeline.experiments.ref10.experiment import Ref10
from pipeline.experiments.ref10.geometry import geometry_of, mini_geometry
from pipeline.experiments.ref10.reconstruct.digis import READS
from pipeline.experiments.ref10.running import Status
from pipeline.experiments.ref10.simulate.events import simulate
from pipeline.experiments.ref10.simulate.scenario import Scenario, truth
from pipeline.experiments.ref10.simulation import TRUTH, Ref10Simulation, truth_of
from pipeline.experiments.simulated import NotSimulated, Order, OtherData
from pipeline.model import Step, Stream
from pipeline.processing import nothing
from pipeline.simulation import SimulationFailed
from pipeline.tier0 import Tier0
from pipeline.whole import checksum_of
from tests.pipeline.probes import KillAt
from tests.pipeline.tiny import Tiny
from tests.pipeline.traces import done_again, starts_and_commits

MINI = geometry_of(mini_geometry())
EVENTS = 12
SCENARIO = json.dumps({"physics": {"nzs": 0.3}})


@pytest.fixture
def plain(house):
    return house(
        experiment={"name": "ref10", "settings": {"geometry": "mini"}},
        splitting={"events": EVENTS, "block_events": EVENTS},
    )


def order(**more):
    return Order(seed=3, lumis=3, events=EVENTS, scenario=SCENARIO, **more)


def columns(path):
    source = SourceFile.open(path)
    names = ("run", "lumi", "event", "bx", "orbit", "trig", *READS)
    return source.arrays(daq.TREE, names, 0, source.entries(daq.TREE))


def dtype(values):
    return np.asarray(ak.flatten(values, axis=None)).dtype


def same(one, other):
    return all(ak.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("form", Format)
@pytest.mark.parametrize("events", [0, 7])
def test_raw_is_read_as_it_was_written(tmp_path, form, events):
    made = simulate(Scenario.from_json(SCENARIO), MINI, 3, 7, 1, np.arange(events)).raw
    daq.write_raw(tmp_path / "physics" / "a.root", made, form, nothing)
    if events:
        found = columns(tmp_path / "physics" / "a.root")
        assert same(made, found)
        assert all(
            np.asarray(ak.flatten(found[name], axis=None)).dtype == np.asarray(ak.flatten(made[name], axis=None)).dtype
            for name in made
        )
    experiment = Ref10({"geometry": "mini"})
    source = SourceFile.open(tmp_path / "physics" / "a.root")
    assert len(experiment.identify(source, 0, events).event) == events
    assert set(READS) <= set(experiment.wanted(Step.EXPRESS, source.branches(daq.TREE)).columns)


def test_numbers_of_events_beyond_32_bits_are_kept(tmp_path):
    numbers = np.array([10**6, 2**31, 2**32 + 5, 2**53 + 1, 2**63 - 1])
    made = simulate(Scenario.from_json(SCENARIO), MINI, 3, 7, 1, numbers).raw
    for form in Format:
        daq.write_raw(tmp_path / f"{form}.root", made, form, nothing)
        source = SourceFile.open(tmp_path / f"{form}.root")
        assert Ref10({"geometry": "mini"}).identify(source, 0, 5).event.tolist() == numbers.tolist()


def test_streams_records_and_truth(plain, tmp_path):
    folder = tmp_path / "data"
    with Tier0(plain) as tier0:
        files = tier0.simulate(folder, [7, 8], order(), progress=False)
    assert len(files) == 2 * 3 * 2
    by_stream = {stream: [path for path in files if daq.stream_of(path) is stream] for stream in Stream}
    names = [f"run{run:06d}_lumi{lumi:04d}.root" for run in (7, 8) for lumi in (1, 2, 3)]
    assert [path.name for path in by_stream[Stream.PHYSICS]] == names
    for physics, express in zip(by_stream[Stream.PHYSICS], by_stream[Stream.EXPRESS], strict=True):
        every, copies = columns(physics), columns(express)
        picked = express_events(every, 4)
        assert same({name: values[picked] for name, values in every.items()}, copies)
        assert 0 < picked.sum() < len(picked)
        lumi = int(every["lumi"][0])
        record = json.loads(daq.lumi_record(folder, RunLumi(int(every["run"][0]), lumi)).read_text())
        written = {"file": physics.name, "events": EVENTS, "bytes": physics.stat().st_size}
        assert record["streams"]["physics"] == {**written, "sha256": checksum_of(physics)}
        assert record["streams"]["express"]["events"] == picked.sum()
        assert record["status"] == {bit.value: True for bit in Status} and record["field_tesla"] == 3.8
        assert every["event"].tolist() == list(range((lumi - 1) * EVENTS + 1, lumi * EVENTS + 1))
    of_run = json.loads(daq.run_record(folder, 8).read_text())
    assert (of_run["class"], of_run["fill"], of_run["field_tesla"]) == ("collisions", 1000, [3.8, 3.8])
    assert of_run["lumis"] == [1, 3]
    assert of_run["streams"]["physics"]["events"] == 3 * EVENTS
    store = PayloadStore(folder / "truth" / "conditions")
    true = truth(Scenario.from_json(SCENARIO), MINI, 3, 8, 2)
    found = {kind: store.get(name).id for kind, name in truth_of(folder, 8, 2).items()}
    assert found == {kind: payload.id for kind, payload in true.items()}
    made = read_tier(folder / "truth" / "run000008" / "lumi0002.root")
    assert made["event"].tolist() == list(range(EVENTS + 1, 2 * EVENTS + 1))


SPELLS = [
    {"when": {"since": "7:2", "until": "7:3"}, "off": ["pixels_on", "strips_on"]},
    {"when": {"since": "7:3", "until": "7:4"}, "off": ["magnet_on"]},
    {"when": {"since": "8", "until": "9"}, "run_class": "cosmics", "field_tesla": 0.0},
]


def test_records_say_what_was_off_and_raw_is_accordingly(tmp_path):
    """A lumisection of noise, one without field, and a run of another class."""
    simulation = Ref10Simulation(Order(seed=3, lumis=3, events=EVENTS, scenario=json.dumps({"spells": SPELLS})), "mini")
    simulation.begin(tmp_path, nothing)
    for run in (7, 8):
        records = [simulation.write(RunLumi(run, lumi), tmp_path, nothing).record for lumi in (1, 2, 3)]
        simulation.end_run(run, tmp_path, records, nothing)
    on = {"stable_beams": True, "magnet_on": True, "pixels_on": True, "strips_on": True}
    bits = {(7, 1): {}, (7, 2): {"pixels_on": False, "strips_on": False}, (7, 3): {"magnet_on": False}}
    for at, off in (bits | {(8, 1): {"magnet_on": False}}).items():
        record = json.loads(daq.lumi_record(tmp_path, RunLumi(*at)).read_text())
        assert record["status"] == on | off
        assert record["field_tesla"] == (0.0 if "magnet_on" in off else 3.8)
    runs = [json.loads(daq.run_record(tmp_path, run).read_text()) for run in (7, 8)]
    found = [(record["class"], record["fill"], record["field_tesla"]) for record in runs]
    assert found == [("collisions", 1000, [0.0, 3.8]), ("cosmics", None, [0.0, 0.0])]
    raws = [columns(daq.raw_path(tmp_path, Stream.PHYSICS, RunLumi(7, lumi))) for lumi in (1, 2, 3)]
    pixels = [MINI.pixel[MINI.rows_of(ak.to_numpy(ak.flatten(raw["digi_module"])))].sum() for raw in raws]
    assert pixels[1] == 0 < min(pixels[0], pixels[2])
    assert [len(raw["event"]) for raw in raws] == [EVENTS] * 3
    store = PayloadStore(tmp_path / "truth" / "conditions")
    fields = [float(store.get(truth_of(tmp_path, 7, lumi)["field"])["tesla"]) for lumi in (1, 2, 3)]
    assert fields == [3.8038, 3.8038, 0.0]


def test_an_event_is_the_same_whoever_makes_it(plain, tmp_path):
    with Tier0(plain) as tier0:
        files = tier0.simulate(tmp_path / "data", [7], order(), progress=False)
    second = next(path for path in files if path.name.endswith("0002.root") and path.parent.name == "physics")
    alone = simulate(Scenario.from_json(SCENARIO), MINI, 3, 7, 2, np.array([EVENTS + 5])).raw
    assert same(alone, {name: values[4:5] for name, values in columns(second).items()})


def test_what_is_made_is_not_made_again_and_what_is_gone_is(plain, tmp_path):
    with Tier0(plain) as tier0:
        first = tier0.simulate(tmp_path / "data", [7], order(), progress=False)
        begun = starts_and_commits(plain)
        before = {path: path.stat().st_mtime_ns for path in first}
        assert tier0.simulate(tmp_path / "data", [7], order(), progress=False) == first
        assert starts_and_commits(plain) == begun
        assert {path: path.stat().st_mtime_ns for path in first} == before
        kept = columns(first[0])
        first[0].unlink()
        assert tier0.simulate(tmp_path / "data", [7], order(), progress=False) == first
        assert same(kept, columns(first[0]))


@pytest.mark.parametrize("point", ["write", "rename"])
def test_a_worker_killed_while_it_writes_loses_nothing(plain, tmp_path, point):
    probe = KillAt(tmp_path / "kills", (point,), hit=4)
    with Tier0(plain, probe=probe) as tier0:
        files = tier0.simulate(tmp_path / "data", [7], order(), progress=False)
    assert probe.killed() == {point}
    assert [len(columns(path)["event"]) for path in files if path.parent.name == "physics"] == [EVENTS] * 3
    assert done_again(plain) == 0


def test_simulated_runs_go_through_the_chain(plain, tmp_path):
    with Tier0(plain) as tier0:
        files = tier0.simulate(tmp_path / "data", [7], order(), progress=False)
        tier0.conditions.upload("pedestal", tmp_path / "data" / daq.TABLES, "0", "the DAQ's")
        # Nothing of the chain opens the truth: it does without.
        (tmp_path / "data" / TRUTH).rename(tmp_path / "elsewhere")
        summary = tier0.run(*files, progress=False)
    assert summary[7].prompt.read == 3 * EVENTS
    assert summary[7].express.read == sum(len(columns(p)["event"]) for p in files if p.parent.name == "express")
    assert summary[7].conditions["pedestal"] == {"carried": 1}


def test_wrong_orders_say_so(plain, tmp_path):
    with Tier0(plain) as tier0:
        with pytest.raises(ValueError, match="ttree or rntuple, not as 'zip'"):
            tier0.simulate(tmp_path, [7], order(form="zip"))
        with pytest.raises(ValueError, match="no scenario of REF10"):
            tier0.simulate(tmp_path, [7], Order(scenario='{"beem": 1}'))
    with Tier0(plain, Tiny()) as tier0, pytest.raises(NotSimulated, match="tiny has no simulation"):
        tier0.simulate(tmp_path, [7])
    with pytest.raises(ValueError, match="at least one lumisection"):
        Order(lumis=0)


def test_data_of_another_order_are_not_mixed_in(plain, tmp_path):
    with Tier0(plain) as tier0:
        tier0.simulate(tmp_path / "data", [7], order(), progress=False)
        kept = {path: path.read_bytes() for path in (tmp_path / "data").glob("*.npz")}
        with pytest.raises(OtherData, match="another seed, scenario, geometry, format or number of events"):
            tier0.simulate(tmp_path / "data", [8], Order(seed=4, lumis=3, events=EVENTS, scenario=SCENARIO))
        assert {path: path.read_bytes() for path in kept} == kept
        more = Order(seed=3, lumis=4, events=EVENTS, scenario=SCENARIO)
        assert len(tier0.simulate(tmp_path / "data", [7], more, progress=False)) == 8


def test_files_of_the_truth_are_no_raw(plain, tmp_path):
    with Tier0(plain) as tier0:
        files = tier0.simulate(tmp_path / "data", [7], order(), progress=False)
        true = tmp_path / "data" / "truth" / "run000007" / "lumi0001.root"
        summary = tier0.run(*files, true, progress=False)
    assert summary[7].prompt.read == 3 * EVENTS and summary[7].duplicates == 0
    assert [found.place for found in summary.setbacks] == [str(true)]


def test_a_disk_that_cannot_be_written_is_said(plain, tmp_path):
    (tmp_path / "data").write_text("a file where a folder should be")
    with Tier0(plain) as tier0, pytest.raises((SimulationFailed, OSError)):
        tier0.simulate(tmp_path / "data", [7], order(), progress=False)
