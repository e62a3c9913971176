"""Errors that carry a clear word for the user, and need no traceback."""

from __future__ import annotations

from calib.calibration import NotEnoughData
from calib.payload import PayloadDamaged, PayloadMissing
from calib.tags import ConditionsError
from jobs.cluster_settings import ClusterRefused
from jobs.ledger import SecondDriver, StaleEpoch
from jobs.runner import SchedulerLost
from pipeline.authority import NotAllowed
from pipeline.certify import BadMask
from pipeline.conditions_words import Refused
from pipeline.database import DatabaseRefused
from pipeline.experiments.registry import UnknownExperiment
from pipeline.experiments.simulated import BadOrder, OtherData
from pipeline.holds import Stopped
from pipeline.operations import NoEffect
from pipeline.orders import NoReason
from pipeline.plots import NothingToPlot
from pipeline.settings import SettingsError
from pipeline.site import SiteStopped
from pipeline.tier0 import NoFiles

SITE = (SiteStopped, SecondDriver, StaleEpoch, SchedulerLost, Stopped)
"""the site is at fault: the same command goes on once it is mended"""

_ASKED_WRONGLY = (
    BadMask,
    BadOrder,
    ClusterRefused,
    ConditionsError,
    DatabaseRefused,
    LookupError,
    NoEffect,
    NoFiles,
    NoReason,
    NotAllowed,
    NotEnoughData,
    NothingToPlot,
    OtherData,
    PayloadDamaged,
    PayloadMissing,
    Refused,
    SettingsError,
    UnknownExperiment,
)


def refused(problem: Exception) -> bool:
    """Whether the message alone tells the user what to do."""
    if isinstance(problem, OSError):
        return problem.filename is not None  # which file cannot be read or written, and why
    # A KeyError or IndexError out of the depths is a fault of the program, and its traceback is wanted.
    return isinstance(problem, _ASKED_WRONGLY) and not isinstance(problem, KeyError | IndexError)
