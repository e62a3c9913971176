"""What is noted about a vertex, as bits."""

from __future__ import annotations

from enum import IntFlag


class VertexFlag(IntFlag):
    """Of a vertex; columns `flags`, and `constrained_flags` of the fit with the beam."""

    SINGLE = 1
    """fewer than two tracks take part: it lies on a track, somewhere in the beam pipe"""
    UNFIXED = 2
    """its tracks leave more than 1 mm open across the beam, being parallel or identical: the beam pipe has a say"""
    FAR = 4
    """more than 1 mm from where its tracks were taken as straight lines"""
    UNSETTLED = 8
    """the last step still moved it by more than 1 um"""
    NO_WIDTHS = 16
    """the beam spot does not tell all of its widths: those it lacks do not constrain"""


UNRELIABLE = VertexFlag.SINGLE | VertexFlag.UNFIXED
"""with one of these it is no measurement in space; the covariance says so too"""
