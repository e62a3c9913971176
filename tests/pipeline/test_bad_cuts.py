"""What is bad, and what only some files have, does not depend on the chunk it is met in."""

from pathlib import Path

import numpy as np
import pytest
import uproot

from calib.iov import RunLumi
from jobs.retry import BadData
from pipeline.experiments.interface import Processed, Wanted
from pipeline.model import Step
from pipeline.service import Stage
from pipeline.tier0 import Tier0
from tests.pipeline.tiny import Tiny, write_file
from tests.pipeline.traces import headers, results

CUTS = {
    "one event": {"events": 1, "block_events": 1, "fan_in": 8},
    "one lumisection": {"units": 1, "fan_in": 2},
    "seven lumisections": {"units": 7, "events": 1000, "fan_in": 2},
    "all": {"events": 10**9},
}
CURSED = 112
"""an event that the experiment cannot use"""


class Uneven(Tiny):
    """Takes a column that only some files have, and refuses one event. Its settings are those of Tiny."""

    def wanted(self, step, branches):
        found = super().wanted(step, branches)
        return Wanted((*found.columns, "extra"), {}) if "extra" in branches else found

    def process(self, step, events, conditions):
        if CURSED in events["event"]:
            raise BadData(f"event {CURSED} is cursed")
        done = super().process(step, events, conditions)
        if "extra" not in events:
            return done
        kept = events["extra"][~done.filtered["no hit"]]
        [(tier, columns)] = done.tiers.items()
        return Processed({tier: {**columns, "extra": kept}, "MORE": {"extra": kept}}, done.measured, done.filtered)


def write_baskets(path: Path, lumis, first_event: int, events: int = 3, **more) -> Path:
    """A file of run 7, two events in each unit, `events` in each basket."""
    units = np.repeat(np.asarray(lumis), 2).astype(np.uint32)
    numbers = np.arange(first_event, first_event + len(units), dtype=np.uint64)
    whole = write_file(path.with_suffix(".whole"), 7, len(lumis), 2, lumi=units, event=numbers, **more)
    with uproot.open(whole) as source, uproot.recreate(path) as file:
        columns = source["Events"].arrays(["run", "lumi", "event", "hit", *more])
        types = {name: columns[name].type.content for name in columns.fields}
        file.mktree("Events", types)
        for start in range(0, len(units), events):
            file["Events"].extend({name: columns[name][start : start + events] for name in columns.fields})
    whole.unlink()
    return path


def damage(path: Path, column: str, basket: int) -> None:
    """Overwrite one basket, its head too, for so small a one is not compressed; all else of the file stays sound."""
    with uproot.open(path) as file:
        branch = file["Events"][column]
        seek, size = (int(branch.member(name)[basket]) for name in ("fBasketSeek", "fBasketBytes"))
    with path.open("r+b") as raw:
        raw.seek(seek)
        raw.write(b"\xff" * size)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Run 7 in two files that share lumisection 8: one damaged, the other with a column more; and a sound run 8."""
    folder = tmp_path_factory.mktemp("bad")
    lumis = range(1, 9)
    damaged = write_baskets(folder / "b.root", lumis, first_event=100)
    damage(damaged, "hit", basket=1)
    extra = write_baskets(folder / "a.root", range(8, 13), first_event=1, extra=np.arange(10.0))
    return [damaged, extra, write_file(folder / "c.root", 8, lumis=3, events=2, mean=1.7)]


@pytest.fixture(scope="module")
def seen():
    """What the first cut gave."""
    return []


@pytest.mark.parametrize("cut", CUTS)
def test_no_cut_shows_in_what_is_bad_or_only_in_some_files(house, files, seen, cut):
    plain = house(splitting=CUTS[cut])
    with Tier0(plain, Uneven()) as tier0:
        summary = tier0.run(*files, progress=False)
        assert [row.stage for row in summary.rows] == [Stage.CERTIFIED, Stage.CERTIFIED]
        assert (summary[7].prompt.bad, summary[7].express.bad, summary[8].prompt.bad) == (4, 4, 0)
        assert f"{files[0]}: it is damaged" in tier0.why(7)
        assert f"event {CURSED} is cursed" in tier0.why(7)
    found = results(plain)
    seen.append(found)
    assert found == seen[0]
    # The basket holds events 103 to 105, which are of lumisections 2 and 3.
    counts = found.counts[7, Step.PROMPT]
    assert {RunLumi.unpack(unit).lumi: count.bad for unit, count in counts.items() if count.bad} == {2: 1, 3: 2, 7: 1}
    assert sorted(key[1:] for key in found.outputs if key[0] == 7) == [
        ("MORE",),
        ("PROMPT", ("event", "extra", "hit", "lumi", "run")),
        ("PROMPT", ("event", "hit", "lumi", "run")),
    ]
    absent = {(header["run"], header["tier"], tuple(header["absent"])) for header in headers(plain, Step.PROMPT)}
    assert absent == {(7, "MORE", ()), (7, "PROMPT", ()), (7, "PROMPT", ("extra",)), (8, "PROMPT", ("extra",))}
