"""The whole chain over real collisions and counts, under the settings of the examples."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot

from calib.iov import LUMI_BITS, RunLumi
from calib.tags import Sync
from pipeline.events import read_header, read_tier
from pipeline.experiments.cms_opendata import DESIGN
from pipeline.experiments.collisions import peak
from pipeline.summary import Summary
from pipeline.tier0 import Tier0
from tests.pipeline.experiments.sndaq_files import two_faults, write_copy

EXAMPLES = Path(__file__).parents[2] / "examples"
CM_TO_UM = 1e4


def example(name: str, area: Path, **sections: Mapping[str, Any]) -> dict[str, Any]:
    """An example's settings with its own area; sections are merged in."""
    found = tomllib.loads((EXAMPLES / name).read_text())
    found["storage"] = {"area": str(area)}
    found["cluster"] = {"kind": "local", "workers": 2, "dashboard_port": 0}
    for section, values in sections.items():
        found[section] = found.get(section, {}) | values
    return found


def odd_muons(tier0: Tier0, summary: Summary) -> tuple[dict[int, np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
    """dxy [um] of the muons of odd events by run, and all dimuon masses [GeV]."""
    dxy: dict[int, Any] = {}
    masses = []
    for row in summary.rows:
        parts = [read_tier(path) for path in tier0.results.files(row.run, "NANO")]
        odd = [ak.to_numpy(ak.flatten(part["Muon_dxy"][part["event"] % 2 == 1])) for part in parts]
        dxy[row.run] = CM_TO_UM * np.concatenate(odd)
        masses += [np.asarray(part["Dimuon_mass"]) for part in parts]
    return dxy, np.concatenate(masses)


def packed_units_of(path: Path) -> np.ndarray[Any, Any]:
    """The packed units of the events of a file, from the file itself; a file of 2011A has only lumisection 1."""
    with uproot.open(path) as file:
        tree = file["Events"]
        run = tree["run"].array(library="np").astype(np.int64)
        lumi = tree["luminosityBlock"].array(library="np") if "luminosityBlock" in tree else np.ones_like(run)
    return np.unique(run << LUMI_BITS | lumi.astype(np.int64))


def fresh_intervals(tier0: Tier0, units: np.ndarray[Any, Any]) -> tuple[int, int]:
    """How many intervals were made, and from how many of the units.

    Each must be what the tag answers at every unit whose data it was made from.
    """
    world, asked = tier0._world, 0
    with world.database.read() as connection:
        db = world.conditions(connection)
        snapshot = db.snapshot(world.global_tag(Sync.PROMPT))
        made = [entry for entry in db.history("beamspot_prompt_v1") if entry.info.get("loop")]
        for entry in made:
            first, last = entry.info["made_first"], entry.info["made_last"]
            inside = units[(units >= first) & (units <= last)]
            assert first in inside and last in inside
            for unit in inside.tolist():
                assert db.resolve(snapshot, RunLumi.unpack(unit), ["beamspot"]).ids["beamspot"] == entry.payload_id
            asked += len(inside)
    return len(made), asked


def robust_width(values: np.ndarray[Any, Any]) -> float:
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


@pytest.fixture(scope="module", params=["run", pytest.param("span", marks=pytest.mark.verify)])
def zmumu(request: pytest.FixtureRequest, data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    area = tmp_path_factory.mktemp(f"zmumu_{request.param}")
    calibration = {"beamspot": {"granularity": request.param, "min_tracks": 50}}
    with Tier0(example("cms_2011A.toml", area, calibration=calibration)) as tier0:
        yield request.param, tier0, tier0.run(data_dir / "cms_2011A_zmumu.root", progress=False)


def test_published_intervals_sharpen_2011(zmumu: Any) -> None:
    granularity, tier0, summary = zmumu
    assert len(summary.rows) == 19 and all(row.certified for row in summary.rows)
    dxy, masses = odd_muons(tier0, summary)
    width = robust_width(np.concatenate(list(dxy.values())))
    if granularity == "run":
        assert width == pytest.approx(28.8, abs=0.7)
    else:
        assert width <= 29.5
    assert peak(masses, (91.0, 2.0))[0] == pytest.approx(90.87, abs=0.1)


def test_fresh_intervals_hold_where_their_data_are(zmumu: Any, data_dir: Path) -> None:
    granularity, tier0, summary = zmumu
    made, units = fresh_intervals(tier0, packed_units_of(data_dir / "cms_2011A_zmumu.root"))
    # By run, one has 40 muons only; each run is one unit.
    assert (made == 18) if granularity == "run" else (8 <= made <= 16)
    assert units == summary.states["beamspot"]["fresh"] == (18 if granularity == "run" else 19)


def test_same_sign_pairs_are_counted_as_filtered(zmumu: Any) -> None:
    _, _, summary = zmumu
    assert sum(row.prompt.read for row in summary.rows) == 10583
    assert sum(row.prompt.filtered.get("same sign", 0) for row in summary.rows) == 356
    assert all(row.prompt.balanced and row.express.balanced for row in summary.rows)


def every_header(tier0: Tier0, runs: int) -> list[dict[str, Any]]:
    """The headers of all output files; there must be one of each tier for each run."""
    headers = [read_header(path) for path in sorted((Path(tier0._world.area) / "runs").rglob("*.root"))]
    assert len({(header["run"], header["tier"]) for header in headers}) == 2 * runs
    return headers


def payloads_of(header: Mapping[str, Any]) -> set[str]:
    """The ids of the beam spots that an output was made with: none in express."""
    if header["tier"] == "EXPRESS":
        assert all(not ids for _, ids in header["conditions"])
        return set()
    return {stretch["payload"] for stretch in header["manifest"]["kinds"]["beamspot"]}


def test_slopes_not_measured_are_carried_and_z_is_absent_in_every_output(zmumu: Any) -> None:
    _, tier0, summary = zmumu
    store, carried = tier0._world.store, ("dxdz", "dydz", "z", "sigma_z", "width_x", "width_y")
    used: set[str] = set()
    for header in every_header(tier0, len(summary.rows)):
        assert header["absent"]["Muon_dz"] == header["absent"]["track_z0"] == "the 2011A muons have no z"
        used |= payloads_of(header)
        assert {name: found["slopes_measured"] for name, found in header["flags"].items()} == dict.fromkeys(
            payloads_of(header), False
        )
        for payload in map(store.get, payloads_of(header)):
            assert not payload["slopes_measured"]
            assert {name: float(payload[name]) for name in carried} == {name: DESIGN.get(name, 0.0) for name in carried}
    assert len(used) > 8


@pytest.mark.verify
def test_pooled_intervals_of_2012(data_dir: Path, tmp_path: Path) -> None:
    with Tier0(example("cms_2012.toml", tmp_path)) as tier0:
        summary = tier0.run(data_dir / "cms_2012_collisions.root", progress=False)
        intervals = [i for i in tier0.conditions.intervals("beamspot") if i.iov.since.run]
        assert fresh_intervals(tier0, packed_units_of(data_dir / "cms_2012_collisions.root")) == (len(intervals), 168)
    assert len(summary.rows) == 96 and sum(row.prompt.read for row in summary.rows) == 288
    # An interval may begin inside a run: such a run counts twice.
    states = summary.states["beamspot"]
    assert set(states) == {"fresh"} and states["fresh"] >= 96
    assert f"beamspot: {states['fresh']} fresh" in summary.text()
    assert 4 <= len(intervals) <= 20
    ranges = {(0, 196_000): (721, 616), (196_000, 198_600): (722, 620), (198_600, 10**6): (711, 606)}
    for (low, high), wanted in ranges.items():
        inside = [i.payload for i in intervals if low <= i.iov.since.run < high]
        for axis, expected in zip("xy", wanted, strict=True):
            values, errors = (CM_TO_UM * np.array([float(p[name]) for p in inside]) for name in (axis, f"{axis}_error"))
            weights = errors**-2
            pooled, own = (values * weights).sum() / weights.sum(), weights.sum() ** -0.5
            assert pooled == pytest.approx(expected, abs=3 * np.hypot(own, 2) + 3)


def test_dead_modules_of_icecube(data_dir: Path, tmp_path: Path) -> None:
    with Tier0(example("icecube.toml", tmp_path)) as tier0:
        summary = tier0.run(data_dir / "icecube_sndaq_131738.root", progress=False)
        status = [i.payload["status"] for i in tier0.conditions.intervals("channel_status") if i.iov.since.run]
    assert summary.unit_name == "half-second bin" and summary[131738].units == 371
    assert [(np.count_nonzero(s == 1), np.count_nonzero(s > 1)) for s in status] == [(83, 0)]


def test_faults_of_icecube_are_found_with_their_intervals(data_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / "icecube_sndaq_131738.root"
    write_copy(data_dir / "icecube_sndaq_131738.root", copy, two_faults)
    silent, loud = 100, 3000
    with Tier0(example("icecube.toml", tmp_path / "area")) as tier0:
        tier0.run(copy, progress=False)
        found = [i for i in tier0.conditions.intervals("channel_status") if i.iov.since.run]
    begins = [i.iov.since.lumi for i in found]
    states = [(int(i.payload["status"][silent]), int(i.payload["status"][loud])) for i in found]
    assert begins == [0, 100, 150, 200]
    assert states == [(0, 0), (1, 0), (0, 0), (0, 2)]
