"""The settings of a simulation, and the conditions that are true under them."""

from dataclasses import replace

import numpy as np
import pytest

from calib.iov import RunLumi
from pipeline.experiments.ref10.alignment import frames
from pipeline.experiments.ref10.constants import ROC_COLUMNS, design
from pipeline.experiments.ref10.geometry import full_geometry, geometry_of, mini_geometry
from pipeline.experiments.ref10.running import RunClass, Status
from pipeline.experiments.ref10.simulate.faults import Faults, Misalignment, When
from pipeline.experiments.ref10.simulate.scenario import DEAD, HOT, Beam, Physics, Scenario, online, tables_of, truth
from pipeline.experiments.ref10.simulate.spells import Spell
from pipeline.experiments.ref10.simulate.tables import Electronics

FULL, MINI = geometry_of(full_geometry()), geometry_of(mini_geometry())
DEFAULT = Scenario()
STRIPS = len(FULL.strip_rows) * 768


def within(found, wanted, error, sigmas=4.5):
    assert abs(found - wanted) < sigmas * error, f"{found} is {(found - wanted) / error:.1f} sigma from {wanted}"


def test_a_scenario_goes_to_text_and_back():
    changed = Scenario(
        physics=Physics(pile_up=2.0),
        faults=Faults(dead_roc=When("3:7", until="9")),
        tangents=(0.3, 0.05),
        spells=(Spell(When("4"), (Status.STRIPS_ON,), RunClass.COSMICS, 0.0),),
    )
    assert Scenario.from_json(changed.to_json()) == changed != DEFAULT
    assert Scenario.from_json("{}") == DEFAULT
    assert hash(Scenario.from_json(changed.to_json())) == hash(changed)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"physics": {"pileup": 2}}', "unknown setting `physics.pileup`: did you mean `pile_up`?"),
        ('{"field": 3.8}', "unknown setting `field`: did you mean `field_tesla`?"),
        ('{"faults": {"dead_strips": 3}}', "dead_strips is a share"),
        ('{"faults": {"dead_chips": -1}}', "dead_chips cannot be negative"),
        ('{"faults": {"hot": {"since": "later"}}}', "is not a run or run:lumi"),
        ('{"faults": {"hot": {"since": "5", "until": "4"}}}', "must end after it begins"),
        ('{"physics": {"z": 0.6, "jpsi": 0.6}}', "shares must lie between"),
        ('{"electronics": {"noise": 0}}', "must have some noise"),
        ('{"electronics": {"pedestal_spread": -1}}', "pedestal_spread cannot be negative, as -1.0 is"),
        ('{"electronics": {"noise_spread": -0.1}}', "noise_spread cannot be negative"),
        ('{"electronics": {"gain_spread": -0.1}}', "gain_spread cannot be negative"),
        ('{"electronics": {"common_mode": -2}}', "common_mode cannot be negative"),
        ('{"electronics": {"pixel_noise": -200}}', "pixel_noise cannot be negative"),
        ('{"misalignment": {"ladder_um": [20, 300]}}', "ladder_um must lie between 0 and 200"),
        ('{"misalignment": {"module_urad": [-1, 0]}}', "module_urad must lie between 0 and 1000"),
        ('{"beam": {"start": {"x": 3}}}', r"missing setting `beam\.start\.y`"),
        ('{"beam": {"drift_um": NaN}}', "finite number"),
        ('{"spells": [{"off": ["pixels_on"]}]}', r"missing setting `spells\[0\]\.when`"),
        (
            '{"spells": [{"when": {}, "off": ["voltage"]}]}',
            r"`spells\[0\]\.off\[0\]` is 'voltage': say 'stable_beams', 'magnet_on'",
        ),
        ('{"spells": [{"when": {}, "run_class": "holidays"}]}', "say 'collisions', 'cosmics'"),
        ('{"spells": [{"when": {"since": "3:2"}, "run_class": "cosmics"}]}', "a run has one class"),
        ('{"spells": [{"when": {"until": "3:2"}, "run_class": "cosmics"}]}', "a run has one class"),
        ('{"spells": [{"when": {"from_lumi": 2}, "run_class": "cosmics"}]}', "a run has one class"),
        ("{", "not written in JSON, such as .*: EOF"),
        ("[physics]\npile_up = 2", "not written in JSON"),
        ('["physics"]', "a table of tables"),
        ('{"physics": {"tracks": "many"}}', r"`physics\.tracks` is 'many'"),
        ('{"spells": [{"when": {"form_lumi": 2}}]}', r"did you mean `from_lumi`"),
    ],
)
def test_what_is_no_scenario_is_refused_by_name(text, told):
    with pytest.raises(ValueError, match=told):
        Scenario.from_json(text)


def test_beams_meet_inside_the_pipe():
    with pytest.raises(ValueError, match="beams meet within 1 cm"):
        replace(Beam().start, y=-1.5)
    with pytest.raises(ValueError, match="widths not negative"):
        replace(Beam().start, sigma_z=-4.0)
    with pytest.raises(ValueError, match="shift in um must lie between 0 and 500"):
        Misalignment(half_barrels=((0.0, 600.0, 0.0, 0.0, 0.0, 0.0),) * 4)


def test_when():
    always, late, once = When(), When(from_lumi=7), When(since="3:5", until="4")
    assert [always.holds(RunLumi(1, 1)), late.holds(RunLumi(9, 6)), late.holds(RunLumi(1, 7))] == [True, False, True]
    assert [once.holds(RunLumi(*at)) for at in [(3, 4), (3, 5), (3, 99), (4, 1)]] == [False, True, True, False]


def test_spells_change_how_the_detector_is_run_and_the_later_prevails():
    scenario = Scenario(
        spells=(
            Spell(When("3"), run_class=RunClass.COMMISSIONING, field_tesla=2.0),
            Spell(When("4", until="5"), run_class=RunClass.COSMICS, field_tesla=-1.9019),
            Spell(When("4:7", until="4:9"), off=(Status.MAGNET_ON, Status.STABLE_BEAMS)),
            Spell(When("5", from_lumi=2), off=(Status.STRIPS_ON,)),
        )
    )
    every = {"stable_beams": True, "magnet_on": True, "pixels_on": True, "strips_on": True}
    cases = {
        (2, 1): ("collisions", 3.8038, {}),
        (3, 1): ("commissioning", 2.0, {}),
        (4, 6): ("cosmics", -1.9019, {}),
        (4, 8): ("cosmics", 0.0, {"magnet_on": False, "stable_beams": False}),
        (4, 9): ("cosmics", -1.9019, {}),
        (5, 1): ("commissioning", 2.0, {}),
        (5, 2): ("commissioning", 2.0, {"strips_on": False}),
    }
    for (run, lumi), (run_class, field, bits) in cases.items():
        found = scenario.running(RunLumi(run, lumi))
        assert (found.run_class, found.field_tesla, found.status) == (run_class, field, every | bits), (run, lumi)
        true = truth(scenario, MINI, 1, run, lumi)
        assert float(true["field"]["tesla"]) == field
        # Charge drifts sideways as far as the field is strong.
        assert np.allclose(true["lorentz_angle"]["tan"], np.array([0.4] * 4 + [0.1] * 6) * field / 3.8038)
    # A field of 0 is a magnet that is off, whoever says so.
    assert not Scenario(field_tesla=0.0).running(RunLumi(1, 1)).status["magnet_on"]
    assert (Scenario(field_tesla=0.0).lorentz(RunLumi(1, 1)) == 0).all()


def test_the_beam_drifts_and_steps():
    beam = Beam()
    x = np.array([beam.at(RunLumi(1, lumi)).x for lumi in range(1, 16)])
    wanted = 0.08 + 1.5e-4 * np.arange(1, 16) + 40e-4 * (np.arange(1, 16) >= 12)
    assert np.allclose(x, wanted, atol=1e-12)
    assert beam.at(RunLumi(1, 5)) == replace(beam.start, x=beam.at(RunLumi(1, 5)).x)


def test_true_conditions_are_of_the_shapes_of_the_design():
    for geometry in (FULL, MINI):
        found = truth(DEFAULT, geometry, 1, 1, 1)
        assert set(found) == {*design(geometry), "geometry", "alignment", "field", "beamspot"}
        for kind, payload in design(geometry).items():
            assert {name: array.shape for name, array in found[kind].arrays.items()} == {
                name: array.shape for name, array in payload.arrays.items()
            }
        frames(geometry, found["alignment"])
    assert found["geometry"].id == mini_geometry().id
    assert truth(DEFAULT, FULL, 1, 1, 1)["geometry"].id == full_geometry().id
    assert float(found["field"]["tesla"]) == 3.8038
    assert found["lorentz_angle"]["tan"].tolist() == [0.4] * 4 + [0.1] * 6
    # The design is wrong by a tenth, for the calibration to find.
    assert design(FULL)["lorentz_angle"]["tan"].tolist() == [0.36] * 4 + [0.09] * 6
    beam = found["beamspot"]
    assert [float(beam[name]) for name in ("x", "y", "z")] == pytest.approx([0.08 + 1.5e-4, -0.04, 0.5])


def test_channels_are_as_built():
    tables = tables_of(DEFAULT, FULL, 1)
    within(tables.pedestal.mean(), 100, 10 / np.sqrt(STRIPS))
    within(tables.pedestal.std(), 10, 10 / np.sqrt(2 * STRIPS))
    within(tables.noise.mean(), 4, 0.2 / np.sqrt(STRIPS))
    within(tables.noise.std(), 0.2, 0.2 / np.sqrt(2 * STRIPS))
    chips = STRIPS // 128
    within(tables.gain.mean(), 1, 0.1 / np.sqrt(chips))
    within(tables.gain.std(), 0.1, 0.1 / np.sqrt(2 * chips))
    whole = tables.dead.reshape(-1, 128).all(axis=1)
    assert whole.sum() == 2
    alone = STRIPS - 2 * 128
    within(tables.dead.sum() - 2 * 128, 0.003 * alone, np.sqrt(0.003 * alone))
    within(tables.hot.sum(), 0.001 * STRIPS * 0.997, np.sqrt(0.001 * STRIPS))
    assert not (tables.hot & tables.dead).any()
    within(tables.shifted.sum(), 0.05 * chips, np.sqrt(0.05 * 0.95 * chips))
    assert tables.dead_roc.sum() == 1


def test_a_dead_roc_is_one_that_the_module_has():
    many = replace(DEFAULT, faults=Faults(dead_rocs=3000))
    rows = FULL.rows[FULL.pixel]
    _, chip = np.nonzero(tables_of(many, FULL, 2).dead_roc)
    module, _ = np.nonzero(tables_of(many, FULL, 2).dead_roc)
    assert (80 * (chip // ROC_COLUMNS) < rows[module]).all()


def test_pedestals_have_moved_since_the_daq_looked():
    drifting = replace(DEFAULT, first_run=1)
    before = online(drifting, FULL, 1)
    now, later = (truth(drifting, FULL, 1, run, 1)["pedestal"] for run in (1, 21))
    tables = tables_of(drifting, FULL, 1)
    shifted = np.repeat(tables.shifted, 128)
    moved = now["mean"].astype(float) - before["mean"]
    assert np.abs(moved[~shifted]).max() == 0
    assert np.allclose(moved[shifted], before["noise"][shifted], atol=2e-5)
    drift = later["mean"].astype(float) - now["mean"]
    within(drift.std(), 20 * 0.05, 1 / np.sqrt(2 * STRIPS))
    assert (before["noise"] == now["noise"]).all()
    # Without a first run nothing drifts, whatever the number of the run.
    assert truth(DEFAULT, FULL, 1, 190_456, 1)["pedestal"].id == now.id


def test_faults_come_and_go():
    faults = Faults(hot=When(since="2"), dead=When(until="2"), shifted=When(since="3"), pedestal_drift=0.0)
    scenario = replace(DEFAULT, faults=faults)
    tables = tables_of(scenario, MINI, 1)
    for run in (1, 2, 3):
        found = truth(scenario, MINI, 1, run, 1)
        status = found["strip_status"]["status"]
        assert ((status == DEAD) == (tables.dead & (run < 2))).all()
        assert ((status == HOT) == (tables.hot & (run >= 2))).all()
        moved = found["pedestal"]["mean"] != online(scenario, MINI, 1)["mean"]
        assert moved.any() == (run >= 3)
    for lumi, dead in ((6, 0), (7, 1)):
        assert (truth(scenario, MINI, 1, 1, lumi)["pixel_status"]["status"] > 0).sum() == dead


def test_one_setting_changes_only_its_own_table():
    one = tables_of(DEFAULT, MINI, 1)
    other = tables_of(
        replace(DEFAULT, faults=Faults(hot_strips=0.1), electronics=Electronics(gain_spread=0.11)), MINI, 1
    )
    for name in ("pedestal", "noise", "drift", "shifted", "dead", "dead_roc"):
        assert (getattr(one, name) == getattr(other, name)).all()
    assert one.alignment.id == other.alignment.id
    assert one.hot.sum() < other.hot.sum()
    assert np.allclose(other.gain - 1, 1.1 * (one.gain - 1), atol=1e-6)
    assert (tables_of(DEFAULT, MINI, 2).pedestal != one.pedestal).any()


def test_structures_are_displaced_as_told():
    moved = tables_of(DEFAULT, FULL, 1).alignment
    assert np.allclose(moved["half_barrel"][:2, :3] * 1e4, [[50, -30, 40], [-20, 60, -80]])
    assert (moved["half_barrel"][2:] == 0).all()
    ladders, modules = moved["ladder"], moved["module"]
    pixel_ladders = 102
    for values, wanted in (
        (ladders[:pixel_ladders, :3], 20e-4),
        (ladders[pixel_ladders:, :3], 50e-4),
        (ladders[:, 3:], 20e-6),
        (modules[FULL.pixel, :3], 3e-4),
        (modules[~FULL.pixel, :3], 10e-4),
        (modules[:, 3:], 50e-6),
    ):
        within(values.std(), wanted, wanted / np.sqrt(2 * values.size))
        within(values.mean(), 0, wanted / np.sqrt(values.size))
    still = tables_of(replace(DEFAULT, misalignment=Misalignment.none()), MINI, 1).alignment
    assert all((array == 0).all() for array in still.arrays.values())
