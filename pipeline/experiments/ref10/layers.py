"""The ten layers of REF10, as a table. Lengths in cm, angles in rad."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi, sin, tan

STRIPS = 768
"""strips of a strip module: 6 chips of 128"""
CHIP = 128
"""strips that share a readout chip (APV), and so a common mode and a gain"""
CHIPS = STRIPS // CHIP
ROC = (80, 52)
"""rows and columns of pixels that share a readout chip (ROC)"""
Z_MODULES = 10

PIPE_RADIUS = 2.2
PIPE_X0 = 0.004
"""material of the beam pipe, in radiation lengths at normal incidence"""


@dataclass(frozen=True)
class Layer:
    """Flat ladders, tangent to a cylinder; `columns` is 1 for strips, whose pitch along v is their length."""

    number: int
    radius: float
    ladders: int
    rows: int
    """channels along u"""
    columns: int
    """channels along v"""
    pitch_u: float
    pitch_v: float
    spacing: float
    """from one module to the next along z; what the sensitive length lacks of it is dead"""
    thickness: float
    x0: float
    """material in radiation lengths at normal incidence"""
    stereo: float = 0.0
    """by how much u and v are turned about the outward normal, of flipped ladders too"""

    @property
    def pixel(self) -> bool:
        """Whether it has pixels, not strips."""
        return self.columns > 1

    @property
    def width(self) -> float:
        """Sensitive length along u."""
        return self.rows * self.pitch_u

    @property
    def length(self) -> float:
        """Sensitive length along v."""
        return self.columns * self.pitch_v

    @property
    def missed(self) -> float:
        """The share of stiff tracks that go through no sensor of the layer: between two along z, or at their corners.

        Seen from the axis sensors are rectangles of width by length on a grid of A = 2 r tan(pi / ladders) by the
        spacing B. Turned by the stereo angle each leaves a corner to nobody, A c + B s - width by A s + B c - length;
        upright ones leave what the length lacks of the spacing. Where sensors reach over each other, nothing.
        """
        across, along = 2 * self.radius * tan(pi / self.ladders), self.spacing
        turn, lean = cos(self.stereo), abs(sin(self.stereo))
        if self.stereo:
            wide, long = across * turn + along * lean - self.width, across * lean + along * turn - self.length
            return max(wide, 0.0) * max(long, 0.0) / (across * along)
        return 1 - min(self.width / across, 1.0) * min(self.length / along, 1.0)


def _pixels(number: int, radius: float, ladders: int, rows: int, x0: float, pitch_u: float = 0.01) -> Layer:
    return Layer(number, radius, ladders, rows, 432, pitch_u, 0.015, 6.5, 0.0285, x0)


def _strips(
    number: int, radius: float, ladders: int, thickness: float, pitch_u: float = 0.0128, stereo: float = 0.0
) -> Layer:
    return Layer(number, radius, ladders, STRIPS, 1, pitch_u, 18.3, 18.3, thickness, 0.02, stereo)


# A flat ladder closes the circle when its width is 2 r tan(pi / n): layers 1 and 5 would lack 0.5 and 1.2 % of it with
# the pitch of the others, hence 101 and 130 um. What is still missed (`missed`) is 0.3 % of the tracks by each layer of
# pixels, 0.9 % by layer 5, and nothing by the others. The stereo layer 5 sees z, which no other strip layer does to
# better than 5 cm: without it the alignment could not tell where the pixels are along z.
LAYERS = (
    _pixels(1, 3.0, 12, 160, 0.020, pitch_u=0.0101),
    _pixels(2, 7.0, 20, 224, 0.015),
    _pixels(3, 11.0, 30, 232, 0.015),
    _pixels(4, 16.0, 40, 256, 0.015),
    _strips(5, 25.0, 16, 0.032, pitch_u=0.0130, stereo=0.100),
    _strips(6, 34.0, 22, 0.032),
    _strips(7, 43.0, 28, 0.032),
    _strips(8, 52.0, 34, 0.050),
    _strips(9, 61.0, 40, 0.050),
    _strips(10, 70.0, 46, 0.050),
)
