"""What comes out of the collisions, against the distributions it is said to have."""

import numpy as np
import pytest
from scipy import stats

from calib.iov import RunLumi
from pipeline.experiments.ref10.simulate.dimuons import MUON_MASS, RESONANCES, breit_wigner
from pipeline.experiments.ref10.simulate.particles import collisions, headers, poisson
from pipeline.experiments.ref10.simulate.scenario import Beam, Physics, Region
from pipeline.experiments.ref10.simulate.streams import Streams

EVENTS = np.arange(1, 4001)
REGION = Region(0.08, -0.04, 0.5, 15e-4, 20e-4, 4.0, 2e-4, -1e-4)
LEAST_P = 1e-4
"""of a test of a distribution: 4 sigma"""


def made(physics, events=EVENTS, region=REGION, seed=1):
    streams = Streams(seed, 1, 3)
    header = headers(physics, 3, streams, events)
    return header, *collisions(physics, region, header, streams, events)


BIAS = made(Physics(pile_up=1.0, z=0.0, jpsi=0.0, nzs=0.25))
MUONS = made(Physics(pile_up=0.0, tracks=0.0, z=0.5, jpsi=0.5))


def within(found, wanted, error, sigmas=4.5):
    assert abs(found - wanted) < sigmas * error, f"{found} is {(found - wanted) / error:.1f} sigma from {wanted}"


def test_vertices_are_one_and_a_poisson_number_more():
    header, vertices, _ = BIAS
    extra = header.vertices - 1
    observed = np.bincount(extra, minlength=5)[:5]
    wanted = len(EVENTS) * stats.poisson.pmf(np.arange(5), 1.0)
    assert stats.chi2.sf(((observed - wanted) ** 2 / wanted).sum(), 5) > LEAST_P
    assert (np.bincount(vertices.event) == header.vertices).all()


def test_poisson_quantiles():
    uniform = np.array([0.0, np.exp(-2.0) - 1e-12, np.exp(-2.0) + 1e-12, 1 - 2.0**-53])
    assert poisson(uniform, 2.0)[:3].tolist() == [0, 0, 1]
    assert poisson(uniform, 2.0)[3] < 40
    assert poisson(uniform, 0.0).tolist() == [0, 0, 0, 0]


def test_the_luminous_region_has_its_widths_and_tilt():
    _, vertices, _ = BIAS
    n = len(vertices.z)
    along = vertices.z - REGION.z
    within(vertices.z.mean(), 0.5, 4 / np.sqrt(n))
    within(vertices.z.std(), 4.0, 4 / np.sqrt(2 * n))
    for place, centre, slope, width in (
        (vertices.x, REGION.x, REGION.dxdz, REGION.width_x),
        (vertices.y, REGION.y, REGION.dydz, REGION.width_y),
    ):
        found, constant = np.polyfit(along, place, 1)
        within(found, slope, width / 4 / np.sqrt(n))
        within(constant, centre, width / np.sqrt(n))
        rest = (place - centre - slope * along) / width
        within(rest.std(), 1, 1 / np.sqrt(2 * n))
        assert stats.kstest(rest, "norm").pvalue > LEAST_P


def test_the_luminous_region_steps():
    beam = Beam()
    x = {}
    for lumi in (11, 12):
        _, vertices, _ = made(Physics(tracks=0.0), region=beam.at(RunLumi(1, lumi)))
        x[lumi] = vertices.x - beam.start.dxdz * (vertices.z - beam.start.z)
    error = 15e-4 * np.sqrt(1 / len(x[11]) + 1 / len(x[12]))
    # The same random numbers in both, as only the region differs.
    assert x[12].mean() - x[11].mean() == pytest.approx(41.5e-4, abs=error)
    within(x[12].mean(), beam.at(RunLumi(1, 12)).x, error)


def test_tracks_of_a_vertex_are_negative_binomial():
    _, vertices, particles = BIAS
    number = np.bincount(particles.vertex, minlength=len(vertices.event))
    edges = np.array([0, 1, 2, 3, 5, 8, 12, 18, 27, 1000])
    observed = np.histogram(number, edges)[0]
    wanted = len(number) * np.diff(stats.nbinom.cdf(edges - 1, 2, 2 / 12))
    assert stats.chi2.sf(((observed - wanted) ** 2 / wanted).sum(), len(wanted) - 1) > LEAST_P
    # Variance of a negative binomial: m + m^2 / k.
    within(number.mean(), 10, np.sqrt((10 + 50) / len(number)))


def test_spectra_of_minimum_bias():
    _, _, particles = BIAS
    n = len(particles.pt)
    for threshold in (0.5, 1.0, 3.0):
        share = 0.95 * np.exp(-(threshold - 0.3) / 0.5) + 0.05 * np.exp(-(threshold - 0.3) / 2.0)
        within((particles.pt > threshold).mean(), share, np.sqrt(share / n))
    assert particles.pt.min() >= 0.3
    assert stats.kstest(particles.eta, stats.uniform(-1, 2).cdf).pvalue > LEAST_P
    assert stats.kstest(particles.phi, stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > LEAST_P
    within((particles.charge > 0).mean(), 0.5, 0.5 / np.sqrt(n))
    assert (particles.pdg == 211 * particles.charge.astype(int)).all()


def test_particles_lie_in_the_order_of_events_with_their_vertices():
    for header, vertices, particles in (BIAS, MUONS):
        assert (np.diff(particles.event) >= 0).all()
        assert (vertices.event[particles.vertex] == particles.event).all()
        assert len(header.trig) == len(EVENTS)


def test_triggers_and_times():
    header, _, _ = BIAS
    assert set(header.trig.tolist()) == {1, 5}
    within((header.trig == 5).mean(), 0.25, np.sqrt(0.25 * 0.75 / len(EVENTS)))
    assert (header.nzs == (header.trig == 5)).all()
    dimuon, _, _ = MUONS
    assert set(dimuon.trig.tolist()) == {2}
    within((dimuon.process == 1).mean(), 0.5, 0.5 / np.sqrt(len(EVENTS)))
    assert stats.kstest(header.bx / 3564, "uniform").pvalue > LEAST_P
    assert stats.kstest(header.orbit / 2**18 - 2, "uniform").pvalue > LEAST_P


def pairs(process):
    """Momenta [3, pairs] of the negative and positive muons of a process, and the mass of the pair."""
    header, _, particles = MUONS
    own = np.flatnonzero(header.process[particles.event] == process)
    momenta = []
    for sign in (-1, 1):
        muon = own[particles.charge[own] == sign]
        pt, eta, phi = particles.pt[muon], particles.eta[muon], particles.phi[muon]
        momenta.append(np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)]))
    energies = [np.sqrt(MUON_MASS**2 + (p**2).sum(axis=0)) for p in momenta]
    mass = np.sqrt(sum(energies) ** 2 - (sum(momenta) ** 2).sum(axis=0))
    return momenta, mass


def test_z_has_the_shape_of_its_line():
    _, mass = pairs(1)
    resonance = RESONANCES[0]
    low, high = (breit_wigner(edge, resonance) for edge in (60, 120))

    def cumulative(m):
        return (np.arctan2(2 * (m - 91.1876), 2.4952) / np.pi + 0.5 - low) / (high - low)

    assert len(mass) > 1500
    assert stats.kstest(mass, cumulative).pvalue > LEAST_P
    # The quartiles of a Breit-Wigner lie at half the width from its middle.
    inner = (np.abs(mass - 91.1876) < 2.4952 / 2).mean() * (high - low)
    within(inner, 0.5, 0.5 / np.sqrt(len(mass)))
    assert mass.min() > 60 and mass.max() < 120


def test_jpsi_has_its_mass_and_momentum():
    (first, second), mass = pairs(2)
    assert np.allclose(mass, 3.0969, atol=1e-6)
    pt = np.hypot(*(first + second)[:2])
    assert pt.min() > 5 and pt.max() < 15


@pytest.mark.parametrize(("process", "least"), [(1, 15.0), (2, 1.5)])
def test_muons_are_in_the_acceptance_and_prefer_no_direction(process, least):
    momenta, mass = pairs(process)
    n = len(mass)
    for p in momenta:
        pt = np.hypot(p[0], p[1])
        assert pt.min() > least
        assert np.abs(np.arcsinh(p[2] / pt)).max() < 1
        assert stats.kstest(np.arctan2(p[1], p[0]), stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > LEAST_P
        within(p[2].mean(), 0, p[2].std() / np.sqrt(n))
    # Decays are isotropic: neither muon is the harder one.
    difference = np.hypot(*momenta[0][:2]) - np.hypot(*momenta[1][:2])
    within(difference.mean(), 0, difference.std() / np.sqrt(n))


def test_decays_prefer_no_azimuth_about_the_flight_of_their_parent():
    """What the acceptance removes is even under a mirror and under a half turn, and the decay is isotropic."""
    (first, second), _ = pairs(2)
    parent = first + second
    along = parent / np.linalg.norm(parent, axis=0)
    upward = np.array([[0.0], [0.0], [1.0]]) - along[2] * along
    upward /= np.linalg.norm(upward, axis=0)
    sideways = np.cross(along, upward, axis=0)
    azimuth = np.arctan2((first * sideways).sum(axis=0), (first * upward).sum(axis=0))
    n = len(azimuth)
    for moment in (np.sin(azimuth), np.cos(azimuth), np.sin(2 * azimuth)):
        within(moment.mean(), 0, np.sqrt(0.5 / n))


def test_muons_are_the_same_however_many_are_asked_for():
    physics = Physics(pile_up=0.0, tracks=0.0, z=0.5, jpsi=0.5)
    _, _, some = made(physics, EVENTS[1200:1210])
    chosen = (MUONS[2].event >= 1200) & (MUONS[2].event < 1210)
    for name in ("pt", "eta", "phi"):
        assert (getattr(some, name) == getattr(MUONS[2], name)[chosen]).all()


def test_no_tracks_and_no_events_are_no_fault():
    _, _, none = made(Physics(tracks=0.0, z=0.0, jpsi=0.0), EVENTS[:5])
    assert len(none.pt) == 0
    header, vertices, particles = made(Physics(), EVENTS[:0])
    assert len(header.trig) == len(vertices.x) == len(particles.pt) == 0
