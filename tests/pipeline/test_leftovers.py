"""Files of attempts that did not count go, after a grace; what counts stays."""

import os
import shutil
import time
from pathlib import Path

import sqlalchemy as sa

from pipeline.settings import settings_from
from pipeline.tier0 import Tier0
from pipeline.world import open_world
from tests.pipeline.tiny import write_file
from tests.pipeline.traces import results, stray


def run(plain, *files):
    with Tier0(plain) as tier0:
        assert tier0.run(*files, progress=False).exit_code == 0


def output_paths(plain):
    world = open_world(settings_from(plain))
    with world.database.read() as connection:
        found = connection.execute(sa.text("SELECT path FROM catalog_outputs")).scalars().all()
    world.database.close()
    return found


def test_what_nobody_knows_goes_after_the_grace_and_all_else_stays(house, tmp_path):
    plain = house(cluster={"longest_task": "10 seconds"})
    file = write_file(tmp_path / "a.root", 7)
    run(plain, file)
    before, now = results(plain), time.time()
    outputs = output_paths(plain)
    states = list((Path(plain["storage"]["area"]) / "runs" / "7").rglob("*.npz"))
    assert outputs and states
    # A task of ten seconds is ended after twenty; one minute more for clocks that disagree.
    old, young = stray(plain, 7, "old.partial", now - 100), stray(plain, 7, "young.partial", now - 40)
    other = stray(plain, 9, "of another run.root", now - 100)
    run(plain, file)
    assert not old.exists()
    assert young.exists() and other.exists()
    assert all(Path(path).exists() for path in (*outputs, *states))
    assert results(plain) == before


def test_payloads_that_were_never_whole_go_after_the_grace(house, tmp_path):
    plain = house(cluster={"longest_task": "10 seconds"})
    file = write_file(tmp_path / "a.root", 7)
    run(plain, file)
    before, now = results(plain), time.time()
    (whole,) = open_payloads(plain)
    old, young = (whole.with_name(f"{whole.name}.{name}.partial") for name in ("old", "young"))
    for folder, written in ((old, now - 100), (young, now - 40)):
        shutil.copytree(whole, folder)
        for path in (folder, *folder.rglob("*")):
            os.utime(path, (written, written))
    run(plain, file)
    assert not old.exists()
    assert young.exists() and whole.exists()
    assert results(plain) == before


def open_payloads(plain):
    """The payload that the loop has made."""
    world = open_world(settings_from(plain))
    with world.database.read() as connection:
        found = world.conditions(connection).history("offset_prompt_v1")
        paths = [world.store.path(entry.payload_id) for entry in found if entry.info.get("loop")]
    world.database.close()
    return paths
