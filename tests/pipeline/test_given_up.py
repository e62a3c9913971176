"""What may succeed another time is not made bad for good: its run stops, and the next start tries what is left."""

from pathlib import Path

import pytest

from pipeline.model import Step
from pipeline.service import Stage
from pipeline.tier0 import Tier0
from tests.pipeline.tiny import Tiny, write_file
from tests.pipeline.traces import done_again, results, work


class FaultyInOne(Tiny):
    """Its code fails in one step on one unit, until a file says that it was mended. Its settings are those of Tiny."""

    def __init__(self, step: Step, unit: tuple[int, int], mended: Path) -> None:
        super().__init__()
        self.at, self.mended = (step, *unit), mended

    def process(self, step, events, conditions):
        units = zip(events["run"].tolist(), events["lumi"].tolist(), strict=True)
        if any((step, *unit) == self.at for unit in units) and not self.mended.exists():
            raise ZeroDivisionError("the code has a fault")
        return super().process(step, events, conditions)


@pytest.mark.parametrize("step", Step)
def test_a_chunk_on_which_the_code_fails_stops_its_run_until_it_is_mended(house, tmp_path, step):
    files = [write_file(tmp_path / f"{number}.root", number, mean=0.5) for number in (7, 8)]
    plain, experiment = house(), FaultyInOne(step, (8, 3), tmp_path / "mended")
    with Tier0(plain, experiment) as tier0:
        summary = tier0.run(*files, progress=False)
        assert [row.stage for row in summary.rows] == [Stage.CERTIFIED, Stage.STOPPED]
        assert (summary[8].prompt.bad, summary[8].express.bad, summary.exit_code) == (0, 0, 3)
        assert "leaf 2 cannot be done: ZeroDivisionError: the code has a fault" in tier0.why(8)
        assert "the next start tries again what is left" in tier0.why(8)
        before = work(plain)[step.value]
        assert before == 4 + 4 + 1
        (tmp_path / "mended").touch()
        summary = tier0.run(*files, progress=False)
        assert (summary[8].stage, summary.exit_code) == (Stage.CERTIFIED, 0), summary.text()
        assert "fault" not in tier0.why(8)
    # Of the failed branch too, what was good is not done again.
    assert (work(plain)[step.value], done_again(plain)) == (before + 1, 0)
    undisturbed = house("undisturbed")
    with Tier0(undisturbed) as tier0:
        tier0.run(*files, progress=False)
    assert results(plain) == results(undisturbed)
