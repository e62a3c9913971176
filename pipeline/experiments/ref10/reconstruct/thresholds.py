"""The settings of the reconstruction up to clusters."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Thresholds:
    """Cuts of unpacking and clustering; those of strips in units of the noise, those of pixels in electrons."""

    channel: float = 2.0
    """a strip takes part above this"""
    seed: float = 5.0
    """one strip of a cluster at least is above this"""
    cluster: float = 5.0
    """the sum of a cluster's strips, over their noise added in quadrature"""
    pixels: float = 4000.0
    """charge of a pixel cluster"""
    pixels_layer_1: float = 2000.0
    """the same in layer 1, whose radiation damage costs charge"""
    digis: int = 200_000
    """an event with more channels read out than this is not clustered"""
    clusters: int = 4000
    """an event with more is flagged; twenty vertices more than the first leave about 2 500"""
    large_strips: int = 30
    """a cluster of more strips is flagged; a track at 75 degrees leaves 15"""
    large_pixels: int = 100
    """a cluster of more pixels is flagged; a track at 75 degrees leaves 30"""


DEFAULT = Thresholds()
