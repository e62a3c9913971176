"""What prompt leaves for closure: the states of calibrations over what it measured under their own payloads.

They lie with the quality histograms, each under a name of its own: the kind, all that the state depends on beside the
pass, and the payloads it was measured under. What was measured under different payloads is never merged, and a pass
that goes on under other settings of accumulate leaves states under another name, which nobody takes for these.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calib.calibration import Calibration
from calib.payload import Conditions
from calib.state import State
from pipeline.columns import IDENTITY, length, take
from pipeline.datasets import Dataset
from pipeline.experiments.interface import Triggers
from pipeline.lineage import lineage
from pipeline.model import Columns
from pipeline.tally import is_express

MARK = "closure"
"""how the names of these states begin"""
_DIGITS = 16
"""of an id in a name: so many tell any two apart"""


def stem(calibration: Calibration, dataset: Dataset) -> str:
    """How the names of a calibration's states begin that a pass over a dataset leaves."""
    share = {} if calibration.closes_on == 1 else {"share": str(calibration.closes_on)}
    made_of = lineage(accumulate=calibration.accumulate_settings(), earlier=dataset.earlier, **share)
    return f"{MARK} {calibration.kind} {made_of[:_DIGITS]}"


def under(stem: str, payload_id: str) -> str:
    """How the names begin of those that were measured under one payload of their kind."""
    return f"{stem} {payload_id[:_DIGITS]}"


def accumulate_again(
    calibration: Calibration, dataset: Dataset, columns: Columns, conditions: Conditions
) -> dict[str, State]:
    """The state of these events, by its name. None where the pass has not what the calibration reads or uses, or no
    payload of its kind to be held to."""
    used = {kind: conditions.ids[kind] for kind in calibration.uses if kind in conditions and kind != calibration.kind}
    lacking = set(calibration.uses) - {*used, calibration.kind} or set(calibration.reads) - set(columns)
    if calibration.kind not in conditions or lacking:
        return {}
    read = {
        name: columns[name] for name in (*IDENTITY, *calibration.reads, *calibration.reads_if_there) if name in columns
    }
    if calibration.closes_on < 1:
        read = take(read, is_express(np.asarray(columns["event"]), calibration.closes_on))
    state = calibration.accumulate(calibration.corrected(read, conditions), conditions)
    name = under(stem(calibration, dataset), conditions.ids[calibration.kind])
    return {f"{name} {lineage(**used)[:_DIGITS]}" if used else name: state}


def counted_here(triggers: Triggers, dataset: Dataset, events: Columns) -> NDArray[np.bool_]:
    """Which of a dataset's events count here, and in no other one of the run. Of a tier that has not kept what they
    fired, none, where some could count elsewhere."""
    number, alone = length(events), not (dataset.triggers and dataset.earlier)
    if alone or not set(triggers.columns) <= set(events):
        return np.full(number, alone)
    return dataset.counts(triggers.fired(events), number)
