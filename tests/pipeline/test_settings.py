"""Settings: what is not known is refused with what may have been meant, and values differ by run range."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from calib.algorithms.beamspot import BeamSpot
from calib.algorithms.channel_status import ChannelStatus
from calib.algorithms.gain import Gain
from calib.algorithms.occupancy_status import OccupancyStatus
from calib.algorithms.pedestal import Pedestal
from calib.boundaries import Interval
from calib.state import State
from jobs.cluster_settings import Kind
from pipeline.lineage import lineage
from pipeline.mistakes import SettingsError
from pipeline.quantities import Runs, parse_bytes, parse_seconds, parse_share, seconds_text
from pipeline.settings import (
    Settings,
    apply_calibration_settings,
    check_settings,
    load_settings,
    make_experiment,
    settings_from,
)

EXPERIMENT: dict[str, Any] = {"experiment": {"name": "toy_collider"}}

FULL = """
[experiment]
name = "toy_collider"
settings = { seed = 3 }

[storage]
area = "area"
database = "area/db.sqlite"

[cluster]
kind = "slurm"
workers = 4
memory = "2 GB"
directives = ["--constraint=rome"]

[express]
fraction = 0.1

[splitting]
events = 2000
bytes = "64 MB"

[calibration.beamspot]
granularity = "span"

[[gates.beamspot]]
gate = "move"
limit = 3.0

[handshake]
required = ["beamspot"]
deadline = "36h"
failed = "fallback"

[certify]
mask = "golden.json"

[prompt]
tiers = ["NANO"]

[eras]
2012A = "190456-193621"

[[for]]
era = "2012A"
express = { fraction = "1/3" }
calibration = { beamspot = { min_tracks = 50 } }
gates = { beamspot = [] }

[[for]]
runs = "200000-"
handshake = { deadline = "10s" }
splitting = { events = 10 }
"""
OF_THE_TOY = FULL.replace("settings = { seed = 3 }\n", "").replace(
    '"move"\nlimit = 3.0', '"min_entries"\narray = "tracks"\nminimum = 3'
)
"""the same where the experiment has nothing to say against it"""


def mistakes(changes: dict[str, Any]) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as problem:
        settings_from({**EXPERIMENT, **changes})
    return problem.value.mistakes


def write(folder: Path, text: str) -> Path:
    path = folder / "tier0.toml"
    path.write_text(text, encoding="utf-8")
    return path


# reading


def test_everything_is_read(tmp_path: Path) -> None:
    found = load_settings(write(tmp_path, FULL))
    assert found.experiment.settings == {"seed": 3}
    assert (found.cluster.kind, found.cluster.directives) == (Kind.SLURM, ("--constraint=rome",))
    assert found.express.fraction == Fraction(1, 10)
    assert (found.splitting.bytes, found.handshake.deadline_s) == (64_000_000, 36 * 3600)
    assert found.handshake.required == ("beamspot",)
    assert found.prompt.tiers == ("NANO",)
    assert found.gates["beamspot"][0]["limit"] == 3.0


def test_only_the_experiment_must_be_said() -> None:
    found = settings_from(EXPERIMENT)
    assert (found.express.fraction, found.cluster.kind, found.handshake.deadline_s) == (1, Kind.LOCAL, 48 * 3600)
    assert found.for_run(5) == found
    assert mistakes({"experiment": {}}) == ("missing setting `experiment.name`",)


def test_paths_count_from_the_folder_of_the_file(tmp_path: Path) -> None:
    found = load_settings(write(tmp_path, FULL))
    assert found.storage.area == str(tmp_path / "area")
    assert found.storage.database == str(tmp_path / "area" / "db.sqlite")
    assert found.certify.mask == str(tmp_path / "golden.json")
    text = '[experiment]\nname = "x"\n[storage]\narea = "/data"\ndatabase = "postgresql://me@host/tier0"\n'
    found = load_settings(write(tmp_path, text))
    assert (found.storage.area, found.storage.database) == ("/data", "postgresql://me@host/tier0")
    assert settings_from(EXPERIMENT).storage.area == "tier0-area"


def test_settings_are_frozen() -> None:
    found = settings_from(EXPERIMENT)
    with pytest.raises(ValidationError, match="frozen"):
        found.express.fraction = Fraction(1, 2)  # type: ignore[misc]


def test_plain_values_name_a_lineage_and_are_read_back(tmp_path: Path) -> None:
    found = load_settings(write(tmp_path, FULL))
    for one in (found, found.for_run(190456), settings_from(EXPERIMENT)):
        plain = one.model_dump()
        assert settings_from(json.loads(json.dumps(plain))) == one
        assert lineage(settings=plain) == lineage(settings=one.model_dump(mode="json"))
    assert lineage(settings=settings_from({**EXPERIMENT, "express": {"fraction": "2/4"}}).model_dump()) == lineage(
        settings=settings_from({**EXPERIMENT, "express": {"fraction": 0.5}}).model_dump()
    )


def test_text_in_force_is_read_back(tmp_path: Path) -> None:
    found = load_settings(write(tmp_path, FULL))
    text = found.as_text()
    assert settings_from(tomllib.loads(text)) == found
    assert 'deadline = "36h"' in text
    assert 'fraction = "1/10"' in text
    bare = settings_from(EXPERIMENT)
    assert settings_from(tomllib.loads(bare.as_text())) == bare


@given(
    st.recursive(
        st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    )
)
def test_any_own_settings_survive_as_text(value: Any) -> None:
    found = settings_from({"experiment": {"name": "x", "settings": {"a b": value, "c": {"d": value}}}})
    assert settings_from(tomllib.loads(found.as_text())) == found


def test_reading_settings_needs_neither_numpy_nor_dask() -> None:
    heavy = "dask distributed numpy awkward uproot zarr sqlalchemy scipy"
    code = f"import sys, pipeline.settings; print([name for name in '{heavy}'.split() if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


# mistakes


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"express": {"fracton": 0.1}}, "unknown setting `express.fracton`: did you mean `fraction`?"),
        ({"expres": {"fraction": 0.1}}, "unknown setting `expres`: did you mean `express`?"),
        ({"fraction": 0.1}, "unknown setting `fraction`: did you mean `express.fraction`?"),
        ({"certify": {"deadline": "1h"}}, "unknown setting `certify.deadline`: did you mean `handshake.deadline`?"),
        ({"cluster": {"kynd": "local"}}, "unknown setting `cluster.kynd`: did you mean `kind`?"),
        ({"certify": {"xyz": 1}}, "unknown setting `certify.xyz`: there are mask"),
        ({"splitting": {"events": "many"}}, "`splitting.events` is 'many': a whole number is expected"),
        ({"splitting": {"events": 1.5}}, "`splitting.events` is 1.5: a whole number is expected"),
        ({"splitting": {"events": True}}, "`splitting.events` is True: a whole number is expected"),
        ({"splitting": {"events": 0}}, "`splitting.events` is 0: it should be greater than or equal to 1"),
        ({"splitting": {"bytes": "64"}}, "`splitting.bytes`: '64' is not a size; write '64 MB' or '1 GiB'"),
        ({"conditions": {"initial": "yes"}}, "`conditions.initial` is 'yes': true or false is expected"),
        ({"prompt": {"tiers": "AOD"}}, "`prompt.tiers` is 'AOD': a list is expected"),
        ({"prompt": {"tiers": [1]}}, "`prompt.tiers[0]` is 1: a text is expected"),
        ({"express": 3}, "`express` is 3: a table is expected"),
        ({"gates": {"beamspot": {"gate": "move"}}}, "`gates.beamspot` is {'gate': 'move'}: a list is expected"),
        ({"handshake": {"failed": "retry"}}, "`handshake.failed` is 'retry': say 'wait' or 'fallback'"),
        ({"handshake": {"deadline": "2 moons"}}, "`handshake.deadline`: '2 moons' is not a time"),
        ({"cluster": {"kind": "lsf"}}, "`cluster.kind` is 'lsf': say 'local', 'slurm', 'htcondor' or 'address'"),
        ({"cluster": {"kind": "slurm"}}, "`cluster`: kind is slurm: say workers too"),
        ({"express": {"fraction": 0}}, "`express.fraction`: 0 is no share above 0 and up to 1; write 0.1 or '1/3'"),
        ({"for": [{"runs": "1-5", "cluster": {}}]}, "unknown setting `for[0].cluster`: there are calibration, canary"),
        ({"for": [{"runs": "1-5", "express": {"fracton": 1}}]}, "unknown setting `for[0].express.fracton`: did you"),
        ({"for": [{"runs": "1-5", "splitting": {"events": 0}}]}, "`for[0].splitting.events` is 0"),
        ({"for": [{"express": {}}]}, "`for[0]`: say for which `runs`, or for which `era`"),
        ({"for": [{"runs": "1", "era": "A"}]}, "`for[0]`: say for which `runs`, or for which `era`"),
        ({"for": [{"era": "B"}], "eras": {"A": "1-5"}}, "`for[0]`: the era 'B' is not among [eras]: A"),
        ({"for": [{"runs": "5-1"}]}, "`for[0]`: the run range '5-1' ends before it begins"),
        ({"for": [{"runs": "now"}]}, "`for[0]`: 'now' is no run range; write '190456-193621', '190456' or"),
        ({"for": [{"runs": "1-5"}, {"runs": "5"}]}, "`for[1]` and `for[0]` have runs in common"),
        ({"for": {"runs": "1-5"}}, "`for` is {'runs': '1-5'}: a list is expected"),
    ],
)
def test_a_mistake_is_named_with_what_to_write(changes: dict[str, Any], said: str) -> None:
    found = mistakes(changes)
    assert len(found) == 1
    assert found[0].startswith(said)


def test_all_mistakes_are_said_at_once_with_the_name_of_the_file(tmp_path: Path) -> None:
    text = (
        OF_THE_TOY.replace("fraction = 0.1", "fracton = 0.1").replace("events = 10", "evnts = 10").replace("36h", "36")
    )
    path = write(tmp_path, text)
    with pytest.raises(SettingsError) as problem:
        load_settings(path)
    assert str(problem.value).splitlines() == [
        f"{path}: 3 mistakes",
        "  - unknown setting `express.fracton`: did you mean `fraction`?",
        "  - `handshake.deadline`: '36' is not a time; write '48h', '30min' or '10s'",
        "  - unknown setting `for[1].splitting.evnts`: did you mean `events`?",
    ]


def test_one_mistake_is_one_line(tmp_path: Path) -> None:
    path = write(tmp_path, OF_THE_TOY.replace("fraction = 0.1", "fracton = 0.1"))
    with pytest.raises(SettingsError) as problem:
        load_settings(path)
    assert str(problem.value) == f"{path}: unknown setting `express.fracton`: did you mean `fraction`?"


def test_files_that_cannot_be_read_say_so(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(tmp_path / "none.toml")
    with pytest.raises(SettingsError, match=r"is not TOML: .*line 1"):
        load_settings(write(tmp_path, "[experiment\n"))
    (tmp_path / "tier0.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(tmp_path / "tier0.toml")
    with pytest.raises(SettingsError, match="unknown setting `overrides`: did you mean `for`"):
        load_settings(write(tmp_path, '[experiment]\nname = "x"\n[[overrides]]\nruns = "1"\n'))


# run ranges


@pytest.mark.parametrize(
    ("run", "fraction", "events", "deadline"),
    [
        (190455, Fraction(1, 10), 2000, 36 * 3600),
        (190456, Fraction(1, 3), 2000, 36 * 3600),
        (193621, Fraction(1, 3), 2000, 36 * 3600),
        (193622, Fraction(1, 10), 2000, 36 * 3600),
        (200000, Fraction(1, 10), 10, 10),
        (999999, Fraction(1, 10), 10, 10),
    ],
)
def test_a_run_has_the_values_of_its_range(
    tmp_path: Path, run: int, fraction: Fraction, events: int, deadline: float
) -> None:
    found = load_settings(write(tmp_path, FULL)).for_run(run)
    assert (found.express.fraction, found.splitting.events, found.handshake.deadline_s) == (fraction, events, deadline)
    assert found.overrides == ()
    assert found.splitting.bytes == 64_000_000


def test_tables_are_filled_in_and_lists_replaced(tmp_path: Path) -> None:
    found = load_settings(write(tmp_path, FULL)).for_run(190456)
    assert found.calibration == {"beamspot": {"granularity": "span", "min_tracks": 50}}
    assert found.gates == {"beamspot": ()}


ranges = st.tuples(st.integers(1, 50), st.none() | st.integers(1, 50)).filter(lambda r: r[1] is None or r[1] >= r[0])


@given(ranges, ranges)
def test_ranges_overlap_when_a_run_is_in_both(left: tuple[int, int | None], right: tuple[int, int | None]) -> None:
    one, two = Runs(*left), Runs(*right)
    assert one.overlaps(two) == any(one.has(run) and two.has(run) for run in range(1, 60))
    assert Runs.parse(f"{one.first}-{'' if one.last is None else one.last}") == one


# quantities


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("48h", 172800), ("30 min", 1800), ("10s", 10), ("1h 30min", 5400), ("0.5 s", 0.5), ("2 days", 172800), (0, 0)],
)
def test_times(text: Any, seconds: float) -> None:
    assert parse_seconds(text) == seconds
    assert parse_seconds(seconds_text(seconds)) == seconds


@given(st.floats(0, 1e9))
def test_every_time_is_read_back(seconds: float) -> None:
    assert parse_seconds(seconds_text(seconds)) == seconds


@pytest.mark.parametrize("value", ["", "h", "1 x", "1h x", "-1h", -1, True, None, "1..5h", float("inf")])
def test_what_is_no_time(value: Any) -> None:
    with pytest.raises(ValueError, match="write '48h', '30min' or '10s'"):
        parse_seconds(value)


@pytest.mark.parametrize(("text", "size"), [("64 MB", 64_000_000), ("1KiB", 1024), (5, 5), ("1.5 GB", 1_500_000_000)])
def test_sizes(text: Any, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("value", ["", "5", 0, True, "5 mb", 1.5])
def test_what_is_no_size(value: Any) -> None:
    with pytest.raises(ValueError, match="write '64 MB' or '1 GiB'"):
        parse_bytes(value)


@pytest.mark.parametrize(
    ("value", "share"), [(0.1, Fraction(1, 10)), ("1/3", Fraction(1, 3)), (1, Fraction(1)), ("0.25", Fraction(1, 4))]
)
def test_shares_are_exact(value: Any, share: Fraction) -> None:
    assert parse_share(value) == share


@pytest.mark.parametrize("value", [0, 1.5, -0.1, "a", "1/0", True, None])
def test_what_is_no_share(value: Any) -> None:
    with pytest.raises(ValueError, match="no share above 0"):
        parse_share(value)


def test_a_share_too_fine_for_exact_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match="simpler share"):
        parse_share("1/4294967296")


# calibrations, gates, experiments


class Cut(StrEnum):
    RUN = "run"
    SPAN = "span"


@dataclass(frozen=True, kw_only=True)
class Spot:
    kind: ClassVar[str] = "beamspot"

    granularity: Cut = Cut.RUN
    min_tracks: int = 100
    edges: tuple[float, ...] = (0.0, 1.0)
    limit: float | None = None

    def __post_init__(self) -> None:
        if self.min_tracks < 1:
            raise ValueError(f"min_tracks must be 1 or more, not {self.min_tracks}")


@dataclass(frozen=True, kw_only=True)
class Channels:
    kind: ClassVar[str] = "channel_status"

    sigmas: float = 5.0


MADE = (Spot(), Channels())


def test_calibrations_take_their_tables() -> None:
    table = {"granularity": "span", "min_tracks": 5, "edges": [1, 2, 3], "limit": 4}
    spot, channels = apply_calibration_settings(MADE, {"beamspot": table})
    assert spot == Spot(granularity=Cut.SPAN, min_tracks=5, edges=(1.0, 2.0, 3.0), limit=4.0)
    # Not the words of the table: a lineage must not depend on how a value was written.
    assert isinstance(spot, Spot)
    assert type(spot.limit) is float
    assert spot.granularity is Cut.SPAN
    assert channels == Channels()
    assert apply_calibration_settings(MADE, {}) == MADE


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"beamspt": {}}, "unknown setting `calibration.beamspt`: did you mean `beamspot`?"),
        (
            {"beamspot": {"min_track": 5}},
            "unknown setting `calibration.beamspot.min_track`: did you mean `min_tracks`?",
        ),
        ({"beamspot": {"kind": "x"}}, "unknown setting `calibration.beamspot.kind`: there are edges"),
        ({"beamspot": {"min_tracks": "5"}}, "`calibration.beamspot.min_tracks` is '5': a whole number is expected"),
        ({"beamspot": {"granularity": "fill"}}, "`calibration.beamspot.granularity` is 'fill': say 'run' or 'span'"),
        ({"beamspot": {"limit": float("nan")}}, "`calibration.beamspot.limit`"),
        ({"beamspot": {"edges": 1.0}}, "`calibration.beamspot.edges` is 1.0: a list is expected"),
        ({"beamspot": {"edges": ["a"]}}, "`calibration.beamspot.edges[0]` is 'a': a number is expected"),
        ({"beamspot": {"min_tracks": 0}}, "`calibration.beamspot`: min_tracks must be 1 or more, not 0"),
    ],
)
def test_mistakes_in_calibrations(tables: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as problem:
        apply_calibration_settings(MADE, tables)
    assert [mistake.startswith(said) for mistake in problem.value.mistakes] == [True]


@pytest.mark.parametrize(
    ("calibration", "granularity"),
    [(Pedestal(channels=8), "span"), (Pedestal(channels=8), "lumi"), (Gain(groups=2), "lumi")],
)
def test_intervals_for_which_there_is_no_rule_are_refused_before_anything_is_made(
    calibration: Pedestal | Gain, granularity: str
) -> None:
    with pytest.raises(SettingsError, match=f"has no rule for granularity {granularity}; use 'run'"):
        apply_calibration_settings([calibration], {calibration.kind: {"granularity": granularity}})
    for sound in (Gain(groups=2), BeamSpot(), ChannelStatus(channels=8), OccupancyStatus(channels=8)):
        apply_calibration_settings([sound], {sound.kind: {"granularity": "span"}})


class EndsAtTheLast(Pedestal):
    """A user's rule for intervals that thinks of no span without events."""

    kind = "ends_at_the_last"

    def cut(self, state: State, flush: bool) -> list[Interval]:
        units = tuple(state.units().tolist())
        return [Interval(units, closed=units[-1] > 0 or flush)]


def test_a_rule_for_intervals_that_fails_without_events_is_refused_before_anything_is_made() -> None:
    said = "`calibration.ends_at_the_last`: `cut` fails where there are no events: IndexError: "
    with pytest.raises(SettingsError) as problem:
        apply_calibration_settings([EndsAtTheLast(channels=8)], {"ends_at_the_last": {"granularity": "span"}})
    assert [mistake.startswith(said) for mistake in problem.value.mistakes] == [True]


def gate(table: dict[str, Any]) -> object:
    if table.get("gate") != "move":
        raise ValueError(f"no gate {table.get('gate')!r}")
    return object()


def test_settings_are_held_to_the_experiment_for_all_runs() -> None:
    wrong = settings_from(
        {
            **EXPERIMENT,
            "calibration": {"beamspot": {"min_track": 5}},
            "gates": {"beamspt": [{"gate": "move"}], "beamspot": [{"gate": "move"}, {"gate": "mov"}]},
            "handshake": {"required": ["pedestal"]},
            "for": [
                {"runs": "1", "calibration": {"beamspot": {"min_tracks": "5"}}},
                {"runs": "2", "gates": {"beamspot": [{"gate": "x"}]}, "handshake": {"required": ["y"]}},
            ],
        }
    )
    with pytest.raises(SettingsError) as problem:
        check_settings(wrong, MADE, ["beamspot", "channel_status"], gate)
    assert problem.value.mistakes == (
        "unknown setting `calibration.beamspot.min_track`: did you mean `min_tracks`?",
        "unknown setting `gates.beamspt`: did you mean `beamspot`?",
        "`gates.beamspot[1]`: no gate 'mov'",
        "`handshake.required`: there is no kind 'pedestal'; there are beamspot, channel_status",
        "`for[0].calibration.beamspot.min_tracks` is '5': a whole number is expected",
        "`for[1].gates.beamspot[0]`: no gate 'x'",
        "`for[1].handshake.required`: there is no kind 'y'; there are beamspot, channel_status",
    )
    check_settings(Settings.model_validate(EXPERIMENT), MADE, ["beamspot"], gate)


def test_what_two_tables_have_wrong_together_is_said() -> None:
    table = {"runs": "1-5", "calibration": {"beamspot": {"granularity": "span"}}}
    plain = {**EXPERIMENT, "calibration": {"beamspot": {"rule": "cms"}}, "for": [table, {**table, "runs": "7"}]}
    with pytest.raises(SettingsError) as problem:
        check_settings(settings_from(plain), [BeamSpot()], ["beamspot"], str)
    said = "calibration.beamspot`: `rule` = 'cms' cuts run by run: `granularity` 'span' needs 'running_mean'"
    assert problem.value.mistakes == (f"`for[0].{said}", f"`for[1].{said}")


def test_an_experiment_is_made_under_its_own_settings() -> None:
    name = "tests.pipeline.tiny:Tiny"
    assert make_experiment(settings_from({"experiment": {"name": name, "settings": {"cut": 5.0}}})).settings.cut == 5.0
    wrong = settings_from({"experiment": {"name": name, "settings": {"cot": 5.0}}})
    with pytest.raises(SettingsError, match=r"unknown setting `experiment\.settings\.cot`: did you mean `cut`"):
        make_experiment(wrong)
