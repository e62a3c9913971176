"""What wrong conditions do to tracks, vertices and masses: predicted beside seen, one function for each of them.

Tables are those of _ref10_played.py: of what was found under true conditions, and under wrong ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks._ref10_beliefs import Curl, FieldScaled, HalfBarrels
from benchmarks._ref10_claims import Damage
from benchmarks._ref10_formulas import (
    CURVATURE_GEV,
    PIXELS,
    UM,
    beyond,
    fit,
    random_curvature,
    shifted_d0,
    width_of_mixture,
)
from benchmarks._ref10_played import (
    Floats,
    Table,
    Tables,
    error_of,
    mean,
    off_of,
    share,
    true_tracks,
    width,
)
from pipeline.experiments.ref10.simulate.scenario import Region

TRUE = "true conditions"
LADDERS, BEAM, CURL, FIELD = "ladders 20 um", "beam spot (30, -20) um off", "curl, 50 um at r = 70 cm", "field +0.1 %"

SIGMA_D0 = {
    TRUE: (56.0, 18.3, 11.3),
    "half barrels": (66.0, 39.5, 41.0),
    "half barrels, twice that": (89.0, 73.0, 80.0),
}
SIGMA_D0 |= {LADDERS: (60.0, 24.5, 17.4)}
"""um, at 1, 5 and 20 GeV; as all figures of this table by the physics note, 11"""
PROFILE = {"half barrels": (37.0, 73.0), "half barrels, twice that": (74.0, None)}
"""rms and largest of the profile of d0 against phi [um]"""
MOMENTA = (1.0, 5.0, 20.0)
STIFF = 20.0
"""GeV, where profiles are looked at"""
MASSES = {"Z": (91.19, 30.0, "GeV", 1.0), "J/psi": (3.097, 0.5, "MeV", 1e3)}
"""mass and window [GeV], unit of widths, units in a GeV"""
SIGMA_M = {
    TRUE: {"Z": 0.84, "J/psi": 15.5},
    LADDERS: {"Z": 1.06},
    "strips 50 um": {"Z": 1.15, "J/psi": 16.5},
    "strips 150 um": {"Z": 2.46, "J/psi": 23.7},
}
GRID = (1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 30.0, 45.0, 70.0, 100.0)
"""GeV, at which fits are worked out"""
BINS = 24
"""of a profile"""
VERTEX_ERRORS = (20 * UM, 24 * UM)
"""of the vertices that are looked at: the note's have five tracks and 22 um"""
ETA_EDGES, PHI_BINS = (-1 / 3, 1 / 3), 4
"""in which masses are compared"""


def sigma_d0(table: Table) -> tuple[float, float]:
    """um."""
    return width(off_of(table, "d0") / UM)


def note_of(figures: Sequence[float | None], pt: float) -> float | None:
    """The figure at one of the MOMENTA."""
    return figures[MOMENTA.index(pt)]


def profile(table: Table) -> tuple[Floats, Floats]:
    """What d0 is off by in bins of phi, and errors [um]."""
    place = ((table["phi"] + np.pi) / (2 * np.pi) * BINS).astype(np.int64) % BINS
    off = off_of(table, "d0") / UM
    found = [mean(off[place == one]) for one in range(BINS)]
    values, errors = np.array(found).T
    return values, errors


def rms_of(values: Floats, errors: Floats) -> tuple[float, float]:
    """About their mean, without what their errors make of it; and its error."""
    square = values.var() - np.mean(errors**2)
    found = np.sqrt(max(square, 0.0))
    return float(found), float(np.sqrt(np.mean(errors**2) / len(values)))


def undamaged(pt: float, tables: Tables) -> list[Damage]:
    """Nothing wrong."""
    tracks = true_tracks(tables["tracks"])
    found = [
        Damage(
            TRUE,
            f"sigma d0, {pt:g} GeV",
            "um",
            sigma_d0(tracks),
            note_of(SIGMA_D0[TRUE], pt),
            fit(pt).d0 / UM,
        )
    ]
    if pt == STIFF:
        # A mean of 0.4 um in the note; how many tracks there are tells how well it is known.
        found.append(Damage(TRUE, "rms of d0 against phi", "um", rms_of(*profile(tracks)), 0.4, near=1.0))
    return found


def halves_off(
    name: str, belief: HalfBarrels, pt: float, tables: tuple[Tables, Tables], region: Region
) -> list[Damage]:
    """Half barrels of the pixels; `tables` are of true conditions, and of these."""
    real, tracks = (true_tracks(one["tracks"]) for one in tables)
    sigma, _ = sigma_d0(real)
    moved = shifted_d0(pt, tracks["true_phi"], belief.shift(tracks["true_phi"])) / UM
    expected = width_of_mixture(moved[:2000], sigma)
    figure = f"sigma d0, {pt:g} GeV"
    found = [Damage(name, figure, "um", sigma_d0(tracks), note_of(SIGMA_D0[name], pt), expected, 0.15)]
    if pt != STIFF:
        return found
    even = np.linspace(-np.pi, np.pi, 50 * BINS, endpoint=False)
    shape = shifted_d0(pt, even, belief.shift(even)).reshape(BINS, -1).mean(axis=1) / UM
    seen, errors = profile(tracks)
    rms, largest = PROFILE[name]
    found.append(
        Damage(name, "rms of d0 against phi about its mean", "um", rms_of(seen, errors), rms, shape.std(), 0.1)
    )
    top = np.abs(seen).argmax()
    at_most = (float(np.abs(seen)[top]), float(errors[top]))
    found.append(Damage(name, "largest of d0 against phi", "um", at_most, largest, np.abs(shape).max(), 0.1))
    middle = float(seen.mean()), float(np.sqrt(np.mean(errors**2) / BINS))
    found.append(Damage(name, "mean of d0 over phi", "um", middle, None, shape.mean(), 0.1, 2.0))
    if belief.times == 1:
        spread = np.hypot(sigma, UM * region.width_x / UM**2)
        off = 100 * beyond(moved, spread, 3 * spread)
        pull = about_beam(tracks, region) / np.hypot(error_of(tracks, "d0"), region.width_x)
        # The note has 18 %, of a Gaussian as wide as the rms of the profile: without the profile's mean of 28 um.
        found.append(
            Damage(
                name,
                "d0 about the beam beyond 3 errors (note: 18)",
                "%",
                _percent(share(abs(pull) > 3)),
                None,
                off,
                0.15,
            )
        )
    return found


def about_beam(tracks: Table, region: Region) -> Floats:
    """d0 about a luminous region [cm]."""
    along = tracks["z0"] - region.z
    x, y = region.x + region.dxdz * along, region.y + region.dydz * along
    found: Floats = tracks["d0"] - (x * np.sin(tracks["phi"]) - y * np.cos(tracks["phi"]))
    return found


def ladders_off(pt: float, real: Tables, draws: Sequence[Tables], um: float) -> list[Damage]:
    """Random shifts of the pixels' ladders."""
    sigma, _ = sigma_d0(true_tracks(real["tracks"]))
    seen = spread_of([sigma_d0(true_tracks(one["tracks"])) for one in draws])
    added = fit(pt).random(0, np.where(PIXELS, um, 0.0))
    return [
        Damage(
            LADDERS,
            f"sigma d0, {pt:g} GeV",
            "um",
            seen,
            note_of(SIGMA_D0[LADDERS], pt),
            float(np.hypot(sigma, added)),
            0.15,
        )
    ]


def spread_of(widths: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The root mean square of widths of several draws; its error tells the draws apart."""
    found = np.array([value for value, _ in widths])
    square = np.sqrt(np.mean(found**2))
    own = np.mean([error for _, error in widths]) / np.sqrt(len(found))
    if len(found) < 2:
        return float(square), float(own)
    return float(square), float(max(found.std(ddof=1) / np.sqrt(len(found)), own))


def beam_off(real: Tables, region: Region, um: tuple[float, float]) -> list[Damage]:
    """Tracks of 20 GeV about a luminous region that is believed elsewhere."""
    tracks = true_tracks(real["tracks"])
    believed = _moved(region, um)
    error = np.hypot(error_of(tracks, "d0"), region.width_x)
    sigma, _ = sigma_d0(tracks)
    own = float(np.hypot(sigma, region.width_x / UM))
    angle = np.linspace(-np.pi, np.pi, 360, endpoint=False)
    centres = um[0] * np.sin(angle) - um[1] * np.cos(angle)
    found = []
    for name, place, shift, notes in (
        (TRUE, region, 0 * centres, (18.8, 0.27)),
        (BEAM, believed, centres, (32.0, 7.5)),
    ):
        d0 = about_beam(tracks, place)
        # As a root mean square, as the note adds it up.
        square = float(np.std(d0 / UM))
        seen = square, square / np.sqrt(2 * len(d0))
        off = 100 * beyond(shift, own, 3 * own)
        figure = "d0 about the beam beyond 3 errors, 20 GeV"
        found += [
            Damage(name, "rms of d0 about the beam, 20 GeV", "um", seen, notes[0], np.hypot(own, shift.std()), 0.1),
            Damage(name, figure, "%", _percent(share(np.abs(d0 / error) > 3)), notes[1], off, 0.3, 0.5),
        ]
    return found


def _moved(region: Region, um: tuple[float, float]) -> Region:
    own = {name: getattr(region, name) for name in region.__dataclass_fields__}
    return Region(**{**own, "x": region.x + UM * um[0], "y": region.y + UM * um[1]})


def vertices_off(real: Tables, wrong: Tables, region: Region, um: tuple[float, float]) -> list[Damage]:
    """Vertices fitted with the beam: by which share of it they follow where the beam is believed."""
    found = []
    shift = UM * np.array(um)
    for name, tables in ((TRUE, real), (BEAM, wrong)):
        vertices = tables["vertices"]
        error = np.sqrt((vertices["cov_x_x"] + vertices["cov_y_y"]) / 2)
        own = (error > VERTEX_ERRORS[0]) & (error < VERTEX_ERRORS[1])
        off = np.stack([vertices[f"off_constrained_{axis}"][own] for axis in "xy"], axis=1)
        followed = mean(off @ shift / (shift @ shift))
        weight = np.mean(1 / (1 + region.width_x**2 / error[own] ** 2))
        figure = "share of it in vertices with the beam, of 22 um"
        if name == TRUE:
            found.append(Damage(TRUE, "the same, nothing off: vertices with the beam", "", followed, 0.0, near=0.05))
        else:
            found.append(Damage(name, figure, "", followed, 0.68, float(weight), 0.1))
    return found


# Masses. --------------------------------------------------------------------------------------------------------------


def of_resonance(tables: Tables, name: str) -> Table:
    """Pairs from it."""
    mass, window, _, _ = MASSES[name]
    pairs = tables["pairs"]
    own = np.abs(pairs["true_mass"] - mass) < window
    return {key: values[own] for key, values in pairs.items()}


def sigma_mass(pairs: Table) -> tuple[float, float]:
    """GeV."""
    return width(pairs["mass"] - pairs["true_mass"])


def mass_added(pairs: Table, spread: Sequence[float], tesla: float) -> float:
    """What a spread of the curvature [1/cm], at the momenta of GRID, adds to that of these masses [GeV]."""
    square = np.zeros(len(pairs["mass"]))
    for sign in ("plus", "minus"):
        pt = pairs[f"pt_{sign}"]
        square += (np.interp(pt, GRID, spread) * pt / (CURVATURE_GEV * tesla)) ** 2
    return float(np.sqrt(np.mean((pairs["true_mass"] / 2) ** 2 * square)))


def masses_off(
    name: str,
    real: Tables,
    draws: Sequence[Tables],
    shifts: tuple[float, float],
    detector: tuple[float, Sequence[Floats]],
) -> list[Damage]:
    """Widths of both resonances under shifts of ladders of these rms [um], of pixels and strips.

    `detector`: its field [T], and the errors of the clusters of each layer [cm].
    """
    found = []
    tesla, errors = detector
    spread = [random_curvature(pt, UM * np.where(PIXELS, *shifts), errors) for pt in GRID] if name != TRUE else []
    for one, (_, _, unit, scale) in MASSES.items():
        pairs = of_resonance(real, one)
        value, error = spread_of([sigma_mass(of_resonance(tables, one)) for tables in draws])
        figure, note, formula = f"sigma of the mass, {one}", SIGMA_M[name].get(one), None
        if name != TRUE:
            formula = scale * float(np.hypot(sigma_mass(pairs)[0], mass_added(pairs, spread, tesla)))
        if shifts[1] and note is not None:
            # The note's strips all have 25 um. Clusters have 10 to 25: those known best decide, and strips against
            # pixels, so that shifts of strips do up to 1.45 times what they would.
            figure, note = f"{figure} (note, of equal errors: {note:g})", None
        found.append(Damage(name, figure, unit, (scale * value, scale * error), note, formula, 0.2))
    return found


def paired(one: Table, other: Table) -> tuple[Table, Table]:
    """The rows of both that are of the same."""
    own = [np.unique(table["key"], return_index=True) for table in (one, other)]
    _, left, right = np.intersect1d(own[0][0], own[1][0], assume_unique=True, return_indices=True)
    places = own[0][1][left], own[1][1][right]
    first, second = (
        {name: values[place] for name, values in table.items()}
        for table, place in zip((one, other), places, strict=True)
    )
    return first, second


def scaled(belief: FieldScaled, real: Tables, wrong: Tables) -> list[Damage]:
    """A field that is believed larger."""
    notes = {"Z": 91.0, "J/psi": 3.1}
    found = []
    for name, note in notes.items():
        before, after = paired(of_resonance(real, name), of_resonance(wrong, name))
        moved = mean(1e3 * (after["mass"] - before["mass"]))
        formula = 1e3 * (belief.factor - 1) * mean(before["mass"])[0]
        found.append(Damage(FIELD, f"the mass moves, paired, {name}", "MeV", moved, note, formula, 0.03))
    peak = of_resonance(wrong, "J/psi")
    own = of_resonance(real, "J/psi")
    for condition, pairs, formula in ((FIELD, peak, 3.1), (TRUE, own, 0.0)):
        off = 1e3 * (pairs["mass"] - pairs["true_mass"])
        near = np.abs(off) < 60
        # Without a pair beside it: scattering and clusters move the peak by less than a MeV.
        found.append(Damage(condition, "mean J/psi off its mass", "MeV", mean(off[near]), None, formula, near=1.0))
    return found


def curled_tracks(pt: float, curl: Curl, real: Tables, wrong: Tables, tesla: float) -> list[Damage]:
    """Tracks of one momentum: nothing to be seen but in the curvature, which tracks alone do not tell."""
    before, after = paired(true_tracks(real["tracks"]), true_tracks(wrong["tracks"]))
    sigma = [sigma_d0(table) for table in (before, after)]
    chi2 = [table["chi2"].sum() / table["ndf"].sum() for table in (before, after)]
    moved = mean(1e4 * (after["curvature"] - before["curvature"]) / (CURVATURE_GEV * tesla))
    ratio = (sigma[1][0] / sigma[0][0], 0.0)
    own = f"{pt:g} GeV"
    found = [
        Damage(CURL, f"sigma d0 over the true one, {own}", "", ratio, None, 1.0, 0.03),
        Damage(CURL, f"chi2 / ndf over the true one, {own}", "", (chi2[1] / chi2[0], 0.0), None, 1.0, 0.03),
    ]
    if pt == STIFF:
        predicted = 1e4 * curl.curvature / (CURVATURE_GEV * tesla)
        found.append(Damage(CURL, "charge over pT moves, paired", "1e-4/GeV", moved, 1.8, predicted, 0.05))
        found.append(Damage(CURL, "rms of d0 against phi", "um", rms_of(*profile(after)), 0.0, near=1.0))
    return found


def curled_pairs(curl: Curl, real: Tables, wrong: Tables, tesla: float) -> list[Damage]:
    """Masses: as wide as before, and off with charge and pT in every bin of eta and phi."""
    before, after = paired(of_resonance(real, "Z"), of_resonance(wrong, "Z"))
    ratio = sigma_mass(after)[0] / sigma_mass(before)[0]
    predicted = 1e4 * curl.curvature / (CURVATURE_GEV * tesla)
    found = [Damage(CURL, "sigma of the mass over the true one, Z", "", (ratio, 0.0), None, 1.0, 0.05)]
    # Without what measurement adds: every bin moves as it should.
    bins, errors = curl_by_bin(after, np.log(after["mass"] / before["mass"]), np.full(len(after["mass"]), 1e-3))
    worst = int(np.abs(bins - predicted).argmax())
    figure = "by masses, paired, in the bin of (q, eta, phi) that is off most"
    found.append(Damage(CURL, figure, "1e-4/GeV", (float(bins[worst]), 0.0), None, predicted, 0.2))
    for condition, pairs, wanted in ((TRUE, before, 0.0), (CURL, after, predicted)):
        error = pairs["mass_error"] / pairs["mass"]
        bins, errors = curl_by_bin(pairs, np.log(pairs["mass"] / pairs["true_mass"]), error)
        weight = 1 / errors**2
        total = float(weight.sum()) or np.nan
        seen = float(np.sum(weight * bins)) / total, total**-0.5
        figure = f"by masses of {len(pairs['mass'])} Z, mean of {len(bins)} bins of (eta, phi)"
        found.append(Damage(condition, figure, "1e-4/GeV", seen, None, wanted, 0.1, 0.1))
    found.append(Damage(CURL, "the same in its errors", "", (abs(seen[0]) / seen[1], 1.0)))
    return found


def curl_by_bin(pairs: Table, change: Floats, error: Floats) -> tuple[Floats, Floats]:
    """The charge over pT that is added in each bin of (eta, phi) [1e-4/GeV], by relative changes of masses; and errors.

    d ln M = -1/2 sum of q pT a(eta, phi) over both muons: linear in a (physics note, 7.2).
    """
    bins = (len(ETA_EDGES) + 1) * PHI_BINS
    design = np.zeros((len(change), bins))
    rows = np.arange(len(change))
    for sign, charge in (("plus", 1.0), ("minus", -1.0)):
        turn = ((pairs[f"phi_vertex_{sign}"] + np.pi) / (2 * np.pi) * PHI_BINS).astype(np.int64) % PHI_BINS
        place = np.digitize(pairs[f"eta_{sign}"], ETA_EDGES) * PHI_BINS + turn
        np.add.at(design, (rows, place), -charge * pairs[f"pt_{sign}"] / 2)
    weighed = design / error[:, None] ** 2
    covariance = np.linalg.pinv(design.T @ weighed)
    variance = np.diagonal(covariance)
    # A bin without a muon has none.
    error_of_bin = 1e4 * np.sqrt(np.where(variance > 0, variance, np.inf))
    return 1e4 * covariance @ (weighed.T @ change), error_of_bin


def _percent(seen: tuple[float, float]) -> tuple[float, float]:
    return 100 * seen[0], 100 * seen[1]
