"""After a change of alignment hits are read back, not clustered again; pedestals need RAW."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from calib.iov import RunLumi
from calib.payload import Payload
from pipeline import accounting, journal
from pipeline.columns import IDENTITY, in_order, join
from pipeline.events import SourceFile, read_tier
from pipeline.experiments.ref10 import daq
from pipeline.experiments.ref10.experiment import Ref10
from pipeline.experiments.ref10.simulate.events import simulate
from pipeline.experiments.ref10.simulate.scenario import Physics, Scenario
from pipeline.experiments.testing import differences, read
from pipeline.model import Step, Stream
from pipeline.processing import Segment, nothing
from pipeline.restarts import Start, tier_names
from pipeline.settings import settings_from
from pipeline.tier0 import Tier0
from pipeline.world import open_world
from tests.pipeline.experiments.ref10.reconstruct.raw import PLAN, uneven

LUMIS, EVENTS = 2, 6
SCENARIO = Scenario(physics=Physics(nzs=0.3))
MINI = {"name": "ref10", "settings": {"geometry": "mini"}}


def raw_files(folder: Path) -> list[Path]:
    """Two lumisections of run 7, all of their events in both streams."""
    paths = []
    for lumi in range(1, LUMIS + 1):
        made = simulate(SCENARIO, PLAN, 3, 7, lumi, np.arange(EVENTS)).raw
        paths += [daq.raw_path(folder, stream, RunLumi(7, lumi)) for stream in Stream]
        for path in paths[-len(Stream) :]:
            daq.write_raw(path, made, daq.Format.TTREE, nothing)
    return paths


def saved(payload: Payload, folder: Path) -> Path:
    path = folder / f"{payload.kind}.npz"
    np.savez(path, units=json.dumps(dict(payload.units)), **payload.arrays)
    return path


def spoil(path: Path) -> None:
    """Nothing of the file can be read any more; it looks as it did."""
    stamp = path.stat()
    with path.open("r+b") as file:
        file.write(bytes(stamp.st_size))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


def from_raw(plain: dict[str, Any], files: Sequence[Path], aligned: Payload) -> dict[str, Any]:
    """What prompt makes of the physics files in one go, under the conditions that run 7 was released under but for the
    alignment."""
    world = open_world(settings_from(plain))
    manifest = world.books.manifest(7)
    conditions = {kind: world.store.get(manifest.at_end(kind)) for kind in manifest.kinds} | {"alignment": aligned}
    world.database.close()
    raw = [
        read(world.experiment, SourceFile.open(path), Step.PROMPT) for path in files if path.parent.name == "physics"
    ]
    events = in_order(join(raw))
    made = world.experiment.process(Step.PROMPT, events, conditions)
    return {**{name: events[name] for name in IDENTITY}, **made.tiers["RECO"]}


def written(plain: dict[str, Any], version: int) -> dict[str, Any]:
    """What the prompt of a processing version has written of run 7."""
    world = open_world(settings_from(plain))
    with world.database.read() as connection:
        job = journal.get_document(connection, 7, f"certification/v{version}")["prompt"]
        paths = [file.path for file in accounting.outputs_of(connection, job, "RECO")]
    world.database.close()
    return in_order(join([read_tier(path) for path in paths]))


def test_a_new_alignment_redoes_prompt_without_a_look_at_raw(house, tmp_path):
    plain, files = (
        house(experiment=MINI, splitting={"events": EVENTS}, prompt={"tiers": ["RECO", "AOD"]}),
        raw_files(tmp_path),
    )
    with Tier0(plain) as tier0:
        assert tier0.run(*files, progress=False)[7].certified
    aligned = uneven(seed=9)["alignment"]
    wanted = from_raw(plain, files, aligned)
    for path in files:
        spoil(path)
    later = plain | {"handshake": {"max_carried_runs": 9}}
    with Tier0(later) as tier0:
        tier0.conditions.upload("alignment", saved(aligned, tmp_path), "0", "aligned", tag="alignment_prompt_v2")
        said = str(tier0.plan(*files))
        assert "run 7: express" not in said
        reads = f"(reads {LUMIS * EVENTS} events from RECO of the earlier pass, not RAW)"
        assert f"run 7: pass for beamspot: it is to be measured under what was found since express {reads}" in said
        summary = tier0.run(*files, progress=False)
        assert "run 7: prompt reads RECO of the earlier pass, not RAW" in tier0.why(7).splitlines()
    assert summary[7].certified
    assert summary[7].starts == {"prompt": Start("RECO", LUMIS)}
    assert (summary[7].prompt.out, summary[7].prompt.bad) == (LUMIS * EVENTS, 0)
    assert differences(written(later, 2), wanted) == []
    moved = set(differences(written(later, 1), wanted))
    assert moved >= {"Cluster_x", "Cluster_y", "Cluster_z"} and "Cluster_charge" not in moved


def test_only_what_acts_behind_clusters_leaves_their_name():
    plain, other = ({kind: payload.id for kind, payload in uneven(seed).items()} for seed in (3, 9))
    kinds = {kind for kind in plain if plain[kind] != other[kind]}

    def name(step, *changed):
        ids = plain | {kind: other[kind] for kind in changed}
        return tier_names(Ref10(), step, {"inputs": "abc"}, [Segment(RunLumi(7).packed, ids)])

    assert {kind for kind in kinds if name(Step.PROMPT, kind) == name(Step.PROMPT)} == {
        "alignment",
        "lorentz_angle",
        "field",
        "beamspot",
    }
    assert kinds >= {"pedestal", "gain", "strip_status", "pixel_status", "alignment", "lorentz_angle"}
    # In express too, but for pedestals and the status of channels, which need RAW.
    assert name(Step.EXPRESS, "alignment") == name(Step.EXPRESS) != name(Step.EXPRESS, "gain")
    lacking = {restart.tier: restart.lacks for restart in Ref10().restarts(Step.EXPRESS)}
    assert lacking == {"RECO": ("pedestal", "strip_status", "pixel_status")}
