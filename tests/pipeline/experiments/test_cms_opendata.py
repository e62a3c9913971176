from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import awkward as ak
import numpy as np
import pytest

from calib.algorithms.beamspot_payload import nominal
from calib.payload import Payload
from pipeline.columns import take
from pipeline.events import SourceFile
from pipeline.experiments.cms_opendata import CmsOpenData
from pipeline.experiments.collisions import peak
from pipeline.experiments.interface import Experiment, MissingBranch
from pipeline.experiments.testing import ExperimentLaws, MemorySource, read
from pipeline.model import Step

EVENTS = "Events"


def part(path: Path, start: int, stop: int) -> MemorySource:
    """Some entries of a file, in memory."""
    source = SourceFile.open(path)
    names = tuple(source.branches(EVENTS))
    return MemorySource(path, {EVENTS: source.arrays(EVENTS, names, start, stop)})


@pytest.fixture
def collisions(data_dir: Path) -> SourceFile:
    return SourceFile.open(data_dir / "cms_2012_collisions.root")


@pytest.fixture
def dimuons(data_dir: Path) -> SourceFile:
    return SourceFile.open(data_dir / "cms_2011A_zmumu.root")


class LawsWithBeam(ExperimentLaws):
    @pytest.fixture
    def experiment(self) -> Experiment:
        return CmsOpenData()

    @pytest.fixture
    def conditions(self) -> Mapping[str, Payload]:
        return {"beamspot": nominal(x=0.072, y=0.062, z=0.3, dxdz=2e-4, dydz=-1e-4)}


class Test2012(LawsWithBeam):
    @pytest.fixture
    def source(self, data_dir: Path) -> MemorySource:
        return part(data_dir / "cms_2012_collisions.root", 20, 45)


class Test2011A(LawsWithBeam):
    @pytest.fixture
    def source(self, data_dir: Path) -> MemorySource:
        """Twenty-six events, one of the same sign, one with a muon too few and one with none."""
        events = part(data_dir / "cms_2011A_zmumu.root", 0, 300)
        columns = dict(events.trees[EVENTS])
        same = np.asarray(ak.prod(columns["Muon_charge"], axis=1) > 0)
        chosen = np.concatenate([np.flatnonzero(~same)[:25], np.flatnonzero(same)[:1]])
        assert same.any()
        columns = take(columns, chosen)
        for name in [name for name in columns if name.startswith("Muon_")]:
            values = columns[name]
            columns[name] = ak.concatenate([values[:3], values[3:4, :1], values[4:5, :0], values[5:]])
        return MemorySource(events.path, {EVENTS: columns})


def test_keys_of_2012(collisions: SourceFile) -> None:
    keys = CmsOpenData().identify(collisions, 0, 288)
    units = np.unique(np.stack([keys.run, keys.lumi]), axis=1)
    assert len(np.unique(keys.run)) == 96
    assert units.shape[1] == 168
    assert len(np.unique(np.stack(keys), axis=1).T) == 288


def test_keys_of_2011(dimuons: SourceFile) -> None:
    keys = CmsOpenData().identify(dimuons, 0, 10583)
    assert len(np.unique(keys.run)) == 19
    assert set(keys.lumi.tolist()) == {1}


def test_what_each_kind_lacks_is_named(collisions: SourceFile, dimuons: SourceFile) -> None:
    experiment = CmsOpenData()
    of_2012 = experiment.wanted(Step.PROMPT, collisions.branches(EVENTS)).absent
    assert {"Muon_dxy", "Muon_dz", "track_d0_error"} == set(of_2012)
    of_2011 = experiment.wanted(Step.PROMPT, dimuons.branches(EVENTS)).absent
    assert {"luminosityBlock", "Muon_dz", "Track_*", "PV_*", "track_d0_error"} <= set(of_2011)


def test_a_missing_branch_is_named(data_dir: Path) -> None:
    experiment = CmsOpenData()
    with pytest.raises(MissingBranch, match="PV_zErr"):
        less = part(data_dir / "cms_2012_collisions.root", 0, 2).without(EVENTS, "PV_zErr")
        experiment.wanted(Step.EXPRESS, less.branches(EVENTS))
    with pytest.raises(MissingBranch, match="luminosityBlock"):
        less = part(data_dir / "cms_2012_collisions.root", 0, 2).without(EVENTS, "luminosityBlock")
        experiment.identify(less, 0, 2)
    with pytest.raises(MissingBranch, match="neither a 2012 file"):
        less = part(data_dir / "cms_2011A_zmumu.root", 0, 2).without(EVENTS, "Muon_dxy")
        experiment.wanted(Step.EXPRESS, less.branches(EVENTS))


def test_same_sign_pairs_are_filtered_and_the_z_stands(dimuons: SourceFile) -> None:
    experiment = CmsOpenData()
    events = read(experiment, dimuons, Step.PROMPT)
    processed = experiment.process(Step.PROMPT, events, experiment.initial_conditions())
    assert {reason: int(mask.sum()) for reason, mask in processed.filtered.items()} == {
        "fewer than two muons": 0,
        "same sign": 356,
    }
    mass = ak.to_numpy(ak.flatten(processed.tiers["NANO"]["Dimuon_mass"]))
    assert len(mass) == 10583 - 356
    assert peak(mass, (91.0, 3.0))[0] == pytest.approx(90.87, abs=0.1)


def test_cuts_cut(collisions: SourceFile) -> None:
    events = read(CmsOpenData(), collisions, Step.EXPRESS)

    def counts(**settings: float) -> tuple[int, int]:
        tier = CmsOpenData(settings).process(Step.EXPRESS, events, {}).tiers["EXPRESS"]
        return int(ak.sum(ak.num(tier["Track_pt"]))), int(ak.sum(ak.num(tier["PV_x"])))

    tracks, vertices = counts()
    assert tracks > 20_000
    assert vertices > 2_500
    for name, value in {
        "track_pt_min": 2.0,
        "track_eta_max": 1.0,
        "track_chi2_max": 1.0,
        "track_d0_max": 0.1,
        "track_z0_max": 5.0,
    }.items():
        fewer, same = counts(**{name: value})
        assert fewer < tracks, name
        assert same == vertices
    for name, value in {"vertex_ndof_min": 30.0, "vertex_radius_max": 0.07}.items():
        same, fewer = counts(**{name: value})
        assert fewer < vertices, name
        assert same == tracks


def test_the_right_beam_sharpens_dxy(collisions: SourceFile, dimuons: SourceFile) -> None:
    experiment = CmsOpenData()
    for source, name, beam in [
        (collisions, "Track_dxy", nominal(x=0.072, y=0.0615)),
        (dimuons, "Muon_dxy", nominal(x=0.0746, y=0.0422)),
    ]:
        events = read(experiment, source, Step.PROMPT)
        width = {}
        for key, payload in {"design": nominal(), "right": beam}.items():
            dxy = experiment.process(Step.PROMPT, events, {"beamspot": payload}).tiers["NANO"][name]
            dxy = ak.to_numpy(ak.flatten(dxy))
            width[key] = 1.4826 * np.median(np.abs(dxy - np.median(dxy)))
        assert width["right"] < 0.3 * width["design"]
    assert width["right"] == pytest.approx(47.5e-4, abs=1e-4)


def test_slopes_enter_only_where_there_is_z(collisions: SourceFile, dimuons: SourceFile) -> None:
    experiment = CmsOpenData()
    flat, steep = nominal(), nominal(dxdz=1e-3)
    changed = {}
    for source, name in [(collisions, "Track_dxy"), (dimuons, "Muon_dxy")]:
        events = read(experiment, source, Step.PROMPT)
        found = [experiment.process(Step.PROMPT, events, {"beamspot": beam}).tiers["NANO"] for beam in (flat, steep)]
        changed[name] = not ak.all(found[0][name] == found[1][name])
    assert changed == {"Track_dxy": True, "Muon_dxy": False}
