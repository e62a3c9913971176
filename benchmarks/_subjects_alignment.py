"""Toys of the alignment: half barrels of the pixels, and their ladders."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks._calibration_toys import Floats, Found, Quantity, Subject, Toys, independent
from benchmarks._toys_alignment import LADDERS, LEVELS, PIXELS, Play, played
from calib.algorithms.alignment import Alignment
from calib.algorithms.alignment_equations import Totals
from calib.algorithms.alignment_payload import nominal
from calib.payload import Payload

STRUCTURES = sum(count for _, count in LEVELS)
HALVES, FIRST_LADDER = 2, LEVELS[0][1]
OF_PIXELS = int(LADDERS[:PIXELS].sum())
STEREO = 0.1
MOVED = np.array([(50.0, -30, 40), (-20, 60, -80)])
"""um (physics note, 9.2)"""
SPREAD = 20.0
"""um"""
DRAWN = nominal(dict(LEVELS))


def passes(calibration: Alignment, seed: int, play: Play, truth: Floats) -> tuple[Payload, Any]:
    """Two over the same tracks, the second where the first has put structures; and the sums of that."""
    structures, under, state = calibration.structures, DRAWN, None
    for _ in range(2):
        state = calibration.accumulate(played(seed, play, truth - structures.values(under)), {"alignment": under})
        under = calibration.finalize(state, under)
    return under, state


def covariance(calibration: Alignment, state: Any) -> Floats:
    """Of what is free, from the information that all records have of it [um^2]."""
    structures = calibration.structures
    totals = Totals.of(state, structures, len(calibration.cuts))
    return np.linalg.inv(totals.system(structures, structures.values(DRAWN), structures.is_free).matrix)


def half_barrels(rng: np.random.Generator, size: int, small: bool) -> Found:
    """So many tracks; both half barrels free along all axes."""
    calibration = Alignment(levels=LEVELS, free=("half_barrel 0-1: x y z",), min_records=100, min_entries=10)
    truth = np.zeros((STRUCTURES, 6))
    truth[:HALVES, :3] = MOVED
    off, error, every = [], [], []
    for _ in range(2 if small else TOYS[size]):
        payload, state = passes(calibration, int(rng.integers(1 << 31)), Play(size, stereo=STEREO), truth)
        off.append(payload["half_barrel"][:HALVES, :3] * 1e4 - MOVED)
        error.append(payload["half_barrel_error"][:HALVES, :3] * 1e4)
        every.append(covariance(calibration, state))
    both, places = np.mean(every, axis=0), {"x, y": [0, 1, 3, 4], "z": [2, 5]}
    axes = {"x, y": slice(2), "z": slice(2, 3)}
    found = {}
    for name, expected in (("x, y", 90 / np.sqrt(size)), ("z", None)):
        part = both[np.ix_(places[name], places[name])]
        bound = float(np.sqrt(np.diag(part).mean()))
        values, errors = (np.array(one)[:, :, axes[name]].ravel() for one in (off, error))
        own = part / np.sqrt(np.diag(part)) / np.sqrt(np.diag(part))[:, None]
        found[name] = Toys(
            size,
            values,
            errors,
            bound,
            bound if expected is None else expected,
            of_mean=float(own.mean()) / len(off),
            alone=independent(own) * len(off),
        )
    return Found(found)


TOYS = {1000: 120, 3000: 80, 10_000: 60}


def ladders(rng: np.random.Generator, size: int, small: bool) -> Found:
    """So many tracks in all; the ladders of the pixels free along all axes.

    u is across the beam in the plane of a ladder. All ladders together may turn about the beam, which tracks tell less
    well: of that the note's figure, an rms of what is left, knows nothing, so the mean of all is taken off. What is
    found too far along the move that was made counts as above 0.
    """
    calibration = Alignment(
        levels=LEVELS, free=(f"ladder 0-{OF_PIXELS - 1}: x y z",), min_records=100, min_entries=5, weak_error=1e3
    )
    project, own = about_mean(), slice(FIRST_LADDER, FIRST_LADDER + OF_PIXELS)
    off, pulls, every = [], [], []
    for _ in range(1 if small else LADDER_TOYS[size]):
        truth = np.zeros((STRUCTURES, 6))
        truth[own, :3] = SPREAD * rng.standard_normal((OF_PIXELS, 3))
        payload, state = passes(calibration, int(rng.integers(1 << 31)), Play(size, stereo=STEREO), truth)
        moved, away = (project @ of.ravel() for of in (truth[own, :3], payload["ladder"][:OF_PIXELS, :3] * 1e4))
        known = covariance(calibration, state)
        # The errors that the payload claims, with the correlations of the information.
        claimed = payload["ladder_error"][:OF_PIXELS, :3].ravel() * 1e4 / np.sqrt(np.diag(known))
        variances = project @ (known * claimed * claimed[:, None]) @ project.T
        off.append((away - moved) * np.sign(moved))
        every.append(variances * np.sign(moved) * np.sign(moved)[:, None])
        # One axis is the mean that was taken off.
        squared, axes = (of[..., 1:] for of in np.linalg.eigh(variances))
        pulls.append((axes.T @ (away - moved)) * np.sign(axes.T @ moved) / np.sqrt(squared))
    errors = np.sqrt(np.concatenate([np.diag(one) for one in every]))
    bound = float(np.sqrt(np.mean(errors**2)))
    toys = Toys(
        size,
        np.concatenate(off),
        errors,
        bound,
        290 / np.sqrt(size),
        of_mean=float(np.mean([one.mean() for one in every])) / bound**2 / len(off),
        alone=sum(independent(one) for one in every),
        along_axes=np.concatenate(pulls),
    )
    return Found({"u about the mean": toys})


LADDER_TOYS = {5000: 20, 10_000: 40, 20_000: 30}
"""of which each is worth some nine independent ladders"""


def about_mean() -> Floats:
    """From x, y and z of all ladders to their u, less the mean of all, [ladders, 3 ladders]."""
    place = np.concatenate([2 * np.pi * (np.arange(number) + 0.5) / number for number in LADDERS[:PIXELS]])
    project = np.zeros((OF_PIXELS, OF_PIXELS, 3))
    project[np.arange(OF_PIXELS), np.arange(OF_PIXELS)] = np.stack([-np.sin(place), np.cos(place), 0 * place], axis=1)
    found: Floats = (project - project.mean(axis=0)).reshape(OF_PIXELS, -1)
    return found


NOTE = "physics note, 10"
LADDERS_NOTE = f"{NOTE}: 200 to 290 um / sqrt(N), taken as 290; of so few tracks as 5000 it has none"
SHOWN = 1_000_000
"""a size that there is none of: such a quantity is not judged"""
INFORMATION = "information of the tracks, their own parameters eliminated (tests hold it against a dense inversion)"
TRACKS = "pT = 3 + Exp(1) GeV from the beam line, scattered layer by layer; strips of layers 5 and 8 turned by 0.1 rad"
SUBJECTS = (
    Subject(
        "alignment, half barrels",
        "Where the two half barrels of the pixels are, with the strips as reference. Normal equations of all tracks "
        "(Millepede), from which the tracks' own parameters are eliminated.",
        {
            "moved": "by (50, -30, 40) and (-20, 60, -80) um",
            "tracks": TRACKS,
            "calibration": "half_barrel 0-1: x y z; two passes over the same tracks",
        },
        (
            Quantity("x, y", "um", "tracks", INFORMATION, f"{NOTE}: 70 to 90 um / sqrt(N), taken as 90"),
            Quantity("z", "um", "tracks", INFORMATION, "the bound: the note has none, so it is shown only", SHOWN),
        ),
        (1000, 3000, 10_000),
        (300,),
        half_barrels,
    ),
    Subject(
        "alignment, ladders",
        "Where the 102 ladders of the pixels are, with the strips as reference. The same equations for 306 numbers.",
        {
            "moved": "every ladder by a Gaussian of 20 um along each axis",
            "tracks": TRACKS,
            "calibration": "ladder 0-101: x y z; two passes over the same tracks",
            "u": "across the beam in the plane of the ladder, about the mean of all ladders, which may turn together; "
            "too far along the move that was made counts as above 0",
            "errors": "those that the payload claims of x, y and z, correlated as the information of the tracks says",
            "values": "ladders of a toy are off together, by smooth waves around the beam that tracks tell least: the "
            "102 are worth nine independent ones, and errors of the RMS are by that",
            "pulls": "along the axes of the covariance, 101 a toy, which are independent",
        },
        (
            Quantity(
                "u about the mean",
                "um",
                "tracks",
                INFORMATION,
                f"{NOTE}: 200 to 290 um / sqrt(N), taken as 290",
                10_000,
            ),
        ),
        (5000, 10_000, 20_000),
        (1000,),
        ladders,
    ),
)
