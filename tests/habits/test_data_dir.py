"""The real data are found, or missed aloud."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import find_data


def test_the_variable_goes_first(tmp_path: Path) -> None:
    (tmp_path / "shared" / "data").mkdir(parents=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert find_data({"TIER0_DATA": str(elsewhere)}, tmp_path / "main") == elsewhere
    assert find_data({}, tmp_path / "main") == tmp_path / "shared" / "data"


def test_missing_data_skip_at_home_and_fail_in_ci(tmp_path: Path) -> None:
    with pytest.raises(pytest.skip.Exception, match="set TIER0_DATA"):
        find_data({}, tmp_path / "main")
    with pytest.raises(pytest.fail.Exception, match="set TIER0_DATA"):
        find_data({"CI": "true"}, tmp_path / "main")
