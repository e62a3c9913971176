"""The tiny experiment in two stages: hits are scaled and cut, stored, and then moved by conditions of their own."""

from functools import partial
from pathlib import Path

import awkward as ak
import numpy as np

from calib.payload import Payload
from pipeline.experiments.interface import Processed, Restart
from pipeline.model import Step
from tests.pipeline.tiny import Tiny


class Staged(Tiny):
    """`scale` acts before the tier, `shift` and `offset` behind it. Where it writes down what it does, in `log`."""

    def __init__(self, settings=None, log: Path | None = None) -> None:
        super().__init__(settings)
        self.log = log

    def identify(self, source, start, stop):
        self.note(f"RAW {source.path.name}")
        return super().identify(source, start, stop)

    def process(self, step, events, conditions):
        hits = events["hit"] * number(conditions["scale"])
        hits = hits[hits < self.settings.cut]
        none = ak.to_numpy(ak.num(hits)) == 0
        return self.moved(step, hits[~none], conditions, {"no hit": none})

    def moved(self, step, hits, conditions, filtered):
        moved = hits - number(conditions["shift"])
        if step is Step.PROMPT:
            moved = moved - float(conditions["offset"]["mean"])
        return Processed({step.value.upper(): {"Hit_x": hits, "Hit_moved": moved}}, {"hit": moved}, filtered)

    def restarts(self, step):
        return (Restart(step.value.upper(), ("shift", "offset"), partial(self.again, step)),)

    def again(self, step, stored, conditions):
        self.note(f"again {step}")
        return self.moved(step, stored["Hit_x"], conditions, {})

    def needs(self, step):
        return ("scale", "shift", "offset") if step is Step.PROMPT else ("scale", "shift")

    def initial_conditions(self):
        return {**super().initial_conditions(), "scale": single("scale", 1.0), "shift": single("shift", 0.0)}

    def note(self, words: str) -> None:
        if self.log is not None:
            with self.log.open("a") as log:
                log.write(f"{words}\n")


def single(kind: str, value: float) -> Payload:
    """A payload of one number."""
    return Payload(kind, {"value": np.float64(value)})


def number(payload: Payload) -> float:
    """The number of a payload of one."""
    return float(payload["value"])
