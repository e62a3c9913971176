"""The settings of the search for tracks."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.experiments.ref10.layers import LAYERS


@dataclass(frozen=True)
class Search:
    """What tracks are looked for, and how much is combined for them."""

    curvature: float = 0.0285
    """largest [1/cm]: that of 0.4 GeV in 3.8 T. Less than that does not reach the outermost layers"""
    stiffness: float = 0.01139
    """pT [GeV] times curvature [1/cm] of the design's 3.8 T: what scattering is reckoned by, within some per cent"""
    d0: float = 0.2
    """largest distance from the z axis [cm]; beams meet within 0.1 cm of it"""
    z0: float = 16.0
    """largest |z| [cm] at the axis, three and a half widths of the luminous region"""
    sigmas: float = 5.0
    """of hit and scattering together, within which a hit belongs to a track"""
    hits: int = 8
    """least number on a track, each in a layer of its own"""
    pixel_hits: int = 3
    """least number of these from pixels"""
    combinations: int = 100_000
    """an event with more pairs of hits, triplets or continuations to be tried at once is flagged, and has no
    tracks; five hundred tracks make some 10 000"""
    at_once: int = 200_000
    """combinations worked on at a time, some 200 bytes for each; does not show in the result"""

    def __post_init__(self) -> None:
        if not 3 <= self.pixel_hits <= self.hits <= len(LAYERS):
            raise ValueError(f"tracks have 3 hits of pixels or more, of {len(LAYERS)} at the most: not as {self}")


DEFAULT = Search()
