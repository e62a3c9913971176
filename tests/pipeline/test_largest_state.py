"""A state that is too large is refused before it is stored; once it is allowed, the run goes on where it was."""

from pipeline.service import Stage
from pipeline.tier0 import Tier0
from tests.pipeline.tiny import write_file
from tests.pipeline.traces import done_again


def test_a_state_that_is_too_large_stops_its_run_until_it_is_allowed(house, tmp_path):
    files = [write_file(tmp_path / "a.root", 7), write_file(tmp_path / "b.root", 8)]
    small = {"runs": "8", "express": {"largest_state": 50}}
    with Tier0(house(**{"for": [small]})) as tier0:
        summary = tier0.run(*files, progress=False)
        assert [row.stage for row in summary.rows] == [Stage.CERTIFIED, Stage.STOPPED]
        assert "set `largest_state` of [express] to " in tier0.why(8)
        assert "2 units x " in tier0.why(8)
    plain = house()
    with Tier0(plain) as tier0:
        summary = tier0.run(*files, progress=False)
        assert [row.stage for row in summary.rows] == [Stage.CERTIFIED, Stage.CERTIFIED]
        assert (summary.version, summary.exit_code) == (1, 0)
    assert done_again(plain) == 0
