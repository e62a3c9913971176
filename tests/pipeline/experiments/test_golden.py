"""What a step makes of the same events must not change unless its number in `versions` is raised.

If one of these fails and the change is meant: raise `versions[step]` of the experiment, then write the new hash here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
from numpy.typing import NDArray

from calib.algorithms.beamspot_payload import nominal
from calib.algorithms.channel_status import KIND, all_good
from calib.payload import Payload
from pipeline.events import SourceFile
from pipeline.experiments.cms_opendata import CmsOpenData
from pipeline.experiments.icecube_sndaq import IceCubeSndaq
from pipeline.experiments.interface import Experiment, Processed
from pipeline.experiments.ref10.experiment import Ref10
from pipeline.experiments.registry import EXPERIMENTS
from pipeline.experiments.testing import MemorySource, read
from pipeline.experiments.toy_collider import ToyCollider
from pipeline.model import Columns, EventSource, Step
from tests.pipeline.experiments.ref10.reconstruct.raw import (
    Event,
    pixel,
    pixel_module,
    raw_columns,
    strip_module,
    uneven,
)

KEPT_BITS = {8: 30, 4: 16}
"""of the mantissa of a float of so many bytes: what is lost are last bits, in which processors differ"""


def rounded(values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype.kind != "f":
        return values
    mantissa, exponent = np.frexp(values)
    bits = KEPT_BITS[values.dtype.itemsize]
    # Adding 0 makes one zero of both.
    return np.ldexp(np.rint(np.ldexp(mantissa, bits)), exponent - bits) + values.dtype.type(0)


def digest(processed: Processed) -> str:
    """SHA-256 of all columns of a step with their names, types and counts; floats rounded."""
    whole = hashlib.sha256()
    for part, columns in sorted(
        {"measured": processed.measured, "filtered": processed.filtered, **processed.tiers}.items()
    ):
        for name, values in sorted(columns.items()):
            while isinstance(values, ak.Array) and values.ndim > 1:
                whole.update(np.asarray(ak.num(values), np.int64).tobytes())
                values = ak.flatten(values)
            flat = np.ascontiguousarray(values)
            whole.update(json.dumps([part, name, flat.dtype.str, flat.shape]).encode())
            whole.update(rounded(flat).tobytes())
    return whole.hexdigest()[:16]


BEAM = {"beamspot": nominal(x=0.072, y=0.062, z=0.3, dxdz=2e-4, dydz=-1e-4)}


def entries(name: str, start: int, stop: int) -> Callable[[Path], EventSource]:
    def source(data_dir: Path) -> EventSource:
        file, tree = SourceFile.open(data_dir / name), "sn_all" if "sndaq" in name else "Events"
        names = tuple(column for column in file.branches(tree) if column != "sn_all_data")
        wanted = ("data", "buf_pos", "buf_loop") if tree == "sn_all" else names
        return MemorySource(file.path, {tree: file.arrays(tree, wanted, start, stop)})

    return source


def generated(_: Path) -> EventSource:
    """Twelve events, one with nothing in it; not of the generator, which may change without the steps."""
    rng = np.random.default_rng(51)
    columns: Columns = {
        "run": np.full(12, 3, np.uint32),
        "luminosityBlock": np.repeat([1, 2, 4], 4).astype(np.uint32),
        "event": np.arange(1, 13, dtype=np.uint64),
    }
    tracks, vertices = rng.integers(1, 9, 12), rng.integers(1, 3, 12)
    tracks[5] = vertices[5] = 0
    near, far, small = (0.06, 0.08), (-9, 9), (1e-3, 5e-3)
    tracking = {"pt": (0.5, 5), "eta": (-2.6, 2.6), "phi": (-3.1, 3.1), "d0": (-0.1, 0.1), "d0Error": small, "z0": far}
    fit = {"chi2": (0, 90), "ndof": (5, 40)}
    ranges = {
        "Track": {**tracking, "z0Error": small, **fit},
        "PV": {"x": near, "y": near, "z": far, "xErr": small, "yErr": small, "zErr": small, **fit},
    }
    for kind, counts in (("Track", tracks), ("PV", vertices)):
        for name, limits in ranges[kind].items():
            values = rng.uniform(*limits, counts.sum()).astype(np.float32)
            columns[f"{kind}_{name}"] = ak.unflatten(values, counts)
    columns["Track_charge"] = ak.unflatten(rng.choice([-1, 1], tracks.sum()).astype(np.int32), tracks)
    columns["PV_isFake"] = ak.unflatten((rng.random(vertices.sum()) < 0.2).astype(np.int32), vertices)
    return MemorySource(Path("run_3.root"), {"Events": columns})


def digitized(_: Path) -> EventSource:
    """Six events of the modules of unit tests: clusters of strips and pixels, one module without zero suppression."""
    rng, events = np.random.default_rng(52), []
    for number in range(6):
        digis = []
        for module in map(strip_module, rng.choice(8, 4, replace=False).tolist()):
            first = int(rng.integers(0, 760))
            digis += [(module, first + i, int(100 + adc)) for i, adc in enumerate(rng.integers(30, 120, 3))]
        for module in map(pixel_module, rng.choice(4, 2, replace=False).tolist()):
            row, column = int(rng.integers(0, 150)), int(rng.integers(0, 400))
            digis += [(module, pixel(row + i, column), int(adc)) for i, adc in enumerate(rng.integers(25, 200, 2))]
        full = [(strip_module(9), rng.normal(100, 5, 768).astype(int).tolist())] if number == 2 else []
        events.append(Event.of(digis, full))
    columns = raw_columns(events)
    columns |= {name: np.arange(1, 7, dtype=kind) for name, kind in (("event", "u8"), ("orbit", "u4"), ("bx", "u2"))}
    columns |= {"run": np.full(6, 3, np.uint32), "lumi": np.repeat([1, 2], 3).astype(np.uint32)}
    columns["trig"] = np.array([1, 1, 5, 1, 2, 1], np.uint32)
    return MemorySource(Path("run_3.root"), {"Events": columns})


def some_dead() -> Payload:
    status = all_good(5160)["status"].copy()
    status[[0, 45, 4800]] = 1
    return Payload(KIND, {"status": status})


SAMPLES: Mapping[str, tuple[type[Experiment], Callable[[Path], EventSource], Mapping[str, Payload]]] = {
    "cms 2012": (CmsOpenData, entries("cms_2012_collisions.root", 20, 45), BEAM),
    "cms 2011A": (CmsOpenData, entries("cms_2011A_zmumu.root", 0, 60), BEAM),
    "icecube": (IceCubeSndaq, entries("icecube_sndaq_131738.root", 0, 6), {KIND: some_dead()}),
    "ref10": (Ref10, digitized, uneven()),
    "toy collider": (ToyCollider, generated, BEAM),
}

GOLDEN = {
    ("cms 2012", Step.EXPRESS): (1, "88799136d52ced81"),
    ("cms 2012", Step.PROMPT): (1, "a37c0742c6605649"),
    ("cms 2011A", Step.EXPRESS): (1, "dce9ffe1d7bfb67a"),
    ("cms 2011A", Step.PROMPT): (1, "d326dec00d0f0f42"),
    ("icecube", Step.EXPRESS): (1, "f79bc73245cbfea1"),
    ("icecube", Step.PROMPT): (1, "eb16e279aafe45bf"),
    ("ref10", Step.EXPRESS): (8, "dc9ade0566d26c4e"),
    ("ref10", Step.PROMPT): (8, "dc9ade0566d26c4e"),
    ("toy collider", Step.EXPRESS): (1, "77aa2dca418eb8fa"),
    ("toy collider", Step.PROMPT): (1, "d65fbec534aa601d"),
}


def output(sample: str, step: Step, data_dir: Path, **settings: Any) -> Processed:
    experiment_type, source, conditions = SAMPLES[sample]
    experiment = experiment_type(settings)
    return experiment.process(step, read(experiment, source(data_dir), step), conditions)


@pytest.mark.parametrize(("sample", "step"), GOLDEN)
def test_a_step_makes_what_its_version_made(sample: str, step: Step, data_dir: Path) -> None:
    assert (SAMPLES[sample][0].versions[step], digest(output(sample, step, data_dir))) == GOLDEN[sample, step]


def test_every_step_of_every_experiment_is_here() -> None:
    assert {experiment.name for experiment, _, _ in SAMPLES.values()} == set(EXPERIMENTS)
    assert set(GOLDEN) == {(sample, step) for sample in SAMPLES for step in Step}


def test_a_change_of_an_output_is_found(data_dir: Path) -> None:
    before = output("cms 2012", Step.PROMPT, data_dir)
    assert digest(output("cms 2012", Step.PROMPT, data_dir, track_pt_min=1.5)) != digest(before)
    nano = dict(before.tiers["NANO"])
    for other in (
        {**nano, "Track_dxy": nano["Track_dxy"] * (1 + 1e-8)},
        {**nano, "Track_pt": ak.values_astype(nano["Track_pt"], np.float64)},
        {name: values for name, values in nano.items() if name != "PV_ndof"},
        {**nano, "Track_dxy": ak.unflatten(ak.flatten(nano["Track_dxy"]), ak.num(nano["Track_dxy"])[::-1])},
    ):
        assert digest(Processed({"NANO": other}, before.measured, before.filtered)) != digest(before)
    assert digest(Processed(before.tiers, {}, before.filtered)) != digest(before)
    assert digest(Processed(before.tiers, before.measured, {"some": np.ones(25, bool)})) != digest(before)


def test_last_bits_are_no_change(data_dir: Path) -> None:
    before = output("cms 2012", Step.PROMPT, data_dir)
    nano = dict(before.tiers["NANO"])
    nudged = np.nextafter(np.asarray(ak.flatten(nano["Track_dxy"])), np.inf)
    nano["Track_dxy"] = ak.unflatten(nudged, ak.num(nano["Track_dxy"]))
    assert digest(Processed({"NANO": nano}, before.measured, before.filtered)) == digest(before)
