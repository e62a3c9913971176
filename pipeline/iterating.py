"""What is made of the conclusions of one pass: whether an iteration goes on, and what is said of how it ended. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from calib.calibration import Outcome
from calib.iteration import Ending
from pipeline.segments import Held

Note = Mapping[str, Any]
"""a conclusion as `pipeline.express.conclusion_note` gives it"""


def step_of(notes: Sequence[Note]) -> float | None:
    """The largest step that a pass has taken, in units of what is small; None if it has found nothing."""
    return max((float(note["moved"]) for note in notes if "moved" in note), default=None)


def found_by(notes: Sequence[Note], start: int) -> Held:
    """The payloads that a pass has found for a run that begins with a packed unit: each until the next, the first from
    the beginning of the run on."""
    ordered = sorted(notes, key=lambda note: int(note["first"]))
    since = [start, *(int(note["first"]) for note in ordered[1:])]
    found = zip(since, ordered, strict=False)
    return tuple((unit, str(note["payload"])) for unit, note in found if "moved" in note)


def told(notes: Sequence[Note], ending: Ending | None, steps: Sequence[float], remark: str = "") -> list[Note]:
    """The conclusions as they count, with how the iteration ended and what else there is to say of them.

    What has not converged is named so, and keeps its payload: people can have it published under their names.
    """
    sizes = ", ".join(f"{step:.3g}" for step in steps)
    counted = f"{len(steps)} iteration{'s' if len(steps) > 1 else ''} (steps {sizes}, small is 1)"
    found: list[Note] = []
    for note in notes:
        words, outcome = [note["message"]], note["outcome"]
        if "moved" in note and ending is Ending.CONVERGED and len(steps) > 1:
            words.append(f"converged in {counted}")
        elif "moved" in note and ending is not Ending.CONVERGED and note["moved"] > 1.0:
            outcome = Outcome.NOT_CONVERGED.value
            words.append(f"{ending} after {counted}")
        found.append({**note, "outcome": outcome, "message": "; ".join(filter(None, [*words, remark]))})
    return found
