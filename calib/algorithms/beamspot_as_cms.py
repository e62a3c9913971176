"""What CMS's rule of intervals looks at along a run: the eight numbers of the beam spot of each lumisection alone.

Physics note 1.6 (`AlcaBeamSpotManager::createWeightedPayloads`): a lumisection counts if its tracks and its vertices
were both fitted and the beam is at least 1 cm long; x and y may move by half of width_x or 25 um, z by half of sigma_z.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from calib.algorithms.beamspot_payload import PARAMETERS, Measured
from calib.boundaries import Block, Trend
from calib.collapsing import CMS_LEAST_MOVE, CMS_MOVES, Move

LEAST_LENGTH = 1.0
"""cm; a lumisection with a smaller sigma_z is left out"""


def seen_by_cms(blocks: Sequence[Block], alone: Sequence[Measured]) -> tuple[Trend, list[Move]]:
    """The trend that `calib.collapsing.collapse` cuts, and the move of each of its columns.

    `alone` is what each block says by itself. A number that no block of the run has is no column: without the z of
    tracks there are no slopes, without vertices no widths. A block that lacks one which others have is left out, as one
    that is not of type Tracker is, and one that is shorter than `LEAST_LENGTH`.
    """
    values = np.array([one.values for one in alone]).reshape(-1, len(PARAMETERS))
    errors = np.sqrt(np.array([np.diag(one.covariance) for one in alone]).reshape(values.shape))
    sigma_z, width_x = (values[:, PARAMETERS.index(name)] for name in ("sigma_z", "width_x"))
    floors = np.zeros_like(values)
    floors[:, :2] = np.fmax(CMS_LEAST_MOVE, width_x / 2)[:, None]
    floors[:, 2] = sigma_z / 2
    measured = np.isfinite(values).any(axis=0)
    values = np.where(sigma_z[:, None] < LEAST_LENGTH, np.nan, values)
    moves = [CMS_MOVES[name] for name, there in zip(PARAMETERS, measured, strict=True) if there]
    return Trend(blocks, values[:, measured], errors[:, measured], floors[:, measured]), moves
