"""What is noted about an event and about a cluster, as bits."""

from __future__ import annotations

from enum import IntFlag


class EventFlag(IntFlag):
    """Of an event; column `reco_flags`."""

    TOO_MANY_DIGIS = 1
    """more digis than the limit: it has no clusters"""
    BAD_DIGIS = 2
    """digis of unknown modules or channels, of impossible counts, or repeated: left out"""
    UNSORTED = 4
    """its digis were not in the order of modules and channels: they were sorted"""
    BAD_NZS = 8
    """blocks without zero suppression of unknown modules, wrong length or impossible counts: left out"""
    CROWDED = 16
    """more clusters than the limit: whatever combines them has to be careful"""
    UNCOMBINED = 32
    """more combinations of hits than the limit: tracks were not looked for"""


class ClusterFlag(IntFlag):
    """Of a cluster; column `Cluster_flags`. All of them widen the errors of its position."""

    SATURATED = 1
    """a channel at its largest count: charge is missing"""
    EDGE = 2
    """touches the border of the sensor: charge may be missing"""
    LARGE = 4
    """of more channels than a track leaves"""
    NEAR_MASKED = 8
    """beside a masked channel: charge may be missing"""
    BRIDGED = 16
    """reaches over a masked strip: charge is missing"""
