"""How the conditions of one run are made and judged, and what is asked for to make them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from calib.calibration import Calibration, Granularity, Outcome
from calib.gates import Gate, judge
from calib.iteration import Iterated
from calib.payload import PayloadStore
from pipeline.express import FinalizeWork, StateFile
from pipeline.handshake import Judged, OpenSpan


@dataclass(frozen=True)
class Ask:
    """A finalization that may start now: on behalf of `run`, over these states."""

    run: int
    work: FinalizeWork
    states: tuple[StateFile, ...]


@dataclass(frozen=True)
class Link:
    """How the conditions of a run are made and judged."""

    calibration: Calibration
    gates: tuple[Gate, ...] = ()
    span: OpenSpan = OpenSpan.WAIT
    """what a run does whose interval may go on into the next"""

    @property
    def goes_on(self) -> bool:
        """Whether a run need not wait until its span is closed."""
        return self.spans and self.span is not OpenSpan.WAIT

    @property
    def spans(self) -> bool:
        """Whether an interval may go on into the next run."""
        return self.calibration.granularity is Granularity.SPAN

    @property
    def relative(self) -> bool:
        """Whether some gate compares with the payload in force."""
        return any(gate.relative for gate in self.gates)

    @property
    def ordered(self) -> bool:
        """Whether a run must wait for what becomes of the runs before it."""
        return self.spans or self.looks_back or self.relative

    @property
    def looks_back(self) -> bool:
        """Whether finalize looks at the payload that the run before leaves; of a calibration that iterates, what it
        looks at goes with the state."""
        return self.calibration.looks_at_previous and not isinstance(self.calibration, Iterated)

    def judge(self, note: Mapping[str, Any], in_force: str | None, store: PayloadStore) -> Judged:
        """A conclusion with the verdict of the gates; `in_force` is the payload id they compare with, if one does."""
        first, last, outcome = int(note["first"]), int(note["last"]), Outcome(note["outcome"])
        vetoed, remark = tuple(note["vetoed"]), note["message"]
        if outcome is not Outcome.MADE:
            return Judged(first, last, outcome, note["payload"], why=remark, vetoed=vetoed)
        payload_id = str(note["payload"])
        verdict = judge(store.get(payload_id), store.get(in_force) if in_force else None, self.gates, store.find)
        why = "; ".join(filter(None, [*verdict.reasons, remark]))
        judged = Judged(first, last, outcome, payload_id, verdict.decision, why, bool(note["unconfirmed"]), vetoed)
        return replace(judged, measures=verdict.measures, held_to=(in_force or "") if self.relative else None)
