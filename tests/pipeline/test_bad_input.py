"""Bad input gets its clear word and is set aside; the rest goes on, `why` says it, the exit code tells."""

import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import uproot

from jobs.runner import SchedulerLost
from pipeline.experiments.interface import MissingBranch
from pipeline.model import Step
from pipeline.settings import SettingsError
from pipeline.site import SiteStopped
from pipeline.tier0 import Tier0
from pipeline.way import Stage
from tests.pipeline.probes import Once
from tests.pipeline.tiny import Tiny, TinySettings, settings, write_file, write_units
from tests.pipeline.traces import done_again, results, work


def run(plain, *files, **more):
    """The summary, and what `why` says of every run of it."""
    with Tier0(plain, **more) as tier0:
        summary = tier0.run(*files, progress=False)
        return summary, {row.run: tier0.why(row.run) for row in summary.rows}


def why(plain, number):
    with pytest.raises(LookupError) as refusal:
        Tier0(plain).why(number)
    return str(refusal.value)


def cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def damage(path: Path, column: str) -> None:
    """Overwrite what holds a column; all else of the file stays sound."""
    with uproot.open(path) as file:
        branch = file["Events"][column]
        seek, size = int(branch.member("fBasketSeek")[0]), int(branch.member("fBasketBytes")[0])
    with path.open("r+b") as raw:
        raw.seek(seek + size // 2)
        raw.write(b"\xff" * (size // 2))


def test_truncated_file(house, tmp_path):
    plain, good, bad = house(), write_file(tmp_path / "a.root", 7), write_file(tmp_path / "b.root", 8)
    cut_short(bad)
    summary, said = run(plain, good, bad)
    assert [row.run for row in summary.rows] == [7]
    assert summary[7].stage is Stage.CERTIFIED
    assert summary.exit_code == 3
    for text in (summary.text(), said[7], why(plain, 8)):
        assert f"{bad}: it is damaged, cut short, or no ROOT file; fetch it again from its source" in text
    # Fetched again, it is taken in, and nothing is left to complain about.
    write_file(bad, 8)
    summary, said = run(plain, good, bad)
    assert ([row.run for row in summary.rows], summary.exit_code) == ([7, 8], 0)
    assert "cut short" not in said[8]
    assert work(plain)["express"] == 8


def test_file_damaged_where_only_the_events_lie(house, tmp_path):
    plain, good, bad = house(), write_file(tmp_path / "a.root", 7), write_file(tmp_path / "b.root", 8)
    damage(bad, "hit")
    summary, said = run(plain, good, bad)
    assert (summary[7].prompt.bad, summary[8].prompt.bad, summary.exit_code) == (0, 20, 3)
    assert (summary[8].stage, summary[8].good) == (Stage.CERTIFIED, 0)
    assert f"{bad}: it is damaged" in said[8]
    assert "8:1 is not good: 5 events could not be read" in said[8]
    assert "offset 8:1 to 8:4: carried" in said[8]
    assert "damaged" not in said[7]


def test_a_path_that_goes_up_is_the_same_file(house, tmp_path):
    """However a path is written, run, plan and summary mean the one file; what is wrong with it is told too."""
    plain, good, bad = house(), write_file(tmp_path / "a.root", 7), write_file(tmp_path / "b.root", 8)
    cut_short(bad)
    (tmp_path / "in").mkdir()
    up = [tmp_path / "in" / ".." / path.name for path in (good, bad)]
    assert "run 7: express" in str(Tier0(plain).plan(*up))
    summary, _ = run(plain, *up)
    assert ([row.run for row in summary.rows], summary[7].stage, summary.exit_code) == ([7], Stage.CERTIFIED, 3)
    assert f"set aside: {bad}: it is damaged" in summary.text()
    assert str(Tier0(plain).plan(good)).startswith("nothing to do: all 1 runs")


def test_missing_branch(house, tmp_path):
    """Of a run in two files, one lacks a column: it is set aside, and a copy that has it counts at once."""
    plain, good = house(), write_units(tmp_path / "a.root", 7, [1, 2, 3])
    bad = write_file(tmp_path / "b.root", 7, 1, lumi=np.full(5, 4, np.uint32), event=np.arange(90, 95), hits=False)
    summary, said = run(plain, bad, good)
    assert (summary[7].prompt.read, summary[7].prompt.bad, summary[7].good, summary.exit_code) == (15, 0, 3, 3)
    for text in (summary.text(), said[7]):
        assert f"{bad}: no column hit; give a copy that has it, or leave the file out" in text
    whole = write_units(tmp_path / "whole.root", 7, [4], first_event=90)
    summary, _ = run(plain, good, whole)
    assert (summary[7].prompt.read, summary[7].prompt.bad, summary[7].duplicates) == (20, 0, 0)
    assert (summary[7].good, summary.exit_code) == (4, 0)


class Prompt(Tiny):
    """Cannot do prompt without a column that express does not need. Its settings are those of Tiny."""

    def wanted(self, step, branches):
        if step is Step.PROMPT and "extra" not in branches:
            raise MissingBranch("no column extra")
        return super().wanted(step, branches)


def test_missing_branch_of_one_step(house, tmp_path):
    """Of a run in two files, one lacks a column for prompt: just its lumisections are bad, and just there."""
    good = write_file(tmp_path / "a.root", 7, 3, extra=np.arange(15.0))
    bad = write_units(tmp_path / "b.root", 7, [4], first_event=90)
    summary, said = run(house(), good, bad, experiment=Prompt())
    assert (summary[7].express.bad, summary[7].prompt.bad) == (0, 5)
    assert (summary[7].prompt.read, summary[7].good, summary.exit_code) == (20, 3, 3)
    assert "no column extra" in said[7]
    assert "7:4 is not good: 5 events could not be read" in said[7]


def test_missing_key_branch(house, tmp_path):
    """A file that does not even say which events it holds."""
    plain, bad = house(), tmp_path / "b.root"
    with uproot.recreate(bad) as file:
        file.mktree("Events", {"run": "uint32", "event": "uint64"})
        file["Events"].extend({"run": np.full(5, 8, np.uint32), "event": np.arange(5, dtype=np.uint64)})
    summary, said = run(plain, write_file(tmp_path / "a.root", 7), bad)
    assert (summary[7].stage, summary.exit_code) == (Stage.CERTIFIED, 3)
    assert "tree 'Events' has no column 'lumi'" in said[7]
    assert "no column 'lumi'" in why(plain, 8)


@pytest.mark.parametrize(("mishap", "word"), [(Path.unlink, "is not there"), (cut_short, "cut short")])
def test_file_that_goes_bad_half_way(house, tmp_path, mishap, word):
    """It is sound when it is registered, and gone or cut short when express has begun to read."""
    plain = house()
    good, bad = (
        write_units(tmp_path / "a.root", 7, [1, 2, 3]),
        write_units(tmp_path / "b.root", 7, [4, 5], first_event=90),
    )
    source = shutil.copy(bad, tmp_path / "source")
    other = write_file(tmp_path / "c.root", 8)
    probe = Once(tmp_path / "points", "submit", lambda: mishap(bad))
    summary, said = run(plain, good, bad, other, probe=probe)
    assert (summary[7].stage, summary[7].prompt.read, summary[7].prompt.bad) == (Stage.CERTIFIED, 25, 10)
    assert (summary[7].good, summary[8].good, summary.exit_code) == (3, 4, 3)
    assert str(bad) in said[7]
    assert word in said[7]
    assert word not in said[8]
    # Once that is known, the run is what the other files have.
    summary, said = run(plain, good, bad, other)
    assert (summary[7].prompt.read, summary[7].prompt.bad, summary.exit_code) == (15, 0, 3)
    assert word in summary.text()
    # The very same file, from its source: its events are not bad for ever.
    shutil.copy(source, bad)
    summary, said = run(plain, good, bad, other)
    assert (summary[7].prompt.read, summary[7].prompt.bad, summary.exit_code) == (25, 0, 0)
    assert word not in said[7]


@pytest.mark.parametrize("noticed", [False, True])
def test_file_that_was_gone_for_a_while(house, tmp_path, noticed):
    """It is back, as it was: what it holds is read after all."""
    plain = house()
    good = write_units(tmp_path / "a.root", 7, [1, 2, 3])
    bad = write_units(tmp_path / "b.root", 7, [4, 5], first_event=90)
    away = Once(tmp_path / "points", "submit", lambda: os.rename(bad, tmp_path / "elsewhere"))
    summary, said = run(plain, good, bad, probe=away)
    assert (summary[7].prompt.bad, summary.exit_code) == (10, 3)
    assert f"{bad}: it was not there when it was to be read" in said[7]
    if noticed:
        summary, _ = run(plain, good, bad)
        assert (summary[7].prompt.read, summary[7].prompt.bad) == (15, 0)
    os.rename(tmp_path / "elsewhere", bad)
    assert "events inputs" in str(Tier0(plain).plan(good, bad))
    summary, said = run(plain, good, bad)
    assert (summary[7].prompt.read, summary[7].prompt.bad, summary.exit_code) == (25, 0, 0)
    assert "not there" not in said[7]
    before = work(plain)
    run(plain, good, bad)
    assert work(plain) == before


def test_duplicated_event_in_one_file(house, tmp_path):
    numbers = np.arange(1, 21, dtype=np.uint64)
    numbers[4] = numbers[1]
    file = write_file(tmp_path / "a.root", 7, event=numbers)
    summary, said = run(house(), file)
    assert (summary[7].prompt.read, summary[7].duplicates, summary.exit_code) == (19, 1, 3)
    assert "left out 1 x second copy of the event, first spill 1, event 2" in said[7]


def test_duplicated_events_across_files(house, tmp_path):
    plain = house()
    first = write_units(tmp_path / "a.root", 7, [1, 2])
    second = write_units(tmp_path / "b.root", 7, [2, 3], first_event=6)
    summary, said = run(plain, first, second)
    assert (summary[7].prompt.read, summary[7].duplicates, summary.exit_code) == (15, 5, 3)
    assert f"left out 5 x second copy of the event, first spill 2, event 6, also in {first}" in said[7]
    # Alone the second file counts whole.
    os.unlink(first)
    summary, _ = run(plain, first, second)
    assert (summary[7].prompt.read, summary[7].duplicates) == (10, 0)


def test_files_of_which_nothing_takes_part(house, tmp_path):
    """All their events are in other files, or they cannot be read: the words alone, as `why` has them."""
    plain, good, bad = house(), write_file(tmp_path / "a.root", 7), write_file(tmp_path / "b.root", 8)
    run(plain, good)
    again, copy = write_file(tmp_path / "again.root", 7, extra=np.arange(20.0)), shutil.copy(good, tmp_path / "c.root")
    cut_short(bad)
    planned = str(Tier0(plain).plan(again, copy, bad))
    summary, _ = run(plain, again, copy, bad)
    assert (summary.rows, summary.exit_code) == ((), 3)
    left_out = f"{again}: left out 20 x second copy of the event, first spill 1, event 1, also in {good}"
    assert f"run 7: {left_out}" in summary.text()
    assert f"run 7: {left_out}" in Tier0(plain).why(7)
    assert planned.startswith("nothing to do: no run has events in these files")
    for word in (left_out, f"{copy} has the same content as {good}", f"{bad}: it is damaged"):
        assert word in planned
        assert word in summary.text()
    assert "conditions, prompt [s]" not in summary.text()
    # Of other files, nothing is said: all is well with them.
    summary, _ = run(plain, write_file(tmp_path / "d.root", 9))
    assert (summary.exit_code, "left out" in summary.text()) == (0, False)


def test_run_without_events(house, tmp_path):
    plain = house()
    empty = write_file(tmp_path / "empty.root", 9, lumis=0)
    summary, said = run(plain, write_file(tmp_path / "a.root", 7), empty)
    assert ([row.run for row in summary.rows], summary.exit_code) == ([7], 3)
    assert f"{empty}: holds no event (tree 'Events' has 0 entries): nothing is made of it" in said[7]
    assert "holds no event" in why(plain, 9)
    summary, _ = run(plain, empty)
    assert (summary.rows, summary.exit_code) == ((), 3)
    assert "holds no event" in summary.text()


def test_lumisections_with_holes(house, tmp_path):
    summary, said = run(house(), write_units(tmp_path / "a.root", 7, [1, 2, 5, 9]))
    assert (summary[7].stage, summary[7].good, summary.exit_code) == (Stage.CERTIFIED, 4, 3)
    for text in (summary.text(), said[7]):
        assert "run 7: no data for spills 3-4, 6-8" in text


class FaultySettings(TinySettings):
    """What may be set."""

    step: str
    mended: str


class Faulty(Tiny):
    """Its code fails in one step of run 8, until a file says that it was mended."""

    settings_model = FaultySettings

    def process(self, step, events, conditions):
        faulty = step == self.settings.step and int(events["run"][0]) == 8
        if faulty and not Path(self.settings.mended).exists():
            raise ZeroDivisionError("the code has a fault")
        return super().process(step, events, conditions)


@pytest.mark.parametrize("step", Step)
def test_run_on_which_the_code_fails(house, tmp_path, step):
    """Every chunk fails the same way: that is not the data's fault, so the run stops, and its events are not bad."""
    files = [write_file(tmp_path / f"{number}.root", number, mean=0.5) for number in (7, 8, 9)]
    plain, experiment = house(), Faulty({"step": step.value, "mended": str(tmp_path / "mended")})
    summary, said = run(plain, *files, experiment=experiment)
    assert [row.stage for row in summary.rows] == [Stage.CERTIFIED, Stage.STOPPED, Stage.CERTIFIED]
    assert (summary[8].prompt.bad, summary.exit_code) == (0, 3)
    assert "every leaf fails the same way (" in said[8]
    assert "none succeeded): ZeroDivisionError: the code has a fault" in said[8]
    (tmp_path / "mended").touch()
    summary, said = run(plain, *files, experiment=experiment)
    assert (summary[8].stage, summary[8].prompt.bad, summary.exit_code) == (Stage.CERTIFIED, 0, 0), summary.text()
    assert "fault" not in said[8]
    assert done_again(plain) == 0


@pytest.mark.parametrize(
    ("sections", "word"),
    [
        ({"express": {"fractoin": "1/2"}}, "did you mean `fraction`"),
        ({"experiment": {"settings": {"cutt": 1.0}}}, "did you mean `cut`"),
        ({"calibration": {"offset": {"min_hit": 5}}}, "did you mean `min_hits`"),
        ({"calibration": {"ofset": {"min_hits": 5}}}, "did you mean `offset`"),
        ({"gates": {"offset": [{"gate": "finit"}]}}, "gates.offset"),
    ],
)
def test_mistyped_setting(tmp_path, sections, word):
    with pytest.raises(SettingsError, match=word):
        Tier0(settings(tmp_path / "area", **sections))
    assert not (tmp_path / "area").exists()


# a full disk


@pytest.fixture
def small_disk(tmp_path):
    """A disk of four megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], capture_output=True, text=True)
    if mount.returncode:
        reason = f"no small disk to fill: {mount.stderr.strip() or 'mount failed'}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def fill(disk: Path, leave: int) -> Path:
    """Leave so many bytes free."""
    filler = disk / "filler"
    with filler.open("wb") as file:
        space = os.statvfs(disk)
        file.write(bytes(max(0, space.f_bavail * space.f_frsize - leave)))
    return filler


def stopped(plain, file):
    with pytest.raises(SiteStopped, match="then start again") as stop:
        run(plain, file)
    return str(stop.value)


# Bytes left: none for the payload to start from; too few for what express makes.
@pytest.mark.parametrize("leave", [0, 60_000])
def test_full_disk_under_the_outputs(house, small_disk, tmp_path, leave):
    file = write_file(tmp_path / "a.root", 7)
    plain = house(storage={"area": str(small_disk / "area"), "database": str(tmp_path / "t.db")})
    filler = fill(small_disk, leave)
    assert "No space left on device" in stopped(plain, file)
    if leave:
        assert "run 7: OSError: [Errno 28] No space left on device" in Tier0(plain).why(7)
        assert Tier0(plain).status().exit_code == 4
    filler.unlink()
    summary, said = run(plain, file)
    assert (summary.exit_code, done_again(plain)) == (0, 0)
    assert "No space" not in said[7]
    assert not list(small_disk.rglob("*.partial"))


# Too few for the database; for what is entered in it.
@pytest.mark.parametrize(("leave", "word"), [(0, "No space left on device"), (700_000, "disk is full")])
def test_full_disk_under_the_database(house, small_disk, tmp_path, leave, word):
    file = write_file(tmp_path / "a.root", 7)
    plain = house(storage={"area": str(small_disk / "area")})
    filler = fill(small_disk, leave)
    assert word in stopped(plain, file)
    assert word in stopped(plain, file)
    if leave:
        assert "run 7, processing version 1: express" in Tier0(plain).why(7)
    filler.unlink()
    summary, _ = run(plain, file)
    assert (summary.exit_code, done_again(plain)) == (0, 0)


@pytest.mark.verify  # Dask waits 30 s before it gives up the workers of a scheduler that is gone
def test_scheduler_lost_in_mid_chain_is_said_and_the_next_start_goes_on(tmp_path):
    file = write_file(tmp_path / "a.root", 7, lumis=6)
    plain = settings(tmp_path / "area", cluster={"workers": 1})
    with Tier0(plain, probe=Once(tmp_path / "probe", "ledger-committed", int)) as tier0:
        scheduler = tier0.client.cluster.scheduler

        def lose():
            while not (tmp_path / "probe" / "ledger-committed-1").exists():
                time.sleep(0.01)
            tier0.client.loop.add_callback(scheduler.close)

        threading.Thread(target=lose, daemon=True).start()
        with pytest.raises(SchedulerLost, match="start again: nothing that is committed is done twice"):
            tier0.run(file, progress=False)
    summary, _ = run(plain, file)
    assert summary.exit_code == 0
    assert done_again(plain) == 0
    undisturbed = settings(tmp_path / "undisturbed", cluster={"workers": 1})
    run(undisturbed, file)
    assert results(plain) == results(undisturbed)
