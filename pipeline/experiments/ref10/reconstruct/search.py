"""The settings of the search for tracks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.experiments.ref10.layers import LAYERS

PIXELS = sum(layer.pixel for layer in LAYERS)
"""layers of pixels, the inner ones"""


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
    placed: float = 0.01
    """how well it is known where sensors lie [cm] before they are aligned: half barrels are off by up to 80 um, ladders
    of strips by 50. Without it stiff tracks are lost, of those above 5 GeV one in fifteen"""
    sigmas: float = 5.0
    """of hit, scattering and placement together, within which a hit belongs to a track"""
    hits: int = 8
    """least number on a track, each in a layer of its own"""
    pixel_hits: int = 3
    """least number of these from pixels"""
    tried: int = 2_000_000
    """an event in which more pairs of hits, triplets or continuations would have to be tried is flagged, and has no
    tracks; five hundred tracks want some 50 000"""
    kept: int = 100_000
    """the same for those of them that are kept, 1 kB each; five hundred tracks leave some 5 000 pairs"""
    at_once: int = 200_000
    """combinations worked on at a time, some 200 bytes for each; does not show in the result"""

    def __post_init__(self) -> None:
        if not 3 <= self.pixel_hits <= self.hits <= len(LAYERS):
            raise ValueError(f"tracks have 3 hits of pixels or more, of {len(LAYERS)} at the most: not as {self}")

    def enough(self, there: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Whether hits on these layers, [n, 10], are enough for a track."""
        found: NDArray[np.bool_] = (there.sum(axis=1) >= self.hits) & (there[:, :PIXELS].sum(axis=1) >= self.pixel_hits)
        return found


DEFAULT = Search()
