"""What is noted about a track, as bits."""

from __future__ import annotations

from enum import IntFlag


class TrackFlag(IntFlag):
    """Of a track; column `flags`."""

    TOO_FEW = 1
    """fewer than 3 hits, or fewer measurements than parameters"""
    SINGULAR = 2
    """its hits do not fix all parameters: identical ones, or none that tells z"""
    UNREACHED = 4
    """a hit lies where the helix does not come, or meets the sensor at less than 3 degrees"""
    UNSETTLED = 8
    """the last step of the fit still moved it by a good part of its errors: far from a helix, or from its start"""
    STRAIGHT = 16
    """curvature less than its error: charge and pT are guesses"""
    NO_FIELD = 32
    """the field is off: no momentum (pT and charge 0), scattering as of 1 GeV"""


FAILED = TrackFlag.TOO_FEW | TrackFlag.SINGULAR
"""a track with one of these has no parameters: they are 0, and their variances so large that nothing weighs it"""
