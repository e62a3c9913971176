"""What comes out of a step is counted in its files: an event lost or doubled there is found when it is committed."""

import numpy as np
import pytest

from pipeline.experiments.interface import Processed
from pipeline.model import Step
from pipeline.service import Stage
from pipeline.tier0 import Tier0
from tests.pipeline.tiny import Tiny, write_file
from tests.pipeline.traces import done_again


class Careless(Tiny):
    """Gives the rows of its prompt tier with keys of its own, and of event 8 of run 8 none, two, or another's."""

    def __init__(self, rows: str) -> None:
        super().__init__()
        self.rows = rows

    def process(self, step, events, conditions):
        done = super().process(step, events, conditions)
        if step is not Step.PROMPT or self.rows == "right":
            return done
        kept = {name: events[name][~done.filtered["no hit"]] for name in ("run", "lumi", "event")}
        order = np.arange(len(kept["event"]))
        for at in np.flatnonzero((kept["run"] == 8) & (kept["event"] == 8)):
            order = {
                "lost": np.delete(order, at),
                "double": np.insert(order, at, at),
                "another's": np.where(order == at, (at + 1) % len(order), order),
            }[self.rows]
        columns = {**kept, **done.tiers["PROMPT"]}
        return Processed({"PROMPT": {n: v[order] for n, v in columns.items()}}, done.measured, done.filtered)


@pytest.mark.parametrize(
    ("rows", "word"),
    [
        ("lost", "run 8, lumisection 2, chunk 1, prompt: 5 events out, 4 in tier PROMPT"),
        (
            "double",
            "run 8, lumisection 2, chunk 1, prompt: 5 events out, 6 in tier PROMPT, 1 of them for the second time",
        ),
        ("another's", "5 events out, 5 in tier PROMPT, 1 of them for the second time"),
    ],
)
def test_a_step_that_loses_or_doubles_an_event_stops_its_run_and_no_other(house, tmp_path, rows, word):
    files = [write_file(tmp_path / f"{number}.root", number, mean=0.5) for number in (7, 8, 9)]
    plain = house()
    with Tier0(plain, Careless(rows)) as tier0:
        summary = tier0.run(*files, progress=False)
        assert [row.stage for row in summary.rows] == [Stage.CERTIFIED, Stage.STOPPED, Stage.CERTIFIED]
        assert (summary[8].prompt.bad, summary.exit_code) == (0, 3)
        assert word in tier0.why(8)
    # Mended, it goes on; what was right is not done again.
    with Tier0(plain, Careless("right")) as tier0:
        summary = tier0.run(*files, progress=False)
        assert (summary[8].stage, summary[8].prompt.read, summary.exit_code) == (Stage.CERTIFIED, 20, 0)
    assert done_again(plain) == 0
